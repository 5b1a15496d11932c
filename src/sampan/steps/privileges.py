"""Steps that give a process what the OCI configuration says it is, number by number: user, five sets of capabilities.

Beside `process.FindUser` and `process.BecomeUser`, which know Docker's words for the same.
"""

from __future__ import annotations

from sampan.kernel import capabilities, process
from sampan.kernel.libc import KernelError
from sampan.steps import users
from sampan.steps.base import Context, Step, StepError
from sampan.steps.process import read_database


class TakeUser(Step):
    """Note who the process is, by number: nothing is looked up but the home directory, which a program expects in HOME."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def describe(self) -> str:
        return f"user {self.uid}:{self.gid}, groups {','.join(map(str, self.groups)) or 'none'}"

    def run(self, ctx: Context) -> None:
        ctx.uid, ctx.gid, ctx.groups, ctx.home = self.uid, self.gid, list(self.groups), "/"
        try:
            # A file that cannot be read, or is none, costs the process its HOME and nothing else.
            ctx.home = users.home_of(self.uid, read_database(ctx, "/etc/passwd"))
        except (StepError, KernelError):
            pass


class SetPrivileges(Step):
    """Drop the bounding set, become the user, set the other four sets: each a mask of capabilities(7).

    In this order: the bounding set while CAP_SETPCAP is there, the user next, keeping what is permitted, the ambient set last, for
    it may hold only what is permitted and inheritable.
    """

    bounding: int
    effective: int
    permitted: int
    inheritable: int = 0
    ambient: int = 0
    until_execve: int = 0
    """What the steps behind this one need: execve takes it away, for it is in no other set."""

    def describe(self) -> str:
        sets = ", ".join(f"{name} {getattr(self, name):x}" for name in self._fields)
        return f"setgroups, setresgid, setresuid, capset: {sets}"

    def run(self, ctx: Context) -> None:
        # What this process itself lacks (an engine in a container) cannot be given.
        had = capabilities.get()[1]
        capabilities.drop_bounding(self.bounding)
        process.keep_capabilities(True)
        process.set_credentials(ctx.uid, ctx.gid, ctx.groups)
        process.keep_capabilities(False)
        capabilities.clear_ambient()
        permitted = self.permitted & had
        inheritable = self.inheritable & (had | permitted)
        more = self.until_execve & had
        capabilities.set_all(self.effective & permitted | more, permitted | more, inheritable)
        capabilities.raise_ambient(self.ambient & permitted & inheritable)
