"""Steps that only a start has, and no exec: namespaces that are joined, and what is set in those that are new."""

from __future__ import annotations

import errno
import os

from sampan.kernel import loopback, mount, namespaces, paths, process
from sampan.kernel.libc import KernelError, kernel_version
from sampan.steps.base import Context, Step, StepError
from sampan.steps.joining import advice_on_namespaces

INIT_NAME = "docker-init"
"""What process 1 is called with --init, as with Docker."""

_COPY_ATTRIBUTES = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV


class JoinNamespace(Step):
    """Enter an existing namespace, whose descriptor the parent opened while it knew whose it was."""

    kind: str
    name: str

    def describe(self) -> str:
        return f"setns {self.kind} of {self.name}"

    def run(self, ctx: Context) -> None:
        namespaces.setns(ctx.fds[self.name], namespaces.FLAGS[self.kind])
        ctx.close(self.name)


class Unshare(Step):
    """Leave the host's namespaces for new ones, of the kinds that a process can leave by itself."""

    flags: int

    def describe(self) -> str:
        return f"unshare with namespace flags {self.flags:#x}"

    def run(self, ctx: Context) -> None:
        namespaces.unshare(self.flags)

    def advice(self, errno: int) -> str:
        return advice_on_namespaces(errno) or super().advice(errno)


class PrivateProgram(Step):
    """Copy a program of the host to a detached tmpfs, kept as `name`, for init to be executed from.

    A copy, so that no /proc/PID/exe leads to the host's own file; in a file system and not in a memfd, because the
    kernel names a process by the last component of the path that it executed, and `ps` shall show "docker-init".
    """

    name: str
    path: str

    def describe(self) -> str:
        return f"fsopen tmpfs, copy {self.path} to {INIT_NAME}, make it read-only"

    def run(self, ctx: Context) -> None:
        directory = mount.new_filesystem("tmpfs", (("mode", "755"), ("nr_inodes", "2")), _COPY_ATTRIBUTES)
        ctx.put(self.name, directory)
        process.copy_program(self.path, directory, INIT_NAME)
        if kernel_version() >= (5, 12):
            # mount_setattr(2). Before it a detached mount stays as it was made: then the copy is only this container's
            # own, and the kernel refuses to write to what is executed (ETXTBSY).
            mount.set_attributes(directory, mount.MOUNT_ATTR_RDONLY)


class SetHostname(Step):
    usual = False
    name: str

    def describe(self) -> str:
        return f"sethostname {self.name}"

    def run(self, ctx: Context) -> None:
        namespaces.set_hostname(self.name)


class SetDomainname(Step):
    name: str

    def describe(self) -> str:
        return f"setdomainname {self.name}"

    def run(self, ctx: Context) -> None:
        namespaces.set_domainname(self.name)


class SetKernelParameters(Step):
    """Write parameters of this process' own namespaces: below /proc/sys everybody finds those of his own.

    entries: a path below /proc/sys and a value each.
    """

    entries: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return f"write to /proc/sys: {', '.join(f'{path} = {value!r}' for path, value in self.entries)}"

    def run(self, ctx: Context) -> None:
        tree = os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for path, value in self.entries:
                _write_parameter(tree, path, value)
        finally:
            os.close(tree)


def _write_parameter(tree: int, path: str, value: str) -> None:
    """Write one, after a look at what was opened: in a procfs, not on something mounted into it (CVE-2025-52881)."""
    try:
        fd = paths.open_in_root(tree, path, os.O_WRONLY, no_symlinks=True)
        try:
            if mount.filesystem_magic(fd) != mount.PROC_SUPER_MAGIC:
                raise StepError(f"/proc/sys/{path} is not the kernel's own file")
            os.write(fd, value.encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)
    except OSError as e:
        raise StepError(f"error setting sysctl: /proc/sys/{path}: {os.strerror(e.errno or 0).lower()}") from None


class LoopbackUp(Step):
    """A new network namespace has a loopback that is down."""

    def describe(self) -> str:
        return "netlink: set lo up"

    def run(self, ctx: Context) -> None:
        loopback.bring_up()


class MakeWorkingDirectory(Step):
    """Make the working directory if the image lacks it, as root, as Docker does."""

    path: str

    def describe(self) -> str:
        return f"make the working directory {self.path} if it is missing"

    def run(self, ctx: Context) -> None:
        try:
            os.close(paths.makedirs_in_root(ctx.root(), self.path))
        except KernelError as e:
            if e.errno in (errno.ENOTDIR, errno.EEXIST):
                raise StepError(f"Cannot mkdir: {self.path} is not a directory") from None
            if e.errno == errno.ELOOP:
                raise StepError(
                    f"the working directory {self.path!r} is a circle of links or leads out of the container"
                ) from None
            raise
