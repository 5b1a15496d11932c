"""What a program said and how it ended, for callers who wait for all of it."""

from __future__ import annotations

import select

from sampan.errors import NotFound, SampanError
from sampan.kernel import clock
from sampan.runtime.handle import STDERR, STDOUT
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.engine.interface import Attachment, ContainerInterface

    Created = Callable[[ContainerInterface, list[str]], None]
    Launch = Callable[[Created], tuple[ContainerInterface, Attachment | None]]

__all__ = ["STDERR", "STDOUT", "ConnectionLost", "ExecResult", "Result", "RunFailed", "RunResult", "collect"]

_CHUNK = 16384
"""Bytes of input sent at a time: less than a stream socket has room for when poll says that it has some."""


class Result(Struct):
    """How a program ended and what it wrote."""

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """Standard output as text; bytes that are not UTF-8 become surrogate escapes."""
        return self.stdout_bytes.decode("utf-8", "surrogateescape")

    @property
    def stderr(self) -> str:
        """Standard error as text."""
        return self.stderr_bytes.decode("utf-8", "surrogateescape")


class RunResult(Result):
    """What `containers.run` returns."""

    name: str = ""
    id: str = ""

    def checked(self, check: bool) -> RunResult:
        """Itself. Raises RunFailed, with `check`, for another exit code than 0."""
        if check and self.exit_code:
            raise RunFailed(self)
        return self


class ExecResult(Result):
    """What `Container.exec` returns."""


class RunFailed(SampanError):
    """`containers.run(..., check=True)`: the program ended with another code than 0."""

    def __init__(self, result: RunResult) -> None:
        last = result.stderr.strip().rpartition("\n")[2]
        super().__init__(
            f"container {result.name} ended with exit code {result.exit_code}" + (f": {last}" if last else "")
        )
        self.result = result


class ConnectionLost(SampanError):
    """The program's monitor was killed: how the program ended will never be known."""


def collect(attachment: Attachment, input: bytes | str | None) -> ExecResult:
    """Feed `input` to the program and take all that it says, until it ends.

    Both at once, in one poll loop: a program that waits for us to read may not be reading itself.
    Raises ConnectionLost if the monitor is killed meanwhile.
    """
    output: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
    feed = _Feed(attachment, input)
    poll = select.poll()
    try:
        while attachment.exit is None:
            poll.register(attachment.fileno(), select.POLLIN | (select.POLLOUT if feed.left else 0))
            for _, events in poll.poll(int(clock.TURN * 1000)):
                if events & select.POLLOUT:
                    feed.send()
                if events & ~select.POLLOUT:
                    frames = attachment.receive()
                    if frames is None:
                        raise ConnectionLost("the container's monitor was killed, its exit code is unknown")
                    for kind, data in frames:
                        if kind in output:
                            output[kind].append(data)
    finally:
        attachment.close()
    return ExecResult(int(attachment.exit["exit_code"]), b"".join(output[STDOUT]), b"".join(output[STDERR]))


def attached(has_input: bool) -> dict[str, bool]:
    """What a request says of the streams of a program of which all is taken."""
    streams = {"AttachStdout": True, "AttachStderr": True}
    return streams | dict.fromkeys(("AttachStdin", "OpenStdin", "StdinOnce"), True) if has_input else streams


def result_of(launch: Launch, input: bytes | str | None) -> RunResult:
    """`collect` of a container that `launch` makes for this and starts: it tells of it in between.

    Interrupted, at whatever moment, as subprocess.run: nobody has it in hand to end it, so it is removed. One whose start failed is not, but by `launch`.
    """
    made: list[ContainerInterface] = []
    started = False
    try:
        container, attachment = launch(lambda one, _warnings: made.append(one))
        started = True
        assert attachment is not None
        ended = collect(attachment, input)
    except BaseException as e:
        if started or not isinstance(e, Exception):
            for one in made:
                _remove(one)
        raise
    return RunResult(ended.exit_code, ended.stdout_bytes, ended.stderr_bytes, container.name, container.id)


def _remove(container: ContainerInterface) -> None:
    try:
        container.remove(force=True)
    except NotFound:
        return  # it had come to its end, or never to its start


class _Feed:
    """Standard input on its way in; its end is sent behind the last byte."""

    def __init__(self, attachment: Attachment, input: bytes | str | None) -> None:
        self._attachment = attachment
        self._data = memoryview(input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input or b"")
        self.left = input is not None

    def send(self) -> None:
        try:
            if self._data:
                self._attachment.send(bytes(self._data[:_CHUNK]))
                self._data = self._data[_CHUNK:]
            else:
                self.left = False
                self._attachment.close_stdin()
        except (BrokenPipeError, ConnectionResetError):
            self.left = False  # it has ended without reading all of it, as `true` does
