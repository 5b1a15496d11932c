"""What is seen of a pull or a push: on a terminal a line for each layer, drawn again and again; elsewhere a line for each step.

Docker's display, which a person reads and scripts parse. Lines are told by several threads at once.
"""

from __future__ import annotations

import os
import time

from sampan.cli.output import Failure, WriteFailed, out, write
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from sampan.cli.flags import Arguments
    from sampan.oci.reference import Reference

_INTERVAL = 0.1  # seconds between two drawings of one layer
_NARROW = 60  # columns below which there is no bar
_BAR = 50


class Transfers:
    """Where a `Report` of the engine goes. A context manager.

    `fd`: 1 for what is asked for, 2 for what is beside it. `quiet`: nothing is shown.
    """

    def __init__(self, fd: int, quiet: bool = False) -> None:
        import threading

        self._fd = fd
        self._quiet = quiet
        self._drawn_on = os.isatty(fd) and os.environ.get("TERM", "dumb") != "dumb"
        self._rows: dict[str, int] = {}
        self._last: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def __call__(self, layer: str, status: str, done: int, total: int) -> None:
        if self._quiet:
            return
        with self._lock:
            now = time.monotonic()
            before, drawn = self._last.get(layer, ("", 0.0))
            if before == status and (not self._drawn_on or (now - drawn < _INTERVAL and done < total)):
                return
            self._last[layer] = (status, now)
            if not layer:
                self._write(f"{status}\n")
            elif self._drawn_on:
                self._draw(layer, status, done, total)
            elif not total:
                # How far it is, is for who looks on.
                self._write(f"{layer}: {status}\n")

    def line(self, text: str) -> None:
        """A line of its own, behind all layers."""
        self("", text, 0, 0)
        self._last.pop("", None)

    def _draw(self, layer: str, status: str, done: int, total: int) -> None:
        text = f"{layer}: {status}"
        columns, lines = _size(self._fd)
        if total:
            text += _progress(done, total, columns - len(text))
        text = text[: max(1, columns - 1)]
        if layer not in self._rows:
            self._rows[layer] = len(self._rows)
            self._write(f"{text}\r\n")
            return
        up = len(self._rows) - self._rows[layer]
        if up < lines:  # What has left the screen above cannot be drawn again.
            self._write(f"\x1b[{up}A\r\x1b[2K{text}\r\x1b[{up}B")

    def _write(self, text: str) -> None:
        try:
            write(self._fd, text.encode("utf-8", "surrogateescape"))
        except (OSError, WriteFailed):
            pass  # Nobody looks any more: that is no reason to stop.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _progress(done: int, total: int, room: int) -> str:
    from sampan.cli.prune import human_size

    numbers = f"  {human_size(done)}/{human_size(total)}"
    if room < _NARROW + len(numbers):
        return numbers
    full = min(_BAR, done * _BAR // total)
    return f" [{'=' * full}{'>' * (full < _BAR)}{' ' * (_BAR - 1 - full)}]{numbers}"


def _size(fd: int) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return 80, 24
    return size.columns or 80, size.lines or 24


def whole_name(arguments: Arguments) -> Reference:
    """The image that `pull` or `push` names, with its tag; with --all-tags, of which there is none. Raises Failure."""
    name = reference.parse(arguments.words[0])
    if arguments["all-tags"]:
        if name.tag or name.digest:
            raise Failure("tag can't be used with --all-tags/-a")
        return name
    if name.tagged() != name:
        name = name.tagged()
        if not arguments["quiet"]:
            out(f"Using default tag: {name.tag}")
    return name
