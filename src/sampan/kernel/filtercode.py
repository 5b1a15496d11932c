"""An assembler of classic BPF for seccomp filters, written from the end: whatever a jump leads to is there already.

A place is counted from the end of the program, so that it stays true when more is put in front. Jumps go forward only, and
a conditional one not further than 255 instructions: what is further away is reached by a `ja`, or, if it is a return, written again.
Sources: Documentation/networking/filter.rst, linux/filter.h, Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import struct

LARGEST = 4096
"""Instructions that the kernel takes (BPF_MAXINSNS, linux/bpf_common.h)."""

_LOAD_WORD = 0x20  # A = seccomp_data[k]
_AND = 0x54  # A &= k
_JUMP_ALWAYS = 0x05
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL = 0x15, 0x25, 0x35
_RETURN = 0x06
_FAR = 255

NUMBER_AT, ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
"""Offsets in struct seccomp_data (linux/seccomp.h): int nr, u32 arch, u64 instruction_pointer, u64 args[6]."""


def argument_at(index: int, upper: bool, little_endian: bool) -> int:
    """The offset of one half of an argument."""
    return _ARGUMENTS_AT + 8 * index + (4 if upper == little_endian else 0)


class Code:
    """A program that grows at its front. Each method puts something there and gives its place."""

    def __init__(self) -> None:
        self._reversed: list[bytes] = []
        self._returns: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._reversed)

    def program(self) -> bytes:
        """The whole, as seccomp(2) takes it (an array of struct sock_filter)."""
        return b"".join(reversed(self._reversed))

    def _put(self, code: int, k: int, if_true: int = 0, if_false: int = 0) -> int:
        self._reversed.append(struct.pack("=HBBI", code, if_true, if_false, k))
        return len(self._reversed)

    def give(self, value: int) -> int:
        """Return `value` to the kernel. One that is near enough for a jump serves again."""
        place = self._returns.get(value)
        # Between here and the jump that wants it there may be some more instructions, and the `ja` of its other side.
        if place is None or len(self) - place > _FAR - 16:
            place = self._returns[value] = self._put(_RETURN, value)
        return place

    def jump(self, place: int) -> int:
        """Go on at `place`, however far away."""
        return place if place == len(self) else self._put(_JUMP_ALWAYS, len(self) - place)

    def load(self, offset: int, then: int) -> int:
        """Load a word of seccomp_data and go on at `then`."""
        self.jump(then)
        return self._put(_LOAD_WORD, offset)

    def mask(self, bits: int, then: int) -> int:
        """Keep some bits of the accumulator and go on at `then`."""
        self.jump(then)
        return self._put(_AND, bits)

    def equal(self, k: int, if_true: int, if_false: int) -> int:
        return self._branch(_JUMP_EQUAL, k, if_true, if_false)

    def greater(self, k: int, if_true: int, if_false: int) -> int:
        return self._branch(_JUMP_GREATER, k, if_true, if_false)

    def greater_equal(self, k: int, if_true: int, if_false: int) -> int:
        return self._branch(_JUMP_GREATER_EQUAL, k, if_true, if_false)

    def _branch(self, code: int, k: int, if_true: int, if_false: int) -> int:
        if if_true == if_false:
            return self.jump(if_true)
        # Twice: a `ja` for the one side moves the other side away.
        for _ in range(2):
            if len(self) - if_true > _FAR:
                if_true = self.jump(if_true)
            if len(self) - if_false > _FAR:
                if_false = self.jump(if_false)
        return self._put(code, k, len(self) - if_true, len(self) - if_false)
