"""Steps by which a process comes into being and into the container's cgroups, of a start and of an exec."""

from __future__ import annotations

import errno as errno_names
import os

from sampan.kernel import cgroupfs, namespaces, process
from sampan.steps.base import Context, Step


def advice_on_namespaces(errno: int) -> str:
    """What can be done where namespaces, or a process in them, cannot be made; "" where that is not known."""
    if errno == errno_names.ENOSPC:
        return "too many namespaces: raise /proc/sys/user/max_*_namespaces, or end some containers"
    if errno == errno_names.EAGAIN:
        return "too many processes: the pids limit of a cgroup above, or ulimit -u, is reached"
    return ""


class MakeBirthplace(Step):
    """Make the cgroup2 directory that init is to be born in, and open it: who is born there need not be moved (docs/adr/0003)."""

    path: str

    def describe(self) -> str:
        return f"mkdir {self.path}, open it to clone into"

    def run(self, ctx: Context) -> None:
        cgroupfs.make_directory(self.path)
        ctx.put("cgroup", os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


class CloneInit(Step):
    """Make the process that runs both lists and becomes the program, with the namespaces that only a child gets (pid, time): flags."""

    flags: int

    def describe(self) -> str:
        return f"clone3 with namespace flags {self.flags:#x}"

    def run(self, ctx: Context) -> None:
        ctx.child = process.clone3(self.flags, ctx.fds.get("cgroup", -1))

    def advice(self, errno: int) -> str:
        return advice_on_namespaces(errno) or super().advice(errno)


class ForkForExec(Step):
    """Make the first of an exec's two processes. score: its oom_score_adj, "" for this process' own."""

    score: str = ""

    def describe(self) -> str:
        return "fork" + self._words()

    def _words(self) -> str:
        return f" with {self.score!r} in /proc/self/oom_score_adj" if self.score else ""

    def run(self, ctx: Context) -> None:
        if not self.score:
            ctx.child = self._make(ctx)
            return
        # Its own for as long as the clone takes: a child's /proc may be the container's, which may be anything.
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            before = os.read(fd, 32)
            _set_score(fd, self.score.encode())
            child = -1
            try:
                child = self._make(ctx)
            finally:
                if child:
                    _set_score(fd, before)
            ctx.child = child
        finally:
            os.close(fd)

    def _make(self, ctx: Context) -> int:
        return process.fork()

    def advice(self, errno: int) -> str:
        return advice_on_namespaces(errno) or super().advice(errno)


class CloneInside(ForkForExec):
    """Make the one process of an exec in the mount, pid and network namespaces of the container's init, and in its cgroup2 group (docs/adr/0018)."""

    def describe(self) -> str:
        return "clone3 in the namespaces of the container's init" + self._words()

    def _make(self, ctx: Context) -> int:
        return namespaces.born_inside(ctx.fds["init"], lambda: process.clone3(0, ctx.fds.get("cgroup", -1)))


def _set_score(fd: int, text: bytes) -> None:
    """Not in a container without the privilege to go below what it has itself: it stays there."""
    try:
        os.pwrite(fd, text, 0)
    except OSError:
        pass


class CloneSibling(Step):
    """The step between stage1's list and stage2's where two processes run them: not in a list, but described like the others."""

    flags: int

    def describe(self) -> str:
        return f"clone3 CLONE_PARENT with namespace flags {self.flags:#x}"

    def advice(self, errno: int) -> str:
        return advice_on_namespaces(errno) or super().advice(errno)


class OpenCgroups(Step):
    """Open what init needs to move itself in, while this process still has the host's view and privileges.

    beside: of an exec, where the cgroup2 hierarchy is mounted: it goes where the container's init is (the descriptor "init") if the container
    has given its group's controllers to groups of its own, and so can have no process in it any more (cgroup-v2.rst, "No Internal Process Constraint").
    by_file: the cgroup2 group is joined like the others. A clone into it asks who clones, and in a user namespace that is nobody who may write
    to a group that belongs to the container's user; a write to cgroup.procs asks who opened it.
    """

    usual = False
    join_files: tuple[str, ...]
    clone_directory: str = ""
    beside: str = ""
    by_file: bool = False

    def describe(self) -> str:
        files = [f"the tasks files of {len(self.join_files)} cgroups"] if self.join_files else []
        return f"open {' and '.join(files + (['the cgroup to clone into'] if self.clone_directory else []))}"

    def run(self, ctx: Context) -> None:
        for number, path in enumerate(self.join_files):
            ctx.put(f"cgroup.{number}", os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        if self.clone_directory:
            directory = self.clone_directory
            if self.beside and cgroupfs.get(f"{directory}/cgroup.subtree_control"):
                directory = self._of_init(ctx.fds["init"])
            if self.by_file:
                procs = os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                ctx.put(f"cgroup.{len(self.join_files)}", procs)
            else:
                ctx.put("cgroup", os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def _of_init(self, pidfd: int) -> str:
        """The cgroup2 group of the process, below the container's; that itself where it is elsewhere, which the clone will refuse."""
        facts = cgroupfs.get(f"/proc/self/fdinfo/{pidfd}") or ""
        pid = next(line[4:].strip() for line in facts.split("\n") if line.startswith("Pid:"))
        lines = (cgroupfs.get(f"/proc/{pid}/cgroup") or "").split("\n")
        found = next((f"{self.beside}{line[3:]}" for line in lines if line.startswith("0::")), "")
        return found if found.startswith(f"{self.clone_directory}/") else self.clone_directory


class JoinCgroups(Step):
    """Move this process into the cgroups that were opened, `pids` last, and get a cgroup namespace rooted there.

    Init itself does this: it forks no more, so that even `--pids-limit 1` can start; and only now, because the
    root of a new cgroup namespace is where its maker is.
    """

    count: int
    new_namespace: bool = False

    def describe(self) -> str:
        files = (
            [f"write 0 to the tasks files of {self.count} cgroups"]
            if self.count
            else ["stay in the cgroup of its birth"]
        )
        return ", ".join(files + (["unshare cgroup"] if self.new_namespace else []))

    def run(self, ctx: Context) -> None:
        for number in range(self.count):
            os.write(ctx.fds[f"cgroup.{number}"], b"0")
            ctx.close(f"cgroup.{number}")
        ctx.close("cgroup")
        if self.new_namespace:
            namespaces.unshare(namespaces.CLONE_NEWCGROUP)
