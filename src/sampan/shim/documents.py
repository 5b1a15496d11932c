"""Small files that a shim leaves for others to read, each there whole or not at all."""

from __future__ import annotations

import os

from sampan.shim import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def attempt(action: Callable[[], Any]) -> None:
    """Clean up as far as it goes: what is left is found and finished by the next command."""
    try:
        action()
    except OSError:
        pass


def read_object(path: str) -> dict[str, Any] | None:
    """A JSON object that another process has written; None if it is not there, or is none."""
    try:
        value = protocol.loads(_read(path))
    except (OSError, protocol.ProtocolError):
        return None
    return value if isinstance(value, dict) else None


def _read(path: str) -> bytes:
    """A file's bytes, without what `open()` asks about it first: every end of an exec reads one, while its client waits."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while part := os.read(fd, 1 << 14):
            data += part
        return data
    finally:
        os.close(fd)


def write_whole(path: str, data: bytes, sync: bool) -> None:
    """Write a file that is there whole or not at all; over blocks that were reserved for it if there are some."""
    temporary = f"{path}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.ftruncate(fd, len(data))
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
