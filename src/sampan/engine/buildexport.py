"""What a build came to as files: an archive, or a directory of this machine (`build --output type=tar|local`)."""

from __future__ import annotations

import os

from sampan.engine.archive import Buffer
from sampan.engine.copying import Source
from sampan.engine.failures import explain
from sampan.errors import InvalidParameter, System
from sampan.store.archive import Archive, MergedTree
from sampan.store.lower import LowerLayers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    class Sink(Protocol):
        def write(self, data: bytes, /) -> object: ...


_PIECE = 1 << 18


class Tree:
    """The files of unpacked layers (directories, topmost first) as one tree, without anything that a container would have besides."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = directories

    def archive(self, sink: Sink) -> None:
        """Write it as a tar archive. Raises what the sink raises, System."""
        for piece in self._pieces():
            sink.write(piece)

    def copy(self, directory: str) -> None:
        """Put it into a directory; all of it is ours. What is there stays, unless it is in the way of something of the same kind. Raises System, InvalidParameter."""
        from sampan.store.copyin import CopyIn, Manner

        owner = (os.getuid(), os.getgid())
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                CopyIn(fd, b"", Manner(keep_kinds=True, owner=owner, plain=True)).run(Source(self._pieces()))
            finally:
                os.close(fd)
        except InvalidParameter as e:
            raise InvalidParameter(f"{directory}: {e}") from None
        except OSError as e:
            raise System(f"{directory}: {explain(e)}") from e

    def _pieces(self) -> Iterator[bytes]:
        buffer = Buffer()
        if not self._directories:
            yield bytes(1024)
            return
        layers = LowerLayers(self._directories)
        try:
            tree = MergedTree(layers)
            try:
                for _ in Archive(tree, buffer).write(with_root=False):
                    if buffer.size >= _PIECE:
                        yield buffer.take()
                yield buffer.take()
            finally:
                tree.close()
        finally:
            layers.close()
