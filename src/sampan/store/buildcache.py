"""What build steps came to: for each key the image that the step made, which is the one before it if no file was changed.

    build/cache/HEX     {"image": id}: the name is the key, a sha256 of all that the step depends on

A cache only: what is lost is built again, so nothing is synced, and nothing is locked. An entry whose image is gone is removed
by whoever finds it.
"""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import InvalidParameter
from sampan.kernel.files import write_atomic
from sampan.oci import digest as digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.steps.trace import Trace

_FORM = 1
"""Part of every key: a change of what steps mean makes old entries unfindable."""


def key_of(parts: Mapping[str, Any]) -> str:
    """The key of a step: the digest of everything that decides what it makes."""
    return digests.of_bytes(jsontext.dumps({"form": _FORM, **parts}))


class BuildCache:
    """The entries below one directory, which is made when the first one is written."""

    def __init__(self, directory: str, trace: Trace) -> None:
        self._directory = directory
        self._trace = trace

    def _path(self, key: str) -> str:
        return f"{self._directory}/{digests.sha256_hex(key)}"

    def get(self, key: str) -> str:
        """The id of the image that a step made, "" if it is not known. What cannot be read is not known."""
        try:
            with open(self._path(key), "rb") as file:
                found = jsontext.loads(file.read(1024))
            digests.sha256_hex(found["image"])
            return str(found["image"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidParameter):
            return ""

    def set(self, key: str, image: str) -> None:
        """Remember what a step made. Raises OSError."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        with self._trace.step("write", self._path(key)):
            write_atomic(self._path(key), jsontext.dumps({"image": image}), sync=False)

    def forget(self, key: str) -> None:
        """Remove an entry that leads to nothing."""
        try:
            os.unlink(self._path(key))
        except FileNotFoundError:
            return
