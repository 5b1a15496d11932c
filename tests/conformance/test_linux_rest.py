"""config-linux.md: default file systems, sysctl, propagation, masked and read-only paths, labels, personality."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.conformance.mountinfo import at, mounted
from support.conformance.runtime import Container, Containers
from support.patience import eventually

pytestmark = [pytest.mark.root]


@pytest.mark.parametrize(
    ("path", "kind"), [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")]
)
def test_l140_default_file_systems(oci: Containers, path: str, kind: str) -> None:
    """Default filesystems. "The following filesystems SHOULD be made available in each container's filesystem" """
    assert at(oci().report()["mountinfo"], path).type == kind


# Sysctl


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.ip_forward", "1"),
        ("net.core.somaxconn", "256"),
        ("net/ipv4/ip_default_ttl", "99"),
        ("kernel.shmmax", "1234567"),
        ("kernel.msgmax", "4096"),
        ("fs.mqueue.msg_max", "20"),
    ],
)
def test_l141_sysctls(oci: Containers, name: str, value: str) -> None:
    """Sysctl. "`sysctl` (object, OPTIONAL) allows kernel parameters to be modified at runtime for the container." """
    path = Path("/proc/sys", name.replace(".", "/"))
    before = path.read_text()
    one = oci("cat", str(path))
    one.linux["sysctl"] = {name: value}
    assert one.run().ok().out.strip() == value
    assert path.read_text() == before


@pytest.mark.parametrize(
    "name", ["kernel.core_pattern", "vm.swappiness", "kernel.hostname.x", "fs.file-max", "nothing.at.all"]
)
def test_l142_sysctls_of_the_host(oci: Containers, name: str) -> None:
    """Sysctl. "allows kernel parameters to be modified at runtime for the container": one that is the whole host's is refused."""
    path = Path("/proc/sys", name.replace(".", "/"))
    before = path.read_text() if path.exists() else None
    one = oci()
    one.linux["sysctl"] = {name: before or "1"}
    one.refused()
    assert (path.read_text() if path.exists() else None) == before


@pytest.mark.parametrize(("name", "kind"), [("net.core.somaxconn", "network"), ("kernel.shmmax", "ipc")])
def test_l143_sysctls_without_a_namespace(oci: Containers, name: str, kind: str) -> None:
    """Sysctl. "... for the container": without a namespace of its own it would be the host's, and is refused."""
    path = Path("/proc/sys", name.replace(".", "/"))
    before = path.read_text()
    one = oci()
    one.without_namespace(kind)
    one.config["mounts"] = [m for m in one.config["mounts"] if m["destination"] not in ("/sys", "/dev/mqueue")]
    one.linux["sysctl"] = {name: before.strip()}
    one.refused()


# Rootfs mount propagation


def kind_of_root(oci: Containers, given: str | None) -> str:
    one = oci()
    if given:
        one.linux["rootfsPropagation"] = given
    return at(one.report()["mountinfo"], "/").propagation


@pytest.mark.parametrize("root", ["a directory", "a mount"])
def test_l144_shared(oci: Containers, directory: Path, root: str) -> None:
    """Rootfs mount propagation. "`shared`: the rootfs mount belongs to a new peer group." """
    if root == "a directory":
        assert "shared" in kind_of_root(oci, "shared").split()
        return
    one = oci()
    one.linux["rootfsPropagation"] = "shared"
    with on_a_mount(one, directory):
        assert "shared" in at(one.report()["mountinfo"], "/").propagation.split()


@contextlib.contextmanager
def on_a_mount(one: Container, directory: Path) -> Iterator[Path]:
    """Its root is a mount of the host that has peers; a directory in it, to mount something there later."""
    with mounted(directory / "tree", propagation="shared") as tree:
        subprocess.run(["cp", "-a", f"{one.rootfs}/.", str(tree)], check=True)
        (tree / "late").mkdir()
        one.config["root"]["path"] = str(tree)
        try:
            yield tree / "late"
        finally:
            one.delete("--force")


