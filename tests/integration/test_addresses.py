"""Where a listener may listen: unix sockets, IPv6, several addresses."""
import os
import socket
import stat

import pytest

from lib.config import Listener
from lib.models import Model
from lib.raw import request
from lib.site import BASIC_ROUTES

needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")


def listener(model: Model, address: str, *also: str, **options) -> Listener:
    return Listener("main", model.name, BASIC_ROUTES, address=address, also=list(also), options=options)


def test_unix_socket(serve, model: Model) -> None:
    server = serve(model, listener(model, "unix:web.sock", access_log="access.log"))
    path = server.folder / "web.sock"
    assert server["main"].text == f"unix:{path}"
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666, "its folder says who may connect"
    with server["main"].connect() as wire:
        assert wire.ask("/hello").text == "Hello, World!"
        assert wire.ask("/sleep?ms=20").text == "slept 20 ms\n"
        wire.send(request("/hello") * 5)
        for _ in range(5):
            assert wire.answer().status == 200
    log = (server.folder / "access.log").read_text()
    assert log.startswith("unix: - - [")
    server.signal(15)
    assert server.wait() == 0
    assert not path.exists(), "the socket goes with the server"


def test_unix_socket_left_behind_is_replaced(serve, model: Model, tmp_path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert serve(model, listener(model, f"unix:{path}"))["main"].ask("/hello").status == 200


@needs_ipv6
def test_ipv6(serve, model: Model) -> None:
    server = serve(model, listener(model, "[::1]:0", access_log="access.log"))
    assert server["main"].text.startswith("[::1]:")
    assert server["main"].ask("/hello").text == "Hello, World!"
    assert (server.folder / "access.log").read_text().startswith("::1 - - [")


@needs_ipv6
def test_several_addresses_of_one_listener(serve, model: Model) -> None:
    server = serve(model, listener(model, "127.0.0.1:0", "[::1]:0", "unix:web.sock"))
    assert len(server.endpoints["main"]) == 3
    for endpoint in server.endpoints["main"]:
        for _ in range(3):
            assert endpoint.ask("/hello").text == "Hello, World!"
    status = server.listener_status("main")
    assert set(status["addresses"]) == {e.text for e in server.endpoints["main"]}
    assert status["connections"]["accepted"] == 9


@needs_ipv6
def test_any_address_of_both_families(serve, model: Model) -> None:
    server = serve(model, listener(model, "*:0", access_log="access.log"))
    port = server["main"].port
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as sock:
            sock.settimeout(5)
            sock.connect((host, port))
            sock.sendall(request("/hello", fields={"Connection": "close"}))
            said = b""
            while data := sock.recv(4096):
                said += data
        assert said.endswith(b"Hello, World!")
    assert [line.split()[0] for line in (server.folder / "access.log").read_text().splitlines()] == ["127.0.0.1", "::1"]
