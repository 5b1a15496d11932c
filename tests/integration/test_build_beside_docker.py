"""The same Dockerfiles built by `sampan build` and by a real Docker: the images have the same configuration and the same files.

For all that Docker's classic builder has; what only BuildKit has is in tests/integration (docs/build.md has the table). The daemon
is the one that PEER_DOCKER_HOST names.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.builds import Builds
from support.roots import Root

pytestmark = [pytest.mark.peer, pytest.mark.root]

_NAME = "beside-docker"
# What an engine puts into every container itself.
_OURS = (".dockerenv", "dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "etc")

START = "FROM scratch\nADD root.tar /\n"
CASES = {
    "env": "ENV A=1 B=$A C='x y' D=\"q $A\"\nENV E ${A:-z} e\nENV F=${NO:-d} G=${A:+set} H=a\\ b I='$A' J=\\$A",
    "env of run": "ENV A=1\nRUN echo $A $B ${C:-c} > /out; echo \"$PATH\" >> /out; pwd >> /out; id -u >> /out",
    "arg": "ARG A=1\nARG B\nENV A2=$A B2=$B\nRUN echo $A-$B > /out",
    "arg given": "ARG GIVEN=no\nARG http_proxy\nENV G=$GIVEN\nRUN echo $GIVEN > /out",
    "arg before from": "",
    "label": "LABEL a=b 'c d'=\"e f\" g=h\\ i\nLABEL old style value\nLABEL multi=1 \\\n  line=2",
    "workdir": "WORKDIR /a\nWORKDIR b\nWORKDIR ../c\nENV D=/e\nWORKDIR $D/f\nRUN pwd > out",
    "user": "RUN mkdir /w && chown 5:6 /w\nUSER 5:6\nRUN id -u > /w/out; id -g >> /w/out\nUSER daemon\nRUN id -u > /tmp/out2",
    "user in workdir": "USER 5:6\nWORKDIR /made/by\nUSER 0\nRUN stat -c %u:%g /made/by > /out",
    "volume": "VOLUME /v1 /v2\nVOLUME [\"/v 3\"]",
    "expose": "EXPOSE 80 81/udp\nEXPOSE 90-92/tcp\nENV P=70\nEXPOSE $P",
    "cmd": "CMD echo hi $HOME",
    "cmd exec": "CMD [\"a\", \"b c\", \"$HOME\"]",
    "entrypoint resets cmd": "CMD [\"x\"]\nENTRYPOINT [\"y\"]",
    "entrypoint then cmd": "ENTRYPOINT [\"y\"]\nCMD [\"x\"]",
    "entrypoint shell": "ENTRYPOINT exec y z",
    "cmd none": "CMD []\nENTRYPOINT []",
    "shell": "SHELL [\"/bin/sh\", \"-ec\"]\nRUN echo $0 > /out\nCMD x y",
    "stopsignal": "STOPSIGNAL SIGTERM\nENV S=9\nSTOPSIGNAL $S",
    "healthcheck": "HEALTHCHECK --interval=5s --timeout=2s --start-period=1m --retries=4 CMD test -e /x",
    "healthcheck exec": "HEALTHCHECK CMD [\"a\", \"b\"]",
    "healthcheck none": "HEALTHCHECK CMD x\nHEALTHCHECK NONE",
    "onbuild": "ONBUILD RUN echo x\nONBUILD COPY a /b\nONBUILD ENV A=$B",
    "maintainer": "MAINTAINER somebody <a@b>",
    "run exec": "RUN [\"sh\", \"-c\", \"echo $0 > /out\"]",
    "run lines": "RUN echo a \\\n# a comment\n  b \\\n\n c > /out",
    "copy file": "COPY f /f1\nCOPY f /d1/\nCOPY f /d2/g\nWORKDIR /w\nCOPY f .\nCOPY f rel",
    "copy directory": "COPY dir /d1\nCOPY dir/ /d2/\nCOPY dir /existing/\nCOPY dir/sub dir/x /two/",
    "copy patterns": "COPY *.txt /p/\nCOPY d?r/x /q/\nCOPY [d]ir/* /r/",
    "copy names": "COPY [\"with space\", \"/with space 2\"]\nENV N=f\nCOPY $N /$N.copy",
    "copy dot": "COPY . /all/",
    "copy chown": "COPY --chown=5:6 dir /c1\nCOPY --chown=daemon f /c2\nCOPY --chown=daemon:7 f /c3\nCOPY --chown=8 f /c4",
    "copy over": "RUN mkdir -p /o/sub && echo old > /o/x && chmod 700 /o/sub\nCOPY dir /o",
    "copy through links": "RUN mkdir /real && ln -s /real /link && ln -s real /rel\nCOPY f /link/\nCOPY f /rel/g",
    "copy link": "COPY link /l1\nCOPY links /l2",
    "copy modes": "COPY modes /m\nCOPY modes/run /r",
    "add file": "ADD f /a1\nADD dir /a2",
    "add archive": "ADD files.tar /t1\nADD files.tgz /t2/\nADD files.tar f /t3/",
    "add no archive": "ADD broken.tar /b1",
    "stages": "RUN mkdir /o && echo built > /o/f && chown 3:4 /o/f && ln -s f /o/l\nFROM scratch AS second\nCOPY --from=0 /o /copied\nCOPY --from=0 /o/l /deref\nADD root.tar /\nFROM second\nCOPY --from=second /copied/f /again",
    "a whole stage": "RUN echo 1 > /one\nFROM scratch\nADD root.tar /\nCOPY --from=0 / /all",
    "stage of a target": "",
    "deletes": "RUN mkdir /x && echo 1 > /x/a\nRUN rm -r /x && echo 2 > /y\nRUN mkdir /x && echo 3 > /x/b",
    "escape": "",
    "ignored": "COPY . /i/",
}  # fmt: skip
WHOLE = {
    "stage of a target": (
        'FROM scratch AS wanted\nADD root.tar /\nRUN echo 1 > /one\nFROM scratch AS last\nRUN ["/no/such"]',
        ("--target", "wanted"),
    ),
    "arg before from": ("ARG IT=scratch\nFROM $IT\nADD root.tar /\nARG IT\nENV I=$IT", ()),
    "escape": ("# escape=`\nFROM scratch\nADD root.tar /\nRUN echo a `\n b > /out\nENV A=`$x B=\\y", ()),
}
FLAGS = {
    "arg given": ("--build-arg", "GIVEN=yes", "--build-arg", "http_proxy=p"),
    "label": ("--label", "by=flag"),
}
IGNORE = {"ignored": "*.txt\ndir\n!dir/x\n**/sub\n# comment\nwith*\n"}
KEYS = (
    *("Env", "Cmd", "Entrypoint", "Labels", "ExposedPorts", "Volumes", "WorkingDir", "User", "OnBuild", "StopSignal"),
    *("Shell", "Healthcheck"),
)


def docker(*arguments: str, data: bytes | None = None) -> bytes:
    environment = {**os.environ, "DOCKER_HOST": os.environ["PEER_DOCKER_HOST"], "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(["docker", *arguments], env=environment, input=data, capture_output=True, check=False)
    assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


@pytest.fixture(scope="module")
def build(test_directory: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builds]:
    made = Root(Path(test_directory) / f"beside-docker-{os.getpid()}")
    place = tmp_path_factory.mktemp("context")
    builds = Builds(made, place)
    _fill(builds)
    yield builds
    made.delete()


def _fill(build: Builds) -> None:
    with tarfile.open(build.context / "root.tar", "w") as tar:
        for name in ("bin", "etc", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        for name, content in (
            ("etc/passwd", b"root:x:0:0::/root:/bin/sh\ndaemon:x:1:2::/:/bin/sh\n"),
            ("etc/group", b"root:x:0:\ndaemon:x:2:\n"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        busybox = shutil.which("busybox")
        assert busybox, "busybox (static) is needed"
        tar.add(os.path.realpath(busybox), "bin/busybox")
        for applet in ("sh", "echo", "id", "stat", "mkdir", "chown", "chmod", "ln", "rm", "pwd", "test"):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    for name in ("f", "a.txt", "b.txt", "with space", "dir/x", "dir/sub/y", "links/file", "modes/plain"):
        build.put(name, f"{name}\n")
    build.put("modes/run", "run\n", 0o755)
    build.put("modes/private", "p\n", 0o600)
    (build.context / "link").symlink_to("f")
    (build.context / "links" / "l").symlink_to("file")
    (build.context / "links" / "dangling").symlink_to("/nowhere")
    for name, mode in (("files.tar", "w"), ("files.tgz", "w:gz")):
        with tarfile.open(build.context / name, mode) as tar:  # type: ignore[call-overload]
            entry = tarfile.TarInfo("deep/packed")
            entry.size, entry.uid, entry.gid, entry.mode = 2, 7, 8, 0o640
            tar.addfile(entry, io.BytesIO(b"p\n"))
    build.put("broken.tar", "no archive\n")


def tree(archive: bytes) -> dict[str, tuple[object, ...]]:
    """The files of an exported container, but for what its engine made."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for one in tar:
            name = one.name.strip("/").removeprefix("./")
            if not name or name in _OURS or name.startswith(("dev/", "proc/", "sys/")):
                continue
            kind = tarfile.REGTYPE if one.type == tarfile.LNKTYPE else one.type
            file = tar.extractfile(one) if one.isfile() or one.islnk() else None
            content = hashlib.sha256(file.read()).hexdigest() if file else ""
            found[name] = (kind, oct(one.mode & 0o7777), one.uid, one.gid, "" if one.islnk() else one.linkname, content)
    return found


