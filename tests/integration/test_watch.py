"""Watching: the stream that keeps the page up to date, switching on the page, and what Prometheus gets.
What a browser makes of it is in test_browser.py."""
import os
import re
import signal
import subprocess
import urllib.parse
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lib import proc
from lib.clock import PATIENCE, SLOW, Stopwatch, eventually
from lib.config import Listener
from lib.customer import Customer
from lib.events import Stream
from lib.models import MODELS, Model
from lib.raw import Answer, request
from lib.server import BINARY, Endpoint, Server
from lib.site import BASIC_ROUTES, SIZES

CONTROL_ROUTES = 'route "/" { status { control = true } }'
FORM = "application/x-www-form-urlencoded"


def main(model: Model, routes: str = BASIC_ROUTES, **options) -> Listener:
    return Listener("main", model.name, routes, options=SIZES | options)


def page(model: Model, address: str = "127.0.0.1:0", routes: str = CONTROL_ROUTES, **options) -> Listener:
    return Listener("page", model.name, routes, address=address, options=SIZES | options)


def other_than(model: Model) -> Model:
    return MODELS[(MODELS.index(model) + 1) % len(MODELS)]


def command(server: Server, *words: str) -> None:
    subprocess.run([BINARY, *words, "-c", server.config], check=True, capture_output=True, timeout=PATIENCE)


def total(status: dict, server: Server, name: str = "main") -> int:
    address = server[name].text
    return next(l for l in status["listeners"] if address in l["addresses"])["requests"]["total"]


# --- the stream ----------------------------------------------------------------------------------


def test_figures_come_each_second(serve, model: Model) -> None:
    server = serve(model, main(model))
    with Stream(server["watch"]) as stream:
        assert (stream.head.status, stream.head.one("Content-Type")) == (200, "text/event-stream")
        assert stream.head.one("Cache-Control") == "no-store"
        first = stream.next()
        assert first.name == "page" and server["main"].text in first.data  # it did not say which shape it has
        before = stream.figures()
        for _ in range(7):
            server["main"].ask("/hello")
        watch = Stopwatch()
        while total(now := stream.figures(), server) < total(before, server) + 7:
            pass
        assert watch.seconds < 2.5 * SLOW
        later = stream.figures()
        assert 800 <= later["now_ms"] - now["now_ms"] <= 1500 * SLOW


def test_page_and_stream_agree_on_its_shape(serve, model: Model) -> None:
    """Who has the page already gets figures only."""
    server = serve(model, main(model))
    shape = re.search(r'<main data-shape="([0-9a-f]{16})">', server["watch"].ask("/").text)[1]
    with Stream(server["watch"], f"/?format=stream&shape={shape}") as stream:
        assert stream.next().name == "message"


@pytest.mark.limit(40)
def test_stream_holds_nobody(serve, model: Model) -> None:
    """With one of everything, and the listener that is watched from many sides being the one that serves."""
    routes = BASIC_ROUTES + 'route "/status" { status { } }'
    sizes = {"processes": 1, "loops": 1, "threads": 1} | ({} if model.shares_descriptors else {"max_connections": 30})
    server = serve(model, main(model, routes, **sizes))
    streams = [Stream(server["main"], "/status?format=stream") for _ in range(20)]
    for stream in streams:
        stream.figures()
    for path in ("/hello", "/sleep?ms=1", "/spin?n=1") * 3:
        assert server["main"].ask(path).status == 200

    def at_rest() -> bool:
        l = server.listener_status("main")
        assert l["requests"]["active"] == 0 and l["requests"]["latency_us"]["max"] < 1_000_000 * SLOW
        if model.shares_descriptors:
            assert l["saturation"]["busy"] == 0 and {w["state"] for w in l["workers"]} == {"waiting"}
        return True

    eventually(at_rest)
    for stream in streams:
        assert total(stream.figures(), server) > 0
        stream.wire.close()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_stream_ends_with_its_reader(serve, model: Model, how: str) -> None:
    server = serve(model, main(model, 'route "/" { status { } }'))
    streams = [Stream(server["main"]) for _ in range(5)]
    for stream in streams:
        stream.figures()
    eventually(lambda: server.listener_status("main")["connections"]["open"] == 5)
    for stream in streams:
        getattr(stream.wire, how)()
    eventually(lambda: server.listener_status("main")["connections"]["open"] == 0, within=2.5)


