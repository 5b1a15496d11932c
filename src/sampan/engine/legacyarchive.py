"""Archives that Docker before 1.10 wrote: no manifest, a directory for each layer, and each names the one below.

    repositories            {"name": {"tag": "ID of the topmost layer"}}
    ID/json                 the image as it was at this layer, with `parent`
    ID/layer.tar            what the layer changed

An image of today is made of it as Docker did when it read them (moby, image/v1): the topmost `json` becomes the config,
the digests of the layers are found by reading them once more.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.oci import image as documents
from sampan.oci import imagelayout
from sampan.store.decompress import decompress
from sampan.store.layers import DigestStream
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.oci.reference import Reference
    from sampan.store.imagearchive import ImageArchive

_CHUNK = 1 << 18
_DROPPED = ("id", "parent", "parent_id", "layer_id", "throwaway", "Size")


class LegacyImage(Struct):
    """One image: its config as it is written today, and the members that are its layers, bottom first."""

    names: tuple[Reference, ...]
    config: bytes
    layers: tuple[str, ...]


def legacy_images(archive: ImageArchive) -> list[LegacyImage]:
    """The images of `repositories`. Raises `InvalidParameter`."""
    names: dict[str, list[Reference]] = {}
    for name, top in imagelayout.parse_repositories(archive.read(imagelayout.REPOSITORIES, documents.MANIFEST_LIMIT)):
        names.setdefault(top, []).append(name)
    return [_image(archive, top, tuple(found)) for top, found in names.items()]


def _image(archive: ImageArchive, top: str, names: tuple[Reference, ...]) -> LegacyImage:
    chain = _chain(archive, top)
    layers = tuple(f"{layer_id}/layer.tar" for layer_id, _ in chain)
    document = {key: value for key, value in chain[-1][1].items() if key not in _DROPPED}
    document["rootfs"] = {"type": "layers", "diff_ids": [_diff_id(archive, layer) for layer in layers]}
    document["history"] = [_history(said) for _, said in chain]
    return LegacyImage(names, documents.dump(document), layers)


def _chain(archive: ImageArchive, top: str) -> list[tuple[str, dict[str, Any]]]:
    """The layers from the bottom up: their ids, and what their `json` says."""
    chain: list[tuple[str, dict[str, Any]]] = []
    layer_id: object = top
    while layer_id:
        if not isinstance(layer_id, str) or "/" in layer_id:
            raise InvalidParameter(f"invalid archive: {layer_id!r} is no id of a layer")
        if len(chain) == documents.LAYER_LIMIT:
            raise InvalidParameter(f"invalid archive: {top} has more than {documents.LAYER_LIMIT} layers")
        member = f"{layer_id}/json"
        said = documents.load(archive.read(member, documents.CONFIG_LIMIT), member, documents.CONFIG_LIMIT)
        chain.append((layer_id, said))
        layer_id = said.get("parent")
    return chain[::-1]


def _diff_id(archive: ImageArchive, member: str) -> str:
    plain = DigestStream(decompress(archive.open_member(member)))
    while plain.read(_CHUNK):
        pass
    return plain.digest


def _history(said: dict[str, Any]) -> dict[str, Any]:
    made = said.get("container_config")
    command = made.get("Cmd") if isinstance(made, dict) else None
    entry = {
        "created": said.get("created"),
        "created_by": " ".join(map(str, command)) if isinstance(command, list) else "",
        "author": said.get("author"),
        "comment": said.get("comment"),
    }
    return {key: value for key, value in entry.items() if isinstance(value, str) and value}
