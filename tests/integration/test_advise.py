"""`modus advise`, on listeners whose load is known."""
import os
import re
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest

from lib.clock import SLOW, eventually
from lib.config import Listener
from lib.models import MODELS, Model
from lib.server import BINARY, Server
from lib.site import BASIC_ROUTES

BY_NAME = {m.name: m for m in MODELS}


def listener(model: Model, **options) -> Listener:
    return Listener("main", model.name, BASIC_ROUTES, options=options)


@contextmanager
def load(server: Server, path: str, *words: object) -> Iterator[None]:
    """Until the end, and measured from when it is there."""
    url = f"http://{server['main'].text}{path}"
    loader = subprocess.Popen([BINARY, "load", "--seconds", "600", *map(str, words), url], stdout=subprocess.DEVNULL)
    before = server.listener_status("main")["requests"]["total"]
    eventually(lambda: server.listener_status("main")["requests"]["total"] > before + 10)
    try:
        yield
    finally:
        loader.terminate()
        loader.wait()


def advice(server: Server, *words: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [BINARY, "advise", *map(str, words), "-c", server.config, server["main"].text], capture_output=True, text=True, timeout=60 * SLOW
    )
    return done.returncode, done.stdout, done.stderr


def test_workers_that_wait(serve) -> None:
    server = serve(BY_NAME["prefork"], listener(BY_NAME["prefork"], processes=4))
    with load(server, "/sleep?ms=20", "--connections", 16):
        code, said, _ = advice(server, "--seconds", 2 * SLOW)
    assert code == 0 and "    model = coroutine\n" in said and "there are too few places to wait in" in said, said


def test_advice_helps(serve) -> None:
    """Who follows it has more answers, and is told that it suits."""
    server = serve(BY_NAME["prefork"], listener(BY_NAME["prefork"], processes=4))
    subprocess.run([BINARY, "model", server["main"].text, "coroutine", "-c", server.config], check=True)
    with load(server, "/sleep?ms=20", "--connections", 16):
        code, said, _ = advice(server, "--seconds", 2 * SLOW)
    assert code == 0 and "coroutine suits" in said and "model =" not in said, said


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_small_answers_suit_everybody(serve, model: Model) -> None:
    server = serve(model, listener(model))
    with load(server, "/hello", "--connections", 4, "--rate", 500):
        code, said, _ = advice(server, "--seconds", 2 * SLOW)
    assert code == 0 and f"{model.name} suits" in said and "model =" not in said, said


def test_a_process_a_request(serve) -> None:
    server = serve(BY_NAME["process"], listener(BY_NAME["process"]))
    with load(server, "/hello", "--close", "--connections", 4):
        code, said, _ = advice(server, "--seconds", 2 * SLOW)
    assert code == 0 and "    model = prefork\n" in said and "processes a request" in said, said


def test_interpreter_lock(serve) -> None:
    server = serve(BY_NAME["thread-pool"], listener(BY_NAME["thread-pool"], gil="true"))
    with load(server, "/spin?n=10000000", "--connections", 8):
        code, said, _ = advice(server, "--seconds", 2 * SLOW)
    assert code == 0 and "    gil = false\n" in said and "The interpreter lock was held" in said, said


def test_nothing_to_say(serve, model: Model) -> None:
    server = serve(model, listener(model))
    code, said, _ = advice(server, "--seconds", 0.3)
    assert code == 0 and "too few to say anything" in said


@contextmanager
def watching(server: Server) -> Iterator[subprocess.Popen]:
    """A `modus advise` that has looked at least once, and has long to go."""
    words = [BINARY, "advise", "--seconds", str(5 * SLOW), "-c", server.config, server["main"].text]
    advise = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{advise.pid}/task/{advise.pid}/children")
    eventually(children.read_text, what="it asks")
    eventually(lambda: not children.read_text(), what="it has been answered")
    try:
        yield advise
    finally:
        advise.kill()
        advise.wait()


