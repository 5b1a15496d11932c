"""The back of the builder: what is the same on another day, what the cache keeps and gives back, what others do meanwhile."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.builds import Builds
from support.patience import eventually
from support.roots import Root

pytestmark = pytest.mark.root

_DOCKERFILE = """FROM base AS one
RUN mkdir -p /made/deep && echo made > /made/deep/file && ln -s deep /made/link && date > /made/second && rm /made/second
WORKDIR /work
COPY tree .
COPY tree/a /etc/a
COPY <<EOF /heredoc
text
EOF
ADD archive.tar /unpacked/
FROM base
COPY --from=one /made /taken
COPY --from=one --chown=7:8 /work /work
RUN rm -r /work/sub && echo $SOURCE_DATE_EPOCH > /epoch
LABEL a=b
"""


def _fill(builds: Builds, age: int) -> None:
    """The same context, put on the disk at another time."""
    import io
    import tarfile

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("old")
        member.size, member.mtime = 3, 1_000_000_000
        tar.addfile(member, io.BytesIO(b"old"))
    builds.put("archive.tar", archive.getvalue())
    for name in ("tree/a", "tree/sub/b", "tree/sub/c"):
        path = builds.put(name, name)
        os.utime(path, (age, age))
        os.utime(path.parent, (age, age))


def test_the_same_input_gives_the_same_image_on_another_day_and_in_another_root(new_root: Root, tmp_path: Path) -> None:
    first = Builds(new_root, tmp_path / "one")
    _fill(first, 1_700_000_000)
    first(_DOCKERFILE, "--no-cache").ok()
    document = first.inspect()
    # Nothing of it is younger than the base.
    (base,) = json.loads(new_root.cli("image", "inspect", "base").ok().out)
    assert document["Created"][:19] == base["Created"][:19]
    newest = int(
        first.run("sh", "-c", "find /taken /work /etc/a /epoch /heredoc -exec stat -c %Y {} + | sort -n | tail -1")
    )
    assert newest == int(first.run("cat", "/epoch"))

    other_root = Root(tmp_path / "other")
    try:
        second = Builds(other_root, tmp_path / "two")
        _fill(second, 1_600_000_000)
        second(_DOCKERFILE, "--no-cache").ok()
        assert second.inspect()["Id"] == document["Id"]
        assert second.run("stat", "-c", "%u:%g", "/work/a") == "7:8\n"
        assert other_root.cli("system", "check", "--deep").ok().out == "nothing found\n"
    finally:
        other_root.delete()
    # What was unpacked is what its archive says, also where the writable directory became the layer.
    assert new_root.cli("system", "check", "--deep").ok().out == "nothing found\n"


def test_what_the_cache_keeps_is_told_and_given_back(new_root: Root, tmp_path: Path) -> None:
    builds = Builds(new_root, tmp_path / "context")
    text = "FROM base\nRUN head -c 300000 /dev/urandom > /x\nRUN true\n"
    builds(text).ok()
    facts = new_root.engine().system.df()
    layer, empty = facts["BuildCache"]
    assert (layer["Shared"], layer["DiskSize"], layer["Size"], layer["UsageCount"]) == (True, 0, 300000, 0)
    assert (empty["Size"], empty["Parents"]) == (0, [layer["ID"]])
    # What an image has too costs nothing, and stays unless --all is given.
    assert "Total reclaimed space: 0B" in new_root.cli("builder", "prune", "-f").ok().out
    new_root.cli("rmi", "it").ok()
    assert "CACHED" in builds(text).ok().err
    new_root.cli("rmi", "it").ok()
    held = new_root.engine().system.df()["BuildCache"][0]
    assert held["DiskSize"] >= 600000
    assert held["UsageCount"] == 1
    line = (
        new_root.cli("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Reclaimable}}").ok().out.splitlines()[-1]
    )
    assert line.startswith("Build Cache 2")
    assert line.endswith("(100%)")
    for flags in (("--filter", "until=1h"), ("--keep-storage", "1g"), ("--filter", f"id={'0' * 12}"), ("--dry-run",)):
        new_root.cli("builder", "prune", "-a", "-f", *flags).ok()
        assert len(new_root.engine().system.df()["BuildCache"]) == 2
    done = new_root.cli("builder", "prune", "-f").ok().out
    assert held["ID"] in done
    assert new_root.engine().system.df()["BuildCache"] == []
    assert new_root.cli("system", "check").ok().out == "nothing found\n"
    builds(text).ok()
    assert new_root.cli("system", "prune", "-a", "-f").ok().out.count("build cache objects") == 1
    assert new_root.engine().system.df()["BuildCache"] == []
    assert "invalid filter 'nonsense'" in new_root.cli("builder", "prune", "-f", "--filter", "nonsense=1").err


def test_what_is_made_again_is_written_again_only_if_it_is_another_one(new_root: Root, tmp_path: Path) -> None:
    builds = Builds(new_root, tmp_path / "context")
    for number in range(20):
        builds.put(f"tree/{number % 3}/{number}", str(number))

    def written(text: str) -> tuple[str, int, int]:
        """The image, and how many layers were written by a copy and unpacked from its archive."""
        builds.put("Dockerfile", text)
        done = builds.cli("--debug", "build", "--no-cache", "--network", "none", "-q", "-t", "it", str(builds.context))
        said = done.ok().err.splitlines()
        assert new_root.cli("ps", "-aq").ok().out == ""
        begun = [sum(line.startswith(f"engine   {verb} layer ") for line in said) for verb in ("write", "unpack")]
        return done.out, begun[0], begun[1]

    new_root.cli("run", "--rm", "--network", "none", "base", "true").ok()  # so that base is unpacked
    same = "FROM base\nWORKDIR /new\nCOPY tree /tree\n"
    first, *made = written(same)
    assert made == [2, 0]
    again, *made = written(same)
    assert made == [0, 0]
    assert again == first
    # The key is the same and what is below it is not: the guess that the layer is there was wrong.
    other = "FROM base\nRUN head -c 16 /dev/urandom > /random\nCOPY tree /tree\n"
    first, *made = written(other)
    assert made == [1, 0]
    again, *made = written(other)
    assert made == [0, 1]
    assert again != first
    assert builds.run("sh", "-c", "cat /tree/*/* | wc -c") == "30\n"
    assert new_root.cli("system", "check", "--deep").ok().out == "nothing found\n"


def test_what_cache_mounts_keep_is_told_and_pruned_unless_a_step_uses_it(new_root: Root, tmp_path: Path) -> None:
    builds = Builds(new_root, tmp_path / "context")
    builds("FROM base\nRUN --mount=type=cache,target=/old head -c 3000000 /dev/urandom > /old/x").ok()
    builds.put(
        "Dockerfile", "FROM base\nRUN --mount=type=cache,target=/used echo begun; until test -e /go; do sleep 0.1; done"
    )
    process = new_root.cli.start("build", "--network", "none", str(builds.context), stderr=-1)
    assert process.stderr is not None
    for line in process.stderr:
        if line.endswith(b" begun\n"):
            break
    mounts = [one for one in new_root.engine().system.df()["BuildCache"] if one["Type"] == "exec.cachemount"]
    found = {one["Description"]: one for one in mounts}
    assert {name: one["InUse"] for name, one in found.items()} == {
        "cached mount /old": False,
        "cached mount /used": True,
    }
    old = found["cached mount /old"]
    assert 3_000_000 <= old["DiskSize"] < 3_100_000
    assert "exec.cachemount" in new_root.cli("system", "df", "-v").ok().out
    done = new_root.cli("builder", "prune", "-f", "--filter", "type=exec.cachemount").ok().out
    assert old["ID"] in done
    assert "Total reclaimed space: 3." in done
    (container,) = new_root.cli("ps", "-q").ok().out.split()
    new_root.cli("exec", container, "touch", "/go").ok()
    rest = process.stderr.read()
    assert process.wait(60) == 0, rest
    process.stderr.close()
    kept = [one for one in new_root.engine().system.df()["BuildCache"] if one["Type"] == "exec.cachemount"]
    assert [one["Description"] for one in kept] == ["cached mount /used"]
    new_root.cli("builder", "prune", "-af").ok()
    assert new_root.engine().system.df()["BuildCache"] == []
    assert not any((new_root.root / "build" / "mounts").iterdir())


def test_prunes_in_the_middle_of_a_build_take_nothing_from_it(new_root: Root, tmp_path: Path) -> None:
    builds = Builds(new_root, tmp_path / "context")
    builds("FROM base\nRUN echo cached > /cached").ok()
    new_root.cli("rmi", "it").ok()
    text = "FROM base\nRUN echo cached > /cached\nRUN echo made > /made\nRUN echo begun; until test -e /go; do sleep 0.1; done\nRUN cat /cached /made"
    builds.put("Dockerfile", text)
    process = new_root.cli.start("build", "-t", "it", "--network", "none", str(builds.context), stderr=-1)
    assert process.stderr is not None
    for line in process.stderr:
        if line.endswith(b" begun\n"):
            break
    for verb in (
        ("image", "prune", "-a"),
        ("builder", "prune", "-a"),
        ("system", "prune", "-a"),
        ("container", "prune"),
    ):
        new_root.cli(*verb, "-f").ok()
    (container,) = new_root.cli("ps", "-q").ok().out.split()
    new_root.cli("exec", container, "touch", "/go").ok()
    rest = process.stderr.read()
    assert process.wait(60) == 0, rest
    process.stderr.close()
    assert builds.run("cat", "/cached", "/made") == "cached\nmade\n"
    eventually(lambda: new_root.cli("ps", "-aq").ok().out == "")
    assert new_root.cli("system", "check").ok().out == "nothing found\n"


_TWO = """FROM base AS one
RUN --mount=type=cache,target=/meet touch /meet/one; until test -e /meet/two; do sleep 0.05; done; echo 1 > /one
FROM base AS two
RUN --mount=type=cache,target=/meet touch /meet/two; until test -e /meet/one; do sleep 0.05; done; echo 2 > /two
FROM base AS unused
RUN false
FROM base
COPY --from=one /one /
COPY --from=two /two /
"""


def test_stages_that_do_not_need_each_other_are_built_at_the_same_time(new_root: Root, tmp_path: Path) -> None:
    """Each of the two waits for the other: one after the other they would wait for ever. The third is not needed, and fails."""
    builds = Builds(new_root, tmp_path / "context")
    told = builds(_TWO, timeout=120).ok().err
    assert builds.run("cat", "/one", "/two") == "1\n2\n"
    assert "unused" not in told
    # What each of them said is kept apart.
    numbers = {line.split(" ", 1)[0] for line in told.splitlines() if "[one 2/2]" in line or "[two 2/2]" in line}
    assert len(numbers) == 2
    assert all(f"{number} DONE" in told for number in numbers)

    # One that fails ends the other, and is what is told.
    failing = _TWO.replace("echo 1 > /one", "echo lost; exit 3").replace("echo 2 > /two", "sleep 1000")
    done = builds(failing, timeout=120)
    assert done.code == 1
    assert "did not complete successfully: exit code: 3" in done.err.splitlines()[-1]
    assert "CANCELED" in done.err
    assert new_root.cli("ps", "-aq").ok().out == ""
    assert new_root.cli("system", "check").ok().out == "nothing found\n"


def test_a_build_is_ended_from_outside(new_root: Root, tmp_path: Path) -> None:
    import threading

    from sampan.cli.buildprogress import Plain
    from sampan.engine.buildcancel import Cancellation, Cancelled
    from sampan.engine.builder import BuildRequest
    from sampan.engine.buildstage import BuildFailed

    class Watching(Plain):
        def output(self, step: int, data: bytes) -> None:
            if b"begun" in data:
                begun.set()

    begun, cancellation = threading.Event(), Cancellation()
    request = BuildRequest(
        "",
        text="FROM base\nRUN echo begun; sleep 1000\nRUN echo never",
        host=(("NetworkMode", "none"),),
        cancellation=cancellation,
    )

    def end() -> None:
        begun.wait(60)
        cancellation.cancel()

    ender = threading.Thread(target=end)
    ender.start()
    with pytest.raises(BuildFailed) as failure:
        new_root.engine().builds.build(request, Watching(False))
    ender.join()
    assert isinstance(failure.value.error, Cancelled)
    assert new_root.cli("ps", "-aq").ok().out == ""
    with pytest.raises((BuildFailed, Cancelled)):
        new_root.engine().builds.build(request, Watching(False))


def test_raw_progress_is_a_document_a_line(new_root: Root, tmp_path: Path) -> None:
    import base64

    builds = Builds(new_root, tmp_path / "context")
    done = builds("FROM base\nRUN echo said\nRUN exit 2", "--progress", "rawjson")
    lines = [line for line in done.err.splitlines() if line.startswith("{")]
    told = [json.loads(line) for line in lines]
    logs = [base64.b64decode(log["data"]) for one in told for log in one.get("logs", ())]
    assert b"".join(logs) == b"said\n"
    ended = {v["name"]: v for one in told for v in one.get("vertexes", ()) if "completed" in v}
    assert ended["[1/3] FROM base"]["cached"] is True
    assert "exit code: 2" in ended["[3/3] RUN exit 2"]["error"]
