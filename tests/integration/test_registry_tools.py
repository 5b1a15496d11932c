"""What other programs have pushed is pulled to the digest that they gave it, and unpacked to what was in it: skopeo, umoci, buildah, podman, Docker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.oci import image as documents
from sampan.oci.digest import of_bytes

from support import tools
from support.imagestore import Store
from support.registry import Registry, fetch, registry
from support.tools import Dockerd, Tool

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What goes into the images."""
    made = tmp_path / "tree"
    (made / "bin").mkdir(parents=True)
    (made / "bin/random").write_bytes(os.urandom(100_000))
    os.link(made / "bin/random", made / "bin/linked")
    (made / "bin/link").symlink_to("random")
    (made / "sticky").mkdir()
    (made / "sticky").chmod(0o1777)
    os.setxattr(made / "bin/random", "user.mark", b"set")
    return made


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return Store(tmp_path / "store")


def check(store: Store, plain: Registry, name: str, tree: Path) -> None:
    """Pull an image: the digest is that of the registry's manifest, the id that of its config, the files are those of the tree."""
    accept = f"{documents.OCI_MANIFEST}, {documents.DOCKER_MANIFEST}"
    manifest = fetch(f"http://127.0.0.1:{plain.port}/v2/{name}/manifests/1", {"Accept": accept})
    pulled = store.images.pull(f"{plain.host}/{name}:1")[0]
    assert (pulled.digest, pulled.id) == (of_bytes(manifest), json.loads(manifest)["config"]["digest"])
    image = store.images.resolve(f"{plain.host}/{name}:1")
    top = Path(store.snapshots.layer_path(image.layers[-1])) / "diff"
    assert (top / "bin/random").read_bytes() == (tree / "bin/random").read_bytes()
    assert (top / "bin/linked").stat().st_ino == (top / "bin/random").stat().st_ino
    assert os.readlink(top / "bin/link") == "random"
    assert (top / "sticky").stat().st_mode & 0o7777 == 0o1777
    assert store.files() == store.reachable()
    # What is pushed again is what was pulled, to the byte.
    store.images.tag(f"{plain.host}/{name}:1", f"{plain.host}/{name}-again:1")
    assert store.images.push(f"{plain.host}/{name}-again:1")[0].digest == pulled.digest


def archive_of(tree: Path) -> Path:
    path = tree.parent / "tree.tar"
    Tool("tar")("-C", str(tree), "--xattrs", "-cf", str(path), ".")
    return path


def pushed_as_zstd(store: Store, plain: Registry, tree: Path) -> tuple[str, str]:
    """What was made here, pushed with --compression zstd: its name, and the id that others are to find."""
    name = f"{plain.host}/made-zstd:1"
    with archive_of(tree).open("rb") as data:
        image_id = store.images.import_(data, name)
    store.images.push(name, compression="zstd")
    return name, image_id


def test_umoci_and_skopeo(store: Store, plain: Registry, tree: Path, tmp_path: Path) -> None:
    umoci, skopeo = Tool("umoci"), tools.skopeo(tmp_path)
    layout = f"{tmp_path}/layout"
    umoci("init", "--layout", layout)
    umoci("new", "--image", f"{layout}:1")
    umoci("unpack", "--image", f"{layout}:1", f"{tmp_path}/bundle")
    Tool("cp")("-a", f"{tree}/.", f"{tmp_path}/bundle/rootfs")
    umoci("repack", "--image", f"{layout}:1", f"{tmp_path}/bundle")
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:1", f"docker://{plain.host}/umoci:1")
    check(store, plain, "umoci", tree)
    for name, flags in {"schema2": ("--format", "v2s2"), "zstd": ("--dest-compress-format", "zstd")}.items():
        skopeo("copy", "--dest-tls-verify=false", *flags, f"oci:{layout}:1", f"docker://{plain.host}/{name}:1")
        check(store, plain, name, tree)


def test_buildah(store: Store, plain: Registry, tree: Path, tmp_path: Path) -> None:
    buildah = tools.buildah(tmp_path / "buildah")
    container = buildah("from", "scratch")
    buildah("add", container, str(archive_of(tree)), "/")
    buildah("commit", "-q", container, "made:1")
    buildah("push", "-q", "--tls-verify=false", "made:1", f"docker://{plain.host}/buildah:1")
    check(store, plain, "buildah", tree)


@pytest.mark.long
def test_podman(store: Store, plain: Registry, tree: Path, tmp_path: Path) -> None:
    podman = tools.podman(tmp_path / "podman")
    podman("import", "-q", str(archive_of(tree)), f"{plain.host}/podman:1")
    podman("push", "-q", "--tls-verify=false", f"{plain.host}/podman:1")
    check(store, plain, "podman", tree)
    # And the other way round: what we have pushed is what it pulls.
    podman("pull", "-q", "--tls-verify=false", f"{plain.host}/podman-again:1")
    image_id = store.images.resolve(f"{plain.host}/podman:1").id
    assert podman("image", "inspect", "--format", "{{.Id}}", f"{plain.host}/podman-again:1") == image_id[7:]
    name, image_id = pushed_as_zstd(store, plain, tree)
    podman("pull", "-q", "--tls-verify=false", name)
    assert podman("image", "inspect", "--format", "{{.Id}}", name) == image_id[7:]


@pytest.mark.long
def test_docker(store: Store, plain: Registry, tree: Path, short_path: Path) -> None:
    with Dockerd(short_path / "d") as daemon:
        docker = daemon.docker
        docker("import", str(archive_of(tree)), f"{plain.host}/docker:1")
        docker("push", f"{plain.host}/docker:1")
        check(store, plain, "docker", tree)
        docker("pull", "-q", f"{plain.host}/docker-again:1")
        image_id = store.images.resolve(f"{plain.host}/docker:1").id
        assert docker("image", "inspect", "--format", "{{.Id}}", f"{plain.host}/docker-again:1") == image_id
        # Not what is pushed with --compression zstd: Docker reads that from 23.0 on, Debian's is older.
