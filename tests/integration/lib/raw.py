"""A client that knows bytes: it sends requests cut as the test wants, and reads answers strictly, as
RFC 9112 has them. TLS runs over a memory BIO, so that its records can be cut as well, and so that
its two directions can be closed apart."""
import email.utils
import random
import re
import select
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from typing import Callable, Iterator

from lib.clock import PATIENCE

# --- how a request is cut ----------------------------------------------------------------------


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    for i in range(len(data)):
        yield data[i : i + 1]


def random_cuts(data: bytes) -> Iterator[bytes]:
    """Cuts depend on the data alone, so that a failure can be repeated."""
    dice = random.Random(data)
    while data:
        n = min(len(data), dice.choice([1, 2, 3, 7, 20, 100, 1000, 5000]))
        yield data[:n]
        data = data[n:]


Way = Callable[[bytes], Iterator[bytes]]
WAYS: list[Way] = [whole, byte_by_byte, random_cuts]


# --- links: bytes over a socket, plain or TLS --------------------------------------------------


class Truncated(ConnectionError):
    """The peer's end came where no end may be."""


class PlainLink:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, data: bytes, way: Way) -> None:
        for piece in way(data):
            self.sock.sendall(piece)

    def take(self) -> bytes | None:
        """Read once: what has come, b"" at the end, None if that was nothing for the application."""
        return self.sock.recv(1 << 18)

    def offer(self, data: memoryview) -> int:
        """Send without waiting. Returns how much went."""
        try:
            return self.sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def has_unsent(self) -> bool:
        return False

    def finish(self) -> None:
        """End this side; the other may go on."""
        self.sock.shutdown(socket.SHUT_WR)


class TlsLink(PlainLink):
    RECORD = 16384

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        server_name: str | None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._unsent = b""
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name, session=session)
        try:
            self._run(self.tls.do_handshake)
        except BaseException:
            sock.close()
            raise

    def _run(self, call: Callable, *args):
        while True:
            try:
                result = call(*args)
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                self._feed()
                continue
            self.sock.sendall(self._outgoing.read())
            return result

    def _feed(self) -> None:
        data = self.sock.recv(1 << 18)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def send(self, data: bytes, way: Way) -> None:
        for piece in way(data):
            self.tls.write(piece)
            for cut in random_cuts(self._outgoing.read()) if way is random_cuts else [self._outgoing.read()]:
                self.sock.sendall(cut)

    def take(self) -> bytes | None:
        data = bytearray()
        try:
            if not self._incoming.pending:
                self._feed()
            while piece := self.tls.read(self.RECORD):
                data += piece
        except ssl.SSLWantReadError:
            return bytes(data) or None
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLEOFError as e:
            raise Truncated("TLS ended without close_notify") from e
        return bytes(data)

    def offer(self, data: memoryview) -> int:
        taken = 0
        if not self._unsent and data:
            taken = self.tls.write(data[: self.RECORD])
            self._unsent = self._outgoing.read()
        if self._unsent:
            self._unsent = self._unsent[super().offer(memoryview(self._unsent)) :]
        return taken

    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def finish(self) -> None:
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass  # our close_notify is written, the peer's is not there yet
        self.sock.sendall(self._outgoing.read())
        super().finish()


# --- answers -----------------------------------------------------------------------------------

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([\t \x21-\x7e\x80-\xff]*)\r\n")
FIELD_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t \x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*\r\n"
)
DATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT"
)
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")


