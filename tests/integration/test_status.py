"""The status listener: what it counts, in its three forms."""
import base64
import hashlib
import json
import os
import re

import pytest

from lib import proc
from lib.clock import SLOW, eventually
from lib.config import Listener
from lib.models import MODELS, Model
from lib.raw import request
from lib.server import Server
from lib.site import BASIC_ROUTES, Site


def count(l: dict) -> dict:
    return {
        "requests": l["requests"]["total"],
        "accepted": l["connections"]["accepted"],
        **{f"answers {c}": n for c, n in l["requests"]["answers"].items()},
    }


def test_json(site: Site) -> None:
    a = site.server["watch"].ask("/?format=json")
    assert (a.status, a.one("Content-Type")) == (200, "application/json")
    s = json.loads(a.text)
    assert s["pid"] == site.server.pid
    assert s["config_file"].endswith("modus.conf")
    assert s["generation"] == 1
    assert len(s["listeners"]) == 5
    l = site.server.listener_status("main")
    assert (l["model"], l["protocol"], l["tls"]) == (site.model.name, "http", site.secure)
    assert site.server.listener_status("tcp")["protocol"] == "tcp"
    assert l["workers"] and all(proc.is_alive(w["pid"]) for w in l["workers"])
    # One that is ready begins to serve when all are.
    eventually(lambda: {w["state"] for w in site.server.listener_status("main")["workers"]} <= {"waiting", "busy"})
    assert l["connections"]["max"] > 0
    assert (l["queue"] is not None) == site.model.queued


def test_counters_add_up(site: Site) -> None:
    server = site.server
    asked = ["/hello", "/nowhere", "/sleep?ms=1", "/files/", "/files/sub", "/gone", "/spin?n=1"] * 3
    before = count(server.listener_status("main"))
    with site.main.connect() as wire:
        for path in asked:
            wire.ask(path)
        wire.send(request("/hello") * 10)
        for _ in range(10):
            wire.answer()
    for _ in range(5):
        site.main.ask("/hello")
    expected = {
        "requests": len(asked) + 15,
        "accepted": 6,
        "answers 1xx": 0,
        "answers 2xx": 12 + 15,
        "answers 3xx": 3,
        "answers 4xx": 6,
        "answers 5xx": 0,
        "answers cut": 0,
    }

    def add_up() -> bool:
        now = count(server.listener_status("main"))
        assert {key: now[key] - before[key] for key in now} == expected
        return True

    eventually(add_up)


def test_latency_and_bytes(site: Site) -> None:
    before = site.server.listener_status("main")["requests"]
    for _ in range(10):
        site.main.ask("/sleep?ms=30")
    after = eventually(lambda: _grown_by(site.server, before, 10))
    assert after["latency_us"]["sum"] - before["latency_us"]["sum"] >= 10 * 30_000
    assert after["bytes_out"] - before["bytes_out"] >= 10 * 100
    assert after["bytes_in"] - before["bytes_in"] >= 10 * 30
    times = after["latency_us"]
    assert times["p50"] <= times["p90"] <= times["p99"] <= times["p999"] <= times["max"]


def _grown_by(server: Server, before: dict, n: int) -> dict | None:
    after = server.listener_status("main")["requests"]
    return after if after["latency_us"]["count"] - before["latency_us"]["count"] == n else None


def test_gauges(site: Site) -> None:
    def seen(open_: int, idle: int, requests: int) -> bool:
        l = site.server.listener_status("main")
        found = (l["connections"]["open"], l["connections"]["idle"], l["requests"]["active"])
        assert found == (open_, idle, requests)
        return True

    eventually(lambda: seen(0, 0, 0))
    with site.main.connect() as idle, site.main.connect() as busy:
        idle.ask("/hello")
        busy.ask("/hello")
        eventually(lambda: seen(2, 2, 0))
        busy.send(request("/sleep?ms=1000"))
        eventually(lambda: seen(2, 1, 1), within=0.9)
        assert busy.answer().status == 200
        eventually(lambda: seen(2, 2, 0))
    eventually(lambda: seen(0, 0, 0))


def test_half_a_request_is_not_idle(site: Site) -> None:
    def seen(idle: int, active: int) -> bool:
        c = site.server.listener_status("main")["connections"]
        assert (c["open"], c["idle"], c["active"]) == (idle + active, idle, active)
        return True

    eventually(lambda: seen(0, 0))
    with site.main.connect() as wire, site.main.connect() as other:
        other.ask("/hello")
        wire.ask("/hello")
        wire.send(b"GET /hello HTT")
        eventually(lambda: seen(1, 1))
        wire.send(b"P/1.1\r\nHost: x\r\n\r\n")
        assert wire.answer().status == 200
        eventually(lambda: seen(2, 0))


BUSY, MORE = 3, 5  # handlers that can run at once, and requests beyond that


