"""A question before something is deleted."""

from __future__ import annotations

import os

from sampan.cli.output import write


def confirmed(warning: str) -> bool:
    """Ask on standard output, as Docker does; whether the next line of standard input is "y" or "Y".

    No answer (the end of the input) is a no.
    """
    write(1, f"{warning}\nAre you sure you want to continue? [y/N] ".encode())
    return _line().strip().lower() == b"y"


def _line() -> bytes:
    """A line from standard input, byte by byte: what follows it is not ours."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return line
