"""The package's modules in one file, imported from there without being looked for: half a start's time of imports.

The file is a cache of the cache: what lies in `__pycache__` of the package's directories, behind an index. A module whose source has
changed since, or which is not in it, is imported as ever, and the file is made anew at the end by whoever noticed (`keep`).
Where it cannot be written nothing is lost but time.

What one purpose (a command until it knows its verb; a verb) imports from its beginning to its end, or to the next purpose, is there once more in one piece, in
the order in which it was imported, so that the next command of that purpose neither looks for it nor makes the same names sixty times (`together`): a fifth of
what is left. The code there has neither docstrings nor line numbers, a quarter of what there is to make; who reads a traceback has the lines
looked up in the module's own code.

How the file is made is in `bundling`, which few starts need.

    magic number of the byte code | bytes of the index | index | code of each module | code of each purpose's modules
    index: module's name -> (is a package, mtime in ns, size, offset, length), purpose -> (modules' names, offset, length), and, as
    bytes, the first of the modules that no purpose wants
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
        self._rest = b""
        """The index of what no purpose wants, read when it is first asked for: hundreds of modules where all have been compiled."""
        self._base = 0
        self._file = (0, 0, 0)
        try:
            with open(_FILE, "rb", buffering=0) as f:
                header = f.read(_HEADER)
                if header[:-4] == MAGIC_NUMBER:
                    length = int.from_bytes(header[-4:], "little")
                    self._index, self.pieces, self._rest = marshal.loads(f.read(length))
                    self._file, self._base = _identity(f.fileno()), _HEADER + length
        except (OSError, EOFError, ValueError, TypeError):
            pass  # none yet, or a broken one

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith("sampan."):
            return None
        entry = self._entry(name)
        code = None if entry is None else self._code(name, entry)
        if entry is None or not code:
            self.lacking |= code is None
            self.missed |= self.lacking
            return None
        return self._spec(name, entry, code)

    def _entry(self, name: str) -> Entry | None:
        if name not in self._index and self._rest:
            rest, self._rest = self._rest, b""
            try:
                self._index.update(marshal.loads(rest))
            except (EOFError, ValueError, TypeError):
                pass  # a broken one
        return self._index.get(name)

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
        entry = self._entry(name)
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
    wanted = _wanted(_finder, learn)
    from sampan import bundling

    bundling.put(_FILE, bundling.whole(_ROOT, wanted))


def _wanted(finder: Finder, learn: bool) -> dict[str, tuple[str, ...]]:
    """The modules of each purpose. Those of a command that had to look for one elsewhere are not all known: the next one's are."""
    wanted = {} if finder.lacking else {purpose: names for purpose, (names, _, _) in finder.pieces.items()}
    if learn and not finder.lacking:
        ends = [since for _, since in finder.purposes[1:]] + [len(_imported)]
        for (purpose, since), end in zip(finder.purposes, ends, strict=True):
            wanted[purpose] = tuple(_imported[since:end])
    return wanted


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python prints of an error that nobody caught, with the lines that its code is here without (sys.excepthook)."""
    from sampan import bundling

    sys.stderr.write(bundling.told(error, _finder.code_of) if _finder is not None else "")


def _identity(fd: int) -> tuple[int, int, int]:
    """Which file this is; the inode's number alone may be that of one that has gone."""
    status = os.fstat(fd)
    return status.st_ino, status.st_mtime_ns, status.st_size


def _source(name: str, package: bool) -> str:
    place = f"{_ROOT}/{'/'.join(name.split('.')[1:])}"
    return f"{place}/__init__.py" if package else f"{place}.py"
