"""Steps that turn a cloned Python process into the container's own: namespaces, names, user, privileges, execve."""

from __future__ import annotations

import errno
import os
import stat

from sampan.kernel import capabilities, namespaces, paths, process, seccomp, tty
from sampan.kernel.libc import KernelError
from sampan.steps import users
from sampan.steps.base import Context, Step, StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class WriteFile(Step):
    """Write a value into one of the host's /proc or /sys files."""

    path: str
    value: str
    required: bool = True

    def describe(self) -> str:
        return f"write {self.value!r} to {self.path}"

    def run(self, ctx: Context) -> None:
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, self.value.encode())
            finally:
                os.close(fd)
        except OSError as e:
            if self.required:
                raise KernelError(e.errno or errno.EIO, "write", self.path) from None


class JoinProcess(Step):
    """Enter several namespaces of a process at once, through its pidfd (`exec`)."""

    kinds_joined: tuple[str, ...]
    name: str = "init"

    def describe(self) -> str:
        return f"setns {', '.join(self.kinds_joined)} of the container's init"

    def run(self, ctx: Context) -> None:
        flags = 0
        for kind in self.kinds_joined:
            flags |= namespaces.FLAGS[kind]
        namespaces.setns(ctx.fds[self.name], flags)


class OpenRoot(Step):
    """Take this process' root directory as the root below which the container's paths are resolved."""

    def describe(self) -> str:
        return "open /"

    def run(self, ctx: Context) -> None:
        ctx.put("root", os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


class FindUser(Step):
    """Find out who the container's process is, from the image's own passwd and group."""

    user: str
    groups: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"look up user {self.user or 'root'!r} in /etc/passwd and /etc/group of the image"

    def run(self, ctx: Context) -> None:
        who = users.resolve(
            self.user, list(self.groups), read_database(ctx, "/etc/passwd"), read_database(ctx, "/etc/group")
        )
        ctx.uid, ctx.gid, ctx.groups, ctx.home = who.uid, who.gid, who.groups, who.home


def read_database(ctx: Context, path: str) -> bytes:
    """A regular file of the image, whole but bounded; b"" when there is none."""
    try:
        # O_NONBLOCK: opening a FIFO must not hang (CVE-2024-9676).
        fd = paths.open_in_root(ctx.root(), path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except KernelError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR):
            return b""
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise StepError(f"{path} of the image is not a regular file")
        if status.st_size > users.FILE_LIMIT:
            raise _too_large(path)
        # Bounded again: the file may grow under our hands, and one of procfs has no size. A part has room for a small file and not for a
        # large one, for all of it is asked for, and given back, with each read.
        text, room = b"", min(status.st_size + 4096, 1 << 20)
        while part := os.read(fd, room):
            text += part
            if len(text) > users.FILE_LIMIT:
                raise _too_large(path)
        return text
    finally:
        os.close(fd)


def _too_large(path: str) -> StepError:
    return StepError(f"{path} of the image is larger than {users.FILE_LIMIT >> 20} MiB")


class ChangeDirectory(Step):
    """Enter the working directory: as root if that works, else again as the user (`again`).

    Either may be the only one who can: root's /root is closed to the user, an NFS home to root. The directory is
    opened with magic links refused: /proc/self/fd/N must not lead to the host (CVE-2024-21626).
    """

    path: str
    again: bool = False

    def describe(self) -> str:
        return f"chdir {self.path}{' as the user, unless root could' if self.again else ''}"

    def run(self, ctx: Context) -> None:
        if self.again and ctx.working_directory_set:
            return
        try:
            fd = paths.open_in_root(ctx.root(), self.path, os.O_PATH | os.O_DIRECTORY)
            try:
                os.fchdir(fd)
            finally:
                os.close(fd)
        except OSError as e:
            if e.errno in (errno.EACCES, errno.EPERM) and not self.again:
                return
            words = f'chdir to cwd ("{self.path}") set in config.json failed: {os.strerror(e.errno or 0).lower()}'
            raise StepError(words, 127 if e.errno == errno.ENOENT else 128) from None
        if not os.getcwd().startswith("/"):
            raise StepError(f"the working directory {self.path!r} is outside of the container's root")
        ctx.working_directory_set = True


class Standard(Step):
    """Make the pipes, or the pty, the standard streams, in a session of its own, owned by the container's user.

    Owned, because a program may open /dev/stdout again, which checks the pipe's owner.
    """

    terminal: bool = False

    def describe(self) -> str:
        return f"setsid, dup2 the {'pty' if self.terminal else 'pipes'} to 0, 1, 2, chown them to the user"

    def run(self, ctx: Context) -> None:
        os.setsid()
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.dup2(ctx.fds["console" if self.terminal else name], number, inheritable=True)
        if self.terminal:
            tty.make_controlling(0)
        for number in range(3):
            _chown_stream(number, ctx.uid)


def _chown_stream(fd: int, uid: int) -> None:
    status = os.fstat(fd)
    if status.st_uid == uid or (stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)):
        return  # never the null device: it is everybody's
    try:
        os.fchown(fd, uid, -1)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS):
            raise  # those three: a stream that has no owner of its own


