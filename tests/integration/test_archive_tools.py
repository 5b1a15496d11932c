"""What the other tools write is loaded and runs; what is saved here they read and run: skopeo, umoci, buildah, podman, Docker."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import tools
from support.command import Command
from support.roots import Root
from support.tools import Dockerd, Tool, packed, unpacked

pytestmark = pytest.mark.root

NAME = "x.example/tools/box:1"
MARK = "made of two layers"


@pytest.fixture(scope="module")
def sampan(session_root: Root) -> Iterator[Command]:
    """The command on the session's store, with NAME in it: two layers, the upper of which deletes and adds."""
    cli = session_root.cli
    script = f"echo {MARK} >/mark && mkdir /gone && touch /gone/x"
    cli("run", "--name", "tools", "--network", "none", "base", "sh", "-c", script).ok()
    cli("commit", "tools", "tools-lower").ok()
    cli("rm", "tools").ok()
    cli("run", "--name", "tools", "--network", "none", "tools-lower", "rm", "-r", "/gone").ok()
    cli("commit", "-c", "ENV A=b", "-c", "LABEL made=here", "tools", NAME).ok()
    cli("rm", "tools").ok()
    yield cli
    cli("rmi", "-f", NAME, "tools-lower").ok()


@pytest.fixture(scope="module")
def archive(sampan: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NAME, as it is saved."""
    path = tmp_path_factory.mktemp("saved") / "box.tar"
    sampan("save", "-o", str(path), NAME).ok()
    return path


@pytest.fixture
def skopeo(tmp_path: Path) -> Tool:
    return tools.skopeo(tmp_path)


@pytest.fixture
def buildah(tmp_path: Path) -> Tool:
    return tools.buildah(tmp_path)


def loaded(cli: Command, archive: Path) -> list[str]:
    """Load an archive; the names, or the ids of images without one. The name may have been another image's."""
    lines = cli("load", "-q", "-i", str(archive)).ok().out.splitlines()
    return [line.partition(": ")[2] for line in lines if line.startswith("Loaded image")]


def runs(cli: Command, image: str, mark: str = MARK) -> None:
    """The image runs, shows what its layers add, and not what they delete; it is removed then."""
    script = 'cat /mark; [ ! -e /gone ] && echo "$A"'
    assert cli("run", "--rm", "--network", "none", image, "sh", "-c", script).ok().out == f"{mark}\nb\n"
    if image not in (NAME, image_id(cli, NAME)):
        cli("rmi", image).ok()


def image_id(cli: Command, name: str) -> str:
    return str(json.loads(cli("image", "inspect", name).ok().out)[0]["Id"])


# skopeo


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("docker-archive:{}:x.example/skopeo/a:2", "x.example/skopeo/a:2"),
        ("docker-archive:{}", ""),
        ("oci-archive:{}:x.example/skopeo/b:2", "x.example/skopeo/b:2"),
        ("oci-archive:{}", ""),
        ("oci:{}:2", ""),
        ("oci:{}:x.example/skopeo/c:2", "x.example/skopeo/c:2"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--dest-compress-format", "zstd")], ids=["gzip", "zstd"])
def test_what_skopeo_writes_is_loaded(
    sampan: Command, archive: Path, skopeo: Tool, tmp_path: Path, target: str, name: str, form: tuple[str, ...]
) -> None:
    place = tmp_path / "copy"
    skopeo("copy", "-q", *form, f"docker-archive:{archive}", target.format(place))
    (found,) = loaded(sampan, packed(place) if place.is_dir() else place)
    assert found == name or (not name and found.startswith("sha256:"))
    runs(sampan, found)


def test_skopeo_reads_what_is_saved(sampan: Command, archive: Path, skopeo: Tool, tmp_path: Path) -> None:
    config = json.loads(sampan("image", "inspect", NAME).ok().out)[0]
    for source in (f"docker-archive:{archive}", f"docker-archive:{archive}:{NAME}", f"oci-archive:{archive}:1"):
        told = skopeo.json("inspect", source)
        assert (told["Labels"], told["Env"][-1]) == ({"made": "here"}, "A=b")
        assert len(told["Layers"]) == len(config["RootFS"]["Layers"]) == 3
        assert skopeo.json("inspect", "--config", source)["rootfs"]["diff_ids"] == config["RootFS"]["Layers"]
    # Its manifest is ours, to the byte.
    assert [skopeo.json("inspect", f"oci-archive:{archive}:1")["Digest"]] == [
        entry["digest"] for entry in json.loads((unpacked(archive) / "index.json").read_text())["manifests"]
    ]


def test_skopeo_finds_every_image_and_name_in_an_archive_of_several(
    sampan: Command, skopeo: Tool, tmp_path: Path
) -> None:
    path = tmp_path / "several.tar"
    sampan("tag", NAME, "x.example/tools/box:2").ok()
    sampan("tag", NAME, "x.example/tools/other:1").ok()
    sampan("save", "-o", str(path), "x.example/tools/box", "x.example/tools/other:1", "tools-lower").ok()
    names = ["x.example/tools/box:1", "x.example/tools/box:2", "x.example/tools/other:1", "tools-lower:latest"]
    assert skopeo.json("list-tags", f"docker-archive:{path}")["Tags"] == names
    digests = [skopeo.json("inspect", f"docker-archive:{path}:{name}")["Digest"] for name in names]
    assert len(set(digests[:3])) == 1
    assert digests[3] not in digests[:3]
    assert skopeo.json("inspect", f"docker-archive:{path}:@1")["Digest"] == digests[3]
    sampan("rmi", "x.example/tools/box:2", "x.example/tools/other:1").ok()


# umoci


def test_what_umoci_makes_from_nothing_is_loaded(sampan: Command, tmp_path: Path) -> None:
    umoci, layout, busybox = Tool("umoci"), tmp_path / "layout", tools.which("busybox")
    (tmp_path / "mark").write_text("of umoci\n")
    umoci("init", "--layout", str(layout))
    umoci("new", "--image", f"{layout}:v1")
    umoci("insert", "--image", f"{layout}:v1", busybox, "/bin/busybox")
    umoci("insert", "--image", f"{layout}:v1", str(tmp_path / "mark"), "/mark")
    umoci("config", "--image", f"{layout}:v1", "--config.entrypoint", "/bin/busybox", "--config.cmd", "cat")
    umoci("config", "--image", f"{layout}:v1", "--config.cmd", "cat", "--config.cmd", "/mark")
    (found,) = loaded(sampan, packed(layout))
    assert found.startswith("sha256:")  # Its names are tags of no repository.
    assert sampan("run", "--rm", "--network", "none", found).ok().out == "of umoci\n"
    sampan("rmi", found).ok()


@pytest.mark.parametrize(("flags", "names"), [((), [NAME]), (("--tag", "2"), [NAME, "x.example/tools/box:2"])])
def test_what_umoci_edits_in_a_saved_archive_is_loaded(
    sampan: Command, archive: Path, tmp_path: Path, flags: tuple[str, ...], names: list[str]
) -> None:
    """It changes index.json alone, and copies the whole name to what it gives another tag."""
    before = image_id(sampan, NAME)
    umoci = Tool("umoci")
    layout = unpacked(Path(shutil.copy(archive, tmp_path / "edited.tar")))
    umoci("config", "--image", f"{layout}:1", *flags, "--config.env", "A=edited")
    assert (layout / "manifest.json").exists()
    assert loaded(sampan, packed(layout)) == names
    assert sampan("run", "--rm", "--network", "none", names[-1], "sh", "-c", "echo $A").ok().out == "edited\n"
    sampan("rmi", names[-1]).ok()
    sampan("tag", before, NAME).ok()
    runs(sampan, NAME)


def test_what_umoci_unpacks_and_packs_again_is_loaded(sampan: Command, archive: Path, tmp_path: Path) -> None:
    umoci = Tool("umoci")
    layout, bundle = unpacked(Path(shutil.copy(archive, tmp_path / "again.tar"))), tmp_path / "bundle"
    umoci("unpack", "--image", f"{layout}:1", str(bundle))
    assert not (bundle / "rootfs/gone").exists()
    (bundle / "rootfs/mark").write_text("packed again\n")
    (bundle / "rootfs/bin/busybox").rename(bundle / "rootfs/busybox")
    (bundle / "rootfs/bin/busybox").symlink_to("/busybox")
    umoci("repack", "--image", f"{layout}:2", str(bundle))
    assert [line.split("\t")[0] for line in umoci("ls", "--layout", str(layout)).splitlines()] == ["1", "2"]
    # The new one has no whole name, for umoci gives none here.
    *_, found = loaded(sampan, packed(layout))
    runs(sampan, found, "packed again")


# buildah


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("docker-archive:{}:x.example/buildah/a:3", "x.example/buildah/a:3"),
        ("oci-archive:{}:x.example/buildah/b:3", "x.example/buildah/b:3"),
        ("oci:{}:3", ""),
    ],
)
def test_what_buildah_commits_and_pushes_is_loaded(
    sampan: Command, archive: Path, buildah: Tool, tmp_path: Path, target: str, name: str
) -> None:
    (tmp_path / "mark").write_text("of buildah\n")
    container = buildah("from", f"docker-archive:{archive}")
    buildah("copy", container, str(tmp_path / "mark"), "/mark")
    buildah("config", "--env", "A=b", container)
    for number, command in enumerate((("commit", container), ("push", buildah("commit", "-q", container)))):
        place = tmp_path / f"copy-{number}"
        buildah(*command, target.format(place))
        (found,) = loaded(sampan, packed(place) if place.is_dir() else place)
        assert found == name or (not name and found.startswith("sha256:"))
        runs(sampan, found, "of buildah")


