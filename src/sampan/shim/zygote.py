"""The zygote: a process that has imported all that a shim will ever run, and forks a shim for each request.

    launcher                                   zygote                        shim
       | posix_spawn, a line ------------------> boots
       | {stamp} + listening socket, lock -----> compares; serves, as long as it has the lock
       | FORK + the shim's socket -------------> clone3(CLONE_PARENT) -----> monitor; or one that was forked before gets the socket
       |<- READY ----------------------------------------------------------- over the shim's socket; then as `protocol` has it
       | LEARN lines --------------------------> reads steps that plans have in common (`steps.base.learn`), once: see UNTAUGHT
       | KEEP seconds -------------------------> stays that long without a request, also without a line
       |<- its pid -----------------------------
       | STOP ---------------------------------> leaves

Packets over a socket below the run root, which only its owner may connect to. It is an accelerator: what it does not do, because it
was killed, is stopped, or has other surroundings, a fresh interpreter does (`runtime.zygotes`).

It has one thread, no state but its lines, and is sealed before it forks for the first time: what a shim of it runs came from the disk
when it began, whatever has been installed since. A shim is its sibling, not its child: it waits for none, and none notices its end.
"""

from __future__ import annotations

import os
import sys

from sampan.kernel import placement

# First of all, so that nobody waits for what is imported now. The arguments: the directory and the name of its socket, then where to live.
_, _, DIRECTORY, NAME, _birthplace, *_groups = sys.argv
if not placement.fork_away(_birthplace, _groups):
    os._exit(0)

# ruff: noqa: E402
import _socket
import fcntl
import gc
import select
import struct
import time

from sampan.shim import boot, monitor, seal  # noqa: F401  # boot first: it gives back what the interpreter brought

seal.forget_documentation()
# What a shim imports only if its container asks for it. Here it costs no container anything: the memory is shared.
from sampan.kernel import devicefilter, files, process, surroundings  # noqa: F401

seal.forget_documentation()
from sampan.shim import compressor, health, keeperwatch, locallog, protocol, rehearsal  # noqa: F401

seal.forget_documentation()
from sampan.steps import base, cgroups, changeroot, ids, moremounts, mounts, namespaces, sources  # noqa: F401

seal.forget_documentation()

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any, NoReturn
else:
    import _signal

_ROOM = 1 << 16
_MOST_LINES = 512
_LOOK_SECONDS = 5.0
"""How often it looks whether its directory is still there, and whether its time is over."""
_QUIET_SECONDS = 0.03
"""After which a shim is forked for the next request, if there was none. Not at once: the start that was asked for last has the processors."""
_UNUSED_SECONDS = 300.0
"""Without a request, after which it leaves though somebody has a line: the next one starts another."""
_PEER = struct.Struct("3i")


