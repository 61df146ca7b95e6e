# SPDX-License-Identifier: MIT
"""What is printed: a table a load, and the ratios that the project wants to keep."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from loads import IDLE, LOADS, ONCE, SPINS
from measure import Burst, Idle, Round, median_and_spread, trusted_if_any


@dataclass(frozen=True)
class Target:
    load: str
    server: str
    what: str  # "cpu": CPU time a request, at most; "rate": requests a second, at least
    bound: float
    against: str


def targets(load: str, what: str, rows: dict[str, dict[str, float]]) -> list[Target]:
    return [Target(load, server, what, bound, against)
            for server, bounds in rows.items() for against, bound in bounds.items()]


TARGETS = [
    *targets("hello", "cpu", {
        "event-loop": {"nginx": 0.60, "limit-epoll": 1.2},
        "prefork": {"event-loop": 1.15},
        "thread-pool": {"event-loop": 1.5, "apache-worker": 0.4},
        "process": {"event-loop": 1.8}}),
    *targets("pipeline", "rate", {
        "event-loop": {"nginx": 25, "limit-epoll": 0.5},
        "prefork": {"nginx": 25, "limit-epoll": 0.5},
        "thread-pool": {"nginx": 12},
        "process": {"nginx": 12}}),
    *targets("file1k", "cpu", {
        "event-loop": {"nginx": 0.70},
        "prefork": {"nginx": 0.80},
        "thread-pool": {"apache-worker": 0.4}}),
    *targets("file1m", "cpu", {
        server: {"nginx": 1.05} for server in ("event-loop", "prefork", "thread-pool", "process")}),
    *targets("close", "cpu", {
        "event-loop": {"nginx": 1.05},
        "prefork": {"nginx": 1.1},
        "thread-pool": {"apache-worker": 0.5}}),
    *targets("close", "rate", {"process": {"limit-fork": 0.8}}),
    *targets("tls1k", "cpu", {
        "event-loop": {"nginx": 0.80},
        "prefork": {"nginx": 0.80},
        "thread-pool": {"apache-worker": 0.35}}),
]

FOOTNOTES = {
    "pipeline": "Requests a second counts answers. wrk times batches of 16, not requests, and its "
                "correction for coordinated omission then counts wrongly: take p50 with care; a p99 of "
                "`-` is one that it could not find.",
    "close": "The CPU time of limit-fork is all that its CPU was busy: the kernel reaps its children, "
             "and their time is counted nowhere else.",
    "file1m": "wrk receives 8 KiB at a time and is the narrow place: only the CPU time a request counts.",
}


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown that is also readable as it is: the first column to the left, the rest to the right."""
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        padded = [cell.ljust(width) if i == 0 else cell.rjust(width)
                  for i, (cell, width) in enumerate(zip(cells, widths))]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def figure(value: float) -> str:
    if value >= 10000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def duration(microseconds: float) -> str:
    if microseconds <= 0:
        return "-"
    if microseconds < 1000:
        return f"{microseconds:.0f} µs"
    return f"{microseconds / 1000:.3g} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.3g} s"


def mebibytes(count: float) -> str:
    return f"{count / 2**20:.1f}"


LOAD_HEAD = ["server", "requests/s", "±", "CPU µs/request", "±", "busy", "p50", "p99", "PSS MiB",
             "processes", "threads", "errors", "trusted"]


def load_row(server: str, rounds: list[Round]) -> list[str]:
    used = trusted_if_any(rounds)

    def median(value: Callable[[Round], float]) -> float:
        return statistics.median(value(r) for r in used)

    rate, rate_spread = median_and_spread([r.requests_per_s for r in used])
    cpu, cpu_spread = median_and_spread([r.cpu_us for r in used])
    return [
        server, f"{rate:,.0f}", f"{rate_spread:.0%}", figure(cpu), f"{cpu_spread:.0%}",
        f"{median(lambda r: r.busy):.0%}", duration(median(lambda r: r.p50_us)),
        duration(median(lambda r: r.p99_us)), mebibytes(median(lambda r: r.pss_bytes)),
        f"{median(lambda r: r.processes):.0f}", f"{median(lambda r: r.threads):.0f}",
        str(sum(r.errors for r in rounds)), f"{sum(r.trusted for r in rounds)}/{len(rounds)}"]


def by_server(rounds: list[Round], load: str) -> dict[str, list[Round]]:
    found: dict[str, list[Round]] = {}
    for r in rounds:
        if r.load == load:
            found.setdefault(r.server, []).append(r)
    return found


