"""Platforms of images: the machine's own, in the words of the OCI image specification (Go's GOOS and GOARCH)."""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter
from sampan.structs import Struct

# uname(2) machine -> (GOARCH, variant). What is not listed is its own name.
_MACHINES = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "armv5tel": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "ppc64le": ("ppc64le", ""),
    "mips64": ("mips64le", ""),
    "loongarch64": ("loong64", ""),
}

# Names that people type -> (GOARCH, variant); containerd's platforms package knows the same ones.
_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
}
# The rest of what one word may be, as there (and in Go's list of systems and architectures).
_ARCHITECTURES = (
    "386 amd64 amd64p32 arm armbe arm64 arm64be loong64 mips mips64 mips64le mips64p32 mips64p32le mipsle ppc ppc64 ppc64le "
    "riscv riscv64 s390 s390x sparc sparc64 wasm"
)
_SYSTEMS = "aix android darwin dragonfly freebsd hurd illumos ios js nacl netbsd openbsd plan9 solaris windows zos"


class Platform(Struct):
    """An operating system, an architecture and, for arm, a variant of it."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def runs(self, other: Platform) -> bool:
        """Whether this machine runs programs of the other platform without emulation.

        Newer arm runs older: v7 runs v6 and v5. For arm64 the variant v8 is the plain one, and may be left out.
        """
        if self.os != other.os or self.architecture != other.architecture:
            return False
        if self.architecture == "arm64":
            return (other.variant or "v8") <= (self.variant or "v8")
        return not other.variant or other.variant <= self.variant


def of_machine(machine: str) -> Platform:
    """The platform of a uname(2) machine name."""
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def here() -> Platform:
    """The platform of this machine."""
    return of_machine(os.uname().machine)


def parse(text: str) -> Platform:
    """A platform as typed: `os/architecture[/variant]` or one of the two alone.

    Raises `InvalidParameter` for what cannot be one.
    """
    parts = text.lower().split("/")
    # The texts are those of containerd's platforms package, in which Go's %q quotes.
    for part in parts:
        if not _is_word(part):
            raise InvalidParameter(
                f'"{part}" is an invalid component of "{text}": platform specifier component must match '
                '"^[A-Za-z0-9_.-]+$": use os/architecture[/variant], as in linux/amd64'
            )
    if len(parts) > 3:
        raise InvalidParameter(
            f'"{text}": cannot parse platform specifier: use os/architecture[/variant], as in linux/amd64'
        )
    if len(parts) == 1:
        if parts[0] == "linux":
            return here()
        if parts[0] in _SYSTEMS.split():
            return Platform(parts[0], here().architecture)
        if parts[0] not in _ALIASES and parts[0] not in _ARCHITECTURES.split():
            raise InvalidParameter(f'"{text}": unknown operating system or architecture: invalid argument')
        parts.insert(0, "linux")
    architecture, variant = _ALIASES.get(parts[1], (parts[1], ""))
    if len(parts) == 3:
        variant = parts[2]
    return Platform(parts[0], architecture, variant)


def _is_word(text: str) -> bool:
    return bool(text) and text.isascii() and all(c.isalnum() or c in "_-." for c in text)
