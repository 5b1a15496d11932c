"""Steps that cut a mount namespace off from the host, and make the container's root its root."""

from __future__ import annotations

import errno
import os

from sampan.kernel import mount
from sampan.steps.base import Context, Step


class SeparateMounts(Step):
    """Make every mount of this new mount namespace a slave or private: nothing done here gets to the host."""

    propagation: str = "slave"

    def describe(self) -> str:
        return f"mount / recursively {self.propagation}"

    def run(self, ctx: Context) -> None:
        mount.mount("", "/", "", mount.MS_REC | _PROPAGATION[self.propagation])


_PROPAGATION = {
    "slave": mount.MS_SLAVE,
    "private": mount.MS_PRIVATE,
    "shared": mount.MS_SHARED,
    "unbindable": mount.MS_UNBINDABLE,
}


class PropagateRoot(Step):
    """Give the container's root, its own by now, the propagation that it is to have; with "r" all mounts on it."""

    word: str

    def describe(self) -> str:
        return f"mount / {self.word}"

    def run(self, ctx: Context) -> None:
        recursive = mount.MS_REC if self.word in ("rslave", "rprivate", "rshared", "runbindable") else 0
        mount.mount("", "/", "", recursive | _PROPAGATION[self.word[1:] if recursive else self.word])


class AttachRoot(Step):
    """Attach the detached root over a directory of ours, for pivot_root needs a place; private on the way.

    The parent mount of a new root must not be shared, or pivot_root would change the host (pivot_root(2)).
    """

    usual = False
    place: str

    def describe(self) -> str:
        return f"move_mount of the root file system to {self.place}"

    def run(self, ctx: Context) -> None:
        place = os.open(self.place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mount.move_mount(ctx.root(), place)
        finally:
            os.close(place)


class ReadOnlyRoot(Step):
    """Make the root mount read-only, not those on it."""

    def describe(self) -> str:
        return "remount the root read-only"

    def run(self, ctx: Context) -> None:
        mount.set_attributes(ctx.root(), mount.MOUNT_ATTR_RDONLY)


class DeadDevices(Step):
    """Let no device node on the root mount be opened; those in the container's /dev are on a mount of their own."""

    def describe(self) -> str:
        return "remount the root nodev"

    def run(self, ctx: Context) -> None:
        mount.set_attributes(ctx.root(), mount.MOUNT_ATTR_NODEV)


class PivotRoot(Step):
    """Make the container's root the root of this mount namespace and let go of the host's whole tree."""

    def describe(self) -> str:
        return "pivot_root, umount2 the old root (MNT_DETACH)"

    def run(self, ctx: Context) -> None:
        old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchdir(ctx.root())
            # "." twice stacks the old root on the new one, so that no directory of the image is needed for it.
            mount.pivot_root(".", ".")
            # Into the old one by name: "." is the new one, whose mounts may be shared with the host on purpose.
            os.fchdir(old)
        finally:
            os.close(old)
        # The old root still is shared with nothing below it changed; slave before detaching, so that the
        # unmount does not travel to the host.
        mount.mount("", ".", "", mount.MS_SLAVE | mount.MS_REC)
        mount.umount(".", mount.MNT_DETACH)
        os.chdir("/")

    def advice(self, errno_: int) -> str:
        if errno_ == errno.EINVAL:
            return "the current root may be an initramfs, which cannot be pivoted from: try --no-pivot"
        return super().advice(errno_)


class MoveRoot(Step):
    """--no-pivot: move the root mount over / and chroot into it, for hosts whose root is an initramfs."""

    def describe(self) -> str:
        return "mount --move the root over /, chroot"

    def run(self, ctx: Context) -> None:
        os.fchdir(ctx.root())
        mount.mount(".", "/", "", mount.MS_MOVE)
        os.chroot(".")
        os.chdir("/")
