"""Images: found, listed, shown, tagged, removed by Docker's rules, and healed when parts of them are gone."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sampan.errors import Conflict, Damaged, InvalidParameter, NotFound
from sampan.kernel import clock
from sampan.oci import image as documents
from sampan.oci import platform
from sampan.oci.digest import of_bytes
from sampan.oci.image import Descriptor
from sampan.store.images import NameRecord

from support.imagestore import Store, archive

pytestmark = pytest.mark.root

LOWER = archive({"a": b"lower", "gone": b"x", "dir/f": b"1"})
UPPER = archive({"a": b"upper", ".wh.gone": b""})
OTHER = archive({"other": b"other"})
CONTAINER = "c0ffee" * 11


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def hex_of(image_id: str) -> str:
    return image_id.removeprefix("sha256:")


# Finding


def test_an_image_is_found_by_every_kind_of_name(store: Store) -> None:
    image = store.add("host:5000/a/b:c", LOWER)
    digest = image.target.digest
    for name in (
        "host:5000/a/b:c",
        image.id,
        hex_of(image.id),
        hex_of(image.id)[:12],
        image.id[:20],
        hex_of(image.id)[:3],
        f"host:5000/a/b@{digest}",
        f"host:5000/a/b:other@{digest}",
    ):
        assert store.images.resolve(name).id == image.id, name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nosuch", "nosuch:latest"),
        ("a:b", "a:b"),
        ("docker.io/library/a", "a:latest"),
        ("abcdef", "abcdef:latest"),
        ("sha256:abc", "sha256:abc"),
        ("f" * 64, "sha256:" + "f" * 64),
        ("sha256:" + "f" * 64, "sha256:" + "f" * 64),
        ("a@sha256:" + "f" * 64, "a@sha256:" + "f" * 64),
    ],
)
def test_what_is_not_there_is_told_as_docker_tells_it(store: Store, name: str, told: str) -> None:
    store.add("a", LOWER)
    store.images.remove("a")
    for use in (store.images.resolve, store.images.inspect, store.images.remove):
        with pytest.raises(NotFound) as error:
            use(name)
        assert str(error.value) == f"No such image: {told}"


def test_what_is_no_name_is_told_as_docker_tells_it(store: Store) -> None:
    for use in (store.images.resolve, store.images.inspect, store.images.remove):
        with pytest.raises(InvalidParameter) as error:
            use("UPPER")
        assert str(error.value) == "invalid reference format: repository name (library/UPPER) must be lowercase"


def test_a_beginning_that_fits_two_images_names_neither(store: Store) -> None:
    found: dict[str, str] = {}
    for i in range(40):
        image = store.add("", LOWER, config={"Labels": {"i": str(i)}})
        other = found.setdefault(hex_of(image.id)[0], image.id)
        if other != image.id:
            with pytest.raises(NotFound):
                store.images.resolve(hex_of(image.id)[0])
            assert store.images.resolve(hex_of(image.id)[:12]).id == image.id
            return
    pytest.fail("40 images and no two with the same first digit")


def test_a_name_wins_over_an_id_that_begins_like_it(store: Store) -> None:
    image = store.add("", LOWER)
    other = store.add(hex_of(image.id)[:5].replace("e", "e"), OTHER)
    assert store.images.resolve(hex_of(image.id)[:5]).id == other.id


OPENS = """
import os, sys
from support.imagestore import Store
from pathlib import Path
store = Store(Path(sys.argv[1]))
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
image = store.images.resolve("a")
store.images.ensure_unpacked(image)
print("\\n".join(path for path in opened if path.startswith(sys.argv[1])))
"""


def test_a_start_reads_two_files_of_the_store(store: Store) -> None:
    image = store.add("a", LOWER, UPPER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", OPENS, str(store.directory)]
    opened = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert opened == [store.names.path("docker.io/library/a:latest"), store.content.path(image.id)]


# Telling


def test_the_list_has_dockers_shape(store: Store) -> None:
    image = store.add("a:1", LOWER, UPPER, config={"Labels": {"k": "v"}})
    store.images.tag("a:1", "b/c")
    (item,) = store.images.list()
    assert item.pop("Created") > 1_700_000_000
    assert item == {
        "Containers": -1,
        "Id": image.id,
        "Labels": {"k": "v"},
        "ParentId": "",
        "RepoDigests": [f"a@{image.target.digest}", f"b/c@{image.target.digest}"],
        "RepoTags": ["b/c:latest", "a:1"],
        "SharedSize": -1,
        "Size": 12,
    }


def test_the_list_is_narrowed_by_names_with_wildcards(store: Store) -> None:
    first = store.add("debian:12", LOWER)
    second = store.add("owner/debian:12", OTHER)
    third = store.add("", UPPER)

    def listed(name: str = "", dangling: bool | None = None) -> set[str]:
        return {item["Id"] for item in store.images.list(name, dangling)}

    assert listed() == {first.id, second.id, third.id}
    assert listed("debian") == listed("debian:12") == listed("deb*") == listed("*:12") == {first.id}
    assert listed("*/debian") == listed("owner/*") == {second.id}
    assert listed("debian:11") == set()
    assert listed(dangling=True) == {third.id}
    assert listed(dangling=False) == {first.id, second.id}


def test_inspect_has_dockers_shape(store: Store) -> None:
    config = {"Cmd": ["sh"], "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"k": "v"}}
    image = store.add("a:1", LOWER, config=config)
    shown = store.images.inspect("a:1")
    assert shown.pop("Created").startswith("20")
    assert shown["Metadata"].pop("LastTagTime").startswith("20")
    assert shown == {
        "Id": image.id,
        "RepoTags": ["a:1"],
        "RepoDigests": [f"a@{image.target.digest}"],
        "Parent": "",
        "Comment": "",
        "DockerVersion": "",
        "Author": "",
        "Config": {
            "User": "",
            "Env": ["A=1"],
            "Cmd": ["sh"],
            "Volumes": None,
            "WorkingDir": "",
            "Entrypoint": None,
            "OnBuild": None,
            "Labels": {"k": "v"},
            "ExposedPorts": {"80/tcp": {}},
        },
        "Architecture": platform.here().architecture,
        "Os": "linux",
        "Size": 7,
        "GraphDriver": {"Name": store.snapshots.name, "Data": None},
        "RootFS": {"Type": "layers", "Layers": [of_bytes(LOWER)]},
        "Metadata": {},
    }
    json.dumps(shown)


# Tagging


def test_a_tag_is_another_name(store: Store) -> None:
    image = store.add("a", LOWER)
    for source, target in (("a", "b"), ("b:latest", "c:1"), (image.id, "d"), (hex_of(image.id)[:12], "e")):
        store.images.tag(source, target)
    assert {item["Id"] for item in store.images.list()} == {image.id}
    assert len(store.images.inspect("d")["RepoTags"]) == 5
    other = store.add("", OTHER)
    store.images.tag(other.id, "b")
    assert store.images.resolve("b").id == other.id
    assert store.images.resolve("a").id == image.id


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("a b", "invalid reference format"),
        ("x@sha256:" + "a" * 64, "refusing to create a tag with a digest reference"),
        ("sha256:1234", "refusing to create an ambiguous tag using digest algorithm as name"),
        ("a" * 64, f"invalid repository name ({'a' * 64}), cannot specify 64-byte hexadecimal strings"),
    ],
)
def test_a_bad_tag_is_told_as_docker_tells_it(store: Store, target: str, message: str) -> None:
    store.add("a", LOWER)
    before = store.files()
    with pytest.raises(InvalidParameter) as error:
        store.images.tag("a", target)
    assert str(error.value) == message
    assert store.files() == before


# Removing: the expected texts are dockerd's


def test_the_last_name_takes_the_image_with_it(store: Store) -> None:
    image = store.add("a", LOWER, UPPER)
    store.images.tag("a", "b:1")
    assert store.images.remove("a") == [{"Untagged": "a:latest"}]
    assert store.images.resolve("b:1").id == image.id
    assert store.images.remove("b:1") == [
        {"Untagged": "b:1"},
        {"Deleted": image.id},
        {"Deleted": image.layers[1]},
        {"Deleted": image.layers[0]},
    ]
    assert store.files() == []


def test_an_id_takes_the_only_name_with_it(store: Store) -> None:
    image = store.add("a", LOWER)
    assert store.images.remove(hex_of(image.id)[:12]) == [
        {"Untagged": "a:latest"},
        {"Deleted": image.id},
        {"Deleted": image.layers[0]},
    ]
    assert store.files() == []


def test_a_name_that_begins_like_the_id_is_a_name(store: Store) -> None:
    image = store.add("", LOWER)
    short = hex_of(image.id)[:4]
    store.images.tag(image.id, short)
    store.images.tag(image.id, "other")
    assert store.images.remove(short) == [{"Untagged": f"{short}:latest"}]


def test_an_image_without_a_name_is_removed_by_its_id(store: Store) -> None:
    image = store.add("", LOWER)
    assert store.images.remove(image.id) == [{"Deleted": image.id}, {"Deleted": image.layers[0]}]
    assert store.files() == []


def test_an_id_with_several_names_must_be_forced(store: Store) -> None:
    image = store.add("a", LOWER)
    store.images.tag("a", "b")
    with pytest.raises(Conflict) as error:
        store.images.remove(image.id)
    assert str(error.value) == (
        f"conflict: unable to delete {hex_of(image.id)[:12]} (must be forced) - "
        "image is referenced in multiple repositories"
    )
    assert store.images.remove(image.id, force=True)[:2] == [{"Untagged": "a:latest"}, {"Untagged": "b:latest"}]
    assert store.files() == []


def test_a_name_with_a_digest_means_the_tags_that_stand_for_it(store: Store) -> None:
    image = store.add("a:1", LOWER)
    store.images.tag("a:1", "a:2")
    store.images.tag("a:1", "b")
    done = store.images.remove(f"a@{image.target.digest}")
    assert done == [{"Untagged": "a:1"}, {"Untagged": "a:2"}]
    assert store.images.resolve("b").id == image.id


def test_digests_go_with_the_last_tag_of_their_repository(store: Store) -> None:
    image = store.add("a:1", LOWER)
    digest = NameRecord(f"docker.io/library/a@{image.target.digest}", image.target, image.id, clock.now())
    store.names.set(digest)
    assert store.images.inspect("a:1")["RepoDigests"] == [f"a@{image.target.digest}"]
    assert store.images.remove("a:1")[:2] == [{"Untagged": "a:1"}, {"Untagged": f"a@{image.target.digest}"}]
    assert store.files() == []


@pytest.mark.parametrize("running", [True, False])
def test_a_containers_image_keeps_its_only_name(store: Store, running: bool) -> None:
    image = store.add("a", LOWER)
    store.users.containers[CONTAINER] = (image, running)
    with pytest.raises(Conflict) as error:
        store.images.remove("a")
    assert str(error.value) == (
        'conflict: unable to remove repository reference "a" (must force) - '
        f"container {CONTAINER[:12]} is using its referenced image {hex_of(image.id)[:12]}"
    )
    # One of two names is nobody's only one.
    store.images.tag("a", "b")
    assert store.images.remove("a") == [{"Untagged": "a:latest"}]


def test_a_running_containers_image_is_untagged_and_no_more(store: Store) -> None:
    image = store.add("a", LOWER)
    store.users.containers[CONTAINER] = (image, True)
    assert store.images.remove("a", force=True) == [{"Untagged": "a:latest"}]
    for force in (False, True):
        with pytest.raises(Conflict) as error:
            store.images.remove(image.id, force)
        assert str(error.value) == (
            f"conflict: unable to delete {hex_of(image.id)[:12]} (cannot be forced) - "
            f"image is being used by running container {CONTAINER[:12]}"
        )
    assert [item["RepoTags"] for item in store.images.list()] == [[]]


def test_a_stopped_containers_image_goes_by_force_and_its_layers_stay(store: Store) -> None:
    image = store.add("a", LOWER, UPPER)
    store.users.containers[CONTAINER] = (image, False)
    with pytest.raises(Conflict) as error:
        store.images.remove(image.id)
    assert str(error.value) == (
        f"conflict: unable to delete {hex_of(image.id)[:12]} (must be forced) - "
        f"image is being used by stopped container {CONTAINER[:12]}"
    )
    assert store.images.remove("a", force=True) == [{"Untagged": "a:latest"}, {"Deleted": image.id}]
    assert all(store.snapshots.has(chain_id) for chain_id in image.layers)
    store.images.collect()
    assert store.files() == sorted(f"layer {hex_of(chain_id)}" for chain_id in image.layers)
    store.users.containers.clear()
    store.images.collect()
    assert store.files() == []


def test_layers_that_another_image_needs_stay(store: Store) -> None:
    both = store.add("both", LOWER, UPPER)
    lower = store.add("lower", LOWER)
    assert store.images.remove("both")[-1] == {"Deleted": both.layers[1]}
    assert store.snapshots.has(lower.layers[0])
    assert store.files() == store.reachable()
    assert store.images.remove("lower")[-1] == {"Deleted": lower.layers[0]}
    assert store.files() == []


def test_what_an_index_leads_to_stays(store: Store) -> None:
    image = store.add("a", LOWER)
    index = documents.dump(
        {
            "schemaVersion": 2,
            "mediaType": documents.OCI_INDEX,
            "manifests": [
                image.target.replace(platform=platform.here()).document(),
                Descriptor(
                    documents.OCI_MANIFEST, of_bytes(b"absent"), 6, platform.Platform("plan9", "mips")
                ).document(),
            ],
        }
    )
    target = Descriptor(documents.OCI_INDEX, store.content.add(index), len(index))
    store.names.set(NameRecord("docker.io/library/several:latest", target, image.id, clock.now()))
    store.images.remove("a")
    store.images.collect()
    shutil.rmtree(Path(store.layout.layers) / hex_of(image.layers[0]))
    assert store.images.ensure_unpacked(store.images.resolve("several")) == image.layers
    store.images.remove("several")
    assert store.files() == []


def test_a_damaged_image_can_be_removed_and_hides_nothing_of_others(store: Store) -> None:
    damaged = store.add("damaged", LOWER)
    other = store.add("other", OTHER)
    os.unlink(store.content.path(damaged.target.digest))
    # As long as it does not say what it needs, nothing is thrown away.
    assert store.images.remove("other") == [{"Untagged": "other:latest"}, {"Deleted": other.id}]
    assert store.snapshots.has(other.layers[0])
    Path(store.content.path(damaged.id)).write_bytes(b"{}")
    assert [(i["Id"], i["RepoTags"], i["Size"]) for i in store.images.list()] == [(damaged.id, ["damaged:latest"], 0)]
    assert store.images.remove("damaged") == [{"Untagged": "damaged:latest"}, {"Deleted": damaged.id}]
    assert store.files() == []


# Healing


def test_layers_that_were_deleted_are_unpacked_again(store: Store) -> None:
    image = store.add("a", gzip.compress(LOWER, mtime=0), UPPER)
    before = tree(store, image.layers)
    shutil.rmtree(store.layout.layers)
    os.mkdir(store.layout.layers)
    assert store.images.ensure_unpacked(store.images.resolve("a")) == image.layers
    assert tree(store, image.layers) == before
    assert store.files() == store.reachable()


def tree(store: Store, layers: tuple[str, ...]) -> list[tuple[str, int, int]]:
    found = []
    for chain_id in layers:
        diff = f"{store.layout.layers}/{hex_of(chain_id)}/diff"
        for place, directories, files in os.walk(diff):
            for name in (*directories, *files):
                status = os.lstat(f"{place}/{name}")
                found.append((f"{place}/{name}", status.st_mode, status.st_size))
    return sorted(found)


@pytest.mark.parametrize("data", [LOWER[:-1] + b"x", LOWER[:1000], b"", archive({"other": b""})])
def test_a_layer_that_is_not_what_its_digest_says_is_not_unpacked(store: Store, data: bytes) -> None:
    image = store.add("a", LOWER)
    shutil.rmtree(Path(store.layout.layers) / hex_of(image.layers[0]))
    Path(store.content.path(of_bytes(LOWER))).write_bytes(data)
    with pytest.raises(Damaged):
        store.images.ensure_unpacked(store.images.resolve("a"))
    assert os.listdir(store.layout.layers) == []


def test_a_blob_that_is_gone_is_told(store: Store) -> None:
    image = store.add("a", LOWER)
    shutil.rmtree(Path(store.layout.layers) / hex_of(image.layers[0]))
    os.unlink(store.content.path(of_bytes(LOWER)))
    with pytest.raises(Damaged, match=f"content {of_bytes(LOWER)} is not in the store"):
        store.images.ensure_unpacked(store.images.resolve("a"))
    os.unlink(store.content.path(image.id))
    with pytest.raises(Damaged, match=f"content {image.id} is not in the store"):
        store.images.resolve("a")


def test_a_config_that_was_changed_is_not_used(store: Store) -> None:
    image = store.add("a", LOWER)
    path = Path(store.content.path(image.id))
    path.write_bytes(path.read_bytes().replace(b'"sh"', b'"xx"'))
    with pytest.raises(Damaged, match="unexpected digest"):
        store.images.resolve("a")


# Several at once


def test_what_is_held_is_not_deleted(store: Store) -> None:
    image = store.add("a", LOWER)
    told: list[str] = []

    def remove() -> None:
        try:
            store.images.remove("a")
        except Conflict as e:
            told.append(str(e))

    with store.images.hold():
        thread = threading.Thread(target=remove)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        store.users.containers[CONTAINER] = (image, False)
    thread.join()
    # The container was there in time, and the removal, which came first, sees it.
    assert [text.partition(" - ")[2].partition(" is using")[0] for text in told] == [f"container {CONTAINER[:12]}"]


def test_names_given_and_taken_at_once_leave_a_store_that_holds_together(store: Store) -> None:
    image = store.add("a", LOWER)
    failures: list[BaseException] = []

    def tags(name: str) -> None:
        mine = Store(store.directory).images
        try:
            for _ in range(20):
                mine.tag(image.id, name)
                mine.remove(name)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=tags, args=(name,)) for name in ("b", "c", "d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.images.inspect("a")["RepoTags"] == ["a:latest"]
    assert store.files() == store.reachable()
