"""Sizes, times and numbers that have a limit, and what happens at it."""
import itertools

import pytest

from lib.clock import SLOW, Stopwatch, eventually
from lib.config import Listener
from lib.models import MODELS, Model
from lib.raw import chunked, request
from lib.server import Server
from lib.site import (
    BASIC_ROUTES,
    BODY_TIMEOUT,
    HANDLER_TIMEOUT,
    HEADER_TIMEOUT,
    KEEPALIVE_TIMEOUT,
    SEND_TIMEOUT,
    Site,
    milliseconds,
)

BIG_BODY = b"x" * 700_000
GRAIN = 0.005 * SLOW  # seconds that the server's clock may be behind: it is read once a turn
LATE = 0.8 * SLOW  # seconds that a deadline may come late: timers are coarse, and CPUs are busy


# --- sizes ---------------------------------------------------------------------------------------


def test_request_line_too_long(site: Site) -> None:
    assert site.main.ask("/hello?" + "x" * 8000).status == 200
    for send in (request("/hello?" + "x" * 9000), b"GET /" + b"x" * 20_000):
        with site.main.connect() as wire:
            wire.send_if_wanted(send)
            a = wire.answer()
            assert (a.status, a.closes) == (414, True)
            wire.expect_end()


def test_head_too_long(site: Site) -> None:
    assert site.main.ask("/hello", fields={"X": "x" * 31_000}).status == 200
    endless = b"GET /hello HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"x" * 40_000
    for send in (request("/hello", fields={"X": "x" * 33_000}), endless):
        with site.main.connect() as wire:
            wire.send_if_wanted(send)
            a = wire.answer()
            assert (a.status, a.closes) == (431, True)
            wire.expect_end()


def test_head_too_long_for_a_small_limit(site: Site) -> None:
    assert site.tight.ask("/hello", fields={"X": "x" * 3900}).status == 200
    assert site.tight.ask("/hello", fields={"X": "x" * 4200}).status == 431


def test_too_many_headers(site: Site) -> None:
    assert site.main.ask("/hello", fields={f"X{i}": i for i in range(90)}).status == 200
    assert site.main.ask("/hello", fields={f"X{i}": i for i in range(2000)}).status == 431


def test_body_too_large_by_length(site: Site) -> None:
    assert site.tight.ask("/echo", "POST", body=b"x" * 65536).status == 200
    for path, method in (("/echo", "POST"), ("/hello", "GET")):
        with site.tight.connect() as wire:
            wire.send(request(path, method, {"Content-Length": 65537}))
            a = wire.answer()
            assert (a.status, a.closes) == (413, True)
            wire.expect_end()


def test_body_too_large_in_chunks(site: Site) -> None:
    head = b"GET /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with site.tight.connect() as wire:
        wire.send(head + chunked(b"x" * 65536))
        assert wire.answer().status == 200
        wire.send_if_wanted(head + chunked(*[b"x" * 1000] * 70))
        a = wire.answer()
        assert (a.status, a.closes) == (413, True)
        wire.expect_end()


def test_too_large_body_never_looks_like_a_whole_echo(site: Site) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with site.tight.connect() as wire:
        with pytest.raises((ConnectionError, AssertionError)):
            wire.pump(head + chunked(*[b"x" * 1000] * 70))
            assert wire.answer("POST").status == 200


def test_client_that_sends_on_reads_the_refusal(site: Site) -> None:
    """The lingering close: all of a too large body is sent before the answer is read."""
    for path, method in (("/echo", "POST"), ("/hello", "GET"), ("/nowhere", "PUT")):
        with site.tight.connect() as wire:
            wire.send(request(path, method, body=BIG_BODY))
            a = wire.answer()
            assert (a.status, a.closes) == (413, True)
            wire.expect_end()


# --- times ---------------------------------------------------------------------------------------


