"""Another program in the place of the running one: nothing is lost, and if it can't serve, nothing has
changed."""
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lib import proc
from lib.clock import PATIENCE, SLOW, Stopwatch, eventually
from lib.config import Listener, config_text
from lib.customer import Customer
from lib.models import MODELS, Model
from lib.raw import request
from lib.server import BINARY, Endpoint, Server, for_others, refuses
from lib.site import BASIC_ROUTES, SIZES, tcp, watch

ONE = MODELS[0]


def listener(model: Model, name: str = "main", routes: str = BASIC_ROUTES, **options) -> Listener:
    return Listener(name, model.name, routes, options=SIZES | options)


def body(text: str) -> str:
    return BASIC_ROUTES + f'route "/body" {{ text {{ body = "{text}" }} }}\n'


def modus(*words: str, config: Path) -> tuple[int, str, str]:
    done = subprocess.run([BINARY, *words, "-c", config], capture_output=True, text=True, timeout=PATIENCE * SLOW)
    return done.returncode, done.stdout, done.stderr


def pid_of(server: Server) -> int:
    """As its pid file says."""
    return int((server.folder / "modus.pid").read_text())


@pytest.fixture
def binary() -> Iterator[Path]:
    """A program of the test's own, to be replaced."""
    with tempfile.TemporaryDirectory(prefix="modus-binary-") as folder:
        Path(folder).chmod(0o755)
        yield for_others(Path(folder))


