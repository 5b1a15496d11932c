"""The real libseccomp, through ctypes: numbers of system calls by name, and the program that it makes of a `linux.seccomp` object.

The object is handed over rule by rule, as runc's documentation and the specification have it; Debian's package is libseccomp2.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

_ACTIONS = {
    "KILL": 0x00000000,
    "KILL_THREAD": 0x00000000,
    "KILL_PROCESS": 0x80000000,
    "TRAP": 0x00030000,
    "ERRNO": 0x00050000,
    "TRACE": 0x7FF00000,
    "ALLOW": 0x7FFF0000,
    "LOG": 0x7FFC0000,
    "NOTIFY": 0x7FC00000,
}
_OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
_UNKNOWN = -1
_ATTRIBUTE_OPTIMIZE = 8


class _Comparison(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


try:
    _library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
except OSError as e:
    raise RuntimeError("the tests need libseccomp (scripts/packages)") from e
_library.seccomp_init.restype = ctypes.c_void_p
_library.seccomp_init.argtypes = [ctypes.c_uint32]
_library.seccomp_release.argtypes = [ctypes.c_void_p]
_library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
_library.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
_library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
_library.seccomp_arch_native.restype = ctypes.c_uint32
_library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
_library.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison)
]  # fmt: skip
_library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]


class LibseccompError(Exception):
    """libseccomp refused something; errno is its answer."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call}: {errno.errorcode.get(-code, code)}")
        self.errno = -code


def _architecture(name: str) -> int:
    token: int = _library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
    if not token:
        raise LookupError(f"libseccomp knows no architecture {name}")
    return token


def resolve(name: str, architecture: str) -> int:
    """The number of a call, negative where the architecture has it not, -1 for a name that means nothing."""
    return int(_library.seccomp_syscall_resolve_name_arch(_architecture(architecture), name.encode()))


def action(name: str, errno_ret: int | None) -> int:
    value = _ACTIONS[name.removeprefix("SCMP_ACT_")]
    if value in (_ACTIONS["ERRNO"], _ACTIONS["TRACE"]):
        value |= errno.EPERM if errno_ret is None else errno_ret
    return value


def program(seccomp: dict[str, Any], native: str = "") -> bytes:
    """The program that libseccomp makes of it. Raises `LibseccompError`."""
    default = action(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"))
    context = _library.seccomp_init(default)
    assert context
    try:
        if native and _architecture(native) != _library.seccomp_arch_native():
            # Removed first: architectures of both byte orders cannot be in one filter.
            _check("arch_remove", _library.seccomp_arch_remove(context, _library.seccomp_arch_native()))
            _check("arch_add", _library.seccomp_arch_add(context, _architecture(native)))
        for name in seccomp.get("architectures") or ():
            _check("arch_add", _library.seccomp_arch_add(context, _architecture(name)), -errno.EEXIST)
        for entry in seccomp.get("syscalls") or ():
            chosen = action(entry["action"], entry.get("errnoRet"))
            if chosen != default:
                for name in entry["names"]:
                    _add(context, chosen, name, entry.get("args") or [])
        return _export(context)
    finally:
        _library.seccomp_release(context)


def _add(context: Any, chosen: int, name: str, args: list[dict[str, Any]]) -> None:
    number = _library.seccomp_syscall_resolve_name(name.encode())
    if number == _UNKNOWN:
        return
    comparisons = [
        _Comparison(a["index"], _OPERATORS[a["op"].removeprefix("SCMP_CMP_")], a["value"], a.get("valueTwo") or 0)
        for a in args
    ]
    alone = len({a["index"] for a in args}) < len(args)
    for group in [[c] for c in comparisons] if alone else [comparisons]:
        array = (_Comparison * max(1, len(group)))(*group)
        _check("rule_add", _library.seccomp_rule_add_array(context, chosen, number, len(group), array))


def _export(context: Any) -> bytes:
    fd = os.memfd_create("filter")
    try:
        _check("export_bpf", _library.seccomp_export_bpf(context, fd))
        size = os.fstat(fd).st_size
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def _check(call: str, code: int, allowed: int = 0) -> None:
    if code not in (0, allowed):
        raise LibseccompError(call, code)
