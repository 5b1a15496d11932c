"""What an image is made of on disk: the blobs that its documents lead to."""

from __future__ import annotations

from sampan.oci import image as documents
from sampan.oci.image import Index

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
    found = documents.parse_manifest(content.read(target.digest, documents.MANIFEST_LIMIT), target.media_type)
    if not isinstance(found, Index):
        return {target.digest, found.config.digest, *(layer.digest for layer in found.layers)}
    here = [entry for entry in found.manifests if content.exists(entry.digest)]
    return {target.digest}.union(*(blobs_of(content, entry) for entry in here if entry.digest != target.digest))