def changed(how: str) -> str:
    return f"modus advise: the server changed while it was watched ({how}): watch again\n"


def test_an_upgrade_while_it_watches(serve) -> None:
    server = serve(BY_NAME["event-loop"], listener(BY_NAME["event-loop"]))
    with load(server, "/hello", "--connections", 4), watching(server) as advise:
        server.upgrade()
        said, errors = advise.communicate(timeout=60 * SLOW)
    assert (advise.returncode, said, errors) == (1, "", changed("another process serves"))


@pytest.mark.parametrize("word", ["processes", "model"])
def test_a_reload_while_it_watches(serve, word: str) -> None:
    """Of two configurations nobody can say what either does."""
    server = serve(BY_NAME["prefork"], listener(BY_NAME["prefork"], processes=3))
    with load(server, "/hello", "--connections", 4), watching(server) as advise:
        if word == "model":
            subprocess.run([BINARY, "model", server["main"].text, "coroutine", "-c", server.config], check=True)
        else:
            server.reload([listener(BY_NAME["prefork"], processes=4)])
        said, errors = advise.communicate(timeout=60 * SLOW)
    assert (advise.returncode, said, errors) == (1, "", changed("the listener was renewed"))


def test_workers_that_change_while_it_watches(serve) -> None:
    """What a request costs is known of those that stay: a new one's sum is no difference."""
    server = serve(BY_NAME["prefork"], listener(BY_NAME["prefork"], processes=4))
    with load(server, "/sleep?ms=20", "--connections", 16), watching(server) as advise:
        gone = server.workers("main")[0]
        server.deaths_expected = 1
        os.kill(gone, signal.SIGKILL)
        said, errors = advise.communicate(timeout=60 * SLOW)
    assert advise.returncode == 0 and "    model = coroutine\n" in said, said + errors
    cpu = re.search(r"([0-9.]+) ms each, of which ([0-9.]+) ms on a CPU", said)
    assert cpu and 0 < float(cpu[2]) < float(cpu[1]) / 5, said


def test_no_such_listener(serve) -> None:
    server = serve(BY_NAME["prefork"], listener(BY_NAME["prefork"]))
    done = subprocess.run([BINARY, "advise", "-c", server.config, "nowhere"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == 'modus advise: no listener is called "nowhere": modus status shows them\n'


def test_no_server(tmp_path) -> None:
    (tmp_path / "m").write_text(listener(BY_NAME["prefork"]).text())
    done = subprocess.run([BINARY, "advise", "-c", tmp_path / "m", "main"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("modus: no server is running at ")


def test_a_server_that_does_not_answer(serve) -> None:
    server = serve(BY_NAME["prefork"], listener(BY_NAME["prefork"]))
    os.kill(server.pid, signal.SIGSTOP)
    try:
        code, said, errors = advice(server)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert (code, said) == (1, "")
    assert errors == (
        f"modus advise: the server of {server.config} has not answered within 4 s: if it is stopped (T in ps), "
        "kill -CONT lets it go on; else its log says what it does\n"
    )


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--seconds", "1", "--help", "main"]], ids=" ".join)
def test_help(words: list[str]) -> None:
    done = subprocess.run([BINARY, "advise", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: modus advise ")


WRONG = [
    ([], "it wants one listener, not 0: modus status shows them"),
    (["a", "b"], "it wants one listener, not 2: modus status shows them"),
    (["--seconds", "no", "a"], '--seconds wants a number from 0.1 to 3600, not "no"'),
    (["--never", "a"], "unrecognized option '--never'"),
    (["-c"], "option requires an argument -- 'c'"),
]


@pytest.mark.parametrize("words, why", WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_words(words: list[str], why: str) -> None:
    """What is wrong, and then how it is right."""
    done = subprocess.run([BINARY, "advise", *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"modus advise: {why}\nusage: modus advise "), done.stderr
