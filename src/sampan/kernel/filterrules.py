"""The rules of a `linux.seccomp` object of the OCI runtime specification, read and checked: names, actions, conditions.

Source: runtime-spec, config-linux.md, "Seccomp"; linux/seccomp.h. What is made of them is in `filtercompiler`.
"""

from __future__ import annotations

import errno

from sampan.kernel.seccomp import FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class SeccompError(ValueError):
    """A profile that means nothing, or of which no filter can be made. The text says which part of it."""


KILL_THREAD, KILL_PROCESS, TRAP, ERRNO = 0x00000000, 0x80000000, 0x00030000, 0x00050000
NOTIFY, TRACE, LOG, ALLOW = 0x7FC00000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000
ACTION = 0xFFFF0000
NO_SUCH_CALL = ERRNO | errno.ENOSYS
_LARGEST_ERRNO = 4095  # the kernel cuts larger ones off (MAX_ERRNO)

ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_NOTIFY": NOTIFY,
}
_WITH_DATA = {ERRNO: _LARGEST_ERRNO, TRACE: 0xFFFF}

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # who loads the filter has one thread
    "SECCOMP_FILTER_FLAG_LOG": FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": FLAG_WAIT_KILLABLE_RECV,
}
OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")

HALF, WHOLE = (1 << 32) - 1, (1 << 64) - 1
_ARGUMENTS = 6


class Condition(Struct):
    """One comparison of one argument; `mask` is all ones but for MASKED_EQ."""

    index: int
    operator: str
    value: int
    mask: int = WHOLE

    def narrowed(self) -> Condition:
        """As an architecture of 32 bits sees it."""
        return self.replace(value=self.value & HALF, mask=self.mask & HALF)


class Rule(Struct):
    """All conditions must hold; none at all: always."""

    conditions: tuple[Condition, ...]
    action: int


def flags_of(names: Any, notify: bool) -> int:
    """The flags for seccomp(2); `notify` is whether some calls are referred to a listener. Raises `SeccompError`."""
    # None at all, and not the empty list: as runc, which leaves the kernel's mitigation of Spectre v4 to prctl(2).
    flags = FLAG_SPEC_ALLOW if names is None else 0
    for name in list_of(str, names, "flags"):
        if name not in FLAGS:
            raise SeccompError(f"unknown flag {name!r}")
        flags |= FLAGS[name]
    if notify:
        return flags | FLAG_NEW_LISTENER
    return flags & ~FLAG_WAIT_KILLABLE_RECV  # there is nobody to wait for


def action_of(name: Any, errno_ret: Any, where: str) -> int:
    """What a filter returns for an action and its errno. Raises `SeccompError`, which names `where` in the profile it stands."""
    action = ACTIONS.get(name) if isinstance(name, str) else None
    if action is None:
        raise SeccompError(f"{where}: unknown action {name!r}")
    if action not in _WITH_DATA:
        if errno_ret is not None:
            raise SeccompError(f"{where}: {name} takes no errno")
        return action
    if errno_ret is None:
        return action | errno.EPERM
    if not _is_number(errno_ret, _WITH_DATA[action]):
        raise SeccompError(f"{where}: errno {errno_ret!r} is no number from 0 to {_WITH_DATA[action]}")
    return action | int(errno_ret)


def _is_number(value: Any, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest


def list_of(kind: type, value: Any, where: str) -> list[Any]:
    """A list whose elements are of a type; none for None. Raises `SeccompError`."""
    if value is None:
        return []
    if not isinstance(value, list | tuple) or not all(isinstance(element, kind) for element in value):
        raise SeccompError(f"{where} is no list of {'texts' if kind is str else 'objects'}")
    return list(value)


def rules_of(entries: Any) -> list[tuple[str, Rule]]:
    """Call and rule, in the order of `syscalls`; what is a matter of alternatives is several rules. Raises `SeccompError`."""
    found = []
    for number, entry in enumerate(list_of(dict, entries, "syscalls")):
        where = f"syscalls[{number}]"
        names = list_of(str, entry.get("names"), f"{where}: names")
        if not names or not all(names):
            raise SeccompError(f"{where}: names must have at least one name, and no empty one")
        action = action_of(entry.get("action"), entry.get("errnoRet"), where)
        conditions = [_condition(arg, where) for arg in list_of(dict, entry.get("args"), f"{where}: args")]
        if len({condition.index for condition in conditions}) == len(conditions):
            alternatives = [Rule(tuple(conditions), action)]
        else:
            alternatives = [Rule((condition,), action) for condition in conditions]
        found += [(name, rule) for name in names for rule in alternatives]
    return found


def _condition(arg: Mapping[str, Any], where: str) -> Condition:
    index, value, second = arg.get("index"), arg.get("value"), arg.get("valueTwo") or 0
    operator = str(arg.get("op")).removeprefix("SCMP_CMP_")
    if operator not in OPERATORS or arg.get("op") == operator:
        raise SeccompError(f"{where}: unknown operator {arg.get('op')!r}")
    if not _is_number(index, _ARGUMENTS - 1):
        raise SeccompError(f"{where}: argument index {index!r} is no number from 0 to {_ARGUMENTS - 1}")
    if not _is_number(value, WHOLE) or not _is_number(second, WHOLE):
        raise SeccompError(f"{where}: value {value!r} or valueTwo {second!r} is no number of 64 bits")
    assert isinstance(index, int)
    assert isinstance(value, int)
    if operator == "MASKED_EQ":
        return Condition(index, operator, second & value, value)
    return Condition(index, operator, value)
