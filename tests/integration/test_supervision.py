"""Starting, stopping and dying: what clients see when processes end, wanted or not."""
import contextlib
import errno
import os
import pwd
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from lib import proc
from lib.clock import PATIENCE, SLOW, Stopwatch, eventually
from lib.config import Listener
from lib.customer import Customer
from lib.models import MODELS, Model
from lib.raw import request
from lib.server import BINARY, Endpoint, Server, refuses
from lib.site import BASIC_ROUTES, SIZES, tcp

PROCESS = next(m for m in MODELS if not m.shares_descriptors)
STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]


def listener(model: Model, name: str = "main", **options) -> Listener:
    return Listener(name, model.name, BASIC_ROUTES, options=SIZES | options)


def in_progress(server: Server, n: int = 1, name: str = "main") -> None:
    eventually(lambda: server.listener_status(name)["requests"]["active"] == n, what=f"{n} requests in progress")


# --- what ps shows -------------------------------------------------------------------------------

ROLES = {"process": "process acceptor", "prefork": "prefork worker", "thread-pool": "thread-pool worker", "hybrid": "hybrid worker", "event-loop": "event-loop worker", "coroutine": "coroutine worker"}


def test_titles(serve, model: Model) -> None:
    server = serve(model, listener(model))
    main = server["main"]
    assert proc.title(server.pid) == f"modus: master {server.config}"
    for pid in server.workers("main"):
        assert proc.title(pid) == f"modus: {ROLES[model.name]} {main.text}"
        names = proc.thread_names(pid)
        assert "modus" in names, "what pgrep and killall look for"
        if model.queued and model.name != "coroutine":  # whose helpers are made when they are needed
            kind = "helper" if model.name == "event-loop" else "pool"
            assert {f"{kind}-{i}" for i in range(SIZES["threads"])} <= set(names)
    assert main.ask("/hello").status == 200