class NewKeyring(Step):
    """A session keyring of its own: the caller's keys are not the container's."""

    def describe(self) -> str:
        return "keyctl: join a new session keyring"

    def run(self, ctx: Context) -> None:
        process.new_session_keyring()


class NoNewPrivileges(Step):
    def describe(self) -> str:
        return "prctl PR_SET_NO_NEW_PRIVS"

    def run(self, ctx: Context) -> None:
        process.set_no_new_privileges()


class LimitResource(Step):
    """Set one resource limit of the process, which its children inherit. name: as `--ulimit` has it; number: the kernel's."""

    name: str
    number: int
    soft: int
    hard: int

    def describe(self) -> str:
        return f"prlimit {self.name} {_limit(self.soft)}:{_limit(self.hard)}"

    def run(self, ctx: Context) -> None:
        try:
            process.set_resource_limit(self.number, self.soft, self.hard)
        except OSError as e:
            most = process.get_resource_limit(self.number)[1]
            reason = os.strerror(e.errno or 0).lower()
            if e.errno == errno.EPERM and self.hard > most:
                reason += f": the hard limit is {_limit(most)} here, and only CAP_SYS_RESOURCE can raise it"
            elif e.errno == errno.EPERM:
                reason += ": it is above fs.nr_open"
            asked = f"{self.name}={_limit(self.soft)}:{_limit(self.hard)}"
            raise StepError(f"error setting ulimit {asked}: {reason}") from None


def _limit(value: int) -> str:
    return "unlimited" if value == (1 << 64) - 1 else str(value)


class BecomeUser(Step):
    """Drop the bounding set to `capabilities`, become the user, and keep exactly that set; inheritable and ambient empty.

    The bounding set first, while CAP_SETPCAP is there; the user next, keeping what is permitted; the sets last. Ambient
    and inheritable stay empty for everybody (CVE-2022-29162, CVE-2016-8867): a user other than root loses all at execve.
    `until_execve` is what the steps behind this one need: execve takes it away, for it is not in the bounding set.
    """

    capabilities: tuple[str, ...]
    until_execve: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"drop all but {len(self.capabilities)} capabilities, setgroups, setresgid, setresuid"

    def run(self, ctx: Context) -> None:
        # What this process itself lacks (an engine in a container, a machine without CAP_SYS_RESOURCE) cannot be given.
        permitted = capabilities.get()[1]
        wanted = capabilities.mask(self.capabilities) & permitted
        capabilities.drop_bounding(wanted)
        process.keep_capabilities(True)
        process.set_credentials(ctx.uid, ctx.gid, ctx.groups)
        process.keep_capabilities(False)
        capabilities.clear_ambient()
        wanted |= capabilities.mask(self.until_execve) & permitted
        capabilities.set_all(wanted, wanted, 0)

    def advice(self, errno_: int) -> str:
        if errno_ in (errno.EPERM, errno.EINVAL):
            return (
                "this user namespace has not all the users and groups of the image: "
                "map more of them (newuidmap, newgidmap), and let it set groups (/proc/PID/setgroups)"
            )
        return super().advice(errno_)


class DieWithMonitor(Step):
    """Ask to be killed when the monitor dies; then see whether it died already, by the pipe it reads.

    After the last change of credentials, which would clear the request (prctl(2), PR_SET_PDEATHSIG).
    """

    def describe(self) -> str:
        return "prctl PR_SET_PDEATHSIG SIGKILL"

    def run(self, ctx: Context) -> None:
        import select  # which a monitor has, and whoever starts an OCI container does not need

        process.die_with_parent(9)
        poll = select.poll()
        poll.register(ctx.fds["status"], 0)
        if poll.poll(0):
            os._exit(137)


class ResetProcess(Step):
    """What a new program expects of the process that executes it: the usual umask, no signal ignored or blocked, no descriptor of ours.

    keep: how many descriptors from 3 on are the program's (`--preserve-fds`).
    """

    umask: int = 0o022
    keep: int = 0

    def describe(self) -> str:
        return f"umask {self.umask:03o}, signals to their defaults, descriptors from {3 + self.keep} on close-on-exec"

    def run(self, ctx: Context) -> None:
        os.umask(self.umask)
        process.default_signals()
        process.close_on_exec_from(3 + self.keep)


