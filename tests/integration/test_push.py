"""`push` to Debian's docker-registry: what arrives, what is not sent again, and who can read it."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import NotFound, Unavailable
from sampan.oci import image as documents
from sampan.oci.digest import of_bytes

from support import imagearchives, tools
from support.imagestore import Store, archive
from support.registry import PASSWORD, USER, Registry, fetch, htpasswd, registry, upload
from support.tokenserver import token_server

pytestmark = pytest.mark.root

BIG = archive({"bin": None, "bin/random": os.urandom(5_000_000), "zeros": bytes(3_000_000)})


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return Store(tmp_path / "store")


def manifest(found: Registry, name: str, tag: str) -> bytes:
    url = f"http://127.0.0.1:{found.port}/v2/{name}/manifests/{tag}"
    return fetch(url, {"Accept": f"{documents.OCI_MANIFEST}, {documents.DOCKER_MANIFEST}"})


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_what_was_made_here_arrives_compressed_and_comes_back_the_same(
    plain: Registry, store: Store, tmp_path: Path, kind: str
) -> None:
    name = f"{plain.host}/made/{kind}:1"
    image_id = store.images.import_(io.BytesIO(BIG), name)
    pushed = store.images.push(name, compression=kind)[0]
    data = manifest(plain, f"made/{kind}", "1")
    assert (pushed.tag, pushed.digest, pushed.size) == ("1", of_bytes(data), len(data))
    layer = json.loads(data)["layers"][0]
    assert layer["mediaType"] == f"{documents.OCI_LAYER}+{kind}"
    sent = plain.blob(layer["digest"]).read_bytes()
    assert imagearchives.plain(sent) == BIG
    if kind == "gzip":
        assert gzip.decompress(sent) == BIG  # by another reader
    # It is the registry's image now: the same digest, and what was compressed is kept.
    assert store.images.inspect(name)["RepoDigests"] == [f"{plain.host}/made/{kind}@{pushed.digest}"]
    other = Store(tmp_path / "other")
    pulled = other.images.pull(name)[0]
    assert (pulled.id, pulled.digest) == (image_id, pushed.digest)
    assert other.files() == other.reachable()
    # The plain archive is needed by nobody any more, and is gone.
    assert store.files() == store.reachable()
    store.snapshots.remove_layer(store.images.resolve(name).layers[0])
    store.images.ensure_unpacked(store.images.resolve(name))


def test_what_is_there_is_not_sent(plain: Registry, store: Store) -> None:
    name = f"{plain.host}/once:1"
    store.images.import_(io.BytesIO(archive({"once": os.urandom(100_000)})), name)
    first = store.images.push(name)[0]
    patched, seen = len(plain.asked("PATCH")), []
    second = store.images.push(name, report=lambda *line: seen.append(line))[0]
    assert (second, len(plain.asked("PATCH"))) == (first, patched)
    assert [status for _, status, *_ in seen] == ["Preparing", "Layer already exists"]
    # In another repository of the same registry it is taken from the first.
    other = f"{plain.host}/taken:1"
    store.images.tag(name, other)
    seen.clear()
    assert store.images.push(other, report=lambda *line: seen.append(line))[0].digest == first.digest
    assert [status for _, status, *_ in seen] == ["Preparing", "Mounted from once"]
    assert len(plain.asked("PATCH")) == patched


def test_an_image_that_was_pulled_keeps_its_digest(plain: Registry, store: Store) -> None:
    members = imagearchives.layout("", gzip.compress(archive({"pulled": os.urandom(10_000)})), architecture="amd64")
    digest = upload(f"http://127.0.0.1:{plain.port}", "from", "1", members)
    store.images.pull(f"{plain.host}/from:1", "linux/amd64")
    with registry(Path(store.directory) / "second") as second:
        store.images.tag(f"{plain.host}/from:1", f"{second.host}/to:2")
        assert store.images.push(f"{second.host}/to:2")[0].digest == digest
        assert of_bytes(manifest(second, "to", "2")) == digest


def test_a_layer_that_others_have_is_compressed_once(plain: Registry, store: Store) -> None:
    low = archive({"low": os.urandom(50_000)})
    store.add(f"{plain.host}/low:1", low)
    first = store.images.push(f"{plain.host}/low:1")[0]
    store.add(f"{plain.host}/low:2", low, archive({"high": b"h"}))
    store.images.push(f"{plain.host}/low:2")
    one, two = (json.loads(manifest(plain, "low", tag))["layers"] for tag in ("1", "2"))
    assert two[0] == one[0]
    assert first.digest == of_bytes(manifest(plain, "low", "1"))
    assert store.images.push(f"{plain.host}/low", all_tags=True)[0].digest == first.digest


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_other_tools_read_it(plain: Registry, store: Store, tmp_path: Path, kind: str) -> None:
    name = f"{plain.host}/others-{kind}:1"
    image_id = store.images.import_(io.BytesIO(BIG), name, ['CMD ["sh"]'])
    store.images.push(name, compression=kind)
    skopeo = tools.skopeo(tmp_path)
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/layout:1")
    shown = skopeo.json("inspect", "--config", f"oci:{tmp_path}/layout:1")
    assert shown["rootfs"]["diff_ids"] == [of_bytes(BIG)]
    buildah = tools.buildah(tmp_path / "buildah")
    assert buildah("pull", "--tls-verify=false", "-q", name) == image_id.removeprefix("sha256:")


def test_who_may_not_push(tmp_path: Path, store: Store) -> None:
    with registry(tmp_path / "registry", auth=htpasswd(tmp_path)) as found:
        name = f"{found.host}/private:1"
        store.images.import_(io.BytesIO(archive({"a": b"1"})), name)
        with pytest.raises(NotFound, match="no basic auth credentials"):
            store.images.push(name)
        assert store.images._registries is not None
        store.images._registries().login(found.host, USER, PASSWORD)
        assert store.images.push(name)[0].tag == "1"


def test_with_a_token_server(tmp_path: Path, store: Store) -> None:
    with token_server(tmp_path / "t") as tokens, registry(tmp_path / "registry", auth=tokens.auth()) as found:
        name, other = f"{found.host}/team/open:1", f"{found.host}/team/more:1"
        store.images.import_(io.BytesIO(archive({"a": b"1"})), name)
        with pytest.raises(
            NotFound, match="push access denied, repository does not exist or may require authorization"
        ):
            store.images.push(name)
        assert store.images._registries is not None
        store.images._registries().login(found.host, USER, PASSWORD)
        store.images.push(name)
        store.images.tag(name, other)
        seen: list[str] = []
        store.images.push(other, report=lambda _layer, status, *_: seen.append(status))
        assert seen[-1] == "Mounted from team/open"
        assert tokens.asked[-1]["scope"] or any("team/open:pull" in str(asked.get("scope")) for asked in tokens.asked)


def test_what_cannot_be_pushed(plain: Registry, store: Store) -> None:
    with pytest.raises(NotFound, match=f"An image does not exist locally with the tag: {plain.host}/none"):
        store.images.push(f"{plain.host}/none:1")
    store.images.import_(io.BytesIO(archive({"a": b"1"})), "localhost:1/x:1")
    with pytest.raises(Unavailable, match="connection refused"):
        store.images.push("localhost:1/x:1")
    with pytest.raises(NotFound, match=r"its platform .* does not match the specified platform \(linux/s390x\)"):
        store.images.push("localhost:1/x:1", "linux/s390x")
    assert store.files() == store.reachable()
