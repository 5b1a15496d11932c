"""A digest that a thread of its own takes: whoever reads goes on with the next bytes meanwhile.

Without SHA instructions in the processor, hashing what a layer unfolds to takes longer than unfolding it. OpenSSL lets go of the
interpreter's lock, so that a second processor does one while the first does the other.
"""

from __future__ import annotations

from sampan.kernel import process
from sampan.oci.digest import new_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_BEHIND = 4
"""Pieces that were handed over and are not hashed yet: 8 MiB, as `store.ahead` cuts them."""


class HashingThread:
    """A running sha256 (see `oci.digest.Hash`). A context manager: when it is left, the thread has ended."""

    def __init__(self) -> None:
        import queue
        import threading

        self._hash = new_hash()
        self._pieces: queue.Queue[bytes | memoryview | None] = queue.Queue(_BEHIND)
        self._thread = threading.Thread(target=self._run, daemon=True)
        process.start_thread(self._thread)

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._hash.update(piece)

    def update(self, data: bytes | memoryview, /) -> None:
        """Add bytes, which nobody may change any more; waits where the thread is too far behind."""
        self._pieces.put(data)

    def hexdigest(self) -> str:
        """The digest of all; nothing can be added afterwards."""
        self._end()
        return self._hash.hexdigest()

    def _end(self) -> None:
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._end()
