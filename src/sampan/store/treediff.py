"""Comparing two directory trees: whether an unpacked layer is still what its archive unpacks to."""

from __future__ import annotations

import os
import stat

from sampan.kernel.files import by_descriptor, get_xattrs
from sampan.kernel.tree import Descent

_CHUNK = 1 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def first_difference(found: str, expected: str) -> str:
    """The first thing in which a tree differs from what it should be, as "path: what"; "" if in nothing.

    Names, types, owners, modes, device numbers, links' targets, xattrs, sizes, contents; times of files, not of directories
    (which say when something was last made in them).
    """
    try:
        ours = Descent(os.open(found, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError as e:
        return f"/: {(e.strerror or str(e)).lower()}"
    theirs = Descent(os.open(expected, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
    try:
        return _walk(ours, theirs)
    finally:
        ours.close()
        theirs.close()


def _walk(ours: Descent, theirs: Descent) -> str:
    if difference := _attributes(os.fstat(ours.fd), os.fstat(theirs.fd)) or _xattrs(ours.fd, theirs.fd):
        return f"/: {difference}"
    paths = [""]
    pending: list[list[str]] = []
    difference, directories = _compare(ours.fd, theirs.fd, "")
    pending.append(directories)
    while not difference:
        if pending[-1]:
            name = pending[-1].pop()
            ours.enter(name)
            theirs.enter(name)
            paths.append(f"{paths[-1]}/{name}")
            difference, directories = _compare(ours.fd, theirs.fd, paths[-1])
            pending.append(directories)
            continue
        pending.pop()
        if not pending:
            return ""
        ours.leave()
        theirs.leave()
        paths.pop()
    return difference


def _compare(ours: int, theirs: int, path: str) -> tuple[str, list[str]]:
    """The first difference between two directories' entries, and the sub-directories to go on with."""
    have, want = set(os.listdir(ours)), set(os.listdir(theirs))
    if have != want:
        name = min(have ^ want)
        return f"{path}/{name}: {'it is missing' if name in want else 'it does not belong here'}", []
    directories = []
    for name in sorted(want):
        mine = os.stat(name, dir_fd=ours, follow_symlinks=False)
        other = os.stat(name, dir_fd=theirs, follow_symlinks=False)
        difference = (
            _attributes(mine, other) or _entry_xattrs(ours, theirs, name) or _content(ours, theirs, name, other)
        )
        if difference:
            return f"{path}/{name}: {difference}", []
        if stat.S_ISDIR(other.st_mode):
            directories.append(name)
    return "", directories


def _attributes(have: os.stat_result, want: os.stat_result) -> str:
    if stat.S_IFMT(have.st_mode) != stat.S_IFMT(want.st_mode):
        return "it is of another type"
    if have.st_mode != want.st_mode:
        return f"mode {stat.S_IMODE(have.st_mode):o} instead of {stat.S_IMODE(want.st_mode):o}"
    if (have.st_uid, have.st_gid) != (want.st_uid, want.st_gid):
        return f"owner {have.st_uid}:{have.st_gid} instead of {want.st_uid}:{want.st_gid}"
    if stat.S_ISDIR(want.st_mode):
        return ""
    if have.st_size != want.st_size:
        return f"{have.st_size} bytes instead of {want.st_size}"
    if have.st_rdev != want.st_rdev:
        return "another device number"
    if have.st_mtime_ns != want.st_mtime_ns and not stat.S_ISCHR(want.st_mode):
        return "another time of modification"  # a whiteout, a character device, has the time of its unpacking
    return ""


def _xattrs(have: int, want: int) -> str:
    return "" if get_xattrs(have) == get_xattrs(want) else "other extended attributes"


def _entry_xattrs(have: int, want: int, name: str) -> str:
    mine = get_xattrs(by_descriptor(have, name), follow_symlinks=False)
    other = get_xattrs(by_descriptor(want, name), follow_symlinks=False)
    return "" if mine == other else "other extended attributes"


def _content(have: int, want: int, name: str, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        same = os.readlink(name, dir_fd=have) == os.readlink(name, dir_fd=want)
        return "" if same else "it leads somewhere else"
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return ""
    with (
        open(os.open(name, _FILE, dir_fd=have), "rb", buffering=0) as mine,
        open(os.open(name, _FILE, dir_fd=want), "rb", buffering=0) as other,
    ):
        while data := other.read(_CHUNK):
            if mine.read(len(data)) != data:
                return "other content"
    return ""
