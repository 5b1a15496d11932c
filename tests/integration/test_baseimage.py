"""The image `base`: made of this machine's busybox, or of its shell and tools, when it is first named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sampan.engine import machine
from sampan.engine.baseimage import BaseImage
from sampan.engine.images import BASE, Image
from sampan.errors import Unavailable
from sampan.oci import reference

from support import elves
from support.imagestore import Store

pytestmark = pytest.mark.root

NAME = reference.parse(BASE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def without_busybox(tmp_path: Path) -> list[str]:
    """Directories with all programs of this machine but busybox."""
    places = []
    for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        made = tmp_path / place.strip("/").replace("/", "-")
        made.mkdir()
        places.append(str(made))
        for name in os.listdir(place):
            if not name.startswith("busybox"):
                (made / name).symlink_to(f"{place}/{name}")
    return places


def make(store: Store, places: list[str] | None = None) -> Image:
    BaseImage(store.content, store.snapshots, store.lock, store.images, store.notes.append).make(NAME, places)
    return store.images.resolve("base")


def diff(store: Store, image: Image) -> Path:
    return Path(store.layout.layers) / image.layers[0].removeprefix("sha256:") / "diff"


def inside(root: Path, *command: str) -> str:
    """What a program of the image says."""
    path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    ran = subprocess.run(["chroot", root, *command], env=path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_it_is_made_when_it_is_first_named(store: Store) -> None:
    assert store.images.find("base") is None
    image = store.images.resolve("docker.io/library/base")
    assert store.notes == ["making the image base of this machine's own busybox"]
    assert store.images.resolve("base:latest").id == image.id
    assert len(store.notes) == 1
    shown = store.images.inspect("base")
    assert shown["RepoTags"] == ["base:latest"]
    assert shown["Config"]["Cmd"] == ["sh"]
    assert shown["Config"]["Env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    assert store.files() == store.reachable()


@pytest.mark.parametrize("name", ["base:other", "owner/base", "bas"])
def test_nothing_else_is_made(store: Store, name: str) -> None:
    with pytest.raises(Exception, match="No such image"):
        store.images.resolve(name)
    assert store.notes == []


def test_busybox_has_all_of_its_applets(store: Store) -> None:
    root = diff(store, make(store))
    applets = subprocess.run(["busybox", "--list-full"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        # linuxrc belongs to an initramfs, and would be the only program at the root.
        path = root / applet if "/" in applet else root / "bin" / applet
        assert path.is_file() or os.readlink(path) == "/bin/busybox"
    assert inside(root, "sh", "-c", "echo hello | wc -c") == "6\n"
    assert inside(root, "id").startswith("uid=0(root) gid=0(root)")
    _check_layout(root)


def test_a_shell_and_tools_run_with_what_they_need(store: Store, without_busybox: list[str]) -> None:
    root = diff(store, make(store, without_busybox))
    assert "busybox" not in store.notes[0]
    assert not list(root.rglob("busybox*"))
    assert inside(root, "sh", "-c", "echo hello | wc -c") == "6\n"
    assert inside(root, "id").startswith("uid=0(root) gid=0(root)")
    assert inside(root, "stat", "-c", "%U:%G", "/tmp") == "root:root\n"
    # Every program finds every library: the loader itself says so.
    loader = next(path for path in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1") if Path(path).exists())
    for program in (root / "usr/bin").iterdir():
        if not program.is_symlink():
            assert "not found" not in inside(root, loader, "--list", f"/usr/bin/{program.name}")
    _check_layout(root)


def _check_layout(root: Path) -> None:
    def mode(path: str) -> int:
        return (root / path).stat().st_mode & 0o7777

    assert (mode("tmp"), mode("var/tmp"), mode("root"), mode("etc/passwd")) == (0o1777, 0o1777, 0o700, 0o644)
    for name in ("dev", "etc", "home", "proc", "sys", "run"):
        assert (root / name).is_dir()
    assert "ID=sampan-base\n" in (root / "etc/os-release").read_text()
    assert "nobody:x:65534:" in (root / "etc/passwd").read_text()
    assert "wheel:x:10:root" in (root / "etc/group").read_text()
    for place, directories, files in os.walk(root):
        for name in (*directories, *files):
            status = os.lstat(f"{place}/{name}")
            assert (status.st_uid, status.st_gid) == (0, 0)
            assert not status.st_mode & 0o6000 or name == "tmp"


def test_the_same_machine_makes_the_same_bytes(tmp_path: Path, without_busybox: list[str]) -> None:
    for places in (None, without_busybox):
        ids = set()
        for i in range(2):
            directory = tmp_path / f"{bool(places)}{i}"
            directory.mkdir()
            ids.add(make(Store(directory), places).id)
        assert len(ids) == 1


def test_it_comes_back_after_its_removal(store: Store) -> None:
    first = store.images.resolve("base")
    assert store.images.remove("base")[1] == {"Deleted": first.id}
    assert store.files() == []
    with pytest.raises(Exception, match="No such image: base:latest"):
        store.images.remove("base")
    assert store.images.resolve("base").id == first.id


MAKER = """
import sys
from pathlib import Path
from support import elves
from support.imagestore import Store
store = Store(Path(sys.argv[1]))
with store.images.hold():
    image = store.images.resolve("base")
    store.images.ensure_unpacked(image)
