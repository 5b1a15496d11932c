"""`load` and `save` on a store: every form of archive, everything that can be wrong with one, and what is left behind."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import Damaged, InvalidParameter, NotFound, SampanError, System
from sampan.oci.digest import hex_of, of_bytes
from sampan.steps.trace import Event

from support import imagearchives as made
from support.archives import hardlink, header
from support.imagestore import Store, archive, disk

pytestmark = pytest.mark.root

ONE = archive({"a": b"one", "dir/f": b"1"})
TWO = archive({"b": b"two"})
ZIPPED = gzip.compress(TWO, mtime=0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def load(store: Store, data: bytes, platform: str = "") -> list[tuple[str, str]]:
    return [(image.reference, image.id) for image in store.images.load(io.BytesIO(data), platform)]


def saved(store: Store, *names: str, platform: str = "") -> bytes:
    sink = io.BytesIO()
    store.images.save(names, sink, platform)
    return sink.getvalue()


def contents(store: Store, name: str) -> dict[str, bytes]:
    """The files of the image's layers, topmost winning."""
    found = {}
    for chain_id in store.images.resolve(name).layers:
        top = (
            Path(store.layout.layers) / hex_of(b"")
            if not chain_id
            else Path(store.layout.layers) / chain_id[7:] / "diff"
        )
        found |= {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}
    return found


EXPECTED = {"a": b"one", "dir/f": b"1", "b": b"two"}


# What is loaded


@pytest.mark.parametrize(
    "members",
    [
        made.docker(["x/y:1"], ONE, TWO),
        made.docker(["x/y:1"], ONE, ZIPPED),
        made.docker(["x/y:1"], ONE, TWO, ONE),
        made.layout("docker.io/x/y:1", ONE, TWO),
        made.layout("docker.io/x/y:1", ONE, ZIPPED),
        made.layout("x/y:1", ONE, ZIPPED, annotation="org.opencontainers.image.ref.name"),
    ],
    ids=["docker", "docker-gzip", "docker-link", "oci", "oci-gzip", "oci-ref-name"],
)
def test_a_form_of_archive(store: Store, members: dict[str, bytes]) -> None:
    ((name, image_id),) = load(store, made.tar(members))
    assert name == "x/y:1"
    assert store.images.resolve("x/y:1").id == image_id
    assert contents(store, name) == EXPECTED
    assert store.files() == store.reachable()


@pytest.mark.parametrize(
    "pack",
    [lambda data: gzip.compress(data), bz2.compress, lzma.compress, lambda data: _zstd(data)],
    ids=["gzip", "bzip2", "xz", "zstd"],
)
def test_an_archive_that_is_compressed(store: Store, pack: Callable[[bytes], bytes]) -> None:
    load(store, pack(made.tar(made.docker(["a:1"], ONE))))
    assert store.images.resolve("a:1")
    assert store.files() == store.reachable()


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.compress(data)


def test_from_a_file_from_its_position_on(store: Store, tmp_path: Path) -> None:
    data = made.tar(made.docker(["a:1"], ONE, TWO))
    (tmp_path / "file").write_bytes(b"x" * 100 + data)
    with (tmp_path / "file").open("rb") as stream:
        stream.seek(100)
        store.images.load(stream)
    assert contents(store, "a:1") == EXPECTED


def test_from_a_pipe(store: Store) -> None:
    read, write = os.pipe()
    data = made.tar(made.layout("a:1", ONE, ZIPPED)) + bytes(20000)
    pid = os.fork()
    if pid == 0:
        os.close(read)
        code = 1
        try:
            with os.fdopen(write, "wb") as stream:
                stream.write(data)
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb", buffering=0) as stream:
        assert [image.reference for image in store.images.load(stream)] == ["a:1"]
    # The writer wrote all of it: what follows the end mark was read too.
    assert os.waitpid(pid, 0)[1] == 0
    assert store.files() == store.reachable()


def test_several_images_share_a_layer(store: Store) -> None:
    one, two = made.docker(["a:1", "a:2"], ONE), made.docker(None, ONE, TWO)
    table = json.loads(one["manifest.json"]) + json.loads(two["manifest.json"])
    members = {**one, **two, "manifest.json": json.dumps(table).encode()}
    loaded = load(store, made.tar(members))
    assert [name for name, _ in loaded] == ["a:1", "a:2", ""]
    assert loaded[0][1] == loaded[1][1] != loaded[2][1]
    assert len(store.snapshots.layers()) == 2
    assert store.files() == store.reachable()


