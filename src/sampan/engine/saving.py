"""`save`: images as one archive that is a Docker archive and an OCI layout at once, as Docker 25 and later writes it.

    blobs/sha256/HEX    manifests, configs and layers, each once
    index.json          the manifests, with names as annotations; oci-layout says that this is an OCI layout
    manifest.json       the same for `docker load` and its kind
    repositories        the tags, for readers that know nothing newer

The same images give the same bytes: entries are in one order, and the one time in it is that of the newest image. Blobs
go out as they are stored, and are hashed on their way: content that is damaged ends in an error and in no archive.
"""

from __future__ import annotations

from sampan.engine import times
from sampan.engine.imagegraph import manifest_of
from sampan.errors import InvalidParameter, NotFound
from sampan.oci import image as documents
from sampan.oci import imagelayout, reference
from sampan.oci.image import Descriptor, ImageConfig, Index, Manifest
from sampan.oci.imagelayout import DockerImage, LayoutImage
from sampan.store.images import damaged_image, no_such_image
from sampan.store.tarstream import DIRECTORY, TarEntry
from sampan.store.tarwriter import TarWriter
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    from sampan.engine.images import Content, Lock, Names
    from sampan.oci.platform import Platform
    from sampan.oci.reference import Reference
    from sampan.store.content import VerifiedReader
    from sampan.store.images import NameRecord
    from sampan.store.tarwriter import Sink

    class Images(Protocol):
        def find(self, name: str) -> NameRecord | None: ...
        def collect_now(self) -> None: ...


_CHUNK = 1 << 18
_EPOCH_LIMIT = 1 << 33  # Later times need more than a plain header.


class Saved(Struct):
    """One image that is to be saved, with the names that were asked for."""

    id: str
    names: tuple[Reference, ...]
    target: Descriptor
    manifest: Manifest
    config: ImageConfig


