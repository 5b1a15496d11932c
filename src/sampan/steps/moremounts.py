"""Steps of mounts that only OCI configurations have: id-mapped by maps of their own, filled from the image, changed afterwards."""

from __future__ import annotations

import errno
import os
import stat

from sampan.kernel import mount, paths, tree
from sampan.kernel.libc import KernelError
from sampan.steps.base import Context, Step, StepError
from sampan.steps.mounts import attach_filesystem
from sampan.steps.terminal import options_text


class MapMount(Step):
    """Show the owners in the detached mount `name` as the user namespace `namespace` maps them."""

    name: str
    source: str
    namespace: str
    recursive: bool = False

    def describe(self) -> str:
        return f"id-map {self.source}{' with submounts' if self.recursive else ''} by {self.namespace}"

    def run(self, ctx: Context) -> None:
        try:
            mount.map_ids(ctx.fds[self.name], ctx.fds[self.namespace], self.recursive)
        except KernelError as e:
            if e.errno in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP):
                raise StepError(
                    f"{self.source} cannot be id-mapped ({os.strerror(e.errno).lower()}): "
                    "it takes Linux 5.12 and a file system that can (ext4, xfs, btrfs, tmpfs since 6.3)"
                ) from None
            raise


class BuildDevices(Step):
    """Make device nodes in a detached tmpfs of the host's, and keep each as a mount of its own, "device:PATH".

    A user namespace cannot make nodes, and a file system that it mounts itself does not open them; those of the host's it can.
    devices: path, type, major, minor, mode, uid, gid as the host counts.
    """

    devices: tuple[tuple[str, str, int, int, int, int, int], ...]

    def describe(self) -> str:
        return f"fsopen tmpfs, mknod {', '.join(d[0] for d in self.devices)}"

    def run(self, ctx: Context) -> None:
        directory = mount.new_filesystem("tmpfs", (("mode", "755"),), mount.MOUNT_ATTR_NOSUID)
        try:
            for number, (path, kind, major, minor, mode, uid, gid) in enumerate(self.devices):
                name = str(number)
                bits = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[kind]
                os.mknod(name, bits | mode, os.makedev(major, minor), dir_fd=directory)
                os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
                ctx.put(f"device:{path}", mount.clone_tree(directory, name))
        finally:
            os.close(directory)


class MountWithCopy(Step):
    """Make a new file system with a copy of what is at its place, then attach it there (tmpcopyup)."""

    fstype: str
    target: str
    options: tuple[tuple[str, str], ...] = ()
    attributes: int = 0
    source: str = ""

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}{options_text(self.options, self.attributes)}, a copy of what is there"

    def run(self, ctx: Context) -> None:
        # Read-only when it is full.
        fd = mount.new_filesystem(self.fstype, list(self.options), self.attributes & ~1, self.source)
        try:
            try:
                below = paths.open_in_root(ctx.root(), self.target, os.O_RDONLY | os.O_DIRECTORY)
            except KernelError as e:
                if e.errno != errno.ENOENT:
                    raise
            else:
                # What fsmount gives can be attached, and not be read or changed.
                inside = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
                try:
                    tree.copy_tree(below, inside)
                    if not any(key == "mode" for key, _ in self.options):
                        os.fchmod(inside, stat.S_IMODE(os.fstat(below).st_mode))
                finally:
                    os.close(inside)
                    os.close(below)
            attach_filesystem(ctx, fd, self.fstype, self.target)
            if self.attributes & 1:
                mount.set_attributes(fd, 1)
        finally:
            os.close(fd)


class Adjust(Step):
    """Give the mount at a place its propagation, and what holds for the mounts on it too."""

    target: str
    propagation: str = ""
    deep: int = 0
    deep_clear: int = 0

    def describe(self) -> str:
        return f"mount_setattr of {self.target}{options_text((), self.deep)} {self.propagation}".rstrip()

    def run(self, ctx: Context) -> None:
        place = paths.open_in_root(ctx.root(), self.target, os.O_PATH)
        try:
            if self.propagation:
                mount.propagate(place, self.propagation)
            if self.deep or self.deep_clear:
                mount.set_attributes(place, self.deep, recursive=True, clear=self.deep_clear)
        finally:
            os.close(place)


class Remount(Step):
    """Change the attributes of the mount that is at a place already ("remount")."""

    target: str
    attributes: int
    clear: int = 0

    def describe(self) -> str:
        return f"remount {self.target}{options_text((), self.attributes)}"

    def run(self, ctx: Context) -> None:
        place = paths.open_in_root(ctx.root(), self.target, os.O_PATH)
        try:
            mount.set_attributes(place, self.attributes, clear=self.clear)
        except KernelError as e:
            if e.errno == errno.EINVAL:
                raise StepError(f"remount: nothing is mounted at {self.target}") from None
            raise
        finally:
            os.close(place)