def test_a_name_is_taken_over(store: Store) -> None:
    old = store.add("a:1", TWO)
    (image,) = store.images.load(io.BytesIO(made.tar(made.docker(["a:1"], ONE))))
    assert image.replaced == old.id
    assert [item["RepoTags"] for item in store.images.list()].count([]) == 1
    (again,) = store.images.load(io.BytesIO(made.tar(made.docker(["a:1"], ONE))))
    assert again.replaced == ""


def test_dockers_oldest_form(store: Store) -> None:
    bottom, top = "b" * 64, "c" * 64
    members = {
        "repositories": json.dumps({"old": {"1": top}}).encode(),
        f"{bottom}/json": json.dumps({"id": bottom, "container_config": {"Cmd": ["sh", "-c"]}}).encode(),
        f"{bottom}/layer.tar": ONE,
        f"{top}/json": json.dumps({"id": top, "parent": bottom, "os": "linux", "config": {"Cmd": ["x"]}}).encode(),
        f"{top}/layer.tar": ZIPPED,
    }
    load(store, made.tar(members))
    image = store.images.resolve("old:1")
    assert image.config["Cmd"] == ["x"]
    assert image.document["history"][0] == {"created_by": "sh -c"}
    assert "parent" not in image.document
    assert contents(store, "old:1") == EXPECTED


def test_layers_that_are_there_are_not_unpacked_again(tmp_path: Path) -> None:
    events: list[str] = []

    def note(event: Event) -> None:
        events.append(event.text)

    store = Store(tmp_path, note)
    data = made.tar(made.layout("a:1", ONE, ZIPPED))
    load(store, data)
    assert sum("unpack layer" in text for text in events) > 0
    events.clear()
    load(store, data)
    assert not [text for text in events if "unpack layer" in text]
    # A blob that is gone comes back, and the layer is not unpacked for it.
    os.unlink(store.content.path(of_bytes(ZIPPED)))
    load(store, data)
    assert not [text for text in events if "unpack layer" in text]
    assert store.files() == store.reachable()


def test_loading_again_heals_a_damaged_image(store: Store) -> None:
    data = made.tar(made.docker(["a:1"], ONE))
    ((_, image_id),) = load(store, data)
    Path(store.content.path(image_id)).write_bytes(b"{}")
    with pytest.raises(Damaged, match=f"image {image_id} is damaged: unexpected digest"):
        store.images.resolve("a:1")
    load(store, data)
    assert store.images.resolve("a:1").id == image_id


# Which table counts


def test_in_a_layout_the_index_counts_and_dockers_table_does_not(store: Store) -> None:
    """As an edited archive is: the standard's tools write index.json, and leave manifest.json as Docker wrote it."""
    ((name, _),) = load(store, made.tar({**made.docker(["a:1"], TWO), **made.layout("a:1", ONE)}))
    assert (name, contents(store, "a:1")) == ("a:1", {"a": b"one", "dir/f": b"1"})
    ((name, _),) = load(store, made.tar({**made.layout("b:1", ONE), "manifest.json": b"rubbish"}))
    assert name == "b:1"
    assert store.files() == store.reachable()


def test_without_the_mark_of_a_layout_dockers_table_counts(store: Store) -> None:
    members = {**made.layout("b:1", ONE), **made.docker(["a:1"], TWO)}
    del members["oci-layout"]
    assert [name for name, _ in load(store, made.tar(members))] == ["a:1"]
    del members["manifest.json"]
    assert [name for name, _ in load(store, made.tar(members))] == ["b:1"]


@pytest.mark.parametrize(
    ("name", "ref", "loaded"),
    [
        ("docker.io/library/a:1", "1", "a:1"),
        ("docker.io/library/a:1", "edited", "a:edited"),
        ("docker.io/library/a:1", "x.y/z:2", "a:1"),
        ("docker.io/library/a:1", "no tag+1", "a:1"),
        ("a", "", "a:latest"),
        ("", "x.y/z:2", "x.y/z:2"),
        ("", "1", ""),
        ("", "", ""),
    ],
)
def test_the_name_that_annotations_give(store: Store, name: str, ref: str, loaded: str) -> None:
    ((found, image_id),) = load(store, made.tar(indexed((name, ref, OCI))))
    assert found == loaded
    assert store.images.resolve(found or image_id).id == image_id


