"""TCP listeners: bytes in, the same bytes out."""
import random
import socket

from lib.clock import eventually
from lib.raw import WAYS
from lib.site import Site

DATA = random.Random(4).randbytes(10 << 20)


def test_echo(site: Site) -> None:
    for way in WAYS:
        with site.tcp.connect() as wire:
            for text in (b"hello", b"GET / HTTP/1.1\r\n\r\n", DATA[:2000]):
                wire.send(text, way)
                assert wire.read_exactly(len(text)) == text


def test_half_close(site: Site) -> None:
    with site.tcp.connect() as wire:
        wire.send(b"last words")
        wire.finish()
        assert wire.read_to_end() == b"last words"


def test_end_without_a_byte(site: Site) -> None:
    with site.tcp.connect() as wire:
        wire.finish()
        wire.expect_end()


def test_ten_megabytes(site: Site) -> None:
    with site.tcp.connect() as wire:
        wire.pump(DATA)
        wire.finish()
        assert wire.read_to_end() == DATA


def test_a_reader_that_stops_stops_the_sender(site: Site) -> None:
    data = DATA * 5
    with site.tcp.connect(buffers=64 << 10) as wire:
        stalled_at = wire.send_until_stalled(data)
        assert stalled_at < len(data) // 2
        wire.pump(data[stalled_at:])
        wire.finish()
        assert wire.read_to_end() == data


def test_connections_do_not_mix(site: Site) -> None:
    wires = [site.tcp.connect() for _ in range(20)]
    for n in range(3):
        for i, wire in enumerate(wires):
            wire.send(b"%d-%d;" % (i, n) * 100)
    for i, wire in enumerate(wires):
        assert wire.read_exactly(len(b"%d-0;" % i) * 300) == b"".join(b"%d-%d;" % (i, n) * 100 for n in range(3))
        wire.close()


def test_reset_ends_it(site: Site) -> None:
    open_now = lambda: site.server.listener_status("tcp")["connections"]["open"]
    eventually(lambda: open_now() == 0)
    wire = site.tcp.connect()
    wire.send(b"x")
    assert wire.read_exactly(1) == b"x"
    eventually(lambda: open_now() == 1)
    wire.reset()
    eventually(lambda: open_now() == 0)


def test_shut_in_both_directions_by_turns(site: Site) -> None:
    """The peer reads no more but still sends: it gets rid of its bytes, and nobody hangs."""
    with site.tcp.connect() as wire:
        wire.send(b"x")
        assert wire.read_exactly(1) == b"x"
        wire.sock.shutdown(socket.SHUT_RD)
        wire.send_if_wanted(b"y" * 1000)
        wire.finish()
    eventually(lambda: site.server.listener_status("tcp")["connections"]["open"] == 0)