@pytest.mark.limit(40)
def test_all_busy(serve, model: Model) -> None:
    """More requests than can be served at once: who is busy, and where the others wait."""
    server = serve(model, Listener("main", model.name, BASIC_ROUTES, options=model.sized(BUSY) | {"loops": 2, "queue_timeout": "5m"}))
    wires = [server["main"].connect() for _ in range(BUSY + MORE)]
    for wire in wires:
        wire.send(request(f"{model.hold}?ms={int(1500 * SLOW)}"))
    open_ = BUSY + MORE if model.accepts_beyond else BUSY

    def seen() -> dict:
        l = server.listener_status("main")
        c = l["connections"]
        assert (c["open"], c["idle"], c["active"], c["waiting"]) == (open_, 0, open_, BUSY + MORE - open_)
        assert l["requests"]["active"] >= BUSY
        states = [w["state"] for w in l["workers"]]
        assert states == ["busy"] * len(states)
        if model.queued:
            assert (l["threads"]["busy"], l["threads"]["total"]) == (BUSY, BUSY)
            assert l["queue"]["depth"] == MORE
        if not model.shares_descriptors:
            assert l["children"] == {"now": BUSY, "idle": 0, "limit": BUSY}
        return l

    l = eventually(seen, within=1.4)
    assert (l["queue"] is None, l["threads"] is None) == (not model.queued, not model.queued)
    assert (l["children"] is None) == model.shares_descriptors
    for wire in wires:
        assert wire.answer().status == 200
        wire.close()

    def over() -> dict:
        l = server.listener_status("main")
        assert [w["state"] for w in l["workers"]] == ["waiting"] * len(l["workers"])
        assert (l["connections"]["open"], l["connections"]["waiting"], l["requests"]["active"]) == (0, 0, 0)
        assert not model.queued or (l["threads"]["busy"], l["queue"]["depth"]) == (0, 0)
        return l

    l = eventually(over)
    if model.queued:
        waited = l["queue"]["waited_us"]
        assert waited["count"] >= BUSY + MORE
        assert waited["max"] >= 1_400_000 * SLOW and waited["sum"] >= MORE * 1_400_000 * SLOW


def test_refused_work_is_not_queued(serve, queued_model: Model) -> None:
    model = queued_model
    server = serve(model, Listener("main", model.name, BASIC_ROUTES, options=model.sized(1) | {"loops": 1, "queue_timeout": "100ms"}))
    with server["main"].connect() as first:
        first.send(request(f"{model.hold}?ms={int(1000 * SLOW)}"))
        eventually(lambda: server.listener_status("main")["threads"]["busy"] == 1)
        wires = [server["main"].connect() for _ in range(3)]
        for wire in wires:
            wire.send(request(f"{model.hold}?ms=1"))
        for wire in wires:
            assert wire.answer().status == 503
            wire.close()

        def seen() -> bool:
            l = server.listener_status("main")
            assert (l["queue"]["depth"], l["queue"]["rejected"], l["threads"]["busy"]) == (0, 3, 1)
            return True

        eventually(seen, within=0.6)
        assert first.answer().status == 200


def test_time_in_the_queue_is_fine(serve, queued_model: Model) -> None:
    """In microseconds, not in steps of a millisecond."""
    server = serve(queued_model, Listener("main", queued_model.name, BASIC_ROUTES, options={"threads": 2}))
    sums = set()
    with server["main"].connect() as wire:
        for _ in range(3):  # one sum in a thousand ends in 000
            for _ in range(40):
                wire.ask(f"{queued_model.hold}?ms=1")  # one that comes at once may find its thread still there
            waited = eventually(lambda: _waited(server, 5))
            assert 0 < waited["sum"] and waited["p50"] <= waited["max"]
            sums.add(waited["sum"] % 1000)
    assert sums != {0}


def _waited(server: Server, n: int) -> dict | None:
    waited = server.listener_status("main")["queue"]["waited_us"]
    return waited if waited["count"] >= n else None


@pytest.mark.skipif(os.environ.get("MODUS_TEST_SLOW", "1") != "1", reason="forks are slow there")
def test_children_that_are_idle(serve) -> None:
    model = next(m for m in MODELS if not m.shares_descriptors)
    server = serve(model, Listener("main", model.name, BASIC_ROUTES, options={"max_connections": 7}))
    with server["main"].connect() as idle, server["main"].connect() as busy:
        idle.ask("/hello")
        busy.send(request("/sleep?ms=500"))

        def seen() -> bool:
            l = server.listener_status("main")
            assert l["children"] == {"now": 2, "idle": 1, "limit": 7}
            assert (l["connections"]["idle"], l["connections"]["active"]) == (1, 1)
            return True

        eventually(seen, within=0.45)