print(image.id, *store.notes)
"""


def test_processes_that_name_it_at_once_all_get_it(store: Store) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MAKER, str(store.directory)]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, stderr=subprocess.STDOUT)
        for _ in range(4)
    ]
    told = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4, told
    image = store.images.resolve("base")
    assert sorted(told) == [f"{image.id}\n"] * 3 + [f"{image.id} making the image base of this machine's own busybox\n"]
    assert store.files() == store.reachable()


def test_a_machine_without_programs_is_told_what_to_do(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Unavailable, match=r"neither a static busybox nor a shell; install busybox-static"):
        make(store, [str(tmp_path / "empty")])
    assert store.files() == []


def test_scripts_and_dynamic_busyboxes_are_no_busybox(tmp_path: Path) -> None:
    shell = shutil.which("dash")
    assert shell is not None
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "busybox").write_text("#!/bin/sh\n")
    (tmp_path / "one" / "busybox").chmod(0o755)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "busybox").symlink_to(shell)
    (tmp_path / "two" / "dash").symlink_to(shell)
    tree = machine.gather([str(tmp_path / "one"), str(tmp_path / "two")])
    assert tree.summary == "dash and 0 tools"
    assert os.path.realpath(shell) in {source for source, _ in tree.files.values()}


class Programs:
    """A directory of made-up programs and libraries."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add(
        self, path: str, needed: Sequence[str] = (), rpath: str = "", runpath: str = "", machine: int = 183
    ) -> Path:
        place = self.directory / path
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(elves.made(needed=needed, rpath=rpath, runpath=runpath, machine=machine))
        place.chmod(0o755)
        return place

    def gather(self) -> machine.Tree:
        return machine.gather([str(self.directory / "bin")])


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


def test_libraries_are_found_where_a_program_says(programs: Programs) -> None:
    """The library is taken to the same place, as the program names it, for there the loader will look."""
    program = programs.add("bin/dash", needed=["one.so"], runpath="$ORIGIN/../lib")
    library = programs.add("lib/one.so")
    tree = programs.gather()
    assert tree.files[str(library)] == (str(library), 0o755)
    assert tree.files[str(program)] == (str(program), 0o755)
    # And the program is a shell of the image, wherever it came from.
    shell = machine._canonical("/bin/sh")
    assert shell in tree.links
    while shell in tree.links:
        shell = tree.links[shell]
    assert shell == str(program)


def test_the_path_of_a_program_serves_its_libraries_if_it_is_of_the_old_kind(programs: Programs) -> None:
    programs.add("bin/dash", needed=["one.so"], rpath="${ORIGIN}/../lib")
    programs.add("lib/one.so", needed=["two.so"])
    programs.add("lib/two.so")
    assert str(programs.directory / "lib/two.so") in programs.gather().files
    programs.add("bin/dash", needed=["one.so"], runpath="${ORIGIN}/../lib")
    with pytest.raises(Unavailable, match=r"lib/one\.so needs two\.so, which is nowhere to be found"):
        programs.gather()


def test_a_library_of_another_machine_is_no_library(programs: Programs) -> None:
    programs.add("bin/dash", needed=["one.so"], runpath="$ORIGIN/../other:$ORIGIN/../lib")
    programs.add("other/one.so", machine=62)
    programs.add("lib/one.so")
    assert str(programs.directory / "other/one.so") not in programs.gather().files


def test_libraries_may_need_each_other(programs: Programs) -> None:
    programs.add("bin/dash", needed=["one.so"], rpath="$ORIGIN/../lib")
    programs.add("lib/one.so", needed=["two.so"])
    programs.add("lib/two.so", needed=["one.so"])
    assert len(programs.gather().files) == 3


def test_the_loaders_configuration_is_followed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b.conf").write_text("/b # a comment\n")
    (tmp_path / "d" / "a.conf").write_text("/a1,/a2\ninclude ../ld.so.conf\n")
    (tmp_path / "ld.so.conf").write_text("/first\ninclude d/*.conf\nhwcap 1 x\n/last\n")
    found = machine._configured_libraries(str(tmp_path / "ld.so.conf"))
    assert found[:3] == ["/first", "/a1", "/a2"]
    assert found[-2:] == ["/b", "/last"]
    assert machine._configured_libraries(str(tmp_path / "absent")) == []
