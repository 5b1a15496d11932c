"""RUN --mount, --network and --security, heredocs that are scripts: what a command is given, and that nothing is left of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.builds import Builds, build, store
from support.patience import eventually

__all__ = ["build", "store"]

pytestmark = pytest.mark.root

SECRET = "no layer has this value"


def test_what_is_mounted_is_there_and_leaves_nothing(build: Builds) -> None:
    build.put("f", "from the context\n")
    build.put("sub/g", "below\n")
    build.put("hidden", "x")
    build.put(".dockerignore", "hidden\n")
    (build.context / "out").symlink_to("/etc/shadow")
    build(
        """
FROM base AS one
RUN mkdir -p /tree && echo staged > /tree/file && ln -s /tree /link
FROM base
WORKDIR /work
ARG WHERE=/expanded
RUN --mount=target=/ctx set -e; grep -q 'from the context' /ctx/f; test $(stat -c %u:%g:%a /ctx/f) = 0:0:644; ! touch /ctx/new; ! test -e /ctx/hidden; ! cat /ctx/out
RUN --mount=target=. test "$(cat f)" = "from the context"
RUN --mount=type=bind,source=sub,target=relative,rw set -e; touch /work/relative/new; test "$(ls relative | tr '\\n' ' ')" = "g new "
RUN --mount=from=one,source=/link,target=/a --mount=from=one,source=tree/file,target=/b/c/d,readonly set -e; grep -q staged /a/file; grep -q staged /b/c/d; ! touch /a/x
RUN --mount=from=one,target=/whole,readwrite set -e; grep -q staged /whole/tree/file; echo changed > /whole/tree/file; grep -q changed /whole/tree/file
RUN --mount=from=one,target=$WHERE grep -q staged /expanded/tree/file
RUN --mount=type=tmpfs,target=/t,size=4m set -e; df -k /t | grep -q ' 4096 '; cp /bin/busybox /t/true; /t/true
"""
    ).ok()
    # WORKDIR made a layer. No RUN did: all places that were mounted on are gone again, the times of / are as they were.
    assert build.layers() == 2
    assert build.run("sh", "-c", "ls -A /work; ls /").split() == sorted(
        [*build.run("ls", "/", image="base").split(), "work"]
    )
    assert list((build.root.root / "build" / "work").iterdir()) == []


def test_a_place_that_the_command_used_stays(build: Builds) -> None:
    build(
        "FROM base\nRUN --mount=type=tmpfs,target=/made/deep/t --mount=type=tmpfs,target=/etc/t "
        "echo 1 > /made/file && echo 2 > /made/deep/file && echo 3 > /etc/file"
    ).ok()
    found = build.run("sh", "-c", "find /made /etc/file; test -e /etc/t || echo no stub").splitlines()
    assert sorted(found) == ["/etc/file", "/made", "/made/deep", "/made/deep/file", "/made/file", "no stub"]


def test_caches_are_kept_from_build_to_build_and_only_there(build: Builds) -> None:
    for expected in (1, 2):
        done = build(
            "FROM base\nRUN --mount=type=cache,target=/c,id=kept echo . >> /c/n; echo lines $(wc -l < /c/n)",
            "--no-cache",
        ).ok()
        assert f" lines {expected}\n" in done.err
    assert build.layers() == 1
    # Another id, and other owners, are other caches; a read-only one cannot be written.
    build(
        """
FROM base
RUN --mount=type=cache,target=/c,id=other test ! -e /c/n
RUN --mount=type=cache,target=/c,id=kept,mode=0700,uid=7,gid=8 test $(stat -c %u:%g:%a /c) = 7:8:700 -a ! -e /c/n
RUN --mount=type=cache,target=/c,id=kept,ro test -e /c/n && ! touch /c/x
RUN --mount=type=cache,target=/kept ! test -e /kept/n
RUN --mount=type=cache,target=/c,id=seeded,from=base,source=/etc test -s /c/passwd
"""
    ).ok()
    assert build.layers() == 1


@pytest.mark.long
def test_the_command_is_done_again_when_what_it_is_given_changes(build: Builds) -> None:
    def is_cached(text: str) -> bool:
        return "CACHED" in build(text).ok().err.split("[2/2]")[1]

    text = "FROM base\nRUN --mount=target=/ctx,source=f cat /ctx\n"
    build.put("f", "1")
    assert not is_cached(text)
    build.put("other", "of no interest")
    os.utime(build.context / "f", (1, 1))
    assert is_cached(text)
    build.put("f", "2")
    assert not is_cached(text)
    assert not is_cached(text.replace("source=f", "source=f,rw"))


@pytest.mark.long
def test_sharing(build: Builds, tmp_path: Path) -> None:
    """One build waits in its cache; others share it, have one of their own, or wait for it."""

    def text(sharing: str, command: str) -> str:
        return f"FROM base\nRUN --mount=type=cache,target=/c,id=shared-one,sharing={sharing} {command}\n"

    def start(name: str, content: str) -> subprocess.Popen[bytes]:
        place = tmp_path / name
        place.mkdir()
        (place / "Dockerfile").write_text(content)
        return build.cli.start("build", "--network", "none", str(place), stderr=subprocess.PIPE)

    build("FROM base").ok()
    mounts = build.root.root / "build" / "mounts"
    first = start("first", text("shared", "touch /c/first; until test -e /c/go; do sleep 0.1; done"))
    eventually(lambda: list(mounts.glob("*/data/first")))
    build(text("private", "test ! -e /c/first"), "--no-cache").ok()
    late = start("late", text("locked", "test -e /c/go"))
    build(text("shared", "test -e /c/first && touch /c/go"), "--no-cache").ok()
    for one in (first, late):
        _, said = one.communicate(timeout=60)
        assert one.returncode == 0, said


@pytest.mark.long
def test_nobody_waits_for_himself_or_in_a_circle(build: Builds) -> None:
    mounts = [f"--mount=type=cache,target=/{t},id={i},sharing=locked" for t, i in (("a", "x"), ("b", "y"), ("c", "x"))]
    text = "FROM base\nRUN {} touch /a/one && test -e /c/one\nRUN {} rm -f /c/one\n"
    there, back = (
        text.format(" ".join(mounts), " ".join(mounts)),
        text.format(" ".join(mounts[::-1]), " ".join(mounts[::-1])),
    )
    (build.context / "back").write_text(back)
    other = build.cli.start(
        "build",
        "--network",
        "none",
        "--no-cache",
        "-f",
        str(build.context / "back"),
        str(build.context),
        stderr=subprocess.PIPE,
    )
    build(there, "--no-cache").ok()
    _, said = other.communicate(timeout=60)
    assert other.returncode == 0, said


def test_secrets(build: Builds, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET)
    given = ("--secret", f"id=token,src={file}", "--secret", "id=VARIABLE", "--secret", "type=env,id=v,env=OTHER")
    length = len(SECRET)
    text = f"""
