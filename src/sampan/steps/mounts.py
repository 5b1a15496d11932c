"""Steps that make and attach mounts, and the nodes and links of /dev.

Mounts are made detached on the host's side ("stage1"), or, where they have to belong to a namespace of
the container (proc, sysfs, mqueue), by init itself ("stage2"). Either way they are attached through a
descriptor of the place, resolved below the container's root: no path is walked twice.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.kernel import mount, namespaces, paths
from sampan.kernel.libc import KernelError, kernel_version
from sampan.steps.base import Context, Step, StepError
from sampan.steps.terminal import options_text


class BuildOverlay(Step):
    """Join read-only layers and a writable one into a detached overlay mount, kept as `name`."""

    name: str
    lower: tuple[str, ...]
    upper: str
    work: str

    def describe(self) -> str:
        return f"fsopen overlay of {len(self.lower)} lower layers, upper {self.upper}"

    def run(self, ctx: Context) -> None:
        def build() -> int:
            return mount.overlay(self.lower, self.upper, self.work)

        # The fallback for older kernels attaches the mount for a moment: not in the host's namespace. And back, for a
        # bind that shares its mounts with the host is taken from the host's namespace.
        ctx.put(self.name, build() if kernel_version() >= (6, 7) else namespaces.apart(build))

    def advice(self, errno_: int) -> str:
        if errno_ == errno.ENODEV:
            return (
                "the kernel has no overlay file system: load the module (modprobe overlay) or use the vfs snapshotter"
            )
        if errno_ == errno.EINVAL:
            return "the store may lie on a file system that cannot hold an upper layer (another overlay): set --root to one that can, or use the vfs snapshotter"
        return super().advice(errno_)


class CloneTree(Step):
    """Take a host's file or directory as a detached bind mount, kept as `name`.

    attributes: of this mount. deep: of those on it too. propagation: between it and the mount that it is a copy of
    ("rprivate": none). subpath: below `source`, from which no link leads out.
    """

    name: str
    source: str
    recursive: bool = False
    attributes: int = 0
    deep: int = 0
    propagation: str = "rprivate"
    subpath: str = ""

    def describe(self) -> str:
        more = " with submounts" if self.recursive else ""
        more += " read-only all the way down" if self.deep else ""
        more += f" {self.propagation}" if self.propagation != "rprivate" else ""
        where = f"{self.source}, {self.subpath} in it," if self.subpath else self.source
        return f"open_tree clone of {where}{more}{options_text((), self.attributes)}"

    def run(self, ctx: Context) -> None:
        if self.attributes and kernel_version() < (5, 12):
            ctx.put(self.name, self._attached())
            return
        place = self._open()
        try:
            fd = mount.clone_tree(place, "", self.recursive)
        finally:
            os.close(place)
        ctx.put(self.name, fd)
        # First of all: until this is done a copy of a shared mount tells the host of each mount that is made on it.
        mount.propagate(fd, self.propagation)
        if self.attributes:
            mount.set_attributes(fd, self.attributes)
        if self.deep:
            mount.set_attributes(fd, self.deep, recursive=True)

    def _attached(self) -> int:
        """Before Linux 5.12 the mount is attached for a moment, in a mount namespace that nobody else sees."""
        if self.subpath or self.propagation not in ("rprivate", "private"):
            raise StepError(f"a read-only mount of {self.source} with a subpath or a propagation needs Linux 5.12")
        return namespaces.apart(lambda: mount.clone_attached(self.source, self.attributes, self.recursive))

    def _open(self) -> int:
        top = os.open(self.source, os.O_PATH | os.O_CLOEXEC)
        if not self.subpath:
            return top
        try:
            return _below(top, self.source, self.subpath)
        finally:
            os.close(top)

    def advice(self, errno_: int) -> str:
        if errno_ == errno.EINVAL:
            return (
                "the source may be on a mount that is unbindable (mount_namespaces(7)), or a mount of another namespace"
            )
        return super().advice(errno_)


def _below(top: int, source: str, subpath: str) -> int:
    """A path in a volume or an image, as an O_PATH descriptor; its content is a container's, so links stay inside."""
    try:
        return paths.open_in_root(top, subpath, os.O_PATH)
    except KernelError as e:
        reason = os.strerror(e.errno or 0).lower()
        code = 127 if e.errno == errno.ENOENT else 128
        raise StepError(f"cannot access path {source}/{subpath}: {reason}", code) from None


