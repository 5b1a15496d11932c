"""What build steps came to: for each key the layer that the step made, or none if it changed no file.

    build/cache/HEX         an `Entry`: the name is the key, a sha256 of all that the step depends on
    build/cache/HEX.made-of what that was, for who asks why another step was not found; nothing is found by it

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
    from collections.abc import Iterator, Mapping
    from typing import Any

    from sampan.steps.trace import Trace


FORM = 3
"""Part of every key: a change of what steps mean makes old entries unfindable."""

_LIMIT = 1 << 16
_MADE_OF = ".made-of"
_MADE_OF_LIMIT = 64 << 20


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
    return digests.of_bytes(jsontext.dumps({"form": FORM, **parts}))


def parse(document: Any) -> Entry | None:
    """An entry out of its JSON, None if that is not one."""
    try:
        found = Entry(**document)
        for digest in (found.blob, found.diff_id, found.chain_id) if found.blob else ():
            digests.sha256_hex(digest)
        numbers = (found.bytes, found.size, found.made, found.used, found.uses)
        whole = all(type(number) is int and number >= 0 for number in numbers)
        return found if whole and all(isinstance(text, str) for text in (found.before, found.what)) else None
    except (KeyError, TypeError, AttributeError, InvalidParameter):
        return None


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
                return parse(jsontext.loads(file.read(_LIMIT)))
        except (OSError, ValueError):
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
        for path in (self._path(key), self._path(key) + _MADE_OF):
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue

    def note(self, key: str, made_of: Mapping[str, Any]) -> None:
        """Remember what a step was made of. Raises OSError."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        write_atomic(self._path(key) + _MADE_OF, jsontext.dumps(made_of), sync=False)

    def notes(self) -> Iterator[dict[str, Any]]:
        """What steps were made of, the latest first. What cannot be read is left out."""
        dated = []
        for name in self._names():
            if name.endswith(_MADE_OF):
                try:
                    dated.append((os.stat(f"{self._directory}/{name}").st_mtime_ns, name))
                except FileNotFoundError:
                    continue
        for _, name in sorted(dated, reverse=True):
            try:
                with open(f"{self._directory}/{name}", "rb") as file:
                    found = jsontext.loads(file.read(_MADE_OF_LIMIT))
            except (OSError, ValueError):
                continue
            if isinstance(found, dict):
                yield found
