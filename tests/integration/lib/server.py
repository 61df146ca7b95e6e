"""Real servers: started on a configuration of the test's own, in a folder of its own, on ports that
the kernel chooses; stopped and looked after: exit code, processes left behind, what sanitizers say."""
import ctypes
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from lib import proc
from lib.clock import PATIENCE, SLOW, eventually
from lib.config import Listener, config_text
from lib.raw import Answer, PlainLink, TlsLink, Wire

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("MODUS", ROOT / "build/release/modus")).absolute()
SANITIZED = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:")
SERVING = re.compile(r": serving (?:http|https|tcp) on (\S+) with \S+")
STARTING = 10 * SLOW  # seconds until a server is ready
STOPPING = 10 * SLOW  # and until it has ended


@dataclass(frozen=True)
class Endpoint:
    """Where a listener is, and how to talk to it."""

    text: str  # as the server says it
    secure: ssl.SSLContext | None = None
    server_name: str | None = None

    @property
    def family(self) -> int:
        if self.text.startswith("unix:"):
            return socket.AF_UNIX
        return socket.AF_INET6 if self.text.startswith("[") else socket.AF_INET

    @property
    def port(self) -> int:
        return int(self.text.rpartition(":")[2])

    @property
    def address(self):
        """For socket.connect."""
        if self.family == socket.AF_UNIX:
            return self.text.removeprefix("unix:")
        host = self.text.rpartition(":")[0].strip("[]")
        return (host.replace("0.0.0.0", "127.0.0.1") if host != "::" else "::1", self.port)

    @property
    def url(self) -> str:
        scheme = "https" if self.secure else "http"
        host = f"{self.server_name}:{self.port}" if self.server_name else self.text
        return f"{scheme}://{host}"

    def dial(self, buffers: int = 0) -> socket.socket:
        """A connected socket. buffers: bytes that the kernel may keep for it in each direction."""
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        if buffers:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        if self.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect(self.address)
        except OSError:
            sock.close()
            raise
        return sock

    def connect(self, buffers: int = 0, session: ssl.SSLSession | None = None) -> Wire:
        sock = self.dial(buffers)
        if not self.secure:
            return Wire(PlainLink(sock))
        return Wire(TlsLink(sock, self.secure, self.server_name, session))

    def ask(self, path: str, method: str = "GET", fields: dict | None = None, body: bytes = b"") -> Answer:
        """One request on a connection of its own."""
        with self.connect() as wire:
            return wire.ask(path, method, {"Connection": "close", **(fields or {})}, body)


def refuses(endpoint: Endpoint) -> bool:
    """Nobody listens there any more."""
    try:
        endpoint.dial().close()
    except OSError:
        return True
    return False


def for_others(folder: Path) -> Path:
    """A copy of the binary that every user can run: the tree may lie where only its owner can go."""
    copy = folder / "modus"
    shutil.copy(BINARY, copy)
    copy.chmod(0o755)
    return copy


