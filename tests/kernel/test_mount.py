"""Mounts: overlays however long or many their layers, detached trees, attributes, propagation; nothing left on the host."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.kernel import mount, namespaces
from sampan.kernel.libc import KernelError, kernel_version

from support import host
from support.box import directory_for_tests
from support.child import in_child

pytestmark = [pytest.mark.root, pytest.mark.core]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that can hold an upper layer. No mount may name it when the test is over."""
    import shutil

    path = directory_for_tests()
    yield path
    assert not host.mounts(path)
    shutil.rmtree(path)


def layers(place: Path, count: int, length: int = 0) -> list[str]:
    """Directories with a file each, and one file that all of them have; topmost first."""
    made = []
    for number in range(count):
        parent = place
        while len(str(parent)) + 60 < length:
            parent = parent / ("long" * 12)
        directory = parent / f"layer{number}"
        directory.mkdir(parents=True)
        (directory / f"own{number}").write_text(str(number))
        (directory / "shared").write_text(str(number))
        made.append(str(directory))
    return made


def listing(fd: int) -> list[str]:
    return sorted(os.listdir(f"/proc/self/fd/{fd}"))


def read(fd: int, name: str) -> str:
    return Path(f"/proc/self/fd/{fd}/{name}").read_text()


def writable(place: Path) -> tuple[str, str]:
    (place / "upper").mkdir()
    (place / "work").mkdir()
    return str(place / "upper"), str(place / "work")


# overlays


def check_overlay(fd: int, count: int, place: Path) -> None:
    assert listing(fd) == sorted(["shared", *(f"own{n}" for n in range(count))])
    assert read(fd, "shared") == "0"  # the topmost
    Path(f"/proc/self/fd/{fd}/new").write_text("written")
    assert (place / "upper/new").read_text() == "written"


def overlay(lower: list[str], upper: str = "", work: str = "") -> int:
    """As a start does it: an older kernel needs private mounts for it."""
    if kernel_version() < (6, 7):
        return namespaces.in_private_mounts(lambda: mount.overlay(lower, upper, work))
    return mount.overlay(lower, upper, work)


@pytest.mark.parametrize(("count", "length"), [(1, 0), (3, 0), (120, 0), (3, 400), (120, 200)])
def test_an_overlay_of_any_number_of_layers_with_paths_of_any_length(place: Path, count: int, length: int) -> None:
    lower = layers(place, count, length)
    upper, work = writable(place)
    if length > 255:
        assert len(lower[0]) > 255

        fd = namespaces.in_private_mounts(lambda: mount.overlay(lower, upper, work))
    else:
        fd = overlay(lower, upper, work)
    try:
        check_overlay(fd, count, place)
        assert not host.mounts(place), "it hangs nowhere"
    finally:
        os.close(fd)


@pytest.mark.parametrize("count", [1, 120])
def test_the_way_of_older_kernels_in_private_mounts(place: Path, count: int) -> None:
    lower = layers(place, count, 200)
    upper, work = writable(place)
    before = os.getcwd()
    fd = namespaces.in_private_mounts(lambda: mount._overlay_by_mount(lower, upper, work, 0, False))
    try:
        assert os.getcwd() == before
        check_overlay(fd, count, place)
        assert not host.mounts(place)
    finally:
        os.close(fd)


@pytest.mark.parametrize("character", [":", ",", "\\", " ", "\n", "é", "\udcff"])
def test_layers_may_have_any_character_in_their_names(place: Path, character: str) -> None:
    (place / f"a{character}b").mkdir()
    (place / f"a{character}b/file").write_text("x")
    fd = overlay([str(place / f"a{character}b")] * 1, *writable(place))
    assert listing(fd) == ["file"]
    os.close(fd)


def test_without_an_upper_layer_it_is_read_only(place: Path) -> None:
    fd = overlay(layers(place, 2))
    with pytest.raises(OSError) as caught:
        Path(f"/proc/self/fd/{fd}/new").write_text("x")
    assert caught.value.errno == errno.EROFS
    os.close(fd)


def test_a_missing_layer_is_told_in_the_kernels_words_with_its_path(place: Path) -> None:
    with pytest.raises(KernelError) as caught:
        overlay([str(place / "nonexistent")], *writable(place))
    assert caught.value.errno == errno.ENOENT
    assert "fsconfig" in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) < 40


