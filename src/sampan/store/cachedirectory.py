"""A build cache outside of any store: a directory that another build, another store or another machine reads (`--cache-to type=local`).

It is an OCI layout (OCI image layout specification), and so are its rules: content is named by its digest, and nothing is trusted but what has it.

    oci-layout, index.json      a manifest for each tag
    blobs/sha256/HEX            manifests, layers (plain, gzip or zstd), and in place of an image's configuration a document of `CONFIG_TYPE`:
                                {"form": of `buildcache`, "entries": {key: entry}, "packed": {diff id: digest of the blob}}

A cache is written under one lock, and its tag is exchanged by one rename: who reads finds the old one or the new one. What the old one alone led to is
removed then, so that the directory does not grow with each build.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter, NotFound, SampanError
from sampan.kernel.files import FileLock, read_bounded, write_all, write_atomic
from sampan.oci import digest as digests
from sampan.oci import image as documents
from sampan.oci.image import Descriptor
from sampan.store import buildcache
from sampan.store.buildcache import Entry
from sampan.store.content import VerifiedReader
from sampan.store.decompress import decompress
from sampan.store.layers import DigestStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Executor
    from typing import Any

    from sampan.store.tarstream import Source

CONFIG_TYPE = "application/vnd.sampan.build.cache.v1+json"
TAG = "latest"
PLAIN = "uncompressed"
LAYER_TYPES = {
    PLAIN: documents.OCI_LAYER,
    "gzip": documents.OCI_LAYER + "+gzip",
    "zstd": documents.OCI_LAYER + "+zstd",
}
"""By how layers are compressed."""

_TAG_ANNOTATION = "org.opencontainers.image.ref.name"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_LIMIT = 64 << 20  # bytes of a document
_CHUNK = 1 << 20


class CacheDirectory:
    """A cache to be read. What is wrong with its documents is told at once, what is wrong with a layer when that is read."""

    def __init__(self, path: str, digest: str = "", tag: str = TAG) -> None:
        """`digest`: of the manifest, "" for the one that has the tag. Raises `NotFound`, `InvalidParameter`, OSError."""
        self._path = path
        target = digest or self._tagged(tag)
        manifest = documents.load(self._blob(target), f"{path}: manifest", _LIMIT)
        config = documents.parse_descriptor(manifest.get("config"))
        if config.media_type != CONFIG_TYPE:
            raise InvalidParameter(f"{path}: it is no build cache of this kind, but {config.media_type}")
        found = documents.load(self._blob(config.digest), f"{path}: cache", _LIMIT)
        if found.get("form") != buildcache.FORM:
            raise InvalidParameter(f"{path}: it was written by another version, in form {found.get('form')!r}")
        entries, packed = found.get("entries"), found.get("packed")
        if not isinstance(entries, dict) or not isinstance(packed, dict):
            raise InvalidParameter(f"{path}: the cache has no entries")
        self._entries: dict[str, Any] = entries
        self._packed: dict[str, Any] = packed

    def _tagged(self, tag: str) -> str:
        index = documents.load(_read(f"{self._path}/index.json"), f"{self._path}/index.json", _LIMIT)
        for entry in _manifests(index):
            if (entry.get("annotations") or {}).get(_TAG_ANNOTATION) == tag:
                return documents.parse_descriptor(entry).digest
        raise NotFound(f"{self._path}: there is no cache with the tag {tag}")

    def _blob(self, digest: str) -> bytes:
        data = _read(_blob_path(self._path, digest))
        if digests.of_bytes(data) != digest:
            raise digests.mismatch(digest, digests.of_bytes(data))
        return data

    def get(self, key: str) -> Entry | None:
        """What a step came to, None if it is not in here. Raises `InvalidParameter` for an entry that cannot be."""
        found = self._entries.get(key)
        if found is None:
            return None
        entry = buildcache.parse(found)
        if entry is None or (entry.blob and entry.blob != entry.diff_id):
            raise InvalidParameter(f"{self._path}: the entry {key} is damaged")
        return entry

    def read(self, entry: Entry, write: Callable[[bytes], object]) -> None:
        """The plain archive of an entry's layer, in pieces. What it is worth is told by its digest, which is for the caller to compare.

        Raises `NotFound`, `InvalidParameter` for what is damaged, what `write` raises.
        """
        digest = self._packed.get(entry.diff_id)
        if not isinstance(digest, str):
            raise NotFound(f"{self._path}: the layer {entry.diff_id} is not in the cache")
        try:
            fd = os.open(_blob_path(self._path, digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as e:
            raise NotFound(f"{self._path}: blob {digest}: {os.strerror(e.errno or 0).lower()}") from None
        with VerifiedReader(fd, digest) as blob:
            # No more than it is to have: a few bytes can be packed that unpack to a full disk.
            plain = DigestStream(decompress(blob), entry.bytes)
            while data := plain.read(_CHUNK):
                write(data)
            blob.drain()


def write(
    path: str,
    entries: Mapping[str, Entry],
    open_layer: Callable[[str], VerifiedReader],
    kind: str,
    tag: str = TAG,
) -> str:
    """Write entries and their layers as the cache that has the tag; the digest of its manifest.

    open_layer: a layer's plain archive by its diff id. kind: of `LAYER_TYPES`; what is there in it already is not written again.
    Raises OSError, `NotFound` for a layer that is gone. The old cache stays then.
    """
    from concurrent.futures import ThreadPoolExecutor

    os.makedirs(f"{path}/blobs/{digests.SHA256}", 0o755, exist_ok=True)
    with FileLock.acquire(f"{path}/.lock"), ThreadPoolExecutor(os.cpu_count() or 1) as workers:
        known = _packed_before(path, tag, kind)
        layers: dict[str, Descriptor] = {}
        for entry in entries.values():
            if entry.blob and entry.diff_id not in layers:
                layers[entry.diff_id] = known.get(entry.diff_id) or _pack(
                    path, open_layer, entry.diff_id, kind, workers
                )
        config = documents.dump(
            {
                "form": buildcache.FORM,
                "entries": {key: _told(entry) for key, entry in entries.items()},
                "packed": {diff_id: layer.digest for diff_id, layer in layers.items()},
            }
        )
        manifest = documents.Manifest(
            documents.OCI_MANIFEST,
            Descriptor(CONFIG_TYPE, _add(path, config), len(config)),
            tuple(layers.values()),
        ).document()
        digest = _add(path, manifest)
        write_atomic(f"{path}/oci-layout", _LAYOUT, 0o644)
        _publish(path, Descriptor(documents.OCI_MANIFEST, digest, len(manifest)), tag)
        return digest


def _told(entry: Entry) -> dict[str, Any]:
    """Nothing of when: the same cache is the same bytes."""
    return entry.replace(made=0, used=0, uses=0).to_json()


def _pack(
    path: str, open_layer: Callable[[str], VerifiedReader], diff_id: str, kind: str, workers: Executor
) -> Descriptor:
    """Write one layer, under a temporary name until it is whole."""
    with open_layer(diff_id) as layer:
        digest, size = _write_blob(path, _plain(layer) if kind == PLAIN else _compressed(layer, kind, workers))
    return Descriptor(LAYER_TYPES[kind], digest, size)


def _plain(source: Source) -> Iterable[bytes]:
    while data := source.read(_CHUNK):
        yield data


def _compressed(source: Source, kind: str, workers: Executor) -> Iterable[bytes]:
    from sampan.store.compress import compressed

    return compressed(source, kind, workers)


def _add(path: str, data: bytes) -> str:
    return _write_blob(path, (data,))[0]


def _write_blob(path: str, pieces: Iterable[bytes]) -> tuple[str, int]:
    temporary = f"{path}/blobs/{digests.SHA256}/.tmp-{os.getpid()}-{os.urandom(6).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            hashed, size = digests.new_hash(), 0
            for piece in pieces:
                hashed.update(piece)
                size += len(piece)
                write_all(fd, piece)
        finally:
            os.close(fd)
        digest = f"{digests.SHA256}:{hashed.hexdigest()}"
        os.rename(temporary, _blob_path(path, digest))
    except BaseException:
        os.unlink(temporary)
        raise
    return digest, size


def _publish(path: str, target: Descriptor, tag: str) -> None:
    """Give the manifest its tag, and remove what only the one before had."""
    before = _index(path)
    others = [e for e in before if (e.get("annotations") or {}).get(_TAG_ANNOTATION) != tag]
    mine = {**target.document(), "annotations": {_TAG_ANNOTATION: tag}}
    index = {"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": [*others, mine]}
    write_atomic(f"{path}/index.json", documents.dump(index), 0o644)
    try:
        needed = set[str]().union(*(_reached(path, entry) for entry in [*others, mine]))
    except (SampanError, OSError):
        return  # Something that is not ours is in there: what it leads to is not known.
    for entry in before:
        try:
            left = _reached(path, entry) - needed
        except (SampanError, OSError):
            continue
        for digest in left:
            os.unlink(_blob_path(path, digest))


def _reached(path: str, entry: Mapping[str, Any]) -> set[str]:
    """The blobs of a cache. Raises `InvalidParameter`, `NotFound` for what is none."""
    target = documents.parse_descriptor(entry)
    manifest = documents.load(_read(_blob_path(path, target.digest)), "manifest", _LIMIT)
    config = documents.parse_descriptor(manifest.get("config"))
    if config.media_type != CONFIG_TYPE:
        raise InvalidParameter(f"{path}: {target.digest} is no build cache")
    return {
        target.digest,
        config.digest,
        *(documents.parse_descriptor(one).digest for one in manifest.get("layers") or ()),
    }


def _packed_before(path: str, tag: str, kind: str) -> dict[str, Descriptor]:
    """The layers that the cache has already, compressed as they are wanted."""
    try:
        old = CacheDirectory(path, tag=tag)
    except (SampanError, OSError):
        return {}
    found = {}
    for diff_id, digest in old._packed.items():
        try:
            place = _blob_path(path, digest)
            with open(place, "rb") as blob:
                if _kind_of(blob.read(16)) == kind:
                    VerifiedReader(os.open(place, os.O_RDONLY | os.O_CLOEXEC), digest).drain()
                    found[diff_id] = Descriptor(LAYER_TYPES[kind], digest, os.fstat(blob.fileno()).st_size)
        except (SampanError, OSError, TypeError):
            continue
    return found


def _kind_of(head: bytes) -> str:
    return "gzip" if head[:2] == b"\x1f\x8b" else "zstd" if head[:4] == b"\x28\xb5\x2f\xfd" else PLAIN


def _index(path: str) -> list[dict[str, Any]]:
    """The entries of index.json, none if there is no valid one."""
    try:
        return _manifests(documents.load(_read(f"{path}/index.json"), "index", _LIMIT))
    except (SampanError, OSError):
        return []


def _manifests(index: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = index.get("manifests")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InvalidParameter("index.json is no index of an OCI layout")
    return found


def _blob_path(path: str, digest: str) -> str:
    return f"{path}/blobs/{digests.SHA256}/{digests.sha256_hex(digest)}"


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"open {path}: no such file or directory") from None
    try:
        return read_bounded(fd, _LIMIT)
    finally:
        os.close(fd)


__all__ = ["CONFIG_TYPE", "LAYER_TYPES", "PLAIN", "TAG", "CacheDirectory", "write"]
