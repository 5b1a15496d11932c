"""Stage1 of an OCI command, started as the command's very first act: its interpreter comes up (10 ms) beside all that the command does.

So nothing is imported here that this does not need. What is then said to it is `ocilaunch`'s.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter, System
from sampan.runtime import sealed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from types import TracebackType
    from typing import Any
else:
    import _socket


class Stage:
    """A process that waits for its plan, our child. `control`: the socket to it. With `with`, it goes when the making fails."""

    def __init__(self, preserved: int) -> None:
        """preserved: how many descriptors from 3 on it inherits. Raises `System`."""
        self.preserved = preserved
        self.control: Any
        self.control, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self.pid = sealed.spawn_stage(theirs.fileno(), preserved)
        except OSError as e:
            self.control.close()
            raise System(f"cannot start stage1: {e} (mounting needs CAP_SYS_ADMIN)") from e
        finally:
            theirs.close()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.control.close()
        if kind is not None:
            self.kill()

    def kill(self) -> None:
        """End it, however far it is."""
        if self.pid:
            os.kill(self.pid, 9)
            self.reap()

    def reap(self) -> None:
        """Wait for its end."""
        if self.pid:
            os.waitpid(self.pid, 0)
            self.pid = 0


def preserved(count: int) -> int:
    """The descriptors from 3 on that a program is to have: `--preserve-fds` and those of $LISTEN_FDS. Raises `InvalidParameter`."""
    if count < 0:
        raise InvalidParameter("--preserve-fds: a number of descriptors is not negative")
    listen = os.environ.get("LISTEN_FDS", "")
    total = count + (int(listen) if listen.isdigit() else 0)
    for fd in range(3, 3 + total):
        try:
            os.fstat(fd)
        except OSError:
            raise InvalidParameter(f"the file descriptor {fd} that --preserve-fds counts is not open") from None
        os.set_inheritable(fd, True)
    return total