@pytest.mark.limit(40)
def test_stream_of_a_slow_reader(serve, model: Model) -> None:
    """It misses events, and no part of one; others do not notice; nobody keeps much for it."""
    crowd = [Listener(f"l{i}", "prefork", BASIC_ROUTES, options={"processes": 8}) for i in range(6)]  # so that an event is large
    server = serve(model, main(model, 'route "/" { status { } }'), *crowd)
    with Stream(server["main"], buffers=4096) as slow, Stream(server["main"]) as quick:
        for _ in range(4):
            quick.figures()
        held = server.listener_status("main")["connections"]["open"]
        assert held == 2
        seen = [slow.figures()["now_ms"] for _ in range(4)]
        assert seen == sorted(seen)


def test_page_comes_anew_when_more_than_figures_changes(serve, model: Model) -> None:
    server = serve(model, main(model))
    with Stream(server["watch"]) as stream:
        assert stream.next().name == "page"
        stream.figures()
        command(server, "model", server["main"].text, other_than(model).name)
        while (event := stream.next()).name != "page" or ">taken<" in event.data:
            pass
        while "taken (until the next reload)" not in event.data:
            event = stream.next()
        assert f">{other_than(model).name}<" in event.data


@pytest.mark.limit(40)
def test_stream_ends_when_its_worker_retires(serve, model: Model) -> None:
    """And the next one is the new worker's."""
    server = serve(model, main(model))
    with Stream(server["watch"]) as stream:
        stream.figures()
        watch = Stopwatch()
        command(server, "model", server["watch"].text, other_than(model).name)
        stream.rest()
        assert watch.seconds < 3 * SLOW
        stream.wire.expect_end()
    eventually(lambda: len(server.listener_status("watch")["generations"]) == 1)
    with Stream(server["watch"]) as stream:
        assert f">{other_than(model).name}<" in stream.next().data


@pytest.mark.limit(40)
def test_stream_does_not_hold_up_a_stop(serve, model: Model) -> None:
    server = serve(model, main(model))
    streams = [Stream(server["watch"]) for _ in range(3)]
    for stream in streams:
        stream.figures()
    watch = Stopwatch()
    server.signal(signal.SIGTERM)
    for stream in streams:
        stream.rest()
        stream.wire.expect_end()
    assert server.wait() == 0
    assert watch.seconds < 3 * SLOW


def test_stream_in_other_words(serve, model: Model) -> None:
    """HEAD; HTTP/1.0, whose stream ends with the connection; below another route."""
    server = serve(model, main(model, 'route "/a/status" { status { } }'))
    with server["main"].connect() as wire:
        a = wire.ask("/a/status?format=stream", "HEAD")
        assert (a.status, a.one("Content-Type"), a.closes) == (200, "text/event-stream", False)
        wire.send(request("/a/status?format=stream", version="1.0"))
        assert wire.head().closes
        assert wire.read_line() == b"retry: 1000\n"


# --- switching -----------------------------------------------------------------------------------


def token_of(endpoint: Endpoint) -> str:
    return re.search('name="token" value="([0-9a-f]{64})"', endpoint.ask("/").text)[1]


def form(**fields: str) -> bytes:
    return urllib.parse.urlencode(fields).encode()


def post(server: Server, body: bytes, **fields: str) -> Answer:
    fields = {"Content-Type": FORM, "Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"} | {k.replace("_", "-"): v for k, v in fields.items()}
    return server["page"].ask("/", "POST", {k: v for k, v in fields.items() if v is not None}, body)


def switch(server: Server, name: str, model: str, **fields: str) -> Answer:
    return post(server, form(token=token_of(server["page"]), listener=server[name].text, model=model), **fields)


def last_switch(server: Server) -> dict:
    last = server.status()["last_switch"]
    assert last and last["outcome"] != "under way"
    return last


