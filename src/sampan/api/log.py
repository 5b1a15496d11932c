"""The server's log: lines on standard error, where systemd and containers expect them.

Every line of a request has the request's id, which the client gets in `X-Request-Id`.
"""

from __future__ import annotations

import os
import time

LEVELS = ("debug", "info", "warn", "error")


class Log:
    """Lines of at least one level. Whether anybody reads them changes nothing."""

    def __init__(self, level: str = "info", fd: int = 2) -> None:
        self._least = LEVELS.index(level)
        self._fd = fd

    def takes(self, level: str) -> bool:
        """Whether lines of this level are written: who would make one by the request asks first."""
        return LEVELS.index(level) >= self._least

    def debug(self, text: str) -> None:
        self._write("debug", text)

    def info(self, text: str) -> None:
        self._write("info", text)

    def warn(self, text: str) -> None:
        self._write("warn", text)

    def error(self, text: str) -> None:
        self._write("error", text)

    def _write(self, level: str, text: str) -> None:
        if not self.takes(level):
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}Z"
        lines = "".join(f"{stamp} {level} {line}\n" for line in printable(text).split("\n"))
        try:
            os.write(self._fd, lines.encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # there is no place left to complain


def printable(text: str) -> str:
    """What a client sent must not be able to write lines or terminal sequences of its own."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
