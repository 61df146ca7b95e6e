"""TLS: certificates by name, versions, ALPN, resumption in whichever process answers."""
import signal
import socket
import ssl
import subprocess

import pytest

from lib import proc
from lib.clock import PATIENCE, eventually
from lib.config import Certificate, Listener
from lib.models import Model
from lib.raw import WAYS, PlainLink, TlsLink, Way, Wire, request
from lib.server import BINARY, Endpoint, Server
from lib.site import BASIC_ROUTES, SIZES, tcp

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def listener(model: Model, name: str, certificates: list[Certificate], min_version: str = "1.2", **options) -> Listener:
    return Listener(name, model.name, BASIC_ROUTES, certificates=certificates, min_version=min_version, options=SIZES | options)


@pytest.fixture(scope="module")
def server(serve_many, model: Model, certificates: dict[str, Certificate]) -> Server:
    """"one" and "two" have a certificate each, "both" has the two, "new" wants TLS 1.3."""
    one, two = certificates["one"], certificates["two"]
    return serve_many(
        model,
        listener(model, "one", [one]),
        listener(model, "two", [two]),
        listener(model, "both", [one, two]),
        listener(model, "new", [one], min_version="1.3"),
    )


@pytest.fixture
def one(server: Server) -> Endpoint:
    return server["one"]


