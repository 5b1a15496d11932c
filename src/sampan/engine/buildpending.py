"""Steps of a build that are done and not on the disk yet: they are written there together, while the next ones run.

Each has its layer, which is named and marked (`store.snapshots`, UNSYNCED), its archive, which has no name, and its entry of the cache,
which is not written. A syncfs(2) makes all of it last that is there when it begins. A build that is killed loses the steps of this moment.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from sampan.engine.buildcaching import StepCache
    from sampan.engine.images import Lock
    from sampan.store.buildcache import Entry
    from sampan.store.ingest import Ingest

    class Content(Protocol):
        def exists(self, digest: str) -> bool: ...

    class Snapshots(Protocol):
        def sync(self, chain_ids: Sequence[str]) -> int: ...

    Waiting = list[tuple[str, Entry, Ingest]]


class Pending:
    """Of one build, for all of its threads."""

    def __init__(self, content: Content, snapshots: Snapshots, lock: Lock, cache: StepCache) -> None:
        import threading

        self._content = content
        self._snapshots = snapshots
        self._lock = lock
        self._cache = cache
        self._changed = threading.Condition()
        self._waiting: Waiting = []
        self._at_work = False
        self._failed: BaseException | None = None

    def add(self, key: str, entry: Entry, archive: Ingest) -> None:
        """One more step, which the build itself finds from now on. Raises what writing an earlier one raised."""
        with self._changed:
            self._waiting.append((key, entry, archive))
            self._cache.expect(key, entry)
            begin, self._at_work = not self._at_work, True
        if begin:
            import threading

            try:
                threading.Thread(target=self._work, name="sync").start()
            except RuntimeError:  # the limit of processes
                self._work()
        self._check()

    def flush(self, also: Sequence[str] = ()) -> None:
        """Wait until all of it is on the disk, and have the layers `also` there, which may be those of a build that was killed.

        Raises OSError, and what writing a step raised: that one is lost.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._at_work)
        self._check()
        self._snapshots.sync(also)

    def _check(self) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def _work(self) -> None:
        while True:
            with self._changed:
                waiting, self._waiting = self._waiting, []
                if not waiting:
                    self._at_work = False
                    self._changed.notify_all()
                    return
            try:
                self._write(waiting)
            except BaseException as e:
                # Also one that is no error: who waits for this thread would wait for ever.
                self._failed = e

    def _write(self, waiting: Waiting) -> None:
        try:
            self._name(waiting)
        finally:
            for _, _, archive in waiting:
                archive.abort()  # nothing, of those that have got their name

    def _name(self, waiting: Waiting) -> None:
        device = self._snapshots.sync([entry.chain_id for _, entry, _ in waiting])
        for key, entry, archive in waiting:
            archive.synced(device)
            with self._lock.shared():
                if not self._content.exists(entry.blob):
                    # The entry is not synced either; the image's documents are, with all names that came before.
                    archive.commit(entry.blob, volatile=True)
                self._cache.put(key, entry)
