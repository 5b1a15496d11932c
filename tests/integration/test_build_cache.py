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
