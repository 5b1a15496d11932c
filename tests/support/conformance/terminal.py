"""The caller's side of `--console-socket`: it listens, takes the terminal, reads what is written to it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import stat
import time
from typing import TYPE_CHECKING, Any

from support.patience import patience

if TYPE_CHECKING:
    from support.conformance.runtime import Container


class ConsoleSocket:
    """A socket to which a runtime sends the master of a container's terminal. A context manager."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.path = str(container.bundle / "tty.sock")
        self.master = -1
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> ConsoleSocket:
        # Bound by a short relative name: a socket's path has 107 bytes at most.
        directory = os.open(self.container.bundle, os.O_RDONLY)
        try:
            self._listener.bind(f"/proc/self/fd/{directory}/tty.sock")
        finally:
            os.close(directory)
        self._listener.listen(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        if self.master >= 0:
            os.close(self.master)

    def accept(self) -> int:
        """The master that was sent: exactly one descriptor."""
        self._listener.settimeout(patience(10))
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(patience(10))
            _, fds, _, _ = socket.recv_fds(connection, 4096, 4)
        assert len(fds) == 1, f"{len(fds)} descriptors came"
        self.master = fds[0]
        assert stat.S_ISCHR(os.fstat(self.master).st_mode)
        return self.master

    def read(self, seconds: float = 20) -> str:
        """Everything until the other side is closed."""
        data = b""
        deadline = time.monotonic() + patience(seconds)
        while True:
            assert select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0], f"no end: {data!r}"
            with contextlib.suppress(OSError):
                more = os.read(self.master, 65536)
                if more:
                    data += more
                    continue
            return data.decode().replace("\r\n", "\n")

    def report(self) -> dict[str, Any]:
        """What the probe in a container with this terminal sees."""
        one = self.container
        one.process["terminal"] = True
        one.create("--console-socket", self.path).ok()
        self.accept()
        one.start().ok()
        # While it is read: a terminal holds 4 KiB only.
        text = self.read()
        assert one.wait() == 0, text
        report: dict[str, Any] = json.loads(text)
        return report
