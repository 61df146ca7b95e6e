"""Access logs: one line a request, in three formats, escaped, and opened again on SIGUSR1."""
import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from lib import proc
from lib.clock import eventually
from lib.config import Listener, config_text
from lib.models import Model
from lib.raw import request
from lib.server import BINARY, Endpoint, Server
from lib.site import BASIC_ROUTES, watch

FORMATS = ["combined", "common", "json"]
COMMON = r'(?P<peer>\S+) - - \[(?P<time>[^]]+)\] "(?P<method>\S+) (?P<target>\S*) (?P<protocol>HTTP/1\.[01])" (?P<status>\d{3}) (?P<bytes>\d+|-)'
COMBINED = COMMON + r' "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"'


class Log:
    """A listener's access log, from where it stood when the test began."""

    def __init__(self, server: Server, log_format: str) -> None:
        self.server, self.format = server, log_format
        self.endpoint = server[log_format]
        self._path = server.folder / f"{log_format}.log"
        self._start = self._path.stat().st_size

    def lines(self, n: int) -> list[str]:
        """All lines since, once there are n of them."""

        def look() -> list[str]:
            text = self._path.read_bytes()[self._start :]
            assert text.count(b"\n") >= n, f"fewer than {n} lines: {text[-300:]!r}"
            assert text.endswith(b"\n")
            return text.decode("ascii").splitlines()

        found = eventually(look)
        assert len(found) == n, found
        return found


@pytest.fixture(scope="module")
def server(serve_many, model: Model) -> Server:
    """A listener for each format."""

    def listener(log_format: str) -> Listener:
        options = {"access_log": f"{log_format}.log", "log_format": log_format, "processes": 4, "loops": 2}
        return Listener(log_format, model.name, BASIC_ROUTES, options=options)

    return serve_many(model, *map(listener, FORMATS))


@pytest.fixture(params=FORMATS)
def log(request: pytest.FixtureRequest, server: Server) -> Log:
    return Log(server, request.param)


@pytest.fixture
def json_log(server: Server) -> Log:
    return Log(server, "json")


@pytest.fixture
def combined_log(server: Server) -> Log:
    return Log(server, "combined")


def test_one_line_a_request(log: Log) -> None:
    fields = {"Referer": "http://from.test/", "User-Agent": "tester/1.0"}
    started = time.time()
    with log.endpoint.connect() as wire:
        wire.ask("/hello?a=b", fields=fields)
        wire.ask("/nowhere")
        wire.ask("/hello", "HEAD")
        wire.ask("/echo", "POST", body=b"12345")
        wire.ask("/sleep?ms=20")
        wire.send(request("/hello", version="1.0"))
        wire.answer()
    found = log.lines(6)
    if log.format == "json":
        records = [json.loads(line) for line in found]
        assert all(started - 2 <= r["time"] <= time.time() for r in records)
        assert records[4]["duration_us"] >= 20_000
        seen = [(r["method"], r["target"], r["protocol"], r["status"], r["bytes"]) for r in records]
        assert (records[0]["referer"], records[0]["user_agent"]) == ("http://from.test/", "tester/1.0")
    else:
        matches = [re.fullmatch(COMBINED if log.format == "combined" else COMMON, line) for line in found]
        assert all(matches), found
        seen = [(m["method"], m["target"], m["protocol"], int(m["status"]), int(m["bytes"].replace("-", "0"))) for m in matches if m]
        for m in matches:
            stamp = time.strptime(m["time"].removesuffix(" +0000"), "%d/%b/%Y:%H:%M:%S")
            assert m["peer"] == "127.0.0.1" and abs(time.mktime(stamp) - time.mktime(time.gmtime())) < 30
        if log.format == "combined":
            assert (matches[0]["referer"], matches[0]["agent"]) == ("http://from.test/", "tester/1.0")
            assert (matches[1]["referer"], matches[1]["agent"]) == ("-", "-")
    assert seen == [
        ("GET", "/hello?a=b", "HTTP/1.1", 200, 13),
        ("GET", "/nowhere", "HTTP/1.1", 404, 14),
        ("HEAD", "/hello", "HTTP/1.1", 200, 0),
        ("POST", "/echo", "HTTP/1.1", 200, 5),
        ("GET", "/sleep?ms=20", "HTTP/1.1", 200, 12),
        ("GET", "/hello", "HTTP/1.0", 200, 13),
    ]


