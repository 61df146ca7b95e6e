"""A stream of server-sent events, read as a browser reads it."""
import json
from dataclasses import dataclass

from lib.raw import CHUNK_SIZE, Answer, Wire, request
from lib.server import Endpoint


@dataclass
class Event:
    name: str  # "message" unless it says so
    data: str

    @property
    def status(self) -> dict:
        return json.loads(self.data)


class Stream:
    def __init__(self, endpoint: Endpoint, path: str = "/?format=stream", buffers: int = 0) -> None:
        self.wire: Wire = endpoint.connect(buffers)
        self.wire.send(request(path))
        self.head: Answer = self.wire.head()
        self._text, self.ended = "", False

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_) -> None:
        self.wire.close()

    def _more(self) -> None:
        size = int(CHUNK_SIZE.fullmatch(self.wire.read_line())[1], 16)
        self._text += self.wire.read_exactly(size).decode()
        assert self.wire.read_exactly(2) == b"\r\n"
        self.ended = size == 0

    def next(self) -> Event | None:
        """The next event; None at the stream's end."""
        while not self.ended:
            while "\n\n" not in self._text and not self.ended:
                self._more()
            block, _, self._text = self._text.partition("\n\n")
            fields = [line.partition(": ") for line in block.split("\n")]
            assert all(name in ("event", "data", "retry", "") for name, _, _ in fields), block
            data = "\n".join(value for name, _, value in fields if name == "data")
            if data:
                return Event(next((v for n, _, v in fields if n == "event"), "message"), data)
        return None

    def figures(self) -> dict:
        """Those of the next event that has some."""
        while (event := self.next()) and event.name != "message":
            pass
        assert event, "the stream has ended"
        return event.status

    def rest(self) -> list[Event]:
        """All until the end."""
        events = []
        while event := self.next():
            events.append(event)
        return events
