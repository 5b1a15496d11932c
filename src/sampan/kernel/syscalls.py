"""System calls by name and architecture, and the architectures themselves as the kernel's audit and libseccomp call them.

The numbers are data: `syscalltables/NAME`, a line each, made of the kernel's headers by scripts/syscalls. Sources: linux/audit.h
(AUDIT_ARCH_*), linux/elf-em.h, linux/net.h and linux/ipc.h for the calls that are behind one number, arch/x86/include/uapi/asm/unistd.h (x32).
"""

from __future__ import annotations

import os

from sampan.structs import Struct

_64BIT, _LITTLE, _N32 = 0x80000000, 0x40000000, 0x20000000
X32_BIT = 0x40000000
"""Set in the numbers of x32, which has x86-64's audit value."""
ARM_PRIVATE = 0xF0000
"""Where arm's own calls begin (set_tls, cacheflush): far behind all others."""


class Architecture(Struct):
    """audit: what seccomp_data.arch says. wide: whether its registers have 64 bits, of which its system calls use all."""

    name: str
    audit: int
    table: str
    wide: bool

    @property
    def little_endian(self) -> bool:
        return bool(self.audit & _LITTLE)

    def numbers(self) -> dict[str, int]:
        """Its system calls: number by name."""
        if self.table not in _tables:
            with open(f"{os.path.dirname(__file__)}/syscalltables/{self.table}") as f:
                words = f.read().split()
            _tables[self.table] = dict(zip(words[1::2], map(int, words[::2]), strict=True))
        return _tables[self.table]


_tables: dict[str, dict[str, int]] = {}


ARCHITECTURES = {
    f"SCMP_ARCH_{name}": Architecture(name.lower(), audit, table, wide)
    for name, audit, table, wide in (
        ("X86_64", 62 | _64BIT | _LITTLE, "x86_64", True),
        ("X86", 3 | _LITTLE, "x86", False),
        ("X32", 62 | _64BIT | _LITTLE, "x32", False),
        ("AARCH64", 183 | _64BIT | _LITTLE, "aarch64", True),
        ("ARM", 40 | _LITTLE, "arm", False),
        ("MIPS", 8, "mips", False),
        ("MIPSEL", 8 | _LITTLE, "mips", False),
        ("MIPS64", 8 | _64BIT, "mips64", True),
        ("MIPSEL64", 8 | _64BIT | _LITTLE, "mips64", True),
        ("MIPS64N32", 8 | _64BIT | _N32, "mips64n32", False),
        ("MIPSEL64N32", 8 | _64BIT | _LITTLE | _N32, "mips64n32", False),
        ("PPC", 20, "ppc", False),
        ("PPC64", 21 | _64BIT, "ppc64", True),
        ("PPC64LE", 21 | _64BIT | _LITTLE, "ppc64", True),
        ("S390", 22, "s390", False),
        ("S390X", 22 | _64BIT, "s390x", True),
        ("PARISC", 15, "parisc", False),
        ("PARISC64", 15 | _64BIT, "parisc64", True),
        ("RISCV64", 243 | _64BIT | _LITTLE, "riscv64", True),
        ("LOONGARCH64", 258 | _64BIT | _LITTLE, "loongarch64", True),
    )
}

# uname(2) -> the architecture of a 64-bit process there
_MACHINES = {
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "ppc64": "SCMP_ARCH_PPC64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390x": "SCMP_ARCH_S390X",
    "riscv64": "SCMP_ARCH_RISCV64",
    "loongarch64": "SCMP_ARCH_LOONGARCH64",
}


def native_architecture() -> str:
    """The name of this machine's architecture, "" if there is no table for it."""
    return _MACHINES.get(os.uname().machine, "")


_SOCKET_CALLS = """
    socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown setsockopt
    getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg
"""
_IPC_CALLS = {1: "semop semget semctl semtimedop", 11: "msgsnd msgrcv msgget msgctl", 21: "shmat shmdt shmget shmctl"}

MULTIPLEXED = {
    "socketcall": {name: number for number, name in enumerate(_SOCKET_CALLS.split(), 1)},
    "ipc": {name: number for first, names in _IPC_CALLS.items() for number, name in enumerate(names.split(), first)},
}
"""Calls that are, or were, made through another one, whose first argument says which is meant."""
