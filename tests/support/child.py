"""A function run in a process of its own: for what cannot be undone (namespaces, privileges, closed descriptors)."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def in_child(function: Callable[[], T]) -> T:
    """What `function` returns, from a forked process; an AssertionError with its traceback if it raises there."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        # High up and marked, so that a function may close or list the low ones.
        channel = os.dup2(writing, 900, inheritable=False)
        _answer(function, channel)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert data, f"the child ended by itself: {os.waitstatus_to_exitcode(status)}"
    succeeded, value = pickle.loads(data)
    assert succeeded, value
    result: T = value
    return result


def _answer(function: Callable[[], Any], channel: int) -> None:
    try:
        try:
            answer = (True, function())
        except BaseException:
            answer = (False, traceback.format_exc())
        data = pickle.dumps(answer)
        while data:
            data = data[os.write(channel, data) :]
    finally:
        os._exit(0)
