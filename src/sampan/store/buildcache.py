"""What build steps came to: for each key the layer that the step made, or none if it changed no file.

    build/cache/HEX     an `Entry`: the name is the key, a sha256 of all that the step depends on

What an entry names stays in the store (`engine.users`): entries are the roots of the cache as images' records are those of images.
An entry is written when its layer is on the disk. It is not synced itself: what a power cut takes is built again. Whoever removes
entries has the store's lock for himself, and collects afterwards what nothing leads to any more.
"""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import InvalidParameter
from sampan.kernel.files import write_atomic
from sampan.oci import digest as digests
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.steps.trace import Trace

_FORM = 2
"""Part of every key: a change of what steps mean makes old entries unfindable."""

_LIMIT = 1 << 16


class Entry(Struct):
    """What a step came to.

    before: the key of the files that it began with. blob, bytes, diff_id, chain_id: of its layer, "" and 0 if it changed nothing. size: of the layer's files.
    what: the step in words. made, used: when, in nanoseconds since 1970. uses: how often it was found.
    """

    before: str
    blob: str
    bytes: int
    diff_id: str
    chain_id: str
    size: int
    what: str
    made: int
    used: int
    uses: int = 0


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

    def get(self, key: str) -> Entry | None:
        """What a step came to, None if it is not known. What cannot be read is not known."""
        try:
            with open(self._path(key), "rb") as file:
                found = Entry(**jsontext.loads(file.read(_LIMIT)))
            for digest in (found.blob, found.diff_id, found.chain_id) if found.blob else ():
                digests.sha256_hex(digest)
            return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidParameter):
            return None

    def put(self, key: str, entry: Entry) -> None:
        """Remember what a step came to. Raises OSError."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        with self._trace.step("write", self._path(key)):
            write_atomic(self._path(key), jsontext.dumps(entry.to_json()), sync=False)

    def entries(self) -> dict[str, Entry]:
        """All that can be read, by key."""
        found = {}
        for name in self._names():
            key = f"{digests.SHA256}:{name}"
            entry = self.get(key) if digests.is_id(name) else None
            if entry is not None:
                found[key] = entry
        return found

    def roots(self) -> tuple[set[str], set[str]]:
        """The digests of the blobs, and the chain ids of the layers, that entries lead to."""
        layers = [entry for entry in self.entries().values() if entry.blob]
        return {entry.blob for entry in layers}, {entry.chain_id for entry in layers}

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._directory)
        except FileNotFoundError:
            return []

    def forget(self, key: str) -> None:
        """Remove an entry; nothing if it is gone."""
        try:
            os.unlink(self._path(key))
        except FileNotFoundError:
            return
