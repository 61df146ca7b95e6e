"""Bodies in both directions: framing, streaming, back-pressure, expectations."""
import random

import pytest

from lib.raw import WAYS, chunked, request
from lib.site import Site

DICE = random.Random(3)
MEGABYTES = DICE.randbytes(5 << 20)


def post_chunked(framed: bytes, fields: str = "") -> bytes:
    head = f"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{fields}\r\n"
    return head.encode() + framed


@pytest.mark.parametrize("size", [0, 1, 2, 100, 4095, 4096, 4097, 16384, 65536, 200_000])
def test_echo_by_length(site: Site, size: int) -> None:
    data = MEGABYTES[:size]
    with site.main.connect() as wire:
        wire.pump(request("/echo", "POST", {"Content-Length": size}) + data)
        a = wire.answer("POST")
        assert (a.status, a.body, a.one("Content-Length")) == (200, data, str(size))
        assert wire.ask("/hello").status == 200


@pytest.mark.parametrize("way", WAYS)
def test_echo_in_pieces(site: Site, way) -> None:
    data = MEGABYTES[:3000]
    with site.main.connect() as wire:
        wire.send(request("/echo", "PUT", body=data), way)
        assert wire.answer("PUT").body == data
        wire.send(post_chunked(chunked(data[:1], data[1:1000], data[1000:])), way)
        assert wire.answer("POST").body == data


def test_no_body_and_no_length(site: Site) -> None:
    a = site.main.ask("/echo", "POST")
    assert (a.status, a.body) == (200, b"")


