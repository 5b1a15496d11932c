"""runtime.md: state, lifecycle, operations."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from support.conformance.runtime import Container, Containers, Runtime
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
    mounts = Path("/proc/self/mountinfo").read_text()
    result = one.create()
    if result.code == 0:
        assert what == "program", "only the program may be looked for later"
        one.start().fails()
        return
    result.fails()
    one.runtime("state", one.id).fails()
    assert not one.cgroups_left()
    assert not (one.runtime.root / one.id).exists()
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_r30_a_warning_changes_nothing(oci: Containers) -> None:
    """Warnings. "Unless otherwise stated, logging a warning does not change the flow of the operation; it MUST continue as if
    the warning had not been logged." """
    one = oci()
    one.process["capabilities"]["bounding"].append("CAP_OF_NO_KERNEL")
    assert one.report()["hostname"] == "conformance"


# Operations


@pytest.mark.parametrize("operation", ["state", "create", "start", "kill", "delete"])
def test_r31_the_operations_are_there(oci: Containers, operation: str) -> None:
    """Operations. "Unless otherwise stated, runtimes MUST support the following operations." """
    one = oci("probe", "hold")
    one.create().ok()
    if operation == "create":
        return
    if operation == "state":
        assert one.state()
        return
    one.start().ok()
    if operation == "start":
        return
    one.kill("KILL").ok()
    assert one.wait() == -9
    if operation == "delete":
        one.delete().ok()


def test_r32_state_without_an_id(runtime: Runtime) -> None:
    """Query state. "This operation MUST generate an error if it is not provided the ID of a container." """
    runtime("state").fails()


def test_r33_state_of_none(runtime: Runtime) -> None:
    """Query state. "Attempting to query a container that does not exist MUST generate an error." """
    runtime("state", "no-such-container").fails()


def test_r34_state_gives_the_state(oci: Containers) -> None:
    """Query state. "This operation MUST return the state of a container as specified in the State section." """
    one = oci().holding()
    state = one.state()
    assert (state["id"], state["status"], state["pid"], state["bundle"]) == (
        one.id,
        "running",
        one.pid,
        str(one.bundle),
    )


@pytest.mark.parametrize("what", ["id", "bundle"])
def test_r35_create_without_what_it_needs(oci: Containers, what: str) -> None:
    """Create. "This operation MUST generate an error if it is not provided a path to the bundle and the container ID to
    associate with the container." """
    one = oci()
    one.write_config()
    if what == "id":
        one.runtime("create", "--bundle", str(one.bundle)).fails()
    else:
        # The directory that one is in is the bundle unless another is named; this one is none.
        one.runtime("create", one.id, cwd=one.rootfs).fails()
        one.runtime("state", one.id).fails()


@pytest.mark.parametrize("id", ["", "..", ".", "a/b", "../up", "a b", "ä", "a\nb", "-x", "x" * 2000])
def test_r36_an_id_that_is_not_valid(oci: Containers, id: str) -> None:
    """Create. "If the ID provided is not unique across all containers within the scope of the runtime, or is not valid in any
    other way, the implementation MUST generate an error and a new container MUST NOT be created." """
    one = oci()
    one.write_config()
    before = sorted(os.listdir(one.runtime.root)) if one.runtime.root.exists() else []
    one.create_as_written(id=id).fails()
    assert sorted(os.listdir(one.runtime.root) if one.runtime.root.exists() else []) == before
    assert not one.cgroups_left()


def test_r37_an_id_that_is_taken(oci: Containers) -> None:
    """Create. "If the ID provided is not unique ... a new container MUST NOT be created." """
    first, second = oci().holding(), oci("touch", "/ran")
    second.write_config()
    second.create_as_written(id=first.id).fails()
    assert first.status == "running"
    assert not second.cgroups_left()
    assert not (second.rootfs / "ran").exists()


def test_r38_create_creates(oci: Containers) -> None:
    """Create. "This operation MUST create a new container." """
    one = oci()
    one.runtime("state", one.id).fails()
    one.create().ok()
    assert one.status == "created"


