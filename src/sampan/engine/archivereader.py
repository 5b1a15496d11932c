"""What images an archive has: its documents read and checked before any layer is.

One table of contents counts. An archive with `oci-layout` is an OCI layout: index.json says which images there are and
what they are called, as for Docker with containerd's store, and manifest.json beside it is not looked at; a tool that
knows only the standard edits the first and leaves the second as it was. Without `oci-layout` it is manifest.json, as
for every Docker, and `repositories` where Docker was older than that. So no two tables can contradict each other.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.oci import digest as digests
from sampan.oci import image as documents
from sampan.oci import imagelayout, platform
from sampan.oci.image import Descriptor, ImageConfig, Index, Manifest
from sampan.oci.reference import Reference
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from sampan.oci.platform import Platform
    from sampan.store.imagearchive import ImageArchive

    class Content(Protocol):
        def exists(self, digest: str) -> bool: ...
        def read(self, digest: str, limit: int) -> bytes: ...


_NESTING = 4
"""Indexes in indexes at most."""


class Layer(Struct):
    """Where a layer is in the archive. `blob` is what OCI says of it; without it the member is stored decompressed."""

    member: str
    blob: Descriptor | None = None


class Found(Struct):
    """One image of an archive, its documents read and checked. `manifest` is None if there is only Docker's table."""

    names: tuple[Reference, ...]
    config: bytes
    parsed: ImageConfig
    layers: tuple[Layer, ...]
    manifest: bytes | None = None
    media_type: str = documents.OCI_MANIFEST

    @property
    def id(self) -> str:
        return digests.of_bytes(self.config)


