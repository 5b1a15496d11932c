"""The configuration file: `/etc/sampan/sampan.toml`, another one by `--config`. Absent is empty.

Keys are documented in `docs/configuration.md`. A key that nobody knows is an error and not a silence: a misspelt
`cgroup-parent` would otherwise move nothing anywhere.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter
from sampan.store.layout import DEFAULT_ROOT, DEFAULT_RUN_ROOT
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_PATH = "/etc/sampan/sampan.toml"

SNAPSHOTTERS = ("overlay", "vfs")


class Config(Struct):
    """What one installation is set to.

    root, run_root: the two state directories. snapshotter: "overlay", "vfs", or "" for what works at the root.
    init_path: the program of `--init`, "" to look for the usual ones. cgroup_parent: the group that containers
    are put below unless they name one. events_size: bytes of each of the two files that events are kept in.
    mirrors: (domain, URL) pairs. insecure_registries: hosts and networks. registry_timeout: seconds without a byte.
    """

    root: str = DEFAULT_ROOT
    run_root: str = DEFAULT_RUN_ROOT
    snapshotter: str = ""
    init_path: str = ""
    cgroup_parent: str = ""
    events_size: int = 8 << 20
    mirrors: tuple[tuple[str, str], ...] = ()
    insecure_registries: tuple[str, ...] = ()
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    registry_timeout: float = 60.0


# key in the file -> field; the values of these are text
_KEYS = {
    "root": "root",
    "run-root": "run_root",
    "snapshotter": "snapshotter",
    "init-path": "init_path",
    "cgroup-parent": "cgroup_parent",
    "events-size": "events_size",
}

# Those of registries, of other kinds, which `engine.registryconfig` reads.
_REGISTRY_KEYS = (
    "insecure-registries",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "mirrors",
    "registry-mirrors",
    "registry-timeout",
)


def load(path: str | None = None, root: str | None = None, run_root: str | None = None) -> Config:
    """The configuration: arguments before SAMPAN_ROOT and SAMPAN_RUN_ROOT before the file before the defaults.

    A file that is named, by `path` or SAMPAN_CONFIG, must exist. Raises InvalidParameter naming the file, and the key
    if it is one, and for a relative path.
    """
    path = path or os.environ.get("SAMPAN_CONFIG") or None
    config = _read(path or DEFAULT_PATH, required=path is not None)
    root = root or os.environ.get("SAMPAN_ROOT")
    run_root = run_root or os.environ.get("SAMPAN_RUN_ROOT")
    if root:
        config = config.replace(root=_absolute("root", root))
    if run_root:
        config = config.replace(run_root=_absolute("run root", run_root))
    return config


def _absolute(what: str, path: str) -> str:
    """A relative path would be another store in every directory, made there without a word."""
    if not path.startswith("/"):
        raise InvalidParameter(f"the {what} must be an absolute path, not '{path}'")
    return os.path.abspath(path)


def _read(path: str, required: bool) -> Config:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        if required:
            raise InvalidParameter(f"{path}: no such configuration file") from None
        return Config()
    except OSError as e:
        raise InvalidParameter(f"{path}: the configuration file cannot be read: {e.strerror}") from None
    import tomllib  # 8 ms that only those pay who have the file

    try:
        values = tomllib.loads(data.decode("utf-8"))
    except ValueError as e:
        raise InvalidParameter(f"{path}: not a TOML file: {e}") from None
    return _checked(path, values)


def _checked(path: str, values: dict[str, Any]) -> Config:
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if key in _REGISTRY_KEYS:
            continue
        if key not in _KEYS:
            known = ", ".join(sorted((*_KEYS, *_REGISTRY_KEYS)))
            raise InvalidParameter(f"{path}: unknown key '{key}'; known keys are {known}")
        if not isinstance(value, str):
            raise InvalidParameter(f"{path}: {key} must be text, not {value!r}")
        if key in ("root", "run-root", "init-path") and not value.startswith("/"):
            raise InvalidParameter(f"{path}: {key} must be an absolute path, not '{value}'")
        if key == "snapshotter" and value not in SNAPSHOTTERS:
            raise InvalidParameter(f"{path}: snapshotter must be one of {', '.join(SNAPSHOTTERS)}, not '{value}'")
        fields[_KEYS[key]] = _events_size(path, value) if key == "events-size" else value
    if not values.keys().isdisjoint(_REGISTRY_KEYS):
        from sampan.engine.registryconfig import fields_of

        fields |= fields_of(path, values)
    return Config(**fields)


_LEAST_EVENTS = 64 << 10


def _events_size(path: str, value: str) -> int:
    from sampan.engine.options import parse_size

    try:
        size = parse_size(value)
    except InvalidParameter as e:
        raise InvalidParameter(f"{path}: events-size: {e}") from None
    if size < _LEAST_EVENTS:
        raise InvalidParameter(f"{path}: events-size must be at least 64k, not '{value}'")
    return size
