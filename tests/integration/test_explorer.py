"""`image layers`, `image tree` and `image diff`: of images that are here, whatever their layers are packed with."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from sampan.errors import Damaged, NotFound

from support.archives import directory, member, symlink, whiteout
from support.imagestore import Store
from support.roots import Root

pytestmark = pytest.mark.root

LOW = directory(b"etc") + member(b"etc/conf", b"first", mode=0o600) + member(b"etc/old", b"old") + symlink(b"l", b"etc")
HIGH = member(b"etc/conf", b"second") + whiteout(b"etc/old") + member(b"bad\x1b[2Jname", b"")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path)
    found.add("app:1", LOW, gzip.compress(HIGH))
    return found


def test_the_layers(store: Store) -> None:
    low, high = store.images.explorer().layers("app:1")
    assert {k: low[k] for k in ("Layer", "Size", "PackedSize", "Added", "Changed", "Removed", "Wasted")} == {
        "Layer": 1, "Size": 11, "PackedSize": len(LOW), "Added": 3, "Changed": 0, "Removed": 0, "Wasted": 8,
    }  # fmt: skip
    assert (high["Size"], high["Added"], high["Changed"], high["Removed"]) == (6, 1, 1, 1)
    assert high["PackedSize"] == len(gzip.compress(HIGH))
    assert low["DiffID"] == low["Digest"]


def test_where_files_come_from(store: Store) -> None:
    found = {item["Path"]: item for item in store.images.explorer().tree("app:1", "/etc", 5)}
    assert list(found) == ["/etc", "/etc/conf"]
    assert (found["/etc/conf"]["Layer"], found["/etc/conf"]["Hidden"], found["/etc/conf"]["Size"]) == (2, [1], 6)
    assert [item["Path"] for item in store.images.explorer().tree("app:1", "/", 0)] == ["/"]
    assert [item["Path"] for item in store.images.explorer().tree("app:1", "l/conf", 0)] == ["/l/conf"]
    # What a terminal is not to be told is escaped.
    assert "/bad\\x1b[2Jname" in [item["Path"] for item in store.images.explorer().tree("app:1", "", 1)]


def test_a_path_that_is_not_there(store: Store) -> None:
    with pytest.raises(NotFound, match=r"no such path in image app:1: /etc/old: layer 2 removed it"):
        store.images.explorer().tree("app:1", "/etc/old")
    with pytest.raises(NotFound, match=r"no such path in image app:1: /never$"):
        store.images.explorer().tree("app:1", "/never")


def test_what_two_images_differ_in(store: Store) -> None:
    store.add(
        "app:2", LOW + member(b"etc/conf", b"first", mode=0o644, mtime=77) + whiteout(b"l"), member(b"new/f", b"")
    )
    assert [(d["Kind"], d["Path"], d["What"]) for d in store.images.explorer().diff("app:1", "app:2")] == [
        ("D", "/bad\\x1b[2Jname", ""),
        ("C", "/etc/conf", "content"),
        ("A", "/etc/old", ""),
        ("D", "/l", ""),
        ("A", "/new", ""),
        ("A", "/new/f", ""),
    ]
    # The same files in other layers, at another time: no difference.
    store.add("app:3", LOW, member(b"etc/old", b"old", mtime=99), gzip.compress(HIGH))
    assert store.images.explorer().diff("app:1", "app:3") == []


def test_an_image_that_is_damaged(store: Store) -> None:
    digest = store.images.explorer().layers("app:1")[0]["Digest"]
    path = Path(store.content.path(digest))
    path.write_bytes(path.read_bytes().replace(b"first", b"FIRST"))
    with pytest.raises(Damaged, match="bring it in again"):
        store.images.explorer().layers("app:1")
    assert not [name for name in store.files() if name.startswith("ingest")]


def test_on_the_command_line(new_root: Root, tmp_path: Path) -> None:
    (tmp_path / "low.tar").write_bytes(LOW)
    cli = new_root.cli
    cli("import", str(tmp_path / "low.tar"), "app:1").ok()
    table = cli("image", "layers", "app:1").ok().out.splitlines()
    assert table[0].split() == ["LAYER", "SIZE", "PACKED", "ADDED", "CHANGED", "REMOVED", "WASTED", "CREATED", "BY"]
    assert table[1].split()[:2] == ["1", "11B"]
    shown = cli("image", "tree", "--format", "json", "app:1", "/etc/conf").ok().out
    assert (json.loads(shown)["Mode"], json.loads(shown)["Layer"]) == ("-rw-------", 1)
    assert cli("image", "tree", "-L", "0", "--format", "{{.Path}}", "app:1", "l").ok().out == "/l -> etc\n"
    assert cli("image", "diff", "app:1", "app:1").ok().out == ""
    failed = cli("image", "tree", "app:1", "/nope")
    assert (failed.code, failed.err) == (1, "Error: no such path in image app:1: /nope\n")
