"""The client of the API before anything is connected: addresses, frames, contexts of builds, refusals."""

from __future__ import annotations

import io
import ssl
import tarfile
from pathlib import Path

import pytest

import sampan
from sampan.build.patterns import Ignore
from sampan.client import address, context, failures, names
from sampan.client.attachment import Frames
from sampan.engine.archive import NoSuchPath, PathStat
from sampan.errors import Conflict, InvalidParameter, NotFound, StartFailed, System, Unavailable


def test_addresses() -> None:
    assert address.find("unix:///run/x.sock").path == "/run/x.sock"
    found = address.find("tcp://[::1]:99")
    assert (found.host, found.port, found.tls) == ("::1", 99, None)
    assert address.find("tcp://host").port == 2375
    assert address.find("tcp://host", ssl.create_default_context()).port == 2376
    assert address.find(None, environment={}).path == "/run/sampan/sampan.sock"
    assert address.find(None, environment={"DOCKER_HOST": "unix:///a"}).path == "/a"
    assert address.find(None, environment={"DOCKER_HOST": "unix:///a", "DOCKER_TLS_VERIFY": "1"}).path == "/a"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("unix://run/x.sock", "complete path"),
        ("tcp://", "tcp://HOST:PORT"),
        ("tcp://host/path", "tcp://HOST:PORT"),
        ("tcp://host:port", "port"),
        ("ssh://host", "ssh -nNT -L"),
        ("/run/x.sock", "begins with unix:// or tcp://"),
        ("npipe:////./pipe/x", "begins with unix:// or tcp://"),
        ("", "begins with unix:// or tcp://"),
    ],
)
def test_what_is_no_address(url: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        sampan.connect(url)


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"ca\.pem, cert\.pem, key\.pem"):
        sampan.connect("tcp://host", str(tmp_path))
    settings = {"DOCKER_HOST": "tcp://host", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    with pytest.raises(InvalidParameter, match=str(tmp_path)):
        address.find(None, environment=settings)
    with pytest.raises(InvalidParameter, match="no TLS"):
        sampan.connect("unix:///x", str(tmp_path))


def test_nobody_is_there(tmp_path: Path) -> None:
    words = r"x\.sock: no such file or directory: is `sampan serve` running there\?"
    with sampan.connect(f"unix://{tmp_path}/x.sock") as engine, pytest.raises(Unavailable, match=words):
        engine.system.version()


def test_frames_in_any_pieces() -> None:
    data = b"\1\0\0\0\0\0\0\3abc\2\0\0\0\0\0\0\0\2\0\0\0\0\0\1\0" + bytes(256)
    expected = [(1, b"abc"), (2, b""), (2, bytes(256))]
    for size in (1, 7, 8, 9, 300):
        frames = Frames()
        found = [one for at in range(0, len(data), size) for one in frames.feed(data[at : at + size])]
        assert found == expected


def test_refusals_are_raised_as_what_they_were() -> None:
    one = failures.of_answer(404, {failures.KIND: "NoSuchPath,NotFound"}, b'{"message": "words"}')
    assert (type(one), str(one)) == (NoSuchPath, "words")
    one = failures.of_answer(400, {failures.KIND: "StartFailed", failures.EXIT_CODE: "127"}, b'{"message": "words"}')
    assert isinstance(one, StartFailed)
    assert one.container_exit_code == 127
    # Of another server, or a class that came later.
    assert type(failures.of_answer(404, {}, b"page not found\n")) is NotFound
    assert type(failures.of_answer(409, {failures.KIND: "Later,Conflict"}, b"{}")) is Conflict
    assert type(failures.of_answer(500, {}, b"")) is System
    assert str(failures.of_answer(500, {}, b"")) == "the server answered with the status 500"
    assert str(failures.of_line({"error": "e"})) == "e"


def test_names() -> None:
    assert names.split("localhost:5000/a/b:c") == ("localhost:5000/a/b", "c")
    assert names.split("localhost:5000/a") == ("localhost:5000/a", "")
    assert names.split("") == ("", "")
    digest = f"a@sha256:{'0' * 64}"
    assert names.split(digest) == (digest, "")
    assert names.platform("linux/arm/v7") == {"os": "linux", "architecture": "arm", "variant": "v7"}


@pytest.mark.parametrize("mode", [0o100644, 0o104755, 0o041777, 0o120777, 0o060600, 0o020666, 0o010600, 0o140755])
def test_what_a_header_says_of_a_path_comes_back(mode: int) -> None:
    found = PathStat("name", 5, mode, 1_234_567_890_123_456_789, "/x")
    assert PathStat.from_shown(found.shown()) == found
    shown = {**found.shown(), "mtime": "2009-02-13T23:31:30+00:00"}
    assert PathStat.from_shown(shown).mtime_ns == 1_234_567_890_000_000_000


def packed(directory: Path, dockerfile: str = "Dockerfile", text: str | None = None) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(context.pack(str(directory), dockerfile, text)))) as archive:
        for member in archive:
            assert (member.uid, member.gid, member.uname) == (0, 0, "")
            file = archive.extractfile(member) if member.isreg() else None
            found[member.name] = file.read() if file is not None else b""
    return found


def test_a_context_is_packed_without_what_is_ignored(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/keep", "node/x/y", "Dockerfile", "long/" + "n" * 150):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "big").write_bytes(bytes(range(256)) * 4000)
    (tmp_path / ".dockerignore").write_text("a\n!a/keep\nnode\nDockerfile\n.dockerignore\n")
    found = packed(tmp_path)
    assert set(found) == {".dockerignore", "Dockerfile", "a/keep", "big", "link", "long", f"long/{'n' * 150}"}
    assert found["big"] == bytes(range(256)) * 4000
    (tmp_path / "other.Dockerfile.dockerignore").write_text("*\n")
    assert set(packed(tmp_path, "other.Dockerfile")) == {".dockerignore", "other.Dockerfile.dockerignore"}
    assert packed(tmp_path, text="FROM x")[context.DOCKERFILE] == b"FROM x"
    assert isinstance(context.ignored(str(tmp_path), "Dockerfile"), Ignore)
    with pytest.raises(InvalidParameter, match="nosuch"):
        packed(tmp_path / "nosuch")
