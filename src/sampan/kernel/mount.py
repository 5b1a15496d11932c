"""mount(2) and the descriptor-based mount calls that followed it (fsopen(2), open_tree(2), move_mount(2)).

A mount made by `fsmount` or `open_tree(OPEN_TREE_CLONE)` is *detached*: it hangs in no directory, cannot be
seen or raced by anybody, and goes away with its last descriptor. sampan makes all of a container's mounts
so, and attaches them inside the container's own mount namespace.
"""

from __future__ import annotations

import _struct
import errno
import os

from sampan.kernel.libc import (
    SYS_FSCONFIG,
    SYS_FSMOUNT,
    SYS_FSOPEN,
    SYS_MOUNT_SETATTR,
    SYS_MOVE_MOUNT,
    SYS_OPEN_TREE,
    KernelError,
    buffer,
    by_machine,
    kernel_version,
    raw,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# mount(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_NOATIME, MS_BIND, MS_MOVE, MS_REC = 32, 1024, 4096, 8192, 16384
MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE = 1 << 18, 1 << 19, 1 << 20, 1 << 17
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

# mount_setattr(2), fsmount(2)
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_NOSYMFOLLOW = 0x10, 0x20, 0x200000
_MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_IDMAP = 0x100000

_SAME_BITS = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
"""Bits that are the same in all of them."""

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_SYS_FSTATFS = by_machine(138, 44)
_SYS_MOUNT = by_machine(165, 40)
_SYS_PIVOT_ROOT = by_machine(155, 41)
_SYS_UMOUNT2 = by_machine(166, 39)

_MOUNT_ATTR = _struct.Struct(
    "=QQQQ"
)  # struct mount_attr of mount_setattr(2): attr_set, attr_clr, propagation, userns_fd

PROC_SUPER_MAGIC = 0x9FA0
DEVPTS_SUPER_MAGIC = 0x1CD1


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises `KernelError` naming the target."""
    raw(
        _SYS_MOUNT,
        "mount",
        target,
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(fstype) or None,
        flags,
        os.fsencode(data) or None,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    raw(_SYS_UMOUNT2, "umount2", target, os.fsencode(target), flags)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2); `pivot_root(".", ".")` stacks the old root on the new one, to be unmounted next."""
    raw(_SYS_PIVOT_ROOT, "pivot_root", new_root, os.fsencode(new_root), os.fsencode(put_old))


def fsopen(fstype: str) -> int:
    """A file system context for `fstype`: a descriptor to configure, then to mount (fsopen(2))."""
    return raw(SYS_FSOPEN, "fsopen", fstype, fstype.encode(), FSOPEN_CLOEXEC)


def fsconfig_set_string(fd: int, key: str, value: str) -> None:
    """Set an option of a file system context (at most 255 bytes, a kernel limit)."""
    raw(SYS_FSCONFIG, "fsconfig", f"{key}={value}", fd, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)


def fsconfig_set_flag(fd: int, key: str) -> None:
    """Set an option that has no value."""
    raw(SYS_FSCONFIG, "fsconfig", key, fd, _FSCONFIG_SET_FLAG, key.encode(), None, 0)


def fsconfig_create(fd: int) -> None:
    """Make the superblock from the options set so far; errors of options show up here."""
    try:
        raw(SYS_FSCONFIG, "fsconfig", "", fd, _FSCONFIG_CMD_CREATE, None, None, 0)
    except KernelError as e:
        # The context keeps the kernel's own words ("e overlay: upperdir is in-use ..."): they say more than the errno does.
        words = _context_message(fd)
        if words:
            raise KernelError(e.errno or errno.EINVAL, "fsconfig", words) from None
        raise


def _context_message(fd: int) -> str:
    try:
        return os.read(fd, 4096).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def fsmount(fd: int, attributes: int = 0) -> int:
    """A detached mount of a created context, as a directory descriptor (fsmount(2))."""
    return raw(SYS_FSMOUNT, "fsmount", "", fd, FSMOUNT_CLOEXEC, attributes)


def has_filesystem(fstype: str) -> bool:
    """Whether the kernel knows the file system, its module loaded by this question if need be; yes where one may not ask."""
    try:
        os.close(fsopen(fstype))
    except KernelError as e:
        return e.errno != errno.ENODEV
    return True


def new_filesystem(fstype: str, options: Sequence[tuple[str, str]] = (), attributes: int = 0, source: str = "") -> int:
    """A detached mount of a new `fstype`; an option with an empty value is a flag.

    `source` is what mount(8) shows before "on"; without it the kernel shows "none".
    """
    context = fsopen(fstype)
    try:
        fsconfig_set_string(context, "source", source or fstype)
        for key, value in options:
            if value:
                fsconfig_set_string(context, key, value)
            else:
                fsconfig_set_flag(context, key)
        fsconfig_create(context)
        return fsmount(context, attributes)
    finally:
        os.close(context)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2): with `OPEN_TREE_CLONE` a detached bind mount; `AT_RECURSIVE` takes submounts along."""
    return raw(SYS_OPEN_TREE, "open_tree", path, dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)


def clone_tree(dirfd: int, path: str = "", recursive: bool = False) -> int:
    """A detached bind mount of what `path` (or, when empty, the descriptor itself) shows."""
    flags = OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    return open_tree(dirfd, path, flags)


def clone_tree_with(source: str, attributes: int, recursive: bool = False) -> int:
    """A detached bind mount of `source` with attributes, private: a mount that is made on it shows up nowhere else.

    Raises `KernelError`, with EINVAL before Linux 5.12 if there are attributes: see `clone_attached`.
    """
    fd = clone_tree(AT_FDCWD, source, recursive)
    try:
        # A copy of a shared mount is its peer, and would tell the host of each mount that is made on it.
        set_propagation(fd, MS_PRIVATE, recursive)
        if attributes:
            set_attributes(fd, attributes, recursive)
    except BaseException:
        os.close(fd)
        raise
    return fd


def clone_attached(source: str, attributes: int, recursive: bool = False) -> int:
    """The same for Linux 5.10 and 5.11, which change the attributes of attached mounts only.

    The mount is attached over its own source for a moment, so callers have to be in a private mount namespace. Mounts on
    it keep the attributes that they have, as in Docker on such a kernel.
    """
    mount(source, source, "", MS_BIND | (MS_REC if recursive else 0))
    try:
        place = os.open(source, os.O_PATH | os.O_CLOEXEC)
        try:
            set_attributes(place, attributes)
            return clone_tree(place, "", recursive)
        finally:
            os.close(place)
    finally:
        umount(source, MNT_DETACH)


def move_mount(mount_fd: int, target_fd: int, target: str = "") -> None:
    """Attach a detached mount to the place that `target_fd` (an O_PATH descriptor) is: no path is walked again."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target else MOVE_MOUNT_T_EMPTY_PATH)
    raw(SYS_MOVE_MOUNT, "move_mount", target, mount_fd, b"", target_fd, os.fsencode(target), flags)