@pytest.mark.parametrize("environment", [{}, {"A": "b" * 100}, {"A": "b", "C": "d" * 1000}])
def test_title_is_longer_than_the_command(tmp_path, model: Model, environment: dict) -> None:
    """It goes on where the environment was; where there is none, it is cut."""
    (tmp_path / "m").write_text('pid_file = ""\n' + listener(model).text())
    command = dict(args=["modus", "-c", "m"], executable=BINARY, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(**command) as server:
        while "ready" not in (line := server.stderr.readline()):
            assert line, "it ended"
        title = proc.title(server.pid)
        server.send_signal(signal.SIGTERM)
    assert server.returncode == 0
    assert "modus: master m".startswith(title) and len(title) == (len("modus -c m") if not environment else len("modus: master m"))


# --- stopping ------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def secure_or_not(request, certificates) -> list:
    return [certificates["one"]] if request.param else []


@pytest.mark.parametrize("stop", STOPS)
def test_graceful_stop(serve, model: Model, secure_or_not, stop: signal.Signals) -> None:
    main = Listener("main", model.name, BASIC_ROUTES, certificates=secure_or_not, options=SIZES)
    server = serve(model, main)
    main = server["main"]
    with main.connect() as idle, main.connect() as busy, main.connect() as half:
        idle.ask("/hello")
        busy.ask("/hello")
        half.ask("/hello")
        busy.send(request("/sleep?ms=400"))
        half.send(b"GET /hello HT")
        in_progress(server)
        watch = Stopwatch()
        server.signal(stop)
        idle.expect_end()
        assert re.search(r"stopping: .* up to \d+ m?s; a second signal \(Ctrl-C, TERM\) ends them at once\n", server.errors)
        alone = model.accepts_beyond or not model.shares_descriptors  # else its worker may be the one that sleeps
        assert watch.seconds < 0.35 * SLOW or not alone, "an idle connection closes at once"
        half.send(b"TP/1.1\r\nHost: x\r\n\r\n")
        a = half.answer()
        assert (a.status, a.closes) == (200, True), "a request that had begun is answered"
        a = busy.answer()
        assert (a.status, a.text, a.closes) == (200, "slept 400 ms\n", True)
        busy.expect_end()
    assert server.wait() == 0
    assert refuses(main)


def test_a_hundred_workers_hear_of_a_stop(serve) -> None:
    prefork = next(m for m in MODELS if m.name == "prefork")
    server = serve(prefork, listener(prefork, processes=100))
    assert server["main"].ask("/hello").status == 200
    assert len(server.workers("main")) == 100
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_first_request_on_its_way_is_answered_at_a_stop(serve, model: Model) -> None:
    """A connection is up before its first request is there, as on a unix socket or behind a TLS handshake."""
    server = serve(model, Listener("main", model.name, BASIC_ROUTES, address="unix:web.sock", options=SIZES))
    with server["main"].connect() as wire, server["main"].connect() as silent:
        eventually(lambda: server.listener_status("main")["connections"]["open"] == 2)
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        wire.is_quiet(0.2)
        wire.send(request("/hello"))
        a = wire.answer()
        assert (a.status, a.one("Connection")) == (200, "close")
        wire.close()
        silent.expect_end()
        silent.close()
        assert server.wait() == 0
        assert watch.seconds < 1 + SLOW


@pytest.mark.parametrize("path", ["/hello", "/sleep?ms=20"])
def test_what_the_kernel_has_accepted_is_answered(serve, model: Model, path: str) -> None:
    """All that can serve are busy, and connections wait with their requests: a stop answers them."""
    server = serve(model, listener(model, **model.sized(1) | {"processes": 1, "loops": 1}))
    main = server["main"]
    with main.connect() as busy:
        busy.send(request("/sleep?ms=500"))
        in_progress(server)
        wires = [main.connect() for _ in range(20)]
        for wire in wires:
            wire.send(request(path))
        server.signal(signal.SIGTERM)
        assert busy.answer().status == 200
    for wire in wires:
        assert wire.answer().status == 200
        wire.expect_end()
        wire.close()
    assert server.wait() == 0


def test_stop_under_load_resets_nobody(serve, model: Model) -> None:
    """Clients that open a connection a request: each gets an answer, or is not let in."""
    server = serve(model, listener(model))
    main = server["main"]
    bad: list[BaseException] = []
    answered = [0]

    def client() -> None:
        while not bad:
            try:
                wire = main.connect()
            except OSError:
                return
            with wire:
                try:
                    wire.sock.settimeout(2 * SLOW)
                    wire.send(request("/hello", fields={"Connection": "close"}))
                    assert wire.answer().status == 200
                    answered[0] += 1
                except (OSError, AssertionError) as e:
                    bad.append(e)

    clients = [threading.Thread(target=client) for _ in range(8)]
    for c in clients:
        c.start()
    eventually(lambda: answered[0] > 200)
    server.signal(signal.SIGTERM)
    for c in clients:
        c.join()
    assert server.wait() == 0
    assert not bad, bad


def test_tcp_connections_end_at_a_stop(serve, model: Model) -> None:
    server = serve(model, tcp("main", model, [], **SIZES), drain_timeout="500ms")
    with server["main"].connect() as wire:
        wire.send(b"hello")
        assert wire.read_exactly(5) == b"hello"
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert watch.seconds < 0.5 + SLOW


def test_stop_of_a_busy_unix_socket(serve, model: Model) -> None:
    """Clients that come without a pause keep no server alive, and nobody who was let in goes without an answer."""
    section = Listener("main", model.name, BASIC_ROUTES, address="unix:web.sock", options=SIZES)
    server = serve(model, section, drain_timeout="20s")
    over, trouble = threading.Event(), []

    def client() -> None:
        while not over.is_set():
            try:
                wire = server["main"].connect()
            except OSError:
                continue  # it is stopping
            try:
                wire.send(request("/sleep?ms=5", fields={"Connection": "close"}))
                assert wire.answer().status == 200
            except (OSError, AssertionError) as e:
                trouble.append(repr(e))
            wire.close()

    clients = [threading.Thread(target=client) for _ in range(12)]
    for c in clients:
        c.start()
    try:
        eventually(lambda: server.listener_status("main")["connections"]["accepted"] > 100)
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert watch.seconds < 3 * SLOW
    finally:
        over.set()
        for c in clients:
            c.join()
    assert not trouble


def is_refused(endpoint: Endpoint) -> bool:
    """At once: not by silence."""
    with socket.socket(endpoint.family) as probe:
        probe.settimeout(0.1)
        return probe.connect_ex(endpoint.address) == errno.ECONNREFUSED


def test_port_is_free_while_requests_finish(serve, model: Model) -> None:
    """Another server can take over: clients are not left waiting for one that is about to end."""
    server = serve(model, listener(model), listener(model, "other"))
    with server["main"].connect() as busy:
        busy.send(request(f"/sleep?ms={int(1500 * SLOW)}"))
        in_progress(server)
        server.signal(signal.SIGTERM)
        for name in ("main", "other"):
            eventually(lambda: is_refused(server[name]), within=1)
        assert busy.answer().status == 200
    assert server.wait() == 0


def test_drain_timeout_cuts(serve, model: Model) -> None:
    server = serve(model, listener(model), drain_timeout="500ms")
    with server["main"].connect() as wire:
        wire.send(request("/sleep?ms=9000"))
        in_progress(server)
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert 0.48 < watch.seconds < 0.5 + SLOW
        with pytest.raises((ConnectionError, AssertionError)):
            assert wire.answer().status == 200


@pytest.mark.parametrize("stop", STOPS)
def test_second_signal_stops_at_once(serve, model: Model, stop: signal.Signals) -> None:
    server = serve(model, listener(model))
    with server["main"].connect() as busy, server["main"].connect() as idle:
        idle.ask("/hello")
        busy.send(request("/sleep?ms=9000"))
        in_progress(server)
        server.signal(stop)
        idle.expect_end()
        time.sleep(0.15)  # two in one moment are one wish
        watch = Stopwatch()
        server.signal(stop)
        server.wait()
        assert watch.seconds < SLOW


def test_a_signal_that_comes_twice_is_one(serve, model: Model) -> None:
    """`timeout` and `sudo` pass on what the whole group has had."""
    server = serve(model, listener(model))
    with server["main"].connect() as busy, server["main"].connect() as idle:
        idle.ask("/hello")
        busy.send(request("/sleep?ms=400"))
        in_progress(server)
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGINT)
        assert busy.answer().status == 200
        assert server.wait() == 0


