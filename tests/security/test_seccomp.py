"""Seccomp filters around real containers: the default profile's refusals, and what `--security-opt seccomp` makes of them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import InvalidParameter
from sampan.runtime import filters
from sampan.runtime.defaults import CAPABILITIES
from sampan.runtime.filters import Filters
from sampan.steps.process import LoadFilter

from support.command import Command
from support.patience import eventually
from support.probe import HOST, NUMBERS, answers, inside
from support.roots import Root

pytestmark = pytest.mark.root

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/seccomp-default.json").read_text())["calls"]
RUN = ("run", "--rm", "--network", "none")
NEW_USER = 0x10000000


def expected(name: str, *capabilities: str) -> Any:
    plain, others = GOLDEN[name]
    return next((others[c] for c in capabilities if c in others), plain)


def filtered(cli: Command, *options: str) -> str:
    """What the kernel says of a container's program: 0 no filter, 2 filtered."""
    out = cli(*RUN, *options, "base", "grep", "^Seccomp:", "/proc/self/status").ok().out
    return out.split()[1]


def profile(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return f"seccomp={path}"


# the default profile


def test_each_call_that_the_default_refuses_is_really_refused(cli: Command) -> None:
    """All arguments -1: what came through nevertheless would fail by another errno."""
    # uprobe is the kernel's own trampoline, which it lets past every filter and which does nothing for others.
    calls = (name for name in GOLDEN if name in NUMBERS and name != "uprobe")
    refused = {n: v for n in calls if isinstance(v := expected(n, *CAPABILITIES), str) and v != "allow"}
    assert len(refused) > 60
    given = answers(cli, [(name, *[-1] * 6) for name in refused])
    assert dict(zip(refused, given, strict=True)) == {n: int(v.removeprefix("errno ")) for n, v in refused.items()}


def test_calls_that_are_judged_by_their_arguments(cli: Command) -> None:
    calls = {
        ("socket", 1, 1, 0): 0,
        ("socket", 2, 1, 0): 0,
        ("socket", 16, 3, 0): 0,
        ("socket", 38, 5, 0): errno.EPERM,  # AF_ALG
        ("socket", 40, 1, 0): errno.EPERM,  # AF_VSOCK
        ("socket", 1 << 32 | 38, 5, 0): errno.EPERM,  # the kernel takes an int of it
        ("personality", 0xFFFFFFFF): 0,
        ("personality", 0x40000): errno.EPERM,  # ADDR_NO_RANDOMIZE
        ("clone", NEW_USER, 0, 0, 0, 0): errno.EPERM,
        ("clone", 17, 0, 0, 0, 0): 0,
        ("clone3", 0, 0): errno.ENOSYS,
        (2000, 0): errno.ENOSYS,
    }
    assert answers(cli, list(calls)) == list(calls.values())


@pytest.mark.parametrize("user", [(), ("--user", "1000", "--cap-add", "SYS_CHROOT")])
def test_capabilities_open_what_they_are_for(cli: Command, user: tuple[str, ...]) -> None:
    if user:
        assert filtered(cli, *user) == "2"
        return
    calls: list[Any] = [("unshare", -1), ("setns", -1, 0), ("bpf", -1, 0, 0), ("fsopen", 0, 0), ("keyctl", -1)]
    assert answers(cli, calls) == [errno.EPERM] * 5
    opened = answers(cli, calls, "--cap-add", "SYS_ADMIN")
    assert opened[0] == errno.EINVAL
    assert opened[1] == errno.EBADF
    assert opened[3] == errno.EFAULT
    assert opened[4] == errno.EPERM
    # With a capability of its own for it, and without.
    assert answers(cli, [("chroot", 0)]) == [errno.EFAULT]


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ([], "2"),
        (["--security-opt", "seccomp=builtin"], "2"),
        (["--security-opt", "seccomp=unconfined"], "0"),
        (["--security-opt", "seccomp:unconfined"], "0"),
        (["--privileged"], "0"),
        (["--privileged", "--security-opt", "seccomp=builtin"], "0"),
        (["--security-opt", "no-new-privileges"], "2"),
        (["--security-opt", "no-new-privileges:false", "--user", "1000"], "2"),
        (["--cap-drop", "ALL"], "2"),
        (["--cap-drop", "ALL", "--user", "1000", "--security-opt", "no-new-privileges"], "2"),
        (["--init"], "2"),
        (["--read-only", "--security-opt", "apparmor=unconfined", "--security-opt", "label=disable"], "2"),
    ],
)
def test_who_has_a_filter(cli: Command, options: list[str], mode: str) -> None:
    assert filtered(cli, *options) == mode