class BuildImage(Step):
    """Join an image's layers into a detached read-only mount, or take a directory or file of it, kept as `name`."""

    name: str
    lower: tuple[str, ...]
    subpath: str = ""

    def describe(self) -> str:
        where = f", {self.subpath} in it," if self.subpath else ""
        return f"read-only overlay of {len(self.lower)} layers of an image{where}"

    def run(self, ctx: Context) -> None:
        # The overlay of which a part is taken has to be attached (before Linux 6.15), where nobody sees it.
        ctx.put(self.name, namespaces.apart(self._build))
        mount.propagate(ctx.fds[self.name], "rprivate")

    def _build(self) -> int:
        if len(self.lower) == 1:
            whole = mount.clone_tree_with(self.lower[0], mount.MOUNT_ATTR_RDONLY)
        else:
            whole = mount.overlay(self.lower, attributes=mount.MOUNT_ATTR_RDONLY)
        if not self.subpath:
            return whole
        try:
            place = os.open(self.lower[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                mount.move_mount(whole, place)
            finally:
                os.close(place)
            part = _below(whole, "the image", self.subpath)
            try:
                return mount.clone_tree(part)
            finally:
                os.close(part)
        finally:
            os.close(whole)


class MatchUser(Step):
    """Let the container's user take the place of `uid` and `gid` in a detached mount: what belongs to one belongs to the other.

    All other owners are shown as nobody, and nobody else can make files there (mount_setattr(2), MOUNT_ATTR_IDMAP).
    """

    name: str
    source: str
    uid: int
    gid: int

    def describe(self) -> str:
        return f"id-map {self.source}: its user {self.uid}:{self.gid} is the container's"

    def run(self, ctx: Context) -> None:
        if (ctx.uid, ctx.gid) == (self.uid, self.gid):
            return
        namespace = namespaces.user_namespace(f"{self.uid} {ctx.uid} 1", f"{self.gid} {ctx.gid} 1")
        try:
            mount.map_ids(ctx.fds[self.name], namespace)
        except KernelError as e:
            if e.errno in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP):
                raise StepError(
                    f"match-user: {self.source} cannot be id-mapped ({os.strerror(e.errno).lower()}): "
                    "it takes Linux 5.12 and a file system that can (ext4, xfs, btrfs, tmpfs since 6.3, not overlay)"
                ) from None
            raise
        finally:
            os.close(namespace)


class BorrowTree(Step):
    """Take a directory of another container as a detached bind mount (the /dev/shm of a shared IPC namespace).

    A tree can be cloned only from inside its mount namespace: go there, take it, come back.
    """

    name: str
    namespace: str
    path: str

    def describe(self) -> str:
        return f"open_tree clone of {self.path} in the mount namespace of the container that is joined"

    def run(self, ctx: Context) -> None:
        own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.setns(ctx.fds[self.namespace], namespaces.CLONE_NEWNS)
            try:
                ctx.put(self.name, mount.clone_tree_with(self.path, 0))
            finally:
                namespaces.setns(own, namespaces.CLONE_NEWNS)
        finally:
            os.close(own)


class SeparateMounts(Step):
    """Make every mount of this new mount namespace a slave or private: nothing done here gets to the host."""

    propagation: str = "slave"

    def describe(self) -> str:
        return f"mount / recursively {self.propagation}"

    def run(self, ctx: Context) -> None:
        flag = {"slave": mount.MS_SLAVE, "private": mount.MS_PRIVATE, "shared": mount.MS_SHARED}[self.propagation]
        mount.mount("", "/", "", mount.MS_REC | flag)


class AttachRoot(Step):
    """Attach the detached root over a directory of ours, for pivot_root needs a place; private on the way.

    The parent mount of a new root must not be shared, or pivot_root would change the host (pivot_root(2)).
    """

    place: str

    def describe(self) -> str:
        return f"move_mount of the root file system to {self.place}"

    def run(self, ctx: Context) -> None:
        place = os.open(self.place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mount.move_mount(ctx.root(), place)
        finally:
            os.close(place)


def _target(ctx: Context, path: str, directory: bool, make: bool) -> int:
    """An O_PATH descriptor of a mount point in the container's root, made if it is missing."""
    if directory:
        return (
            paths.makedirs_in_root(ctx.root(), path)
            if make
            else paths.open_in_root(ctx.root(), path, os.O_PATH | os.O_DIRECTORY)
        )
    try:
        return paths.open_in_root(ctx.root(), path, os.O_PATH)
    except KernelError as e:
        if e.errno != errno.ENOENT or not make:
            raise
    parent_path, _, name = path.rstrip("/").rpartition("/")
    parent = paths.makedirs_in_root(ctx.root(), parent_path)
    try:
        # O_EXCL|O_NOFOLLOW: a dangling link in its place makes an error and no file elsewhere.
        os.close(
            os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, 0o755, dir_fd=parent)
        )
        return paths.open_in_root(parent, name, os.O_PATH, nofollow_last=True)
    finally:
        os.close(parent)


class AttachMount(Step):
    """Attach the detached mount `name` at a place in the container."""

    name: str
    target: str

    def describe(self) -> str:
        return f"move_mount of {self.name} to {self.target}"

    def run(self, ctx: Context) -> None:
        fd = ctx.fds[self.name]
        directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        try:
            target = _target(ctx, self.target, directory, make=True)
        except KernelError as e:
            if e.errno == errno.ENOTDIR:
                raise self._unlike(directory) from None
            raise
        try:
            if stat.S_ISDIR(os.fstat(target).st_mode) != directory:
                raise self._unlike(directory)
            _check_proc(ctx, fd, target)
            mount.move_mount(fd, target)
        finally:
            os.close(target)

    def _unlike(self, directory: bool) -> StepError:
        kinds = ("a directory", "a file") if directory else ("a file", "a directory")
        return StepError(
            f"not a directory: cannot mount {kinds[0]} onto {kinds[1]} at {self.target!r}: "
            "are you trying to mount a directory onto a file (or vice-versa)? check if the specified host path exists and is the expected type"
        )


_PROC_FILES = frozenset(
    (
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/net/dev",
        "/proc/slabinfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/uptime",
    )
)
"""What programs such as lxcfs put in the place of procfs' own; the rest of it says who a process is, and is not to be faked."""


def _check_proc(ctx: Context, fd: int, target: int) -> None:
    """Refuse a mount over /proc or below it, wherever the path came from, as runc does (class CVE-2019-16884, CVE-2025-52881)."""
    root = os.readlink(f"/proc/self/fd/{ctx.root()}")
    path = "/" + os.readlink(f"/proc/self/fd/{target}").removeprefix(root).lstrip("/")
    below = path.startswith("/proc/") or mount.filesystem_magic(target) == mount.PROC_SUPER_MAGIC
    if path in _PROC_FILES or not (path == "/proc" or below):
        return
    if path == "/proc":
        if mount.filesystem_magic(fd) == mount.PROC_SUPER_MAGIC:
            return
        raise StepError('"/proc" cannot be mounted because it is not of type proc')
    raise StepError(f'"{path}" cannot be mounted because it is inside /proc')


class MountFilesystem(Step):
    """Make a new file system and attach it at a place in the container at once."""

    fstype: str
    target: str
    options: tuple[tuple[str, str], ...] = ()
    attributes: int = 0
    source: str = ""

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}{options_text(self.options, self.attributes)}"

    def run(self, ctx: Context) -> None:
        fd = mount.new_filesystem(self.fstype, [(k, v) for k, v in self.options], self.attributes, self.source)
        try:
            self._attach(ctx, fd)
        finally:
            os.close(fd)

    def _attach(self, ctx: Context, fd: int) -> None:
        # /proc and /sys are verified below a directory that no link of the image leads away from: an image with
        # /proc -> /elsewhere is refused (class CVE-2019-16884), as runc does.
        if self.fstype in ("proc", "sysfs"):
            os.close(paths.makedirs_in_root(ctx.root(), self.target))
            try:
                target = paths.open_in_root(ctx.root(), self.target, os.O_PATH | os.O_DIRECTORY, no_symlinks=True)
            except KernelError as e:
                if e.errno == errno.ELOOP:
                    raise StepError(
                        f"{self.target} of the image is a symbolic link: refusing to mount {self.fstype} through it"
                    ) from None
                raise
        else:
            target = _target(ctx, self.target, directory=True, make=True)
        try:
            mount.move_mount(fd, target)
        finally:
            os.close(target)


