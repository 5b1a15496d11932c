"""The log of a container: its driver and options, checked in Docker's words and made a plan for the shim.

Docker finds half of what is wrong with options only when the container starts, and leaves the container behind; here all of it
is refused before anything is made, in the same words. What is ours: a json-file that was given no bound has one, for an unbounded
log fills the disk of every host sooner or later (docs/logs.md).
"""

from __future__ import annotations

import os
import sys

from sampan.errors import InvalidParameter
from sampan.shim.protocol import LogPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from sampan.store.layout import ContainerPaths
    from sampan.store.record import Record

JSON_FILE, LOCAL, NONE = "json-file", "local", "none"
DRIVERS = (JSON_FILE, LOCAL, NONE)

_UNLIMITED = "-1"
_MB = 1_000_000
_DEFAULTS = {JSON_FILE: (10 * _MB, 3), LOCAL: (20 << 20, 5)}
"""Bytes of a file and number of files; local's are Docker's."""

_SIZES = ("max-size", "max-file", "compress")
_ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex", "tag")
_KNOWN = {JSON_FILE: frozenset(_SIZES + _ATTRIBUTES), LOCAL: frozenset(_SIZES)}
_FAILED = "failed to initialize logging driver: "


def check(given: Mapping[str, Any]) -> dict[str, Any]:
    """Docker's LogConfig as it is kept in a record. Raises InvalidParameter."""
    driver, options = given.get("Type") or JSON_FILE, given.get("Config") or {}
    if driver not in DRIVERS:
        raise InvalidParameter(
            f'error looking up logging plugin {driver}: plugin "{driver}" not found (there are {", ".join(DRIVERS)})'
        )
    if not isinstance(options, dict) or not all(isinstance(value, str) for value in options.values()):
        raise InvalidParameter("invalid value for HostConfig.LogConfig.Config: it is not a map")
    if driver == NONE:
        return {"Type": driver, "Config": dict(options)}
    _check_mode(options)
    for name in sorted(options):
        if name not in _KNOWN[driver] and name != "mode":
            words = f"{JSON_FILE} log driver" if driver == JSON_FILE else f"log driver {driver}"
            raise InvalidParameter(f"unknown log opt '{name}' for {words}")
    _bounds(driver, options)
    _check_attributes(options)
    return {"Type": driver, "Config": dict(options)}


def _check_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if mode == "non-blocking":
        # It may lose lines by design, to spare a program a slow log service. These drivers write to a local file.
        raise InvalidParameter(
            "logger: logging mode not supported: non-blocking: sampan's log drivers never lose lines"
        )
    if "max-buffer-size" in options:
        raise InvalidParameter("logger: max-buffer-size option is only supported with 'mode=non-blocking'")


def _bounds(driver: str, options: Mapping[str, str]) -> tuple[int, int, bool]:
    """Bytes of a file (0: no bound), how many files, and whether full ones are compressed."""
    size, files = _DEFAULTS[driver]
    if "max-size" in options:
        size = _size(driver, options["max-size"])
    if "max-file" in options:
        files = _files(driver, options["max-file"])
    compress = driver == LOCAL
    if "compress" in options:
        compress = _truth(driver, options["compress"])
    if compress and driver == LOCAL and files <= 1:
        raise InvalidParameter(f"{_FAILED}compression cannot be enabled when max file count is 1")
    if compress and driver == JSON_FILE and (files < 2 or not size):
        raise InvalidParameter(f"{_FAILED}compress cannot be true when max-file is less than 2 or max-size is not set")
    return size, max(files, 1), compress and bool(size)


def _size(driver: str, text: str) -> int:
    from sampan.engine.options import parse_size

    if text == _UNLIMITED:
        return 0  # what Docker's documentation calls the default
    try:
        size = parse_size(text, decimal=True)
    except InvalidParameter as e:
        where = f"invalid value for max-size: {text}: " if driver == LOCAL else ""
        raise InvalidParameter(f"{_FAILED}{where}{e}") from None
    if size <= 0 and driver == JSON_FILE:
        raise InvalidParameter(f"{_FAILED}max-size must be a positive number")
    return size


