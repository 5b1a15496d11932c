"""The directories of `RUN --mount=type=cache`: what steps of builds keep for later ones, outside of every image.

    build/mounts/HEX[-N]/{data/, about, lock}

HEX is the digest of all that makes one cache another one; -N are more of the kind, for `sharing=private` beside somebody who is
at work. A directory appears whole, by one rename. `lock` is held by whoever has it mounted: shared, or alone.
"""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import System
from sampan.kernel.files import FileLock
from sampan.store.staging import Staging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Self

    from sampan.steps.trace import Trace

SHARED, PRIVATE, LOCKED = "shared", "private", "locked"
_ATTEMPTS = 1000
"""How often a directory is made that somebody else removes again, and how many there may be of one kind."""


class CacheMount:
    """One that is in use. path: what is mounted. A context manager."""

    def __init__(self, path: str, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._lock.release()


class CacheMounts:
    """All of one store. The directory is made with the first one."""

    def __init__(self, directory: str, trace: Trace) -> None:
        self._directory = directory
        self._trace = trace
        self._staging = Staging(directory, trace)

    def open(self, name: str, sharing: str, about: Mapping[str, Any], fill: Callable[[str], None]) -> CacheMount:
        """Take one into use; `locked` waits for its other users. name: 64 hex digits.

        about: what it is for, to be shown. fill: makes the content of a new one, and its owner and permissions. Raises OSError,
        System, and what `fill` raises.
        """
        os.makedirs(self._directory, 0o700, exist_ok=True)
        number = 0
        for _ in range(_ATTEMPTS):
            place = f"{self._directory}/{name}" + (f"-{number}" if number else "")
            if not os.path.isdir(place):
                self._make(place, about, fill)
            try:
                wait = 0 if sharing == PRIVATE else None
                return CacheMount(f"{place}/data", FileLock.acquire(f"{place}/lock", wait, shared=sharing == SHARED))
            except BlockingIOError:
                number += 1
            except FileNotFoundError:
                continue  # It was removed in this moment.
        raise System(f"no cache mount could be had in {self._directory}: it is removed again and again")

    def _make(self, place: str, about: Mapping[str, Any], fill: Callable[[str], None]) -> None:
        with self._staging.begin() as staged:
            os.mkdir(f"{staged.path}/data", 0o755)
            fill(f"{staged.path}/data")
            with open(f"{staged.path}/about", "wb") as file:
                file.write(jsontext.dumps(dict(about)))
            staged.publish(place)

    def collect_garbage(self) -> None:
        """Delete what killed builds left half made."""
        if os.path.isdir(self._directory):
            self._staging.collect_garbage()
