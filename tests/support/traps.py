"""What the tests of other engines' faults share: files of an image that are programs, and what may not be reached."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from sampan.runtime import sealed


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.chmod(path, 0o755)


def descriptors(pid: int) -> dict[int, str]:
    """What the open descriptors of a process lead to; one that is closed while we look is none."""
    held = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            held[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
    return held


def engine_files() -> list[Path]:
    """What a shim is executed from: the interpreter, its shared library if it is a stub, and docker-init."""
    files = [Path(os.path.realpath(sys._base_executable))]  # type: ignore[attr-defined]
    library = sealed.library_directory()
    if library:
        files += [path for path in Path(library).glob("libpython*.so*") if path.is_file()]
    init = shutil.which("tini-static")
    assert init, "the tests need tini (scripts/packages)"
    return [*files, Path(init)]