def put(file: Path, text: str, mode: int = 0o755) -> None:
    """A script in the place of a program, in one step."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.chmod(mode)
    new.replace(file)


def waits(file: Path) -> Path:
    """A program that begins when the file that is returned is there."""
    go = file.with_suffix(".go")
    put(file, f"#!/bin/sh\nwhile ! test -e {go}; do sleep 0.01; done\nexec {BINARY} \"$@\"\n")
    return go


def begin(server: Server) -> int:
    """Begin an upgrade. Returns its process."""
    before = proc.children(server.pid)
    server.signal(signal.SIGUSR2)
    return eventually(lambda: set(proc.children(server.pid)) - set(before), what="a new process").pop()


def refused(server: Server) -> str:
    """Why the last upgrade was not, once it is known."""
    return eventually(lambda: re.findall(r"not upgraded: (.*)\n", server.errors), within=5)[-1]


# --- it serves -----------------------------------------------------------------------------------


@pytest.mark.limit(60)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_upgrade_under_load(serve, model: Model, certificates, secure: bool) -> None:
    main = replace(listener(model), certificates=[certificates["one"]] if secure else [])
    server = serve(model, main)
    customers = [Customer(server["main"], path, may_leave=secure) for path in ("/hello", "/sleep?ms=5", "/spin?n=1000")]
    for _ in range(4):
        answered = [c.answered for c in customers]
        before = server.upgrade()
        before.wait()
        eventually(lambda: all(c.answered > n + 5 for c, n in zip(customers, answered)), within=10)
        assert server.status()["pid"] == server.pid == pid_of(server) != before.pid
    for c in customers:
        c.leave()
    assert server.listener_status("main")["requests"]["answers"]["cut"] == 0


def test_new_connections_under_load(serve, model: Model) -> None:
    """A connection a request, without a pause: each gets its answer."""
    server = serve(model, listener(model))
    main, bad, answered, done = server["main"], [], [0] * 4, threading.Event()

    def client(i: int) -> None:
        while not done.is_set() and not bad:
            try:
                assert main.ask("/hello").status == 200
                answered[i] += 1
            except (OSError, AssertionError) as e:
                bad.append(e)

    clients = [threading.Thread(target=client, args=(i,)) for i in range(len(answered))]
    for c in clients:
        c.start()
    for _ in range(5):
        n = sum(answered)
        server.upgrade().wait()
        eventually(lambda: bad or sum(answered) > n + 20, within=10)
    done.set()
    for c in clients:
        c.join()
    assert not bad


def test_request_in_progress_ends_where_it_is(serve, model: Model) -> None:
    server = serve(model, listener(model, routes=body("old")))
    server.config.write_text(config_text([listener(model, routes=body("new")), watch(model)], {}))
    with server["main"].connect() as busy, server["main"].connect() as half:
        half.ask("/hello")
        busy.send(request(f"/sleep?ms={int(1000 * SLOW)}"))
        half.send(b"GET /body HT")
        eventually(lambda: server.listener_status("main")["requests"]["active"] >= 1)
        before = server.upgrade()
        eventually(lambda: server["main"].ask("/body").text == "new")
        assert proc.title(before.pid).startswith(f"modus: master {server.config}, retired")
        half.send(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert half.answer().text == "old"
        assert half.ask("/body").text == "new", "and its connection goes on"
        assert busy.answer().status == 200
        assert busy.ask("/body").text == "new"
        assert before.wait() == 0
    assert server["main"].ask("/body").text == "new"


def test_idle_connection_over_tls_may_ask_once_more(serve, model: Model, certificates) -> None:
    server = serve(model, replace(listener(model), certificates=[certificates["one"]]))
    with server["main"].connect() as idle:
        idle.ask("/hello")
        before = server.upgrade()
        assert idle.is_quiet(0.3), "it is not cut off"
        a = idle.ask("/hello")
        assert (a.status, a.closes) == (200, True)
        idle.expect_end()
    before.wait()


@pytest.mark.parametrize("other", MODELS, ids=lambda m: f"to-{m}")
def test_connections_move(serve, model: Model, other: Model) -> None:
    """Idle ones, and those that have sent more than one request: nobody connects anew."""
    server = serve(model, listener(model, routes=body("old"), max_connections=256))
    wires = [server["main"].connect() for _ in range(20)]
    for wire in wires[:15]:
        assert wire.ask("/body").text == "old"
    sent = [f"/sleep?ms={n % 7 + 1}" if n % 3 else f"/spin?n={n}" for n in range(60)]
    for wire in wires[:4]:
        wire.send(b"".join(request(path) for path in sent))
    server.config.write_text(config_text([listener(other, routes=body("new"), max_connections=256), watch(model)], {}))
    before = server.upgrade()
    for wire in wires[:4]:
        for path in sent:
            a = wire.answer()
            assert (a.status, a.closes) == (200, False) and a.text.split()[1] == path.partition("=")[2]
    before.wait()
    for wire in wires:
        a = wire.ask("/body")
        assert (a.text, a.closes) == ("new", False)
    status = server.listener_status("main")["connections"]
    assert status["open"] == 20 and status["accepted"] <= 5, "those that had said nothing yet"
    for wire in wires:
        wire.close()


@pytest.mark.limit(40)
def test_wrk_sees_no_upgrade(serve, model: Model) -> None:
    """64 connections, half of the requests wait: no error, and nobody connects anew."""
    server = serve(model, listener(model, max_connections=256))
    script = server.folder / "half.lua"
    script.write_text('local n = 0 function request() n = n + 1 return wrk.format("GET", n % 2 == 0 and "/sleep" or "/hello") end')
    wrk = subprocess.Popen(["wrk", "-t1", "-c64", "-d100", "--timeout", "60s", "-s", script, server["main"].url], stdout=subprocess.PIPE, text=True)
    eventually(lambda: server.listener_status("main")["connections"]["accepted"] >= 64)
    for _ in range(4):
        before = server.upgrade()
        eventually(lambda: server.listener_status("main")["requests"]["total"] > 100, within=10)
        before.wait()
    assert server.listener_status("main")["connections"]["accepted"] == 0
    wrk.send_signal(signal.SIGINT)
    report = wrk.communicate(timeout=PATIENCE * SLOW)[0]
    assert "Socket errors" not in report and "Non-2xx" not in report, report


def test_connections_move_only_where_they_can(serve, model: Model, certificates) -> None:
    """The listener is another protocol's after the upgrade: what is open ends with its next answer."""
    server = serve(model, listener(model))
    server.config.write_text(config_text([replace(listener(model), certificates=[certificates["one"]]), watch(model)], {}))
    with server["main"].connect() as idle:
        idle.ask("/hello")
        before = server.upgrade()
        assert idle.is_quiet(0.3)
        a = idle.ask("/hello")
        assert (a.status, a.closes) == (200, True)
    before.wait()

