"""Another configuration while it serves: what changed is served anew, what did not is not touched, and
nothing is lost."""
import os
import random
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lib import proc
from lib.clock import PATIENCE, SLOW, Stopwatch, eventually
from lib.config import Listener, config_text
from lib.customer import Customer
from lib.models import MODELS, Model
from lib.raw import request
from lib.server import BINARY, Endpoint, Server, refuses
from lib.site import BASIC_ROUTES, SIZES, tcp, watch


def listener(model: Model, name: str = "main", routes: str = BASIC_ROUTES, **options) -> Listener:
    return Listener(name, model.name, routes, options=SIZES | options)


def body(text: str) -> str:
    return BASIC_ROUTES + f'route "/body" {{ text {{ body = "{text}" }} }}\n'


def generations(server: Server, name: str = "main") -> list[dict]:
    return server.listener_status(name)["generations"]


def settled(server: Server, name: str = "main") -> list[int]:
    """The workers of the newest generation, once it is the only one."""
    eventually(lambda: len(generations(server, name)) == 1, what="old generations are gone")
    return server.workers(name)


# --- from model to model -------------------------------------------------------------------------


@pytest.mark.limit(60)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_switch_to_every_other_model(serve, model: Model, certificates, secure: bool) -> None:
    """And back, with customers all the time."""
    def main(m: Model) -> Listener:
        return replace(listener(m), certificates=[certificates["one"]] if secure else [])

    server = serve(model, main(model))
    customers = [Customer(server["main"], path, may_leave=secure) for path in ("/hello", "/sleep?ms=5", "/spin?n=1000")]
    for other in MODELS:
        for m in (other, model):
            if m is model and other is model:
                continue
            before = [c.answered for c in customers]
            said = server.reload([main(m), watch(model)])
            assert said == f"reloaded: {int(m is not model or other is not model)} of 2 listeners changed"
            eventually(lambda: all(c.answered > n + 5 for c, n in zip(customers, before)), within=10)
            assert server.listener_status("main")["model"] == m.name
    for c in customers:
        c.leave()
    settled(server)
    answered = sum(c.answered for c in customers)
    eventually(lambda: server.listener_status("main")["requests"]["answers"]["2xx"] >= answered)
    answers = server.listener_status("main")["requests"]["answers"]
    assert answers["cut"] == answers["5xx"] == 0
    eventually(lambda: server.listener_status("main")["connections"]["open"] == 0)