@dataclass
class Answer:
    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for n, value in self.fields if n.lower() == name.lower()]

    def one(self, name: str) -> str | None:
        """The value of a field that may stand once."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        return self.one("Connection") == "close"

    @property
    def chunked(self) -> bool:
        return self.one("Transfer-Encoding") is not None

    @property
    def allowed(self) -> set[str]:
        return {word.strip() for word in (self.one("Allow") or "").split(",")}

    @property
    def text(self) -> str:
        return self.body.decode()


def unix_time(date: str) -> float:
    assert DATE.fullmatch(date), f"no IMF-fixdate: {date}"
    return email.utils.parsedate_to_datetime(date).timestamp()


def check_head(a: Answer, asked: float) -> None:
    """What holds for every final answer. asked: when the request was sent, Unix time."""
    # Of the second in which the server's turn began, which a busy machine may have held up.
    assert asked - 2 <= unix_time(a.one("Date") or "") <= time.time() + 0.1, a.one("Date")
    assert (a.one("Server") or "").startswith("Modus"), a.fields
    assert a.one("Connection") in (None, "close", "keep-alive"), a.fields
    assert a.one("Transfer-Encoding") in (None, "chunked"), a.fields
    length = a.one("Content-Length")
    assert length is None or re.fullmatch("[0-9]+", length), a.fields
    assert length is None or not a.chunked, a.fields
    if a.status == 204:
        assert length is None and not a.chunked, a.fields
    if a.status == 304:
        assert not a.chunked, a.fields
    if a.status == 405:
        assert a.one("Allow"), a.fields


# --- the wire ----------------------------------------------------------------------------------


class Wire:
    """A connection: what is sent on it and what comes back. Closes itself when a with block ends."""

    def __init__(self, link: PlainLink) -> None:
        self.link = link
        self._got = bytearray()
        self._ended = False
        self._asked = 0.0  # when the first request was sent that is not yet answered
        self._answered = True

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def sock(self) -> socket.socket:
        return self.link.sock

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Be gone, as a client that was killed."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def finish(self) -> None:
        self.link.finish()

    # sending

    def _note_time(self) -> None:
        if self._answered:
            self._asked = time.time()
        self._answered = False

    def send(self, data: bytes, way: Way = whole) -> None:
        self._note_time()
        self.link.send(data, way)

    def send_if_wanted(self, data: bytes, way: Way = whole) -> None:
        """Send what the server may refuse before it has all of it; a reset shows when reading."""
        try:
            self.send(data, way)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def pump(self, data: bytes) -> None:
        """Send all of it, reading meanwhile what comes, so that neither side waits for the other."""
        self._note_time()
        view = memoryview(data)
        while view or self.link.has_unsent():
            readable, writable, _ = select.select([self.sock], [self.sock], [], PATIENCE)
            if not readable and not writable:
                raise TimeoutError(f"{len(view)} bytes left that nobody takes")
            if readable:
                self._receive()
            if writable:
                view = view[self.link.offer(view) :]

    def send_until_stalled(self, data: bytes, quiet: float = 0.4) -> int:
        """Send without reading until nothing was taken for a while. Returns how much was."""
        self._note_time()
        view = memoryview(data)
        while view:
            if not select.select([], [self.sock], [], quiet)[1]:
                break
            view = view[self.link.offer(view) :]
        return len(data) - len(view)

    # receiving

    def _receive(self) -> None:
        data = self.link.take()
        if data is not None:
            self._got += data
            self._ended = not data

    def _fill(self) -> None:
        if self._ended:
            raise Truncated(f"the connection ended after {bytes(self._got[-200:])!r}")
        self._receive()

    def read_line(self) -> bytes:
        while (end := self._got.find(b"\n")) < 0:
            assert len(self._got) < 1 << 20, "no end of line in a megabyte"
            self._fill()
        line = bytes(self._got[: end + 1])
        del self._got[: end + 1]
        return line

    def read_exactly(self, n: int) -> bytes:
        while len(self._got) < n:
            self._fill()
        data = bytes(self._got[:n])
        del self._got[:n]
        return data

    def read_to_end(self) -> bytes:
        while not self._ended:
            self._receive()
        data = bytes(self._got)
        self._got.clear()
        return data

    def read_some(self) -> bytes:
        """What the next read gives that gives anything."""
        while not self._got and not self._ended:
            self._receive()
        data = bytes(self._got)
        self._got.clear()
        return data

    def expect_end(self) -> None:
        rest = self.read_to_end()
        assert rest == b"", f"bytes behind the last answer: {rest[:300]!r}"

    def is_quiet(self, seconds: float) -> bool:
        """Nothing comes for so long: no byte and no end."""
        end = time.monotonic() + seconds
        while not self._got and not self._ended:
            if not select.select([self.sock], [], [], max(0.0, end - time.monotonic()))[0]:
                return True
            self._receive()
        return False

    @staticmethod
    def pause(seconds: float) -> None:
        """Be slow, as some clients are."""
        time.sleep(seconds)

    def _fields(self) -> list[tuple[str, str]]:
        fields = []
        while (line := self.read_line()) != b"\r\n":
            match = FIELD_LINE.fullmatch(line)
            assert match, f"no field line: {line!r}"
            fields.append((match[1].decode(), match[2].decode("latin-1")))
        return fields

    def head(self) -> Answer:
        """A status line and its fields, interim answers too."""
        line = self.read_line()
        match = STATUS_LINE.fullmatch(line)
        assert match, f"no status line: {line!r}"
        return Answer(int(match[1]), match[2].decode("latin-1"), self._fields())

    def _chunks(self, a: Answer) -> None:
        body = bytearray()
        while True:
            line = self.read_line()
            match = CHUNK_SIZE.fullmatch(line)
            assert match, f"no chunk size: {line!r}"
            size = int(match[1], 16)
            if size == 0:
                break
            body += self.read_exactly(size)
            assert self.read_exactly(2) == b"\r\n", "a chunk that does not end in CRLF"
        a.body = bytes(body)
        a.trailers = self._fields()

    def answer(self, method: str = "GET") -> Answer:
        """The next final answer, whole. method is what it answers: HEAD has no body."""
        a = self.head()
        assert a.status >= 200, f"an interim answer that was not asked for: {a.status}"
        check_head(a, self._asked)
        self._answered = True
        if method == "HEAD" or a.status in (204, 304):
            return a
        length = a.one("Content-Length")
        if a.chunked:
            self._chunks(a)
        elif length is not None:
            a.body = self.read_exactly(int(length))
        else:
            assert a.closes, "a body without end on a connection that goes on"
            a.body = self.read_to_end()
        return a

    def ask(self, path: str, method: str = "GET", fields: dict | None = None, body: bytes = b"") -> Answer:
        self.send(request(path, method, fields, body))
        return self.answer(method)


def request(
    path: str, method: str = "GET", fields: dict | None = None, body: bytes = b"", version: str = "1.1"
) -> bytes:
    """A well-formed request."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes, trailers: str = "") -> bytes:
    """A body in chunks, with its end."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks)
    return framed + b"0\r\n" + trailers.encode() + b"\r\n"
