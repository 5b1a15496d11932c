"""The files of one log in their order, while the shim goes on renaming them.

PATH is the newest, PATH.1 was the newest before it, and so on; some may be compressed (PATH.2.gz). A file that is open
stays readable when it is renamed, compressed or removed.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    Identity = tuple[int, int]
    """Device and inode."""

_TRIES = 50
_CHUNK = 1 << 18
_HEAD = 512


class LogFile:
    """One of them, open. What is compressed is unpacked, into a file without a name, when it is first read."""

    def __init__(self, fd: int, compressed: bool) -> None:
        self._fd = fd
        self._compressed = compressed
        status = os.fstat(fd)
        self.identity = (status.st_dev, status.st_ino)
        self.written = status.st_mtime_ns

    def descriptor(self) -> int:
        """Of its plain content."""
        if self._compressed:
            import tempfile
            import zlib

            with tempfile.TemporaryFile() as plain:
                unpacker = zlib.decompressobj(wbits=31)
                try:
                    while piece := os.read(self._fd, _CHUNK):
                        plain.write(unpacker.decompress(piece))
                except zlib.error:
                    pass  # damaged: what came before it is shown
                plain.flush()
                packed, self._fd = self._fd, os.dup(plain.fileno())
            os.close(packed)
            self._compressed = False
        return self._fd

    def is_same(self, other: LogFile) -> bool:
        """Whether it is the other one, or that compressed."""
        if self.identity == other.identity:
            return True
        if not self._compressed and not other._compressed:
            return False
        mine, others = self.descriptor(), other.descriptor()
        size = os.fstat(mine).st_size
        return size == os.fstat(others).st_size and os.pread(mine, _HEAD, 0) == os.pread(others, _HEAD, 0)

    def close(self) -> None:
        os.close(self._fd)


def open_files(path: str) -> list[LogFile]:
    """All files of a log, the oldest first; none if there is no log (yet)."""
    for _ in range(_TRIES):
        before = _names(path)
        files = _open(before)
        # A rotation renames one after the other: in the middle of it one may be there twice, or not at all.
        if [file.identity for file in files] == [identity for _, identity in before] and _names(path) == before:
            return files
        close(files)
    return list({file.identity: file for file in _open(_names(path))}.values())


def newer_than(path: str, file: LogFile) -> list[LogFile] | None:
    """The files that were begun after `file`, the oldest first; None if `file` is gone: then it is all of them."""
    if _is_newest(path, file):
        return []
    files = open_files(path)
    for index in range(len(files) - 1, -1, -1):
        if files[index].is_same(file):
            close(files[: index + 1])
            return files[index + 1 :]
    close(files)
    return None


def close(files: list[LogFile]) -> None:
    for file in files:
        file.close()


def _is_newest(path: str, file: LogFile) -> bool:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False  # the shim is about to make it, or was killed there
    return (status.st_dev, status.st_ino) == file.identity


def _names(path: str) -> list[tuple[str, Identity]]:
    """The files' names in their order, the oldest first, and which file has each in this moment."""
    directory, _, name = path.rpartition("/")
    numbers = set()
    try:
        for entry in os.listdir(directory):
            number = entry.removeprefix(f"{name}.").removesuffix(".gz")
            if entry.startswith(f"{name}.") and number.isdigit():
                numbers.add(int(number))
    except FileNotFoundError:
        return []
    names = []
    for candidate in (*(f"{path}.{number}" for number in sorted(numbers, reverse=True)), path):
        # The plain one first: when the compressed one is whole, both are there for a moment.
        for suffix in ("", ".gz") if candidate != path else ("",):
            try:
                status = os.stat(f"{candidate}{suffix}")
            except FileNotFoundError:
                continue
            names.append((f"{candidate}{suffix}", (status.st_dev, status.st_ino)))
            break
    return names


def _open(names: list[tuple[str, Identity]]) -> list[LogFile]:
    files = []
    for name, _ in names:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        files.append(LogFile(fd, name.endswith(".gz")))
    return files
