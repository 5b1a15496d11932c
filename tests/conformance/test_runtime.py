"""runtime.md: state, lifecycle, errors. Its operations have a file of their own."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from support import host
from support.conformance.runtime import Container, Containers
from support.patience import eventually

pytestmark = [pytest.mark.root]

SEMVER = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


def hooked(oci: Containers, *failing: str) -> Container:
    """A container with a hook of each kind that appends its name to `hooks`, and one that fails for each of `failing`."""
    one = oci("probe", "hold", "/tmp/signals")
    for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop"):
        if kind in failing:
            one.hook(kind, "exit 3")
        one.hook(kind, f'echo {kind} >> "$1"/hooks')
    # In the container: what is in the root is what it has.
    entries = [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}] if "startContainer" in failing else []
    entries.append({"path": "/bin/sh", "args": ["sh", "-c", "echo startContainer >> /tmp/hooks"]})
    one.config["hooks"]["startContainer"] = entries
    return one


def called(one: Container) -> list[str]:
    file = one.bundle / "hooks"
    return file.read_text().split() if file.exists() else []


def gone(one: Container) -> bool:
    """The runtime does not know it any more, or knows it as stopped; no process of it is there."""
    state = one.runtime("state", one.id)
    return (state.code != 0 or state.json()["status"] == "stopped") and not _processes(one)


def _processes(one: Container) -> list[str]:
    return [pid for group in one.cgroups_left() for pid in (Path(group) / "cgroup.procs").read_text().split()]


# Scope of a container


def test_r1_every_operation_on_what_one_created(oci: Containers) -> None:
    """Scope of a container. "The entity using a runtime to create a container MUST be able to use the operations defined in
    this specification against that same container." """
    one = oci().holding()
    assert one.status == "running"
    one.kill("TERM").ok()
    assert one.wait() == 0
    one.delete().ok()
    one.runtime("state", one.id).fails()


# State


def test_r2_the_state_has_a_version(oci: Containers) -> None:
    """State. "`ociVersion` (string, REQUIRED) is version of the Open Container Initiative Runtime Specification with which the
    state complies." """
    one = oci()
    one.create().ok()
    assert SEMVER.fullmatch(one.state()["ociVersion"])


def test_r3_the_state_has_the_id(oci: Containers) -> None:
    """State. "`id` (string, REQUIRED) is the container's ID." """
    one = oci()
    one.create().ok()
    assert one.state()["id"] == one.id


def test_r4_an_id_is_unique(oci: Containers) -> None:
    """State. "This MUST be unique across all containers on this host." """
    first, second = oci(), oci()
    first.create().ok()
    second.write_config()
    second.create_as_written(id=first.id).fails()
    assert first.state()["bundle"] == str(first.bundle)


@pytest.mark.parametrize("status", ["created", "running", "stopped"])
def test_r5_the_state_has_a_status(oci: Containers, status: str) -> None:
    """State. "`status` (string, REQUIRED) is the runtime state of the container." """
    one = oci("probe", "hold")
    one.create().ok()
    if status != "created":
        one.start().ok()
    if status == "stopped":
        one.kill().ok()
        assert one.wait() == -9
    assert one.status == status


def test_r6_another_status_is_another_state(oci: Containers) -> None:
    """State. "Additional values MAY be defined by the runtime, however, they MUST be used to represent new runtime states not
    defined above." """
    one = oci().holding()
    one.runtime("pause", one.id).ok()
    paused = one.status
    one.runtime("resume", one.id).ok()
    assert paused not in ("creating", "created", "stopped", "running")
    assert one.status == "running"


@pytest.mark.parametrize("status", ["created", "running"])
def test_r7_the_state_has_the_pid(oci: Containers, status: str) -> None:
    """State. "`pid` (int, REQUIRED when `status` is `created` or `running` on Linux) is the ID of the container process." """
    one = oci("probe", "hold")
    one.create().ok()
    if status == "running":
        one.start().ok()
    pid = one.state()["pid"]
    assert isinstance(pid, int)
    assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    assert f"NSpid:\t{pid}\t1\n" in Path(f"/proc/{pid}/status").read_text(), "it is the first process in there"


