"""`push`: an image into a registry, with what the registry lacks and nothing else.

A layer that was pulled is sent as it came, and so has the digest that it had. One that was made here is a plain archive: it
is compressed while it is sent, and the compressed blob is kept. When all is there, the image's record leads to the
manifest that was pushed, so that nothing is compressed twice, the digest is the registry's, and the plain blob is collected
if no other image needs it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from sampan.engine.imagegraph import manifest_of
from sampan.engine.importing import told
from sampan.errors import InvalidParameter, NotFound, SampanError, System
from sampan.oci import digest as digests
from sampan.oci import image as documents
from sampan.oci import platform as platforms
from sampan.oci import reference
from sampan.oci.image import Descriptor, Index, Manifest
from sampan.registry import push as sending
from sampan.registry.client import Repository
from sampan.registry.failures import Refused
from sampan.store.compress import GZIP, KINDS, ZSTD, compressed
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Protocol

    from sampan.engine.images import Content, Image, Lock, Names
    from sampan.engine.registries import Registries
    from sampan.oci.reference import Reference
    from sampan.registry.client import Client, Connection
    from sampan.store.images import NameRecord

    Report = Callable[[str, str, int, int], None]

    class Images(Protocol):
        def read(self, record: NameRecord) -> Image: ...


_PLAIN = {
    documents.OCI_LAYER: {GZIP: documents.OCI_LAYER_GZIP, ZSTD: documents.OCI_LAYER_ZSTD},
    documents.DOCKER_LAYER: {GZIP: documents.DOCKER_LAYER_GZIP, ZSTD: documents.OCI_LAYER_ZSTD},
}
_KEPT = ("artifactType", "subject", "annotations")
_AS_OCI = {
    documents.DOCKER_LAYER: documents.OCI_LAYER,
    documents.DOCKER_LAYER_GZIP: documents.OCI_LAYER_GZIP,
    documents.DOCKER_CONFIG: documents.OCI_CONFIG,
    documents.DOCKER_MANIFEST: documents.OCI_MANIFEST,
}


class Pushed(Struct):
    """What came of the push of one tag: what the registry has under it now. `size`: bytes of the manifest."""

    tag: str
    digest: str
    size: int


class Pusher:
    """Sends images."""

    def __init__(self, content: Content, names: Names, lock: Lock, images: Images) -> None:
        self._content = content
        self._names = names
        self._lock = lock
        self._images = images

    def push(
        self, registries: Registries, text: str, platform: str, report: Report, all_tags: bool, compression: str
    ) -> Iterator[tuple[NameRecord, Pushed]]:
        """Push a tag, or all of a repository; each when it is done.

        Raises `NotFound` in Docker's words, `Unavailable` for what the registry or the network does, `InvalidParameter`,
        `Damaged` and `System` for the store.
        """
        if compression not in KINDS:
            raise InvalidParameter(f"invalid compression '{compression}': must be one of {', '.join(KINDS)}")
        name = reference.parse(text)
        if name.digest:
            raise InvalidParameter("cannot push a digest reference")
        wanted = platforms.parse(platform) if platform else None
        chosen = self._chosen(name, all_tags)
        for record in chosen:
            found = documents.platform_of(self._images.read(record).document)
            if wanted is not None and not wanted.runs(found):
                raise NotFound(
                    f"image with reference {text} was found but its platform ({found}) does not match the specified "
                    f"platform ({wanted})"
                )
        for record in chosen:
            client = registries.client(name.domain)
            try:
                yield record, self._one(client, registries.uploads, record, report, compression)
            except OSError as e:
                raise System(told(e)) from e
            finally:
                client.patience.stop()

    def _chosen(self, name: Reference, all_tags: bool) -> list[NameRecord]:
        if not all_tags:
            record = self._names.get(str(name.tagged()))
            if record is None:
                raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
            return [record]
        tags = [(record, reference.parse(record.reference)) for record in self._names.list() if not record.is_image]
        found = [record for record, tag in tags if tag.tag and tag.name == name.name]
        if not found:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
        return found

    def _one(self, client: Client, at_once: int, record: NameRecord, report: Report, compression: str) -> Pushed:
        name = reference.parse(record.reference)
        for connection in client.connections():
            try:
                # What is read is held, and no lock is, for as long as a network is waited for.
                with self._lock.shared():
                    image = self._image(record)
                    hold = self._content.hold(sorted(image.blobs))
                try:
                    return self._send(
                        Repository(connection, name.path, "pull,push"), image, name, at_once, report, compression
                    )
                finally:
                    self._content.drop(hold)
            except Refused as e:
                raise _translated(e, connection) from None
        raise AssertionError("no endpoint")

    def _image(self, record: NameRecord) -> Local:
        target, manifest = manifest_of(self._content, record.target, record.image)
        image = self._images.read(record)
        known = self._compressed()
        mounts = self._elsewhere(reference.parse(record.reference))
        return Local(record, target, manifest, tuple(image.diff_ids), known, mounts)

    def _compressed(self) -> dict[str, Descriptor]:
        """Layers of which some image here has a compressed blob: by the digest of the plain archive."""
        found: dict[str, Descriptor] = {}
        for record in self._names.list():
            if not record.is_image:
                continue
            try:
                layers = manifest_of(self._content, record.target, record.image)[1].layers
                diff_ids = self._images.read(record).diff_ids
            except SampanError:
                continue  # It is damaged, which is no matter of this image.
            pairs = zip(diff_ids, layers, strict=False)
            found.update(
                (d, layer)
                for d, layer in pairs
                if layer.media_type not in _PLAIN and self._content.exists(layer.digest)
            )
        return found

    def _elsewhere(self, name: Reference) -> dict[str, str]:
        """Blobs that the same registry may have in another repository, as far as names here tell: where."""
        found: dict[str, str] = {}
        for record in self._names.list():
            if record.is_image:
                continue
            other = reference.parse(record.reference)
            if other.domain != name.domain or other.path == name.path:
                continue
            try:
                layers = manifest_of(self._content, record.target, record.image)[1].layers
            except SampanError:
                continue
            found.update((layer.digest, other.path) for layer in layers)
        return found

    # Sending

    def _send(
        self, repository: Repository, image: Local, name: Reference, at_once: int, report: Report, compression: str
    ) -> Pushed:
        for diff_id in image.diff_ids:
            report(_short(diff_id), "Preparing", 0, 0)
        sender = Sender(self._content, repository, image, report, compression)
        sent = sender.layers(at_once)
        manifest, changed = _with_layers(image.manifest, sent)
        config = manifest.config
        if not sending.has(repository, config.digest):
            sending.begin(repository).finish(config.digest, self._content.read(config.digest, documents.CONFIG_LIMIT))
        if changed:
            data = self._document(image, manifest)
            target = Descriptor(manifest.media_type, digests.of_bytes(data), len(data))
        else:
            target = image.target
            data = self._content.read(target.digest, documents.MANIFEST_LIMIT)
        index = self._index(image, target, changed)
        if index is not None:
            # All that the index names is here, or the registry has it: so it can have the index.
            self._put(repository, target.digest, target, data)
            target, data = index
        self._put(repository, name.tag, target, data)
        if changed:
            self._remember(image.record, target, data)
        return Pushed(name.tag, target.digest, len(data))

    def _document(self, image: Local, manifest: Manifest) -> bytes:
        """A manifest with other layers; what it says beside them stays said."""
        before = documents.load(
            self._content.read(image.target.digest, documents.MANIFEST_LIMIT), "manifest", documents.MANIFEST_LIMIT
        )
        kept = {key: before[key] for key in _KEPT if key in before}
        after = documents.load(manifest.document(), "manifest", documents.MANIFEST_LIMIT)
        return documents.dump(after | kept)

    def _put(self, repository: Repository, name: str, target: Descriptor, data: bytes) -> None:
        """Put a manifest under a name, and see to it that who asks for the referrers of its subject finds it."""
        noted = sending.manifest(repository, name, target, data)
        document = documents.load(data, "manifest", documents.MANIFEST_LIMIT)
        subject = document.get("subject")
        if isinstance(subject, dict) and not noted:
            from sampan.registry import referrers

            referrers.announce(repository, documents.parse_descriptor(subject).digest, target, document)

    def _index(self, image: Local, target: Descriptor, changed: bool) -> tuple[Descriptor, bytes] | None:
        """The index that the name leads to, if this image is all that it names."""
        top = image.record.target
        if changed or top.digest == target.digest:
            return None
        data = self._content.read(top.digest, documents.MANIFEST_LIMIT)
        parsed = documents.parse_manifest(data, top.media_type)
        if isinstance(parsed, Index) and [entry.digest for entry in parsed.manifests] == [target.digest]:
            return top, data
        return None

    def _remember(self, record: NameRecord, target: Descriptor, data: bytes) -> None:
        """Let every name of the image that led to the plain layers lead to those that the registry has."""
        with self._lock.shared():
            self._content.add(data)
            own = self._names.get(record.image)
            if own is None:
                return  # It was removed meanwhile.
            for other in self._names.list():
                if other.image == record.image and other.target == record.target:
                    self._names.set(other.replace(target=target))


class Local(Struct):
    """An image as it is here. `compressed`: blobs of its plain layers that others have; `elsewhere`: see `Pusher._elsewhere`."""

    record: NameRecord
    target: Descriptor
    manifest: Manifest
    diff_ids: tuple[str, ...]
    compressed: dict[str, Descriptor]
    elsewhere: dict[str, str]

    @property
    def blobs(self) -> set[str]:
        """What is read of it."""
        found = {self.target.digest, self.record.target.digest, self.manifest.config.digest}
        found |= {layer.digest for layer in self.manifest.layers}
        return found | {self.compressed[d].digest for d in self.diff_ids if d in self.compressed}


class Sender:
    """The layers of one image on their way."""

    def __init__(
        self, content: Content, repository: Repository, image: Local, report: Report, compression: str
    ) -> None:
        self._content = content
        self._repository = repository
        self._image = image
        self._report = report
        self._compression = compression

    def layers(self, at_once: int) -> list[Descriptor]:
        """Send what is missing, several at once; the layers as the registry has them. Raises what went wrong first."""
        layers = dict(zip(self._image.diff_ids, self._image.manifest.layers, strict=True))
        with (
            ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as packers,
            ThreadPoolExecutor(at_once) as senders,
        ):
            futures = {d: senders.submit(self._layer, d, layer, packers) for d, layer in layers.items()}
            try:
                sent = {diff_id: future.result() for diff_id, future in futures.items()}
            except BaseException:
                self._repository.connection.patience.stop()
                senders.shutdown(wait=False, cancel_futures=True)
                raise
        return [sent[diff_id] for diff_id in self._image.diff_ids]

    def _layer(self, diff_id: str, layer: Descriptor, packers: ThreadPoolExecutor) -> Descriptor:
        self._repository.connection.patience.check()
        if layer.media_type in _PLAIN and diff_id in self._image.compressed:
            layer = self._image.compressed[diff_id]
        if layer.media_type in _PLAIN:
            return self._packed(diff_id, layer, packers)
        if sending.has(self._repository, layer.digest):
            self._report(_short(diff_id), "Layer already exists", 0, 0)
            return layer
        upload = self._mounted(layer)
        if upload is None:
            self._report(_short(diff_id), f"Mounted from {self._image.elsewhere[layer.digest]}", 0, 0)
            return layer
        with self._content.open_verified(layer.digest) as blob:
            sent = 0
            while data := _piece(blob.read):
                upload.append(data)
                sent += len(data)
                self._report(_short(diff_id), "Pushing", sent, layer.size)
        upload.finish(layer.digest)
        self._report(_short(diff_id), "Pushed", 0, 0)
        return layer

    def _mounted(self, layer: Descriptor) -> sending.Upload | None:
        source = self._image.elsewhere.get(layer.digest)
        return sending.mount(self._repository, layer.digest, source) if source else sending.begin(self._repository)

    def _packed(self, diff_id: str, layer: Descriptor, packers: ThreadPoolExecutor) -> Descriptor:
        """Send a plain layer, compressed on its way; the compressed blob is kept."""
        upload = sending.begin(self._repository)
        with self._content.open_verified(layer.digest) as blob, self._content.writer() as ingest:
            plain = _Counted(blob.read, lambda done: self._report(_short(diff_id), "Pushing", done, layer.size))
            pieces = _Pieces(compressed(plain, self._compression, packers))
            while data := _piece(pieces.read):
                ingest.write(data)
                upload.append(data)
            digest, size = ingest.digest, ingest.size
            upload.finish(digest)
            ingest.commit(digest)
        self._report(_short(diff_id), "Pushed", 0, 0)
        return Descriptor(_PLAIN[layer.media_type][self._compression], digest, size)


class _Counted:
    """A stream that tells how much of it was read."""

    def __init__(self, read: Callable[[int], bytes], tell: Callable[[int], None]) -> None:
        self._read = read
        self._tell = tell
        self._done = 0

    def read(self, size: int, /) -> bytes:
        data = self._read(size)
        self._done += len(data)
        self._tell(self._done)
        return data


class _Pieces:
    """Pieces of any size as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        while not self._left:
            data = next(self._pieces, None)
            if data is None:
                return b""
            self._left = memoryview(data)
        data, self._left = bytes(self._left[:size]), self._left[size:]
        return data


