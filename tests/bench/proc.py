# SPDX-License-Identifier: MIT
"""What the kernel knows of process trees and CPUs, read from /proc."""

import ctypes
import os
import signal
import time
from collections import defaultdict
from dataclasses import dataclass

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
CPUCLOCK_SCHED = 2
REST_TIMEOUT_S = 2


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    session: int
    threads: int
    reaped_s: float  # CPU time of the children it has waited for, and of theirs
    started: int  # with the pid, an identity that is not given to another process


@dataclass(frozen=True)
class Memory:
    processes: int
    threads: int
    pss_bytes: int
    anonymous_bytes: int


@dataclass(frozen=True)
class CpuSample:
    """Seconds since boot, and of them idle and stolen, one CPU."""

    at: float
    idle: float
    steal: float


def read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def process(pid: int) -> Process | None:
    try:
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    except OSError:
        return None
    reaped_s = (int(fields[13]) + int(fields[14])) / TICKS_PER_SECOND
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[17]), reaped_s, int(fields[19]))


def everyone() -> list[Process]:
    found = [process(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    return [p for p in found if p is not None]


def tree(root: int) -> list[Process]:
    """The process `root`, its descendants, and whoever of its session lost his parent."""
    alive = everyone()
    children: dict[int, list[Process]] = defaultdict(list)
    for p in alive:
        children[p.parent].append(p)
    found: dict[int, Process] = {}
    todo = [p for p in alive if root in (p.pid, p.session)]
    while todo:
        p = todo.pop()
        if p.pid not in found:
            found[p.pid] = p
            todo.extend(children[p.pid])
    return list(found.values())


def process_cpu_s(pid: int) -> float:
    """CPU time of a process with all its threads, ended ones too. Its clock (clock_getcpuclockid(3))
    counts nanoseconds; /proc/PID/stat counts 10 ms, which 256 processes would round to seconds."""
    try:
        return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)
    except OSError:
        return 0.0


def cpu_s(processes: list[Process]) -> float:
    """CPU time of these, and of everyone they have reaped."""
    return sum(process_cpu_s(p.pid) + p.reaped_s for p in processes)


def tree_cpu_s(root: int) -> float:
    """CPU time of a tree, taken when it is at rest: a child that ends and is reaped while we look
    would be missed, with all that it ever used."""
    deadline = time.monotonic() + REST_TIMEOUT_S
    while True:
        members = tree(root)
        used_s = cpu_s(members)
        if tree(root) == members or time.monotonic() > deadline:
            return used_s
        time.sleep(0.02)


def strangers_cpu_s(root: int) -> float:
    """CPU time of everybody but the tree of `root` and the caller."""
    ours = {p.pid for p in tree(root)} | {os.getpid()}
    return cpu_s([p for p in everyone() if p.pid not in ours])


def field_bytes(path: str, name: str) -> int:
    try:
        for line in read(path).splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it has ended, or is a zombie
    return 0


def tree_memory(root: int) -> Memory:
    members = tree(root)
    return Memory(
        processes=len(members),
        threads=sum(p.threads for p in members),
        pss_bytes=sum(field_bytes(f"/proc/{p.pid}/smaps_rollup", "Pss") for p in members),
        anonymous_bytes=sum(field_bytes(f"/proc/{p.pid}/status", "RssAnon") for p in members),
    )


def sample_cpu(cpu: int) -> CpuSample:
    """Idle and stolen time are counted exactly; the kernel's user and system columns are guessed from
    who is met at a timer tick, which is unfair to whoever is woken by the same tick."""
    for line in read("/proc/stat").splitlines():
        fields = line.split()
        if fields[0] == f"cpu{cpu}":
            idle = int(fields[4]) + int(fields[5])
            return CpuSample(time.monotonic(), idle / TICKS_PER_SECOND, int(fields[8]) / TICKS_PER_SECOND)
    raise RuntimeError(f"CPU {cpu} is not in /proc/stat")


def busy_s(before: CpuSample, after: CpuSample) -> float:
    return max(0.0, (after.at - before.at) - (after.idle - before.idle) - (after.steal - before.steal))


def kill_survivors(members: list[Process]) -> None:
    """SIGKILL, by pid, those of `members` that still are who they were."""
    for member in members:
        now = process(member.pid)
        if now is not None and now.started == member.started:
            try:
                os.kill(member.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def end_with_parent() -> None:
    """Called in a new child: should the runner be killed, its servers end too."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
