"""config.md: mounts and their options."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.conformance.mountinfo import Mount, at, mounted, parse
from support.conformance.runtime import Containers

pytestmark = [pytest.mark.root]


@pytest.fixture
def tree(directory: Path) -> Iterator[Path]:
    """A file system of the host with another one mounted below it, both of peer groups."""
    with mounted(directory / "tree", propagation="shared") as path:
        yield path


def test_c9_mounts_in_their_order(oci: Containers) -> None:
    """Mounts. "The runtime MUST mount entries in the listed order." """
    one = oci("sh", "-c", "ls /a /a/b")
    first, second = (one.bundle / name for name in ("first", "second"))
    for path in (first, second):
        (path / "b").mkdir(parents=True)
        (path / f"of-{path.name}").touch()
    one.mount("/a", None, str(first), "bind")
    one.mount("/a", None, str(second), "bind")
    one.mount("/a/b", "tmpfs", "tmpfs")
    report = one.run().ok()
    assert "of-second" in report.out
    assert "of-first" not in report.out
    assert not any(second.joinpath("b").iterdir())


def test_c10_a_mount_over_what_was_mounted(oci: Containers) -> None:
    """Mounts. "The runtime MUST mount entries in the listed order": what is mounted later above hides what was mounted below."""
    one = oci()
    one.mount("/a/b", "tmpfs", "lower")
    one.mount("/a", "tmpfs", "upper")
    points = [(m.point, m.source) for m in parse(one.report()["mountinfo"]) if m.point.startswith("/a")]
    assert points == [("/a/b", "lower"), ("/a", "upper")]


@pytest.mark.parametrize("given", [None, ""])
def test_c11_a_destination_there_must_be(oci: Containers, given: str | None) -> None:
    """Mounts. "`destination` (string, REQUIRED) Destination of mount point: path inside container." """
    one = oci()
    one.config["mounts"].append({"type": "tmpfs", "source": "tmpfs"})
    if given is not None:
        one.config["mounts"][-1]["destination"] = given
    one.never_created()


@pytest.mark.parametrize("given", ["data", "./data", "a/b"])
def test_c12_a_relative_destination(oci: Containers, given: str) -> None:
    """Mounts. "it MAY be a relative path, in which case it MUST be interpreted as relative to "/"." """
    one = oci()
    one.process["cwd"] = "/tmp"
    one.mount(given, "tmpfs", "tmpfs")
    assert at(one.report()["mountinfo"], f"/{given.removeprefix('./')}").type == "tmpfs"


@pytest.mark.parametrize("option", ["bind", "rbind"])
def test_c13_a_relative_source(oci: Containers, option: str) -> None:
    """Mounts. "Path values for bind mounts are either absolute or relative to the bundle. A mount is a bind mount if it has
    either `bind` or `rbind` in the options." """
    one = oci("cat", "/data/file")
    (one.bundle / "volume").mkdir()
    (one.bundle / "volume/file").write_text("it")
    one.mount("/data", None, "volume", option)
    assert one.run().ok().out == "it"


def test_c14_a_file_as_source(oci: Containers) -> None:
    """Mounts. "`source` (string, OPTIONAL) A device name, but can also be a file or directory name for bind mounts or a
    dummy." """
    one = oci("cat", "/etc/made/file")
    (one.bundle / "file").write_text("it")
    one.mount("/etc/made/file", "none", str(one.bundle / "file"), "bind", "ro")
    assert one.run().ok().out == "it"


# Linux mount options: name -> what the mount has then. "-x": it has not the option x.

OPTIONS: dict[str, str] = {
    "async": "-sync",
    "atime": "-noatime",
    "defaults": "rw",
    "dev": "-nodev",
    "diratime": "-nodiratime",
    "dirsync": "dirsync",
    "exec": "-noexec",
    "iversion": "",
    "lazytime": "lazytime",
    "loud": "",
    "noatime": "noatime",
    "nodev": "nodev",
    "nodiratime": "nodiratime",
    "noexec": "noexec",
    "noiversion": "",
    "nolazytime": "-lazytime",
    "norelatime": "",
    "nostrictatime": "",
    "nosuid": "nosuid",
    "relatime": "relatime",
    "ro": "ro",
    "rw": "rw",
    "silent": "",
    "strictatime": "-relatime",
    "suid": "-nosuid",
    "sync": "sync",
}
BEFORE = {"atime": "noatime", "dev": "nodev", "diratime": "nodiratime", "exec": "noexec", "rw": "ro", "suid": "nosuid"}
BEFORE |= {"async": "sync", "nolazytime": "lazytime"}
OF_A_FILE_SYSTEM = ("async", "dirsync", "iversion", "lazytime", "noiversion", "nolazytime", "sync")


