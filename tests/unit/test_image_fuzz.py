"""Manifests, indexes and configs of anybody's making: read as exactly what they say, or refused; no other error ever comes out."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidParameter
from sampan.oci import image as documents
from sampan.oci.image import Index, Manifest
from sampan.oci.platform import here

DIGEST = "sha256:" + "a" * 64
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
TYPES = st.sampled_from(sorted(documents.MANIFESTS | documents.INDEXES | documents.LAYERS | documents.CONFIGS))
PLATFORM = st.fixed_dictionaries(
    {"os": st.sampled_from(["linux", "windows"]) | ODD, "architecture": st.sampled_from(["amd64", "arm"]) | ODD},
    optional={"variant": st.sampled_from(["v7", "v8"]) | ODD},
)
DESCRIPTOR = st.fixed_dictionaries(
    {"mediaType": TYPES | ODD, "digest": st.sampled_from([DIGEST, "sha256:short", "md5:" + "a" * 32]) | ODD},
    optional={"size": st.integers(-1, 1 << 60) | ODD, "platform": PLATFORM | ODD, "urls": ODD},
)
DOCUMENT = st.fixed_dictionaries(
    {"schemaVersion": st.just(2) | ODD},
    optional={
        "mediaType": TYPES | ODD,
        "config": DESCRIPTOR | ODD,
        "layers": st.lists(DESCRIPTOR | ODD, max_size=3) | ODD,
        "manifests": st.lists(DESCRIPTOR | ODD, max_size=3) | ODD,
        "fsLayers": ODD,
        "subject": ODD,
    },
)


def checked(found: Manifest | Index) -> None:
    """What came through can be used without another look."""
    entries = found.manifests if isinstance(found, Index) else (found.config, *found.layers)
    for entry in entries:
        documents.digests.parse(entry.digest)
        assert type(entry.size) is int
        assert entry.size >= 0
    if isinstance(found, Manifest):
        assert documents.parse_manifest(found.document()) == found
        assert {layer.media_type for layer in found.layers} <= documents.LAYERS


@given(DOCUMENT | ODD, st.just("") | TYPES)
def test_documents_of_every_form(document: Any, said: str) -> None:
    data = json.dumps(document).encode()
    try:
        found = documents.parse_manifest(data, said)
    except InvalidParameter:
        return
    # It is one thing, by all that is said of it (CVE-2021-41190).
    assert not ("manifests" in document and ("layers" in document or "config" in document))
    assert said in ("", found.media_type)
    assert document.get("mediaType", found.media_type) in ("", found.media_type)
    checked(found)
    if isinstance(found, Index):
        try:
            assert found.select(here()) in found.manifests
        except InvalidParameter:
            pass


@given(st.binary(max_size=200))
def test_bytes_of_every_kind(data: bytes) -> None:
    for read in (documents.parse_manifest, documents.parse_config):
        try:
            read(data)
        except InvalidParameter:
            pass


CONFIG = st.fixed_dictionaries(
    {
        "rootfs": st.fixed_dictionaries({"type": st.just("layers") | ODD, "diff_ids": st.lists(st.just(DIGEST) | ODD, max_size=3) | ODD}) | ODD
    },
    optional={
        "os": st.just("linux") | ODD,
        "architecture": st.just("amd64") | ODD,
        "history": ODD,
        "config": st.dictionaries(
            st.sampled_from(["Env", "Cmd", "Entrypoint", "Labels", "Volumes", "User", "Healthcheck", "OnBuild"]), ODD
        )
        | ODD,
    },
)  # fmt: skip


@given(CONFIG | ODD)
def test_configs_of_every_form(document: Any) -> None:
    try:
        found = documents.parse_config(json.dumps(document).encode())
    except InvalidParameter:
        return
    assert all(isinstance(one, str) for one in found.diff_ids)
    assert all(isinstance(one, str) for one in found.config.get("Env") or ())
    assert isinstance(found.config.get("Labels") or {}, dict)
    assert len(documents.chain_ids(found.diff_ids)) == len(found.diff_ids)