FROM base
RUN --mount=type=secret,id=token set -e; test $(wc -c < /run/secrets/token) = {length}; test $(stat -c %a:%u:%g /run/secrets/token) = 400:0:0
RUN --mount=type=secret,id=token,target=/s/t,mode=0440,uid=3,gid=4 test $(stat -c %a:%u:%g /s/t) = 440:3:4
RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=VARIABLE --mount=type=secret,id=v,env=V,target=/v set -e; test ! -e /run/secrets/token; test "$(cat /run/secrets/VARIABLE)" = one; test "$V$(cat /v)" = twotwo; test ${{#TOKEN}} = {length}
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
"""
    environment = {"VARIABLE": "one", "OTHER": "two"}
    build(text, *given, env=environment).ok()
    assert build.layers() == 1
    assert SECRET not in "".join(build.history())
    assert build.holds(SECRET.encode()) == []
    # Another value is the same step: no secret is in a key.
    file.write_text("another")
    again = build(text, *given, env=environment).ok()
    assert again.err.count("CACHED") == 5
    refused = build("FROM base\nRUN --mount=type=secret,id=absent,required true", *given, env=environment)
    assert (refused.code, "secret absent: not found" in refused.err) == (1, True)


def test_scripts(build: Builds) -> None:
    build(
        """
FROM base
SHELL ["/bin/false"]
RUN <<EOF
#!/bin/sh -e
echo "$0 is $(id -u)" > /script
EOF
RUN <<'X'
#!/usr/bin/env sh
echo 'not $expanded' >> /script
X
SHELL ["/bin/sh", "-c"]
RUN cat <<A > /a && cat <<-B > /b
first $HOME
A
	second
	B
"""
    ).ok()
    assert build.run("cat", "/script", "/a", "/b") == "/dev/pipes/EOF is 0\nnot $expanded\nfirst /root\nsecond\n"


@pytest.mark.long
def test_what_a_dockerfile_gets_only_if_it_is_allowed(build: Builds) -> None:
    for flag, name, command in (
        ("--network=host", "network.host", "true"),
        ("--security=insecure", "security.insecure", "mount -t tmpfs x /tmp"),
    ):
        refused = build(f"FROM base\nRUN {flag} {command}\n")
        assert refused.code == 1
        assert f"{name} is not allowed: if you trust this Dockerfile, build with --allow {name}" in refused.err
        build(f"FROM base\nRUN {flag} {command}\n", "--allow", name).ok()
    build("FROM base\nRUN --network=host true\n", "--network", "host").ok()
    build("FROM base\nRUN --network=none test $(ls /sys/class/net) = lo\n").ok()


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("target=.", 'invalid mount target "."'),
        ("type=ssh", "there is no agent here; give a key with --mount=type=secret"),
        ("source=absent,target=/x", '"/absent": not found'),
        ("from=base,source=/absent,target=/x", '"/absent": not found'),
        ("type=cache,target=/x --mount=type=tmpfs,target=/x", "two mounts of one RUN have the target /x"),
    ],
)
def test_a_wrong_mount_is_told_with_its_line(build: Builds, mount: str, message: str) -> None:
    done = build(f"FROM base\nRUN --mount={mount} true\n")
    assert done.code == 1
    assert message in done.err
    assert "Dockerfile:2\n" in done.err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (("--secret", "src=x"), "it has no id"),
        (("--secret", "id=x,src=/absent"), "/absent is no file"),
        (("--secret", "id=x,colour=red"), "it is of the form id=ID,src=FILE or id=ID,env=NAME"),
        (("--secret", "id=x,type=wish"), "its type is file or env"),
        (("--allow", "everything"), "unknown entitlement 'everything'"),
    ],
)
def test_a_wrong_flag(build: Builds, flag: tuple[str, ...], message: str) -> None:
    done = build("FROM base\n", *flag)
    assert done.code != 0
    assert message in done.err
