"""Pseudo-terminals: a pair from a given devpts, window sizes, the controlling terminal (pts(4), ioctl_tty(2))."""

from __future__ import annotations

import _struct
import fcntl
import os

_TIOCSCTTY = 0x540E
_TIOCGWINSZ, _TIOCSWINSZ = 0x5413, 0x5414
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_pair(devpts_fd: int) -> tuple[int, int]:
    """A new pair, master and peer, of the devpts whose root `devpts_fd` is.

    The peer is opened through the master (TIOCGPTPEER), never by its name: a name could lead into
    another devpts (CVE-2025-52565).
    """
    master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devpts_fd)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, _struct.pack("i", 0))
        peer = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(master)
        raise
    return master, peer


def make_controlling(fd: int) -> None:
    """Make the terminal `fd` the controlling one of this session, whose leader this process is."""
    fcntl.ioctl(fd, _TIOCSCTTY, 0)


def set_size(fd: int, rows: int, columns: int) -> None:
    """Set the window size; the foreground process group gets SIGWINCH."""
    fcntl.ioctl(fd, _TIOCSWINSZ, _struct.pack("HHHH", rows, columns, 0, 0))


def get_size(fd: int) -> tuple[int, int]:
    """Rows and columns of the terminal."""
    rows, columns, _, _ = _struct.unpack("HHHH", fcntl.ioctl(fd, _TIOCGWINSZ, b"\0" * 8))
    return rows, columns
