"""Filters that are really loaded, in processes of their own, and the calls that they judge really made."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.kernel import capabilities, process
from sampan.kernel.filtercompiler import compile_profile
from sampan.kernel.libc import KernelError, last_errno, syscall
from sampan.kernel.seccomp import FLAG_NEW_LISTENER, load_filter
from sampan.kernel.syscalls import ARCHITECTURES, X32_BIT, native_architecture

from support.child import in_child

pytestmark = pytest.mark.root

NUMBERS = ARCHITECTURES[native_architecture()].numbers()
ON_X86_64 = native_architecture() == "SCMP_ARCH_X86_64"


def profile(*rules: dict[str, Any], default: str = "ALLOW", **more: Any) -> dict[str, Any]:
    return {"defaultAction": f"SCMP_ACT_{default}", "syscalls": list(rules), **more}


def rule(names: str, action: str, *args: tuple[int, str, int], **more: Any) -> dict[str, Any]:
    conditions = [{"index": i, "op": f"SCMP_CMP_{op}", "value": value} for i, op, value in args]
    return {"names": names.split(), "action": f"SCMP_ACT_{action}", "args": conditions, **more}


def load(seccomp: dict[str, Any]) -> int:
    made = compile_profile(seccomp)
    return load_filter(made.program, made.flags)


def under(seccomp: dict[str, Any], function: Callable[[], Any]) -> Any:
    """What `function` returns in a process under the filter."""

    def inside() -> Any:
        load(seccomp)
        return function()

    return in_child(inside)


def call(name: str | int, *args: int) -> int:
    """0 or more, or the errno as a negative number."""
    result = syscall(NUMBERS[name] if isinstance(name, str) else name, *args)
    return result if result >= 0 else -last_errno()


def end_of(seccomp: dict[str, Any], function: Callable[[], Any]) -> int:
    """How a process under the filter ends: as waitpid(2) says."""
    pid = os.fork()
    if pid == 0:
        try:
            load(seccomp)
            function()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_errno() -> None:
    seccomp = profile(rule("getpid", "ERRNO", errnoRet=errno.EXDEV), rule("getppid", "ERRNO"))
    assert under(seccomp, lambda: (call("getpid"), call("getppid"))) == (-errno.EXDEV, -errno.EPERM)


def test_all_64_bits_of_an_argument_count() -> None:
    seccomp = profile(rule("lseek", "ERRNO", (1, "EQ", 1 << 32), errnoRet=errno.EXDEV))

    def inside() -> list[int]:
        fd = os.open("/proc/self/exe", os.O_RDONLY)
        return [call("lseek", fd, offset, 0) for offset in (0, 1 << 32, (1 << 32) + 1)]

    assert under(seccomp, inside) == [0, -errno.EXDEV, (1 << 32) + 1]


def test_negative_arguments() -> None:
    minus_one = (1 << 64) - 1
    seccomp = profile(rule("close", "ERRNO", (0, "GT", 1 << 63), errnoRet=errno.EXDEV))
    assert under(seccomp, lambda: (call("close", -1), call("close", 4000))) == (-errno.EXDEV, -errno.EBADF)
    seccomp = profile(rule("close", "ERRNO", (0, "EQ", minus_one), errnoRet=errno.EXDEV))
    assert under(seccomp, lambda: call("close", -1)) == -errno.EXDEV


@pytest.mark.parametrize("action", ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"])
def test_actions_that_kill(action: str) -> None:
    assert end_of(profile(rule("getpid", action)), lambda: call("getpid")) == -signal.SIGSYS
    assert end_of(profile(rule("getpid", action)), lambda: call("getppid")) == 0


def test_trace_without_a_tracer_and_log() -> None:
    assert under(profile(rule("getpid", "TRACE")), lambda: call("getpid")) == -errno.ENOSYS
    assert under(profile(rule("getpid", "LOG")), lambda: call("getpid")) > 0


def test_a_default_that_refuses_and_calls_that_are_newer_than_the_profile() -> None:
    allowed = "read write exit_group rt_sigaction munmap mmap brk dup dup2 close getpid madvise futex fstat lseek"
    seccomp = profile(rule(f"{allowed} openat2", "ALLOW"), default="ERRNO")

    def inside() -> tuple[int, ...]:
        return call("getpid") > 0, call("getppid"), call("mount_setattr"), call(999)

    assert under(seccomp, inside) == (True, -errno.EPERM, -errno.ENOSYS, -errno.ENOSYS)


def test_the_listener_is_asked() -> None:
    """seccomp_unotify(2): a descriptor, from which the question is read, and to which the answer is written."""
    receive, send = 0xC0502100, 0xC0182101
    listener = os.pipe()

    def asks() -> None:
        fd = load(profile(rule("mkdir mkdirat", "NOTIFY")))
        assert not os.get_inheritable(fd)
        os.write(listener[1], struct.pack("ii", os.getpid(), fd))
        os._exit(5 if call("mkdirat", -100, 0, 0) == -errno.EXDEV else 6)

    pid = os.fork()
    if pid == 0:
        asks()
    _, number = struct.unpack("ii", os.read(listener[0], 8))
    pidfd = os.pidfd_open(pid)
    fd = syscall(438, pidfd, number, 0)  # pidfd_getfd(2)
    assert fd > 0
    notification = bytearray(80)
    fcntl.ioctl(fd, receive, notification)
    identifier, caller, _, nr = struct.unpack_from("=QIIi", notification)
    assert (caller, nr) == (pid, NUMBERS["mkdirat"])
    fcntl.ioctl(fd, send, struct.pack("=QqiI", identifier, 0, -errno.EXDEV, 0))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    for each in (fd, pidfd, *listener):
        os.close(each)


def test_a_second_listener_is_refused() -> None:
    def inside() -> int | None:
        load(profile(rule("mkdir", "NOTIFY")))
        with pytest.raises(KernelError) as caught:
            load(profile(rule("rmdir", "NOTIFY")))
        return caught.value.errno

    assert in_child(inside) == errno.EBUSY


def test_what_it_takes_to_load_one() -> None:
    """CAP_SYS_ADMIN or no-new-privileges; the message names the call."""

    def inside(no_new_privileges: bool) -> str:
        capabilities.set_all(0, 0)
        if no_new_privileges:
            process.set_no_new_privileges()
        try:
            load(profile())
        except KernelError as e:
            return str(e)
        return ""

    assert in_child(lambda: inside(False)) == "seccomp(SECCOMP_SET_MODE_FILTER): Permission denied"
    assert in_child(lambda: inside(True)) == ""


def test_a_program_that_is_none() -> None:
    for program in (b"", b"\0" * 8, struct.pack("=HBBI", 0x06, 0, 0, 0) * 4097):

        def inside(program: bytes = program) -> int | None:
            with pytest.raises(KernelError) as caught:
                load_filter(program, 0)
            return caught.value.errno

        assert in_child(inside) == errno.EINVAL


def test_a_flag_that_the_kernel_does_not_know() -> None:
    def inside() -> int | None:
        with pytest.raises(KernelError) as caught:
            load_filter(compile_profile(profile()).program, 1 << 20)
        return caught.value.errno

    assert in_child(inside) == errno.EINVAL
    assert compile_profile(profile(rule("mkdir", "NOTIFY"))).flags & FLAG_NEW_LISTENER


# x86: the calls of 32 bits, and x32


def through_int80(number: int, *args: int) -> int:
    """A call of 32 bits from a process of 64 (int 0x80), by a few bytes of machine code; the errno as a negative number."""
    values = [number, *args, *[0] * (5 - len(args))]
    code = (
        b"\x53"  # push rbx
        + b"".join(bytes([0xB8 + register]) + struct.pack("<I", v) for register, v in zip((0, 3, 1, 2, 6, 7), values, strict=True))
        + b"\xcd\x80\x5b\xc3"  # int 0x80; pop rbx; ret
    )  # fmt: skip
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    return int(function())


def answers_int80() -> bool:
    """Whether this kernel runs programs of 32 bits (CONFIG_IA32_EMULATION)."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if through_int80(20) == os.getpid() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_calls_of_32_bits() -> None:
    if not ON_X86_64 or not answers_int80():
        return  # there is no way in that the filter would have to guard
    x86 = ARCHITECTURES["SCMP_ARCH_X86"].numbers()
    listed = profile(
        rule("getpid", "ERRNO", errnoRet=errno.EXDEV),
        rule("socket", "ERRNO", (0, "EQ", 38), errnoRet=errno.EXDEV),
        architectures=["SCMP_ARCH_X86"],
    )
    assert under(listed, lambda: through_int80(x86["getpid"])) == -errno.EXDEV
    assert under(listed, lambda: through_int80(x86["getppid"])) > 0
    # The call itself, and as it is behind socketcall, where nobody sees its arguments.
    assert under(listed, lambda: through_int80(x86["socket"], 38, 5, 0)) == -errno.EXDEV
    assert under(listed, lambda: through_int80(x86["socket"], 1, 1, 0)) > 0
    assert under(listed, lambda: through_int80(x86["socketcall"], 1, 0)) == -errno.EXDEV
    assert end_of(profile(), lambda: through_int80(x86["getppid"])) == -signal.SIGSYS, "not listed: killed"


def test_calls_of_x32() -> None:
    """They come to the filter also where the kernel has none of them."""
    if not ON_X86_64:
        return
    number = NUMBERS["getpid"] | X32_BIT
    rules = rule("getpid", "ERRNO", errnoRet=errno.EXDEV)
    assert under(profile(rules, architectures=["SCMP_ARCH_X32"]), lambda: call(number)) == -errno.EXDEV
    assert end_of(profile(rules), lambda: call(number)) == -signal.SIGSYS


def test_the_largest_program_is_taken() -> None:
    masks = [rule("openat", "ERRNO", (3, "MASKED_EQ", (2 * n + 1) << 31)) for n in range(600)]
    made = compile_profile(profile(*masks))
    assert made.instructions > 3000
    assert under(profile(*masks), lambda: call("getpid") > 0)


def test_every_table_that_there_is_is_read() -> None:
    folder = Path(process.__file__).parent / "syscalltables"
    assert {a.table for a in ARCHITECTURES.values()} == {path.name for path in folder.iterdir()}
