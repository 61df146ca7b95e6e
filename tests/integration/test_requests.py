"""Requests that are right: methods, routes, paths, and connections that go on."""
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.raw import WAYS, chunked, random_cuts, request
from lib.site import Site, content


@pytest.mark.parametrize("way", WAYS)
def test_get(site: Site, way) -> None:
    with site.main.connect() as wire:
        wire.send(request("/hello"), way)
        a = wire.answer()
    assert (a.status, a.reason, a.text) == (200, "OK", "Hello, World!")
    assert a.one("Content-Type") == "text/plain"
    assert a.one("Content-Length") == "13"
    assert a.one("Connection") in (None, "keep-alive")


def test_text_options(site: Site) -> None:
    a = site.main.ask("/gone")
    assert (a.status, a.text, a.one("Content-Type")) == (410, "long gone", "text/x-gone")
    a = site.main.ask("/empty")
    assert (a.status, a.body, a.one("Content-Length")) == (200, b"", "0")


@pytest.mark.parametrize("path", ["/hello", "/empty", "/sleep?ms=1", "/files/a.txt", "/files/big.bin", "/nowhere", "/echo"])
def test_head_is_get_without_its_body(site: Site, path: str) -> None:
    with site.main.connect() as wire:
        get, head = wire.ask(path), wire.ask(path, "HEAD")
        assert wire.ask("/hello").text == "Hello, World!", "the answer to HEAD had a body"
    assert get.status == head.status
    assert [f for f in get.fields if f[0] != "Date"] == [f for f in head.fields if f[0] != "Date"]


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_methods_with_a_body(site: Site, method: str) -> None:
    a = site.main.ask("/echo", method, {"Content-Type": "text/x-own"}, b"body")
    assert (a.status, a.body, a.one("Content-Type")) == (200, b"body", "text/x-own")


@pytest.mark.parametrize(
    "path, allowed",
    [("/hello", {"GET", "HEAD", "OPTIONS"}), ("/files/a.txt", {"GET", "HEAD", "OPTIONS"}), ("/echo", {"POST", "PUT", "OPTIONS"})],
)
def test_options(site: Site, path: str, allowed: set[str]) -> None:
    a = site.main.ask(path, "OPTIONS")
    assert a.status in (200, 204)
    assert a.allowed == allowed


def test_options_of_the_server(site: Site) -> None:
    a = site.main.ask("*", "OPTIONS")
    assert a.status in (200, 204)


