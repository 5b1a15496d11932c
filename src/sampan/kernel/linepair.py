"""Two connected sockets without the module `_socket`, whose thousand constants take each command 1 ms."""

from __future__ import annotations

import os
import sys

from sampan.kernel.libc import buffer, by_machine, raw

_SYS_SOCKETPAIR = by_machine(53, 199)
_AF_UNIX = 1
_SOCK_STREAM, _SOCK_CLOEXEC = 1, 0o2000000


class End:
    """One of both, to be used as a socket is. Python ignores SIGPIPE: who writes to nobody gets `BrokenPipeError`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def recv(self, size: int) -> bytes:
        """What has come, b"" at the end. Raises `ConnectionResetError` where the peer has left with our word unread."""
        return os.read(self._fd, size)

    def sendall(self, data: bytes) -> None:
        """Send all of it. Raises `BrokenPipeError`."""
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def make() -> tuple[End, End]:
    """A pair of stream sockets, close-on-exec (socketpair(2)). Raises `KernelError`."""
    both = buffer(8)
    raw(_SYS_SOCKETPAIR, "socketpair", "", _AF_UNIX, _SOCK_STREAM | _SOCK_CLOEXEC, 0, both)
    first, second = (int.from_bytes(both.raw[at : at + 4], sys.byteorder) for at in (0, 4))
    return End(first), End(second)
