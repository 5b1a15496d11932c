"""The launcher that has its shims forked by a zygote (`shim.zygote`), and what starts and ends one.

A zygote is below the run root, one at most, with a lock that says that there is one. Its socket's name says what it is made of and what it
has of its parent: who finds none of the name that he looks for has another package or other limits than it, and starts a fresh
interpreter. So does whoever asked it and gets no shim, be it that it was killed, or is stopped: no start is lost by it, and none waits long.
"""

from __future__ import annotations

import _thread
import errno
import os
import select
import struct
import time

from sampan.errors import System
from sampan.kernel import files
from sampan.kernel.surroundings import stamp, surroundings
from sampan.oci.digest import hex_of
from sampan.runtime.launcher import reap, spawn_zygote
from sampan.runtime.sealed import SHIM
from sampan.shim import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from typing import Any

    from sampan.runtime.handle import Attachment
    from sampan.runtime.launcher import ExecLauncher, Launch
    from sampan.steps.trace import Trace
else:
    import _socket

_PACKAGE = os.path.dirname(os.path.dirname(SHIM))
_DIRECTORIES = [_PACKAGE, *(f"{_PACKAGE}/{room}" for room in ("kernel", "oci", "shim", "steps"))]
"""Of the files that a shim is made of."""
_READY_SECONDS = 5.0
"""After which nobody waits for a shim of a zygote any more: it is stopped, or the machine is overloaded."""
_DISTRUST_SECONDS = 10.0
"""For which a zygote that gave no shim is not asked again, and no other one is started."""
_ANSWER_SECONDS = 10.0
_QUEUE = 512
_MOST_LEARNED = 60_000
"""Bytes of a lesson: a zygote takes no longer message (`shim.zygote`). A line that is cut off is one that it cannot read."""


class ZygoteLauncher:
    """Asks the zygote of a run root for each shim; what it cannot have from there, `fallback` makes.

    `attended`: a zygote is started when there is none, and stays as long as this process has its line. Otherwise one that is there is used.
    """

    def __init__(self, directory: str, fallback: ExecLauncher, trace: Trace, attended: bool = False) -> None:
        self._zygotes = Zygotes(directory)
        self._fallback = fallback
        self._trace = trace
        self._attended = attended
        self._lock = _thread.allocate_lock()
        self._line: Any = None
        self._distrusted_until = 0.0

    def open(self) -> Launch:
        """A shim that waits for its plan, or is on its way. Raises `System` when no process can be started."""
        line = self._the_line()
        self._reap()
        control = self._ask(line) if line is not None else None
        if not self._attended:
            self.close()  # nothing is held open between two calls
        if control is None:
            return self._fallback.open()
        return ZygoteLaunch(control, self)

    def prepare(self) -> None:
        """Have a zygote come up whose shims are wanted soon. It is not waited for: whoever opens the first has something else to do until then."""
        self._the_line()

    def teach(self, lines: list[str]) -> None:
        """Have the zygote read these lines of a plan, which are the next plan's too. Nobody depends on it: what goes wrong makes starts slower."""
        line = self._the_line()
        if line is not None:
            try:
                send(line, protocol.ZYGOTE_LEARN + "\n".join(lines).encode("ascii")[:_MOST_LEARNED])
            except OSError:
                self._drop(line)
        if not self._attended:
            self.close()

    def close(self) -> None:
        """Let go of the zygote, which leaves then if nobody else is there."""
        self._drop(self._line)
        self._reap()

    def another(self) -> Launch:
        """One of an interpreter of its own, for the zygote gave none: it is not trusted for a while."""
        self._distrusted_until = time.monotonic() + _DISTRUST_SECONDS
        self.close()
        return self._fallback.open()

    def _the_line(self) -> Any:
        with self._lock:
            if self._line is None and time.monotonic() >= self._distrusted_until:
                try:
                    self._line = self._zygotes.find() or (self._zygotes.start() if self._attended else None)
                except OSError:
                    self._line = None  # no descriptors, no processes: the other launcher says so, if it has none either
                if self._line is None:
                    self._distrusted_until = time.monotonic() + (1.0 if self._attended else _DISTRUST_SECONDS)
            return self._line

    def _reap(self) -> None:
        with self._lock:
            self._zygotes.reap()

    def _drop(self, line: Any) -> None:
        with self._lock:
            if line is not None and self._line is line:
                self._line = None
                line.close()

    def _ask(self, line: Any) -> Any:
        """Our end of the socket of a shim that was asked for; None if nobody takes the question."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            with self._trace.step("ask the zygote for a shim"):
                send(line, protocol.ZYGOTE_FORK, [theirs.fileno()])
        except OSError:
            ours.close()
            self._drop(line)
            return None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours


class ZygoteLaunch:
    """One shim, from the question to the answer to its plan."""

    def __init__(self, control: Any, launcher: ZygoteLauncher) -> None:
        self._control = control
        self._launcher = launcher
        self._untaught = False

    def start(self, plan: protocol.LaunchPlan, descriptors: dict[str, int]) -> Attachment | None:
        """As `ExecLaunch.start`. Without a shim nobody has seen the plan, and another one can be given it."""
        from sampan.runtime import conversation

        if not self._is_ready():
            self.abandon()
            return self._launcher.another().start(plan, descriptors)
        try:
            attachment = conversation.start(self._control, plan, descriptors, self._launcher._trace)
        finally:
            self.abandon()
        if self._untaught:
            self._launcher.teach(plan.lists().usual_lines())
        return attachment

    def abandon(self) -> None:
        """Let go of the shim: without a plan it ends, also one that is forked only later."""
        self._control.close()

    def _is_ready(self) -> bool:
        """Whether there is a shim. When the zygote dies, what lies unread at its end goes with it, and so our socket hangs up."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if not poll.poll(_READY_SECONDS * 1000):
            return False
        try:
            word = self._control.recv(protocol.HEADER_SIZE)
        except OSError:
            return False
        self._untaught = word == protocol.frame(protocol.UNTAUGHT)
        return self._untaught or bool(word == protocol.frame(protocol.READY))


