"""The verbs of images on the command line: `load`, `save`, `import`, `images`, `history`, `tag`, `rmi`, `image inspect`, `image prune`."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import imagearchives as made
from support import web
from support.command import Command
from support.imagestore import archive, disk
from support.patience import patience
from support.roots import Root
from support.web import Web

pytestmark = pytest.mark.root

ONE, TWO = archive({"a": b"one"}), archive({"b": b"two"})


@pytest.fixture
def empty(root: Root, tmp_path: Path) -> Command:
    """The command on a store without images: nothing runs in these tests, so no container is left."""
    environment = {"SAMPAN_ROOT": str(tmp_path / "root"), "SAMPAN_RUN_ROOT": str(tmp_path / "run")}
    return Command(environment, before=root.cli.before)


def image(cli: Command, name: str, *flags: str, layer: bytes = ONE) -> str:
    """Import an image; its id."""
    return cli("import", *flags, "-", *([name] if name else []), input=layer).ok().out.strip()


def inspected(cli: Command, name: str) -> dict[str, Any]:
    (found,) = json.loads(cli("image", "inspect", name).ok().out)
    return dict(found)


# load


def test_load(empty: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(made.tar(made.docker(["x/y:1", "x/y:2"], ONE)))
    expected = "Loaded image: x/y:1\nLoaded image: x/y:2\n"
    for done in (
        empty("load", "-i", str(path)),
        empty("load", "--input", str(path), "--quiet"),
        empty("image", "load", input=path.read_bytes()),
        empty("load", "-q", input=gzip.compress(path.read_bytes())),
    ):
        assert (done.code, done.out, done.err) == (0, expected, "")
    nameless = empty("load", input=made.tar(made.docker(None, TWO))).ok().out
    assert re.fullmatch(r"Loaded image ID: sha256:[0-9a-f]{64}\n", nameless)


def test_load_tells_of_an_image_that_loses_its_name(empty: Command) -> None:
    old = image(empty, "a:1")
    done = empty("load", input=made.tar(made.docker(["a:1"], TWO))).ok()
    assert (
        done.out
        == f"The image a:1 already exists, renaming the old one with ID {old} to empty string\nLoaded image: a:1\n"
    )
    assert inspected(empty, old)["RepoTags"] == []


def test_load_with_a_platform(empty: Command) -> None:
    data = made.tar(made.layout("a:1", ONE, architecture="s390x"))
    assert empty("load", "--platform", "linux/s390x", input=data).ok().out == "Loaded image: a:1\n"
    assert inspected(empty, "a:1")["Architecture"] == "s390x"
    done = empty("load", "--platform", "linux/arm64", input=data)
    assert (done.code, done.out) == (1, "")
    assert done.err == "Error: no matching image for linux/arm64 in the archive\n"
    assert "cannot parse platform specifier" in empty("load", "--platform", "a/b/c/d", input=data).err


def test_load_from_a_terminal(root: Root) -> None:
    with root.terminal("load") as terminal:
        terminal.expect("requested load from stdin, but stdin is empty\r\n")
        assert terminal.process.wait(patience(60)) == 1


@pytest.mark.parametrize(
    ("args", "data", "message"),
    [
        (["load", "-i", "/no/such/file"], None, "open /no/such/file: no such file or directory\n"),
        (["load", "-i", "/usr"], None, "/usr: is a directory"),
        (["load"], b"", "Error: invalid archive: does not contain a manifest.json\n"),
        (["load"], b"rubbish" * 200, "invalid tar header"),
        (["load", "more"], b"", "'sampan load' accepts no arguments"),
    ],
)
def test_load_that_cannot_be(empty: Command, args: list[str], data: bytes | None, message: str) -> None:
    done = empty(*args, input=data)
    assert (done.code, done.out) == (1, "")
    assert message in done.err


# save


def tags(data: bytes) -> list[list[str]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        table = tar.extractfile("manifest.json")
        assert table is not None
        return [entry["RepoTags"] for entry in json.load(table)]


def test_save(empty: Command, tmp_path: Path) -> None:
    image(empty, "a:1")
    image(empty, "b:1", layer=TWO)
    path = tmp_path / "out.tar"
    assert empty("save", "-o", str(path), "a:1", "b:1").ok().out == ""
    assert tags(path.read_bytes()) == [["a:1"], ["b:1"]]
    assert empty("image", "save", "a:1", "b:1").ok().out_bytes == path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    # What is there is replaced by a whole file or not at all.
    path.write_bytes(b"old")
    done = empty("save", "--output", str(path), "a:1", "nothing")
    assert (done.code, done.err) == (1, "Error: No such image: nothing:latest\n")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path).count("out.tar") == 1
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    here = empty("save", "--platform", inspected(empty, "a:1")["Architecture"], "a:1").ok()
    assert here.out_bytes == empty("save", "a:1").ok().out_bytes


def test_save_to_a_terminal(root: Root) -> None:
    with root.terminal("save", "base") as terminal:
        terminal.expect("cowardly refusing to save to a terminal. Use the -o flag or redirect\r\n")
        assert terminal.process.wait(patience(60)) == 1


def test_save_that_cannot_be(empty: Command, tmp_path: Path) -> None:
    image(empty, "a:1")
    tmp_path /= "outputs"
    tmp_path.mkdir()
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "kept").write_bytes(b"kept")
    os.mkfifo(tmp_path / "fifo")
    for target, message in (
        ("/no/such/directory/x", "invalid output path: stat /no/such/directory: no such file or directory"),
        (f"{tmp_path}/kept/x", f"invalid output path: stat {tmp_path}/kept: not a directory"),
        (str(tmp_path), "cannot write to a directory"),
        (f"{tmp_path}/fifo", "cannot write to a named pipe (FIFO)"),
        ("/dev/null", "cannot write to a character device file"),
        # A link is not exchanged for a file: /dev/stdout is one.
        (f"{tmp_path}/link", "cannot write to a symbolic link directly"),
    ):
        done = empty("save", "-o", target, "a:1")
        assert (done.code, done.out, done.err) == (1, "", f"failed to save image: {message}\n")
    assert (tmp_path / "kept").read_bytes() == b"kept"
    assert sorted(os.listdir(tmp_path)) == ["fifo", "kept", "link"]
    with disk(tmp_path / "small", "16k") as small:
        done = empty("save", "-o", f"{small}/x", "a:1")
        assert (done.code, done.err) == (1, f"failed to save image: {small}/x: no space left on device\n")
        assert os.listdir(small) == []
    done = empty("save", "--platform", "linux/s390x", "a:1")
    assert (done.code, done.out) == (1, "")
    assert "was found but does not provide the specified platform (linux/s390x)" in done.err
    assert "'sampan save' requires at least 1 argument" in empty("save").err


# import


@pytest.fixture
def server() -> Iterator[Web]:
    with web.web() as made:
        yield made


def test_import_with_every_instruction(empty: Command) -> None:
    changes = [
        *("CMD echo hi", 'ENTRYPOINT ["/bin/x"]', "ENV A=1 B=$A", "EXPOSE 80 53/udp", "LABEL a=b c='d e'"),
        *("HEALTHCHECK --interval=5s --retries=2 CMD true", "ONBUILD RUN x", "STOPSIGNAL SIGINT", "USER u:g"),
        *("VOLUME /v /w", "WORKDIR /home", "WORKDIR below"),
    ]
    flags = [word for change in changes for word in ("-c", change)]
    image(empty, "a:1", *flags, "-m", "as a test", "--platform", "linux/arm64/v8")
    found = inspected(empty, "a:1")
    assert (found["Comment"], found["Architecture"], found["Os"], found["Variant"]) == ("as a test", "arm64", "linux", "v8")  # fmt: skip
    config = found["Config"]
    assert config["Entrypoint"] == ["/bin/x"]
    assert config["Env"] == ["A=1", "B="]
    assert sorted(config["ExposedPorts"]) == ["53/udp", "80/tcp"]
    assert config["Labels"] == {"a": "b", "c": "d e"}
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000, "Retries": 2}
    assert config["OnBuild"] == ["RUN x"]
    assert (config["StopSignal"], config["User"], config["WorkingDir"]) == ("SIGINT", "u:g", "/home/below")
    assert sorted(config["Volumes"]) == ["/v", "/w"]


def test_import_from_a_url(empty: Command, server: Web) -> None:
    server.answers = {
        "/plain": web.body(ONE),
        "/packed": web.body(gzip.compress(ONE)),
        "/chunks": web.chunked(ONE),
        "/moved": web.redirect("/there"),
        "/there": web.redirect(server.url("/plain")),
    }
    layers = set()
    for path in server.answers:
        url = server.url(path)
        first, identifier = empty("import", url, f"of{path}:1").ok().out.splitlines()
        assert first == f"Downloading from {url}"
        found = inspected(empty, f"of{path}:1")
        assert (found["Id"], found["Comment"]) == (identifier, f"Imported from {url}")
        layers.add(tuple(found["RootFS"]["Layers"]))
    assert len(layers) == 1


def test_import_from_a_url_that_cannot_be(empty: Command, server: Web, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(ONE)
    server.answers = {
        "/cut": web.body(ONE[:512], len(ONE)),
        # At a place where an archive may end.
        "/cut-between": web.body(ONE[:1024], len(ONE)),
        "/cut-chunks": web.chunked(ONE[:1024], ended=False),
        "/loop": web.redirect("/loop"),
        "/file": web.redirect(f"file://{tmp_path}/file"),
        "/ftp": web.redirect("ftp://127.0.0.1/x"),
        "/none": web.status(404, "nothing here\n"),
        "/broken": web.status(500, ""),
        "/none-broken": lambda request: request.wfile.write(
            b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nno number\r\n"
        ),
        "/rubbish": web.body(b"rubbish" * 100),
        **{f"/{n}": web.redirect(f"/{n + 1}") for n in range(20)},
    }
    for path, message in (
        ("/cut", f'Get "{server.url("/cut")}": unexpected EOF: {len(ONE) - 512} bytes are missing'),
        ("/cut-between", f"unexpected EOF: {len(ONE) - 1024} bytes are missing"),
        ("/cut-chunks", "IncompleteRead"),
        ("/loop", "infinite loop"),
        ("/0", "infinite loop"),
        ("/file", "not allowed"),
        ("/ftp", "unknown url type: ftp"),
        ("/none", f"failed to GET {server.url('/none')} with status 404 Not Found: nothing here\n"),
        ("/broken", "with status 500 Internal Server Error\n"),
        ("/none-broken", f"failed to GET {server.url('/none-broken')} with status 404 Not Found\n"),
        ("/rubbish", "invalid tar header"),
    ):
        done = empty("import", server.url(path), "a:1")
        assert (done.code, done.out) == (1, f"Downloading from {server.url(path)}\n"), path
        assert message in done.err
        assert "Traceback" not in done.err
    assert "/12" not in server.asked
    done = empty("import", "http://127.0.0.1:1/x")
    assert (done.code, done.err) == (1, 'Error: Get "http://127.0.0.1:1/x": connection refused\n')
    # As for Docker the name of a file.
    done = empty("import", f"file://{tmp_path}/file")
    assert (done.code, done.err) == (1, f"open file://{tmp_path}/file: no such file or directory\n")
    assert empty("images", "-qa").ok().out == ""


# images


def test_images_and_their_filters(empty: Command) -> None:
    old = image(empty, "x/old:1", "-c", "LABEL of=old")
    new = image(empty, "x/new:1", "-c", "LABEL of=new two=2", layer=TWO)
    empty("tag", "x/new:1", "y/new:2").ok()
    nameless = image(empty, "", layer=archive({"c": b"3"}))

    def names(*flags: str) -> list[str]:
        return empty("images", "--format", "{{.Repository}}:{{.Tag}}", *flags).ok().out.split()

    assert sorted(names()) == ["<none>:<none>", "x/new:1", "x/old:1", "y/new:2"]
    assert names("--filter", "dangling=true") == ["<none>:<none>"]
    assert sorted(names("-f", "dangling=false")) == ["x/new:1", "x/old:1", "y/new:2"]
    assert sorted(names("-f", "label=of")) == ["x/new:1", "x/old:1", "y/new:2"]
    assert names("-f", "label=of=old") == names("-f", "before=x/new:1") == ["x/old:1"]
    assert sorted(names("-f", "since=x/old:1")) == ["<none>:<none>", "x/new:1", "y/new:2"]
    assert sorted(names("-f", "reference=*/new")) == sorted(names("-f", "reference=?/new:*")) == ["x/new:1", "y/new:2"]
    assert names("-f", "reference=*/new", "-f", "label=of=old") == []
    assert sorted(names("x/*")) == ["x/new:1", "x/old:1"]
    assert names("x/new:2") == []
    assert names("-f", "until=1h") == []
    assert len(names("-f", f"until={time.time() + 100:.0f}")) == 4
    assert empty("images", "-q", "--no-trunc", "x/new").ok().out == f"{new}\n"
    assert set(empty("images", "-aq").ok().out.split()) == {i[7:19] for i in (old, new, nameless)}
    heads, *rows = empty("images", "--digests", "x/old").ok().out.splitlines()
    assert heads.split() == ["REPOSITORY", "TAG", "DIGEST", "IMAGE", "ID", "CREATED", "SIZE"]
    assert re.search(r" sha256:[0-9a-f]{64} ", rows[0])
    for wrong, message in (
        ("colour=blue", "invalid filter 'colour'"),
        ("dangling=maybe", "invalid filter 'dangling=[maybe]'"),
        ("before=nothing", "No such image: nothing:latest"),
        ("until=nowhen", 'failed to parse value as time or duration: "nowhen"'),
        ("since", "bad format of filter (expected name=value)"),
    ):
        done = empty("images", "--filter", wrong)
        assert done.code != 0
        assert message in done.err


# history


def test_history(empty: Command) -> None:
    steps = [
        {"created": "2024-05-06T07:08:09Z", "created_by": "sh -c first " + "x" * 60},
        {"created": "2024-05-06T07:08:10Z", "created_by": "ENV A=1", "empty_layer": True, "comment": "said"},
        {"created": "2024-05-06T07:08:11Z", "created_by": "COPY a b"},
    ]
    empty("load", input=made.tar(made.docker(["a:1"], ONE, TWO, history=steps))).ok()
    identifier = inspected(empty, "a:1")["Id"]
    heads, *rows = empty("history", "a:1").ok().out.splitlines()
    assert heads.split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert [row.split()[0] for row in rows] == [identifier[7:19], "<missing>", "<missing>"]
    assert "3B" in rows[0]
    assert " 0B " in rows[1]
    assert rows[1].endswith("said")
    assert "…" in rows[2]
    assert "years ago" in rows[2]
    assert "x" * 60 in empty("history", "--no-trunc", "a:1").ok().out
    assert empty("image", "history", "-q", "--no-trunc", "a:1").ok().out.split() == [
        identifier,
        "<missing>",
        "<missing>",
    ]
    exact = empty("history", "--human=false", "--format", "{{.CreatedAt}} {{.Size}} {{.CreatedBy}}", "a:1").ok().out
    assert re.fullmatch(r"2024-05-06T\d\d:08:11(Z|[+-]\d\d:\d\d) 3 COPY a b", exact.splitlines()[0])
    assert "3B" in empty("history", "-H", "a:1").ok().out
    lines = [json.loads(line) for line in empty("history", "--format", "json", "a:1").ok().out.splitlines()]
    assert [line["Comment"] for line in lines] == ["", "said", ""]
    done = empty("history", "--platform", "linux/s390x", "a:1")
    assert (done.code, done.out) == (1, "")
    assert "does not match the specified platform (linux/s390x)" in done.err
    assert empty("history", "nothing").err == "Error: No such image: nothing:latest\n"


# image inspect


def test_image_inspect_with_a_platform(empty: Command) -> None:
    data = made.tar(made.layout("a:1", ONE, architecture="arm", variant="v6", docker_version="24.0.7"))
    empty("load", input=data).ok()
    (found,) = json.loads(empty("image", "inspect", "--platform", "linux/arm/v7", "a:1").ok().out)
    assert (found["Architecture"], found["Variant"], found["DockerVersion"]) == ("arm", "v6", "24.0.7")
    done = empty("image", "inspect", "--platform", "linux/arm/v5", "a:1")
    assert (done.code, done.out) == (1, "[]\n")
    assert done.err == (
        "Error: image with reference a:1 was found but its platform (linux/arm/v6) does not match "
        "the specified platform (linux/arm/v5)\n"
    )


# tag and rmi


def test_rmi_of_several(empty: Command) -> None:
    one, two = image(empty, "a:1"), image(empty, "b:1", layer=TWO)
    three = image(empty, "", layer=archive({"c": b"3"}))
    empty("tag", "a:1", "c:1").ok()
    empty("tag", one[7:19], "d").ok()
    done = empty("rmi", "a:1", "nothing", "b:1", three[7:19])
    assert (done.code, done.err) == (1, "Error: No such image: nothing:latest\n")
    lines = done.out.splitlines()
    assert lines[:3] == ["Untagged: a:1", "Untagged: b:1", f"Deleted: {two}"]
    assert f"Deleted: {three}" in lines
    done = empty("rmi", one)
    assert (done.code, done.out) == (1, "")
    assert "(must be forced) - image is referenced in multiple repositories" in done.err
    done = empty("image", "rm", "-f", one).ok()
    assert done.out.splitlines()[:3] == ["Untagged: c:1", "Untagged: d:latest", f"Deleted: {one}"]
    assert empty("images", "-qa").ok().out == ""
    # None is no failure with -f, but it is told, as with Docker.
    done = empty("rmi", "-f", "nothing").ok()
    assert (done.out, done.err) == ("", "Error: No such image: nothing:latest\n")


def test_rmi_of_an_image_for_a_platform(empty: Command) -> None:
    empty("load", input=made.tar(made.layout("a:1", ONE, architecture="arm", variant="v6"))).ok()
    done = empty("rmi", "--platform", "linux/arm64", "--platform", "linux/arm/v5", "a:1")
    assert (done.code, done.out) == (1, "")
    assert "does not match the specified platform (linux/arm64, linux/arm/v5)" in done.err
    assert empty("rmi", "--platform", "linux/arm64", "nothing").err == "Error: No such image: nothing:latest\n"
    assert (
        empty("rmi", "--platform", "linux/amd64", "--platform", "linux/arm/v7", "a:1")
        .ok()
        .out.startswith("Untagged: a:1\nDeleted: sha256:")
    )


# image prune


def test_image_prune(empty: Command) -> None:
    kept = image(empty, "a:1", "-c", "LABEL keep=1")
    image(empty, "b:1", layer=TWO)
    first = image(empty, "", layer=archive({"c": b"333"}))
    second = image(empty, "", "-c", "LABEL keep=1", layer=archive({"d": b"4444"}))

    assert empty("image", "prune", "-f", "--filter", "until=2020-01-01").ok().out == "Total reclaimed space: 0B\n"
    done = empty("image", "prune", "--force", "--filter", "label!=keep").ok()
    layer, size = done.out.splitlines()[2], done.out.split()[-1]
    assert done.out == f"Deleted Images:\ndeleted: {first}\n{layer}\n\nTotal reclaimed space: {size}\n"
    assert size.endswith("kB"), "in blocks of the disk"
    assert layer.startswith("deleted: sha256:")
    assert f"deleted: {second}\n" in empty("image", "prune", input="y\n").ok().out
    done = empty("image", "prune", "-a", input="n\n").ok()
    assert (
        "WARNING! This will remove all images without at least one container associated to them." in done.out + done.err
    )
    assert len(empty("images", "-q").ok().out.split()) == 2
    done = empty("image", "prune", "-af", "--filter", "label!=keep").ok()
    assert "untagged: b:1\n" in done.out
    assert empty("images", "-q", "--no-trunc").ok().out == f"{kept}\n"
    done = empty("image", "prune", "-a", "--filter", "dangling=true")
    assert (done.code, done.err) == (1, "conflicting options: cannot specify both --all and --filter dangling\n")


def test_image_prune_leaves_what_a_container_uses(cli: Command) -> None:
    used, unused = image(cli, "used:1", "-c", "LABEL prune=me"), image(cli, "b:1", "-c", "LABEL prune=me", layer=TWO)
    cli("create", "--name", "box", "used:1", "sh").ok()
    done = cli("image", "prune", "-af", "--filter", "label=prune=me").ok()
    assert f"deleted: {unused}\n" in done.out
    assert used not in done.out
    cli("rm", "box").ok()
    assert f"deleted: {used}\n" in cli("image", "prune", "-af", "--filter", "label=prune").ok().out