def test_what_loads_the_filter_is_not_left_to_the_program(cli: Command) -> None:
    """CAP_SYS_ADMIN, which our last step has, is in none of the program's sets."""
    for user in ("0", "1000"):
        out = cli(*RUN, "--user", user, "base", "grep", "^Cap", "/proc/self/status").ok().out
        assert all(not int(line.split()[1], 16) >> 21 & 1 for line in out.splitlines())


def test_exec_and_probes_are_under_the_containers_filter(cli: Command) -> None:
    probe = "grep ^Seccomp: /proc/self/status | tee /probed"
    health = ("--health-cmd", probe, "--health-interval", "500ms")
    cli("run", "-d", "--name", "box", "--network", "none", *health, "base", "sleep", "60").ok()
    try:
        words = ("grep", "^Seccomp:", "/proc/self/status")
        assert cli("exec", "box", *words).ok().out.split()[1] == "2"
        assert cli("exec", "--user", "1000", "box", *words).ok().out.split()[1] == "2"
        assert cli("exec", "--privileged", "box", *words).ok().out.split()[1] == "0"
        eventually(lambda: "Seccomp" in cli("exec", "box", "cat", "/probed").out)
        assert cli("exec", "box", "cat", "/probed").ok().out.split()[1] == "2"
    finally:
        cli("rm", "-f", "box").ok()


# a profile of one's own


def test_a_profile_in_dockers_format(cli: Command, tmp_path: Path) -> None:
    """Names in the old form, comments, conditions; all of it is in what inspect shows."""
    rules = [
        {"name": "mkdir", "comment": "no directories", "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV},
        {"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV, "args": []},
        {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["z80"]}},
        {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "4.0"}},
    ]
    option = profile(tmp_path / "p.json", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    calls: list[Any] = [("mkdirat", -1, 0, 0), ("getppid",), ("getpgid", 0), ("unshare", 0)]
    assert answers(cli, calls, "--security-opt", option) == [errno.EXDEV, 0, errno.EPERM, 0]
    cli("create", "--name", "box", "--security-opt", option, "base", "true").ok()
    (found,) = json.loads(cli("inspect", "box").ok().out)
    (shown,) = found["HostConfig"]["SecurityOpt"]
    assert json.loads(shown.removeprefix("seccomp="))["syscalls"] == rules
    cli("rm", "box").ok()


def test_a_profile_that_kills(cli: Command, tmp_path: Path) -> None:
    kill = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}
    option = profile(tmp_path / "p.json", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [kill]})
    assert cli(*RUN, "--security-opt", option, "base", "mkdir", "/x").code == 128 + 31


