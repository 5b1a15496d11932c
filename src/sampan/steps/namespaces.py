"""Steps that only a start has, and no exec: namespaces that are joined, and what is set in those that are new."""

from __future__ import annotations

import errno
import os

from sampan.kernel import namespaces, netlink, paths, process
from sampan.kernel.libc import KernelError
from sampan.steps.base import Context, Step, StepError


class JoinNamespace(Step):
    """Enter an existing namespace, whose descriptor the parent opened while it knew whose it was."""

    kind: str
    name: str

    def describe(self) -> str:
        return f"setns {self.kind} of {self.name}"

    def run(self, ctx: Context) -> None:
        namespaces.setns(ctx.fds[self.name], namespaces.FLAGS[self.kind])
        ctx.close(self.name)


class SealedProgram(Step):
    """Copy a program of the host into a sealed memfd, kept as `name`, for init to be executed from."""

    name: str
    path: str

    def describe(self) -> str:
        return f"memfd_create, copy {self.path}, seal"

    def run(self, ctx: Context) -> None:
        ctx.put(self.name, process.sealed_copy(self.path, os.path.basename(self.path)))


class SetHostname(Step):
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


class LoopbackUp(Step):
    """A new network namespace has a loopback that is down."""

    def describe(self) -> str:
        return "netlink: set lo up"

    def run(self, ctx: Context) -> None:
        netlink.loopback_up()


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
