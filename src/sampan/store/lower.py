"""The layers below one: what they show together, asked name by name, without a mount.

The overlay rules (Documentation/filesystems/overlayfs.rst), as far as a name can be seen: the topmost layer
that has it decides; a whiteout, anything that is no directory, and an opaque directory end the search.
"""

from __future__ import annotations

import os
import stat

from sampan.kernel.files import is_opaque, is_whiteout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Found:
    """Something that the layers show: `name` in the directory `dir_fd`, with its status. To be closed."""

    __slots__ = ("dir_fd", "name", "status")

    def __init__(self, dir_fd: int, name: bytes, status: os.stat_result) -> None:
        self.dir_fd = dir_fd
        self.name = name
        self.status = status

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    def open_directory(self) -> int:
        """The directory that was found, as a descriptor of the caller's."""
        return os.open(self.name, _DIRECTORY, dir_fd=self.dir_fd)

    def close(self) -> None:
        os.close(self.dir_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()


class LowerLayers:
    """Directories in overlay form, topmost first. Opens nothing until it is asked."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = directories
        self._fds: list[int] = []

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def find(self, path: bytes) -> Found | None:
        """What is at `path` (relative, without links, "." and ".."; b"" is the root), or None."""
        components = path.split(b"/") if path else [b"."]
        for layer in self._layers():
            found, decided = _find_in(layer, components)
            if decided:
                return found
        return None

    def names(self) -> list[bytes]:
        """The names that the root directory shows."""
        decided: dict[bytes, bool] = {}
        for layer in self._layers():
            for text in os.listdir(layer):
                name = os.fsencode(text)
                if name not in decided:
                    decided[name] = not is_whiteout(os.stat(name, dir_fd=layer, follow_symlinks=False))
        return [name for name, shown in decided.items() if shown]

    def _layers(self) -> list[int]:
        if not self._fds:
            for directory in self._directories:
                self._fds.append(os.open(directory, _DIRECTORY))
        return self._fds


def _find_in(layer: int, components: list[bytes]) -> tuple[Found | None, bool]:
    """What one layer has, and whether that is the last word; the descriptor is one of the caller's."""
    fd = os.dup(layer)
    opaque = False
    try:
        for name in components[:-1]:
            status = _status(fd, name)
            if status is None:
                return None, opaque
            if not stat.S_ISDIR(status.st_mode):  # Also a whiteout: nothing is below it, nor below it in lower layers.
                return None, True
            fd, parent = os.open(name, _DIRECTORY, dir_fd=fd), fd
            os.close(parent)
            opaque = opaque or is_opaque(fd)
        status = _status(fd, components[-1])
        if status is None:
            return None, opaque
        if is_whiteout(status):
            return None, True
        found = Found(fd, components[-1], status)
        fd = -1
        return found, True
    finally:
        if fd >= 0:
            os.close(fd)


def _status(fd: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