def client(version: ssl.TLSVersion | None = None, alpn: list[str] | None = None) -> ssl.SSLContext:
    """One that believes everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def connect(endpoint: Endpoint, context: ssl.SSLContext, name: str | None = "one.test", session=None) -> Wire:
    return Wire(TlsLink(endpoint.dial(), context, name, session))


def certificate_shown(endpoint: Endpoint, name: str | None) -> bytes:
    with connect(endpoint, client(), name) as wire:
        assert wire.ask("/hello").status == 200
        return wire.link.tls.getpeercert(binary_form=True)


def test_certificate_is_chosen_by_name(server: Server, certificates) -> None:
    one, two = (ssl.PEM_cert_to_DER_cert(certificates[n].certificate.read_text()) for n in ("one", "two"))
    assert one != two
    for name in ("one.test", "ONE.test", "localhost", "unknown.test", "a.b.wild.test", "wild.test", None):
        assert certificate_shown(server["both"], name) == one, name
    for name in ("two.test", "Two.Test", "a.wild.test", "B.WILD.test"):
        assert certificate_shown(server["both"], name) == two, name


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_versions(one: Endpoint, version) -> None:
    with connect(one, client(version)) as wire:
        assert wire.link.tls.version() == version.name.replace("_", ".")
        assert wire.ask("/hello").status == 200


def test_newest_version_is_preferred(one: Endpoint) -> None:
    with connect(one, client()) as wire:
        assert wire.link.tls.version() == "TLSv1.3"


def test_min_version(server: Server) -> None:
    with pytest.raises(ssl.SSLError):
        connect(server["new"], client(TLS_1_2))
    with connect(server["new"], client(TLS_1_3)) as wire:
        assert wire.ask("/hello").status == 200


@pytest.mark.parametrize("version", ["tls1", "tls1_1"])
def test_old_versions_are_refused(one: Endpoint, version: str) -> None:
    done = s_client(one, f"-{version}", "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in done or "alert protocol version" in done, done
    assert one.ask("/hello").status == 200


def test_alpn(one: Endpoint) -> None:
    offers = {(): None, ("http/1.1",): "http/1.1", ("h2", "http/1.1"): "http/1.1", ("http/1.0",): "http/1.0"}
    for offered, chosen in offers.items():
        with connect(one, client(alpn=list(offered))) as wire:
            assert wire.link.tls.selected_alpn_protocol() == chosen
            assert wire.ask("/hello").status == 200
    with pytest.raises(ssl.SSLError):
        connect(one, client(alpn=["h2"]))


def s_client(endpoint: Endpoint, *options: str, say: str = "") -> str:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{endpoint.port}", "-servername", "one.test", *options]
    done = subprocess.run(command, input=say, capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout + done.stderr


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_session_resumes_with_s_client(one: Endpoint, tmp_path, version: str) -> None:
    say = "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    kept = str(tmp_path / "session")
    first = s_client(one, f"-{version}", "-ign_eof", "-sess_out", kept, say=say)
    assert "New, TLS" in first and "Hello, World!" in first, first
    for _ in range(4):
        again = s_client(one, f"-{version}", "-ign_eof", "-sess_in", kept, say=say)
        assert "Reused, TLS" in again and "Hello, World!" in again, again


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_session_resumes_in_whichever_process_answers(server: Server, model: Model, version) -> None:
    """Connections are held open, so that later ones go to other workers where there are some."""
    one, context = server["one"], client(version)
    with connect(one, context) as wire:
        wire.ask("/hello")
        session = wire.link.tls.session
    wires = [connect(one, context, session=session) for _ in range(12)]
    for wire in wires:
        assert wire.ask("/hello").status == 200
        assert wire.link.tls.session_reused
    holding = [w for w in server.listener_status("one")["workers"] if w["connections"]]
    if model.sized_by == "processes":
        assert len(holding) == SIZES["processes"]
    for wire in wires:
        wire.close()


def test_sessions_outlive_a_worker(serve, model: Model, certificates) -> None:
    server = serve(model, listener(model, "main", [certificates["one"]], processes=1))
    main, context = server["main"], client(TLS_1_3)
    with connect(main, context) as wire:
        wire.ask("/hello")
        session = wire.link.tls.session
    [worker] = server.workers("main")
    server.deaths_expected = 1
    proc.send(worker, signal.SIGKILL)

    def resumes() -> bool:
        with connect(main, context, session=session) as wire:
            assert wire.ask("/hello").status == 200
            return wire.link.tls.session_reused

    eventually(resumes)


def test_client_without_a_handshake_hurts_nobody(server: Server, one: Endpoint) -> None:
    connections = lambda: server.listener_status("one")["connections"]
    failed = eventually(lambda: connections()["open"] == 0 and connections())["handshakes_failed"]
    for junk in (b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", bytes(100), b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01"):
        with one.dial() as sock:
            sock.sendall(junk)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while data := sock.recv(4096):
                    answer += data
            except ConnectionResetError:
                pass
            assert b"Hello" not in answer
    assert one.ask("/hello").status == 200
    eventually(lambda: connections()["handshakes_failed"] == failed + 4)
    eventually(lambda: connections()["open"] == 0)


def test_ending_without_close_notify_is_an_end(server: Server, one: Endpoint) -> None:
    with connect(one, client()) as wire:
        assert wire.ask("/hello").status == 200
        wire.sock.shutdown(socket.SHUT_WR)
        eventually(lambda: server.listener_status("one")["connections"]["open"] == 0)


def test_rsa_and_ecdsa(server: Server) -> None:
    for name in ("one", "two"):
        for version in (TLS_1_2, TLS_1_3):
            with connect(server[name], client(version), f"{name}.test") as wire:
                assert wire.ask("/hello").status == 200


# --- plain HTTP where TLS is spoken --------------------------------------------------------------

PLAIN = "The plain HTTP request was sent to HTTPS port"
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]


@pytest.fixture(scope="module")
def mistaken(serve_many, model: Model, certificates: dict[str, Certificate]) -> Server:
    one = [certificates["one"]]
    return serve_many(
        model,
        listener(model, "main", one, access_log="access.log", log_format="common"),
        tcp("tcp", model, one, **SIZES),
    )


def in_the_clear(endpoint: Endpoint) -> Wire:
    return Wire(PlainLink(endpoint.dial()))


@pytest.mark.parametrize("way", WAYS)
def test_plain_http_is_told(mistaken: Server, way: Way) -> None:
    with in_the_clear(mistaken["main"]) as wire:
        wire.send(request("/hello"), way)
        a = wire.answer()
        assert (a.status, a.closes) == (400, True)
        assert PLAIN in a.text and a.one("Server") == "Modus"
        wire.expect_end()


@pytest.mark.parametrize("method", METHODS)
def test_plain_http_of_each_method(mistaken: Server, method: str) -> None:
    with in_the_clear(mistaken["main"]) as wire:
        wire.send(request("one.test:443" if method == "CONNECT" else "/hello", method))
        assert wire.answer(method).status == 400
        wire.expect_end()


def test_plain_http_with_a_large_body(mistaken: Server) -> None:
    """The answer survives what was sent and never read."""
    with in_the_clear(mistaken["main"]) as wire:
        wire.send(request("/echo", "POST", body=b"x" * 300_000))
        assert PLAIN in wire.answer().text
        wire.finish()
        wire.expect_end()


def test_plain_http_is_logged_and_counted(mistaken: Server) -> None:
    eventually(lambda: mistaken.listener_status("main")["connections"]["open"] == 0)  # those of other tests
    before = mistaken.listener_status("main")
    start = (mistaken.folder / "access.log").stat().st_size
    with in_the_clear(mistaken["main"]) as wire:
        wire.ask("/hello?plain")
    line = eventually(lambda: (mistaken.folder / "access.log").read_text()[start:])
    assert '"GET /hello?plain HTTP/1.1" 400 ' in line

    def counted() -> bool:
        after = mistaken.listener_status("main")
        assert after["requests"]["answers"]["4xx"] == before["requests"]["answers"]["4xx"] + 1
        assert after["connections"]["handshakes_failed"] == before["connections"]["handshakes_failed"] + 1
        assert (after["connections"]["open"], after["requests"]["active"]) == (0, 0)
        return True

    eventually(counted)


GARBAGE = [b"GETX / HTTP/1.1\r\n\r\n", b"get / HTTP/1.1\r\n\r\n", b"GET\t/ HTTP/1.1\r\n\r\n", b"HELLO there\r\n", b"G", b"GET", b"G\0\0\0\0", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"\x80\x2e\x01", b"\0" * 100, b"\x16\x03\x01\x02\0GET / HTTP/1.1\r\n", bytes(range(256))]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_gets_no_http(mistaken: Server, garbage: bytes) -> None:
    for way in WAYS:
        with in_the_clear(mistaken["main"]) as wire:
            try:
                wire.send(garbage, way)
                wire.finish()
                assert not wire.read_to_end().startswith(b"HTTP")
            except OSError:
                pass  # a reset is an answer too
    with connect(mistaken["main"], client()) as wire:
        assert wire.ask("/hello").status == 200


def test_plain_http_to_a_tcp_listener(mistaken: Server) -> None:
    """Nobody said that HTTP is spoken there."""
    with in_the_clear(mistaken["tcp"]) as wire:
        try:
            wire.send(request("/hello"))
            assert not wire.read_to_end().startswith(b"HTTP")
        except OSError:
            pass


def test_curl_in_the_clear(mistaken: Server) -> None:
    done = subprocess.run(
        ["curl", "-sS", "--max-time", str(PATIENCE), "-i", f"http://127.0.0.1:{mistaken['main'].port}/hello"],
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"HTTP/1.1 400 Bad Request\r\n") and PLAIN.encode() in done.stdout


# --- files that are wrong ------------------------------------------------------------------------


def wrong_pairs(certificates: dict[str, Certificate], tmp_path) -> dict[str, Certificate]:
    one, two = certificates["one"], certificates["two"]
    garbage, empty = tmp_path / "garbage.pem", tmp_path / "empty.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    empty.write_text("")
    return {
        "another's key": Certificate(one.certificate, two.key),
        "a key as certificate": Certificate(one.key, one.key),
        "a certificate as key": Certificate(one.certificate, one.certificate),
        "garbage": Certificate(garbage, one.key),
        "nothing": Certificate(empty, one.key),
        "a missing certificate": Certificate(tmp_path / "missing.pem", one.key),
        "a missing key": Certificate(one.certificate, tmp_path / "missing.key"),
        "a folder": Certificate(tmp_path, one.key),
    }


def test_wrong_files_are_refused(model: Model, certificates, tmp_path) -> None:
    for what, pair in wrong_pairs(certificates, tmp_path).items():
        config = tmp_path / "modus.conf"
        config.write_text(listener(model, "main", [pair]).text() + "\n")
        line = next(i for i, l in enumerate(config.read_text().splitlines(), 1) if "tls {" in l)
        for command in ([BINARY, "-t", "-c", config], [BINARY, "-c", config]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            assert done.returncode == 1, what
            assert done.stderr.startswith(f"{config}:{line}: ") and done.stderr.count("\n") == 1, (what, done.stderr)