@pytest.mark.parametrize("given", ["slave", "rslave"])
def test_l145_slave(oci: Containers, directory: Path, given: str) -> None:
    """Rootfs mount propagation. "`slave`: the rootfs mount receives propagation events from the host (e.g. if something is mounted
    on the host it will also appear in the container) but not the other way around." """
    one = oci()
    one.linux["rootfsPropagation"] = given
    with on_a_mount(one, directory) as late:
        one.process["args"] = ["probe", "hold"]
        one.up()
        subprocess.run(["mount", "-t", "tmpfs", "late", str(late)], check=True)
        info = Path(f"/proc/{one.pid}/mountinfo")
        eventually(lambda: any(line.split()[4] == "/late" for line in info.read_text().splitlines()), seconds=3)
        assert "slave" in at(info.read_text(), "/").propagation.split()


@pytest.mark.parametrize("given", ["private", "rprivate"])
def test_l146_private(oci: Containers, directory: Path, given: str) -> None:
    """Rootfs mount propagation. "`private`: the rootfs mount doesn't receive mount propagation events from the host" """
    one = oci()
    one.linux["rootfsPropagation"] = given
    with on_a_mount(one, directory) as late:
        one.process["args"] = ["probe", "hold"]
        one.up()
        subprocess.run(["mount", "-t", "tmpfs", "late", str(late)], check=True)
        info = Path(f"/proc/{one.pid}/mountinfo").read_text()
        assert "/late" not in {line.split()[4] for line in info.splitlines()}
        assert at(info, "/").propagation == "private"


def test_l147_unbindable(oci: Containers) -> None:
    """Rootfs mount propagation. "`unbindable`: the rootfs mount is a private mount that cannot be bind-mounted." """
    assert kind_of_root(oci, "unbindable") == "unbindable"


@pytest.mark.parametrize("given", ["shared", "slave", "private", "unbindable", None])
def test_l148_nothing_reaches_the_host(oci: Containers, given: str | None) -> None:
    """Rootfs mount propagation. "Note this does not mean that it's shared with the host": what is mounted in the container is not
    mounted on the host."""
    one = oci("sh", "-c", "mount -t tmpfs inside /tmp && cat /proc/self/mountinfo")
    one.capabilities("CAP_SYS_ADMIN")
    if given:
        one.linux["rootfsPropagation"] = given
    one.run().ok()
    assert "inside" in one.out
    assert "tmpfs inside" not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("given", ["rshared", "rslave", "rprivate", "runbindable"])
def test_l149_recursive_kinds(oci: Containers, given: str) -> None:
    """Rootfs mount propagation. What runtimes and engines write as `rshared`, `rslave`, `rprivate` is taken as well."""
    kind = given[1:]
    seen = kind_of_root(oci, given)
    assert kind in seen.split() or (kind == "slave" and seen == "private"), (
        "a slave of a mount without peers is private"
    )


# Masked and read-only paths


def test_l150_a_masked_file(oci: Containers) -> None:
    """Masked paths. "`maskedPaths` (array of strings, OPTIONAL) will mask over the provided paths inside the container so that they
    cannot be read." """
    one = oci("sh", "-c", "cat /proc/version /etc/secret; echo over > /etc/secret; cat /etc/secret")
    (one.rootfs / "etc/secret").write_text("secret")
    one.linux["maskedPaths"] = ["/proc/version", "/etc/secret"]
    outcome = one.run()
    assert outcome.out == ""
    assert (one.rootfs / "etc/secret").read_text() == "secret"


def test_l151_a_masked_directory(oci: Containers) -> None:
    """Masked paths. "... so that they cannot be read": of a directory nothing is seen, and nothing can be put into it."""
    one = oci("sh", "-c", "ls /proc/bus /root; touch /root/new || echo refused")
    (one.rootfs / "root/secret").write_text("secret")
    one.linux["maskedPaths"] = ["/root", "/proc/bus"]
    outcome = one.run()
    assert "secret" not in outcome.out
    assert outcome.out.split()[-1] == "refused"


