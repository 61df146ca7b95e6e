# SPDX-License-Identifier: MIT
"""The rows of make bench-toolbox: what is measured, and by which job of which peer (toolbox/peer_*)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

WORK_NS = (0, 100, 1000)  # critical sections
CAPACITIES = (8, 64, 1024)
SLEEPERS = 100_000
DEATHS = 200

# What a row's figures are of, and so which columns its table has.
RATE, BYTES, RECOVERY, IDLE = "rate", "bytes", "recovery", "idle"


@dataclass(frozen=True)
class Job:
    """One peer's part in a row: the program toolbox/peer_PEER, and what it is told."""

    peer: str
    what: str
    scope: str  # "thread" or "process"


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    load: str
    jobs: dict[str, Job]  # by the name in the table
    kind: str = RATE
    operation: str = "operation"
    arguments: dict[str, int] = field(default_factory=dict)
    work_ns: int = 0
    once: bool = False  # a figure that does not vary: one round
    brief: bool = True  # in QUICK=1 as well


def jobs(scope: str, **whats: str) -> dict[str, Job]:
    """modus="lock" is the job `lock` of peer_modus; pthread__robust, one of peer_pthread that the table
    calls pthread-robust."""
    def peer(name: str) -> str:
        first = name.split("__")[0]
        return "pthread" if first in ("futex", "ucontext") else first

    return {name.replace("__", "-"): Job(peer(name), what, scope) for name, what in whats.items()}


# --- locks --------------------------------------------------------------------------------------

ALONE = "pairs, nobody else wants it"
THREAD_LOCKS = jobs("thread", modus="lock", pthread="plain", glib="mutex", apr="mutex", uv="mutex",
                    ck__spinlock="spinlock")
PROCESS_LOCKS = jobs("process", modus="lock", pthread__robust="robust", pthread__shared="plain",
                     apr="process")
PI = jobs("process", pthread__robust__pi="robust-pi")


def lock_rows() -> Iterator[Row]:
    def alone(name: str, title: str, of: dict[str, Job]) -> Row:
        return Row(name, f"{title}: {ALONE}", "lock", of, operation="pair", arguments={"cpus": 1})

    yield alone("lock", "lock between threads", THREAD_LOCKS | jobs("thread", python="lock"))
    yield alone("rlock", "recursive lock between threads", jobs(
        "thread", modus="rlock", pthread="recursive", glib="rmutex", apr="nested", uv="recursive",
        python="rlock"))
    yield alone("lock-process", "lock between processes",
                PROCESS_LOCKS | PI | jobs("process", python="lock"))
    yield alone("rlock-process", "recursive lock between processes", jobs(
        "process", modus="rlock", pthread__robust="recursive", python="rlock"))
    yield alone("sem", "semaphore between threads", jobs(
        "thread", modus="sem", pthread="sem", uv="sem", python="sem"))
    yield alone("sem-process", "semaphore between processes", jobs(
        "process", modus="sem", modus__accounted="accounted", pthread="sem", python="sem"))
    yield alone("event", "event between threads, set and cleared", jobs("thread", modus="event"))
    for scope, locks in (("thread", THREAD_LOCKS), ("process", PROCESS_LOCKS)):
        for workers in (2, 4, 16):
            for work_ns in WORK_NS:
                yield contended(scope, workers, work_ns, locks)
    yield contended("process", 4, 0, jobs("process", modus="lock") | PI, name="lock-process-4-pi")
    for scope in ("thread", "process"):
        yield Row(f"sem-4{suffix(scope)}", f"semaphore of 1, 4 {plural(scope)}", "lock",
                  jobs(scope, modus="sem", pthread="sem"), operation="pair", arguments={"workers": 4})


def contended(scope: str, workers: int, work_ns: int, locks: dict[str, Job], name: str = "") -> Row:
    held = f"held for {work_ns} ns" if work_ns else "held for nothing"
    return Row(name or f"lock{suffix(scope)}-{workers}-{work_ns}",
               f"lock, {workers} {plural(scope)} want it at once, {held}", "lock", locks,
               operation="pair", arguments={"workers": workers}, work_ns=work_ns, brief=workers == 4)


def suffix(scope: str) -> str:
    return "-process" if scope == "process" else ""


def plural(scope: str) -> str:
    return "processes" if scope == "process" else "threads"


# --- hand-over ----------------------------------------------------------------------------------