class BindOntoItself(Step):
    """Make an existing path of the container read-only by a bind of itself; a path that is not there is passed over."""

    target: str

    def describe(self) -> str:
        return f"bind {self.target} onto itself, read-only"

    def run(self, ctx: Context) -> None:
        try:
            target = paths.open_in_root(ctx.root(), self.target, os.O_PATH)
        except KernelError as e:
            if e.errno in (errno.ENOENT, errno.ENOTDIR):
                return
            raise
        try:
            tree = mount.clone_tree(target, recursive=True)
            try:
                # Attached first: before Linux 5.12 only an attached mount can be remounted.
                mount.move_mount(tree, target)
                _read_only(tree)
            finally:
                os.close(tree)
        finally:
            os.close(target)


def _read_only(fd: int) -> None:
    try:
        mount.set_attributes(fd, mount.MOUNT_ATTR_RDONLY, recursive=True)
    except KernelError as e:
        if e.errno != errno.ENOSYS:
            raise
        mount.set_attributes(fd, mount.MOUNT_ATTR_RDONLY)


class MaskPath(Step):
    """Hide a path: /dev/null over a file, an empty read-only tmpfs over a directory; nothing where it is not there.

    The null device is the container's own, verified by its number: an image or a racing process may have
    put something else there (CVE-2025-31133).
    """

    target: str

    def describe(self) -> str:
        return f"mask {self.target}"

    def run(self, ctx: Context) -> None:
        try:
            target = paths.open_in_root(ctx.root(), self.target, os.O_PATH)
        except KernelError as e:
            if e.errno in (errno.ENOENT, errno.ENOTDIR):
                return
            raise
        try:
            if stat.S_ISDIR(os.fstat(target).st_mode):
                cover = mount.new_filesystem("tmpfs", (("nr_blocks", "1"), ("nr_inodes", "1")), mount.MOUNT_ATTR_RDONLY)
            else:
                cover = self._null(ctx)
            try:
                mount.move_mount(cover, target)
            finally:
                os.close(cover)
        finally:
            os.close(target)

    def _null(self, ctx: Context) -> int:
        null = paths.open_in_root(ctx.root(), "/dev/null", os.O_PATH, no_symlinks=True)
        try:
            status = os.fstat(null)
            if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
                raise StepError("/dev/null of the container is not the null device")
            return mount.clone_tree(null)
        finally:
            os.close(null)