def test_what_clients_send_can_not_forge_lines(log: Log) -> None:
    agent = 'quote" backslash\\ tab\t bytes\u00e9\u00ff" 200 5 "-" "'
    target = '/hello?"quote"\\%0d%0a<script>'
    with log.endpoint.connect() as wire:
        assert wire.ask(target, fields={"User-Agent": agent, "Referer": agent}).status == 200
    [line] = log.lines(1)
    assert all(" " <= c <= "~" for c in line), line
    if log.format == "json":
        record = json.loads(line)
        assert record["target"] == target
        assert (record["user_agent"], record["referer"]) == (agent.strip(), agent.strip())
    else:
        m = re.fullmatch(COMBINED if log.format == "combined" else COMMON.replace(r"\S*", r'(?:[^"\\]|\\.)*'), line)
        assert m, line
        assert m["target"] == target.replace("\\", "\\\\").replace('"', '\\"')
        if log.format == "combined":
            escaped = agent.strip().replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\x09")
            assert m["agent"] == escaped.replace("\u00e9", "\\xe9").replace("\u00ff", "\\xff")


def test_requests_that_are_none_get_a_line_too(log: Log) -> None:
    for bad in (b"\x00\x01\x02\r\n\r\n", b"GET  /x HTTP/1.1\r\n\r\n", request("/" + "x" * 9000)):
        with log.endpoint.connect() as wire:
            wire.send_if_wanted(bad)
            assert wire.answer().status in (400, 414)
    found = log.lines(3)
    assert [re.search(r'(?:" |"status":)(\d{3})', line)[1] for line in found] == ["400", "400", "414"]


def test_long_fields_do_not_push_the_rest_out(json_log: Log) -> None:
    fields = {"User-Agent": "\u00e9" * 8000, "Referer": '"' * 8000}
    assert json_log.endpoint.ask("/hello?" + "\\" * 7000, fields=fields).status == 200
    record = json.loads(json_log.lines(1)[0])
    assert (record["method"], record["status"], record["bytes"]) == ("GET", 200, 13)
    assert record["target"].startswith("/hello?\\\\")


def test_lines_do_not_mix(combined_log: Log) -> None:
    """Several workers, or threads, write to the same file at once."""
    threads, each = 4, 50

    def client(n: int) -> None:
        with combined_log.endpoint.connect() as wire:
            for i in range(each):
                wire.ask(f"/hello?{n}-{i}-" + "x" * 500)

    clients = [threading.Thread(target=client, args=(n,)) for n in range(threads)]
    for c in clients:
        c.start()
    for c in clients:
        c.join()
    found = combined_log.lines(threads * each)
    assert all(re.fullmatch(COMBINED, line) for line in found)
    targets = {re.search(r"\?(\d+-\d+)-x{500} ", line)[1] for line in found}
    assert len(targets) == threads * each


def test_cut_answers_are_logged(server: Server, json_log: Log) -> None:
    wire = json_log.endpoint.connect()
    wire.send(request("/sleep?ms=5000"))
    eventually(lambda: server.listener_status("json")["requests"]["active"] == 1)
    wire.reset()
    assert json.loads(json_log.lines(1)[0])["target"] == "/sleep?ms=5000"


def test_logs_are_opened_again(serve, model: Model) -> None:
    """After the signal nothing goes to the renamed file, and no line is lost."""
    options = {"access_log": "access.log", "log_format": "common", "processes": 3}
    server = serve(model, Listener("main", model.name, BASIC_ROUTES, options=options), error_log="error.log")
    server["main"].ask("/hello")
    asked = 1

    def fresh(endpoint: Endpoint) -> bool:
        nonlocal asked
        endpoint.ask("/hello")
        asked += 1
        return (server.folder / "access.log").exists() and (server.folder / "error.log").exists()

    for name in ("access.log", "error.log"):
        (server.folder / name).rename(server.folder / f"{name}.old")
    server.signal(signal.SIGUSR1)
    eventually(lambda: fresh(server["main"]), what="new files")

    def all_in_the_new_one() -> bool:
        nonlocal asked
        before = _count(server.folder / "access.log")
        for _ in range(10):
            server["main"].ask("/hello")
        asked += 10
        return _count(server.folder / "access.log") == before + 10

    eventually(all_in_the_new_one, what="all workers write to the new file")
    assert _count(server.folder / "access.log") + _count(server.folder / "access.log.old") == asked


