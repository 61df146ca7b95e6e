"""The status listener: what it counts, in its three forms."""
import json
import re

import pytest

from lib import proc
from lib.clock import eventually
from lib.raw import request
from lib.server import Server
from lib.site import Site


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
    assert {w["state"] for w in l["workers"]} <= {"waiting", "busy"}
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
    assert "<script" not in a.text


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
        assert re.sub("_(sum|count)$", "", match[1]) in types or match[1] in types, line
        assert (match[1], match[2]) not in samples, f"twice: {line}"
        samples[match[1], match[2]] = float(match[3])
    assert {"modus_build_info", "modus_connections_accepted_total", "modus_requests_total", "modus_request_duration_seconds"} <= set(types)
    total = sum(v for (name, labels), v in samples.items() if name == "modus_connections_accepted_total")
    assert total > 0