@pytest.mark.parametrize(
    "framed, body",
    [
        (chunked(), b""),
        (chunked(b"a"), b"a"),
        (chunked(b"hello", b", ", b"world"), b"hello, world"),
        (b"00005\r\nhello\r\n000\r\n\r\n", b"hello"),
        (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
        (b"5;name\r\nhello\r\n0;last\r\n\r\n", b"hello"),
        (b'5;name=value;other="quoted; \\" text"\r\nhello\r\n0\r\n\r\n', b"hello"),
        (chunked(b"hello", trailers="X-Sum: 1\r\nY:\r\n"), b"hello"),
        (chunked(b"0\r\n\r\n"), b"0\r\n\r\n"),
    ],
)
def test_chunked_bodies(site: Site, framed: bytes, body: bytes) -> None:
    for way in WAYS:
        with site.main.connect() as wire:
            wire.send(post_chunked(framed), way)
            a = wire.answer("POST")
            assert (a.status, a.chunked, a.body) == (200, True, body)
            assert wire.ask("/hello").status == 200


def test_trailers_are_no_headers(site: Site) -> None:
    """A length in a trailer must not frame what follows."""
    with site.main.connect() as wire:
        wire.send(post_chunked(chunked(b"one", trailers="Content-Length: 100\r\nConnection: close\r\n")) + request("/gone"))
        assert wire.answer("POST").body == b"one"
        assert wire.answer().status == 410


@pytest.mark.parametrize("name", ["Transfer-Encoding: chunked", "TRANSFER-ENCODING: Chunked", "transfer-encoding:chunked \t"])
def test_chunked_is_spelled_in_any_case(site: Site, name: str) -> None:
    with site.main.connect() as wire:
        wire.send(f"POST /echo HTTP/1.1\r\nHost: x\r\n{name}\r\n\r\n".encode() + chunked(b"hello"))
        assert wire.answer("POST").body == b"hello"


def test_pipelined_bodies(site: Site) -> None:
    bodies = [b"first", b"", b"x" * 3000, b"GET /gone HTTP/1.1\r\n\r\n", b"last"]
    with site.main.connect() as wire:
        wire.send(b"".join(request("/echo", "POST", {}, b) + post_chunked(chunked(b)) for b in bodies if b))
        for b in filter(None, bodies):
            assert wire.answer("POST").body == b
            assert wire.answer("POST").body == b


@pytest.mark.parametrize("path", ["/hello", "/sleep?ms=1", "/files/a.txt", "/nowhere"])
def test_bodies_that_nobody_reads(site: Site, path: str) -> None:
    """They are passed over, and what comes behind them is the next request."""
    data = MEGABYTES[:100_000]
    with site.main.connect() as wire:
        wire.pump(request(path, "GET", body=data) + request("/gone"))
        assert wire.answer().status == (404 if path == "/nowhere" else 200)
        assert wire.answer().status == 410
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        wire.pump(head + chunked(data[:50_000], data[50_000:]) + request("/gone"))
        wire.answer()
        assert wire.answer().status == 410


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_megabytes_are_streamed(site: Site, framing: str) -> None:
    """The answer begins while the request is still being sent, so no side may wait for the other."""
    if framing == "length":
        data = request("/echo", "POST", body=MEGABYTES)
    else:
        cuts = sorted(DICE.sample(range(len(MEGABYTES)), 300))
        parts = [MEGABYTES[a:b] for a, b in zip([0, *cuts], [*cuts, None])]
        data = post_chunked(chunked(*parts))
    with site.main.connect() as wire:
        wire.pump(data)
        a = wire.answer("POST")
        assert a.chunked == (framing == "chunked")
        assert a.body == MEGABYTES
        assert wire.ask("/hello").status == 200


def test_first_bytes_come_back_before_the_last_are_sent(site: Site) -> None:
    with site.main.connect() as wire:
        wire.send(request("/echo", "POST", {"Content-Length": 10}) + b"01234")
        assert wire.head().status == 200
        assert wire.read_exactly(5) == b"01234"
        wire.send(b"56789")
        assert wire.read_exactly(5) == b"56789"


@pytest.mark.limit(30)
def test_a_reader_that_stops_stops_the_sender(site: Site) -> None:
    """Bytes wait in the kernel, not in the server: of 48 MiB less than half goes out unread."""
    size = 48 << 20
    data = (MEGABYTES * (size // len(MEGABYTES) + 1))[:size]
    sent = request("/echo", "POST", body=data)
    with site.main.connect(buffers=64 << 10) as wire:
        stalled_at = wire.send_until_stalled(sent)
        assert stalled_at < size // 2
        wire.pump(sent[stalled_at:])
        assert wire.answer("POST").body == data


def test_slow_reader_of_a_file(site: Site) -> None:
    with site.main.connect(buffers=16 << 10) as wire:
        wire.send(request("/files/big.bin"))
        a = wire.head()
        left = int(a.one("Content-Length"))
        while left:
            left -= len(wire.read_exactly(min(left, 8 << 10)))
        assert wire.ask("/hello").status == 200


# --- Expect --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
def test_continue(site: Site, value: str) -> None:
    with site.main.connect() as wire:
        wire.send(request("/echo", "POST", {"Expect": value, "Content-Length": 5}))
        interim = wire.head()
        assert (interim.status, interim.fields) == (100, [])
        wire.send(b"hello")
        assert wire.answer("POST").body == b"hello"
        assert wire.ask("/hello").status == 200


def test_continue_with_chunks(site: Site) -> None:
    with site.main.connect() as wire:
        wire.send(post_chunked(b"", "Expect: 100-continue\r\n"))
        assert wire.head().status == 100
        wire.send(chunked(b"hello"))
        assert wire.answer("POST").body == b"hello"


def test_continue_when_the_body_is_there_already(site: Site) -> None:
    with site.main.connect() as wire:
        wire.send(request("/echo", "POST", {"Expect": "100-continue"}, b"hello"))
        a = wire.head()
        while a.status == 100:
            a = wire.head()
        assert a.status == 200
        assert wire.read_exactly(5) == b"hello"


@pytest.mark.parametrize("value", ["200-ok", "100-continue, more", "100-continuex"])
def test_other_expectations_fail(site: Site, value: str) -> None:
    with site.main.connect() as wire:
        wire.send(request("/echo", "POST", {"Expect": value, "Content-Length": 5}))
        assert wire.answer("POST").status == 417


def test_http_1_0_expects_nothing(site: Site) -> None:
    with site.main.connect() as wire:
        wire.send(request("/echo", "POST", {"Expect": "100-continue", "Content-Length": 5}, version="1.0"))
        assert wire.is_quiet(0.1) or wire.head().status == 200, "no 100 to HTTP/1.0"
        wire.send(b"hello")
        assert wire.read_to_end().endswith(b"hello")


@pytest.mark.parametrize("path, method, status", [("/nowhere", "POST", 404), ("/hello", "POST", 405)])
def test_final_status_instead_of_continue(site: Site, path: str, method: str, status: int) -> None:
    with site.main.connect() as wire:
        wire.send(request(path, method, {"Expect": "100-continue", "Content-Length": 5}))
        assert wire.answer(method).status == status


def test_too_large_instead_of_continue(site: Site) -> None:
    with site.tight.connect() as wire:
        wire.send(request("/echo", "POST", {"Expect": "100-continue", "Content-Length": 65537}))
        a = wire.answer("POST")
        assert (a.status, a.closes) == (413, True)
        wire.expect_end()
