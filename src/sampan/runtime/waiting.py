"""Attaching to a container that does not run: whoever is to be attached sits down, and its next start takes him along.

    client                                            starter (record lock)                   monitor
      | socketpair; ATTACH into one end                |                                       |
      | RUN/.waiting/ID/PID.STARTED.FD.INODE           |                                       |
      |   names the other end, which it keeps          |                                       |
      |                                                | pidfd_getfd, unlink: taken            |
      |<- REPLY ---------------------------------------|                                       |
      | closes the other end                           | PLAN + descriptors -----------------> | reads ATTACH, before any output
      |<- REPLY, STDOUT, STDERR, EXIT --------------------------------------------------------|

The client has one and the same connection from the beginning: it can be polled, and standard input waits in it. Nobody has to
run for that but the client itself, and one that is killed, or stopped, is in nobody's way. The unlink decides between a
client that leaves and a start that takes him. After the first REPLY only others hold the other end, so that a start that
fails, and a monitor that is killed, are the end of the connection.
"""

from __future__ import annotations

import errno
import os

from sampan.errors import Conflict, System
from sampan.kernel import descriptors, process
from sampan.runtime.handle import REPLY, Attachment
from sampan.shim import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from typing import Any
else:
    import _socket

MOST = 100
"""Who wait for one start: their descriptors travel in one message (SCM_MAX_FD is 253, unix(7))."""


class Waiting(Attachment):
    """A connection whose other end nobody has yet."""

    def __init__(self, connection: Any, other: Any, place: str) -> None:
        super().__init__(connection)
        self._other = other
        self._place = place

    def receive(self) -> list[tuple[int, bytes]] | None:
        frames = super().receive()
        if frames is None:
            return None
        if any(kind == REPLY for kind, _ in frames):
            self._other.close()
        return [frame for frame in frames if frame[0] != REPLY]

    @property
    def waits(self) -> bool:
        """Whether no start has taken it yet."""
        return os.path.exists(self._place)

    def leave(self) -> bool:
        """Wait no longer; False if a start was quicker."""
        try:
            os.unlink(self._place)
        except FileNotFoundError:
            return False
        return True

    def close(self) -> None:
        if self.leave():
            _remove_if_empty(os.path.dirname(self._place))
        self._other.close()
        super().close()


def sit_down(directory: str, container_id: str, wanted: dict[str, bool]) -> Waiting:
    """Wait for the next start of a container; `wanted` is what ATTACH says. Raises Conflict, System."""
    obstacle = descriptors.why_not_taken()
    if obstacle:
        raise System(f"cannot wait for the start of container {container_id}: {obstacle}: attach when it runs")
    if len(_places(directory)) >= MOST:
        raise Conflict(f"{MOST} clients wait for the start of container {container_id} already")
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        ours.sendall(protocol.message(protocol.ATTACH, **wanted))
        pid, fd = os.getpid(), theirs.fileno()
        place = f"{directory}/{pid}.{process.start_time(pid)}.{fd}.{os.fstat(fd).st_ino}"
        _make(place)
    except OSError as e:
        ours.close()
        theirs.close()
        raise System(f"cannot wait for the start of container {container_id}: {e}") from None
    except BaseException:
        ours.close()
        theirs.close()
        raise
    return Waiting(ours, theirs, place)


def _make(place: str) -> None:
    directory = os.path.dirname(place)
    while True:
        try:
            for path in (os.path.dirname(directory), directory):
                if not os.path.isdir(path):
                    _make_private(path)
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            return
        except FileNotFoundError:
            if not os.path.isdir(os.path.dirname(os.path.dirname(directory))):
                raise
            # Who was the last to leave has taken the directories along.


def _make_private(directory: str) -> None:
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass


def take_all(directory: str) -> list[int]:
    """The connections of all who wait, each of them told that it was taken. To be closed by the caller."""
    taken = []
    places = _places(directory)
    for name in places:
        fd = _take(directory, name)
        if fd >= 0:
            taken.append(fd)
    if places:
        _remove_if_empty(directory)
    return taken


def dismiss_all(directory: str) -> None:
    """There will be no start: the end of the connection for all who wait."""
    for fd in take_all(directory):
        os.close(fd)


def _take(directory: str, name: str) -> int:
    """One of them, -1 for who has gone, or been killed."""
    fd = -1
    try:
        pid, started, number, inode = map(int, name.split("."))
        fd = _borrow(pid, started, number, inode)
        os.unlink(f"{directory}/{name}")
    except (OSError, ValueError) as e:
        if fd >= 0:
            os.close(fd)
        elif getattr(e, "errno", 0) != errno.EPERM:
            _forget(f"{directory}/{name}")
        return -1
    connection = _socket.socket(fileno=fd)
    try:
        connection.send(protocol.message(protocol.REPLY), _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
    except OSError:
        pass  # a client that goes in this moment is the monitor's affair
    return int(connection.detach())


def _borrow(pid: int, started: int, number: int, inode: int) -> int:
    """The end of the connection that the client keeps, certainly that. Raises OSError."""
    pidfd = process.open_process(pid, started)
    try:
        fd = descriptors.take(pidfd, number)
    finally:
        os.close(pidfd)
    if os.fstat(fd).st_ino != inode:
        os.close(fd)
        raise ProcessLookupError  # it is closing, and has given the number to something else
    return fd


def _places(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _forget(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _remove_if_empty(directory: str) -> None:
    for path in (directory, os.path.dirname(directory)):
        try:
            os.rmdir(path)
        except OSError:
            return  # others wait there
