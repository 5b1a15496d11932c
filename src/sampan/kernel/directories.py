"""Directories of the engine's own, made where others may be making them at the same moment."""

from __future__ import annotations

import os


def make_private(path: str) -> None:
    """Make a directory for root alone, and what is missing above it, as in a fresh /run.

    `os.makedirs` would open those above to everybody: it takes the mode for the last one only, and the umask may be 0.
    Raises OSError where nothing can be made, as in /proc.
    """
    try:
        _make_one(path)
    except FileNotFoundError:
        make_private(os.path.dirname(path))
        _make_one(path)


def _make_one(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
