"""Disk given back: what a container, an image or a volume took is free again when it is gone, also after kill -9."""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sampan.errors import NotFound
from sampan.steps.trace import Event

from support.disk import PLACES, disk, du, du_of
from support.imagestore import archive
from support.roots import Root, small_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import sampan

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


def test_what_containers_without_layers_share_goes_with_their_image(new_root: Root, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCMD ["/none"]\n')
    shared = new_root.root / "layers" / "scratch"
    with new_root.engine() as engine:
        engine.containers.create("base", SLEEP).remove()
        before = disk(new_root)
        new_root.cli("build", "-t", "empty", str(tmp_path)).ok()
        first, second = engine.containers.create("empty", ["x"]), engine.containers.create("empty", ["x"])
        engine.images.remove("empty", force=True)
        first.remove()
        assert shared.exists()
        assert not engine.system.check()
        second.remove()
        assert not shared.exists()
        new_root.cli("builder", "prune", "-af").ok()
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
    refused = root.cli("rm", "-l", "one", "nosuch", "one/alias")
    assert (refused.out, refused.code) == ("", 1)
    assert refused.err == (
        "Error: Conflict, cannot remove the default link name of the container\n"
        "Error: No such container: nosuch\n"
        "Error: No such container: one/alias\n"
    )
    result = root.cli("rm", "one", "nosuch", "two")
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
    freed = size(container_on_disk(root, ended))
    pruned = cli("container", "prune", "--filter", "label!=keep", input="y\n").ok()
    assert pruned.out.endswith(f"[y/N] Deleted Containers:\n{ended.id}\n\nTotal reclaimed space: {freed}\n")
    left = cli("ps", "-aq", "--no-trunc").ok().out.split()
    assert sorted(left) == sorted([runs.id, labelled.id])
    freed = size(container_on_disk(root, labelled))
    assert cli("container", "prune", "-f", "--filter", "label=keep=yes").ok().out == (
        f"Deleted Containers:\n{labelled.id}\n\nTotal reclaimed space: {freed}\n"
    )


def container_on_disk(root: Root, container: sampan.Container) -> int:
    """What a container takes of the disk, as du(1) counts."""
    places = (f"containers/{container.id}", f"snapshots/{container.id}", f"names/{container.name}")
    return du(root.root / place for place in places)


def size(bytes: int) -> str:
    """Four digits and a unit, as prunes tell bytes."""
    return f"{bytes / 1e6:.4g}MB" if bytes >= 1e6 else f"{bytes / 1e3:.4g}kB"


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
    cli("run", "--rm", "base", "true").ok()  # the default network is made when it is first needed, and stays
    cli("system", "prune", "-af").ok()
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
    images = du_of(new_root, "Images")
    before = images + sum(
        du([path]) for path in (new_root.root / "volumes").iterdir() if path.name not in ("named", ".mounted")
    )
    with new_root.engine() as engine:
        assert engine.system.df()["LayersSize"] == images
    second = cli("system", "prune", "-af", "--volumes").ok().out
    assert second.endswith(f"Total reclaimed space: {size(before)}\n"), "all of it, and nothing twice"
    assert "untagged: one:latest\n" in second
    assert "untagged: base:latest\n" in second
    assert "Deleted Volumes:\n" in second
    assert cli("system", "prune", "-af", "--volumes").ok().out == "Total reclaimed space: 0B\n"
    assert cli("volume", "ls", "-q").ok().out == "named\n"
    cli("volume", "rm", "named").ok()
    after = disk(new_root)
    # Locks stay: they are files that have names for as long as there is a store. So does the default network.
    stay = ("locks", "networks")
    assert {p: v for p, v in after.items() if p not in stay} == {p: v for p, v in empty.items() if p not in stay}
    assert cli("network", "ls", "-q", "--filter", "type=custom").ok().out == ""


def test_until_and_volumes_do_not_go_together(root: Root) -> None:
    result = root.cli("system", "prune", "-f", "--volumes", "--filter", "until=1h")
    assert (result.code, result.err) == (1, 'ERROR: The "until" filter is not supported with "--volumes"\n')


def test_system_df_is_what_du_says(new_root: Root) -> None:
    """Layers that images share, hard links, holes, a log, a volume, leftovers of a killed import: what du counts is counted."""
    program = "head -c 90000 /dev/zero > /f; ln /f /g; ln /f /h; dd if=/dev/zero of=/hole bs=1 count=1 seek=1G; yes | head -50000"
    with new_root.engine() as engine:
        engine.images.import_(io.BytesIO(archive({"f": b"1" * 70000})), "unused")
        volume = engine.volumes.create("data")
        (Path(volume.path) / "f").write_bytes(b"v" * 5000)
        os.truncate(Path(volume.path) / "f", 1 << 30)
        box = engine.containers.create("base", ["sh", "-c", program])
        box.start()
        box.wait()
        box.commit("mine")
        engine.containers.run("mine", ["sh", "-c", "echo 1 > /f"], remove=False)
        (new_root.root / "content/ingest/0123").write_bytes(b"left by a killed writer" * 1000)
        facts = engine.system.df()
        by_name = {item["RepoTags"][0]: item for item in facts["Images"]}
        assert by_name["base:latest"]["Containers"] == 1
        assert by_name["unused:latest"]["Containers"] == 0
        assert by_name["base:latest"]["SharedDiskSize"] > by_name["unused:latest"]["SharedDiskSize"] == 0
        left = du([new_root.root / "content/ingest/0123"])
        shared = by_name["base:latest"]["SharedDiskSize"]
        assert shared == by_name["mine:latest"]["SharedDiskSize"]
        alone = sum(item["DiskSize"] - item["SharedDiskSize"] for item in facts["Images"])
        assert facts["LayersSize"] == du_of(new_root, "Images") == alone + shared + left
        assert (
            facts["ContainersSize"] == du_of(new_root, "Containers") == sum(c["DiskSize"] for c in facts["Containers"])
        )
        assert max(c["SizeRw"] for c in facts["Containers"]) > 1 << 30 > facts["ContainersSize"], "holes take nothing"
        assert facts["VolumesSize"] == du_of(new_root, "Volumes") == facts["Volumes"][0]["DiskSize"]
        assert facts["Volumes"][0]["UsageData"] == {"Size": 1 << 30, "RefCount": 0}
        reclaimable = facts["ImagesReclaimable"]
        before = du_of(new_root, "Images")
        assert engine.images.prune({"dangling": False})["SpaceReclaimed"] == reclaimable
        assert before - du_of(new_root, "Images") == reclaimable
        facts = engine.system.df()
    table = new_root.cli("system", "df").ok().out.splitlines()
    assert table[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    containers, volumes = size(facts["ContainersSize"]), size(facts["VolumesSize"])
    assert [line.split()[:4] for line in table[2:]] == [
        ["Containers", "2", "0", containers],
        ["Local", "Volumes", "1", "0"],
        ["Build", "Cache", "0", "0"],
    ]
    assert f"{containers} (100%)" in table[2]
    assert new_root.cli("system", "df", "--format", "{{.Type}}={{.Size}}").ok().out.splitlines()[2] == (
        f"Local Volumes={volumes}"
    )
    details = new_root.cli("system", "df", "-v").ok().out
    assert (
        f"\n\nLocal Volumes space usage:\n\nVOLUME NAME   LINKS     SIZE\ndata          0         {volumes}\n"
        in details
    )


def test_system_df_in_json_has_the_fields_of_the_listings(new_root: Root) -> None:
    cli = new_root.cli
    cli("create", "--name", "box", "-v", "data:/data", "base", "true").ok()
    facts = json.loads(cli("system", "df", "-v", "--format", "json").ok().out)
    listings = {"Images": ("images",), "Containers": ("ps", "-a"), "Volumes": ("volume", "ls")}
    for kind, words in listings.items():
        listed = json.loads(cli(*words, "--format", "json").ok().out.splitlines()[0])
        assert facts[kind][0].keys() == listed.keys(), kind
    assert facts["BuildCache"] == []
    assert (
        cli("system", "df", "-v", "--format", "{{range .Volumes}}{{.Name}} {{.Links}};{{end}}").ok().out == "data 1;\n"
    )
    cli("rm", "box").ok()
    cli("volume", "rm", "data").ok()


# Dry runs


def a_bit_of_everything(root: Root) -> None:
    """Containers at rest, one that runs, images used and unused, with parents, without names, volumes of both kinds."""
    with root.engine() as engine:
        engine.containers.create("base", SLEEP, name="runs").start()
        engine.containers.run("base", ["sh", "-c", "yes | head -30000"], remove=False, volumes=["/anonymous"])
        child = engine.containers.create("base", ["sh", "-c", "echo 1 > /1"], labels={"keep": "yes"})
        child.start()
        child.wait()
        child.commit("child")
        engine.images.tag("child", "another")
        for content in (b"1", b"2" * 100000):
            engine.images.import_(io.BytesIO(archive({"f": content})), "name")
        engine.containers.create("name", ["f"])
        engine.images.import_(io.BytesIO(archive({"only": b"3" * 50000})), "forced")
        engine.containers.create("forced", ["f"])
        engine.images.remove("forced", force=True)
        engine.volumes.create("named")
        (Path(engine.volumes.create().path) / "f").write_bytes(b"v" * 30000)


PRUNES = {
    "one after the other": (
        lambda engine, dry: engine.containers.prune({"label!": "keep"}, dry_run=dry),
        lambda engine, dry: engine.containers.prune(dry_run=dry),
        lambda engine, dry: engine.images.prune(dry_run=dry),
        lambda engine, dry: engine.images.prune({"dangling": False}, dry_run=dry),
        lambda engine, dry: engine.volumes.prune(dry_run=dry),
        lambda engine, dry: engine.volumes.prune({"all": True}, dry_run=dry),
    ),
    "of the system": (
        lambda engine, dry: engine.system.prune(filters={"label!": "keep"}, dry_run=dry),
        lambda engine, dry: engine.system.prune(dry_run=dry),
        lambda engine, dry: engine.system.prune(volumes=True, dry_run=dry),
    ),
    "all at once": (lambda engine, dry: engine.system.prune(all=True, volumes=True, dry_run=dry),),
}


@pytest.mark.parametrize("prunes", PRUNES.values(), ids=PRUNES)
def test_a_dry_run_says_what_the_real_one_does_and_gives_back(
    new_root: Root, prunes: tuple[Callable[[sampan.Engine, bool], dict[str, Any]], ...]
) -> None:
    a_bit_of_everything(new_root)
    with new_root.engine() as engine:
        for prune in prunes:
            before = {kind: du_of(new_root, kind) for kind in PLACES}
            names = disk(new_root)
            since = time.time()
            said = prune(engine, True)
            assert disk(new_root) == names, "a dry run changes nothing"
            assert list(engine.events(since=since, until=time.time())) == [], "and tells of nothing"
            assert prune(engine, False) == said
            after = {kind: du_of(new_root, kind) for kind in PLACES}
            assert said["SpaceReclaimed"] == sum(before.values()) - sum(after.values()) > 0
            assert prune(engine, True)["SpaceReclaimed"] == 0
        assert engine.system.check() == []


def test_dry_runs_on_the_command_line(new_root: Root) -> None:
    a_bit_of_everything(new_root)
    cli = new_root.cli
    for verb in (
        ("container",),
        ("image",),
        ("image", "-a"),
        ("volume",),
        ("volume", "-a"),
        ("system", "-a", "--volumes"),
    ):
        words = (verb[0], "prune", *verb[1:])
        # Nobody is asked: there is nothing to agree to.
        dry = cli(*words, "--dry-run", input="").ok().out
        if verb == ("system", "-a", "--volumes"):
            assert cli("container", "create", "--name", "more", "base", "true").ok()
            dry = cli(*words, "--dry-run", input="").ok().out
        real = cli(*words, "-f").ok().out
        expected = real.replace("Total reclaimed space:", "Space that would be reclaimed:")
        for kind in ("Containers", "Volumes", "Images"):
            expected = expected.replace(f"Deleted {kind}:", f"{kind} that would be deleted:")
        assert dry == expected
        assert dry.count("\n") > 2, "something was there to go"


def test_a_dry_run_of_what_is_no_filter(root: Root) -> None:
    for verb in ("container", "image", "volume", "system"):
        result = root.cli(verb, "prune", "--dry-run", "--filter", "foo=bar")
        assert (result.code, result.err) == (1, "Error: invalid filter 'foo'\n")


def test_what_is_reclaimed_is_free_on_the_disk(tmp_path: Path) -> None:
    """The file system's own count of free blocks, before and after."""
    with small_root(tmp_path / "disk", "256m") as root:
        with root.engine() as engine:
            engine.containers.run("base", ["sh", "-c", "head -c 20000000 /dev/urandom > /f"], remove=False)
            engine.containers.run("base", ["sh", "-c", "seq 500000"], remove=False)
            os.sync()
            before = os.statvfs(root.root)
            said = engine.system.prune(all=True, dry_run=True)["SpaceReclaimed"]
            assert engine.system.prune(all=True)["SpaceReclaimed"] == said
            os.sync()
            after = os.statvfs(root.root)
        freed = (after.f_bfree - before.f_bfree) * after.f_frsize
        # The journal of events has grown by what it tells of the prune.
        assert said - 16384 <= freed <= said
