"""Steps that attach mounts in the container, and make the nodes and links of its /dev.

What is attached was made detached on the host's side (`sources`) or, where it has to belong to a namespace of
the container (proc, sysfs, mqueue), by init itself ("stage2"). Either way it is attached through a
descriptor of the place, resolved below the container's root: no path is walked twice.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.kernel import mount, paths
from sampan.kernel.libc import KernelError
from sampan.steps.base import Context, Step, StepError
from sampan.steps.terminal import options_text


def mount_point(ctx: Context, path: str, directory: bool, make: bool, follow: bool = True) -> int:
    """An O_PATH descriptor of a mount point in the container's root, made if it is missing; without `follow` no link."""
    if directory:
        return (
            paths.makedirs_in_root(ctx.root(), path)
            if make
            else paths.open_in_root(ctx.root(), path, os.O_PATH | os.O_DIRECTORY)
        )
    try:
        return paths.open_in_root(ctx.root(), path, os.O_PATH, nofollow_last=not follow)
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


def place_within(ctx: Context, within: str, path: str) -> tuple[int, str]:
    """The descriptor and the name by which a directory is made at `path`, and it is made if it is missing.

    within: as all steps here have it, the name of a file system that they have made and attached where the path's parent is, and in which nobody
    else has made anything: there is no path to walk, and no link to follow, which is most of what it takes to mount something.
    """
    top, name = ctx.fds[within], path.rpartition("/")[2]
    try:
        os.mkdir(name, 0o755, dir_fd=top)
    except FileExistsError:
        pass  # two mounts at one place
    return top, name


class AttachMount(Step):
    """Attach the detached mount `name` at a place in the container. within: see `place_within`."""

    name: str
    target: str
    within: str = ""

    def describe(self) -> str:
        return f"move_mount of {self.name} to {self.target}"

    def run(self, ctx: Context) -> None:
        fd = ctx.fds[self.name]
        if self.within:
            mount.move_mount(fd, *place_within(ctx, self.within, self.target))
            return
        directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        try:
            target = mount_point(ctx, self.target, directory, make=True)
        except OSError as e:
            if e.errno == errno.ENOTDIR:
                raise self._unlike(directory) from None
            if self.target.startswith("/proc/"):
                # procfs lets nobody make a name in it.
                raise StepError(_inside_proc(self.target)) from None
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
    raise StepError(_inside_proc(path))


def _inside_proc(path: str) -> str:
    return f'"{path}" cannot be mounted because it is inside /proc'


class MountFilesystem(Step):
    """Make a new file system and attach it at a place in the container at once.

    keep: a name for its descriptor, "" if no later step needs it. within: see `place_within`.
    """

    fstype: str
    target: str
    options: tuple[tuple[str, str], ...] = ()
    attributes: int = 0
    source: str = ""
    keep: str = ""
    within: str = ""

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}{options_text(self.options, self.attributes)}"

    def run(self, ctx: Context) -> None:
        fd = mount.new_filesystem(self.fstype, [(k, v) for k, v in self.options], self.attributes, self.source)
        try:
            if self.within:
                mount.move_mount(fd, *place_within(ctx, self.within, self.target))
            else:
                attach_filesystem(ctx, fd, self.fstype, self.target)
            if self.keep:
                ctx.put(self.keep, os.dup(fd))
        finally:
            os.close(fd)


def attach_filesystem(ctx: Context, fd: int, fstype: str, place: str) -> None:
    """Attach a new file system at a place of the container.

    /proc and /sys are verified below a directory that no link of the image leads away from: an image with
    /proc -> /elsewhere is refused (class CVE-2019-16884), as runc does.
    """
    if fstype in ("proc", "sysfs"):
        os.close(paths.makedirs_in_root(ctx.root(), place))
        try:
            target = paths.open_in_root(ctx.root(), place, os.O_PATH | os.O_DIRECTORY, no_symlinks=True)
        except KernelError as e:
            if e.errno == errno.ELOOP:
                raise StepError(
                    f"{place} of the image is a symbolic link: refusing to mount {fstype} through it"
                ) from None
            raise
    else:
        target = mount_point(ctx, place, directory=True, make=True)
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


def _parent(ctx: Context, path: str, within: str) -> tuple[int, str]:
    """A descriptor of the directory in which something is to be made, made itself if it is missing, and the name in it."""
    parent, _, name = path.rpartition("/")
    return (os.dup(ctx.fds[within]) if within else paths.makedirs_in_root(ctx.root(), parent)), name


KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
"""A device's type by its letter (config-linux.md, "Devices")."""


def check_same_device(found: os.stat_result, path: str, kind: int, major: int, minor: int) -> None:
    """Raise `StepError` unless what is found at a device's place is that device: another file is neither hidden nor taken for it."""
    number = os.makedev(major, minor) if kind != stat.S_IFIFO else found.st_rdev
    if (stat.S_IFMT(found.st_mode), found.st_rdev) != (kind, number):
        raise StepError(
            f"cannot make the device {path}: another file is there already: remove it, or choose another path"
        )


class MakeDevice(Step):
    """Make a device node in the container's /dev, with its owner and mode whatever the umask."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    within: str = ""

    def describe(self) -> str:
        return f"mknod {self.path} {self.kind} {self.major}:{self.minor} mode {self.mode:o}"

    def run(self, ctx: Context) -> None:
        parent, name = _parent(ctx, self.path, self.within)
        try:
            kind = KINDS[self.kind]
            # The umask is 0 since the monitor began (see shim.monitor), so mknod gives the mode as it is.
            try:
                os.mknod(name, kind | self.mode, os.makedev(self.major, self.minor), dir_fd=parent)
            except PermissionError:
                self._borrow(parent, name)
                return
            if self.uid or self.gid:
                os.chown(name, self.uid, self.gid, dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            check_same_device(there, self.path, KINDS[self.kind], self.major, self.minor)
        finally:
            os.close(parent)

    def _borrow(self, parent: int, name: str) -> None:
        """In a user namespace no node can be made: the host's own is bound here, if it is the one that is meant."""
        node = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(node).st_rdev != os.makedev(self.major, self.minor):
                raise StepError(f"mknod {self.path}: operation not permitted, and the host has another device there")
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
            tree, place = mount.clone_tree(node), os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                mount.move_mount(tree, place)
            finally:
                os.close(tree)
                os.close(place)
        finally:
            os.close(node)

    def advice(self, errno_: int) -> str:
        if errno_ == errno.EPERM:
            return "making device nodes needs CAP_MKNOD and a file system that is not mounted nodev"
        return super().advice(errno_)


class MakeLink(Step):
    """Make a symbolic link in the container; one that exists stays."""

    path: str
    points_to: str
    within: str = ""

    def describe(self) -> str:
        return f"symlink {self.path} -> {self.points_to}"

    def run(self, ctx: Context) -> None:
        parent, name = _parent(ctx, self.path, self.within)
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
        # A link of the image would put the terminal over a file of its choice, before it is masked (CVE-2025-52565).
        console = mount_point(ctx, "/dev/console", directory=False, make=True, follow=False)
        try:
            if stat.S_ISLNK(os.fstat(console).st_mode):
                raise StepError("/dev/console is a symbolic link: a terminal is not bound through it")
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