class Reader:
    """The documents of an archive, and what can be said of them before any layer is read."""

    def __init__(self, archive: ImageArchive, content: Content, wanted: Platform | None) -> None:
        self._archive = archive
        self._content = content
        self._wanted = wanted

    def images(self) -> list[Found]:
        """The images of the archive, in its order. Raises `InvalidParameter`."""
        found = self._listed()
        _refuse_two_meanings(found)
        return self._of_platform(found)

    def _listed(self) -> list[Found]:
        has = self._archive.has
        if has(imagelayout.LAYOUT):
            imagelayout.check_version(self._archive.read(imagelayout.LAYOUT, documents.MANIFEST_LIMIT))
            return self._from_layout()
        if has(imagelayout.DOCKER_MANIFEST):
            return self._from_docker()
        if has(imagelayout.INDEX):  # A layout of which the mark was forgotten.
            return self._from_layout()
        if has(imagelayout.REPOSITORIES):
            from sampan.engine.legacyarchive import legacy_images

            return [self._found(i.names, i.config, tuple(map(Layer, i.layers))) for i in legacy_images(self._archive)]
        raise InvalidParameter("invalid archive: does not contain a manifest.json")

    def _of_platform(self, found: list[Found]) -> list[Found]:
        wanted = self._wanted
        fit = [image for image in found if wanted is None or wanted.runs(image.parsed.platform)]
        if found and not fit:
            raise InvalidParameter(f"no matching image for {wanted} in the archive")
        return fit

    # Docker's table

    def _from_docker(self) -> list[Found]:
        data = self._archive.read(imagelayout.DOCKER_MANIFEST, documents.MANIFEST_LIMIT)
        return [self._docker_image(entry) for entry in imagelayout.parse_docker_manifest(data)]

    def _docker_image(self, entry: imagelayout.DockerImage) -> Found:
        config = self._archive.read(entry.config, documents.CONFIG_LIMIT)
        _check_name(entry.config, config)
        layers = tuple(Layer(member) for member in entry.layers)
        found = self._found(entry.names, config, layers)
        for layer, diff_id in zip(layers, found.parsed.diff_ids, strict=True):
            if not self._archive.has(layer.member) and not self._content.exists(diff_id):
                raise InvalidParameter(f'invalid archive: it does not contain "{layer.member}"')
        return found

    # OCI layout

    def _from_layout(self) -> list[Found]:
        entries = imagelayout.parse_index(self._archive.read(imagelayout.INDEX, documents.MANIFEST_LIMIT))
        # A tool writes an image with two names as two entries.
        merged: dict[str, Found] = {}
        for entry in entries:
            image = self._layout_image(entry)
            known = merged.get(image.id)
            merged[image.id] = image.replace(names=(*known.names, *image.names)) if known else image
        return list(merged.values())

    def _layout_image(self, entry: imagelayout.LayoutImage) -> Found:
        target, data = self._resolve(entry.target)
        manifest = documents.parse_manifest(data, target.media_type)
        if not isinstance(manifest, Manifest):
            raise InvalidParameter(f"index {target.digest} leads to another index")
        config = self._document(manifest.config, documents.CONFIG_LIMIT)
        layers = tuple(Layer(imagelayout.blob(layer.digest), layer) for layer in manifest.layers)
        for layer in manifest.layers:
            self._check_blob(layer)
        names = () if entry.name is None else (entry.name,)
        return self._found(names, config, layers).replace(manifest=data, media_type=manifest.media_type)

    def _resolve(self, target: Descriptor, depth: int = 0) -> tuple[Descriptor, bytes]:
        """The manifest that an entry leads to: through an index the one of the platform, here or as wanted."""
        data = self._document(target, documents.MANIFEST_LIMIT)
        found = documents.parse_manifest(data, target.media_type)
        if not isinstance(found, Index):
            return target, data
        if depth == _NESTING:
            raise InvalidParameter(f"invalid archive: index {target.digest} is nested too deep")
        # Archives of one platform have an index of several, of which they hold one.
        there = found.replace(manifests=tuple(m for m in found.manifests if self._has(m.digest)))
        if not there.manifests and found.manifests:
            raise InvalidParameter(
                f'invalid archive: it does not contain "{imagelayout.blob(found.manifests[0].digest)}"'
            )
        if len(there.manifests) == 1 and (there.manifests[0].platform is None or self._wanted is None):
            return self._resolve(there.manifests[0], depth + 1)
        return self._resolve(there.select(self._wanted or platform.here()), depth + 1)

    def _has(self, digest: str) -> bool:
        return self._archive.has(imagelayout.blob(digest)) or self._content.exists(digest)

    def _document(self, target: Descriptor, limit: int) -> bytes:
        member = imagelayout.blob(target.digest)
        if not self._archive.has(member) and self._content.exists(target.digest):
            return self._content.read(target.digest, limit)
        data = self._archive.read(member, limit)
        if len(data) != target.size:
            raise _wrong_size(member, len(data), target.size)
        _check_name(member, data)
        return data

    def _check_blob(self, layer: Descriptor) -> None:
        """A layer is there, and as long as its descriptor says. Its digest comes out when it is read."""
        member = imagelayout.blob(layer.digest)
        if not self._archive.has(member):
            if not self._content.exists(layer.digest):
                raise InvalidParameter(f'invalid archive: it does not contain "{member}"')
        elif self._archive.size(member) != layer.size:
            raise _wrong_size(member, self._archive.size(member), layer.size)

    def _found(self, names: tuple[Reference, ...], config: bytes, layers: tuple[Layer, ...]) -> Found:
        parsed = documents.parse_config(config)
        if parsed.platform.os not in ("", "linux"):
            raise InvalidParameter(f"cannot load {parsed.platform.os} image on linux")
        if len(layers) != len(parsed.diff_ids):
            raise InvalidParameter(
                f"invalid manifest, layers length mismatch: expected {len(layers)}, got {len(parsed.diff_ids)}"
            )
        for diff_id in parsed.diff_ids:
            digests.sha256_hex(diff_id)
        return Found(names, config, parsed, layers)


def _check_name(member: str, data: bytes) -> None:
    """A member that is named by its digest has to be what its name says."""
    directory, _, name = member.rpartition("/")
    if directory.endswith("blobs/sha256") and digests.hex_of(data) != name:
        raise InvalidParameter(f'invalid archive: "{member}" has the digest {digests.of_bytes(data)}')


def _wrong_size(member: str, found: int, said: int) -> InvalidParameter:
    return InvalidParameter(f'invalid archive: "{member}" has {found} bytes, its descriptor says {said}')


def _refuse_two_meanings(found: Iterable[Found]) -> None:
    """One name leads to one image, whatever a reader makes of the order."""
    meant: dict[str, str] = {}
    for image in found:
        for name in image.names:
            if meant.setdefault(str(name), image.id) != image.id:
                raise InvalidParameter(f"invalid archive: {name.familiar} is the name of two images")
