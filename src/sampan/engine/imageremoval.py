"""Taking images away: `rmi`, and the collection of what nothing leads to.

Docker's rules of what may be untagged and deleted (moby, daemon/images/image_delete.go). What content goes is not
counted anywhere: it is everything that no record of an image and no container leads to, found by looking. All of it
runs under the store's exclusive lock.

Order: names, then the record of the image, then content. A command that is killed between two of them leaves an
image without a name, or content that the next collection finds.
"""

from __future__ import annotations

from sampan.engine.imagegraph import blobs_of
from sampan.errors import Conflict, Damaged, InvalidParameter, NotFound
from sampan.oci import reference
from sampan.store.images import no_such_image
from sampan.store.layout import EMPTY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from sampan.engine.images import Announcer, Content, Image, ImageUsers, Names, Snapshotter
    from sampan.oci.reference import Reference
    from sampan.store.images import NameRecord

    class Finder(Protocol):
        def find(self, name: str) -> NameRecord | None: ...
        def read(self, record: NameRecord) -> Image: ...


class Removal:
    """One removal or collection."""

    def __init__(
        self,
        content: Content,
        names: Names,
        snapshots: Snapshotter,
        users: ImageUsers,
        images: Finder,
        events: Announcer,
    ) -> None:
        self._content = content
        self._names = names
        self._snapshots = snapshots
        self._users = users
        self._images = images
        self._events = events
        self._done: list[dict[str, str]] = []

    def remove(self, name: str, force: bool, prune: bool = True) -> list[dict[str, str]]:
        """Untag, and delete if nothing else holds the image. Raises `NotFound` and `Conflict`."""
        record = self._images.find(name)
        if record is None:
            raise no_such_image(name)
        image_id = record.image
        names = self._names_of(image_id)
        # What was typed found a name, or the image by its id. (Docker takes the name "d" of an image da1c... for an id.)
        if not record.is_image:
            if not force and _is_single(names):
                self._refuse_untag(name, image_id)
            if self._untag_name(reference.parse(name).canonical(), names):
                return self._done
            # The last name is gone: what keeps the image now keeps it without a word.
            if self._conflict(image_id, force, has_names=False):
                return self._done
        else:
            several = not _is_single(names)
            if conflict := self._conflict(image_id, force, has_names=several):
                raise Conflict(conflict)
            for old in names:
                self._untag(old)
        self._delete(image_id, prune)
        return self._done

    # Names

    def _names_of(self, image_id: str) -> list[NameRecord]:
        return [r for r in self._names.list() if r.image == image_id and not r.is_image]

    def _untag_name(self, wanted: Reference, names: Sequence[NameRecord]) -> list[NameRecord]:
        """Take one name away; return the names that the image still has.

        With the last tag of a repository go its digests, which only told where the tag came from.
        """
        parsed = {record.reference: reference.parse(record.reference) for record in names}
        chosen = [r for r in names if r.reference == str(wanted)]
        if not chosen:
            # Found by a digest that no record has for a name: all tags of the repository that stand for it.
            chosen = [r for r in names if parsed[r.reference].name == wanted.name and r.target.digest == wanted.digest]
        left = [r for r in names if r not in chosen]
        siblings = [r for r in left if parsed[r.reference].name == wanted.name]
        if not any(parsed[r.reference].tag for r in siblings):
            chosen += siblings
            left = [r for r in left if r not in siblings]
        for record in chosen:
            self._untag(record)
        return left

    def _untag(self, record: NameRecord) -> None:
        self._names.delete(record.reference)
        self._done.append({"Untagged": reference.parse(record.reference).familiar})
        self._events.image(record.image, "untag", record.image, self._labels(record))

    def _labels(self, record: NameRecord) -> Mapping[str, str] | None:
        try:
            return self._images.read(record).config.get("Labels")
        except Damaged:
            return None

    # Conflicts

    def _refuse_untag(self, name: str, image_id: str) -> None:
        """A container's image does not lose its only name unless that is forced: it would be left dangling."""
        users = self._users.containers_using(image_id)
        if users:
            raise Conflict(
                f'conflict: unable to remove repository reference "{name}" (must force) - '
                f"container {users[0][0][:12]} is using its referenced image {_short(image_id)}"
            )

    def _conflict(self, image_id: str, force: bool, has_names: bool) -> str:
        """Why the image cannot be deleted, in Docker's words; "" if it can."""
        users = self._users.containers_using(image_id)
        head = f"conflict: unable to delete {_short(image_id)}"
        if any(record.parent == image_id for record in self._names.list() if record.is_image):
            return f"{head} (cannot be forced) - image has dependent child images"
        for container_id, running in users:
            if running:
                what = f"image is being used by running container {container_id[:12]}"
                return f"{head} (cannot be forced) - {what}"
        if force:
            return ""
        if has_names:
            return f"{head} (must be forced) - image is referenced in multiple repositories"
        if users:
            return f"{head} (must be forced) - image is being used by stopped container {users[0][0][:12]}"
        return ""

    # Content

    def _delete(self, image_id: str, prune: bool) -> None:
        """Delete an image, and then those below it that have no name and that nothing needs any more."""
        layers: list[tuple[str, ...]] = []
        while True:
            record = self._names.get(image_id)
            layers.append(self._layers(record) if record is not None else ())
            self._names.delete(image_id)
            self._done.append({"Deleted": image_id})
            self._events.image(image_id, "delete", image_id)
            parent = record.parent if record is not None else ""
            if not prune or not parent or self._names.get(parent) is None:
                break
            if self._names_of(parent) or self._conflict(parent, force=False, has_names=False):
                break
            image_id = parent
        removed = self.collect()
        # Docker tells them from the top down.
        told = dict.fromkeys(chain_id for chain in layers for chain_id in reversed(chain))
        self._done += [{"Deleted": chain_id} for chain_id in told if chain_id in removed]

    def _layers(self, record: NameRecord) -> tuple[str, ...]:
        try:
            return self._images.read(record).layers
        except Damaged:
            return ()  # It can be removed all the same.

    def collect(self) -> set[str]:
        """Delete everything that nothing leads to; return the chain ids of the layers that went.

        Nothing is deleted as long as an image is too damaged to say what it needs, but what killed writers left.
        """
        self._content.collect_ingests()
        self._names.collect()
        self._snapshots.collect_garbage()
        used = self._reachable()
        if used is None:
            return set()
        blobs, layers = used
        held = (
            self._content.held()
        )  # What is being saved goes when that has ended; what is being pulled gets its record.
        cached_blobs, cached_layers = self._users.cached()
        layers |= self._users.layers_in_use() | held | cached_layers
        blobs |= held | cached_blobs
        garbage = [chain_id for chain_id in self._snapshots.layers() if chain_id not in layers]
        for chain_id in (*garbage, *(() if EMPTY in layers else (EMPTY,))):
            self._snapshots.remove_layer(chain_id)
        for digest in self._content.list():
            if digest not in blobs:
                self._content.delete(digest)
        return set(garbage)

    def _reachable(self) -> tuple[set[str], set[str]] | None:
        """The blobs and the layers that images lead to; None if an image does not say."""
        blobs: set[str] = set()
        layers: set[str] = set()
        try:
            for record in self._names.list():
                blobs |= {record.image, *blobs_of(self._content, record.target)}
                layers.update(self._images.read(record).layers or (EMPTY,))
        except (NotFound, InvalidParameter, Damaged):
            return None
        return blobs, layers


def _is_single(names: Sequence[NameRecord]) -> bool:
    """Whether all names are one tag at most, and digests of the same repository."""
    if len(names) <= 1:
        return True
    parsed = [reference.parse(record.reference) for record in names]
    tags = [name for name in parsed if name.tag]
    if len(tags) > 1:
        return False
    single = tags[0] if tags else parsed[0]
    return {name.name for name in parsed if not name.tag} == {single.name}


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]