class Successor:
    """A server that an upgrade has started: no child of ours, so its exit code is its parent's to know."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._pidfd], [], [], 0)[0]:
            self.returncode = 0
            os.close(self._pidfd)
        return self.returncode

    def wait(self, seconds: float = PATIENCE) -> int:
        eventually(lambda: self.poll() is not None, within=seconds / SLOW, what=f"process {self.pid} has ended")
        return 0

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Server:
    """A running server. Ask it for a listener's endpoint by name: server["main"]."""

    def __init__(
        self, listeners: list[Listener], options: dict, trust: ssl.SSLContext, nofile: tuple[int, int] | None = None, binary: Path = BINARY, environment: dict | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="modus-test-"))
        self.folder.chmod(0o755)  # a server that drops its user must get in
        self.config = self.folder / "modus.conf"
        self.config.write_text(config_text(listeners, options))
        self.mark = f"MODUS_TEST_RUN={uuid.uuid4()}"
        self.deaths_expected = 0
        self._listeners = listeners
        self._trust = trust
        self._error_path = self.folder / "stderr"
        self._error_log = self.folder / options["error_log"] if "error_log" in options else self._error_path
        self.process: subprocess.Popen | Successor = self._launch(nofile, binary, environment or {})
        self.endpoints: dict[str, list[Endpoint]] = {}
        try:
            eventually(self._is_ready, within=STARTING / SLOW, what="ready")
            self._find_endpoints()
        except BaseException:
            self.kill()
            raise

    # --- life

    def _launch(self, nofile: tuple[int, int] | None, binary: Path, environment: dict) -> subprocess.Popen:
        def in_child() -> None:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing outlives the tests
            if nofile:
                resource.setrlimit(resource.RLIMIT_NOFILE, nofile)

        name, value = self.mark.split("=")
        with open(self._error_path, "wb") as errors:
            return subprocess.Popen(
                [binary, "-c", self.config],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, name: value, **environment},
                cwd="/",
                start_new_session=True,
                preexec_fn=in_child,
            )

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with {self.process.returncode} at its start:\n{self.errors}")
        return ": ready\n" in self._said()

    def _find_endpoints(self) -> None:
        found = SERVING.findall(self._said())
        for listener in self._listeners:
            context = self._trust if listener.certificates else None
            name = "one.test" if listener.certificates else None
            self.endpoints[listener.name] = [Endpoint(found.pop(0), context, name) for _ in listener.addresses]
        assert not found, f"serves more than it was told to: {found}"

    def reload(self, listeners: list[Listener], options: dict | None = None, text: str | None = None) -> str:
        """Give it another file (these listeners, or that text), and have it read that. Returns what it says of it."""
        self.config.write_text(text if text is not None else config_text(listeners, options or {}))
        begin = len(self._said())
        outcome = re.compile(r"modus: (?:\S+ )*?(reloaded: .*|not reloaded: .*)\n")
        self.signal(signal.SIGHUP)
        said = eventually(lambda: outcome.search(self._said(), begin), within=STARTING / SLOW, what="an outcome")[1]
        if said.startswith("not"):
            return said
        found = SERVING.findall(self._said()[begin:])
        old, self._listeners = self.endpoints, listeners
        self.endpoints = {}
        for listener in listeners:
            context = self._trust if listener.certificates else None
            name = "one.test" if listener.certificates else None
            known = [e.text for e in old.get(listener.name, [])]
            texts = known[: len(listener.addresses)]
            texts += [t for t in found if t not in {e.text for es in old.values() for e in es}][: len(listener.addresses) - len(texts)]
            found = [t for t in found if t not in texts]
            self.endpoints[listener.name] = [Endpoint(t, context, name) for t in texts]
        return said

    def upgrade(self) -> "subprocess.Popen | Successor":
        """Have another process take its place, and wait until it has. Returns the one before."""
        before, begin = self.process, len(self._said())
        outcome = re.compile(r"upgraded to modus \S+: process (\d+) serves|not upgraded: .*")
        self.signal(signal.SIGUSR2)
        said = eventually(lambda: outcome.search(self._said(), begin), within=STARTING / SLOW, what="an outcome")
        assert said[1], said[0]
        eventually(lambda: ": ready\n" in self._said()[begin:], what="ready")
        self.succeed(int(said[1]))
        return before

    def succeed(self, pid: int) -> None:
        """That process is the server now."""
        self.process = Successor(pid)

    def _said(self) -> str:
        return self._error_log.read_text(errors="replace") if self._error_log.exists() else ""

    @property
    def errors(self) -> str:
        """Its standard error."""
        return self._error_path.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = STOPPING / SLOW) -> int:
        """Wait for the end. Returns the exit code."""
        return self.process.wait(seconds * SLOW)

    def processes(self) -> list[int]:
        """Every living process that the server has started, itself included."""
        return proc.marked(self.mark)

    def stop(self) -> None:
        """Stop it unless it has ended, and see that all is well."""
        try:
            if self.process.poll() is None:
                deaths = self.status()["worker_deaths"] if "watch" in self.endpoints else self.deaths_expected
                self.signal(signal.SIGTERM)
                try:
                    code = self.wait()
                except subprocess.TimeoutExpired:
                    raise AssertionError(f"it has not stopped:\n{self.errors}\n{self.stacks()}") from None
                assert code == 0, f"exit code {code}:\n{self.errors}"
                assert deaths == self.deaths_expected, f"{deaths} workers have died:\n{self.errors}"
            eventually(lambda: not self.processes(), within=2, what="no process is left")
            assert not SANITIZED.search(self.errors), self.errors
        finally:
            self.kill()

    def stacks(self) -> str:
        """Where every thread of its processes is: for who asks why it hangs."""
        said = []
        for pid in self.processes():
            gdb = subprocess.run(["gdb", "-q", "-batch", "-p", str(pid), "-ex", "thread apply all bt 12"], capture_output=True, text=True, timeout=60)
            said.append(f"{pid}, {proc.title(pid)}, {proc.state(pid)}:\n{gdb.stdout[-6000:]}")
        return "\n".join(said)

    def kill(self) -> None:
        """End whatever is left of it, and remove its folder."""
        for pid in self.processes():
            proc.end(pid)
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- questions

    def __getitem__(self, name: str) -> Endpoint:
        return self.endpoints[name][0]

    def status(self) -> dict:
        """What the status listener says."""
        answer = self["watch"].ask("/?format=json")
        assert answer.status == 200, answer.text  # 503: others have held the board for 100 ms
        return json.loads(answer.text)

    def listener_status(self, name: str) -> dict:
        address = self[name].text
        return next(l for l in self.status()["listeners"] if address in l["addresses"])

    def workers(self, name: str) -> list[int]:
        """Its workers, once each place has one: a place whose worker was killed just now has none."""

        def found() -> list[int]:
            pids = [w["pid"] for w in self.listener_status(name)["workers"]]
            return pids if all(pids) else []

        return eventually(found, what=f"every worker of {name} is there")
