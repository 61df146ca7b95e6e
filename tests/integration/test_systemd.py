"""What a service manager does and hears: sockets that it has bound, and a line at each turn of our life.
The manager is the test: it speaks systemd's protocol and is none."""
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lib import proc
from lib.clock import PATIENCE, SLOW, eventually
from lib.config import Listener, config_text
from lib.customer import Customer
from lib.models import MODELS, Model
from lib.server import BINARY, Endpoint, Successor
from lib.site import BASIC_ROUTES, SIZES

ONE = MODELS[0]

# Descriptors from 3 on and LISTEN_PID are for a process to set in itself, before it becomes the server.
LAUNCHER = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 100) for n in sys.argv[1].split()]
for i, fd in enumerate(fds):
    os.dup2(fd, 3 + i)
os.closerange(3 + len(fds), 256)
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[2]))
os.environ["LISTEN_FDS"] = str(len(fds))
os.execv(sys.argv[3], sys.argv[3:])
"""


def listener(model: Model, address: str, *also: str) -> Listener:
    return Listener("main", model.name, BASIC_ROUTES, address=address, also=list(also), options=SIZES)


@dataclass
class Unit:
    """A server that the manager has started, and what it says to it."""

    folder: Path
    process: "subprocess.Popen | Successor"
    manager: socket.socket
    heard: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # pid of the sender, variables

    def __post_init__(self) -> None:
        self.listening = threading.Thread(target=self._listen)
        self.listening.start()

    def _listen(self) -> None:
        """All the time, as a manager does: the kernel keeps ten for who does not."""
        while True:
            data, control, _, _ = self.manager.recvmsg(4096, 100)
            if data == b"END":
                return
            pid = int.from_bytes(control[0][2][:4], "little")
            self.heard.append((pid, dict(line.split("=", 1) for line in data.decode().split("\n"))))

    def close(self) -> None:
        """What was sent before is heard."""
        if self.listening.is_alive():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"END", self.manager.getsockname())
        self.listening.join()

    @property
    def config(self) -> Path:
        return self.folder / "modus.conf"

    @property
    def pid(self) -> int:
        """As its pid file says."""
        return int((self.folder / "modus.pid").read_text())

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text()

    def expect(self, name: str, value: str = "1", after: int = 0) -> int:
        """Wait for a message. Returns its place among all."""
        def look() -> list[int]:
            return [i for i, (_, said) in enumerate(list(self.heard)) if i >= after and said.get(name) == value]

        return eventually(look, within=10, what=f"{name}={value}, not only {self.heard}")[0]

    def modus(self, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run([BINARY, *words, "-c", self.config], capture_output=True, text=True, timeout=PATIENCE * SLOW)


def bind(address: str) -> socket.socket:
    """As systemd does: it blocks."""
    sock = socket.socket(socket.AF_UNIX if address.startswith("/") else socket.AF_INET6 if ":" in address else socket.AF_INET)
    if address.startswith("/"):
        sock.bind(address)
    else:
        sock.bind((address, 0))
    sock.listen(100)
    return sock


def endpoint(sock: socket.socket) -> Endpoint:
    name = sock.getsockname()
    if isinstance(name, str):
        return Endpoint(f"unix:{name}")
    return Endpoint(f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}")


@pytest.fixture
def start() -> Iterator[Callable[..., Unit]]:
    """Start a server as a manager does, with sockets bound before, at NOTIFY_SOCKET's other end."""
    units: list[Unit] = []
    folders: list[tempfile.TemporaryDirectory] = []

    def begin(*listeners: Listener, sockets: list[socket.socket] = [], names: str = "", abstract: bool = False, other: int = 0, environment: dict = {}, folder: Path | None = None) -> Unit:
        if not folder:
            folders.append(tempfile.TemporaryDirectory(prefix="modus-unit-"))
            folder = Path(folders[-1].name)
        (folder / "modus.conf").write_text(config_text(list(listeners), {}))
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        where = f"@modus-test-{os.getpid()}-{len(units)}" if abstract else str(folder / "notify")
        manager.bind("\0" + where[1:] if abstract else where)
        given = {"NOTIFY_SOCKET": where, **({"LISTEN_FDNAMES": names} if names else {}), **environment}

        fds = [s.fileno() for s in sockets]
        command = [sys.executable, "-c", LAUNCHER, " ".join(map(str, fds)), str(other), BINARY, "-c", folder / "modus.conf"]
        with open(folder / "stderr", "wb") as errors:
            process = subprocess.Popen(command, env={**os.environ, **given}, pass_fds=fds, stdin=subprocess.DEVNULL, stderr=errors, cwd="/")
        units.append(Unit(folder, process, manager))
        return units[-1]

    yield begin
    for unit in units:
        unit.process.send_signal(signal.SIGTERM)
        unit.process.wait(PATIENCE * SLOW)
        unit.process.kill()
        unit.close()
        unit.manager.close()
        assert not re.search(r"Sanitizer|runtime error:", unit.errors), unit.errors
    for folder in folders:
        folder.cleanup()


