"""Image documents: descriptors, manifests, indexes and configs, as OCI and Docker (schema 2) write them.

OCI image specification (descriptor.md, manifest.md, image-index.md, config.md) and the distribution project's
"Image Manifest V 2, Schema 2". The two families mean the same and differ in media types only.

Everything here comes from outside, so everything is bounded and checked before it is used: a document is one kind
and not two at once (CVE-2021-41190), says nothing else than its descriptor says, and names content by digests that
can be verified.
"""

from __future__ import annotations

from sampan import jsontext
from sampan.errors import InvalidParameter
from sampan.oci import digest as digests
from sampan.oci.platform import Platform
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

MANIFEST_LIMIT = 4 << 20
"""Bytes of a manifest or an index at most, as registries and containerd have it."""
CONFIG_LIMIT = 8 << 20
"""Bytes of a config at most."""
LAYER_LIMIT = 500
"""Layers of an image at most: overlayfs stacks 500 (OVL_MAX_STACK)."""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
LAYERS = frozenset({OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP})

_MAX_SIZE = 1 << 50


class Descriptor(Struct):
    """What points at content: its type, its digest, its length in bytes. `platform` is set in indexes only."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None

    def document(self) -> dict[str, Any]:
        """The descriptor as it is written into a document."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.platform is not None:
            found["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                found["platform"]["variant"] = self.platform.variant
        return found


class Manifest(Struct):
    """One image: its config and its layers, bottom first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    def document(self) -> bytes:
        """The manifest as bytes, the same for the same content."""
        return dump(
            {
                "schemaVersion": 2,
                "mediaType": self.media_type,
                "config": self.config.document(),
                "layers": [layer.document() for layer in self.layers],
            }
        )


class Index(Struct):
    """The images of several platforms under one name."""

    media_type: str
    manifests: tuple[Descriptor, ...]

    def select(self, wanted: Platform) -> Descriptor:
        """The manifest for a platform: the exact one, else one that runs there too.

        Raises `InvalidParameter` with Docker's text if there is none.
        """
        fit = [m for m in self.manifests if m.platform is not None and wanted.runs(m.platform)]
        if not fit:
            raise InvalidParameter(f"no matching manifest for {wanted} in the manifest list entries")
        exact = [m for m in fit if m.platform == wanted]
        return exact[0] if exact else max(fit, key=lambda m: m.platform.variant if m.platform else "")


class ImageConfig(Struct):
    """A config: what to run, and the digests of the uncompressed layers.

    `document` is the whole parsed JSON; `config` is its Docker-shaped `config` member, {} if there is none.
    """

    platform: Platform
    diff_ids: tuple[str, ...]
    config: dict[str, Any]
    document: dict[str, Any]

    @property
    def history(self) -> list[dict[str, Any]]:
        return list(self.document.get("history") or [])

    @property
    def created(self) -> str:
        return str(self.document.get("created") or "")


# Reading


def load(data: bytes, what: str, limit: int) -> dict[str, Any]:
    """The JSON object in some bytes. Raises `InvalidParameter` naming `what` it was to be.

    Bytes that are not UTF-8 survive as surrogate escapes.
    """
    if len(data) > limit:
        raise InvalidParameter(f"{what} is larger than {limit} bytes")
    try:
        found = jsontext.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as e:
        raise InvalidParameter(f"{what} is not valid JSON: {e}") from None
    if not isinstance(found, dict):
        raise InvalidParameter(f"{what} is not a JSON object")
    return found


def dump(document: Mapping[str, Any]) -> bytes:
    """A document as bytes: the same for the same data, ASCII only."""
    return jsontext.dumps(document)


def parse_manifest(data: bytes, media_type: str = "") -> Manifest | Index:
    """A manifest or an index. `media_type` is what the descriptor or the registry said that it is; "" is not said.

    Raises `InvalidParameter` for anything that is not exactly one well-formed document of that type.
    """
    found = load(data, "manifest", MANIFEST_LIMIT)
    if found.get("schemaVersion") != 2:
        raise InvalidParameter(f"unsupported manifest schema version {found.get('schemaVersion')!r}: only 2 is")
    kind = _manifest_type(found, media_type)
    if kind in INDEXES:
        entries = _list(found, "manifests", "index")
        return Index(kind, tuple(_descriptor(e, f"manifests[{i}]", {}) for i, e in enumerate(entries)))
    layers = _list(found, "layers", "manifest")
    if len(layers) > LAYER_LIMIT:
        raise InvalidParameter(f"manifest has {len(layers)} layers: at most {LAYER_LIMIT} can be stacked")
    config = _descriptor(found.get("config"), "config", CONFIGS)
    return Manifest(kind, config, tuple(_descriptor(e, f"layers[{i}]", LAYERS) for i, e in enumerate(layers)))


def _manifest_type(found: dict[str, Any], said: str) -> str:
    """The document's media type, the same by all who speak of it: itself, its descriptor, its members."""
    own = found.get("mediaType", "")
    if not isinstance(own, str):
        raise InvalidParameter("manifest: mediaType is not a string")
    if own and said and own != said:
        raise InvalidParameter(f"manifest: mediaType is {own!r}, but {said!r} was announced")
    is_index, is_manifest = "manifests" in found, "layers" in found or "config" in found
    if is_index and is_manifest:
        raise InvalidParameter("manifest has layers and manifests: it cannot be both an image and an index")
    if "fsLayers" in found:
        raise InvalidParameter("manifest has fsLayers: schema 1 is not supported")
    kind = own or said or (OCI_INDEX if is_index else OCI_MANIFEST)
    if kind not in INDEXES and kind not in MANIFESTS:
        raise InvalidParameter(f"unsupported manifest media type {kind!r}")
    if is_index != (kind in INDEXES):
        raise InvalidParameter(f"manifest: its members do not fit its media type {kind!r}")
    return kind


def _descriptor(entry: object, where: str, types: frozenset[str] | dict[str, str]) -> Descriptor:
    if not isinstance(entry, dict):
        raise InvalidParameter(f"manifest: {where} is not a descriptor")
    media_type, digest, size = entry.get("mediaType"), entry.get("digest"), entry.get("size")
    if not isinstance(media_type, str) or (types and media_type not in types):
        raise InvalidParameter(f"manifest: {where} has the unsupported media type {media_type!r}")
    if not isinstance(digest, str):
        raise InvalidParameter(f"manifest: {where} has no digest")
    digests.parse(digest)
    if type(size) is not int or not 0 <= size <= _MAX_SIZE:
        raise InvalidParameter(f"manifest: {where} has the impossible size {size!r}")
    return Descriptor(media_type, digest, size, _platform(entry.get("platform"), where))


def parse_descriptor(entry: object) -> Descriptor:
    """A descriptor that stands alone, of any media type. Raises `InvalidParameter`."""
    return _descriptor(entry, "descriptor", {})


def _platform(entry: object, where: str) -> Platform | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise InvalidParameter(f"manifest: {where} has a malformed platform")
    words = [entry.get(key, "") for key in ("os", "architecture", "variant")]
    if not all(isinstance(word, str) for word in words):
        raise InvalidParameter(f"manifest: {where} has a malformed platform")
    return Platform(*words)


def parse_config(data: bytes) -> ImageConfig:
    """An image config. Raises `InvalidParameter` for one that no container could be made from."""
    found = load(data, "image config", CONFIG_LIMIT)
    rootfs = found.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        raise InvalidParameter('image config: rootfs.type is not "layers"')
    diff_ids = _list(rootfs, "diff_ids", "image config", null=True)
    if len(diff_ids) > LAYER_LIMIT:
        raise InvalidParameter(f"image config has {len(diff_ids)} layers: at most {LAYER_LIMIT} can be stacked")
    for diff_id in diff_ids:
        if not isinstance(diff_id, str):
            raise InvalidParameter("image config: a diff id is not a string")
        digests.parse(diff_id)
    return ImageConfig(platform_of(found), tuple(diff_ids), _container_config(found.get("config")), found)


def platform_of(config: Mapping[str, Any]) -> Platform:
    """The platform that an image's whole config says it is for. Raises `InvalidParameter`."""
    words = [config.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(word, str) for word in words):
        raise InvalidParameter("image config: os, architecture and variant must be strings")
    return Platform(*words)


_STRINGS = ("User", "WorkingDir", "StopSignal", "Hostname", "Domainname", "Image")
_SETS = ("ExposedPorts", "Volumes")
_HEALTH_NUMBERS = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")


def _container_config(config: object) -> dict[str, Any]:
    """The `config` member, each known field checked for its type, so that nobody after this has to."""
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise InvalidParameter("image config: config is not an object")
    found = dict(config)
    for key in ("Entrypoint", "Cmd", "Shell"):
        # One string instead of a list is what Docker's strslice reads too.
        if isinstance(found.get(key), str):
            found[key] = [found[key]]
    for key in ("Env", "Entrypoint", "Cmd", "OnBuild", "Shell"):
        if not _is_list_of_strings(found.get(key)):
            raise InvalidParameter(f"image config: config.{key} is not a list of strings")
    for key in _STRINGS:
        if not isinstance(found.get(key) or "", str):
            raise InvalidParameter(f"image config: config.{key} is not a string")
    for key in _SETS:
        if not isinstance(found.get(key) or {}, dict):
            raise InvalidParameter(f"image config: config.{key} is not an object")
    labels = found.get("Labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise InvalidParameter("image config: config.Labels is not an object of strings")
    health = found.get("Healthcheck") or {}
    if (
        not isinstance(health, dict)
        or not _is_list_of_strings(health.get("Test"))
        or not all(type(health.get(key) or 0) is int for key in _HEALTH_NUMBERS)
    ):
        raise InvalidParameter("image config: config.Healthcheck is malformed")
    return found


def _is_list_of_strings(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _list(found: dict[str, Any], key: str, what: str, null: bool = False) -> list[Any]:
    value = found.get(key)
    if value is None and null:
        return []
    if not isinstance(value, list):
        raise InvalidParameter(f"{what}: {key} is not a list")
    return value


# Making


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """The identity of each layer together with all below it (config.md, "Layer ChainID"), bottom first."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digests.of_bytes(f"{chain[-1]} {diff_id}".encode("ascii")) if chain else diff_id)
    return tuple(chain)


def as_oci(layer: Descriptor) -> Descriptor:
    """The same bytes under OCI's name: the manifest that we write is one of OCI's."""
    kinds = {DOCKER_LAYER: OCI_LAYER, DOCKER_LAYER_GZIP: OCI_LAYER_GZIP}
    return Descriptor(kinds.get(layer.media_type, layer.media_type), layer.digest, layer.size)


def make_config(
    platform: Platform,
    created: str,
    config: Mapping[str, Any],
    diff_ids: Sequence[str],
    history: Sequence[Mapping[str, Any]],
    comment: str = "",
    author: str = "",
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """A config as bytes. `created` is RFC 3339; `comment`, `author` and what is in `more` are Docker's additions."""
    document: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        document["variant"] = platform.variant
    if author:
        document["author"] = author
    if comment:
        document["comment"] = comment
    document |= more or {}
    document |= {
        "created": created,
        "config": {key: value for key, value in config.items() if value not in (None, "", [], {}, False)},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [dict(entry) for entry in history],
    }
    return dump(document)