def test_slow_head(site: Site) -> None:
    with site.tight.connect() as wire:
        watch = Stopwatch()
        wire.send(b"GET /hello HTTP/1.1\r\nHo")
        a = wire.answer()
        assert (a.status, a.closes) == (408, True)
        assert HEADER_TIMEOUT - GRAIN <= watch.seconds < HEADER_TIMEOUT + LATE
        wire.expect_end()


def test_trickling_head(site: Site) -> None:
    """The limit is for the whole head: a byte now and then does not help."""
    with site.tight.connect() as wire:
        watch = Stopwatch()
        while wire.is_quiet(HEADER_TIMEOUT / 10):
            wire.send(b"G")
            assert watch.seconds < HEADER_TIMEOUT + LATE
        assert wire.answer().status == 408


def test_second_head_is_slow(site: Site) -> None:
    with site.tight.connect() as wire:
        assert wire.ask("/hello").status == 200
        wire.send(b"GET /hel")
        assert wire.answer().status == 408


def test_slow_body(site: Site) -> None:
    with site.tight.connect() as wire:
        watch = Stopwatch()
        wire.send(request("/hello", "GET", {"Content-Length": 10}) + b"12345")
        a = wire.answer()
        assert (a.status, a.closes) == (408, True)
        assert BODY_TIMEOUT - GRAIN <= watch.seconds < BODY_TIMEOUT + LATE
        wire.expect_end()