def test_r8_the_bundle_is_absolute(oci: Containers) -> None:
    """State. "`bundle` (string, REQUIRED) is the absolute path to the container's bundle directory." """
    one = oci()
    one.write_config()
    command = ("create", "--bundle", one.bundle.name, "--pid-file", str(one.pid_file), one.id)
    one._in_front(command, None, cwd=one.bundle.parent).ok()
    assert one.state()["bundle"] == str(one.bundle)


def test_r9_the_state_has_the_annotations(oci: Containers) -> None:
    """State. "`annotations` (map, OPTIONAL) contains the list of annotations associated with the container." """
    one = oci()
    one.config["annotations"] = {"com.example.key": "value", "com.example.empty": "", "com.example.text": 'ü "\n'}
    one.create().ok()
    assert one.state()["annotations"] == one.config["annotations"]


@pytest.mark.parametrize("status", ["created", "running", "stopped"])
def test_r10_the_state_has_its_form(oci: Containers, status: str) -> None:
    """State. "When serialized in JSON, the format MUST adhere to the JSON Schema `schema/state-schema.json`." """
    one = oci("probe", "hold")
    one.config["annotations"] = {"a": "b"}
    one.create().ok()
    if status != "created":
        one.start().ok()
    if status == "stopped":
        one.kill().ok()
        one.wait()
    state = one.state()
    kinds: dict[str, type] = {
        "ociVersion": str,
        "id": str,
        "status": str,
        "bundle": str,
        "pid": int,
        "annotations": dict,
    }
    assert {"ociVersion", "id", "status", "bundle"} <= set(state)
    assert {name: type(state[name]) for name in state if name in kinds} == {n: kinds[n] for n in kinds if n in state}
    assert state["status"] in ("creating", "created", "running", "stopped")
    assert state.get("pid", 0) >= 0


# Lifecycle


