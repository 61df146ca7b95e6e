"""`modus lab`: what it starts, measures, leaves, and leaves behind. That its statements are right is for
tests/unit/test_lab_verdict.c, and its page for test_lab_page.py."""
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Sequence

import pytest

from lib import proc
from lib.clock import SLOW, eventually
from lib.config import Listener
from lib.models import MODELS
from lib.server import BINARY
from lib.site import BASIC_ROUTES

pytestmark = [pytest.mark.slow, pytest.mark.limit(120)]


def lab(folder: Path, *words: str) -> dict:
    done = subprocess.run([BINARY, "lab", "--out", "out", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out" / "results.json").read_text())


def series(results: dict, load: str, server: str, gil: bool = False) -> dict:
    return next(s for s in results["series"] if (s["load"], s["server"], s["gil"]) == (load, server, gil))


def folders() -> set[Path]:
    return set(Path("/tmp").glob("modus-lab-*"))


def test_whole_run(tmp_path) -> None:
    """Who waits needs places: of eight workers and of coroutines it is known who answers more."""
    before = folders()
    results = lab(tmp_path, "--models", "prefork,coroutine", "--loads", "wait,hello", "--connections", "32", "--seconds", "1", "--repeat", "2")
    assert results["whole"] and len(results["series"]) == 5  # wait with the lock, too, where it can be
    assert {len(s["rounds"]) for s in results["series"]} == {2}
    for s in results["series"]:
        for r in s["rounds"]:
            assert r["error"] is None and set(r["errors"].values()) == {0} and r["requests"] > 0
            assert r["cpu_us"] > 0 and r["pss_kib"] > 500 and r["processes"] >= 2
            assert r["latency"], "a histogram"
    slow, fast = (series(results, "wait", name)["rounds"][1] for name in ("prefork", "coroutine"))
    assert 100 < slow["rps"] < 165 and fast["rps"] > 500
    assert slow["busy"] == 1 and slow["p50_us"] > fast["p50_us"] > 50_000
    assert folders() == before, "its files are gone"
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_notes_and_lock(tmp_path) -> None:
    """What waits is not hindered by the interpreter lock, and what computes has one CPU."""
    results = lab(tmp_path, "--quick", "--models", "process,prefork,thread-pool", "--loads", "wait-notes,compute-notes")
    seconds = {(s["load"], s["server"], s["gil"]): s["rounds"][0]["seconds"] for s in results["series"]}
    assert seconds["wait-notes", "process", False] < 0.75 * SLOW
    assert seconds["wait-notes", "thread-pool", False] < 0.75 * SLOW and seconds["wait-notes", "thread-pool", True] < 0.75 * SLOW
    assert seconds["wait-notes", "prefork", False] > 13 * 0.5
    locked = series(results, "compute-notes", "thread-pool", gil=True)["rounds"][0]
    assert locked["gil_held"] > 0.5


def test_open_loop_mixed_and_idle(tmp_path) -> None:
    results = lab(tmp_path, "--quick", "--models", "process,event-loop", "--loads", "mixed,idle")
    for s in results["series"]:
        assert s["rounds"][0]["error"] is None and set(s["rounds"][0]["errors"].values()) == {0}
    idle = {name: series(results, "idle", name)["rounds"][0] for name in ("process", "event-loop")}
    each = {name: (r["pss_kib"] - r["pss_idle_kib"]) / 1000 for name, r in idle.items()}
    assert idle["process"]["processes"] > 1000 and each["process"] > 20 * each["event-loop"]


def late(s: dict) -> float:
    """The share of answers that took 100 ms and more."""
    buckets = s["rounds"][0]["latency"]["buckets"]
    return sum(n for us, n in buckets if us >= 100_000) / sum(n for _, n in buckets)


def test_a_closed_loop_hides_a_stall(tmp_path) -> None:
    """Half a second of one: who asks at a fixed rate sees it in every fourth answer."""
    results = lab(tmp_path, "--loads", "stall-closed,stall-open", "--repeat", "1")
    [closed] = [s for s in results["series"] if s["load"] == "stall-closed"]
    [opened] = [s for s in results["series"] if s["load"] == "stall-open"]
    assert closed["server"] == opened["server"] == "event-loop"
    assert all(s["rounds"][0]["max_us"] > 450_000 and set(s["rounds"][0]["errors"].values()) == {0} for s in (closed, opened))
    assert late(closed) < 0.05 and 0.15 < late(opened) < 0.35
    assert "What a closed loop hides" in (tmp_path / "out" / "report.html").read_text()


def test_killed_while_its_server_is_stopped(tmp_path) -> None:
    before = folders()
    words = ["--loads", "stall-open", "--models", "event-loop", "--seconds", "2"]
    with Running(tmp_path, words, "1 of") as (running, tree):
        eventually(lambda: any(proc.state(pid) == "T" for pid in tree))
        running.kill()
        running.wait()
        eventually(lambda: not any(proc.is_alive(pid) for pid in tree), within=5)
    for folder in folders() - before:
        subprocess.run(["rm", "-r", folder], check=True)


def test_foreign_server(tmp_path, serve) -> None:
    """Of one that is not the lab's only the answers are known."""
    model = MODELS[0]
    server = serve(model, Listener("main", model.name, BASIC_ROUTES))
    url = f"http://{server['main'].text}"
    results = lab(tmp_path, "--models", "event-loop", "--loads", "hello", "--connections", "8", "--seconds", "1", "--repeat", "1", "--against", url)
    foreign = series(results, "hello", url)["rounds"][0]
    assert foreign["rps"] > 100 and foreign["cpu_us"] is None and foreign["pss_kib"] is None
    assert series(results, "hello", "event-loop")["rounds"][0]["cpu_us"] > 0


def tree(pid: int) -> list[int]:
    """What descends from it."""
    return [p for child in proc.children(pid) for p in (child, *tree(child))]


class Running:
    """A run that would take long. Gives the lab once it measures, and its servers."""

    def __init__(self, folder: Path, words: Sequence[str] = ("--models", "prefork,event-loop", "--loads", "hello"), at: str = "2 of") -> None:
        self.lab = subprocess.Popen([BINARY, "lab", "--out", "out", *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.at = at

    def __enter__(self) -> tuple[subprocess.Popen, list[int]]:
        while not self.lab.stderr.readline().strip().startswith(self.at):
            assert self.lab.poll() is None
        return self.lab, tree(self.lab.pid)

    def __exit__(self, *_) -> None:
        if self.lab.poll() is None:
            self.lab.kill()
        self.lab.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_interrupted(tmp_path, number: signal.Signals) -> None:
    """It ends soon, with what it has, and says so."""
    before = folders()
    with Running(tmp_path) as (running, tree):
        running.send_signal(number)
        out, _ = running.communicate(timeout=20 * SLOW)
        assert running.returncode == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert not results["whole"] and results["series"][0]["rounds"]
    assert not any(proc.is_alive(pid) for pid in tree) and folders() == before


def test_killed(tmp_path) -> None:
    """Nothing that it has started outlives it."""
    before = folders()
    with Running(tmp_path) as (running, tree):
        running.kill()
        running.wait()
        eventually(lambda: not any(proc.is_alive(pid) for pid in tree), within=5)
    for folder in folders() - before:
        subprocess.run(["rm", "-r", folder], check=True)


def test_temporary_files_go_where_they_are_asked_to(tmp_path) -> None:
    done = subprocess.run([BINARY, "lab", "--loads", "idle"], cwd=tmp_path, env={**os.environ, "TMPDIR": "/no/such"}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "modus lab: cannot make a folder in /no/such: No such file or directory\n"


def test_without_wrk(tmp_path) -> None:
    done = subprocess.run([BINARY, "lab", "--loads", "hello"], cwd=tmp_path, env={"PATH": "/nowhere"}, capture_output=True, text=True)
    assert done.returncode == 1 and "modus lab: wrk is not in PATH: install the package wrk\n" in done.stderr


@pytest.mark.parametrize(
    "words, why",
    [
        (["--loads", "hallo"], 'there is no load "hallo": see modus lab --help'),
        (["--models", "treads"], 'there is no model "treads": see modus models'),
        (["--connections", "0"], '--connections wants up to 4 numbers from 1 to 100000, not "0"'),
        (["--seconds", "0.5"], '--seconds wants a number from 1 to 600, not "0.5"'),
        (["--repeat", "x"], '--repeat wants a number from 1 to 100, not "x"'),
        (["--against", "nginx"], "nginx is no URL that can be loaded: it must begin with http:// or https://"),
        (["word"], 'it takes no word like "word"'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words(tmp_path, words: list[str], why: str) -> None:
    done = subprocess.run([BINARY, "lab", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"modus lab: {why}\n") and "usage: modus lab" in done.stderr
    assert not list(tmp_path.iterdir())


def test_no_folder_to_write_to(tmp_path) -> None:
    (tmp_path / "out").write_text("")
    done = subprocess.run([BINARY, "lab", "--out", "out/deep", "--loads", "hello"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "modus lab: cannot make out/deep: Not a directory\n" in done.stderr
