"""config.md: the six kinds of hooks."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

from support.conformance.runtime import Container, Containers
from support.patience import eventually

pytestmark = [pytest.mark.root]

OF_THE_RUNTIME = ("prestart", "createRuntime", "poststart", "poststop")
OF_THE_CONTAINER = ("createContainer", "startContainer")
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def live(one: Container) -> None:
    """The whole life of a container that holds."""
    one.up()
    one.kill().ok()
    one.wait()
    one.delete().ok()


def add(one: Container, kind: str, script: str, **more: Any) -> None:
    """A hook whose script writes to $OUT, a directory that it sees: the bundle, or /tmp for a hook in the container."""
    place = "/tmp" if kind == "startContainer" else str(one.bundle)
    entry = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin", f"OUT={place}"], **more}
    one.config.setdefault("hooks", {}).setdefault(kind, []).append(entry)


def written(one: Container, kind: str, name: str) -> str:
    place = one.rootfs / "tmp" if kind == "startContainer" else one.bundle
    file = place / name
    assert file.exists(), f"the {kind} hook was not called"
    return file.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_c100_the_path_of_a_hook_is_absolute(oci: Containers, kind: str) -> None:
    """POSIX-platform hooks. "This specification extends the IEEE standard in that `path` MUST be absolute." """
    one = oci("probe", "hold")
    one.config["hooks"] = {kind: [{"path": "bin/true"}]}
    one.never_created()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [0, -1])
def test_c101_a_timeout_is_above_zero(oci: Containers, kind: str, given: int) -> None:
    """POSIX-platform hooks. "If set, `timeout` MUST be greater than zero." """
    one = oci("probe", "hold")
    one.config["hooks"] = {kind: [{"path": "/bin/true", "timeout": given}]}
    one.never_created()


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_c102_a_hook_is_aborted_after_its_timeout(oci: Containers, kind: str) -> None:
    """POSIX-platform hooks. "`timeout` (int, OPTIONAL) is the number of seconds before aborting the hook." """
    one = oci("probe", "hold")
    add(one, kind, "echo $$ > $OUT/pid; exec sleep 60", timeout=1)
    began = time.monotonic()
    one.create().fails()
    assert 0.9 < time.monotonic() - began < 15
    pid = written(one, kind, "pid").strip()
    if kind != "createContainer":  # whose number is another one out here
        eventually(lambda: not os.path.exists(f"/proc/{pid}"), what="the hook to be gone")


@pytest.mark.parametrize("kind", KINDS)
def test_c103_a_hook_in_time(oci: Containers, kind: str) -> None:
    """POSIX-platform hooks. "`timeout` (int, OPTIONAL)": a hook that ends before is not troubled by it."""
    one = oci("probe", "hold")
    add(one, kind, "echo x > $OUT/called", timeout=30)
    live(one)
    assert written(one, kind, "called") == "x\n"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "poststart", "poststop"])
def test_c104_the_path_is_the_runtimes(oci: Containers, kind: str) -> None:
    """POSIX-platform hooks. "The value of `path` MUST resolve in the runtime namespace": of `prestart`, `createRuntime`,
    `createContainer`, `poststart` and `poststop` hooks."""
    one = oci("probe", "hold")
    program = one.bundle / "hook"  # nothing in the container has this path
    program.write_text(f"#!/bin/sh\necho x > {one.bundle}/called\n")
    os.chmod(program, 0o755)
    one.config["hooks"] = {kind: [{"path": str(program)}]}
    live(one)
    assert (one.bundle / "called").exists()


def test_c105_the_path_is_the_containers(oci: Containers) -> None:
    """StartContainer hooks. "The `startContainer` hooks' path MUST resolve in the container namespace." """
    one = oci("probe", "hold")
    program = one.rootfs / "bin/only-in-there"
    program.write_text("#!/bin/sh\necho x > /tmp/called\n")
    os.chmod(program, 0o755)
    one.config["hooks"] = {"startContainer": [{"path": "/bin/only-in-there"}]}
    live(one)
    assert (one.rootfs / "tmp/called").exists()


NAMESPACES = "for n in mnt pid net uts ipc; do readlink /proc/self/ns/$n; done"


@pytest.mark.parametrize("kind", OF_THE_RUNTIME)
def test_c106_run_in_the_runtimes_namespaces(oci: Containers, kind: str) -> None:
    """POSIX-platform hooks. "The `prestart` hooks MUST be executed in the runtime namespace", and so the `createRuntime`,
    `poststart` and `poststop` hooks."""
    one = oci("probe", "hold")
    add(one, kind, f"({NAMESPACES}) > $OUT/namespaces")
    live(one)
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "net", "uts", "ipc")]
    assert written(one, kind, "namespaces").split() == ours


@pytest.mark.parametrize("kind", OF_THE_CONTAINER)
def test_c107_run_in_the_containers_namespaces(oci: Containers, kind: str) -> None:
    """POSIX-platform hooks. "The `createContainer` hooks MUST be executed in the container namespace", and so the
    `startContainer` hooks."""
    one = oci("probe", "hold")
    # Before the root is changed /proc is the host's, and has no entry for a process of another namespace.
    proc = f"{one.rootfs}/proc" if kind == "createContainer" else "/proc"
    add(one, kind, f"(cd {proc}/self/ns; for n in mnt pid net uts ipc; do readlink $n; done) > $OUT/namespaces")
    one.up()
    theirs = [os.readlink(f"/proc/{one.pid}/ns/{name}") for name in ("mnt", "pid", "net", "uts", "ipc")]
    assert written(one, kind, "namespaces").split() == theirs


@pytest.mark.parametrize("kind", KINDS)
def test_c108_hooks_in_their_order(oci: Containers, kind: str) -> None:
    """POSIX-platform hooks. "Hooks MUST be called in the listed order." """
    one = oci("probe", "hold")
    for number in range(4):
        add(one, kind, f"sleep 0.0{4 - number}; echo {number} >> $OUT/order")
    live(one)
    assert written(one, kind, "order").split() == ["0", "1", "2", "3"]


STATUS = {
    "prestart": {"creating", "created"},
    "createRuntime": {"creating", "created"},
    "createContainer": {"creating", "created"},
    "startContainer": {"created", "creating"},
    "poststart": {"running"},
    "poststop": {"stopped"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_c109_the_state_comes_over_stdin(oci: Containers, kind: str) -> None:
    """POSIX-platform hooks. "The state of the container MUST be passed to hooks over stdin so that they may do work appropriate
    to the current state of the container." """
    one = oci("probe", "hold")
    one.config["annotations"] = {"com.example": "told"}
    add(one, kind, "cat > $OUT/state")
    live(one)
    state = json.loads(written(one, kind, "state"))
    assert (state["id"], state["bundle"]) == (one.id, str(one.bundle))
    assert state["annotations"] == {"com.example": "told"}
    assert isinstance(state["ociVersion"], str)
    assert state["status"] in STATUS[kind]
    if kind in OF_THE_RUNTIME and kind != "poststop":
        assert state["pid"] == one.pid
    elif kind in OF_THE_CONTAINER:
        assert state["pid"] in (1, one.pid)


