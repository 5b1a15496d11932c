"""A process that does one write for us when we die: what must not last longer than the command that began it.

It waits on a pipe for our end, which the kernel tells it whatever kills us, and writes unless we said before that all is
done. It has a session of its own, so that no signal to a terminal or a process group reaches it. It is a shell, because
it has to be there before something is begun that takes milliseconds: an interpreter of ours takes ten times as long.
"""

from __future__ import annotations

import fcntl
import os

# read fails at the end of the file: nobody said that it is done.
_SCRIPT = 'read -r done || printf %s "$2" >"$1"'
_SIGINT, _SIGPIPE = 2, 13  # Ignored by an interpreter's children, or by its parent's choice: not here.


class Keeper:
    """Writes `value` to the file `path` unless it is dismissed. Raises OSError."""

    def __init__(self, path: str, value: str) -> None:
        reader, self._writer = os.pipe2(os.O_CLOEXEC)
        opened = [reader]
        try:
            opened.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            # Above the three numbers that they become: one of those may be closed in our process.
            pipe, null = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in (*opened,))
            opened += [pipe, null]
            self._pid = os.posix_spawn(
                "/bin/sh",
                ["sh", "-c", _SCRIPT, "sampan-keeper", path, value],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, pipe, 0), *((os.POSIX_SPAWN_DUP2, null, fd) for fd in (1, 2))],
                setsid=True,
                setsigmask=(),
                setsigdef=(_SIGINT, _SIGPIPE),
            )
        except BaseException:
            os.close(self._writer)
            raise
        finally:
            for fd in opened:
                os.close(fd)

    def dismiss(self) -> None:
        """All is done already."""
        try:
            os.write(self._writer, b"done\n")
        except BrokenPipeError:
            pass  # Somebody has killed it.
        self.abandon()

    def abandon(self) -> None:
        """Let it do its work, as at our end, and wait for it."""
        os.close(self._writer)
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # The program that uses the library reaps all its children by itself.
