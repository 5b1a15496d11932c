"""Where the files of a build come from: directories, archives on standard input, web servers, git repositories.

Whatever is not a directory of the caller's becomes one, in a place of the store that goes with the build. Archives are put there as
`cp` puts them into a container: no name and no link leads out of it.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager

from sampan.build import addresses
from sampan.build.patterns import Ignore
from sampan.engine.buildfiles import FileTree
from sampan.errors import InvalidParameter, System
from sampan.kernel import paths
from sampan.kernel.libc import KernelError
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Protocol, Self

    from sampan.engine.buildcancel import Cancellation
    from sampan.engine.buildmounts import Workplaces
    from sampan.engine.download import Download

    class Stream(Protocol):
        def read(self, size: int, /) -> bytes: ...


IMAGE = "docker-image://"
DOCKERFILE = "Dockerfile"
TEXT_LIMIT = 4 << 20
"""Bytes of a Dockerfile or of a .dockerignore: far more than anybody writes."""

_HEAD = 1 << 16
_FILE_LIMIT = 16 << 30
"""Bytes of a file from a web server: who sends more has something else in mind than a build."""

_HASHES = {"sha256": 64, "sha384": 96, "sha512": 128}


class Fetched(Struct):
    """A context that is here. directory: "" for none. text: the Dockerfile, if that is all that came. ours: nothing of it is the
    caller's, so that links in it are not to be followed out of it."""

    directory: str
    text: bytes | None = None
    ours: bool = True


class Contexts:
    """All that one build fetches; each address once. A context manager: at its end everything goes."""

    def __init__(self, workplaces: Workplaces, named: Mapping[str, str], cancellation: Cancellation) -> None:
        """named: what --build-context says, by name in lower case. cancellation: what is being fetched ends with it."""
        self._workplaces = workplaces
        self._named = named
        self.cancellation = cancellation
        self._until_done = ExitStack()
        self._trees: dict[tuple[str, ...], FileTree] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._until_done.close()

    def _place(self) -> str:
        place = self._until_done.enter_context(self._workplaces.files()).path
        os.chmod(place, 0o755)
        return place

    # The main context

    def fetch(self, context: str, stream: Stream | None, keep_git_dir: bool = False) -> Fetched:
        """What a context is: of a stream an archive or a Dockerfile, by its first bytes; of an address the same, or a repository.

        Raises `InvalidParameter`, `System`, `NotFound`, `Cancelled`.
        """
        if stream is not None:
            return self._received(stream, "standard input")
        if addresses.is_git(context):
            return Fetched(self._checked_out(context, keep_git_dir))
        if addresses.is_http(context):
            with self._download(context) as download:
                return self._received(download, addresses.redacted(context))
        if addresses.is_remote(context):
            raise InvalidParameter(
                f"unable to prepare context: {addresses.redacted(context)}: the protocol is not known"
            )
        return Fetched(context, ours=False)

    def _received(self, stream: Stream, name: str) -> Fetched:
        from sampan.engine.buildcopy import is_archive

        head = _some(stream, _HEAD)
        if not head:
            raise InvalidParameter(
                f"unable to prepare context: {name} is empty: an archive or a Dockerfile is expected"
            )
        if is_archive(head):
            place = self._place()
            _extract(_Prefixed(head, stream), place)
            return Fetched(place)
        text = head + _some(stream, TEXT_LIMIT + 1 - len(head))
        if len(text) > TEXT_LIMIT or b"\0" in text:
            raise InvalidParameter(f"unable to prepare context: {name} is neither an archive nor a Dockerfile")
        return Fetched("", text)

    def _checked_out(self, address: str, keep_git_dir: bool, checksum: str = "") -> str:
        from sampan.engine.buildgit import check_out

        return check_out(addresses.parse_git(address), self._place(), self.cancellation, keep_git_dir, checksum)

    @contextmanager
    def _download(self, address: str) -> Iterator[Download]:
        from sampan.engine.buildcancel import Cancelled
        from sampan.engine.download import download
        from sampan.registry.lines import Lines, Stopped

        lines = Lines()
        try:
            with self.cancellation.ending(lines.hang_up), download(address, lines) as answer:
                yield answer
        except Stopped:
            raise Cancelled from None

    # Named contexts

    def has(self, name: str) -> bool:
        return name.lower() in self._named

    def named(self, name: str) -> FileTree | str | None:
        """The files of a named context, or the name of the image that it stands for; None if there is no such context."""
        value = self._named.get(name.lower())
        if value is None:
            return None
        if value.startswith(IMAGE):
            return value.removeprefix(IMAGE)
        key = ("context", value)
        if key not in self._trees:
            fetched = self.fetch(value, None)
            if not fetched.directory:
                raise InvalidParameter(f"build context {name}: {addresses.redacted(value)} is no archive")
            self._trees[key] = self._opened(fetched.directory, read_ignore(fetched.directory, "", fetched.ours))
        return self._trees[key]

    def _opened(self, directory: str, ignore: Ignore) -> FileTree:
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise System(f"unable to prepare context: open {directory}: {(e.strerror or str(e)).lower()}") from None
        self._until_done.callback(os.close, fd)
        return FileTree(fd, ignore)

    def empty(self) -> FileTree:
        """A context without a file."""
        return self._opened(self._place(), Ignore())

    def local(self, directory: str, ignore: Ignore) -> FileTree:
        return self._opened(directory, ignore)

    # Sources of ADD

    def repository(self, address: str, keep_git_dir: bool, checksum: str) -> FileTree:
        """The tree of a repository."""
        key = ("git", address, str(keep_git_dir), checksum)
        if key not in self._trees:
            self._trees[key] = self._opened(self._checked_out(address, keep_git_dir, checksum), Ignore())
        return self._trees[key]

    def file(self, address: str, checksum: str) -> tuple[FileTree, str]:
        """A directory with the one file that an address leads to, and the file's name, "" if the address has none.

        The file is 0600, and has the time that the server tells (Dockerfile reference, "ADD"). Raises `InvalidParameter` for
        another content than `checksum` says, `System`.
        """
        key = ("http", address, checksum)
        if key not in self._trees:
            place = self._place()
            with self._download(address) as download:
                _save(download, f"{place}/file", checksum, addresses.redacted(address))
            self._trees[key] = self._opened(place, Ignore())
        return self._trees[key], _name_of(address)