@pytest.mark.limit(60)
def test_switch_to_every_model(serve, model: Model) -> None:
    """On the page that the model itself serves; with a customer all the time."""
    server = serve(model, main(model), page(model))
    customer = Customer(server["main"], may_leave=True)
    token = token_of(server["page"])
    assert server.status()["last_switch"] is None
    for n, other in enumerate(MODELS, 1):
        watch = Stopwatch()
        a = switch(server, "main", other.name)
        assert a.status == 202 and watch.seconds < 1 * SLOW

        def done() -> bool:
            last = last_switch(server)
            assert (last["number"], last["model"], last["listener"], last["outcome"], last["why"]) == (n, other.name, server["main"].text, "taken", None)
            assert server.listener_status("main")["model"] == other.name
            return True

        eventually(done, within=10)
    customer.leave()
    status = server.status()
    assert status["switches"] == {"taken": len(MODELS), "refused": 0} and status["reloads"] == {"taken": 0, "refused": 0}
    assert token_of(server["page"]) == token


@pytest.mark.limit(40)
def test_switch_of_the_page_s_own_listener(serve, model: Model) -> None:
    """Whose token goes on."""
    server = serve(model, main(model), page(model))
    for m in (other_than(model), model):
        number = (server.status()["last_switch"] or {"number": 0})["number"]
        assert switch(server, "page", m.name).status == 202
        eventually(lambda: last_switch(server)["number"] > number and server.listener_status("page")["model"] == m.name, within=10)


def test_switch_that_is_refused(serve, model: Model) -> None:
    """By the master: the reason is seen where the outcome is, and the next one is heard."""
    server = serve(model, main(model), page(model))
    assert post(server, form(token=token_of(server["page"]), listener="127.0.0.1:1", model=model.name)).status == 202
    eventually(lambda: last_switch(server)["outcome"] == "refused")
    assert 'no listener is called "127.0.0.1:1"' in last_switch(server)["why"]
    assert server.status()["switches"] == {"taken": 0, "refused": 1}
    assert 'no listener is called "127.0.0.1:1"' in server["page"].ask("/").text.replace("&quot;", '"')
    switch(server, "main", other_than(model).name)
    eventually(lambda: last_switch(server)["outcome"] == "taken", within=10)


@pytest.mark.limit(60)
def test_many_switches_at_once(serve, model: Model) -> None:
    """Each is answered at once: taken on, or told to come again; and the server goes on."""
    server = serve(model, main(model), page(model))
    body = [form(token=token_of(server["page"]), listener=server["main"].text, model=m.name) for m in MODELS]
    answers = [post(server, body[i % len(body)]).status for i in range(60)]
    assert set(answers) <= {202, 503} and answers[0] == 202
    eventually(lambda: sum(server.status()["switches"].values()) == answers.count(202), within=40)
    assert server["main"].ask("/hello").status == 200


def test_without_a_script(serve) -> None:
    """The browser follows the form, and is shown the page."""
    model = MODELS[0]
    server = serve(model, main(model), page(model))
    a = switch(server, "main", "hybrid", Accept="text/html,application/xhtml+xml")
    assert (a.status, a.one("Location")) == (303, "?")
    eventually(lambda: server.listener_status("main")["model"] == "hybrid", within=10)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_workers_of_another_user_can_ask(serve, model: Model) -> None:
    server = serve(model, main(model), page(model), user="nobody")
    assert switch(server, "main", other_than(model).name).status == 202
    eventually(lambda: server.listener_status("main")["model"] == other_than(model).name, within=10)


def pipes(pid: int) -> set[str]:
    return {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink() and os.readlink(fd).startswith("pipe:")}


def test_only_workers_of_the_page_have_the_pipe(serve, model: Model) -> None:
    server = serve(model, main(model), page(model))
    of_master = pipes(server.pid)
    plain, controlling = (pipes(server.workers(name)[0]) & of_master for name in ("main", "page"))
    assert plain < controlling and len(controlling - plain) == 1
    without = serve(model, main(model))
    assert len(pipes(without.pid)) == len(of_master) - 1


