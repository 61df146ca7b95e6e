"""What most tests talk to: for a model and a transport, one server with a listener for each purpose."""
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from lib.clock import SLOW
from lib.config import Certificate, Listener
from lib.models import Model
from lib.server import Endpoint, Server

SIZES = {"processes": 4, "loops": 2, "threads": 16}

BASIC_ROUTES = """
route "/hello" { text { body = "Hello, World!" } }
route "/echo"  { echo { } }
route "/sleep" { sleep { duration = 20ms } }
route "/block" { block { duration = 20ms } }
route "/spin"  { spin { max = 1000000000000 } }
"""
TCP_ROUTES = "echo { }"
STATUS_ROUTES = 'route "/" { status { } }'


def main_routes(documents: Path) -> str:
    return BASIC_ROUTES + f"""
route "/hello/deep" {{ text {{ body = "deep" }} }}
route "/gone"       {{ text {{ body = "long gone" type = "text/x-gone" status = 410 }} }}
route "/empty"      {{ text {{ body = "" }} }}
route "/files"      {{ static {{ root = "{documents}" }} }}
route "/list"       {{ static {{ root = "{documents}" listing = true }} }}
route "/aged"       {{ static {{ root = "{documents}" max_age = 1h }} }}
"""


def tight_routes(documents: Path) -> str:
    return BASIC_ROUTES + f'route "/files" {{ static {{ root = "{documents}" }} }}'


# Seconds; long enough for a slow build to do right what is right.
HEADER_TIMEOUT = BODY_TIMEOUT = KEEPALIVE_TIMEOUT = 0.4 * SLOW
HANDLER_TIMEOUT = SEND_TIMEOUT = 0.5 * SLOW


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"


TIGHT = {
    "header_timeout": milliseconds(HEADER_TIMEOUT),
    "body_timeout": milliseconds(BODY_TIMEOUT),
    "handler_timeout": milliseconds(HANDLER_TIMEOUT),
    "send_timeout": milliseconds(SEND_TIMEOUT),
    "keepalive_timeout": milliseconds(KEEPALIVE_TIMEOUT),
    "max_header_size": "4k",
    "max_body_size": "64k",
}


def watch(model: Model) -> Listener:
    """Where the harness asks for the status: a listener that no test keeps busy."""
    return Listener("watch", model.name, STATUS_ROUTES, options={"processes": 1, "loops": 1, "threads": 2})


def tcp(name: str, model: Model, certificates: list[Certificate], **options) -> Listener:
    return Listener(name, model.name, TCP_ROUTES, certificates=certificates, options={"protocol": "tcp", **options})


def listeners(model: Model, documents: Path, certificates: list[Certificate]) -> list[Listener]:
    def listener(name: str, routes: str, **options) -> Listener:
        return Listener(name, model.name, routes, certificates=certificates, options=options)

    return [
        listener("main", main_routes(documents), **SIZES, max_body_size="64m"),
        listener("tight", tight_routes(documents), **SIZES | TIGHT),
        listener("few", BASIC_ROUTES, **SIZES, keepalive_requests=3),
        tcp("tcp", model, certificates, **SIZES),
        watch(model),
    ]


@dataclass(frozen=True)
class Site:
    model: Model
    secure: bool
    server: Server

    @property
    def main(self) -> Endpoint:
        return self.server["main"]

    @property
    def tight(self) -> Endpoint:
        """Short limits: see TIGHT."""
        return self.server["tight"]

    @property
    def few(self) -> Endpoint:
        """Three requests a connection."""
        return self.server["few"]

    @property
    def tcp(self) -> Endpoint:
        return self.server["tcp"]


# --- documents ---------------------------------------------------------------------------------

SECRET = "this lies outside"
DATA = random.Random(1).randbytes(100_000)
BIG = random.Random(2).randbytes(10 << 20)


def content(name: str) -> bytes:
    """Of the two files that most tests ask for: one small, one too large to be kept in memory."""
    return {"a.txt": b"0123456789" * 10, "data.bin": DATA}[name]


def write_documents(folder: Path) -> Path:
    """A folder to serve, with a secret beside it. Returns the folder to serve."""
    root = folder / "www"
    (folder / "secret.txt").write_text(SECRET)
    for sub in ("sub/deep", "bare/inner", ".hidden", "sub/.git", ".well-known/acme-challenge", "sub/.well-known"):
        (root / sub).mkdir(parents=True)
    files: dict[str, bytes] = {
        "index.html": b"<h1>index</h1>",
        "sub/index.html": b"<h1>sub</h1>",
        "a.txt": content("a.txt"),
        "data.bin": content("data.bin"),
        "big.bin": BIG,
        "empty.txt": b"",
        "style.css": b"a{}",
        "script.js": b"1",
        "data.json": b"{}",
        "picture.png": b"\x89PNG",
        "picture.svg": b"<svg/>",
        "UPPER.TXT": b"upper",
        "no-ending": b"?",
        "with space.txt": b"space",
        "100%.txt": b"percent",
        "\u00e4\u20ac.txt": b"utf-8",
        "<b>&\".txt": b"escape me",
        "bare/x.txt": b"x",
        "bare/inner/y.txt": b"y",
        ".hidden/x.txt": SECRET.encode(),
        ".htaccess": SECRET.encode(),
        "sub/.git/config": SECRET.encode(),
        ".well-known/acme-challenge/token": b"token",
        ".well-known/.secret": SECRET.encode(),
        "sub/.well-known/x": SECRET.encode(),
    }
    aged = time.time() - 1000  # as a strong validator has to be
    for name, data in files.items():
        (root / name).write_bytes(data)
        os.utime(root / name, (aged, aged))
    links = {
        "link-in.txt": "a.txt",
        "link-out.txt": "../secret.txt",
        "link-absolute.txt": str(folder / "secret.txt"),
        "link-folder-out": "..",
        "bare/link-out.txt": "../../secret.txt",
        "loop": "loop",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    return root
