"""What an OCI command says when something is wrong: lines into --log, in text or JSON, in the form that engines read."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Log:
    """Where the lines go. `path`: "" for standard error. Errors are told on standard error in any case."""

    def __init__(self, path: str = "", style: str = "text", debug: bool = False) -> None:
        self._path, self._style, self._debug = path, style, debug

    def debug(self, message: str) -> None:
        if self._debug:
            self._write("debug", message)

    @property
    def steps(self) -> Callable[[str], None] | None:
        """Whom each step that is taken is told to, None for nobody."""
        return self.debug if self._debug else None

    def warning(self, message: str) -> None:
        self._write("warning", message)

    def error(self, message: str) -> None:
        """An error, after which the command ends."""
        self._write("error", message)
        if self._path:
            _put(2, message + "\n")

    def _write(self, level: str, message: str) -> None:
        from sampan import jsontext  # a command of which nothing is told has stage1 to start first

        # In the caller's time zone, as RFC 3339 has it.
        zone = time.strftime("%z")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S") + (f"{zone[:3]}:{zone[3:]}" if zone != "+0000" else "Z")
        if self._style == "json":
            line = jsontext.dumps({"level": level, "msg": message, "time": stamp}).decode("ascii")
        else:
            line = f'time="{stamp}" level={level} msg={jsontext.dumps(message).decode("ascii")}'
        if not self._path:
            _put(2, line + "\n")
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as e:
            _put(2, f"{line}\nopen {self._path}: {os.strerror(e.errno or 0).lower()}\n")
            return
        try:
            os.write(fd, (line + "\n").encode())
        finally:
            os.close(fd)


def _put(fd: int, text: str) -> None:
    try:
        os.write(fd, text.encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # nobody reads it


def out(text: str) -> None:
    """A line, or lines, to standard output, whole. Raises OSError."""
    view = memoryview((text + "\n").encode("utf-8", "surrogateescape"))
    while view:
        view = view[os.write(1, view) :]


def indented(text: bytes, width: int = 2) -> str:
    """A JSON document of one line over several, as people read it. Only what `jsontext` writes: no spaces between tokens."""
    found: list[str] = []
    depth, quoted, escaped = 0, False, False
    source = text.decode("ascii")
    for index, c in enumerate(source):
        if quoted:
            found.append(c)
            quoted = escaped or c != '"'
            escaped = c == "\\" and not escaped
            continue
        quoted = c == '"'
        if c in "[{" and source[index + 1] not in "]}":
            depth += 1
            found.append(c + "\n" + " " * (width * depth))
        elif c in "]}" and source[index - 1] not in "[{":
            depth -= 1
            found.append("\n" + " " * (width * depth) + c)
        elif c == ",":
            found.append(c + "\n" + " " * (width * depth))
        else:
            found.append(": " if c == ":" else c)
    return "".join(found)
