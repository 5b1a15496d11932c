"""The package's modules in one file, imported from there without being looked for: half a start's time of imports.

The file is a cache of the cache: what lies in `__pycache__` of the package's directories, behind an index. A module whose source has
changed since, or which is not in it, is imported as ever, and the file is made anew at the end by whoever noticed (`keep`).
Where it cannot be written nothing is lost but time.

What one purpose (a command until it knows its verb; a verb) imports from its beginning to its end, or to the next purpose, is there once more in one piece, in
the order in which it was imported, so that the next command of that purpose neither looks for it nor makes the same names sixty times (`together`): a fifth of
what is left. The code there has neither docstrings nor line numbers, a quarter of what there is to make (`lean`); who reads a traceback has the lines
looked up in the module's own code.

    magic number of the byte code | bytes of the index | index | code of each module | code of each purpose's modules
    index: module's name -> (is a package, mtime in ns, size, offset, length), purpose -> (modules' names, offset, length)
"""

from __future__ import annotations

import gc
import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType, TracebackType
    from typing import Any

    Entry = tuple[bool, int, int, int, int]
    Piece = tuple[tuple[str, ...], int, int]
else:
    ModuleSpec = type(__spec__)
    ModuleType = type(sys)
    CodeType = type((lambda: None).__code__)

_ROOT = os.path.dirname(os.path.abspath(__file__))
_FILE = f"{_ROOT}/__pycache__/all.{sys.implementation.cache_tag}.bundle"
_HEADER = len(MAGIC_NUMBER) + 4


class Loader:
    """Runs the code that the finder has put into the spec."""

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType | None:
        return None

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        spec: Any = module.__spec__
        code, spec.loader_state = spec.loader_state, None
        exec(marshal.loads(code), module.__dict__)
        _imported.append(module.__name__)


_imported: list[str] = []
"""What came from the file, in the order in which it was ready: a module after those that it imports."""