def test_interrupt_from_a_terminal(serve, model: Model) -> None:
    """It goes to the whole process group: workers leave it to the master."""
    server = serve(model, listener(model))
    with server["main"].connect() as wire:
        wire.send(request("/sleep?ms=500"))
        in_progress(server)
        os.killpg(server.pid, signal.SIGINT)
        a = wire.answer()
        assert (a.status, a.closes) == (200, True)
    assert server.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP])
def test_other_signals_of_a_terminal_hurt_no_worker(serve, model: Model, number: signal.Signals) -> None:
    server = serve(model, listener(model))
    for pid in server.workers("main"):
        proc.send(pid, number)
    with server["main"].connect() as wire:
        assert wire.ask("/sleep?ms=50").status == 200
        assert wire.ask("/hello").status == 200
    assert server.status()["worker_deaths"] == 0


# --- workers that die ----------------------------------------------------------------------------


def test_worker_is_killed(serve, model: Model) -> None:
    """Its listener answers again within a second, other listeners lose nothing, the death is told."""
    server = serve(model, listener(model), listener(model, "other"))
    server.deaths_expected = 1
    other = [Customer(server["other"]), Customer(server["other"], "/sleep?ms=20")]
    accepted = server.listener_status("main")["connections"]["accepted"]
    for _ in range(5):
        server["main"].ask("/hello")
    victim = server.workers("main")[0]
    watch = Stopwatch()
    proc.send(victim, signal.SIGKILL)
    eventually(lambda: server["main"].ask("/hello").status == 200, within=1)
    assert watch.seconds < SLOW
    for customer in other:
        customer.leave()

    def all_is_well() -> bool:
        status = server.listener_status("main")
        pids = [w["pid"] for w in status["workers"] if w["state"] in ("waiting", "busy")]
        assert len(pids) == len(status["workers"]) and victim not in pids
        assert status["worker_deaths"] == 1
        assert status["connections"]["accepted"] >= accepted + 6, "totals outlive workers"
        assert status["connections"]["open"] == 0
        return True

    eventually(all_is_well)