class LoadFilter(Step):
    """Put the process, and what it becomes, under a seccomp filter: `program` in hexadecimal, `flags` of seccomp(2).

    A filter without no-new-privileges needs CAP_SYS_ADMIN (seccomp(2)). The listener, if the flags ask for one, is "seccomp"
    in the context.
    """

    final = True
    program: str
    flags: int

    def describe(self) -> str:
        return f"seccomp: load a filter of {len(self.program) // 16} instructions"

    def run(self, ctx: Context) -> None:
        listener = seccomp.load_filter(bytes.fromhex(self.program), self.flags)
        if self.flags & seccomp.FLAG_NEW_LISTENER:
            ctx.put("seccomp", listener)

    def advice(self, errno: int) -> str:
        return _FILTER_ADVICE.get(errno) or super().advice(errno)


_NO_FILTERS = "this kernel takes no such seccomp filter (CONFIG_SECCOMP_FILTER, or too old for an action or a flag of the profile)"
_FILTER_ADVICE = {
    errno.EINVAL: f"{_NO_FILTERS}; --security-opt seccomp=unconfined does without one",
    errno.ENOSYS: f"{_NO_FILTERS}; --security-opt seccomp=unconfined does without one",
    errno.EACCES: "a filter needs CAP_SYS_ADMIN here, or --security-opt no-new-privileges",
    errno.EBUSY: "this process has a filter with a listener already, and there can be one only",
}


class Execute(Step):
    """Become the container's program. Nothing of sampan is left in the process if it works."""

    final = True
    usual = False
    argv: tuple[str, ...]
    env: tuple[str, ...]
    init: str = ""

    def describe(self) -> str:
        return f"execve {' '.join(self.argv)}" + (" as docker-init from its private copy" if self.init else "")

    def run(self, ctx: Context) -> None:
        env = [os.fsencode(e) for e in self.env]
        if not any(e.startswith(b"HOME=") and e != b"HOME=" for e in env):
            env = [e for e in env if e != b"HOME="] + [b"HOME=" + os.fsencode(ctx.home)]
        argv = [os.fsencode(a) for a in self.argv]
        if self.init:
            process.execve_at(ctx.fds[self.init], b"docker-init", argv, env)
        _execute(argv, env)


def _execute(argv: list[bytes], env: list[bytes]) -> None:
    """execve(2) of the program by its path, or by the container's own PATH; raises `StepError` in Docker's words."""
    # Entries that no execve takes (no "=", no name) are left out; of two with one name the last one counts.
    table = dict(e.partition(b"=")[::2] for e in env if e.find(b"=") > 0)

    def execute(candidate: bytes) -> int:
        try:
            os.execve(candidate, argv, table)
        except OSError as e:
            return e.errno or errno.EIO

    _search(argv[0], table.get(b"PATH", b""), execute)


def _search(name: bytes, path: bytes, attempt: Callable[[bytes], int]) -> None:
    """Attempt each file that may be meant by `name`. An attempt gives its errno, 0 if that is it. Raises `StepError`."""
    shown = f'exec: "{os.fsdecode(name)}"'
    if b"/" in name:
        candidates = [name]
    else:
        candidates = [(directory or b".") + b"/" + name for directory in path.split(b":")] if path and name else []
    denied = b""
    for candidate in candidates:
        number = attempt(candidate)
        if not number:
            return
        if number == errno.EACCES:
            denied = denied or candidate
        elif number not in (errno.ENOENT, errno.ENOTDIR):
            raise StepError(f"exec {os.fsdecode(candidate)}: {os.strerror(number).lower()}", 126)
        elif os.path.exists(candidate):
            raise StepError(
                f"exec {os.fsdecode(candidate)}: no such file or directory: the file is there, but the interpreter or loader that it names is not",
                127,
            )
        elif b"/" in name:
            raise StepError(f"{shown}: stat {os.fsdecode(name)}: {os.strerror(number).lower()}", 127)
    if denied and os.path.isdir(denied) and b"/" in name:
        raise StepError(f"{shown}: is a directory: permission denied", 126)
    if denied and b"/" in name:
        raise StepError(f"{shown}: permission denied", 126)
    if denied and not os.path.isdir(denied):
        raise StepError(f"{shown}: permission denied", 126)
    raise StepError(f"{shown}: executable file not found in $PATH", 127)


class FindProgram(Step):
    """Look whether the program can be executed, long before it is: `create` fails then, and not `start`."""

    usual = False
    name: str
    env: tuple[str, ...]

    def describe(self) -> str:
        return f"look for the program {self.name}"

    def run(self, ctx: Context) -> None:
        table = dict(os.fsencode(e).partition(b"=")[::2] for e in self.env)

        def look(candidate: bytes) -> int:
            try:
                if stat.S_ISDIR(os.stat(candidate).st_mode):
                    return errno.EACCES
            except OSError as e:
                return e.errno or errno.EIO
            return 0 if os.access(candidate, os.X_OK) else errno.EACCES

        _search(os.fsencode(self.name), table.get(b"PATH", b""), look)
