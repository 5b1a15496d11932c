"""From a `linux.seccomp` object of the OCI runtime specification to a seccomp filter.

What the specification leaves open is as in libseccomp and runc, on whose behaviour profiles rely:

- A rule's conditions hold together, unless two of them are about the same argument: then any one of them is enough.
- Of the rules of a call, one without conditions counts before all with conditions, the first such one. Among those with conditions the first that
  holds counts. A rule whose action is the default's is left out before that.
- Names that an architecture has not are left out there. An architecture that is not listed kills; this machine's always is listed.
- A call whose number is above all that the profile names gives ENOSYS where the default is to refuse: it is newer than the profile, and programs
  know how to do without it. So do calls that are newer than our own tables.
- What is also made through socketcall(2) or ipc(2) is judged there by which call it is; see `_with_multiplexed`.
- Values are 64 bits wide, 32 on architectures of that size, on which the upper half is not looked at.
- `SCMP_CMP_MASKED_EQ`: the argument under the mask `value` equals `valueTwo` under it.

Source: runtime-spec, config-linux.md, "Seccomp". Checked against libseccomp in tests/unit/test_seccomp_compiler.py.
"""

from __future__ import annotations

from sampan.kernel.filtercode import ARCHITECTURE_AT, LARGEST, NUMBER_AT, Code, argument_at
from sampan.kernel.filterrules import (
    ACTION,
    ALLOW,
    HALF,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    NO_SUCH_CALL,
    NOTIFY,
    TRACE,
    WHOLE,
    Condition,
    Rule,
    SeccompError,
    action_of,
    flags_of,
    list_of,
    rules_of,
)
from sampan.kernel.syscalls import ARCHITECTURES, ARM_PRIVATE, MULTIPLEXED, X32_BIT, Architecture, native_architecture
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence
    from typing import Any

VERSION = 1
"""Of what is made of a profile: filters that were cached by another version are not used."""


class Filter(Struct):
    """program: for `seccomp.load_filter`, with flags. notify: a listener comes with it, to whom some calls are referred."""

    program: bytes
    flags: int
    notify: bool

    @property
    def instructions(self) -> int:
        return len(self.program) // 8


def compile_profile(seccomp: Mapping[str, Any], native: str = "") -> Filter:
    """The filter of a `linux.seccomp` object. `native` is the machine's architecture ("SCMP_ARCH_..."), this one's by default.

    Raises `SeccompError`.
    """
    native = native or native_architecture()
    if not native:
        raise SeccompError("there is no table of this machine's system calls")
    default = action_of(seccomp.get("defaultAction"), seccomp.get("defaultErrnoRet"), "defaultAction")
    rules = rules_of(seccomp.get("syscalls"))
    sections: dict[int, list[Architecture]] = {}
    for name in dict.fromkeys((native, *list_of(str, seccomp.get("architectures"), "architectures"))):
        architecture = _architecture(name, native)
        sections.setdefault(architecture.audit, []).append(architecture)
    notify = default == NOTIFY or any(rule.action == NOTIFY for _, rule in rules)
    flags = flags_of(seccomp.get("flags"), notify)
    return Filter(_compile(default, rules, list(sections.values())), flags, notify)


def _architecture(name: str, native: str) -> Architecture:
    architecture = ARCHITECTURES.get(name)
    if architecture is None:
        raise SeccompError(f"unknown architecture {name!r}")
    if architecture.little_endian != ARCHITECTURES[native].little_endian:
        raise SeccompError(f"architecture {name} has not the byte order of {native}")
    return architecture


# one architecture


class _Choice(Struct):
    """What is decided by a call's arguments: the rules in their order, and the action if none holds. wide: compare 64 bits."""

    rules: tuple[Rule, ...]
    otherwise: int
    wide: bool


# What a number comes to is an action, or a `_Choice`. A line says from which number on what holds; the first entry begins at 0.
if TYPE_CHECKING:
    _Line = list[tuple[int, Any]]


def _decisions(architecture: Architecture, rules: list[tuple[str, Rule]], default: int) -> dict[int, Any]:
    """What is decided about each number that the profile names."""
    numbers = architecture.numbers()
    found: dict[int, list[Rule]] = {}
    for name, rule in _with_multiplexed(numbers, rules, default):
        if rule.action == default or name not in numbers:
            continue
        if not architecture.wide:
            rule = rule.replace(conditions=tuple(c.narrowed() for c in rule.conditions))
        before = found.setdefault(numbers[name], [])
        if before and not before[0].conditions:
            continue
        if not rule.conditions:
            before.clear()
        before.append(rule)
    return {
        number: _Choice(tuple(rules), default, architecture.wide) if rules[0].conditions else rules[0].action
        for number, rules in found.items()
    }


