"""config-linux.md: seccomp and its listener."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import platform
import select
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from support.conformance.runtime import Container, Containers
from support.patience import patience

pytestmark = [pytest.mark.root]

# Numbers of x86-64 and of others by the generic table; i386's for the second entry.
_X86 = platform.machine() == "x86_64"
MKDIRAT, GETPRIORITY, SYNC, SETPRIORITY = (258, 140, 162, 141) if _X86 else (34, 141, 81, 140)
EPERM, ENOSYS, EINVAL = 1, 38, 22
SIGSYS = 31


def with_rules(one: Container, *rules: dict[str, Any], default: str = "SCMP_ACT_ALLOW", **more: Any) -> Container:
    one.linux["seccomp"] = {"defaultAction": default, "syscalls": list(rules), **more}
    return one


def rule(name: str, action: str, **more: Any) -> dict[str, Any]:
    return {"names": [name], "action": action, **more}


def call(one: Container, number: int, *args: int | str, how: str = "call") -> dict[str, Any]:
    """What becomes of a system call in it."""
    one.process["args"] = ["probe", how, str(number), *map(str, args)]
    got: dict[str, Any] = one.run().json()[-1]
    return got


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD"])
def test_l100_actions_that_kill(oci: Containers, action: str) -> None:
    """Seccomp. "`action` (string, REQUIRED) - the action for seccomp rules": `SCMP_ACT_KILL`, `SCMP_ACT_KILL_PROCESS`,
    `SCMP_ACT_KILL_THREAD`."""
    seen = call(with_rules(oci(), rule("getpriority", action)), GETPRIORITY, 0, 0, how="thread")
    assert seen["returned"] == 0
    if action == "SCMP_ACT_KILL_PROCESS":
        assert seen["signal"] == SIGSYS
    else:
        assert (seen["signal"], seen["code"]) == (0, 0), "the other thread goes on"


def test_l101_trap(oci: Containers) -> None:
    """Seccomp. "`action`": `SCMP_ACT_TRAP`, a signal that the process may catch."""
    seen = call(with_rules(oci(), rule("getpriority", "SCMP_ACT_TRAP")), GETPRIORITY, 0, 0)
    assert seen["trapped"] == GETPRIORITY


def test_l102_errno(oci: Containers) -> None:
    """Seccomp. "If not specified its default value is `EPERM`." """
    seen = call(with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO")), GETPRIORITY, 0, 0)
    assert (seen["value"], seen["errno"]) == (-1, EPERM)


@pytest.mark.parametrize("number", [0, 2, 38, 95, 4094])
def test_l103_another_errno(oci: Containers, number: int) -> None:
    """Seccomp. "`errnoRet` (uint, OPTIONAL) - the errno return code to use." """
    seen = call(with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO", errnoRet=number)), GETPRIORITY, 0, 0)
    assert seen["errno"] == number
    assert seen["value"] == (-1 if number else 0)


def test_l104_trace(oci: Containers) -> None:
    """Seccomp. "`action`": `SCMP_ACT_TRACE`; without a tracer the call is not there."""
    seen = call(with_rules(oci(), rule("getpriority", "SCMP_ACT_TRACE", errnoRet=7)), GETPRIORITY, 0, 0)
    assert (seen["value"], seen["errno"]) == (-1, ENOSYS)


@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"])
def test_l105_actions_that_allow(oci: Containers, action: str) -> None:
    """Seccomp. "`action`": `SCMP_ACT_ALLOW`, `SCMP_ACT_LOG`, against a default that does not."""
    one = with_rules(oci(), rule("getpriority", action), default="SCMP_ACT_ERRNO")
    # Everything that a static program and the runtime's last steps need.
    one.linux["seccomp"]["syscalls"].append({"names": NEEDED, "action": "SCMP_ACT_ALLOW"})
    # The system call gives 20 less the value, which is that of the tests themselves (getpriority(2)).
    assert call(one, GETPRIORITY, 0, 0)["value"] == 20 - os.getpriority(os.PRIO_PROCESS, 0)
    two = with_rules(oci(), {"names": NEEDED, "action": "SCMP_ACT_ALLOW"}, default="SCMP_ACT_ERRNO")
    assert call(two, GETPRIORITY, 0, 0)["errno"] == EPERM


NEEDED = [
    *(
        "execve",
        "execveat",
        "exit",
        "exit_group",
        "brk",
        "mmap",
        "mprotect",
        "munmap",
        "read",
        "write",
        "close",
        "fstat",
    ),
    *("newfstatat", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "prlimit64", "readlink", "readlinkat"),
    *("getrandom", "rt_sigaction", "rt_sigprocmask", "clone", "clone3", "wait4", "futex", "rt_sigreturn", "ioctl"),
    *("openat", "open", "openat2", "fcntl", "prctl", "getpid", "gettid", "tgkill", "kill", "sigaltstack", "epoll_ctl"),
    *(
        "epoll_pwait",
        "nanosleep",
        "sched_yield",
        "getdents64",
        "lseek",
        "dup",
        "dup2",
        "dup3",
        "pread64",
        "stat",
        "lstat",
    ),
    *("getppid", "sendmsg", "recvmsg", "close_range", "poll", "ppoll", "getuid", "geteuid", "getgid", "getegid"),
    *(
        "capget",
        "capset",
        "setuid",
        "setgid",
        "setgroups",
        "setresuid",
        "setresgid",
        "umask",
        "chdir",
        "fchdir",
        "seccomp",
    ),
    *(
        "faccessat",
        "faccessat2",
        "access",
        "statfs",
        "fstatfs",
        "getcwd",
        "sched_getaffinity",
        "madvise",
        "pipe2",
        "sysinfo",
    ),
]


def test_l106_the_default_errno(oci: Containers) -> None:
    """Seccomp. "`defaultErrnoRet` (uint, OPTIONAL) - the errno return code to use." "If not specified then its default value is
    `EPERM`." """
    for given, wanted in ((None, EPERM), (95, 95)):
        more = {} if given is None else {"defaultErrnoRet": given}
        one = with_rules(oci(), {"names": NEEDED, "action": "SCMP_ACT_ALLOW"}, default="SCMP_ACT_ERRNO", **more)
        assert call(one, GETPRIORITY, 0, 0)["errno"] == wanted


