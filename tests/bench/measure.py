# SPDX-License-Identifier: MIT
"""The measurements: rounds of wrk, idle connections, bursts."""

import json
import resource
import selectors
import socket
import statistics
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import proc
from loads import Load
from servers import Running

FOLDER = Path(__file__).resolve().parent
SETTLE_S = 0.05  # after a round: children leave and are reaped
NOISE_LIMIT = 0.15  # of one CPU
WRK_TIMEOUT_S = 30  # a request; 8 workers that sleep keep 256 connections waiting for seconds


@dataclass(frozen=True)
class Cpus:
    server: int
    loader: int  # the runner's as well
    all: frozenset[int]


@dataclass(frozen=True)
class Round:
    load: str
    server: str
    repeat: int
    requests: int
    requests_per_s: float
    cpu_us: float  # server CPU time a request
    busy: float  # the server's share of its CPU
    p50_us: int
    p99_us: int
    errors: int
    error_kinds: dict[str, int]
    bytes_per_answer: float
    pss_bytes: int
    processes: int
    threads: int
    others: float  # CPUs that somebody else used of ours
    stolen: float  # CPUs that the hypervisor kept of ours

    @property
    def trusted(self) -> bool:
        return self.others + self.stolen <= NOISE_LIMIT


class RoundFailed(Exception):
    pass


@contextmanager
def wrk_started(load: Load, url: str, seconds: int) -> Iterator[subprocess.Popen[str]]:
    """wrk under way, on the runner's CPU; ended when the block is left early."""
    wrk = subprocess.Popen(
        ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", f"--timeout={WRK_TIMEOUT_S}s",
         "--latency", "-s", load.script, url],
        cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield wrk
    finally:
        wrk.kill()
        wrk.wait()


def wrk_result(wrk: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for its end; what report.lua wrote."""
    output, _ = wrk.communicate()
    for line in output.splitlines():
        if line.startswith("JSON "):
            return json.loads(line.removeprefix("JSON "))
    raise RoundFailed(f"wrk ended with {wrk.returncode}: {output[-500:].strip()}")


def warm_up(running: Running, load: Load) -> None:
    with wrk_started(load, running.url, 1) as wrk:
        wrk_result(wrk)


def own_cpu_s() -> float:
    """The runner's CPU time and that of its ended children, of which in a round wrk is the only one."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def measure_round(running: Running, repeat: int, seconds: int, cpus: Cpus) -> Round:
    """One run of wrk, with the server's memory looked at in its middle."""
    load = running.load
    strangers_before = proc.strangers_cpu_s(running.pid)
    own_before, server_before = own_cpu_s(), proc.tree_cpu_s(running.pid)
    before = {cpu: proc.sample_cpu(cpu) for cpu in (cpus.server, cpus.loader)}
    with wrk_started(load, running.url, seconds) as wrk:
        time.sleep(seconds / 2)
        memory = proc.tree_memory(running.pid)
        result = wrk_result(wrk)
    time.sleep(SETTLE_S)
    server_s = proc.tree_cpu_s(running.pid) - server_before
    after = {cpu: proc.sample_cpu(cpu) for cpu in before}
    own_s = own_cpu_s() - own_before
    busy = {cpu: proc.busy_s(before[cpu], after[cpu]) for cpu in before}
    others_s = sum(busy.values()) - server_s - own_s
    if running.server.loses_children:
        server_s = busy[cpus.server]
        others_s = proc.strangers_cpu_s(running.pid) - strangers_before
    if result["requests"] == 0:
        raise RoundFailed(f"no request was answered: {result['errors']}")
    wall_s = after[cpus.server].at - before[cpus.server].at
    return Round(
        load=load.name, server=running.server.name, repeat=repeat, requests=result["requests"],
        requests_per_s=result["requests"] / result["duration_us"] * 1e6,
        cpu_us=server_s / result["requests"] * 1e6,
        busy=server_s / result["duration_us"] * 1e6,
        p50_us=result["p50_us"], p99_us=result["p99_us"],
        errors=sum(result["errors"].values()), error_kinds=result["errors"],
        bytes_per_answer=result["bytes"] / result["requests"],
        pss_bytes=memory.pss_bytes, processes=memory.processes, threads=memory.threads,
        others=max(0.0, others_s) / wall_s,
        stolen=sum(after[cpu].steal - before[cpu].steal for cpu in before) / wall_s)


# --- idle connections ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Idle:
    server: str
    connections: int
    lost: int  # closed by the server before we looked
    pss_before: int
    pss_after: int
    anonymous_before: int
    anonymous_after: int

    def bytes_each(self, before: int, after: int) -> float:
        return (after - before) / max(1, self.connections - self.lost)


def open_idle(running: Running, stack: ExitStack) -> list[socket.socket]:
    """Connections that have each had one request answered."""
    request = (f"GET {running.server.path(running.load)} HTTP/1.1\r\n"
               f"Host: 127.0.0.1:{running.place.port}\r\n\r\n").encode()
    held = []
    for _ in range(running.load.connections):
        connection = stack.enter_context(
            socket.create_connection(("127.0.0.1", running.place.port), timeout=10))
        connection.sendall(request)
        if not connection.recv(4096).startswith(b"HTTP/1.1 200 "):
            raise RoundFailed("an idle connection's request was not answered with 200")
        held.append(connection)
    return held


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def measure_idle(running: Running) -> Idle:
    """What a connection costs that waits. Buffers and stacks that are touched once and kept were
    touched in the warm-up, so they are in both figures."""
    time.sleep(1)
    before = proc.tree_memory(running.pid)
    with ExitStack() as stack:
        held = open_idle(running, stack)
        time.sleep(1)
        after = proc.tree_memory(running.pid)
        lost = sum(is_closed(connection) for connection in held)
    return Idle(running.server.name, len(held), lost, before.pss_bytes, after.pss_bytes,
                before.anonymous_bytes, after.anonymous_bytes)


# --- bursts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Burst:
    seconds: float
    answered: int


def burst(running: Running, count: int) -> Burst:
    """Send `count` requests at once, each on a connection of its own: how long until all are
    answered?"""
    request = (f"GET {running.server.path(running.load)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
               "Connection: close\r\n\r\n").encode()
    answered = 0
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        start = time.monotonic()
        for _ in range(count):
            connection = stack.enter_context(
                socket.create_connection(("127.0.0.1", running.place.port), timeout=10))
            connection.sendall(request)
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < start + 120:
            for key, _ in selector.select(timeout=1):
                assert isinstance(key.fileobj, socket.socket)
                answered += received_200(key.fileobj)
                selector.unregister(key.fileobj)
        return Burst(time.monotonic() - start, answered)


def received_200(connection: socket.socket) -> bool:
    try:
        return connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def one_after_the_other(running: Running, count: int) -> Burst:
    bursts = [burst(running, 1) for _ in range(count)]
    return Burst(sum(b.seconds for b in bursts), sum(b.answered for b in bursts))


# --- arithmetic ---------------------------------------------------------------------------------


def trusted_if_any(rounds: Iterable[Round]) -> list[Round]:
    rounds = list(rounds)
    return [r for r in rounds if r.trusted] or rounds


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """The median, and half the range as a part of it."""
    median = statistics.median(values)
    return median, (max(values) - min(values)) / 2 / median if median else 0.0