def relay_rows() -> Iterator[Row]:
    """Two who wake each other. The bare futex is in each row: nobody who sleeps can be faster."""
    kinds = {
        ("event", "thread"): dict(modus="event", python="event"),
        ("sem", "thread"): dict(modus="sem", pthread="sem", uv="sem", python="sem"),
        ("cond", "thread"): dict(modus="cond", pthread="cond", glib="cond", apr="cond", uv="cond",
                                 python="cond"),
        ("queue", "thread"): dict(modus="queue", pthread="queue", glib="queue", apr="queue", python="queue"),
        ("event", "process"): dict(modus="event", python="event"),
        ("sem", "process"): dict(modus="sem", pthread="sem", python="sem"),
        ("cond", "process"): dict(modus="cond", pthread="cond", python="cond"),
        ("queue", "process"): dict(modus="queue", pthread="queue", python="queue"),
    }
    for cpus in (2, 1):
        for (object_, scope), whats in kinds.items():
            on = "each on a CPU" if cpus == 2 else "both on one CPU"
            yield Row(f"relay-{object_}{suffix(scope)}{'-one-cpu' if cpus == 1 else ''}",
                      f"two {plural(scope)} wake each other by {object_}, {on}", "relay",
                      jobs(scope, futex="futex", **whats), operation="round trip",
                      arguments={"workers": 2, "cpus": cpus, "capacity": 8}, brief=cpus == 2)


def barrier_rows() -> Iterator[Row]:
    for scope in ("thread", "process"):
        for workers in (2, 8):
            peers = dict(modus="barrier", pthread="barrier", python="barrier")
            yield Row(f"barrier-{workers}{suffix(scope)}", f"barrier of {workers} {plural(scope)}", "barrier",
                      jobs(scope, **peers, **({"uv": "barrier"} if scope == "thread" else {})),
                      operation="meeting", arguments={"workers": workers}, brief=workers == 2)


# --- queues -------------------------------------------------------------------------------------

def queue_row(scope: str, producers: int, consumers: int, capacity: int, item: int = 8,
              cpus: int = 0, brief: bool = True) -> Row:
    peers = dict(modus="queue", modus__yield="yielding", pthread="ring", python="queue")
    among = jobs(scope, **peers)
    if item == 8:
        among |= jobs(scope, ck__yield="ring")
        # Between threads only; also beside the processes of the others, to be compared with. GLib's is
        # unbounded.
        among |= jobs("thread", apr="queue", **({"glib": "queue"} if capacity == 1024 else {}))
    bytes_ = f", {item} bytes" if item != 8 else ""
    where = ", all on one CPU" if cpus == 1 else ""
    name = f"queue{suffix(scope)}-{producers}-{consumers}-{capacity}"
    return Row(name + (f"-{item}b" if item != 8 else "") + ("-one-cpu" if cpus == 1 else ""),
               f"queue of {capacity}, {producers} and {consumers} {plural(scope)}{bytes_}{where}", "queue",
               among, operation="item", brief=brief,
               arguments={"producers": producers, "consumers": consumers, "capacity": capacity,
                          "item": item, "cpus": cpus})


def queue_rows() -> Iterator[Row]:
    for scope in ("thread", "process"):
        alone = jobs(scope, modus="queue", pthread="queue", ck="queue", python="queue")
        alone |= jobs("thread", apr="queue", glib="queue")
        yield Row(f"queue-alone{suffix(scope)}", f"queue between {plural(scope)}, put and got by one alone",
                  "lock", alone, operation="item", arguments={"cpus": 1, "capacity": 64, "item": 8})
        for producers, consumers in ((1, 1), (2, 2), (4, 1), (1, 4)):
            for capacity in CAPACITIES:
                pinned = 2 if producers + consumers == 2 else 0
                yield queue_row(scope, producers, consumers, capacity, cpus=pinned, brief=capacity == 1024)
        yield queue_row(scope, 8, 8, 64, brief=False)
        yield queue_row(scope, 1, 1, 1024, cpus=1, brief=False)
        for item in (64, 1024):
            yield queue_row(scope, 1, 1, 1024, item=item, cpus=2, brief=False)


# --- starting, switching, pools -----------------------------------------------------------------


