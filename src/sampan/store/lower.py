"""The layers below one: what they show together, asked name by name, without a mount.

The overlay rules (Documentation/filesystems/overlayfs.rst), as far as a name can be seen: the topmost layer
that has it decides; a whiteout, anything that is no directory, and an opaque directory end the search.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.kernel.files import by_descriptor, close_all, is_opaque, is_whiteout

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

    def directory(self, path: bytes) -> LowerDirectory | None:
        """The directory that the layers show at `path` (as for `find`), to be closed; None if they show none there."""
        components = path.split(b"/") if path else []
        fds: list[int] = []
        try:
            for layer in self._layers():
                fd, decided = _open_in(layer, components)
                if fd is not None:
                    fds.append(fd)
                if decided:
                    break
        except BaseException:
            close_all(fds)
            raise
        return LowerDirectory(fds) if fds else None

    def names(self) -> list[bytes]:
        """The names that the root directory shows."""
        return _names(self._layers())

    def _layers(self) -> list[int]:
        if not self._fds:
            for directory in self._directories:
                self._fds.append(os.open(directory, _DIRECTORY))
        return self._fds


class LowerDirectory:
    """One directory as the layers show it together: for many questions about what is in it."""

    def __init__(self, fds: list[int]) -> None:
        """`fds` are the layers' directories, topmost first; they are closed by `close`."""
        self._fds = fds

    @property
    def fd(self) -> int:
        """The topmost layer's directory: its owner, mode and xattrs are what shows."""
        return self._fds[0]

    def find(self, name: bytes) -> os.stat_result | None:
        """The status of what is shown at a name, None if nothing is."""
        found = self.locate(name)
        return None if found is None else found[1]

    def capability(self, name: bytes) -> bytes:
        """The file capabilities (security.capability) of what is shown at a name; empty if it has none."""
        found = self.locate(name)
        return b"" if found is None else capability(found[0], name, found[1])

    def locate(self, name: bytes) -> tuple[int, os.stat_result] | None:
        """Where what is shown at a name is: a descriptor of the directory, which stays ours, and its status there."""
        for fd in self._fds:
            status = _status(fd, name)
            if status is not None:
                return None if is_whiteout(status) else (fd, status)
        return None

    def names(self) -> list[bytes]:
        """The names that are shown."""
        return _names(self._fds)

    def close(self) -> None:
        close_all(self._fds)


def capability(dir_fd: int, name: bytes, status: os.stat_result) -> bytes:
    """The file capabilities (capabilities(7)) of a file in a directory, as the kernel keeps them; empty if none."""
    if not stat.S_ISREG(status.st_mode):
        return b""  # The kernel gives them to programs only.
    try:
        return os.getxattr(by_descriptor(dir_fd, name), "security.capability", follow_symlinks=False)
    except OSError as e:
        if e.errno in (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOENT):
            return b""
        raise


def _names(fds: Sequence[int]) -> list[bytes]:
    decided: dict[bytes, bool] = {}
    for fd in fds:
        for text in os.listdir(fd):
            name = os.fsencode(text)
            if name not in decided and (status := _status(fd, name)) is not None:
                decided[name] = not is_whiteout(status)
    return [name for name, shown in decided.items() if shown]


def _open_in(layer: int, components: list[bytes]) -> tuple[int | None, bool]:
    """One layer's directory at a place, and whether layers below do not show there any more."""
    fd = os.dup(layer)
    opaque = False
    try:
        for name in components:
            status = _status(fd, name)
            if status is None:
                return None, opaque
            if not stat.S_ISDIR(status.st_mode):
                return None, True
            fd, parent = os.open(name, _DIRECTORY, dir_fd=fd), fd
            os.close(parent)
            opaque = opaque or is_opaque(fd)
        found, fd = fd, -1
        return found, opaque
    finally:
        if fd >= 0:
            os.close(fd)


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
