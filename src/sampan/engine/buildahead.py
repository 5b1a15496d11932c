"""What COPYs to come take of the context, read and hashed while the commands before them run, and written where they put it.

Whoever waits for a command has a processor to spare. Only what the Dockerfile names plainly is read ahead: what a variable stands for
is known when its step comes. A COPY is written as if the commands before it changed nothing on the way to where it goes; its step looks, and takes it over if that
is so. What fails here is not told: the step itself finds it, and tells it with its line.
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
    from collections.abc import Callable, Sequence

    from sampan.build.instructions import Instruction
    from sampan.engine.buildcopying import Copying
    from sampan.engine.buildfiles import FileTree, Found, Read
    from sampan.engine.buildprepared import PreparedStep

    Going = Callable[[], None]

_SPECIAL = frozenset("$\\`\"'")
"""What may make another word of one."""


class _Stopped(Exception):
    """Nobody wants it any more."""


class ReadAhead:
    """Of one stage. `take` gives what was read; to be closed, after which nothing is read any more."""

    def __init__(self, tree: FileTree, body: Sequence[Instruction]) -> None:
        import threading

        self._tree = tree
        self._body = body
        self._written: dict[object, _WriteAhead] = {}
        self._begun: list[Copy] = []
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
        return self._taken(tree, found, copy, self._read.pop)

    def _taken(
        self,
        tree: FileTree,
        found: Found,
        copy: Copy,
        get: Callable[[tuple[bytes, object], None], Read | None],
    ) -> Read | None:
        if self._thread is None or tree is not self._tree:
            return None
        key = _key(copy)
        with self._changed:
            self._changed.wait_for(lambda: key not in self._pending)
            return get((found.path, key), None)

    def next_copy(self, run: Run) -> Copy | None:
        """The COPY that comes after a command, if it can be written ahead and nobody has begun to."""
        place = next((i for i, one in enumerate(self._body) if one is run), len(self._body))
        # Where a WORKDIR comes in between, nobody knows yet where the copy goes.
        after = (one for one in self._body[place:] if isinstance(one, Copy) or one.node.key == "workdir")
        copy = next(after, None)
        if self._thread is None or not isinstance(copy, Copy) or any(copy is one for one in self._begun):
            return None
        # Who --chown means is known to the files that the copy goes to.
        if not _is_plain(copy) or _SPECIAL & set(copy.destination) or copy.files or copy.chown:
            return None
        return copy

    def write(
        self,
        copy: Copy,
        action: Callable[[_Kept], Copying],
        prepare: Callable[[Copying, Going], PreparedStep | None],
    ) -> None:
        """Have a COPY written by a thread: `prepare` what `action` gives, who finds there what was read."""
        self._begun.append(copy)

        def work() -> tuple[list[object], PreparedStep] | None:
            copying = action(_Kept(self))
            copying.depends()
            prepared = prepare(copying, self._going)
            return (copying.shape, prepared) if prepared is not None else None

        self._written[_key(copy)] = _WriteAhead(work)

    def prepared(self, copy: Copy, shape: Sequence[object]) -> PreparedStep | None:
        """What was written for a COPY, which is waited for if it is on its way; None if that would write something else. The caller's then."""
        written = self._written.pop(_key(copy), None)
        return written.take(shape) if written is not None else None

    def close(self) -> None:
        """End it, and wait for that."""
        self._stopped = True
        if self._thread is not None:
            self._thread.join()
        while self._written:
            self._written.popitem()[1].take(None)
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


class _Kept:
    """What was read for a COPY, for who writes it ahead: its step has yet to find it."""

    def __init__(self, ahead: ReadAhead) -> None:
        self._ahead = ahead

    def take(self, tree: FileTree, found: Found, copy: Copy) -> Read:
        read = self._ahead._taken(tree, found, copy, self._ahead._read.get)
        if read is None or read.entries is None:
            raise _Stopped  # It would be read twice, and could be another one the second time.
        return read

    def prepared(self, copy: Copy, shape: Sequence[object]) -> None:
        return None


class _WriteAhead:
    """One COPY that a thread writes."""

    def __init__(self, work: Callable[[], tuple[list[object], PreparedStep] | None]) -> None:
        import threading

        self._work = work
        self._done: tuple[list[object], PreparedStep] | None = None
        self._thread = threading.Thread(target=self._run, name="write ahead")
        self._started = True
        try:
            self._thread.start()
        except RuntimeError:  # the limit of processes
            self._started = False

    def _run(self) -> None:
        try:
            self._done = self._work()
        except (_Stopped, SampanError, OSError):
            pass  # The step itself finds it.

    def take(self, shape: Sequence[object] | None) -> PreparedStep | None:
        """Wait for it. None, and nothing is left of it, if it has another shape."""
        if self._started:
            self._thread.join()
        done, self._done = self._done, None
        if done is None:
            return None
        if done[0] == shape:
            return done[1]
        done[1].leave()
        return None


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