def has(mount: Mount, wanted: str) -> bool:
    """The mount, or its file system, has the option; "ro" of the file system is not the mount's."""
    if not wanted:
        return True
    options = mount.options if wanted in ("ro", "rw") else mount.options | mount.super
    return wanted[1:] not in options if wanted.startswith("-") else wanted in options


@pytest.mark.parametrize("option", OPTIONS)
def test_c15_options_of_a_file_system(oci: Containers, option: str) -> None:
    """Linux mount options. "Runtimes MUST/SHOULD/MAY implement the following option strings for Linux": each MUST, for a file
    system that is mounted."""
    one = oci()
    one.mount("/data", "tmpfs", "tmpfs", option)
    mount = at(one.report()["mountinfo"], "/data")
    assert mount.type == "tmpfs"
    assert has(mount, OPTIONS[option]), mount


@pytest.mark.parametrize("option", [name for name in OPTIONS if name not in OF_A_FILE_SYSTEM])
def test_c16_options_of_a_bind(oci: Containers, option: str, tree: Path) -> None:
    """Linux mount options. "Runtimes MUST/SHOULD/MAY implement the following option strings for Linux": each MUST that is a
    mount's own, for a bind mount."""
    one = oci()
    one.mount("/data", "none", str(tree), "bind", option)
    mount = at(one.report()["mountinfo"], "/data")
    assert has(mount, OPTIONS[option]), mount
    assert mount.source == "conformance"


@pytest.mark.parametrize("option", BEFORE)
def test_c17_the_last_option_counts(oci: Containers, option: str) -> None:
    """Linux mount options. "The "MUST" options correspond to `mount(8)`": of two that exclude each other the last one counts."""
    one = oci()
    one.mount("/data", "tmpfs", "tmpfs", BEFORE[option], option)
    assert has(at(one.report()["mountinfo"], "/data"), OPTIONS[option])


def test_c18_bind_is_without_what_is_mounted_below(oci: Containers, tree: Path) -> None:
    """Linux mount options. "`bind` MUST Bind mount" """
    one = oci()
    one.mount("/data", "none", str(tree), "bind")
    assert [m.point for m in parse(one.report()["mountinfo"]) if m.point.startswith("/data")] == ["/data"]


def test_c19_rbind_is_with_what_is_mounted_below(oci: Containers, tree: Path) -> None:
    """Linux mount options. "`rbind` MUST Recursive bind mount" """
    one = oci()
    one.mount("/data", "none", str(tree), "rbind")
    points = [m.point for m in parse(one.report()["mountinfo"]) if m.point.startswith("/data")]
    assert points == ["/data", "/data/sub"]


PROPAGATIONS = ("private", "shared", "slave", "unbindable")


@pytest.mark.parametrize("option", [*PROPAGATIONS, *(f"r{kind}" for kind in PROPAGATIONS)])
def test_c20_propagation(oci: Containers, option: str, tree: Path) -> None:
    """Linux mount options. "`private`, `rprivate`, `shared`, `rshared`, `slave`, `rslave`, `unbindable`, `runbindable` MUST Bind
    mount propagation" """
    one = oci()
    one.mount("/data", "none", str(tree), "rbind", option)
    text = one.report()["mountinfo"]
    kind = option.removeprefix("r")
    assert kind in at(text, "/data").propagation.split()
    if option.startswith("r"):
        assert kind in at(text, "/data/sub").propagation.split()


def test_c21_remount(oci: Containers) -> None:
    """Linux mount options. "`remount` MUST" """
    one = oci()
    one.mount("/data", "tmpfs", "tmpfs", "size=1m")
    one.mount("/data", "tmpfs", "tmpfs", "remount", "ro", "noexec")
    text = one.report()["mountinfo"]
    assert len([m for m in parse(text) if m.point == "/data"]) == 1
    assert {"ro", "noexec"} <= at(text, "/data").options


