"""The record of a container as it is on disk: its form, its reading, and the names and ids that there can be."""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import Conflict, InvalidParameter
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.oci.mountpoint import MountPoint
    from sampan.oci.network import Attachment

SCHEMA = 1
"""The version of record.json that this code writes; it reads all up to `SCHEMA_WITH_NETWORKS`."""

SCHEMA_WITH_IDS = 2
"""That of a container with a user namespace of its own, which earlier code would run without."""

SCHEMA_WITH_NETWORKS = 3
"""That of a container which is in networks that have records: earlier code has none of these."""

_NAME_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME_REST = _NAME_FIRST | frozenset("_.-")
_HEX = frozenset("0123456789abcdef")
_NAME_MAX = 255


class Record(Struct):
    """A container as it was created. The fields are Docker's, so that inspect is mostly a copy.

    name: without a slash. created: RFC 3339. image: the digest of the image's config. image_ref: the image
    as it was asked for. layers: chain ids, bottom first. path, args: what is executed, joined from entrypoint
    and command. config, host_config: Docker's Config and HostConfig, merged with the image's config.
    mounts: what is mounted into it besides what every container has; records of the first version have none.
    uids, gids: the maps of its user namespace (`oci.subids`), fixed when it is made, for its files have such owners; empty for the host's.
    networks: what it asked for in each network that it joins when it starts; none for the modes none, host and container:ID.
    build: the lock file of the build that it is a step of, which it does not outlive ("" for all others).
    broken: why the record could not be read ("" for a good one); such a container can only be removed.
    """

    schema: int
    id: str
    name: str
    created: str
    image: str
    image_ref: str
    layers: tuple[str, ...]
    snapshotter: str
    path: str
    args: tuple[str, ...]
    config: dict[str, Any]
    host_config: dict[str, Any]
    mounts: tuple[MountPoint, ...] = ()
    broken: str = ""
    uids: tuple[tuple[int, int, int], ...] = ()
    gids: tuple[tuple[int, int, int], ...] = ()
    networks: tuple[Attachment, ...] = ()
    build: str = ""

    @property
    def durable(self) -> bool:
        """Whether it is to be there after a power cut."""
        return not (self.auto_remove or self.build)

    @property
    def auto_remove(self) -> bool:
        return bool(self.host_config.get("AutoRemove"))

    def volumes(self, anonymous: bool = False) -> set[str]:
        """The names of the volumes that it uses, or of those only that nobody named."""
        if not self.mounts:
            return set()
        from sampan.oci.mountpoint import VOLUME

        return {point.name for point in self.mounts if point.type == VOLUME and (point.anonymous or not anonymous)}

    def to_bytes(self) -> bytes:
        """The content of record.json."""
        data = self.to_json()
        del data["broken"]
        if self.uids:
            data["schema"] = SCHEMA_WITH_IDS
        else:
            del data["uids"], data["gids"]
        if self.networks:
            data["schema"] = SCHEMA_WITH_NETWORKS
        else:
            del data["networks"]
        if not self.build:
            del data["build"]
        return jsontext.dumps(data)


def name_conflict(name: str, owner: str) -> Conflict:
    return Conflict(
        f'Conflict. The container name "/{name}" is already in use by container "{owner}". You have to remove '
        "(or rename) that container to be able to reuse that name."
    )


def check_name(name: str) -> str:
    """A name that the user gave, without its slash. Raises InvalidParameter in Docker's words."""
    given, name = name, name.removeprefix("/")
    if not is_name(name):
        raise InvalidParameter(f"Invalid container name ({given}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name


def new_id() -> str:
    """64 random hexadecimal digits; the short form is never all digits (it would pass for a number, moby stringid)."""
    while True:
        container_id = os.urandom(32).hex()
        if not container_id[:12].isdigit():
            return container_id


def parse_record(container_id: str, data: bytes, path: str) -> Record:
    """The record in `data`, or a broken one that says why it is none."""
    try:
        fields = jsontext.loads(data)
        if fields["schema"] > SCHEMA_WITH_NETWORKS:
            return broken_record(container_id, f"{path}: written by a newer sampan (schema {fields['schema']})")
        fields["layers"] = tuple(fields["layers"])
        fields["args"] = tuple(fields["args"])
        if fields.get("mounts"):
            from sampan.oci.mountpoint import mount_points

            fields["mounts"] = mount_points(fields["mounts"])
        else:
            fields["mounts"] = ()
        if "networks" in fields:
            from sampan.oci.network import Attachment

            fields["networks"] = tuple(Attachment.from_json(entry) for entry in fields["networks"])
        for kind in ("uids", "gids"):
            if kind in fields:
                fields[kind] = tuple(tuple(entry) for entry in fields[kind])
        return Record(**fields)
    except (ValueError, KeyError, TypeError) as e:
        return broken_record(container_id, f"{path}: not a container record: {e}")


def broken_record(container_id: str, why: str) -> Record:
    return Record(SCHEMA, container_id, container_id[:12], "", "", "", (), "", "", (), {}, {}, (), why)


def is_hex(text: str) -> bool:
    """Whether the text can be (the beginning of) an id."""
    return _HEX.issuperset(text)


def is_id(text: str) -> bool:
    """Whether the text is a whole id."""
    return len(text) == 64 and _HEX.issuperset(text)


def is_name(text: str, shortest: int = 2) -> bool:
    """Whether the text can be a name, or (with `shortest` 1) part of a reference: nothing else reaches a path."""
    if not shortest <= len(text) <= _NAME_MAX:
        return False
    return text[0] in _NAME_FIRST and _NAME_REST.issuperset(text)
