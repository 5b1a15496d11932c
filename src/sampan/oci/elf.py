"""What an ELF file says that it needs to run: its interpreter, its libraries, where to look for them.

System V ABI, chapters 4 (object files) and 5 (program loading and dynamic linking); ld.so(8). Pure parsing: bytes in,
facts out. Section headers are not looked at, for a stripped program may have none.
"""

from __future__ import annotations

import struct

from sampan.errors import InvalidParameter
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\x7fELF"

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 14, 15, 29

# Bounds for what a damaged file may claim: no program header table or dynamic section comes near.
_MAX_HEADERS = 1024
_MAX_DYNAMIC = 65536
_MAX_TEXT = 4096


class Elf(Struct):
    """Facts of one file.

    bits: 32 or 64. machine: the e_machine number (62 is x86-64, 183 is aarch64). interpreter: "" if the kernel needs
    none, as for a static program. needed: names of libraries in their order. rpath, runpath: the directories as
    written, with $ORIGIN unexpanded; the loader looks at rpath only where there is no runpath.
    """

    bits: int
    little_endian: bool
    machine: int
    interpreter: str
    needed: tuple[str, ...]
    soname: str
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]

    @property
    def is_static(self) -> bool:
        """Whether nothing but the file itself is needed to run it. True of static-pie programs too."""
        return not self.interpreter and not self.needed

    def same_machine(self, other: Elf) -> bool:
        """Whether one can be loaded into the other's process."""
        return (self.bits, self.little_endian, self.machine) == (other.bits, other.little_endian, other.machine)


class _Segment(Struct):
    kind: int
    offset: int
    address: int
    size: int


def parse(data: bytes) -> Elf:
    """The facts of an ELF file. Raises `InvalidParameter` for anything else, and for a damaged one."""
    if data[:4] != MAGIC:
        raise InvalidParameter("not an ELF file")
    try:
        return _parse(data)
    except (struct.error, IndexError, UnicodeDecodeError) as e:
        raise InvalidParameter(f"damaged ELF file: {e}") from None


def _parse(data: bytes) -> Elf:
    if data[4] not in (1, 2) or data[5] not in (1, 2):
        raise InvalidParameter("damaged ELF file: impossible class or byte order")
    wide, little = data[4] == 2, data[5] == 1
    order = "<" if little else ">"
    (machine,) = struct.unpack_from(order + "H", data, 18)
    segments = list(_segments(data, order, wide))
    interpreter = ""
    dynamic: list[tuple[int, int]] = []
    for segment in segments:
        if segment.kind == _PT_INTERP:
            interpreter = _text(data, segment.offset)
        elif segment.kind == _PT_DYNAMIC:
            dynamic = list(_dynamic(data, order, wide, segment))
    strings = next((_offset(segments, value) for tag, value in dynamic if tag == _DT_STRTAB), 0)

    def texts(wanted: int) -> list[str]:
        return [_text(data, strings + value) for tag, value in dynamic if tag == wanted]

    return Elf(
        bits=64 if wide else 32,
        little_endian=little,
        machine=machine,
        interpreter=interpreter,
        needed=tuple(texts(_DT_NEEDED)),
        soname=next(iter(texts(_DT_SONAME)), ""),
        rpath=_directories(texts(_DT_RPATH)),
        runpath=_directories(texts(_DT_RUNPATH)),
    )


def _segments(data: bytes, order: str, wide: bool) -> Iterator[_Segment]:
    """The program headers. The two classes order their fields differently, so that 64-bit ones are aligned."""
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), data, 32 if wide else 28)
    entry_size, count = struct.unpack_from(order + "HH", data, 54 if wide else 42)
    if count > _MAX_HEADERS:
        raise InvalidParameter(f"damaged ELF file: {count} program headers")
    for i in range(count):
        at = table + i * entry_size
        if wide:
            kind, _flags, offset, address, _physical, size = struct.unpack_from(order + "IIQQQQ", data, at)
        else:
            kind, offset, address, _physical, size = struct.unpack_from(order + "IIIII", data, at)
        yield _Segment(kind, offset, address, size)


def _dynamic(data: bytes, order: str, wide: bool, segment: _Segment) -> Iterator[tuple[int, int]]:
    entry = struct.Struct(order + ("qQ" if wide else "iI"))
    for i in range(min(segment.size // entry.size, _MAX_DYNAMIC)):
        tag, value = entry.unpack_from(data, segment.offset + i * entry.size)
        if tag == _DT_NULL:
            return
        yield tag, value


def _offset(segments: list[_Segment], address: int) -> int:
    """Where in the file the byte is that is loaded at an address."""
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    raise InvalidParameter(f"damaged ELF file: nothing is loaded at {address:#x}")


def _text(data: bytes, offset: int) -> str:
    if offset >= len(data):
        raise InvalidParameter(f"damaged ELF file: text at {offset:#x}, behind its end")
    end = data.find(b"\0", offset, offset + _MAX_TEXT)
    if end < 0:
        raise InvalidParameter(f"damaged ELF file: endless text at {offset:#x}")
    return data[offset:end].decode("utf-8", "surrogateescape")


def _directories(texts: list[str]) -> tuple[str, ...]:
    return tuple(directory for text in texts for directory in text.split(":") if directory)
