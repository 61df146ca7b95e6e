# SPDX-License-Identifier: MIT
"""What make bench-toolbox prints: a table a row, one of all rows, and the ratios that are wanted."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from measure import NOISE_LIMIT, median_and_spread
from report import figure, table
from toolbox_rows import BYTES, IDLE, RECOVERY, ROWS, Row, Target


@dataclass(frozen=True)
class Round:
    row: str
    job: str
    repeat: int
    ops: int
    seconds: float
    cpu_s: float  # of all workers
    switches: int  # they slept
    preemptions: int  # they had to give way
    least: int  # operations of the worker who had least, and most
    most: int
    p50_ns: float  # waits
    p99_ns: float
    max_ns: float
    bytes_each: float
    kernel_bytes_each: float
    others: float  # CPUs that somebody else used of ours
    stolen: float  # CPUs that the hypervisor kept of ours

    @property
    def trusted(self) -> bool:
        return self.others + self.stolen <= NOISE_LIMIT

    @property
    def rate(self) -> float:
        return self.ops / self.seconds

    @property
    def ns(self) -> float:
        return self.seconds * 1e9 / max(1, self.ops)

    @property
    def cpu_ns(self) -> float:
        return self.cpu_s * 1e9 / max(1, self.ops)


FIGURES: dict[str, Callable[[Round], float]] = {
    "ns": lambda r: r.ns,
    "rate": lambda r: r.rate,
    "bytes": lambda r: r.bytes_each,
    "sleeps": lambda r: r.switches / max(1, r.ops),
    "p99": lambda r: r.p99_ns,
}


def trusted_if_any(rounds: list[Round]) -> list[Round]:
    return [r for r in rounds if r.trusted] or rounds


def by_job(rounds: list[Round], row: str) -> dict[str, list[Round]]:
    found: dict[str, list[Round]] = {}
    for r in rounds:
        if r.row == row:
            found.setdefault(r.job, []).append(r)
    return found


# --- tables -------------------------------------------------------------------------------------


def duration(ns: float) -> str:
    if ns <= 0:
        return "-"
    for unit, size in (("ns", 1.0), ("µs", 1e3), ("ms", 1e6)):
        if ns < 1000 * size:
            return f"{figure(ns / size)} {unit}"
    return f"{figure(ns / 1e9)} s"


def label(row: Row, name: str) -> str:
    """Threads in a row of processes are there to be compared with."""
    scopes = {job.scope for job in row.jobs.values()}
    return f"{name} (threads)" if len(scopes) > 1 and row.jobs[name].scope == "thread" else name


def rate_head(row: Row) -> list[str]:
    return ["", f"{row.operation}s/s", "time each", "±", "CPU each", "±", "sleeps each", "preempted/s",
            "least/most", "wait p50", "p99", "longest", "trusted"]


def rate_row(row: Row, name: str, rounds: list[Round]) -> list[str]:
    used = trusted_if_any(rounds)

    def median(value: Callable[[Round], float]) -> float:
        return statistics.median(value(r) for r in used)

    ns, ns_spread = median_and_spread([r.ns for r in used])
    cpu, cpu_spread = median_and_spread([r.cpu_ns for r in used])
    shares = row.load == "lock" and row.arguments.get("workers", 1) > 1
    return [
        label(row, name), f"{median(lambda r: r.rate):,.0f}", duration(ns), f"{ns_spread:.0%}", duration(cpu),
        f"{cpu_spread:.0%}", f"{median(lambda r: r.switches / max(1, r.ops)):.3f}",
        f"{median(lambda r: r.preemptions / r.seconds):.0f}",
        f"{median(lambda r: r.least / max(1, r.most)):.2f}" if shares else "-",
        duration(median(lambda r: r.p50_ns)), duration(median(lambda r: r.p99_ns)),
        duration(max(r.max_ns for r in used)), f"{sum(r.trusted for r in rounds)}/{len(rounds)}"]


def bytes_row(row: Row, name: str, rounds: list[Round]) -> list[str]:
    r = trusted_if_any(rounds)[0]
    return [name, f"{r.bytes_each:,.0f}", f"{r.kernel_bytes_each:,.0f}" if r.kernel_bytes_each else "-",
            duration(r.ns)]


def idle_row(row: Row, name: str, rounds: list[Round]) -> list[str]:
    r = trusted_if_any(rounds)[0]
    return [name, f"{r.switches / max(1, r.ops):.2f}", duration(r.cpu_ns)]


def recovery_row(row: Row, name: str, rounds: list[Round]) -> list[str]:
    used = trusted_if_any(rounds)
    return [name, *(duration(statistics.median(getattr(r, field) for r in used))
                    for field in ("p50_ns", "p99_ns")),
            duration(max(r.max_ns for r in used)), f"{sum(r.trusted for r in rounds)}/{len(rounds)}"]


def row_table(row: Row, jobs: dict[str, list[Round]]) -> str:
    head, line = rate_head(row), rate_row
    if row.kind == BYTES:
        head, line = ["", "bytes each", "page tables", "start each"], bytes_row
    elif row.kind == IDLE:
        head, line = ["", "sleeps each", "CPU each"], idle_row
    elif row.kind == RECOVERY:
        head, line = ["", "p50", "p99", "longest", "trusted"], recovery_row
    return table(head, [line(row, name, jobs[name]) for name in row.jobs if name in jobs])


def row_tables(rounds: list[Round]) -> list[str]:
    parts = []
    for row in ROWS.values():
        jobs = by_job(rounds, row.name)
        if jobs:
            parts += [f"### {row.name}: {row.title}", row_table(row, jobs)]
    return parts


def summary(rounds: list[Round]) -> list[str]:
    """One line a row: modus, the fastest of the others in C, Python."""
    lines = []
    for row in ROWS.values():
        jobs = {name: statistics.median(r.ns for r in trusted_if_any(of))
                for name, of in by_job(rounds, row.name).items()}
        if row.kind in (BYTES, IDLE, RECOVERY) or "modus" not in jobs:
            continue
        others = {name: ns for name, ns in jobs.items() if row.jobs[name].peer not in ("modus", "python")}
        python = [ns for name, ns in jobs.items() if row.jobs[name].peer == "python"]
        best = min(others, key=lambda name: others[name]) if others else None
        lines.append([
            row.title, duration(jobs["modus"]), duration(others[best]) if best else "-",
            label(row, best) if best else "-", f"{others[best] / jobs['modus']:.2f}" if best else "-",
            duration(min(python)) if python else "-",
            f"{min(python) / jobs['modus']:.0f}" if python else "-"])
    head = ["time an operation", "modus", "next", "which is", "times as long", "Python", "times as long"]
    return ["### all rows", table(head, lines)] if len(lines) > 1 else []


# --- what is wanted -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ratio:
    target: Target
    value: float | None  # None: not measured
    low: float
    high: float
    trusted: bool

    @property
    def word(self) -> str:
        if self.value is None:
            return "not measured"
        bound = self.target.bound
        holds = self.value >= bound if self.target.at_least else self.value <= bound
        return ("holds" if holds else "falls short") + ("" if self.trusted else " (noisy)")


def ratio(target: Target, rounds: list[Round]) -> Ratio:
    """The median of the ratios of neighbours in time; without a peer, of the figure itself."""
    jobs, value = by_job(rounds, target.row), FIGURES[target.what]
    ours = jobs.get(target.job, [])
    if target.against is None:
        quiet = trusted_if_any(ours)
        values = [value(r) for r in quiet]
    else:
        pairs = [(a, b) for a in ours for b in jobs.get(target.against, []) if a.repeat == b.repeat]
        quiet_pairs = [(a, b) for a, b in pairs if a.trusted and b.trusted]
        quiet = [a for a, _ in quiet_pairs]
        values = [value(a) / value(b) for a, b in quiet_pairs or pairs]
    if not values:
        return Ratio(target, None, 0, 0, False)
    trusted = bool(quiet) and all(r.trusted for r in quiet)
    return Ratio(target, statistics.median(values), min(values), max(values), trusted)


WORDS = {"ns": "time", "rate": "rate", "sleeps": "sleeps each", "bytes": "bytes", "p99": "p99"}


def target_text(target: Target, value: float) -> str:
    if target.against is not None or target.what == "sleeps":
        return f"{value:.3g}"
    return f"{value:,.0f} B" if target.what == "bytes" else duration(value)


def ratio_row(r: Ratio) -> list[str]:
    t = r.target
    name = f"{t.row}: {t.job}" + (f" / {t.against}" if t.against else "")
    measured = "-" if r.value is None else target_text(t, r.value)
    span = "-" if r.value is None else f"{target_text(t, r.low)} – {target_text(t, r.high)}"
    return [name, WORDS[t.what], f"{'≥' if t.at_least else '≤'} {target_text(t, t.bound)}", measured, span,
            r.word]


def ratio_table(ratios: list[Ratio]) -> list[str]:
    return ["### wanted", table(["what", "of", "wanted", "measured", "range", ""], [ratio_row(r) for r in ratios])]
