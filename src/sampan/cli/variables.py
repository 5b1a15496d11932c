"""Files of variables: --env-file and --label-file.

A line is NAME=VALUE, taken as it is: no quotes, no escapes, no `export`. Blank lines and lines that begin with "#" do not
count, nor does a byte order mark, which editors of another system leave.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LARGEST = 16 << 20
"""Bytes of a file: more is /dev/zero or a mistake."""


def read_environment(paths: Iterable[str], given: Iterable[str]) -> list[str]:
    """The lines of the files, a lone NAME with the caller's value or left out; then what was given by flags."""
    lines: list[str] = []
    for path in paths:
        lines += _read(path, os.environ)
    return [*lines, *given]


def read_labels(paths: Iterable[str], given: Iterable[str]) -> dict[str, str]:
    """Labels of the files (a lone NAME is left out, as Docker does), then those given by flags."""
    lines: list[str] = []
    for path in paths:
        lines += _read(path, {})
    labels: dict[str, str] = {}
    for line in [*lines, *given]:
        name, _, value = line.partition("=")
        labels[name] = value
    return labels


def _read(path: str, inherited: Mapping[str, str]) -> list[str]:
    result = []
    for number, line in enumerate(_lines(path), 1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            shown = " ".join(str(b) for b in line)
            raise InvalidParameter(
                f"invalid env file ({path}): invalid utf8 bytes at line {number}: [{shown}]"
            ) from None
        if number == 1:
            text = text.removeprefix("\ufeff")
        text = text.lstrip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not name:
            raise InvalidParameter(f"invalid env file ({path}): no variable name on line '{text}'")
        if any(c.isspace() for c in name):
            raise InvalidParameter(f"invalid env file ({path}): variable '{name}' contains whitespaces")
        if equals:
            result.append(f"{name}={value}")
        elif name in inherited:
            result.append(f"{name}={inherited[name]}")
    return result


def _lines(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except IsADirectoryError:
        raise InvalidParameter(f"invalid env file ({path}): read {path}: is a directory") from None
    except OSError as e:
        raise InvalidParameter(f"open {path}: {(e.strerror or str(e)).lower()}") from None
    if len(data) > LARGEST:
        raise InvalidParameter(f"invalid env file ({path}): it is larger than {LARGEST >> 20} MiB")
    lines = data.split(b"\n")
    return [line.removesuffix(b"\r") for line in lines]