class MakeDevice(Step):
    """Make a device node in the container's /dev, with its owner and mode whatever the umask."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0

    def describe(self) -> str:
        return f"mknod {self.path} {self.kind} {self.major}:{self.minor} mode {self.mode:o}"

    def run(self, ctx: Context) -> None:
        parent_path, _, name = self.path.rpartition("/")
        parent = paths.makedirs_in_root(ctx.root(), parent_path)
        try:
            kind = {"c": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[self.kind]
            # The umask is 0 since the monitor began (see shim.monitor), so mknod gives the mode as it is.
            os.mknod(name, kind | self.mode, os.makedev(self.major, self.minor), dir_fd=parent)
            if self.uid or self.gid:
                os.chown(name, self.uid, self.gid, dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            pass  # a directory of /dev that two lists name
        finally:
            os.close(parent)

    def advice(self, errno_: int) -> str:
        if errno_ == errno.EPERM:
            return "making device nodes needs CAP_MKNOD and a file system that is not mounted nodev"
        return super().advice(errno_)


class MakeLink(Step):
    """Make a symbolic link in the container; one that exists stays."""

    path: str
    points_to: str

    def describe(self) -> str:
        return f"symlink {self.path} -> {self.points_to}"

    def run(self, ctx: Context) -> None:
        parent_path, _, name = self.path.rpartition("/")
        parent = paths.makedirs_in_root(ctx.root(), parent_path)
        try:
            os.symlink(self.points_to, name, dir_fd=parent)
        except FileExistsError:
            pass
        finally:
            os.close(parent)


class AttachConsole(Step):
    """Bind the pty's peer over /dev/console."""

    def describe(self) -> str:
        return "bind the pty to /dev/console"

    def run(self, ctx: Context) -> None:
        console = _target(ctx, "/dev/console", directory=False, make=True)
        try:
            tree = mount.clone_tree(ctx.fds["console"])
            try:
                mount.move_mount(tree, console)
            finally:
                os.close(tree)
        finally:
            os.close(console)


class SealMount(Step):
    """Make the mount at a path of the container read-only, not those on it."""

    target: str

    def describe(self) -> str:
        return f"remount {self.target} read-only"

    def run(self, ctx: Context) -> None:
        target = paths.open_in_root(ctx.root(), self.target, os.O_PATH | os.O_DIRECTORY)
        try:
            mount.set_attributes(target, mount.MOUNT_ATTR_RDONLY)
        finally:
            os.close(target)


class ReadOnlyRoot(Step):
    """Make the root mount read-only, not those on it."""

    def describe(self) -> str:
        return "remount the root read-only"

    def run(self, ctx: Context) -> None:
        mount.set_attributes(ctx.root(), mount.MOUNT_ATTR_RDONLY)


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
