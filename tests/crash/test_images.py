"""kill -9 at every recorded step of what changes images: the store holds together, and what is left is collected.

Each scenario runs in a child that kills itself at the n-th event (before an action, or after it), for every n there
is. The parent then looks with a fresh service, as the next command would.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter
from sampan.kernel import clock
from sampan.oci import image as documents
from sampan.oci import platform, reference
from sampan.oci.image import Descriptor

from support import imagearchives
from support.crashes import at_every_step
from support.imagestore import Store, archive, disk

pytestmark = [pytest.mark.root, pytest.mark.patience(300)]

ONE = archive({"a": b"one", "dir/f": b"1"})
TWO = archive({"a": b"two"})


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """In memory: a killed process loses nothing that the kernel has, so no disk need be waited for."""
    with disk(tmp_path / "disk", "512m") as found:
        yield found


def test_import(place: Path) -> None:
    def action(store: Store) -> None:
        store.images.import_(io.BytesIO(ONE), "a", ["LABEL x=y"])

    def check(store: Store) -> None:
        assert [tags for item in store.images.list() for tags in item["RepoTags"]] in ([], ["a:latest"])

    at_every_step(place, lambda store: None, action, check)


def test_import_over_a_name_that_is_there(place: Path) -> None:
    def check(store: Store) -> None:
        # The name leads to the old image or to the new one, at every moment.
        assert store.images.resolve("a").document["comment"] in ("old", "new")

    at_every_step(
        place,
        lambda store: store.images.import_(io.BytesIO(ONE), "a", message="old"),
        lambda store: store.images.import_(io.BytesIO(TWO), "a", message="new"),
        check,
    )


def test_an_import_that_fails(place: Path) -> None:
    def action(store: Store) -> None:
        try:
            store.images.import_(io.BytesIO(ONE[:514]), "a")
        except InvalidParameter:
            return
        raise AssertionError("a torn archive was imported")

    at_every_step(place, lambda store: None, action, lambda store: _is(store.images.list() == []))


def test_save(place: Path) -> None:
    """What a killed reader held is free again."""

    def check(store: Store) -> None:
        assert store.content.held() == set()
        assert store.images.resolve("a").document

    at_every_step(
        place,
        lambda store: store.images.import_(io.BytesIO(ONE), "a"),
        lambda store: store.images.save(["a"], io.BytesIO()),
        check,
    )


def test_base(place: Path) -> None:
    def check(store: Store) -> None:
        assert [tags for item in store.images.list() for tags in item["RepoTags"]] in ([], ["base:latest"])

    at_every_step(place, lambda store: None, lambda store: store.images.resolve("base"), check)


def test_tag(place: Path) -> None:
    def prepare(store: Store) -> None:
        store.add("a", ONE)
        store.add("b", TWO)

    def action(store: Store) -> None:
        store.images.tag("a", "b")
        store.images.tag("a", "c")

    def check(store: Store) -> None:
        assert len(store.images.list()) == 2
        store.images.resolve("b")

    at_every_step(place, prepare, action, check)


def test_remove(place: Path) -> None:
    def prepare(store: Store) -> None:
        store.add("a", ONE, TWO)
        store.add("kept", ONE)

    def action(store: Store) -> None:
        for image in ("a", next((i["Id"] for i in store.images.list() if not i["RepoTags"]), "")):
            if image and store.images.find(image):
                store.images.remove(image)

    def check(store: Store) -> None:
        image = store.images.resolve("kept")
        assert all(store.snapshots.has(chain_id) for chain_id in image.layers)

    at_every_step(place, prepare, action, check)


def test_unpacking_again(place: Path) -> None:
    def prepare(store: Store) -> None:
        store.add("a", ONE, TWO)
        for chain_id in store.snapshots.layers():
            store.snapshots.remove_layer(chain_id)

    def action(store: Store) -> None:
        store.images.ensure_unpacked(store.images.resolve("a"))

    at_every_step(place, prepare, action, lambda store: store.images.resolve("a"))


def _load(store: Store, data: bytes) -> None:
    store.images.load(io.BytesIO(data))


def test_load(place: Path) -> None:
    one, two = imagearchives.docker(["a:1"], ONE, TWO), imagearchives.docker(["b:1"], ONE)
    table = json.loads(one["manifest.json"]) + json.loads(two["manifest.json"])
    data = imagearchives.tar({**one, **two, "manifest.json": json.dumps(table).encode()})

    def check(store: Store) -> None:
        for item in store.images.list():
            # Whole whenever it is listed, with its name or before it got one.
            assert item["RepoTags"] in ([], ["a:1"], ["b:1"])

    at_every_step(place, lambda store: None, lambda store: _load(store, data), check)


def test_load_of_an_oci_layout_over_a_name_that_is_there(place: Path) -> None:
    data = imagearchives.tar(imagearchives.layout("a:1", gzip.compress(ONE, mtime=0), TWO))

    def check(store: Store) -> None:
        store.images.resolve("a:1")

    at_every_step(place, lambda store: store.add("a:1", TWO), lambda store: _load(store, data), check)


def test_a_load_that_fails(place: Path) -> None:
    data = imagearchives.tar({**imagearchives.docker(["a:1"], ONE, TWO), f"{1:064x}/layer.tar": ONE})

    def action(store: Store) -> None:
        try:
            _load(store, data)
        except InvalidParameter:
            return
        raise AssertionError("a layer that is another one was loaded")

    at_every_step(place, lambda store: None, action, lambda store: _is(store.images.list() == []))


def test_remove_of_an_image_that_was_made_from_another(place: Path) -> None:
    def prepare(store: Store) -> None:
        parent = store.add("", ONE)
        with store.lock.shared():
            blob = Descriptor(documents.OCI_LAYER, store.content.add(TWO), len(TWO))
            made = documents.make_config(platform.here(), clock.now(), {}, [*parent.diff_ids, blob.digest], [])
            below = store.images.manifest(parent.target, parent.id).layers
            store.images.publish(made, (*below, blob), reference.parse("child:1"), parent.id)

    def action(store: Store) -> None:
        # The last child takes the parent along; after a kill the parent may be what is left.
        while items := store.images.list(all=True):
            parents = {item["ParentId"] for item in items}
            child = next(item for item in items if item["Id"] not in parents)
            store.images.remove((child["RepoTags"] or [child["Id"]])[0])

    at_every_step(place, prepare, action, lambda store: None)


def _is(truth: bool) -> None:
    assert truth