def set_attributes(fd: int, attributes: int, recursive: bool = False, clear: int = 0) -> None:
    """Add attributes to a mount, and take those in `clear` away (mount_setattr(2), Linux 5.12).

    Before 5.12 by a bind remount through /proc/self/fd, which takes an attached mount (EINVAL for a detached one: see
    `clone_attached`) and one mount only, not those on it.
    """
    if (attributes | clear) & _MOUNT_ATTR__ATIME:
        clear |= (
            _MOUNT_ATTR__ATIME  # a number of three values and no bits: the kernel wants it cleared before it is set
        )
    try:
        _setattr(fd, recursive, set_=attributes, clear=clear)
    except KernelError as e:
        if e.errno != errno.ENOSYS:
            raise
        _remount(fd, attributes)


def _setattr(fd: int, recursive: bool, set_: int = 0, propagation: int = 0, userns_fd: int = 0, clear: int = 0) -> None:
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    attributes = _MOUNT_ATTR.pack(set_, clear, propagation, userns_fd)
    raw(SYS_MOUNT_SETATTR, "mount_setattr", "", fd, b"", flags, attributes, len(attributes))


def _remount(fd: int, attributes: int) -> None:
    # What is set stays set: a remount replaces all flags, and statvfs(3) has those four bits as mount(2) has them.
    kept = os.fstatvfs(fd).f_flag & _SAME_BITS
    times = MS_NOATIME if attributes & MOUNT_ATTR_NOATIME else 0
    mount("", f"/proc/self/fd/{fd}", "", MS_REMOUNT | MS_BIND | kept | attributes & _SAME_BITS | times)


def set_propagation(fd: int, propagation: int, recursive: bool = False) -> None:
    """Make a mount, detached or not, `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED` (mount_namespaces(7))."""
    try:
        _setattr(fd, recursive, propagation=propagation)
    except KernelError as e:
        if e.errno != errno.ENOSYS:
            raise
        mount("", f"/proc/self/fd/{fd}", "", propagation | (MS_REC if recursive else 0))


_PROPAGATION = {
    "private": ((MS_SLAVE, True), (MS_PRIVATE, False)),
    "rprivate": ((MS_PRIVATE, True),),
    "slave": ((MS_SLAVE, True),),
    "rslave": ((MS_SLAVE, True),),
    "shared": ((MS_SHARED, False),),
    "rshared": ((MS_SHARED, True),),
    "unbindable": ((MS_SLAVE, True), (MS_UNBINDABLE, False)),
    "runbindable": ((MS_UNBINDABLE, True),),
}
"""What each word does to a copy, which begins as a peer of what it is a copy of. Without "r" the mounts on it stay what they
are, but not peers, unless it is to be one itself: they would carry to the host what is mounted on them."""


