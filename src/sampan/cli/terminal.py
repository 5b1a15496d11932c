"""The user's terminal: its size, raw mode and back, and the keys that detach from a container, as the user has them."""

from __future__ import annotations

import os
import termios

from sampan.errors import InvalidParameter
from sampan.oci.detachkeys import DEFAULT_DETACH_KEYS, DetachKeys, parse_detach_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "DEFAULT_DETACH_KEYS",
    "DetachKeys",
    "RawMode",
    "configured_detach_keys",
    "detach_keys",
    "parse_detach_keys",
    "size",
]


def size(fd: int) -> tuple[int, int] | None:
    """Rows and columns, or None if `fd` is no terminal."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return None
    return rows, columns


def configured_detach_keys() -> str:
    """`detachKeys` of Docker's own configuration file, as its command line reads it; "" if there is none.

    Raises InvalidParameter for a file that is no JSON: keys that silently are others than the user's are no way out.
    """
    from sampan import jsontext  # in here: a wrong flag is told without it

    directory = os.environ.get("DOCKER_CONFIG") or os.path.join(os.environ.get("HOME", "/"), ".docker")
    path = f"{directory}/config.json"
    try:
        with open(path, "rb") as file:
            keys = jsontext.loads(file.read()).get("detachKeys", "")
    except OSError:
        return ""
    except (ValueError, AttributeError) as e:
        raise InvalidParameter(f"{path}: not a configuration file of Docker's: {e}") from None
    return str(keys)


def detach_keys(text: str) -> bytes:
    """The bytes of --detach-keys, else of the configuration, else of ctrl-p ctrl-q. Raises InvalidParameter."""
    return parse_detach_keys(text or configured_detach_keys())


class RawMode:
    """A terminal in raw mode, and as it was before at the end of the `with` block, whatever ends it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] | None = None

    def __enter__(self) -> RawMode:
        self._before = termios.tcgetattr(self._fd)
        self.set()
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            try:
                # Now, not after the output has drained or the input is thrown away: what was typed ahead is the shell's.
                termios.tcsetattr(self._fd, termios.TCSANOW, self._before)
            except termios.error:
                pass  # the terminal has been hung up: nobody is there to see its mode

    def set(self) -> None:
        """Every byte goes through as it is (termios(3), cfmakeraw). Again after a stop: shells restore what they know."""
        from tty import setraw  # in here: only who has a terminal pays for it

        setraw(self._fd, termios.TCSANOW)