@pytest.mark.parametrize(
    "method, path, allowed",
    [
        ("POST", "/hello", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/files/a.txt", {"GET", "HEAD", "OPTIONS"}),
        ("PATCH", "/sleep", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/echo", {"POST", "PUT", "OPTIONS"}),
    ],
)
def test_method_not_allowed(site: Site, method: str, path: str, allowed: set[str]) -> None:
    with site.main.connect() as wire:
        a = wire.ask(path, method, body=b"dropped" if method != "GET" else b"")
        assert (a.status, a.allowed) == (405, allowed)
        assert wire.ask("/hello").status == 200, "the connection goes on"


@pytest.mark.parametrize("method", ["BREW", "get", "TRACE", "CONNECT", "PROPFIND", "M-SEARCH", "GETX", "GE", "A" * 200, "!#$%&'*+-.^_`|~1"])
def test_unknown_method(site: Site, method: str) -> None:
    assert site.main.ask("localhost:80" if method == "CONNECT" else "/hello", method).status == 501


# --- routes and paths --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, text",
    [
        ("/hello", "Hello, World!"),
        ("/hello/", "Hello, World!"),
        ("/hello/a/b", "Hello, World!"),
        ("/hello/deep", "deep"),
        ("/hello/deep/x", "deep"),
        ("/hello/deeper", "Hello, World!"),
        ("/hello?x=/gone", "Hello, World!"),
        ("/hello/deep?", "deep"),
        ("/%68ello", "Hello, World!"),
        ("/%68%65%6C%6c%6F/de%65p", "deep"),
        ("//hello", "Hello, World!"),
        ("/hello//deep", "deep"),
        ("/./hello/./deep/.", "deep"),
        ("/gone/../hello", "Hello, World!"),
        ("/hello/deep/..", "Hello, World!"),
        ("/hello/x/%2e%2e/deep", "deep"),
        ("/hello/x/.%2E/deep", "deep"),
        ("/hello%2Fdeep", "deep"),
        ("/a/b/../../hello", "Hello, World!"),
        ("http://localhost/hello", "Hello, World!"),
        ("HTTP://elsewhere.test:81/hello/deep?x", "deep"),
    ],
)
def test_route(site: Site, path: str, text: str) -> None:
    a = site.main.ask(path)
    assert (a.status, a.text) == (200, text)


@pytest.mark.parametrize("path", ["/", "/hell", "/hellow", "/hello%20", "/hello.txt", "/HELLO", "/hello%3Fx", "/x/hello", "http://localhost"])
def test_no_route(site: Site, path: str) -> None:
    with site.main.connect() as wire:
        a = wire.ask(path)
        assert a.status == 404
        assert a.body and b"/" not in a.body, "a small body that tells nothing"
        assert wire.ask("/hello").status == 200, "the connection goes on"


@pytest.mark.parametrize(
    "path",
    ["/..", "/../hello", "/%2e%2e/hello", "/hello/../..", "/hello/../../hello", "/..%2fhello", "/.%2e/.%2e/etc/passwd", "//..//hello"],
)
def test_paths_above_the_root_are_refused(site: Site, path: str) -> None:
    assert site.main.ask(path).status == 400


# --- connections -------------------------------------------------------------------------------


def test_keep_alive(site: Site) -> None:
    with site.main.connect() as wire:
        for i in range(20):
            a = wire.ask("/hello" if i % 2 else "/nowhere")
            assert a.status == (200 if i % 2 else 404)
            assert not a.closes


@pytest.mark.parametrize("value", ["close", "Close", "keep-alive, close", "x, CLOSE ,y"])
def test_connection_close(site: Site, value: str) -> None:
    with site.main.connect() as wire:
        a = wire.ask("/hello", fields={"Connection": value})
        assert (a.status, a.closes) == (200, True)
        wire.expect_end()


def test_http_1_0_closes(site: Site) -> None:
    with site.main.connect() as wire:
        wire.send(request("/hello", version="1.0"))
        a = wire.answer()
        assert (a.status, a.text, a.closes) == (200, "Hello, World!", True)
        wire.expect_end()


def test_http_1_0_without_host(site: Site) -> None:
    with site.main.connect() as wire:
        wire.send(b"GET /hello HTTP/1.0\r\n\r\n")
        assert wire.answer().status == 200
        wire.expect_end()


def test_http_1_0_keep_alive(site: Site) -> None:
    with site.main.connect() as wire:
        for _ in range(3):
            wire.send(request("/hello", version="1.0", fields={"Connection": "keep-alive"}))
            a = wire.answer()
            assert (a.status, a.text, a.one("Connection")) == (200, "Hello, World!", "keep-alive")
        wire.send(request("/hello", version="1.0"))
        assert wire.answer().closes
        wire.expect_end()


def test_http_1_0_body(site: Site) -> None:
    with site.main.connect() as wire:
        wire.send(request("/echo", "POST", body=b"old body", version="1.0"))
        a = wire.answer("POST")
        assert (a.status, a.body, a.chunked) == (200, b"old body", False)
        wire.expect_end()


@pytest.mark.parametrize("way", WAYS)
def test_pipelining_in_order(site: Site, way) -> None:
    asked = [("/hello", 200), ("/nowhere", 404), ("/hello/deep", 200), ("/gone", 410)] * 4
    with site.main.connect() as wire:
        wire.send(b"".join(request(path) for path, _ in asked), way)
        for path, status in asked:
            a = wire.answer()
            assert a.status == status
            assert path != "/hello/deep" or a.text == "deep"
        assert wire.ask("/hello").status == 200


def test_pipelined_answers_leave_in_one_write(site: Site) -> None:
    with site.main.connect() as wire:
        wire.ask("/hello")
        wire.send(request("/hello") * 16)
        assert wire.read_some().count(b"Hello, World!") == 16


def test_pipelining_waits_for_run_handlers(site: Site) -> None:
    """Later requests are quicker, and must not overtake."""
    times = [80, 0, 40, 1, 0, 20]
    with site.main.connect() as wire:
        wire.send(b"".join(request(f"/sleep?ms={ms}") + request("/hello") for ms in times))
        for ms in times:
            assert wire.answer().text == f"slept {ms} ms\n"
            assert wire.answer().text == "Hello, World!"


def test_long_pipeline(site: Site) -> None:
    with site.main.connect() as wire:
        wire.pump(request("/hello") * 3000 + request("/gone"))
        for _ in range(3000):
            assert wire.answer().status == 200
        assert wire.answer().status == 410


def test_pipelined_files_of_all_sizes(site: Site) -> None:
    names = ["a.txt", "data.bin", "empty.txt", "big.bin", "a.txt", "index.html", "data.bin"]
    with site.main.connect() as wire:
        lengths = [wire.ask(f"/files/{n}", "HEAD").one("Content-Length") for n in names]
        wire.send(b"".join(request(f"/files/{n}") for n in names))
        assert [str(len(wire.answer().body)) for _ in names] == lengths


def conversation(dice: random.Random, length: int) -> list[tuple[bytes, str, int, bytes]]:
    """Random good requests, each with its method and what is to be answered."""
    said = []
    for _ in range(length):
        body = dice.randbytes(dice.choice([1, 10, 1000, 20_000]))
        name = dice.choice(["a.txt", "data.bin"])
        first = dice.randrange(90)
        ms = dice.choice([0, 1, 5])
        cut = dice.randrange(len(body) + 1)
        said.append(
            dice.choice(
                [
                    (request("/hello"), "GET", 200, b"Hello, World!"),
                    (request("/hello", "HEAD"), "HEAD", 200, b""),
                    (request("/nowhere"), "GET", 404, b"404 Not Found\n"),
                    (request("/gone", body=body), "GET", 410, b"long gone"),
                    (request("/echo", "POST", body=body), "POST", 200, body),
                    (request("/echo", "PUT", {"Transfer-Encoding": "chunked"}) + chunked(*filter(None, (body[:cut], body[cut:]))), "PUT", 200, body),
                    (request(f"/sleep?ms={ms}"), "GET", 200, b"slept %d ms\n" % ms),
                    (request("/spin?n=3"), "GET", 200, b"spun 3 times, sum 3\n"),
                    (request(f"/files/{name}", fields={"Range": f"bytes={first}-99"}), "GET", 206, content(name)[first:100]),
                ]
            )
        )
    return said


def hold(site: Site, seed: int, length: int) -> None:
    dice = random.Random(seed)
    said = conversation(dice, length)
    with site.main.connect() as wire:
        for piece in random_cuts(b"".join(data for data, *_ in said)):
            wire.pump(piece)
        for _, method, status, body in said:
            a = wire.answer(method)
            assert (a.status, a.body) == (status, body)


@pytest.mark.parametrize("seed", range(4))
def test_random_conversation(site: Site, seed: int) -> None:
    hold(site, seed, 40)


def test_many_conversations_at_once(site: Site) -> None:
    with ThreadPoolExecutor(16) as pool:
        for held in [pool.submit(hold, site, 100 + seed, 15) for seed in range(32)]:
            held.result()


def test_nothing_is_answered_behind_a_close(site: Site) -> None:
    with site.main.connect() as wire:
        wire.send(request("/hello") + request("/hello", fields={"Connection": "close"}) + request("/gone"))
        assert not wire.answer().closes
        assert wire.answer().closes
        wire.expect_end()


def test_nothing_is_answered_behind_an_error(site: Site) -> None:
    with site.main.connect() as wire:
        wire.send(request("/hello") + b"BAD\r\n\r\n" + request("/hello"))
        assert wire.answer().status == 200
        a = wire.answer()
        assert (a.status, a.closes) == (400, True)
        wire.expect_end()


@pytest.mark.parametrize("path", ["/hello", "/sleep?ms=150", "/files/data.bin"])
def test_half_close_is_answered(site: Site, path: str) -> None:
    with site.main.connect() as wire:
        wire.send(request(path))
        wire.finish()
        assert wire.answer().status == 200
        wire.expect_end()


def test_end_without_a_request(site: Site) -> None:
    with site.main.connect() as wire:
        wire.finish()
        wire.expect_end()


def test_end_within_a_request(site: Site) -> None:
    with site.main.connect() as wire:
        wire.send(b"GET /hello HT")
        wire.finish()
        rest = wire.read_to_end()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 400 "), rest


@pytest.mark.parametrize("lines", [b"\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("way", WAYS)
def test_empty_lines_before_a_request_are_ignored(site: Site, lines: bytes, way) -> None:
    with site.main.connect() as wire:
        for _ in range(2):
            wire.send(lines + request("/hello"), way)
            assert wire.answer().status == 200


def test_upgrade_is_not_taken_up(site: Site) -> None:
    fields = {"Connection": "Upgrade", "Upgrade": "h2c"}
    with site.main.connect() as wire:
        wire.send(request("/hello", fields=fields) + request("/gone"))
        assert wire.answer().status == 200
        assert wire.answer().status == 410
        wire.send(request("/echo", "POST", fields, b"body") + request("/gone"))
        assert wire.answer("POST").body == b"body"
        assert wire.answer().status == 410


def test_upgrade_with_a_chunked_body(site: Site) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n"
    with site.main.connect() as wire:
        wire.send(head + b"4\r\nbody\r\n0\r\n\r\n" + request("/gone"))
        assert wire.answer("POST").body == b"body"
        assert wire.answer().status == 410


@pytest.mark.parametrize("path, text", [("/sleep?ms=0", "slept 0 ms\n"), ("/sleep?a=b&ms=7", "slept 7 ms\n"), ("/sleep", "slept 20 ms\n")])
def test_sleep(site: Site, path: str, text: str) -> None:
    assert site.main.ask(path).text == text


@pytest.mark.parametrize("n, total", [(0, 0), (1, 0), (1000, 499500), (3_000_000, 4499998500000)])
def test_spin(site: Site, n: int, total: int) -> None:
    assert site.main.ask(f"/spin?n={n}").text == f"spun {n} times, sum {total}\n"


@pytest.mark.parametrize("path", ["/sleep?ms=", "/sleep?ms=x", "/sleep?ms=-1", "/sleep?ms=10001", "/sleep?ms=99999999999999999999", "/spin?n=1e9", "/spin?n=1000000000001"])
def test_queries_out_of_range(site: Site, path: str) -> None:
    with site.main.connect() as wire:
        assert wire.ask(path).status == 400
        assert wire.ask("/hello").status == 200
