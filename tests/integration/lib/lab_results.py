"""Results of the lab that nobody measured, as its JSON: what six models would do on one CPU, by a small
queueing sum, with a spread that is the same each time. For tests of the page."""
import math
from typing import Any

MODELS = {  # workers, threads each that run handlers; 0: not bounded
    "process": (0, 0), "prefork": (8, 1), "thread-pool": (1, 64), "hybrid": (2, 64), "event-loop": (1, 64), "coroutine": (1, 0),
}
BASE_CPU = {"process": 9.9, "prefork": 6.1, "thread-pool": 6.9, "hybrid": 7.1, "event-loop": 5.6, "coroutine": 5.7}
KIB = {"process": 118.0, "prefork": 0.4, "thread-pool": 0.31, "hybrid": 0.33, "event-loop": 0.29, "coroutine": 0.3}
SPREAD = (0.0, 0.017, -0.021)
FINE = 64


def load(name: str, title: str, why: str, kind: str, loop: str, note: str | None = None, seconds: tuple[float, float] = (0, 0)) -> dict:
    return {"name": name, "title": title, "why": why, "kind": kind, "loop": loop, "note_says": note, "note_seconds": list(seconds)}


LOADS = [
    load("sleep", "an answer that waits 50 ms", "Stands for an API that asks a database.", "io", "closed"),
    load("api", "an answer that waits 50 ms, at a fixed rate", "The same from clients that do not wait for each other.", "io", "open"),
    load("once", "100 requests at once that each wait 2 s", "What the notes did with threads and processes.", "io", "batch",
         "The notes start 100 tasks that sleep 2 s: threads and processes both wait side by side", (2.9, 2.1)),
    load("spin", "an answer that computes 1 ms", "Stands for an image resizer.", "cpu", "closed"),
    load("spins", "4 requests that each compute 0.5 s", "What the notes did to show the interpreter lock.", "cpu", "batch",
         "The notes compute on 4 threads and in 4 processes: processes use all CPUs, threads one", (0.55, 2.05)),
    load("mixed", "one in twenty computes 20 ms, the others only answer", "Stands for a site with a report page.", "mixed", "closed"),
    load("idle", "connections that ask once a minute", "Stands for chat clients.", "idle", "open"),
    load("hello", "13-byte answers, kept alive", "What a request costs when nothing else is done.", "overhead", "closed"),
    load("close", "a connection a request", "Clients that come once.", "overhead", "closed"),
    load("stall-closed", "a server that stands still", "Who asks again when answered hardly hears of it.", "stall", "closed"),
    load("stall-open", "a server that stands still", "Customers come all the same.", "stall", "open"),
]


