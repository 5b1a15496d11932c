"""What a program is promised of an engine's images, registries and builds, on this machine and over the API."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sampan.engine.builder import BuildRequest
from sampan.engine.buildstage import BuildFailed
from sampan.errors import (
    InvalidParameter,
    NotFound,
    Unavailable,
)

from support.bothengines import engine, server
from support.registry import registry
from support.web import body, web

if TYPE_CHECKING:
    from sampan.engine.interface import EngineInterface

__all__ = ["engine", "server"]

pytestmark = pytest.mark.root


def test_images(engine: EngineInterface, tmp_path: Path) -> None:
    images = engine.images
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        tar.add(__file__, "test.py")
    with (tmp_path / "root.tar").open("rb") as stream:
        made = images.import_(stream, "imported:1", ["CMD echo hi"], "by hand")
    assert images.inspect("imported:1")["Id"] == made
    assert images.history("imported:1")[0]["Comment"] == "by hand"
    images.tag("imported:1", "localhost:1/also")
    assert [sorted(one["RepoTags"]) for one in images.list("imported")] == [["imported:1"]]
    assert made not in [one["Id"] for one in images.list(dangling=True)]
    kept = io.BytesIO()
    images.save(["imported:1"], kept)
    assert images.remove("localhost:1/also") == [{"Untagged": "localhost:1/also:latest"}]
    assert {"Deleted": made} in images.remove("imported:1")
    kept.seek(0)
    told: list[str] = []
    loaded = images.load(kept, progress=lambda what, done, total: told.append(what))
    assert [(one.reference, one.id) for one in loaded] == [("imported:1", made)]
    images.remove("imported:1")
    assert images.prune({"label": "nosuch"}) == {"ImagesDeleted": [], "SpaceReclaimed": 0}


def test_a_registry(engine: EngineInterface, tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as found:
        name = f"{found.host}/some/base:1"
        engine.images.tag("base", name)
        (pushed,) = engine.images.push(name)
        assert pushed.tag == "1"
        described = engine.registries.distribution(name)
        assert described["Descriptor"]["digest"] == pushed.digest
        engine.images.remove(name)
        told: list[str] = []
        (pulled,) = engine.images.pull(name, report=lambda layer, status, done, total: told.append(status))
        assert (pulled.reference, pulled.digest) == (name, pushed.digest)
        assert pulled.id == engine.images.inspect("base")["Id"]
        assert any(status.startswith("Pulling from") for status in told)
        engine.images.remove(name)
        with pytest.raises(NotFound):
            engine.images.pull(f"{found.host}/some/nosuch")


def test_a_search(engine: EngineInterface) -> None:
    found = [
        {"name": "redis", "description": "words", "star_count": 12, "is_official": True, "is_automated": False},
        {"name": "some/redis", "star_count": 3},
    ]
    with web() as index:
        host = f"127.0.0.1:{index.server_address[1]}"
        index.answers["/v1/search?q=redis&n=25"] = body(json.dumps({"results": found}).encode())
        index.answers["/v1/search?q=redis&n=7"] = body(b'{"results": [1]}')
        search = engine.registries.search
        assert [one["name"] for one in search(f"{host}/redis")] == ["redis", "some/redis"]
        assert search(f"{host}/redis", filters={"stars": ["5"], "is-official": ["true"]}) == [found[0]]
        with pytest.raises(Unavailable, match="not what an index says"):
            search(f"{host}/redis", 7)
        with pytest.raises(InvalidParameter, match=r"outside the range of \[1, 100\]"):
            search("redis", 101)


class Watching:
    def __init__(self) -> None:
        self.steps: list[str] = []
        self.said = b""
        self.failures: list[str] = []

    def begin(self, title: str) -> int:
        self.steps.append(title)
        return len(self.steps)

    def runs(self, container: object) -> None: ...

    def output(self, step: int, data: bytes) -> None:
        self.said += data

    def done(self, step: int, cached: bool = False) -> None: ...

    def failed(self, step: int, message: str) -> None:
        self.failures.append(message)

    def warn(self, findings: object, source: object) -> None: ...
    def tell(self, text: str) -> None: ...


def test_a_build(engine: EngineInterface, tmp_path: Path) -> None:
    context = tmp_path / "context"
    (context / "hidden" / "deep").mkdir(parents=True)
    (context / "sub").mkdir()
    (context / "hidden" / "deep" / "h").write_text("x")
    (context / "sub" / "f").write_text("f" * 300_000)
    (context / "sub" / "link").symlink_to("f")
    (context / ".dockerignore").write_text("hidden\n*.Dockerfile\nDockerfile\n")
    (context / "Dockerfile").write_text(
        "FROM base AS one\nARG V\nCOPY . /x\nRUN --network=none find /x | sort; echo $V\nFROM base\nRUN --network=none exit 4\n"
    )
    watching = Watching()
    request = BuildRequest(
        str(context), tags=("built:1",), arguments=(("V", "given"),), labels=(("l", "v"),), target="one"
    )
    made = engine.builds.build(request, watching)
    assert engine.images.inspect("built:1")["Id"] == made
    assert engine.images.inspect("built:1")["Config"]["Labels"]["l"] == "v"
    assert watching.said.split() == [b"/x", b"/x/.dockerignore", b"/x/sub", b"/x/sub/f", b"/x/sub/link", b"given"] or (
        b"hidden" not in watching.said and b"/x/sub/f" in watching.said and b"given" in watching.said
    )
    other = BuildRequest(str(context), text="FROM base\nCOPY sub/f /f\n", tags=("built:2",))
    engine.builds.build(other, Watching())
    watching = Watching()
    with pytest.raises(BuildFailed, match="exit code: 4"):
        engine.builds.build(BuildRequest(str(context)), watching)
    assert len(watching.failures) == 1
    with pytest.raises(InvalidParameter, match="unknown instruction: NOSUCH"):
        engine.builds.build(BuildRequest(str(context), text="FROM base\nNOSUCH\n"), Watching())
    for name in ("built:1", "built:2"):
        engine.images.remove(name)
    assert engine.builds.prune(all=True)["SpaceReclaimed"] > 0
