"""The processes of a container as ps(1) of the host shows them: `GET /containers/{id}/top`.

ps is asked for what the user wants to see, in the user's own options, and the rows of the container are those whose pid the
kernel has in its cgroup. So there is every column that ps has, and nothing of the container is run or read for it.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter, System, Unavailable
from sampan.kernel import cgroup
from sampan.oci import lifecycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from subprocess import CompletedProcess
    from typing import Any, Protocol

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...

    class Announcer(Protocol):
        def container(self, record: Record, action: str) -> None: ...


DEFAULT_OPTIONS = "-ef"

_ARGUMENT_MAX = 100_000
"""Bytes; one argument of execve may have 128 KiB (MAX_ARG_STRLEN)."""


class ProcessLister:
    """`GET /containers/{id}/top`."""

    def __init__(self, settler: Settler, cgroups: CgroupDriver, events: Announcer) -> None:
        self._settler = settler
        self._cgroups = cgroups
        self._events = events

    def top(self, record: Record, options: str = "") -> dict[str, Any]:
        """{"Titles": [...], "Processes": [[...]]}; options: those of ps, as one text.

        Raises Conflict if the container does not run, InvalidParameter and System in Docker's words for options that do
        not give what it takes.
        """
        options = options or DEFAULT_OPTIONS
        _check_titles(options)
        seen = self._settler.observe(record)
        lifecycle.check(lifecycle.TOP, seen.status, record.id, record.name)
        if self._cgroups.version == cgroup.NONE:
            raise Unavailable(f"the processes of a container cannot be told: {self._cgroups.reason}")
        pids = sorted(self._cgroups.processes(cgroup.container_group(record.id, record.host_config)))
        titles, rows = _processes(options.split(), pids)
        self._events.container(record, "top")
        return {"Titles": titles, "Processes": rows}


def _check_titles(options: str) -> None:
    """Raise InvalidParameter if another column is to be called PID: by that title the container's rows are found."""
    import re

    for name, title in re.findall(r"(?<=\s)(\S*)=\s*(PID\S*)", options):
        if name != "pid":
            raise InvalidParameter(f'specifying "{name}={title}" is not allowed')


def _processes(options: list[str], pids: list[int]) -> tuple[list[str], list[list[str]]]:
    try:
        output = _run_ps(options, pids)
    except FileNotFoundError:
        from sampan.engine.processtable import table

        return table(options, pids)
    return select(output, frozenset(pids))


def _run_ps(options: list[str], pids: Iterable[int]) -> bytes:
    """What ps prints. Raises FileNotFoundError if this machine has none, System if it does not like the options."""
    # Only ours, so that it looks at no other process; not all options go with that, as "f".
    only = f"-q{','.join(map(str, pids))}"
    if len(only) < _ARGUMENT_MAX:
        done = _ps([*options, only])
        if done.returncode == 0:
            return done.stdout
    done = _ps(options)
    if done.returncode != 0:
        why = done.stderr.partition(b"\n")[0].decode("utf-8", "replace") or _status(done.returncode)
        raise System(f"ps: {why}")
    return done.stdout


def _status(code: int) -> str:
    return f"exit status {code}" if code > 0 else f"signal {-code}"


def _ps(arguments: list[str]) -> CompletedProcess[bytes]:
    import subprocess

    # COLUMNS and a handful of others in the caller's environment would cut or change what it prints.
    environment = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}
    return subprocess.run(
        ["ps", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**environment, "LC_ALL": "C.UTF-8"},
        check=False,
    )


def select(output: bytes, pids: frozenset[int]) -> tuple[list[str], list[list[str]]]:
    """The titles and the rows of these processes in what ps has printed. Raises System if there is no pid in it."""
    head, *lines = output.split(b"\n")
    titles = _words(head)
    if "PID" not in titles:
        raise System("Couldn't find PID field in ps output")
    at = titles.index("PID")
    rows = []
    inside = False
    for line in lines:
        words = _words(line)
        if not words:
            continue
        # A thread's line (`m`) has a dash for its pid, and belongs to the process above it.
        if words[at] != "-":
            inside = _pid(words[at]) in pids
        if inside:
            last = len(titles) - 1
            rows.append([*words[:last], " ".join(words[last:])])
    return titles, rows


def _pid(word: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise System(f"Unexpected pid '{word}': strconv.Atoi: parsing \"{word}\": invalid syntax")
    return int(word)


def _words(line: bytes) -> list[str]:
    # Split as bytes, at the spaces of ASCII: others may stand in a command's name.
    return [word.decode("utf-8", "surrogateescape") for word in line.split()]
