"""ELF files made by hand: what a linker would make, without one."""

from __future__ import annotations

import struct
from collections.abc import Sequence

MAGIC = b"\x7fELF"
LOADED_AT = 0x1000


def made(
    interpreter: str = "",
    needed: Sequence[str] = (),
    soname: str = "",
    rpath: str = "",
    runpath: str = "",
    wide: bool = True,
    little: bool = True,
    machine: int = 183,
) -> bytes:
    """A file with program headers, an interpreter and a dynamic section that say this; behind their end comes rubbish."""
    order = "<" if little else ">"
    tags = [(1, name) for name in needed]
    tags += [(tag, text) for tag, text in ((14, soname), (15, rpath), (29, runpath)) if text]
    strings, numbers = b"\0", []
    for tag, text in tags:
        numbers.append((tag, len(strings)))
        strings += text.encode() + b"\0"
    interpreter_text = interpreter.encode() + b"\0"
    header_size, entry_size = (64, 56) if wide else (52, 32)
    interpreter_at = header_size + 3 * entry_size
    strings_at = interpreter_at + len(interpreter_text)
    dynamic_at = strings_at + len(strings)
    numbers += [(5, LOADED_AT + strings_at), (0, 0), (1, 0)]
    dynamic = b"".join(struct.pack(order + ("qQ" if wide else "iI"), *number) for number in numbers)

    def segment(kind: int, offset: int, length: int) -> bytes:
        address = LOADED_AT + offset
        if wide:
            return struct.pack(order + "IIQQQQQQ", kind, 0, offset, address, 0, length, length, 0)
        return struct.pack(order + "IIIIIIII", kind, offset, address, 0, length, length, 0, 0)

    identity = MAGIC + bytes([2 if wide else 1, 1 if little else 2, 1]) + bytes(9)
    words = "QQQ" if wide else "III"
    numbers_of_header = (3, machine, 1, 0, header_size, 0, 0, header_size, entry_size, 3, 0, 0, 0)
    header = identity + struct.pack(order + "HHI" + words + "IHHHHHH", *numbers_of_header)
    segments = segment(1, 0, dynamic_at + len(dynamic))
    # A segment of a kind that means nothing stands for the interpreter that is not there.
    segments += segment(3 if interpreter else 0x6000_0000, interpreter_at, len(interpreter_text))
    segments += segment(2, dynamic_at, len(dynamic))
    return header + segments + interpreter_text + strings + dynamic