def other_rows() -> Iterator[Row]:
    for scope in ("thread", "process"):
        yield Row(f"idle{suffix(scope)}", f"8 {plural(scope)} wait for an empty queue, for 1.5 s", "idle",
                  jobs(scope, modus="queue", pthread="queue",
                       **(dict(glib="queue", apr="queue") if scope == "thread" else {})),
                  kind=IDLE, operation="waiter", once=True,
                  arguments={"workers": 9, "capacity": 64, "ms": 1500})
    yield Row("thread", "thread, started and joined", "start", jobs(
        "thread", modus="thread", pthread="thread", glib="thread", apr="thread", uv="thread",
        python="thread"), operation="start")
    yield Row("process", "process, started and waited for", "start", jobs(
        "thread", modus="process", pthread__fork="process", python="process"), operation="start")
    yield Row("tasks", "thread pool of 2, 1000 empty tasks ahead", "tasks", jobs(
        "thread", modus="pool", glib="pool", apr="pool", uv="pool", python="pool"), operation="task")
    yield Row("task", "thread pool of 2, one empty task after the other", "task", jobs(
        "thread", modus="pool", glib="pool", apr="pool", uv="pool", python="pool"), operation="task")
    yield Row("tasks-process", "process pool of 2, 1000 empty tasks ahead", "tasks",
              jobs("thread", modus="processes", python="processes"), operation="task")
    yield Row("task-process", "process pool of 2, one empty task after the other", "task",
              jobs("thread", modus="processes", python="processes"), operation="task")
    one = {"cpus": 1}
    yield Row("switch", "from a context to another and back", "switch", jobs(
        "thread", modus="context", ucontext="context", python__generator="context"),
        operation="round trip", arguments=one)
    yield Row("yield", "two coroutines let each other go on", "switch", jobs(
        "thread", modus="yield", python__asyncio="yield"), operation="round trip", arguments=one)
    yield Row("create", "coroutine, started and joined", "switch", jobs(
        "thread", modus="create", python__asyncio="create"), operation="coroutine", arguments=one)
    yield Row("sleepers", f"{SLEEPERS:,} coroutines that sleep", "sleepers", jobs(
        "thread", modus="coroutine", python__asyncio="coroutine"), kind=BYTES, operation="coroutine",
        arguments={"count": SLEEPERS}, once=True)
    yield Row("recovery", f"what a killed process held is had by the next, {DEATHS} times", "recovery",
              jobs("process", modus="lock", modus__queue="queue", modus__sem="sem", pthread__robust="lock",
                   apr="lock"),
              kind=RECOVERY, arguments={"count": DEATHS, "capacity": 64, "cpus": 0})


ROWS = {row.name: row for row in (*lock_rows(), *relay_rows(), *barrier_rows(), *queue_rows(), *other_rows())}
PEERS = list(dict.fromkeys(job.peer for row in ROWS.values() for job in row.jobs.values()))


# --- what is wanted -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """`what` is a figure of toolbox_report.FIGURES. Against a peer of the same row, or (against is None)
    absolute, in the figure's unit."""

    row: str
    job: str
    what: str
    bound: float
    against: str | None = None
    at_least: bool = False


def at_most(what: str, bound: float, against: str | None, *rows: str) -> list[Target]:
    return [Target(row, "modus", what, bound, against) for row in rows]


def at_least(bound: float, against: str, *rows: str, job: str = "modus") -> list[Target]:
    return [Target(row, job, "rate", bound, against, at_least=True) for row in rows]


TARGETS = [
    *at_most("ns", 0.8, "pthread", "lock"),
    *at_most("ns", 1.15, "pthread-robust", "lock-process"),
    # Held for longer, every lock's rate is what the holders take.
    *at_least(1.2, "pthread", "lock-4-0"),
    *(target for row in ("queue-1-1-1024", "queue-process-1-1-1024")
      for target in (*at_least(2.5, "apr", row), *at_least(5, "glib", row))),
    *(target for row in ("queue-2-2-1024", "queue-process-2-2-1024")
      for target in (*at_least(1.5, "apr", row), *at_least(1.5, "glib", row))),
    *at_least(200, "python", "queue-process-1-1-1024"),
    *at_most("ns", 700, None, "tasks"),
    *at_least(3, "uv", "tasks", "task"),
    *at_most("ns", 1500, None, "tasks-process"),
    *at_most("ns", 25000, None, "task-process"),
    *at_least(20, "python", "task-process"),
    *at_most("ns", 1.3, "futex", *(f"relay-{object_}{suffix(scope)}" for scope in ("thread", "process")
                                   for object_ in ("event", "sem", "cond", "queue"))),
    *at_most("ns", 12, None, "switch"),
    *at_most("bytes", 9000, None, "sleepers"),
    *at_most("sleeps", 1, None, "idle", "idle-process"),
    *(Target("recovery", job, "p99", 1e6) for job in ("modus", "modus-queue", "modus-sem")),
    # Figures of this kind of machine, not ratios.
    *at_most("ns", 12, None, "lock"),
    *at_most("ns", 26, None, "lock-process"),
    *at_most("ns", 15, None, "rlock"),
    *at_most("ns", 27, None, "rlock-process"),
    *at_most("ns", 100, None, "queue-1-1-1024", "queue-process-1-1-1024"),
    *at_most("ns", 150, None, "queue-2-2-1024", "queue-process-2-2-1024"),
    Target("queue-process-1-1-1024", "modus-yield", "ns", 40),
    *at_most("ns", 150, None, "create"),
]