def _piece(read: Callable[[int], bytes]) -> bytes:
    """As much as one request takes, less only at the end."""
    parts: list[bytes] = []
    left = sending.PIECE
    while left and (data := read(min(left, 1 << 18))):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def _with_layers(manifest: Manifest, layers: Sequence[Descriptor]) -> tuple[Manifest, bool]:
    """The manifest with these layers, and whether it is another one. Docker's types have none for zstd: then it is OCI's."""
    if tuple(layers) == manifest.layers:
        return manifest, False
    types = {layer.media_type for layer in layers}
    if manifest.media_type == documents.DOCKER_MANIFEST and types <= {documents.DOCKER_LAYER_GZIP}:
        return manifest.replace(layers=tuple(layers)), True
    config = manifest.config.replace(media_type=_as_oci(manifest.config.media_type))
    changed = tuple(layer.replace(media_type=_as_oci(layer.media_type)) for layer in layers)
    return Manifest(documents.OCI_MANIFEST, config, changed), True


def _as_oci(media_type: str) -> str:
    return _AS_OCI.get(media_type, media_type)


def _short(diff_id: str) -> str:
    """A layer as the lines of a push name it."""
    return diff_id.partition(":")[2][:12]


def _translated(error: Refused, connection: Connection) -> SampanError:
    """What went wrong, as Docker tells it of a push."""
    if error.status not in (401, 403):
        return error
    if connection.authenticator.wants_basic and not connection.authenticator.credential:
        return NotFound(f"{connection.endpoint.host}: no basic auth credentials: log in with 'sampan login'")
    words = error.words or "denied: requested access to the resource is denied"
    return NotFound(f"push access denied, repository does not exist or may require authorization: {words}")