def test_fifo_holds_nobody_up(serve, model: Model, tmp_path: Path) -> None:
    """A log may be a FIFO: without a reader it is refused, and one whose reader stands still loses lines."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    main = Listener("main", model.name, BASIC_ROUTES, options={"access_log": str(path)})
    with pytest.raises(RuntimeError, match=f"{path}: it is a FIFO that nobody reads"):
        serve(model, main)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    server = serve(model, main)
    size = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
    with server["main"].connect() as wire:
        for _ in range(size // 1000 + 10):
            assert wire.ask("/hello?" + "x" * 1000).status == 200
    server.signal(signal.SIGUSR1)
    assert server["main"].ask("/hello").status == 200
    eventually(lambda: f"lines of {path} are lost" in server.errors)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    os.close(reader)


def test_file_that_became_a_fifo(serve, model: Model) -> None:
    server = serve(model, Listener("main", model.name, BASIC_ROUTES, options={"access_log": "a.log"}), error_log="e.log")
    for name in ("a.log", "e.log"):
        (server.folder / name).rename(server.folder / f"old.{name}")
        os.mkfifo(server.folder / name)
    server.signal(signal.SIGUSR1)
    eventually(lambda: "the old file goes on" in (server.folder / "old.e.log").read_text())
    assert server["main"].ask("/hello").status == 200
    for name in ("a.log", "e.log"):
        (server.folder / name).unlink()
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def has_open(pid: int, file: Path) -> bool:
    return any(os.path.realpath(fd) == str(file) for fd in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.parametrize("user", [None, pytest.param("nobody", marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user"))])
def test_reload_with_another_error_log(serve, model: Model, user: str | None) -> None:
    """It is everybody's: nobody writes to the old one any more."""
    top = {"user": user} if user else {}
    main = Listener("main", model.name, BASIC_ROUTES, options={"access_log": "/dev/full", "processes": 2, "loops": 1})
    server = serve(model, main, error_log="0.log", **top)
    held = proc.descriptors(server.pid)
    for n in (1, 2):
        server.config.write_text(config_text([main, watch(model)], {"error_log": f"{n}.log", **top}))
        subprocess.run([BINARY, "reload", "-c", server.config], check=True)
        old, new = server.folder / f"{n - 1}.log", server.folder / f"{n}.log"
        eventually(lambda: not any(has_open(pid, old) for pid in server.processes()), what="the old log is let go")
        eventually(lambda: all(has_open(pid, new) for pid in server.processes()))
        assert server["main"].ask("/hello").status == 200
        eventually(lambda: "lines of /dev/full are lost" in new.read_text())
        assert subprocess.run([BINARY, "logs", "reopen", "-c", server.config]).returncode == 0
    eventually(lambda: proc.descriptors(server.pid) == held)


def test_reload_with_an_error_log_that_can_not_be(serve, model: Model) -> None:
    main = Listener("main", model.name, BASIC_ROUTES)
    server = serve(model, main, error_log="e.log")
    held = proc.descriptors(server.pid)
    (server.folder / "other.log").mkdir()
    server.config.write_text(config_text([main, watch(model)], {"error_log": "other.log"}))
    for _ in range(3):
        done = subprocess.run([BINARY, "reload", "-c", server.config], capture_output=True, text=True)
        assert done.returncode == 1
        assert re.fullmatch(r"modus: \S+modus\.conf:1: .*other\.log: Is a directory.*\n", done.stderr), done.stderr
    server.signal(signal.SIGHUP)
    eventually(lambda: (server.folder / "e.log").read_text().count("not reloaded") == 4)
    eventually(lambda: proc.descriptors(server.pid) == held)


