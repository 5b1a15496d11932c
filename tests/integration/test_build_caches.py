"""--cache-to and --cache-from, --explain-cache, --verify."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.builds import Builds
from support.roots import Root

pytestmark = pytest.mark.root

_TEXT = """FROM base AS one
ARG V=1
RUN cat /proc/sys/kernel/random/uuid > /uuid && echo $V > /v && ln /v /w
COPY src /src
RUN --mount=type=bind,source=src,target=/m cp -r /m /n
RUN true
FROM base
COPY --from=one /uuid /uuid
RUN cat /proc/sys/kernel/random/uuid > /second
"""


def _blobs(cache: Path) -> set[str]:
    return {path.name for path in (cache / "blobs" / "sha256").iterdir()}


def _told(text: str, kind: str) -> int:
    return sum(line.endswith(kind) for line in text.splitlines())


def test_a_cache_is_taken_to_another_store(new_root: Root, tmp_path: Path) -> None:
    builds = Builds(new_root, tmp_path / "context")
    builds.put("src/a", "a")
    target = f"type=local,dest={tmp_path}/cache,mode=max"
    assert "exporting cache to client directory" in builds(_TEXT, "--cache-to", target).ok().err
    made = builds.run("cat", "/uuid", "/second")
    # The same again is the same, and nothing of it is written twice.
    before = _blobs(tmp_path / "cache")
    builds(_TEXT, "--cache-to", target).ok()
    assert _blobs(tmp_path / "cache") == before

    other_root = Root(tmp_path / "other")
    try:
        other = Builds(other_root, builds.context)
        done = other(_TEXT, "--cache-from", f"type=local,src={tmp_path}/cache").ok()
        assert _told(done.err, " CACHED") == 8, done.err
        assert other.run("cat", "/uuid", "/second") == made
        assert other_root.cli("system", "check", "--deep").ok().out == "nothing found\n"

        # What is no cache at all is told, and the build goes on.
        foreign, broken = tmp_path / "foreign", tmp_path / "broken"
        foreign.mkdir()
        (foreign / "index.json").write_text("{}")
        shutil.copytree(tmp_path / "cache", broken)
        index = json.loads((broken / "index.json").read_text())
        (broken / "blobs" / "sha256" / index["manifests"][0]["digest"][7:]).write_text("{}")
        places = {
            foreign: "index.json",
            broken: "the content is damaged",
            tmp_path / "nowhere": "no such file or directory",
        }
        flags = [word for path in places for word in ("--cache-from", f"type=local,src={path}")]
        lines = [line for line in other("FROM base", *flags).ok().err.splitlines() if "WARNING" in line]
        for line, reason in zip(lines, places.values(), strict=True):
            assert "WARNING: the cache is not used" in line
            assert reason in line
    finally:
        other_root.delete()


@pytest.mark.long
def test_a_damaged_layer_is_built_and_other_forms_are_read(new_root: Root, tmp_path: Path) -> None:
    builds = Builds(new_root, tmp_path / "context")
    builds.put("src/a", "a")
    for name, flags in (
        ("gzip", "mode=max"),
        ("zstd", "mode=max,compression=zstd"),
        ("min", "compression=uncompressed"),
    ):
        builds(_TEXT, "--cache-to", f"type=local,dest={tmp_path}/{name},{flags}").ok()
    made = builds.run("cat", "/uuid", "/second")
    # What only the cache before it had goes.
    for letter in "xy":
        builds(f"FROM base\nRUN echo {letter} > /x", "--cache-to", f"type=local,dest={tmp_path}/small").ok()
    assert len(_blobs(tmp_path / "small")) == 3

    def again(name: str) -> str:
        new_root.cli("rmi", "-f", "it").ok()
        new_root.cli("builder", "prune", "-af").ok()
        told = builds(_TEXT, "--cache-from", f"type=local,src={tmp_path}/{name}").ok().err
        assert new_root.cli("system", "check", "--deep").ok().out == "nothing found\n"
        return told

    assert _told(again("zstd"), " CACHED") == 8
    assert builds.run("cat", "/uuid", "/second") == made
    # The steps of the last stage alone are of no use here: their files come from another one, which is built anew.
    again("min")
    assert builds.run("cat", "/uuid") not in made
    for path in (tmp_path / "gzip" / "blobs" / "sha256").iterdir():
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    told = again("gzip")
    assert "WARNING: the cache cannot be used for this step" in told
    # The two FROM, and RUN true, which changed nothing.
    assert _told(told, " CACHED") == 3


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--cache-from", "user/app:1", "type=registry is not supported: type=local, a directory, is there"),
        ("--cache-from", "type=gha", "type=gha is not supported"),
        ("--cache-from", "type=local", "src is required"),
        ("--cache-from", "type=local,src=x,digest=sha256:1", "invalid"),
        ("--cache-to", "type=inline", "type=inline is not supported"),
        ("--cache-to", "type=local,dest=x,mode=all", "mode is min or max"),
        ("--cache-to", "type=local,dest=x,compression=lzma", "compression is one of uncompressed, gzip, zstd"),
        ("--cache-to", "type=local,dest=x,ref=y", "'ref' is not supported"),
        ("--cache-to", "type=local,dest=x,ignore-error=perhaps", "ignore-error is true or false"),
    ],
)
def test_what_cannot_be_had_of_caches_is_refused(root: Root, tmp_path: Path, flag: str, value: str, told: str) -> None:
    done = root.cli("build", flag, value, str(tmp_path))
    assert (done.code, told in done.err) == (1, True), done.err


def test_a_cache_that_cannot_be_written_fails_the_build_unless_that_is_not_to_matter(
    root: Root, tmp_path: Path
) -> None:
    builds = Builds(root, tmp_path / "context")
    (tmp_path / "file").write_text("")
    done = builds("FROM scratch", "--cache-to", f"type=local,dest={tmp_path}/file")
    assert done.code == 1
    assert "failed to export cache to" in done.err.splitlines()[-1]
    done = builds("FROM scratch", "--cache-to", f"type=local,dest={tmp_path}/file,ignore-error=true").ok()
    assert "WARNING: failed to export cache to" in done.err


def test_why_a_step_is_not_in_the_cache_is_told(new_root: Root, tmp_path: Path) -> None:
    builds = Builds(new_root, tmp_path / "context")
    builds.put("src/a", "a")
    builds.put("src/b", "b")

    def why(*flags: str, text: str = _TEXT) -> list[str]:
        told = builds(text, "--explain-cache", *flags).ok().err
        return [line.partition(" not cached: ")[2] for line in told.splitlines() if " not cached: " in line]

    assert why()[0] == "it was not done before on these files, or what it came to was removed"
    builds.put("src/a", "A")
    builds.put("src/b", "b", 0o600)
    builds.put("src/c", "c")
    told = why("--memory", "64m")
    assert told[:4] == [
        "Memory was not set, and is 67108864",
        "it begins with other files: [one 2/5] RUN cat /proc/sys/kernel/random/uuid > /uuid && echo $V > /v && ln /v /w was done again",
        "src/a: its content was changed",
        "src/b: its mode was 644, and is 600",
    ]
    assert "mount of /m: src/a: its content was changed" in told
    # A proxy is no part of what a step is made of.
    assert why("--memory", "64m", "--build-arg", "http_proxy=http://127.0.0.1:1") == []
    assert why("--no-cache-filter", "one", text="FROM base AS one\nWORKDIR /x") == [
        "the cache is not used: --no-cache-filter"
    ]


def test_two_builds_that_differ_are_told_with_their_files(new_root: Root, tmp_path: Path) -> None:
    builds = Builds(new_root, tmp_path / "context")
    same = "FROM base\nRUN echo same > /same; hostname > /name; date > /x; rm /x"
    assert "the second build made the same image" in builds(same, "--verify").ok().err
    assert builds.run("cat", "/name") == "buildkitsandbox\n"
    new_root.cli("rmi", "it").ok()
    random = "U=$(cat /proc/sys/kernel/random/uuid)"
    differing = f"""FROM base
