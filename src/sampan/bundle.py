"""The package's modules in one file, imported from there without being looked for: half a start's time of imports.

The file is a cache of the cache: what lies in `__pycache__` of the package's directories, behind an index. A module whose source has
changed since, or which is not in it, is imported as ever, and the file is made anew at the end by whoever noticed (`keep`).
Where it cannot be written nothing is lost but time.

    magic number of the byte code | bytes of the index | index: name -> (is a package, mtime in ns, size, offset, length) | code
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
    from types import ModuleType
    from typing import Any

    Entry = tuple[bool, int, int, int, int]
else:
    ModuleSpec = type(__spec__)

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


class Finder:
    """Finds what is in the file. `missed`: something of the package was asked for that is not, or not as it is now."""

    def __init__(self) -> None:
        self.missed = False
        self._index: dict[str, Entry] = {}
        self._inode = self._base = 0
        try:
            with open(_FILE, "rb", buffering=0) as f:
                header = f.read(_HEADER)
                if header[:-4] == MAGIC_NUMBER:
                    length = int.from_bytes(header[-4:], "little")
                    self._index = marshal.loads(f.read(length))
                    self._inode, self._base = os.fstat(f.fileno()).st_ino, _HEADER + length
        except (OSError, EOFError, ValueError, TypeError):
            pass  # none yet, or a broken one

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith("sampan."):
            return None
        entry = self._index.get(name)
        code = None if entry is None else self._code(name, entry)
        if entry is None or not code:
            self.missed |= code is None
            return None
        # Its parent is there already, and knows where it is.
        spec = ModuleSpec(name, Loader, origin=_source(name, entry[0]), loader_state=code, is_package=entry[0])  # type: ignore[arg-type]
        spec.has_location = True
        if entry[0]:
            spec.submodule_search_locations = [os.path.dirname(spec.origin or "")]
        return spec

    def _code(self, name: str, entry: Entry) -> bytes | None:
        package, modified, size, offset, length = entry
        try:
            source = os.stat(_source(name, package))
            if (source.st_mtime_ns, source.st_size) != (modified, size):
                return None
            # Opened anew for each: a descriptor of ours would be counted by --preserve-fds.
            fd = os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if os.fstat(fd).st_ino != self._inode:
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


def keep() -> None:
    """Make the file anew if something was missed."""
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
    head = marshal.dumps(index)
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
