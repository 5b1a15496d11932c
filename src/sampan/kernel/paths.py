"""Paths that come from an image, a layer or a container: resolved by the kernel below a directory descriptor.

Nothing here builds a host path out of such a name. openat2(2) with RESOLVE_IN_ROOT takes the descriptor for
"/": absolute symbolic links start there and ".." stops there, also while somebody renames directories below
it. RESOLVE_NO_MAGICLINKS keeps /proc/PID/{exe,root,cwd,fd/N} from leading out.

Used by stage2 inside a container's namespaces too, so it imports nothing but os, errno, struct and `libc`.
"""

from __future__ import annotations

import _struct
import errno
import os

from sampan.kernel.libc import SYS_OPENAT2, KernelError, last_errno, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

PATH_MAX = 4096
"""Bytes of a path that one system call takes, its terminating NUL included (limits.h)."""

_SYMLINK_LIMIT = 40  # The kernel's own limit (path_resolution(7)).
_RACE_LIMIT = 256
_OPEN_HOW = _struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve


def open_in_root(
    root_fd: int,
    path: str | bytes,
    flags: int,
    mode: int = 0,
    *,
    nofollow_last: bool = False,
    no_symlinks: bool = False,
) -> int:
    """Open `path` as a process would whose root directory is `root_fd`; the descriptor is close-on-exec.

    An empty path means the root itself. `nofollow_last` adds O_NOFOLLOW: a last component that is a symbolic
    link gives ELOOP, or with O_PATH a descriptor of the link. `no_symlinks` refuses a link anywhere (ELOOP).

    Raises `KernelError`: what openat2(2) says, EINVAL for a NUL in the path, and EAGAIN if a rename or a mount
    elsewhere disturbed ".." 256 times in a row (the kernel gives up rather than guess where ".." leads).
    """
    name = encode(path)
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    if no_symlinks:
        resolve |= RESOLVE_NO_SYMLINKS
    if nofollow_last:
        flags |= os.O_NOFOLLOW
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_RACE_LIMIT):
        fd = syscall(SYS_OPENAT2, root_fd, name or b".", how, _OPEN_HOW.size)
        if fd >= 0:
            return fd
        number = last_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise KernelError(number, "openat2", name)


def open_parent_in_root(root_fd: int, path: str | bytes) -> tuple[int, bytes]:
    """The directory that holds `path`'s last component, as an O_PATH descriptor, and that component.

    The parent is resolved with links followed, the last component is not looked at. Raises `KernelError`, with
    EINVAL if the path is the root itself or ends in "..": such a path has no entry of its own.
    """
    components = split(path)
    if not components or components[-1] == b"..":
        raise KernelError(errno.EINVAL, "open", path)
    parent = open_in_root(root_fd, b"/".join(components[:-1]), os.O_PATH | os.O_DIRECTORY)
    return parent, components[-1]


def makedirs_in_root(root_fd: int, path: str | bytes, mode: int = 0o755, uid: int = 0, gid: int = 0) -> int:
    """Make `path` and the parents that are missing; return a descriptor of it, for its place alone: O_PATH if it was there.

    Links are followed inside the root, dangling ones too: with /var/run -> /run and no /run, the path
    /var/run/lock makes /run and /run/lock, as Docker does. New directories get exactly `mode`, `uid` and `gid`;
    those that exist are left alone. Raises `KernelError` (ENOTDIR where a component is no directory, ELOOP
    for a circle of links, or if somebody puts a link where a directory was a moment ago).
    """
    try:
        return open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except KernelError as e:
        if e.errno != errno.ENOENT:
            raise
    made = _make_last(root_fd, path, mode, uid, gid)
    if made >= 0:
        return made
    # `real` is a path without links, "." and "..": whatever is opened by it is opened with links refused, so
    # a directory that is swapped for a link under our hands makes an error and never a directory elsewhere.
    real = _follow(path, lambda parents, name: _enter_or_make(root_fd, parents, name, mode, uid, gid))
    return open_in_root(root_fd, b"/".join(real), os.O_PATH | os.O_DIRECTORY, no_symlinks=True)


def _make_last(root_fd: int, path: str | bytes, mode: int, uid: int, gid: int) -> int:
    """Make the directory if its last component alone is missing and no link is on the way, as it mostly is: -1 if it is not so."""
    *parents, name = split(path)
    if name == b"..":
        return -1
    try:
        parent = open_in_root(root_fd, b"/".join(parents), os.O_PATH | os.O_DIRECTORY, no_symlinks=True)
    except KernelError as e:
        if e.errno in (errno.ENOENT, errno.ELOOP):
            return -1
        raise
    try:
        return _make_in(parent, name, mode, uid, gid)  # -1: a link that leads to nothing, or somebody was faster
    finally:
        os.close(parent)


