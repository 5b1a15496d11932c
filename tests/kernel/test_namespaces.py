"""Namespaces: made, joined, named; and mounts that a process with threads makes for itself alone."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from sampan.kernel import loopback, mount, namespaces, process
from sampan.kernel.libc import KernelError

from support import host
from support.child import in_child

pytestmark = [pytest.mark.root, pytest.mark.core]


def namespace_of(kind: str, pid: int | str = "self") -> str:
    return os.readlink(f"/proc/{pid}/ns/{namespaces.FILES[kind]}")


@pytest.mark.parametrize("kind", ["mount", "network", "ipc", "uts", "cgroup"])
def test_a_namespace_is_left_and_joined_again(kind: str) -> None:
    def inside() -> tuple[str, str, str]:
        before = namespace_of(kind)
        fd = os.open(f"/proc/self/ns/{namespaces.FILES[kind]}", os.O_RDONLY)
        namespaces.unshare(namespaces.FLAGS[kind])
        between = namespace_of(kind)
        namespaces.setns(fd, namespaces.FLAGS[kind])
        return before, between, namespace_of(kind)

    before, between, after = in_child(inside)
    assert before == after != between


@pytest.mark.parametrize("kind", ["pid", "time"])
def test_what_only_children_are_born_in(kind: str) -> None:
    def inside() -> tuple[str, str]:
        namespaces.unshare(namespaces.FLAGS[kind])
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, namespace_of(kind).encode())
            os._exit(0)
        os.waitpid(child, 0)
        return namespace_of(kind), os.read(reading, 100).decode()

    own, childs = in_child(inside)
    assert own == namespace_of(kind) != childs


def test_several_namespaces_of_a_process_are_joined_at_once_through_its_pidfd() -> None:
    kinds = ("mount", "network", "ipc", "uts")
    flags = sum(namespaces.FLAGS[kind] for kind in kinds)
    target = process.clone3(flags)
    if target == 0:
        while True:
            os.sched_yield()
            if os.getppid() == 1:
                os._exit(0)
            import time

            time.sleep(0.05)
    try:
        pidfd = os.pidfd_open(target)

        def inside() -> list[str]:
            namespaces.setns(pidfd, flags)
            return [namespace_of(kind) for kind in kinds]

        joined = in_child(inside)
        os.close(pidfd)
        # The child's own /proc is the host's: seen from here, for there its mount namespace is another's.
        assert joined == [namespace_of(kind, target) for kind in kinds]
    finally:
        os.kill(target, 9)
        os.waitpid(target, 0)


def test_joining_a_process_that_has_ended_is_an_error() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    pidfd = os.pidfd_open(child)
    os.waitpid(child, 0)
    with pytest.raises(KernelError) as caught:
        namespaces.setns(pidfd, namespaces.CLONE_NEWUTS)
    os.close(pidfd)
    assert (caught.value.errno, caught.value.syscall) == (errno.ESRCH, "setns")


@pytest.mark.parametrize("name", ["box", "h" * 64, "b\udcffx", ""])
def test_a_host_name_and_a_domain_name(name: str) -> None:
    def inside() -> tuple[bytes, bytes]:
        namespaces.unshare(namespaces.CLONE_NEWUTS)
        namespaces.set_hostname(name)
        namespaces.set_domainname(name)
        hostname = Path("/proc/sys/kernel/hostname").read_bytes()
        return hostname.rstrip(b"\n"), Path("/proc/sys/kernel/domainname").read_bytes().rstrip(b"\n")

    assert in_child(inside) == (os.fsencode(name), os.fsencode(name))


def test_a_host_name_that_is_too_long_is_refused_with_its_text() -> None:
    def inside() -> str:
        namespaces.unshare(namespaces.CLONE_NEWUTS)
        with pytest.raises(KernelError) as caught:
            namespaces.set_hostname("h" * 65)
        return str(caught.value)

    assert in_child(inside) == f"sethostname {'h' * 65!r}: Invalid argument"


def test_every_kind_is_known_to_this_kernel_or_not() -> None:
    assert all(namespaces.supported(kind) for kind in ("mount", "pid", "network", "ipc", "uts", "cgroup", "user"))
    assert namespaces.FILES.keys() == namespaces.FLAGS.keys()


def test_a_new_network_namespace_gets_a_loopback_that_works() -> None:
    def inside() -> tuple[bool, bytes]:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        server = socket.socket()
        try:
            server.bind(("127.0.0.1", 0))
            server.connect(("127.0.0.1", 1))
            before = True
        except OSError as e:
            before = e.errno != errno.ENETUNREACH
        server.close()
        loopback.bring_up()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            client.sendall(b"through")
            return before, listener.accept()[0].recv(10)

    assert in_child(inside) == (False, b"through")


def test_a_refused_loopback_is_an_error() -> None:
    def inside() -> tuple[int | None, str]:
        process.set_credentials(1000, 1000, [])
        with pytest.raises(KernelError) as caught:
            loopback.bring_up()
        return caught.value.errno, caught.value.syscall

    assert in_child(inside) == (errno.EPERM, "netlink(RTM_NEWLINK)")


# mounts of a thread's own


def test_mounts_of_a_thread_are_seen_by_nobody_else_and_end_with_it(tmp_path: Path) -> None:
    before, cwd = host.mounts(tmp_path), os.getcwd()

    def inside() -> tuple[list[str], str]:
        mount.mount("tmpfs", str(tmp_path), "tmpfs")
        (tmp_path / "file").write_text("")
        os.chdir(tmp_path)
        return os.listdir("."), namespace_of("mount", f"self/task/{threading.get_native_id()}")

    listed, space = namespaces.in_private_mounts(inside)
    assert listed == ["file"]
    assert space != namespace_of("mount")
    assert os.listdir(tmp_path) == []
    assert os.getcwd() == cwd
    assert not host.mounts(tmp_path) - before


def test_what_a_thread_raises_comes_out() -> None:
    def inside() -> None:
        raise KeyError("from the thread")

    with pytest.raises(KeyError, match="from the thread"):
        namespaces.in_private_mounts(inside)


def test_many_threads_at_once_each_have_their_own(tmp_path: Path) -> None:
    answers: list[int] = []

    def inside() -> int:
        mount.mount("tmpfs", str(tmp_path), "tmpfs")
        (tmp_path / str(threading.get_native_id())).write_text("")
        return len(os.listdir(tmp_path))

    threads = [threading.Thread(target=lambda: answers.append(namespaces.in_private_mounts(inside))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [1] * 8


def test_a_child_that_never_gets_to_run_does_not_keep_who_makes_a_user_namespace() -> None:
    # As one that was cloned while another thread had the heap locked: it waited for that before its first line, and its parent for its end.
    def inside() -> tuple[bool, bool]:
        os.register_at_fork(after_in_child=lambda: time.sleep(100))
        began = time.monotonic()
        fd = namespaces.user_namespace("0 100000 65536\n", "0 100000 65536\n")
        return namespaces.kind_of(fd) == namespaces.CLONE_NEWUSER, time.monotonic() - began < 60

    assert in_child(inside) == (True, True)


def test_a_user_namespace_that_is_refused_leaves_no_descriptor() -> None:
    def inside() -> tuple[list[str], list[str]]:
        # The limit is of each user namespace, and to be written by its root: in one of our own nobody else is refused.
        fd = namespaces.user_namespace("0 0 65536\n", "0 0 65536\n")
        namespaces.setns(fd, namespaces.CLONE_NEWUSER)
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        before = os.listdir("/proc/self/fd")
        with pytest.raises(KernelError, match="clone3: No space left on device"):
            namespaces.user_namespace("0 0 1\n", "0 0 1\n")
        return before, os.listdir("/proc/self/fd")

    before, after = in_child(inside)
    assert before == after