def test_r39_all_but_the_process_is_applied(oci: Containers) -> None:
    """Create. "All of the properties configured in `config.json` except for `process` MUST be applied." """
    one = oci()
    one.linux["resources"]["pids"] = {"limit": 77}
    one.linux["sysctl"] = {"net.core.somaxconn": "123"}
    one.linux["maskedPaths"] = ["/proc/keys"]
    one.create().ok()
    assert one.setting("pids", "pids.max") == "77"
    assert str(one.pid) in one.setting("pids", "cgroup.procs").split()
    seen = in_namespaces(one, "cat", "/proc/sys/net/core/somaxconn", "/proc/sys/kernel/hostname", "/proc/keys")
    assert seen.split() == ["123", "conformance"]


def in_namespaces(one: Container, *command: str) -> str:
    """What a command of the host says in the container's namespaces, without the runtime."""
    nsenter = ["nsenter", f"--target={one.pid}", "--mount", "--uts", "--net", "--ipc", "--pid", "--root", "--"]
    return subprocess.run([*nsenter, *command], capture_output=True, text=True, check=True).stdout


def test_r40_the_arguments_wait_for_start(oci: Containers) -> None:
    """Create. "`process.args` MUST NOT be applied until triggered by the `start` operation." """
    one = oci("probe", "hold")
    one.create().ok()
    time.sleep(0.3)
    assert os.path.basename(os.readlink(f"/proc/{one.pid}/exe")) != "probe"
    one.start().ok()
    eventually(lambda: os.path.basename(os.readlink(f"/proc/{one.pid}/exe")) == "probe")


INAPPLICABLE: dict[str, Any] = {
    "root": lambda one: one.config["root"].update(path="no-such-root"),
    "mount": lambda one: one.mount("/data", "no-such-file-system", "none"),
    "namespace": lambda one: one.namespace("uts", "/no/such/namespace"),
    "sysctl": lambda one: one.linux.update(sysctl={"kernel.no_such": "1"}),
    "hostname": lambda one: one.without_namespace("uts"),
    "cpuset": lambda one: one.linux["resources"].update(cpu={"cpus": "900-901"}),
    "apparmor": lambda one: one.process.update(apparmorProfile="no-such-profile"),
    "seccomp": lambda one: one.linux.update(seccomp={"defaultAction": "SCMP_ACT_NONE"}),
    "propagation": lambda one: one.linux.update(rootfsPropagation="sideways"),
}


@pytest.mark.parametrize("what", INAPPLICABLE)
def test_r41_a_property_that_cannot_be_applied(oci: Containers, what: str) -> None:
    """Create. "If the runtime cannot apply a property as specified in the configuration, it MUST generate an error and a new
    container MUST NOT be created." """
    one = oci()
    INAPPLICABLE[what](one)
    one.never_created()


def test_r42_start_without_an_id(runtime: Runtime) -> None:
    """Start. "This operation MUST generate an error if it is not provided the container ID." """
    runtime("start").fails()


@pytest.mark.parametrize("status", ["running", "stopped", "none"])
def test_r43_start_of_what_is_not_created(oci: Containers, status: str) -> None:
    """Start. "Attempting to `start` a container that is not `created` MUST have no effect on the container and MUST generate
    an error." """
    one = oci()
    if status == "none":
        one.start().fails()
        return
    one.holding()
    if status == "stopped":
        one.kill().ok()
        one.wait()
    one.start().fails()
    assert one.status == status
    assert one.out.count("holding") == 1


def test_r44_start_runs_the_program(oci: Containers) -> None:
    """Start. "This operation MUST run the user-specified program as specified by `process`." """
    one = oci("sh", "-c", "echo it runs; exit 7")
    outcome = one.run()
    assert (outcome.code, outcome.out) == (7, "it runs\n")


def test_r45_start_without_a_process(oci: Containers) -> None:
    """Start. "This operation MUST generate an error if `process` was not set." """
    one = oci()
    del one.config["process"]
    one.create()  # which is free to refuse it already
    one.start().fails()


def test_r46_kill_without_an_id(runtime: Runtime) -> None:
    """Kill. "This operation MUST generate an error if it is not provided the container ID." """
    runtime("kill").fails()


@pytest.mark.parametrize("status", ["stopped", "none"])
def test_r47_kill_of_what_does_not_run(oci: Containers, status: str) -> None:
    """Kill. "Attempting to send a signal to a container that is neither `created` nor `running` MUST have no effect on the
    container and MUST generate an error." """
    one = oci("true")
    if status == "none":
        one.kill("TERM").fails()
        return
    one.up()
    one.wait()
    one.kill("TERM").fails()
    assert one.status == "stopped"


