"""The device program: what it decides, shown by an interpreter of its own, and that the kernel takes and runs it."""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.kernel import cgroup, devicefilter
from sampan.kernel.cgroup import ANY, CgroupError, DeviceRule, Limits
from sampan.kernel.cgroup1 import device_lines
from sampan.kernel.libc import KernelError

from support.groups import Group

RULES = st.builds(
    DeviceRule,
    allow=st.booleans(),
    type=st.sampled_from("abc"),
    major=st.sampled_from((ANY, 1, 5)),
    minor=st.sampled_from((ANY, 3, 200)),
    access=st.sets(st.sampled_from("rwm"), min_size=1).map("".join),
)
REQUESTS = st.tuples(
    st.sampled_from("bc"),
    st.sampled_from((1, 5, 4095)),
    st.sampled_from((3, 200, 1048575)),
    st.sampled_from(("r", "w", "rw", "m")),  # the kernel asks for "m" by itself, at mknod
)


def reference(rules: tuple[DeviceRule, ...], kind: str, major: int, minor: int, access: str) -> bool:
    """What `DeviceRule` promises, word for word."""

    def decide(one: str) -> bool:
        for rule in reversed(rules):
            matches = rule.type in ("a", kind) and rule.major in (ANY, major) and rule.minor in (ANY, minor)
            if matches and one in rule.access:
                return rule.allow
        return False

    return all(decide(one) for one in access)


def interpret(program: bytes, context: bytes) -> int:
    """Run eBPF: the few instructions that the assembler makes, as instruction-set.rst defines them."""
    registers = [0] * 11
    at = 0
    while True:
        code, both, offset, number = struct.unpack_from("=BBhi", program, at * 8)
        dst, src = (both & 15, both >> 4) if sys.byteorder == "little" else (both >> 4, both & 15)
        at += 1
        if code == 0x61:
            registers[dst] = struct.unpack_from("=I", context, offset)[0]
        elif code == 0xBC:
            registers[dst] = registers[src] & 0xFFFFFFFF
        elif code == 0xB4:
            registers[dst] = number & 0xFFFFFFFF
        elif code == 0x54:
            registers[dst] &= number & 0xFFFFFFFF
        elif code == 0x74:
            registers[dst] = (registers[dst] & 0xFFFFFFFF) >> number
        elif code == 0x15:
            at += offset if registers[dst] == number else 0
        elif code == 0x55:
            at += offset if registers[dst] != number else 0
        elif code == 0x95:
            return registers[0]
        else:
            raise AssertionError(f"instruction {code:#x}")


def decision(rules: tuple[DeviceRule, ...], kind: str, major: int, minor: int, access: str) -> bool:
    accesses = sum(devicefilter.ACCESSES[a] for a in access)
    context = struct.pack("=III", accesses << 16 | devicefilter.TYPES[kind], major, minor)
    return bool(interpret(devicefilter.assemble(rules), context))


@given(st.lists(RULES, max_size=8).map(tuple), REQUESTS)
def test_the_program_decides_as_the_rules_say(
    rules: tuple[DeviceRule, ...], request_: tuple[str, int, int, str]
) -> None:
    assert decision(rules, *request_) == reference(rules, *request_)