class Finder:
    """Finds what is in the file. `missed`: something that is not there, or not as it is now, was asked for; `lacking`: a module."""

    def __init__(self) -> None:
        self.missed = self.lacking = False
        self.purposes: list[tuple[str, int]] = []
        """What was asked for at once in turn, and how many modules had come from the file then."""
        self.pieces: dict[str, Piece] = {}
        self._index: dict[str, Entry] = {}
        self._base = 0
        self._file = (0, 0, 0)
        try:
            with open(_FILE, "rb", buffering=0) as f:
                header = f.read(_HEADER)
                if header[:-4] == MAGIC_NUMBER:
                    length = int.from_bytes(header[-4:], "little")
                    self._index, self.pieces = marshal.loads(f.read(length))
                    self._file, self._base = _identity(f.fileno()), _HEADER + length
        except (OSError, EOFError, ValueError, TypeError):
            pass  # none yet, or a broken one

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith("sampan."):
            return None
        entry = self._index.get(name)
        code = None if entry is None else self._code(name, entry)
        if entry is None or not code:
            self.lacking |= code is None
            self.missed |= self.lacking
            return None
        return self._spec(name, entry, code)

    @staticmethod
    def _spec(name: str, entry: Entry, code: bytes | None = None) -> ModuleSpec:
        # Its parent is there already, and knows where it is.
        spec = ModuleSpec(name, Loader, origin=_source(name, entry[0]), loader_state=code, is_package=entry[0])  # type: ignore[arg-type]
        spec.has_location = True
        if entry[0]:
            spec.submodule_search_locations = [os.path.dirname(spec.origin or "")]
        return spec

    def take(self, purpose: str) -> None:
        """Import the modules of a purpose. Those of which one has changed are imported one by one, as ever."""
        self.purposes.append((purpose, len(_imported)))
        names, offset, length = self.pieces.get(purpose, ((), 0, 0))
        data = self._read(offset, length) if names and all(self._is_current(name) for name in names) else None
        try:
            codes = marshal.loads(data or b"")
        except (EOFError, ValueError, TypeError):  # none yet, or a broken one
            self.missed = True
            return
        sys.excepthook = _tell
        for name, code in zip(names, codes, strict=True):
            if name not in sys.modules:
                self._execute(name, code)

    def _execute(self, name: str, code: Any) -> None:
        """What `import` does with a module whose parent is there, without a lock for each: there are no threads yet."""
        package = self._index[name][0]
        parent, _, last = name.rpartition(".")
        module = ModuleType(name)
        spec = module.__spec__ = self._spec(name, self._index[name])
        module.__loader__, module.__file__ = spec.loader, spec.origin
        module.__package__ = name if package else parent
        if package:
            module.__path__ = spec.submodule_search_locations or []
        sys.modules[name] = module
        try:
            exec(code, module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
        setattr(sys.modules[parent], last, module)
        _imported.append(name)

    def code_of(self, name: str) -> CodeType | None:
        """A module's own code, which has its lines; None if it is not there as it is now."""
        entry = self._index.get(name)
        data = self._code(name, entry) if entry is not None else None
        code: CodeType | None = marshal.loads(data) if data else None
        return code

    def _is_current(self, name: str) -> bool:
        package, modified, size, _, _ = self._index[name]
        try:
            source = os.stat(_source(name, package))
        except OSError:
            return False
        return (source.st_mtime_ns, source.st_size) == (modified, size)

    def _code(self, name: str, entry: Entry) -> bytes | None:
        return self._read(*entry[3:]) if self._is_current(name) else None

    def _read(self, offset: int, length: int) -> bytes | None:
        try:
            # Opened anew for each: a descriptor of ours would be counted by --preserve-fds.
            fd = os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if _identity(fd) != self._file:
                return None  # somebody has replaced it in this moment
            code = os.pread(fd, length, self._base + offset)
        finally:
            os.close(fd)
        return code if len(code) == length else None


_finder: Finder | None = None


def use() -> None:
    """From here on the package's modules come out of the file, as far as it has them.

    Imports make many objects and no garbage: the collector looks for some only after 100 000 of them (a tenth of the imports' time).
    """
    global _finder
    gc.set_threshold(100_000)
    if not sys.flags.optimize:
        _finder = Finder()
        sys.meta_path.insert(0, _finder)


def together(purpose: str) -> None:
    """Import now what the last command of this purpose imported after this call and before the next one; nothing if there was none."""
    if _finder is not None:
        _finder.take(purpose)


def keep(learn: bool = True) -> None:
    """Make the file anew if something was missed. learn: what was imported since `together` is what its purpose needs."""
    if (
        _finder is None
        or not _finder.missed
        or sys.dont_write_bytecode
        or not os.access(os.path.dirname(_FILE), os.W_OK)
    ):
        return
    index: dict[str, Entry] = {}
    codes: list[bytes] = []
    offset = 0
    for name, package, modified, size, code in _compiled():
        index[name] = (package, modified, size, offset, len(code))
        codes.append(code)
        offset += len(code)
    pieces: dict[str, Piece] = {}
    for purpose, names in _wanted(_finder, learn).items():
        if all(name in index and index[name][4] for name in names):
            found = {name: marshal.loads(codes[at]) for at, name in enumerate(index) if name in names}
            codes.append(marshal.dumps(tuple(lean(found[name]) for name in names)))
            pieces[purpose] = (names, offset, len(codes[-1]))
            offset += len(codes[-1])
    head = marshal.dumps((index, pieces))
    temporary = f"{_FILE}.{os.getpid()}"
    try:
        with open(temporary, "xb") as f:
            f.write(b"".join((MAGIC_NUMBER, len(head).to_bytes(4, "little"), head, *codes)))
        os.rename(temporary, _FILE)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass


def _wanted(finder: Finder, learn: bool) -> dict[str, tuple[str, ...]]:
    """The modules of each purpose. Those of a command that had to look for one elsewhere are not all known: the next one's are."""
    wanted = {} if finder.lacking else {purpose: names for purpose, (names, _, _) in finder.pieces.items()}
    if learn and not finder.lacking:
        ends = [since for _, since in finder.purposes[1:]] + [len(_imported)]
        for (purpose, since), end in zip(finder.purposes, ends, strict=True):
            wanted[purpose] = tuple(_imported[since:end])
    return wanted


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


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python prints of an error that nobody caught, with the lines that its code is here without (sys.excepthook)."""
    import traceback

    told = traceback.TracebackException(kind, error, trace)
    parts: list[tuple[Any, Any]] = [(told, error)]
    while parts:
        part, of = parts.pop()
        entry = of.__traceback__
        for index, shown in enumerate(part.stack):
            code = entry.tb_frame.f_code
            whole = _finder and shown.lineno is None and _finder.code_of(entry.tb_frame.f_globals["__name__"])
            if whole:
                line = line_of(whole, code, entry.tb_lasti)
                part.stack[index] = traceback.FrameSummary(shown.filename, line, shown.name)
            entry = entry.tb_next
        chained = ((part.__cause__, of.__cause__), (part.__context__, of.__context__))
        parts += [pair for pair in chained if pair[0]]
    sys.stderr.write("".join(told.format()))


def _identity(fd: int) -> tuple[int, int, int]:
    """Which file this is; the inode's number alone may be that of one that has gone."""
    status = os.fstat(fd)
    return status.st_ino, status.st_mtime_ns, status.st_size


def _source(name: str, package: bool) -> str:
    place = f"{_ROOT}/{'/'.join(name.split('.')[1:])}"
    return f"{place}/__init__.py" if package else f"{place}.py"


def _compiled() -> list[tuple[str, bool, int, int, bytes]]:
    """The modules whose byte code is that of their source: name, is a package, mtime, size, code."""
    found = []
    for room in (
        "",
        *sorted(entry.name for entry in os.scandir(_ROOT) if entry.is_dir() and entry.name.isidentifier()),
    ):
        cache = os.path.join(_ROOT, room, "__pycache__")
        ending = f".{sys.implementation.cache_tag}.pyc"
        for file in sorted(os.listdir(cache)) if os.path.isdir(cache) else ():
            stem = file.removesuffix(ending)
            if stem == file:
                continue
            package = stem == "__init__"
            name = ".".join(part for part in ("sampan", room, "" if package else stem) if part)
            try:
                source = os.stat(_source(name, package))
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
