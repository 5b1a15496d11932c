"""Where the files of a build come from: standard input, web servers, git repositories, named contexts; and all that ADD can fetch."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.builds import Builds, build, store
from support.gitweb import Repository, git_web
from support.registry import Certificates
from support.web import Web, body, redirect, status, web

__all__ = ["build", "store"]

pytestmark = pytest.mark.root


@pytest.fixture
def server() -> Iterator[Web]:
    with web() as made:
        yield made


def archive(files: dict[str, str], *links: tuple[str, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content.encode()))
        for name, target in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return made.getvalue()


# Contexts


@pytest.mark.long
def test_contexts_from_standard_input_and_from_a_web_server(build: Builds, server: Web) -> None:
    files = {
        "Dockerfile": "FROM base\nCOPY . /in\n",
        "other/File": "FROM base\nCOPY f /other\n",
        "f": "content\n",
        "hidden": "x",
        ".dockerignore": "hidden\n",
    }
    tar = archive(files)
    compressed = gzip.compress(tar)
    text = b"FROM base\nRUN echo of a text alone > /text; ! test -e /in\n"
    server.answers = {"/c.tgz": body(compressed), "/Dockerfile": body(text)}

    def built(*arguments: str, data: bytes | None = None) -> None:
        build.cli("build", "--network", "none", "-t", "it", *arguments, input=data).ok()

    for arguments, data in ((["-"], tar), (["-"], compressed), ([server.url("/c.tgz")], None)):
        built(*arguments, data=data)
        assert build.run("sh", "-c", "cat /in/f; ls -A /in").split() == [
            *("content", ".dockerignore", "Dockerfile", "f", "other")
        ]
    built("-f", "other/File", "-", data=tar)
    assert build.run("cat", "/other") == "content\n"
    built("-", data=text)
    assert build.run("cat", "/text") == "of a text alone\n"
    built(server.url("/Dockerfile"))
    build.put("f", "of a directory\n")
    built("-f", "-", str(build.context), data=b"FROM base\nCOPY f /f\n")
    assert build.run("cat", "/f") == "of a directory\n"
    assert list((build.root.root / "build" / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        (("-f", "-", "-"), b"", "can't use stdin for both build context and dockerfile"),
        (("-",), b"", "standard input is empty"),
        (("-",), b"FROM\0base", "neither an archive nor a Dockerfile"),
        (("-",), archive({"f": "x"}), "open Dockerfile: no such file or directory"),
        (("-f", "absent", "-"), archive({"f": "x"}), "open absent: no such file or directory"),
        (("-f", "../../x", "-"), archive({"f": "x"}), "../../x is outside of the context"),
        (("-",), archive({"../f": "x"}), "is outside of"),
        (("-",), archive({"Dockerfile": "FROM base"})[:700], "unexpected"),
        (("ftp://127.0.0.1/x",), None, "the protocol is not known"),
        (("http://127.0.0.1:1/x",), None, "connection refused"),
        (("--build-context", "x", "."), None, "it is of the form NAME=DIRECTORY"),
        (("--build-context", "x=/absent", "."), None, 'path "/absent" not found'),
        (("--build-context", "x=oci-layout://y", "."), None, "the protocol is not known"),
    ],
)
def test_what_is_no_context_is_refused(
    build: Builds, arguments: tuple[str, ...], data: bytes | None, message: str
) -> None:
    done = build.cli("build", *arguments, input=data, cwd=str(build.context))
    assert done.code != 0
    assert message in done.err
    work = build.root.root / "build" / "work"
    assert not work.exists() or list(work.iterdir()) == []


@pytest.mark.long
def test_a_context_from_a_repository(build: Builds, tmp_path: Path) -> None:
    made = Repository(tmp_path / "srv" / "r.git")
    made.put("Dockerfile", "FROM base\nCOPY . /in\n")
    made.put("file", "first\n")
    made.put("deep/er/Dockerfile", "FROM base\nCOPY . /sub\n")
    first = made.commit()
    made.git("tag", "v1")
    made.put("file", "second\n")
    made.commit()
    made.git("branch", "with/slash", "v1")
    tls = Certificates(tmp_path)
    environment = {"GIT_SSL_CAINFO": str(tls.authority)}
    with git_web(tmp_path / "srv") as plain, git_web(tmp_path / "srv", (tls.certificate, tls.key)) as secure:

        def built(address: str, *flags: str) -> str:
            done = build.cli("build", "--network", "none", "-t", "it", *flags, address, env=environment, timeout=120)
            return "" if done.code == 0 else done.err

        assert built(f"{secure}/r.git") == ""
        assert build.run("sh", "-c", "cat /in/file; ls -A /in").split() == ["second", "Dockerfile", "deep", "file"]
        for ref in ("v1", "with/slash", first):
            assert built(f"{plain}/r.git#{ref}") == ""
            assert build.run("cat", "/in/file") == "first\n"
        assert built(f"{plain}/r.git#:deep/er") == ""
        assert build.run("ls", "-A", "/sub") == "Dockerfile\n"
        assert built(f"{plain}/r.git", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1") == ""
        assert ".git" in build.run("ls", "-A", "/in").split()
        assert "couldn't find remote ref absent" in built(f"{plain}/r.git#absent")
        assert "subdirectory none: no such file" in built(f"{plain}/r.git#main:none")
        assert "git fetch" in built(f"{plain}/nothing.git")


# ADD


def test_add_fetches_files(build: Builds, server: Web, tmp_path: Path) -> None:
    def dated(request: object) -> None:
        sender = request  # a handler of http.server
        sender.send_response(200)  # type: ignore[attr-defined]
        sender.send_header("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT")  # type: ignore[attr-defined]
        sender.send_header("Content-Length", "6")  # type: ignore[attr-defined]
        sender.end_headers()  # type: ignore[attr-defined]
        sender.wfile.write(b"dated\n")  # type: ignore[attr-defined]

    tar = archive({"inside": "unpacked\n"})
    server.answers = {
        "/d/file.txt?x=1": dated,
        "/there": redirect("/d/file.txt?x=1"),
        "/a.tar": body(tar),
        "/": body(b"no name\n"),
    }
    digest = hashlib.sha256(b"dated\n").hexdigest()
    url = server.url
    build(
        f"""