def test_reload_with_another_log_level(serve, model: Model) -> None:
    """It is the workers', too."""
    main = Listener("main", model.name, BASIC_ROUTES, options={"processes": 2, "loops": 1})
    server = serve(model, main, error_log="e.log")

    def who_complains() -> set[int]:
        """Of a log that cannot be opened again."""
        old = log.rename(server.folder / "old")
        log.mkdir()
        assert subprocess.run([BINARY, "logs", "reopen", "-c", server.config], capture_output=True).returncode == 1
        log.rmdir()
        said = re.findall(r" warn (\d+): .*; the old file goes on", old.read_text())
        old.rename(log)
        return set(map(int, said))

    log = server.folder / "e.log"
    assert who_complains() == set(server.processes())
    log.write_text("")
    server.config.write_text(config_text([main, watch(model)], {"error_log": "e.log", "log_level": "error"}))
    subprocess.run([BINARY, "reload", "-c", server.config], check=True)
    eventually(lambda: set(server.processes()) == {server.pid, *server.workers("main"), *server.workers("watch")})
    assert who_complains() == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_others_put_in_a_log_s_place_is_not_given_away(serve, model: Model, tmp_path: Path) -> None:
    """Who may write in the folder of the logs gets nobody's file, neither by a link at once nor when they are opened again."""
    secret = tmp_path / "secret"
    secret.write_text("")
    secret.chmod(0o600)
    main = Listener("main", model.name, BASIC_ROUTES, options={"access_log": "a.log"})
    server = serve(model, main, user="nobody")
    log = server.folder / "a.log"
    for link in (log.symlink_to, log.hardlink_to):
        log.unlink()
        link(secret)
        reopen = subprocess.run([BINARY, "logs", "reopen", "-c", server.config], capture_output=True)
        assert reopen.returncode == 1, "the master follows no link, and the workers may not write to that file"
        assert server["main"].ask("/hello").status == 200
        assert secret.stat().st_uid == 0
    eventually(lambda: "symbolic link" in server.errors)
    assert secret.read_text() == ""


@pytest.mark.parametrize("path, status, least", [("?ms=300", 200, 500), ("?ms=301", 503, 150)])
def test_duration_begins_when_the_request_came(serve, queued_model: Model, path: str, status: int, least: int) -> None:
    """Not when a thread had time for it."""
    path = queued_model.hold + path
    options = queued_model.sized(1) | {"loops": 1, "access_log": "a.log", "log_format": "json", "max_connections": 8}
    options |= {"queue_timeout": "200ms"} if status == 503 else {}
    server = serve(queued_model, Listener("main", queued_model.name, BASIC_ROUTES, options=options))
    with server["main"].connect() as first, server["main"].connect() as second:
        first.send(request(f"{queued_model.hold}?ms=600" if status == 503 else path))
        first.is_quiet(0.05)
        second.send(request(path))
        assert second.answer().status == status
        assert first.answer().status == 200
    lines = [json.loads(line) for line in (server.folder / "a.log").read_text().splitlines()]
    [duration] = [line["duration_us"] for line in lines if line["status"] == status][-1:]
    assert duration > least * 1000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_limit_of_a_file_s_size(serve, model: Model) -> None:
    """What a log has no room for is lost, and nothing else."""
    options = {"access_log": "access.log", "processes": 2, "loops": 1}
    server = serve(model, Listener("main", model.name, BASIC_ROUTES, options=options))
    for pid in server.processes():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, 4096))
    for _ in range(100):
        assert server["main"].ask("/hello").status == 200
    assert (server.folder / "access.log").stat().st_size <= 4096


def test_full_disk(serve, model: Model) -> None:
    server = serve(model, Listener("main", model.name, BASIC_ROUTES, options={"access_log": "/dev/full"}))
    for _ in range(3):
        assert server["main"].ask("/hello").status == 200
    eventually(lambda: "lines of /dev/full are lost: No space left on device" in server.errors)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_standard_streams(model: Model, tmp_path: Path, stream: str) -> None:
    """Lines go there, are not lost when the logs are opened again, and no file of that name is made."""
    section = Listener("main", model.name, BASIC_ROUTES, address="unix:web", options={"access_log": stream, "log_format": "common"})
    file = tmp_path / "modus.conf"
    file.write_text('pid_file = ""\n' + section.text())
    out, err = tmp_path / "out", tmp_path / "err"
    with open(out, "wb") as o, open(err, "wb") as e, subprocess.Popen([BINARY, "-c", file], stdout=o, stderr=e) as server:
        eventually(lambda: "ready" in err.read_text(), what="ready")
        main = Endpoint(f"unix:{tmp_path}/web")
        main.ask("/hello?first")
        server.send_signal(signal.SIGUSR1)
        main.ask("/hello?second")
        server.send_signal(signal.SIGTERM)
    assert server.returncode == 0
    streams = {"stdout": out.read_text(), "stderr": err.read_text()}
    assert re.findall(r"GET /hello\?(\w+) HTTP/1.1", streams.pop(stream)) == ["first", "second"]
    assert "GET" not in next(iter(streams.values()))
    warnings = [line for line in err.read_text().splitlines() if " warn: " in line]
    assert not [line for line in warnings if "held its loop" not in line], "that is for a busy machine"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["err", "modus.conf", "out"]


def _count(log: Path) -> int:
    return log.read_bytes().count(b"\n")
