"""Connections on their way from one generation to the next, when something is short or somebody dies."""
import signal

from lib.clock import SLOW, Stopwatch, eventually
from lib.config import Listener
from lib.models import MODELS, Model
from lib.raw import request
from lib.site import BASIC_ROUTES, SIZES, watch

PREFORK = next(m for m in MODELS if m.name == "prefork")


def listener(model: Model, **options) -> Listener:
    return Listener("main", model.name, BASIC_ROUTES, options=SIZES | options)


def test_fewer_descriptors_where_they_go(serve, model: Model) -> None:
    """Four processes hold more than one may open. Who has asked is answered; idle ones make room, and are
    counted."""
    server = serve(PREFORK, listener(PREFORK, max_connections=300), nofile=(128, 128))
    wires = [server["main"].connect() for _ in range(200)]
    for wire in wires:
        wire.ask("/hello")
    busy = wires[::4]
    for wire in busy:
        wire.send(request("/sleep?ms=100") + 3 * request("/hello"))
    server.reload([listener(model, max_connections=301), watch(PREFORK)])
    for wire in busy:
        assert [wire.answer().status for _ in range(4)] == [200] * 4

    def accounted() -> bool:
        count = server.listener_status("main")["connections"]
        return count["open"] + count["evicted"] == len(wires)

    eventually(accounted, within=5)
    assert server["main"].ask("/hello").status == 200
    for wire in wires:
        wire.close()


def test_new_master_is_killed_while_the_old_one_finishes(serve, model: Model) -> None:
    """Nobody takes in what the old one would give: what it has ends there."""
    server = serve(model, listener(model), drain_timeout="60s")
    with server["main"].connect() as long, server["main"].connect() as short, server["main"].connect() as half:
        half.ask("/hello")
        long.send(request("/sleep?ms=9900"))
        short.send(request(f"/sleep?ms={int(1000 * SLOW)}"))
        half.send(b"GET /hello HT")
        eventually(lambda: server.listener_status("main")["requests"]["active"] >= 2)
        before = server.upgrade()
        server.process.kill()
        a = short.answer()
        assert (a.status, a.closes) == (200, True)
        short.expect_end()
        half.send(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert half.answer().closes
        half.expect_end()
        long.reset()
    assert before.wait() == 0


def test_master_in_the_middle_of_a_chain_is_killed(serve, model: Model) -> None:
    """Its end is no matter to the first one, whose connections the third one takes in."""
    server = serve(model, listener(model), drain_timeout="60s")
    with server["main"].connect() as first, server["main"].connect() as second:
        first.send(request(f"/sleep?ms={int(1000 * SLOW)}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] >= 1)
        oldest = server.upgrade()
        second.send(request(f"/sleep?ms={min(9900, int(2000 * SLOW))}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] >= 1)
        middle = server.upgrade()
        middle.kill()
        a = first.answer()
        assert (a.status, a.closes) == (200, False)
        assert first.ask("/hello").status == 200, "it goes on in the third"
        assert oldest.wait() == 0
        server.reload([listener(model, max_connections=100), watch(model)])
        assert first.ask("/hello").closes is False, "and on"


def test_what_was_on_its_way_to_a_master_that_is_killed(serve, model: Model) -> None:
    """It is in nobody's hands: it ends at once, not when the old one does."""
    server = serve(model, listener(model), drain_timeout="60s")
    with server["main"].connect() as long, server["main"].connect() as short:
        long.send(request("/sleep?ms=9900"))
        short.send(request(f"/sleep?ms={int(1000 * SLOW)}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] >= 2)
        before = server.upgrade()
        before.send_signal(signal.SIGSTOP)
        server.process.kill()
        server.process.wait()
        assert short.answer().closes is False
        before.send_signal(signal.SIGCONT)
        try:
            short.send(request("/hello"))
            rest = short.read_to_end()
        except ConnectionError:
            rest = b""
        assert rest == b"" or b"connection: close" in rest.lower(), "it had not been given yet"
        assert before.poll() is None
        long.reset()
    assert before.wait() == 0


def test_switches_in_a_row_cut_no_request(serve, model: Model) -> None:
    """Each finds a request in progress, which is short: nobody needs to be cut for the next."""
    server = serve(model, listener(model))
    wires = []
    for i in range(12):
        wires.append(server["main"].connect())
        wires[-1].send(request("/sleep?ms=250"))
        eventually(lambda: server.listener_status("main")["generations"][0]["requests_active"] == 1)
        server.reload([listener(MODELS[i % len(MODELS)], max_connections=100 + i), watch(model)])
    for wire in wires:
        assert wire.answer().status == 200
        wire.close()
    assert "is cut" not in server.errors


def test_time_goes_on_for_those_who_move_often(serve, model: Model) -> None:
    """Who says nothing is ended in its time, however often it moves."""
    server = serve(model, listener(model, keepalive_timeout=f"{int(1500 * SLOW)}ms"))
    with server["main"].connect() as idle:
        idle.ask("/hello")
        watch_it, moves = Stopwatch(), 0
        while idle.is_quiet(0.2 * SLOW):
            moves += 1
            assert watch_it.seconds < 4 * SLOW
            server.reload([listener(model, keepalive_timeout=f"{int(1500 * SLOW)}ms", max_connections=100 + moves), watch(model)])
        assert moves >= 3 and watch_it.seconds > 1.4 * SLOW
