"""Programs that people use: curl, wrk, h2load, openssl s_client."""
import re
import subprocess
from pathlib import Path

import pytest

from lib.clock import PATIENCE, SLOW
from lib.config import Listener
from lib.models import Model
from lib.site import BASIC_ROUTES, BIG, DATA, SECRET, Site


def run(*command: str | Path, say: bytes = b"") -> str:
    done = subprocess.run(command, input=say, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("latin-1")


@pytest.fixture
def curl(site: Site, certificates):
    """curl against the site; paths are made URLs."""

    def call(*words: str | Path) -> str:
        name = ["--connect-to", f"one.test:{site.main.port}:127.0.0.1:{site.main.port}"]
        trusted = ["--cacert", certificates["one"].certificate] if site.secure else []
        urls = [site.main.url + w if isinstance(w, str) and w.startswith("/") else w for w in words]
        return run("curl", "--silent", "--show-error", "--max-time", str(PATIENCE), *name, *trusted, *urls)

    return call


def test_curl_verbs(curl, site: Site) -> None:
    assert curl("/hello") == "Hello, World!"
    assert curl("--head", "/hello").startswith("HTTP/1.1 200 OK\r\n")
    assert curl("--data", "posted", "/echo") == "posted"
    assert curl("--request", "PUT", "--data", "put", "/echo") == "put"
    assert "Allow:" in curl("--include", "--request", "OPTIONS", "/hello")
    assert curl("--request", "DELETE", "--include", "/hello").startswith("HTTP/1.1 405 ")
    assert curl("--request", "BREW", "--include", "/hello").startswith("HTTP/1.1 501 ")
    assert curl("--include", "/nowhere").startswith("HTTP/1.1 404 ")


def test_curl_http_1_0(curl) -> None:
    assert curl("--http1.0", "/hello") == "Hello, World!"
    assert curl("--http1.0", "--data", "old", "/echo") == "old"


def test_curl_keeps_the_connection(curl) -> None:
    assert curl("--write-out", " %{num_connects} ", "/hello", "/hello", "/gone") == "Hello, World! 1 Hello, World! 0 long gone 0 "


def test_curl_uploads(curl, tmp_path: Path) -> None:
    """With a length and an expectation, and in chunks."""
    file, back = tmp_path / "file", tmp_path / "back"
    file.write_bytes(BIG)
    for framing in ([], ["--header", "Transfer-Encoding: chunked"], ["--header", "Expect: 100-continue"]):
        curl("--upload-file", file, *framing, "--output", back, "/echo")
        assert back.read_bytes() == BIG


def test_curl_files(curl, tmp_path: Path) -> None:
    out = tmp_path / "out"
    curl("--output", out, "/files/big.bin")
    assert out.read_bytes() == BIG
    curl("--output", out, "--range", "100-199", "/files/data.bin")
    assert out.read_bytes() == DATA[100:200]
    out.write_bytes(DATA[:5000])
    curl("--output", out, "--continue-at", "-", "/files/data.bin")
    assert out.read_bytes() == DATA
    assert SECRET not in curl("--path-as-is", "/files/../secret.txt")
    assert curl("--location", "/files/sub") == "<h1>sub</h1>"


def test_curl_asks_for_what_has_changed(curl, tmp_path: Path) -> None:
    tag = tmp_path / "tag"
    assert curl("--etag-save", tag, "--include", "/files/a.txt").startswith("HTTP/1.1 200 ")
    assert curl("--etag-compare", tag, "--include", "/files/a.txt").startswith("HTTP/1.1 304 ")


def test_curl_over_a_unix_socket(serve, model: Model) -> None:
    server = serve(model, Listener("main", model.name, BASIC_ROUTES, address="unix:web.sock"))
    assert run("curl", "--silent", "--unix-socket", server.folder / "web.sock", "http://localhost/hello") == "Hello, World!"


def test_wrk(site: Site) -> None:
    report = run("wrk", "-t1", "-c16", "-d1s", f"{'https' if site.secure else 'http'}://127.0.0.1:{site.main.port}/hello")
    assert "Socket errors" not in report and "Non-2xx" not in report, report
    assert int(re.search(r"(\d+) requests in", report)[1]) >= 500 / SLOW


@pytest.mark.parametrize("path", ["/hello", "/files/data.bin"])
def test_h2load(site: Site, path: str) -> None:
    url = f"{'https' if site.secure else 'http'}://127.0.0.1:{site.main.port}{path}"
    report = run("h2load", "--h1", "-n", "1000", "-c", "10", "-m", "10", url)
    assert "1000 succeeded, 0 failed, 0 errored, 0 timeout" in report, report


def test_s_client(site: Site, certificates) -> None:
    if not site.secure:
        pytest.skip("TLS only")
    trusted = ["-CAfile", certificates["one"].certificate, "-verify_return_error", "-servername", "one.test", "-verify_hostname", "one.test"]
    say = b"GET /hello HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n"
    out = run("openssl", "s_client", "-connect", f"127.0.0.1:{site.main.port}", "-ign_eof", *trusted, say=say)
    assert "Verification: OK" in out and "Hello, World!" in out