def test_every_worker_is_killed_at_once(serve, model: Model) -> None:
    server = serve(model, listener(model))
    pids = server.workers("main")
    server.deaths_expected = len(pids)
    for pid in pids:
        proc.send(pid, signal.SIGKILL)
    eventually(lambda: server["main"].ask("/hello").status == 200, within=2)
    eventually(lambda: server.listener_status("main")["worker_deaths"] == len(pids))


def test_worker_is_killed_in_a_stop(serve, model: Model) -> None:
    """What waits in the kernel is answered by the one that takes its place."""
    size = listener(model, max_connections=2, processes=1, loops=1)
    server = serve(model, size, drain_timeout="8s")
    main = server["main"]
    held = [main.connect() for _ in range(2)]
    for wire in held:
        wire.send(request("/sleep?ms=9000"))
    in_progress(server, 1 if model.name == "prefork" else 2)
    waiting = [main.connect() for _ in range(2)]
    for wire in waiting:
        wire.send(request("/hello"))
    [victim] = server.workers("main")
    server.signal(signal.SIGTERM)
    eventually(lambda: "stopping" in server.errors)
    proc.send(victim, signal.SIGKILL)
    for wire in held:
        wire.reset()  # in the model process their children have stayed: they end now
    for wire in waiting:
        answer = wire.answer()
        assert (answer.status, answer.closes) == (200, True)
    server.deaths_expected = 1
    assert server.wait() == 0


@pytest.mark.limit(40)
def test_stop_after_every_worker_was_killed(serve, model: Model) -> None:
    """The master has forgotten the dead: it waits for nothing of theirs, and does not spin."""
    server = serve(model, listener(model), listener(model, "other"), listener(model, "third"))
    for _ in range(2):
        customers = [server[name].connect() for name in ("main", "other", "third") for _ in range(3)]
        for wire in customers:
            wire.send(request("/sleep?ms=9000"))  # until they leave
        in_progress(server, 3)
        pids = [pid for name in ("main", "other", "third") for pid in server.workers(name)]
        server.deaths_expected += len(pids)
        for pid in pids:
            proc.send(pid, signal.SIGKILL)
        eventually(lambda: server.status()["worker_deaths"] == server.deaths_expected, within=3)
        for name in ("main", "other", "third"):
            eventually(lambda: server[name].ask("/hello").status == 200, within=3)
        for wire in customers:
            wire.reset()
    used = proc.cpu_seconds(server.pid)
    time.sleep(1)  # what is measured is this second
    assert proc.cpu_seconds(server.pid) - used < 0.2


@pytest.mark.limit(40)
def test_worker_is_killed_again_and_again(serve, model: Model) -> None:
    """At whatever point it is: nobody else may hang on what it held."""
    server = serve(model, listener(model, processes=2))
    main = server["main"]
    customers: list[threading.Thread] = []
    stop = threading.Event()

    def customer() -> None:
        while not stop.is_set():
            try:
                with main.connect() as wire:
                    wire.sock.settimeout(2 * SLOW)
                    for path in ("/hello", "/sleep?ms=1", "/hello"):
                        wire.ask(path)
            except (OSError, AssertionError):
                pass

    for _ in range(4):
        customers.append(threading.Thread(target=customer))
        customers[-1].start()
    try:
        for _ in range(4):
            alive = [w["pid"] for w in server.listener_status("main")["workers"] if w["state"] != "dead" and proc.is_alive(w["pid"])]
            proc.send(alive[0], signal.SIGKILL)
            server.deaths_expected += 1
            eventually(lambda: server.listener_status("main")["worker_deaths"] == server.deaths_expected)
            eventually(lambda: main.ask("/sleep?ms=1").status == 200, within=3)
    finally:
        stop.set()
        for c in customers:
            c.join()
    for _ in range(20):
        assert main.ask("/sleep?ms=1").status == 200
    eventually(lambda: server.listener_status("main")["connections"]["open"] == 0, what="nothing is left open")


