"""What is mounted where, as this process sees it: proc_pid_mountinfo(5)."""

from __future__ import annotations

_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))
"""How the kernel writes what would break the line; the backslash last, for it is in all of them."""


def mount_points(directory: str, mountinfo: str = "/proc/self/mountinfo") -> list[str]:
    """The mount points at and below `directory`, which must be an absolute path without links, in the order of mounting.

    A place that was mounted over is there twice.
    """
    found = []
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            point = unescape(line.split(" ", 5)[4])
            if point == directory or point.startswith(f"{directory}/"):
                found.append(point)
    return found


def unescape(text: str) -> str:
    """A field of mountinfo as the path that it stands for."""
    if "\\" not in text:
        return text
    for escaped, character in _ESCAPES:
        text = text.replace(escaped, character)
    return text
