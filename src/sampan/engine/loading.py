"""`load`: images out of an archive, Docker's or an OCI layout or both in one.

First the documents: what images there are, what each needs, and whether all of it is there and agrees; nothing is
written until then. Then the layers, each read once: hashed and stored as a blob while it is unpacked; one that is
unpacked already is not read at all. The records come last, so a command that dies leaves no image half there.
"""

from __future__ import annotations

from sampan.engine.archivereader import Found, Layer, Reader
from sampan.engine.importing import Tee, told
from sampan.errors import InvalidParameter, System
from sampan.kernel import clock
from sampan.oci import image as documents
from sampan.oci.image import Descriptor, Manifest
from sampan.store.decompress import decompress
from sampan.store.imagearchive import ImageArchive
from sampan.store.images import NameRecord
from sampan.store.layers import DigestStream
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from sampan.engine.images import Content, Image, Lock, Names, Snapshotter
    from sampan.engine.progress import Progress
    from sampan.oci.platform import Platform
    from sampan.oci.reference import Reference
    from sampan.store.imagearchive import Source

    class Publisher(Protocol):
        def enter(self, record: NameRecord, names: Sequence[Reference]) -> Image: ...
        def collect_now(self) -> None: ...


_CHUNK = 1 << 18


class Loaded(Struct):
    """One name that was loaded, or an image without a name: `reference` is empty then.

    `replaced`: the id of the image that had the name before, if it was another one.
    """

    reference: str
    id: str
    replaced: str = ""


class Loader:
    """Loads archives."""

    def __init__(self, content: Content, names: Names, snapshots: Snapshotter, lock: Lock, images: Publisher) -> None:
        self._content = content
        self._names = names
        self._snapshots = snapshots
        self._lock = lock
        self._images = images

    def run(self, stream: Source, wanted: Platform | None = None, progress: Progress | None = None) -> list[Loaded]:
        """Load every image of an archive; with a platform those of it alone. `progress` is told of each layer.

        Raises `InvalidParameter` for what is wrong with the archive, `System` for a full disk; all images are loaded
        or none, and nothing is left behind then.
        """
        try:
            with ImageArchive.open(stream, self._content.spool) as archive:
                found = Reader(archive, self._content, wanted).images()
                return self._load(archive, found, progress)
        except OSError as e:
            raise System(f"error processing tar file: {told(e)}") from e

    def _load(self, archive: ImageArchive, found: Sequence[Found], progress: Progress | None) -> list[Loaded]:
        self._content.collect_ingests(partial=False)
        try:
            # Shared from the first blob to the last record: none of it is garbage meanwhile. A pipe was spooled
            # before, so that it is the disk alone that is waited for.
            with self._lock.shared():
                records = [self._add_content(archive, image, progress) for image in found]
                loaded: list[Loaded] = []
                for image, record in zip(found, records, strict=True):
                    loaded += self._outcome(image)
                    self._images.enter(record, image.names)
                return loaded
        except BaseException:
            self._images.collect_now()
            raise

    def _outcome(self, image: Found) -> list[Loaded]:
        if not image.names:
            return [Loaded("", image.id)]
        outcome = []
        for name in image.names:
            old = self._names.get(str(name))
            outcome.append(Loaded(name.familiar, image.id, old.image if old and old.image != image.id else ""))
        return outcome

    # Content

    def _add_content(self, archive: ImageArchive, image: Found, progress: Progress | None) -> NameRecord:
        chain = documents.chain_ids(image.parsed.diff_ids)
        blobs = tuple(
            self._add_layer(archive, layer, chain[: i + 1], diff_id, progress)
            for i, (layer, diff_id) in enumerate(zip(image.layers, image.parsed.diff_ids, strict=True))
        )
        self._content.add(image.config)
        manifest = image.manifest
        if manifest is None:
            config = Descriptor(documents.OCI_CONFIG, image.id, len(image.config))
            manifest = Manifest(documents.OCI_MANIFEST, config, blobs).document()
        target = Descriptor(image.media_type, self._content.add(manifest), len(manifest))
        return NameRecord(image.id, target, image.id, clock.now())

    def _add_layer(
        self, archive: ImageArchive, layer: Layer, chain: Sequence[str], diff_id: str, progress: Progress | None
    ) -> Descriptor:
        """The blob of one layer, stored and unpacked as far as it is not."""
        expected = layer.blob.digest if layer.blob else diff_id
        unpacked = self._snapshots.has(chain[-1])
        if not (unpacked and self._content.exists(expected)) and archive.has(layer.member):
            try:
                section: Source = archive.open_member(layer.member)
                if progress is not None:
                    section = _watched(section, progress, diff_id, archive.size(layer.member))
                self._read_layer(section, layer, chain, diff_id, unpacked)
            except InvalidParameter as e:
                raise InvalidParameter(f"layer {layer.member}: {e}") from None
        return layer.blob or Descriptor(documents.OCI_LAYER, expected, self._content.size(expected))

    def _read_layer(self, section: Source, layer: Layer, chain: Sequence[str], diff_id: str, unpacked: bool) -> None:
        with self._content.writer() as ingest:
            # What OCI names is kept as it came, packed or not: its digest is that of the packed bytes.
            tee = Tee(section if layer.blob else decompress(section, self._content.directory), ingest)
            if unpacked:
                _check_plain(tee, diff_id)
            else:
                self._snapshots.unpack(chain[:-1], tee, diff_id)
            tee.drain()
            ingest.commit(layer.blob.digest if layer.blob else diff_id)


def _watched(section: Source, progress: Progress, diff_id: str, size: int) -> Source:
    from sampan.engine.progress import WatchedSource  # in here: only a person at a terminal wants to know

    return WatchedSource(section, progress, f"{diff_id.removeprefix('sha256:')[:12]}: Loading layer", size)


def _check_plain(stream: Source, diff_id: str) -> None:
    """Read a layer that need not be unpacked, for it has to be what the config says all the same."""
    plain = DigestStream(decompress(stream))
    while plain.read(_CHUNK):
        pass
    if plain.digest != diff_id:
        raise InvalidParameter(f'invalid diffID: expected "{diff_id}", got "{plain.digest}"')
