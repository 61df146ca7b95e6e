"""`modus lab`: what it starts, measures, leaves, and leaves behind. That its statements are right is for
tests/unit/test_lab_verdict.c, and its page for test_lab_page.py."""
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Callable, Sequence

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
    assert 100 < slow["rps"] < 165 and fast["rps"] > 2 * slow["rps"]
    assert slow["busy"] == 1 and slow["p50_us"] > fast["p50_us"] > 50_000
    assert folders() == before, "its files are gone"
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_servers_have_workers_for_all_cpus(tmp_path) -> None:
    """Though the lab, which starts them anew for each load, is pinned to one."""
    results = lab(tmp_path, "--models", "hybrid", "--loads", "hello,connect", "--connections", "8", "--seconds", "1", "--repeat", "2")
    workers = 2 * len(os.sched_getaffinity(0))  # of two listeners
    assert [r["processes"] for s in results["series"] for r in s["rounds"]] == [1 + workers] * 4


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


def test_foreign_server_is_asked_what_it_can_answer(tmp_path, serve) -> None:
    """No TLS of one that is at http."""
    model = MODELS[0]
    url = f"http://{serve(model, Listener('main', model.name, BASIC_ROUTES))['main'].text}"
    results = lab(tmp_path, "--models", "event-loop", "--loads", "tls,hello", "--connections", "8", "--seconds", "1", "--repeat", "1", "--against", url)
    assert {(s["load"], s["server"]) for s in results["series"]} == {("tls", "event-loop"), ("hello", "event-loop"), ("hello", url)}


def tree(pid: int) -> list[int]:
    """What descends from it."""
    return [p for child in proc.children(pid) for p in (child, *tree(child))]


class Running:
    """A run that would take long. Gives the lab once it measures, and its servers."""

    def __init__(
        self, folder: Path, words: Sequence[str] = ("--models", "prefork,event-loop", "--loads", "hello"), at: str = "2 of", before: Callable[[], None] | None = None
    ) -> None:
        command = [BINARY, "lab", "--out", "out", *words]
        self.lab = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before)
        self.at = at

    def __enter__(self) -> tuple[subprocess.Popen, list[int]]:
        while not self.lab.stderr.readline().strip().startswith(self.at):
            assert self.lab.poll() is None
        return self.lab, tree(self.lab.pid)

    def __exit__(self, *_) -> None:
        if self.lab.poll() is None:
            self.lab.kill()
        self.lab.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
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


def test_interrupted_at_once(tmp_path) -> None:
    """What an earlier run has left is worth more than nothing."""
    before = folders()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("{}")
    with Running(tmp_path, ("--models", "event-loop", "--loads", "hello", "--seconds", "20"), "1 of") as (running, _):
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=40 * SLOW)
    assert running.returncode == 1 and said.endswith("modus lab: ended before anything was measured\n")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["results.json"] and (tmp_path / "out" / "results.json").read_text() == "{}"
    assert folders() == before


def test_on_the_cpus_that_it_has(tmp_path) -> None:
    words = ("--models", "event-loop", "--loads", "hello", "--connections", "8", "--seconds", "1", "--repeat", "2")
    with Running(tmp_path, words, before=lambda: os.sched_setaffinity(0, {0})) as (running, tree):
        assert {frozenset(os.sched_getaffinity(pid)) for pid in (running.pid, *tree)} == {frozenset({0})}
        running.communicate()
    machine = json.loads((tmp_path / "out" / "results.json").read_text())["machine"]
    assert machine["cpus"] == 1 and machine["pinned"] is False


def test_a_server_that_dies(tmp_path) -> None:
    """What was measured of it then is no measurement."""
    words = ("--models", "event-loop", "--loads", "hello", "--connections", "8", "--seconds", "1", "--repeat", "3")
    with Running(tmp_path, words) as (running, tree):
        [worker] = [pid for pid in tree if "worker" in proc.title(pid) and "event-loop" in proc.title(pid)][:1]
        eventually(lambda: any(proc.title(pid).startswith("wrk") for pid in proc.children(running.pid)))
        proc.send(worker, signal.SIGKILL)
        running.communicate(timeout=30 * SLOW)
    rounds = series(json.loads((tmp_path / "out" / "results.json").read_text()), "hello", "event-loop")["rounds"]
    assert [r["error"] for r in rounds] == [None, "1 of its workers died", None]


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
        (["--connections", "0"], '--connections wants up to 4 numbers from 1 to 4000, not "0"'),
        (["--connections", "5000"], '--connections wants up to 4 numbers from 1 to 4000, not "5000"'),
        (["--connections", "-18446744073709551615"], '--connections wants up to 4 numbers from 1 to 4000, not "-18446744073709551615"'),
        (["--connections", "16,16"], 'twice the number "16"'),
        (["--models", "prefork,prefork"], 'twice the model "prefork"'),
        (["--loads", "hello,tls,hello"], 'twice the load "hello"'),
        (["--loads", ","], 'there is nothing in ",": it wants words with commas between'),
        (["--repeat", "1.5"], '--repeat wants a whole number, not "1.5"'),
        (["--again", "results.json", "--quick"], 'nothing is measured anew from "results.json": --again goes with --out alone'),
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


def test_nowhere_to_write_is_found_out_before(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    for out, why in (("file", "cannot write file/results.json: Not a directory"), ("out", "cannot write out/report.html: Is a directory")):
        done = subprocess.run([BINARY, "lab", "--out", out, "--loads", "hello"], cwd=tmp_path, capture_output=True, text=True, timeout=5)
        assert done.returncode == 1 and done.stderr == f"modus lab: {why}\n"
    assert not list((tmp_path / "out" / "report.html").iterdir()) and len(list((tmp_path / "out").iterdir())) == 1


def test_a_table_that_nobody_can_have(tmp_path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([BINARY, "lab", "--help"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr == "modus lab: the table cannot be written: No space left on device\n"


def test_help(tmp_path) -> None:
    done = subprocess.run([BINARY, "lab", "--quick", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: modus lab") and not done.stderr


def test_no_folder_to_write_to(tmp_path) -> None:
    (tmp_path / "out").write_text("")
    done = subprocess.run([BINARY, "lab", "--out", "out/deep", "--loads", "hello"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "modus lab: cannot make out/deep: Not a directory\n" in done.stderr