RECURSIVE = {
    "rro": "ro",
    "rnosuid": "nosuid",
    "rnodev": "nodev",
    "rnoexec": "noexec",
    "rnoatime": "noatime",
    "rnodiratime": "nodiratime",
    "rrelatime": "relatime",
    "rstrictatime": "-relatime",
    "rnosymfollow": "nosymfollow",
    "rrw": "rw",
    "rsuid": "-nosuid",
    "rdev": "-nodev",
    "rexec": "-noexec",
    "ratime": "-noatime",
    "rdiratime": "-nodiratime",
    "rnorelatime": "",
    "rnostrictatime": "",
    "rsymfollow": "-nosymfollow",
}


@pytest.mark.parametrize("option", RECURSIVE)
def test_c22_recursive_attributes(oci: Containers, option: str, tree: Path) -> None:
    """Linux mount options. "These `AT_RECURSIVE` options need kernel 5.12 or later" (each SHOULD)."""
    opposite = {"rrw": "rro", "rsuid": "rnosuid", "rdev": "rnodev", "rexec": "rnoexec", "ratime": "rnoatime"}
    opposite |= {"rdiratime": "rnodiratime", "rsymfollow": "rnosymfollow"}
    one = oci()
    one.mount("/data", "none", str(tree), "rbind", *([opposite[option]] if option in opposite else []), option)
    text = one.report()["mountinfo"]
    for point in ("/data", "/data/sub"):
        assert has(at(text, point), RECURSIVE[option]), at(text, point)
    assert at(Path("/proc/self/mountinfo").read_text(), str(tree / "sub")).options >= {"rw"}, (
        "the host's own is as it was"
    )


@pytest.mark.parametrize("option", ["nosymfollow", "symfollow"])
def test_c23_symbolic_links(oci: Containers, option: str) -> None:
    """Linux mount options. "`nosymfollow` SHOULD (Introduced in kernel 5.10, util-linux 2.38)", "`symfollow` SHOULD Opposite of
    `nosymfollow`" """
    one = oci()
    one.mount("/data", "tmpfs", "tmpfs", option)
    assert has(at(one.report()["mountinfo"], "/data"), "nosymfollow" if option == "nosymfollow" else "-nosymfollow")


def test_c24_tmpcopyup(oci: Containers) -> None:
    """Linux mount options. "`tmpcopyup` MAY copy up the contents to a tmpfs" """
    one = oci(
        "sh", "-c", "cat /data/file; stat -c '%a %u %F' /data /data/dir /data/link; touch /data/new; probe report"
    )
    data = one.rootfs / "data"
    (data / "dir").mkdir(parents=True)
    os.chmod(data / "dir", 0o750)
    os.chown(data / "dir", 5, 5)
    (data / "file").write_text("copied\n")
    (data / "link").symlink_to("file")
    one.mount("/data", "tmpfs", "tmpfs", "tmpcopyup")
    lines = one.run().ok().out.splitlines()
    assert lines[:4] == ["copied", "755 0 directory", "750 5 directory", "777 0 symbolic link"]
    assert not (data / "new").exists()
    assert (data / "file").exists()


@pytest.mark.parametrize(("option", "seen"), [("size=128k", "size=128k"), ("mode=700", "mode=700"), ("uid=7", "uid=7")])
def test_c25_options_of_the_file_system_itself(oci: Containers, option: str, seen: str) -> None:
    """Linux mount options. "Runtimes SHOULD treat unknown options as filesystem-specific ones and pass those as a comma-separated
    string to the fifth argument of `mount(2)`." """
    one = oci()
    one.mount("/data", "tmpfs", "tmpfs", option)
    assert seen in at(one.report()["mountinfo"], "/data").super


def test_c26_an_option_that_nobody_knows(oci: Containers) -> None:
    """Lifecycle. "If the runtime cannot apply a property as specified in the configuration, it MUST generate an error": an
    option that neither the runtime nor the file system knows."""
    one = oci()
    one.mount("/data", "tmpfs", "tmpfs", "nonsense=1")
    one.never_created()


# Id-mapped mounts

MAPPING = [{"containerID": 0, "hostID": 5000, "size": 1000}]


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_c27_an_idmapped_mount(oci: Containers, option: str, tree: Path) -> None:
    """Linux mount options. "If `uidMappings` or `gidMappings` are specified for the mount, the runtime MUST use those values for
    the mount's mapping." """
    os.chown(tree / "top", 7, 8)
    one = oci("stat", "-c", "%u %g", "/data/top")
    one.config["ociVersion"] = "1.2.0"
    one.mount("/data", "none", str(tree), "rbind", option, uidMappings=MAPPING, gidMappings=MAPPING)
    assert one.run().ok().out == "5007 5008\n"


