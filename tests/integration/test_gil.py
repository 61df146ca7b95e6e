"""gil = true: handlers of a process run under one interpreter lock, which each of their waits gives up."""
import pytest

from lib import proc
from lib.clock import SLOW, Stopwatch, eventually
from lib.config import Listener
from lib.models import MODELS, Model
from lib.raw import request
from lib.server import Server
from lib.site import BASIC_ROUTES, SIZES


@pytest.fixture(scope="module", params=[m for m in MODELS if m.has_gil], ids=str)
def locked(request) -> Model:
    return request.param


@pytest.fixture
def server(serve, locked: Model) -> Server:
    options = SIZES | locked.sized(40) | {"loops": 2, "gil": "true"}
    return serve(locked, Listener("main", locked.name, BASIC_ROUTES, options=options))


def counts(server: Server) -> dict:
    return server.listener_status("main")["gil"]


def test_one_computes_at_a_time(server: Server) -> None:
    """And hands the lock over, so that all get on."""
    [pid] = server.workers("main")
    wires = [server["main"].connect() for _ in range(4)]
    for wire in wires:
        wire.send(request("/spin?n=100000000000"))
    eventually(lambda: counts(server)["hand_overs"] >= 4)
    used, watch = proc.cpu_seconds(pid), Stopwatch()
    before = counts(server)["hand_overs"]
    eventually(lambda: counts(server)["hand_overs"] >= before + 50)
    assert proc.cpu_seconds(pid) - used <= watch.seconds * 1.1 + 0.03
    seen = counts(server)
    assert seen["waits"] >= 50 and seen["acquired"] > seen["waits"] and seen["held_percent"] <= 101
    for wire in wires:
        wire.reset()


def test_who_waits_does_not_hold_it(server: Server) -> None:
    wires = [server["main"].connect() for _ in range(40)]
    watch = Stopwatch()
    for wire in wires:
        wire.send(request("/sleep?ms=300"))
    for wire in wires:
        assert wire.answer().status == 200
        wire.close()
    assert watch.seconds < 0.6 + (SLOW - 1)
    assert counts(server)["held_us"] < 300_000 * SLOW


def test_a_computation_lets_others_in(server: Server) -> None:
    """After an interval of 5 ms."""
    with server["main"].connect() as busy:
        busy.send(request("/spin?n=100000000000"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        for path in ("/hello", "/sleep?ms=1", "/spin?n=1"):
            watch = Stopwatch()
            assert server["main"].ask(path).status == 200
            assert watch.seconds < 0.5 * SLOW
        busy.reset()


def test_counts_outlive_a_worker(server: Server) -> None:
    for _ in range(5):
        assert server["main"].ask("/hello").status == 200
    before = counts(server)
    assert before["acquired"] >= 5
    [pid] = server.workers("main")
    server.deaths_expected = 1
    proc.end(pid)
    eventually(lambda: server["main"].ask("/hello").status == 200)
    assert counts(server)["acquired"] > before["acquired"]


def test_without(serve, model: Model) -> None:
    server = serve(model, Listener("main", model.name, BASIC_ROUTES, options=SIZES | ({} if model.has_gil else {"gil": "true"})))
    assert server["main"].ask("/spin?n=1").status == 200
    assert counts(server) is None
