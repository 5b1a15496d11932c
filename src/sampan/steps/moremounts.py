"""Steps of mounts that only OCI configurations have: id-mapped by maps of their own, filled from the image, changed afterwards."""

from __future__ import annotations

import errno
import os
import stat

from sampan.kernel import mount, namespaces, paths, tree
from sampan.kernel.libc import KernelError
from sampan.steps.base import Context, Step, StepError
from sampan.steps.mounts import KINDS, AttachMount, attach_filesystem, check_same_device
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
            for number, (_, kind, major, minor, mode, uid, gid) in enumerate(self.devices):
                name = str(number)
                os.mknod(name, KINDS[kind] | mode, os.makedev(major, minor), dir_fd=directory)
                os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
            # A part of a mount that is attached nowhere cannot be cloned before Linux 6.15: attached where nobody sees it.
            for (path, *_), node in zip(self.devices, namespaces.apart(lambda: self._nodes(directory)), strict=True):
                ctx.put(f"device:{path}", node)
        finally:
            os.close(directory)

    def _nodes(self, directory: int) -> list[int]:
        place = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mount.move_mount(directory, place)
        finally:
            os.close(place)
        nodes = [mount.clone_tree(directory, str(number)) for number in range(len(self.devices))]
        for node in nodes:
            mount.propagate(node, "rprivate")
        return nodes


class AttachDevice(AttachMount):
    """Attach a node of `BuildDevices`; what is at its place already has to be that very device."""

    kind: str = "c"
    major: int = 0
    minor: int = 0

    def run(self, ctx: Context) -> None:
        try:
            place = paths.open_in_root(ctx.root(), self.target, os.O_PATH, nofollow_last=True)
        except KernelError as e:
            if e.errno != errno.ENOENT:
                raise
        else:
            try:
                check_same_device(os.fstat(place), self.target, KINDS[self.kind], self.major, self.minor)
            finally:
                os.close(place)
        super().run(ctx)


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


_SUPERBLOCK = {"sync": 16, "mand": 64, "dirsync": 128, "iversion": 1 << 23, "lazytime": 1 << 25}
"""Options of a whole file system that are flags of mount(2); fsconfig(2) has words for all but "iversion"."""


class MountByFlags(Step):
    """Make a new file system by mount(2), for a flag that nothing else can give (iversion), and attach it at a place in the container."""

    fstype: str
    target: str
    options: tuple[tuple[str, str], ...] = ()
    attributes: int = 0
    source: str = ""

    def describe(self) -> str:
        return f"mount(2) {self.fstype} for {self.target}{options_text(self.options, self.attributes)}"

    def run(self, ctx: Context) -> None:
        # mount(2) attaches what it makes: in a mount namespace that nobody else sees.
        fd = namespaces.apart(self._make)
        try:
            attach_filesystem(ctx, fd, self.fstype, self.target)
        finally:
            os.close(fd)

    def _make(self) -> int:
        flags = sum(_SUPERBLOCK.get(key, 0) for key, _ in self.options)
        data = ",".join(f"{k}={v}" if v else k for k, v in self.options if k not in _SUPERBLOCK)
        mount.mount(self.source or self.fstype, "/", self.fstype, flags, data)
        # By its path: what the descriptor of / was opened for lies below it now.
        return mount.clone_tree_with("/..", self.attributes)


class BuildDisk(Step):
    """Make a mount of the file system on a block device, kept as `name`: on the host's side, for the container's rules on devices
    do not hold there, and say nothing of what is mounted for it.
    """

    name: str
    fstype: str
    source: str
    options: tuple[tuple[str, str], ...] = ()
    attributes: int = 0

    def describe(self) -> str:
        return f"fsopen and fsmount {self.fstype} of {self.source}{options_text(self.options, self.attributes)}"

    def run(self, ctx: Context) -> None:
        # "iversion" is how these file systems are anyhow, and no word of theirs.
        options = [(key, value) for key, value in self.options if key != "iversion"]
        if self.attributes & mount.MOUNT_ATTR_RDONLY:
            # The file system too, as mount(8) has it: its disk may be one that cannot be written to.
            options.append(("ro", ""))
        ctx.put(self.name, mount.new_filesystem(self.fstype, options, self.attributes, self.source))


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
