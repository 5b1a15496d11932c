"""Seccomp profiles in Docker's format: read, and what they come to for one container as `linux.seccomp` of an OCI configuration.

The format is the specification's with conditions: `archMap` (a machine's architectures), and for each rule `includes` and `excludes`
(capabilities, architectures in Go's words, the least kernel). A profile in the specification's own format is one without any. Source: docs.docker.com, "Seccomp
security profiles for Docker", and github.com/moby/profiles, seccomp.go.
"""

from __future__ import annotations

from sampan import jsontext
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

# uname(2) -> the word in conditions, the name in archMap
_MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "ppc64": ("ppc64", "SCMP_ARCH_PPC64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "loongarch64": ("loongarch64", "SCMP_ARCH_LOONGARCH64"),
}
_CONDITIONS = ("includes", "excludes", "name", "comment")


def parse(text: str) -> dict[str, Any]:
    """A profile out of its JSON. Raises `InvalidParameter` in Docker's words."""
    try:
        profile = jsontext.loads(text)
    except ValueError as e:
        raise InvalidParameter(f"Decoding seccomp profile failed: {e}") from None
    if not isinstance(profile, dict):
        raise InvalidParameter("Decoding seccomp profile failed: it is no JSON object")
    return profile


def resolve(
    profile: Mapping[str, Any], capabilities: Collection[str], machine: str, kernel: tuple[int, int]
) -> dict[str, Any] | None:
    """The `linux.seccomp` of a container that has these capabilities; None for an empty profile, which asks for nothing.

    machine: as uname(2) has it. kernel: major and minor number. Raises `InvalidParameter` for conditions that mean nothing; the rules
    themselves are judged by who compiles them.
    """
    entries = _list(profile.get("syscalls"), dict, "syscalls")
    if not profile.get("defaultAction") and not entries:
        return None
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidParameter(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'"
        )
    word, native = _MACHINES.get(machine, (machine, ""))
    resolved = {name: value for name, value in profile.items() if name != "archMap"}
    if profile.get("archMap"):
        resolved["architectures"] = _architectures(profile["archMap"], native)
    holding = [entry for entry in entries if _holds(entry, capabilities, word, kernel)]
    resolved["syscalls"] = [_without_conditions(entry) for entry in holding]
    return resolved


def _architectures(arch_map: Any, native: str) -> list[str]:
    for entry in _list(arch_map, dict, "archMap"):
        if entry.get("architecture") == native:
            return [native, *_list(entry.get("subArchitectures"), str, "subArchitectures")]
    return []


def _without_conditions(entry: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in entry.items() if name not in _CONDITIONS}
    if entry.get("name"):
        if entry.get("names"):
            raise InvalidParameter(
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
            )
        plain["names"] = [entry["name"]]
    return plain


def _holds(entry: dict[str, Any], capabilities: Collection[str], word: str, kernel: tuple[int, int]) -> bool:
    """Whether the rule is one for this container: all that it includes is there, and nothing that it excludes."""
    includes, excludes = _condition(entry, "includes"), _condition(entry, "excludes")
    if word in excludes["arches"] or any(name in capabilities for name in excludes["caps"]):
        return False
    if excludes["minKernel"] and kernel >= excludes["minKernel"]:
        return False
    if includes["arches"] and word not in includes["arches"]:
        return False
    if not all(name in capabilities for name in includes["caps"]):
        return False
    return not includes["minKernel"] or kernel >= includes["minKernel"]


def _condition(entry: dict[str, Any], name: str) -> dict[str, Any]:
    given = entry.get(name) or {}
    if not isinstance(given, dict):
        raise InvalidParameter(f"Decoding seccomp profile failed: {name} is no object")
    return {
        "caps": _list(given.get("caps"), str, f"{name}.caps"),
        "arches": _list(given.get("arches"), str, f"{name}.arches"),
        "minKernel": _kernel(given.get("minKernel") or ""),
    }


def _kernel(text: Any) -> tuple[int, int] | None:
    if text == "":
        return None
    parts = text.split(".") if isinstance(text, str) else []
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts):
        raise InvalidParameter(
            f'Decoding seccomp profile failed: invalid kernel version: {text}, expected "<kernel>.<major>"'
        )
    if parts == ["0", "0"]:
        raise InvalidParameter(
            f"Decoding seccomp profile failed: invalid kernel version: {text}: version cannot be 0.0"
        )
    return int(parts[0]), int(parts[1])


def _list(value: Any, kind: type, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(element, kind) for element in value):
        raise InvalidParameter(
            f"Decoding seccomp profile failed: {name} is no list of {'texts' if kind is str else 'objects'}"
        )
    return value
