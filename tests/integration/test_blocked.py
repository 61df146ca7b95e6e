"""Loops that a handler has held: counted, shown with the route, said in the log; and nobody is accused who has
done nothing."""
import os
import re
import signal
import time

import pytest

from lib import proc
from lib.clock import SLOW, Stopwatch, eventually
from lib.config import Listener
from lib.models import MODELS, Model
from lib.server import Server
from lib.site import SIZES, watch

ROUTES = """
route "/"      { text { body = "Hello, World!" } }
route "/step"  { block { entry = step } }
route "/run"   { block { entry = run } }
route "/right" { block { } }
route "/sleep" { sleep { } }
route "/spin"  { spin { max = 1000000000000 } }
"""
LOOPS = [m for m in MODELS if m.name in ("prefork", "event-loop", "coroutine")]
LINE = re.compile(r'warn: \S+ route "(\S+)": the handler (\S+) has held its loop for (\d+) ms')


def listener(model: Model, **options) -> Listener:
    return Listener("main", model.name, ROUTES, options=SIZES | options)


def blocked(server: Server) -> dict:
    return server.listener_status("main")["blocked"]


def is_about(seen_ms: int, ms: int) -> bool:
    """A wait for the CPU in the 50 ms before is taken off too; a late end of its sleep may be added."""
    return ms - 50 <= seen_ms < ms + 500 * SLOW


@pytest.mark.parametrize("model", LOOPS, ids=str)
def test_step_that_waits(serve, model: Model) -> None:
    server = serve(model, listener(model))
    assert blocked(server) == {"count": 0, "longest_ms": 0, "last": None}
    for ms in (250, 400, 200):
        assert server["main"].ask(f"/step?ms={ms}").text == f"blocked for {ms} ms\n"
    seen = blocked(server)
    last = seen["last"]
    assert seen["count"] == 3 and is_about(seen["longest_ms"], 400)
    assert (last["route"], last["handler"]) == ("/step", "block") and is_about(last["ms"], 200)
    route, handler, ms = LINE.findall(server.errors)[0]
    assert (route, handler) == ("/step", "block") and is_about(int(ms), 250)
    assert len(LINE.findall(server.errors)) == 1, "a line a minute"
    assert '<dt>the last by</dt><dd><span data-u="text" data-f="blocked.last.route">/step</span>' in server["watch"].ask("/").text
    assert re.search(r'modus_loop_blocked_total\{listener="[^"]+"\} 3\n', server["watch"].ask("/?format=prometheus").text)


def test_coroutine_that_does_not_wait(serve) -> None:
    model = next(m for m in MODELS if m.name == "coroutine")
    server = serve(model, listener(model))
    server["main"].ask("/run?ms=250")
    seen = blocked(server)
    assert seen["count"] == 1 and is_about(seen["longest_ms"], 250)
    assert (seen["last"]["route"], seen["last"]["handler"]) == ("/run", "block")


@pytest.mark.parametrize("path", ["/right?ms=200", "/sleep?ms=200", f"/spin?n={10 ** 9}", "/", "/step?ms=5"])
def test_who_does_it_right(serve, model: Model, path: str) -> None:
    """Handlers that wait as they should, or are marked; run handlers of prefork hold their worker by design."""
    server = serve(model, listener(model))
    for _ in range(2):
        assert server["main"].ask(path).status == 200
    assert blocked(server)["count"] == 0
    assert not LINE.search(server.errors)


@pytest.mark.parametrize("model", [m for m in MODELS if m not in LOOPS], ids=str)
def test_who_has_no_loop(serve, model: Model) -> None:
    """A thread of a pool, or a process of a connection, holds up nobody but itself."""
    server = serve(model, listener(model))
    server["main"].ask("/step?ms=150")
    server["main"].ask("/run?ms=150")
    assert blocked(server)["count"] == 0


@pytest.mark.parametrize("model", LOOPS, ids=str)
def test_totals_outlive_generations(serve, model: Model) -> None:
    server = serve(model, listener(model))
    server["main"].ask("/step?ms=250")
    server.reload([listener(model, backlog=77), watch(model)])
    eventually(lambda: len(server.listener_status("main")["generations"]) == 1)
    seen = blocked(server)
    assert seen["count"] == 1 and seen["last"]["route"] == "/step"


def take_the_cpu(cpu: int) -> int:
    """Start a process that has it before all others, most of the time. Returns its number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.alarm(60)
        os.sched_setaffinity(0, {cpu})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        while True:
            clock = Stopwatch()
            while clock.seconds < 0.15:
                pass
            time.sleep(0.03)
    finally:
        os._exit(1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have the CPU before all others")
def test_the_machine_is_not_the_handler(serve) -> None:
    """It sleeps a little, and then somebody else has the only CPU that the loop may use, for far longer."""
    model = next(m for m in MODELS if m.name == "event-loop")
    server = serve(model, listener(model, loops=1, threads=1))
    pid, = server.workers("main")
    cpu = min(os.sched_getaffinity(0))
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), {cpu})
    other = take_the_cpu(cpu)
    try:
        slowest = 0.0
        for _ in range(10):
            clock = Stopwatch()
            assert server["main"].ask("/step?ms=10").status == 200
            slowest = max(slowest, clock.seconds)
        assert proc.is_alive(other) and slowest > 0.06, "there was something to take for the handler's"
        assert blocked(server)["count"] == 0
    finally:
        proc.end(other)
        os.waitpid(other, 0)