class Zygotes:
    """The zygote of a run root, in its `directory`: finds it, starts it, ends it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._known: tuple[str, str] | None = None
        self._begun = 0

    def find(self) -> Any:
        """A line to the zygote that could have been started by us; None without one. Raises OSError."""
        return self._connect(self._name()) if os.path.isdir(self._directory) else None

    def start(self) -> Any:
        """A line to one that is started now, to be followed by `reap`; None if somebody else's is there, or just begins or ends. Raises OSError."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        lock = files.lock_opened(os.open(f"{self._directory}/lock", _LOCK_FLAGS, 0o600))
        if lock < 0:
            return None
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        listener = None
        try:
            listener = self._listen(self._name())
            send(ours, self._identity(), [listener.fileno(), lock])
            self.reap()  # one that was begun before, and went before anybody wanted it
            self._begun = spawn_zygote([self._directory, self._name()], theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(lock)
            if listener is not None:
                listener.close()
        return ours

    def reap(self) -> None:
        """Wait for the process that was started, if it has not been waited for: its interpreter comes up (20 ms), and it ends when it has forked the zygote."""
        pid, self._begun = self._begun, 0
        if pid:
            reap(pid)

    def keep(self, seconds: int) -> int:
        """Have a zygote there for that long, started if there is none; its pid. Raises `System`, OSError."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            line = self.find() or self.start()
            self.reap()
            if line is not None:
                line.settimeout(_ANSWER_SECONDS)
                try:
                    send(line, protocol.ZYGOTE_KEEP + b"%d" % seconds)
                    answer = line.recv(64)
                except OSError:
                    answer = b""  # it leaves in this moment, or does not answer
                finally:
                    line.close()
                if answer:
                    return int(answer)
            time.sleep(0.01)
        raise System(
            f"cannot start a zygote: another one has the lock {self._directory}/lock and is of another version, has other limits "
            "(ulimit) or does not answer: end it with sampan warm --stop"
        )

    def stop(self) -> bool:
        """End the zygote, whatever it is made of; whether there was one. Raises OSError."""
        found = False
        for name in os.listdir(self._directory) if os.path.isdir(self._directory) else []:
            line = self._connect(name) if name != "lock" else None
            if line is not None:
                found = True
                self._end(line)
        return found

    def _end(self, line: Any) -> None:
        line.settimeout(_ANSWER_SECONDS)
        try:
            send(line, protocol.ZYGOTE_STOP)
            line.recv(64)
        except ConnectionError:
            pass  # it has gone
        except OSError:
            raise System("the zygote does not answer: kill the process sampan-zygote, no container needs it") from None
        finally:
            line.close()

    def _name(self) -> str:
        if self._known is None:
            made_of = stamp(_DIRECTORIES)
            self._known = hex_of(f"{made_of}\0{surroundings()}".encode())[:32], made_of
        return self._known[0]

    def _identity(self) -> bytes:
        self._name()
        assert self._known is not None
        return protocol.dumps({"directories": _DIRECTORIES, "stamp": self._known[1]})

    def _connect(self, name: str) -> Any:
        line = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            line.setblocking(False)  # where its queue is full, it has stopped
            with_directory(self._directory, name, line.connect)
        except OSError as e:
            line.close()
            if e.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN):
                return None
            raise
        return line

    def _listen(self, name: str) -> Any:
        """Its listening socket, for whoever has the lock: what others have left is removed."""
        for left in os.listdir(self._directory):
            if left != "lock":
                os.unlink(f"{self._directory}/{left}")
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            with_directory(self._directory, name, listener.bind)
            os.chmod(f"{self._directory}/{name}", 0o600)
            listener.listen(_QUEUE)
        except BaseException:
            listener.close()
            raise
        return listener


_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def send(line: Any, message: bytes, descriptors: list[int] | None = None) -> None:
    """One message. It never waits: whoever has not read the ones before it is not there. Raises OSError."""
    rights = struct.pack(f"{len(descriptors)}i", *descriptors) if descriptors else b""
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if rights else []
    line.sendmsg([message], ancillary, _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT)


def with_directory(directory: str, name: str, function: Any) -> None:
    """Call `function` with a path of `name` that is short enough for a sun_path, however long the directory's is."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        function(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)
