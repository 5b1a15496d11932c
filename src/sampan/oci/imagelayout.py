"""The tables of contents of image archives: Docker's manifest.json and repositories, OCI's index.json.

OCI image specification, image-layout.md and annotations.md; Docker image specification v1.2, "Combined Image JSON +
Filesystem Changeset Format". Only what these tables say themselves: what they lead to is read by `sampan.oci.image`.
"""

from __future__ import annotations

from sampan import jsontext
from sampan.errors import InvalidParameter
from sampan.oci import image as documents
from sampan.oci import reference
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sampan.oci.image import Descriptor
    from sampan.oci.reference import Reference

DOCKER_MANIFEST = "manifest.json"
REPOSITORIES = "repositories"
INDEX = "index.json"
LAYOUT = "oci-layout"
LAYOUT_VERSION = b'{"imageLayoutVersion":"1.0.0"}'

NAME_ANNOTATION = "io.containerd.image.name"
"""The whole name, with its repository."""
REF_ANNOTATION = "org.opencontainers.image.ref.name"
"""A name inside the layout: a tag alone as a rule, with some tools a whole name."""


class DockerImage(Struct):
    """One image of manifest.json: members of the archive, layers bottom first."""

    config: str
    names: tuple[Reference, ...]
    layers: tuple[str, ...]


class LayoutImage(Struct):
    """One entry of index.json: a manifest or an index, and its name if it has one."""

    target: Descriptor
    name: Reference | None


def blob(digest: str) -> str:
    """The member that holds a blob. Raises `InvalidParameter` for anything but sha256."""
    from sampan.oci.digest import sha256_hex

    return f"blobs/sha256/{sha256_hex(digest)}"


# Reading


def parse_docker_manifest(data: bytes) -> tuple[DockerImage, ...]:
    """manifest.json. Raises `InvalidParameter`."""
    try:
        entries = jsontext.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as e:
        raise InvalidParameter(f"invalid archive: {DOCKER_MANIFEST} is not valid JSON: {e}") from None
    if not isinstance(entries, list):
        raise InvalidParameter(f"invalid archive: {DOCKER_MANIFEST} is not a list")
    return tuple(_docker_image(entry, f"{DOCKER_MANIFEST}[{i}]") for i, entry in enumerate(entries))


def _docker_image(entry: object, where: str) -> DockerImage:
    if not isinstance(entry, dict):
        raise InvalidParameter(f"invalid archive: {where} is not an object")
    config, layers, tags = entry.get("Config"), entry.get("Layers"), entry.get("RepoTags")
    if not isinstance(config, str) or not config:
        raise InvalidParameter(f"invalid archive: {where}.Config is not a name")
    return DockerImage(
        config,
        tuple(_tag(tag) for tag in _strings(tags, f"{where}.RepoTags")),
        tuple(_strings(layers, f"{where}.Layers")),
    )


def _strings(value: object, where: str) -> Sequence[str]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidParameter(f"invalid archive: {where} is not a list of strings")
    return value


def _tag(text: str) -> Reference:
    found = reference.parse(text)
    if not found.tag or found.digest:
        raise InvalidParameter(f'invalid tag "{text}"')
    return found


def parse_index(data: bytes) -> tuple[LayoutImage, ...]:
    """index.json. Raises `InvalidParameter`."""
    found = documents.load(data, f"invalid archive: {INDEX}", documents.MANIFEST_LIMIT)
    if "layers" in found or "config" in found:
        raise InvalidParameter(f"invalid archive: {INDEX} is an image and an index at once")
    entries = found.get("manifests")
    if found.get("schemaVersion") != 2 or not isinstance(entries, list):
        raise InvalidParameter(f"invalid archive: {INDEX} is not an image index of schema version 2")
    return tuple(_layout_image(entry) for entry in entries)


def _layout_image(entry: object) -> LayoutImage:
    target = documents.parse_descriptor(entry)
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    if annotations is None:
        return LayoutImage(target, None)
    if not isinstance(annotations, dict):
        raise InvalidParameter(f"invalid archive: {INDEX}: annotations are not an object")
    return LayoutImage(target, _annotated(annotations))


def _annotated(annotations: Mapping[str, Any]) -> Reference | None:
    """The name that annotations give. A bare tag, of which the repository is not known, is none (nor for Docker).

    A bare tag beside a whole name that has another one counts: tools that know only the standard's annotation copy the
    other one when they give an edited image a tag of its own (umoci --tag).
    """
    whole, ref = annotations.get(NAME_ANNOTATION), annotations.get(REF_ANNOTATION)
    tag = ""
    if isinstance(ref, str):
        if ":" in ref or "/" in ref:
            whole = whole or ref
        elif reference.is_tag(ref):
            tag = ref
    if not whole:
        return None
    if not isinstance(whole, str):
        raise InvalidParameter(f"invalid archive: {INDEX}: the annotation {NAME_ANNOTATION} is not a string")
    found = reference.parse(whole)
    if found.digest:
        return None
    return found.replace(tag=tag) if tag else found.tagged()


def check_version(data: bytes) -> None:
    """oci-layout, the mark of a layout. Raises `InvalidParameter` for one of another version."""
    found = documents.load(data, f"invalid archive: {LAYOUT}", documents.MANIFEST_LIMIT).get("imageLayoutVersion")
    if found != "1.0.0":
        raise InvalidParameter(f"invalid archive: unsupported OCI layout version {found!r}")


def parse_repositories(data: bytes) -> tuple[tuple[Reference, str], ...]:
    """`repositories`, all that Docker before 1.10 wrote: names, and the directories of their topmost layers."""
    found = documents.load(data, f"invalid archive: {REPOSITORIES}", documents.MANIFEST_LIMIT)
    names = []
    for repository, tags in found.items():
        if not isinstance(tags, dict) or not all(isinstance(top, str) and top for top in tags.values()):
            raise InvalidParameter(
                f"invalid archive: {REPOSITORIES}: the tags of {repository!r} are no names of layers"
            )
        names += [(_tag(f"{repository}:{tag}"), top) for tag, top in tags.items()]
    return tuple(names)


# Making


def docker_manifest(images: Sequence[DockerImage]) -> bytes:
    """manifest.json."""
    return jsontext.dumps(
        [
            {
                "Config": image.config,
                "RepoTags": [name.familiar for name in image.names] or None,
                "Layers": list(image.layers),
            }
            for image in images
        ]
    )


def repositories(images: Sequence[DockerImage]) -> bytes:
    """`repositories`: each tag with the topmost layer; b"" if nothing has a tag."""
    found: dict[str, dict[str, str]] = {}
    for image in images:
        for name in image.names:
            top = image.layers[-1].rpartition("/")[2] if image.layers else ""
            found.setdefault(name.familiar_name, {})[name.tag] = top
    return jsontext.dumps(found) if found else b""


def index(images: Sequence[LayoutImage]) -> bytes:
    """index.json, with the annotations that Docker writes: the whole name, and the tag."""
    entries = []
    for image in images:
        entry = image.target.document()
        if image.name is not None:
            entry["annotations"] = {NAME_ANNOTATION: str(image.name), REF_ANNOTATION: image.name.tag}
        entries.append(entry)
    return documents.dump({"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": entries})
