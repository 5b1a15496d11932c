"""Has the full files of a log compressed, one at a time, by a process beside the shim.

Nothing waits for it. It reads a file by its descriptor, so that files may be renamed meanwhile; what it wrote gets its name,
under the number that the file has then, when it is whole. Only the shim of a container whose log is compressed imports this.
"""

from __future__ import annotations

import os
import select

from sampan.kernel import process
from sampan.shim.documents import attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.shim.protocol import LogPlan
    from sampan.shim.streams import Loop


class Compressor:
    """Compresses whatever file of the log has a number and is not compressed yet."""

    def __init__(self, loop: Loop, plan: LogPlan) -> None:
        self._loop = loop
        self._path, self._files, self._argv = plan.path, plan.max_files, plan.compressor
        self._temporary = f"{plan.path}.gz.tmp"
        self._child = self._number = 0
        self._pidfd = -1
        self._begin()  # what a killed shim left

    def rotated(self) -> None:
        """Every file's number has become one higher."""
        self._number += 1
        if self._pidfd < 0:
            self._begin()

    def close(self) -> None:
        """Stop: the file stays as it was, for the next run."""
        if self._pidfd >= 0:
            process.signal_process(self._pidfd, 9)
            self._reap()
            attempt(lambda: os.unlink(self._temporary))

    def _begin(self) -> None:
        for number in range(self._files - 1, 0, -1):
            if os.path.exists(f"{self._path}.{number}"):
                try:
                    self._compress(number)
                except OSError:
                    pass  # a full disk, no more processes: it is tried again at the next rotation
                return

    def _compress(self, number: int) -> None:
        # Another file than one that a killed shim's process may be writing to still.
        attempt(lambda: os.unlink(self._temporary))
        source = os.open(f"{self._path}.{number}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            target = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            try:
                self._child = process.fork()
                if not self._child:
                    self._execute(source, target)
                self._pidfd = os.pidfd_open(self._child)
            finally:
                os.close(target)
        finally:
            os.close(source)
        self._number = number
        self._loop.watch(self._pidfd, select.POLLIN, self._ended)

    def _execute(self, source: int, target: int) -> None:
        try:
            os.dup2(source, 0)
            os.dup2(target, 1)
            process.default_signals()
            os.execve(self._argv[0], self._argv, {})
        finally:
            os._exit(127)

    def _ended(self, _events: int) -> None:
        if self._reap() != 0:
            attempt(lambda: os.unlink(self._temporary))
            return
        name = f"{self._path}.{self._number}"
        if self._number < self._files:
            attempt(lambda: os.rename(self._temporary, f"{name}.gz"))
            attempt(lambda: os.unlink(name))
        else:
            attempt(lambda: os.unlink(self._temporary))  # it was the oldest, and has gone meanwhile
        self._begin()

    def _reap(self) -> int:
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        return process.reap(self._child)
