"""The file of `bundle` as it is made, and what is to be known of the code in it when something fails.

Imported by whoever missed something in the file, and for the traceback of a fault.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any

    from sampan.bundle import Entry, Piece
else:
    CodeType = type((lambda: None).__code__)


def whole(root: str, wanted: dict[str, tuple[str, ...]]) -> bytes:
    """The file, as `bundle` describes it, of the package in `root`. wanted: the modules of each purpose."""
    index: dict[str, Entry] = {}
    codes: list[bytes] = []
    offset = 0
    for name, package, modified, size, code in _compiled(root):
        index[name] = (package, modified, size, offset, len(code))
        codes.append(code)
        offset += len(code)
    pieces: dict[str, Piece] = {}
    for purpose, names in wanted.items():
        if all(name in index and index[name][4] for name in names):
            found = {name: marshal.loads(codes[at]) for at, name in enumerate(index) if name in names}
            codes.append(marshal.dumps(tuple(lean(found[name]) for name in names)))
            pieces[purpose] = (names, offset, len(codes[-1]))
            offset += len(codes[-1])
    near = {name for names, _, _ in pieces.values() for name in names}
    rest = {name: entry for name, entry in index.items() if name not in near}
    head = marshal.dumps(({name: index[name] for name in near}, pieces, marshal.dumps(rest)))
    return b"".join((MAGIC_NUMBER, len(head).to_bytes(4, "little"), head, *codes))


def put(file: str, data: bytes) -> None:
    """Write it whole. Where that cannot be nothing is lost."""
    temporary = f"{file}.{os.getpid()}"
    try:
        with open(temporary, "xb") as f:
            f.write(data)
        os.rename(temporary, file)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass


def _compiled(root: str) -> list[tuple[str, bool, int, int, bytes]]:
    """The modules whose byte code is that of their source: name, is a package, mtime, size, code."""
    found = []
    for room in (
        "",
        *sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name.isidentifier()),
    ):
        cache = os.path.join(root, room, "__pycache__")
        ending = f".{sys.implementation.cache_tag}.pyc"
        for file in sorted(os.listdir(cache)) if os.path.isdir(cache) else ():
            stem = file.removesuffix(ending)
            if stem == file:
                continue
            package = stem == "__init__"
            name = ".".join(part for part in ("sampan", room, "" if package else stem) if part)
            try:
                source = os.stat(os.path.join(root, room, f"{stem}.py"))
                with open(f"{cache}/{file}", "rb") as f:
                    data = f.read()
            except OSError:
                continue
            flags, seconds, size = (int.from_bytes(data[at : at + 4], "little") for at in (4, 8, 12))
            if flags:
                code = b""  # by the source's hash and not by its time (PEP 552): found as ever, and not missed
            elif (seconds, size) == (int(source.st_mtime) & 0xFFFFFFFF, source.st_size & 0xFFFFFFFF):
                code = data[16:]
            else:
                continue
            if data[:4] == MAGIC_NUMBER:
                found.append((name, package, source.st_mtime_ns, source.st_size, code))
    return found


_HAS_DOCSTRING = 0x4000000
"""A code's flag from Python 3.14 on (inspect.CO_HAS_DOCSTRING); before, the first constant of a function is its docstring or None."""


def lean(code: CodeType) -> CodeType:
    """The code without the table of its lines, and without the docstrings of its functions."""
    constants = [lean(constant) if isinstance(constant, CodeType) else constant for constant in code.co_consts]
    function = code.co_flags & 0x2 and not code.co_name.startswith("<")  # inspect.CO_NEWLOCALS
    if function and sys.version_info < (3, 14) and constants and isinstance(constants[0], str):
        constants[0] = None
    flags = code.co_flags & ~_HAS_DOCSTRING
    return code.replace(co_consts=tuple(constants), co_flags=flags, co_linetable=_no_lines(len(code.co_code) // 2))


_tables: dict[int, bytes] = {}


def _no_lines(units: int) -> bytes:
    """A table that says of each unit of code that it has no line: entries of the kind 15, eight units each (Objects/locations.md of CPython).

    Exactly as long as the code: a tracer's array of lines has room for that. One for all that are as long: it is written into the file once.
    """
    if units not in _tables:
        whole, rest = divmod(units, 8)
        _tables[units] = b"\xff" * whole + (bytes([0xF8 | rest - 1]) if rest else b"")
    return _tables[units]


def line_of(whole: CodeType, code: CodeType, at: int) -> int | None:
    """The line of the instruction `at` of a lean code. whole: its module's own code."""
    if (whole.co_qualname, whole.co_firstlineno) == (code.co_qualname, code.co_firstlineno):
        return next((line for start, end, line in whole.co_lines() if start <= at < end), None)
    inner = (line_of(constant, code, at) for constant in whole.co_consts if isinstance(constant, CodeType))
    return next((line for line in inner if line is not None), None)


def told(error: BaseException, code_of: Callable[[str], CodeType | None]) -> str:
    """The traceback of an error as Python prints it, with the lines that lean code is without. code_of: a module's own code, by its name."""
    import traceback

    report = traceback.TracebackException.from_exception(error)
    parts: list[tuple[Any, Any]] = [(report, error)]
    while parts:
        part, of = parts.pop()
        entry = of.__traceback__
        for index, shown in enumerate(part.stack):
            code = entry.tb_frame.f_code
            own = code_of(entry.tb_frame.f_globals["__name__"]) if shown.lineno is None else None
            if own:
                line = line_of(own, code, entry.tb_lasti)
                part.stack[index] = traceback.FrameSummary(shown.filename, line, shown.name)
            entry = entry.tb_next
        chained = ((part.__cause__, of.__cause__), (part.__context__, of.__context__))
        parts += [pair for pair in chained if pair[0]]
    return "".join(report.format())