@pytest.mark.parametrize("kind", KINDS)
def test_c110_the_state_has_its_pid_as_seen_there(oci: Containers, kind: str) -> None:
    """State. "For hooks executed in the runtime namespace, it is the pid as seen by the runtime. For hooks executed in the
    container namespace, it is the pid as seen by the container." """
    one = oci("probe", "hold")
    add(one, kind, "cat > $OUT/state")
    live(one)
    state = json.loads(written(one, kind, "state"))
    if kind == "poststop":
        assert state.get("pid", 0) in (0, one.pid)
    else:
        assert state["pid"] == (1 if kind in OF_THE_CONTAINER else one.pid)


@pytest.mark.parametrize("kind", KINDS)
def test_c111_arguments_and_environment(oci: Containers, kind: str) -> None:
    """POSIX-platform hooks. "`args` (array of strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008 `execv`'s
    *argv*." "`env` (array of strings, OPTIONAL) with the same semantics as IEEE Std 1003.1-2008's `environ`." """
    one = oci("probe", "hold")
    place = "/tmp" if kind == "startContainer" else str(one.bundle)
    read = f"cat /proc/$$/cmdline > {place}/args; cat /proc/$$/environ > {place}/env; true"
    if kind == "createContainer":  # /proc is the host's, and the number is the container's
        read = f"cat {one.rootfs}/proc/$$/cmdline > {place}/args; cat {one.rootfs}/proc/$$/environ > {place}/env; true"
    # In the container it is busybox, which goes by its name.
    named = "sh" if kind == "startContainer" else "named"
    one.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": [named, "-c", read, "a b", ""], "env": ["A=1", "B=x y", "PATH=/bin"]}]
    }
    one.create(env={"OF_THE_HOST": "1"}).ok()
    one.start().ok()
    one.kill().ok()
    one.wait()
    one.delete().ok()
    assert written(one, kind, "args").split("\0") == [named, "-c", read, "a b", "", ""]
    assert sorted(written(one, kind, "env").rstrip("\0").split("\0")) == ["A=1", "B=x y", "PATH=/bin"]


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_c112_part_of_create(oci: Containers, kind: str) -> None:
    """Prestart. "The `prestart` hooks MUST be called as part of the `create` operation after the runtime environment has been
    created but before the `pivot_root` or any equivalent operation has been executed", and so the `createRuntime` and
    `createContainer` hooks."""
    one = oci("probe", "hold")
    look = "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/ns/net > $OUT/net; readlink /proc/$pid/root > $OUT/root"
    if kind == "createContainer":
        look = f"readlink {one.rootfs}/proc/self/ns/net > $OUT/net; test -d {one.bundle} && echo / > $OUT/root"
    add(one, kind, f"export PATH=/bin:/usr/bin; {look}")
    one.create().ok()
    assert written(one, kind, "net").strip() == os.readlink(f"/proc/{one.pid}/ns/net")
    assert written(one, kind, "net").strip() != os.readlink("/proc/self/ns/net")
    assert written(one, kind, "root").strip() == "/"


