"""Images: found by name, digest or id, brought in, tagged; unpacked when a container needs them.

What leads to an image's content is written last and taken away first, so that whatever is named is whole: blobs,
unpacked layers, the record of the image, its names. Whoever writes a record holds the store's lock shared from the
moment it looked until the record is there; `imageremoval` deletes under the exclusive one.

`resolve` is on the way of every start: a name, a config, and the layers are there or not.
"""

from __future__ import annotations

from sampan.errors import Damaged, ImageNotFound, InvalidParameter, NotFound
from sampan.kernel import clock
from sampan.oci import digest as digests
from sampan.oci import image as documents
from sampan.oci import platform as platforms
from sampan.oci import reference
from sampan.oci.image import Descriptor, Manifest
from sampan.store.images import NameRecord, damaged_image, no_such_image
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.engine.explorer import Explorer
    from sampan.engine.imagefilters import Filters
    from sampan.engine.imageprune import ImagePruner
    from sampan.engine.imageremoval import Removal
    from sampan.engine.imageviews import Views
    from sampan.engine.loading import Loaded
    from sampan.engine.progress import Progress
    from sampan.engine.pulling import Pulled, Report
    from sampan.engine.pushing import Pushed
    from sampan.engine.registries import Registries
    from sampan.kernel.files import FileLock
    from sampan.oci.reference import Reference
    from sampan.steps.trace import Trace
    from sampan.store.content import VerifiedReader
    from sampan.store.ingest import Ingest, Partial

    class Source(Protocol):
        def read(self, size: int, /) -> bytes: ...

    class Sink(Protocol):
        def write(self, data: bytes, /) -> object: ...

    class Content(Protocol):
        """Where blobs are; see `store.content.ContentStore`."""

        directory: str

        def path(self, digest: str) -> str: ...
        def exists(self, digest: str) -> bool: ...
        def size(self, digest: str) -> int: ...
        def read(self, digest: str, limit: int) -> bytes: ...
        def open_verified(self, digest: str) -> VerifiedReader: ...
        def list(self) -> list[str]: ...
        def writer(self) -> Ingest: ...
        def spool(self) -> int: ...
        def add(self, data: bytes) -> str: ...
        def delete(self, digest: str) -> None: ...
        def hold(self, wanted: Iterable[str]) -> FileLock: ...
        def hold_more(self, hold: FileLock, wanted: Iterable[str]) -> None: ...
        def drop(self, hold: FileLock) -> None: ...
        def held(self) -> set[str]: ...
        def collect_ingests(self, partial: bool = ...) -> int: ...
        def partial(self, digest: str, size: int, wait_seconds: float) -> Partial: ...

    class Names(Protocol):
        """Where records of images and of their names are; see `store.images.ImageNames`."""

        def get(self, reference: str) -> NameRecord | None: ...
        def set(self, record: NameRecord) -> None: ...
        def delete(self, reference: str) -> None: ...
        def list(self) -> list[NameRecord]: ...
        def collect(self) -> int: ...

    class LayerInfo(Protocol):
        @property
        def diff_id(self) -> str: ...
        @property
        def chain_id(self) -> str: ...
        @property
        def size(self) -> int: ...

    class Snapshotter(Protocol):
        """Where layers are unpacked; see `store.snapshots`."""

        name: str

        def unpack(
            self, parent_chain_ids: Sequence[str], stream: Any, expected_diff_id: str | None = None
        ) -> LayerInfo: ...
        def has(self, chain_id: str) -> bool: ...
        def info(self, chain_id: str) -> LayerInfo: ...
        def layers(self) -> list[str]: ...
        def remove_layer(self, chain_id: str) -> None: ...
        def collect_garbage(self) -> None: ...

    class Lock(Protocol):
        """The lock of everything that images share; see `store.images.StoreLock`."""

        def shared(self) -> FileLock: ...
        def exclusive(self) -> FileLock: ...
        def exclusive_now(self) -> FileLock | None: ...
        def making(self, what: str) -> FileLock: ...

    class Announcer(Protocol):
        """Who is told what was done; see `engine.events`."""

        def image(self, identifier: str, action: str, name: str, labels: Mapping[str, str] | None = ...) -> None: ...
        def pruned(self, kind: str, reclaimed: int) -> None: ...

    class ImageUsers(Protocol):
        """The containers, as far as images care. Those that are being made or removed count."""

        def containers_using(self, image_id: str) -> list[tuple[str, bool]]:
            """The id of each container made from the image, and whether it runs."""

        def layers_in_use(self) -> set[str]:
            """The chain ids of all layers that containers stand on."""

        def cached(self) -> tuple[set[str], set[str]]:
            """The digests of the blobs, and the chain ids of the layers, that the cache of builds leads to."""

        def without(self, containers: Collection[str]) -> ImageUsers:
            """As it will be when the containers with these ids are gone."""