def load_tables(rounds: list[Round]) -> list[str]:
    parts = []
    for load in LOADS:
        servers = by_server(rounds, load.name)
        if servers:
            parts.append(f"### {load.name}: {load.title}")
            parts.append(table(LOAD_HEAD, [load_row(name, servers[name])
                                           for name in load.servers if name in servers]))
            if load.name in FOOTNOTES:
                parts.append(FOOTNOTES[load.name])
    return parts


SUMMED_UP = ["event-loop", "prefork", "thread-pool", "process", "nginx", "apache-event", "apache-worker"]


def summary(rounds: list[Round]) -> list[str]:
    """One table of all loads: what the README shows."""
    servers = [name for name in SUMMED_UP if any(r.server == name for r in rounds)]
    rows = []
    for load in LOADS:
        found = by_server(rounds, load.name)
        if found:
            rows.append([load.title] + [
                figure(statistics.median(r.cpu_us for r in trusted_if_any(found[name]))) if name in found else "-"
                for name in servers])
    return ["### CPU time a request, µs", table(["load", *servers], rows)] if len(rows) > 1 else []


# --- ratios -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ratio:
    target: Target
    value: float | None  # None: one of the two was not measured
    low: float
    high: float
    trusted: bool

    @property
    def word(self) -> str:
        if self.value is None:
            return "not measured"
        bound = self.target.bound
        holds = self.value <= bound if self.target.what == "cpu" else self.value >= bound
        return ("holds" if holds else "falls short") + ("" if self.trusted else " (noisy)")


def ratio(target: Target, rounds: list[Round]) -> Ratio:
    """The median of the ratios of neighbours in time: what slows both cancels out."""
    servers = by_server(rounds, target.load)
    pairs = [(a, b) for a in servers.get(target.server, []) for b in servers.get(target.against, [])
             if a.repeat == b.repeat]
    if not pairs:
        return Ratio(target, None, 0, 0, False)
    quiet = [(a, b) for a, b in pairs if a.trusted and b.trusted]

    def value(r: Round) -> float:
        return r.cpu_us if target.what == "cpu" else r.requests_per_s

    values = [value(a) / value(b) for a, b in quiet or pairs]
    return Ratio(target, statistics.median(values), min(values), max(values), bool(quiet))


def ratio_row(r: Ratio) -> list[str]:
    sign, what = ("≤", "CPU time") if r.target.what == "cpu" else ("≥", "requests/s")
    measured = "-" if r.value is None else f"{r.value:.2f}"
    span = "-" if r.value is None else f"{r.low:.2f}–{r.high:.2f}"
    return [f"{r.target.load}: {r.target.server} / {r.target.against}", what,
            f"{sign} {r.target.bound:g}", measured, span, r.word]


def ratio_table(ratios: list[Ratio]) -> list[str]:
    head = ["ratio", "of", "wanted", "measured", "range", ""]
    return ["### ratios", table(head, [ratio_row(r) for r in ratios])]


# --- what the runner measured itself ------------------------------------------------------------


def idle_table(results: list[Idle]) -> list[str]:
    rows = [[r.server, f"{r.bytes_each(r.pss_before, r.pss_after):,.0f}",
             f"{r.bytes_each(r.anonymous_before, r.anonymous_after):,.0f}",
             mebibytes(r.pss_before), mebibytes(r.pss_after), str(r.lost)] for r in results]
    head = ["server", "PSS bytes each", "anonymous bytes each", "PSS MiB before", "after", "lost"]
    note = ("User memory of the whole tree. nginx allocates its 16,384 `worker_connections` at the start: "
            "they are in the figure before.")
    return [f"### {IDLE.name}: {IDLE.title}", table(head, rows), note]


ONCE_EXPECTED_S = {"process": 2, "thread-pool": 2, "event-loop": 2, "prefork": 26}


def once_table(results: dict[str, Burst]) -> list[str]:
    rows = [[server, f"{b.answered}/{ONCE.connections}", f"{b.seconds:.2f} s",
             f"{ONCE_EXPECTED_S[server]} s"] for server, b in results.items()]
    note = ("thread-pool and event-loop with 128 threads; prefork with 8 workers, so 13 times 2 s.")
    return [f"### {ONCE.name}: {ONCE.title}", table(["server", "answered", "all after", "expected"], rows),
            note]


def spins_table(results: dict[str, tuple[Burst, Burst]]) -> list[str]:
    rows = [[server, f"{serial.answered + parallel.answered}/{2 * SPINS.connections}",
             f"{serial.seconds:.2f} s", f"{parallel.seconds:.2f} s",
             f"{serial.seconds / parallel.seconds:.2f}"]
            for server, (serial, parallel) in results.items()]
    head = ["server", "answered", "one after the other", "at once", "times as fast"]
    return [f"### {SPINS.name}: {SPINS.title}", table(head, rows)]