def test_slow_chunked_body(site: Site) -> None:
    with site.tight.connect() as wire:
        wire.send(b"GET /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
        assert wire.answer().status == 408


def test_slow_body_of_a_streamed_answer_is_cut(site: Site) -> None:
    with site.tight.connect() as wire:
        wire.send(request("/echo", "POST", {"Content-Length": 10}) + b"12345")
        with pytest.raises(ConnectionError):
            wire.answer("POST")


def test_trickling_body_is_no_slow_body(site: Site) -> None:
    """body_timeout is between two reads: together they may take longer."""
    with site.tight.connect() as wire:
        wire.send(request("/hello", "GET", {"Content-Length": 5}))
        watch = Stopwatch()
        for _ in range(4):
            wire.send(b"x")
            assert wire.is_quiet(BODY_TIMEOUT / 3)
        wire.send(b"x")
        assert wire.answer().status == 200
        assert watch.seconds > BODY_TIMEOUT


def test_keepalive_timeout_closes_quietly(site: Site) -> None:
    with site.tight.connect() as wire:
        watch = Stopwatch()
        assert wire.ask("/hello").status == 200
        wire.expect_end()
        assert KEEPALIVE_TIMEOUT - GRAIN <= watch.seconds < KEEPALIVE_TIMEOUT + LATE


def test_connection_that_never_asks_is_closed_quietly(site: Site) -> None:
    """The kernel may hold it a while before the server sees it (TCP_DEFER_ACCEPT)."""
    with site.tight.connect() as wire:
        wire.expect_end()


def test_handler_timeout(site: Site) -> None:
    for path in ("/sleep?ms=9000", "/spin?n=100000000000"):
        with site.tight.connect() as wire:
            watch = Stopwatch()
            a = wire.ask(path)
            assert (a.status, a.closes) == (504, True)
            assert HANDLER_TIMEOUT - GRAIN <= watch.seconds < HANDLER_TIMEOUT + LATE
            wire.expect_end()
        said = f'route "{path.partition("?")[0]}": the handler took longer than handler_timeout'
        eventually(lambda: said in site.server.errors, what=said)
    assert site.tight.ask("/sleep?ms=1").status == 200


def test_reader_that_never_reads(site: Site) -> None:
    def open_connections() -> int:
        return site.server.listener_status("tight")["connections"]["open"]

    eventually(lambda: open_connections() == 0, what="nobody is connected")
    with site.tight.connect(buffers=16 << 10) as wire:
        wire.send(request("/files/big.bin"))
        eventually(lambda: open_connections() == 1, what="connected")
        watch = Stopwatch()
        eventually(lambda: open_connections() == 0, within=4, what="send_timeout has come")
        assert watch.seconds > SEND_TIMEOUT / 2
        with pytest.raises(ConnectionError):
            wire.answer()


def test_slow_reader_makes_progress(site: Site) -> None:
    """send_timeout is without progress: a slow reader is no dead one. Nor is the handler still at work."""
    with site.tight.connect(buffers=64 << 10) as wire:
        wire.send(request("/files/big.bin"))
        left = int(wire.head().one("Content-Length"))
        watch = Stopwatch()
        while left:
            left -= len(wire.read_exactly(min(left, 512 << 10)))
            wire.pause(SEND_TIMEOUT / 10)
        assert watch.seconds > 2 * SEND_TIMEOUT


def test_very_slow_reader_makes_progress(site: Site) -> None:
    """It takes so little at a time that its socket never counts as writable."""
    with site.tight.connect(buffers=64 << 10) as wire:
        wire.send(request("/files/big.bin"))
        watch = Stopwatch()
        while watch.seconds < 3 * SEND_TIMEOUT:
            wire.read_exactly(32 << 10)
            wire.pause(SEND_TIMEOUT / 10)
        assert site.server.listener_status("tight")["connections"]["open"] == 1


# --- numbers -------------------------------------------------------------------------------------


def test_keepalive_requests(site: Site) -> None:
    with site.few.connect() as wire:
        assert [wire.ask("/hello").closes for _ in range(3)] == [False, False, True]
        wire.expect_end()
    with site.few.connect() as wire:
        wire.send(request("/hello") * 5)
        assert [wire.answer().closes for _ in range(3)] == [False, False, True]
        wire.expect_end()


def single(model: Model, **options) -> Listener:
    """One run handler at a time."""
    return Listener("main", model.name, BASIC_ROUTES, options=model.sized(1) | {"loops": 1, "processes": 1} | options)


def test_peer_that_is_gone_frees_what_it_held(serve, model: Model) -> None:
    main = serve(model, single(model))["main"]
    wire = main.connect()
    wire.send(request("/sleep?ms=9000"))
    wire.is_quiet(0.1)
    wire.reset()
    watch = Stopwatch()
    assert main.ask("/sleep?ms=1").status == 200
    assert watch.seconds < 2 * SLOW


def test_peer_that_is_gone_stops_a_computation(serve, model: Model) -> None:
    server = serve(model, single(model))
    wire = server["main"].connect()
    wire.send(request("/spin?n=100000000000"))
    wire.is_quiet(0.1)
    wire.reset()
    watch = Stopwatch()
    assert server["main"].ask("/spin?n=1").status == 200
    assert watch.seconds < 2 * SLOW


def test_queue_timeout(serve, queued_model: Model) -> None:
    main = serve(queued_model, single(queued_model, queue_timeout=milliseconds(0.3 * SLOW)))["main"]
    with main.connect() as first, main.connect() as second:
        first.send(request(f"{queued_model.hold}?ms={int(1200 * SLOW)}"))
        first.is_quiet(0.1)
        watch = Stopwatch()
        a = second.ask(f"{queued_model.hold}?ms=1")
        assert a.status == 503
        assert int(a.one("Retry-After") or 0) >= 1
        assert 0.3 * SLOW - GRAIN <= watch.seconds < 0.3 * SLOW + LATE
        assert first.answer().status == 200
    assert main.ask(f"{queued_model.hold}?ms=1").status == 200


def test_refused_while_listed_behind_a_full_queue(serve, queued_model: Model) -> None:
    """What was refused stands in the list behind the queue until its turn; its memory serves others by then."""
    main = serve(queued_model, single(queued_model, queue=4, queue_timeout=milliseconds(0.2 * SLOW)))["main"]
    for _ in range(4):
        wires = [main.connect() for _ in range(24)]
        for wire in wires:
            wire.send(request(f"{queued_model.hold}?ms={int(600 * SLOW)}") + request(f"{queued_model.hold}?ms=1"))
        statuses = sorted(wire.answer().status for wire in wires)
        assert statuses[0] == 200 and statuses[-1] == 503 and set(statuses) == {200, 503}
        for wire in wires:
            wire.close()
    eventually(lambda: main.ask(f"{queued_model.hold}?ms=1").status == 200)


def test_queue_serves_in_time(serve, queued_model: Model) -> None:
    main = serve(queued_model, single(queued_model, queue_timeout="5s"))["main"]
    wires = [main.connect() for _ in range(10)]
    for wire in wires:
        wire.send(request(f"{queued_model.hold}?ms=50"))
    assert [wire.answer().status for wire in wires] == [200] * 10
    for wire in wires:
        wire.close()


def test_longest_idle_makes_room(serve, model: Model) -> None:
    server = serve(model, single(model, max_connections=4, threads=8))
    main = server["main"]
    wires = []
    for _ in range(4):
        wires.append(main.connect())
        assert wires[-1].ask("/hello").status == 200
        wires[-1].is_quiet(0.12)  # so that nobody can doubt who has been idle longest
    assert wires[0].ask("/hello").status == 200
    with main.connect() as fifth:
        assert fifth.ask("/hello").status == 200
        wires[1].expect_end()
        for wire in (wires[0], wires[2], wires[3]):
            assert wire.ask("/hello").status == 200
    for wire in wires:
        wire.close()
    assert server.listener_status("main")["connections"]["evicted"] == 1


def test_one_that_becomes_idle_makes_room_for_who_waits(serve, model: Model) -> None:
    main = serve(model, single(model, max_connections=2, threads=8))["main"]
    wires = [main.connect() for _ in range(2)]
    for wire in wires:
        wire.send(request("/sleep?ms=300"))
        wire.is_quiet(0.05)
    with main.connect() as third:
        watch = Stopwatch()
        assert third.ask("/hello").status == 200
        assert watch.seconds < 2 * SLOW
    for wire in wires:
        assert wire.answer().status == 200
        wire.close()


def test_nobody_is_closed_while_another_worker_has_places(serve) -> None:
    """That one is held by a handler, and comes when it is done; if it does not, somebody is."""
    prefork = next(m for m in MODELS if m.name == "prefork")
    server = serve(prefork, Listener("main", "prefork", BASIC_ROUTES, options={"processes": 2, "max_connections": 4}))
    main = server["main"]

    def counted(what: str) -> int:
        return server.listener_status("main")["connections"][what]

    with main.connect() as first, main.connect() as held, main.connect() as third:
        for wire in (first, held):
            assert wire.ask("/hello").status == 200
        for ms, evicted in ((500 * SLOW, 0), (3000 * SLOW, 1)):
            held.send(request(f"/sleep?ms={int(ms)}"))
            eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
            assert third.ask("/hello").status == 200
            with main.connect() as fourth:
                assert fourth.ask("/hello").status == 200
                assert counted("evicted") == evicted
            assert held.answer().status == 200
            eventually(lambda: counted("open") == 3 - evicted)


def fresh(model: Model, **options) -> Listener:
    """On a unix socket a connection comes up before its first request, as behind a TLS handshake."""
    sizes = model.sized(8) | {"loops": 1, "processes": 1}
    return Listener("main", model.name, BASIC_ROUTES, address="unix:web.sock", options=sizes | options)


def test_new_connection_is_not_the_longest_idle(serve, model: Model) -> None:
    """Its first request is on its way: it makes room only when that has not come for a second."""
    server = serve(model, fresh(model, max_connections=2))
    main = server["main"]
    with main.connect() as first, main.connect() as busy, main.connect() as waiting:
        eventually(lambda: server.listener_status("main")["connections"]["open"] == 2)
        busy.send(request(f"/sleep?ms={int(500 * SLOW)}"))
        waiting.send(request("/hello"))
        first.is_quiet(0.2)
        first.send(request("/hello", fields={"Connection": "close"}))
        assert first.answer().status == 200
        assert waiting.answer().status == 200
        assert busy.answer().status == 200


def test_new_connection_that_says_nothing_makes_room(serve, model: Model) -> None:
    main = serve(model, fresh(model, max_connections=2, header_timeout="30s"))["main"]
    with main.connect() as first, main.connect() as second, main.connect() as third:
        watch = Stopwatch()
        assert third.ask("/hello").status == 200
        assert 0.5 < watch.seconds < 1 + 2 * SLOW
        ended = [wire for wire in (first, second) if not wire.is_quiet(0.2)]
        assert len(ended) == 1
        ended[0].expect_end()


def test_backlog_holds_when_nobody_is_idle(serve, model: Model) -> None:
    main = serve(model, single(model, max_connections=3, threads=8))["main"]
    wires = [main.connect() for _ in range(6)]
    watch = Stopwatch()
    for wire in wires:
        wire.send(request("/sleep?ms=200", fields={"Connection": "close"}))
    for wire in wires:
        assert wire.answer().status == 200
        wire.close()
    assert watch.seconds > 0.35, "no more than three at once"


# --- several loops share the places ------------------------------------------------------------------


LOOPS = next(m for m in MODELS if m.name == "event-loop")


@pytest.fixture
def loops(serve):
    """Start a server of two loops, with as many places as asked for."""

    def start(places: int) -> Server:
        options = {"loops": 2, "threads": 64, "max_connections": places}
        return serve(LOOPS, Listener("main", LOOPS.name, BASIC_ROUTES, options=options))

    return start


def test_a_burst_takes_no_more_places_than_there_are(loops) -> None:
    """They come faster than the other loop hears of those that it was dealt."""
    server = loops(20)
    wires = [server["main"].connect() for _ in range(300)]
    most = 0
    for wire in wires:
        wire.send(request("/sleep?ms=50", fields={"Connection": "close"}))
    for i, wire in enumerate(wires):
        if i % 10 == 0:
            most = max(most, server.listener_status("main")["connections"]["open"])
        assert wire.answer().status == 200
        wire.close()
    assert 10 <= most <= 20


@pytest.mark.parametrize("left", list(itertools.combinations(range(4), 2)), ids=str)
def test_free_places_of_any_loop_are_taken(loops, left: tuple[int, int]) -> None:
    """Two of four leave, perhaps both of the same loop, while the others go on for long."""
    server = loops(4)
    wires = [server["main"].connect() for _ in range(4)]
    for n, wire in enumerate(wires):
        wire.send(request("/sleep?ms=9000"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == n + 1)
    for n in left:
        wires[n].reset()
    watch = Stopwatch()
    assert server["main"].ask("/hello").status == 200
    assert watch.seconds < LATE
    for n in {0, 1, 2, 3} - set(left):
        wires[n].reset()


@pytest.mark.parametrize("idle", [{1, 3}, {0, 2}, {2}, {3}], ids=str)
def test_any_loop_makes_room(loops, idle: set[int]) -> None:
    """All places are taken, some by connections that are idle, perhaps all at the same loop."""
    server = loops(4)
    wires = [server["main"].connect() for _ in range(4)]
    for n, wire in enumerate(wires):
        wire.send(request("/hello" if n in idle else "/sleep?ms=9000"))
        eventually(lambda: server.listener_status("main")["connections"]["open"] == n + 1)
        if n in idle:
            assert wire.answer().status == 200
    watch = Stopwatch()
    assert server["main"].ask("/hello").status == 200
    assert watch.seconds < LATE
    assert server.listener_status("main")["connections"]["evicted"] == 1
    for n in {0, 1, 2, 3} - idle:
        wires[n].reset()
