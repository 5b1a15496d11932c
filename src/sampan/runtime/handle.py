"""A handle on a container that was started: does it live, who is its init, what was its exit code; attach, signal, exec.

All of it is asked of the kernel and the disk, nothing is remembered: any process can have a handle on any container.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import time

from sampan import jsontext
from sampan.errors import Conflict, StartFailed, System
from sampan.kernel import cgroup, clock, files, process
from sampan.shim import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    class Paths(Protocol):
        """What a handle has to know of a container's place on disk (`store.layout.ContainerPaths`)."""

        id: str
        monitor_lock: str
        attach_socket: str
        run_directory: str

else:
    import _socket

STDOUT, STDERR, EXIT, REPLY, FAILED = protocol.STDOUT, protocol.STDERR, protocol.EXIT, protocol.REPLY, protocol.FAILED

_SIGKILL, _SIGCONT = 9, 18  # the `signal` module imports enum
_ASK_AGAIN = 1.0
_FINISH_SECONDS = 5.0
_SHUT_WR = 1
_STOPPED_SECONDS = 3.0
"""After which nobody waits for the answer of a monitor that is stopped: it was not for a moment."""
_ANSWER_SECONDS = 60.0
"""After which nobody waits for any: it is longer than a process may take to come to its program (`shim.execs`)."""


def frames_of(connection: Any) -> Iterator[tuple[int, bytes]]:
    """The frames that come over a blocking socket, until its end."""
    reader = protocol.Reader()
    while data := connection.recv(1 << 16):
        yield from reader.feed(data)


class Attachment:
    """A connection to a container's, or an exec's, streams.

    For those who poll: wait for `fileno()` to become readable, call `receive()`. For those who do not: iterate.
    """

    def __init__(self, connection: Any) -> None:
        self._socket = connection
        self._reader = protocol.Reader()
        self.exit: dict[str, Any] | None = None
        """{"exit_code": int, "oom_killed": bool} once EXIT has come."""
        self.exec_id = ""
        self.notice: Callable[[str, dict[str, str]], None] | None = None
        """Is told "resize" and "detach", with what an event says of them."""

    def fileno(self) -> int:
        return int(self._socket.fileno())

    def receive(self) -> list[tuple[int, bytes]] | None:
        """What has come, in one read: frames of `STDOUT`, `STDERR` and others; None at the end of the connection.

        The list may be empty (half a frame). EXIT is kept in `exit` too.
        """
        try:
            data = self._socket.recv(1 << 18)
        except (BlockingIOError, InterruptedError):
            return []
        except ConnectionResetError:
            data = b""
        if not data:
            return None
        frames = self._reader.feed(data)
        for kind, body in frames:
            if kind == EXIT:
                self.exit = protocol.loads(body)
        return frames

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while (frames := self.receive()) is not None:
            yield from frames

    def send(self, data: bytes) -> None:
        """Standard input. Blocks while the program does not take it; raises BrokenPipeError when the container is gone."""
        for at in range(0, len(data), 1 << 16):
            self._socket.sendall(protocol.frame(protocol.STDIN, data[at : at + (1 << 16)]))

    def close_stdin(self) -> None:
        """Standard input is at its end; output goes on."""
        self._quietly(protocol.frame(protocol.CLOSE_STDIN))

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size."""
        self._quietly(protocol.message(protocol.RESIZE, rows=rows, columns=columns))
        if self.notice is not None:
            self.notice("resize", {"height": str(rows), "width": str(columns)})

    def finish(self) -> None:
        """Close the connection when the monitor has done what it was told. For one that takes no output.

        A monitor reads in order, and closes its side when it has come to our end.
        """
        try:
            self._socket.shutdown(_SHUT_WR)
            while _poll(self.fileno(), _FINISH_SECONDS) and self.receive() is not None:
                pass
        except OSError:
            pass  # it has ended, and with it the program
        self.close()

    def detach(self) -> None:
        """Close the connection because its user has left, and the process is to go on."""
        if self.notice is not None:
            self.notice("detach", {})
        self.close()

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        self._quietly(protocol.message(protocol.SIGNAL, signal=number))

    def _quietly(self, data: bytes) -> None:
        """Send what does not matter any more if the process has ended."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def request(self, question: bytes, silent: Callable[[float], None]) -> dict[str, Any]:
        """Ask something, a whole frame, and take the answer; frames behind it are kept for `receive`.

        `silent` is told once a second for how long no answer has come, and may raise. Raises `StartFailed`, and `System`
        if the shim ended or turned us away.
        """
        self._quietly(question)
        begun = time.monotonic()
        while not _poll(self.fileno(), _ASK_AGAIN):
            silent(time.monotonic() - begun)
        # One byte less than a frame's header could hold would split it: read exactly the answer.
        header = self._exactly(protocol.HEADER_SIZE)
        size = int.from_bytes(header[1:], "big")
        answer: dict[str, Any] = protocol.loads(self._exactly(size))
        if header[0] == FAILED:
            raise StartFailed(answer.get("error") or answer["message"], answer["exit_code"])
        return answer

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                part = self._socket.recv(size - len(data))
            except ConnectionResetError:
                part = b""  # it went with our question unread
            if not part:
                raise System("the container's shim closed the connection")
            data += part
        return data

    def close(self) -> None:
        self._socket.close()