def test_r11_the_environment_is_made_by_create(oci: Containers) -> None:
    """Lifecycle. "The container's runtime environment MUST be created according to the configuration in `config.json`." """
    one = oci()
    one.mount("/made", "tmpfs", "tmpfs")
    one.create().ok()
    mounts = {line.split()[4] for line in Path(f"/proc/{one.pid}/mountinfo").read_text().splitlines()}
    assert {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/made"} <= mounts
    for kind in ("pid", "net", "ipc", "uts", "mnt"):
        assert os.readlink(f"/proc/{one.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def test_r12_an_environment_that_cannot_be_made(oci: Containers) -> None:
    """Lifecycle. "If the runtime is unable to create the environment specified in the `config.json`, it MUST generate an
    error." """
    one = oci()
    one.mount("/data", None, "/nonexistent/source", "bind")
    one.never_created()


def test_r13_the_program_is_not_run_by_create(oci: Containers) -> None:
    """Lifecycle. "While the resources requested in the `config.json` MUST be created, the user-specified program MUST NOT be
    run at this time." """
    one = oci("touch", "/ran")
    one.create().ok()
    time.sleep(0.5)
    assert not (one.rootfs / "ran").exists()
    one.start().ok()
    assert one.wait() == 0
    assert (one.rootfs / "ran").exists()


def test_r14_the_configuration_is_read_once(oci: Containers) -> None:
    """Lifecycle. "Any updates to `config.json` after this step MUST NOT affect the container." """
    one = oci("touch", "/first")
    one.create().ok()
    one.process["args"] = ["touch", "/second"]
    one.config["annotations"] = {"new": "1"}
    one.write_config()
    assert "new" not in (one.state().get("annotations") or {})
    one.start().ok()
    assert one.wait() == 0
    assert (one.rootfs / "first").exists()
    assert not (one.rootfs / "second").exists()


def fails_in_create(oci: Containers, kind: str) -> None:
    """A failing hook of this kind: an error, no process left, and step 13, the poststop hooks."""
    one = hooked(oci, kind)
    one.create().fails()
    eventually(lambda: gone(one), what="the container to be stopped")
    if one.runtime("state", one.id).code == 0:
        one.delete().ok()  # steps 11 to 13 by whoever called
    eventually(lambda: called(one)[-1:] == ["poststop"], seconds=3, what="the poststop hooks to have been called")
    assert not (one.rootfs / "tmp/hooks").exists()


def test_r15_prestart_hooks_are_called(oci: Containers) -> None:
    """Lifecycle. "The `prestart` hooks MUST be invoked by the runtime." """
    one = hooked(oci)
    one.create().ok()
    assert "prestart" in called(one)


def test_r16_a_prestart_hook_that_fails(oci: Containers) -> None:
    """Lifecycle. "If any `prestart` hook fails, the runtime MUST generate an error, stop the container, and continue the
    lifecycle at step 12." """
    fails_in_create(oci, "prestart")


def test_r17_create_runtime_hooks_are_called(oci: Containers) -> None:
    """Lifecycle. "The `createRuntime` hooks MUST be invoked by the runtime." """
    one = hooked(oci)
    one.create().ok()
    assert "createRuntime" in called(one)


def test_r18_a_create_runtime_hook_that_fails(oci: Containers) -> None:
    """Lifecycle. "If any `createRuntime` hook fails, the runtime MUST generate an error, stop the container, and continue the
    lifecycle at step 12." """
    fails_in_create(oci, "createRuntime")


def test_r19_create_container_hooks_are_called(oci: Containers) -> None:
    """Lifecycle. "The `createContainer` hooks MUST be invoked by the runtime." """
    one = hooked(oci)
    one.create().ok()
    assert "createContainer" in called(one)


def test_r20_a_create_container_hook_that_fails(oci: Containers) -> None:
    """Lifecycle. "If any `createContainer` hook fails, the runtime MUST generate an error, stop the container, and continue
    the lifecycle at step 12." """
    fails_in_create(oci, "createContainer")


def test_r21_start_container_hooks_are_called(oci: Containers) -> None:
    """Lifecycle. "The `startContainer` hooks MUST be invoked by the runtime." """
    one = hooked(oci)
    one.create().ok()
    assert not (one.rootfs / "tmp/hooks").exists()
    one.start().ok()
    assert (one.rootfs / "tmp/hooks").read_text() == "startContainer\n"


def test_r22_a_start_container_hook_that_fails(oci: Containers) -> None:
    """Lifecycle. "If any `startContainer` hook fails, the runtime MUST generate an error, stop the container, and continue
    the lifecycle at step 12." """
    one = hooked(oci, "startContainer")
    one.create().ok()
    result = one.start()
    eventually(lambda: gone(one), what="the container to be stopped")
    assert "holding" not in one.out, "its program was not run"
    if one.runtime("state", one.id).code == 0:
        one.delete().ok()
    assert called(one)[-1:] == ["poststop"]
    result.fails()


def test_r23_the_program_is_run(oci: Containers) -> None:
    """Lifecycle. "The runtime MUST run the user-specified program, as specified by `process`." """
    one = oci()
    one.process.update(args=["probe", "report", "one", "two words", ""], cwd="/tmp")
    one.process["env"] += ["A=1"]
    report = one.report()
    assert report["args"] == ["probe", "report", "one", "two words", ""]
    assert report["cwd"] == "/tmp"
    assert "A=1" in report["env"]


def test_r24_poststart_hooks_are_called(oci: Containers) -> None:
    """Lifecycle. "The `poststart` hooks MUST be invoked by the runtime." """
    one = hooked(oci)
    one.create().ok()
    assert "poststart" not in called(one)
    one.start().ok()
    assert called(one)[-1] == "poststart"


def test_r25_a_poststart_hook_that_fails(oci: Containers) -> None:
    """Lifecycle. "If any `poststart` hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle
    continue as if the hook had succeeded." """
    one = hooked(oci, "poststart")
    one.create().ok()
    log = one.bundle / "log"
    one.runtime("start", one.id, globals=("--log", str(log))).ok()
    assert called(one)[-1] == "poststart", "the one that came after it"
    assert one.status == "running"
    assert "poststart" in log.read_text() or "hook" in log.read_text()


def test_r26_what_create_made_is_undone(oci: Containers) -> None:
    """Lifecycle. "The container MUST be destroyed by undoing the steps performed during create phase (step 2)." """
    one = oci("true")
    one.up()
    one.wait()
    one.delete().ok()
    one.runtime("state", one.id).fails()
    assert not one.cgroups_left()
    assert not (one.runtime.root / one.id).exists()
    assert str(one.bundle) not in Path("/proc/self/mountinfo").read_text()


def test_r27_poststop_hooks_are_called(oci: Containers) -> None:
    """Lifecycle. "The `poststop` hooks MUST be invoked by the runtime." """
    one = hooked(oci)
    one.up()
    one.kill().ok()
    one.wait()
    assert "poststop" not in called(one)
    one.delete().ok()
    assert called(one)[-1] == "poststop"


def test_r28_a_poststop_hook_that_fails(oci: Containers) -> None:
    """Lifecycle. "If any `poststop` hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle
    continue as if the hook had succeeded." """
    one = hooked(oci, "poststop")
    one.up()
    one.kill().ok()
    one.wait()
    log = one.bundle / "log"
    one.runtime("delete", one.id, globals=("--log", str(log))).ok()
    assert called(one)[-1] == "poststop", "the one that came after it"
    assert "hook" in log.read_text()
    one.runtime("state", one.id).fails()


# Errors and warnings


@pytest.mark.parametrize("what", ["mount", "sysctl", "hook", "program", "namespace"])
def test_r29_an_error_leaves_nothing(oci: Containers, what: str) -> None:
    """Errors. "Unless otherwise stated, generating an error MUST leave the state of the environment as if the operation were
    never attempted." """
    one = oci()
    if what == "mount":
        one.mount("/data", "no-such-file-system", "none")
    elif what == "sysctl":
        one.linux["sysctl"] = {"net.no.such": "1"}
    elif what == "hook":
        one.hook("createRuntime", "exit 1")
    elif what == "program":
        one.process["args"] = ["/no/such/program"]
    else:
        one.namespace("network", "/no/such/namespace")
    mounts = host.mounts(one.bundle, one.runtime.root)
    result = one.create()
    if result.code == 0:
        assert what == "program", "only the program may be looked for later"
        one.start().fails()
        return
    result.fails()
    one.runtime("state", one.id).fails()
    assert not one.cgroups_left()
    assert not (one.runtime.root / one.id).exists()
    # Not all of the machine: other tests mount something meanwhile.
    assert host.mounts(one.bundle, one.runtime.root) == mounts


def test_r30_a_warning_changes_nothing(oci: Containers) -> None:
    """Warnings. "Unless otherwise stated, logging a warning does not change the flow of the operation; it MUST continue as if
    the warning had not been logged." """
    one = oci()
    one.process["capabilities"]["bounding"].append("CAP_OF_NO_KERNEL")
    assert one.report()["hostname"] == "conformance"


# Hooks


def test_r55_a_hook_of_each_kind(oci: Containers) -> None:
    """Hooks. Each kind of hook is called once, in the order of the lifecycle."""
    one = hooked(oci)
    one.up()
    one.kill().ok()
    one.wait()
    one.delete().ok()
    assert called(one) == ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    assert (one.rootfs / "tmp/hooks").read_text() == "startContainer\n"