RUN echo same > /same
RUN {random}; mkdir /d; echo $U > /d/content; touch /d/$U; ln -s $U /d/link; touch /d/time /d/mode
RUN --mount=type=cache,target=/c touch -d @$(test -e /c/x && echo 86400 || echo 0) /d/time; test -e /c/x && chown 7:8 /d/mode; chmod $(test -e /c/x && echo 4700 || echo 600) /d/mode; touch /c/x
LABEL a=b
"""
    done = builds(differing, "--verify", "--progress", "quiet")
    assert (done.code, done.out) == (1, "")
    lines = done.err.splitlines()
    assert lines[0].startswith(" > RUN /bin/sh -c U=")
    told = {line.strip().partition(":")[0]: line.partition(": ")[2] for line in lines if line.startswith("   /")}
    assert told["/d/content"] == "content"
    assert told["/d/link"].startswith("target ")
    assert sorted(text for path, text in told.items() if len(path) == 39) == [
        "made by the first build only",
        "made by the second build only",
    ]
    assert any("time 1970-01-01T00:00:00Z, then 1970-01-02T00:00:00Z" in line for line in lines)
    assert any("mode 0600, then 4700, owner 0:0, then 7:8" in line for line in lines)
    assert "the build is not reproducible: " in lines[-1]
    assert "/same" not in done.err.replace("echo same > /same", "")
    # No image is made of it, and nothing is left but the cache.
    assert new_root.cli("images", "-q", "it").ok().out == ""
    assert new_root.cli("ps", "-aq").ok().out == ""


def test_a_context_that_can_be_read_once_only_is_built_twice(root: Root, tmp_path: Path) -> None:
    import io
    import tarfile

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in (("Dockerfile", b"FROM scratch\nCOPY f /f\n"), ("f", b"f")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    done = root.cli("build", "--verify", "-", input=archive.getvalue()).ok()
    assert "the second build made the same image" in done.err
