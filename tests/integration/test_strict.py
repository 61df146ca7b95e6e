"""What is not HTTP is refused, with the right status and the end of the connection, whole, byte by
byte and in random cuts. Whatever llhttp is linked passes some of these: RFC 9112 is the measure."""
import pytest

from lib.raw import WAYS, chunked, request
from lib.site import Site

HOST = b"Host: localhost\r\n"


def line(text: bytes) -> bytes:
    """A request with this request line."""
    return text + b"\r\n" + HOST + b"\r\n"


def header(*lines: bytes) -> bytes:
    """A request with these lines behind Host, each with its own end."""
    return b"GET /hello HTTP/1.1\r\n" + HOST + b"".join(lines) + b"\r\n"


def body(framing: bytes, data: bytes, version: bytes = b"1.1") -> bytes:
    return b"GET /hello HTTP/" + version + b"\r\n" + HOST + framing + b"\r\n" + data


def chunks(data: bytes) -> bytes:
    return body(b"Transfer-Encoding: chunked\r\n", data)


CHUNKED = chunked(b"hello")

BAD = {
    # the request line
    "garbage": b"\x00\x01\x02\x03\r\n\r\n",
    "empty method": line(b" /hello HTTP/1.1"),
    "no target": line(b"GET  HTTP/1.1"),
    "method alone": line(b"GET"),
    "two spaces before the target": line(b"GET  /hello HTTP/1.1"),
    "two spaces before the version": line(b"GET /hello  HTTP/1.1"),
    "space at the end": line(b"GET /hello HTTP/1.1 "),
    "space at the beginning": line(b" GET /hello HTTP/1.1"),
    "tab before the target": line(b"GET\t/hello HTTP/1.1"),
    "tab before the version": line(b"GET /hello\tHTTP/1.1"),
    "space in the target": line(b"GET /he llo HTTP/1.1"),
    "HTTP/0.9": b"GET /hello\r\n\r\n",
    "HTTP/0.9 with headers": line(b"GET /hello"),
    "version in small letters": line(b"GET /hello http/1.1"),
    "version without dot": line(b"GET /hello HTTP/11"),
    "version without minor": line(b"GET /hello HTTP/1."),
    "version with two digits": line(b"GET /hello HTTP/1.10"),
    "version with three parts": line(b"GET /hello HTTP/1.1.1"),
    "version with a blank": line(b"GET /hello HTTP/ 1.1"),
    "version with a sign": line(b"GET /hello HTTP/+1.1"),
    "RTSP": line(b"GET /hello RTSP/1.0"),
    "ICE": line(b"GET /hello ICE/1.0"),
    "SOURCE over ICE": line(b"SOURCE /hello ICE/1.0"),
    "method with a bracket": line(b"GE(T /hello HTTP/1.1"),
    "method with a colon": line(b"GET: /hello HTTP/1.1"),
    "NUL in the method": line(b"G\0ET /hello HTTP/1.1"),
    "NUL in the target": line(b"GET /he\0llo HTTP/1.1"),
    "NUL in the version": line(b"GET /hello HTTP/1.1\0"),
    "control character in the target": line(b"GET /he\x01llo HTTP/1.1"),
    "DEL in the target": line(b"GET /he\x7fllo HTTP/1.1"),
    "raw UTF-8 in the target": line("GET /h\u00e9llo HTTP/1.1".encode()),
    "fragment": line(b"GET /hello#top HTTP/1.1"),
    "target without a slash": line(b"GET hello HTTP/1.1"),
    "authority form": line(b"GET localhost:80 HTTP/1.1"),
    "asterisk with GET": line(b"GET * HTTP/1.1"),
    "asterisk with a path": line(b"OPTIONS */hello HTTP/1.1"),
    "absolute form without a host": line(b"GET http:///hello HTTP/1.1"),
    "absolute form of another scheme": line(b"GET ftp://localhost/hello HTTP/1.1"),
    "escaped NUL": line(b"GET /hello%00 HTTP/1.1"),
    "escape cut short": line(b"GET /hello%2 HTTP/1.1"),
    "escape that is none": line(b"GET /hello%zz HTTP/1.1"),
    "percent alone": line(b"GET /hello% HTTP/1.1"),
    "bare LF after the request line": b"GET /hello HTTP/1.1\nHost: localhost\r\n\r\n",
    "bare LF everywhere": b"GET /hello HTTP/1.1\nHost: localhost\n\n",
    "bare LF before the request": b"\nGET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bare CR after the request line": b"GET /hello HTTP/1.1\rHost: localhost\r\n\r\n",
    "CR twice after the request line": b"GET /hello HTTP/1.1\r\r\nHost: localhost\r\n\r\n",
    "blank before the first header": b"GET /hello HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "blank line with a space": b"GET /hello HTTP/1.1\r\n \r\nHost: localhost\r\n\r\n",
    # headers
    "no Host": b"GET /hello HTTP/1.1\r\n\r\n",
    "no Host but others": b"GET /hello HTTP/1.1\r\nX-Host: localhost\r\n\r\n",
    "two Hosts": header(b"Host: elsewhere\r\n"),
    "the same Host twice": header(HOST),
    "two Hosts in HTTP/1.0": b"GET /hello HTTP/1.0\r\n" + HOST + HOST + b"\r\n",
    "Host with a blank inside": b"GET /hello HTTP/1.1\r\nHost: a b\r\n\r\n",
    "Host with a slash": b"GET /hello HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "Host with a user": b"GET /hello HTTP/1.1\r\nHost: user@a\r\n\r\n",
    "Host with a control character": b"GET /hello HTTP/1.1\r\nHost: a\x01\r\n\r\n",
    "space before the colon of Host": b"GET /hello HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "space before a colon": header(b"X : y\r\n"),
    "tab before a colon": header(b"X\t: y\r\n"),
    "obs-fold": header(b"X: a\r\n b\r\n"),
    "obs-fold with a tab": header(b"X: a\r\n\tb\r\n"),
    "obs-fold of nothing": header(b"X: a\r\n \r\n"),
    "header without a colon": header(b"X\r\n"),
    "header without a name": header(b": y\r\n"),
    "blank in a name": header(b"X y: z\r\n"),
    "bracket in a name": header(b"X(: z\r\n"),
    "NUL in a name": header(b"X\0: z\r\n"),
    "control character in a name": header(b"X\x01: z\r\n"),
    "UTF-8 in a name": header("X\u00e9: z\r\n".encode()),
    "NUL in a value": header(b"X: a\0b\r\n"),
    "control character in a value": header(b"X: a\x01b\r\n"),
    "DEL in a value": header(b"X: a\x7fb\r\n"),
    "vertical tab in a value": header(b"X: a\x0bb\r\n"),
    "bare CR in a value": header(b"X: a\rb\r\n"),
    "bare CR at the end of a value": header(b"X: a\r\r\n"),
    "bare LF after a header": header(b"X: a\n"),
    "bare LF at the end of the head": b"GET /hello HTTP/1.1\r\n" + HOST + b"\n",
    "smuggled coding behind a CR": header(b"X:\rxTransfer-Encoding: chunked\r\n"),
    # framing
    "length and coding": body(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", CHUNKED),
    "coding and length": body(b"Transfer-Encoding: chunked\r\nContent-Length: 15\r\n", CHUNKED),
    "coding in HTTP/1.0": body(b"Transfer-Encoding: chunked\r\n", CHUNKED, b"1.0"),
    "gzip": body(b"Transfer-Encoding: gzip\r\n", CHUNKED),
    "identity": body(b"Transfer-Encoding: identity\r\n", CHUNKED),
    "chunked, then gzip": body(b"Transfer-Encoding: chunked, gzip\r\n", CHUNKED),
    "chunked twice": body(b"Transfer-Encoding: chunked, chunked\r\n", CHUNKED),
    "chunked on two lines": body(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CHUNKED),
    "chunked and identity on two lines": body(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", CHUNKED),
    "xchunked": body(b"Transfer-Encoding: xchunked\r\n", CHUNKED),
    "chunkedx": body(b"Transfer-Encoding: chunkedx\r\n", CHUNKED),
    "chunked behind a vertical tab": body(b"Transfer-Encoding:\x0bchunked\r\n", CHUNKED),
    "chunked in quotes": body(b'Transfer-Encoding: "chunked"\r\n', CHUNKED),
    "space before the colon of a coding": body(b"Transfer-Encoding : chunked\r\n", CHUNKED),
    "folded coding": body(b"Transfer-Encoding:\r\n chunked\r\n", CHUNKED),
    "negative length": body(b"Content-Length: -5\r\n", b"hello"),
    "length with a plus": body(b"Content-Length: +5\r\n", b"hello"),
    "hexadecimal length": body(b"Content-Length: 0x5\r\n", b"hello"),
    "length with letters": body(b"Content-Length: 5a\r\n", b"hello"),
    "length with a blank": body(b"Content-Length: 5 5\r\n", b"hello"),
    "length with a point": body(b"Content-Length: 5.0\r\n", b"hello"),
    "empty length": body(b"Content-Length:\r\n", b"hello"),
    "list of lengths": body(b"Content-Length: 5, 5\r\n", b"hello"),
    "two lengths": body(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"),
    "the same length twice": body(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"),
    "space before the colon of a length": body(b"Content-Length : 5\r\n", b"hello"),
    # chunks
    "chunk size of letters": chunks(b"x\r\nhello\r\n0\r\n\r\n"),
    "empty chunk size": chunks(b"\r\nhello\r\n0\r\n\r\n"),
    "negative chunk size": chunks(b"-5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with a plus": chunks(b"+5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with 0x": chunks(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "blank before a chunk size": chunks(b" 5\r\nhello\r\n0\r\n\r\n"),
    "blank behind a chunk size": chunks(b"5 \r\nhello\r\n0\r\n\r\n"),
    "underscore in a chunk size": chunks(b"1_0\r\n" + b"h" * 16 + b"\r\n0\r\n\r\n"),
    "chunk size of 17 digits": chunks(b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "chunk size with bare LF": chunks(b"5\nhello\r\n0\r\n\r\n"),
    "chunk size with bare CR": chunks(b"5\rhello\r\n0\r\n\r\n"),
    "chunk ended by XX": chunks(b"5\r\nhelloXX0\r\n\r\n"),
    "chunk ended by bare LF": chunks(b"5\r\nhello\n0\r\n\r\n"),
    "chunk that is too long": chunks(b"5\r\nhello!\r\n0\r\n\r\n"),
    "chunk that is too short": chunks(b"5\r\nhell\r\n0\r\n\r\n"),
    "bare LF in a chunk extension": chunks(b"5;a=b\nhello\r\n0\r\n\r\n"),
    "bare CR in a chunk extension": chunks(b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    "NUL in a chunk extension": chunks(b"5;a\0\r\nhello\r\n0\r\n\r\n"),
    "endless chunk extension": chunks(b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n"),
    "bare LF at the end of the chunks": chunks(b"5\r\nhello\r\n0\r\n\n"),
    "trailer without a colon": chunks(b"0\r\nX\r\n\r\n"),
    "trailer with a blank before the colon": chunks(b"0\r\nX : y\r\n\r\n"),
    "folded trailer": chunks(b"0\r\nX: y\r\n z\r\n\r\n"),
    "bare CR in a trailer": chunks(b"0\r\nX: y\rz\r\n\r\n"),
    "NUL in a trailer": chunks(b"0\r\nX: y\0\r\n\r\n"),
}

OTHER = {
    "HTTP/2.0": (line(b"GET /hello HTTP/2.0"), 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/3.0": (line(b"GET /hello HTTP/3.0"), 505),
    "HTTP/0.9 by name": (line(b"GET /hello HTTP/0.9"), 505),
    "HTTP/1.2": (line(b"GET /hello HTTP/1.2"), 505),
    "gzip, chunked": (body(b"Transfer-Encoding: gzip, chunked\r\n", CHUNKED), 501),
    "huge length": (body(b"Content-Length: 99999999999999999999\r\n", b"hello"), 413),
    "length beyond 64 bits": (body(b"Content-Length: 18446744073709551621\r\n", b"hello"), 413),
}

CASES = [pytest.param(data, 400, id=name) for name, data in BAD.items()]
CASES += [pytest.param(data, status, id=name) for name, (data, status) in OTHER.items()]


@pytest.mark.parametrize("data, status", CASES)
def test_refused(site: Site, data: bytes, status: int) -> None:
    for way in WAYS if len(data) < 5000 else WAYS[::2]:
        with site.main.connect() as wire:
            wire.send_if_wanted(data, way)
            a = wire.answer()
            assert (a.status, a.closes) == (status, True), way.__name__
            wire.expect_end()
    assert site.main.ask("/hello").status == 200, "others are served as before"


@pytest.mark.parametrize("data, status", CASES)
def test_refused_behind_a_good_request(site: Site, data: bytes, status: int) -> None:
    with site.main.connect() as wire:
        wire.send_if_wanted(request("/gone") + data)
        assert wire.answer().status == 410
        a = wire.answer()
        assert (a.status, a.closes) == (status, True)
        wire.expect_end()


FRAMING = [p for p in CASES if "chunk" in p.id or "trailer" in p.id]


@pytest.mark.parametrize("data, status", FRAMING)
def test_streamed_answer_is_cut(site: Site, data: bytes, status: int) -> None:
    """An answer that has begun when the body turns out to be wrong must not look complete."""
    with site.main.connect() as wire:
        wire.send_if_wanted(data.replace(b"GET /hello", b"POST /echo"))
        try:
            a = wire.answer("POST")
        except ConnectionError:
            return
        assert (a.status, a.closes) == (status, True)


@pytest.mark.parametrize(
    "lines, status",
    [
        (b"Host:\r\n", 200),
        (b"Host: [::1]:8080\r\n", 200),
        (b"hOST:localhost\r\n", 200),
        (b"Host: \t localhost \t \r\n", 200),
        (HOST + b"X:\r\nY: \r\n", 200),
        (HOST + "X: \u00e9\r\n".encode(), 200),
        (HOST + b"X: tab\there\r\n", 200),
        (HOST + b"!#$%&'*+-.^_`|~0aZ: y\r\n", 200),
        (HOST + b"Content-Length: 0\r\n", 200),
        (HOST + b"Content-Length: 000\r\n", 200),
    ],
)
def test_unusual_but_right(site: Site, lines: bytes, status: int) -> None:
    for way in WAYS:
        with site.main.connect() as wire:
            wire.send(b"GET /hello HTTP/1.1\r\n" + lines + b"\r\n", way)
            assert wire.answer().status == status
            assert wire.ask("/hello").status == 200, "the connection goes on"


def test_tls_to_a_plain_port_and_plain_to_a_tls_port(site: Site) -> None:
    hello = bytes.fromhex("1603010200010001fc0303") + bytes(200)
    with site.main.dial() as sock:
        sock.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n" if site.secure else hello)
        said = b""
        while data := sock.recv(65536):
            said += data
    assert b"Hello" not in said
    assert site.secure or said.startswith(b"HTTP/1.1 400 ")
    assert site.main.ask("/hello").status == 200