# --- sockets -------------------------------------------------------------------------------------


def test_sockets_are_found_by_their_address(start, model: Model, tmp_path) -> None:
    """Whatever their order. They are not bound anew, and they outlive the server."""
    four, six, unix = bind("127.0.0.1"), bind("::1"), bind(str(tmp_path / "web.sock"))
    texts = [endpoint(s).text for s in (unix, four, six)]
    unit = start(listener(model, texts[1], texts[0]), replace(listener(model, texts[2]), name="second"), sockets=[unix, six, four])
    unit.expect("READY")
    for sock in (four, six, unix):
        assert endpoint(sock).ask("/hello").status == 200
    assert "error" not in unit.errors
    assert not unit.errors.count("Address already in use")


def test_descriptors_and_variables_are_not_passed_on(start, model: Model) -> None:
    four, six = bind("127.0.0.1"), bind("::1")
    unit = start(listener(model, endpoint(four).text), replace(listener(model, endpoint(six).text), name="second"), sockets=[four, six])
    unit.expect("READY")
    inodes = {s: f"socket:[{os.fstat(s.fileno()).st_ino}]" for s in (four, six)}
    for pid in proc.children(unit.process.pid):
        links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        assert sum(inode in links for inode in inodes.values()) == 1, "each worker has its own listener's"
        assert max(links.count(inode) for inode in inodes.values()) == 1


def test_socket_that_nobody_names_is_told(start) -> None:
    named, other, datagram = bind("127.0.0.1"), bind("127.0.0.1"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagram.bind(("127.0.0.1", 0))
    unit = start(listener(ONE, endpoint(named).text), sockets=[other, named, datagram], names="web:main:dns")
    unit.expect("READY")
    assert f"error: systemd has passed the socket {endpoint(other).text} (web), which no listener of the configuration names" in unit.errors
    assert f"{endpoint(datagram).text} (dns), which is no listening stream socket" in unit.errors
    assert endpoint(named).ask("/hello").status == 200


def test_sockets_of_another_process_are_left_alone(start, tmp_path) -> None:
    """LISTEN_PID is not ours: what is open at 3 is not for us."""
    sock = bind(str(tmp_path / "web.sock"))
    unit = start(listener(ONE, "127.0.0.1:0"), sockets=[sock], other=1)
    unit.expect("READY")
    assert "systemd" not in unit.errors


@pytest.mark.parametrize("count", [50, 1 << 30])
def test_descriptors_that_are_not_there(tmp_path, count: int) -> None:
    """The server's own would get their numbers, and be taken for systemd's."""
    (tmp_path / "modus.conf").write_text(config_text([listener(ONE, "127.0.0.1:0")], {}))
    command = f'LISTEN_PID=$$ LISTEN_FDS={count} exec "{BINARY}" -c modus.conf'
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE * SLOW)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"LISTEN_FDS is {count}, and descriptor 3 is not open: it is for systemd to set\n"


def test_any_address(start, model: Model) -> None:
    """systemd's usual one, for both families, is "*"."""
    sock = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    port = sock.getsockname()[1]
    unit = start(listener(model, f"*:{port}"), sockets=[sock])
    unit.expect("READY")
    assert Endpoint(f"127.0.0.1:{port}").ask("/hello").status == 200
    assert Endpoint(f"[::1]:{port}").ask("/hello").status == 200


def test_sockets_outlive_the_server(start, model: Model, tmp_path) -> None:
    """Who comes between two servers is served by the second one. An upgrade in between changes nothing of that."""
    path = tmp_path / "web.sock"
    four, unix = bind("127.0.0.1"), bind(str(path))
    both = listener(model, endpoint(four).text, endpoint(unix).text)
    unit = start(both, sockets=[four, unix])
    for upgrade in (False, True):
        unit.expect("READY")
        if upgrade:
            old, begin = unit.process, len(unit.heard)
            assert unit.modus("upgrade").returncode == 0
            unit.process = Successor(unit.pid)
            unit.expect("MAINPID", str(unit.pid), after=begin)
            old.wait(PATIENCE * SLOW)
        with endpoint(four).connect() as idle:
            assert idle.ask("/hello").status == 200
            unit.process.send_signal(signal.SIGTERM)
            idle.expect_end()
        assert unit.process.wait(PATIENCE * SLOW) == 0
        waiting = [endpoint(s).connect() for s in (four, unix)]
        for wire in waiting:
            wire.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert path.exists()
        unit = start(both, sockets=[four, unix])
        for wire in waiting:
            assert wire.answer().status == 200
            wire.close()


def test_what_waited_before_the_start_is_served(start, model: Model) -> None:
    sock = bind("127.0.0.1")
    with endpoint(sock).connect() as early:
        early.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        unit = start(listener(model, endpoint(sock).text), sockets=[sock])
        assert early.answer().status == 200
    unit.expect("READY")