# podman


@pytest.fixture
def podman(short_path: Path) -> Tool:
    return tools.podman(short_path)


@pytest.mark.long
def test_podman_loads_and_runs_what_is_saved_and_its_archives_are_loaded(
    sampan: Command, podman: Tool, tmp_path: Path
) -> None:
    path = tmp_path / "saved.tar"
    sampan("tag", NAME, "x.example/tools/box:2").ok()
    sampan("save", "-o", str(path), "x.example/tools/box", "tools-lower").ok()
    told = podman("load", "-q", "-i", str(path))
    assert "x.example/tools/box:1" in told
    assert podman("image", "inspect", "--format", "{{.Id}}", NAME) == image_id(sampan, NAME).removeprefix("sha256:")
    run = ("run", "--rm", "--network", "none", *tools.podman_limits())
    assert podman(*run, "x.example/tools/box:2", "cat", "/mark") == MARK
    assert podman(*run, "tools-lower", "ls", "/gone") == "x"
    sampan("rmi", "x.example/tools/box:2").ok()

    for form in ("docker-archive", "oci-archive"):
        target = tmp_path / f"{form}.tar"
        podman("tag", NAME, f"x.example/podman/{form}:4")
        podman("save", "-q", "--format", form, "-o", str(target), f"x.example/podman/{form}:4")
        assert loaded(sampan, target) == [f"x.example/podman/{form}:4"]
        runs(sampan, f"x.example/podman/{form}:4")
    several = tmp_path / "several.tar"
    podman("save", "-q", "-m", "-o", str(several), "x.example/podman/oci-archive:4", "tools-lower")
    assert "x.example/podman/oci-archive:4" in loaded(sampan, several)
    runs(sampan, "x.example/podman/oci-archive:4")