def test_a_privileged_container_has_the_filter_that_it_asks_for(cli: Command, tmp_path: Path) -> None:
    rule = {"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}
    option = profile(tmp_path / "p.json", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    assert answers(cli, [("getppid",)], "--privileged", "--security-opt", option) == [errno.EPERM]
    assert filtered(cli, "--security-opt", profile(tmp_path / "empty.json", {})) == "0"


def test_a_profile_does_not_have_to_allow_what_only_we_do(cli: Command, tmp_path: Path) -> None:
    """Behind the filter comes nothing but the execve: no write to report it, no change of user, no capset."""
    ours = ["write", "capset", "setuid", "setresuid", "setgroups", "prctl", "close_range", "umask", "chdir", "fchdir"]
    rule = {"names": [*ours, "rt_sigaction", "keyctl", "openat2", "poll"], "action": "SCMP_ACT_ERRNO"}
    option = profile(tmp_path / "p.json", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    for more in ((), ("--user", "1000"), ("--security-opt", "no-new-privileges")):
        done = cli(*RUN, *more, "--security-opt", option, "base", "sh", "-c", "exit 7")
        assert (done.code, done.out) == (7, "")
    killing = [
        {
            "names": ["write", "capset", "setresuid", "setgroups", "close_range", "openat2"],
            "action": "SCMP_ACT_KILL_PROCESS",
        }
    ]
    option = profile(tmp_path / "k.json", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": killing})
    assert cli(*RUN, "--security-opt", option, "base", "sh", "-c", "exit 7").code == 7


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("seccomp=/does/not/exist", "opening seccomp profile (/does/not/exist) failed: open /does/not/exist: no such file or directory"),
        ("seccomp=/proc", "opening seccomp profile (/proc) failed: open /proc: is a directory"),
        ("seccomp=", 'Invalid --security-opt: "seccomp="'),
        ("seccomp", 'Invalid --security-opt: "seccomp"'),
        ("nonsense", 'Invalid --security-opt: "nonsense"'),
        ("a=b", 'invalid --security-opt 2: "a=b"'),
        ("no-new-privileges=perhaps", 'invalid --security-opt 2: "no-new-privileges=perhaps"'),
        ("apparmor=docker-default", "containers get no AppArmor profiles here, only apparmor=unconfined is possible"),
        ("label=type:svirt_t", "containers get no SELinux labels here, only label=disable is possible"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(cli: Command, option: str, message: str) -> None:
    done = cli(*RUN, "--security-opt", option, "base", "true")
    assert done.code == 125
    assert message in done.err
    assert "Traceback" not in done.err


ALLOW = {"defaultAction": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "compacting json for seccomp profile"),
        ("", "compacting json for seccomp profile"),
        ("[" * 50000, "compacting json for seccomp profile"),
        ("[]", "Decoding seccomp profile failed"),
        ({"defaultAction": "SCMP_ACT_MAYBE"}, "invalid seccomp profile: defaultAction: unknown action 'SCMP_ACT_MAYBE'"),
        ({**ALLOW, "syscalls": [{"names": []}]}, "syscalls[0]: names must have at least one name"),
        ({**ALLOW, "architectures": ["SCMP_ARCH_Z80"]}, "unknown architecture 'SCMP_ARCH_Z80'"),
        ({**ALLOW, "flags": ["SECCOMP_FILTER_FLAG_X"]}, "unknown flag 'SECCOMP_FILTER_FLAG_X'"),
        ({**ALLOW, "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}, "SCMP_ACT_NOTIFY needs an agent"),
        (
            {**ALLOW, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", "args": [
                {"index": 0, "value": n, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]} for n in range(1, 4096, 2)]},
            "and the kernel takes 4096 at most",
        ),
    ],
)  # fmt: skip
def test_profiles_that_cannot_be(cli: Command, tmp_path: Path, content: Any, message: str) -> None:
    """Told when the container is created, and nothing is left of it."""
    done = cli("create", "--security-opt", profile(tmp_path / "p.json", content), "base", "true")
    assert done.code != 0
    assert message in done.err
    assert "Traceback" not in done.err


def test_info_tells_of_it(cli: Command) -> None:
    assert (
        json.loads(cli("info", "--format", "{{json .SecurityOptions}}").ok().out)[0] == "name=seccomp,profile=builtin"
    )
    assert "Security Options:\n seccomp\n  Profile: builtin\n" in cli("info").ok().out


# kept filters


def made(directory: Path, *capabilities: str, **host: Any) -> LoadFilter | None:
    return Filters(str(directory)).of_container(host, capabilities)


def test_filters_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(tmp_path / "f", "CAP_CHOWN")
    monkeypatch.setattr(filters, "_compile", lambda *_: pytest.fail("compiled again"))
    assert made(tmp_path / "f", "CAP_CHOWN") == first
    monkeypatch.undo()
    assert made(tmp_path / "f", "CAP_SYS_ADMIN") != first
    assert len(list((tmp_path / "f").iterdir())) == 2
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "f").iterdir()} == {0o600}


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other", "binary"])
def test_a_filter_that_was_damaged_is_made_anew(tmp_path: Path, damage: str) -> None:
    directory = tmp_path / "f"
    first = made(directory, "CAP_CHOWN")
    (path,) = directory.iterdir()
    content = path.read_bytes()
    made(directory, "CAP_SYS_ADMIN")
    (other,) = (p for p in directory.iterdir() if p != path)
    path.write_bytes(
        {
            "cut": content[:-100],
            "bit": content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
            "empty": b"",
            "other": other.read_bytes(),  # sound, but not for these capabilities
            "binary": os.urandom(3000),
        }[damage]
    )
    assert made(directory, "CAP_CHOWN") == first
    assert path.read_bytes() == content


def test_the_oldest_filters_go(tmp_path: Path) -> None:
    directory = tmp_path / "f"
    for number in range(filters._KEPT + 6):
        text = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": None, "x": number})
        made(directory, SecurityOpt=[f"seccomp={text}"])
    assert len(list(directory.iterdir())) == filters._KEPT


def test_a_filter_that_the_kernel_does_not_take_fails_the_start(root: Root, cli: Command) -> None:
    """The message names the step, the call, the reason and what can be done; nothing runs without the filter."""
    kept = Path(root.run_root) / ".filters"
    cli(*RUN, "base", "true").ok()
    directory = Filters(str(kept))
    capabilities = list(CAPABILITIES)
    key = b""

    class Recording(Filters):
        def _read(self, given: bytes) -> LoadFilter | None:
            nonlocal key
            key = given
            return super()._read(given)

    Recording(str(kept)).of_container({}, capabilities)
    path = Path(directory._path(key))
    sound = path.read_bytes()
    directory._write(key, LoadFilter("00" * 16, 4))
    try:
        done = cli(*RUN, "base", "echo", "runs")
        assert done.code == 125
        assert "runs" not in done.out
        for words in ("seccomp", "SECCOMP_SET_MODE_FILTER", "nvalid argument", "seccomp=unconfined"):
            assert words in done.err
    finally:
        path.write_bytes(sound)
    cli(*RUN, "base", "true").ok()


def test_a_kernel_without_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "supported", lambda: False)
    assert made(tmp_path / "f") is None
    with pytest.raises(InvalidParameter, match="seccomp is not enabled in your kernel, cannot run a custom seccomp"):
        made(tmp_path / "f", SecurityOpt=['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}'])