def _with_multiplexed(
    numbers: dict[str, int], rules: list[tuple[str, Rule]], default: int
) -> Iterator[tuple[str, Rule]]:
    """The rules, and behind each of a call that can be made through another one its rule for that.

    There the call's own arguments are in memory, where no filter sees them: a rule with conditions holds always if it
    refuses more than the default, and never if it allows more.
    """
    for name, rule in rules:
        yield name, rule
        if rule.conditions and _severity(rule.action) <= _severity(default):
            continue
        for through, calls in MULTIPLEXED.items():
            if through in numbers and name in calls:
                yield through, Rule((Condition(0, "EQ", calls[name]),), rule.action)


def _severity(action: int) -> int:
    """Of two filters' answers the kernel takes the one of which this is larger."""
    return -((action & ACTION ^ KILL_PROCESS) - KILL_PROCESS)


def _line_of_numbers(architecture: Architecture, rules: list[tuple[str, Rule]], default: int) -> _Line:
    line: dict[int, Any] = {X32_BIT if architecture.table == "x32" else 0: default}
    for number, decision in sorted(_decisions(architecture, rules, default).items()):
        line[number] = decision
        line[number + 1] = default
    if default & ACTION not in (ALLOW, LOG, TRACE) and default != NO_SUCH_CALL:
        _refuse_newer(architecture, line, {name for name, _ in rules}, default)
    return sorted(line.items())


def _refuse_newer(architecture: Architecture, line: dict[int, Any], names: set[str], default: int) -> None:
    """ENOSYS for what is above the highest number that the profile names."""
    arm = architecture.table == "arm"
    named = [n for name, n in architecture.numbers().items() if name in names and not (arm and n >= ARM_PRIVATE)]
    if named:
        line[max(named) + 1] = NO_SUCH_CALL
        if arm:
            line.setdefault(ARM_PRIVATE, default)
    if architecture.table in ("s390", "s390x"):
        # A number that does not fit into the instruction comes in a register, and here as 0 if the kernel does not know it.
        line[0] = NO_SUCH_CALL
        line.setdefault(1, default)


# the program


def _compile(default: int, rules: list[tuple[str, Rule]], sections: list[list[Architecture]]) -> bytes:
    code = Code()
    # From the end: the machine's own architecture, the first one, is to be nearest to the beginning.
    starts = [(section[0].audit, _section(code, section, rules, default)) for section in reversed(sections)]
    place = code.give(KILL_THREAD)
    for audit, start in starts:
        place = code.equal(audit, start, place)
    code.load(ARCHITECTURE_AT, place)
    if len(code) > LARGEST:
        raise SeccompError(f"the filter would have {len(code)} instructions, and the kernel takes {LARGEST} at most")
    return code.program()


def _section(code: Code, section: list[Architecture], rules: list[tuple[str, Rule]], default: int) -> int:
    """The search for a call's number, on the architectures that have one audit value."""
    line: _Line = []
    for architecture in sorted(section, key=lambda a: a.table == "x32"):
        line += _line_of_numbers(architecture, rules, default)
    if section[0].table == "x32":
        line.insert(0, (0, KILL_THREAD))
    elif section[0].table == "x86_64" and len(section) == 1:
        # x32's numbers are another architecture's then; -1 is what a tracer makes of a call that is to be skipped.
        line += [(X32_BIT, KILL_THREAD), (HALF, default)]
    common = {number for a in section for name, number in a.numbers().items() if name in _COMMON}
    choices: dict[_Choice, int] = {}

    def emit(decision: Any) -> int:
        if isinstance(decision, int):
            return code.give(decision)
        if decision not in choices:
            choices[decision] = _choose(code, decision, section[0].little_endian)
        return choices[decision]

    return code.load(NUMBER_AT, _search(code, line, emit, common))


# What containers do most is found near the root of the search.
_COMMON = frozenset(
    ("read", "write", "close", "openat", "fstat", "newfstatat", "statx", "lseek", "mmap", "munmap", "mprotect", "brk",
     "futex", "futex_time64", "poll", "epoll_wait", "epoll_pwait", "recvfrom", "sendto", "recvmsg", "sendmsg", "readv",
     "writev", "pread64", "pwrite64", "ioctl", "fcntl", "clock_gettime", "rt_sigprocmask", "rt_sigaction")
)  # fmt: skip
_OFTEN = 16


def _search(code: Code, line: _Line, emit: Callable[[Any], int], common: Container[int] = ()) -> int:
    """A binary search for what the accumulator's value comes to."""
    ranges: _Line = []
    weights: list[int] = []
    for start, what in line:
        weight = 1 + _OFTEN * (start in common)
        if ranges and ranges[-1][1] == what:
            weights[-1] += weight - 1
        else:
            ranges.append((start, what))
            weights.append(weight)
    return _subtree(code, ranges, weights, emit)


