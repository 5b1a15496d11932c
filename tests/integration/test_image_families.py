"""Images that were made from others: parents and children, what is removed with them, history, prune, and what they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.engine.images import Image
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.kernel import clock
from sampan.oci import image as documents
from sampan.oci import platform, reference
from sampan.oci.image import Descriptor

from support.imagestore import Store, archive

pytestmark = pytest.mark.root

LOWER = archive({"a": b"lower", "gone": b"x", "dir/f": b"1"})
UPPER = archive({"a": b"upper", ".wh.gone": b""})
OTHER = archive({"other": b"other"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def child(store: Store, name: str, parent: Image, *archives: bytes, **config: str) -> Image:
    """An image that was made from another one, as commit makes it."""
    with store.lock.shared():
        blobs = [Descriptor(documents.OCI_LAYER, store.content.add(data), len(data)) for data in archives]
        below = store.images.manifest(parent.target, parent.id).layers
        diff_ids = [*parent.diff_ids, *(blob.digest for blob in blobs)]
        steps = [*parent.document["history"], *({"created_by": f"step {i}"} for i in range(len(blobs)))]
        made = documents.make_config(platform.here(), clock.now(), config, diff_ids, steps)
        named = reference.parse(name).tagged() if name else None
        return store.images.publish(made, (*below, *blobs), named, parent=parent.id)


def family(store: Store) -> tuple[Image, Image, Image]:
    first = child(store, "first", store.add("bottom", LOWER), UPPER)
    middle = child(store, "", first, OTHER)
    return first, middle, child(store, "top", middle, archive({"t": b"t"}))


def test_an_image_without_a_name_that_others_were_made_from_is_listed_with_all_only(store: Store) -> None:
    first, middle, top = family(store)
    assert middle.id not in {item["Id"] for item in store.images.list()}
    items = {item["Id"]: item for item in store.images.list(all=True)}
    assert (items[middle.id]["ParentId"], items[top.id]["ParentId"]) == (first.id, middle.id)
    assert store.images.inspect("top")["Parent"] == middle.id


def test_an_image_with_children_is_not_deleted(store: Store) -> None:
    _, middle, _ = family(store)
    short = middle.id.removeprefix("sha256:")[:12]
    words = rf"conflict: unable to delete {short} \(cannot be forced\) - image has dependent child images"
    for force in (False, True):
        with pytest.raises(Conflict, match=words):
            store.images.remove(middle.id, force)
    # Its last name can go all the same; it stays without one.
    assert store.images.remove("first") == [{"Untagged": "first:latest"}]


def test_with_the_last_child_go_parents_without_a_name(store: Store) -> None:
    first, middle, top = family(store)
    done = store.images.remove("top")
    assert done[:3] == [{"Untagged": "top:latest"}, {"Deleted": top.id}, {"Deleted": middle.id}]
    assert [step["Deleted"] for step in done[3:]] == [top.layers[-1], middle.layers[-1]]
    assert store.images.resolve("first").id == first.id
    assert store.files() == store.reachable()


def test_parents_stay_when_that_is_asked_for(store: Store) -> None:
    _, middle, _ = family(store)
    assert {"Deleted": middle.id} not in store.images.remove("top", prune=False)
    assert {item["Id"] for item in store.images.list()} >= {middle.id}


def test_the_history_names_the_images_that_are_there(store: Store) -> None:
    first, middle, top = family(store)
    steps = store.images.history("top")
    assert [step["CreatedBy"] for step in steps][:2] == ["step 0", "step 0"]
    assert (steps[0]["Id"], steps[0]["Tags"], steps[0]["Size"]) == (top.id, ["top:latest"], 1)
    assert middle.id in [step["Id"] for step in steps]
    assert first.id in [step["Id"] for step in steps]
    assert store.images.history("first")[0]["Id"] == first.id


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"label": "k"}, {"b", "c"}),
        ({"label": ["k=1"]}, {"b"}),
        ({"label": ["k", "k=2"]}, {"c"}),
        ({"before": "b"}, {"a"}),
        ({"since": "b"}, {"c"}),
        ({"since": "a", "before": "c"}, {"b"}),
        ({"until": "2021-06-01T00:00:00Z"}, {"a", "b"}),
        ({"reference": ["a", "c:*"]}, {"a", "c"}),
        ({"dangling": "true"}, set()),
        ({"dangling": ["0"]}, {"a", "b", "c"}),
    ],
)
def test_filters(store: Store, filters: dict[str, str | list[str]], expected: set[str]) -> None:
    labels: dict[str, dict[str, str]] = {"a": {}, "b": {"k": "1"}, "c": {"k": "2"}}
    with store.lock.shared():
        for year, (name, found) in enumerate(labels.items(), 2020):
            made = documents.make_config(platform.here(), f"{year}-01-01T00:00:00Z", {"Labels": found}, [], [])
            store.images.publish(made, [], reference.parse(name).tagged())
    assert {tag for item in store.images.list(filters=filters) for tag in item["RepoTags"]} == {
        f"{name}:latest" for name in expected
    }


def test_filters_that_are_none(store: Store) -> None:
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'size'$"):
        store.images.list(filters={"size": "1"})
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'dangling=\[perhaps\]'$"):
        store.images.list(filters={"dangling": "perhaps"})
    with pytest.raises(NotFound, match=r"^No such image: nobody:latest$"):
        store.images.list(filters={"before": "nobody"})


def test_prune(store: Store) -> None:
    used = store.add("", UPPER)
    store.users.containers["c" * 64] = (used, False)
    nameless = store.add("", OTHER)
    store.add("named", LOWER)
    assert store.images.prune({"label": "none"}) == {"ImagesDeleted": [], "SpaceReclaimed": 0}
    taken = store.on_disk()
    said = {
        "ImagesDeleted": [{"Deleted": nameless.id}, {"Deleted": nameless.layers[0]}],
        "SpaceReclaimed": store.images.prune(dry_run=True)["SpaceReclaimed"],
    }
    assert store.images.prune(dry_run=True) == said
    assert store.on_disk() == taken
    assert store.images.prune() == said
    assert taken - store.on_disk() == said["SpaceReclaimed"] > 0
    done = store.images.prune({"dangling": "false"})
    assert done["ImagesDeleted"][0] == {"Untagged": "named:latest"}
    assert [item["Id"] for item in store.images.list()] == [used.id]
    assert store.files() == store.reachable()


def test_how_much_images_share(store: Store) -> None:
    store.add("a", LOWER, UPPER)
    store.add("b", LOWER)
    shared = {item["RepoTags"][0]: item["SharedSize"] for item in store.images.list(shared_size=True)}
    lower = store.snapshots.info(store.images.resolve("b").layers[0]).size
    assert shared == {"a:latest": lower, "b:latest": lower}