def test_page_that_is_only_to_be_looked_at(serve, model: Model) -> None:
    server = serve(model, main(model), page(model, routes='route "/" { status { } }'))
    text = server["page"].ask("/").text
    assert "<form" not in text and "token" not in re.sub("<script>.*</script>", "", text, flags=re.S)
    a = post(server, form(token="x", listener=server["main"].text, model="hybrid"))
    assert (a.status, a.allowed) == (405, {"GET", "HEAD", "OPTIONS"})
    assert server["page"].ask("/", "OPTIONS").allowed == {"GET", "HEAD", "OPTIONS"}


# --- what another site's page may try ------------------------------------------------------------


ATTACKS = {  # status, and what it sends otherwise than the page would
    "a form of another site": (403, {"Origin": "http://evil.test", "Sec_Fetch_Site": "cross-site"}),
    "a fetch of another site": (403, {"Origin": "https://evil.test", "Sec_Fetch_Site": None}),
    "another port of this machine": (403, {"Origin": "http://localhost:1", "Sec_Fetch_Site": "same-site"}),
    "a sandboxed frame": (403, {"Origin": "null", "Sec_Fetch_Site": "cross-site"}),
    "a browser without Origin": (403, {"Origin": None, "Sec_Fetch_Site": "cross-site"}),
    "typed in": (403, {"Origin": None, "Sec_Fetch_Site": "none"}),
    "a text form": (415, {"Content_Type": "text/plain"}),
    "an upload": (415, {"Content_Type": "multipart/form-data; boundary=x"}),
    "json": (415, {"Content_Type": "application/json"}),
    "no type": (415, {"Content_Type": None}),
}


def test_attacks(serve, model: Model) -> None:
    """Each is refused although it knows the token, is told to who runs the server, and does nothing."""
    server = serve(model, main(model), page(model))
    for what, (status, fields) in ATTACKS.items():
        assert switch(server, "main", "hybrid", **fields).status == status, what
    for body in (b"", form(listener=server["main"].text, model="hybrid"), form(token="0" * 64, listener=server["main"].text, model="hybrid")):
        assert post(server, body).status == 403
    assert post(server, b"a" * 1025).status == 413
    for method, status in (("PUT", 405), ("DELETE", 405), ("PATCH", 405), ("GET", 200)):
        query = form(token=token_of(server["page"]), listener=server["main"].text, model="hybrid").decode()
        assert server["page"].ask(f"/?{query}", method).status == status
    assert server.status()["last_switch"] is None
    assert server.listener_status("main")["model"] == model.name


HOSTS = ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "10.0.0.1", "[::2]", ""]


def test_rebinding(serve, model: Model) -> None:
    """A name of the attacker's that means us now: not even the page, which has the token, is given away."""
    server = serve(model, main(model), page(model), Listener("open", model.name, 'route "/" { status { } }', options=SIZES))
    token = token_of(server["page"])
    for host in HOSTS:
        for path in ("/", "/?format=stream", "/?format=json"):
            with server["page"].connect() as wire:
                wire.send(request(path).replace(b"Host: localhost", b"Host: " + host.encode()))
                a = wire.answer()
                assert a.status == 403 and token not in a.text, (host, path)
        with server["page"].connect() as wire:
            body = form(token=token, listener=server["main"].text, model="hybrid")
            wire.send(request("/", "POST", {"Content-Type": FORM, "Origin": f"http://{host}"}, body).replace(b"Host: localhost", b"Host: " + host.encode()))
            assert wire.answer().status == 403
    with server["open"].connect() as wire:  # there is nothing to protect: it may have any name
        wire.send(request("/").replace(b"Host: localhost", b"Host: status.example"))
        assert wire.answer().status == 200
    assert server.status()["last_switch"] is None


def test_what_was_refused_is_told_once(serve, model: Model) -> None:
    server = serve(model, main(model), page(model))
    body = form(token=token_of(server["page"]), listener=server["main"].text, model="hybrid")
    watch = Stopwatch()
    for _ in range(20):
        assert post(server, body, Origin="http://evil.test").status == 403
    line = "a switch of the model was refused: its Origin is another site's"
    eventually(lambda: line in server.errors)
    assert server.errors.count(line) <= 1 + watch.seconds
    assert "evil.test" not in server.errors


