"""Files as the kernel keeps them: written whole or not at all, locked, copied, marked as deleted for overlayfs.

Descriptors are taken instead of paths wherever the name may come from an image.
"""

from __future__ import annotations

import _struct
import errno
import fcntl
import os
import stat
import time

from sampan.kernel.libc import KernelError, by_machine, raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_SYS_SYNCFS = by_machine(306, 267)
_SYS_SYNC_FILE_RANGE = by_machine(277, 84)
_SYNC_FILE_RANGE_WRITE = 2
_FICLONE = 0x40049409  # _IOW(0x94, 9, int), ioctl_ficlone(2); the same number on all our machines
_CHUNK = 1 << 20
_SMALL = 1 << 14
_LARGEST = 1 << 26
_FLOCK = _struct.Struct("hhqqi4x")  # struct flock on 64 bits: l_type, l_whence, l_start, l_len, l_pid
_OPAQUE = "trusted.overlay.opaque"

WHITEOUT_DEVICE = 0
"""A character device 0:0 hides a name of the layers below (Documentation/filesystems/overlayfs.rst)."""


# Whole files


def write_atomic(path: str, data: bytes, mode: int = 0o600, sync: bool = True) -> None:
    """Put `data` at `path` so that a reader, now or after a crash, finds the old file or the whole new one.

    With `sync` the bytes are on disk before the name is, and the name before this returns. Raises OSError; a
    failure (a full disk) leaves the old file and no temporary one.
    """
    directory = os.path.dirname(path) or "."
    temporary = f"{directory}/.tmp-{os.getpid()}-{os.urandom(6).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            os.fchmod(fd, mode)  # The umask is the caller's; the mode is ours.
            write_all(fd, data)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass  # The rename was done already.
        raise
    if sync:
        sync_directory(directory)


def read_small(path: str) -> bytes:
    """The whole of one of our own small files, in an open, a read and a close.

    `open()` asks five things more about the file, which a listing of many containers pays for by the thousand. A regular
    file gives less than was asked for at its end only. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, _SMALL)
        if len(data) < _SMALL:
            return data
        return data + read_bounded(fd, _LARGEST)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """write(2) until all is written: a regular file takes less when a signal or a quota comes in between."""
    written = os.write(fd, data) if data else 0
    if written == len(data):
        return
    view = memoryview(data)[written:]
    while view:
        view = view[os.write(fd, view) :]


def sync_file(path: str) -> None:
    """Make the bytes of a file durable, not its name."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(fd: int) -> None:
    """syncfs(2): everything of the file system that `fd` is on. One call for a tree of many files."""
    raw(_SYS_SYNCFS, "syncfs", "", fd)


def begin_writing(fd: int) -> None:
    """sync_file_range(2): let the disk begin with what was written to a file; nothing is waited for, and nothing is promised.

    Raises `KernelError` where the disk fails (EIO, ENOSPC), not where there is no such call.
    """
    try:
        raw(_SYS_SYNC_FILE_RANGE, "sync_file_range", "", fd, 0, 0, _SYNC_FILE_RANGE_WRITE)
    except KernelError as e:
        if e.errno not in (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):
            raise


def read_bounded(fd: int, limit: int) -> bytes:
    """All of a file from the descriptor's position. Raises `KernelError` EFBIG if there are more than `limit` bytes.

    For files whose size somebody else decides (an image's /etc/group, a manifest).
    """
    parts: list[bytes] = []
    left = limit + 1
    while left:
        part = os.read(fd, min(left, _CHUNK))
        if not part:
            return b"".join(parts)
        parts.append(part)
        left -= len(part)
    raise KernelError(errno.EFBIG, "read")


# Copies


def clone_file(source_fd: int, target_fd: int) -> bool:
    """Share all blocks of a file (a reflink). False where the file systems cannot do it; nothing is changed then."""
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError as e:
        if e.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM):
            return False
        raise
    return True


def copy_range(source_fd: int, target_fd: int, offset: int, length: int) -> int:
    """Copy `length` bytes at `offset` to the same offset of the target; return the bytes copied (less at the file's end).

    copy_file_range(2) where the two file systems allow it, else pread(2) and pwrite(2). Raises OSError.
    """
    copied = 0
    while copied < length:
        at = offset + copied
        try:
            count = os.copy_file_range(source_fd, target_fd, min(length - copied, 1 << 30), at, at)
        except OSError as e:
            # EXDEV before Linux 5.19 and between unlike file systems, EINVAL for procfs and its kind.
            if e.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                raise
            return copied + _copy_by_reading(source_fd, target_fd, at, length - copied)
        if not count:
            break
        copied += count
    return copied


def _copy_by_reading(source_fd: int, target_fd: int, offset: int, length: int) -> int:
    copied = 0
    while copied < length:
        data = os.pread(source_fd, min(length - copied, _CHUNK), offset + copied)
        if not data:
            break
        view = memoryview(data)
        while view:
            written = os.pwrite(target_fd, view, offset + copied)
            copied += written
            view = view[written:]
    return copied