def _files(driver: str, text: str) -> int:
    where = f"invalid value for max-file: {text}: " if driver == LOCAL else ""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidParameter(f'{_FAILED}{where}strconv.Atoi: parsing "{text}": invalid syntax')
    if len(digits) > 18:
        raise InvalidParameter(f'{_FAILED}{where}strconv.Atoi: parsing "{text}": value out of range')
    files = int(text)
    if driver == LOCAL and files < 0:
        raise InvalidParameter(f"{_FAILED}max file count cannot be less than 0")
    if driver == JSON_FILE and files < 1:
        raise InvalidParameter(f"{_FAILED}max-file cannot be less than 1")
    if files > _MOST_FILES:
        # Each one is a rename at every rotation.
        raise InvalidParameter(f"{_FAILED}{where}max-file cannot be more than {_MOST_FILES}")
    return files


_MOST_FILES = 1000

# strconv.ParseBool
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def _truth(driver: str, text: str) -> bool:
    if text not in _TRUE and text not in _FALSE:
        where = "error reading compress log option: " if driver == LOCAL else ""
        raise InvalidParameter(f'{_FAILED}{where}strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE


# what is said of each line


def _check_attributes(options: Mapping[str, str]) -> None:
    for name in ("labels-regex", "env-regex"):
        if options.get(name):
            _pattern(options[name])
    if options.get("tag"):
        from sampan.engine import logtag

        try:
            logtag.check(options["tag"])
        except InvalidParameter as e:
            raise InvalidParameter(f"{_FAILED}{e}") from None


def _pattern(text: str) -> Any:
    import re

    try:
        return re.compile(text)
    except re.error as e:
        raise InvalidParameter(f"{_FAILED}error parsing regexp: {e}: `{text}`") from None


def _attributes(record: Record, options: Mapping[str, str], path: str) -> dict[str, str]:
    """What the options pick of the container's labels and variables, and its tag (moby, logger.Info ExtraAttributes)."""
    from sampan.runtime.spec import environment

    labels = record.config.get("Labels") or {}
    variables = dict(entry.partition("=")[::2] for entry in environment(record.config))
    picked = {
        **_pick(labels, options.get("labels", ""), options.get("labels-regex", "")),
        **_pick(variables, options.get("env", ""), options.get("env-regex", "")),
    }
    tag = _tag(record, options["tag"], path) if options.get("tag") else ""
    return {**picked, **({"tag": tag} if tag else {})}


def _pick(values: Mapping[str, str], names: str, pattern: str) -> dict[str, str]:
    wanted: Iterable[str] = names.split(",") if names else ()
    picked = {name: values[name] for name in wanted if name in values}
    if pattern:
        matches = _pattern(pattern)
        picked |= {name: value for name, value in values.items() if matches.search(name)}
    return picked


def check_tag(record: Record) -> None:
    """Whether its tag, if it has one, can be made of what is known of it. Raises InvalidParameter."""
    template = (record.host_config["LogConfig"].get("Config") or {}).get("tag")
    if template and record.host_config["LogConfig"]["Type"] == JSON_FILE:
        _tag(record, template)


def _tag(record: Record, template: str, path: str = "") -> str:
    from sampan.engine import logtag

    try:
        return logtag.expand(template, logtag.info(record, path))
    except InvalidParameter as e:
        raise InvalidParameter(f"{_FAILED}{e}") from None


# the plan


def driver_of(record: Record) -> str:
    """The name of a container's driver; "" for a record that cannot be read."""
    return str((record.host_config.get("LogConfig") or {}).get("Type", ""))


def path_of(record: Record, paths: ContainerPaths) -> str:
    """The newest of its log's files; "" if it has none."""
    return {JSON_FILE: paths.log, LOCAL: paths.local_log}.get(driver_of(record), "")


def make_plan(record: Record, paths: ContainerPaths) -> LogPlan:
    """How the shim keeps the container's output; makes the directory that it is kept in. Raises OSError."""
    driver = driver_of(record)
    if driver == NONE:
        return LogPlan()
    options = record.host_config["LogConfig"].get("Config") or {}
    size, files, compress = _bounds(driver, options)
    if driver == LOCAL:
        os.makedirs(os.path.dirname(paths.local_log), mode=0o700, exist_ok=True)
    extra = ""
    if any(name in options for name in _ATTRIBUTES):
        from sampan import jsontext

        attributes = _attributes(record, options, path_of(record, paths))
        extra = jsontext.dumps(dict(sorted(attributes.items()))).decode("ascii") if attributes else ""
    return LogPlan(driver, path_of(record, paths), size, files, extra, _compressor() if compress else ())


def _compressor() -> tuple[str, ...]:
    """Executed by path, as the reaper is (`engine.reaper`)."""
    script = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "shim", "compress.py")
    return (os.path.realpath(sys.executable), "-I", "-S", script)