# --- what the manager hears -----------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_life(start, model: Model, abstract: bool) -> None:
    unit = start(listener(model, "unix:web.sock"), abstract=abstract)
    ready = unit.expect("READY")
    assert unit.heard[ready] == (unit.process.pid, {"READY": "1", "STATUS": "serving 1 listener"})
    unit.config.write_text(config_text([listener(model, "unix:web.sock"), replace(listener(model, "unix:more.sock"), name="more")], {}))
    assert unit.modus("reload").returncode == 0
    reloading = unit.expect("RELOADING")
    again = unit.expect("READY", after=reloading)
    assert int(unit.heard[reloading][1]["MONOTONIC_USEC"]) > 0
    assert unit.heard[again][1]["STATUS"] == "serving 2 listeners"
    unit.config.write_text("nonsense\n")
    unit.process.send_signal(signal.SIGHUP)
    reloading = unit.expect("RELOADING", after=again)
    refused = unit.expect("READY", after=reloading)
    assert re.match(r"serving 2 listeners; not reloaded: \S+modus.conf:1: ", unit.heard[refused][1]["STATUS"])
    unit.process.send_signal(signal.SIGTERM)
    stopping = unit.expect("STOPPING")
    assert unit.process.wait(PATIENCE * SLOW) == 0
    unit.close()
    assert unit.heard[stopping + 1 :] == []
    assert all(pid == unit.process.pid for pid, _ in unit.heard)


def test_upgrade_names_the_new_main_process(start, model: Model) -> None:
    """The one before says so, and is silent from then on; then the new one speaks."""
    sock = bind("127.0.0.1")
    unit = start(listener(model, endpoint(sock).text), sockets=[sock], environment={"WATCHDOG_USEC": "100000"})
    unit.expect("READY")
    customer = Customer(endpoint(sock), may_leave=True)
    for _ in range(3):
        old, begin = unit.process, len(unit.heard)
        assert unit.modus("upgrade").returncode == 0
        new = unit.pid
        main = unit.expect("MAINPID", str(new), after=begin)
        ready = unit.expect("READY", after=main)
        unit.process = Successor(new)
        assert old.wait(PATIENCE * SLOW) == 0
        unit.expect("WATCHDOG", after=ready + 1)
        assert unit.heard[main][0] == old.pid and unit.heard[ready][0] == new
        assert {pid for pid, _ in unit.heard[begin : main + 1]} == {old.pid}
        assert {pid for pid, _ in unit.heard[main + 1 :]} == {new}
    customer.leave()


def test_upgrade_that_fails_says_nothing(start) -> None:
    unit = start(listener(ONE, "unix:web.sock"))
    ready = unit.expect("READY")
    unit.config.write_text("nonsense\n")
    assert unit.modus("upgrade").returncode == 1
    unit.close()
    assert unit.heard[ready + 1 :] == []


def test_watchdog(start, model: Model) -> None:
    """At half its time, and only while the loop turns. One that is for another process is not ours."""
    unit = start(listener(model, "unix:web.sock"), environment={"WATCHDOG_USEC": "100000"})
    place = unit.expect("READY")
    for _ in range(5):
        place = unit.expect("WATCHDOG", after=place + 1)
    unit.process.send_signal(signal.SIGSTOP)
    eventually(lambda: proc.state(unit.process.pid) == "T")
    stopped = len(unit.heard)
    with pytest.raises(AssertionError):
        eventually(lambda: len(unit.heard) > stopped, within=0.5 / SLOW)
    unit.process.send_signal(signal.SIGCONT)
    unit.expect("WATCHDOG", after=stopped)
    other = start(listener(model, "unix:web.sock"), environment={"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"})
    ready = other.expect("READY")
    assert other.modus("reload").returncode == 0
    again = other.expect("READY", after=ready + 1)
    assert not [said for _, said in other.heard[: again + 1] if "WATCHDOG" in said]


@pytest.mark.parametrize("where", ["", "/nowhere/socket", "relative", "@", "/" + "x" * 200])
def test_manager_who_does_not_listen(start, where: str) -> None:
    unit = start(listener(ONE, "unix:web.sock"), environment={"NOTIFY_SOCKET": where})
    eventually(lambda: ": ready\n" in unit.errors, within=10)
    assert Endpoint(f"unix:{unit.folder}/web.sock").ask("/hello").status == 200
    unit.close()
    assert unit.heard == []


# --- the files that are installed ------------------------------------------------------------------


def test_units_are_right(tmp_path) -> None:
    analyze = "/usr/bin/systemd-analyze"
    if not os.access(analyze, os.X_OK):
        pytest.skip("systemd-analyze is not here")
    conf = Path(__file__).resolve().parents[2] / "conf"
    for name in ("modus.service", "modus.socket"):
        text = (conf / name).read_text().replace("/usr/local/sbin/modus", str(BINARY))
        (tmp_path / name).write_text(text)
    done = subprocess.run([analyze, "verify", "--man=no", tmp_path / "modus.service", tmp_path / "modus.socket"], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "modus" in line]
    assert not ours, done.stderr
