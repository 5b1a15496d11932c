"""What of the host belongs to a test: the mounts, control groups and processes that speak of its directory."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def mounts(*places: Path | str) -> set[str]:
    """The host's mounts that speak of these places, as `mount point|type|source|super options`.

    By their mount point, what is mounted there (a bind's source), or an option (an overlay's directories). Ids are left
    out: they are used again. Other mounts come and go with other engines, and other tests, that run beside these.
    """
    wanted = [str(place) for place in places]
    found = set()
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        if any(place in line for place in wanted):
            left, _, right = line.partition(" - ")
            found.add("|".join((left.split()[4], *right.split())))
    return found


def cgroups(parent: str) -> list[str]:
    """The directories of the group `parent` in every hierarchy, deepest first."""
    roots = [CGROUPS, *(p for p in CGROUPS.iterdir() if p.is_dir() and not p.is_symlink())]
    found = {
        str(p) for root in roots if (root / parent).is_dir() for p in [root / parent, *(root / parent).rglob("*/")]
    }
    return sorted(found, key=lambda path: (-path.count("/"), path))


def processes(directory: str) -> dict[int, str]:
    """The processes that have to do with `directory`: by an argument, an open file, their directory or their mounts.

    The last one finds a container's processes: its overlay's options name the directory. Our own process is left out,
    and so is whoever started it.
    """
    wanted = os.fsencode(directory)
    ours = _ancestors()
    found = {}
    # Most processes are in our own mount namespace, or in one with others: each is read once, not once for each of them.
    namespaces = {os.readlink("/proc/self/ns/mnt"): False}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in ours:
            reason = _speaks_of(f"/proc/{entry}", wanted, namespaces)
            if reason:
                found[int(entry)] = f"{_command(entry)} ({reason})"
    return found


def parents() -> dict[int, int]:
    """The parent of each process, also of those that have ended and were not waited for."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it went meanwhile
            found[int(entry)] = _parent(int(entry))
    return found


def _ancestors() -> set[int]:
    pids, pid = set(), os.getpid()
    while pid > 0:
        pids.add(pid)
        try:
            pid = _parent(pid)
        except OSError:
            break
    return pids


def _parent(pid: int) -> int:
    # The name, which may hold anything, ends with the last parenthesis (proc_pid_stat(5)).
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _speaks_of(proc: str, wanted: bytes, namespaces: dict[str, bool]) -> str:
    """Why a process has to do with it, "" if it has not. Read by the system's own calls: it is asked of all, for every test."""
    try:
        arguments = _read(f"{proc}/cmdline")
        if not arguments:  # the kernel's or a zombie, which have no program; or one whose exec is about to give it some
            os.readlink(f"{proc}/exe")
        if wanted in arguments:
            return "an argument"
        namespace = os.readlink(f"{proc}/ns/mnt")
        if namespace not in namespaces:
            namespaces[namespace] = wanted in _read(f"{proc}/mountinfo")
        if namespaces[namespace]:
            return "a mount"
        if os.fsencode(os.readlink(f"{proc}/cwd")).startswith(wanted):
            return "its working directory"
        for fd in os.listdir(f"{proc}/fd"):
            if os.fsencode(os.readlink(f"{proc}/fd/{fd}")).startswith(wanted):
                return f"descriptor {fd}"
    except OSError:
        pass  # it ended meanwhile
    return ""


def _read(path: str) -> bytes:
    """A file of /proc, whole, however often it has to be asked for the rest."""
    fd = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def _command(pid: str) -> str:
    try:
        return f"pid {pid}: " + Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return f"pid {pid}"


def whole_disk() -> tuple[int, int]:
    """The numbers of a disk of this machine (no partition, nothing without a medium); of a RAM disk if it has no other."""
    for name in sorted(os.listdir("/sys/block")):
        block = Path("/sys/block") / name
        if int((block / "size").read_text()) and not name.startswith(("ram", "zram")):
            major, _, minor = (block / "dev").read_text().strip().partition(":")
            return int(major), int(minor)
    # What the kernel has a module for is loaded when it is first opened.
    with tempfile.TemporaryDirectory() as directory:
        os.mknod(f"{directory}/ram0", 0o060600, os.makedev(1, 0))
        try:
            os.close(os.open(f"{directory}/ram0", os.O_RDONLY))
        except OSError as e:
            raise AssertionError(f"this machine has no disk whose I/O can be limited, nor a RAM disk: {e}") from None
    return 1, 0


def huge_page_size() -> str:
    """A size of huge pages as the cgroup files have it in their names: "2MB"."""
    kibibytes = min(
        int(name.removeprefix("hugepages-").removesuffix("kB")) for name in os.listdir("/sys/kernel/mm/hugepages")
    )
    return f"{kibibytes >> 10}MB" if kibibytes >= 1 << 10 else f"{kibibytes}KB"