FROM base
ADD {url("/d/file.txt?x=1")} /dir/
ADD --checksum=sha256:{digest} --chmod=644 --chown=3:4 {url("/there")} /named
ADD {url("/a.tar")} /packed
ADD --unpack=true {url("/a.tar")} /unpacked/
ADD {url("/")} /root-of-it
"""
    ).ok()
    said = build.run(
        "sh",
        "-c",
        "stat -c '%n %a %u:%g %s' /dir/file.txt /named /packed /root-of-it; cat /unpacked/inside; stat -c %Y /dir/file.txt",
    )
    assert said.splitlines()[:5] == [
        *("/dir/file.txt 600 0:0 6", "/named 644 3:4 6", f"/packed 600 0:0 {len(tar)}", "/root-of-it 600 0:0 8"),
        "unpacked",
    ]
    # The cache goes by the content, which is asked for each time.
    text = f"FROM base\nADD {url('/changing')} /f\n"
    server.answers["/changing"] = body(b"1")
    build(text).ok()
    assert "CACHED" in build(text).ok().err.split("[2/2]")[1]
    server.answers["/changing"] = body(b"2")
    assert "CACHED" not in build(text).ok().err.split("[2/2]")[1]


@pytest.mark.long
def test_add_by_tls_believes_no_server_that_it_cannot_know(build: Builds, tmp_path: Path) -> None:
    made = Repository(tmp_path / "srv" / "r.git")
    made.put("f", "x")
    made.commit()
    made.git("update-server-info")
    tls = Certificates(tmp_path)
    with git_web(tmp_path / "srv", (tls.certificate, tls.key)) as secure:
        text = f"FROM base\nADD {secure}/r.git/info/refs?service=git-upload-pack /refs\n"
        refused = build(text)
        assert (refused.code, "certificate verify failed" in refused.err) == (1, True)
        build(text, env={"SSL_CERT_FILE": str(tls.authority)}).ok()


@pytest.mark.long
def test_add_of_repositories(build: Builds, tmp_path: Path) -> None:
    made = Repository(tmp_path / "srv" / "r.git")
    made.put("sub/file", "in the tree\n")
    commit = made.commit()
    with git_web(tmp_path / "srv") as address:
        build(
            f"""