@pytest.mark.parametrize(("option", "below"), [("idmap", "0 0"), ("ridmap", "5000 5000")])
def test_c28_an_idmapped_tree(oci: Containers, option: str, below: str, tree: Path) -> None:
    """Linux mount options. "`ridmap` ... Indicates that the mount MUST have an idmapping applied, and the mapping is applied
    recursively." """
    one = oci("stat", "-c", "%u %g", "/data/sub/below", "/data/top")
    one.config["ociVersion"] = "1.2.0"
    one.mount("/data", "none", str(tree), "rbind", option, uidMappings=MAPPING, gidMappings=MAPPING)
    assert one.run().ok().out == f"{below}\n5000 5000\n"


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_c29_idmap_without_a_mapping(oci: Containers, option: str, tree: Path) -> None:
    """Linux mount options. "If there are no `uidMappings` and `gidMappings` specified and the container isn't using user
    namespaces, an error MUST be returned." """
    one = oci()
    one.config["ociVersion"] = "1.2.0"
    one.mount("/data", "none", str(tree), "rbind", option)
    one.never_created()


@pytest.mark.parametrize("kind", ["uidMappings", "gidMappings"])
def test_c90_one_mapping_without_the_other(oci: Containers, kind: str, tree: Path) -> None:
    """POSIX-platform mounts. "If specified, it MUST be specified along with `gidMappings`." """
    one = oci()
    one.config["ociVersion"] = "1.2.0"
    mappings: dict[str, Any] = {kind: MAPPING}
    one.mount("/data", "none", str(tree), "rbind", "idmap", **mappings)
    one.never_created()


def test_c91_idmap_with_the_containers_own_mapping(oci: Containers, tree: Path) -> None:
    """Linux mount options. "If they are not specified, the runtime MAY use the container's user namespace mapping, otherwise an
    error MUST be returned." """
    one = oci("stat", "-c", "%u %g", "/data/top")
    one.config["ociVersion"] = "1.2.0"
    one.in_user_namespace()
    one.mount("/data", "none", str(tree), "rbind", "idmap")
    result = one.create()
    if result.code:
        result.fails()
        return
    one.start().ok()
    assert one.wait() == 0
    assert one.out == "0 0\n"


def test_c92_the_type_of_a_bind_is_a_dummy(oci: Containers, tree: Path) -> None:
    """POSIX-platform mounts. "For bind mounts (when `options` include either `bind` or `rbind`), the type is a dummy" """
    for number, kind in enumerate((None, "none", "bind", "tmpfs", "no-such-file-system")):
        one = oci("cat", "/data/top")
        one.mount("/data", kind, str(tree), "bind")
        assert one.run().ok().out == "top", f"{number}: {kind}"


@pytest.mark.parametrize("kind", ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "ramfs"])
def test_c93_file_systems_of_the_kernel(oci: Containers, kind: str) -> None:
    """POSIX-platform mounts. "Linux: filesystem types supported by the kernel as listed in /proc/filesystems" """
    one = oci()
    one.mount("/data", kind, kind)
    assert at(one.report()["mountinfo"], "/data").type == kind


def test_c94_a_block_device(oci: Containers) -> None:
    """Mounts. "`source` (string, OPTIONAL) A device name": a file system on a disk."""
    image = oci.directory / "disk"
    subprocess.run(["truncate", "-s", "8M", str(image)], check=True)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    loop = subprocess.run(
        ["losetup", "-f", "--show", str(image)], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        one = oci()
        one.mount("/data", "ext4", loop, "ro", "noload")
        mount = at(one.report()["mountinfo"], "/data")
        assert (mount.type, mount.source) == ("ext4", loop)
        assert "ro" in mount.options
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


@pytest.mark.parametrize("options", [[], ["ro"]])
def test_c95_the_cgroup_mount(oci: Containers, options: list[str]) -> None:
    """Mounts. A mount of the type `cgroup` shows the groups of the container, and only to read if it says so."""
    one = oci("sh", "-c", "cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2> /dev/null; probe report")
    one.mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", *options)
    one.namespace("cgroup")
    lines = one.run().ok().out.splitlines()
    assert "1" in lines, "the process is in the group that it sees"
    text = json.loads(lines[-1])["mountinfo"]
    mounts = [mount for mount in parse(text) if mount.type in ("cgroup", "cgroup2")]
    assert mounts
    if options:
        assert all("ro" in mount.options for mount in mounts)
