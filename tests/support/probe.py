"""System calls really made inside a container, by a Python of the host that its file system is mounted for.

The container's own program changes its root to the mounted host, which default capabilities allow, and calls by number.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from sampan.kernel.syscalls import ARCHITECTURES, native_architecture

from support.command import Command

NUMBERS = ARCHITECTURES[native_architecture()].numbers()
PYTHON = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]

_PROGRAM = """
import ctypes, json, os, sys
syscall = ctypes.CDLL(None, use_errno=True).syscall
syscall.restype = ctypes.c_long
answers = []
for number, *args in json.loads(sys.argv[1]):
    pid = os.getpid()
    result = syscall(ctypes.c_long(number), *map(ctypes.c_long, args))
    if os.getpid() != pid:
        os._exit(0)  # a child that a clone made
    answers.append(0 if result >= 0 else ctypes.get_errno())
print(json.dumps(answers))
"""


def inside(calls: Sequence[tuple[str | int, *tuple[int, ...]]]) -> tuple[str, ...]:
    """The command that makes the calls; the errno of each, 0 for success, is what it prints."""
    numbered = [[NUMBERS[name] if isinstance(name, str) else name, *args] for name, *args in calls]
    return ("chroot", "/host", PYTHON, "-I", "-S", "-c", _PROGRAM, json.dumps(numbered))


HOST = ("-v", "/:/host:ro")
"""What the container has to be given for it."""


def answers(cli: Command, calls: Sequence[tuple[str | int, *tuple[int, ...]]], *options: str) -> list[int]:
    """What a container of its own with these options answers to the calls."""
    done = cli("run", "--rm", "--network", "none", *HOST, *options, "base", *inside(calls)).ok()
    found: list[int] = json.loads(done.out)
    return found
