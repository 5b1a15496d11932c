"""Builds that fail, are killed, find the disk full, or have others beside them: what is told, and that nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.builds import Builds, build, context, steps, store
from support.command import Result
from support.patience import eventually
from support.roots import Root, small_root

__all__ = ["build", "context", "store"]

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("FROM base\nRUN exit 7", 2, 'process "/bin/sh -c exit 7" did not complete successfully: exit code: 7'),
        ("FROM base\nCOPY confg.yml /", 2, '"/confg.yml": not found (there is: config.yml)'),
        ("FROM base\nCOPY secret /", 2, '"/secret": not found: it is excluded by .dockerignore'),
        ("FROM localhost:1/nope:1", 1, "localhost:1"),
        ("FROM base\nCOPY --from=localhost:1/nope /a /b", 2, "localhost:1"),
        ("FROM base\nCOPY escape/passwd /x", 2, '"/etc/passwd": not found'),
        ("FROM base\nCOPY up /x", 2, "not found"),
        ("FROM base\nCOPY --chown=nobodyx config.yml /x", 2, "unable to find user nobodyx"),
        ("FROM base\nCOPY --chmod=9 config.yml /x", 2, "invalid chmod parameter: '9'"),
        ("FROM base\nCOPY config.yml config.yml /x", 2, "the destination must be a directory and end with a /"),
        ("FROM base\nCOPY config.yml /bin/sh/x", 2, "cannot copy to non-directory: /bin/sh"),
        ("FROM base\nCOPY [a /x /y", 2, "syntax error in pattern"),
        ("FROM base\nRUN --mount=type=ssh x", 2, "RUN --mount=type=ssh is not supported"),
        ("FROM base\nRUN --security=insecure x", 2, "is not allowed"),
        ("FROM base\nADD ftp://example.com/x /", 2, "the protocol is not known"),
        ("FROM base\nUSER nobodyx\nRUN true", 3, "unable to find user nobodyx"),
        ('FROM base\nRUN ["/nope"]', 2, 'exec: "/nope"'),
        ("FROM base\nRNU x", 2, "unknown instruction: RNU (did you mean RUN?)"),
        ("FROM base\nENV A=${B:?needed}", 2, "B: needed"),
        ("FROM base AS a\nCOPY --from=a /x /y", 1, "circular dependency"),
        ("FROM base\nEXPOSE $P", 2, ""),
    ],
)
def test_a_failure_tells_the_lines_and_leaves_nothing(
    build: Builds, store: Root, context: Path, text: str, line: int, message: str
) -> None:
    (context / "config.yml").write_text("x")
    (context / "secret").write_text("x")
    (context / ".dockerignore").write_text("secret\n")
    (context / "escape").symlink_to("/etc")
    (context / "up").symlink_to("../../../../../etc/passwd")
    before = store.state()
    done = build(text, "-t", "failed")
    if not message:
        done.ok()
        return
    assert done.code == 1
    assert message in done.err.splitlines()[-1]
    assert done.err.splitlines()[-1].startswith("ERROR: failed to build: failed to solve: ")
    assert f"Dockerfile:{line}\n--------------------\n" in done.err
    assert ">>> " + text.splitlines()[line - 1] in done.err
    assert store.cli("images", "-q", "failed").ok().out == ""
    before.check()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere",), 'unable to prepare context: path "nowhere" not found'),
        (("ftp://example.com/x",), "the protocol is not known"),
        (("-f", "nowhere", "."), "failed to read dockerfile: open "),
        (("--target", "x", "."), 'target stage "x" could not be found'),
        (("-t", "Bad Name", "."), "invalid reference format"),
        (("--platform", "linux/s390x", "."), "cannot run programs of another"),
        (("--progress", "fancy", "."), "invalid progress mode"),
        (("-f", "-", "-"), "can't use stdin for both"),
        (("--build-arg", "=x", "."), "invalid build argument"),
    ],
)
def test_a_wrong_command_line(store: Root, context: Path, args: tuple[str, ...], message: str) -> None:
    (context / "Dockerfile").write_text("FROM scratch")
    done = store.cli("build", *args, cwd=str(context))
    assert done.code == 1
    assert message in done.err


LONG = "FROM base\nRUN echo 1 > /x\nRUN echo begun; sleep 1000\n"


@contextmanager
def begun(root: Root, context: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A build of LONG that is in its last command."""
    (context / "Dockerfile").write_text(LONG)
    with root.cli.start("build", "--network", "none", str(context), stderr=-1) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.endswith(b" begun\n"):
                break
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_and_keeps_the_cache(new_root: Root, context: Path, number: int) -> None:
    with begun(new_root, context) as process:
        process.send_signal(number)
        assert process.wait() in (130, -number)
    assert new_root.cli("ps", "-aq").ok().out == ""
    assert steps(Builds(new_root, context)(LONG.replace("sleep 1000", "true")).ok())[0].endswith("CACHED")
    assert new_root.cli("system", "check").ok().out == "nothing found\n"


