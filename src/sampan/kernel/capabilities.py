"""Capabilities: names, sets, and the calls that change them (capabilities(7))."""

from __future__ import annotations

import _struct
import errno
import os

from sampan.kernel.libc import KernelError, buffer, by_machine, filled, raw
from sampan.kernel.process import SYS_PRCTL, prctl, prctl2

NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
"""Names by number (include/uapi/linux/capability.h)."""

_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
_SYS_SETFSUID, _SYS_SETFSGID = by_machine(122, 151), by_machine(123, 152)
_VERSION_3 = 0x20080522
_SYS_CAPGET, _SYS_CAPSET = by_machine(125, 90), by_machine(126, 91)
_HEADER = _struct.Struct("=Ii")  # version, pid
_SETS = _struct.Struct("=6I")  # effective, permitted, inheritable: the lower halves, then the upper ones


def mask(names: list[str] | tuple[str, ...]) -> int:
    """The bit mask of capability names. Raises `KeyError` for a name that is none."""
    bits = 0
    for name in names:
        if name not in NAMES:
            raise KeyError(name)
        bits |= 1 << NAMES.index(name)
    return bits


def names(bits: int) -> list[str]:
    """The names in a bit mask, by number."""
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def last() -> int:
    """The highest capability number that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap") as f:
        return int(f.read())


def bounding() -> int:
    """This process' bounding set: what it and its children can ever get."""
    bits = 0
    for number in range(64):
        try:
            bits |= prctl(_PR_CAPBSET_READ, number, "prctl(PR_CAPBSET_READ)") << number
        except KernelError as e:
            if e.errno != errno.EINVAL:
                raise
            break  # past the last capability of this kernel
    return bits


def drop_bounding(keep: int) -> None:
    """Take everything that is not in `keep` out of the bounding set."""
    for number in range(64):
        if keep >> number & 1:
            continue
        try:
            raw(SYS_PRCTL, "prctl(PR_CAPBSET_DROP)", "", _PR_CAPBSET_DROP, number, 0, 0, 0)
        except KernelError as e:
            if e.errno == errno.EINVAL:
                return  # past the last capability of this kernel
            raise


def clear_ambient() -> None:
    """Empty the ambient set, which would hand capabilities to programs that did not ask."""
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, "prctl(PR_CAP_AMBIENT)")


def raise_ambient(bits: int) -> None:
    """Add to the ambient set, which programs without file capabilities keep; each has to be permitted and inheritable."""
    for number in range(64):
        if bits >> number & 1:
            prctl2(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, "prctl(PR_CAP_AMBIENT_RAISE)")


def get() -> tuple[int, int, int]:
    """Effective, permitted and inheritable set of this process (capget(2))."""
    data = buffer(_SETS.size)
    raw(_SYS_CAPGET, "capget", "", filled(_HEADER.pack(_VERSION_3, 0)), data)
    halves = _SETS.unpack(data.raw)
    effective, permitted, inheritable = (low | high << 32 for low, high in zip(halves[:3], halves[3:], strict=True))
    return effective, permitted, inheritable


def set_all(effective: int, permitted: int, inheritable: int = 0) -> None:
    """Set the three sets of this process at once (capset(2))."""
    halves = (bits >> shift & 0xFFFFFFFF for shift in (0, 32) for bits in (effective, permitted, inheritable))
    raw(_SYS_CAPSET, "capset", "", filled(_HEADER.pack(_VERSION_3, 0)), _SETS.pack(*halves))


class FileIds:
    """`with FileIds(uid, gid):` what this thread makes in file systems belongs to these ids (setfsuid(2)); no privilege is lost.

    For what is made on an id-mapped mount, where the machine's own root has no id to own anything by.
    """

    def __init__(self, uid: int, gid: int) -> None:
        self._ids = uid, gid

    def __enter__(self) -> None:
        self._set(*self._ids)

    def __exit__(self, _kind: object, _error: object, _traceback: object) -> None:
        self._set(os.geteuid(), os.getegid())

    @staticmethod
    def _set(uid: int, gid: int) -> None:
        # Away from 0 the kernel takes the privileges over files along, which are taken back; only this thread's, each time.
        effective, permitted, inheritable = get()
        raw(_SYS_SETFSGID, "setfsgid", "", gid)
        raw(_SYS_SETFSUID, "setfsuid", "", uid)
        set_all(effective, permitted, inheritable)


def have(name: str) -> bool:
    """Whether this process has the capability in effect."""
    return bool(get()[0] >> NAMES.index(name) & 1)


def process_sets(pid: int) -> dict[str, int]:
    """CapInh, CapPrm, CapEff, CapBnd, CapAmb of a process (proc(5))."""
    sets = {}
    with open(f"/proc/{os.fspath(str(pid))}/status") as f:
        for line in f:
            if line.startswith("Cap"):
                name, value = line.split(":")
                sets[name] = int(value, 16)
    return sets
