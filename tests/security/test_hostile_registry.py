"""Registries that lie: each lie is refused with its reason, nothing is left behind, and nobody's credentials go anywhere else."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import InvalidParameter, NotFound, SampanError, Unavailable
from sampan.oci import image as documents
from sampan.oci import platform
from sampan.oci.digest import of_bytes

from support import imagearchives
from support.hostile import Hostile, Request, hostile, sent
from support.imagestore import Store, archive

pytestmark = pytest.mark.root

LAYER = gzip.compress(archive({"file": os.urandom(300_000)}))
OTHER = gzip.compress(archive({"other": b"not what was asked for"}))
AUTH = "Basic YW5uOnNlY3JldA=="  # ann:secret


@pytest.fixture
def lying() -> Iterator[Hostile]:
    with hostile() as found:
        yield found


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr("sampan.registry.client._FIRST_PAUSE", 0.01)
    return Store(tmp_path / "store", registry_timeout=1.0)


def layout(*layers: bytes, **more: Any) -> dict[str, bytes]:
    return imagearchives.layout("", *(layers or (LAYER,)), **{"architecture": platform.here().architecture, **more})


def manifest_of(members: dict[str, bytes]) -> dict[str, Any]:
    digest = json.loads(members["index.json"])["manifests"][0]["digest"]
    found: dict[str, Any] = json.loads(members[f"blobs/sha256/{digest.removeprefix('sha256:')}"])
    return found


def refused(store: Store, lying: Hostile, kind: type[SampanError], words: str, name: str = "x:1") -> None:
    with pytest.raises(kind, match=words):
        store.images.pull(f"{lying.host}/{name}")
    assert store.files() == []


def test_the_truth_is_believed(store: Store, lying: Hostile) -> None:
    """What the other tests change one thing of."""
    digest = lying.serve("x", layout())
    assert store.images.pull(f"{lying.host}/x:1")[0].digest == digest
    assert store.files() == store.reachable()


# Documents


def changed(**changes: Any) -> bytes:
    return json.dumps({**manifest_of(layout()), **changes}).encode()


FOREIGN = {
    "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "digest": of_bytes(LAYER), "size": len(LAYER), "urls": ["http://127.0.0.1:1/layer"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("data", "media_type", "words"),
    [
        (changed(manifests=[]), "", "cannot be both an image and an index"),
        (changed(), documents.OCI_INDEX, "is announced|was announced"),
        (changed(mediaType="application/vnd.evil+json"), "application/json", "unsupported manifest media type"),
        (b"<html>log in</html>", "text/html", "unsupported manifest media type 'text/html'"),
        (b"{" * 100_000, documents.OCI_MANIFEST, "not valid JSON|nested"),
        (b" " * (documents.MANIFEST_LIMIT + 1), documents.OCI_MANIFEST, "larger than 4194304 bytes"),
        (changed(layers=[FOREIGN]), "", "unsupported media type"),
        (changed(layers=[{**FOREIGN, "mediaType": documents.OCI_LAYER_GZIP, "size": -1}]), "", "impossible size"),
        (changed(layers=[{**FOREIGN, "mediaType": documents.OCI_LAYER_GZIP, "digest": "md5:00"}]), "", "unsupported digest algorithm"),
        (changed(layers=[]), "", "layers length mismatch"),
        (json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(), "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
    ],
    ids=["two-meanings", "another-type", "unknown-type", "html", "deep", "huge", "foreign", "size", "algorithm", "few-layers", "schema1"],
)  # fmt: skip
def test_documents_that_lie(store: Store, lying: Hostile, data: bytes, media_type: str, words: str) -> None:
    lying.serve("x", layout())
    lying.answers["/v2/x/manifests/1"] = sent(data, Content_Type=media_type or documents.OCI_MANIFEST)
    refused(store, lying, InvalidParameter, words)


def test_another_document_than_the_digest_says(store: Store, lying: Hostile) -> None:
    digest = lying.serve("x", layout())
    other = changed(annotations={"a": "b"})
    lying.answers[f"/v2/x/manifests/{digest}"] = lying.document(other)
    refused(store, lying, InvalidParameter, "manifest verification failed for digest", f"x@{digest}")
    lying.answers["/v2/x/manifests/1"] = sent(other, Content_Type=documents.OCI_MANIFEST, Docker_Content_Digest=digest)
    refused(store, lying, InvalidParameter, "manifest verification failed for digest")


def test_a_config_that_is_another_one(store: Store, lying: Hostile) -> None:
    members = layout()
    lying.serve("x", members)
    config = manifest_of(members)["config"]
    evil = bytes(config["size"])
    lying.answers[f"/v2/x/blobs/{config['digest']}"] = sent(evil)
    refused(store, lying, InvalidParameter, "verification failed")


def test_a_config_that_does_not_fit_its_layers(store: Store, lying: Hostile) -> None:
    rootfs = {"type": "layers", "diff_ids": [of_bytes(b"something else")]}
    lying.serve("x", layout(rootfs=rootfs))
    refused(store, lying, InvalidParameter, "failed to register layer: invalid diffID")


# Blobs


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (sent(LAYER + b"more"), "its descriptor says"),
        (sent(LAYER[:-1]), "its descriptor says"),
        (sent(OTHER + bytes(len(LAYER) - len(OTHER))), "failed to register layer|verification failed"),
        (sent(bytes(len(LAYER))), "failed to register layer|verification failed"),
    ],
    ids=["longer", "shorter", "another", "zeros"],
)
def test_blobs_that_lie(store: Store, lying: Hostile, answer: Any, words: str) -> None:
    lying.serve("x", layout())
    lying.answers[f"/v2/x/blobs/{of_bytes(LAYER)}"] = answer
    refused(store, lying, InvalidParameter, words)


def test_a_blob_without_an_end(store: Store, lying: Hostile) -> None:
    def endless(request: Request) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        try:
            while not lying.ended.is_set():
                request.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        except OSError:
            pass
        request.close_connection = True

    lying.serve("x", layout())
    lying.answers[f"/v2/x/blobs/{of_bytes(LAYER)}"] = endless
    refused(store, lying, InvalidParameter, "more bytes than the|failed to register layer")


def test_a_range_that_is_another_one(store: Store, lying: Hostile) -> None:
    def first_half_then_anything(request: Request) -> None:
        if request.headers.get("Range"):
            request.send(LAYER[:100], 206, Content_Range=f"bytes 0-99/{len(LAYER)}")
        else:
            request.send(LAYER[: len(LAYER) // 2], length=len(LAYER))

    lying.serve("x", layout())
    lying.answers[f"/v2/x/blobs/{of_bytes(LAYER)}"] = first_half_then_anything
    refused(store, lying, InvalidParameter, "asked for what follows byte")


# Stalls, closes, turns away


def test_connections_that_break_are_gone_on_with(store: Store, lying: Hostile) -> None:
    def third(request: Request) -> None:
        begin = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        end = min(begin + len(LAYER) // 3 + 1, len(LAYER))
        span = {"Content_Range": f"bytes {begin}-{len(LAYER) - 1}/{len(LAYER)}"} if begin else {}
        request.send(LAYER[begin:end], 206 if begin else 200, length=len(LAYER) - begin, **span)

    lying.serve("x", layout())
    lying.answers[f"/v2/x/blobs/{of_bytes(LAYER)}"] = third
    store.images.pull(f"{lying.host}/x:1")
    assert store.files() == store.reachable()
    ranges = [asked[2] for asked in lying.asked if of_bytes(LAYER) in asked[0]]
    assert ranges == ["", *(f"bytes={n * (len(LAYER) // 3 + 1)}-" for n in (1, 2))]


def test_a_registry_that_closes_for_good_leaves_what_can_be_gone_on_with(store: Store, lying: Hostile) -> None:
    def half(request: Request) -> None:
        if request.headers.get("Range"):
            request.close_connection = True
        else:
            request.send(LAYER[: len(LAYER) // 2], length=len(LAYER))

    lying.serve("x", layout())
    lying.answers[f"/v2/x/blobs/{of_bytes(LAYER)}"] = half
    with pytest.raises(Unavailable):
        store.images.pull(f"{lying.host}/x:1")
    assert store.images.list() == []
    assert store.files() == [f"ingest pull-{of_bytes(LAYER).removeprefix('sha256:')}"]
    store.images.collect()
    assert store.files() == []


def test_a_registry_that_is_silent(store: Store, lying: Hostile) -> None:
    lying.serve("x", layout())
    lying.answers["/v2/"] = lambda _request: lying.ended.wait(30) and None
    begun = time.monotonic()
    refused(store, lying, Unavailable, "timeout: the registry is silent")
    assert time.monotonic() - begun < 20


def test_a_registry_that_wants_to_be_left_alone(store: Store, lying: Hostile) -> None:
    digest = lying.serve("x", layout())
    truth, turns = lying.answers["/v2/x/manifests/1"], []

    def busy(request: Request) -> None:
        turns.append(time.monotonic())
        if len(turns) < 3:
            request.send(b"{}", 429, Retry_After="0")
        else:
            truth(request)

    lying.answers["/v2/x/manifests/1"] = busy
    assert store.images.pull(f"{lying.host}/x:1")[0].digest == digest
    store.images.remove(f"{lying.host}/x:1")
    limit = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}'
    lying.answers["/v2/x/manifests/1"] = sent(limit, 429, Retry_After="3600")
    asked = len(lying.asked)
    refused(store, lying, Unavailable, "^toomanyrequests: You have reached your pull rate limit.$")
    assert len(lying.asked) <= asked + 3


def test_what_a_registry_says_moves_no_cursor(store: Store, lying: Hostile) -> None:
    text = "\x1b]0;owned\x07\x1b[2J" + "x" * 100_000
    lying.answers["/v2/x/manifests/1"] = sent(
        json.dumps({"errors": [{"code": "DENIED", "message": text}]}).encode(), 403
    )
    with pytest.raises(NotFound) as told:
        store.images.pull(f"{lying.host}/x:1")
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 1000


# Elsewhere


def test_redirects_without_an_end(store: Store, lying: Hostile) -> None:
    lying.answers["/v2/x/manifests/1"] = sent(b"", 307, Location="/v2/x/manifests/1")
    refused(store, lying, Unavailable, "stopped after 10 redirects")


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "gopher://a/b", "http://ann:secret@127.0.0.1/", "http://[::1"]
)
def test_redirects_to_what_is_no_registry(store: Store, lying: Hostile, target: str) -> None:
    lying.answers["/v2/x/manifests/1"] = sent(b"", 302, Location=target)
    refused(store, lying, Unavailable, "redirect to .* which is no URL of a registry")


def logged_in(tmp_path: Path, lying: Hostile) -> None:
    directory = tmp_path / "docker"
    directory.mkdir()
    auths = {lying.host: {"auth": AUTH.removeprefix("Basic ")}}
    (directory / "config.json").write_text(json.dumps({"auths": auths}))
    challenge = {"WWW_Authenticate": 'Basic realm="test"'}

    def guarded(answer: Any) -> Any:
        return lambda r: answer(r) if r.headers.get("Authorization") == AUTH else r.send(b"{}", 401, **challenge)

    lying.answers = {path: guarded(answer) for path, answer in lying.answers.items()}


def test_a_credential_goes_to_no_other_host(store: Store, lying: Hostile, tmp_path: Path) -> None:
    with hostile() as other:
        lying.serve("x", layout())
        other.answers["/blob"] = sent(LAYER)
        lying.answers[f"/v2/x/blobs/{of_bytes(LAYER)}"] = sent(b"", 307, Location=f"{other.url}/blob")
        logged_in(tmp_path, lying)
        store.images.pull(f"{lying.host}/x:1")
        assert AUTH in [asked[1] for asked in lying.asked]
        assert [asked[1] for asked in other.asked] == [""]
        # Nor when that host asks for it, nor when it sends back where it came from.
        store.images.remove(f"{lying.host}/x:1")
        other.answers["/blob"] = sent(b"{}", 401, WWW_Authenticate='Basic realm="give"')
        with pytest.raises(SampanError):
            store.images.pull(f"{lying.host}/x:1")
        other.answers["/blob"] = sent(b"", 307, Location=f"{lying.url}/back")
        with pytest.raises(SampanError):
            store.images.pull(f"{lying.host}/x:1")
        assert {asked[1] for asked in other.asked} == {""}
        assert [asked[1] for asked in lying.asked if asked[0] == "/back"] == [""]


def test_a_token_server_that_redirects_gets_nobody_anywhere(store: Store, lying: Hostile, tmp_path: Path) -> None:
    with hostile() as other:
        logged_in(tmp_path, lying)
        challenge = f'Bearer realm="{lying.url}/token",service="x"'
        lying.answers = {"/v2/": sent(b"{}", 401, WWW_Authenticate=challenge)}
        lying.answers["/token"] = sent(b"", 307, Location=f"{other.url}/steal")
        lying.answers["/v2/x/manifests/1"] = sent(b"{}", 401, WWW_Authenticate=challenge)
        with pytest.raises(SampanError):
            store.images.pull(f"{lying.host}/x:1")
        assert other.asked == []


@pytest.mark.parametrize("realm", ["file:///etc/shadow", "", "ftp://a/", "http://a:b@c/", "http://[", "javascript:1"])
def test_token_servers_that_are_none(store: Store, lying: Hostile, realm: str) -> None:
    lying.answers["/v2/"] = sent(b"{}", 401, WWW_Authenticate=f'Bearer realm="{realm}",service="x"')
    refused(store, lying, Unavailable, "names no token server that could be asked")


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\r\\nX: y"}', b"<html>"])
def test_tokens_that_are_none(store: Store, lying: Hostile, answer: bytes) -> None:
    lying.answers["/v2/"] = sent(b"{}", 401, WWW_Authenticate=f'Bearer realm="{lying.url}/token"')
    lying.answers["/token"] = sent(answer)
    refused(store, lying, Unavailable, "is no JSON object|did not include a token")


def test_a_list_of_tags_that_goes_on_elsewhere(store: Store, lying: Hostile) -> None:
    tags = json.dumps({"name": "x", "tags": ["1"]}).encode()
    lying.answers["/v2/x/tags/list"] = sent(tags, Link='<http://127.0.0.1:1/v2/x/tags/list?n=1>; rel="next"')
    with pytest.raises(Unavailable, match="goes on elsewhere"):
        store.images.pull(f"{lying.host}/x", all_tags=True)


def test_more_entries_than_a_layer_may_have(store: Store, lying: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampan.store.layers.ENTRY_LIMIT", 5)
    lying.serve("x", layout(gzip.compress(archive({f"f{n}": b"" for n in range(6)}))))
    refused(store, lying, InvalidParameter, "failed to register layer: .*more than 5 entries")


@pytest.mark.parametrize("what", ["manifest", "blob"])
def test_a_registry_that_drips(tmp_path: Path, lying: Hostile, store: Store, what: str) -> None:
    """A byte now and then is no silence; but it is no transfer either."""
    members = layout()
    lying.serve("x", members)
    path = "/v2/x/manifests/1" if what == "manifest" else f"/v2/x/blobs/{manifest_of(members)['layers'][0]['digest']}"
    connections: list[str] = []

    def drip(request: Request) -> None:
        connections.append(request.path)
        request.send_response(200)
        request.send_header("Content-Length", "300000" if what == "manifest" else str(len(LAYER)))
        request.end_headers()
        while not lying.ended.wait(0.2):
            request.wfile.write(b" ")

    lying.answers[path] = drip
    with pytest.raises(Unavailable, match=r"bytes have come in 1 seconds, which is no transfer"):
        store.images.pull(f"{lying.host}/x:1")
    assert 1 <= len(connections) <= 5
    store.images.collect()
    assert store.files() == []
