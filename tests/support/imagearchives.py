"""Archives of images made member by member: Docker's old and new forms and OCI layouts, right and wrong ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sampan.oci import digest
from sampan.oci import image as documents
from sampan.store.decompress import decompress

from support.archives import END, member, symlink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def plain(layer: bytes) -> bytes:
    """A layer without its compression."""
    import io

    stream = decompress(io.BytesIO(layer))
    return b"".join(iter(lambda: stream.read(1 << 20), b""))


def config(*layers: bytes, **more: Any) -> bytes:
    """A config over these layers."""
    found = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "created": "2024-05-06T07:08:09Z",
        "rootfs": {"type": "layers", "diff_ids": [digest.of_bytes(plain(layer)) for layer in layers]},
        **more,
    }
    return json.dumps(found).encode()


def tar(members: dict[str, bytes] | Sequence[tuple[str, bytes]], end: bytes = END) -> bytes:
    """A tar of files; a value that begins with "-> " is a symbolic link."""
    items = members.items() if isinstance(members, dict) else members
    return b"".join(_member(name.encode(), data) for name, data in items) + end


def _member(name: bytes, data: bytes) -> bytes:
    return symlink(name, data[3:]) if data.startswith(b"-> ") else member(name, data)


def docker(tags: Sequence[str] | None, *layers: bytes, **more: Any) -> dict[str, bytes]:
    """The members of an archive as Docker 1.10 to 24 writes it: a layer that comes twice is a link the second time."""
    made = config(*layers, **more)
    members: dict[str, bytes] = {f"{digest.hex_of(made)}.json": made}
    names: list[str] = []
    first: dict[bytes, str] = {}
    for number, layer in enumerate(layers):
        name = f"{number:064x}/layer.tar"
        members[name] = f"-> ../{first[layer]}".encode() if layer in first else layer
        first.setdefault(layer, name)
        names.append(name)
    table = [{"Config": f"{digest.hex_of(made)}.json", "RepoTags": tags, "Layers": names}]
    members["manifest.json"] = json.dumps(table).encode()
    return members


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest.of_bytes(data), "size": len(data), **more}


def blob(data: bytes) -> str:
    return f"blobs/sha256/{digest.hex_of(data)}"


def layout(name: str, *layers: bytes, annotation: str = "io.containerd.image.name", **more: Any) -> dict[str, bytes]:
    """The members of an OCI layout of one image, whose layers may be gzip."""
    made = config(*layers, **more)
    kinds = {b"\x1f\x8b": documents.OCI_LAYER_GZIP, b"\x28\xb5": documents.OCI_LAYER_ZSTD}
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": documents.OCI_MANIFEST,
            "config": descriptor(made, documents.OCI_CONFIG),
            "layers": [descriptor(layer, kinds.get(layer[:2], documents.OCI_LAYER)) for layer in layers],
        }
    ).encode()
    entry = descriptor(manifest, documents.OCI_MANIFEST)
    if name:
        entry["annotations"] = {annotation: name}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        blob(manifest): manifest,
        blob(made): made,
        **{blob(layer): layer for layer in layers},
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
    }
