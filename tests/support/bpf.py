"""A small interpreter of classic BPF, as the kernel runs it for seccomp: what a filter says of a call, without making it.

Written from Documentation/networking/filter.rst and net/core/filter.c's list of what seccomp takes, not from the compiler that it judges.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

_ALU: dict[int, Callable[[int, int], int]] = {
    0x00: lambda a, k: a + k,
    0x10: lambda a, k: a - k,
    0x20: lambda a, k: a * k,
    0x40: lambda a, k: a | k,
    0x50: lambda a, k: a & k,
    0x60: lambda a, k: a << k,
    0x70: lambda a, k: a >> k,
    0xA0: lambda a, k: a ^ k,
}
_TESTS: dict[int, Callable[[int, int], bool]] = {
    0x10: lambda a, k: a == k,
    0x20: lambda a, k: a > k,
    0x30: lambda a, k: a >= k,
    0x40: lambda a, k: bool(a & k),
}


class Program:
    """A filter, checked as the kernel checks it when it is loaded. Raises ValueError for what it would refuse."""

    def __init__(self, code: bytes, big_endian: bool = False) -> None:
        if not code or len(code) % 8 or len(code) > 8 * 4096:
            raise ValueError(f"{len(code)} bytes")
        self.code = list(struct.iter_unpack(">HBBI" if big_endian else "<HBBI", code))
        for at, (op, jt, jf, k) in enumerate(self.code):
            reach = {0x05: (k,), 0x06: ()}.get(op, (jt, jf) if op & 7 == 5 else (0,))
            if any(at + 1 + step >= len(self.code) for step in reach):
                raise ValueError(f"instruction {at} leads out of the program")
            if op == 0x20 and (k % 4 or k >= 64):
                raise ValueError(f"instruction {at} loads from {k}")

    def run(self, number: int, architecture: int, args: Sequence[int] = (), big_endian: bool = False) -> int:
        """What the filter returns for a call."""
        return self.trace(number, architecture, args, big_endian)[0]

    def trace(
        self, number: int, architecture: int, args: Sequence[int] = (), big_endian: bool = False
    ) -> tuple[int, int]:
        """The same, and how many instructions that took."""
        order = ">" if big_endian else "<"
        data = struct.pack(f"{order}IIQ6Q", number, architecture, 0, *args, *[0] * (6 - len(args)))
        a = x = at = steps = 0
        memory = [0] * 16
        while True:
            op, jt, jf, k = self.code[at]
            at, steps = at + 1, steps + 1
            if op == 0x06:
                return k, steps
            if op == 0x16:
                return a, steps
            if op == 0x20:
                a = struct.unpack_from(f"{order}I", data, k)[0]
            elif op == 0x00:
                a = k
            elif op == 0x01:
                x = k
            elif op == 0x60:
                a = memory[k]
            elif op == 0x61:
                x = memory[k]
            elif op == 0x02:
                memory[k] = a
            elif op == 0x03:
                memory[k] = x
            elif op == 0x07:
                x = a
            elif op == 0x87:
                a = x
            elif op == 0x05:
                at += k
            elif op & 7 == 5:
                at += jt if _TESTS[op & 0xF0](a, x if op & 8 else k) else jf
            elif op & 7 == 4:
                a = _ALU[op & 0xF0](a, x if op & 8 else k) & 0xFFFFFFFF
            else:
                raise ValueError(f"no such instruction: {op:#x}")
