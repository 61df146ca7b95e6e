"""Many at once: nobody starves, nothing is left behind, and models hold what they promise."""
import resource
import selectors
import statistics
import subprocess

import pytest

from lib import proc
from lib.clock import PATIENCE, SLOW, Stopwatch, eventually
from lib.config import Listener
from lib.crowd import Crowd
from lib.models import MODELS, Model
from lib.raw import Wire, request
from lib.server import Endpoint, Server
from lib.site import SIZES, tight_routes

ROUTES = """
route "/hello" { text { body = "Hello, World!" } }
route "/sleep" { sleep { duration = 50ms } }
route "/block" { block { duration = 50ms } }
route "/spin"  { spin { max = 1000000000000 } }
"""


def listener(model: Model, name: str = "main", **options) -> Listener:
    return Listener(name, model.name, ROUTES, options=SIZES | options)


def wrk(endpoint: Endpoint, path: str, connections: int, seconds: int = 2, *options: str) -> str:
    command = ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", *options, endpoint.url + path]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds + PATIENCE, check=True).stdout


# --- fairness ------------------------------------------------------------------------------------


def answers_of_each(endpoint: Endpoint, connections: int, path: str, each: int, seconds: float) -> list[int]:
    """Keep-alive connections that ask as fast as they are answered, until each has had that many
    answers, or the time is over."""
    wires = [endpoint.connect() for _ in range(connections)]
    for wire in wires:
        assert wire.ask(path).status == 200
    counts = dict.fromkeys(wires, 0)
    watch = Stopwatch()
    with selectors.DefaultSelector() as selector:
        for wire in wires:
            selector.register(wire.sock, selectors.EVENT_READ, wire)
            wire.send(request(path))
        while min(counts.values()) < each and watch.seconds < seconds:
            for key, _ in selector.select(PATIENCE):
                assert key.data.answer().status == 200
                counts[key.data] += 1
                key.data.send(request(path))
    for wire in wires:
        wire.close()
    return list(counts.values())


@pytest.mark.parametrize("path", ["/hello", "/sleep?ms=2"])
def test_more_connections_than_workers_all_progress(serve, model: Model, path: str) -> None:
    """However busy the others are. (In shares of the answers it would be the kernel's scheduler, and who
    else is on the machine, that is tested.)"""
    server = serve(model, listener(model, **model.sized(4) if model.shares_descriptors else {}))
    counts = answers_of_each(server["main"], 64, path, 20, 2 * SLOW)
    assert min(counts) >= 20, sorted(counts)


def held_by_each(server, wires: int) -> list[int]:
    """So many connections at once: how many of them has each worker? They are closed again."""
    opened = [server["main"].connect() for _ in range(wires)]
    for wire in opened:
        wire.ask("/hello")
    held = [w["connections"] for w in server.listener_status("main")["workers"]]
    for wire in opened:
        wire.close()
    eventually(lambda: not any(w["connections"] for w in server.listener_status("main")["workers"]))
    return held


