"""Programs as ELF files: real ones of this machine, one made by hand, and damaged ones."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidParameter
from sampan.oci import elf


def made(wide: bool = True, little: bool = True) -> bytes:
    """A program with an interpreter, two libraries and both kinds of paths, loaded at 0x1000."""
    order = "<" if little else ">"
    strings = b"\0libb.so.1\0liba.so\0$ORIGIN/../lib:/opt/lib\0/old\0me.so\0"
    interpreter = b"/lib/ld.so\0"

    def at(text: bytes) -> int:
        return strings.index(b"\0" + text + b"\0") + 1

    header_size, entry_size = (64, 56) if wide else (52, 32)
    interpreter_at = header_size + 3 * entry_size
    strings_at = interpreter_at + len(interpreter)
    dynamic_at = strings_at + len(strings)
    tags = [
        (1, at(b"liba.so")),
        (1, at(b"libb.so.1")),
        (14, at(b"me.so")),
        (29, at(b"$ORIGIN/../lib:/opt/lib")),
        (15, at(b"/old")),
        (5, 0x1000 + strings_at),
        (0, 0),
        (1, 0),
    ]
    dynamic = b"".join(struct.pack(order + ("qQ" if wide else "iI"), *tag) for tag in tags)
    size = dynamic_at + len(dynamic)

    def segment(kind: int, offset: int, length: int) -> bytes:
        if wide:
            return struct.pack(order + "IIQQQQQQ", kind, 0, offset, 0x1000 + offset, 0, length, length, 0)
        return struct.pack(order + "IIIIIIII", kind, offset, 0x1000 + offset, 0, length, length, 0, 0)

    identity = elf.MAGIC + bytes([2 if wide else 1, 1 if little else 2, 1]) + bytes(9)
    words = "QQQ" if wide else "III"
    header = identity + struct.pack(order + "HHI" + words + "IHHHHHH", 3, 183, 1, 0, header_size, 0, 0, *(0,) * 6)
    header = bytearray(header)
    struct.pack_into(order + "HH", header, 54 if wide else 42, entry_size, 3)
    segments = segment(1, 0, size) + segment(3, interpreter_at, len(interpreter))
    segments += segment(2, dynamic_at, len(dynamic))
    return bytes(header) + segments + interpreter + strings + dynamic


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("little", [True, False])
def test_what_a_program_needs_is_read(wide: bool, little: bool) -> None:
    found = elf.parse(made(wide, little))
    assert found == elf.Elf(
        bits=64 if wide else 32,
        little_endian=little,
        machine=183,
        interpreter="/lib/ld.so",
        needed=("liba.so", "libb.so.1"),
        soname="me.so",
        rpath=("/old",),
        runpath=("$ORIGIN/../lib", "/opt/lib"),
    )
    assert not found.is_static
    assert not found.same_machine(found.replace(bits=33))


def test_a_real_program_needs_what_its_loader_says() -> None:
    program = shutil.which("ls")
    assert program is not None
    found = elf.parse(Path(program).read_bytes())
    listed = subprocess.run([found.interpreter, "--list", program], capture_output=True, text=True, check=True).stdout
    for name in found.needed:
        assert name in listed
    assert "libc.so.6" in found.needed
    assert elf.parse(Path(sys.executable).read_bytes()).same_machine(found)


def test_a_static_program_is_known() -> None:
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox-static is one of the packages that the tests need"
    assert elf.parse(Path(busybox).read_bytes()).is_static


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fEL", elf.MAGIC, elf.MAGIC + bytes(60), made()[:200]])
def test_what_is_no_elf_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidParameter):
        elf.parse(data)


@given(st.integers(0, len(made()) - 1), st.integers(0, 255))
def test_one_wrong_byte_breaks_nothing(position: int, value: int) -> None:
    data = bytearray(made())
    data[position] = value
    assert _is_read(bytes(data)) in (True, False)


@given(st.integers(0, len(made())), st.binary(max_size=64))
def test_a_torn_file_breaks_nothing(length: int, tail: bytes) -> None:
    assert _is_read(made()[:length] + tail) in (True, False)


def _is_read(data: bytes) -> bool:
    try:
        elf.parse(data)
    except InvalidParameter:
        return False
    return True