class Zygote:
    """Serves lines. `name`: of its socket in `directory`."""

    def __init__(self, directory: str, name: str) -> None:
        self._directory = directory
        self._name = name
        self._poll = select.poll()
        self._listener: Any = None
        self._lines: dict[int, Any] = {}
        self._kept = 0.0
        self._used = time.monotonic()
        self._leaving = False
        self._spare: Any = None
        self._makes_spares = True
        self._forked = self._rehearsed = self._taught = False

    def serve(self, listener: int, line: Any) -> None:
        """Until nobody is there any more, nobody has asked for anything for long, or it is told to stop."""
        self._listener = _socket.socket(fileno=listener)
        self._listener.setblocking(False)
        self._poll.register(listener, select.POLLIN)
        self._add(line)
        _freeze()
        while not self._leaving and (left := self._seconds_left()) > 0:
            ready = self._poll.poll(int(min(left, self._patience()) * 1000) + 1)
            if not ready and self._wants_spare():
                self._make_spare()
            for fd, _ in ready:
                if fd == listener:
                    self._accept()
                elif fd in self._lines:
                    self._take(self._lines[fd])
            if self._forked and not self._rehearsed:
                # Not before the first, whose launcher waits.
                self._rehearsed = True
                rehearsal.rehearse()
                rehearsal.rehearse_monitor(rehearsal.TIMES)
                _freeze()
        self._leave()

    def _patience(self) -> float:
        """Seconds until the next look at what is not an event."""
        return _QUIET_SECONDS if self._wants_spare() else _LOOK_SECONDS

    def _wants_spare(self) -> bool:
        return self._rehearsed and self._makes_spares and self._spare is None

    def _seconds_left(self) -> float:
        if not os.path.exists(f"{self._directory}/{self._name}"):
            return 0.0
        stays = max(self._kept, _UNUSED_SECONDS if self._lines else 0.0)
        return self._used + stays - time.monotonic()

    def _leave(self) -> None:
        try:
            os.unlink(f"{self._directory}/{self._name}")
        except OSError:
            pass  # its directory is gone

    def _accept(self) -> None:
        try:
            fd, _ = self._listener._accept()
        except OSError:
            return
        line = _socket.socket(fileno=fd)
        # The directory lets nobody else in; this is for a descriptor of it that went astray.
        _, uid, _ = _PEER.unpack(line.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _PEER.size))
        if uid != os.geteuid() or len(self._lines) >= _MOST_LINES:
            line.close()
            return
        self._add(line)

    def _add(self, line: Any) -> None:
        line.setblocking(False)
        self._lines[line.fileno()] = line
        self._poll.register(line.fileno(), select.POLLIN)

    def _drop(self, line: Any) -> None:
        self._poll.unregister(line.fileno())
        del self._lines[line.fileno()]
        line.close()

    def _take(self, line: Any) -> None:
        """One message of a line, or its end."""
        try:
            received = receive(line)
        except BlockingIOError:
            return
        except OSError:
            received = b"", []
        message, descriptors = received
        try:
            if message == protocol.ZYGOTE_FORK and len(descriptors) == 1:
                self._used = time.monotonic()
                self._fork(descriptors.pop())
            elif message.startswith(protocol.ZYGOTE_LEARN):
                self._learn(message[len(protocol.ZYGOTE_LEARN) :])
            elif message.startswith(protocol.ZYGOTE_KEEP) and message[len(protocol.ZYGOTE_KEEP) :].isdigit():
                self._used, self._kept = time.monotonic(), float(message[len(protocol.ZYGOTE_KEEP) :])
                line.send(b"%d" % os.getpid())
            elif message == protocol.ZYGOTE_STOP:
                self._leaving = True
            else:
                self._drop(line)  # its end, or somebody who speaks something else
        except OSError:
            pass  # no process, no memory: the launcher sees its socket hang up, and helps itself
        finally:
            files.close_all(descriptors)

    def _learn(self, lines: bytes) -> None:
        """Once: what is learned stays, and plans are alike enough."""
        if not self._taught:
            self._taught = True
            self._drop_spare()
            base.learn(lines.decode("ascii", "replace").split("\n"))
            _freeze()

    def _fork(self, control: int) -> None:
        try:
            if not self._hand_to_spare(control) and process.clone3(process.CLONE_PARENT) == 0:
                self._become_shim(control)
            self._forked = True
        finally:
            os.close(control)

    def _become_shim(self, control: int) -> NoReturn:
        """What `boot` does for a shim with an interpreter of its own, less what was done before the fork."""
        try:
            self._leave_all_but(control)
            self._live()
        finally:
            os._exit(1)

    def _leave_all_but(self, fd: int) -> None:
        """Nothing is left of the zygote's but this descriptor, which gets the number of a launcher's socket."""
        for line in (self._listener, *self._lines.values()):
            line.detach()  # these numbers will be others' in this process
        os.dup2(fd, protocol.CONTROL_FD, inheritable=False)
        process.close_range(protocol.CONTROL_FD + 1)
        monitor.leave()

    def _live(self) -> NoReturn:
        os.write(protocol.CONTROL_FD, protocol.frame(protocol.READY if self._taught else protocol.UNTAUGHT))
        monitor.live(protocol.CONTROL_FD)
        os._exit(0)

    # one that is forked before it is asked for

    def _make_spare(self) -> None:
        """When nothing is asked for. It costs the next start nothing to be forked and to come up, and has copied most of its pages by then."""
        try:
            ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        except OSError:
            self._makes_spares = False  # no descriptors: those that there are are for who asks
            return
        try:
            if process.clone3(process.CLONE_PARENT) == 0:
                self._become_spare(theirs.fileno())
            self._spare = ours
        except OSError:
            self._makes_spares = False  # nor processes
            ours.close()
        finally:
            theirs.close()

    def _become_spare(self, line: int) -> NoReturn:
        try:
            self._leave_all_but(line)
            rehearsal.rehearse_monitor(1)
            _, descriptors = receive(_socket.socket(fileno=protocol.CONTROL_FD))
            if not descriptors:
                os._exit(0)  # the zygote has gone, or has learned something that we have not
            os.dup2(descriptors[0], protocol.CONTROL_FD, inheritable=False)
            os.close(descriptors[0])
            self._live()
        finally:
            os._exit(1)

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _hand_to_spare(self, control: int) -> bool:
        """Whether there was one that took it. One that is stopped does not answer; who waits for it helps himself."""
        if self._spare is None:
            return False
        try:
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", control))
            self._spare.sendmsg([b"fork"], [rights], _socket.MSG_NOSIGNAL)
            return True
        except OSError:
            return False  # it was killed
        finally:
            self._drop_spare()


def _freeze() -> None:
    """A collection in a shim would write to every object, and so copy the pages that it shares with us: these are left out of it."""
    gc.collect()
    gc.freeze()


def receive(line: Any) -> tuple[bytes, list[int]]:
    """A message and its descriptors; nothing of either at the end. Raises OSError."""
    data, ancillary, _, _ = line.recvmsg(_ROOM, _socket.CMSG_SPACE(4 * 8), _socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            descriptors += struct.unpack(f"{len(payload) // 4}i", payload[: len(payload) // 4 * 4])
    return data, descriptors


def main() -> None:
    """The process from here on: take what the launcher made, be what it asked for, serve."""
    process.close_range(protocol.CONTROL_FD + 1)
    os.setsid()
    os.umask(0)
    os.chdir("/")
    process.set_name("sampan-zygote")
    process.set_dumpable(False)
    placement.be_spared()
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGPIPE):
        _signal.signal(number, _signal.SIG_IGN)
    # Away from the number that a shim's socket is to have.
    line = _socket.socket(fileno=fcntl.fcntl(protocol.CONTROL_FD, fcntl.F_DUPFD_CLOEXEC, protocol.CONTROL_FD + 1))
    os.close(protocol.CONTROL_FD)
    message, descriptors = receive(line)
    if len(descriptors) == 2 and _is_what_is_asked_for(message):
        seal.seal()
        Zygote(DIRECTORY, NAME).serve(descriptors[0], line)
    os._exit(0)


def _is_what_is_asked_for(message: bytes) -> bool:
    """Whether we are made of the files that the launcher has seen: an upgrade may have come in between."""
    asked = protocol.loads(message)
    try:
        return bool(surroundings.stamp(asked["directories"]) == asked["stamp"])
    except OSError:
        return False
