"""Somebody who uses a server all the time, while something happens to it."""
import threading

from lib.server import Endpoint


class Customer(threading.Thread):
    """Asks an endpoint again and again on a connection of its own, and keeps what went wrong. may_leave:
    it may be told that the connection is over, and connects anew."""

    def __init__(self, endpoint: Endpoint, path: str = "/hello", may_leave: bool = False) -> None:
        super().__init__()
        self.endpoint, self.path, self.may_leave = endpoint, path, may_leave
        self.answered, self.trouble, self.done = 0, "", threading.Event()
        self.start()

    def run(self) -> None:
        try:
            while not self.done.is_set():
                self._stay()
        except (OSError, AssertionError) as e:
            self.trouble = repr(e)

    def _stay(self) -> None:
        with self.endpoint.connect() as wire:
            closes = False
            while not closes and not self.done.is_set():
                answer = wire.ask(self.path)
                closes = answer.closes
                assert answer.status == 200 and (self.may_leave or not closes)
                self.answered += 1

    def leave(self) -> None:
        self.done.set()
        self.join()
        assert not self.trouble, f"{self.trouble} after {self.answered} answers"
        assert self.answered > 0