def test_forms_agree(site: Site) -> None:
    """What JSON says of a listener at rest stands in the other forms too."""
    eventually(lambda: site.server.listener_status("main")["connections"]["open"] == 0)
    l = site.server.listener_status("main")
    samples = {}
    for line in site.server["watch"].ask("/?format=prometheus").text.splitlines():
        match = SAMPLE.fullmatch(line)
        if match and f'listener="{l["name"]}"' in (match[2] or ""):
            samples[match[1], match[2].replace(f'listener="{l["name"]}"', "").strip(",")] = float(match[3])
    wanted = {("modus_worker_deaths_total", ""): l["worker_deaths"], ("modus_loop_blocked_total", ""): l["blocked"]["count"]}
    wanted |= {(f"modus_workers_recycled_{key}_total", ""): n for key, n in l["recycled"].items()}
    for key, value in l["connections"].items():
        wanted[f"modus_connections_{key}", ""] = value
    for old, new in (("accepted", "connections_accepted_total"), ("refused", "connections_refused_total"), ("evicted", "connections_evicted_total"), ("handshakes_failed", "handshakes_failed_total"), ("accept_pauses", "accept_pauses_total")):
        wanted[f"modus_{new}", ""] = wanted.pop((f"modus_connections_{old}", ""))
    wanted["modus_requests_total", ""] = l["requests"]["total"]
    wanted["modus_requests_active", ""] = l["requests"]["active"]
    for answer_class, n in l["requests"]["answers"].items():
        wanted["modus_answers_total", f'class="{answer_class}"'] = n
    for group, names in (("queue", {"depth": "queue_depth", "capacity": "queue_capacity", "rejected": "queue_rejected_total"}), ("threads", {"busy": "threads_busy", "total": "threads"}), ("children", {"now": "children", "idle": "children_idle", "limit": "children_max"}), ("saturation", {"busy": "places_busy", "places": "places"})):
        for key, name in names.items():
            wanted[f"modus_{name}", ""] = l[group][key] if l[group] else 0
    for i, w in enumerate(l["workers"]):
        wanted["modus_worker_info", f'worker="{i}",pid="{w["pid"]}",state="{w["state"]}"'] = 1
    assert {key: samples.get(key) for key in wanted} == wanted
    page = site.server["watch"].ask("/").text
    part = page[page.index(f"<h2>{l['name']}") :]
    part = part[: part.index("</section>")]
    for i, w in enumerate(l["workers"]):
        assert f"<td>{w['pid']}</td><td data-u=\"text\" data-f=\"workers.{i}.state\">{w['state']}</td>" in part
    for group in ("connections", "saturation", "queue", "threads", "children"):
        for key, n in (l[group] or {}).items():
            assert isinstance(n, dict) or f'data-f="{group}.{key}">{grouped(n)}</dd>' in part, f"{group}.{key}"


def grouped(n: int) -> str:
    return f"{n:,}".replace(",", "\u202f") if n >= 10000 else str(n)


def test_cut_answers_are_counted(site: Site) -> None:
    cut = lambda: site.server.listener_status("main")["requests"]["answers"]["cut"]
    before = cut()
    wire = site.main.connect()
    wire.send(request("/sleep?ms=5000"))
    eventually(lambda: site.server.listener_status("main")["requests"]["active"] == 1)
    wire.reset()
    eventually(lambda: cut() == before + 1)


def test_page(site: Site) -> None:
    a = site.server["watch"].ask("/")
    assert (a.status, a.one("Content-Type")) == (200, "text/html; charset=utf-8")
    assert a.one("Cache-Control") == "no-store"
    assert site.model.name in a.text and site.main.text in a.text
    assert a.text.count("<script") == 1 and "src=" not in a.text  # all that it needs is in it
    hashes = re.findall("'sha256-([A-Za-z0-9+/=]+)'", a.one("Content-Security-Policy") or "")
    parts = [re.search(f"<{element}>(.*?)</{element}>", a.text, re.S)[1] for element in ("script", "style")]
    assert hashes == [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts]


@pytest.mark.parametrize("query, status", [("?format=xml", 400), ("?format=", 400), ("?x=1", 200), ("?format=html", 200)])
def test_forms(site: Site, query: str, status: int) -> None:
    assert site.server["watch"].ask(f"/{query}").status == status


SAMPLE = re.compile(r'([a-z_:][a-z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.]+(?:e[+-]?[0-9]+)?)')


def test_prometheus(site: Site) -> None:
    site.main.ask("/hello")
    a = site.server["watch"].ask("/?format=prometheus")
    assert (a.one("Content-Type") or "").startswith("text/plain; version=0.0.4")
    types: dict[str, str] = {}
    samples = {}
    for line in a.text.removesuffix("\n").split("\n"):
        if line.startswith("# "):
            _, word, name, rest = line.split(" ", 3)
            assert word in ("HELP", "TYPE")
            if word == "TYPE":
                assert name not in types and rest in ("counter", "gauge", "summary", "histogram")
                types[name] = rest
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        assert re.sub("_(sum|count|bucket)$", "", match[1]) in types or match[1] in types, line
        assert (match[1], match[2]) not in samples, f"twice: {line}"
        samples[match[1], match[2]] = float(match[3])
    assert {"modus_build_info", "modus_connections_accepted_total", "modus_requests_total", "modus_request_duration_seconds"} <= set(types)
    total = sum(v for (name, labels), v in samples.items() if name == "modus_connections_accepted_total")
    assert total > 0
