"""What /proc says of one process: who it is, what it runs, what it has used (proc_pid_stat(5), proc_pid_status(5))."""

from __future__ import annotations

import os

from sampan.kernel import process
from sampan.kernel.files import lock_holder
from sampan.structs import Struct


class ProcessInfo(Struct):
    """state: the letter of ps(1). tty: device number, 0 for none. cpu_ticks, start_ticks: of 1/SC_CLK_TCK second, the second
    one since boot. virtual, resident: bytes. arguments: as the process may have changed them; empty for one without memory."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int
    tty: int
    user: int
    nice: int
    threads: int
    cpu_ticks: int
    start_ticks: int
    virtual: int
    resident: int
    arguments: tuple[str, ...]


def look(pid: int) -> ProcessInfo | None:
    """A process as it is now, None if it is gone. Waits, as ps(1) does, for one that holds its own memory's lock."""
    try:
        stat = _read(f"/proc/{pid}/stat")
        user = os.stat(f"/proc/{pid}").st_uid
        arguments = _read(f"/proc/{pid}/cmdline")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold anything, parentheses and spaces too; what follows is counted from the last one of them.
    opening, closing = stat.index(b"("), stat.rindex(b")")
    fields = stat[closing + 2 :].split()
    words = arguments.removesuffix(b"\0").split(b"\0") if arguments else []
    return ProcessInfo(
        pid=pid,
        name=_text(stat[opening + 1 : closing]),
        state=_text(fields[0]),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        tty=int(fields[4]),
        user=user,
        nice=int(fields[16]),
        threads=int(fields[17]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        start_ticks=int(fields[19]),
        virtual=int(fields[20]),
        resident=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        arguments=tuple(map(_text, words)),
    )


def kill_lock_holder(path: str) -> None:
    """SIGKILL to the process that holds a POSIX record lock on a file; nothing if none does."""
    holder = lock_holder(path)
    if holder is None or holder <= 0:
        return
    try:
        pidfd = os.pidfd_open(holder)
    except ProcessLookupError:
        return
    try:
        # Now that the number cannot become another's: is it still the one?
        if lock_holder(path) == holder:
            process.signal_process(pidfd, 9)
    except ProcessLookupError:
        pass  # it came to its end in this moment
    finally:
        os.close(pidfd)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
