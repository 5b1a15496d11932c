"""A directory as the context of a build, an archive that is made while it is sent. What the .dockerignore leaves out stays here."""

from __future__ import annotations

import os
import stat
import tarfile

from sampan.build.patterns import Ignore
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKERFILE = ".sampan.Dockerfile"
"""The name in the archive of a Dockerfile that is none of the context's."""
_PIECE = 256 << 10


class _Held:
    """What tarfile has written and nobody has taken yet."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def write(self, data: bytes, /) -> int:
        self._parts.append(bytes(data))
        self.size += len(data)
        return len(data)

    def take(self) -> bytes:
        parts, self._parts, self.size = self._parts, [], 0
        return b"".join(parts)


def ignored(directory: str, dockerfile: str) -> Ignore:
    """Docker's rule: the Dockerfile's own ignore file counts alone where there is one, else the directory's. Raises InvalidParameter."""
    for path in (os.path.join(directory, f"{dockerfile}.dockerignore"), os.path.join(directory, ".dockerignore")):
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return Ignore.parse(file.read())
        except FileNotFoundError:
            continue
        except OSError as e:
            raise InvalidParameter(f"open {path}: {(e.strerror or str(e)).lower()}") from None
    return Ignore()


def pack(directory: str, dockerfile: str, text: str | None = None) -> Iterator[bytes]:
    """The archive in pieces. dockerfile: a path in the directory; it and the ignore files are sent whatever is ignored.

    text: a Dockerfile to be sent as `DOCKERFILE`. All belongs to root, as Docker's clients send it. Raises InvalidParameter.
    """
    ignore = ignored(directory, dockerfile)
    needed = {os.path.normpath(dockerfile), f"{os.path.normpath(dockerfile)}.dockerignore", ".dockerignore"}
    held = _Held()
    try:
        # The library's own buffer is its records'; larger ones make fewer pieces.
        with tarfile.open(fileobj=held, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE) as archive:  # type: ignore[call-overload]
            if text is not None:
                _add_text(archive, text)
            for name in _names(directory, ignore, needed):
                yield from _added(archive, held, directory, name)
        yield held.take()
    except OSError as e:
        raise InvalidParameter(f"{e.filename or directory}: {(e.strerror or str(e)).lower()}") from None


def _names(directory: str, ignore: Ignore, needed: set[str]) -> Iterator[str]:
    above: list[str] = [""]
    while above:
        at = above.pop()
        with os.scandir(os.path.join(directory, at)) as scanned:
            entries = sorted(scanned, key=lambda one: one.name)
        for entry in entries:
            name = f"{at}/{entry.name}" if at else entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            below = any(one.startswith(f"{name}/") for one in needed)
            if is_directory and (below or not ignore.skips(name)):
                above.append(name)
            if name in needed or below or not ignore.ignores(name):
                yield name


def _added(archive: tarfile.TarFile, held: _Held, directory: str, name: str) -> Iterator[bytes]:
    path = os.path.join(directory, name)
    if stat.S_ISSOCK(os.lstat(path).st_mode):
        return
    member = archive.gettarinfo(path, name)
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    if not member.isreg():
        archive.addfile(member)
        return
    with open(path, "rb") as file:
        # Not by `addfile`: from Python 3.13 on it wants the content with the header, and would read it to its end at once.
        header = member.tobuf(archive.format, archive.encoding, archive.errors)
        archive.fileobj.write(header)
        archive.offset += len(header)
        left = member.size
        while left and (piece := file.read(min(left, _PIECE))):
            archive.fileobj.write(piece)
            left -= len(piece)
            if held.size >= _PIECE:
                yield held.take()
        if left:
            raise InvalidParameter(f"{path}: the file became shorter while it was read")
    padding = -member.size % tarfile.BLOCKSIZE
    archive.fileobj.write(bytes(padding))
    archive.offset += member.size + padding


def _add_text(archive: tarfile.TarFile, text: str) -> None:
    import io

    data = text.encode("utf-8", "surrogateescape")
    member = tarfile.TarInfo(DOCKERFILE)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
