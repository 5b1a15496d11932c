"""Profiles in Docker's format, their conditions, and the default one: each call of x86-64 against the published verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import InvalidParameter
from sampan.kernel.capabilities import NAMES
from sampan.kernel.filtercompiler import compile_profile
from sampan.kernel.filterrules import ALLOW, ERRNO, NO_SUCH_CALL
from sampan.kernel.syscalls import ARCHITECTURES
from sampan.oci.seccomp import parse, resolve
from sampan.oci.seccompdefault import default_profile
from sampan.runtime import filters

from support import libseccomp
from support.bpf import Program

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/seccomp-default.json").read_text())["calls"]
X86_64 = "SCMP_ARCH_X86_64"
KERNEL = (6, 1)
INTERESTING = (*range(64), 131072, 131080, 131073, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 1 << 63, (1 << 64) - 1)
BITS = tuple(1 << bit for bit in range(64))


def default_for(*capabilities: str, machine: str = "x86_64", kernel: tuple[int, int] = KERNEL) -> dict[str, Any]:
    resolved = resolve(default_profile(), capabilities, machine, kernel)
    assert resolved is not None
    return resolved


def program_for(*capabilities: str) -> Program:
    return Program(compile_profile(default_for(*capabilities), X86_64).program)


def cases(verdict: Any) -> Iterator[tuple[list[int], int]]:
    """Arguments to try, and what has to come of each."""
    if verdict == "allow":
        verdict = ALLOW
    elif isinstance(verdict, str):
        verdict = ERRNO | int(verdict.removeprefix("errno "))
    if isinstance(verdict, int):
        yield from (([value] * 6, verdict) for value in (0, 38, 0x10000000, (1 << 64) - 1))
        return
    for value in (*INTERESTING, *BITS):
        for index in range(6):
            args = [0] * 6
            args[index] = value
            if "allowed" in verdict:
                yield args, ALLOW if args[verdict["argument"]] in verdict["allowed"] else ERRNO | 1
            else:
                yield args, ERRNO | 1 if args[verdict["argument"]] & verdict["no bits of"] else ALLOW


@pytest.mark.parametrize("capability", ["", *sorted(set(NAMES) & {c for _, more in GOLDEN.values() for c in more})])
def test_each_call_has_the_published_verdict(capability: str) -> None:
    numbers = ARCHITECTURES[X86_64].numbers()
    assert set(GOLDEN) == set(numbers), "a call came with new tables: make the golden one anew (scripts/seccomp-table)"
    program = program_for(*([capability] if capability else []))
    audit = ARCHITECTURES[X86_64].audit
    for name, (plain, others) in GOLDEN.items():
        for args, expected in cases(others.get(capability, plain)):
            assert program.run(numbers[name], audit, args) == expected, (name, args)


def test_a_capability_that_no_rule_names_changes_nothing() -> None:
    named = {c for _, more in GOLDEN.values() for c in more}
    plain = default_for()
    for capability in set(NAMES) - named:
        assert default_for(capability) == plain, capability
    assert len(named) > 10


@pytest.mark.thorough
def test_the_default_is_what_libseccomp_makes_of_it() -> None:
    """On every number of its three architectures; where only ours knows a call, it is ours that allows it."""
    for capabilities in ((), tuple(NAMES)):
        resolved = default_for(*capabilities)
        ours = Program(compile_profile(resolved, X86_64).program)
        theirs = Program(libseccomp.program(resolved, X86_64))
        for name in (X86_64, "SCMP_ARCH_X86", "SCMP_ARCH_X32"):
            numbers = ARCHITECTURES[name].numbers()
            audit = ARCHITECTURES[name].audit
            for call, number in numbers.items():
                if libseccomp.resolve(call, name) == -1 or (name, call) == ("SCMP_ARCH_X32", "map_shadow_stack"):
                    continue
                # Every instruction of libseccomp's list is read: more than one value for those that look at it.
                for value in (0, 3, 38, 0x20000, 0xFFFFFFFF) if call in ("socket", "clone", "personality") else (0,):
                    answers = [p.run(number, audit, [value]) for p in (ours, theirs)]
                    assert answers[0] == answers[1], (name, call, value)


def test_the_traps_of_known_faults_are_shut() -> None:
    numbers, audit = ARCHITECTURES[X86_64].numbers(), ARCHITECTURES[X86_64].audit
    program = program_for()
    for family in (38, 40):  # AF_ALG, AF_VSOCK
        assert program.run(numbers["socket"], audit, [family]) == ERRNO | 1
    for name in (
        *("keyctl", "add_key", "request_key", "bpf", "perf_event_open", "fsopen", "fsconfig", "fsmount", "unshare"),
        *("mount", "open_tree", "move_mount", "setns", "userfaultfd", "io_uring_setup", "io_uring_enter"),
        *("kexec_load", "init_module", "finit_module", "ptrace", "process_vm_readv", "open_by_handle_at"),
    ):
        expected = ALLOW if name in ("ptrace", "process_vm_readv") else ERRNO | 1
        assert program.run(numbers[name], audit) == expected, name
    assert program.run(numbers["clone3"], audit) == NO_SUCH_CALL
    assert program.run(numbers["clone"], audit, [0x10000000]) == ERRNO | 1  # CLONE_NEWUSER


def test_the_filter_of_the_default_and_its_version() -> None:
    """Filters are kept by VERSION: whoever changes what is made, by whatever, raises it and writes the new digest here."""
    import hashlib

    made = compile_profile(default_for("CAP_SYS_CHROOT"), X86_64)
    assert (filters.VERSION, hashlib.sha256(made.program).hexdigest()[:16], made.flags) == (1, "48de6f79d4f89685", 4)
    assert made.instructions < 500


# conditions


def rule(**conditions: Any) -> dict[str, Any]:
    return {"names": ["read"], "action": "SCMP_ACT_ALLOW", **conditions}


@pytest.mark.parametrize(
    ("conditions", "applies"),
    [
        ({}, True),
        ({"includes": {"caps": ["CAP_KILL"]}}, True),
        ({"includes": {"caps": ["CAP_KILL", "CAP_BPF"]}}, False),
        ({"excludes": {"caps": ["CAP_BPF", "CAP_KILL"]}}, False),
        ({"excludes": {"caps": ["CAP_BPF"]}}, True),
        ({"includes": {"arches": ["arm64", "amd64"]}}, True),
        ({"includes": {"arches": ["x86"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.2"}}, False),
        ({"includes": {"minKernel": "5.20"}}, True),
        ({"excludes": {"minKernel": "6.1"}}, False),
        ({"excludes": {"minKernel": "6.2"}}, True),
        ({"includes": {"caps": ["CAP_KILL"]}, "excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {}, "excludes": None}, True),
    ],
)
def test_conditions(conditions: dict[str, Any], applies: bool) -> None:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(**conditions)]}
    resolved = resolve(profile, ["CAP_KILL"], "x86_64", KERNEL)
    assert resolved is not None
    assert resolved["syscalls"] == ([rule()] if applies else [])


def test_names_and_architectures() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": None},
        ],
        "syscalls": [{"name": "read", "comment": "old", "action": "SCMP_ACT_ALLOW"}],
    }
    resolved = resolve(profile, [], "aarch64", KERNEL)
    assert resolved == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "syscalls": [{"action": "SCMP_ACT_ALLOW", "names": ["read"]}],
    }
    assert (resolve(profile, [], "x86_64", KERNEL) or {})["architectures"] == ["SCMP_ARCH_X86_64"]
    assert (resolve(profile, [], "riscv64", KERNEL) or {})["architectures"] == []
    assert resolve({"syscalls": []}, [], "x86_64", KERNEL) is None, "an empty profile asks for nothing"


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"architectures": ["A"], "archMap": [{}]}, "both 'architectures' and 'archMap' are specified"),
        ({"syscalls": [rule(name="read")]}, "both 'name' and 'names' are specified"),
        ({"syscalls": {}}, "syscalls is no list of objects"),
        ({"syscalls": [1]}, "syscalls is no list of objects"),
        ({"archMap": ["SCMP_ARCH_X86"]}, "archMap is no list of objects"),
        ({"syscalls": [rule(includes=["CAP_KILL"])]}, "includes is no object"),
        ({"syscalls": [rule(includes={"caps": "CAP_KILL"})]}, "includes.caps is no list of texts"),
        ({"syscalls": [rule(includes={"minKernel": "6"})]}, "invalid kernel version: 6, expected"),
        ({"syscalls": [rule(includes={"minKernel": 6.1})]}, "invalid kernel version: 6.1, expected"),
        ({"syscalls": [rule(excludes={"minKernel": "0.0"})]}, "version cannot be 0.0"),
    ],
)
def test_profiles_that_mean_nothing(profile: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        resolve({"defaultAction": "SCMP_ACT_ALLOW", **profile}, [], "x86_64", KERNEL)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "/etc/profile.json", "[]", "{", '{"a": NaN}', "[" * 100000])
def test_texts_that_are_no_profile(text: str) -> None:
    with pytest.raises(InvalidParameter, match="Decoding seccomp profile failed"):
        parse(text)


def test_which_profile_is_asked_for() -> None:
    assert filters.asked_profile([]) == ""
    assert filters.asked_profile(["no-new-privileges", "seccomp=builtin", "seccomp:unconfined"]) == "unconfined"
    assert filters.asked_profile(['seccomp={"a":"b=c"}']) == '{"a":"b=c"}'
