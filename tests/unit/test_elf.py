"""Programs as ELF files: real ones of this machine, one made by hand, and damaged ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidParameter
from sampan.oci import elf

from support import elves


def made(wide: bool = True, little: bool = True) -> bytes:
    """A program with an interpreter, two libraries and both kinds of paths."""
    return elves.made(
        interpreter="/lib/ld.so",
        needed=["liba.so", "libb.so.1"],
        soname="me.so",
        rpath="/old",
        runpath="$ORIGIN/../lib:/opt/lib",
        wide=wide,
        little=little,
    )


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
