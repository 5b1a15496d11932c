"""Text to the standard streams, at once and unchanged.

Not by print(): names of files and images need not be UTF-8 (surrogate escapes, on which a UTF-8 standard output fails),
and what the relay writes to the descriptor itself must not overtake what sits in a buffer.
"""

from __future__ import annotations

import os

from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Failure(Exception):
    """The verb cannot go on. The text is printed as it is; `code` is the command's exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class WriteFailed(Exception):
    """A standard stream could not be written, and not because its reader has gone (that is a BrokenPipeError)."""


def refusal(path: str, error: Exception) -> str:
    """What `run` says when it cannot: Docker's text, and where to read on."""
    return f"sampan: {error}\n\nRun '{path} --help' for more information"


def out(text: str) -> None:
    """A line (or lines) to standard output. Raises BrokenPipeError and `WriteFailed`."""
    write(1, (text + "\n").encode("utf-8", "surrogateescape"))


def err(text: str) -> None:
    """A line (or lines) to standard error. Whether anybody reads it changes nothing."""
    try:
        write(2, (text + "\n").encode("utf-8", "surrogateescape"))
    except (OSError, WriteFailed):
        pass  # there is no place left to complain


def shortened(text: str, width: int) -> str:
    """At most `width` characters, the last one an ellipsis if something was cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


def write(fd: int, data: bytes) -> None:
    """All of `data`, also to a descriptor that somebody else has made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            _wait_writable(fd)
        except BrokenPipeError:
            raise
        except OSError as e:
            raise WriteFailed(
                f"write /dev/{'stdout' if fd == 1 else 'stderr'}: {(e.strerror or str(e)).lower()}"
            ) from e


def _wait_writable(fd: int) -> None:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


class Table(Struct):
    """Columns as wide as their widest cell and three spaces, ten at least; the last one is not padded."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        lines: list[Sequence[str]] = [self.heads, *self.rows]
        widths = [max(10, 3 + max(len(line[i]) for line in lines)) for i in range(len(self.heads) - 1)]
        return "\n".join(
            "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)) + line[-1] for line in lines
        )
