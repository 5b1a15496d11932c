"""`RUN --mount=...`: the text of one flag as a `RunMount` (Dockerfile reference, "RUN --mount")."""

from __future__ import annotations

import posixpath

from sampan.build.instructions import RunMount
from sampan.build.source import suggestion
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_TARGETS = ("target", "dst", "destination")
_READ_ONLY = ("readonly", "ro", "readwrite", "rw")
# What each kind of mount can be told.
KEYS = {
    "bind": ("type", *_TARGETS, "source", "src", "from", *_READ_ONLY),
    "cache": ("type", *_TARGETS, "id", "source", "src", "from", "sharing", "mode", "uid", "gid", *_READ_ONLY),
    "tmpfs": ("type", *_TARGETS, "size"),
    "secret": ("type", *_TARGETS, "id", "source", "src", "required", "env", "mode", "uid", "gid"),
    "ssh": ("type", *_TARGETS, "id", "source", "src", "required", "mode", "uid", "gid"),
}
SHARING = ("shared", "private", "locked")
_FLAGS = {*_READ_ONLY, "required"}


def parse(text: str, expand: Callable[[str], str] = str) -> RunMount:
    """expand: replaces variables in each value. Raises `InvalidParameter`: an unknown type or key, a value that is missing or none."""
    fields = _fields(text)
    kind = fields.get("type", "bind")
    if kind not in KEYS:
        raise InvalidParameter(f'unsupported mount type "{kind}"{suggestion(kind, KEYS)}')
    values: dict[str, Any] = {}
    for key, value in fields.items():
        if key not in KEYS[kind]:
            raise InvalidParameter(f'unexpected key "{key}" for mount type "{kind}"{suggestion(key, KEYS[kind])}')
        _take(values, key, value if key == "from" else expand(value))
    return _checked(RunMount(kind, **values))


def check(text: str) -> None:
    """What can be said before the values of variables are known. Raises `InvalidParameter`."""
    if "$" in text:
        source_of(text)
    else:
        parse(text)


def source_of(text: str) -> str:
    """The stage, image or context that a mount is from, "" for none. Raises `InvalidParameter`."""
    name = _fields(text).get("from", "")
    if "$" in name:
        raise InvalidParameter(
            f"'from' doesn't support variable expansion, define alias stage instead: FROM {name} AS other, from=other"
        )
    return name


def _fields(text: str) -> dict[str, str]:
    import csv

    try:
        (row,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        raise InvalidParameter(f"invalid mount {text!r}: it is not a list of key=value, with commas between") from None
    fields: dict[str, str] = {}
    for field in row:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals and key not in _FLAGS:
            raise InvalidParameter(f"invalid field '{field}' must be a key=value pair")
        fields[key] = value if equals else "true"
    return fields


def _take(values: dict[str, Any], key: str, value: str) -> None:
    if key in _TARGETS:
        values["target"] = value
    elif key in ("source", "src"):
        values["source"] = value
    elif key == "from":
        values["from_"] = value
    elif key in ("id", "env"):
        values[key] = value
    elif key in _READ_ONLY:
        values["read_only"] = _boolean(key, value) == (key in ("readonly", "ro"))
    elif key == "required":
        values["required"] = _boolean(key, value)
    elif key == "sharing":
        if value.lower() not in SHARING:
            raise InvalidParameter(f'unsupported sharing value "{value}"{suggestion(value, SHARING)}')
        values["sharing"] = value.lower()
    elif key == "mode":
        values["mode"] = _number(key, value, 8)
    elif key in ("uid", "gid"):
        values[key] = _number(key, value, 10)
    elif key == "size":
        values["size"] = _size(value)


def _checked(mount: RunMount) -> RunMount:
    if mount.kind in ("bind", "cache", "tmpfs") and not mount.target:
        raise InvalidParameter(f"target is required for mount type {mount.kind}")
    if mount.target.startswith("/") and posixpath.normpath(mount.target).strip("/") == "":
        raise InvalidParameter(f'invalid mount target "{mount.target}"')
    if mount.kind == "cache" and mount.source and not mount.from_:
        raise InvalidParameter("a cache mount with a source needs a from: that is where the source is")
    if mount.kind == "secret" and not (mount.id or mount.target or mount.source or mount.env):
        raise InvalidParameter("secret mounts need an id, a target or an env")
    return mount


def _boolean(key: str, value: str) -> bool:
    if value.lower() in ("true", "1", "t", ""):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise InvalidParameter(f"invalid value for {key}: {value}: it is neither true nor false")


def _number(key: str, value: str, base: int) -> int:
    try:
        if not value.isalnum():
            raise ValueError
        return int(value, base)
    except ValueError:
        raise InvalidParameter(f"invalid value {value} for {key}: it is no number") from None


def _size(value: str) -> int:
    number = value.rstrip("bBkKmMgGiI")
    unit = value[len(number) :].lower().rstrip("b").rstrip("i")
    if not number.isdigit() or unit not in ("", "k", "m", "g"):
        raise InvalidParameter(f"invalid value {value} for size: it is no number of bytes")
    return int(number) << {"": 0, "k": 10, "m": 20, "g": 30}[unit]