def test_no_answer_is_for_other_sites(serve, model: Model) -> None:
    server = serve(model, main(model), page(model))
    for path in ("/", "/?format=json", "/?format=prometheus", "/nowhere?format=xml"):
        a = server["page"].ask(path, fields={"Origin": "http://evil.test"})
        assert not [name for name, _ in a.fields if name.lower().startswith("access-control-")]
        assert a.one("Cross-Origin-Resource-Policy") == "same-origin"
        assert (a.one("X-Content-Type-Options"), a.one("X-Frame-Options")) == ("nosniff", "DENY")
        policy = a.one("Content-Security-Policy") or ""
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    preflight = server["page"].ask("/", "OPTIONS", {"Origin": "http://evil.test", "Access-Control-Request-Method": "POST"})
    assert not [name for name, _ in preflight.fields if name.lower().startswith("access-control-")]


def test_unix_socket(serve, model: Model, tmp_path: Path) -> None:
    """Where no name leads to, any is good."""
    server = serve(model, main(model), page(model, address=f"unix:{tmp_path}/page"))
    with server["page"].connect() as wire:
        wire.send(request("/").replace(b"Host: localhost", b"Host: anything"))
        assert wire.answer().status == 200
    assert switch(server, "main", other_than(model).name).status == 202
    eventually(lambda: server.listener_status("main")["model"] == other_than(model).name, within=10)


@pytest.mark.parametrize("addresses, fine", [
    (["127.0.0.1:0"], True), (["[::1]:0"], True), (["127.3.2.1:0", "unix:x"], True), (["*:0"], False), (["0.0.0.0:0"], False),
    (["[::]:0"], False), (["10.1.2.3:0"], False), (["127.0.0.1:0", "0.0.0.0:0"], False), (["unix:x", "192.0.2.1:0"], False),
])
def test_control_is_for_this_machine_only(tmp_path: Path, addresses: list[str], fine: bool) -> None:
    file = tmp_path / "modus.conf"
    also = ", ".join(f'"{a}"' for a in addresses[1:])
    file.write_text(f'listen "{addresses[0]}" {{\n' + (f"    also = {{{also}}}\n" if also else "") + '    route "/" {\n        status { control = true }\n    }\n}\n')
    done = subprocess.run([BINARY, "-t", "-c", file], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode == 0) == fine, done.stderr
    if not fine:
        assert done.stderr.startswith(f"{file}:{4 if also else 3}: status: control = true ") and "127.0.0.1" in done.stderr


# --- JSON ----------------------------------------------------------------------------------------


def test_reloads_are_counted(serve) -> None:
    model = MODELS[2]
    server = serve(model, main(model))
    text = server.config.read_text()
    assert server.reload(server._listeners, text=text + "x\n").startswith("not")
    assert server.reload(server._listeners, text=text).startswith("reloaded")
    assert server.status()["reloads"] == {"taken": 1, "refused": 1}


def test_buckets(serve, model: Model) -> None:
    server = serve(model, main(model))
    for ms in (1, 30, 30):
        server["main"].ask(f"/sleep?ms={ms}")

    def seen() -> bool:
        status = server.status()
        times = server.listener_status("main")["requests"]["latency_us"]
        bounds = status["bucket_bounds_us"]
        assert bounds[0] == 16 and all(b == 2 * a for a, b in zip(bounds, bounds[1:])) and len(times["buckets"]) == len(bounds) + 1
        assert sum(times["buckets"]) == times["count"] == 3
        above = sum(n for n, top in zip(times["buckets"], [*bounds, 1e9]) if top > 16384)
        assert above >= 2 and times["buckets"][0] == 0
        return True

    eventually(seen)


# --- Prometheus ----------------------------------------------------------------------------------


