# SPDX-License-Identifier: MIT
"""The loads: what wrk asks for, of whom, and with how many connections."""

from dataclasses import dataclass, field

MODELS = ("event-loop", "prefork", "thread-pool", "process", "hybrid", "coroutine")
APACHE = ("apache-event", "apache-worker", "apache-prefork")
OTHERS_TEXT = ("nginx", "nginx-return", *APACHE)
OTHERS_FILE = ("nginx", "nginx-uncached", *APACHE)

HELLO = b"Hello, World!"
SLEEP_MS = 50  # the load `sleep`
NAP_MS = 2000  # the load `once`
SPIN_S = 0.001  # the load `spin`
SPINS_S = 0.5  # the load `spins`


@dataclass(frozen=True)
class Load:
    """`content` is hello, sleep, nap, spin, spins, or the name of a file of the docroot."""

    name: str
    title: str
    content: str
    servers: tuple[str, ...]
    connections: int = 64
    script: str = "report.lua"
    tls: bool = False
    close: bool = False
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)  # of a model, for this load


# Measured with wrk, round after round.
LOADS = [
    Load("hello", "13-byte answer, keep-alive, 64 connections", "hello",
         (*MODELS, "prefork-1", "nginx-uncached", *OTHERS_TEXT, "limit-epoll")),
    Load("pipeline", "13-byte answer, 16 pipelined, 64 connections", "hello",
         (*MODELS, *OTHERS_TEXT, "limit-epoll"), script="pipeline.lua"),
    Load("close", "13-byte answer, a connection a request, 64 at a time", "hello",
         (*MODELS, *OTHERS_TEXT, "limit-epoll", "limit-fork"), script="close.lua", close=True),
    Load("file1k", "1 KiB file, keep-alive, 64 connections", "1k.txt",
         (*MODELS, *OTHERS_FILE, "limit-sendfile")),
    Load("file1m", "1 MiB file, keep-alive, 8 connections", "1m.txt",
         (*MODELS, *OTHERS_FILE, "limit-sendfile"), connections=8),
    Load("tls1k", "1 KiB file over TLS, keep-alive, 64 connections", "1k.txt",
         (*MODELS, "nginx", *APACHE), tls=True),
    Load("sleep", f"an answer that waits {SLEEP_MS} ms, keep-alive, 256 connections", "sleep",
         MODELS, connections=256,
         sizes={"thread-pool": {"threads": 256}, "hybrid": {"threads": 128}}),
    Load("spin", f"an answer that computes {SPIN_S * 1000:.0f} ms, keep-alive, 64 connections", "spin",
         MODELS),
]

# Measured by the runner itself, once.
IDLE = Load("idle", "10,000 idle keep-alive connections", "hello",
            ("event-loop", "thread-pool", "nginx", "apache-event"), connections=10000)
ONCE = Load("once", f"100 requests at once that each sleep {NAP_MS // 1000} s", "nap",
            ("process", "thread-pool", "event-loop", "prefork"), connections=100,
            sizes={"thread-pool": {"threads": 128}, "event-loop": {"threads": 128}})
SPINS = Load("spins", f"4 requests that each compute {SPINS_S} s, two workers, all CPUs", "spins",
             ("process", "thread-pool", "event-loop", "prefork"), connections=4,
             sizes={"thread-pool": {"threads": 2}, "event-loop": {"threads": 2},
                    "prefork": {"processes": 2}})

ALL_LOADS = [*LOADS, IDLE, ONCE, SPINS]
