"""A writable directory that nobody writes to any more becomes, in its place, what its layer's archive would unpack to.

Then the directory is the layer: one rename, and no byte is copied. What an archive does not take goes: marks over nothing, sockets,
attributes of the overlay's own bookkeeping. No time stays behind `newest`: what was changed in a build is as old as that, whenever
it was built (reproducible-builds.org, SOURCE_DATE_EPOCH).
"""

from __future__ import annotations

import os
import stat

from sampan.kernel.files import by_descriptor, is_opaque
from sampan.kernel.tree import Descent
from sampan.store.archive import LEFT, OPAQUE, Archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.store.archive import Form
    from sampan.store.tarstream import TarEntry

_OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"


class DatedArchive(Archive):
    """An archive in which nothing is younger than `newest`, nanoseconds since 1970."""

    newest = 0

    def _described(self, path: bytes, kind: bytes, status: os.stat_result) -> TarEntry:
        entry = super()._described(path, kind, status)
        entry.mtime_ns = min(entry.mtime_ns, self.newest)
        return entry


def settle(top_fd: int, form: Form, newest: int) -> None:
    """Make the directory what `form` takes of it. Raises OSError; it is good for nothing then."""
    descent = Descent(os.dup(top_fd))
    try:
        pending = [_Level(descent.fd, b"", False, form, newest)]
        while pending:
            level = pending[-1]
            if level.directories:
                name = level.directories.pop()
                descent.enter(os.fsdecode(name))
                path = level.path + b"/" + name if level.path else name
                pending.append(_Level(descent.fd, path, level.covered, form, newest))
                continue
            # After everything in it: that was the last change of the directory itself.
            _date(descent.fd, "", os.fstat(descent.fd), newest)
            pending.pop()
            if pending:
                descent.leave()
    finally:
        descent.close()


class _Level:
    """A directory whose own entries are settled; what is in `directories` is not."""

    __slots__ = ("covered", "directories", "path")

    def __init__(self, fd: int, path: bytes, covered: bool, form: Form, newest: int) -> None:
        self.path = path
        self.covered, marks = form.enter(fd, path, covered)
        self.directories: list[bytes] = []
        _clean(fd, "", keep_opaque=OPAQUE in marks and is_opaque(fd))
        for text in os.listdir(fd):
            name = os.fsencode(text)
            status = os.stat(text, dir_fd=fd, follow_symlinks=False)
            judgement = form.judge(path + b"/" + name if path else name, status, self.covered)
            if judgement == LEFT or stat.S_ISSOCK(status.st_mode):
                os.unlink(text, dir_fd=fd)
            elif stat.S_ISDIR(status.st_mode):
                self.directories.append(name)
            else:
                _clean(fd, text)
                _date(fd, text, status, newest)


def _clean(fd: int, name: str, keep_opaque: bool = False) -> None:
    """Take away the attributes that no archive has."""
    place: int | bytes = by_descriptor(fd, name) if name else fd
    follow = not name
    try:
        attributes = os.listxattr(place, follow_symlinks=follow)
    except OSError:
        return  # a file system that has none
    for attribute in attributes:
        if attribute == "security.capability" or (keep_opaque and attribute == _OPAQUE_ATTRIBUTE):
            continue
        if attribute.startswith("user.") and not attribute.startswith("user.overlay."):
            continue
        try:
            os.removexattr(place, attribute, follow_symlinks=follow)
        except OSError:
            continue  # one that the system puts there (SELinux's label) stays


def _date(fd: int, name: str, status: os.stat_result, newest: int) -> None:
    if status.st_mtime_ns <= newest:
        return
    if name:
        os.utime(name, ns=(newest, newest), dir_fd=fd, follow_symlinks=False)
    else:
        os.utime(fd, ns=(newest, newest))