# Platforms


def two_platforms() -> bytes:
    one = made.layout("a:1", ONE, architecture="amd64")
    two = made.layout("a:1", TWO, architecture="s390x")
    entries = []
    for members, architecture in ((one, "amd64"), (two, "s390x")):
        (entry,) = json.loads(members["index.json"])["manifests"]
        del entry["annotations"]
        entries.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
    index = json.dumps({"schemaVersion": 2, "mediaType": made.documents.OCI_INDEX, "manifests": entries}).encode()
    top = made.descriptor(index, made.documents.OCI_INDEX, annotations={"io.containerd.image.name": "a:1"})
    table = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    return made.tar({**one, **two, made.blob(index): index, "index.json": table})


def test_a_nested_index_leads_to_the_platform_that_is_asked_for(store: Store) -> None:
    load(store, two_platforms(), "linux/s390x")
    assert contents(store, "a:1") == {"b": b"two"}
    load(store, two_platforms(), "linux/amd64")
    assert contents(store, "a:1") == {"a": b"one", "dir/f": b"1"}
    with pytest.raises(InvalidParameter, match="no matching manifest for linux/arm64"):
        load(store, two_platforms(), "linux/arm64")
    with pytest.raises(NotFound, match=r"does not provide the specified platform \(linux/arm64\)"):
        saved(store, "a:1", platform="linux/arm64")


# What is refused


