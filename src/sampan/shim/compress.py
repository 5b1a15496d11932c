"""`python -I -S compress.py`: what comes in, compressed as gzip does, goes out. Executed by path (`shim.compressor`)."""

from __future__ import annotations

import os
import zlib

_CHUNK = 1 << 18


def main() -> None:
    """From descriptor 0 to descriptor 1. Raises OSError (ENOSPC), which is its exit code for the shim."""
    packer = zlib.compressobj(wbits=31)
    while piece := os.read(0, _CHUNK):
        _write(packer.compress(piece))
    _write(packer.flush())


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main()