def test_features_of_the_host_that_change_the_layers_on_disk_are_off(place: Path) -> None:
    lower = layers(place, 1)
    fd = overlay(lower, *writable(place))
    os.rename(f"/proc/self/fd/{fd}/own0", f"/proc/self/fd/{fd}/moved")
    os.chmod(f"/proc/self/fd/{fd}/moved", 0o600)
    os.close(fd)
    assert (place / "upper/moved").read_text() == "0", "copied up whole: metacopy is off"
    (place / lower[0] / "directory").mkdir()
    fd = overlay(lower, str(place / "upper"), str(place / "work"))
    with pytest.raises(OSError) as caught:
        os.rename(f"/proc/self/fd/{fd}/directory", f"/proc/self/fd/{fd}/elsewhere")
    assert caught.value.errno == errno.EXDEV, "redirect_dir is off"
    os.close(fd)


# detached trees


def test_a_clone_shows_what_is_there_and_hangs_nowhere(place: Path) -> None:
    (place / "a").mkdir()
    (place / "a/file").write_text("x")
    fd = mount.clone_tree_with(str(place / "a"), 0)
    assert listing(fd) == ["file"]
    assert not host.mounts(place)
    os.close(fd)


def test_a_file_can_be_cloned_and_attached(place: Path) -> None:
    def inside() -> str:
        namespaces.private_mounts()
        (place / "source").write_text("source")
        (place / "target").write_text("target")
        tree = mount.clone_tree_with(str(place / "source"), mount.MOUNT_ATTR_RDONLY)
        target = os.open(place / "target", os.O_PATH)
        mount.move_mount(tree, target)
        with pytest.raises(OSError):
            (place / "target").write_text("x")
        return (place / "target").read_text()

    assert in_child(inside) == "source"


def flags(path: str) -> set[str]:
    """The options of the mount at `path`, by the kernel's own list."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        fields = line.split()
        if fields[4] == path:
            return {*fields[5].split(","), *(f for f in fields[6 : fields.index("-")])}
    raise LookupError(path)


ATTRIBUTES = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC


@pytest.mark.parametrize("way", ["mount_setattr", "attached"])
def test_a_tree_with_attributes(place: Path, way: str) -> None:
    """`attached` is the way of Linux 5.10; on a newer kernel both have the same result."""

    def inside() -> tuple[set[str], int, set[str]]:
        namespaces.private_mounts()
        (place / "a").mkdir()
        (place / "b").mkdir()
        clone = mount.clone_tree_with if way == "mount_setattr" else mount.clone_attached
        fd = clone(str(place / "a"), ATTRIBUTES)
        left = host.mounts(place)
        target = os.open(place / "b", os.O_PATH)
        mount.move_mount(fd, target)
        try:
            (place / "b/x").write_text("")
        except OSError as e:
            return flags(str(place / "b")), e.errno or 0, left
        return set(), 0, left

    found, number, left = in_child(inside)
    assert {"ro", "nosuid", "nodev", "noexec"} <= found
    assert number == errno.EROFS
    assert not left, "it is attached to its source for a moment only"


def test_a_remount_the_old_way_keeps_what_is_set(place: Path) -> None:
    def inside() -> set[str]:
        namespaces.private_mounts()
        mount.mount("tmpfs", str(place), "tmpfs", mount.MS_NOSUID | mount.MS_NOEXEC)
        fd = os.open(place, os.O_PATH)
        mount._remount(fd, mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOATIME)
        return flags(str(place))

    assert {"ro", "nosuid", "noexec", "noatime"} <= in_child(inside)


def test_attributes_are_added_and_recursive_ones_reach_submounts(place: Path) -> None:
    def inside() -> list[set[str]]:
        namespaces.private_mounts()
        mount.mount("tmpfs", str(place), "tmpfs", mount.MS_NOSUID)
        (place / "sub").mkdir()
        mount.mount("tmpfs", str(place / "sub"), "tmpfs")
        fd = os.open(place, os.O_PATH)
        mount.set_attributes(fd, mount.MOUNT_ATTR_NOEXEC)
        first = flags(str(place / "sub"))
        mount.set_attributes(fd, mount.MOUNT_ATTR_RDONLY, recursive=True)
        return [flags(str(place)), first, flags(str(place / "sub"))]

    top, before, after = in_child(inside)
    assert {"ro", "nosuid", "noexec"} <= top
    assert "ro" not in before
    assert "ro" in after
    assert "noexec" not in after


# propagation


def test_a_mount_made_on_a_cloned_tree_does_not_show_where_it_was_cloned_from(place: Path) -> None:
    """Where / is shared, as systemd has it, the plain clone of a directory is a peer of the host's mount."""

    def inside() -> tuple[list[str], list[str]]:
        namespaces.private_mounts()
        mount.mount("tmpfs", str(place), "tmpfs")
        mount.mount("", str(place), "", mount.MS_SHARED)
        for name in ("source/sub", "peer", "private"):
            (place / name).mkdir(parents=True)

        def mounted(make: object) -> list[str]:
            before = Path("/proc/self/mountinfo").read_text()
            tree = mount.clone_tree(mount.AT_FDCWD, str(place / "source")) if make == "peer" else None
            fd = tree if tree is not None else mount.clone_tree_with(str(place / "source"), 0)
            target = os.open(place / str(make), os.O_PATH)
            mount.move_mount(fd, target)
            mount.mount("tmpfs", str(place / str(make) / "sub"), "tmpfs")
            after = [
                line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if line not in before
            ]
            mount.umount(str(place / str(make) / "sub"), mount.MNT_DETACH)
            return [path for path in after if path.endswith("source/sub")]

        return mounted("peer"), mounted("private")

    peer, private = in_child(inside)
    assert peer, "a plain clone is a peer: the test shows what it is there for"
    assert private == []