def copy_file(source_fd: int, target_fd: int, size: int) -> None:
    """Copy a regular file of `size` bytes into an empty one: a reflink if it can be, else its data, holes kept."""
    if size == 0 or clone_file(source_fd, target_fd):
        return
    os.ftruncate(target_fd, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(source_fd, position, os.SEEK_DATA)
        except OSError as e:
            if e.errno == errno.ENXIO:
                return  # Nothing but a hole up to the end.
            raise
        position = min(os.lseek(source_fd, start, os.SEEK_HOLE), size)
        copy_range(source_fd, target_fd, start, position - start)


# Extended attributes and overlayfs


def by_descriptor(fd: int, name: str | bytes = b"") -> bytes:
    """A path that leads to `name` in the directory `fd` (or to `fd` itself), for calls that take no descriptor.

    Needed for descriptors opened with O_PATH and for xattrs of symbolic links; /proc must be mounted.
    """
    base = b"/proc/self/fd/%d" % fd
    return base + b"/" + os.fsencode(name) if name else base


def get_xattrs(path: int | bytes, follow_symlinks: bool = True) -> dict[str, bytes]:
    """All extended attributes of a descriptor or a path; empty where the file system has none.

    Attributes that the caller may not read, or that vanish meanwhile, are left out.
    """
    try:
        names = os.listxattr(path, follow_symlinks=follow_symlinks)
    except OSError as e:
        if e.errno in (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES):
            return {}
        raise
    found: dict[str, bytes] = {}
    for name in names:
        try:
            found[name] = os.getxattr(path, name, follow_symlinks=follow_symlinks)
        except OSError as e:
            if e.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES):
                raise
    return found


def make_whiteout(dir_fd: int, name: str | bytes) -> None:
    """Hide `name` of the layers below. Raises FileExistsError if this layer has an entry of that name."""
    os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=dir_fd)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this is overlayfs' mark of a deleted name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == WHITEOUT_DEVICE


def set_opaque(fd: int) -> None:
    """Hide everything that the layers below have in this directory."""
    os.setxattr(fd, _OPAQUE, b"y")


def is_opaque(fd: int) -> bool:
    """Whether a directory hides what the layers below have in it."""
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError as e:
        if e.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


# Locks


class FileLock:
    """A lock on a file that the kernel drops when its holder dies: an open file description lock (fcntl(2)).

    It belongs to the open file and not to the process as POSIX record locks do: two threads exclude each other,
    and closing another descriptor of the file does not drop it. A forked child holds it along; an executed one
    does not (close-on-exec).
    """

    __slots__ = ("fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def acquire(cls, path: str, wait_seconds: float | None = None, shared: bool = False, make: bool = True) -> Self:
        """Lock `path`, made if it is absent and `make`; wait at most `wait_seconds` (None: without end, 0: not at all).

        The file that is locked is the one that has the name: if it was removed or replaced while we waited, the new
        one is locked instead. Raises BlockingIOError (EAGAIN) if somebody holds it for longer, FileNotFoundError
        if the directory is gone (without `make`: or the file), other OSErrors of open(2).
        """
        deadline = None if wait_seconds is None else time.monotonic() + wait_seconds
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
        while True:
            fd = os.open(path, flags, 0o600)
            try:
                _lock(fd, path, deadline, fcntl.F_RDLCK if shared else fcntl.F_WRLCK)
                if _names(path, fd):
                    return cls(path, fd)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def release(self) -> None:
        """Drop the lock; safe to call twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.release()


def _lock(fd: int, path: str, deadline: float | None, kind: int) -> None:
    request = _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0)
    if deadline is None:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, request)
        return
    pause = 0.001
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
            return
        except OSError as e:
            if e.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        left = deadline - time.monotonic()
        if left <= 0:
            raise BlockingIOError(errno.EAGAIN, "locked by another process", path)
        # A lock with a time limit cannot be waited for without a signal or a thread; most are held for milliseconds.
        time.sleep(min(pause, left))
        pause = min(pause * 2, 0.05)


def _names(path: str, fd: int) -> bool:
    """Whether `path` is still the file that `fd` is."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))


def lock_is_held(path: str) -> bool:
    """Whether anybody holds a lock on `path`, without taking it. False if the file is not there.

    Asks by F_OFD_GETLK, which sees open file description locks and POSIX record locks alike. The process that
    holds a *POSIX* lock on the file must not call this: closing any of its descriptors drops such a lock.
    """
    return lock_holder(path) is not None


def lock_holder(path: str) -> int | None:
    """The pid of the process that holds a lock on `path`, -1 for an open file description lock, which is no process'; None
    if nobody does, or the file is not there. As `lock_is_held`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else int(pid)


def lock_directory(path: str) -> int:
    """A descriptor of a directory that holds an flock(2) on it, -1 if somebody else does. Raises OSError.

    For directories that are being taken away: a record lock needs a file that can be written.
    """
    return lock_opened(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))


def lock_opened(fd: int) -> int:
    """The descriptor, which now holds an flock(2); -1, and it is closed, if somebody else does. Raises OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_young(path: str, seconds: float = 2.0) -> bool:
    """Whether something has changed so lately that whoever made it may be between two steps; also if it is gone."""
    try:
        return time.time() - os.lstat(path).st_ctime < seconds
    except FileNotFoundError:
        return True


def close_all(fds: list[int]) -> None:
    """Close every descriptor of a list and empty it; one that is closed already is a bug and raises OSError."""
    while fds:
        os.close(fds.pop())