class Saver:
    """Writes archives."""

    def __init__(self, content: Content, names: Names, lock: Lock, images: Images) -> None:
        self._content = content
        self._names = names
        self._lock = lock
        self._images = images

    def run(self, wanted: Sequence[str], sink: Sink, platform: Platform | None = None) -> list[str]:
        """Write the images to a stream; their ids.

        Raises `NotFound` in Docker's words before anything is written, `Damaged` for content that is not what it was.
        """
        # Whoever reads the stream may take his time, so no lock is held from others while it is written. What is to be
        # read is held instead, also when its image is removed meanwhile; and opened when its turn comes, for there
        # may be more of it than files that can be open.
        with self._lock.shared():
            images = [self._saved(record, names, platform) for record, names in self._chosen(wanted)]
            blobs = self._blobs(images)
            hold = self._content.hold(blobs)
        try:
            self._write(images, blobs, TarWriter(sink))
        finally:
            self._content.drop(hold)
            if any(self._names.get(image.id) is None for image in images):
                self._images.collect_now()
        return [image.id for image in images]

    # What is asked for

    def _chosen(self, wanted: Sequence[str]) -> list[tuple[NameRecord, tuple[Reference, ...]]]:
        """The images in the order in which they were first named, each with those of its names that were meant."""
        found: dict[str, tuple[NameRecord, list[Reference]]] = {}
        for word in wanted:
            for record, name in self._meant(word):
                names = found.setdefault(record.image, (record, []))[1]
                if name is not None and name not in names:
                    names.append(name)
        return [(record, tuple(names)) for record, names in found.values()]

    def _meant(self, word: str) -> list[tuple[NameRecord, Reference | None]]:
        """What a word means: an image by its id; one name; all tags of a repository that is named without one."""
        if not reference.parse_id(word):
            name = reference.parse(word)
            tags = [(r, reference.parse(r.reference)) for r in self._names.list() if not r.is_image]
            tags = [(r, tag) for r, tag in tags if tag.tag and tag.name == name.name]
            if not name.tag and not name.digest and tags:
                return [(record, tag) for record, tag in tags]
        record = self._images.find(word)
        if record is None:
            raise no_such_image(word)
        named = None if record.is_image else reference.parse(record.reference)
        return [(record, named if named is not None and named.tag and not named.digest else None)]

    def _saved(self, record: NameRecord, names: tuple[Reference, ...], platform: Platform | None) -> Saved:
        try:
            target, manifest = self._manifest(record, platform)
            config = documents.parse_config(self._content.read(manifest.config.digest, documents.CONFIG_LIMIT))
        except (NotFound, InvalidParameter) as e:
            raise damaged_image(record.image, e) from None
        if platform is not None and not platform.runs(config.platform):
            raise NotFound(
                f"image with reference {_shown(record)} was found but does not provide the specified platform ({platform})"
            )
        return Saved(record.image, names, target, manifest, config)

    def _manifest(self, record: NameRecord, platform: Platform | None) -> tuple[Descriptor, Manifest]:
        """The manifest of an image; of an index of several the one for the platform, or else its own."""
        if platform is None:
            return manifest_of(self._content, record.target, record.image)
        target = record.target
        found = documents.parse_manifest(self._content.read(target.digest, documents.MANIFEST_LIMIT), target.media_type)
        if isinstance(found, Index):
            target = found.select(platform).replace(platform=None)
            found = documents.parse_manifest(
                self._content.read(target.digest, documents.MANIFEST_LIMIT), target.media_type
            )
        if not isinstance(found, Manifest):
            raise InvalidParameter(f"index {record.target.digest} leads to another index")
        return target, found

    # What is written

    def _blobs(self, images: Sequence[Saved]) -> dict[str, tuple[int, str]]:
        """Every blob once, by its digest: its size, and the first image that has it. Raises `Damaged`."""
        blobs: dict[str, tuple[int, str]] = {}
        for image in images:
            for descriptor in (image.target, image.manifest.config, *image.manifest.layers):
                if descriptor.digest not in blobs:
                    try:
                        blobs[descriptor.digest] = self._content.size(descriptor.digest), image.id
                    except NotFound as e:
                        raise damaged_image(image.id, e) from None
        return blobs

    def _write(self, images: Sequence[Saved], blobs: dict[str, tuple[int, str]], tar: TarWriter) -> None:
        when = max((_created(image.config) for image in images), default=0)
        for directory in (b"blobs/", b"blobs/sha256/"):
            tar.add(TarEntry(directory, DIRECTORY, 0o755, mtime_ns=when))
        for digest, (size, image_id) in sorted(blobs.items()):
            entry = TarEntry(imagelayout.blob(digest).encode("ascii"), mode=0o644, size=size, mtime_ns=when)
            try:
                with self._content.open_verified(digest) as reader:
                    tar.add(entry, _pieces(reader))
            except (NotFound, InvalidParameter) as e:
                raise damaged_image(image_id, e) from None
        for member, data in _tables(images):
            tar.add(TarEntry(member.encode("ascii"), mode=0o644, size=len(data), mtime_ns=when), data)
        tar.close()


def _tables(images: Sequence[Saved]) -> list[tuple[str, bytes]]:
    entries = [LayoutImage(image.target, name) for image in images for name in image.names or (None,)]
    docker = [
        DockerImage(
            imagelayout.blob(image.manifest.config.digest),
            image.names,
            tuple(imagelayout.blob(layer.digest) for layer in image.manifest.layers),
        )
        for image in images
    ]
    tables = [
        (imagelayout.INDEX, imagelayout.index(entries)),
        (imagelayout.DOCKER_MANIFEST, imagelayout.docker_manifest(docker)),
        (imagelayout.LAYOUT, imagelayout.LAYOUT_VERSION),
        (imagelayout.REPOSITORIES, imagelayout.repositories(docker)),
    ]
    return [(member, data) for member, data in tables if data]


def _pieces(reader: VerifiedReader) -> Iterator[bytes]:
    """The bytes of a blob. The last read gives the verdict: `InvalidParameter` if they are not what they were."""
    while data := reader.read(_CHUNK):
        yield data


def _created(config: ImageConfig) -> int:
    """Nanoseconds since the epoch, whole seconds; 0 for what is no time."""
    try:
        seconds = times.parse(config.created) // 1_000_000_000
    except ValueError:
        return 0
    return seconds * 1_000_000_000 if 0 <= seconds < _EPOCH_LIMIT else 0


def _shown(record: NameRecord) -> str:
    return record.image if record.is_image else reference.parse(record.reference).familiar