# known faults, each tried


def test_cve_2026_31431_there_is_no_way_to_the_kernels_cryptography(cli: Command) -> None:
    """AF_ALG writes into the page cache of a file that is only read: refused, also to a privileged user of a namespace."""
    assert answers(cli, [("socket", 38, 5, 0)]) == [errno.EPERM]
    assert answers(cli, [("socket", 38, 5, 0)], "--cap-add", "ALL") == [errno.EPERM]


def test_cve_2022_0185_no_file_system_context_and_no_user_namespace(cli: Command) -> None:
    calls: list[Any] = [("fsopen", 0, 0), ("fsconfig", -1, 0, 0, 0, 0), ("fspick", -1, 0, 0), ("unshare", NEW_USER)]
    assert answers(cli, calls) == [errno.EPERM] * 4
    done = cli(*RUN, "base", "unshare", "-r", "id")
    assert done.code == 1
    assert "Operation not permitted" in done.err


def test_io_uring_keyrings_and_tracing_of_the_kernel_are_shut(cli: Command) -> None:
    names = ("io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl", "add_key", "request_key", "bpf")
    calls: list[Any] = [(name, *[0] * 6) for name in (*names, "perf_event_open", "userfaultfd", "kexec_load")]
    assert answers(cli, calls) == [errno.EPERM] * len(calls)
    # Those that no capability opens either.
    closed: list[Any] = [(name, *[0] * 6) for name in (*names[:6], "userfaultfd", "kexec_load")]
    assert answers(cli, closed, "--cap-add", "ALL") == [errno.EPERM] * len(closed)


def test_a_joining_process_is_under_the_filter_too(cli: Command) -> None:
    cli("run", "-d", "--name", "box", "--network", "none", *HOST, "base", "sleep", "60").ok()
    try:
        calls: list[Any] = [("socket", 38, 5, 0), ("unshare", NEW_USER), ("getppid",)]
        given = json.loads(cli("exec", "box", *inside(calls)).ok().out)
        assert given == [errno.EPERM, errno.EPERM, 0]
    finally:
        cli("rm", "-f", "box").ok()


def test_numbers_are_those_of_this_machine() -> None:
    assert NUMBERS["getpid"] in (39, 172)
