"""Processes: clone3, pidfds, descriptors, signals, programs, credentials, keyrings; against the real kernel."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.kernel import clock, libc, namespaces, process
from sampan.kernel.libc import KernelError, raw

from support.child import in_child

pytestmark = [pytest.mark.root, pytest.mark.core]


def status(field: str, pid: int | str = "self") -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return line.split(":", 1)[1].strip()
    raise LookupError(field)


def open_descriptors() -> set[int]:
    listed = {int(name) for name in os.listdir("/proc/self/fd")}
    return {fd for fd in listed if _is_open(fd)}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# clone3


def test_a_cloned_child_runs_python_and_is_reaped() -> None:
    pid = process.clone3(0)
    if pid == 0:
        # The interpreter is whole: it allocates, imports and formats.
        os._exit(len(f"{list(range(7))}") - 14)
    assert os.waitpid(pid, 0) == (pid, 7 << 8)


def test_a_cloned_child_is_pid_1_of_its_namespace() -> None:
    reading, writing = os.pipe()
    pid = process.clone3(namespaces.CLONE_NEWPID | namespaces.CLONE_NEWUTS)
    if pid == 0:
        namespaces.set_hostname("inside")
        os.write(writing, f"{os.getpid()} {os.uname().nodename}".encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        assert pipe.read() == "1 inside"
    os.waitpid(pid, 0)
    assert os.uname().nodename != "inside"


def test_with_clone_parent_the_child_is_its_parents_sibling() -> None:
    """As stage1 clones init: the monitor, not stage1, is told of init's end and reaps it."""
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        sibling = process.clone3(process.CLONE_PARENT)
        if sibling == 0:
            os.write(writing, b"%d %d" % (os.getppid(), os.getpid()))
            os._exit(5)
        os._exit(sibling == -1)
    os.close(writing)
    assert os.waitpid(middle, 0)[1] == 0
    with open(reading) as pipe:
        parent, child = map(int, pipe.read().split())
    assert parent == os.getpid()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5


def test_a_failed_clone_leaves_the_interpreter_whole_and_names_the_call() -> None:
    with pytest.raises(KernelError) as caught:
        process.clone3(namespaces.CLONE_NEWPID | process.CLONE_PARENT | 0x10000)  # CLONE_THREAD without CLONE_SIGHAND
    assert (caught.value.errno, caught.value.syscall) == (errno.EINVAL, "clone3")
    pid = process.clone3(0)
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_signals_work_in_a_cloned_child() -> None:
    pid = process.clone3(0)
    if pid == 0:
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(6))
        os.kill(os.getpid(), signal.SIGUSR1)
        while True:
            pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6


# one process and no other