def middle(bucket: int) -> float:
    if bucket < 2 * FINE:
        return bucket
    width = 1 << (bucket // FINE - 1)
    return width * (FINE + bucket % FINE) + (width - 1) / 2


def bucket_of(ns: int) -> int:
    if ns < FINE:
        return ns
    shift = ns.bit_length() - 7
    return FINE * shift + (ns >> shift)


def quantile(p50: float, p99: float, share: float) -> float:
    """Of a log-normal with these two."""
    sigma = math.log(max(p99 / p50, 1.001)) / 2.326
    low, high = -9.0, 9.0  # of the normal
    for _ in range(50):
        mid = (low + high) / 2
        low, high = (mid, high) if 0.5 * (1 + math.erf(mid / math.sqrt(2))) < share else (low, mid)
    return p50 * math.exp(sigma * low)


def histogram(p50: float, p99: float, count: int) -> dict:
    buckets: dict[int, int] = {}
    left, steps = count, 400
    for i in range(steps):
        share = (i + 0.5) / steps if i < steps - 1 else 1 - 0.5 / max(count, 2)
        n = count // steps if i < steps - 1 else left
        left -= count // steps
        b = bucket_of(int(quantile(p50, p99, share) * 1e3))
        buckets[b] = buckets.get(b, 0) + n
    last = max(buckets)
    return {"sum_us": count * p50, "max_us": middle(last) / 1e3, "buckets": [[middle(b) / 1e3, n] for b, n in sorted(buckets.items()) if n]}


def round_of(repeat: int, **figures: Any) -> dict:
    errors = figures.pop("errors", {})
    by = 1 + SPREAD[repeat % len(SPREAD)]
    for key in ("rps", "p50_us", "p90_us", "p99_us", "p999_us", "cheap_p99_us", "cpu_us", "seconds"):
        if figures.get(key) and figures[key] > 0:
            figures[key] *= 1 / by if key != "rps" else by
    figures.setdefault("p90_us", quantile(figures["p50_us"], figures["p99_us"], 0.9))
    figures.setdefault("p999_us", quantile(figures["p50_us"], figures["p99_us"], 0.999))
    figures.setdefault("max_us", quantile(figures["p50_us"], figures["p99_us"], 0.9999))
    figures.setdefault("seconds", 5.0)
    figures.setdefault("requests", int(figures["rps"] * figures["seconds"]))
    figures.setdefault("latency", histogram(figures["p50_us"], figures["p99_us"], figures["requests"]))
    known = {"load1": 1.1, "steal": 0.002, "loader_cpu": 0.7, "blocked": 0, "forks": 0, **figures}
    return {"repeat": repeat, "error": None, "trusted": True, "doubt": None,
            "errors": {"connect": 0, "read": 0, "write": 0, "timeout": 0, "status": 0, **errors}, **known}


def cost(model: str, connections: int, closing: bool = False) -> dict:
    cpu = BASE_CPU[model] + (11 if closing else 0) + (221 if closing and model == "process" else 0)
    processes = {"process": connections + 2, "prefork": 9, "hybrid": 3}.get(model, 2)
    threads = {"thread-pool": 66, "hybrid": 131, "event-loop": 66, "coroutine": 4}.get(model, processes)
    idle = {"process": 2400.0, "prefork": 6100.0, "hybrid": 4900.0}.get(model, 3000.0)
    return {"cpu_us": cpu, "processes": processes, "threads": threads, "pss_idle_kib": idle, "pss_kib": idle + KIB[model] * connections,
            "switches": {"thread-pool": 0.4, "hybrid": 0.45, "process": 1.0, "prefork": 0.2}.get(model, 0.05),
            "forks": 1.0 if closing and model == "process" else 0.0}


def places(model: str) -> float:
    workers, threads = MODELS[model]
    return workers * threads or math.inf


def waiting(model: str, connections: int, ms: float, rate: float | None = None) -> dict:
    """Handlers that wait: so many at a time."""
    figures = cost(model, connections)
    at_once = min(places(model), connections)
    most = at_once / (ms / 1e3)
    rps = most if rate is None else min(rate, most)
    busy = rps * ms / 1e3 / places(model) if places(model) < math.inf else None
    full = busy is not None and busy > 0.97
    p50 = connections / rps * 1e6 if rate is None else (ms * 1e3 if not full else connections / most * 1e6)
    queue = max(p50 - ms * 1e3, 0) if model in ("thread-pool", "hybrid", "event-loop") else None
    if queue:
        figures["pss_kib"] += 30
    p99 = p50 * (1.35 if full else 1.06 + 0.0004 * connections)
    return {**figures, "rps": rps, "p50_us": p50 * 1.01, "p99_us": p99, "cpu_us": figures["cpu_us"] + 14, "busy": busy and min(busy, 0.99),
            "cpu_share": rps * (figures["cpu_us"] + 14) / 1e6, "queued_us": queue}


def computing(model: str, connections: int, us: float) -> dict:
    figures = cost(model, connections)
    cpu = us + figures["cpu_us"]
    rps = 1e6 / cpu
    fair = {"process": 1.15, "prefork": 1.9, "coroutine": 1.6}.get(model, 1.3)
    return {**figures, "rps": rps, "cpu_us": cpu, "p50_us": connections / rps * 1e6, "p99_us": connections / rps * 1e6 * fair,
            "cpu_share": 0.99, "busy": min(1.0, connections / places(model)) * 0.99,
            "queued_us": 800.0 * connections if model in ("thread-pool", "hybrid", "event-loop") else None}


def answering(model: str, connections: int, closing: bool) -> dict:
    figures = cost(model, connections, closing)
    rps = min(1e6 / figures["cpu_us"], 61000)
    return {**figures, "rps": rps, "p50_us": connections / rps * 1e6, "p99_us": connections / rps * 1e6 * (2.2 if model != "process" else 3),
            "cpu_share": rps * figures["cpu_us"] / 1e6, "loader_cpu": 0.97, "busy": 0.5, "queued_us": None}


def mixing(model: str, connections: int) -> dict:
    figures = computing(model, connections, 1000)
    cheap = {"process": 21000, "prefork": 160000, "coroutine": 64000, "event-loop": 2600}.get(model, 55000)
    blocked = 31 if model == "coroutine" else 0
    return {**figures, "cheap_p99_us": cheap, "p50_us": cheap / 4, "p99_us": cheap * 2, "blocked": blocked}


def batch(model: str, count: int, each: float, busy: bool) -> dict:
    figures = cost(model, count)
    turns = math.ceil(count / min(places(model), count)) if not busy else count / 1
    seconds = turns * each + 0.012 + (0.1 if model == "process" else 0)
    return {**figures, "rps": count / seconds, "requests": count, "seconds": seconds, "p50_us": seconds / 2 * 1e6 if turns > 1 else seconds * 1e6,
            "p99_us": seconds * 1e6, "max_us": seconds * 1e6, "busy": 0.99 if turns > 1 else 0.4, "cpu_share": 0.98 if busy else 0.02,
            "queued_us": None, "latency": None}


def series(name: str, server: str, connections: int, figures: dict, repeats: int = 3, rate: float = 0, gil: bool = False) -> dict:
    offered = {"offered": rate} if rate else {}
    return {"load": name, "server": server, "connections": connections, "gil": gil, "rate": rate,
            "rounds": [round_of(i, **figures, **offered) for i in range(repeats)]}


def with_lock(figures: dict, by: float, held: float) -> dict:
    return {**figures, "rps": figures["rps"] * by, "seconds": figures.get("seconds", 5) / (by if figures["latency"] is None else 1), "gil_held": held} \
        if "latency" in figures else {**figures, "rps": figures["rps"] * by, "gil_held": held}


def standing_still(rps: float, late: int) -> dict:
    """Of two seconds' answers so many came after 400 ms."""
    answers = int(2 * rps)
    p99 = 400e3 if late > answers / 100 else 2e3
    seen = histogram(1000, 1100, answers - late)
    seen = {"sum_us": seen["sum_us"] + 400e3 * late, "max_us": 400e3, "buckets": [*seen["buckets"], [middle(bucket_of(400_000_000)) / 1e3, late]]}
    return {**cost("event-loop", 64), "rps": rps, "requests": answers, "seconds": 2.0, "p50_us": 1000.0, "p99_us": p99, "p999_us": p99, "max_us": 400e3,
            "cpu_share": 0.5, "busy": None, "queued_us": None, "latency": seen}


def all_series(repeats: int) -> list[dict]:
    found = [
        series("stall-closed", "event-loop", 64, standing_still(30_000, 64), repeats),
        series("stall-open", "event-loop", 64, standing_still(2_000, 800), repeats, rate=2000),
    ]
    for m in MODELS:
        for n in (16, 64, 256):
            found.append(series("sleep", m, n, waiting(m, n, 50), repeats))
            found.append(series("hello", m, n, answering(m, n, False), repeats))
        for rate in (100, 400, 1200):
            found.append(series("api", m, 256, waiting(m, 256, 50, rate), repeats, rate=rate))
        for n in (4, 16, 64):
            found.append(series("spin", m, n, computing(m, n, 1000), repeats))
        for n in (16, 64):
            found.append(series("close", m, n, answering(m, n, True), repeats))
        found.append(series("once", m, 100, batch(m, 100, 2.0, False), repeats))
        found.append(series("spins", m, 4, batch(m, 4, 0.5, True), repeats))
        found.append(series("mixed", m, 64, mixing(m, 64), repeats))
        if m != "process":
            found.append(series("idle", m, 20000, waiting(m, 20000, 0.2, 333), repeats, rate=333))
    for m in ("thread-pool", "hybrid", "prefork"):
        found.append(series("spin", m, 64, with_lock(computing(m, 64, 1000), 0.52 if m == "thread-pool" else 1.0, 0.99), repeats, gil=True))
        found.append(series("sleep", m, 16, with_lock(waiting(m, 16, 50), 1.0, 0.02), repeats, gil=True))
    refused = series("idle", "process", 20000, waiting("process", 20000, 0.2, 333), repeats, rate=333)
    for r in refused["rounds"]:
        r["errors"]["connect"] = 19744
    found.append(refused)
    return found


def results(repeats: int = 3) -> dict:
    """A whole run; change it to make it another."""
    return {
        "modus_lab": 1,
        "machine": {"cpu": "AMD EPYC 7R13", "kernel": "Linux 6.18.0", "wrk": "wrk 4.1.0", "modus": "modus 0.1.0", "when": "2026-11-27T17:22:05+01:00",
                    "cpus": 2, "server_cpu": 0, "loader_cpu": 1, "pinned": True, "memory_gib": 7.7},
        "command": "modus lab --out lab", "config": 'listen "127.0.0.1:0" {\n    model = MODEL\n    route "/hello" { text { body = "Hello, World!" } }\n}\n',
        "whole": True, "seconds": 812.0, "loads": LOADS,
        "servers": [{"name": m, "foreign": False, "workers": w, "threads": t,
                     "sizes": {"prefork": "processes = 8", "thread-pool": "threads = 64", "hybrid": "processes = 2, threads = 64"}.get(m, "")}
                    for m, (w, t) in MODELS.items()],
        "series": all_series(repeats),
    }