def test_session_resumes(serve, model: Model, certificates) -> None:
    """Also when no key was needed before."""
    server = serve(model, replace(listener(model), certificates=[certificates["one"]]))
    server.upgrade()
    with server["main"].connect() as wire:
        wire.ask("/hello")
        session = wire.link.tls.session
    for _ in range(2):
        server.upgrade()
        with server["main"].connect(session=session) as wire:
            assert wire.ask("/hello").status == 200
            assert wire.link.tls.session_reused


def test_tcp_connection_goes_on(serve, model: Model) -> None:
    server = serve(model, tcp("main", model, [], **SIZES))
    with server["main"].connect() as wire:
        wire.send(b"a")
        assert wire.read_exactly(1) == b"a"
        before = server.upgrade()
        for _ in range(3):
            wire.send(b"more")
            assert wire.read_exactly(4) == b"more"
        with server["main"].connect() as other:
            other.send(b"new")
            assert other.read_exactly(3) == b"new"
        assert before.poll() is None
    before.wait()


def test_another_configuration(serve, model: Model) -> None:
    """Sockets go by address: to other listeners, to none, and some are new."""
    def on(name: str, address: str, *also: str) -> Listener:
        return replace(listener(model, name, body(name)), address=address, also=list(also))

    first = on("first", "unix:first.sock", "unix:dropped.sock")
    server = serve(model, first, on("second", "unix:second.sock", "unix:shared.sock"), on("gone", "127.0.0.2:0"))
    gone, dropped = server["gone"], server.endpoints["first"][1]
    shared = server.endpoints["second"][1]
    inode = (server.folder / "shared.sock").stat().st_ino
    other = MODELS[(MODELS.index(model) + 1) % len(MODELS)]
    added = replace(on("added", "unix:added.sock"), model=other.name)
    server.config.write_text(config_text([on("first", "unix:first.sock", "unix:shared.sock"), added, watch(model)], {}))
    customer = Customer(shared, may_leave=True)
    with gone.connect() as busy, server["first"].connect() as held:
        busy.send(request(f"/sleep?ms={int(500 * SLOW)}"))
        held.ask("/hello")
        eventually(lambda: server.listener_status("gone")["requests"]["active"] == 1)
        assert dropped.ask("/body").text == "first"
        before = server.upgrade()
        eventually(lambda: shared.ask("/body").text == "first")
        assert replace(shared, text=f"unix:{server.folder}/added.sock").ask("/body").text == "added"
        assert busy.answer().status == 200
        eventually(lambda: refuses(gone) and refuses(dropped))
    customer.leave()
    before.wait()
    assert not (server.folder / "dropped.sock").exists()
    assert (server.folder / "shared.sock").stat().st_ino == inode
    assert len(server.status()["listeners"]) == 3