@pytest.mark.parametrize(
    ("kind", "word"), [(mount.MS_PRIVATE, ""), (mount.MS_SHARED, "shared"), (mount.MS_SLAVE, "master")]
)
def test_propagation_is_set(place: Path, kind: int, word: str) -> None:
    def inside() -> set[str]:
        namespaces.private_mounts()
        for name in ("source", "private"):
            (place / name).mkdir()
            mount.mount("tmpfs", str(place / name), "tmpfs")
        mount.mount("", str(place / "source"), "", mount.MS_SHARED)
        fd = mount.clone_tree(mount.AT_FDCWD, str(place / "source"))
        mount.set_propagation(fd, kind, recursive=True)
        # Onto a private mount: what is attached to a shared one becomes shared by that.
        (place / "private/target").mkdir()
        mount.move_mount(fd, os.open(place / "private/target", os.O_PATH))
        return {option.split(":")[0] for option in flags(str(place / "private/target"))} & {"shared", "master"}

    assert in_child(inside) == ({word} if word else set())


# file systems


@pytest.mark.parametrize(
    ("fstype", "options"),
    [
        ("tmpfs", [("size", "65536"), ("mode", "1777")]),
        ("proc", []),
        ("sysfs", []),
        ("devpts", [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")]),
        ("mqueue", []),
    ],
)
def test_every_file_system_of_a_container_can_be_made_detached(fstype: str, options: list[tuple[str, str]]) -> None:
    def inside() -> int:
        namespaces.unshare(namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWNET)
        fd = mount.new_filesystem(fstype, options, mount.MOUNT_ATTR_NOSUID)
        return mount.filesystem_magic(fd)

    magic = in_child(inside)
    assert magic != 0
    if fstype == "proc":
        assert magic == mount.PROC_SUPER_MAGIC
    if fstype == "devpts":
        assert magic == mount.DEVPTS_SUPER_MAGIC


def test_a_bad_option_is_told_with_its_name() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(KernelError, match=r"fsconfig '.*nonsense.*'"):
        mount.new_filesystem("tmpfs", [("nonsense", "1")])
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_file_system_that_the_kernel_lacks() -> None:
    with pytest.raises(KernelError) as caught:
        mount.new_filesystem("nosuchfs")
    assert (caught.value.errno, caught.value.syscall) == (errno.ENODEV, "fsopen")


def test_pivot_root_and_the_old_root_is_gone(place: Path) -> None:
    def inside() -> tuple[list[str], int]:
        namespaces.private_mounts()
        mount.mount("tmpfs", str(place), "tmpfs")
        (place / "only").write_text("")
        os.chdir(place)
        mount.pivot_root(".", ".")
        mount.umount(".", mount.MNT_DETACH)
        os.chdir("/")
        fd = mount.new_filesystem("proc")
        mounts = os.open("self/mountinfo", os.O_RDONLY, dir_fd=fd)
        return os.listdir("/"), os.read(mounts, 1 << 16).count(b"\n")

    assert in_child(inside) == (["only"], 1)