def test_request_in_progress_ends_where_it_is(serve, model: Model) -> None:
    server = serve(model, listener(model, routes=body("old")))
    old = server.workers("main")
    with server["main"].connect() as busy, server["main"].connect() as half:
        half.ask("/hello")
        half.send(b"GET /body HT")
        eventually(lambda: server.listener_status("main")["connections"]["active"] == 1)
        busy.send(request(f"/sleep?ms={int(1000 * SLOW)}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] >= 1)
        server.reload([listener(model, routes=body("new")), watch(model)])
        assert server["main"].ask("/body").text == "new"
        first, second = generations(server)
        assert (first["number"], first["state"], second["number"], second["state"]) == (2, "serving", 1, "retiring")
        assert second["connections"] >= 1 and second["requests_active"] >= 1
        half.send(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert half.answer().text == "old"
        assert busy.answer().status == 200
        assert (half.ask("/body").text, busy.ask("/body").text) == ("new", "new"), "and its connection goes on"
    assert not set(settled(server)) & set(old)
    eventually(lambda: not any(proc.is_alive(pid) for pid in old))


def test_idle_connection_over_tls_may_ask_once_more(serve, model: Model, certificates) -> None:
    def main(text: str) -> Listener:
        return replace(listener(model, routes=body(text)), certificates=[certificates["one"]])

    server = serve(model, main("old"))
    with server["main"].connect() as idle:
        idle.ask("/hello")
        server.reload([main("new"), watch(model)])
        assert idle.is_quiet(0.3), "it is not cut off"
        a = idle.ask("/body")
        assert (a.text, a.closes) == ("old", True)
        idle.expect_end()
    settled(server)


# --- connections move ----------------------------------------------------------------------------


@pytest.fixture(params=MODELS, ids=lambda m: f"to-{m}")
def other(request) -> Model:
    return request.param


def test_idle_connections_move(serve, model: Model, other: Model) -> None:
    """Nobody connects anew, and the old generation need not wait for them."""
    server = serve(model, listener(model, routes=body("old"), max_connections=256))
    wires = [server["main"].connect() for _ in range(30)]
    for wire in wires[:20]:
        assert wire.ask("/body").text == "old"
    if model.shares_descriptors:
        eventually(lambda: server.listener_status("main")["connections"]["open"] >= 20)
    accepted = server.listener_status("main")["connections"]["accepted"]
    server.reload([listener(other, routes=body("new"), max_connections=256), watch(model)])
    settled(server)
    for wire in wires:
        a = wire.ask("/body")
        assert (a.text, a.closes) == ("new", False)
    status = server.listener_status("main")["connections"]
    assert status["open"] == 30 and status["accepted"] - accepted <= 10, "those that had said nothing yet"
    for wire in wires:
        wire.close()
    eventually(lambda: server.listener_status("main")["connections"]["open"] == 0)


def test_pipelined_requests_move(serve, model: Model, other: Model) -> None:
    """What was read and not yet understood moves as well, and all is answered in order."""
    server = serve(model, listener(model))
    wires = [server["main"].connect() for _ in range(4)]
    sent = [f"/sleep?ms={n % 7 + 1}" if n % 3 else f"/spin?n={n}" for n in range(120)]
    for wire in wires:
        wire.send(b"".join(request(path) for path in sent))
    for i in range(3):
        server.reload([listener(other if i % 2 == 0 else model, routes=body(f"{i}")), watch(model)])
        eventually(lambda: len(generations(server)) <= 2)  # of more than three the oldest is cut
    for wire in wires:
        for path in sent:
            a = wire.answer()
            number = path.partition("=")[2]
            assert (a.status, a.closes) == (200, False) and a.text.split()[1] == number, (a.text, path)
    for wire in wires:
        wire.close()


def test_what_was_counted_of_a_connection_moves(serve, model: Model, other: Model) -> None:
    server = serve(model, listener(model, keepalive_requests=3))
    with server["main"].connect() as wire:
        assert not wire.ask("/hello").closes
        server.reload([listener(other, routes=body("x"), keepalive_requests=3), watch(model)])
        assert [wire.ask("/hello").closes for _ in range(2)] == [False, True]
        wire.expect_end()


def test_moved_connections_time_out(serve, model: Model, other: Model) -> None:
    options = {"keepalive_timeout": f"{int(800 * SLOW)}ms"}
    server = serve(model, listener(model, **options))
    with server["main"].connect() as wire:
        wire.ask("/hello")
        server.reload([listener(other, routes=body("x"), **options), watch(model)])
        assert wire.is_quiet(0.2 * SLOW)
        wire.expect_end()


def test_connections_move_on_and_on(serve, model: Model) -> None:
    server = serve(model, listener(model))
    wires = [server["main"].connect() for _ in range(8)]
    for wire in wires:
        wire.ask("/hello")
    for i, m in enumerate([*MODELS, *reversed(MODELS), model]):
        server.reload([listener(m, routes=body(f"{i}")), watch(model)])
        a = wires[i % 8].ask("/body")
        assert (a.text, a.closes) == (f"{i}", False)
    eventually(lambda: server.listener_status("main")["connections"]["open"] == 8)
    server.signal(signal.SIGTERM)
    for wire in wires:
        wire.expect_end()
    assert server.wait() == 0


def test_more_move_than_children_may_be(serve, model: Model) -> None:
    process = next(m for m in MODELS if not m.shares_descriptors)
    server = serve(model, listener(model, max_connections=40))
    wires = [server["main"].connect() for _ in range(20)]
    for wire in wires:
        wire.ask("/hello")
    server.reload([listener(process, max_connections=4), watch(model)])
    settled(server)
    assert server.listener_status("main")["connections"]["open"] == 20
    assert server.listener_status("main")["children"]["now"] <= 4
    for wire in wires:
        assert wire.ask("/hello").status == 200
        assert server.listener_status("main")["children"]["now"] <= 4
    for wire in wires:
        wire.close()
    eventually(lambda: server.listener_status("main")["connections"]["open"] == 0)


def switches_under_wrk(server: Server, main: Callable[[str], Listener], then: Callable[[str], Listener], model: Model) -> int:
    """64 connections, half of the requests wait, six switches: no error. Returns how many connected anew."""
    script = server.folder / "half.lua"
    script.write_text('local n = 0 function request() n = n + 1 return wrk.format("GET", n % 2 == 0 and "/sleep" or "/hello") end')
    scheme = "https" if server["main"].secure else "http"
    wrk = subprocess.Popen(
        ["wrk", "-t1", "-c64", "-d60", "-s", script, f"{scheme}://{server['main'].text}"], stdout=subprocess.PIPE, text=True
    )

    def count(what: str, how: str) -> int:
        return server.listener_status("main")[what][how]

    eventually(lambda: count("connections", "accepted") >= 64)
    accepted = count("connections", "accepted")
    for i in range(6):
        server.reload([(then if i % 2 == 0 else main)(f"{i}"), watch(model)])
        before = count("requests", "total")
        eventually(lambda: count("requests", "total") > before + 100)
        eventually(lambda: len(generations(server)) <= 2)
    anew = count("connections", "accepted") - accepted
    wrk.send_signal(signal.SIGINT)
    report = wrk.communicate(timeout=PATIENCE * SLOW)[0]
    assert count("connections", "evicted") == 0
    assert "Socket errors" not in report and "Non-2xx" not in report, report
    return anew


@pytest.mark.limit(40)
def test_wrk_sees_no_switch(serve, model: Model, other: Model) -> None:
    """Nobody connects anew."""
    def main(m: Model, text: str) -> Listener:
        return listener(m, routes=body(text), max_connections=256)

    server = serve(model, main(model, ""))
    assert switches_under_wrk(server, partial(main, model), partial(main, other), model) <= 1


@pytest.mark.limit(40)
def test_wrk_over_tls_meets_no_error(serve, model: Model, certificates) -> None:
    """Connections end with an answer that says so."""
    def main(m: Model, text: str) -> Listener:
        return replace(listener(m, routes=body(text), max_connections=72), certificates=[certificates["one"]])

    other = MODELS[(MODELS.index(model) + 1) % len(MODELS)]
    server = serve(model, main(model, ""))
    assert switches_under_wrk(server, partial(main, model), partial(main, other), model) > 0


def test_old_generation_is_cut_when_its_time_is_over(serve, model: Model) -> None:
    server = serve(model, listener(model), drain_timeout="500ms")
    old = server.workers("main")
    with server["main"].connect() as busy:
        busy.send(request("/sleep?ms=9000"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        server.reload([listener(model, routes=body("x")), watch(model)], {"drain_timeout": "500ms"})
        settled(server)
        with pytest.raises(OSError):
            busy.answer()
    assert "drain_timeout is over for generation 1" in server.errors
    assert not any(proc.is_alive(pid) for pid in old)


def test_no_more_than_three_generations(serve, model: Model) -> None:
    server = serve(model, listener(model), drain_timeout="60s")
    wires = []
    for i in range(5):
        wires.append(server["main"].connect())
        wires[-1].send(request("/sleep?ms=9000"))
        eventually(lambda: generations(server)[0]["requests_active"] == 1)
        server.reload([listener(model, routes=body(f"{i}")), watch(model)], {"drain_timeout": "60s"})
        eventually(lambda: len(generations(server)) <= 3)
    assert [g["number"] for g in generations(server)] == [6, 5, 4]
    for wire in wires:
        wire.reset()
    settled(server)


# --- what does not change ------------------------------------------------------------------------


def test_unchanged_listeners_are_not_touched(serve, model: Model, certificates) -> None:
    secure = replace(listener(model, "secure"), certificates=[certificates["one"], certificates["two"]])
    server = serve(model, listener(model), secure)
    workers = {name: server.workers(name) for name in ("main", "secure", "watch")}
    held: dict[int, int] = {}
    with server["main"].connect() as wire, server["secure"].connect() as tls:
        for i in range(20):
            assert server.reload([listener(model), secure, watch(model)]) == "reloaded: 0 of 3 listeners changed"
            for w in (wire, tls):
                a = w.ask("/hello")
                assert (a.status, a.closes) == (200, False)
            if i == 1:  # they have been up for a while
                held = {pid: proc.descriptors(pid) for pid in [server.pid, *workers["main"], *workers["secure"]]}
        server.reload([listener(model), secure, watch(model), listener(model, "other")])
        server.reload([listener(model), secure, watch(model)])
        assert (wire.ask("/hello").status, tls.ask("/hello").status) == (200, 200)
        eventually(lambda: {pid: proc.descriptors(pid) for pid in held} == held)
    assert {name: server.workers(name) for name in workers} == workers
    assert server.status()["generation"] == 23


@pytest.mark.slow
@pytest.mark.limit(120)
def test_a_thousand_reloads_leave_nothing_behind(serve, model: Model) -> None:
    server = serve(model, listener(model))
    customer = Customer(server["main"])
    workers, descriptors = server.workers("main"), proc.descriptors(server.pid)
    begin, memory = server.status()["generation"], proc.anonymous_bytes(server.pid)
    for _ in range(1000):
        taken = server.status()["generation"]
        server.signal(signal.SIGHUP)
        eventually(lambda: server.status()["generation"] > taken)
    assert server.workers("main") == workers
    eventually(lambda: proc.descriptors(server.pid) == descriptors)
    assert proc.anonymous_bytes(server.pid) - memory < 1 << 20
    assert server.status()["generation"] >= begin + 1000
    customer.leave()


@pytest.mark.limit(60)
def test_changed_listeners_leave_nothing_behind(serve, model: Model) -> None:
    server = serve(model, listener(model))
    for i in range(3):
        server.reload([listener(model, routes=body("begin")), watch(model)])
        settled(server)
    descriptors = proc.descriptors(server.pid)
    for i in range(10):
        server.reload([listener(model, routes=body(f"{i}")), watch(model)])
        assert server["main"].ask("/body").text == f"{i}"
        settled(server)
    assert proc.descriptors(server.pid) == descriptors
    eventually(lambda: set(server.processes()) == {server.pid, *server.workers("main"), *server.workers("watch")})
    assert server.listener_status("main")["requests"]["answers"]["2xx"] == 10


# --- listeners come and go -----------------------------------------------------------------------


def test_listener_is_added_and_removed(serve, model: Model) -> None:
    server = serve(model, listener(model))
    server.reload([listener(model), watch(model), listener(model, "added")])
    added = server["added"]
    assert added.ask("/hello").status == server["main"].ask("/hello").status == 200
    with added.connect() as busy, added.connect() as idle:
        idle.ask("/hello")
        busy.send(request(f"/sleep?ms={int(700 * SLOW)}"))
        eventually(lambda: server.listener_status("added")["requests"]["active"] == 1)
        server.reload([listener(model), watch(model)])
        idle.expect_end()
        eventually(lambda: refuses(added))
        a = busy.answer()
        assert (a.status, a.closes) == (200, True)
    eventually(lambda: len(server.status()["listeners"]) == 2)
    assert server["main"].ask("/hello").status == 200


def test_address_is_added_and_removed(serve, model: Model) -> None:
    server = serve(model, listener(model))
    customer = Customer(server["main"])
    server.reload([replace(listener(model), also=["[::1]:0"]), watch(model)])
    both = server.endpoints["main"]
    assert [e.ask("/hello").status for e in both] == [200, 200]
    assert len(server.listener_status("main")["addresses"]) == 2
    server.reload([listener(model), watch(model)])
    settled(server)
    eventually(lambda: refuses(both[1]))
    assert both[0].ask("/hello").status == 200
    customer.leave()


@pytest.mark.parametrize("address", ["[::1]:0", "unix:also.sock"], ids=["tcp", "unix"])
def test_removed_address_ends_while_workers_are_busy(serve, model: Model, address: str) -> None:
    """Who has connected there is served, and nobody else can, however long that takes."""
    patient = listener(model, keepalive_timeout="60s")
    server = serve(model, replace(patient, also=[address]))
    also = server.endpoints["main"][1]
    with also.connect() as busy, also.connect() as idle:
        assert idle.ask("/hello").status == 200
        busy.send(request(f"/sleep?ms={int(1800 * SLOW)}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        server.reload([patient, watch(model)])
        eventually(lambda: refuses(also), within=2)
        assert server.listener_status("main")["requests"]["active"] == 1
        assert busy.answer().status == 200
        assert idle.ask("/hello").status == 200
    assert not (server.folder / "also.sock").exists()
    settled(server)


def fixed_address() -> str:
    """Nobody's, and below the ports that the kernel gives away by itself."""
    while True:
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", random.randrange(20000, 32000)))
                return f"127.0.0.1:{sock.getsockname()[1]}"
            except OSError:
                pass


def test_address_comes_back_at_once(serve, model: Model) -> None:
    """When the reload that took it away is answered, others can have it: a listener's, and a second one of a listener."""
    address = fixed_address()
    alone, second = replace(listener(model, "gone"), address=address), replace(listener(model), also=[address])
    server = serve(model, alone, listener(model))
    for there, gone in [([alone, listener(model)], [listener(model)]), ([second], [listener(model)])]:
        for _ in range(3):
            for listeners in (gone, there):
                server.config.write_text(config_text([*listeners, watch(model)], {}))
                assert modus("reload", config=server.config) == (0, "", "")
                if listeners is there:
                    assert Endpoint(address).ask("/hello").status == 200


def test_address_that_is_still_in_use_by_itself(serve) -> None:
    """A worker that is held by a handler has connections there that wait for it."""
    prefork = next(m for m in MODELS if m.name == "prefork")
    one = listener(prefork, processes=1)
    both = replace(one, also=[fixed_address()])
    server = serve(prefork, both)

    def reload(main: Listener) -> tuple[int, str]:
        server.config.write_text(config_text([main, watch(prefork)], {}))
        code, _, errors = modus("reload", config=server.config)
        return code, errors

    with server["main"].connect() as busy:
        busy.send(request(f"{prefork.hold}?ms={int(1500 * SLOW)}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        with Endpoint(both.also[0]).connect() as waiting:
            waiting.send(request("/hello"))
            assert reload(one) == (0, "")
            code, errors = reload(both)
            assert code == 1 and f"cannot listen on {both.also[0]} yet: this server still finishes" in errors, errors
            assert [wire.answer().status for wire in (busy, waiting)] == [200, 200]
    eventually(lambda: reload(both) == (0, ""))


def test_address_goes_to_another_listener(serve, model: Model) -> None:
    """The socket stays, whoever serves it."""
    def on(name: str, address: str, *also: str) -> Listener:
        return replace(listener(model, name, body(name)), address=address, also=list(also))

    first, second = on("first", "unix:first.sock"), on("second", "127.0.0.1:0")
    both, other = replace(first, also=["unix:shared.sock"]), replace(second, also=["unix:shared.sock"])
    server = serve(model, both, second)
    shared = server.endpoints["first"][1]
    inode = (server.folder / "shared.sock").stat().st_ino
    customer = Customer(shared)
    assert shared.ask("/body").text == "first"
    server.reload([first, other, watch(model)])
    eventually(lambda: shared.ask("/body").text == "second")
    server.reload([both, second, watch(model)])
    eventually(lambda: shared.ask("/body").text == "first")
    customer.leave()
    server.reload([second, watch(model), on("third", "unix:shared.sock")])
    eventually(lambda: shared.ask("/body").text == "third")
    eventually(lambda: len(server.status()["listeners"]) == 3)
    assert (server.folder / "shared.sock").stat().st_ino == inode
    assert not (server.folder / "first.sock").exists()
    assert shared.ask("/body").text == "third"


def test_unix_socket_stays(serve, model: Model) -> None:
    unix = replace(listener(model), address="unix:web.sock")
    server = serve(model, unix)
    path = server.folder / "web.sock"
    inode = path.stat().st_ino
    for i in range(3):
        server.reload([replace(unix, routes=body(f"{i}")), watch(model)])
        assert server["main"].ask("/body").text == f"{i}"
        assert path.stat().st_ino == inode
    settled(server)
    assert server["main"].ask("/hello").status == 200
    server.reload([watch(model)])
    eventually(lambda: not path.exists())


def test_tcp_connection_goes_on(serve, model: Model) -> None:
    server = serve(model, tcp("main", model, [], **SIZES))
    with server["main"].connect() as wire:
        wire.send(b"a")
        assert wire.read_exactly(1) == b"a"
        server.reload([tcp("main", model, [], **SIZES | {"backlog": 77}), watch(model)])
        for _ in range(3):
            wire.send(b"more")
            assert wire.read_exactly(4) == b"more"
        with server["main"].connect() as other:
            other.send(b"new")
            assert other.read_exactly(3) == b"new"
    settled(server)


# --- TLS -----------------------------------------------------------------------------------------


def test_certificate_is_renewed_in_its_file(serve, model: Model, certificates, tmp_path) -> None:
    for kind in ("certificate", "key"):
        shutil.copy(getattr(certificates["two"], kind), tmp_path / kind)
    there = replace(certificates["one"], certificate=tmp_path / "certificate", key=tmp_path / "key")
    main = replace(listener(model), certificates=[there])
    server = serve(model, main)
    everybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    everybody.check_hostname, everybody.verify_mode = False, ssl.CERT_NONE
    endpoint = replace(server["main"], secure=everybody)

    def served() -> bytes:
        with endpoint.connect() as wire:
            return wire.link.tls.getpeercert(True)

    old = served()
    assert server.reload([main, watch(model)]) == "reloaded: 0 of 2 listeners changed"
    for kind in ("certificate", "key"):
        shutil.copy(getattr(certificates["one"], kind), tmp_path / kind)
    assert server.reload([main, watch(model)]) == "reloaded: 1 of 2 listeners changed"
    assert served() != old


def test_session_resumes_after_a_switch(serve, model: Model, certificates) -> None:
    def main(m: Model) -> Listener:
        return replace(listener(m), certificates=[certificates["one"]])

    server = serve(model, main(model))
    with server["main"].connect() as wire:
        wire.ask("/hello")
        session = wire.link.tls.session
    other = MODELS[(MODELS.index(model) + 1) % len(MODELS)]
    server.reload([main(other), watch(model)])
    with server["main"].connect(session=session) as wire:
        assert wire.ask("/hello").status == 200
        assert wire.link.tls.session_reused


# --- mistakes ------------------------------------------------------------------------------------


def test_mistakes_change_nothing(serve, model: Model, tmp_path) -> None:
    server = serve(model, listener(model), listener(model, "second"))
    workers, descriptors = server.workers("main"), proc.descriptors(server.pid)
    customer = Customer(server["main"])
    taken = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    good = [listener(model, routes=body("new")), listener(model, "second"), watch(model)]
    text = config_text(good, {})
    mistakes = {
        "unknown word": (text.replace("model", "modell", 1), r":2: unknown word \"modell\""),
        "no end": (text[:-3], r"modus\.conf:\d+: "),
        "certificate": (text + f'listen "127.0.0.1:0" {{ tls {{ certificate = "none.pem" key = "none.key" }} route "/" {{ text {{ }} }} }}\n', "none.pem"),
        "port taken": (text + f'listen "{address}" {{ route "/" {{ text {{ }} }} }}\n', f"cannot listen on {address}"),
        "no root": (text + 'listen "127.0.0.1:0" { route "/" { static { root = "none" } } }\n', "none"),
        "user": (f'user = "nobody"\n' + text, r":1: user is changed by an upgrade or a restart only"),
        "pid file": ('pid_file = "other.pid"\n' + text, r":1: pid_file is changed by an upgrade or a restart only"),
        "control": ('control = "other.sock"\n' + text, r":1: control is changed by an upgrade or a restart only"),
        "access log": (text + f'listen "127.0.0.1:0" {{ access_log = "/none/a.log" route "/" {{ text {{ }} }} }}\n', "/none/a.log"),
    }
    for name, (file, why) in mistakes.items():
        said = server.reload([], text=file)
        assert said.startswith("not reloaded: ") and re.search(why, said), f"{name}: {said}"
        assert server["main"].ask("/body").status == 404
    taken.close()
    code, _, errors = modus("reload", config=server.config)
    assert code == 1 and errors.removeprefix("modus: ").strip() in server.errors.splitlines()[-1], "the log has it, too"
    server.config.unlink()
    server.signal(signal.SIGHUP)
    eventually(lambda: "No such file" in server.errors)
    assert server.workers("main") == workers
    assert server.status()["generation"] == 1
    customer.leave()
    eventually(lambda: proc.descriptors(server.pid) == descriptors)
    server.reload(good)
    assert server["main"].ask("/body").text == "new"


def test_workers_that_cannot_start_change_nothing(serve, model: Model) -> None:
    """Here for want of descriptors."""
    server = serve(model, listener(model))
    workers = server.workers("main")
    limit = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (proc.descriptors(server.pid) + 2, limit[1]))
    said = server.reload([listener(model, routes=body("new")), watch(model)])
    assert said.startswith("not reloaded: ")
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limit)
    assert server["main"].ask("/body").status == 404
    assert server.workers("main") == workers
    server.reload([listener(model, routes=body("new")), watch(model)])
    assert server["main"].ask("/body").text == "new"


def test_nobody_is_served_by_what_is_not_taken_yet(serve, model: Model) -> None:
    """The new workers of one listener are there, those of the next are not, and then they never are."""
    server = serve(model, listener(model, routes=body("0")))
    count = len(server.workers("main"))

    def is_ready(pid: int, name: str) -> bool:
        return proc.title(pid).startswith(f"modus: {name} ")

    def reload_and_stop_late_ones(text: str) -> list[int]:
        """Those that it begins, first those of main; all others are stopped as soon as they are seen."""
        slow = Listener("slow", "hybrid", body(text), options={"processes": 8, "threads": 200})
        server.config.write_text(config_text([listener(model, routes=body(text)), watch(model), slow], {}))
        server.signal(signal.SIGHUP)
        begun: list[int] = []
        begin = Stopwatch()
        while len(begun) < count + 8 and begin.seconds < PATIENCE * SLOW:
            for pid in proc.children(server.pid):
                if pid not in old and pid not in begun:
                    begun.append(pid)
                    if len(begun) > count:
                        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: all(is_ready(pid, model.name) for pid in begun[:count]))
        eventually(lambda: all(proc.state(pid) == "T" for pid in begun[count:]))
        return begun

    for serving in range(10):
        old = set(proc.children(server.pid))
        begun = reload_and_stop_late_ones(f"{serving + 1}")
        if not all(is_ready(pid, "hybrid") for pid in begun[count:]):
            break
        for pid in begun[count:]:  # they were quicker, and it is taken: again
            os.kill(pid, signal.SIGCONT)
        settled(server)
    answers = {server["main"].ask("/body").text for _ in range(30)}
    assert answers == {f"{serving}"}
    os.kill(begun[-1], signal.SIGKILL)
    eventually(lambda: "not reloaded: " in server.errors)
    eventually(lambda: set(proc.children(server.pid)) == old)
    assert server["main"].ask("/body").text == f"{serving}"


# --- asked for over the control socket -----------------------------------------------------------


def modus(*words: str, config: Path) -> tuple[int, str, str]:
    done = subprocess.run([BINARY, *words, "-c", config], capture_output=True, text=True, timeout=PATIENCE * SLOW)
    return done.returncode, done.stdout, done.stderr


def test_reload_command(serve, model: Model) -> None:
    """It answers when the new configuration serves."""
    server = serve(model, listener(model, routes=body("old")))
    for i in range(5):
        server.config.write_text(config_text([listener(model, routes=body(f"{i}")), watch(model)], {}))
        assert modus("reload", config=server.config) == (0, "", "")
        assert server["main"].ask("/body").text == f"{i}"
    assert modus("reload", config=server.config) == (0, "", ""), "nothing changed"
    server.config.write_text(config_text([listener(model, routes=body("new"), queu=7), watch(model)], {}))
    code, out, errors = modus("reload", config=server.config)
    assert (code, out) == (1, "") and re.fullmatch(r'modus: \S+modus\.conf:\d+: unknown word "queu" .*\n', errors), errors
    assert server["main"].ask("/body").text == "4"


def test_reloads_at_once(serve, model: Model) -> None:
    server = serve(model, listener(model, routes=body("old")))
    server.config.write_text(config_text([listener(model, routes=body("new")), watch(model)], {}))
    command = [BINARY, "reload", "-c", server.config]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    assert [p.communicate(timeout=PATIENCE * SLOW)[1] for p in running] == [""] * 6
    assert [p.returncode for p in running] == [0] * 6
    assert server["main"].ask("/body").text == "new"
    settled(server)


def test_model_command(serve, model: Model) -> None:
    """Until the next reload, and the file is not touched."""
    server = serve(model, listener(model), listener(model, "second"))
    file, name = server.config.read_text(), server["main"].text
    second = server.workers("second")
    customer = Customer(server["main"])
    others = [m for m in MODELS if m is not model]
    for other in others[:3]:
        assert modus("model", name, other.name, config=server.config) == (0, f"{name} is served with {other.name} until the next reload\n", "")
        assert server.listener_status("main")["model"] == other.name
        assert server["main"].ask("/hello").status == 200
        assert server.errors.endswith(f"modus: switched {name} to {other.name}, until the next reload\n")
    assert modus("model", server["second"].text, others[0].name, config=server.config)[0] == 0
    assert [server.listener_status(n)["model"] for n in ("main", "second")] == [others[2].name, others[0].name]
    assert server.config.read_text() == file
    assert modus("reload", config=server.config) == (0, "", "")
    assert [server.listener_status(n)["model"] for n in ("main", "second")] == [model.name, model.name]
    customer.leave()
    assert not set(second) & set(settled(server, "second"))


def test_drain_command(serve, model: Model) -> None:
    """It answers when the last request is done. The next reload brings the listener back."""
    server = serve(model, replace(listener(model), address="unix:main.sock"), listener(model, "second"))
    main = server["main"]
    with main.connect() as busy:
        busy.send(request(f"/sleep?ms={int(500 * SLOW)}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        begin = Stopwatch()
        assert modus("drain", "unix:main.sock", config=server.config) == (0, "", "")
        assert server.errors.endswith("modus: draining unix:main.sock, until the next reload\n")
        assert begin.seconds > 0.3 * SLOW
        assert busy.answer().status == 200
    assert refuses(main)
    assert server["second"].ask("/hello").status == 200
    assert modus("reload", config=server.config) == (0, "", "")
    assert main.ask("/hello").status == 200


def test_commands_that_name_nothing(serve, model: Model) -> None:
    server = serve(model, listener(model))
    assert modus("model", "127.0.0.1:1", model.name, config=server.config) == (1, "", 'modus: no listener is called "127.0.0.1:1": modus status shows them\n')
    assert modus("model", server["main"].text, "fast", config=server.config) == (1, "", 'modus: there is no model "fast": see modus models\n')
    assert f'{server["main"].text} is not switched to fast: there is no model "fast"' in server.errors
    assert modus("drain", "nobody", config=server.config)[0] == 1
    code, _, why = modus("drain", "127.0.0.1:0", config=server.config)
    assert code == 1 and "several listeners" in why
    assert server["main"].ask("/hello").status == 200


# --- ends in the middle --------------------------------------------------------------------------


def test_worker_is_killed_in_a_switch(serve, model: Model) -> None:
    server = serve(model, listener(model))
    customers = [Customer(server["main"]) for _ in range(2)]
    with server["main"].connect() as busy:
        busy.send(request("/sleep?ms=9000"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] >= 1)
        old = server.workers("main")
        server.reload([listener(model, routes=body("new")), watch(model)])
        for c in customers:
            n = c.answered
            eventually(lambda: c.answered > n + 3)
        server.deaths_expected = len([pid for pid in old if proc.is_alive(pid)])
        for pid in old:
            proc.end(pid)
        busy.reset()
    for c in customers:
        c.leave()
    settled(server)
    assert server["main"].ask("/body").text == "new"
    server.deaths_expected = server.status()["worker_deaths"]


def test_stop_in_a_switch(serve, model: Model) -> None:
    server = serve(model, listener(model))
    with server["main"].connect() as busy, server["main"].connect() as idle:
        idle.ask("/hello")
        busy.send(request(f"/sleep?ms={int(600 * SLOW)}"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        server.reload([listener(model, routes=body("new")), watch(model)])
        server.signal(signal.SIGTERM)
        idle.expect_end()
        assert busy.answer().status == 200
    assert server.wait() == 0
    assert refuses(server["main"])


def test_stop_while_a_reload_waits_for_its_answer(serve, model: Model) -> None:
    """The new serves already, and a worker of the old has not yet said that it accepts no more."""
    server = serve(model, listener(model))
    old = server.workers("main")
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    server.config.write_text(config_text([listener(model, routes=body("new")), watch(model)], {}))
    command = subprocess.Popen([BINARY, "reload", "-c", server.config], stderr=subprocess.PIPE, text=True)
    eventually(lambda: len(generations(server)) == 2)
    server.signal(signal.SIGTERM)
    assert command.communicate(timeout=PATIENCE * SLOW)[1] == ""
    assert command.returncode == 0, "it was taken"
    for pid in old:
        os.kill(pid, signal.SIGCONT)
    assert server.wait() == 0


def test_master_is_killed_in_a_switch(serve, model: Model) -> None:
    server = serve(model, listener(model))
    with server["main"].connect() as busy:
        busy.send(request("/sleep?ms=9000"))
        eventually(lambda: server.listener_status("main")["requests"]["active"] == 1)
        server.reload([listener(model, routes=body("new")), watch(model)])
        proc.end(server.pid)
        server.wait()
        eventually(lambda: not server.processes(), within=1)
    eventually(lambda: refuses(server["main"]), within=1)