@pytest.mark.parametrize(
    ("given", "number"), [("HUP", 1), ("SIGUSR1", 10), ("12", 12), ("TERM", 15), ("37", 37), ("CONT", 18)]
)
def test_r48_kill_sends_the_signal(oci: Containers, given: str, number: int) -> None:
    """Kill. "This operation MUST send the specified signal to the container process." """
    one = oci().holding()
    one.kill(given).ok()
    eventually(lambda: one.signals() == [number], what="the signal to come")


def test_r49_kill_of_a_created_container(oci: Containers) -> None:
    """Kill. "Attempting to send a signal to a container that is neither `created` nor `running` MUST have no effect": one that
    is created is sent it."""
    one = oci()
    one.create().ok()
    one.kill("KILL").ok()
    assert one.wait() == -9
    assert one.status == "stopped"


def test_r50_delete_without_an_id(runtime: Runtime) -> None:
    """Delete. "This operation MUST generate an error if it is not provided the container ID." """
    runtime("delete").fails()


@pytest.mark.parametrize("status", ["running", "created", "paused", "none"])
def test_r51_delete_of_what_is_not_stopped(oci: Containers, status: str) -> None:
    """Delete. "Attempting to `delete` a container that is not `stopped` MUST have no effect on the container and MUST generate
    an error." """
    one = oci("probe", "hold")
    if status == "none":
        one.delete().fails()
        return
    one.create().ok()
    if status != "created":
        one.start().ok()
    if status == "paused":
        one.runtime("pause", one.id).ok()
    result = one.delete()
    after = one.runtime("state", one.id)
    if status == "paused" and after.code == 0:
        one.runtime("resume", one.id).ok()
    result.fails()
    assert after.json()["status"] == status
    if status == "created":
        one.start().ok()


def test_r52_delete_deletes_what_create_made(oci: Containers) -> None:
    """Delete. "Deleting a container MUST delete the resources that were created during the `create` step." """
    one = oci("true")
    one.linux["resources"]["memory"] = {"limit": 64 << 20}
    one.linux["resources"]["cpu"] = {"shares": 512}
    one.up()
    one.wait()
    assert one.cgroups_left()
    one.delete().ok()
    assert not one.cgroups_left()
    assert not (one.runtime.root / one.id).exists()


def test_r53_delete_leaves_what_others_made(oci: Containers) -> None:
    """Delete. "Note that resources associated with the container, but not created by this container, MUST NOT be deleted." """
    other = oci().holding()
    data = oci.directory / "data"
    data.mkdir()
    (data / "file").write_text("kept")
    one = oci("true")
    one.namespace("network", f"/proc/{other.pid}/ns/net")
    one.namespace("ipc", f"/proc/{other.pid}/ns/ipc")
    one.mount("/data", None, str(data), "rbind")
    above = one.group("pids").parent
    one.up()
    one.wait()
    one.delete().ok()
    assert (data / "file").read_text() == "kept"
    assert one.rootfs.is_dir()
    assert (one.bundle / "config.json").exists()
    assert above.is_dir(), "the group that its own was in"
    assert other.status == "running"
    shutil.rmtree(data)


def test_r54_an_id_can_be_used_again(oci: Containers) -> None:
    """Delete. "Once a container is deleted its ID MAY be used by a subsequent container." """
    one = oci("true")
    for _ in range(2):
        one._status = None
        one.up()
        one.wait()
        one.delete().ok()


def test_r55_a_hook_of_each_kind(oci: Containers) -> None:
    """Hooks. Each kind of hook is called once, in the order of the lifecycle."""
    one = hooked(oci)
    one.up()
    one.kill().ok()
    one.wait()
    one.delete().ok()
    assert called(one) == ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    assert (one.rootfs / "tmp/hooks").read_text() == "startContainer\n"


def test_r56_the_state_is_json_alone(oci: Containers) -> None:
    """Query state. Standard output has the state and nothing else, with `--log` and `--debug` as well."""
    one = oci()
    one.create().ok()
    result = one.runtime("state", one.id, globals=("--debug", "--log", str(one.bundle / "log"))).ok()
    assert json.loads(result.out)["id"] == one.id
    assert result.err == ""