def changed(members: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    (entry,) = json.loads(members["manifest.json"])
    return {**members, "manifest.json": json.dumps([{**entry, **changes}]).encode()}


DOCKER = made.docker(["a:1"], ONE, TWO)
OCI = made.layout("a:1", ONE, ZIPPED)
OTHER = made.layout("a:1", TWO)
CONFIG = next(name for name in DOCKER if name.endswith(".json") and name != "manifest.json")
MANIFEST = next(
    name for name, data in OCI.items() if b'"layers"' in data and b'"config":' in data and b"rootfs" not in data
)


def manifest_with(**changes: Any) -> dict[str, bytes]:
    """The OCI layout with another manifest, which is what the index says."""
    found = json.dumps({**json.loads(OCI[MANIFEST]), **changes}).encode()
    entry = made.descriptor(found, made.documents.OCI_MANIFEST)
    return {
        **OCI,
        made.blob(found): found,
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
    }


def indexed(*entries: tuple[str, str, dict[str, bytes]]) -> dict[str, bytes]:
    """A layout of several images: the whole name and the standard's annotation of each; "" leaves one out."""
    members: dict[str, bytes] = {}
    listed = []
    for name, ref, layout in entries:
        members |= layout
        (entry,) = json.loads(layout["index.json"])["manifests"]
        said = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": ref}
        listed.append({**entry, "annotations": {key: value for key, value in said.items() if value}})
    return {**members, "index.json": json.dumps({"schemaVersion": 2, "manifests": listed}).encode()}


def two_meanings() -> dict[str, bytes]:
    """Docker's table with one name for two images."""
    other = made.docker(["a:1"], TWO)
    table = json.loads(DOCKER["manifest.json"]) + json.loads(other["manifest.json"])
    return {**other, **DOCKER, "manifest.json": json.dumps(table).encode()}


def without(members: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {key: value for key, value in members.items() if key != name}


HOSTILE: list[tuple[str, bytes, str]] = [
    ("empty", b"", "does not contain a manifest.json"),
    ("no archive", b"x" * 2000, "invalid tar header"),
    ("no table", made.tar({"x": b""}), "invalid archive: does not contain a manifest.json"),
    ("truncated", made.tar(DOCKER)[:-3000], "unexpected EOF"),
    ("truncated in the middle", made.tar(OCI)[: len(made.tar(OCI)) // 2], "unexpected EOF|does not contain"),
    ("truncated gzip", gzip.compress(made.tar(DOCKER))[:-100], "gzip: unexpected EOF"),
    ("above the top", made.tar({**DOCKER, "../x": b""}), r'"../x" is outside of it'),
    ("above the top, deep", made.tar({**DOCKER, "a/../../x": b""}), "is outside of it"),
    ("a config above the top", made.tar(changed(DOCKER, Config="../../etc/passwd")), "is outside of it"),
    ("a link out", made.tar({**DOCKER, "l": b"-> ../../etc/passwd"}), 'invalid symlink "l" -> "../../etc/passwd"'),
    ("an absolute link", made.tar({**DOCKER, CONFIG: b"-> /etc/passwd"}), "invalid symlink"),
    ("a hard link out", hardlink(b"l", b"../x") + made.tar(DOCKER), 'invalid hardlink "l" -> "../x"'),
    ("a loop of links", made.tar({**DOCKER, CONFIG: b"-> l", "l": b"-> " + CONFIG.encode()}), "too many links"),
    ("one name twice", made.tar([*DOCKER.items(), ("manifest.json", b"[]")]), 'it contains "manifest.json" twice'),
    ("one name twice, dotted", made.tar([*DOCKER.items(), ("./manifest.json", b"[]")]), "twice"),
    ("a config that is not there", made.tar(without(DOCKER, CONFIG)), f'does not contain "{CONFIG}"'),
    ("a layer that is not there", made.tar(without(DOCKER, f"{0:064x}/layer.tar")), "does not contain"),
    ("a blob that is not there", made.tar(without(OCI, made.blob(ZIPPED))), "does not contain"),
    ("a layer that is another", made.tar({**DOCKER, f"{0:064x}/layer.tar": TWO}), "invalid diffID: expected"),
    ("a layer too few", made.tar(changed(DOCKER, Layers=[f"{0:064x}/layer.tar"])), "layers length mismatch: expected 1, got 2"),
    ("a blob that lies", made.tar({**OCI, made.blob(ZIPPED): gzip.compress(TWO, mtime=1)}), "unexpected digest"),
    ("a manifest that lies", made.tar({**OCI, MANIFEST: OCI[MANIFEST].replace(b"2", b"3", 1)}), "has the digest"),
    ("a size that lies", made.tar({**OCI, made.blob(ZIPPED): ZIPPED + b"x"}), "its descriptor says"),
    ("a layer that is none", made.tar(made.docker(["a:1"], b"x" * 700)), "layer .*invalid tar header"),
    ("no list", made.tar({**DOCKER, "manifest.json": b"{}"}), "manifest.json is not a list"),
    ("no JSON", made.tar({**DOCKER, "manifest.json": b"[" * 100000}), "manifest.json is not valid JSON"),
    ("a tag that is none", made.tar(changed(DOCKER, RepoTags=["A b"])), "invalid reference format"),
    ("a tag without a tag", made.tar(changed(DOCKER, RepoTags=["a"])), 'invalid tag "a"'),
    ("tags of numbers", made.tar(changed(DOCKER, RepoTags=[1])), "RepoTags is not a list of strings"),
    ("another system", made.tar(made.docker(["a:1"], ONE, os="windows")), "cannot load windows image on linux"),
    ("an image and an index", made.tar(manifest_with(manifests=[])), "cannot be both an image and an index"),
    ("an index and an image", made.tar({**OCI, "index.json": b'{"schemaVersion": 2, "manifests": [], "layers": []}'}), "at once"),
    ("an index of nothing", made.tar({**OCI, "index.json": b"{}"}), "not an image index"),
    ("two meanings of a name", made.tar(indexed(("a:1", "1", OCI), ("a:1", "1", OTHER))), "a:1 is the name of two images"),
    ("two meanings in Docker's table", made.tar(two_meanings()), "a:1 is the name of two images"),
    ("a layout of the future", made.tar({**OCI, "oci-layout": b'{"imageLayoutVersion": "2.0.0"}'}), "layout version '2.0.0'"),
    ("a layout of no version", made.tar({**OCI, "oci-layout": b"[]"}), "oci-layout is not a JSON object"),
    ("a sparse file", header(b"GNU", b"S", 0, magic=b"ustar  \0") + made.tar(DOCKER), "is a sparse file"),
    ("a huge table", made.tar({**DOCKER, "manifest.json": b" " * (5 << 20)}), r'"manifest.json" has 5242880 bytes, more than'),
    ("a huge config", made.tar({**DOCKER, CONFIG: b" " * (9 << 20)}), "bytes, more than"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
@pytest.mark.parametrize("form", ["file", "stream"])
def test_an_archive_that_is_refused(store: Store, tmp_path: Path, data: bytes, message: str, form: str) -> None:
    kept = store.add("kept", archive({"k": b""}))
    before = store.files()
    (tmp_path / "archive").write_bytes(data)
    with (tmp_path / "archive").open("rb") as stream, pytest.raises(InvalidParameter, match=message):
        store.images.load(stream if form == "file" else io.BytesIO(data))
    assert store.files() == before
    assert store.images.resolve("kept").id == kept.id


def test_a_second_image_that_is_bad_takes_the_first_along(store: Store) -> None:
    one, two = made.docker(["a:1"], ONE), made.docker(["a:2"], TWO)
    two["x/layer.tar"] = b"x" * 600
    table = json.loads(one["manifest.json"]) + json.loads(changed(two, Layers=["x/layer.tar"])["manifest.json"])
    with pytest.raises(InvalidParameter):
        load(store, made.tar({**one, **two, "manifest.json": json.dumps(table).encode()}))
    assert store.files() == []


def test_a_few_bytes_that_unfold_to_a_full_disk(tmp_path: Path) -> None:
    huge = 96 << 20
    bomb = header(b"zeros", size=huge) + bytes(huge) + bytes(1024)
    inside = made.tar(made.docker(["a:1"], gzip.compress(bomb, 1)))
    outside = gzip.compress(made.tar({"x": b""}, end=b"") + header(b"y", size=huge) + bytes(huge), 1)
    with disk(tmp_path / "disk", "32m") as place:
        store = Store(place)
        for data in (inside, outside):
            assert len(data) < 1 << 20
            with pytest.raises(System, match="no space left on device"):
                load(store, data)
            assert store.files() == []


class Watched(io.BytesIO):
    """Bytes; and how little was free on a disk when some of them were asked for."""

    def __init__(self, data: bytes, place: Path) -> None:
        super().__init__(data)
        self._place = place
        self.least = 1 << 60

    def read(self, size: int | None = -1, /) -> bytes:
        status = os.statvfs(self._place)
        self.least = min(self.least, status.f_bavail * status.f_frsize)
        return super().read(size)


def test_a_bomb_is_stopped_while_something_is_free(tmp_path: Path) -> None:
    huge = 96 << 20
    bomb = header(b"zeros", size=huge) + bytes(huge) + bytes(1024)
    packed = gzip.compress(bomb, 1)
    inside, oci = made.tar(made.docker(["a:1"], packed)), made.tar(made.layout("a:1", packed))
    with disk(tmp_path / "disk", "64m") as place:
        store = Store(place)
        for data in (packed, inside, oci, gzip.compress(bomb + bytes(1 << 20), 1)):
            stream = Watched(data, place)
            with pytest.raises(System, match=r"no space left on device: \d+ bytes have unfolded to \d+ by now"):
                store.images.import_(stream) if data is packed else store.images.load(stream)
            assert stream.least > 1 << 20
            assert store.files() == []


def test_what_unfolds_to_a_thousand_times_its_size_is_loaded_where_there_is_room(store: Store) -> None:
    zeros = header(b"zeros", size=64 << 20) + bytes(64 << 20) + bytes(1024)
    packed = gzip.compress(zeros, 6)
    assert len(packed) * 900 < len(zeros)
    load(store, made.tar(made.layout("a:1", packed)))
    assert len(contents(store, "a:1")["zeros"]) == 64 << 20


def test_a_disk_that_is_full_in_the_middle(tmp_path: Path) -> None:
    layer = archive({"f": os.urandom(6 << 20)})
    data = made.tar(made.docker(["a:1"], ONE, layer))
    (tmp_path / "archive").write_bytes(data)
    with disk(tmp_path / "disk", "10m") as place, (tmp_path / "archive").open("rb") as stream:
        store = Store(place)
        with pytest.raises(System, match="no space left on device"):
            store.images.load(stream)
        assert store.files() == []
        # And the room is there again.
        load(store, made.tar(made.docker(["a:1"], ONE)))


# What is saved


@pytest.fixture
def images(store: Store) -> Store:
    store.add("a:1", ONE, ZIPPED)
    store.add("a:2", ONE)
    store.add("b:1", TWO)
    store.images.tag("a:1", "c/d:9")
    return store


def tables(data: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()

        def read(name: str) -> Any:
            file = tar.extractfile(name)
            assert file is not None
            return json.load(file)

        return read("manifest.json"), read("index.json")["manifests"], names


def test_saved_twice_the_bytes_are_the_same(images: Store) -> None:
    assert saved(images, "a:1", "b:1") == saved(images, "a:1", "b:1")


def test_saved_and_loaded_it_is_the_same_image(images: Store, tmp_path: Path) -> None:
    data = saved(images, "a:1", "c/d:9", "b:1")
    other = Store(tmp_path / "other")
    assert [name for name, _ in load(other, data)] == ["a:1", "c/d:9", "b:1"]
    for name in ("a:1", "b:1"):
        assert other.images.resolve(name).id == images.images.resolve(name).id
        assert other.images.resolve(name).target == images.images.resolve(name).target
    assert saved(other, "a:1", "c/d:9", "b:1") == data
    assert other.files() == other.reachable()


def test_what_is_shared_is_there_once(images: Store) -> None:
    docker, oci, names = tables(saved(images, "a:1", "a:2"))
    assert len(names) == len(set(names))
    assert docker[0]["Layers"][0] == docker[1]["Layers"][0]
    assert [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in oci] == ["1", "2"]


def test_a_repository_means_all_its_tags_and_an_id_none(images: Store) -> None:
    docker, _, _ = tables(saved(images, "a"))
    assert [entry["RepoTags"] for entry in docker] == [["a:1"], ["a:2"]]
    docker, oci, _ = tables(saved(images, images.images.resolve("a:1").id))
    assert (docker[0]["RepoTags"], "annotations" in oci[0]) == (None, False)


class Slow:
    """A sink whose reader does something else after the first blob has come."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self.data = io.BytesIO()
        self._meanwhile: Callable[[], object] | None = meanwhile

    def write(self, data: bytes, /) -> None:
        self.data.write(data)
        if self._meanwhile is not None and self.data.tell() > 2048:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()


def test_an_image_that_is_removed_while_it_is_saved_is_saved_and_goes_then(store: Store) -> None:
    store.add("kept", TWO)
    store.add("a:1", ONE, ZIPPED)
    before = saved(store, "a:1")
    seen: list[bool] = []

    def meanwhile() -> None:
        store.images.remove("a:1")
        store.images.collect()
        seen.append(all(store.content.exists(of_bytes(layer)) for layer in (ONE, ZIPPED)))

    sink = Slow(meanwhile)
    store.images.save(["a:1"], sink)
    assert seen == [True]
    assert sink.data.getvalue() == before
    assert store.files() == store.reachable()


def test_a_reader_that_goes_away_leaves_nothing_held(images: Store) -> None:
    def meanwhile() -> None:
        images.images.remove("b:1")
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        images.images.save(["b:1", "a:1"], Slow(meanwhile))
    assert images.content.held() == set()
    assert images.files() == images.reachable()


def test_more_layers_than_files_that_can_be_open(store: Store) -> None:
    layers = [archive({"f": b"%d" % number}) for number in range(120)]
    store.add("a:1", *layers)
    open_now = len(os.listdir("/proc/self/fd"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 40, before[1]))
    try:
        data = saved(store, "a:1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(tables(data)[0][0]["Layers"]) == 120


def test_an_image_that_is_not_there_or_damaged(images: Store) -> None:
    sink = io.BytesIO()
    with pytest.raises(NotFound, match="No such image: nobody:latest"):
        images.images.save(["a:1", "nobody"], sink)
    assert sink.getvalue() == b""
    Path(images.content.path(of_bytes(ZIPPED))).write_bytes(ZIPPED[:-1] + b"x")
    with pytest.raises(Damaged, match="is damaged: unexpected digest"):
        saved(images, "a:1")
    os.unlink(images.content.path(of_bytes(ONE)))
    with pytest.raises(SampanError, match=r"is damaged: content .* is not in the store"):
        saved(images, "a:1")
