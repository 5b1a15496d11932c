"""Steps of user and time namespaces: made with the host's privileges, entered before the other namespaces are made.

What is made after a user namespace was entered belongs to it: so the network namespace is made inside, or its links and its sysfs
would belong to the host. One that exists is entered in the same way.
"""

from __future__ import annotations

import os

from sampan.kernel import cgroupfs, namespaces
from sampan.kernel.libc import KernelError
from sampan.steps.base import Context, Step, StepError


class MakeUserNamespace(Step):
    """Make a user namespace with these maps and keep it as `name`; nobody is in it yet.

    The maps are lines of uid_map and gid_map: id inside, id outside, length (user_namespaces(7)).
    """

    forks = True

    name: str
    uid_map: str
    gid_map: str

    def describe(self) -> str:
        return f"make user namespace {self.name}: uids {_shown(self.uid_map)}, gids {_shown(self.gid_map)}"

    def run(self, ctx: Context) -> None:
        ctx.put(self.name, namespaces.user_namespace(self.uid_map, self.gid_map))

    def advice(self, errno: int) -> str:
        return super().advice(errno) or "a map may be written by root only, and its ranges may not overlap"


def _shown(text: str) -> str:
    return ", ".join(text.strip().split("\n"))


class EnterUserNamespace(Step):
    """Enter a user namespace. The process keeps the host's ids until `BecomeRoot`: the cgroups are the host's root's still."""

    name: str

    def describe(self) -> str:
        return f"setns user of {self.name}"

    def run(self, ctx: Context) -> None:
        namespaces.setns(ctx.fds[self.name], namespaces.CLONE_NEWUSER)


class BecomeRoot(Step):
    """Be user 0 of the user namespace: what is made from here on belongs to the container."""

    def describe(self) -> str:
        return "setresgid, setresuid 0 of the user namespace"

    def run(self, ctx: Context) -> None:
        try:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        except OSError as e:
            raise StepError(
                f"cannot become root of the user namespace: {os.strerror(e.errno or 0).lower()}: its maps have to hold user and group 0"
            ) from None


class DelegateCgroup(Step):
    """cgroup v2: give the container's group to the user of its process, who may then make groups below it and no more.

    uid: as the container counts, -1 for that of `FindUser`. uids: inside, outside, length; empty without a user namespace. Source:
    config-linux.md, "Cgroup ownership"; the kernel's cgroup-v2.rst, "Delegation".
    """

    directory: str
    uid: int
    uids: tuple[tuple[int, int, int], ...] = ()

    def describe(self) -> str:
        return f"chown {self.directory} and its files for delegation to the user of the process"

    def run(self, ctx: Context) -> None:
        owner = self._outside(ctx.uid if self.uid < 0 else self.uid)
        if owner < 0:
            return  # nobody of this machine: the start fails where it becomes that user
        os.chown(self.directory, owner, -1)
        for name in _delegated_files():
            try:
                os.chown(f"{self.directory}/{name}", owner, -1)
            except FileNotFoundError:
                pass  # of a controller that this group has not

    def _outside(self, uid: int) -> int:
        found = [outside + uid - inside for inside, outside, count in self.uids if inside <= uid < inside + count]
        return found[0] if found else -1 if self.uids else uid


def _delegated_files() -> list[str]:
    # Not by `open`, which looks for a codec: nothing is imported any more.
    found = cgroupfs.get("/sys/kernel/cgroup/delegate")
    return ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] if found is None else found.split()


class OffsetClocks(Step):
    """Make a time namespace, for children, whose clocks differ from the host's. entries: clock, seconds, nanoseconds."""

    entries: tuple[tuple[str, int, int], ...]

    def describe(self) -> str:
        return f"unshare time, offsets {', '.join(f'{c} {s}.{n:09}' for c, s, n in self.entries)}"

    def run(self, ctx: Context) -> None:
        namespaces.unshare(namespaces.CLONE_NEWTIME)
        fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        try:
            for clock, seconds, nanoseconds in self.entries:
                _write_offset(fd, f"{clock} {seconds} {nanoseconds}\n")
        finally:
            os.close(fd)


def _write_offset(fd: int, line: str) -> None:
    try:
        os.write(fd, line.encode())
    except OSError as e:
        raise KernelError(e.errno or 0, f"write {line.strip()!r} to", "/proc/self/timens_offsets") from None