BASE = "docker.io/library/base:latest"
"""The image that needs no download: made out of the machine's own programs when it is named and not there."""


class Image(Struct):
    """An image as a container is made from it.

    id: digest of the config. reference: the complete name by which it was found, or its id. config: Docker's
    `Config`, as far as the image has one. layers: chain ids, bottom first. document: the whole OCI config.
    target: the manifest or index that the reference leads to.
    """

    id: str
    reference: str
    config: dict[str, Any]
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]
    document: dict[str, Any]
    target: Descriptor


class Images:
    """The images of one root. `notify` is given one line of text when something takes noticeable time."""

    def __init__(
        self,
        content: Content,
        names: Names,
        snapshots: Snapshotter,
        lock: Lock,
        users: ImageUsers,
        events: Announcer,
        trace: Trace,
        notify: Callable[[str], None],
        registries: Callable[[], Registries] | None = None,
    ) -> None:
        """`registries` gives whoever asks registries, for a pull."""
        self._content = content
        self._names = names
        self._snapshots = snapshots
        self._lock = lock
        self._users = users
        self._events = events
        self._trace = trace
        self._notify = notify
        self._registries = registries

    # Finding

    def resolve(self, name: str, platform: str = "") -> Image:
        """The image that a name, a name with a digest, an id or the beginning of one means.

        `base` is made if it is not there; an image for another platform than `platform` is none. Raises `NotFound` and `InvalidParameter` in Docker's words; the config is
        verified against its digest, and `Damaged` raised if it is not what it was.
        """
        record = self.find(name)
        if record is None and _is_base(name):
            self._make_base()
            record = self.find(name)
        if record is None:
            raise no_such_image(name)
        image = self.read(record)
        if platform:
            _check_platform(name, image, (platform,))
        return image

    def find(self, name: str) -> NameRecord | None:
        """The record that a name leads to, None if there is none. Raises `InvalidParameter` for what is no name."""
        if image_id := reference.parse_id(name):
            return self._names.get(image_id)
        wanted = reference.parse(name).canonical()
        record = self._names.get(str(wanted))
        if record is None and wanted.digest:
            return next((r for r in self._names.list() if _has_digest(r, wanted)), None)
        return record or self._find_by_prefix(name)

    def _find_by_prefix(self, name: str) -> NameRecord | None:
        prefix = reference.id_prefix(name)
        if prefix is None:
            return None
        found = [r for r in self._names.list() if r.is_image and r.image.startswith(f"sha256:{prefix}")]
        # One that fits two images names neither, as Docker has it.
        return found[0] if len(found) == 1 else None

    def read(self, record: NameRecord) -> Image:
        """The image of a record. Raises `Damaged` if its config is gone or is not what it was."""
        try:
            config = documents.parse_config(self._content.read(record.image, documents.CONFIG_LIMIT))
        except (NotFound, InvalidParameter) as e:
            raise damaged_image(record.image, e) from None
        return Image(
            record.image,
            record.reference,
            config.config,
            documents.chain_ids(config.diff_ids),
            config.diff_ids,
            config.document,
            record.target,
        )

    def manifest(self, target: Descriptor, image_id: str) -> Manifest:
        """The manifest of an image that a descriptor leads to; see `imagegraph.manifest_of`."""
        from sampan.engine.imagegraph import manifest_of

        return manifest_of(self._content, target, image_id)[1]

    # Unpacking

    def hold(self) -> FileLock:
        """Keep everything that is there now from being deleted: a context manager.

        Whoever makes a container from an image holds it from `resolve` until the container's record is written.
        """
        return self._lock.shared()

    def ensure_unpacked(self, image: Image) -> tuple[str, ...]:
        """Unpack the layers that are missing; return all chain ids, bottom first.

        Raises `Damaged` if a blob is gone or is not what its digest says, OSError.
        """
        missing = [i for i, chain_id in enumerate(image.layers) if not self._snapshots.has(chain_id)]
        if missing:
            with self._lock.shared():
                try:
                    self._unpack(image, missing)
                except (NotFound, InvalidParameter) as e:
                    raise damaged_image(image.id, e) from None
        return image.layers

    def _unpack(self, image: Image, positions: Sequence[int]) -> None:
        blobs = self.manifest(image.target, image.id).layers
        if len(blobs) != len(image.diff_ids):
            raise InvalidParameter(f"image {image.id} has {len(image.diff_ids)} layers, its manifest {len(blobs)}")
        for i in positions:
            # The diff id says what the plain archive must be, and so, whatever packed it, what the blob is good for.
            with self._content.open_verified(blobs[i].digest) as blob:
                self._snapshots.unpack(image.layers[:i], blob, image.diff_ids[i])

    # Adding

    def publish(
        self, config: bytes, layers: Sequence[Descriptor], name: Reference | None, parent: str = "", unpack: bool = True
    ) -> Image:
        """Add an image whose layer blobs are in the store: config, manifest, layers, its record, its name.

        The caller holds the store's lock shared since before the blobs were named. An image that had the name
        before keeps its record, and is listed without a name. `parent` is the id of the image that this one was made
        from; without `unpack` its layers are unpacked when a container needs them.
        """
        image_id = self._content.add(config)
        manifest = Manifest(
            documents.OCI_MANIFEST, Descriptor(documents.OCI_CONFIG, image_id, len(config)), tuple(layers)
        ).document()
        target = Descriptor(documents.OCI_MANIFEST, self._content.add(manifest), len(manifest))
        record = NameRecord(image_id, target, image_id, clock.now(), parent)
        return self.enter(record, () if name is None else (name,), unpack)

    def enter(self, record: NameRecord, names: Sequence[Reference], unpack: bool = True) -> Image:
        """Write the record of an image whose documents and blobs are in the store, and its names.

        The caller holds the store's lock shared, as for `publish`.
        """
        image = self.read(record)
        if unpack:
            # Unpacked before, but perhaps collected since by a command that saw no record of it.
            self.ensure_unpacked(image)
        old = self._names.get(record.image)
        if old is not None:
            # The same image came in another way. What was known of its making stays.
            record = record.replace(parent=record.parent or old.parent)
        try:
            self._names.set(record)
            for name in names:
                self._names.set(NameRecord(str(name), record.target, record.image, record.tagged))
        except BaseException:
            # A disk that is full between the two. Nobody else knows of an image that was not there a moment ago.
            if old is None:
                self._withdraw(record, names)
            raise
        return image

    def _withdraw(self, record: NameRecord, names: Sequence[Reference]) -> None:
        for name in names:
            found = self._names.get(str(name))
            if found is not None and found.image == record.image:
                self._names.delete(str(name))
        self._names.delete(record.image)

    def tag(self, source: str, target: str) -> None:
        """Give an image another name; the image that had it before keeps its record.

        Raises `NotFound` and `InvalidParameter` in Docker's words.
        """
        name = new_name(target)
        with self._lock.shared():
            found = self.resolve(source)
            self._names.set(NameRecord(str(name), found.target, found.id, clock.now()))
        self.announce_tag(found, name)

    def announce_tag(self, image: Image, name: Reference) -> None:
        """Tell that an image has got this name."""
        self._events.image(image.id, "tag", name.familiar, image.config.get("Labels"))

    def import_(
        self, stream: Source, name: str = "", changes: Sequence[str] = (), message: str = "", platform: str = ""
    ) -> str:
        """Make an image of one layer out of a tar archive, plain or compressed; return its id.

        `changes` are Dockerfile instructions, `message` is the comment. Raises `InvalidParameter` in Docker's words;
        then nothing is left behind.
        """
        from sampan.engine.importing import Importer

        importer = Importer(self._content, self._snapshots, self._lock, self)
        image = importer.run(stream, name, changes, message, platform)
        if name:
            self.announce_tag(image, reference.parse(name).tagged())
        self._events.image(image.id, "import", image.id, image.config.get("Labels"))
        return image.id

    def load(self, stream: Source, platform: str = "", progress: Progress | None = None) -> Sequence[Loaded]:
        """Add the images of an archive as `docker save` and the OCI image layout have it, plain or compressed.

        `platform`: of images for several the one to take. A name that another image had is taken over. `progress` is
        told how much of each layer is there. Raises `InvalidParameter` for what is wrong with the archive; all of it is loaded or nothing.
        """
        from sampan.engine.loading import Loader

        loader = Loader(self._content, self._names, self._snapshots, self._lock, self)
        loaded = loader.run(stream, platforms.parse(platform) if platform else None, progress)
        for image_id in dict.fromkeys(one.id for one in loaded):
            self._events.image(image_id, "load", image_id, self._labels(image_id))
        return loaded

    def pull(
        self,
        name: str,
        platform: str = "",
        report: Report | None = None,
        all_tags: bool = False,
        registries: Registries | None = None,
    ) -> Sequence[Pulled]:
        """Bring an image in from its registry; with `all_tags` every tag of the repository.

        `registries`: as whom they are asked (`Registries.as_user`). `report(layer, status, done, total)` is told what happens, by any thread; an empty layer is a line of its own.
        Raises `NotFound` in Docker's words, `Unavailable` for what the network or the registry does, `InvalidParameter`
        for what is wrong with the image. A pull that is interrupted goes on where it was when it is begun again.
        """
        from sampan.engine.pulling import Puller

        assert self._registries is not None
        puller = Puller(self._content, self._names, self._snapshots, self._lock, self)
        return puller.pull(
            registries or self._registries(), name, platform, report or (lambda *_: None), all_tags, self._pulled
        )

    def push(
        self,
        name: str,
        platform: str = "",
        report: Report | None = None,
        all_tags: bool = False,
        compression: str = "gzip",
        done: Callable[[Pushed], None] | None = None,
        registries: Registries | None = None,
    ) -> Sequence[Pushed]:
        """Send an image to the registry that its name says; with `all_tags` every tag of the repository.

        `report` and `registries` as in `pull`; `compression`, "gzip" or "zstd", is for layers that are not compressed yet; `done` is told of
        each tag. Raises `NotFound` in Docker's words, `Unavailable`, `InvalidParameter`.
        """
        from sampan.engine.pushing import Pusher

        assert self._registries is not None
        pusher = Pusher(self._content, self._names, self._lock, self)
        sent, exchanged = [], False
        for record, pushed in pusher.push(
            registries or self._registries(), name, platform, report or (lambda *_: None), all_tags, compression
        ):
            familiar = reference.parse(record.reference).familiar
            self._events.image(familiar, "push", familiar, self._labels(record.image))
            sent.append(pushed)
            exchanged = exchanged or pushed.digest != record.target.digest
            if done is not None:
                done(pushed)
        if exchanged:
            self.collect_now()  # the plain layers, for which the image now has what was pushed
        return sent

    def _pulled(self, found: Pulled) -> None:
        self._events.image(found.reference, "pull", found.reference, self._labels(found.id))

    def save(self, names: Sequence[str], stream: Sink, platform: str = "") -> None:
        """Write images as one archive, which is a Docker archive and an OCI layout; the same ones give the same bytes.

        A repository without a tag means all its tags. Raises `NotFound` in Docker's words before anything is written,
        and `Damaged` for content that is not what it was.
        """
        from sampan.engine.saving import Saver

        saver = Saver(self._content, self._names, self._lock, self)
        for image_id in saver.run(names, stream, platforms.parse(platform) if platform else None):
            self._events.image(image_id, "save", image_id, self._labels(image_id))

    def _labels(self, image_id: str) -> Mapping[str, str] | None:
        """What an event says of an image that somebody may have removed, or that may be damaged."""
        record = self._names.get(image_id)
        try:
            return self.read(record).config.get("Labels") if record is not None else None
        except Damaged:
            return None

    def _make_base(self) -> None:
        from sampan.engine.baseimage import BaseImage

        BaseImage(self._content, self._snapshots, self._lock, self, self._notify).make(reference.parse(BASE))

    # Removing and telling: not on the way of a start

    def remove(
        self, name: str, force: bool = False, prune: bool = True, only: Sequence[str] = ()
    ) -> list[dict[str, str]]:
        """Take a name away, and the image with its last one: Docker's `[{"Untagged": ...}, {"Deleted": ...}]`.

        `prune`: take along the images without a name that it was made from, as far as nothing else needs them.
        `only`: the platforms that it may be for. Raises `NotFound` and `Conflict` in Docker's words.
        """
        with self._lock.exclusive():
            if only and (record := self.find(name)) is not None:
                _check_platform(name, self.read(record), only)
            return self._removal().remove(name, force, prune)

    def collect(self) -> None:
        """Delete what nothing leads to: what killed commands left, and content of images that are gone."""
        with self._lock.exclusive():
            self._removal().collect()

    def collect_now(self) -> None:
        """As `collect`, unless somebody uses the store: then it is left for the next collection."""
        lock = self._lock.exclusive_now()
        if lock is not None:
            with lock:
                self._removal().collect()

    def released(self, image_id: str) -> None:
        """Collect what a removed container of an image may have been the last to need; `rm` calls it.

        One look at a file as long as the image is there: only the layers of one that was removed by force before its
        containers are left to somebody else.
        """
        if image_id and self._names.get(image_id) is None:
            self.collect_now()

    def _removal(self) -> Removal:
        from sampan.engine.imageremoval import Removal

        return Removal(self._content, self._names, self._snapshots, self._users, self, self._events)

    def _views(self) -> Views:
        from sampan.engine.imageviews import Views

        return Views(self._names, self._snapshots, self)

    def inspect(self, name: str, platform: str = "") -> dict[str, Any]:
        """An image as `GET /images/{name}/json` shows it. Raises as `resolve`, `NotFound` if it is for another platform."""
        return self._views().inspect(self.resolve(name, platform))

    def list(
        self,
        name: str = "",
        dangling: bool | None = None,
        filters: Filters | None = None,
        all: bool = False,
        shared_size: bool = False,
    ) -> list[dict[str, Any]]:
        """The images as `GET /images/json` lists them, newest first.

        `name` is a reference with wildcards, as `images debian` and `--filter reference=` have it. `dangling`: only
        those without a name, or only those with one. `filters` as Docker's: before, dangling, label, reference, since,
        until. `all`: also images without a name that others were made from. Raises `InvalidParameter`, `NotFound`.
        """
        wanted = dict(filters or {})
        if name:
            wanted["reference"] = name
        if dangling is not None:
            wanted["dangling"] = dangling
        return self._views().summaries(wanted, all, shared_size)

    def history(self, name: str, platform: str = "") -> Sequence[dict[str, Any]]:
        """How an image came about, newest step first, as `GET /images/{name}/history` has it. Raises as `inspect`."""
        return self._views().history(self.resolve(name, platform))

    def explorer(self) -> Explorer:
        """Who looks into the layers of images: what each did, where a path comes from, what two images differ in."""
        from sampan.engine.explorer import Explorer

        return Explorer(self._content, self._names, self._lock, self)

    def prune(
        self, filters: Filters | None = None, dry_run: bool = False, without: Collection[str] = ()
    ) -> dict[str, Any]:
        """Remove images that no container uses: those without a name, with the filter dangling=false all of them.

        `filters`: dangling, until, label, label!. Docker's {"ImagesDeleted": [...], "SpaceReclaimed": bytes}. `dry_run`:
        say what would be removed, as if the containers with the ids `without` were gone, and remove nothing.
        """
        return self._pruner().run(filters or {}, dry_run, without)

    def collectable(self, image_ids: Iterable[str], without: Collection[str]) -> int:
        """Bytes that will be given back when these containers are removed, which were made of these images.

        Nothing as long as their images are there; see `released`.
        """
        if all(self._names.get(image_id) is not None for image_id in set(image_ids) if image_id):
            return 0
        return self._pruner().collectable(without)

    def _pruner(self) -> ImagePruner:
        from sampan.engine.imageprune import ImagePruner

        def images(content: Any, names: Any, layers: Any, lock: Any, users: ImageUsers, events: Announcer) -> Images:
            return Images(content, names, layers, lock, users, events, self._trace, self._notify)

        return ImagePruner(self._content, self._names, self._snapshots, self._lock, self._users, self._events, images)


def _check_platform(name: str, image: Image, allowed: Sequence[str]) -> None:
    """Raises `ImageNotFound` if the image is for none of these platforms."""
    wanted = [platforms.parse(text) for text in allowed]
    found = documents.platform_of(image.document)
    if not any(platform.runs(found) for platform in wanted):
        raise ImageNotFound(
            f"image with reference {name} was found but its platform ({found}) does not match the specified "
            f"platform ({', '.join(str(platform) for platform in wanted)})",
            name,
        )


def new_name(text: str) -> Reference:
    """The name that a tag or an import is to give. Raises `InvalidParameter` in Docker's words."""
    found = reference.parse(text)
    if found.digest:
        raise InvalidParameter("refusing to create a tag with a digest reference")
    if found.familiar_name == digests.SHA256:
        raise InvalidParameter("refusing to create an ambiguous tag using digest algorithm as name")
    return found.tagged()


def _is_base(name: str) -> bool:
    return not reference.parse_id(name) and str(reference.parse(name).canonical()) == BASE


def _has_digest(record: NameRecord, wanted: Reference) -> bool:
    """Whether a record's repository has the digest that a reference names."""
    if record.is_image or record.target.digest != wanted.digest:
        return False
    return reference.parse(record.reference).name == wanted.name