def test_a_killed_build_leaves_a_store_that_is_whole(new_root: Root, context: Path) -> None:
    with begun(new_root, context) as process:
        # The step before is written while this one runs: the disk is given its moment.
        eventually(
            lambda: any(not name.name.endswith(".made-of") for name in (new_root.root / "build/cache").glob("*"))
        )
        process.kill()
        process.wait()
    # The container of the step that ran goes with the next look.
    assert new_root.cli("ps", "-a", "-q").ok().out == ""
    assert steps(Builds(new_root, context)(LONG.replace("sleep 1000", "true")).ok())[0].endswith("CACHED")
    # What an image stands on is on the disk.
    assert list((new_root.root / "layers").glob("*/unsynced")) == []
    assert new_root.cli("system", "check").ok().out == "nothing found\n"


def test_a_full_disk(test_directory: str, context: Path) -> None:
    """While a command writes, and while files are copied: each is told, nothing is left of it, and what was done before is in the cache."""
    before = "FROM base\nRUN echo small > /x\n"
    (context / "big").write_bytes(os.urandom(48 << 20))
    with small_root(Path(test_directory) / "full", "40m") as root:
        for step in (
            "RUN dd if=/dev/zero of=/big bs=1M count=100",
            "COPY big /big",
            "RUN --mount=type=bind,target=/c cp /c/big /",
        ):
            (context / "Dockerfile").write_text(f"{before}{step}\n")
            done = root.cli("build", "-t", "it", "--network", "none", str(context))
            assert done.code == 1
            assert "exit code: 1" in done.err or "no space left" in done.err
            assert "Traceback" not in done.err
            assert root.cli("ps", "-aq").ok().out == ""
        (context / "Dockerfile").write_text(before)
        done = root.cli("build", "-t", "it", "--network", "none", str(context)).ok()
        assert steps(done) == ["RUN echo small > /x: CACHED"]
        assert root.cli("system", "check").ok().out == "nothing found\n"


def test_builds_at_the_same_time(new_root: Root, tmp_path: Path) -> None:
    new_root.cli("run", "--rm", "base", "true").ok()
    done: list[Result] = []

    def one(number: int) -> None:
        place = tmp_path / str(number)
        place.mkdir()
        # Half of them are one Dockerfile.
        text = f"FROM base\nRUN echo same > /x\nRUN echo {number // 2 * 2 % 6} > /y\nCOPY Dockerfile /z\n"
        (place / "Dockerfile").write_text(text)
        done.append(new_root.cli("build", "-t", f"it:{number}", "--network", "none", str(place), timeout=180))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.code for result in done] == [0] * 8, "\n".join(map(str, done))
    told = new_root.cli("image", "inspect", *(f"it:{number}" for number in range(8))).ok().out
    images = [image["Id"] for image in json.loads(told)]
    assert len(set(images)) == 3
    assert images[0] == images[1] == images[6] == images[7]
    said = new_root.cli("run", "--rm", "--network", "none", "it:4", "cat", "/x", "/y").ok().out
    assert said == "same\n4\n"
    assert new_root.cli("system", "check").ok().out == "nothing found\n"
    eventually(lambda: new_root.cli("ps", "-aq").ok().out == "")
