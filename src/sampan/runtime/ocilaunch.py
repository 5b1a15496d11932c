"""The parent side of one process of an OCI container: start stage1, hand over the plan, hear how far it is, know what came of it.

The part that a monitor has in the engine. Here the command itself has it, and its children are the container's processes.
"""

from __future__ import annotations

import os

from sampan.errors import StartFailed
from sampan.shim import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.runtime.ocispawn import Stage
    from sampan.steps.base import Step


class Launch:
    """A process on its way, from its stage1's start to its program's execve."""

    def __init__(self, stage: Stage, debug: Callable[[str], None] | None = None) -> None:
        self.debug = debug
        self.pid = 0
        """Of the container's process, once it is there; our child."""
        self._stage = stage
        self._control = stage.control

    def start(
        self,
        stages: protocol.Stages,
        birth: tuple[Step, ...],
        descriptors: dict[str, int],
        met: Callable[[str], None],
        born: Callable[[int], None] | None = None,
    ) -> None:
        """Run the plan until the program is executed, or waits for `start`. `met` is called for each meeting, before leave is given.

        born: called with the pid, while the process makes itself ready; not where stage1 tells the pid only at its end. birth: as in `ocispawn.Stage.begin`. Raises `StartFailed`, and what `met` raises; nothing is left of the process then.
        """
        try:
            self.pid = self._stage.begin(stages, birth, descriptors, self.debug is not None)
            if self.pid and born is not None:
                born(self.pid)
            self._converse(stages, met)
        except BaseException:
            self._control.close()
            self.kill()
            raise
        self._control.close()
        self._stage.reap()

    def kill(self) -> None:
        """SIGKILL to whatever there is of it, and wait for its end."""
        self._stage.kill()
        if self.pid:
            try:
                os.kill(self.pid, 9)
                os.waitpid(self.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        self.pid = 0

    def _converse(self, stages: protocol.Stages, met: Callable[[str], None]) -> None:
        hearing = Hearing(stages, self.debug)
        waiting = ""
        for kind, body in _frames(self._control):
            if kind == protocol.INIT:
                self.pid = protocol.loads(body)["pid"]
            elif kind == protocol.MEET:
                waiting = protocol.loads(body)["word"]
            else:
                hearing.take(kind, body)
            # stage2 may be faster than stage1's word on who it is.
            if waiting and self.pid:
                met(waiting)
                self._control.sendall(protocol.message(protocol.GO, pid=self.pid))
                if waiting == "created" and holds(stages):
                    return
                waiting = ""
        hearing.end()


def holds(stages: protocol.Stages) -> bool:
    """Whether the process waits for `start` when it is made."""
    return any(type(step).__name__ == "HoldForStart" for step in stages.stage2)


class Hearing:
    """What the stages said, and what it means when they say no more."""

    def __init__(self, stages: protocol.Stages | None, debug: Callable[[str], None] | None = None) -> None:
        self._stages = stages
        self._debug = debug
        self._executing = False
        self._failed: dict[str, Any] | None = None

    def take(self, kind: int, body: bytes) -> None:
        """One frame."""
        said = protocol.loads(body)
        if kind == protocol.LAST:
            self._executing = True
        elif kind == protocol.FAILED:
            self._failed = said
        elif kind == protocol.DONE and self._debug is not None and self._stages is not None:
            text = self._stages.text_of(said["stage"], said["index"])
            self._debug(f"{said['stage']} {text}: ok, {said['seconds'] * 1e6:.0f} us")

    def end(self) -> None:
        """The end of file: the execve if it was announced and did not fail. Raises `StartFailed`."""
        if self._failed is not None:
            raise StartFailed(explain(self._failed), self._failed["exit_code"])
        if not self._executing:
            raise StartFailed(
                "unable to start container process: the process that sets the container up was killed "
                "(the memory limit may be too small for a start, or the machine is out of memory)"
            )


def explain(failed: dict[str, Any]) -> str:
    """A failed step in one line, as `shim.launch.explain` has it in the engine."""
    if failed["message"] and not failed["errno"]:
        return f"unable to start container process: {failed['message']}"
    reason = os.strerror(failed["errno"]).lower() if failed["errno"] else failed["message"]
    where = f" {failed['path']}" if failed["path"] else ""
    call = f"{failed['syscall']}{where}: " if failed["syscall"] else (f"{failed['path']}: " if failed["path"] else "")
    advice = f" ({failed['advice']})" if failed["advice"] else ""
    return f"unable to start container process: {failed['stage']}: {failed['step']}: {call}{reason}{advice}"


def release(directory: int, name: str) -> None:
    """`start`: connect to a container that waits, give the word, return when its program runs.

    Raises `StartFailed`, and `ConnectionRefusedError` or `FileNotFoundError` when nobody waits.
    """
    import _socket

    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        # Through a descriptor of the directory: the path may be longer than the 107 bytes of a sun_path.
        socket.connect(f"/proc/self/fd/{directory}/{name}")
        socket.sendall(b"!")
        hearing = Hearing(None)
        for kind, body in _frames(socket):
            hearing.take(kind, body)
        hearing.end()
    finally:
        socket.close()


def listen(directory: int, name: str) -> Any:
    """The socket at which a container waits for `start`."""
    import _socket

    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    socket.bind(f"/proc/self/fd/{directory}/{name}")
    os.chmod(f"/proc/self/fd/{directory}/{name}", 0o600)
    socket.listen(8)
    return socket


def _frames(socket: Any) -> Any:
    reader = protocol.Reader()
    while True:
        try:
            data = socket.recv(1 << 16)
        except ConnectionResetError:
            return  # it was killed with our word unread
        if not data:
            return
        yield from reader.feed(data)
