"""`build` as a user gives it: what is in the image, what the cache takes for the same, what failures say and leave behind."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from support.builds import Builds, build, context, steps, store
from support.command import Command
from support.roots import Root

__all__ = ["build", "context", "store"]

pytestmark = pytest.mark.root


def config(cli: Command, name: str = "it") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(cli("image", "inspect", name).ok().out)[0]
    return dict(document["Config"])


def run(cli: Command, *command: str) -> str:
    return cli("run", "--rm", "--network", "none", "it", *command).ok().out


# What is in the image


def test_what_a_user_does(build: Builds, store: Root, context: Path, tmp_path: Path) -> None:
    (context / "app").mkdir()
    (context / "app" / "main.sh").write_text("echo $GREETING from $(pwd)\n")
    done = build(
        """
        ARG BASE=base
        FROM $BASE AS build
        ARG WHO=nobody
        WORKDIR /src
        COPY app .
        RUN echo "$WHO" > who && echo noise >&2
        FROM base
        ENV GREETING=hello
        COPY --from=build /src /opt/
        WORKDIR /opt
        CMD ["sh", "main.sh"]
        """,
        *("--build-arg", "WHO=me", "--label", "by=test", "-t", "other:2", "--iidfile", str(tmp_path / "id")),
    ).ok()
    assert done.out == ""
    assert "noise" in done.err
    assert run(store.cli) == "hello from /opt\n"
    assert run(store.cli, "cat", "/opt/who") == "me\n"
    assert config(store.cli)["Labels"] == {"by": "test"}
    assert config(store.cli, "other:2") == config(store.cli)
    image = (tmp_path / "id").read_text()
    assert store.cli("images", "-q", "--no-trunc", "it").ok().out == f"{image}\n"
    again = store.cli("build", "-q", "--build-arg", "WHO=me", "--label", "by=test", str(context)).ok()
    assert (again.out, again.err) == (f"{image}\n", ""), "the same input is the same image"
    history = store.cli("history", "--no-trunc", "--format", "{{.CreatedBy}}", "it").ok().out.splitlines()
    assert history[:4] == [
        "LABEL by=test",
        'CMD ["sh" "main.sh"]',
        "WORKDIR /opt",
        "COPY --from=build /src /opt/",
    ]


def test_a_build_that_has_a_zygote_of_its_own_ends_as_any_command(build: Builds, store: Root) -> None:
    """It let go of what only a server has, and failed after the image was there."""
    done = build("FROM base\nRUN echo 1 >/one\nRUN echo 2 >/two\nRUN echo 3 >/three").ok()
    assert "unexpected" not in done.err
    assert run(store.cli, "cat", "/one", "/two", "/three") == "1\n2\n3\n"


def test_build_args_that_nothing_asked_for_are_told(build: Builds, store: Root) -> None:
    """Docker's classic builder counts the ARGs of all stages up to the target, and those before the first."""
    base = build("FROM scratch\nONBUILD ARG TRIGGERED", "-t", "onbuild:1")
    assert "[Warning]" not in base.ok().err
    dockerfile = """
    ARG BEFORE
    FROM scratch AS unneeded
    ARG SKIPPED
    FROM onbuild:1 AS target
    ARG NAME=MADE
    ARG $NAME
    FROM scratch AS later
    ARG LATER
    """
    names = ("ZZ", "BEFORE", "SKIPPED", "TRIGGERED", "MADE", "LATER", "http_proxy")
    given = [word for name in names for word in ("--build-arg", f"{name}=1")]
    warning = "[Warning] One or more build-args [LATER ZZ] were not consumed"
    assert build(dockerfile, "--target", "target", *given).ok().err.count(warning) == 1
    assert "[Warning]" not in build(dockerfile, "--target", "target", "-q", *given).ok().err
    told = build(dockerfile, "--target", "target", "--progress", "rawjson", *given).ok().err
    warnings = [one for line in told.splitlines() for one in json.loads(line).get("warnings", ())]
    assert [base64.b64decode(one["short"]).decode() for one in warnings] == [warning]
    assert (
        "[Warning]"
        not in build(dockerfile, "--target", "target", "--build-arg", "NAME=ZZ", "--build-arg", "ZZ=1").ok().err
    )


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ("ENV A=1 B=$A C='x y'\nENV D ${A:-z} e", {"Env": ["A=1", "B=", "C=x y", "D=1 e"]}),
        ("ARG X=1\nENV Y=$X\nENV X=2\nENV Z=$X", {"Env": ["Y=1", "X=2", "Z=2"]}),
        ("LABEL a=b 'c d'=\"e f\"", {"Labels": {"a": "b", "c d": "e f"}}),
        ("WORKDIR /a\nWORKDIR b\nWORKDIR ../c", {"WorkingDir": "/a/c"}),
        ("USER 5:6", {"User": "5:6"}),
        ("VOLUME /a /b\nVOLUME [\"/c d\"]", {"Volumes": {"/a": {}, "/b": {}, "/c d": {}}}),
        ("ARG P=70\nEXPOSE 80 $P-71/udp", {"ExposedPorts": {"80/tcp": {}, "70/udp": {}, "71/udp": {}}}),
        ("CMD a b", {"Cmd": ["/bin/sh", "-c", "a b"]}),
        ("CMD [\"a\", \"b\"]\nENTRYPOINT [\"c\"]", {"Cmd": ["a", "b"], "Entrypoint": ["c"]}),
        ("SHELL [\"/bin/ash\", \"-ec\"]\nENTRYPOINT x", {"Entrypoint": ["/bin/ash", "-ec", "x"], "Shell": ["/bin/ash", "-ec"]}),
        ("STOPSIGNAL SIGINT", {"StopSignal": "SIGINT"}),
        ("HEALTHCHECK --interval=5s --retries=2 CMD x", {"Healthcheck": {"Test": ["CMD-SHELL", "x"], "Interval": 5_000_000_000, "Retries": 2}}),
        ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}),
        ("MAINTAINER me", {}),
    ],
)  # fmt: skip
def test_instructions_that_change_the_configuration(
    build: Builds, store: Root, instructions: str, expected: dict[str, Any]
) -> None:
    build(f"FROM scratch\n{instructions}").ok()
    found = config(store.cli)
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert found.get("Env") == [path, *expected.pop("Env", [])]
    assert {key: found.get(key) for key in expected} == expected