FROM base
ADD {address}/r.git /all
ADD --keep-git-dir=true {address}/r.git#main /kept
ADD --checksum={commit[:12]} --chown=5:6 {address}/r.git#{commit}:sub /part/
"""
        ).ok()
        said = build.run(
            "sh", "-c", "ls -A /all /part; cat /all/sub/file; stat -c %u:%g /part/file; test -d /kept/.git && echo kept"
        )
        assert said.split() == ["/all:", "sub", "/part:", "file", "in", "the", "tree", "5:6", "kept"]
        refused = build(f"FROM base\nADD --checksum={'0' * 40} {address}/r.git /x\n")
        assert f"expected checksum {'0' * 40}, but the commit is {commit}" in refused.err
        # A password in an address is nobody's business.
        told = build(f"FROM base\nADD {address.replace('://', '://me:hush@')}/absent.git /x\n")
        assert (told.code, "hush" in told.err.split("--------------------")[-1]) == (1, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--checksum=sha256:{wrong} {url}/f /x", "expected checksum sha256:{wrong}, but it is sha256:"),
        ("--checksum=md5:00 {url}/f /x", "it is of the form sha256:HEX"),
        ("--checksum=sha256:{wrong} f /x", "ADD --checksum is for the addresses of files and repositories alone"),
        ("--keep-git-dir f /x", "ADD --keep-git-dir is for the addresses"),
        ("{url}/ /x/", "cannot determine filename from url"),
        ("{url}/gone /x", "with status 404"),
        ("{url}/loop /x", "redirect"),
        ("{url}/away /x", "file"),
        ("ftp://127.0.0.1/f /x", "the protocol is not known"),
    ],
)
def test_what_add_refuses(build: Builds, server: Web, words: str, message: str) -> None:
    server.answers = {
        "/f": body(b"content"),
        "/": body(b"x"),
        "/gone": status(404, "gone"),
        "/loop": redirect("/loop"),
        "/away": redirect("file:///etc/passwd"),
    }
    build.put("f", "x")
    names = {"url": server.url(""), "wrong": "0" * 64}
    done = build(f"FROM scratch\nADD {words.format(**names)}\n")
    assert done.code == 1
    assert message.format(**names) in done.err
    assert len(server.asked) < 15


# Named contexts


def test_named_contexts(build: Builds, tmp_path: Path, server: Web) -> None:
    build.put("f", "of the main one\n")
    place = tmp_path / "second"
    place.mkdir()
    (place / "f").write_text("of a directory\n")
    (place / "skipped").write_text("x")
    (place / ".dockerignore").write_text("skipped\n")
    server.answers = {"/c.tar": body(archive({"g": "of an archive\n"}))}
    text = """
FROM absent-image AS start
RUN true
FROM shadowed AS shadowed-too
FROM scratch AS shadowed
COPY no-such-file /
FROM start
COPY --from=Second . /second/
COPY --from=tar g /
RUN --mount=from=second,target=/m grep -q directory /m/f && ! test -e /m/skipped
COPY --from=shadowed f /shadowed
COPY --from=image /etc/passwd /passwd
"""
    build(
        text,
        *("--build-context", f"second={place}", "--build-context", f"tar={server.url('/c.tar')}"),
        *("--build-context", "absent-image=docker-image://base", "--build-context", "image=docker-image://base"),
        *("--build-context", f"shadowed={place}"),
    ).ok()
    said = build.run("sh", "-c", "ls -A /second; cat /g /shadowed; head -c 4 /passwd")
    assert said.split("\n") == [".dockerignore", "f", "of an archive", "of a directory", "root"]
    os.chown(place / "f", 1234, 1234)
    build(
        "FROM x AS y\nCOPY f /g\nFROM base\nCOPY --from=y / /y\nCOPY --from=x f /x", "--build-context", f"x={place}"
    ).ok()
    said = build.run("sh", "-c", "cat /y/f /y/g; ls -A /y; stat -c %u /y/f /x")
    assert said.split("\n") == ["of a directory", "of the main one", ".dockerignore", "f", "g", "0", "0", ""]
