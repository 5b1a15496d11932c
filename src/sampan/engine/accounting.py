"""What the removal of images gives back: the stores of images as seen by a prune, which counts what it deletes.

A dry run is the same removal on the same views, which then only note what would be gone. So it finds out what goes by
the rules of the real one, and counts the same bytes.
"""

from __future__ import annotations

from sampan.kernel.tree import disk_blocks
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.kernel.files import FileLock
    from sampan.store.images import NameRecord


class Account:
    """Bytes of the disk that were given back (`freed`), as `du` counts them; with `dry`, that would be."""

    def __init__(self, dry: bool) -> None:
        self.dry = dry
        self.freed = 0
        self._links: set[tuple[int, int]] = set()

    def take(self, path: str) -> None:
        """Count what is about to be deleted."""
        self.freed += disk_blocks(path, self._links)


class _View:
    """A store; what is not said here is the store's own."""

    def __init__(self, store: Any, account: Account) -> None:
        self._store = store
        self._account = account
        self._gone: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Content(_View):
    """Blobs."""

    def exists(self, digest: str) -> bool:
        return digest not in self._gone and self._store.exists(digest)

    def list(self) -> list[str]:
        return [digest for digest in self._store.list() if digest not in self._gone]

    def delete(self, digest: str) -> None:
        self._account.take(self._store.path(digest))
        self._gone.add(digest)
        if not self._account.dry:
            self._store.delete(digest)

    def collect_ingests(self) -> None:
        for path in self._store.abandoned():
            if path not in self._gone:
                self._account.take(path)
                self._gone.add(path)
        if not self._account.dry:
            self._store.collect_ingests()


class Names(_View):
    """Records of images, and of their names."""

    def get(self, reference: str) -> NameRecord | None:
        found: NameRecord | None = None if reference in self._gone else self._store.get(reference)
        return found

    def list(self) -> list[NameRecord]:
        return [record for record in self._store.list() if record.reference not in self._gone]

    def delete(self, reference: str) -> None:
        self._account.take(self._store.path(reference))
        self._gone.add(reference)
        if not self._account.dry:
            self._store.delete(reference)

    def collect(self) -> None:
        for path in self._store.leftovers():
            if path not in self._gone:
                self._account.take(path)
                self._gone.add(path)
        if not self._account.dry:
            self._store.collect()


class Layers(_View):
    """Unpacked layers."""

    def layers(self) -> list[str]:
        return [chain_id for chain_id in self._store.layers() if chain_id not in self._gone]

    def remove_layer(self, chain_id: str) -> None:
        self._account.take(self._store.layer_path(chain_id))
        self._gone.add(chain_id)
        if not self._account.dry:
            self._store.remove_layer(chain_id)

    def collect_garbage(self) -> None:
        for path in self._store.leftovers():
            if path not in self._gone:
                self._account.take(path)
                self._gone.add(path)
        if not self._account.dry:
            self._store.collect_garbage()


class Looking(Struct):
    """The lock of a store from which nothing is deleted in earnest: it keeps what is there, and nobody out."""

    lock: Any

    def shared(self) -> FileLock:
        lock: FileLock = self.lock.shared()
        return lock

    exclusive = shared


class Silence:
    """Who is told of what did not happen."""

    def image(self, identifier: str, action: str, name: str, labels: Mapping[str, str] | None = None) -> None: ...

    def pruned(self, kind: str, reclaimed: int) -> None: ...