def test_a_base_without_a_path_gets_the_usual_one(build: Builds, store: Root, tmp_path: Path) -> None:
    """`ENV PATH=/x:$PATH` on an image of an archive left /x alone, in which no command was found."""
    with tarfile.open(tmp_path / "bare.tar", "w"):
        pass
    store.cli("import", str(tmp_path / "bare.tar"), "bare").ok()
    build("FROM bare\nENV PATH=/x:$PATH").ok()
    assert config(store.cli)["Env"] == ["PATH=/x:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


def test_run_sees_what_was_said_before_it_and_nothing_else(build: Builds, store: Root) -> None:
    build(
        "FROM base\nARG GIVEN\nARG DEFAULT=d\nARG UNSET\nENV E=1\nUSER 7:8\nWORKDIR /w\n"
        "RUN env | sort | grep -v -e HOSTNAME -e SHLVL -e PWD -e ^SOURCE_DATE_EPOCH=[0-9]*$ > /tmp/env; id -u > /tmp/id; id -g >> /tmp/id; pwd > /tmp/pwd",
        *("--build-arg", "GIVEN=g", "--build-arg", "UNDECLARED=u", "--build-arg", "http_proxy=p"),
    ).ok()
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert run(store.cli, "cat", "/tmp/env").splitlines() == [
        "DEFAULT=d",
        "E=1",
        "GIVEN=g",
        "HOME=/",
        path,
        "http_proxy=p",
    ]
    assert run(store.cli, "cat", "/tmp/id", "/tmp/pwd") == "7\n8\n/w\n"
    assert "GIVEN=g" not in config(store.cli)["Env"]


def test_nothing_of_the_base_but_its_files_acts_on_a_step(build: Builds, store: Root) -> None:
    build('FROM base\nRUN mkdir /v\nVOLUME /v\nENTRYPOINT ["/nothing"]\nCMD ["x"]\nHEALTHCHECK CMD false').ok()
    build("FROM it\nRUN echo kept > /v/x").ok()
    # What is in a volume's place after VOLUME is kept, as with BuildKit.
    assert store.cli("run", "--rm", "--entrypoint", "cat", "it", "/v/x").ok().out == "kept\n"
    assert store.cli("volume", "ls", "-q").ok().out == ""


def test_heredocs(build: Builds, store: Root) -> None:
    build(
        "FROM base\nARG A=v\n"
        "RUN <<E\necho \"$A\" > /one\necho two >> /one\nE\n"
        "RUN cat <<-E > /three\n\tx $A\n\tE\n"
        "COPY --chmod=600 <<a <<'b' /d/\n$A \"q\" \\$A\na\n$A\nb\n"
    ).ok()  # fmt: skip
    assert run(store.cli, "cat", "/one", "/three", "/d/a", "/d/b") == 'v\ntwo\nx v\nv "q" $A\n$A\n'
    assert run(store.cli, "stat", "-c", "%a", "/d/a") == "600\n"


COPIES = """
FROM base
COPY one.txt /new/name
COPY one.txt /as-dir/
COPY one.txt t*.txt [x]?.txt /several/
COPY dir /content
COPY dir/sub/ /sub
COPY ["with space", "/sp ace/"]
COPY link.txt /followed
COPY dirlink /followed-dir
COPY --chown=7:8 one.txt /own/
COPY --chown=9 one.txt /number
COPY --chown=daemon dir /named
COPY --chmod=u=rw,go= one.txt /mode
COPY --exclude=*.log --exclude=sub dir /excluded/
COPY --parents ./dir/sub/f /parents/
COPY --parents dir/./sub/f /pivot/
COPY ../../one.txt /outside
COPY nothing*.txt one.txt /some/
COPY empty /empty
RUN ln -s /real /alias && mkdir /real
COPY one.txt /alias/
"""


def test_what_copy_puts_where(build: Builds, store: Root, context: Path) -> None:
    for name in ("one.txt", "two.txt", "three.txt", "xa.txt", "with space"):
        (context / name).write_text(name)
    for name in ("f", "x.log"):
        (context / "dir/sub").mkdir(parents=True, exist_ok=True)
        (context / "dir/sub" / name).write_text(name)
        (context / "dir" / name).write_text(name)
    (context / "dir/f").chmod(0o751)
    (context / "dir/l").symlink_to("f")
    (context / "link.txt").symlink_to("/one.txt")
    (context / "dirlink").symlink_to("dir/sub")
    (context / "empty").mkdir()
    (context / ".dockerignore").write_text("three.txt\n")
    build(COPIES).ok()
    shown = run(store.cli, "sh", "-c", "cd /; find new as-dir several content sub 'sp ace' followed followed-dir own number named mode excluded parents pivot outside some empty real | sort | while read f; do stat -c '%n %A %u:%g' \"$f\"; done")  # fmt: skip
    daemon = run(store.cli, "sh", "-c", "echo $(id -u daemon):$(id -g daemon)").strip()
    assert shown.splitlines() == [
        "as-dir drwxr-xr-x 0:0",
        "as-dir/one.txt -rw-r--r-- 0:0",
        "content drwxr-xr-x 0:0",
        "content/f -rwxr-x--x 0:0",
        "content/l lrwxrwxrwx 0:0",
        "content/sub drwxr-xr-x 0:0",
        "content/sub/f -rw-r--r-- 0:0",
        "content/sub/x.log -rw-r--r-- 0:0",
        "content/x.log -rw-r--r-- 0:0",
        "empty drwxr-xr-x 0:0",
        "excluded drwxr-xr-x 0:0",
        "excluded/f -rwxr-x--x 0:0",
        "excluded/l lrwxrwxrwx 0:0",
        "followed -rw-r--r-- 0:0",
        "followed-dir drwxr-xr-x 0:0",
        "followed-dir/f -rw-r--r-- 0:0",
        "followed-dir/x.log -rw-r--r-- 0:0",
        "mode -rw------- 0:0",
        f"named drwxr-xr-x {daemon}",
        f"named/f -rwxr-x--x {daemon}",
        f"named/l lrwxrwxrwx {daemon}",
        f"named/sub drwxr-xr-x {daemon}",
        f"named/sub/f -rw-r--r-- {daemon}",
        f"named/sub/x.log -rw-r--r-- {daemon}",
        f"named/x.log -rw-r--r-- {daemon}",
        "new drwxr-xr-x 0:0",
        "new/name -rw-r--r-- 0:0",
        "number -rw-r--r-- 9:9",
        "outside -rw-r--r-- 0:0",
        "own drwxr-xr-x 7:8",
        "own/one.txt -rw-r--r-- 7:8",
        "parents drwxr-xr-x 0:0",
        "parents/dir drwxr-xr-x 0:0",
        "parents/dir/sub drwxr-xr-x 0:0",
        "parents/dir/sub/f -rw-r--r-- 0:0",
        "pivot drwxr-xr-x 0:0",
        "pivot/sub drwxr-xr-x 0:0",
        "pivot/sub/f -rw-r--r-- 0:0",
        "real drwxr-xr-x 0:0",
        "real/one.txt -rw-r--r-- 0:0",
        "several drwxr-xr-x 0:0",
        "several/one.txt -rw-r--r-- 0:0",
        "several/two.txt -rw-r--r-- 0:0",
        "several/xa.txt -rw-r--r-- 0:0",
        "some drwxr-xr-x 0:0",
        "some/one.txt -rw-r--r-- 0:0",
        "sp ace drwxr-xr-x 0:0",
        "sp ace/with space -rw-r--r-- 0:0",
        "sub drwxr-xr-x 0:0",
        "sub/f -rw-r--r-- 0:0",
        "sub/x.log -rw-r--r-- 0:0",
    ]


def test_files_that_every_container_has_of_its_own_are_the_images_where_it_says_so(
    build: Builds, store: Root, context: Path
) -> None:
    """They are mounted over in containers: ADD of a whole root failed at /etc/hostname (device or resource busy)."""
    files = {name: f"{name}\n" for name in ("etc/hostname", "etc/hosts", "etc/resolv.conf", "proc/none")}
    with tarfile.open(context / "root.tar", "w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    build(
        "FROM base\nADD root.tar /\nFROM base\nCOPY --from=0 /etc/hosts /etc/hostname /copied/\nADD root.tar /\nCOPY root.tar /etc/hosts"
    ).ok()
    assert run(store.cli, "cat", "/copied/hosts", "/copied/hostname") == "etc/hosts\netc/hostname\n"
    store.cli("build", "-o", str(context / "out"), str(context)).ok()
    assert (context / "out/etc/hostname").read_text() == "etc/hostname\n"
    assert (context / "out/etc/hosts").read_bytes() == (context / "root.tar").read_bytes()
    assert (
        store.cli("run", "--rm", "--network", "none", "--hostname", "own", "it", "cat", "/etc/hostname").ok().out
        == "own\n"
    )


def test_large_holes_stay_holes(build: Builds, store: Root, context: Path) -> None:
    """From 256 MiB on, as in every layer that is written here; smaller ones are zeros, so that where they are does not matter."""
    with (context / "sparse").open("wb") as file:
        file.truncate(300 << 20)
        file.seek(150 << 20)
        file.write(b"middle")
    # Over what is there, from a stage, and into a new layer alone.
    build("FROM base AS one\nRUN echo x > /b\nCOPY sparse /b\nFROM base\nCOPY --from=one /b /d/\nCOPY sparse /").ok()
    middle = "dd if=$f bs=1M skip=150 count=1 2>/dev/null | head -c 6"
    told = run(store.cli, "sh", "-c", f"for f in /d/b /sparse; do stat -c '%s %b' $f; {middle}; echo; done")
    for line, text in zip(told.splitlines()[::2], told.splitlines()[1::2], strict=True):
        size, blocks = map(int, line.split())
        assert (size, blocks < 1000, text) == (300 << 20, True, "middle"), told


def test_add_unpacks_archives_of_the_context(build: Builds, store: Root, context: Path) -> None:
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")):
        with tarfile.open(context / name, mode) as tar:  # type: ignore[call-overload]
            entry = tarfile.TarInfo("in/file")
            entry.size, entry.uid = 2, 5
            tar.addfile(entry, io.BytesIO(b"x\n"))
    (context / "plain.tar").write_text("no archive\n")
    build("FROM base\nADD a.tar /1\nADD a.tar.gz /2/\nADD a.tar.xz /3\nADD --unpack=false a.tar /4/\nADD plain.tar /5/\nCOPY a.tar /6/").ok()  # fmt: skip
    names = run(store.cli, "sh", "-c", "find /1 /2 /3 /4 /5 /6 -type f | sort").split()
    assert names == ["/1/in/file", "/2/in/file", "/3/in/file", "/4/a.tar", "/5/plain.tar", "/6/a.tar"]
    assert run(store.cli, "stat", "-c", "%u", "/1/in/file") == "5\n"


def test_stages(build: Builds, store: Root) -> None:
    text = (
        "FROM base AS unused\nRUN false\n"
        "FROM base AS one\nENV X=1\nRUN echo 1 > /1\n"
        "FROM one AS two\nRUN echo $X > /2; chown 3:4 /2\n"
        "FROM scratch AS last\nCOPY --from=TWO /1 /2 /\nCOPY --from=1 /1 /by-number\nCOPY --from=base /bin /bin\n"
    )
    build(text).ok()
    assert run(store.cli, "/bin/sh", "-c", "cat /1 /2 /by-number; stat -c %u:%g /2") == "1\n1\n1\n3:4\n"
    build(text, "--target", "two").ok()
    assert run(store.cli, "sh", "-c", "echo $X") == "1\n"
    assert "RUN false" not in build(text).err


def test_onbuild_is_carried_out_by_who_builds_on_it(build: Builds, store: Root, context: Path) -> None:
    (context / "f").write_text("x\n")
    build("FROM base\nWORKDIR /w\nONBUILD COPY f .\nONBUILD RUN cat f > g").ok()
    build("FROM it\nRUN echo more >> g").ok()
    assert run(store.cli, "cat", "/w/g") == "x\nmore\n"
    assert not config(store.cli)["OnBuild"]


# The cache


def test_what_is_the_same_is_not_done_again(build: Builds, store: Root, context: Path) -> None:
    (context / "f").write_text("1")
    text = "FROM base\nRUN echo 1 > /a\nCOPY f /f\nRUN cat /f > /b"
    assert [step.rpartition(" ")[2] for step in steps(build(text).ok())] == ["DONE", "DONE", "DONE"]
    os.utime(context / "f", (1, 1))
    (context / "unused").write_text("x")
    assert [step.rpartition(" ")[2] for step in steps(build(text).ok())] == ["CACHED", "CACHED", "CACHED"]
    (context / "f").write_text("2")
    assert [step.rpartition(" ")[2] for step in steps(build(text).ok())] == ["CACHED", "DONE", "DONE"]
    assert run(store.cli, "cat", "/b") == "2"
    (context / "f").chmod(0o755)
    assert [step.rpartition(" ")[2] for step in steps(build(text).ok())] == ["CACHED", "DONE", "DONE"]
    assert [step.rpartition(" ")[2] for step in steps(build(text, "--no-cache").ok())] == ["DONE", "DONE", "DONE"]


@pytest.mark.parametrize(
    ("before", "after", "cached"),
    [
        ("ARG A=1\nRUN echo $A > /x", "ARG A=2\nRUN echo $A > /x", False),
        ("ENV A=1\nRUN echo $A > /x", "ENV A=2\nRUN echo $A > /x", False),
        ("USER 1\nRUN id > /tmp/x", "USER 2\nRUN id > /tmp/x", False),
        ("WORKDIR /tmp\nRUN pwd > /tmp/x", "WORKDIR /etc\nRUN pwd > /tmp/x", False),
        ("RUN --network=none echo 1 > /x", "RUN --network=default echo 1 > /x", False),
        ("SHELL [\"/bin/sh\", \"-c\"]\nRUN echo 3 > /x", "SHELL [\"/bin/ash\", \"-c\"]\nRUN echo 3 > /x", False),
        # What a command cannot see does not change what it makes.
        ("LABEL a=1\nRUN echo 4 > /x", "LABEL a=2\nRUN echo 4 > /x", True),
        ("HEALTHCHECK NONE\nRUN echo 5 > /x", "ONBUILD RUN x\nRUN echo 5 > /x", True),
        ("COPY <<A /x\n1\nA", "COPY <<A /x\n2\nA", False),
        ("COPY --chown=1 <<A /x\n1\nA", "COPY --chown=2 <<A /x\n1\nA", False),
    ],
)  # fmt: skip
def test_what_a_step_depends_on(build: Builds, before: str, after: str, cached: bool) -> None:
    build(f"FROM base\n{before}", "--network", "default").ok()
    last = steps(build(f"FROM base\n{after}", "--network", "default").ok())[-1]
    assert last.endswith("CACHED" if cached else "DONE")


def test_images_that_differ_only_in_their_configuration_are_never_taken_for_one(build: Builds, store: Root) -> None:
    """CVE-2024-24557: a cached parent that differs in HEALTHCHECK or ONBUILD."""
    build("FROM base\nRUN echo 6 > /x\nONBUILD RUN echo bad > /bad\nHEALTHCHECK CMD bad").ok()
    build("FROM base\nRUN echo 6 > /x\nHEALTHCHECK CMD good").ok()
    assert config(store.cli)["Healthcheck"]["Test"] == ["CMD-SHELL", "good"]
    build("FROM it\nRUN true").ok()
    assert store.cli("run", "--rm", "it", "ls", "/bad").code != 0


def test_a_cache_that_leads_to_nothing_is_built_again(new_root: Root, context: Path) -> None:
    text = "FROM base\nRUN echo 1 > /x"
    Builds(new_root, context)(text).ok()
    cache = new_root.root / "build" / "cache"
    (entry,) = (path for path in cache.iterdir() if not path.suffix)
    blob = json.loads(entry.read_bytes())["blob"].removeprefix("sha256:")
    new_root.cli("rmi", "it").ok()
    new_root.cli("image", "prune", "-a", "-f").ok()
    # The cache is what it was: removing images takes nothing from it.
    assert steps(Builds(new_root, context)(text).ok()) == ["RUN echo 1 > /x: CACHED"]
    (new_root.root / "content" / "sha256" / blob).unlink()
    assert steps(Builds(new_root, context)(text).ok()) == ["RUN echo 1 > /x: DONE"]
    entry.write_bytes(b'{"image": "../../etc"}')
    assert steps(Builds(new_root, context)(text).ok()) == ["RUN echo 1 > /x: DONE"]
    assert new_root.cli("system", "check").ok().out == "nothing found\n"


def test_source_date_epoch(build: Builds, store: Root) -> None:
    build("FROM base\nRUN echo 8 > /x\nLABEL a=b", "--build-arg", "SOURCE_DATE_EPOCH=1000000000").ok()
    document = json.loads(store.cli("image", "inspect", "it").ok().out)[0]
    assert document["Created"] == "2001-09-09T01:46:40Z"


# Other ways to give one


def test_dockerfiles_from_elsewhere(store: Root, context: Path) -> None:
    cli = store.cli
    text = "FROM base\nCOPY f /f\n"
    (context / "f").write_text("here\n")
    (context / "g").write_text("x")
    cli("build", "-t", "it", "-f", "-", str(context), input=text).ok()
    assert run(cli, "cat", "/f") == "here\n"
    cli("build", "-t", "it", "-", input="FROM base\nRUN echo piped > /f").ok()
    assert run(cli, "cat", "/f") == "piped\n"
    other = context / "sub" / "other.Dockerfile"
    other.parent.mkdir()
    other.write_text("FROM base\nCOPY . /all\n")
    (context / ".dockerignore").write_text("g")
    (context / "sub" / "other.Dockerfile.dockerignore").write_text("*\n!g")
    cli("build", "-t", "it", "-f", str(other), str(context)).ok()
    assert run(cli, "ls", "/all") == "g\n", "the ignore file of the Dockerfile counts alone"


def test_check(store: Root, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM base AS Build\nENV PATH=$PAHT:/x\n")
    done = store.cli("build", "--check", str(context))
    assert done.code == 1
    assert "WARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/" in done.out
    assert "Usage of undefined variable '$PAHT' (did you mean $PATH?)\nDockerfile:2\n" in done.out
    assert done.out.endswith("Check complete, 2 warnings have been found!\n")
    (context / "Dockerfile").write_text("FROM base\n")
    assert store.cli("build", "--check", str(context)).ok().out == "Check complete, no warnings found.\n"
    (context / "Dockerfile").write_text("# check=error=true\nFROM base AS Build\n")
    assert "lint violation found for rules: StageNameCasing" in store.cli("build", str(context)).err