def test_connections_are_spread_over_workers(serve, model: Model) -> None:
    """Evenly; but one that gets no CPU for a moment is not waited for, so it is asked up to three times."""
    server = serve(model, listener(model))
    even = [16 // len(server.workers("main"))] * len(server.workers("main"))
    assert any(held_by_each(server, 16) == even for _ in range(3))


def test_400_connections_on_a_sleep_see_no_503(serve, queued_model: Model) -> None:
    """All threads are at work, the others wait, and nobody is refused."""
    server = serve(queued_model, listener(queued_model, threads=64))
    command = ["wrk", "-t2", "-c400", f"-d{int(2 * SLOW)}s", server["main"].url + queued_model.hold]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:

        def at_work() -> bool:
            saturation = server.listener_status("main")["saturation"]
            return saturation["busy"] == saturation["places"] >= 64

        eventually(at_work, within=2)
        report = load.communicate(timeout=PATIENCE * SLOW)[0]
    assert "Non-2xx" not in report and "Socket errors" not in report, report
    status = server.listener_status("main")
    assert status["queue"]["rejected"] == 0
    assert status["queue"]["waited_us"]["count"] > 0


@pytest.mark.parametrize("size, rounds", [(8, 5), (40, 1)])
def test_sleeps_at_once_take_the_right_number_of_rounds(serve, model: Model, size: int, rounds: int) -> None:
    """40 requests of 600 ms on as many workers, threads or children as the file says."""
    main = serve(model, listener(model, **model.sized(size)))["main"]
    wires = [main.connect() for _ in range(40)]
    watch = Stopwatch()
    for wire in wires:
        wire.send(request(f"{model.hold}?ms=600", fields={"Connection": "close"}))
    for wire in wires:
        assert wire.answer().status == 200
        wire.close()
    assert 0.6 * rounds <= watch.seconds < 0.6 * (rounds + 1) + (SLOW - 1)


def test_a_computation_delays_nobody_else(serve, model: Model) -> None:
    server = serve(model, listener(model, loops=1, processes=2))
    with server["main"].connect() as busy, server["main"].connect() as other:
        busy.send(request("/spin?n=1000000000000"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        other.ask("/hello")  # not earlier: a worker of prefork that is held keeps what it has
        delays = []
        for i in range(60):
            watch = Stopwatch()
            assert (other if i % 2 else server["main"]).ask("/hello").status == 200
            delays.append(watch.seconds)
        busy.reset()
    assert statistics.median(delays) < 0.05 * SLOW and max(delays) < 0.5 * SLOW, sorted(delays)[-5:]


def test_computations_run_side_by_side(serve, model: Model) -> None:
    """Four of them keep four threads or processes running, so that they use all CPUs that there are.
    (Half the serial time on two CPUs follows, but others may need the CPUs while this is tested.)"""
    server = serve(model, listener(model))
    wires = [server["main"].connect() for _ in range(4)]
    for wire in wires:
        wire.send(request("/spin?n=1000000000000"))
    eventually(lambda: sum(map(proc.running, server.processes())) >= 4)
    for wire in wires:
        wire.reset()


# --- thousands -----------------------------------------------------------------------------------

IDLE = 10_000
BYTES_EACH = 600  # of user memory, for an idle connection


@pytest.mark.slow
@pytest.mark.limit(60)
@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < IDLE + 1000, reason="too few descriptors")
@pytest.mark.parametrize("model", [m for m in MODELS if m.idle_is_free], ids=str)
def test_ten_thousand_idle_connections(serve, model: Model) -> None:
    server = serve(model, listener(model, max_connections=IDLE + 1000, processes=1), nofile=(IDLE + 1000, IDLE + 1000))
    [worker] = server.workers("main")
    wrk(server["main"], "/hello", 50, 1)  # every thread has its buffers now
    threads, memory = proc.threads(worker), proc.anonymous_bytes(worker)
    with Crowd(server["main"].port, IDLE) as crowd:
        assert crowd.count == IDLE
        connections = server.listener_status("main")["connections"]
        assert (connections["open"], connections["idle"]) == (IDLE, IDLE)
        assert proc.threads(worker) == threads
        if SLOW == 1:
            assert (proc.anonymous_bytes(worker) - memory) / IDLE <= BYTES_EACH
        assert crowd.ask() == IDLE
        assert server["main"].ask("/sleep?ms=1").status == 200
    eventually(lambda: server.listener_status("main")["connections"]["open"] == 0)


def lasting(server: Server) -> list[int]:
    """The master and its workers, once nobody else is left and those who were are let go."""
    pids = [server.pid, *(w["pid"] for l in server.status()["listeners"] for w in l["workers"])]
    eventually(lambda: set(server.processes()) == set(pids), what="only master and workers")
    eventually(lambda: all(proc.watched(pid) <= set(pids) for pid in pids), what="no descriptor of a child that has ended")
    return pids


@pytest.mark.slow
@pytest.mark.limit(60)
def test_connections_leave_nothing_behind(serve, model: Model) -> None:
    """64,000 opened and closed: descriptors, processes and memory are what they were."""
    server = serve(model, listener(model))
    connections = lambda: server.listener_status("main")["connections"]

    def open_and_close() -> None:
        report = wrk(server["main"], "/hello", 64, 1, "-H", "Connection: close")
        assert "Non-2xx" not in report, report

    open_and_close()
    eventually(lambda: connections()["open"] == 0)
    pids = lasting(server)
    descriptors = {pid: proc.descriptors(pid) for pid in pids}
    memory = sum(map(proc.anonymous_bytes, pids))
    accepted = connections()["accepted"]
    while connections()["accepted"] - accepted < 64_000 // SLOW:
        open_and_close()

    def as_before() -> bool:
        assert lasting(server) == pids
        # not equal: before, one that wrk left in the queue may have been accepted just then
        assert all(proc.descriptors(pid) <= descriptors[pid] for pid in pids)
        return True

    eventually(as_before)
    eventually(lambda: connections()["open"] == 0)  # a child that has ended may not have been reaped
    if SLOW == 1:
        assert sum(map(proc.anonymous_bytes, pids)) - memory < 1 << 20


# --- the slow ------------------------------------------------------------------------------------


def slow_crowd(endpoint: Endpoint, path: str, *options: str) -> subprocess.Popen:
    command = ["slowhttptest", "-c", "50", "-r", "200", "-l", "2", "-i", "1", "-u", endpoint.url + path, *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_slow_clients_take_no_service_away(serve, model: Model, documents) -> None:
    """Slow heads, slow bodies and slow readers at once, fewer than the process model's children."""
    section = Listener("main", model.name, tight_routes(documents), options=SIZES)
    server = serve(model, section)
    main = server["main"]
    crowds = [
        slow_crowd(main, "/hello", "-H", "-x", "24"),
        slow_crowd(main, "/echo", "-B", "-s", "8192", "-x", "10"),
        slow_crowd(main, "/files/big.bin", "-X", "-w", "10", "-y", "20", "-n", "1", "-z", "32"),
    ]
    try:
        eventually(lambda: server.listener_status("main")["connections"]["open"] >= 120, what="the slow are there")
        delays = []
        with main.connect() as customer:
            while any(c.poll() is None for c in crowds):
                for who in (customer, main):
                    watch = Stopwatch()
                    assert who.ask("/hello").status == 200
                    assert who.ask("/sleep?ms=1").status == 200
                    delays.append(watch.seconds)
        assert max(delays) < 0.5 * SLOW, sorted(delays)[-5:]
    finally:
        for crowd in crowds:
            crowd.kill()
            crowd.wait()