def test_program_is_replaced(serve, model: Model, binary: Path) -> None:
    """What is started is what lies at the path now, although what runs was deleted."""
    server = serve(model, listener(model), binary=binary)
    put(binary, f"#!/bin/sh\nSEEN=by-script exec {BINARY} \"$@\"\n")
    server.upgrade().wait()
    assert b"SEEN=by-script" in Path(f"/proc/{server.pid}/environ").read_bytes()
    assert os.readlink(f"/proc/{server.pid}/exe") == str(BINARY.resolve())
    assert server["main"].ask("/hello").status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_user_is_dropped(serve, model: Model, binary: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    server = serve(model, listener(model), binary=binary, user="nobody", error_log="error.log")
    server.upgrade().wait()
    assert proc.users(server.pid) == {0}
    for pid in server.workers("main"):
        assert proc.users(pid) == {nobody.pw_uid}
    assert server["main"].ask("/hello").status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_another_user(model: Model, binary: Path) -> None:
    """A server that is not root's."""
    nobody = pwd.getpwnam("nobody")
    folder = binary.parent / "site"
    folder.mkdir()
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    config = folder / "modus.conf"
    config.write_text(config_text([replace(listener(model), address="unix:web.sock")], {}))
    command = subprocess.Popen([binary, "-c", config], user="nobody", group="nogroup", extra_groups=[], stderr=subprocess.PIPE, text=True, cwd="/")
    while "ready" not in (line := command.stderr.readline()):
        assert line, "it ended"
    assert modus("upgrade", config=config) == (0, "", "")
    assert command.wait(PATIENCE * SLOW) == 0
    assert proc.users(int((folder / "modus.pid").read_text())) == {nobody.pw_uid}
    assert modus("stop", config=config) == (0, "", "")
    command.stderr.close()


# --- who speaks to it ----------------------------------------------------------------------------


def test_command_answers_when_it_serves(serve, model: Model) -> None:
    server = serve(model, listener(model, routes=body("0")))
    for i in range(1, 4):
        server.config.write_text(config_text([listener(model, routes=body(f"{i}")), watch(model)], {}))
        assert modus("upgrade", config=server.config) == (0, "", "")
        assert server["main"].ask("/body").text == f"{i}"
        server.succeed(pid_of(server))
    server.config.write_text("nonsense\n")
    code, out, errors = modus("upgrade", config=server.config)
    assert (code, out) == (1, "") and re.fullmatch(r"modus: \S+modus\.conf:1: .*\n", errors), errors
    assert server["main"].ask("/body").text == "3"


def test_files_that_are_the_masters_may_change(serve, model: Model) -> None:
    """The old ones go, the new ones are there, when the new server serves."""
    server = serve(model, listener(model))
    server.config.write_text(config_text([listener(model), watch(model)], {"pid_file": "other.pid", "control": "other.sock"}))
    with server["main"].connect() as busy:
        busy.send(request(f"/sleep?ms={int(400 * SLOW)}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        before = server.upgrade()
        eventually(lambda: not (server.folder / "modus.pid").exists() and not (server.folder / "modus.sock").exists())
        assert before.poll() is None
        assert int((server.folder / "other.pid").read_text()) == server.pid
        assert modus("status", config=server.config)[0] == 0
        assert busy.answer().status == 200
    before.wait()
    server.config.write_text(config_text([listener(model), watch(model)], {"pid_file": "", "control": ""}))
    server.upgrade().wait()
    assert not list(server.folder.glob("*.pid")) and not list(server.folder.glob("*.sock"))
    assert server["main"].ask("/hello").status == 200


@pytest.mark.limit(60)
def test_somebody_answers_at_every_moment(serve, model: Model) -> None:
    server = serve(model, listener(model))
    bad, asked, done = [], [0], threading.Event()
    command = [BINARY, "status", "--json", "-c", server.config]

    def ask() -> None:
        while not done.is_set():
            one = subprocess.run(command, capture_output=True, text=True)
            alive = proc.is_alive(pid_of(server))
            asked[0] += 1
            if one.returncode or not alive:
                bad.append((one.returncode, one.stderr, alive))

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(5):
        n = asked[0]
        server.upgrade()
        eventually(lambda: asked[0] > n + 2, within=10)
    done.set()
    asking.join()
    assert not bad


def test_client_who_has_not_asked_yet_asks_the_new_one(serve, model: Model) -> None:
    server = serve(model, listener(model))
    with socket.socket(socket.AF_UNIX) as slow:
        slow.settimeout(PATIENCE)
        slow.connect(str(server.folder / "modus.sock"))
        slow.send(b"sta")
        server.upgrade()
        assert slow.recv(100) == b"again\n"


@pytest.mark.parametrize("stop", ["signal", "command"])
def test_stop_ends_both(serve, model: Model, stop: str) -> None:
    """The new one is told, and the old one with it; the answer comes when both have ended."""
    server = serve(model, listener(model))
    with server["main"].connect() as busy:
        busy.send(request(f"/sleep?ms={int(600 * SLOW)}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        before = server.upgrade()
        if stop == "signal":
            server.signal(signal.SIGTERM)
        else:
            assert modus("stop", config=server.config) == (0, "", "")
            assert before.wait() == 0
        assert busy.answer().status == 200
    assert server.wait() == 0 and before.wait() == 0
    assert refuses(server["main"])
    assert not (server.folder / "modus.pid").exists() and not (server.folder / "modus.sock").exists()


def test_old_one_is_told_to_stop(serve, model: Model) -> None:
    """It lets go of what is idle; the new one goes on."""
    server = serve(model, tcp("main", model, [], **SIZES), listener(model, "other"))
    with server["main"].connect() as held:
        held.send(b"a")
        held.read_exactly(1)
        before = server.upgrade()
        before.send_signal(signal.SIGTERM)
        eventually(lambda: "stopping: requests in progress" in server.errors)
        held.send(b"b")
        assert held.read_exactly(1) == b"b"
        eventually(lambda: refuses(server["main"]) is False)
        watch_ = Stopwatch()
        while watch_.seconds < 0.2:  # two signals in a moment are one wish
            assert before.poll() is None
        before.send_signal(signal.SIGTERM)
        held.expect_end()
    before.wait()
    assert server["other"].ask("/hello").status == 200
    assert pid_of(server) == server.pid
    assert modus("status", config=server.config)[0] == 0


def test_old_one_is_cut_when_its_time_is_over(serve, model: Model) -> None:
    server = serve(model, listener(model), drain_timeout="500ms")
    with server["main"].connect() as busy:
        busy.send(request("/sleep?ms=9000"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        before = server.upgrade()
        before.wait()
        with pytest.raises(OSError):
            busy.answer()
    assert server["main"].ask("/hello").status == 200


def test_logs_of_both_are_opened_again(serve, model: Model) -> None:
    server = serve(model, listener(model, access_log="access.log"))
    log = server.folder / "access.log"
    with server["main"].connect() as busy:
        busy.send(request(f"/sleep?ms={int(500 * SLOW)}&old"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        server.upgrade()
        log.rename(server.folder / "access.1")
        assert modus("logs", "reopen", config=server.config) == (0, "", "")
        renamed = (server.folder / "access.1").read_text()
        assert busy.answer().status == 200
    eventually(lambda: "&old" in log.read_text() + renamed)
    assert (server.folder / "access.1").read_text() == renamed


def test_chain(serve, model: Model) -> None:
    """An upgrade while the one before still finishes."""
    server = serve(model, listener(model))
    with server["main"].connect() as busy:
        busy.send(request(f"/sleep?ms={int(800 * SLOW)}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        older = [server.upgrade() for _ in range(3)]
        assert busy.answer().status == 200
    for one in older:
        one.wait()
    assert server["main"].ask("/hello").status == 200


# --- it can't ------------------------------------------------------------------------------------

BROKEN = {
    "missing": (None, 0, r"cannot start \S+/modus: No such file or directory"),
    "not executable": ("#!/bin/sh\n", 0o644, r"cannot start \S+/modus: Permission denied"),
    "no program": ("\x7fELF nothing", 0o755, r"cannot start \S+/modus: Exec format error"),
    "ends at once": ("#!/bin/sh\nexit 7\n", 0o755, r"the new server, process \d+, ended with status 7"),
    "is killed": ("#!/bin/sh\nkill -9 $$\n", 0o755, r"the new server, process \d+, was ended by signal 9 \(Killed\)"),
    "says nonsense": (f"#!{sys.executable}\nimport os\nos.write(int(os.environ['MODUS_UPGRADE']), b'hello\\0end=\\0')\n", 0o755, r"the new server, process \d+, ended with status 0"),
    "is another server": (f"#!/bin/sh\nunset MODUS_UPGRADE\nexec {BINARY} \"$@\"\n", 0o755, r"the new server, process \d+, ended with status 1"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_program_changes_nothing(serve, binary: Path, how: str) -> None:
    text, mode, why = BROKEN[how]
    server = serve(ONE, replace(listener(ONE), address="unix:web.sock"), binary=binary)
    workers, descriptors = server.workers("main"), proc.descriptors(server.pid)
    customer = Customer(server["main"])
    if text is None:
        binary.unlink()
    else:
        put(binary, text, mode)
    for i in range(2):
        code, _, said = modus("upgrade", config=server.config)
        assert code == 1 and re.fullmatch(f"modus: {why}\n", said), said
    assert re.search(f"error: not upgraded: {why}\n", server.errors)
    assert server.workers("main") == workers
    eventually(lambda: proc.descriptors(server.pid) == descriptors)
    assert not [c for c in proc.children(server.pid) if proc.state(c) == "Z"]
    shutil.copy(BINARY, binary.with_suffix(".new"))
    binary.with_suffix(".new").replace(binary)
    customer.leave()
    server.upgrade().wait()
    assert server["main"].ask("/hello").status == 200


def test_mistakes_in_the_file_change_nothing(serve, model: Model, tmp_path) -> None:
    server = serve(model, listener(model), replace(listener(model, "unix"), address="unix:web.sock"))
    workers, descriptors = server.workers("main"), proc.descriptors(server.pid)
    customers = [Customer(server["main"]), Customer(server["unix"])]
    taken = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    good = [listener(model), replace(listener(model, "unix"), address="unix:web.sock"), watch(model)]
    text = config_text(good, {})
    mistakes = {
        "unknown word": (text.replace("model", "modell", 1), r":2: unknown word \"modell\""),
        "no model": (text.replace(model.name, "fast", 1), r":2: .*\"fast\""),
        "port is taken": (config_text([*good, replace(listener(model, "new"), address=address)], {}), rf":\d+: cannot listen on {address}: Address already in use"),
        "no folder of a log": (config_text([*good, listener(model, "new", access_log="none/log")], {}), r":\d+: .*No such file"),
        "no user": (config_text(good, {"user": "nobody-of-that-name"}), r":1: no user"),
        "no error log": (config_text(good, {"error_log": str(tmp_path)}), r":1: .*Is a directory"),
        "other's pid file": (config_text(good, {"pid_file": str(server.config)}), r":1: .*is no pid file"),
    }
    for name, (text, why) in mistakes.items():
        server.config.write_text(text)
        code, _, said = modus("upgrade", config=server.config)
        assert code == 1 and re.fullmatch(rf"modus: \S+modus\.conf{why}.*\n", said), (name, said)
    assert server.workers("main") == workers and pid_of(server) == server.pid
    assert (server.folder / "web.sock").exists()
    eventually(lambda: proc.descriptors(server.pid) == descriptors)
    assert not [c for c in proc.children(server.pid) if proc.state(c) == "Z"]
    for c in customers:
        c.leave()
    server.config.write_text(config_text(good, {}))
    server.upgrade().wait()
    taken.close()


@pytest.mark.slow
@pytest.mark.limit(60)
def test_program_that_hangs(serve, binary: Path) -> None:
    server = serve(ONE, listener(ONE), binary=binary)
    put(binary, "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.1; done\n")
    child = begin(server)
    eventually(lambda: "not upgraded: the new server is not ready after 30 s" in server.errors, within=40)
    assert server["main"].ask("/hello").status == 200
    eventually(lambda: not proc.is_alive(child), within=5)
    assert pid_of(server) == server.pid


def test_second_is_refused_and_a_reload_waits(serve, binary: Path) -> None:
    server = serve(ONE, listener(ONE, routes=body("old")), binary=binary)
    waits(binary)
    child = begin(server)
    server.signal(signal.SIGUSR2)
    assert refused(server) == "another upgrade is under way"
    assert modus("upgrade", config=server.config) == (1, "", "modus: another upgrade is under way\n")
    code, _, why = modus("drain", server["main"].text, config=server.config)
    assert code == 1 and "under way" in why
    server.config.write_text(config_text([listener(ONE, routes=body("new")), watch(ONE)], {}))
    reload_ = subprocess.Popen([BINARY, "reload", "-c", server.config])
    eventually(lambda: len(proc.children(server.pid)) > 0)
    assert server["main"].ask("/body").text == "old" and reload_.poll() is None
    proc.end(child)
    assert reload_.wait(PATIENCE * SLOW) == 0
    assert "was ended by signal 9" in refused(server)
    assert server["main"].ask("/body").text == "new"


def test_reload_that_waits_is_the_new_ones(serve, binary: Path) -> None:
    server = serve(ONE, listener(ONE), binary=binary)
    go = waits(binary)
    child = begin(server)
    by_command = subprocess.Popen([BINARY, "reload", "-c", server.config])
    server.signal(signal.SIGHUP)
    assert modus("status", config=server.config)[0] == 0, "what came before it has been taken in"
    go.touch()
    eventually(lambda: f"process {child} serves" in server.errors, within=10)
    assert by_command.wait(PATIENCE * SLOW) == 0
    server.succeed(child)
    eventually(lambda: server.status()["generation"] >= 2)
    assert server.errors.count(" reloaded: ") >= 1


def test_stop_while_it_starts(serve, binary: Path) -> None:
    server = serve(ONE, listener(ONE), binary=binary)
    waits(binary)
    child = begin(server)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not proc.is_alive(child)
    assert refuses(server["main"])


def test_new_one_is_killed_when_it_is_ready(serve, model: Model, binary: Path) -> None:
    """And the old one hears of both at once. Nobody of it is left, not even as a zombie."""
    server = serve(model, listener(model), binary=binary)
    own, customer = set(server.processes()), Customer(server["main"])
    for _ in range(3):
        go, said = waits(binary), len(server.errors)
        child = begin(server)
        assert modus("status", config=server.config)[0] == 0, "what is given is on its way"
        server.signal(signal.SIGSTOP)
        go.touch()
        count = len(server.workers("main")) + len(server.workers("watch"))
        eventually(lambda: ["modus: " + m for m in [model.name] * count] == [" ".join(proc.title(c).split()[:2]) for c in proc.children(child)], within=10)
        proc.end(child)
        server.signal(signal.SIGCONT)
        eventually(lambda: re.search(r"not upgraded: the new server(, process \d+, was ended by signal 9| has closed the link)", server.errors[said:]))
        eventually(lambda: not [c for c in proc.children(server.pid) if proc.state(c) == "Z"])
        eventually(lambda: model is ONE or set(server.processes()) == own)
        assert pid_of(server) == server.pid and server["main"].ask("/hello").status == 200
        go.unlink()
    customer.leave()


def test_old_one_is_killed_while_the_new_one_starts(serve, binary: Path) -> None:
    """Then the new one serves when it is ready: the sockets never close."""
    server = serve(ONE, listener(ONE), binary=binary)
    go = waits(binary)
    child = begin(server)
    assert modus("status", config=server.config)[0] == 0, "what is given is on its way"
    old = server.process
    proc.end(server.pid)
    old.wait()
    go.touch()
    server.succeed(child)
    eventually(lambda: "has been killed" in server.errors)
    assert server["main"].ask("/hello").status == 200
    eventually(lambda: pid_of(server) == child)
    assert modus("status", config=server.config)[0] == 0


def test_variable_without_a_socket(tmp_path) -> None:
    (tmp_path / "m").write_text(listener(ONE).text())
    for value in ("0", "1", "77", "x", ""):
        done = subprocess.run([BINARY, "-c", tmp_path / "m"], env={"MODUS_UPGRADE": value}, capture_output=True, text=True, timeout=PATIENCE * SLOW)
        assert done.returncode == 1 and "MODUS_UPGRADE is set, and names no socket" in done.stderr


def test_program_gets_nothing_but_the_link(serve, binary: Path) -> None:
    """What it takes, it takes out of messages: another program than ours holds no socket of ours."""
    server = serve(ONE, listener(ONE, access_log="access.log"), binary=binary)
    seen = binary.parent / "seen"
    put(binary, f"#!/bin/sh\nls -l /proc/$$/fd > {seen}\necho $MODUS_UPGRADE >> {seen}\nexit 3\n")
    assert modus("upgrade", config=server.config)[0] == 1
    assert "ended with status 3" in refused(server)
    *lines, number = seen.read_text().split("\n")[:-1]
    links = dict(line.split(" -> ") for line in lines if " -> " in line)
    beyond = {key.split()[-1]: what for key, what in links.items() if int(key.split()[-1]) > 2 and what not in (str(binary), "/dev/null")}
    assert list(beyond) == [number] and beyond[number].startswith("socket:"), links


# --- the messages, by somebody who knows only what upgrade.h says -----------------------------------


class Giver:
    """A server that is to be upgraded, as far as the one that it starts can see."""

    def __init__(self, config: Path, *fields: str, fds: list[int] = [], sealed: bool = True) -> None:
        self.link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.settimeout(PATIENCE)
        self.process = subprocess.Popen([BINARY, "-c", config], env={"MODUS_UPGRADE": str(other.fileno())}, pass_fds=[other.fileno()], stderr=subprocess.PIPE, text=True)
        other.close()
        socket.send_fds(self.link, [("\0".join([*fields, "end=" if sealed else "half"]) + "\0").encode()], fds)

    def say(self, word: str) -> None:
        self.link.send(f"{word}=\0end=\0".encode())

    def hear(self) -> list[str]:
        return self.link.recv(65536).decode().split("\0")[:-2]

    def __enter__(self) -> "Giver":
        return self

    def __exit__(self, *_) -> None:
        self.link.close()
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("first, why", [("version=2", "(version 2) is not this build's (1)"), ("hello=1", "(version unknown)"), ("", "(version unknown)")])
def test_another_version_is_refused(tmp_path, first: str, why: str) -> None:
    (tmp_path / "m").write_text(listener(ONE).text())
    with Giver(tmp_path / "m", first) as giver:
        [answer] = giver.hear()
        assert answer.startswith("refused=the running server's way to hand over ") and why in answer
        assert giver.process.wait(PATIENCE * SLOW) == 1


@pytest.mark.parametrize("field", ["socket=0 0 127.0.0.1:0", "listener=x\0socket=7 0 y", "listener=x\0socket=", "listener=x\0socket=0 y"])
def test_nonsense_is_refused(tmp_path, field: str) -> None:
    (tmp_path / "m").write_text(listener(ONE).text())
    with Giver(tmp_path / "m", "version=1", field) as giver:
        [answer] = giver.hear()
        assert answer.startswith("refused=what the running server gives is not understood: socket=")
        assert giver.process.wait(PATIENCE * SLOW) == 1


def test_a_later_builds_fields_are_passed_over(model: Model) -> None:
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as ours, socket.create_server(("127.0.0.1", 0)) as other:
        folder = Path(name)
        config = folder / "modus.conf"
        config.write_text(listener(model).text())
        os.set_blocking(ours.fileno(), False)
        fields = ["version=1", "colour=blue", "thing=1 new", "listener=127.0.0.1:0", "socket=0 0 127.0.0.1:0", "tickets=tickets-9 ?", "taste=", "listener=gone", "socket=2 0 gone"]
        with Giver(config, *fields, fds=[ours.fileno(), other.fileno(), other.fileno()]) as giver:
            assert giver.hear() == ["ready=", "socket=0", "listener=0"]
            assert not (folder / "modus.pid").read_text().startswith("0")
            giver.say("weather")
            giver.say("go")
            assert [word.partition("=")[0] for word in giver.hear()] == ["serves"]
            giver.say("main")
            endpoint = Endpoint("127.0.0.1:%d" % ours.getsockname()[1])
            assert endpoint.ask("/hello").status == 200
            giver.process.send_signal(signal.SIGTERM)
            assert giver.hear() == ["stop="]
            giver.link.close()
            assert giver.process.wait(PATIENCE * SLOW) == 0


def test_giver_that_ends_before_it_has_given(tmp_path) -> None:
    (tmp_path / "m").write_text(listener(ONE).text())
    with Giver(tmp_path / "m", sealed=False) as giver:
        giver.link.close()
        assert "what the earlier server gives has not come: Broken pipe" in giver.process.stderr.read()
        assert giver.process.wait(PATIENCE * SLOW) == 1


# --- nothing is left -----------------------------------------------------------------------------


@pytest.mark.limit(90)
def test_upgrades_leave_nothing_behind(serve, model: Model, certificates) -> None:
    secure = replace(listener(model, "secure"), certificates=[certificates["one"]])
    server = serve(model, listener(model), secure)
    server.upgrade().wait()
    descriptors, count = proc.descriptors(server.pid), len(server.processes())
    for _ in range(20):
        before = server.upgrade()
        before.wait()
        assert not proc.is_alive(before.pid)
        eventually(lambda: proc.descriptors(server.pid) <= descriptors)
    eventually(lambda: len(server.processes()) == count)
    assert not [c for c in proc.children(server.pid) if proc.state(c) == "Z"]
    assert server["secure"].ask("/hello").status == server["main"].ask("/hello").status == 200
