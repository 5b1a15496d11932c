"""runtime.md: operations."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from typing import Any

import pytest

from support.conformance.runtime import Container, Containers, Runtime
from support.patience import eventually

pytestmark = [pytest.mark.root]


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


def test_r56_the_state_is_json_alone(oci: Containers) -> None:
    """Query state. Standard output has the state and nothing else, with `--log` and `--debug` as well."""
    one = oci()
    one.create().ok()
    result = one.runtime("state", one.id, globals=("--debug", "--log", str(one.bundle / "log"))).ok()
    assert json.loads(result.out)["id"] == one.id
    assert result.err == ""