def order(one: Container, *kinds: str) -> list[str]:
    for kind in kinds:
        add(one, kind, f"echo {kind} >> $OUT/order")
    one.create().ok()
    return (one.bundle / "order").read_text().split()


def test_c113_prestart_before_create_runtime(oci: Containers) -> None:
    """Prestart. "The `prestart` hooks MUST be called before the `createRuntime` hooks." """
    assert order(oci(), "createRuntime", "prestart") == ["prestart", "createRuntime"]


def test_c114_create_container_after_create_runtime(oci: Containers) -> None:
    """CreateContainer hooks. "The `createContainer` hooks MUST be called after the `createRuntime` hooks." """
    assert order(oci(), "createContainer", "createRuntime") == ["createRuntime", "createContainer"]


def test_c115_start_container_before_the_program(oci: Containers) -> None:
    """StartContainer hooks. "The `startContainer` hooks MUST be called before the user-specified process is executed as part of
    the `start` operation." """
    one = oci("sh", "-c", "echo program >> /tmp/order")
    add(one, "startContainer", "sleep 0.2; echo hook >> /tmp/order")
    one.create().ok()
    assert not (one.rootfs / "tmp/order").exists()
    one.start().ok()
    one.wait()
    assert (one.rootfs / "tmp/order").read_text().split() == ["hook", "program"]


def test_c116_poststart_after_the_program(oci: Containers) -> None:
    """Poststart. "The `poststart` hooks MUST be called after the user-specified process is executed but before the `start`
    operation returns." """
    one = oci("probe", "hold")
    add(one, "poststart", "sleep 0.3; readlink /proc/$(cat $OUT/pid)/exe > $OUT/exe")
    one.create().ok()
    assert not (one.bundle / "exe").exists()
    one.start().ok()
    assert written(one, "poststart", "exe").strip().endswith("/probe")


def test_c117_poststop_after_the_container(oci: Containers) -> None:
    """Poststop. "The `poststop` hooks MUST be called after the container is deleted but before the `delete` operation
    returns." """
    one = oci("probe", "hold")
    add(one, "poststop", f"sleep 0.3; ls -d {one.group('pids')} > $OUT/group 2>&1; echo x > $OUT/called")
    one.up()
    one.kill().ok()
    one.wait()
    assert not (one.bundle / "called").exists()
    one.delete().ok()
    assert (one.bundle / "called").exists()
    assert "No such file" in (one.bundle / "group").read_text()


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_c118_a_hook_that_is_not_there(oci: Containers, kind: str) -> None:
    """Lifecycle. "If any hook fails, the runtime MUST generate an error": one whose program is not there has failed."""
    one = oci("probe", "hold")
    one.config["hooks"] = {kind: [{"path": "/no/such/hook"}]}
    one.create().fails("/no/such/hook")
    one.runtime("state", one.id).fails()


def test_c119_a_hook_that_changes_the_network(oci: Containers) -> None:
    """Prestart. "they are called after the container namespaces are created, so they provide an opportunity to customize the
    container (e.g. the network namespace could be specified in this hook)." """
    one = oci("cat", "/sys/class/net/made/address")
    link = "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); nsenter -t $pid -n ip link add made address 02:00:00:00:00:07 type bridge"
    add(one, "createRuntime", f"export PATH=/bin:/usr/bin:/sbin:/usr/sbin; {link}")
    assert one.run().ok().out == "02:00:00:00:00:07\n"


def test_c120_what_a_failing_hook_says(oci: Containers) -> None:
    """Hooks. What a failing hook wrote to its standard error is in the error of the runtime."""
    one = oci("probe", "hold")
    add(one, "createRuntime", "echo why it failed >&2; exit 4")
    one.create().fails("why it failed")
