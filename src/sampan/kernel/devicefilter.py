"""cgroup v2's rules on devices: a small eBPF program, assembled here and attached to the group's directory.

The kernel runs the program at each open and mknod of a device with a `struct bpf_cgroup_dev_ctx` (linux/bpf.h):
u32 access_type (the accesses in the upper half: 1 mknod, 2 read, 4 write; the type in the lower: 1 block, 2 char),
u32 major, u32 minor. It answers 1 to allow, 0 to deny.

For every access that is asked for, the last rule that matches decides. The program goes
through the rules from the last to the first and keeps the accesses that are undecided: a rule that allows takes its
accesses away from them, a rule that denies one of them ends it.

Sources: Documentation/bpf/standardization/instruction-set.rst, Documentation/bpf/prog_cgroup_*.rst, bpf(2).
"""

from __future__ import annotations

import errno
import os
import resource
import struct
import sys

from sampan.kernel.cgroupfs import CgroupError
from sampan.kernel.cgroupmodel import ANY, DeviceRule
from sampan.kernel.libc import KernelError, address, by_machine, filled, raw

SYS_BPF = by_machine(321, 280)

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2

ACCESSES = {"m": 1, "r": 2, "w": 4}
TYPES = {"b": 1, "c": 2}
ALL = 7

# Operation codes: class | operation | source (K: an immediate number, X: a register).
_LOAD_WORD = 0x61  # dst = *(u32 *)(src + offset)
_MOVE_X = 0xBC  # 32 bits: dst = src
_MOVE_K = 0xB4
_AND_K = 0x54
_SHIFT_RIGHT_K = 0x74
_JUMP_EQUAL_K = 0x15
_JUMP_NOT_EQUAL_K = 0x55
_EXIT = 0x95

# What the registers hold. R0 is the answer, and the kernel passes the context in R1.
_ANSWER, _CONTEXT, _UNDECIDED, _TYPE, _MAJOR, _MINOR, _SCRATCH = range(7)

_SIZE = 8  # bytes of an instruction


def instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, number: int = 0) -> bytes:
    """One instruction: operation code, two registers in a byte, a signed offset, a signed number."""
    registers = dst | src << 4 if sys.byteorder == "little" else dst << 4 | src
    return struct.pack("=BBhi", code, registers, offset, number)


def assemble(rules: tuple[DeviceRule, ...]) -> bytes:
    """The program for the rules, for this machine's byte order."""
    program = [
        instruction(_LOAD_WORD, _UNDECIDED, _CONTEXT, 0),
        instruction(_MOVE_X, _TYPE, _UNDECIDED),
        instruction(_AND_K, _TYPE, number=0xFFFF),
        instruction(_SHIFT_RIGHT_K, _UNDECIDED, number=16),
        instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
        instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8),
    ]
    for rule in reversed(rules):
        program.append(_rule(rule))
        if rule.matches_everything():  # nothing can come behind it, and the kernel refuses a program with dead ends
            return b"".join(program)
    program.append(_answer(False))
    return b"".join(program)


def _rule(rule: DeviceRule) -> bytes:
    if rule.matches_everything():
        return _answer(rule.allow)
    action = _allow(_mask(rule)) if rule.allow else _deny(_mask(rule))
    tests = []
    if rule.type != "a":
        tests.append((_TYPE, TYPES[rule.type]))
    if rule.major != ANY:
        tests.append((_MAJOR, rule.major))
    if rule.minor != ANY:
        tests.append((_MINOR, rule.minor))
    # Each test that fails jumps behind the action; offsets count instructions from the next one on.
    after = len(action) // _SIZE
    jumps = [
        instruction(_JUMP_NOT_EQUAL_K, register, offset=after + len(tests) - 1 - n, number=number)
        for n, (register, number) in enumerate(tests)
    ]
    return b"".join(jumps) + action


def _allow(mask: int) -> bytes:
    return (
        instruction(_AND_K, _UNDECIDED, number=ALL & ~mask)
        + instruction(_JUMP_NOT_EQUAL_K, _UNDECIDED, offset=2, number=0)
        + _answer(True)
    )


def _deny(mask: int) -> bytes:
    return (
        instruction(_MOVE_X, _SCRATCH, _UNDECIDED)
        + instruction(_AND_K, _SCRATCH, number=mask)
        + instruction(_JUMP_EQUAL_K, _SCRATCH, offset=2, number=0)
        + _answer(False)
    )


def _answer(allowed: bool) -> bytes:
    return instruction(_MOVE_K, _ANSWER, number=int(allowed)) + instruction(_EXIT)


def _mask(rule: DeviceRule) -> int:
    return sum(ACCESSES[a] for a in set(rule.access))


def load(program: bytes) -> int:
    """Give the program to the kernel; a descriptor of it. Raises `KernelError` (EPERM without CAP_BPF)."""
    code, licence = filled(program), filled(b"Apache-2.0\0")
    # prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, prog_name
    attributes = struct.pack(
        "=IIQQIIQII16s",
        BPF_PROG_TYPE_CGROUP_DEVICE,
        len(program) // _SIZE,
        address(code),
        address(licence),
        *(0, 0, 0, 0, 0),
        b"sampan_devices",
    )
    return _bpf(BPF_PROG_LOAD, attributes, "bpf BPF_PROG_LOAD")


def attach(directory: str, rules: tuple[DeviceRule, ...]) -> None:
    """Make the rules hold for the cgroup v2 group at `directory` and all below it, for as long as it exists.

    Programs add up: one that is attached above stays in force, and what any of them denies is denied
    (BPF_F_ALLOW_MULTI). Raises `CgroupError`.
    """
    try:
        program = _load_within_memlock(assemble(rules))
        try:
            group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                attributes = struct.pack("=IIII", group, program, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)
                _bpf(BPF_PROG_ATTACH, attributes, "bpf BPF_PROG_ATTACH")
            finally:
                os.close(group)
        finally:
            os.close(program)
    except OSError as e:
        call = e.syscall if isinstance(e, KernelError) else "open"
        raise CgroupError(e.errno or errno.EIO, call, directory, _advice(e.errno)) from None


def _load_within_memlock(program: bytes) -> int:
    try:
        return load(program)
    except KernelError as e:
        if e.errno != errno.EPERM:
            raise
    # Before Linux 5.11 programs count as locked memory of the user, and 64 KiB hold few of them.
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        return load(program)
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def _bpf(command: int, attributes: bytes, name: str) -> int:
    return raw(SYS_BPF, name, "", command, filled(attributes), len(attributes))


def _advice(number: int | None) -> str:
    if number in (errno.EINVAL, errno.ENOSYS):
        return "the kernel must be built with CONFIG_CGROUP_BPF to keep a container from the host's devices"
    if number == errno.EPERM:
        return "a program for devices needs CAP_BPF and CAP_NET_ADMIN or root, outside any user namespace"
    return ""
