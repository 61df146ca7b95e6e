"""A process of its own that holds thousands of keep-alive connections, so that their descriptors are
not the test's. Run as a program: opens COUNT connections to PORT, one request each, and says so; at
each line on its standard input, asks once more on every connection and says how many answered."""
import socket
import subprocess
import sys
from pathlib import Path

REQUEST = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


def ask(sock: socket.socket) -> bool:
    sock.sendall(REQUEST)
    return sock.recv(4096).startswith(b"HTTP/1.1 200 ")


def main() -> None:
    port, count = int(sys.argv[1]), int(sys.argv[2])
    socks = []
    for _ in range(count):
        socks.append(socket.create_connection(("127.0.0.1", port), timeout=60))
        if not ask(socks[-1]):
            sys.exit("no answer")
    print(count, flush=True)
    for _ in sys.stdin:
        print(sum(ask(sock) for sock in socks), flush=True)


class Crowd:
    """The same, seen from the test."""

    def __init__(self, port: int, count: int) -> None:
        command = [sys.executable, Path(__file__), str(port), str(count)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.count = self._hear()

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *_) -> None:
        self._process.communicate()

    def ask(self) -> int:
        """One request on every connection. Returns how many answered 200."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> int:
        return int(self._process.stdout.readline() or 0)


if __name__ == "__main__":
    main()
