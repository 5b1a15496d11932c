"""Many questions for names at a steady rate, from the network namespaces of many containers."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence

from sampan.kernel import namespaces

SERVER = ("127.0.0.11", 53)
_PATIENCE = 10.0
"""Seconds that are waited for the last answers."""


class Asked:
    """What became of the questions. seconds: of each answer; wrong: answers that tell another address, or an error."""

    def __init__(self) -> None:
        self.sent = 0
        self.seconds: list[float] = []
        self.wrong: list[str] = []
        self.took = 0.0

    @property
    def lost(self) -> int:
        return self.sent - len(self.seconds) - len(self.wrong)


def socket_in(pid: int, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    """A socket of the network namespace of a process."""

    def make() -> socket.socket:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.setns(fd, namespaces.CLONE_NEWNET)
        finally:
            os.close(fd)
        return socket.socket(socket.AF_INET, kind)

    return namespaces.in_thread(make)


def ask(pids: Sequence[int], addresses: Mapping[str, str], rate: int, seconds: float) -> Asked:
    """Let each of these processes' namespaces ask for each of the names in turn, `rate` times a second in all."""
    sockets = [socket_in(pid) for pid in pids]
    try:
        for one in sockets:
            one.connect(SERVER)
            one.setblocking(False)
        return _ask(sockets, list(addresses.items()), rate, seconds)
    finally:
        for one in sockets:
            one.close()


def _ask(sockets: list[socket.socket], names: list[tuple[str, str]], rate: int, seconds: float) -> Asked:
    asked, poll = Asked(), select.epoll()
    by_fd = {one.fileno(): one for one in sockets}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    open_: dict[tuple[int, int], tuple[float, str]] = {}
    total, begun = int(rate * seconds), time.monotonic()
    while True:
        now = time.monotonic()
        while asked.sent < min(int((now - begun) * rate) + 1, total):
            # Each asks for another name than it did before, and than its neighbours.
            who, (name, address) = sockets[asked.sent % len(sockets)], names[asked.sent * 7 % len(names)]
            number = asked.sent // len(sockets) & 0xFFFF
            who.send(question(number, name))
            open_[who.fileno(), number] = (time.monotonic(), address)
            asked.sent += 1
        if (asked.sent == total and not open_) or now > begun + seconds + _PATIENCE:
            break
        for fd, _ in poll.poll(0.001):
            _take(by_fd[fd], open_, asked)
    asked.took = time.monotonic() - begun
    poll.close()
    return asked


def _take(who: socket.socket, open_: dict[tuple[int, int], tuple[float, str]], asked: Asked) -> None:
    while True:
        try:
            data = who.recv(2048)
        except BlockingIOError:
            return
        sent, address = open_.pop((who.fileno(), int.from_bytes(data[:2], "big")))
        if socket.inet_aton(address) == data[-4:] and data[3] & 15 == 0:
            asked.seconds.append(time.monotonic() - sent)
        else:
            asked.wrong.append(f"{address}: {data.hex()}")


def question(number: int, name: str) -> bytes:
    """A question for the IPv4 address of a name (RFC 1035)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
