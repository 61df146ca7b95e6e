"""The control socket: the commands that speak to a running server, and clients that mean it no good."""
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from lib import proc
from lib.clock import PATIENCE, SLOW, eventually
from lib.config import Listener, config_text
from lib.models import MODELS, Model
from lib.raw import request
from lib.server import BINARY, Endpoint, Server, for_others, refuses
from lib.site import BASIC_ROUTES, SIZES, watch

ONE = next(m for m in MODELS if m.name == "thread-pool")  # where the model does not matter
PREFORK = next(m for m in MODELS if m.name == "prefork")
ONE_WISH = 0.15  # seconds; two stops within 0.1 s are one
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def main(model: Model, **options) -> Listener:
    return Listener("main", model.name, BASIC_ROUTES, options=SIZES | options)


def start(config: Path, *words: str, program: Path = BINARY, user: str | None = None) -> subprocess.Popen:
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([program, *words, "-c", config], user=user, **pipes)


def run(config: Path, *words: str, **how) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of a command."""
    with start(config, *words, **how) as command:
        try:
            out, err = command.communicate(timeout=PATIENCE)
        except BaseException:
            command.kill()
            raise
    return command.returncode, out, err


def path_of(server: Server) -> Path:
    return server.folder / "modus.sock"


def dial(server: Server) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(path_of(server)))
    sock.settimeout(PATIENCE)
    return sock


def heard(sock: socket.socket) -> bytes:
    """All until the end."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def ask(server: Server, text: bytes) -> bytes:
    with dial(server) as sock:
        sock.sendall(text)
        return heard(sock)


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n")


# --- stop ----------------------------------------------------------------------------------------


def test_stop(serve, model: Model) -> None:
    """When it has returned all is given back."""
    server = serve(model, main(model))
    assert server["main"].ask("/hello").status == 200
    assert run(server.config, "stop") == (0, "", "")
    assert not path_of(server).exists() and not (server.folder / "modus.pid").exists()
    assert refuses(server["main"]) and refuses(server["watch"])
    assert server.wait() == 0


