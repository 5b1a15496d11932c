"""The probes of `sampan audit`: what a process of the container tries, and whether it was kept from it.

A probe is a system call that would be the beginning of an escape or of harm to the host, made so that it does nothing
where it is allowed: with a null pointer, an argument that is refused after the permission was judged, or undone at once.
It is made by a process that has joined the container with everything that its programs have: user, capabilities,
filter, namespaces.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from sampan import jsontext
from sampan.kernel import capabilities, mount, process
from sampan.kernel.libc import by_machine, last_errno, syscall
from sampan.steps.base import Context, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    Probe = Callable[[], tuple[bool, str]]
    """Whether it held, and what was seen."""

_REFUSED = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EROFS)
_CLONE_NEWUSER = 0x10000000
_BOGUS = 0x7FFFFFFF
"""Flags that no call knows: EINVAL where the caller would have been allowed."""

_AT_FDCWD = -100
_HANDLE = struct.pack("=Ii", 8, 1) + bytes(8)
"""struct file_handle of a file that is not there (open_by_handle_at(2)): ESTALE where the caller would have been allowed."""

_DANGEROUS = (
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_TIME",
)
"""What reaches beyond the container when it is held in the machine's first user namespace."""


class RunProbes(Step):
    """Make every probe, write the findings to standard output as JSON, and end: in the place of the program's execve."""

    final = True

    def describe(self) -> str:
        return f"make {len(PROBES)} probes"

    def run(self, ctx: Context) -> NoReturn:
        findings = [[name, *_made(probe)] for name, probe in PROBES]
        data = jsontext.dumps(findings)
        while data:
            data = data[os.write(1, data) :]
        os._exit(0)


def _made(probe: Probe) -> tuple[bool, str]:
    """In a child, for some change what the process may do: a filter that kills ends that child, and has held."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = process.fork()
    if child == 0:
        _answer(probe, writing)
    os.close(writing)
    said = b""
    while part := os.read(reading, 4096):
        said += part
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True, f"killed by signal {os.WTERMSIG(status)}"
    held, text = jsontext.loads(said)
    return bool(held), str(text)


def _answer(probe: Probe, fd: int) -> NoReturn:
    try:
        held, text = probe()
    except OSError as e:
        held, text = e.errno in _REFUSED, _words(e.errno or 0)
    except BaseException as e:
        held, text = False, f"the probe failed: {type(e).__name__}: {e}"
    os.write(fd, jsontext.dumps([held, text]))
    os._exit(0)


def _words(number: int) -> str:
    return os.strerror(number).lower()


def _call(number: int, *args: int | bytes | None, harmless: tuple[int, ...] = _REFUSED) -> tuple[bool, str]:
    """A system call that has to be refused with one of `harmless`; a descriptor that it gives is closed."""
    result = syscall(number, *args)
    if result >= 0:
        return False, f"allowed (returned {result})"
    seen = last_errno()
    return seen in harmless, _words(seen) if seen in harmless else f"allowed, as far as arguments go ({_words(seen)})"


def _opened(path: str, flags: int) -> tuple[bool, str]:
    """Open a file that must not be opened so; one that is not there has held too."""
    try:
        os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))
    except FileNotFoundError:
        return True, f"{path}: not there"
    except OSError as e:
        return True, f"{path}: {_words(e.errno or 0)}"
    return False, f"{path} can be opened"


def _writing(*paths: str) -> tuple[bool, str]:
    for path in paths:
        held, text = _opened(path, os.O_WRONLY)
        if not held:
            return held, text
    return True, text


def _empty(*paths: str) -> tuple[bool, str]:
    """Masked files have nothing in them, masked directories no names; what is not there tells nothing either."""
    for path in paths:
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):
                full = bool(os.listdir(path))
            else:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                try:
                    full = bool(os.read(fd, 1))
                finally:
                    os.close(fd)
        except OSError:
            continue
        if full:
            return False, f"{path} can be read"
    return True, "masked or not there"


def _status(field: str) -> str:
    with open("/proc/self/status", "rb") as file:
        for line in file:
            name, _, value = line.decode("ascii", "replace").partition(":")
            if name == field:
                return value.strip()
    return ""


def _capabilities() -> tuple[bool, str]:
    bounding = int(_status("CapBnd"), 16)
    found = [name.removeprefix("CAP_") for name in _DANGEROUS if bounding & capabilities.mask((name,))]
    return not found, f"{', '.join(found)} can be had" if found else f"bounding set {bounding:#x}"


def _inherited_capabilities() -> tuple[bool, str]:
    values = {field: int(_status(field), 16) for field in ("CapInh", "CapAmb")}
    return not any(values.values()), ", ".join(f"{field} {value:#x}" for field, value in values.items())


def _filter() -> tuple[bool, str]:
    mode = _status("Seccomp")
    return mode == "2", {"0": "no filter", "1": "strict", "2": "a filter is loaded", "": "the kernel has none"}.get(
        mode, mode
    )


def _sysfs() -> tuple[bool, str]:
    read_only = bool(os.statvfs("/sys").f_flag & os.ST_RDONLY)
    return read_only, "read-only" if read_only else "/sys is mounted read-write"


def _procfs() -> tuple[bool, str]:
    fd = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
    try:
        real = mount.filesystem_magic(fd) == mount.PROC_SUPER_MAGIC
    finally:
        os.close(fd)
    return real, "procfs" if real else "/proc is no procfs: it may tell lies"


def _mount() -> tuple[bool, str]:
    # Permission is judged before it is seen that nothing is mounted there (EINVAL).
    return _call(by_machine(166, 39), b"/proc/self/status\0", 0)


def _user_namespace() -> tuple[bool, str]:
    return _call(by_machine(272, 97), _CLONE_NEWUSER)


def _device() -> tuple[bool, str]:
    """Make the node of a disk where there is a place for it, and open that."""
    for directory in ("/dev", "/dev/shm", "/tmp", "/"):
        path = f"{directory}/.sampan-audit"
        try:
            os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(8, 0))
        except OSError as e:
            seen = _words(e.errno or 0)
            continue
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as e:
            # EPERM: the devices cgroup. ENXIO, ENOMEDIUM: it would have been let through.
            return e.errno in _REFUSED, f"a disk's node can be made, opening it: {_words(e.errno or 0)}"
        finally:
            os.unlink(path)
        return False, "a disk can be opened"
    return True, f"no node can be made: {seen}"


def _breakout() -> tuple[bool, str]:
    """The classic way out of a chroot: keep a descriptor of the root, chroot below it, walk up from the descriptor."""
    before = os.stat("/")
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chroot("/proc")
    os.fchdir(root)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    after = os.stat("/")
    held = (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)
    return held, "leads back to the container's root" if held else "leads to another root"


def _interpreter() -> tuple[bool, str]:
    """The program that this process runs, which is the host's, is on a mount that nobody can write to."""
    read_only = bool(os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY)
    held, text = _opened("/proc/self/exe", os.O_WRONLY)
    return held and read_only, "on a read-only mount" if read_only else text