def _subtree(code: Code, ranges: _Line, weights: list[int], emit: Callable[[Any], int]) -> int:
    if len(ranges) == 1:
        return emit(ranges[0][1])
    if len(ranges) == 3 and ranges[0][1] == ranges[2][1] and ranges[1][0] + 1 == ranges[2][0]:
        others = emit(ranges[0][1])
        return code.equal(ranges[1][0], emit(ranges[1][1]), others)
    at = _middle(weights)
    above = _subtree(code, ranges[at:], weights[at:], emit)
    below = _subtree(code, ranges[:at], weights[:at], emit)
    return code.greater_equal(ranges[at][0], above, below)


def _middle(weights: list[int]) -> int:
    """Where to split so that both sides weigh as nearly the same as can be."""
    total, below, best, at = sum(weights), 0, -1, 1
    for position, weight in enumerate(weights[:-1], 1):
        below += weight
        difference = abs(total - 2 * below)
        if best < 0 or difference < best:
            best, at = difference, position
    return at


def _choose(code: Code, choice: _Choice, little_endian: bool) -> int:
    """The rules one after the other; those with one action that compare one argument are searched as one."""
    place = code.give(choice.otherwise)
    for group in reversed(_grouped(choice.rules)):
        hit, miss = code.give(group[0].action), place
        if len(group[0].conditions) == 1:
            place = _compare(code, [rule.conditions[0] for rule in group], choice.wide, little_endian, hit, miss)
            continue
        for condition in reversed(group[0].conditions):
            hit = _compare(code, [condition], choice.wide, little_endian, hit, miss)
        place = hit
    return place


def _grouped(rules: Sequence[Rule]) -> list[list[Rule]]:
    groups: list[list[Rule]] = []
    for rule in rules:
        kind = _kind(rule)
        if groups and kind is not None and kind == _kind(groups[-1][0]):
            groups[-1].append(rule)
        else:
            groups.append([rule])
    return groups


def _kind(rule: Rule) -> tuple[int, int] | None:
    """What rules have in common that can be searched as one."""
    if len(rule.conditions) != 1 or rule.conditions[0].operator == "MASKED_EQ":
        return None
    return rule.conditions[0].index, rule.action


def _compare(code: Code, conditions: list[Condition], wide: bool, little_endian: bool, hit: int, miss: int) -> int:
    """Go to `hit` if one of the conditions, which are about the same argument, holds, else to `miss`."""
    lower = argument_at(conditions[0].index, False, little_endian)
    upper = argument_at(conditions[0].index, True, little_endian)
    if conditions[0].operator == "MASKED_EQ":
        return _compare_masked(code, conditions[0], lower, upper, hit, miss)

    def decided(holds: bool) -> int:
        return hit if holds else miss

    def by_lower_half(what: Any) -> int:
        return decided(what) if isinstance(what, bool) else code.load(lower, _search(code, list(what), decided))

    line = _line_of_values(conditions, WHOLE if wide else HALF)
    if not wide:
        return by_lower_half(line)
    return code.load(upper, _search(code, _line_of_upper_halves(line), by_lower_half))


def _compare_masked(code: Code, condition: Condition, lower: int, upper: int, hit: int, miss: int) -> int:
    place = hit
    for offset, shift in ((lower, 0), (upper, 32)):
        mask, value = condition.mask >> shift & HALF, condition.value >> shift & HALF
        if mask:
            place = code.load(offset, code.mask(mask, code.equal(value, place, miss)))
    return place


def _line_of_values(conditions: list[Condition], largest: int) -> list[tuple[int, bool]]:
    """From which value on the argument fulfils one of the conditions, and from which on it does not."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(span for condition in conditions for span in _spans(condition, largest)):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    line = {0: False}
    for first, last in merged:
        line[first] = True
        if last < largest:
            line[last + 1] = False
    return sorted(line.items())


def _spans(condition: Condition, largest: int) -> list[tuple[int, int]]:
    """The first and the last of the values that fulfil the condition, once or twice."""
    value = condition.value
    below, above = (0, value - 1), (value + 1, largest)
    spans = {
        "EQ": [(value, value)],
        "NE": [below, above],
        "LT": [below],
        "LE": [(0, value)],
        "GT": [above],
        "GE": [(value, largest)],
    }[condition.operator]
    return [(first, last) for first, last in spans if first <= last]


def _line_of_upper_halves(line: list[tuple[int, bool]]) -> _Line:
    """The same by the upper half: yes, no, or the line of the lower halves, where both are among the values that have it."""
    uppers: dict[int, Any] = {}
    holds = False
    for upper in sorted({start >> 32 for start, _ in line}):
        lowers = {0: holds, **{start & HALF: yes for start, yes in line if start >> 32 == upper}}
        holds = lowers[max(lowers)]
        uppers[upper] = tuple(sorted(lowers.items())) if len(lowers) > 1 else holds
        if upper < HALF:
            uppers[upper + 1] = holds
    return sorted(uppers.items())
