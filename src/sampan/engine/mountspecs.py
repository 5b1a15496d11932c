"""What a create request says about mounts, read and checked: HostConfig.Binds, Mounts, VolumesFrom and Config.Volumes.

The rules and the texts are those of dockerd (volume/mounts, the Linux parser). Nothing is looked up here but whether
the source of a bind is there.
"""

from __future__ import annotations

import os
import posixpath

from sampan.errors import InvalidParameter
from sampan.oci.mountpoint import BIND, FORCED, IMAGE, NOT_RECURSIVE, RECURSIVE, TMPFS, VOLUME
from sampan.oci.runtime import tmpfs_options
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

MATCH_USER = "match-user"
"""A mode of -v that is ours: what belongs to the caller belongs to the container's user in the container."""

_PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
_MODES = (("ro", "rw"), ("z", "Z"), _PROPAGATIONS, ("nocopy",), ("consistent", "cached", "delegated"), (MATCH_USER,))
"""Groups of modes; of each group one may be given."""


class Wanted(Struct):
    """One mount as it was asked for. The fields that `MountPoint` has too mean the same here.

    source: a bind's path, a volume's name ("" for a new one), an image. copy: a new volume gets what the image has there.
    driver_options, labels: for a volume that has to be made.
    """

    type: str
    target: str
    source: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    copy: bool = True
    driver: str = ""
    driver_options: dict[str, str] = {}  # noqa: RUF012  # frozen like the rest: nobody changes it
    labels: dict[str, str] = {}  # noqa: RUF012
    subpath: str = ""
    recursive: bool = True
    read_only: str = RECURSIVE
    create_source: bool = False
    match_user: bool = False
    options: tuple[str, ...] = ()


def clean(path: str) -> str:
    """An absolute path without dots and doubled slashes, as Go's path.Clean has it."""
    return "/" + posixpath.normpath("/" + path).lstrip("/")


# Binds


def read_bind(text: str, driver: str = "") -> Wanted:
    """An item of HostConfig.Binds. Raises InvalidParameter."""
    parts = text.split(":", 3)
    if not parts[0] or len(parts) > 3 or (len(parts) == 2 and _is_mode(parts[1])):
        raise _invalid(text)
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    mode = parts[2] if len(parts) == 3 else ""
    if not _is_mode(mode):
        raise InvalidParameter(f"invalid mode: {mode}")
    words = mode.split(",")
    kind = BIND if source.startswith("/") else VOLUME
    propagation = next((w for w in words if w in _PROPAGATIONS), "")
    try:
        _check_target(kind, target)
        if kind == VOLUME and propagation:
            raise _bad(kind, "field BindOptions must not be specified")
        if kind == BIND and "nocopy" in words:
            raise _bad(kind, "field VolumeOptions must not be specified")
        if kind == VOLUME and MATCH_USER in words:
            raise _bad(kind, f"{MATCH_USER} is for a directory of the host")
    except InvalidParameter as e:
        raise InvalidParameter(f"{_invalid(text)}: {e}") from None
    return Wanted(
        kind,
        clean(target),
        source=clean(source) if kind == BIND else source,
        mode=mode,
        rw="ro" not in words,
        propagation=(propagation or "rprivate") if kind == BIND else "",
        copy="nocopy" not in words,
        driver=driver if kind == VOLUME else "",
        create_source=kind == BIND,
        match_user=MATCH_USER in words,
    )


def _is_mode(mode: str) -> bool:
    if not mode:
        return True
    words = mode.split(",")
    known = [group for word in words for group in _MODES if word in group]
    return len(known) == len(words) == len(set(known))


def _invalid(text: str) -> InvalidParameter:
    return InvalidParameter(f"invalid volume specification: '{text}'")


def _bad(kind: str, why: str) -> InvalidParameter:
    return InvalidParameter(f'invalid mount config for type "{kind}": {why}')


def _check_target(kind: str, target: str) -> None:
    if not target:
        raise _bad(kind, "field Target must not be empty")
    if posixpath.normpath(target).lstrip("/") == "":
        raise _bad(kind, "invalid specification: destination can't be '/'")
    _check_absolute(kind, target)


def _check_absolute(kind: str, path: str) -> None:
    if not path.startswith("/"):
        raise _bad(kind, f"invalid mount path: '{path}' mount path must be absolute")


# Mounts


_OPTION_KINDS = {BIND: "BindOptions", VOLUME: "VolumeOptions", TMPFS: "TmpfsOptions", IMAGE: "ImageOptions"}
_REFUSED = {
    BIND: ("VolumeOptions", "ImageOptions"),
    VOLUME: ("BindOptions", "ImageOptions"),
    TMPFS: ("BindOptions", "ImageOptions"),
    IMAGE: ("BindOptions", "VolumeOptions"),
}


def read_mount(item: Any) -> Wanted:
    """An item of HostConfig.Mounts. Raises InvalidParameter."""
    if not isinstance(item, dict):
        raise InvalidParameter(f"invalid value for HostConfig.Mounts: {item!r} is not an object")
    kind, target, source = (_text(item, name) for name in ("Type", "Target", "Source"))
    _check_target(kind, target)
    if kind not in _OPTION_KINDS:
        raise _bad(kind, "mount type unknown")
    for name in _REFUSED[kind]:
        if item.get(name):
            raise _bad(kind, f"field {name} must not be specified")
    options = item.get(_OPTION_KINDS[kind]) or {}
    if not isinstance(options, dict):
        raise InvalidParameter(f"invalid value for HostConfig.Mounts.{_OPTION_KINDS[kind]}: {options!r}")
    made = Wanted(kind, clean(target), source=source, rw=not item.get("ReadOnly"))
    return _READERS[kind](made, options)


