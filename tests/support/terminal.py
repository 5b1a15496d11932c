"""A person at a terminal: a real pseudo-terminal with a command on it, typed to and read from."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

from support.patience import patience


class Terminal:
    """Start `args` with all three standard descriptors on a new terminal of its own session.

    `output` is everything that it wrote so far. Close it (or use it as a context manager): what still runs is killed.
    """

    def __init__(self, args: Sequence[str], env: Mapping[str, str], rows: int = 24, columns: int = 80) -> None:
        self.output = b""
        self._read_to = 0
        self.master, slave = os.openpty()
        self.resize(rows, columns)
        try:
            # The session's controlling terminal is taken by the child itself: opening it is enough on Linux. A test run
            # in the background of a shell ignores SIGINT, and its children would: a person's terminal does not.
            self.process = subprocess.Popen(
                ["env", "--default-signal", "/bin/sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(slave), *args],
                env=dict(env),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                close_fds=True,
            )
        finally:
            self._slave = slave

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in (self.master, self._slave):
            if fd >= 0:
                os.close(fd)
        self.master = self._slave = -1

    def send(self, text: str | bytes) -> None:
        os.write(self.master, os.fsencode(text))

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def attributes(self) -> list[object]:
        """What tcgetattr says: compare before and after to see that the terminal was given back as it was."""
        return list(termios.tcgetattr(self._slave))

    def expect(self, pattern: str, seconds: float = 15) -> re.Match[bytes]:
        """Read until `pattern` (multi-line, dot matches all) is there, after what earlier calls matched."""
        deadline = time.monotonic() + patience(seconds)
        compiled = re.compile(pattern.encode(), re.MULTILINE | re.DOTALL)
        while True:
            found = compiled.search(self.output, self._read_to)
            if found:
                self._read_to = found.end()
                return found
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.output[self._read_to :]!r}"
            self._read(min(left, 0.2))

    def wait(self, seconds: float = 15) -> int:
        """Read until the command ends; its exit code."""
        deadline = time.monotonic() + patience(seconds)
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running; output {self.output!r}"
            self._read(0.05)
        while self._read(0):
            pass
        return self.process.returncode

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def _read(self, seconds: float) -> bool:
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the other end open
            return False
        self.output += data
        return bool(data)
