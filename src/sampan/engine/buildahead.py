"""What COPYs to come take of the context, read and hashed while the commands before them run.

Whoever waits for a command has a processor to spare. Only what the Dockerfile names plainly is read ahead: what a variable stands for
is known when its step comes. What fails here is not told: the step itself finds it, and tells it with its line.
"""

from __future__ import annotations

from sampan.build import addresses
from sampan.build.instructions import Copy, Run
from sampan.build.patterns import Ignore
from sampan.engine.buildcopying import ROOM
from sampan.engine.buildfiles import Manner
from sampan.errors import SampanError
from sampan.oci import filemode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.build.instructions import Instruction
    from sampan.engine.buildfiles import FileTree, Found, Read

_SPECIAL = frozenset("$\\`\"'")
"""What may make another word of one."""


class _Stopped(Exception):
    """Nobody wants it any more."""


class ReadAhead:
    """Of one stage. `take` gives what was read; to be closed, after which nothing is read any more."""

    def __init__(self, tree: FileTree, body: Sequence[Instruction]) -> None:
        import threading

        self._tree = tree
        self._copies = _plain_copies(body)
        self._changed = threading.Condition()
        self._pending = [_key(one) for one in self._copies]
        self._read: dict[tuple[bytes, object], Read] = {}
        self._stopped = False
        self._thread: threading.Thread | None = None
        if self._copies:
            self._thread = threading.Thread(target=self._work, name="read ahead")
            try:
                self._thread.start()
            except RuntimeError:  # the limit of processes
                self._thread, self._pending = None, []

    def take(self, tree: FileTree, found: Found, copy: Copy) -> Read | None:
        """What was read for a COPY, which is waited for if it is on its way; None if it is not."""
        if self._thread is None or tree is not self._tree:
            return None
        key = _key(copy)
        with self._changed:
            self._changed.wait_for(lambda: key not in self._pending)
            return self._read.pop((found.path, key), None)

    def close(self) -> None:
        """End it, and wait for that."""
        self._stopped = True
        if self._thread is not None:
            self._thread.join()
        self._read.clear()

    def _work(self) -> None:
        room = ROOM
        try:
            for copy in self._copies:
                room -= self._read_one(copy, room)
                with self._changed:
                    self._pending.remove(_key(copy))
                    self._changed.notify_all()
        except (_Stopped, SampanError, OSError):
            pass
        finally:
            with self._changed:
                self._pending.clear()
                self._changed.notify_all()

    def _read_one(self, copy: Copy, room: int) -> int:
        used = 0
        manner = Manner((0, 0), filemode.parse(copy.chmod) if copy.chmod else None, Ignore.of(copy.exclude))
        for source in copy.sources:
            for found in self._tree.find(source):
                read = self._tree.read(found, manner, room - used, self._going)
                used += read.size
                with self._changed:
                    self._read[found.path, _key(copy)] = read
        return used

    def _going(self) -> None:
        if self._stopped:
            raise _Stopped


def _plain_copies(body: Sequence[Instruction]) -> list[Copy]:
    """The COPYs of the context that come after a command and have no variables."""
    found: list[Copy] = []
    runs = False
    for one in body:
        runs = runs or isinstance(one, Run)
        if runs and isinstance(one, Copy) and _is_plain(one) and _key(one) not in [_key(other) for other in found]:
            found.append(one)
    return found


def _is_plain(copy: Copy) -> bool:
    if copy.from_ or not copy.sources or any(addresses.is_remote(source) for source in copy.sources):
        return False
    return not _SPECIAL & set("".join((*copy.sources, *copy.exclude, copy.chmod)))


def _key(copy: Copy) -> object:
    return copy.sources, copy.chmod, copy.exclude