def _text(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name) or ""
    if not isinstance(value, str) or "\0" in value:
        raise InvalidParameter(f"invalid value for {name}: {value!r} is not a text")
    return value


def _read_bind_options(made: Wanted, options: Mapping[str, Any]) -> Wanted:
    if not made.source:
        raise _bad(BIND, "field Source must not be empty")
    propagation = _text(options, "Propagation")
    if propagation and propagation not in _PROPAGATIONS:
        raise _bad(BIND, f"invalid propagation mode: {propagation}")
    _check_absolute(BIND, made.source)
    create = bool(options.get("CreateMountpoint"))
    if not create and not os.path.lexists(made.source):
        raise _bad(BIND, f"bind source path does not exist: {made.source}")
    flat, forced = bool(options.get("ReadOnlyNonRecursive")), bool(options.get("ReadOnlyForceRecursive"))
    if flat and forced:
        raise InvalidParameter("mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive")
    return made.replace(
        source=clean(made.source),
        propagation=propagation or "rprivate",
        recursive=not options.get("NonRecursive"),
        read_only=NOT_RECURSIVE if flat else FORCED if forced else RECURSIVE,
        create_source=create,
    )


def _read_volume_options(made: Wanted, options: Mapping[str, Any]) -> Wanted:
    subpath = _text(options, "Subpath")
    if not made.source and subpath:
        raise _bad(VOLUME, "must not set Subpath when using anonymous volumes")
    _check_subpath(VOLUME, subpath)
    if not made.source and not made.rw:
        raise _bad(VOLUME, "must not set ReadOnly mode when using anonymous volumes")
    driver = options.get("DriverConfig") or {}
    return made.replace(
        copy=not options.get("NoCopy"),
        driver=_text(driver, "Name"),
        driver_options=_map("DriverConfig.Options", driver.get("Options")),
        labels=_map("VolumeOptions.Labels", options.get("Labels")),
        subpath=subpath,
    )


def _map(name: str, value: Any) -> dict[str, str]:
    value = value or {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in (*value, *value.values())):
        raise InvalidParameter(f"invalid value for {name}: {value!r} is not a map of text")
    return dict(value)


def _check_subpath(kind: str, subpath: str) -> None:
    """A path that stays where it begins by its text alone (Go's filepath.IsLocal); links are for the kernel to judge."""
    parts = posixpath.normpath(subpath).split("/") if subpath else []
    if subpath.startswith("/") or parts[:1] == [".."]:
        raise _bad(kind, "subpath must be a relative path within the volume")


def _read_image_options(made: Wanted, options: Mapping[str, Any]) -> Wanted:
    if not made.source:
        raise _bad(IMAGE, "field Source must not be empty")
    subpath = _text(options, "Subpath")
    _check_subpath(IMAGE, subpath)
    return made.replace(subpath=subpath, rw=False)


def _read_tmpfs_options(made: Wanted, options: Mapping[str, Any]) -> Wanted:
    if made.source:
        raise _bad(TMPFS, "field Source must not be specified")
    words = [] if made.rw else ["ro"]
    size, mode = options.get("SizeBytes") or 0, options.get("Mode") or 0
    if not isinstance(size, int) or not isinstance(mode, int) or size < 0 or mode < 0:
        raise _bad(TMPFS, f"invalid size or mode: {size!r}, {mode!r}")
    if mode:
        words.append(f"mode={mode:o}")
    if size:
        words.append(f"size={size}")
    words += ["=".join(str(part) for part in pair) for pair in options.get("Options") or ()]
    try:
        return made.replace(options=tuple(tmpfs_options(",".join(words))))
    except InvalidParameter as e:
        raise _bad(TMPFS, str(e)) from None


_READERS = {
    BIND: _read_bind_options,
    VOLUME: _read_volume_options,
    TMPFS: _read_tmpfs_options,
    IMAGE: _read_image_options,
}


# All of a request


def read(host: Mapping[str, Any]) -> list[Wanted]:
    """The mounts of a HostConfig, those of Binds first. Raises InvalidParameter, also for two on one target."""
    wanted = [read_bind(text, host.get("VolumeDriver") or "") for text in host.get("Binds") or ()]
    wanted += [read_mount(item) for item in host.get("Mounts") or ()]
    taken = {clean(path) for path in host.get("Tmpfs") or ()}
    for one in wanted:
        if one.target in taken:
            raise InvalidParameter(f"Duplicate mount point: {one.target}")
        taken.add(one.target)
    return wanted


def check_volumes(targets: Iterable[str]) -> None:
    """The targets of the request's own Config.Volumes. Raises InvalidParameter."""
    for target in targets:
        try:
            _check_target(VOLUME, target)
        except InvalidParameter as e:
            raise InvalidParameter(f"{_invalid(target)}: {e}") from None


def read_volumes_from(text: str) -> tuple[str, bool]:
    """The container that `--volumes-from CONTAINER[:MODE]` names, and whether its mounts may be written. Raises InvalidParameter."""
    if not text:
        raise InvalidParameter("volumes-from specification cannot be an empty string")
    container, _, mode = text.partition(":")
    words = mode.split(",")
    # A propagation or a copy belongs to the mount as the other container has it.
    if not _is_mode(mode) or any(w in (*_PROPAGATIONS, "nocopy", MATCH_USER) for w in words):
        raise InvalidParameter(f"invalid mode: {mode}")
    return container, "ro" not in words
