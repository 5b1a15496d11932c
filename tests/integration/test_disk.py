"""Disk given back: what a container, an image or a volume took is free again when it is gone, also after kill -9."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from sampan.errors import NotFound
from sampan.steps.trace import Event

from support.disk import disk
from support.imagestore import archive
from support.roots import Root

pytestmark = pytest.mark.root

SLEEP = ["sleep", "1000"]


def test_the_layers_of_an_image_that_was_removed_by_force_go_with_its_last_container(new_root: Root) -> None:
    with new_root.engine() as engine:
        engine.containers.create("base", SLEEP).remove()
        before = disk(new_root)
        engine.images.import_(io.BytesIO(archive({"bin/sh": b"#!" * 50000})), "mine")
        first = engine.containers.create("mine", ["sh"])
        second = engine.containers.create("mine", ["sh"])
        engine.images.remove("mine", force=True)
        assert [item["RepoTags"] for item in engine.images.list()] == [["base:latest"]]
        assert disk(new_root)["layers"] != before["layers"], "the containers still stand on it"
        first.remove()
        assert disk(new_root)["layers"] != before["layers"], "one container still stands on it"
        second.remove()
        assert disk(new_root) == before


def test_whoever_loses_a_race_of_two_removals_is_told_of_the_other(root: Root) -> None:
    with root.engine() as engine:
        box = engine.containers.create("base", SLEEP, name="box")
        box.start()
        commands = [root.cli.start("rm", "-f", "box", stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
        ended = [(c.communicate(timeout=60), c.returncode) for c in commands]
        assert sum(code == 0 and out == b"box\n" for (out, _), code in ended) >= 1
        for (_, err), code in ended:
            # The third may come so late that there is no such container any more, which -f does not mind.
            assert (err, code) in (
                (b"", 0),
                (b"Error: removal of container box is already in progress\n", 1),
                (b"Error: No such container: box\n", 0),
            )
        with pytest.raises(NotFound):
            box.remove(force=True)


def test_a_removal_that_finds_another_at_work_says_so(root: Root) -> None:
    with root.engine() as engine:
        box = engine.containers.create("base", SLEEP, name="box")

        def other(event: Event) -> None:
            # The moment when the container is out of sight, and its parts are not gone yet.
            if event.text.startswith("remove writable layer") and not event.finished and not told:
                told.append(root.cli("rm", "box").err)

        told: list[str] = []
        with root.engine(observer=other) as slow:
            slow.containers.get("box").remove()
        assert told == ["Error: No such container: box\n"], "who comes later finds none"
        with pytest.raises(NotFound):
            box.remove()


def test_rm_of_several_takes_what_it_can(root: Root) -> None:
    with root.engine() as engine:
        for name in ("one", "two"):
            engine.containers.create("base", SLEEP, name=name)
    result = root.cli("rm", "-l", "one", "nosuch", "two")
    assert (result.out, result.code) == ("one\ntwo\n", 1)
    assert result.err == "Error: No such container: nosuch\n"


# What nobody needs


def test_container_prune_takes_what_does_not_run(root: Root) -> None:
    cli = root.cli
    with root.engine() as engine:
        runs = engine.containers.create("base", SLEEP)
        runs.start()
        labelled = engine.containers.create("base", SLEEP, labels={"keep": "yes"})
        ended = engine.containers.create("base", ["sh", "-c", "head -c 3000 /dev/zero > /f"])
        ended.start()
        ended.wait()
    refused = cli("container", "prune", input="n\n").ok()
    assert refused.out == (
        "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] "
    )
    assert cli("container", "prune", "-f", "--filter", "until=1h").ok().out == "Total reclaimed space: 0B\n"
    pruned = cli("container", "prune", "--filter", "label!=keep", input="y\n").ok()
    assert pruned.out.endswith(f"[y/N] Deleted Containers:\n{ended.id}\n\nTotal reclaimed space: 3kB\n")
    left = cli("ps", "-aq", "--no-trunc").ok().out.split()
    assert sorted(left) == sorted([runs.id, labelled.id])
    assert cli("container", "prune", "-f", "--filter", "label=keep=yes").ok().out == (
        f"Deleted Containers:\n{labelled.id}\n\nTotal reclaimed space: 0B\n"
    )


@pytest.mark.parametrize(
    ("filter", "said", "code"),
    [
        ("foo=bar", "Error: invalid filter 'foo'\n", 1),
        ("until=zz", 'Error: failed to parse value as time or duration: "zz"\n', 1),
    ],
)
def test_a_filter_that_is_none(root: Root, filter: str, said: str, code: int) -> None:
    result = root.cli("container", "prune", "-f", "--filter", filter)
    assert (result.err, result.code) == (said, code)


def test_system_prune_gives_everything_back(new_root: Root) -> None:
    cli = new_root.cli
    cli("system", "df").ok()
    empty = disk(new_root)
    cli("run", "base", "true").ok()
    cli("volume", "create").ok()  # without a name: anonymous
    cli("volume", "create", "named").ok()
    with new_root.engine() as engine:
        engine.images.import_(io.BytesIO(archive({"f": b"1"})), "one")
        engine.images.import_(io.BytesIO(archive({"f": b"2"})), "one")
    asked = cli("system", "prune", "--volumes", input="\n").ok().out
    assert "  - all dangling images\n" in asked
    assert "  - all anonymous volumes not used by at least one container\n" in asked
    first = cli("system", "prune", "-f").ok().out
    assert first.startswith("Deleted Containers:\n")
    assert "\nDeleted Images:\ndeleted: sha256:" in first
    assert "Deleted Volumes" not in first
    assert "one:latest" in str(engine.images.list())
    before = lengths(*(new_root.root / place for place in ("content", "layers", "images")))
    with new_root.engine() as engine:
        assert engine.system.df()["LayersSize"] == before
    second = cli("system", "prune", "-af", "--volumes").ok().out
    assert second.endswith(f"Total reclaimed space: {before / 1e6:.4g}MB\n"), "all of it, and nothing twice"
    assert "untagged: one:latest\n" in second
    assert "untagged: base:latest\n" in second
    assert "Deleted Volumes:\n" in second
    assert cli("system", "prune", "-af", "--volumes").ok().out == "Total reclaimed space: 0B\n"
    assert cli("volume", "ls", "-q").ok().out == "named\n"
    cli("volume", "rm", "named").ok()
    after = disk(new_root)
    # Locks stay: they are files that have names for as long as there is a store.
    assert {p: v for p, v in after.items() if p != "locks"} == {p: v for p, v in empty.items() if p != "locks"}


def test_until_and_volumes_do_not_go_together(root: Root) -> None:
    result = root.cli("system", "prune", "-f", "--volumes", "--filter", "until=1h")
    assert (result.code, result.err) == (1, 'ERROR: The "until" filter is not supported with "--volumes"\n')


def lengths(*places: Path) -> int:
    """The lengths of all files, hard links once: `du --apparent-size` without directories."""
    seen, total = set(), 0
    for place in places:
        for directory, _, files in os.walk(place):
            for name in files:
                status = os.lstat(os.path.join(directory, name))
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_size
    return total


def test_system_df_is_what_du_says(new_root: Root) -> None:
    with new_root.engine() as engine:
        engine.images.import_(io.BytesIO(archive({"f": b"1" * 70000})), "unused")
        volume = engine.volumes.create("data")
        (Path(volume.path) / "f").write_bytes(b"v" * 5000)
        engine.containers.run("base", ["sh", "-c", "head -c 9000 /dev/zero > /f"], remove=False)
        facts = engine.system.df()
        place = new_root.root
        assert facts["LayersSize"] == lengths(place / "content", place / "layers", place / "images")
        assert sum(c["SizeRw"] for c in facts["Containers"]) == lengths(place / "snapshots") == 9000
        assert [(v["Name"], v["UsageData"]) for v in facts["Volumes"]] == [("data", {"Size": 5000, "RefCount": 0})]
        by_name = {item["RepoTags"][0]: item for item in facts["Images"]}
        assert by_name["base:latest"]["Containers"] == 1
        assert by_name["unused:latest"]["Containers"] == 0
        reclaimable = facts["ImagesReclaimable"]
        before = lengths(place / "content", place / "layers")
        engine.images.remove("unused")
        assert before - lengths(place / "content", place / "layers") == reclaimable
    table = new_root.cli("system", "df").ok().out.splitlines()
    assert table[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert [line.split()[:4] for line in table[2:]] == [
        ["Containers", "1", "0", "9kB"],
        ["Local", "Volumes", "1", "0"],
        ["Build", "Cache", "0", "0"],
    ]
    assert "9kB (100%)" in table[2]
    assert new_root.cli("system", "df", "--format", "{{.Type}}={{.Size}}").ok().out.splitlines()[2] == (
        "Local Volumes=5kB"
    )
    details = new_root.cli("system", "df", "-v").ok().out
    assert "\n\nLocal Volumes space usage:\n\nVOLUME NAME   LINKS     SIZE\ndata          0         5kB\n" in details
