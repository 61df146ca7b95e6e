# SPDX-License-Identifier: MIT
"""A loopback of our own: a network namespace in which nobody else talks, every port is free, and the
congestion control is one that sends at once.

The last point is no detail. Some machines default to BBR, which paces: every large answer then waits
for timers, and a 1 MiB file costs the server ten times the CPU time, all of it timers, and a factor of
two more or less by luck. On a loopback there is no congestion to control."""

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

from proc import LIBC

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
IPV4 = Path("/proc/sys/net/ipv4")
PORTS = range(10000, 16384)  # the servers'; wrk's begin above


def unshare(flags: int) -> None:
    if LIBC.unshare(flags) < 0:
        raise OSError(ctypes.get_errno(), "unshare")


def enter_namespace() -> None:
    """Root needs no more than the new network; others get it inside a user namespace in which they
    are who they were."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        unshare(CLONE_NEWNET)
        return
    unshare(CLONE_NEWUSER | CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def enter_private_loopback() -> str:
    """Returns the words for the report. Where namespaces are forbidden the machine's own loopback
    has to do, as it is."""
    try:
        enter_namespace()
    except OSError as error:
        used = (IPV4 / "tcp_congestion_control").read_text().strip()
        return f"the machine's loopback, {used} (no namespace of our own: {error.strerror})"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    (IPV4 / "tcp_congestion_control").write_text("reno")
    (IPV4 / "ip_local_port_range").write_text(f"{PORTS.stop} 65535")
    return "a loopback of its own, reno"


_ports = iter(PORTS)


def free_port() -> int:
    """A port that nobody listens on, for the servers that cannot choose one themselves."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError("no free port is left")
