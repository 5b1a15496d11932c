"""Which modules a process imported, and the lists that approve of them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.patience import patience

GOLDEN = Path(__file__).parents[1] / "golden"


def imported(args: list[str], env: Mapping[str, str] | None = None) -> set[str]:
    """The modules that `python ARGS` imports, by the interpreter's own report; how it ends does not matter."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *args],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patience(60),
    )
    return set(re.findall(r"^import time:[ \d]+\|[ \d]+\| +([\w.]+)$", result.stderr, re.MULTILINE))


def imported_by_script(path: Path) -> set[str]:
    """The same of a script that starts as the shim does. The error that it ends with is not shown: Python 3.13 imports much for that."""
    quiet = "import sys; sys.excepthook = lambda *_: None; sys.argv = sys.argv[1:]"
    run = "exec(compile(open(sys.argv[0]).read(), sys.argv[0], 'exec'), {'__name__': '__main__', '__file__': sys.argv[0]})"
    return imported(["-I", "-S", "-c", f"{quiet}; {run}", str(path)])


def unapproved(found: set[str], name: str) -> list[str]:
    """What is in `found`, is not imported by an interpreter that has `os`, and is not in tests/golden/imports-NAME.txt.

    The lists are upper bounds, because what the standard library imports differs between versions of Python. Nobody
    writes them but by hand: a new line is a decision that a start may cost more.
    """
    approved = {line for line in (GOLDEN / f"imports-{name}.txt").read_text().splitlines() if line[:1] != "#"}
    return sorted(found - approved - imported(["-I", "-S", "-c", "import os"]))
