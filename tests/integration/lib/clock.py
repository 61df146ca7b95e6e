"""Waiting for conditions. Bounds are generous and multiplied by MODUS_TEST_SLOW (sanitizer builds)."""
import os
import time
from typing import Callable, TypeVar

T = TypeVar("T")

SLOW = float(os.environ.get("MODUS_TEST_SLOW", "1"))
PATIENCE = 10 * SLOW  # of a client that waits for the server's next byte


def eventually(look: Callable[[], T], within: float = 3.0, what: str = "") -> T:
    """Call look until it gives something true, and return that. What it raises while it is asked
    to try again is raised only at the end."""
    end = time.monotonic() + within * SLOW
    while True:
        trouble = None
        try:
            seen = look()
            if seen:
                return seen
        except (AssertionError, OSError) as e:
            trouble = e
        if time.monotonic() >= end:
            raise trouble or AssertionError(f"not within {within * SLOW:g} s: {what or look}")
        time.sleep(0.005)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