def samples(server: Server) -> dict[tuple, float]:
    """All samples by name and labels, as Prometheus' own parser reads them, and the rules kept."""
    text = server["watch"].ask("/?format=prometheus").text
    found: dict[tuple, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("counter", "gauge", "histogram"), family.name
        for s in family.samples:
            key = (s.name, *sorted(s.labels.items()))
            assert key not in found, f"twice: {key}"
            found[key] = s.value
        if family.type == "histogram":
            check_histogram(family)
    names = re.findall(r"^# TYPE (\S+) ", text, re.M)
    assert len(names) == len(set(names)) and names == re.findall(r"^# HELP (\S+) ", text, re.M)
    return found


def check_histogram(family) -> None:
    by_listener: dict[str, list] = {}
    for s in family.samples:
        by_listener.setdefault(s.labels["listener"], []).append(s)
    for name, of in by_listener.items():
        buckets = [(float(s.labels["le"]), s.value) for s in of if s.name.endswith("_bucket")]
        count = next(s.value for s in of if s.name.endswith("_count"))
        assert buckets == sorted(buckets) and [n for _, n in buckets] == sorted(n for _, n in buckets), name
        assert buckets[-1] == (float("inf"), count) and len({le for le, _ in buckets}) == len(buckets)
        assert [s for s in of if s.name.endswith("_sum")]


def grows(key: tuple) -> bool:
    return key[0].endswith(("_total", "_count", "_sum", "_bucket"))


@pytest.mark.limit(90)
def test_counters_never_fall(serve, model: Model) -> None:
    """Over workers that are killed, switches, reloads, and generations that go."""
    server = serve(model, main(model))
    seen: list[dict[tuple, float]] = [samples(server)]

    def look() -> dict[tuple, float]:
        seen.append(samples(server))
        for key, value in seen[-2].items():
            if grows(key):
                assert seen[-1].get(key, -1) >= value, f"{key} fell from {value} to {seen[-1].get(key)}"
        return seen[-1]

    listener = ("listener", server["main"].text)
    asked = 0

    def ask(n: int) -> None:
        nonlocal asked
        for _ in range(n):
            assert server["main"].ask("/hello").status == 200
        asked += n
        eventually(lambda: look()["modus_requests_total", listener] == asked)
        eventually(lambda: look()["modus_request_duration_seconds_count", listener] == asked)

    ask(10)
    for _ in range(2):
        for pid in server.workers("main")[:2]:
            os.kill(pid, signal.SIGKILL)
            server.deaths_expected += 1
            eventually(lambda: not proc.is_alive(pid))
            look()
        server.workers("main")
        ask(5)
    for other in (other_than(model), model):
        command(server, "model", server["main"].text, other.name)
        ask(5)
        eventually(lambda: look()["modus_generations", listener, ("state", "retiring")] == 0)
        ask(5)
    changed = server.config.read_text().replace("Hello, World!", "Hello!")
    assert server.reload(server._listeners, text=changed).startswith("reloaded")
    ask(5)
    last = look()
    assert last["modus_switches_total", ("outcome", "taken")] == 2
    assert last["modus_reloads_total", ("outcome", "taken")] == 1
    assert last["modus_worker_deaths_total", listener] == server.deaths_expected
    assert last["modus_listener_generation", listener] == 4


def test_busy_share(serve, model: Model) -> None:
    places = 4
    server = serve(model, main(model, **model.sized(places) | {"loops": 1}))
    wires = [server["main"].connect() for _ in range(3)]
    for wire in wires:
        wire.send(request(f"{model.hold}?ms={int(1500 * SLOW)}"))
    listener = ("listener", server["main"].text)

    def seen() -> bool:
        now = samples(server)
        assert (now["modus_places_busy", listener], now["modus_places", listener], now["modus_busy_ratio", listener]) == (3, places, 0.75)
        assert server.listener_status("main")["saturation"] == {"busy": 3, "places": places}
        return True

    eventually(seen, within=1.4)
    for wire in wires:
        assert wire.answer().status == 200
        wire.close()
    eventually(lambda: samples(server)["modus_busy_ratio", listener] == 0)


def test_kernel_s_room(serve) -> None:
    model = MODELS[4]
    server = serve(model, main(model, backlog=77))
    assert server.listener_status("main")["connections"]["backlog"] == 77
