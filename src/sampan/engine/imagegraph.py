"""What an image is made of on disk: the blobs that its documents lead to."""

from __future__ import annotations

from sampan.errors import NotFound
from sampan.oci import image as documents
from sampan.oci.image import Index, Manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from sampan.oci.image import Descriptor

    class Content(Protocol):
        def exists(self, digest: str) -> bool: ...
        def read(self, digest: str, limit: int) -> bytes: ...


def blobs_of(content: Content, target: Descriptor) -> set[str]:
    """The digests of a manifest, its config and its layers; of an index those manifests that were brought in.

    Raises NotFound and InvalidParameter if a document is gone or damaged.
    """
    found = _read(content, target)
    if not isinstance(found, Index):
        return {target.digest, found.config.digest, *(layer.digest for layer in found.layers)}
    here = [entry for entry in found.manifests if content.exists(entry.digest)]
    return {target.digest}.union(*(blobs_of(content, entry) for entry in here if entry.digest != target.digest))


def manifest_of(content: Content, target: Descriptor, image_id: str) -> tuple[Descriptor, Manifest]:
    """The manifest of an image, with its descriptor: what the record leads to, or of an index of several the one with this config.

    The others may be in the store too: images of other platforms that were pulled by the same name. Raises NotFound
    and InvalidParameter if a document is gone or damaged.
    """
    found = _read(content, target)
    if not isinstance(found, Index):
        return target, found
    for entry in found.manifests:
        if entry.media_type in documents.MANIFESTS and content.exists(entry.digest):
            manifest = _read(content, entry)
            if isinstance(manifest, Manifest) and manifest.config.digest == image_id:
                return entry.replace(platform=None), manifest
    raise NotFound(f"index {target.digest} leads to no manifest of image {image_id} that is in the store")


def _read(content: Content, target: Descriptor) -> Manifest | Index:
    return documents.parse_manifest(content.read(target.digest, documents.MANIFEST_LIMIT), target.media_type)
