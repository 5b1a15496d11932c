"""Which seccomp filter a container is under, made once: filters are kept in the run directory by what they are made of.

Compiling takes tens of milliseconds, which no start but the first one pays. A file holds the digest of all that it is for and of what is in it; one that
does not (it was cut, it is another's) is made anew. What is kept is a few KiB for each profile and set of capabilities, and is gone after a reboot.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter
from sampan.kernel import files
from sampan.kernel.libc import has_file, kernel_version
from sampan.oci.digest import hex_of
from sampan.steps.process import LoadFilter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

VERSION = 1
"""Of the compiler, the tables of system calls and the default profile together: to be raised with every change of what comes out."""

BUILTIN, UNCONFINED = "builtin", "unconfined"

_KEPT = 64
"""Filters that are kept; past that the oldest ones go."""
_AT_HAND = 8
"""Of them in memory: a server's starts and execs mostly have one and the same."""


class Filters:
    """The filters that are kept in `directory`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._at_hand: dict[str, LoadFilter] = {}

    def of_container(self, host: dict[str, Any], capabilities: Collection[str]) -> LoadFilter | None:
        """The step that loads the filter of a container, None if it is to have none. Raises `InvalidParameter`.

        host: its HostConfig. capabilities: what its conditions are about. As with Docker, a privileged one has a filter only
        if it asks for a profile of its own, and a kernel without filters is no reason to fail unless one is asked for.
        """
        asked = asked_profile(host.get("SecurityOpt") or ())
        if asked == UNCONFINED or (host.get("Privileged") and asked in ("", BUILTIN)):
            return None
        if not supported():
            if asked in ("", BUILTIN):
                return None
            raise InvalidParameter("seccomp is not enabled in your kernel, cannot run a custom seccomp profile")
        if asked == BUILTIN:
            asked = ""
        machine, kernel = os.uname().machine, kernel_version()
        return self.kept(
            (" ".join(sorted(capabilities)), asked), lambda: _compile(asked, capabilities, machine, kernel)
        )

    def kept(self, made_of: tuple[str, ...], make: Callable[[], LoadFilter | None]) -> LoadFilter | None:
        """The filter that is made of these texts on this machine: read, or made and written. Raises what `make` raises."""
        key = "\0".join((str(VERSION), os.uname().machine, str(kernel_version()), *made_of)).encode()
        # What is made of the same is the same: this is never stale.
        name = hex_of(key)
        step = self._at_hand.get(name) or self._read(key)
        if step is None:
            step = make()
            if step is not None:
                try:
                    self._write(key, step)
                except OSError:
                    pass  # a full or a read-only disk: the next one makes it anew
        if step is not None:
            if len(self._at_hand) >= _AT_HAND:
                self._at_hand.clear()
            self._at_hand[name] = step
        return step

    def _path(self, key: bytes) -> str:
        return f"{self._directory}/{hex_of(key)}"

    def _read(self, key: bytes) -> LoadFilter | None:
        try:
            data = files.read_small(self._path(key))
        except OSError:
            return None
        digest, _, content = data.decode("ascii", "replace").partition("\n")
        if digest != _seal(key, content):
            return None
        flags, _, program = content.partition("\n")
        return LoadFilter(program, int(flags))

    def _write(self, key: bytes, step: LoadFilter) -> None:
        content = f"{step.flags}\n{step.program}"
        os.makedirs(self._directory, 0o700, exist_ok=True)
        self._forget_oldest()
        files.write_atomic(self._path(key), f"{_seal(key, content)}\n{content}".encode(), sync=False)

    def _forget_oldest(self) -> None:
        with os.scandir(self._directory) as entries:
            ages = []
            for entry in entries:
                try:
                    ages.append((entry.stat().st_mtime, entry.path))
                except FileNotFoundError:
                    continue  # somebody else forgets it
        for _, path in sorted(ages)[: max(0, len(ages) - _KEPT + 1)]:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass


def asked_profile(options: Collection[str]) -> str:
    """What `--security-opt seccomp=` says, the last one: a profile as text, `BUILTIN`, `UNCONFINED`, "" if there is none."""
    asked = ""
    for option in options:
        key, separator, value = option.partition("=") if "=" in option else option.partition(":")
        if key == "seccomp" and separator:
            asked = value
    return asked


def _seal(key: bytes, content: str) -> str:
    return hex_of(key + b"\0" + content.encode())


def supported() -> bool:
    """Whether the kernel has filters (CONFIG_SECCOMP_FILTER)."""
    return has_file("/proc/sys/kernel/seccomp/actions_avail")


def _compile(asked: str, capabilities: Collection[str], machine: str, kernel: tuple[int, int]) -> LoadFilter | None:
    # In here: a start that finds its filter needs none of it.
    from sampan.kernel.filtercompiler import compile_profile
    from sampan.kernel.filterrules import SeccompError
    from sampan.oci import seccomp
    from sampan.oci.seccompdefault import default_profile

    profile = seccomp.parse(asked) if asked else default_profile()
    resolved = seccomp.resolve(profile, capabilities, machine, kernel)
    if resolved is None:
        return None
    try:
        made = compile_profile(resolved)
    except SeccompError as e:
        raise InvalidParameter(f"invalid seccomp profile: {e}") from None
    if made.notify:
        raise InvalidParameter(
            "invalid seccomp profile: SCMP_ACT_NOTIFY needs an agent that listens, which containers of this engine cannot have"
        )
    return LoadFilter(made.program.hex(), made.flags)
