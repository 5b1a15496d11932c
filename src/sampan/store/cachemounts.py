"""The directories of `RUN --mount=type=cache`: what steps of builds keep for later ones, outside of every image.

    build/mounts/HEX[-N]/{data/, about, lock}

HEX is the digest of all that makes one cache another one; -N are more of the kind, for `sharing=private` beside somebody who is
at work. A directory appears whole, by one rename. `lock` is held by whoever has it mounted: shared, or alone.
"""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import System
from sampan.kernel.files import FileLock, lock_is_held
from sampan.store.staging import Staging
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Self

    from sampan.steps.trace import Trace

SHARED, PRIVATE, LOCKED = "shared", "private", "locked"
_ABOUT_LIMIT = 1 << 16
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


class Kept(Struct):
    """One that is kept, as it is found. name: of its directory. target: where it is mounted. made, used: when, in nanoseconds since 1970. in_use: by a step that runs."""

    name: str
    path: str
    target: str
    made: int
    used: int
    in_use: bool


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
                lock = FileLock.acquire(f"{place}/lock", wait, shared=sharing == SHARED)
                os.utime(lock.fd)  # When it was used last: what was not for long is pruned first.
                return CacheMount(f"{place}/data", lock)
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

    def kept(self) -> list[Kept]:
        """All of them, in the order of their names."""
        try:
            names = sorted(name for name in os.listdir(self._directory) if not name.startswith("."))
        except FileNotFoundError:
            return []
        found = (self._kept(name) for name in names)
        return [one for one in found if one is not None]

    def _kept(self, name: str) -> Kept | None:
        place = f"{self._directory}/{name}"
        try:
            made = os.stat(f"{place}/about").st_mtime_ns
            with open(f"{place}/about", "rb") as file:
                about = jsontext.loads(file.read(_ABOUT_LIMIT))
            used = os.stat(f"{place}/lock").st_mtime_ns if os.path.exists(f"{place}/lock") else made
            return Kept(name, f"{place}/data", str(about["target"]), made, used, lock_is_held(f"{place}/lock"))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # It is removed in this moment, or is none of ours.

    def remove(self, name: str) -> bool:
        """Remove one; False if somebody uses it, or it is gone. Raises OSError."""
        try:
            # Whoever waits for the lock finds that the directory has gone, and makes another one.
            with FileLock.acquire(f"{self._directory}/{name}/lock", 0):
                return self._staging.remove(name)
        except (BlockingIOError, FileNotFoundError):
            return False

    def collect_garbage(self) -> None:
        """Delete what killed builds left half made."""
        if os.path.isdir(self._directory):
            self._staging.collect_garbage()