# Docker


@pytest.fixture
def docker(short_path: Path) -> Iterator[Tool]:
    with Dockerd(short_path / "d") as daemon:
        yield daemon.docker


@pytest.mark.long
def test_docker_loads_and_runs_what_is_saved_and_its_archives_are_loaded(
    sampan: Command, docker: Tool, tmp_path: Path
) -> None:
    path = tmp_path / "saved.tar"
    sampan("tag", NAME, "x.example/tools/box:2").ok()
    sampan("save", "-o", str(path), "x.example/tools/box", "tools-lower").ok()
    told = docker("load", "-i", str(path))
    assert {"x.example/tools/box:1", "x.example/tools/box:2", "tools-lower:latest"} <= set(told.split())
    assert docker("image", "inspect", "--format", "{{.Id}}", NAME) == image_id(sampan, NAME)
    assert docker("run", "--rm", "--network", "none", NAME, "cat", "/mark") == MARK
    assert docker("run", "--rm", "--network", "none", "tools-lower", "ls", "/gone") == "x"
    sampan("rmi", "x.example/tools/box:2").ok()

    docker("tag", NAME, "x.example/docker/a:5")
    docker("tag", NAME, "x.example/docker/b:5")
    target = tmp_path / "docker.tar"
    docker("save", "-o", str(target), "x.example/docker/a:5", "x.example/docker/b:5", "tools-lower")
    assert sorted(loaded(sampan, target)) == ["tools-lower:latest", "x.example/docker/a:5", "x.example/docker/b:5"]
    # To the engine that made it it is the same image.
    assert image_id(sampan, "x.example/docker/a:5") == image_id(sampan, NAME)
    sampan("rmi", "x.example/docker/b:5").ok()
    assert sampan("run", "--rm", "--network", "none", "x.example/docker/a:5", "cat", "/mark").ok().out == f"{MARK}\n"
    sampan("rmi", "x.example/docker/a:5").ok()
    # What Docker changes is loaded as well.
    docker("run", "--name", "changed", "--network", "none", NAME, "sh", "-c", "echo of docker >/mark")
    docker("commit", "changed", "x.example/docker/c:5")
    docker("save", "-o", str(target), "x.example/docker/c:5")
    assert loaded(sampan, target) == ["x.example/docker/c:5"]
    for name in (NAME, "tools-lower", "x.example/docker/c:5"):
        size = ("image", "inspect", "--format", "{{.Size}}", name)
        assert sampan(*size).ok().out.strip() == docker(*size), name
    runs(sampan, "x.example/docker/c:5", "of docker")