def resolve_in_root(root_fd: int, path: str | bytes) -> bytes:
    """Where `path` leads inside the root, as text without links, "." and ".."; b"" for the root itself.

    For a message or an answer: whoever opens it resolves it again. What is not there is taken for what it says, so that a
    link to nothing has an answer too. Raises `KernelError` (ELOOP for a circle of links).
    """
    return b"/".join(_follow(path, lambda parents, name: _link_target(root_fd, b"/".join((*parents, name)))))


def _follow(path: str | bytes, look: Callable[[list[bytes], bytes], bytes | None]) -> list[bytes]:
    """The components of the path without links, "." and "..". `look` gives the target of a link, None for anything else.

    Raises `KernelError` (ELOOP for a circle of links), and what `look` raises.
    """
    real: list[bytes] = []
    pending = split(path)[::-1]
    links = 0
    while pending:
        name = pending.pop()
        if name == b"..":
            del real[-1:]
            continue
        target = look(real, name)
        if target is None:
            real.append(name)
            continue
        links += 1
        if links > _SYMLINK_LIMIT:
            raise KernelError(errno.ELOOP, "openat2", path)
        if target.startswith(b"/"):
            real.clear()
        pending += split(target)[::-1]
    return real


def _link_target(root_fd: int, path: bytes) -> bytes | None:
    """The target of a link at a path without links; None for what is no link or not there."""
    try:
        fd = open_in_root(root_fd, path, os.O_PATH, nofollow_last=True, no_symlinks=True)
    except KernelError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        return os.readlink(b"", dir_fd=fd)
    except OSError:
        return None  # ENOENT or EINVAL by kernel version: no link.
    finally:
        os.close(fd)


def _enter_or_make(root_fd: int, parents: Sequence[bytes], name: bytes, mode: int, uid: int, gid: int) -> bytes | None:
    """Make sure that `name` is a directory of `parents`; the link's target instead if it is a symbolic link."""
    path = b"/".join((*parents, name))
    try:
        fd = open_in_root(root_fd, path, os.O_PATH, nofollow_last=True, no_symlinks=True)
    except KernelError as e:
        if e.errno != errno.ENOENT:
            raise
        _make_directory(root_fd, b"/".join(parents), name, mode, uid, gid)
        return None
    try:
        return os.readlink(b"", dir_fd=fd)  # An empty path reads the link that the descriptor is (readlinkat(2)).
    except OSError:  # ENOENT or EINVAL by kernel version: no link. A file among the parents shows up as ENOTDIR next.
        return None
    finally:
        os.close(fd)


def _make_directory(root_fd: int, parent: bytes, name: bytes, mode: int, uid: int, gid: int) -> None:
    parent_fd = open_in_root(root_fd, parent, os.O_PATH | os.O_DIRECTORY, no_symlinks=True)
    try:
        made = _make_in(parent_fd, name, mode, uid, gid)
    finally:
        os.close(parent_fd)
    if made >= 0:
        os.close(made)


def _make_in(parent: int, name: bytes, mode: int, uid: int, gid: int) -> int:
    """Make a directory in another one, and open it; -1 if something is there: if it is a link, the next step refuses or follows it."""
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return -1
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if uid or gid:
            os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)  # Past the umask, and after chown, which clears set-id bits.
    except BaseException:
        os.close(fd)
        raise
    return fd


def encode(path: str | bytes) -> bytes:
    """The path as bytes (surrogateescape). Raises `KernelError` EINVAL for a NUL, which C would take for the end."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise KernelError(errno.EINVAL, "open", name)
    return name


def split(path: str | bytes) -> list[bytes]:
    """The components of a path without empty ones and "."; ".." stays, because it means what the kernel makes of it."""
    return [part for part in encode(path).split(b"/") if part and part != b"."]


def clean(path: str | bytes) -> bytes:
    """The path relative to a root, by its text alone: no leading "/", no "." and no ".."; b"" for the root.

    ".." takes the component before it away and stops at the root, as Go's `filepath.Clean("/" + path)` has it.
    """
    parts: list[bytes] = []
    for part in split(path):
        if part == b"..":
            del parts[-1:]
        else:
            parts.append(part)
    return b"/".join(parts)
