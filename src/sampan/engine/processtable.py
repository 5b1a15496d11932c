"""A table of processes without ps(1), for machines that have none: `-ef` and `-o` with the columns that are asked for mostly.

The columns look as those of procps.
"""

from __future__ import annotations

import os
import pwd
import time

from sampan.errors import System
from sampan.kernel.processinfo import ProcessInfo, look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Column = tuple[str, Callable[[ProcessInfo], str]]

_WITHOUT_PS = (
    'ps: exec: "ps": executable file not found in $PATH (without it there are -ef and -o LIST: install procps)'
)
_DAY = 86400


def table(options: list[str], pids: Iterable[int]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of those processes that are there. Raises System for options that only ps(1) knows."""
    columns = [_COLUMNS[name] for name in _wanted(options)]
    found = [process for process in map(look, pids) if process is not None]
    return [title for title, _ in columns], [[cell(process) for _, cell in columns] for process in found]


def _wanted(options: list[str]) -> list[str]:
    """The names of the columns."""
    names: list[str] = []
    left = iter(options)
    for option in left:
        if option in ("-ef", "-e", "-f", "-A"):
            continue
        letters, _, list_ = option.partition("o")
        if letters not in ("-", "-e"):
            raise System(_WITHOUT_PS)
        names += (list_ or next(left, "")).split(",")
    if any(name not in _COLUMNS for name in names):
        raise System(_WITHOUT_PS)
    return names or ["user of -f", "pid", "ppid", "c", "stime", "tty", "time", "cmd"]


def _user(process: ProcessInfo) -> str:
    try:
        return pwd.getpwuid(process.user).pw_name
    except KeyError:
        return str(process.user)


def _command(process: ProcessInfo) -> str:
    """What it runs; its name in brackets for one without arguments, as a zombie is."""
    return printable(" ".join(process.arguments) or f"[{process.name}]")


def printable(text: str) -> str:
    """A process says what it likes of itself, and must not write to the terminal of who looks."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _started(process: ProcessInfo) -> float:
    """Seconds since the epoch."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + process.start_ticks / os.sysconf("SC_CLK_TCK")


def _start_time(process: ProcessInfo) -> str:
    """The time of day, or for one of an earlier day its date."""
    started, now = time.localtime(_started(process)), time.localtime()
    return time.strftime("%H:%M" if started[:3] == now[:3] else "%b%d", started)


def _cpu_time(process: ProcessInfo) -> str:
    seconds = process.cpu_ticks // os.sysconf("SC_CLK_TCK")
    days, rest = divmod(seconds, _DAY)
    return (f"{days}-" if days else "") + f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def _utilisation(process: ProcessInfo) -> str:
    """Per cent of the time that it has been there."""
    age = max(time.time() - _started(process), 1)
    return str(min(int(process.cpu_ticks / os.sysconf("SC_CLK_TCK") / age * 100), 99))


def _terminal(process: ProcessInfo) -> str:
    major, minor = os.major(process.tty), os.minor(process.tty)
    if 136 <= major < 144:
        return f"pts/{(major - 136) * 256 + minor}"
    if major == 4:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return "?"


_COLUMNS: dict[str, Column] = {
    "user of -f": ("UID", _user),
    "user": ("USER", _user),
    "uid": ("UID", lambda p: str(p.user)),
    "pid": ("PID", lambda p: str(p.pid)),
    "ppid": ("PPID", lambda p: str(p.parent)),
    "pgid": ("PGID", lambda p: str(p.group)),
    "sid": ("SID", lambda p: str(p.session)),
    "c": ("C", _utilisation),
    "s": ("S", lambda p: p.state),
    "ni": ("NI", lambda p: str(p.nice)),
    "nlwp": ("NLWP", lambda p: str(p.threads)),
    "vsz": ("VSZ", lambda p: str(p.virtual >> 10)),
    "rss": ("RSS", lambda p: str(p.resident >> 10)),
    "stime": ("STIME", _start_time),
    "tty": ("TTY", _terminal),
    "time": ("TIME", _cpu_time),
    "comm": ("COMMAND", lambda p: printable(p.name)),
    "args": ("COMMAND", _command),
    "command": ("COMMAND", _command),
    "cmd": ("CMD", _command),
}