def test_a_process_is_known_by_its_pid_and_its_start() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        started = process.start_time(child.pid)
        fd = process.open_process(child.pid, started)
        process.signal_process(fd, signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            process.signal_process(fd, 0)
        os.close(fd)
    finally:
        child.kill()
        child.wait()
    for pid in (child.pid, 2**22 + 1):
        with pytest.raises(ProcessLookupError):
            process.start_time(pid)
        with pytest.raises((ProcessLookupError, OSError)):
            process.open_process(pid, started)


def test_another_process_with_the_same_pid_is_told_apart() -> None:
    with pytest.raises(ProcessLookupError):
        process.open_process(os.getpid(), process.start_time(os.getpid()) - 1)


def test_a_start_time_is_read_past_any_name(tmp_path: Path) -> None:
    hostile = tmp_path / "x) S 1 1"
    shutil.copy("/bin/sleep", hostile)
    child = subprocess.Popen([str(hostile), "60"])
    try:
        assert abs(process.start_time(child.pid) - process.start_time(os.getpid())) < 10_000_000
        assert process.start_time(child.pid) >= process.start_time(os.getpid())
    finally:
        child.kill()
        child.wait()


def test_the_boot_has_a_name() -> None:
    assert len(clock.boot_id()) == 36
    assert clock.boot_id() == clock.boot_id()


# descriptors


def test_close_range_closes_from_to() -> None:
    def inside() -> set[int]:
        for fd in range(100, 110):
            os.dup2(2, fd)
        process.close_range(102, 104)
        process.close_range(108, 899)
        return {fd for fd in open_descriptors() if 100 <= fd < 900}

    assert in_child(inside) == {100, 101, 105, 106, 107}


@pytest.mark.parametrize("kept", [[], [0, 1, 2, 900], [900, 5, 5, 103, 2], [900, 901]])
def test_close_all_but(kept: list[int]) -> None:
    def inside() -> set[int]:
        for fd in (5, 100, 103, 901, 950):
            os.dup2(2, fd)
        channel = os.dup(900)
        assert channel < 900
        process.close_all_but([*kept, channel])
        found = open_descriptors() - {channel}
        os.dup2(channel, 900, inheritable=False)
        return found

    expected = {fd for fd in kept if fd in (0, 1, 2, 5, 100, 103, 900, 901, 950)}
    assert in_child(inside) == expected


def test_close_on_exec_from_marks_and_does_not_close() -> None:
    def inside() -> list[bool]:
        for fd in (50, 60, 70):
            os.dup2(2, fd, inheritable=True)
        process.close_on_exec_from(55)
        return [os.get_inheritable(fd) for fd in (0, 2, 50, 60, 70)]

    assert in_child(inside) == [True, True, True, False, False]


def test_the_way_of_linux_5_10_to_mark_descriptors() -> None:
    def inside() -> list[bool]:
        for fd in (50, 60):
            os.dup2(2, fd, inheritable=True)
        for name in os.listdir("/proc/self/fd"):
            if int(name) >= 55:
                process._mark_close_on_exec(int(name))
        return [os.get_inheritable(fd) for fd in (50, 60)]

    assert in_child(inside) == [True, False]


# programs


def open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def test_a_copy_of_a_program_runs_under_the_name_of_its_copy(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    process.copy_program(sys.executable, directory, "py")
    assert (tmp_path / "py").read_bytes() == Path(sys.executable).read_bytes()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 1)
        code = b"import os; print(open('/proc/self/comm').read(), os.environ)"
        process.execve_at(directory, b"py", [b"name", b"-ISc", code], [b"A=1"])
    os.close(writing)
    os.close(directory)
    with open(reading) as pipe:
        text = pipe.read()
    assert text.startswith("py\n")
    assert "'A': '1'" in text
    assert os.waitpid(pid, 0)[1] == 0


def test_a_copy_of_nothing_leaks_no_descriptor(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        process.copy_program("/nonexistent/program", directory, "x")
    assert open_descriptors() == before
    assert os.listdir(directory) == []
    os.close(directory)


def test_execve_at_of_no_program_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    os.chmod(tmp_path / "text", 0o755)
    directory = open_directory(tmp_path)
    try:
        with pytest.raises(KernelError) as caught:
            process.execve_at(directory, b"text", [b"text"], [])
    finally:
        os.close(directory)
    assert (caught.value.errno, caught.value.syscall, caught.value.filename) == (errno.ENOEXEC, "execveat", "text")


# signals


def test_a_program_is_given_default_signals_whatever_was_ignored_or_blocked() -> None:
    """Also 32 and 33, which the C library keeps for itself: a caller with another library may have ignored them."""

    def inside() -> tuple[str, str, str]:
        for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGXFSZ, signal.SIGRTMAX):
            signal.signal(number, signal.SIG_IGN)
        ignore = (1).to_bytes(8, "little") + bytes(24)
        for number in (32, 33):
            raw(libc.by_machine(13, 134), "rt_sigaction", "", number, ignore, None, 8)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
        before = status("SigIgn")
        process.default_signals()
        return before, status("SigIgn"), status("SigBlk")

    before, ignored, blocked = in_child(inside)
    assert int(before, 16) >> 31 & 3 == 3
    assert int(ignored, 16) == 0
    assert int(blocked, 16) == 0


# privileges and keys


def test_credentials_are_all_of_them_and_for_good() -> None:
    def inside() -> tuple[tuple[int, int, int], tuple[int, int, int], list[int], bool]:
        process.set_credentials(1234, 2345, [2345, 77])
        try:
            os.setuid(0)
            back = True
        except PermissionError:
            back = False
        return os.getresuid(), os.getresgid(), sorted(os.getgroups()), back

    assert in_child(inside) == ((1234,) * 3, (2345,) * 3, [77, 2345], False)


def test_a_refused_change_of_credentials_names_the_call() -> None:
    def inside() -> list[tuple[str, int | None]]:
        os.setresuid(1000, 1000, 1000)
        with pytest.raises(KernelError) as caught:
            process.set_credentials(0, 0, [])
        return [(caught.value.syscall, caught.value.errno)]

    assert in_child(inside) == [("setgroups", errno.EPERM)]


def test_an_undumpable_process_hides_its_descriptors_from_its_own_user() -> None:
    def seen_by_another(pid: int) -> bool:
        child = os.fork()
        if child == 0:
            try:
                os.listdir(f"/proc/{pid}/fd")
            except PermissionError:
                os._exit(1)
            os._exit(0)
        return os.waitpid(child, 0)[1] == 0

    def inside() -> list[bool]:
        process.set_credentials(1000, 1000, [])
        answers = []
        for dumpable in (True, False, True):
            process.set_dumpable(dumpable)
            answers.append(seen_by_another(os.getpid()))
        return answers

    assert in_child(inside) == [True, False, True]


def test_no_new_privileges_and_the_name_are_set() -> None:
    def inside() -> tuple[str, str]:
        process.set_no_new_privileges()
        process.set_name("a name that is far too long")
        return status("NoNewPrivs"), status("Name")

    assert in_child(inside) == ("1", "a name that is")


def test_a_session_keyring_is_new() -> None:
    def inside() -> tuple[int, int, int]:
        keyring = -3  # KEY_SPEC_SESSION_KEYRING
        number = libc.by_machine(250, 219)

        def session() -> int:
            return raw(number, "keyctl", "", 0, keyring, 1)

        process.new_session_keyring()
        first = session()
        process.new_session_keyring()
        return first, session(), session()

    first, second, again = in_child(inside)
    assert first != second == again


def test_a_process_dies_with_its_parent() -> None:
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        child = os.fork()
        if child == 0:
            process.die_with_parent(signal.SIGKILL)
            os.write(writing, b"ready")
            signal.pause()
        signal.pause()
    os.close(writing)
    with open(reading, "rb", buffering=0) as pipe:
        assert pipe.read(5) == b"ready"
        os.kill(middle, signal.SIGKILL)
        os.waitpid(middle, 0)
        assert pipe.read() == b""  # the end of file is the end of the grandchild
