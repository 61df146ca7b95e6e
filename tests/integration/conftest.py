"""Fixtures: servers, documents, certificates, and a hard end for each test.

    make && /usr/bin/python3 -m pytest tests/integration
    MODUS=build/asan/modus MODUS_TEST_SLOW=4 /usr/bin/python3 -m pytest tests/integration

A test that takes `site` runs for every model, plain and over TLS, and shares its server with others;
one that takes `model` and `serve` starts its own."""
import os
import signal
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Iterator

import pytest

from lib.clock import SLOW
from lib.config import Certificate, Listener
from lib.models import MODELS, Model
from lib.server import BINARY, Server
from lib.site import Site, listeners, watch, write_documents


def pytest_sessionstart() -> None:
    if not BINARY.exists():
        pytest.exit(f"{BINARY} is not there: build it first, or set MODUS", returncode=2)


def pytest_terminal_summary(terminalreporter) -> None:
    """For tests/suite.sh, which sums up."""
    def count(*kinds: str) -> int:
        return sum(len(terminalreporter.stats.get(kind, [])) for kind in kinds)

    if file := os.environ.get("MODUS_TEST_COUNTS"):
        Path(file).write_text(f"{count('passed')} {count('failed', 'error')}\n")


@pytest.fixture(autouse=True)
def _hard_end(request: pytest.FixtureRequest) -> Iterator[None]:
    marker = request.node.get_closest_marker("limit")
    seconds = (marker.args[0] if marker else 20) * SLOW

    def give_up(*_) -> None:
        raise TimeoutError(f"the test has not ended within {seconds:g} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


# --- what is served --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def documents() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="modus-documents-") as folder:
        Path(folder).chmod(0o755)
        yield write_documents(Path(folder))


def make_certificate(folder: Path, name: str, names: str, *key: str) -> Certificate:
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-nodes", "-days", "30", "-newkey", *key, "-subj", f"/CN={name}"]
    command += ["-addext", f"subjectAltName={names}", "-out", made.certificate, "-keyout", made.key]
    subprocess.run(command, check=True, capture_output=True)
    return made


@pytest.fixture(scope="session")
def certificates() -> Iterator[dict[str, Certificate]]:
    """By name: "one" is the default everywhere (one.test, localhost), "two" is two.test and *.wild.test."""
    with tempfile.TemporaryDirectory(prefix="modus-certificates-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield {
            "one": make_certificate(
                folder, "one", "DNS:one.test,DNS:localhost,IP:127.0.0.1", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"
            ),
            "two": make_certificate(folder, "two", "DNS:two.test,DNS:*.wild.test", "rsa:2048"),
        }


@pytest.fixture(scope="session")
def trust(certificates: dict[str, Certificate]) -> ssl.SSLContext:
    """A client that believes our certificates and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for c in certificates.values():
        context.load_verify_locations(c.certificate)
    return context


# --- servers ---------------------------------------------------------------------------------

SITES = [pytest.param((m, secure), id=f"{m}-{'tls' if secure else 'plain'}") for m in MODELS for secure in (False, True)]


@pytest.fixture(scope="session", params=SITES)
def site(
    request: pytest.FixtureRequest,
    documents: Path,
    certificates: dict[str, Certificate],
    trust: ssl.SSLContext,
) -> Iterator[Site]:
    model, secure = request.param
    server = Server(listeners(model, documents, [certificates["one"]] if secure else []), {}, trust)
    yield Site(model, secure, server)
    server.stop()


@pytest.fixture(scope="session", params=MODELS, ids=str)
def model(request: pytest.FixtureRequest) -> Model:
    return request.param


@pytest.fixture(scope="session", params=[m for m in MODELS if m.queued], ids=str)
def queued_model(request: pytest.FixtureRequest) -> Model:
    return request.param


def servers(trust: ssl.SSLContext) -> Iterator[Callable[..., Server]]:
    """Start servers that are stopped, and looked after, at the end. Options go to the top of the file;
    a listener that tells the status comes along."""
    started: list[Server] = []

    def start(model: Model, *sections: Listener, nofile: tuple[int, int] | None = None, binary: Path = BINARY, environment: dict | None = None, **options) -> Server:
        started.append(Server([*sections, watch(model)], options, trust, nofile, binary, environment))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def serve(trust: ssl.SSLContext) -> Iterator[Callable[..., Server]]:
    """For a test that needs servers of its own."""
    yield from servers(trust)


@pytest.fixture(scope="module")
def serve_many(trust: ssl.SSLContext) -> Iterator[Callable[..., Server]]:
    """For a file's fixtures whose servers several tests share."""
    yield from servers(trust)
