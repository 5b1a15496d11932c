"""The log option `tag`: a Go template over what Docker's drivers know of a container (moby, logger.Info), with Docker's functions.

Imported for containers that have one only.
"""

from __future__ import annotations

import os

from sampan.gotemplate.template import parse
from sampan.gotemplate.values import Map, Method, Object, Slice, Time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sampan.store.record import Record

_NAME = "log-tag"


def check(template: str) -> None:
    """Whether it is a template at all. Raises TemplateError."""
    parse(template, _NAME)


def expand(template: str, info: Object) -> str:
    """The text of a tag. Raises TemplateError."""
    return parse(template, _NAME).execute(info)


def info(record: Record, path: str) -> Object:
    """What is known of a container whose log is at `path`. `ImageID` has twelve digits; Docker counts "sha256:" as seven of them."""
    from sampan.runtime.spec import environment

    name, digits = record.name, record.image.partition(":")[2] or record.image
    methods = {
        "ID": record.id[:12],
        "FullID": record.id,
        "Name": name,
        "ImageID": digits[:12],
        "ImageFullID": record.image,
        "ImageName": record.image_ref,
        "Hostname": os.uname().nodename,
        "Command": " ".join([record.path, *record.args]),
    }
    fields: dict[str, object] = {
        "Config": _map(record.host_config["LogConfig"].get("Config") or {}),
        "ContainerID": record.id,
        "ContainerName": f"/{name}",
        "ContainerEntrypoint": record.path,
        "ContainerArgs": _slice(record.args),
        "ContainerImageID": record.image,
        "ContainerImageName": record.image_ref,
        "ContainerCreated": Time(record.created),
        "ContainerEnv": _slice(environment(record.config)),
        "ContainerLabels": _map(record.config.get("Labels") or {}),
        "LogPath": path,
        "DaemonName": "sampan",
    }
    known = {**fields, **{key: Method(lambda text=text: text) for key, text in methods.items()}}
    return Object("logger.Info", known, pointer=True)


def _slice(values: Iterable[str]) -> Slice:
    made = Slice(values)
    made.go_type = "[]string"
    return made


def _map(values: Mapping[str, str]) -> Map:
    made = Map(values)
    made.go_type = "map[string]string"
    return made
