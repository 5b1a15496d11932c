"""Roots of mount namespaces as descriptors: of one that somebody lives in, or of one that is made for us alone.

A descriptor of a mount namespace keeps it, with all of its mounts as they are, also when nobody lives in it any more; the
last one that is closed takes it away. So no process and no thread has to stay inside, and nothing is left by one that is killed.
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import mount, namespaces
from sampan.kernel.libc import KernelError, buffer, by_machine, raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SYS_STATX = by_machine(332, 291)
_STATX_SIZE = 256
_STATX_ATTR_MOUNT_ROOT = 0x2000
_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def of_namespace(namespace_fd: int) -> int:
    """A descriptor of the root of a mount namespace (O_PATH).

    Not /proc/PID/root, which is where that process has changed its root to: a program may have called chroot(2).
    """

    def enter() -> int:
        # In here nothing but this: what this thread would open or load by a path would be of that namespace.
        namespaces.setns(namespace_fd, namespaces.CLONE_NEWNS)
        return os.open("/", _ROOT)

    return namespaces.in_thread(enter)


def of_new_namespace(attach: Callable[[], int]) -> tuple[int, int]:
    """Make a mount namespace of the mounts that `attach` makes; descriptors of its root (O_PATH) and of itself.

    `attach` runs in a private copy of our own namespace, and returns a mount that it has attached there, with whatever is
    attached to that. Nothing else of the copy is kept, so that it holds no mount of the host.
    """

    def build() -> tuple[int, int]:
        root = attach()
        try:
            namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _let_go_of_host(root)
            except BaseException:
                os.close(namespace)
                raise
        except BaseException:
            os.close(root)
            raise
        return root, namespace

    return namespaces.in_private_mounts(build)


def _let_go_of_host(root: int) -> None:
    old = os.open("/", _ROOT)
    try:
        os.fchdir(root)
        mount.pivot_root(".", ".")
        os.fchdir(old)
        mount.umount(".", mount.MNT_DETACH)
    except KernelError as e:
        # A host that runs from an initramfs, whose root cannot be pivoted from: its mounts stay in the copy, unseen.
        if e.errno != errno.EINVAL:
            raise
    finally:
        os.close(old)


def mount_id(fd: int) -> int:
    """The number of the mount that a descriptor is on (proc_pid_fdinfo(5)); two mounts of one file system have two."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        for line in file:
            name, _, value = line.partition(b":")
            if name == b"mnt_id":
                return int(value)
    raise KernelError(errno.ENOSYS, "fdinfo", str(fd))


def is_mount_point(dir_fd: int, name: bytes) -> bool:
    """Whether something is mounted on a name of a directory, in whichever mount namespace the directory is (statx(2), Linux 5.8).

    To be asked before a name is removed: the kernel refuses that (EBUSY) for mounts of our own namespace only, and takes
    away those of others. Raises `KernelError` (ENOENT).
    """
    found = buffer(_STATX_SIZE)
    raw(_SYS_STATX, "statx", name, dir_fd, name, mount.AT_SYMLINK_NOFOLLOW, 0, found)
    return bool(int.from_bytes(found.raw[8:16], "little") & _STATX_ATTR_MOUNT_ROOT)
