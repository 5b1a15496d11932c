"""Manifests, indexes and configs: what is read, and what of a stranger's is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidParameter
from sampan.oci import image
from sampan.oci.platform import Platform

A, B, C = (f"sha256:{c * 64}" for c in "abc")
AMD64 = Platform("linux", "amd64")


def config_entry(**changes: Any) -> dict[str, Any]:
    return {"mediaType": image.OCI_CONFIG, "digest": A, "size": 2, **changes}


def layer_entry(**changes: Any) -> dict[str, Any]:
    return {"mediaType": image.OCI_LAYER, "digest": B, "size": 3, **changes}


def manifest(**changes: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": image.OCI_MANIFEST,
        "config": config_entry(),
        "layers": [layer_entry()],
        **changes,
    }
    return json.dumps({k: v for k, v in document.items() if v is not ...}).encode()


def config(**changes: Any) -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [B]},
        **changes,
    }
    return json.dumps({k: v for k, v in document.items() if v is not ...}).encode()


def test_a_manifest_round_trips() -> None:
    found = image.parse_manifest(manifest())
    assert isinstance(found, image.Manifest)
    assert found.config == image.Descriptor(image.OCI_CONFIG, A, 2)
    assert found.layers == (image.Descriptor(image.OCI_LAYER, B, 3),)
    assert image.parse_manifest(found.document()) == found


def test_a_docker_manifest_is_read() -> None:
    data = manifest(
        mediaType=image.DOCKER_MANIFEST,
        config=config_entry(mediaType=image.DOCKER_CONFIG),
        layers=[layer_entry(mediaType=image.DOCKER_LAYER_GZIP)],
    )
    assert image.parse_manifest(data, image.DOCKER_MANIFEST).media_type == image.DOCKER_MANIFEST


def test_a_manifest_without_a_media_type_is_what_was_announced() -> None:
    assert image.parse_manifest(manifest(mediaType=...)).media_type == image.OCI_MANIFEST
    assert image.parse_manifest(manifest(mediaType=...), image.DOCKER_MANIFEST).media_type == image.DOCKER_MANIFEST


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"[" * 100000, "not valid JSON"),
        (b'{"schemaVersion": NaN}', "not valid JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON"),
        (b" " * (image.MANIFEST_LIMIT + 1), "larger than"),
        (manifest(schemaVersion=1), "schema version"),
        (manifest(manifests=[]), "layers and manifests"),
        (manifest(layers=..., manifests=[]), "layers and manifests"),
        (manifest(fsLayers=[]), "schema 1"),
        (manifest(mediaType=7), "mediaType is not a string"),
        (manifest(mediaType=image.DOCKER_MANIFEST), "was announced"),
        (manifest(config=...), "config is not a descriptor"),
        (manifest(config=config_entry(mediaType=image.OCI_LAYER)), "unsupported media type"),
        (manifest(config=config_entry(digest="md5:" + "a" * 32)), "unsupported digest algorithm"),
        (manifest(config=config_entry(digest="sha256:../../../etc/passwd")), "invalid checksum digest"),
        (manifest(config=config_entry(digest=None)), "no digest"),
        (manifest(config=config_entry(size=-1)), "impossible size"),
        (manifest(config=config_entry(size=True)), "impossible size"),
        (manifest(config=config_entry(size=1.5)), "impossible size"),
        (manifest(config=config_entry(size=1 << 60)), "impossible size"),
        (manifest(layers=7), "layers is not a list"),
        (manifest(layers=[layer_entry(mediaType="image/png")]), "unsupported media type"),
        (manifest(layers=[layer_entry()] * 501), "at most 500"),
    ],
)
def test_a_manifest_that_is_not_exactly_one_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        image.parse_manifest(data, image.OCI_MANIFEST)


def test_a_manifest_must_be_what_it_calls_itself() -> None:
    with pytest.raises(InvalidParameter, match="unsupported manifest media type 'text/plain'"):
        image.parse_manifest(manifest(mediaType="text/plain"))
    with pytest.raises(InvalidParameter, match="do not fit its media type"):
        image.parse_manifest(manifest(mediaType=image.OCI_INDEX))


def index(*platforms: dict[str, str] | None) -> image.Index:
    entries = [
        {"mediaType": image.OCI_MANIFEST, "digest": f"sha256:{i:064x}", "size": 1, **({"platform": p} if p else {})}
        for i, p in enumerate(platforms)
    ]
    found = image.parse_manifest(
        json.dumps({"schemaVersion": 2, "mediaType": image.OCI_INDEX, "manifests": entries}).encode()
    )
    assert isinstance(found, image.Index)
    return found


def test_an_index_gives_the_manifest_for_the_machine() -> None:
    arm = {"os": "linux", "architecture": "arm"}
    found = index(None, {"os": "unknown", "architecture": "unknown"}, {"os": "linux", "architecture": "amd64"})
    assert found.select(AMD64).digest == f"sha256:{2:064x}"
    found = index({**arm, "variant": "v5"}, {**arm, "variant": "v7"}, {**arm, "variant": "v6"})
    assert found.select(Platform("linux", "arm", "v6")).digest == f"sha256:{2:064x}"
    assert found.select(Platform("linux", "arm", "v8")).digest == f"sha256:{1:064x}"
    with pytest.raises(InvalidParameter, match="no matching manifest for linux/amd64 in the manifest list entries"):
        found.select(AMD64)


def test_a_config_is_read() -> None:
    found = image.parse_config(config(created="2024-01-01T00:00:00Z", history=[{"comment": "x"}]))
    assert found.platform == AMD64
    assert found.diff_ids == (B,)
    assert found.config == {"Cmd": ["sh"]}
    assert found.created == "2024-01-01T00:00:00Z"
    assert found.history == [{"comment": "x"}]


def test_odd_but_known_configs_are_read() -> None:
    assert image.parse_config(config(config=None)).config == {}
    assert image.parse_config(config(config=...)).config == {}
    assert image.parse_config(config(config={"Entrypoint": "one"})).config == {"Entrypoint": ["one"]}
    assert image.parse_config(config(rootfs={"type": "layers", "diff_ids": None})).diff_ids == ()
    found = image.parse_config(b'{"rootfs":{"type":"layers"},"config":{"Env":["A=\xff"]}}')
    assert image.dump({"Env": found.config["Env"]}) == b'{"Env":["A=\\udcff"]}'


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        config(rootfs={"type": "squash", "diff_ids": []}),
        config(rootfs={"type": "layers", "diff_ids": [7]}),
        config(rootfs={"type": "layers", "diff_ids": ["sha256:short"]}),
        config(rootfs={"type": "layers", "diff_ids": [A] * 501}),
        config(os=7),
        config(config=[]),
        config(config={"Env": "A=1"}),
        config(config={"Env": [1]}),
        config(config={"Cmd": {"a": 1}}),
        config(config={"Labels": {"a": 1}}),
        config(config={"Labels": ["a"]}),
        config(config={"Volumes": ["/v"]}),
        config(config={"User": 0.5}),
        config(config={"Healthcheck": {"Test": "x"}}),
        b" " * (image.CONFIG_LIMIT + 1),
    ],
)
def test_a_config_that_no_container_could_be_made_from_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidParameter):
        image.parse_config(data)


def test_a_chain_id_depends_on_all_layers_below() -> None:
    first, second, third = image.chain_ids([A, B, C])
    assert first == A
    assert second == "sha256:" + hashlib.sha256(f"{A} {B}".encode()).hexdigest()
    assert image.chain_ids([A, B]) == (first, second)
    assert image.chain_ids([B, A])[1] != second
    assert image.chain_ids([C, B, A])[2] != third
    assert image.chain_ids([]) == ()


def test_the_same_config_has_the_same_bytes() -> None:
    made = [
        image.make_config(AMD64, "t", {"Cmd": ["sh"], "Env": None, "Labels": {}}, [A], [{"comment": "c"}], comment="c")
        for _ in range(2)
    ]
    assert made[0] == made[1]
    found = image.parse_config(made[0])
    assert (found.config, found.diff_ids, found.platform) == ({"Cmd": ["sh"]}, (A,), AMD64)
    assert found.document["comment"] == "c"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.thorough
@given(st.dictionaries(st.sampled_from(["config", "layers", "manifests", "mediaType", "x"]), JSON))
def test_no_document_breaks_the_reader(changes: dict[str, Any]) -> None:
    assert _is_refused(lambda: image.parse_manifest(json.dumps({"schemaVersion": 2, **changes}).encode())) in (0, 1)


@given(st.dictionaries(st.sampled_from(["Env", "Cmd", "Labels", "Volumes", "Healthcheck"]), JSON))
def test_no_config_breaks_the_reader(member: dict[str, Any]) -> None:
    assert _is_refused(lambda: image.parse_config(config(config=member))) in (0, 1)


def _is_refused(read: Any) -> bool:
    try:
        read()
    except InvalidParameter:
        return True
    return False