def _cgroups() -> tuple[bool, str]:
    """No file of a hierarchy can be written: neither who is in a group nor what a v1 hierarchy runs at a group's end."""
    for directory, _, names in os.walk("/sys/fs/cgroup"):
        for name in names:
            if name in ("cgroup.procs", "tasks", "release_agent", "devices.allow", "notify_on_release"):
                held, text = _opened(f"{directory}/{name}", os.O_WRONLY)
                if not held:
                    return held, text
    return True, "read-only or not there"


def _socket(family: int, kind: int) -> tuple[bool, str]:
    unknown = (errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EPROTONOSUPPORT)
    return _call(by_machine(41, 198), family, kind, 0, harmless=_REFUSED + unknown)


PROBES: tuple[tuple[str, Probe], ...] = (
    ("dangerous capabilities", _capabilities),
    ("inheritable and ambient capabilities", _inherited_capabilities),
    ("system call filter", _filter),
    ("/proc is the kernel's", _procfs),
    ("/sys is read-only", _sysfs),
    ("kernel parameters", lambda: _writing("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/panic_on_oom")),
    ("magic system request key", lambda: _writing("/proc/sysrq-trigger")),
    ("interrupts and buses", lambda: _writing("/proc/irq/default_smp_affinity", "/proc/bus/pci/devices")),
    ("kernel memory", lambda: _empty("/proc/kcore", "/dev/mem", "/dev/kmem", "/dev/port")),
    ("kernel log", lambda: _call(by_machine(103, 116), 3, None, 0)),
    ("masked files of /proc", lambda: _empty("/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/sched_debug", "/proc/acpi", "/proc/scsi")),
    ("firmware and power counters", lambda: _empty("/sys/firmware", "/sys/devices/virtual/powercap")),
    ("disks", _device),
    ("cgroup files", _cgroups),
    ("mount and unmount", _mount),
    ("new mount interface", lambda: _call(430, b"tmpfs\0", 0)),
    ("new user namespace", _user_namespace),
    ("files by handle", lambda: _call(by_machine(304, 265), _AT_FDCWD, _HANDLE, 0)),
    ("breakout of chroot", _breakout),
    ("own interpreter's file", _interpreter),
    ("kernel modules", lambda: _call(by_machine(175, 105), None, 0, b"\0")),
    ("another kernel", lambda: _call(by_machine(246, 104), 0, 0, None, _BOGUS)),
    ("reboot", lambda: _call(by_machine(169, 142), 0, 0, 0, None)),
    ("swap", lambda: _call(by_machine(167, 224), None, 0)),
    ("host's clock", lambda: _call(by_machine(164, 170), None, None)),
    ("BPF programs", lambda: _call(by_machine(321, 280), 5, None, 0)),
    ("performance events", lambda: _call(by_machine(298, 241), None, 0, -1, -1, 0)),
    ("io_uring", lambda: _call(425, 0, None)),
    ("kernel's key rings", lambda: _call(by_machine(250, 219), 0, -3, 0)),
    ("userfaultfd", lambda: _call(by_machine(323, 282), 1)),
    ("crypto sockets (AF_ALG)", lambda: _socket(38, 5)),
    ("virtual machine sockets (AF_VSOCK)", lambda: _socket(40, 1)),
)  # fmt: skip
