"""What /proc tells of processes."""
import os
import signal
from pathlib import Path


def marked(mark: str) -> list[int]:
    """Living processes with this NAME=VALUE in the environment that they were started with."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0") and state(int(entry.name)) != "Z":
                found.append(int(entry.name))
        except OSError:
            pass  # ended meanwhile
    return found


def state(pid: int) -> str:
    """R, S, Z ...; "" when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """Those that its first thread has started, or that were left to it, the oldest first."""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    return state(pid) not in ("", "Z")


def title(pid: int) -> str:
    """What ps shows of it."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def thread_names(pid: int) -> list[str]:
    return sorted(task.read_text().strip() for task in Path(f"/proc/{pid}/task").glob("*/comm"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def running(pid: int) -> int:
    """Its threads that have a CPU or wait for one."""
    try:
        stats = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return 0  # ended meanwhile
    return sum(stat.rpartition(")")[2].split()[0] == "R" for stat in stats)


def cpu_seconds(pid: int) -> float:
    """What it has used, its children's not included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def watched(pid: int) -> set[int]:
    """Processes that it holds a pidfd of; -1 for one that it has reaped and not yet let go."""
    found = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            found |= {int(line[4:]) for line in entry.read_text().splitlines() if line.startswith("Pid:")}
        except OSError:
            pass  # closed meanwhile
    return found


def users(pid: int) -> set[int]:
    """Real, effective, saved and file system user."""
    return {int(n) for n in _status(pid, "Uid").split()}


def groups(pid: int) -> set[int]:
    """Its group, in all four kinds, and the supplementary ones."""
    return {int(n) for key in ("Gid", "Groups") for n in _status(pid, key).split()}


def anonymous_bytes(pid: int) -> int:
    return int(_status(pid, "RssAnon").split()[0]) * 1024


def shared_bytes(pid: int) -> int:
    return int(_status(pid, "RssShmem").split()[0]) * 1024


def _status(pid: int, key: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return line.partition(":")[2]
    raise KeyError(key)


def send(pid: int, number: int) -> None:
    """Send one process a signal. Not a group of them: to os.kill, 0 is our own and -1 is everybody."""
    assert pid > 1, f"{pid} is no process of ours"
    os.kill(pid, number)


def end(pid: int) -> None:
    """Kill a process of ours, if it is still there."""
    try:
        send(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
