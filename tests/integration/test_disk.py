"""Disk given back: what a container, an image or a volume took is free again when it is gone, also after kill -9."""

from __future__ import annotations

import io
import os
import subprocess

import pytest

from sampan.errors import NotFound
from sampan.steps.trace import Event

from support.imagestore import archive
from support.roots import Root

pytestmark = pytest.mark.root

SLEEP = ["sleep", "1000"]


def disk(root: Root) -> dict[str, tuple[int, int]]:
    """Blocks and names of everything below the root, by place: what `du` sees, without the growth of directories.

    A directory's own blocks are not counted (ext4 never gives those back), its name is.
    """
    found = {}
    for place in sorted(os.listdir(root.root)):
        blocks = names = 0
        seen = set()
        for directory, directories, files in os.walk(root.root / place):
            names += len(directories) + len(files)
            for name in files:
                status = os.lstat(os.path.join(directory, name))
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    blocks += status.st_blocks
        found[place] = (blocks, names)
    return found


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