def test_l152_a_masked_path_that_is_not_there(oci: Containers) -> None:
    """Masked paths. What is not there needs no mask, and is no error."""
    one = oci()
    one.linux["maskedPaths"] = ["/no/such/path", "/proc/no_such_file"]
    assert one.report()["hostname"] == "conformance"


@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
@pytest.mark.parametrize("given", ["proc/version", "./etc", ""])
def test_l153_paths_are_absolute(oci: Containers, field: str, given: str) -> None:
    """Masked paths, readonly paths. "The values MUST be absolute paths in the container namespace." """
    one = oci()
    one.linux[field] = [given]
    one.never_created()


def test_l154_read_only_paths(oci: Containers) -> None:
    """Readonly paths. "`readonlyPaths` (array of strings, OPTIONAL) will set the provided paths as readonly inside the
    container." """
    one = oci(
        "sh",
        "-c",
        "echo x > /etc/file; touch /root/new; echo 1 > /proc/sys/kernel/shmmax; touch /tmp/may && cat /etc/file",
    )
    (one.rootfs / "etc/file").write_text("kept\n")
    one.linux["readonlyPaths"] = ["/etc/file", "/root", "/proc/sys"]
    outcome = one.run()
    assert outcome.out == "kept\n"
    assert outcome.err.count("Read-only") == 3
    assert (one.rootfs / "tmp/may").exists()
    assert not (one.rootfs / "root/new").exists()


def test_l155_what_is_mounted_below_a_read_only_path(oci: Containers) -> None:
    """Readonly paths. "will set the provided paths as readonly": the flags that its mount had stay."""
    one = oci()
    one.mount("/data", "tmpfs", "tmpfs", "nosuid", "noexec", "nodev")
    one.linux["readonlyPaths"] = ["/data"]
    assert {"ro", "nosuid", "noexec", "nodev"} <= at(one.report()["mountinfo"], "/data").options


def test_l156_a_read_only_path_that_is_not_there(oci: Containers) -> None:
    """Readonly paths. What is not there cannot be written, and is no error."""
    one = oci()
    one.linux["readonlyPaths"] = ["/no/such/path"]
    assert one.report()["hostname"] == "conformance"


def test_l157_a_mount_label_without_selinux(oci: Containers) -> None:
    """Mount label. "`mountLabel` (string, OPTIONAL) will set the Selinux context for the mounts in the container": without
    SELinux, that cannot be applied."""
    if Path("/sys/fs/selinux/enforce").exists():
        pytest.xfail("this machine has SELinux")
    one = oci()
    one.linux["mountLabel"] = "system_u:object_r:svirt_sandbox_file_t:s0:c715,c811"
    one.refused()


# Personality


@pytest.mark.parametrize(("domain", "number", "machine"), [("LINUX", 0, "x86_64"), ("LINUX32", 8, "i686")])
def test_l160_personality(oci: Containers, domain: str, number: int, machine: str) -> None:
    """Personality. "`domain` (string, REQUIRED) - the execution domain." "`LINUX32` will set the `uname` system call to show a 32 bit
    CPU type, such as `i686`." """
    one = oci()
    one.linux["personality"] = {"domain": domain}
    report = one.report()
    assert report["personality"] == number
    if report["machine"] in ("x86_64", "i686"):
        assert report["machine"] == machine


@pytest.mark.parametrize(
    "given", [{}, {"domain": ""}, {"domain": "BSD"}, {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}]
)
def test_l161_a_personality_that_cannot_be(oci: Containers, given: dict[str, object]) -> None:
    """Personality. "Currently no flag values are supported." "The valid list of constants is shown below." """
    one = oci()
    one.linux["personality"] = given
    one.refused()