def test_acceptor_is_killed_and_its_children_finish(serve) -> None:
    server = serve(PROCESS, listener(PROCESS))
    server.deaths_expected = 1
    main = server["main"]
    with main.connect() as busy, main.connect() as idle:
        idle.ask("/hello")
        busy.send(request("/sleep?ms=600"))
        in_progress(server)
        [acceptor] = server.workers("main")
        proc.send(acceptor, signal.SIGKILL)
        eventually(lambda: main.ask("/hello").status == 200, within=1)
        assert busy.answer().text == "slept 600 ms\n"
        idle.finish()
    eventually(lambda: server.listener_status("main")["connections"]["open"] == 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_connections_wait_while_no_process_can_be_made(serve) -> None:
    server = serve(PROCESS, listener(PROCESS), user="nobody")
    [acceptor] = server.workers("main")
    nobody = pwd.getpwnam("nobody")

    def allow(processes: int) -> None:
        command = ["prlimit", f"--pid={acceptor}", f"--nproc={processes}:"]
        subprocess.run(command, check=True, user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[])

    allow(1)
    wires = [server["main"].connect() for _ in range(5)]
    for wire in wires:
        wire.send(request("/hello", fields={"Connection": "close"}))
    eventually(lambda: server.listener_status("main")["connections"]["accept_pauses"] >= 2)
    assert server.errors.count("cannot make a process for a connection") == 1, server.errors
    allow(4096)
    for wire in wires:
        assert wire.answer().status == 200
        wire.close()


def test_a_new_acceptor_knows_nothing_of_the_old_ones_children(serve) -> None:
    """The master watches them; who is forked meanwhile must not keep its descriptors of them."""
    server = serve(PROCESS, listener(PROCESS), listener(PROCESS, "other"))
    server.deaths_expected = 2
    wires = [server["main"].connect() for _ in range(8)]
    for wire in wires:
        wire.send(request("/sleep?ms=1500"))
    eventually(lambda: server.listener_status("main")["requests"]["active"] == 8)
    for name in ("main", "other"):
        [old] = server.workers(name)
        proc.send(old, signal.SIGKILL)
        eventually(lambda: server.workers(name) != [old] and server[name].ask("/hello").status == 200)
        [new] = server.workers(name)
        eventually(lambda: not proc.watched(new))
    for wire in wires:
        assert wire.answer().status == 200
        wire.close()


def test_acceptor_is_killed_before_the_request_comes(serve) -> None:
    section = Listener("main", PROCESS.name, BASIC_ROUTES, address="unix:web.sock")
    server = serve(PROCESS, section)
    server.deaths_expected = 1
    with server["main"].connect() as wire:
        eventually(lambda: server.listener_status("main")["connections"]["open"] == 1)
        [acceptor] = server.workers("main")
        proc.send(acceptor, signal.SIGKILL)
        eventually(lambda: not proc.is_alive(acceptor))
        wire.is_quiet(0.1)
        wire.send(request("/hello"))
        assert wire.answer().status == 200


def test_acceptors_of_two_listeners_die_together(serve) -> None:
    """Each gets its own children's places back, and no more."""
    names = ("main", "other")
    server = serve(PROCESS, *(listener(PROCESS, name, max_connections=4) for name in names))
    server.deaths_expected = 2
    wires = [server[name].connect() for name in names for _ in range(3)]
    for wire in wires:
        wire.send(request("/sleep?ms=400", fields={"Connection": "close"}))
    for name in names:
        in_progress(server, 3, name)
    acceptors = [server.workers(name)[0] for name in names]
    server.signal(signal.SIGSTOP)  # so that it sees both deaths at once
    eventually(lambda: proc.state(server.pid) == "T")
    for pid in acceptors:
        proc.send(pid, signal.SIGKILL)
    eventually(lambda: not any(proc.is_alive(pid) for pid in acceptors))
    server.signal(signal.SIGCONT)
    for wire in wires:
        assert wire.answer().status == 200
        wire.close()
    for name in names:
        eventually(lambda: server.listener_status(name)["connections"]["open"] == 0)
        assert server.listener_status(name)["children"]["now"] == 0
        crowd = [server[name].connect() for _ in range(6)]
        for wire in crowd:
            wire.send(request("/sleep?ms=200", fields={"Connection": "close"}))
        in_progress(server, 4, name)
        assert server.listener_status(name)["children"]["now"] == 4
        for wire in crowd:
            assert wire.answer().status == 200
            wire.close()


def test_children_without_an_acceptor_are_stopped_at_once_too(serve) -> None:
    server = serve(PROCESS, listener(PROCESS))
    server.deaths_expected = 1
    with server["main"].connect() as busy:
        busy.send(request("/sleep?ms=9000"))
        in_progress(server)
        [acceptor] = server.workers("main")
        proc.send(acceptor, signal.SIGKILL)
        eventually(lambda: server.workers("main") != [acceptor] and server["main"].ask("/hello").status == 200)
        server.signal(signal.SIGTERM)
        eventually(lambda: "stopping" in server.errors)
        time.sleep(0.15)  # two in one moment are one wish
        watch = Stopwatch()
        server.signal(signal.SIGTERM)
        server.wait()
        assert watch.seconds < SLOW


@contextlib.contextmanager
def flood(endpoint: Endpoint) -> Iterator[socket.socket]:
    """Requests without a pause: whoever serves them always has the next one."""
    with socket.create_connection(endpoint.address) as peer:
        def send() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer.sendall(request("/hello") * 200)

        def receive() -> None:
            with contextlib.suppress(OSError):
                while peer.recv(1 << 20):
                    pass

        threads = [threading.Thread(target=what) for what in (send, receive)]
        for thread in threads:
            thread.start()
        try:
            yield peer
        finally:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


@pytest.mark.parametrize("victim", ["master", "acceptor"])
def test_child_of_a_busy_client_ends_too(serve, victim: str) -> None:
    server = serve(PROCESS, listener(PROCESS))
    [acceptor] = server.workers("main")
    with flood(server["main"]):
        child = eventually(lambda: [pid for pid in server.processes() if pid not in (server.pid, acceptor, *server.workers("watch"))])
        server.deaths_expected = victim == "acceptor"
        proc.send(server.pid if victim == "master" else acceptor, signal.SIGKILL)
        if victim == "master":
            server.process.wait()
        eventually(lambda: not any(proc.is_alive(pid) for pid in child), within=1)
        if victim != "master":
            eventually(lambda: server.status()["worker_deaths"] == 1)


def test_worker_that_stands_still_takes_no_turn(serve) -> None:
    """A prefork worker that says that it waits, and does not: connections come to the others."""
    prefork = next(m for m in MODELS if m.name == "prefork")
    server = serve(prefork, listener(prefork, processes=4))
    still = server.workers("main")[1]
    proc.send(still, signal.SIGSTOP)
    try:
        eventually(lambda: proc.state(still) == "T")
        wires = [server["main"].connect() for _ in range(12)]
        watch = Stopwatch()
        for wire in wires:
            assert wire.ask("/hello").status == 200
            wire.close()
        assert watch.seconds < 2 * SLOW
    finally:
        proc.send(still, signal.SIGCONT)


def test_child_is_killed(serve) -> None:
    server = serve(PROCESS, listener(PROCESS, max_connections=2))
    main = server["main"]
    others = set(server.processes())
    for _ in range(5):
        with main.connect() as wire:
            wire.ask("/hello")
            [child] = set(server.processes()) - others
            proc.send(child, signal.SIGKILL)
            server.deaths_expected += 1
            eventually(lambda: not proc.is_alive(child))
    with main.connect() as a, main.connect() as b:
        assert (a.ask("/hello").status, b.ask("/hello").status) == (200, 200), "no permit is lost"
    assert server.listener_status("main")["worker_deaths"] == 5


def test_many_children_end_at_once(serve) -> None:
    """Their ends come as one signal; each gives its permit back."""
    server = serve(PROCESS, listener(PROCESS, max_connections=40))
    main = server["main"]
    [acceptor] = server.workers("main")
    others = set(server.processes())
    wires = [main.connect() for _ in range(40)]
    for wire in wires:
        wire.ask("/hello")
    children = set(server.processes()) - others
    assert len(children) == 40
    proc.send(acceptor, signal.SIGSTOP)
    for child in children:
        proc.send(child, signal.SIGKILL)
    server.deaths_expected = 40
    eventually(lambda: not any(proc.is_alive(child) for child in children))
    proc.send(acceptor, signal.SIGCONT)
    for wire in wires:
        wire.reset()
    wires = [main.connect() for _ in range(40)]
    for wire in wires:
        assert wire.ask("/hello").status == 200
    eventually(lambda: server.listener_status("main")["worker_deaths"] == 40)
    for wire in wires:
        wire.close()


# --- the master ----------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["", "nobody"])
def test_master_is_killed(serve, model: Model, user: str) -> None:
    """Nothing of it is left within a second, and its address is free."""
    if user and os.geteuid() != 0:
        pytest.skip("only root can change the user")
    server = serve(model, listener(model), user=user)
    main = server["main"]
    with main.connect() as busy, main.connect() as idle:
        idle.ask("/hello")
        busy.send(request("/sleep?ms=9000"))
        in_progress(server)
        server.signal(signal.SIGKILL)
        server.process.wait()
        eventually(lambda: not server.processes(), within=1, what="no process is left")
    eventually(lambda: can_bind(main), within=1)


def can_bind(endpoint: Endpoint) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(endpoint.address)
        sock.listen()
        return True


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
def test_user_is_dropped(serve, model: Model, documents) -> None:
    routes = BASIC_ROUTES + f'route "/files" {{ static {{ root = "{documents}" }} }}'
    section = Listener("main", model.name, routes, options=SIZES | {"access_log": "access.log"})
    server = serve(model, section, user="nobody")
    nobody = pwd.getpwnam("nobody").pw_uid
    with server["main"].connect() as wire:
        assert wire.ask("/files/a.txt").status == 200
        pids = set(server.processes()) - {server.pid}
        assert {frozenset(proc.users(pid)) for pid in pids} == {frozenset({nobody})}
        assert all(proc.groups(pid) <= {pwd.getpwnam("nobody").pw_gid} for pid in pids)
        assert proc.users(server.pid) == {0}
        (server.folder / "access.log").rename(server.folder / "access.log.old")
        server.signal(signal.SIGUSR1)
        log = server.folder / "access.log"
        eventually(lambda: wire.ask("/hello").status == 200 and log.exists() and log.read_text(), what="workers write to a new log")


@pytest.mark.skipif(b"__tsan_init" in BINARY.read_bytes(), reason="the sanitizer writes a file itself, before main")
def test_pid_file_that_cannot_be_written_is_not_left(tmp_path) -> None:
    """As on a full disk."""
    (tmp_path / "m").write_text('pid_file = "modus.pid"\ncontrol = ""\n' + listener(MODELS[0]).text())
    done = subprocess.run(["sh", "-c", f'ulimit -f 0; exec "{BINARY}" -c m'], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE * SLOW)
    assert done.returncode == 1 and "cannot write pid_file" in done.stderr
    assert not (tmp_path / "modus.pid").exists()


def test_pid_file(serve, model: Model) -> None:
    server = serve(model, listener(model))
    pid_file = server.folder / "modus.pid"
    assert pid_file.read_text() == f"{server.pid}\n"
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not pid_file.exists()


def test_pid_file_of_another(serve, model: Model, tmp_path) -> None:
    """Nobody takes a running server's pid file; one that was left behind is taken whatever it says."""
    path = tmp_path / "modus.pid"
    server = serve(model, listener(model), pid_file=str(path))
    with pytest.raises(RuntimeError, match=rf"modus.conf:\d+: .*{path}.*process {server.pid}"):
        serve(model, listener(model), pid_file=str(path))
    assert path.read_text() == f"{server.pid}\n"
    server.signal(signal.SIGKILL)
    server.wait()
    assert path.exists()
    path.write_text("1\n")
    second = serve(model, listener(model), pid_file=str(path))
    assert path.read_text() == f"{second.pid}\n"
    path.unlink()
    path.write_text("4711\n")
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    assert path.read_text() == "4711\n", "it is not the one that was taken"


def test_two_servers_with_the_default_pid_file(model: Model, tmp_path) -> None:
    """Who named none does without, and hears it."""
    config = tmp_path / "modus.conf"
    config.write_text(listener(model).text())
    with contextlib.ExitStack() as stack:
        for n in range(2):
            errors = tmp_path / f"errors{n}"
            server = subprocess.Popen([BINARY, "-c", config], stderr=errors.open("w"))
            stack.callback(server.wait, PATIENCE)
            stack.callback(server.terminate)
            eventually(lambda: ": ready\n" in errors.read_text())
            assert ("no pid file" in errors.read_text()) == (n == 1)


# --- descriptors ---------------------------------------------------------------------------------


def test_idle_connections_make_room_for_descriptors(serve, model: Model) -> None:
    """More clients than descriptors: each is served, the longest idle ones are closed."""
    server = serve(model, listener(model, processes=1, loops=1, threads=4), nofile=(64, 64))
    assert "descriptors and gets 64" in server.errors
    main = server["main"]
    wires = [main.connect() for _ in range(100)]
    for wire in wires:
        assert wire.ask("/hello").status == 200
    for wire in wires:
        wire.close()
    eventually(lambda: server.listener_status("main")["connections"]["open"] == 0)


def test_stop_after_descriptors_ran_out_with_nobody_waiting(serve, model: Model) -> None:
    """Without a descriptor the kernel refuses to accept, whether somebody waits or not."""
    server = serve(model, listener(model, processes=1, loops=1, threads=4), nofile=(64, 64))
    wires = []
    while "cannot accept" not in server.errors and len(wires) < 64:
        wires.append(server["main"].connect())
        wires[-1].send(b"GET /hello HT")  # not idle
        if model.shares_descriptors:
            eventually(lambda: server.listener_status("main")["connections"]["open"] == len(wires) or "cannot accept" in server.errors)
    for wire in wires:
        wire.close()
    eventually(lambda: server.listener_status("main")["connections"]["open"] == 0)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_running_out_of_descriptors(serve, model: Model) -> None:
    """Accepting pauses, is told once, and goes on when descriptors come free. Nobody dies."""
    server = serve(model, listener(model, processes=1, loops=1, threads=4), nofile=(64, 64))
    main = server["main"]
    connections = lambda: server.listener_status("main")["connections"]
    wires = []
    for _ in range(100):
        wires.append(main.connect())
        wires[-1].send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na")  # not idle: half of it is to come
    eventually(lambda: connections()["open"] >= (20 if model.shares_descriptors else 100))
    if model.shares_descriptors:
        eventually(lambda: connections()["accept_pauses"] >= 3, what="paused again and again")
        assert server.errors.count("cannot accept") == 1, server.errors
    used = sum(proc.cpu_seconds(pid) for pid in server.workers("main"))
    time.sleep(1)  # what is measured is this second
    assert sum(proc.cpu_seconds(pid) for pid in server.workers("main")) - used < 0.2, "a pause is a pause"
    wires[0].send(b"b")
    assert wires[0].answer().status == 200
    for wire in wires:
        wire.close()
    eventually(lambda: main.ask("/hello").status == 200)
    eventually(lambda: connections()["open"] == 0)
    for _ in range(5):
        assert main.ask("/sleep?ms=1").status == 200


def test_limit_of_descriptors_is_raised(serve, model: Model) -> None:
    server = serve(model, listener(model), nofile=(128, 2000))
    for pid in server.processes():
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (2000, 2000)