def propagate(fd: int, word: str) -> None:
    """Give the copy of a mount the propagation that a word of `bind-propagation` names. Raises `KernelError`."""
    for flag, recursive in _PROPAGATION[word]:
        set_propagation(fd, flag, recursive)


def map_ids(fd: int, user_namespace_fd: int, recursive: bool = False) -> None:
    """Show the owners in a detached mount as a user namespace maps them (mount_setattr(2), MOUNT_ATTR_IDMAP, Linux 5.12)."""
    _setattr(fd, recursive, set_=MOUNT_ATTR_IDMAP, userns_fd=user_namespace_fd)


def clone_mapped(source: str, user_namespace_fd: int) -> int:
    """A detached bind mount whose owners are shown as a user namespace maps them. Raises `KernelError`."""
    fd = clone_tree_with(source, 0)
    try:
        map_ids(fd, user_namespace_fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


_OVERLAY_OPTIONS = (("index", "off"), ("metacopy", "off"), ("redirect_dir", "off"))
"""Set always: a host's module parameters must not decide how layers look on disk, and hostile layers may carry metacopy xattrs."""


def overlay(lower: Sequence[str], upper: str = "", work: str = "", attributes: int = 0, volatile: bool = False) -> int:
    """A detached overlay mount of `lower` (topmost first) under `upper`; read-only without `upper`.

    Layers are named one by one by `lowerdir+` (any number of them; Linux 6.7), before that by one `lowerdir`
    string where it fits fsconfig's 255 bytes, else by mount(2) with short names (see `_overlay_by_mount`).
    The choice goes by the kernel's version: an older kernel takes an unknown option without a word and
    refuses the whole mount later.
    `volatile`: its end does not write the upper layer to the disk, and the directory `work` is good for this one mount
    (overlayfs.rst, "Volatile mount"; Linux 5.10).
    Paths may hold any byte but NUL. Raises `KernelError` with the kernel's own message.
    """
    context = fsopen("overlay")
    try:
        if not _set_layers(context, lower, upper, work):
            return _overlay_by_mount(lower, upper, work, attributes, volatile)
        for key, value in (("source", "overlay"), *_OVERLAY_OPTIONS):
            fsconfig_set_string(context, key, value)
        if volatile:
            fsconfig_set_flag(context, "volatile")
        fsconfig_create(context)
        return fsmount(context, attributes)
    finally:
        os.close(context)


def _set_layers(context: int, lower: Sequence[str], upper: str, work: str) -> bool:
    """Give the layers to an overlay context; False where this kernel cannot take them so."""
    if max(len(os.fsencode(p)) for p in (upper, work, *lower)) > 255:
        return False
    if kernel_version() >= (6, 7):
        for path in lower:
            fsconfig_set_string(context, "lowerdir+", path)
    else:
        joined = ":".join(_escape(path) for path in lower)
        if len(os.fsencode(joined)) > 255 or "," in joined:
            return False
        fsconfig_set_string(context, "lowerdir", joined)
    if upper:
        fsconfig_set_string(context, "upperdir", upper)
        fsconfig_set_string(context, "workdir", work)
    return True


def _escape(path: str) -> str:
    """A path inside the old `lowerdir` option, where a colon separates (Documentation/filesystems/overlayfs.rst)."""
    return path.replace("\\", "\\\\").replace(":", "\\:")


def _overlay_by_mount(lower: Sequence[str], upper: str, work: str, attributes: int, volatile: bool) -> int:
    """The same by mount(2), for kernels without `lowerdir+`.

    mount(2) takes one page of options, so the layers are named by descriptor numbers relative to
    /proc/self/fd (a 100 layers fit in 400 bytes). The mount is attached for a moment on a directory of this
    process' own mount namespace and detached again at once: before Linux 6.7 callers have to be in a private
    one (`namespaces.private_mounts`, `namespaces.in_private_mounts`).
    """
    opened: list[int] = []
    try:

        def short(path: str) -> str:
            opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            return str(opened[-1])

        options = ["lowerdir=" + ":".join(short(p) for p in lower)]
        if upper:
            options += [f"upperdir={short(upper)}", f"workdir={short(work)}"]
        options += [f"{k}={v}" for k, v in _OVERLAY_OPTIONS]
        options += ["volatile"] * volatile
        place = upper or lower[0]
        back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.append(back)
        os.chdir("/proc/self/fd")
        try:
            mount(
                "overlay",
                place,
                "overlay",
                attributes & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC),
                ",".join(options),
            )
        finally:
            os.fchdir(back)
        try:
            return clone_tree(AT_FDCWD, place)
        finally:
            umount(place, MNT_DETACH)
    finally:
        for fd in opened:
            os.close(fd)


def filesystem_magic(fd: int) -> int:
    """The file system's magic number (fstatfs(2)): tells a real procfs from a look-alike."""
    found = buffer(256)
    raw(_SYS_FSTATFS, "fstatfs", "", fd, found)
    return int.from_bytes(found.raw[:8], "little", signed=False)
