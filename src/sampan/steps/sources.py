"""Steps that make what will be mounted: detached mounts, each kept in the context by a name.

They are made on the host's side ("stage1"), where their sources can be seen, and attached by steps of `mounts`.
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import mount, namespaces, paths
from sampan.kernel.libc import KernelError, kernel_version
from sampan.steps.base import Context, Step, StepError
from sampan.steps.terminal import options_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class BuildOverlay(Step):
    """Join read-only layers and a writable one into a detached overlay mount, kept as `name`.

    ids: the descriptor of a user namespace by whose map the layers' owners are shown (they are everybody's, and belong to
    the ids of the image); the writable one belongs to the mapped ids themselves, for an overlay takes none that is mapped.
    volatile: its end writes nothing to the disk, which the kernel does otherwise, for all of the disk.
    """

    usual = False
    name: str
    lower: tuple[str, ...]
    upper: str
    work: str
    ids: str = ""
    volatile: bool = False

    def describe(self) -> str:
        mapped = f", id-mapped by {self.ids}" if self.ids else ""
        return f"fsopen overlay of {len(self.lower)} lower layers{mapped}, upper {self.upper}"

    def run(self, ctx: Context) -> None:
        opened: list[int] = []

        def build() -> int:
            if self.ids:
                opened.extend(mount.clone_mapped(path, ctx.fds[self.ids]) for path in self.lower)
            lower = [f"/proc/self/fd/{fd}" for fd in opened] or self.lower
            return mount.overlay(lower, self.upper, self.work, volatile=self.volatile)

        try:
            self._build(ctx, build)
        finally:
            for fd in opened:
                os.close(fd)

    def _build(self, ctx: Context, build: Callable[[], int]) -> None:
        # The fallback for older kernels attaches the mount for a moment: not in the host's namespace. And back, for a
        # bind that shares its mounts with the host is taken from the host's namespace.
        ctx.put(self.name, build() if kernel_version() >= (6, 7) else namespaces.apart(build))

    def advice(self, errno_: int) -> str:
        if errno_ == errno.ENODEV:
            return (
                "the kernel has no overlay file system: load the module (modprobe overlay) or use the vfs snapshotter"
            )
        if errno_ == errno.EINVAL and self.ids:
            return "layers can be id-mapped from Linux 5.19 on, on ext4, xfs, btrfs and tmpfs (since 6.3)"
        if errno_ == errno.EINVAL:
            return "the store may lie on a file system that cannot hold an upper layer (another overlay): set --root to one that can, or use the vfs snapshotter"
        return super().advice(errno_)


class CloneTree(Step):
    """Take a host's file or directory as a detached bind mount, kept as `name`.

    attributes: of this mount. deep: of those on it too. propagation: between it and the mount that it is a copy of
    ("rprivate": none). subpath: below `source`, from which no link leads out.
    """

    usual = False
    name: str
    source: str
    recursive: bool = False
    attributes: int = 0
    deep: int = 0
    propagation: str = "rprivate"
    subpath: str = ""
    clear: int = 0
    deep_clear: int = 0

    def describe(self) -> str:
        more = " with submounts" if self.recursive else ""
        more += " read-only all the way down" if self.deep & 1 else ""
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
        if self.attributes or self.clear:
            mount.set_attributes(fd, self.attributes, clear=self.clear)
        if self.deep or self.deep_clear:
            mount.set_attributes(fd, self.deep, recursive=True, clear=self.deep_clear)

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

    usual = False
    name: str
    lower: tuple[str, ...]
    subpath: str = ""
    ids: str = ""
    """As of `BuildOverlay`."""

    def describe(self) -> str:
        where = f", {self.subpath} in it," if self.subpath else ""
        return f"read-only overlay of {len(self.lower)} layers of an image{where}"

    def run(self, ctx: Context) -> None:
        # The overlay of which a part is taken has to be attached (before Linux 6.15), where nobody sees it.
        opened: list[int] = []
        try:
            if self.ids:
                opened.extend(mount.clone_mapped(path, ctx.fds[self.ids]) for path in self.lower)
            lower = tuple(f"/proc/self/fd/{fd}" for fd in opened) or self.lower
            ctx.put(self.name, namespaces.apart(lambda: self._build(lower, opened)))
        finally:
            for fd in opened:
                os.close(fd)
        mount.propagate(ctx.fds[self.name], "rprivate")

    def _build(self, lower: tuple[str, ...], mapped: list[int]) -> int:
        """`mapped`: the mounts that `lower` are, if they are id-mapped; one alone is the image, and is taken out of there."""
        if len(lower) == 1 and mapped:
            whole = mapped.pop()
            mount.set_attributes(whole, mount.MOUNT_ATTR_RDONLY)
        elif len(lower) == 1:
            whole = mount.clone_tree_with(lower[0], mount.MOUNT_ATTR_RDONLY)
        else:
            whole = mount.overlay(lower, attributes=mount.MOUNT_ATTR_RDONLY)
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

    forks = True
    usual = False

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