class Handle:
    """One container and its newest start, whose directory is `start` ("" if it was never started)."""

    def __init__(self, paths: Paths, start: str) -> None:
        self._paths = paths
        self._start = start

    def alive(self) -> bool:
        """Whether a monitor holds monitor.lock: the one and only sign of a running container."""
        return files.lock_is_held(self._paths.monitor_lock)

    def started(self) -> dict[str, Any] | None:
        """What the monitor wrote when init ran: pids, their start times, the boot, the time."""
        return _read_json(f"{self._start}/started")

    def exited(self) -> dict[str, Any] | None:
        """What the monitor wrote when init ended, or the start had failed."""
        return _read_json(f"{self._start}/exit.json")

    def init_pid(self) -> int:
        """The pid of init in our pid namespace, 0 if the container does not run."""
        started = self.started()
        return int(started["pid"]) if started is not None and self.alive() else 0

    def open_init(self) -> int:
        """A pidfd of init. Raises `ProcessLookupError` if it has ended."""
        started = self.started()
        if started is None or started["boot"] != clock.boot_id():
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return process.open_process(started["pid"], started["pid_start"])

    def signal(self, number: int) -> None:
        """Send a signal to init, past a monitor that may hang. Raises `ProcessLookupError` if it has ended."""
        pidfd = self.open_init()
        try:
            process.signal_process(pidfd, number)
        finally:
            os.close(pidfd)

    def open_namespace(self, kind: str) -> int:
        """A descriptor of one of init's namespaces, certainly init's. Raises `ProcessLookupError` if it has ended."""
        from sampan.kernel import namespaces

        started = self.started()
        pidfd = self.open_init()
        try:
            assert started is not None
            try:
                fd = os.open(f"/proc/{started['pid']}/ns/{namespaces.FILES[kind]}", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # one that has ended and was not reaped yet has no namespaces
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
            if select.select([pidfd], [], [], 0)[0]:
                os.close(fd)  # it ended meanwhile: the number may be another's
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
            return fd
        finally:
            os.close(pidfd)

    def share_pids(self) -> None:
        """Say that others are put into its pid namespace from now on, and wait until no process is born there that they might take over.

        Raises `ProcessLookupError` if it has ended.
        """
        try:
            fd = os.open(self._paths.run_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
        try:
            os.close(os.open(protocol.SHARED_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=fd))
            fcntl.flock(fd, fcntl.LOCK_EX)
        except FileNotFoundError:  # removed with its run
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
        finally:
            os.close(fd)

    def wait_monitor(self, seconds: float | None) -> bool:
        """Wait until the monitor has gone; False if it has not within the time."""
        started = self.started()
        if started is None:
            return True
        try:
            pidfd = process.open_process(started["monitor"], started["monitor_start"])
        except ProcessLookupError:
            return True
        try:
            return _poll(pidfd, seconds)
        finally:
            os.close(pidfd)

    def kill_monitor(self) -> None:
        """SIGKILL to a monitor that does not come to its end; nothing if it has gone."""
        self._signal_monitor(_SIGKILL)

    def wake_monitor(self) -> None:
        """SIGCONT to a monitor that somebody may have stopped; any other does not notice it."""
        self._signal_monitor(_SIGCONT)

    def _signal_monitor(self, number: int) -> None:
        started = self.started()
        if started is None:
            return
        try:
            pidfd = process.open_process(started["monitor"], started["monitor_start"])
        except ProcessLookupError:
            return
        try:
            process.signal_process(pidfd, number)
        except ProcessLookupError:
            pass  # it came to its end in this moment
        finally:
            os.close(pidfd)

    def wait_init(self, seconds: float | None) -> bool:
        """Wait until init has ended; False if it has not within the time."""
        try:
            pidfd = self.open_init()
        except ProcessLookupError:
            return True
        try:
            return _poll(pidfd, seconds)
        finally:
            os.close(pidfd)

    def connect(self) -> Attachment:
        """A fresh connection to the monitor. Raises `Conflict` if nobody is there, `System` if it does not let us in."""
        s = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        # Where a hundred others have come before us and were not let in, this would wait without end (unix(7)).
        s.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, struct.pack("ll", int(_ANSWER_SECONDS), 0))
        try:
            # Through a descriptor of the directory: the path may be longer than the 107 bytes of a sun_path.
            directory = os.open(self._paths.run_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                s.connect(f"/proc/self/fd/{directory}/attach.sock")
            finally:
                os.close(directory)
        except OSError as e:
            s.close()
            if e.errno in (errno.ENOENT, errno.ECONNREFUSED):
                raise Conflict(f"container {self._paths.id} is not running") from None
            if e.errno == errno.EAGAIN:
                raise System(f"container {self._paths.id}: its shim lets nobody in, it is stopped or hangs") from None
            raise
        s.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
        return Attachment(s)

    def attach(self, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> Attachment:
        """Listen to the container's streams from now on, feed its standard input if `stdin`."""
        return self._ask(protocol.message(protocol.ATTACH, stdin=stdin, stdout=stdout, stderr=stderr))

    def exec(self, plan: protocol.ExecPlan) -> Attachment:
        """Start another process in the container. Raises `StartFailed`."""
        attachment = self._ask(protocol.frame(protocol.EXEC, plan.to_body()))
        attachment.exec_id = plan.identifier
        return attachment

    def cancel_restart(self) -> None:
        """Tell a monitor that waits to restart the container not to; nothing if there is none that listens."""
        try:
            attachment = self.connect()
        except Conflict:
            return
        attachment._quietly(protocol.message(protocol.CANCEL))
        attachment.close()

    def _ask(self, question: bytes) -> Attachment:
        """A connection whose first request was answered. It is there as a whole before: a monitor that is woken up finds it. Raises `Conflict` too if the container ended meanwhile."""
        attachment = self.connect()
        try:
            attachment.request(question, self._check_monitor)
        except BaseException as e:
            attachment.close()
            if isinstance(e, System) and (self.exited() is not None or not self.alive()):
                raise Conflict(f"container {self._paths.id} is not running") from None
            raise
        return attachment

    def _check_monitor(self, seconds: float) -> None:
        """Raise `System` if no answer is to be expected any more of a monitor that has been silent for that long."""
        from sampan.kernel import processinfo  # in here: mostly the answer is there at once

        started = self.started()
        if started is None:
            return
        info = processinfo.look(started["monitor"])
        if info is not None and info.state in "Tt" and seconds > _STOPPED_SECONDS:
            words = f"it is stopped, kill -CONT {info.pid} lets it go on"
        elif seconds > _ANSWER_SECONDS:
            words = "it may wait for a disk or a file system, or the machine is overloaded: try again"
        else:
            return
        raise System(
            f"container {self._paths.id}: its shim, process {started['monitor']}, has not answered for {seconds:.0f} s: {words}"
        )

    def kill_group(self, group: str) -> None:
        """Kill whatever is left in the container's cgroup and remove that."""
        driver = cgroup.detect()
        driver.kill(group)
        driver.remove(group)


def _poll(fd: int, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if seconds is not None:
        return bool(poll.poll(int(max(0.0, seconds) * 1000)))
    while not poll.poll(int(clock.TURN * 1000)):
        pass
    return True


def _read_json(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as f:
            value: dict[str, Any] = jsontext.loads(f.read())
            return value
    except (FileNotFoundError, NotADirectoryError):
        return None
