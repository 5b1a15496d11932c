"""The grammar of -v and --mount, as Docker's command line has it: what they say in the words of the Engine API.

Only the form is judged here; what the mounts come to is the engine's affair.
"""

from __future__ import annotations

import os

from sampan.cli.values import boolean
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


# -v


def volume_flags(texts: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """What -v came to: HostConfig.Binds for those with a source, Config.Volumes for those without.

    Raises InvalidParameter.
    """
    binds: list[str] = []
    volumes: dict[str, Any] = {}
    for text in texts:
        source = _source(text)
        if not source:
            volumes[text] = {}
            continue
        if source.startswith("."):
            # A path relative to here, which the engine does not know.
            source, _, rest = text.partition(":")
            text = f"{os.path.abspath(source)}:{rest}"
        binds.append(text)
    return binds, volumes


def _source(text: str) -> str:
    """What is before the first colon, "" if there is none. Raises InvalidParameter for what is no specification."""
    if not text:
        raise InvalidParameter("invalid empty volume spec")
    if len(text) <= 2:
        return ""
    sections = text.split(":")
    if "" in sections:
        raise InvalidParameter(f"invalid spec: {text}: empty section between colons")
    if len(sections) > 3:
        raise InvalidParameter(f"invalid spec: {text}: too many colons")
    return sections[0] if len(sections) > 1 else ""


# --mount


def mount(text: str) -> dict[str, Any]:
    """One --mount as an item of HostConfig.Mounts. Raises ValueError with Docker's text."""
    text = text.strip()
    if not text:
        raise ValueError("value is empty")
    made: dict[str, Any] = {"Type": "volume"}
    for field in fields(text):
        _take(made, field)
    _check(made)
    return made


def fields(text: str) -> list[str]:
    """The fields of a line of CSV (RFC 4180), for a value may hold a comma: `"volume-opt=o=addr=x,rw"`."""
    if '"' not in text and "\n" not in text:
        return text.split(",")
    import csv

    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as e:
        raise ValueError(f"parse error on line 1: {e}") from None


def _take(made: dict[str, Any], field: str) -> None:
    key, equals, value = field.partition("=")
    key = key.lower()
    if not equals:
        if key not in _FLAGS:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        value = "true"
    if key not in _KEYS:
        raise ValueError(f"unexpected key '{key}' in '{field}'")
    _KEYS[key](made, key, value)


def _options(made: dict[str, Any], kind: str) -> dict[str, Any]:
    options: dict[str, Any] = made.setdefault(kind, {})
    return options


def _type(made: dict[str, Any], _key: str, value: str) -> None:
    made["Type"] = value.lower()


def _take_source(made: dict[str, Any], _key: str, value: str) -> None:
    made["Source"] = os.path.abspath(value) if value == "." or value.startswith("./") else value


def _target(made: dict[str, Any], _key: str, value: str) -> None:
    made["Target"] = value


def _consistency(made: dict[str, Any], _key: str, value: str) -> None:
    made["Consistency"] = value.lower()


def _boolean(key: str, value: str) -> bool:
    try:
        return boolean(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _read_only(made: dict[str, Any], key: str, value: str) -> None:
    made["ReadOnly"] = _boolean(key, value)


def _flag(kind: str, name: str) -> Callable[[dict[str, Any], str, str], None]:
    def take(made: dict[str, Any], key: str, value: str) -> None:
        _options(made, kind)[name] = _boolean(key, value)

    return take


def _text(kind: str, name: str) -> Callable[[dict[str, Any], str, str], None]:
    def take(made: dict[str, Any], _key: str, value: str) -> None:
        _options(made, kind)[name] = value

    return take


def _propagation(made: dict[str, Any], _key: str, value: str) -> None:
    _options(made, "BindOptions")["Propagation"] = value.lower()


_RECURSIVE = {
    "enabled": "",
    "disabled": "NonRecursive",
    "writable": "ReadOnlyNonRecursive",
    "readonly": "ReadOnlyForceRecursive",
}


def _recursive(made: dict[str, Any], key: str, value: str) -> None:
    if value not in _RECURSIVE:
        raise ValueError(f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", or "readonly")')
    if _RECURSIVE[value]:
        _options(made, "BindOptions")[_RECURSIVE[value]] = True


def _label(made: dict[str, Any], _key: str, value: str) -> None:
    name, _, text = value.partition("=")
    labels = _options(made, "VolumeOptions").setdefault("Labels", {})
    if name:
        labels[name] = text


def _driver(made: dict[str, Any]) -> dict[str, Any]:
    driver: dict[str, Any] = _options(made, "VolumeOptions").setdefault("DriverConfig", {})
    return driver


def _driver_name(made: dict[str, Any], _key: str, value: str) -> None:
    _driver(made)["Name"] = value


def _driver_option(made: dict[str, Any], _key: str, value: str) -> None:
    name, _, text = value.partition("=")
    options = _driver(made).setdefault("Options", {})
    if name:
        options[name] = text


def _size(made: dict[str, Any], key: str, value: str) -> None:
    from sampan.engine.options import parse_size  # in here: few command lines have it

    try:
        _options(made, "TmpfsOptions")["SizeBytes"] = parse_size(value)
    except InvalidParameter:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _mode(made: dict[str, Any], key: str, value: str) -> None:
    if not value or not set(value) <= set("01234567") or int(value, 8) >= 1 << 32:
        raise ValueError(f"invalid value for {key}: {value}")
    _options(made, "TmpfsOptions")["Mode"] = int(value, 8)


_FLAGS = frozenset(("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src"))
"""Keys that may stand alone."""

_KEYS: dict[str, Callable[[dict[str, Any], str, str], None]] = {
    "type": _type,
    "source": _take_source,
    "src": _take_source,
    "target": _target,
    "dst": _target,
    "destination": _target,
    "readonly": _read_only,
    "ro": _read_only,
    "consistency": _consistency,
    "bind-propagation": _propagation,
    "bind-nonrecursive": _flag("BindOptions", "NonRecursive"),
    "bind-recursive": _recursive,
    "bind-create-src": _flag("BindOptions", "CreateMountpoint"),
    "volume-subpath": _text("VolumeOptions", "Subpath"),
    "volume-nocopy": _flag("VolumeOptions", "NoCopy"),
    "volume-label": _label,
    "volume-driver": _driver_name,
    "volume-opt": _driver_option,
    "image-subpath": _text("ImageOptions", "Subpath"),
    "tmpfs-size": _size,
    "tmpfs-mode": _mode,
}


def _check(made: dict[str, Any]) -> None:
    if not made["Type"]:
        raise ValueError("type is required")
    for kind in ("volume", "image", "bind", "tmpfs"):
        if f"{kind.capitalize()}Options" in made and made["Type"] != kind:
            raise ValueError(f"cannot mix '{kind}-*' options with mount type '{made['Type']}'")
    bind = made.get("BindOptions") or {}
    for name, word in (("ReadOnlyNonRecursive", "writable"), ("ReadOnlyForceRecursive", "readonly")):
        if bind.get(name) and not made.get("ReadOnly"):
            raise ValueError(f"option 'bind-recursive={word}' requires 'readonly' to be specified in conjunction")
    if bind.get("ReadOnlyForceRecursive") and bind.get("Propagation") != "rprivate":
        raise ValueError(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
        )
