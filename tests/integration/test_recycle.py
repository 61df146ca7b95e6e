"""Workers that have served so many requests, hold so much memory or are so old are replaced, one of a listener
at a time, and nobody who is served notices."""
import re
import resource
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Iterator

import pytest

from lib import proc
from lib.clock import PATIENCE, SLOW, eventually
from lib.config import Listener
from lib.customer import Customer
from lib.models import Model
from lib.raw import request
from lib.server import Endpoint, Server
from lib.site import BASIC_ROUTES, SIZES, watch

SAID = re.compile(r"worker (\d+) is recycled \((\w+)\) after (\d+) requests and ([\d.]+) s, with ([\d.]+) MiB; worker (\d+) has")


def listener(model: Model, routes: str = BASIC_ROUTES, **options) -> Listener:
    return Listener("main", model.name, routes, options=SIZES | options)


def often(model: Model) -> dict:
    """A limit that is reached all the time. The requests of `process` are its children's."""
    return {"worker_age": f"{int(100 * SLOW)}ms"} if model.name == "process" else {"worker_requests": 20}


def reason(model: Model) -> str:
    return "age" if model.name == "process" else "requests"


def once(model: Model) -> dict:
    """A limit that is reached only once in a test, by one() here."""
    return {"worker_age": f"{int(400 * SLOW)}ms", "processes": 1}


def recycled(server: Server, why: str = "") -> int:
    counts = server.listener_status("main")["recycled"]
    return counts[why] if why else sum(counts.values())


def states(server: Server) -> list[str]:
    return [w["state"] for w in server.listener_status("main")["workers"]]


def children(server: Server) -> set[int]:
    """Of the master: quick, to see one that has just been made."""
    return {int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()}


# --- reasons -------------------------------------------------------------------------------------


class Flood:
    """A connection a request, as many as the server takes."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.command = ["wrk", "-t1", "-c32", "-d60", "-H", "Connection: close", f"http://{endpoint.text}/hello"]

    def __enter__(self) -> None:
        self.wrk = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)

    def __exit__(self, *_) -> None:
        self.wrk.send_signal(signal.SIGINT)
        report = self.wrk.communicate(timeout=PATIENCE * SLOW)[0]
        assert "Non-2xx" not in report and "requests in" in report, report


@pytest.mark.limit(40)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_customers_do_not_notice(serve, model: Model, certificates, secure: bool) -> None:
    """Their connections go on with other workers; over TLS they are told to come again."""
    server = serve(model, replace(listener(model, **often(model)), certificates=[certificates["one"]] if secure else []))
    first = server.workers("main")
    customers = [Customer(server["main"], path, may_leave=secure) for path in ("/hello", "/sleep?ms=5", "/spin?n=1000")]
    most = {"all": 0, "draining": 0}

    def look() -> bool:
        found = states(server)
        most["all"] = max(most["all"], len(found))
        most["draining"] = max(most["draining"], found.count("draining"))
        return recycled(server, reason(model)) >= 3 * len(first)

    eventually(look, within=25)
    for c in customers:
        c.leave()
    assert most["all"] <= len(first) + 1 and most["draining"] <= 1, "one at a time"
    status = server.listener_status("main")
    assert not set(first) & {w["pid"] for w in status["workers"]}
    assert status["worker_deaths"] == 0
    answered = sum(c.answered for c in customers)
    eventually(lambda: server.listener_status("main")["requests"]["answers"]["2xx"] == answered, what="nothing that was counted is lost")
    assert status["requests"]["answers"]["cut"] == status["requests"]["answers"]["5xx"] == 0
    said = SAID.findall(server.errors)
    assert {int(pid) for pid, *_ in said} >= set(first)
    assert {key for _, key, *_ in said} == {f"worker_{reason(model)}"}
    if model.name != "process":
        assert all(int(requests) >= 17 for _, _, requests, *_ in said), "not below 85 %"


@pytest.mark.limit(40)
def test_no_end_of_new_connections(serve, model: Model) -> None:
    """The others accept them, and an old one comes to its end."""
    server = serve(model, listener(model, **often(model)))
    first = server.workers("main")
    with Flood(server["main"]):
        eventually(lambda: recycled(server, reason(model)) >= 3 * len(first), within=20)
    assert not set(first) & set(server.workers("main"))
    assert "drain_timeout is over" not in server.errors


def test_worker_that_has_grown_is_replaced(serve, model: Model) -> None:
    """It holds the heads of requests that are not whole yet. In `process` these are in its children's memory."""
    options = {"processes": 1, "loops": 1, "threads": 1, "header_timeout": "60s"}
    server = serve(model, listener(model, **options))
    limit = proc.anonymous_bytes(server.workers("main")[0]) + (8 << 20)
    server.reload([listener(model, **options, worker_memory=limit), watch(model)])
    before = set(server.workers("main"))
    wires = [server["main"].connect() for _ in range(400 if model.shares_descriptors else 100)]
    for wire in wires:
        wire.send(b"GET /hello HTTP/1.1\r\nHost: x\r\nX: " + bytes(30_000).replace(b"\0", b"x"))
    if model.shares_descriptors:
        eventually(lambda: recycled(server, "memory") == 1, within=5)
    for wire in wires:
        wire.send(b"\r\n\r\n")
        assert wire.answer().status == 200
        wire.reset()
    if model.shares_descriptors:
        eventually(lambda: not before & set(server.workers("main")), within=10)
    assert recycled(server) == int(model.shares_descriptors), "the next one has not grown"


