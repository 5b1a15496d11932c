"""Files on their way to the disk while more of them are made: who makes thousands does not wait for all of them in the end.

With one syncfs(2) at the end the disk does nothing while files are made, and the processor nothing while the disk writes. So a thread
asks for it again and again meanwhile. That all is on the disk only the last one says, on a descriptor from before the first file: the
kernel tells a failed write to every descriptor that was open by then, and of later ones only to the first that asks (Linux, lib/errseq.c).
"""

from __future__ import annotations

import os

from sampan.kernel.files import sync_filesystem

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from types import TracebackType
    from typing import Self

_PAUSE = 0.25  # seconds: what is smaller is written once, and a journal has four commits a second at most
_PATIENCE = 0.5  # seconds


class WriteBack:
    """Of the file system that a directory is on. A context manager, entered before the first file is made.

    When it is left, nothing is begun any more and the thread has ended, so that nothing of it is open there: but what the disk
    is at is waited for only a moment, for who gives up on a slow one.
    """

    def __init__(self, directory: str, ahead: bool = True) -> None:
        """Without `ahead` nothing is written before `sync`: most probably all will be deleted. Raises OSError."""
        import threading

        self._directory = directory
        self._ahead = ahead
        self._fd = -1
        self._left = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._fd = _open(self._directory)
        if self._ahead:
            self._begin()
        return self

    def _begin(self) -> None:
        import threading

        # No copy of the other descriptor: what was told to one of two copies is not told to the other.
        try:
            own = _open(self._directory)
        except OSError:
            return  # No more descriptors for us: it takes longer, that is all.
        thread = threading.Thread(target=self._run, args=(own,), daemon=True)
        try:
            thread.start()
            self._thread = thread
        except RuntimeError:
            os.close(own)  # Nor threads.

    def _run(self, fd: int) -> None:
        try:
            while not self._left.wait(_PAUSE):
                sync_filesystem(fd)
        except OSError:
            pass  # `sync` is told as well.
        finally:
            os.close(fd)

    def sync(self) -> None:
        """Have all on the disk that was written. Raises OSError if any of it could not be, also if that was noticed long ago."""
        self._left.set()
        sync_filesystem(self._fd)
        if self._thread is not None:
            self._thread.join()  # It waits for nothing that was not waited for here.

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._left.set()
        try:
            if self._thread is not None:
                self._thread.join(_PATIENCE)
        finally:
            os.close(self._fd)


def _open(directory: str) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