def read_ignore(directory: str, dockerfile: str, ours: bool) -> Ignore:
    """The ignore file: that of the Dockerfile counts alone where there is one, else the directory's. Raises `InvalidParameter`."""
    candidates = [f"{dockerfile}.dockerignore"] if dockerfile else []
    candidates += [f"{directory}/.dockerignore"] if directory else []
    for path in candidates:
        text = read_text(path, directory if ours else "")
        if text is not None:
            try:
                return Ignore.parse(text)
            except InvalidParameter as e:
                raise InvalidParameter(f"error reading {os.path.basename(path)}: {e}") from None
    return Ignore()


def read_text(path: str, inside: str = "") -> str | None:
    """A file as text, None if it is not there. inside: a directory that no link in the path leads out of.

    Raises `InvalidParameter` for one that cannot be read.
    """
    try:
        fd = _open_inside(inside, path) if inside else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            data = file.read(TEXT_LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise InvalidParameter(f"open {path}: {os.strerror(e.errno or 0).lower()}") from None
    if len(data) > TEXT_LIMIT:
        raise InvalidParameter(f"{path} is larger than {TEXT_LIMIT >> 20} MiB")
    return data.decode("utf-8", "surrogateescape")


def _open_inside(directory: str, path: str) -> int:
    top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return paths.open_in_root(top, os.path.relpath(path, directory), os.O_RDONLY | os.O_NONBLOCK)
    except KernelError as e:
        raise OSError(e.errno, os.strerror(e.errno or 0), path) from None
    finally:
        os.close(top)


class _Prefixed:
    def __init__(self, head: bytes, rest: Stream) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        part, self._head = self._head[:size], self._head[size:]
        return part or self._rest.read(size)


def _some(stream: Stream, size: int) -> bytes:
    """Up to that many bytes: fewer only at the end."""
    found = b""
    while len(found) < size and (part := stream.read(size - len(found))):
        found += part
    return found


def _extract(stream: Stream, place: str) -> None:
    from sampan.store.copyin import CopyIn, Manner
    from sampan.store.decompress import decompress

    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        CopyIn(fd, b"", Manner()).run(decompress(stream, fd))
    finally:
        os.close(fd)


def _save(download: Download, path: str, checksum: str, shown: str) -> None:
    import hashlib

    kind, _, wanted = checksum.partition(":")
    total = hashlib.new(kind) if checksum else None
    size = 0
    with open(path, "wb") as file:
        while piece := download.read(1 << 18):
            size += len(piece)
            if size > _FILE_LIMIT:
                raise InvalidParameter(f"ADD {shown}: it is larger than {_FILE_LIMIT >> 30} GiB")
            if total is not None:
                total.update(piece)
            file.write(piece)
    if total is not None and total.hexdigest() != wanted:
        raise InvalidParameter(f"ADD {shown}: expected checksum {checksum}, but it is {kind}:{total.hexdigest()}")
    os.chmod(path, 0o600)
    if modified := download.modified:
        os.utime(path, (modified, modified))


def check_checksum(text: str) -> None:
    """Raises `InvalidParameter` for what is no checksum of a file: ALGORITHM:HEX."""
    kind, _, digits = text.partition(":")
    if _HASHES.get(kind) != len(digits) or not all(c in "0123456789abcdef" for c in digits):
        known = ", ".join(_HASHES)
        raise InvalidParameter(f"invalid checksum {text!r}: it is of the form sha256:HEX ({known} are known)")


def _name_of(address: str) -> str:
    from urllib.parse import unquote, urlsplit

    name = unquote(urlsplit(address).path.rpartition("/")[2])
    return "" if name in (".", "..") or "/" in name or "\0" in name else name


__all__ = ["Contexts", "Fetched"]