@pytest.mark.parametrize(
    ("where", "action"),
    [
        *(("rule", f"SCMP_ACT_{name}") for name in ("ALLOW", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRAP")),
        *(("default", f"SCMP_ACT_{name}") for name in ("ALLOW", "LOG")),
    ],
)
def test_l107_an_errno_where_there_can_be_none(oci: Containers, action: str, where: str) -> None:
    """Seccomp. "When the action doesn't support an errno, the runtime MUST print and error and fail." """
    one = oci()
    if where == "rule":
        with_rules(one, rule("getpriority", action, errnoRet=5))
    else:
        with_rules(one, default=action, defaultErrnoRet=5)
    one.refused()


OPERATORS = {
    "SCMP_CMP_EQ": [(5, True), (4, False), (6, False)],
    "SCMP_CMP_NE": [(5, False), (4, True), (6, True)],
    "SCMP_CMP_LT": [(5, False), (4, True), (6, False)],
    "SCMP_CMP_LE": [(5, True), (4, True), (6, False)],
    "SCMP_CMP_GE": [(5, True), (4, False), (6, True)],
    "SCMP_CMP_GT": [(5, False), (4, False), (6, True)],
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_l108_operators(oci: Containers, operator: str) -> None:
    """Seccomp. "`op` (string, REQUIRED) - the operator for syscall arguments in seccomp." """
    for high in (0, 1 << 40):
        for given, hit in OPERATORS[operator]:
            argument = {"index": 1, "value": high + 5, "op": operator}
            one = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO", errnoRet=77, args=[argument]))
            seen = call(one, GETPRIORITY, 99, high + given)
            assert (seen["errno"] == 77) == hit, f"{operator} {high + 5}: {high + given}: {seen}"


@pytest.mark.parametrize(("given", "hit"), [(0x53, True), (0x5F, False), (0xF53, True), (0x43, False)])
def test_l109_the_masked_operator(oci: Containers, given: int, hit: bool) -> None:
    """Seccomp. "`valueTwo` (uint64, OPTIONAL) - the value for syscall arguments in seccomp": with `SCMP_CMP_MASKED_EQ`, what the
    masked argument is compared with."""
    argument = {"index": 1, "value": 0x1C, "valueTwo": 0x10, "op": "SCMP_CMP_MASKED_EQ"}
    one = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO", errnoRet=77, args=[argument]))
    assert (call(one, GETPRIORITY, 99, given)["errno"] == 77) == hit


@pytest.mark.parametrize("index", range(6))
def test_l110_each_argument(oci: Containers, index: int) -> None:
    """Seccomp. "`index` (uint, REQUIRED) - the index for syscall arguments in seccomp." """
    argument = {"index": index, "value": 4242, "op": "SCMP_CMP_EQ"}
    arguments = [99 if number != index else 4242 for number in range(6)]
    for given, hit in ((arguments, True), ([99] * 6, False)):
        one = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO", errnoRet=77, args=[argument]))
        assert (call(one, GETPRIORITY, *given)["errno"] == 77) == hit


def test_l111_several_arguments(oci: Containers) -> None:
    """Seccomp. "`args` (array of objects, OPTIONAL) - the specific syscall in seccomp": all of one rule have to be met; of several
    rules one."""
    both = [{"index": n, "value": n + 10, "op": "SCMP_CMP_EQ"} for n in (0, 1)]
    one = [{"index": 2, "value": 55, "op": "SCMP_CMP_EQ"}]
    rules = [rule("getpriority", "SCMP_ACT_ERRNO", errnoRet=77, args=args) for args in (both, one)]
    for given, hit in (((10, 11, 0), True), ((10, 0, 0), False), ((99, 11, 0), False), ((99, 0, 55), True)):
        assert (call(with_rules(oci(), *rules), GETPRIORITY, *given)["errno"] == 77) == hit, given


@pytest.mark.parametrize(
    "argument",
    [
        {"index": 6, "value": 1, "op": "SCMP_CMP_EQ"},
        {"index": 0, "value": 1, "op": "SCMP_CMP_NONE"},
        {"index": 0, "value": 1},
        {"index": 0, "value": -1, "op": "SCMP_CMP_EQ"},
    ],
)
def test_l112_arguments_that_cannot_be(oci: Containers, argument: dict[str, Any]) -> None:
    """Valid values. "Runtimes MUST generate an error when invalid or unsupported values are encountered": in a filter's
    arguments."""
    with_rules(oci_one := oci(), rule("getpriority", "SCMP_ACT_ERRNO", args=[argument]))
    oci_one.refused()


@pytest.mark.parametrize("action", ["SCMP_ACT_NONE", "", None])
@pytest.mark.parametrize("where", ["rule", "default"])
def test_l113_an_action_there_must_be(oci: Containers, action: str | None, where: str) -> None:
    """Seccomp. "`defaultAction` (string, REQUIRED) - the default action for seccomp." "`action` (string, REQUIRED)" """
    one = oci()
    with_rules(one, rule("getpriority", "SCMP_ACT_ERRNO"))
    target = one.linux["seccomp"]["syscalls"][0] if where == "rule" else one.linux["seccomp"]
    field = "action" if where == "rule" else "defaultAction"
    if action is None:
        del target[field]
    else:
        target[field] = action
    one.refused()


def test_l114_names_there_must_be(oci: Containers) -> None:
    """Seccomp. "`names` MUST contain at least one entry." """
    for given in ({"names": [], "action": "SCMP_ACT_ERRNO"}, {"action": "SCMP_ACT_ERRNO"}):
        one = oci()
        one.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [given]}
        one.refused()


def test_l115_names_of_other_kernels(oci: Containers) -> None:
    """Seccomp. "`names` (array of strings, REQUIRED) - the names of the syscalls": one that this architecture has not is no
    obstacle to the others."""
    given = {"names": ["call_of_the_future", "getpriority", "breakpoint"], "action": "SCMP_ACT_ERRNO"}
    assert call(with_rules(oci(), given), GETPRIORITY, 0, 0)["errno"] == EPERM


# Architectures


def test_l116_the_native_architecture_alone(oci: Containers) -> None:
    """Seccomp. "`architectures` (array of strings, OPTIONAL) - the architecture used for system calls": calls of one that is not
    named do not get through."""
    if not _X86:
        pytest.xfail("this processor has no second set of calls")
    one = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO"), architectures=["SCMP_ARCH_X86_64"])
    seen = call(one, 20, how="call32")  # getpid
    assert seen["returned"] == 0
    assert seen["signal"] == SIGSYS or "trapped" in seen


def test_l117_several_architectures(oci: Containers) -> None:
    """Seccomp. "`architectures` (array of strings, OPTIONAL)": the rules hold for each, by its own numbers."""
    if not _X86:
        pytest.xfail("this processor has no second set of calls")
    archs = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    for how, number, allowed in (("call32", 96, 20), ("call", GETPRIORITY, 39)):
        one = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO", errnoRet=77), architectures=archs)
        assert call(one, number, 0, 0, how=how)["errno"] == 77
        other = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO", errnoRet=77), architectures=archs)
        assert call(other, allowed, how=how)["value"] > 0


def test_l118_the_numbers_of_x32(oci: Containers) -> None:
    """Seccomp. "`architectures`": `SCMP_ARCH_X32`, whose numbers are x86-64's with a bit; not named, they do not get through."""
    if not _X86:
        pytest.xfail("this processor has no second set of calls")
    bit = 0x40000000
    named = with_rules(
        oci(),
        rule("getpriority", "SCMP_ACT_ERRNO", errnoRet=77),
        architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
    )
    assert call(named, GETPRIORITY | bit, 0, 0)["errno"] == 77
    other = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO", errnoRet=77), architectures=["SCMP_ARCH_X86_64"])
    seen = call(other, GETPRIORITY | bit, 0, 0)
    assert not seen["returned"] or seen["errno"] in (EPERM, ENOSYS, 77)


@pytest.mark.parametrize(
    "name",
    [
        *("X86", "X86_64", "X32", "ARM", "AARCH64", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32"),
        *("PPC", "PPC64", "PPC64LE", "S390", "S390X", "PARISC", "PARISC64", "RISCV64"),
    ],
)
def test_l119_each_architecture_is_known(oci: Containers, name: str) -> None:
    """Seccomp. "A valid list of constants as of libseccomp v2.5.0 is shown below": each is taken, besides the machine's own; one of
    another byte order may be refused, because libseccomp has no filter for both."""
    native = "SCMP_ARCH_X86_64" if _X86 else "SCMP_ARCH_AARCH64"
    archs = list(dict.fromkeys([native, f"SCMP_ARCH_{name}"]))
    one = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO"), architectures=archs)
    one.process["args"] = ["probe", "call", str(GETPRIORITY), "0", "0"]
    result = one.create()
    if name in BIG_ENDIAN and result.code:
        result.fails()
        return
    result.ok()
    one.start().ok()
    assert one.wait() == 0
    assert json.loads(one.out)["errno"] == EPERM


BIG_ENDIAN = ("MIPS", "MIPS64", "MIPS64N32", "PPC", "PPC64", "S390", "S390X", "PARISC", "PARISC64")


def test_l120_an_architecture_of_no_world(oci: Containers) -> None:
    """Valid values. "Runtimes MUST generate an error when invalid or unsupported values are encountered": an architecture."""
    with_rules(one := oci(), rule("getpriority", "SCMP_ACT_ERRNO"), architectures=["SCMP_ARCH_VAX"])
    one.refused()


# Flags


@pytest.mark.parametrize(
    "flag", ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
)
def test_l121_flags(oci: Containers, flag: str) -> None:
    """Seccomp. "`flags` (array of strings, OPTIONAL) - list of flags to use with seccomp(2)." """
    one = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO"), flags=[flag])
    assert call(one, GETPRIORITY, 0, 0)["errno"] == EPERM


def test_l122_a_flag_of_no_kernel(oci: Containers) -> None:
    """Valid values. "Runtimes MUST generate an error when invalid or unsupported values are encountered": a flag."""
    with_rules(one := oci(), rule("getpriority", "SCMP_ACT_ERRNO"), flags=["SECCOMP_FILTER_FLAG_NONE"])
    one.refused()


def test_l123_without_no_new_privileges(oci: Containers) -> None:
    """Seccomp. A filter is there whether or not the process may gain privileges."""
    for wanted in (True, False):
        one = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO"))
        one.process["noNewPrivileges"] = wanted
        one.process["user"] = {"uid": 1000, "gid": 1000}
        assert call(one, GETPRIORITY, 0, 0)["errno"] == EPERM
        two = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO"))
        two.process["noNewPrivileges"] = wanted
        assert two.report()["status"]["Seccomp"] == "2"


def test_l124_an_exec_has_the_filter_too(oci: Containers) -> None:
    """Seccomp. What is executed in the container later has the same filter."""
    one = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO"))
    one.holding()
    seen = one.exec("probe", "call", str(GETPRIORITY), "0", "0").json()
    assert seen["errno"] == EPERM


# The listener

_NOTIFY_SIZE, _ANSWER = 80, struct.Struct("=QqiI")
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, _SEND


class Agent:
    """A seccomp agent: it takes the states that are sent to its socket, and answers the calls of one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.states: list[dict[str, Any]] = []
        self.descriptors: list[list[int]] = []
        self.ended: list[bool] = []
        self.calls: list[int] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(path.parent, os.O_RDONLY)
        self._listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)
        self._listener.listen(4)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Agent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(patience(10))
        self._listener.close()
        for fds in self.descriptors:
            for fd in fds:
                os.close(fd)

    def _serve(self) -> None:
        while not self._stop.is_set():
            waiting = [self._listener, *(fds[0] for fds in self.descriptors if fds)]
            for ready in select.select(waiting, [], [], 0.05)[0]:
                if ready is self._listener:
                    self._accept()
                else:
                    self._answer(ready)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(patience(5))
            data, fds, _, _ = socket.recv_fds(connection, 65536, 8)
            self.descriptors.append(list(fds))
            ended = False
            with contextlib.suppress(TimeoutError):
                while more := connection.recv(65536):
                    data += more
                ended = True
            self.ended.append(ended)
            self.states.append(json.loads(data))

    def _answer(self, fd: int) -> None:
        request = array.array("B", bytes(_NOTIFY_SIZE))
        try:
            fcntl.ioctl(fd, _RECEIVE, request)
        except OSError:
            for fds in self.descriptors:
                if fds and fds[0] == fd:
                    os.close(fds.pop(0))
            return
        identity, _, _, number = struct.unpack_from("=QIIi", request)
        self.calls.append(number)
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, _SEND, _ANSWER.pack(identity, 0, -77, 0))


def listening(oci: Containers, **more: Any) -> tuple[Container, Path]:
    one = oci()
    path = one.bundle / "agent.sock"
    # Reached by a short way: 107 bytes are all that a socket's path has.
    with_rules(one, rule("getpriority", "SCMP_ACT_NOTIFY"), listenerPath=str(path), **more)
    return one, path


def test_l130_the_listener_answers(oci: Containers) -> None:
    """Seccomp. "`listenerPath` (string, OPTIONAL) - specifies the path of UNIX domain socket over which the runtime will send the
    container process state data structure when the `SCMP_ACT_NOTIFY` action is used." """
    one, path = listening(oci)
    with Agent(path) as agent:
        seen = call(one, GETPRIORITY, 0, 0)
        assert seen["errno"] == 77
        assert GETPRIORITY in agent.calls


def test_l131_one_state_for_a_connection(oci: Containers) -> None:
    """Seccomp. "The runtime MUST send exactly one container process state per connection. The connection MUST NOT be reused and it
    MUST be closed after sending a seccomp state." """
    one, path = listening(oci)
    with Agent(path) as agent:
        call(one, GETPRIORITY, 0, 0)
        assert len(agent.states) == 1, "and it was one document: it could be read as JSON"
        assert agent.ended == [True]


def test_l132_the_container_process_state(oci: Containers) -> None:
    """The container process state. "`ociVersion` (string, REQUIRED)", "`pid` (int, REQUIRED)", "`state` (state, REQUIRED)",
    "`metadata` (string, OPTIONAL)", "`fds` (array, OPTIONAL) is a string array containing the names of the file descriptors
    passed." """
    one, path = listening(oci, listenerMetadata="MKNOD=/dev/null ü")
    one.config["annotations"] = {"com.example": "told"}
    with Agent(path) as agent:
        one.create().ok()
        one.process["args"] = []
        one.start().ok()
        one.wait()
        (state,) = agent.states
    assert isinstance(state["ociVersion"], str)
    assert state["fds"] == ["seccompFd"]
    assert state["pid"] == one.pid
    assert state["metadata"] == "MKNOD=/dev/null ü"
    inner = state["state"]
    assert (inner["id"], inner["bundle"], inner["status"]) == (one.id, str(one.bundle), "creating")
    assert inner["annotations"] == {"com.example": "told"}
    assert inner["pid"] == one.pid


def test_l133_the_descriptor_comes_with_the_first_message(oci: Containers) -> None:
    """The container process state. "file descriptors MUST be sent using `SCM_RIGHTS`." "If more than one `sendmsg(2)` is used, the
    file descriptors MUST be sent only in the first call." """
    one, path = listening(oci)
    with Agent(path) as agent:
        call(one, GETPRIORITY, 0, 0)
        assert [len(state["fds"]) for state in agent.states] == [1]
        assert GETPRIORITY in agent.calls, "the descriptor that came first is the filter's"


@pytest.mark.parametrize("what", ["nothing there", "a file", "nobody listens"])
def test_l134_a_listener_that_is_not_there(oci: Containers, what: str) -> None:
    """Seccomp. "If sending to this socket fails, the runtime MUST generate an error." """
    one, path = listening(oci)
    if what == "a file":
        path.touch()
    elif what == "nobody listens":
        directory = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
            bound.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)
    one.refused()


def test_l135_a_listener_without_notify(oci: Containers) -> None:
    """Seccomp. "If the `SCMP_ACT_NOTIFY` action is not used this value is ignored." """
    one = with_rules(oci(), rule("getpriority", "SCMP_ACT_ERRNO"), listenerPath="/no/such/socket")
    assert call(one, GETPRIORITY, 0, 0)["errno"] == EPERM


def test_l136_notify_without_a_listener(oci: Containers) -> None:
    """Seccomp. "`SCMP_ACT_NOTIFY`": without a `listenerPath` nobody would ever answer, and it cannot be applied."""
    with_rules(one := oci(), rule("getpriority", "SCMP_ACT_NOTIFY"))
    one.refused()


def test_l137_metadata_without_a_listener(oci: Containers) -> None:
    """Seccomp. "This field MUST NOT be set if `listenerPath` is not set." """
    with_rules(one := oci(), rule("getpriority", "SCMP_ACT_ERRNO"), listenerMetadata="x")
    one.refused()


def test_l138_the_flag_of_the_listener(oci: Containers) -> None:
    """Seccomp. "`flags`": `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, which goes with a listener."""
    one, path = listening(oci, flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])
    one.config["ociVersion"] = "1.2.0"
    with Agent(path):
        assert call(one, GETPRIORITY, 0, 0)["errno"] == 77