def test_stop_waits_for_requests(serve, model: Model) -> None:
    server = serve(model, main(model))
    with server["main"].connect() as wire:
        wire.send(request(f"/sleep?ms={500 * SLOW:.0f}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        with start(server.config, "stop") as stop:
            eventually(lambda: "stopping" in server.errors)
            assert stop.poll() is None and server.process.poll() is None
            assert wire.answer().status == 200
            assert stop.wait(PATIENCE) == 0
    assert server.wait() == 0


def test_second_stop_ends_at_once(serve, model: Model) -> None:
    """And both hear of the end."""
    server = serve(model, main(model))
    with server["main"].connect() as wire:
        wire.send(request("/sleep?ms=10000"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        with start(server.config, "stop") as first:
            eventually(lambda: "stopping" in server.errors)
            time.sleep(ONE_WISH)
            assert ask(server, b"status --json\n").startswith(b"ok\n"), "it still listens"
            assert run(server.config, "stop") == (0, "", "")
            assert first.wait(PATIENCE) == 0
    assert server.wait() == 0


def test_stop_at_the_end_of_drain_timeout(serve) -> None:
    server = serve(ONE, main(ONE), drain_timeout="200ms")
    with server["main"].connect() as wire:
        wire.send(request("/sleep?ms=10000"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        assert run(server.config, "stop") == (0, "", "")
    assert server.wait() == 0
    assert "drain_timeout is over" in server.errors


def test_signal_after_stop_ends_at_once(serve) -> None:
    server = serve(ONE, main(ONE))
    with server["main"].connect() as wire:
        wire.send(request("/sleep?ms=10000"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        with start(server.config, "stop") as stop:
            eventually(lambda: "stopping" in server.errors)
            time.sleep(ONE_WISH)
            server.signal(signal.SIGTERM)
            assert stop.wait(PATIENCE) == 0
    assert server.wait() == 0


def test_stop_of_a_server_that_is_killed_meanwhile(serve) -> None:
    server = serve(ONE, main(ONE))
    with server["main"].connect() as wire:
        wire.send(request("/sleep?ms=10000"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        with start(server.config, "stop") as stop:
            eventually(lambda: "stopping" in server.errors)
            server.signal(signal.SIGKILL)
            assert stop.wait(PATIENCE) == 1
            assert stop.stderr.read() == f"modus: the server at {path_of(server)} has ended without an answer\n"
    server.wait()


def test_restart_in_the_same_place(model: Model, tmp_path: Path) -> None:
    """As soon as stop has returned, and when the last one was killed."""
    file = tmp_path / "modus.conf"
    section = Listener("main", model.name, BASIC_ROUTES, address="unix:web", options=SIZES).text()
    file.write_text(f"pid_file = pid\ncontrol = sock\n{section}\n")
    for end in ("stop", "kill", "stop"):
        errors = tmp_path / "errors"
        with subprocess.Popen([BINARY, "-c", file], stderr=errors.open("w")) as server:
            try:
                eventually(lambda: ": ready\n" in errors.read_text(), what=errors.read_text())
                assert "warn" not in errors.read_text()
                if end == "stop":
                    assert run(file, "stop") == (0, "", "")
                    assert server.wait(PATIENCE) == 0
            finally:
                server.kill()
        # Its workers end a moment after a killed master, and have its listening sockets.
        eventually(lambda: refuses(Endpoint(f"unix:{tmp_path}/web")))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["errors", "modus.conf"]


# --- status --------------------------------------------------------------------------------------


def shape(value: object) -> object:
    """Its structure, without the numbers."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value)


def test_status_json_is_the_handler_s(serve, model: Model) -> None:
    server = serve(model, main(model))
    assert server["main"].ask("/hello").status == 200
    eventually(lambda: server.listener_status("main")["requests"]["total"] == 1)
    code, out, err = run(server.config, "status", "--json")
    assert (code, err) == (0, "")
    found, expected = json.loads(out), server.status()
    assert shape(found) == shape(expected)
    assert [found[k] for k in ("version", "config_file", "pid")] == [expected[k] for k in ("version", "config_file", "pid")]
    assert [l["addresses"] for l in found["listeners"]] == [l["addresses"] for l in expected["listeners"]]
    assert found["listeners"][0]["requests"]["total"] == 1


def test_status(serve) -> None:
    server = serve(PREFORK, main(PREFORK, gil="false"))
    with server["main"].connect() as wire:
        for _ in range(3):
            assert wire.ask("/hello").status == 200
        eventually(lambda: server.listener_status("main")["connections"]["idle"] == 1)
        code, out, err = run(server.config, "status")
    assert (code, err) == (0, "")
    rows = {words[0]: words[1:] for words in map(str.split, out.splitlines()) if words}
    assert rows[server["main"].text] == ["prefork", "1", "1", "0", "3", "4"]
    assert rows[server["watch"].text][0] == "prefork" and rows[server["watch"].text][-1] == "1"
    assert rows["total"][0] == "1" and rows["total"][-1] == "5"
    assert re.search(rf"modus \S+, process {server.pid}, up 00:00:\d\d, 0 workers have died; {server.config}\n$", out)


# --- logs reopen ---------------------------------------------------------------------------------


def test_logs_reopen(serve, model: Model) -> None:
    """When it has returned nothing is written to the old files: by nobody, whatever he was at."""
    server = serve(model, main(model, access_log="access.log"), error_log="error.log")
    log, old = server.folder / "access.log", server.folder / "access.log.1"
    wires = [server["main"].connect() for _ in range(4)]
    for wire in wires:
        assert wire.ask("/hello").status == 200
    eventually(lambda: lines(log) == 4)
    wires[0].send(request(f"/sleep?ms={300 * SLOW:.0f}"))
    wires[1].send(b"GET /hello HT")
    eventually(lambda: server.listener_status("main")["requests"]["active"] >= 1)
    log.rename(old)
    (server.folder / "error.log").rename(server.folder / "error.log.1")
    assert run(server.config, "logs", "reopen") == (0, "", "")
    before = old.stat().st_size
    assert log.exists() and (server.folder / "error.log").exists()
    assert wires[0].answer().status == 200
    wires[1].send(b"TP/1.1\r\nHost: x\r\n\r\n")
    assert wires[1].answer().status == 200
    for wire in wires:
        assert wire.ask("/hello").status == 200
    for _ in range(8):
        assert server["main"].ask("/hello").status == 200
    eventually(lambda: lines(log) + lines(old) == 18)
    assert old.stat().st_size == before
    for wire in wires:
        wire.close()


def test_logs_reopen_again_and_again(serve, model: Model) -> None:
    """No line is lost, while clients come and go."""
    server = serve(model, main(model, access_log="access.log"))
    log = server.folder / "access.log"
    for n in range(10):
        log.rename(server.folder / f"access.log.{n}")
        assert run(server.config, "logs", "reopen") == (0, "", "")
        for _ in range(5):
            assert server["main"].ask("/hello").status == 200
        eventually(lambda: lines(log) == 5)


def test_logs_reopen_counts_out_the_dead(serve) -> None:
    """A worker that does not look is waited for; one that has ended is not."""
    server = serve(PREFORK, main(PREFORK, access_log="access.log"))
    worker = server.workers("main")[0]
    proc.send(worker, signal.SIGSTOP)
    eventually(lambda: proc.state(worker) == "T")
    log = server.folder / "access.log"
    log.rename(server.folder / "old")
    with start(server.config, "logs", "reopen") as reopen:
        eventually(log.exists)
        assert run(server.config, "status")[0] == 0, "the master serves others meanwhile"
        assert reopen.poll() is None
        server.deaths_expected = 1
        proc.end(worker)
        assert reopen.wait(PATIENCE) == 0


def test_logs_reopen_gives_up(serve) -> None:
    server = serve(PREFORK, main(PREFORK), drain_timeout="1s")
    worker = server.workers("main")[0]
    proc.send(worker, signal.SIGSTOP)
    try:
        code, _, err = run(server.config, "logs", "reopen")
        assert code == 1 and err.startswith("modus: 1 process may still write to the old files"), err
    finally:
        proc.send(worker, signal.SIGCONT)
    assert run(server.config, "logs", "reopen") == (0, "", "")


def test_logs_that_can_not_be_opened_again(serve) -> None:
    server = serve(ONE, main(ONE, access_log="access.log"))
    (server.folder / "access.log").rename(server.folder / "old")
    (server.folder / "access.log").mkdir()
    code, _, err = run(server.config, "logs", "reopen")
    assert code == 1 and "its old file goes on" in err and err.count("\n") == 1
    assert "Is a directory" in server.errors
    (server.folder / "access.log").rmdir()
    assert run(server.config, "logs", "reopen") == (0, "", "")


def test_logs_that_can_not_be_opened_while_a_generation_goes(serve) -> None:
    """What could not be opened before, by workers that are gone now, makes up for nothing."""
    one, four = main(PREFORK, processes=1), main(PREFORK, processes=4)
    server = serve(PREFORK, four, error_log="error.log")
    (server.folder / "error.log").rename(server.folder / "old")
    (server.folder / "error.log").mkdir()
    assert run(server.config, "logs", "reopen")[0] == 1
    (server.folder / "error.log").rmdir()
    [watcher] = server.workers("watch")
    with server["main"].connect() as busy:
        busy.send(request(f"/sleep?ms={1000 * SLOW:.0f}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        server.config.write_text(config_text([one, watch(PREFORK)], {"error_log": "error.log"}))
        assert run(server.config, "reload")[0] == 0
        (server.folder / "error.log").rename(server.folder / "old")
        (server.folder / "error.log").mkdir()
        proc.send(watcher, signal.SIGSTOP)
        try:
            with start(server.config, "logs", "reopen") as reopen:
                assert busy.answer().status == 200
                eventually(lambda: len(server.processes()) == 3)
                proc.send(watcher, signal.SIGCONT)
                assert reopen.wait(PATIENCE) == 1
        finally:
            proc.send(watcher, signal.SIGCONT)


@root_only
def test_logs_in_a_folder_of_root_s(serve, model: Model) -> None:
    """The master makes the new files and gives them away before a worker, which may be quick, opens them."""
    server = serve(model, main(model, access_log="access.log"), error_log="error.log", user="nobody")
    for _ in range(20):
        for name in ("access.log", "error.log"):
            (server.folder / name).unlink()
        assert run(server.config, "logs", "reopen") == (0, "", "")
        assert (server.folder / "error.log").read_text() == ""


@root_only
def test_logs_that_the_workers_can_not_open_again(serve) -> None:
    """The master is root and can; its workers say that they could not."""
    logs = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    logs.chmod(0o755)
    server = serve(ONE, main(ONE, access_log=str(logs / "access.log")), user="nobody")
    assert run(server.config, "logs", "reopen") == (0, "", "")
    logs.chmod(0o700)
    code, _, err = run(server.config, "logs", "reopen")
    assert code == 1 and "its old file goes on" in err
    assert run(server.config, "stop")[0] == 0
    assert server.wait() == 0
    for file in logs.iterdir():
        file.unlink()
    logs.rmdir()


# --- who may ask ---------------------------------------------------------------------------------


def test_file_is_the_owner_s(serve) -> None:
    server = serve(ONE, main(ONE))
    st = path_of(server).stat()
    assert (st.st_mode & 0o7777, st.st_uid) == (0o600, os.geteuid())


@root_only
@pytest.mark.parametrize("user", ["", "nobody"], ids=["root", "dropped"])
def test_another_user_is_refused(serve, tmp_path: Path, user: str) -> None:
    """By the file's mode; and when somebody has changed that, by the server. Its workers' user is another one too."""
    server = serve(ONE, main(ONE), user=user)
    program = for_others(server.folder)
    nobody = pwd.getpwnam("nobody").pw_name
    for words in (["stop"], ["status"]):
        code, out, err = run(server.config, *words, program=program, user=nobody)
        assert (code, out) == (1, "") and "Permission denied; only root and the server's user may" in err, err
    path_of(server).chmod(0o666)
    for words in (["stop"], ["status"]):
        code, out, err = run(server.config, *words, program=program, user=nobody)
        assert (code, out, err) == (1, "", "modus: only root and the user that the server runs as may ask\n")
    assert server["main"].ask("/hello").status == 200
    assert "stopping" not in server.errors


@root_only
def test_root_may_ask_another_user_s_server(tmp_path: Path) -> None:
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    folder.chmod(0o755)
    file = folder / "modus.conf"
    file.write_text(main(ONE).text() + "\n")
    with subprocess.Popen([for_others(folder), "-c", file], stderr=subprocess.PIPE, text=True, user="nobody") as server:
        while "ready" not in (line := server.stderr.readline()):
            assert line, "it ended"
        assert run(file, "status", program=folder / "modus", user="nobody")[0] == 0
        assert run(file, "stop") == (0, "", "")
    assert server.returncode == 0
    subprocess.run(["rm", "-r", folder], check=True)


def test_workers_do_not_have_it(serve, model: Model) -> None:
    server = serve(model, main(model))
    inodes = [l.split()[6] for l in Path("/proc/net/unix").read_text().splitlines() if l.endswith(f" {path_of(server)}")]
    assert inodes
    with server["main"].connect() as wire:
        assert wire.ask("/hello").status == 200
        for pid in server.processes():
            held = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
            assert (f"socket:[{inodes[0]}]" in held) == (pid == server.pid)


# --- clients that mean it no good ----------------------------------------------------------------


GARBAGE = {
    "nothing": b"\n",
    "zeros": b"\0" * 100 + b"\n",
    "bytes": bytes(range(256)) * 4 + b"\n",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "unknown word": b"halt\n",
    "word too many": b"stop now\n",
    "bad escape": b"stop%zz\n",
    "many words": b"a " * 1000 + b"\n",
}


@pytest.fixture(scope="module")
def shared(serve_many) -> Server:
    return serve_many(ONE, main(ONE))


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage(shared: Server, text: bytes) -> None:
    answer = ask(shared, text)
    assert answer.startswith(b"error: ") and answer.count(b"\n") == 1 and answer.endswith(b"\n")
    assert all(byte >= 0x20 for byte in answer[:-1])


def test_line_that_is_too_long(shared: Server) -> None:
    with dial(shared) as sock:
        try:
            sock.sendall(b"x" * 10_000_000)
        except OSError:
            pass  # it was refused meanwhile
        assert sock.recv(100) == b"error: this line is too long\n"
    assert run(shared.config, "status")[0] == 0


def test_silence(shared: Server) -> None:
    """Is ended, and holds nobody up."""
    with dial(shared) as silent, dial(shared) as half:
        half.sendall(b"stat")
        assert run(shared.config, "status")[0] == 0
        assert heard(silent) == heard(half) == b"error: no request came\n"


def test_many_clients(shared: Server) -> None:
    """More than it serves at once: who asks is answered, and who only sits there makes room."""
    silent = []
    for _ in range(100):
        silent.append(dial(shared))
    assert run(shared.config, "status")[0] == 0
    assert heard(silent[0]).startswith(b"error: too many clients")
    for sock in silent:
        sock.close()
    assert shared["main"].ask("/hello").status == 200


def test_client_that_takes_no_answer(shared: Server) -> None:
    socks = [dial(shared) for _ in range(8)]
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.sendall(b"status --json\n")
    assert run(shared.config, "status")[0] == 0
    for sock in socks:
        sock.close()


def test_clients_that_leave(shared: Server) -> None:
    for _ in range(50):
        with dial(shared) as sock:
            sock.sendall(b"logs reopen\n")
    assert run(shared.config, "status")[0] == 0


def test_one_that_sends_no_more_is_answered(shared: Server) -> None:
    with dial(shared) as sock:
        sock.sendall(b"logs reopen\n")
        sock.shutdown(socket.SHUT_WR)
        assert heard(sock) == b"ok\n"


# --- where it is ---------------------------------------------------------------------------------


def test_nobody_is_there(tmp_path: Path) -> None:
    file, sock = tmp_path / "modus.conf", tmp_path / "modus.sock"
    file.write_text(main(ONE).text())
    for words in (["stop"], ["status"], ["status", "--json"], ["reload"], ["logs", "reopen"]):
        assert run(file, *words) == (1, "", f"modus: no server is running at {sock} (No such file or directory)\n")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(sock))
    assert run(file, "stop") == (1, "", f"modus: no server is running at {sock} (Connection refused)\n")
    assert run(tmp_path / "none", "stop")[0] == 1


def test_second_server(serve, model: Model, tmp_path: Path) -> None:
    """A path that is in the file and another server's refuses the start; the default one's absence is said."""
    path = tmp_path / "sock"
    first = serve(model, main(model), control=str(path))
    with pytest.raises(RuntimeError, match=rf"modus.conf:\d+: cannot listen on control socket {path}: .* another server"):
        serve(model, main(model), control=str(path))
    assert run(first.config, "status")[0] == 0
    first.signal(signal.SIGKILL)
    first.wait()
    assert path.exists()
    second = serve(model, main(model), control=str(path))
    assert run(first.config, "stop")[0] == 1, "that is not its server"
    assert run(second.config, "stop") == (0, "", "")
    assert second.wait() == 0 and not path.exists()


def test_default_path_that_another_server_has(tmp_path: Path) -> None:
    file = tmp_path / "modus.conf"
    file.write_text('pid_file = ""\n' + main(ONE).text())
    started: list[subprocess.Popen] = []
    try:
        for n in range(2):
            errors = tmp_path / f"errors{n}"
            started.append(subprocess.Popen([BINARY, "-c", file], stderr=errors.open("w")))
            eventually(lambda: ": ready\n" in errors.read_text())
            assert ("warn: no control socket: " in errors.read_text()) == (n == 1), errors.read_text()
        started[1].terminate()
        assert started[1].wait(PATIENCE) == 0
        assert json.loads(run(file, "status", "--json")[1])["pid"] == started[0].pid, "the first one's file is still there"
        assert run(file, "stop") == (0, "", "")
    finally:
        for server in started:
            server.kill()
            server.wait()


@root_only
def test_default_path_that_can_not_be_written(serve) -> None:
    """A server that was started by somebody who may not write beside its file serves without."""
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    folder.chmod(0o755)
    file = folder / "modus.conf"
    file.write_text('pid_file = ""\n' + main(ONE).text())
    with subprocess.Popen([for_others(folder), "-c", file], stderr=subprocess.PIPE, text=True, user="nobody") as server:
        said = ""
        while "ready" not in said:
            said += (line := server.stderr.readline())
            assert line, said
        server.terminate()
    assert server.returncode == 0
    assert re.search(rf"warn: no control socket: .*{folder}/modus.sock: Permission denied", said), said
    file.write_text('pid_file = ""\ncontrol = modus.sock\n' + main(ONE).text())
    assert run(file, program=folder / "modus", user="nobody")[0] == 1
    subprocess.run(["rm", "-r", folder], check=True)


def test_none(serve) -> None:
    server = serve(ONE, main(ONE), control="")
    assert not path_of(server).exists()
    assert run(server.config, "stop") == (1, "", f'modus: {server.config} has control = "": its server takes no commands\n')


def test_file_that_has_become_wrong(serve) -> None:
    """Is good enough for what only needs to know where the server is."""
    server = serve(ONE, main(ONE))
    text = server.config.read_text()
    server.config.write_text("userr = x\n" + text + "\nlisten {")
    code, out, err = run(server.config, "status")
    assert (code, out) == (1, "") and re.match(rf"{server.config}:\d+: .*so where the server listens for commands is not known\n", err)
    server.config.write_text("userr = x\n" + text.replace("thread-pool", "nonsense"))
    assert run(server.config, "status")[0] == 0
    assert run(server.config, "stop") == (0, "", "")
    assert server.wait() == 0


# --- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["stop", "now"], ["status", "-j"], ["status", "--json", "x"], ["logs"], ["logs", "open"], ["logs", "reopen", "x"]]
    + [["model"], ["model", "a"], ["model", "a", "b", "c"], ["model", "a", "b", "c", "d"], ["drain"], ["reload", "x"], ["stop", "stop"]],
    ids=" ".join,
)
def test_usage(shared: Server, words: list[str]) -> None:
    code, out, err = run(shared.config, *words)
    assert (code, out) == (2, "") and "usage" in err
    assert f"modus {words[0]}" in err.splitlines()[0]


def test_master_that_does_not_answer(serve) -> None:
    """A request that is answered at once is not waited for any longer than that."""
    server = serve(ONE, main(ONE))
    server.signal(signal.SIGSTOP)
    try:
        code, out, err = run(server.config, "status")
        assert (code, out, err) == (1, "", f"modus: the server at {path_of(server)} does not answer\n")
    finally:
        server.signal(signal.SIGCONT)


def test_another_file_of_the_same_folder_is_another_server(serve) -> None:
    """Both have their socket there, and the commands of one are not for the other."""
    server = serve(ONE, main(ONE))
    copy, link = server.folder / "copy.conf", server.folder / "link.conf"
    copy.write_text(server.config.read_text())
    link.symlink_to(server.config)
    real = server.config.resolve()
    for words in (["reload"], ["status"], ["stop"], ["model", server["main"].text, "prefork"]):
        code, out, err = run(copy, *words)
        assert (code, out) == (1, "")
        assert err == (
            f"modus: the server there runs with {server.config}, not with {real.parent / 'copy.conf'}: "
            "name its file, or give the other one a control socket of its own\n"
        )
    assert run(link, "reload")[0] == 0
    assert server["main"].ask("/hello").status == 200


def test_the_file_of_a_running_server_is_checked(serve, tmp_path) -> None:
    """As one does before each reload, also when it names its files."""
    server = serve(ONE, main(ONE), pid_file=str(tmp_path / "modus.pid"), control=str(tmp_path / "c.sock"))
    assert run(server.config, "-t") == (0, f"{server.config} is right\n", "")
    (tmp_path / "modus.pid").unlink()
    (tmp_path / "modus.pid").write_text("a diary\n")
    code, _, err = run(server.config, "-t")
    assert code == 1 and "modus.pid is there already, and is no pid file" in err
