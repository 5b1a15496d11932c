"""What the steps of a build find in the cache: the store's own, else caches that the build was given (`--cache-from`).

What is found in such a cache is brought into the store when a step needs it, and not before: its layer is verified, unpacked, and the entry is the store's
from then on. A cache that is damaged is told once, and the step is done again.
"""

from __future__ import annotations

from sampan.engine import buildexplain
from sampan.engine.buildexplain import Ingredients
from sampan.errors import InvalidParameter, NotFound
from sampan.kernel import clock
from sampan.oci import image as documents
from sampan.oci.image import Descriptor
from sampan.store.buildcache import key_of
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.engine.images import Content, Lock
    from sampan.oci.platform import Platform
    from sampan.store.buildcache import BuildCache, Entry
    from sampan.store.cachedirectory import CacheDirectory
    from sampan.store.tarstream import Source

    class Snapshots(Protocol):
        def has(self, chain_id: str) -> bool: ...
        def unpack(self, parent_chain_ids: Sequence[str], stream: Source, expected_diff_id: str | None) -> object: ...


EARLIEST = 315532800
"""1980-01-01: what is in zip archives can be no older, and commands that make some fail if they are told so."""


class FileSystem(Struct):
    """The files at one point of a build.

    image: the id of the image that the stage began with, "" for none. diff_ids, layers: its layers. date: the latest time that a file of
    a step has, seconds since 1970. key: what they depend on, see `store.buildcache`. history: of the image it began with, oldest first.
    """

    image: str
    diff_ids: tuple[str, ...]
    layers: tuple[Descriptor, ...]
    date: int
    key: str
    platform: Platform
    history: tuple[Mapping[str, Any], ...] = ()

    @property
    def created(self) -> str:
        """The date as documents have it."""
        return clock.rfc3339(self.date * 1_000_000_000).replace(".000000000Z", "Z")

    def grown(self, key: str, diff_id: str, blob: str, size: int) -> FileSystem:
        """With one more layer, of which `blob` is the archive and `size` its bytes."""
        layers = (*self.layers, Descriptor(documents.OCI_LAYER, blob, size))
        return self.replace(key=key, diff_ids=(*self.diff_ids, diff_id), layers=layers)


class StepCache:
    """The cache as one build sees it. For all of its threads."""

    def __init__(
        self,
        cache: BuildCache,
        content: Content,
        snapshots: Snapshots,
        lock: Lock,
        hold: Callable[[Iterable[str]], None],
    ) -> None:
        """`hold` keeps blobs and layers as long as the build goes on; it is called with the store's lock shared."""
        self._cache = cache
        self._content = content
        self._snapshots = snapshots
        self._lock = lock
        self._hold = hold
        self._given: tuple[CacheDirectory, ...] = ()
        self._expected: dict[str, Entry] = {}

    def take(self, given: Sequence[CacheDirectory]) -> None:
        """Look into these too, in their order."""
        self._given = tuple(given)

    def find(self, before: FileSystem, key: str, warn: Callable[[str], None]) -> FileSystem | None:
        """What a step made of `before` when it was done with the same key, None if that is not known (any more). Raises OSError of the store's disk."""
        found = self._own(before, key)
        if found is not None:
            return found
        for one in self._given:
            try:
                entry = one.get(key)
                if entry is not None:
                    return self._brought(before, key, entry, one)
            except (InvalidParameter, NotFound) as e:
                warn(f"the cache cannot be used for this step: {e}")
        return None

    def expect(self, key: str, entry: Entry) -> None:
        """This build has it, and holds it; nobody else finds it before it is put."""
        self._expected[key] = entry

    def _own(self, before: FileSystem, key: str) -> FileSystem | None:
        expected = self._expected.get(key)
        if expected is not None:
            return before.grown(key, expected.diff_id, expected.blob, expected.bytes)
        entry = self._cache.get(key)
        if entry is None:
            return None
        after = before.replace(key=key)
        if entry.blob:
            after = before.grown(key, entry.diff_id, entry.blob, entry.bytes)
            with self._lock.shared():
                # A collector may have been there between the look at the entry and this lock.
                if not (self._content.exists(entry.blob) and self._snapshots.has(_chain(after))):
                    self._cache.forget(key)
                    return None
                self._hold((entry.blob, entry.chain_id))
        self._cache.put(key, entry.replace(used=now(), uses=entry.uses + 1))
        return after

    def _brought(self, before: FileSystem, key: str, entry: Entry, given: CacheDirectory) -> FileSystem:
        """Bring an entry into the store, its layer first. Raises `InvalidParameter`, `NotFound` if it is damaged; nothing is left of it then."""
        after = before.replace(key=key)
        if entry.blob:
            after = before.grown(key, entry.diff_id, entry.blob, entry.bytes)
            if entry.chain_id != _chain(after):
                raise InvalidParameter(f"entry {key}: it is of other layers")
            with self._lock.shared():
                self._hold((entry.blob, entry.chain_id))
                if not self._content.exists(entry.blob):
                    with self._content.writer() as ingest:
                        given.read(entry, ingest.write)
                        ingest.commit(entry.blob)
                with self._content.open_verified(entry.blob) as layer:
                    self._snapshots.unpack(documents.chain_ids(before.diff_ids), layer, entry.diff_id)
        self._cache.put(key, entry.replace(before=before.key, made=now(), used=now(), uses=1))
        return after

    def knows(self, key: str) -> bool:
        """Whether a step was done before, whatever is left of what it made."""
        return self._cache.get(key) is not None

    def has_layer(self, key: str) -> bool:
        """Whether the store has the layer that a step made when it was done with the same key. It may be gone in the next moment."""
        entry = self._cache.get(key)
        return entry is not None and bool(entry.blob) and self._snapshots.has(entry.chain_id)

    def put(self, key: str, entry: Entry) -> None:
        """Remember what a step came to. Raises OSError."""
        self._cache.put(key, entry)
        self._expected.pop(key, None)

    def chain(self, key: str) -> dict[str, Entry]:
        """The entries that led to files, the last one first."""
        found: dict[str, Entry] = {}
        while key not in found and (entry := self._cache.get(key)) is not None:
            found[key] = entry
            key = entry.before
        return found

    # Why not

    def note(self, key: str, made_of: Ingredients) -> None:
        """Remember what a step was made of, to explain later why another one was not found. Raises OSError."""
        self._cache.note(key, made_of.kept().to_json())

    def explain(self, made_of: Ingredients, again: str) -> list[str]:
        """Why a step is not in the cache; see `buildexplain.explain`."""
        return buildexplain.explain(made_of, self._notes(), again)

    def _notes(self) -> list[Ingredients]:
        found = []
        for document in self._cache.notes():
            try:
                found.append(Ingredients(**document))
            except TypeError:
                continue  # of another version
        return found


def step_key(made_of: Ingredients) -> str:
    """The key of a step."""
    return key_of({"before": made_of.before, **made_of.depends})


def now() -> int:
    import time

    return time.time_ns()


def _chain(files: FileSystem) -> str:
    return documents.chain_ids(files.diff_ids)[-1]