def test_memory_of_an_acceptor(serve, model: Model) -> None:
    """Its limit is the only one in some set-ups; below what a fresh one has, it is reached again and again, and
    not more often than the memory is looked at."""
    server = serve(model, listener(model, worker_memory="1k", processes=1))
    eventually(lambda: recycled(server, "memory") >= 2, within=10)
    assert server["main"].ask("/hello").status == 200


def test_ends_are_spread(serve) -> None:
    """Eight that began together: each has a limit of its own, within 15 % of what the file says."""
    prefork = Model("prefork", sized_by="processes")
    age = 2.0 * SLOW
    server = serve(prefork, listener(prefork, processes=8, worker_age=f"{int(age * 1000)}ms"))
    first = server.workers("main")
    eventually(lambda: recycled(server, "age") >= 8, within=10)
    ages = sorted(float(s) for pid, _, _, s, *_ in SAID.findall(server.errors) if int(pid) in first)
    assert len(ages) == 8
    assert 0.85 * age - 0.1 <= ages[0] and ages[-1] <= 1.15 * age + 0.3 * SLOW
    assert ages[-1] - ages[0] >= 0.2 * age
    assert len(set(ages)) >= 5, ages


# --- the old one ---------------------------------------------------------------------------------


@pytest.fixture
def held(serve, model: Model) -> Iterator:
    """A server whose only worker has been replaced, and still has a request; and that request's connection."""
    server = serve(model, listener(model, **once(model)), drain_timeout="20s")
    old, = server.workers("main")
    with server["main"].connect() as busy:
        busy.send(request(f"/sleep?ms={min(int(2500 * SLOW), 9000)}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        eventually(lambda: recycled(server) == 1 and len(states(server)) == 2, within=5)
        yield server, old, busy


def fresh_of(server: Server, old: int) -> int:
    pid, = set(server.workers("main")) - {old}
    return pid


def test_request_in_progress_ends_where_it_is(held) -> None:
    server, old, busy = held
    fresh = fresh_of(server, old)
    assert server["main"].ask("/hello").status == 200
    assert recycled(server) == 1, "the next one waits until the old one is gone"
    assert set(server.workers("main")) == {old, fresh}
    a = busy.answer()
    assert (a.status, a.closes) == (200, False), "and its connection goes on with another"
    eventually(lambda: not proc.is_alive(old))
    assert busy.ask("/hello").status == 200
    eventually(lambda: recycled(server) >= 2, within=5)


def test_idle_connection_goes_on_with_another_worker(serve, model: Model) -> None:
    server = serve(model, listener(model, **once(model)))
    with server["main"].connect() as idle:
        for count in (1, 2, 3):
            a = idle.ask("/hello")
            assert (a.status, a.closes) == (200, False)
            eventually(lambda: recycled(server) >= count, within=5)
            assert idle.is_quiet(0.1)


def test_idle_connection_over_tls_may_ask_once_more(serve, model: Model, certificates) -> None:
    """It can't move: its keys are in a process. It does not hold the old one longer than a reload would."""
    main = replace(listener(model, **once(model)), certificates=[certificates["one"]])
    server = serve(model, main, drain_timeout="1s")
    old, = server.workers("main")
    with server["main"].connect() as idle, server["main"].connect() as other:
        idle.ask("/hello")
        other.ask("/hello")
        eventually(lambda: recycled(server) == 1, within=5)
        assert idle.is_quiet(0.1), "it is not cut off"
        a = idle.ask("/hello")
        assert (a.status, a.closes) == (200, True)
        eventually(lambda: not proc.is_alive(old), within=5)
        other.expect_end()


def test_old_one_is_cut_when_its_time_is_over(serve, model: Model) -> None:
    server = serve(model, listener(model, **once(model)), drain_timeout="300ms")
    old, = server.workers("main")
    with server["main"].connect() as busy:
        busy.send(request("/sleep?ms=9000"))
        eventually(lambda: not proc.is_alive(old), within=5)
        with pytest.raises(OSError):
            busy.answer()
    assert "drain_timeout is over for the recycled worker" in server.errors
    eventually(lambda: recycled(server) >= 2, within=5)
    assert server.listener_status("main")["worker_deaths"] == 0
    assert server["main"].ask("/hello").status == 200


def test_old_one_is_killed(held) -> None:
    server, old, _ = held
    proc.end(old)
    server.deaths_expected = 1
    eventually(lambda: old not in server.workers("main"))
    assert server["main"].ask("/hello").status == 200
    eventually(lambda: recycled(server) >= 2, within=8)
    assert server.listener_status("main")["worker_deaths"] == 1


def test_new_one_is_killed_while_the_old_one_finishes(held) -> None:
    server, old, busy = held
    proc.end(fresh_of(server, old))
    server.deaths_expected = 1
    eventually(lambda: server["main"].ask("/hello").status == 200)
    assert busy.answer().status == 200
    eventually(lambda: not proc.is_alive(old))
    eventually(lambda: recycled(server) >= 2, within=8)


def test_stop_while_the_old_one_finishes(held) -> None:
    server, _, busy = held
    server.signal(signal.SIGTERM)
    assert busy.answer().status == 200
    assert server.wait() == 0


def test_reload_while_the_old_one_finishes(held, model: Model) -> None:
    server, old, busy = held
    both = set(server.workers("main"))
    server.reload([listener(model, 'route "/" { text { body = "new" } }'), watch(model)], {"drain_timeout": "20s"})
    assert server["main"].ask("/").text == "new"
    assert busy.answer().status == 200
    eventually(lambda: not any(proc.is_alive(pid) for pid in both), within=5)
    assert recycled(server) == 1, "the listener has not forgotten"


# --- the new one ---------------------------------------------------------------------------------


@pytest.fixture
def starting(serve, model: Model) -> Iterator:
    """A server whose only worker is being replaced by one that stands still before it is ready."""
    server = serve(model, listener(model, **once(model)))
    stopped: list[int] = []

    def catch() -> bool:
        known = children(server)
        while not (new := children(server) - known):
            pass
        pid = new.pop()
        proc.send(pid, signal.SIGSTOP)
        eventually(lambda: proc.state(pid) == "T")
        stopped.append(pid)
        if proc.title(pid) == proc.title(server.pid):
            return True  # it takes its own before it says that it is ready
        proc.send(stopped.pop(), signal.SIGCONT)
        return False

    eventually(catch, within=15, what="one is caught before it is ready")
    old, = children(server) - set(stopped) - set(server.workers("watch"))
    yield server, old, stopped[0]
    for pid in stopped:
        if proc.is_alive(pid):
            proc.send(pid, signal.SIGCONT)


def test_old_one_serves_until_the_new_one_is_ready(starting) -> None:
    server, old, fresh = starting
    for _ in range(5):
        assert server["main"].ask("/hello").status == 200
    assert proc.is_alive(old)
    before = recycled(server)
    proc.send(fresh, signal.SIGCONT)
    eventually(lambda: recycled(server) == before + 1)
    eventually(lambda: not proc.is_alive(old))


def test_new_one_fails(starting) -> None:
    """The old one goes on, and it is tried again, later."""
    server, old, fresh = starting
    before = recycled(server)
    proc.end(fresh)
    server.deaths_expected = 1
    eventually(lambda: "has ended before it was ready: it goes on" in server.errors)
    assert server["main"].ask("/hello").status == 200
    assert proc.is_alive(old) and states(server) in (["waiting"], ["busy"])
    eventually(lambda: recycled(server) == before + 1, within=5)
    eventually(lambda: not proc.is_alive(old))


def test_old_one_is_killed_before_the_new_one_is_ready(starting) -> None:
    """The new one takes its place: no third one is made."""
    server, old, fresh = starting
    proc.end(old)
    server.deaths_expected = 1
    eventually(lambda: server.status()["worker_deaths"] == 1)
    assert children(server) == {fresh, *server.workers("watch")}
    proc.send(fresh, signal.SIGCONT)
    assert server["main"].ask("/hello").status == 200


def test_stop_before_the_new_one_is_ready(starting) -> None:
    server, old, fresh = starting
    server.signal(signal.SIGTERM)
    eventually(lambda: not proc.is_alive(old))
    proc.send(fresh, signal.SIGCONT)
    assert server.wait() == 0


def test_reload_before_the_new_one_is_ready(starting, model: Model) -> None:
    server, old, fresh = starting
    server.reload([listener(model, 'route "/" { text { body = "new" } }'), watch(model)])
    eventually(lambda: not proc.is_alive(old))
    proc.send(fresh, signal.SIGCONT)
    eventually(lambda: not proc.is_alive(fresh))
    assert server["main"].ask("/").text == "new"
    assert server.listener_status("main")["worker_deaths"] == 0


def test_no_process_can_be_made(serve, model: Model) -> None:
    """For want of descriptors in the master. It says so, and tries again, each time later."""
    server = serve(model, listener(model, **once(model)))
    old, = server.workers("main")
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    for seconds in (1, 2):
        said = f"worker {old} was to be replaced (worker_age), but the other could not be made: it goes on, and another is tried in {seconds} s"
        eventually(lambda: said in server.errors, within=5)
    assert proc.is_alive(old)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
    eventually(lambda: recycled(server) >= 1, within=8)
    assert server["main"].ask("/hello").status == 200


# --- nothing is left behind ----------------------------------------------------------------------


@pytest.mark.limit(60)
def test_a_hundred_recyclings_leave_nothing_behind(serve, model: Model) -> None:
    options = {"worker_age": "20ms", "processes": 2, "loops": 1, "threads": 2}
    server = serve(model, listener(model, **options))
    customer = Customer(server["main"])
    eventually(lambda: recycled(server) >= 5, within=20)
    memory, count = proc.anonymous_bytes(server.pid), recycled(server)
    shared = proc.shared_bytes(server.pid)
    eventually(lambda: recycled(server) >= count + 100, within=45)
    assert proc.anonymous_bytes(server.pid) - memory < 1 << 20
    assert proc.shared_bytes(server.pid) - shared < 1 << 20
    customer.leave()
    server.reload([listener(model, **SIZES | {"processes": 2}), watch(model)])
    eventually(lambda: len(server.listener_status("main")["generations"]) == 1)
    eventually(lambda: set(server.processes()) == {server.pid, *server.workers("main"), *server.workers("watch")})
    assert all(proc.state(pid) != "Z" for pid in children(server))
    descriptors = proc.descriptors(server.pid)
    assert descriptors < 64, "a pidfd for each of a hundred would be more"