def of_docker(text: str, context: Path, flags: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    (context / "Dockerfile").write_text(text)
    docker("build", "-q", "--no-cache", "-t", _NAME, "--network", "none", *flags, str(context))
    config = json.loads(docker("image", "inspect", _NAME))[0]["Config"]
    container = docker("create", "--network", "none", _NAME, "x").decode().strip()
    try:
        return config, tree(docker("export", container))
    finally:
        docker("rm", container)
        docker("rmi", _NAME)


def of_ours(build: Builds, text: str, flags: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    build(text, *flags).ok()
    config = build.inspect()["Config"]
    container = build.cli("create", "--network", "none", "it", "x").ok().out.strip()
    archive = build.cli("export", container).ok().out_bytes
    build.cli("rm", container).ok()
    return config, tree(archive)


@pytest.mark.parametrize("case", CASES)
def test_the_image_is_the_same(build: Builds, case: str) -> None:
    text, flags = WHOLE.get(case, (f"{START}{CASES[case]}", FLAGS.get(case, ())))
    flags = FLAGS.get(case, flags)
    ignore = build.context / ".dockerignore"
    ignore.write_text(IGNORE.get(case, ""))
    theirs, ours = of_docker(text, build.context, flags), of_ours(build, text, flags)
    for config in (theirs[0], ours[0]):
        # What a stage without a base begins with: "/" with BuildKit, nothing with the classic builder. It is the same place.
        config["WorkingDir"] = config.get("WorkingDir") or "/"
    for key in KEYS:
        assert (key, ours[0].get(key) or None) == (key, theirs[0].get(key) or None)
    assert ours[1] == theirs[1]
