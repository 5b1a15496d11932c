"""`build --output`, --metadata-file, --push, --load: where the result goes."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from support.builds import Builds
from support.registry import registry
from support.roots import Root

pytestmark = pytest.mark.root

_TEXT = """FROM base AS made
RUN mkdir /d && echo a > /d/f && chmod 4755 /d/f && ln -s f /d/l && echo gone > /gone
RUN rm /gone
FROM scratch AS small
COPY --from=made --chown=7:8 /d /d
"""


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory, test_directory: str) -> object:
    root = Root(Path(test_directory) / f"build-outputs-{os.getpid()}")
    yield Builds(root, tmp_path_factory.mktemp("context"))
    root.delete()


def test_files_go_to_a_directory_and_into_an_archive_and_no_image_is_made(builds: Builds, tmp_path: Path) -> None:
    (tmp_path / "out" / "d").mkdir(parents=True)
    (tmp_path / "out" / "d" / "kept").write_text("kept")
    flags = (
        "-o",
        str(tmp_path / "out"),
        "-o",
        f"type=tar,dest={tmp_path}/out.tar",
        "--metadata-file",
        str(tmp_path / "m"),
    )
    builds.put("Dockerfile", _TEXT)
    builds.cli("build", "--network", "none", *flags, str(builds.context)).ok()
    assert {p.name: p.is_symlink() for p in (tmp_path / "out" / "d").iterdir()} == {
        "f": False,
        "l": True,
        "kept": False,
    }
    status = (tmp_path / "out" / "d" / "f").stat()
    # It is ours, and nobody becomes us by executing it.
    assert (status.st_uid, status.st_mode & 0o7777) == (os.getuid(), 0o755)
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert sorted(archive.getnames()) == ["d", "d/f", "d/l"]
        assert (archive.getmember("d/f").uid, archive.getmember("d/f").mode) == (7, 0o4755)
    assert json.loads((tmp_path / "m").read_text()) == {}
    assert "<none>" not in builds.cli("images").ok().out

    done = builds.cli("build", "--network", "none", "--target", "made", "-o", "-", str(builds.context)).ok()
    with tarfile.open(fileobj=io.BytesIO(done.out_bytes)) as archive:
        names = archive.getnames()
    assert "d/f" in names
    # Neither what was deleted nor what a container has besides.
    assert not {"gone", ".dockerenv", "etc/hosts", "dev/pts"}.intersection(names)


def test_images_go_into_archives_and_the_store(builds: Builds, tmp_path: Path) -> None:
    # By relative paths, which are written to when the build is done: it ends in the directory in which it began.
    flags = ("-o", "type=oci,dest=oci", "-o", "type=docker,dest=docker", "--load")
    done = builds(
        *(_TEXT, "-t", "other:1", "--no-cache", *flags),
        *("--metadata-file", "m", "--iidfile", "i", "--cache-to", "type=local,dest=cache"),
        cwd=str(tmp_path),
    )
    done.ok()
    image = builds.inspect()["Id"]
    assert (tmp_path / "i").read_text() == image
    assert (tmp_path / "cache" / "index.json").exists()
    metadata = json.loads((tmp_path / "m").read_text())
    assert metadata["containerimage.config.digest"] == image
    assert metadata["image.name"] == "docker.io/library/it:latest,docker.io/library/other:1"
    for name in ("oci", "docker"):
        with tarfile.open(tmp_path / name) as archive:
            manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
            index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        assert sorted(manifest[0]["RepoTags"]) == ["it:latest", "other:1"]
        assert metadata["containerimage.digest"] in [entry["digest"] for entry in index["manifests"]]
    assert builds.inspect("other:1")["Id"] == image


def test_images_go_to_a_registry_and_come_back(builds: Builds, tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as there:
        first, second = f"{there.host}/app:1", f"{there.host}/app:2"
        builds.put("Dockerfile", _TEXT)
        build = ("build", "--network", "none")
        told = builds.cli(*build, "--push", "-t", first, str(builds.context)).ok().err
        assert f"pushing {first}" in told
        told = builds.cli(
            *build, "-o", f"type=registry,name={second}", "--metadata-file", str(tmp_path / "m"), str(builds.context)
        ).ok()
        image = builds.inspect(first)["Id"]
        assert json.loads((tmp_path / "m").read_text())["image.name"] == second
        builds.cli("rmi", "-f", first, second).ok()
        for name in (first, second):
            builds.cli("pull", "-q", name).ok()
            assert builds.inspect(name)["Id"] == image
        # As the base of another build.
        builds(f"FROM {first}\nCOPY Dockerfile /\n", "--pull").ok()
        assert builds.layers() == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("-o", "type=local"), "dest is required for local exporter"),
        (("-o", "dest=x"), "type is required for output"),
        (("-o", "type=zip,dest=x"), "exporter 'zip' could not be found"),
        (("-o", "type=local,dest=x,mode=1"), "'mode' is not supported"),
        (("-o", "-", "-o", "type=tar"), "multiple outputs to stdout"),
        (("--push",), "tag is needed when pushing to registry"),
        (("-o", "/dev/null/x"), "/dev/null/x: not a directory"),
        (("-o", "type=tar,dest=/nowhere/x"), "/nowhere"),
        (("--push", "-t", "localhost:1/nobody:1"), "localhost:1"),
    ],
)
def test_a_wrong_place_is_told(builds: Builds, flags: tuple[str, ...], message: str) -> None:
    builds.put("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")
    done = builds.cli("build", *flags, str(builds.context))
    assert done.code == 1
    assert message in done.err
    assert "Traceback" not in done.err


def test_the_steps_of_a_stage_are_done_again(builds: Builds) -> None:
    text = "FROM base AS one\nRUN echo 1 > /one\nFROM base AS two\nRUN echo 2 > /two\nCOPY --from=one /one /\n"
    builds(text).ok()
    told = builds(text, "--no-cache-filter", "two").ok().err
    assert told.count("CACHED") == 3  # both bases, and the RUN of the first stage
    assert told.count(" DONE ") == 3