@given(st.lists(RULES, max_size=8).map(tuple))
def test_jumps_stay_inside_and_every_instruction_is_reached(rules: tuple[DeviceRule, ...]) -> None:
    program = devicefilter.assemble(rules)
    reached, todo = set(), [0]
    while todo:
        at = todo.pop()
        if at in reached:
            continue
        reached.add(at)
        code, _, offset, _ = struct.unpack_from("=BBhi", program, at * 8)
        if code != 0x95:
            todo.append(at + 1)
        if code in (0x15, 0x55):
            todo.append(at + 1 + offset)
    assert reached == set(range(len(program) // 8))  # the verifier refuses dead instructions


def version1(rules: tuple[DeviceRule, ...], kind: str, major: int, minor: int, access: str) -> bool:
    """What cgroup v1 decides after the lines were written (security/device_cgroup.c)."""
    (default, everything), *exceptions = device_lines(rules)
    assert everything == "a"
    for _, line in exceptions:
        line_kind, numbers, accesses = line.split(" ")
        line_major, line_minor = numbers.split(":")
        if line_kind != kind or line_major not in ("*", str(major)) or line_minor not in ("*", str(minor)):
            continue
        if default and set(access) & set(accesses):
            return False
        if not default and set(access) <= set(accesses):
            return True
    return default


# Rules of which one contains the other or that have nothing in common: v1 has no way to join two that cross.
NESTED_RULES = RULES.filter(lambda rule: rule.major != ANY or rule.minor == ANY)


@given(st.lists(NESTED_RULES, max_size=8).map(tuple), REQUESTS)
def test_version_1_decides_the_same_or_refuses_the_rules(
    rules: tuple[DeviceRule, ...], request_: tuple[str, int, int, str]
) -> None:
    try:
        decided = version1(rules, *request_)
    except KernelError:
        return
    assert decided == reference(rules, *request_)


def test_version_1_lines_of_a_plain_list() -> None:
    rules = (
        DeviceRule(False, "a"),
        DeviceRule(True, "c", access="m"),
        DeviceRule(True, "c", 1, 3, "rw"),
        DeviceRule(True, "c", 136),
    )
    assert device_lines(rules) == [(False, "a"), (True, "c *:* m"), (True, "c 1:3 rwm"), (True, "c 136:* rwm")]


def test_version_1_cannot_except_from_an_exception() -> None:
    with pytest.raises(KernelError, match=r"wider device rule 'c 1:\* rwm': Invalid argument"):
        device_lines((DeviceRule(False, "a"), DeviceRule(True, "c", 1), DeviceRule(False, "c", 1, 3)))


@pytest.fixture
def make() -> Iterator[Callable[[tuple[DeviceRule, ...]], Group]]:
    made: list[Group] = []

    def make(rules: tuple[DeviceRule, ...]) -> Group:
        made.append(Group(cgroup.by_version("v2"), Limits(devices=rules)))
        return made[-1]

    yield make
    for group in made:
        group.delete()


@pytest.mark.root
@pytest.mark.cgroup2
@pytest.mark.parametrize(
    "rules",
    [
        (DeviceRule(True, "a"),),
        (DeviceRule(False, "a"),),
        (DeviceRule(True, "c", 1, 3), DeviceRule(True, "a"), DeviceRule(True, "b")),
        tuple(DeviceRule(n % 3 > 0, "abc"[n % 3], n % 7 - 1, n % 5 - 1, "rwm"[: n % 3 + 1]) for n in range(60)),
        tuple(DeviceRule(True, "c", 10, n) for n in range(300)),
    ],
    ids=["allow all", "deny all", "rules before all", "many kinds", "many"],
)
def test_the_kernel_takes_the_program(rules: tuple[DeviceRule, ...]) -> None:
    os.close(devicefilter.load(devicefilter.assemble(rules)))


@pytest.mark.root
@pytest.mark.cgroup2
def test_an_exception_from_an_exception(make: Callable[[tuple[DeviceRule, ...]], Group], tmp_path: Path) -> None:
    nodes = {minor: str(tmp_path / str(minor)) for minor in (3, 5)}
    for minor, path in nodes.items():
        os.mknod(path, 0o20666, os.makedev(1, minor))
    group = make((DeviceRule(False, "a"), DeviceRule(True, "c", 1), DeviceRule(False, "c", 1, 3)))

    def program() -> None:
        os.close(os.open(nodes[5], os.O_RDWR))
        with pytest.raises(PermissionError):
            os.open(nodes[3], os.O_RDONLY)

    assert group.outcome(program) == 0


@pytest.mark.root
@pytest.mark.cgroup2
def test_groups_below_can_only_be_stricter(make: Callable[[tuple[DeviceRule, ...]], Group], tmp_path: Path) -> None:
    path = str(tmp_path / "null")
    os.mknod(path, 0o20666, os.makedev(1, 3))
    group = make((DeviceRule(False, "a"), DeviceRule(True, "c", 1, 5)))
    below = f"{group.driver.device_program(group.name)}/below"
    os.mkdir(below)
    devicefilter.attach(below, (DeviceRule(True, "a"),))

    def program() -> None:
        Path(below, "cgroup.procs").write_text("0")
        with pytest.raises(PermissionError):
            os.open(path, os.O_RDONLY)

    assert group.outcome(program) == 0


@pytest.mark.root
@pytest.mark.cgroup2
def test_a_directory_that_is_no_cgroup_is_named(tmp_path: Path) -> None:
    with pytest.raises(CgroupError) as failure:
        devicefilter.attach(str(tmp_path), (DeviceRule(False, "a"),))
    assert failure.value.filename == str(tmp_path)
    assert failure.value.syscall == "bpf BPF_PROG_ATTACH"
    with pytest.raises(CgroupError) as failure:
        devicefilter.attach(str(tmp_path / "gone"), (DeviceRule(False, "a"),))
    assert failure.value.errno == errno.ENOENT
