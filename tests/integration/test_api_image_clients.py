"""docker-py, and the docker command line, on images, builds, networks, volumes and the disk of `sampan serve`."""

from __future__ import annotations

import gc
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from support.apiserver import Server, serving
from support.imagestore import archive
from support.patience import patience
from support.registry import PASSWORD, USER, htpasswd, registry
from support.roots import Root

pytestmark = [
    pytest.mark.root,
    # docker-py leaves sockets of answers that went wrong to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def api(session_root: Root) -> Iterator[Server]:
    with serving(session_root) as server:
        yield server
        assert "Traceback" not in server.log


@pytest.fixture
def client(api: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # Its own file of credentials: those of whoever runs the tests are no part of them.
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    found = docker.DockerClient(base_url=api.url, timeout=int(patience(120)))
    yield found
    found.close()
    gc.collect()  # here, where it may: the next test that it came upon would fail of it


def test_docker_py_images(client: Any, root: Root) -> None:
    base = client.images.get("base")
    assert base.tag("py/app", "1")
    assert [one.id for one in client.images.list(name="py/app")] == [base.id]
    data = b"".join(client.images.get("py/app:1").save(named="py/app:1"))
    client.images.remove("py/app:1")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("py/app:1")
    assert len(client.images.load(data)) == 1
    assert client.images.get("py/app:1").history()
    client.images.remove("py/app:1")
    made, lines = client.images.build(
        fileobj=io.BytesIO(b"FROM base\nARG X\nRUN echo is $X\nLABEL a=b\n"),
        buildargs={"X": "it"},
        tag="py/built",
        network_mode="none",
    )
    assert made.labels == {"a": "b"}
    assert "is it\n" in "".join(line.get("stream", "") for line in lines)
    with pytest.raises(docker.errors.BuildError, match="exit code: 4"):
        client.images.build(fileobj=io.BytesIO(b"FROM base\nRUN exit 4\n"), network_mode="none")
    with pytest.raises(docker.errors.APIError, match="unknown instruction"):
        client.images.build(fileobj=io.BytesIO(b"FROM base\nRUNN\n"))
    assert "sha256:" in client.api.import_image_from_data(archive({"f": b"x"}), repository="py/imported")
    client.images.remove("py/imported")
    client.images.remove("py/built")
    assert set(client.images.prune()) == {"ImagesDeleted", "SpaceReclaimed"}
    assert set(client.api.prune_builds()) == {"CachesDeleted", "SpaceReclaimed"}
    assert set(client.df()) >= {"LayersSize", "Images", "Containers", "Volumes"}


def test_docker_py_registries(client: Any, tmp_path: Path) -> None:
    with registry(tmp_path / "registry", auth=htpasswd(tmp_path / "registry")) as found:
        name = f"{found.host}/py/app"
        client.images.get("base").tag(name, "1")
        pushed = client.images.push(name, tag="1", auth_config={"username": USER, "password": PASSWORD})
        assert '"aux"' in pushed
        client.images.remove(f"{name}:1")
        with pytest.raises(docker.errors.NotFound):
            client.images.pull(name, tag="1")
        assert client.login(USER, PASSWORD, registry=found.host)["Status"] == "Login Succeeded"
        with pytest.raises(docker.errors.APIError, match="401"):
            client.login(USER, "wrong", registry=found.host, reauth=True)
        client.login(USER, PASSWORD, registry=found.host, reauth=True)
        assert client.images.pull(name, tag="1").tags
        assert client.images.get_registry_data(f"{name}:1").attrs["Platforms"]
        client.images.remove(f"{name}:1")


def test_docker_py_networks_and_volumes(client: Any, root: Root) -> None:
    pool = docker.types.IPAMPool(subnet="10.213.7.0/24", gateway="10.213.7.9")
    network = client.networks.create("pynet", labels={"a": "b"}, ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    assert network.attrs["IPAM"]["Config"][0]["Gateway"] == "10.213.7.9"
    assert [one.id for one in client.networks.list(names=["pynet"])] == [network.id]
    box = client.containers.create("base", ["sleep", "60"], name="pybox", network="pynet")
    network.disconnect(box)
    network.connect(box, aliases=["www"], ipv4_address="10.213.7.20")
    box.reload()
    assert box.attrs["NetworkSettings"]["Networks"]["pynet"]["Aliases"] == ["www"]
    box.remove()
    network.remove()
    with pytest.raises(docker.errors.NotFound):
        client.networks.get("pynet")
    volume = client.volumes.create("pyvol", labels={"a": "b"})
    assert client.volumes.get("pyvol").attrs == volume.attrs
    assert [one.name for one in client.volumes.list(filters={"label": "a"})] == ["pyvol"]
    volume.remove()
    with pytest.raises(docker.errors.NotFound):
        volume.remove()
    assert client.volumes.prune() == {"VolumesDeleted": [], "SpaceReclaimed": 0}


@pytest.mark.long
def test_docker_command_line(api: Server, root: Root, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "DOCKER_HOST": api.url,
        "DOCKER_CONFIG": str(tmp_path),
        "DOCKER_BUILDKIT": "0",
    }

    def docker_(*args: str, code: int = 0, stdin: bytes = b"") -> str:
        done = subprocess.run(
            ["docker", *args], env=environment, input=stdin, capture_output=True, timeout=patience(60)
        )
        assert done.returncode == code, f"docker {args}: {done.returncode} {done.stdout!r} {done.stderr!r}"
        return (done.stdout + done.stderr).decode()

    docker_("tag", "base", "cmd:1")
    assert "cmd" in docker_("images", "--filter", "reference=cmd:1")
    assert "sh" in docker_("image", "inspect", "cmd:1", "-f", "{{.Config.Cmd}}")
    assert docker_("history", "-q", "cmd:1")
    docker_("save", "-o", str(tmp_path / "saved.tar"), "cmd:1")
    assert "Untagged: cmd:1" in docker_("rmi", "cmd:1")
    assert "No such image: cmd:1" in docker_("rmi", "cmd:1", code=1)
    assert "Loaded image: cmd:1" in docker_("load", "-i", str(tmp_path / "saved.tar"))
    (tmp_path / "Dockerfile").write_text("FROM base\nRUN <<E\necho said\nE\nCOPY Dockerfile /d\n")
    built = docker_("build", "--network", "none", "-t", "cmd:2", "--iidfile", str(tmp_path / "id"), str(tmp_path))
    assert "said" in built
    assert "Successfully tagged cmd:2" in built
    assert (tmp_path / "id").read_text() == docker_("image", "inspect", "cmd:2", "-f", "{{.Id}}").strip()
    (tmp_path / "Dockerfile").write_text("FROM base\nRUN exit 9\n")
    assert "exit code: 9" in docker_("build", "--network", "none", str(tmp_path), code=9)
    assert "sha256:" in docker_("import", "-c", "CMD x", "-", "cmd:3", stdin=archive({"f": b"x"}))
    docker_("rmi", "cmd:1", "cmd:2", "cmd:3")
    docker_("network", "create", "--subnet", "10.213.8.0/24", "cmdnet")
    assert "10.213.8.0/24" in docker_("network", "inspect", "cmdnet")
    assert "cmdnet" in docker_("network", "ls")
    docker_("create", "--name", "cmdbox", "--network", "cmdnet", "base", "true")
    docker_("network", "disconnect", "cmdnet", "cmdbox")
    docker_("network", "connect", "--alias", "www", "cmdnet", "cmdbox")
    docker_("commit", "-m", "words", "cmdbox", "cmd:4")
    docker_("rm", "cmdbox")
    docker_("rmi", "cmd:4")
    docker_("network", "rm", "cmdnet")
    assert "network cmdnet not found" in docker_("network", "rm", "cmdnet", code=1)
    assert docker_("volume", "create", "cmdvol") == "cmdvol\n"
    assert "cmdvol" in docker_("volume", "ls", "-q")
    assert docker_("volume", "rm", "cmdvol") == "cmdvol\n"
    assert "no such volume" in docker_("volume", "inspect", "cmdvol", code=1)
    for verb in ("volume", "network", "image", "builder"):
        docker_(verb, "prune", "-f")
    for more in ((), ("-v",), ("--format", "{{.Type}}")):
        assert "Build Cache" in docker_("system", "df", *more) or more == ("-v",)
