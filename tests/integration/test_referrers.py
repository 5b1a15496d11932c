"""What a registry has about an image: by its own list, or by the tag that stands for one (distribution-spec 1.1)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.engine.config import Config
from sampan.engine.registries import Registries
from sampan.errors import InvalidParameter, NotFound, SampanError, Unavailable
from sampan.oci import image as documents
from sampan.oci import platform
from sampan.oci.digest import of_bytes

from support import imagearchives
from support.hostile import Hostile, Request, hostile
from support.imagestore import Store, archive
from support.registry import Registry, fetch, registry, upload
from support.roots import Root

pytestmark = pytest.mark.root

BASE = archive({"file": b"what is referred to"})
SBOM, SIGNATURE = "application/spdx+json", "application/vnd.example.signature"


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def lying() -> Iterator[Hostile]:
    with hostile() as found:
        yield found


def layout(*layers: bytes) -> dict[str, bytes]:
    return imagearchives.layout("", *layers, architecture=platform.here().architecture)


def attached(name: str, subject: dict[str, Any], layer: bytes, kind: str) -> bytes:
    """The archive of an image that refers to another one."""
    members = imagearchives.layout(name, layer, architecture=platform.here().architecture)
    index = json.loads(members["index.json"])
    old = f"blobs/sha256/{index['manifests'][0]['digest'][7:]}"
    manifest = {**json.loads(members.pop(old)), "subject": subject, "artifactType": kind, "annotations": {"by": "us"}}
    data = json.dumps(manifest).encode()
    index["manifests"][0] |= {"digest": of_bytes(data), "size": len(data)}
    return imagearchives.tar(
        {**members, f"blobs/sha256/{of_bytes(data)[7:]}": data, "index.json": json.dumps(index).encode()}
    )


def test_a_push_keeps_the_subject_and_the_subjects_referrers(plain: Registry, tmp_path: Path, new_root: Root) -> None:
    """Debian's registry knows no referrers: the tag has to be kept up to date by who pushes."""
    url = f"http://127.0.0.1:{plain.port}"
    digest = upload(url, "app", "1", layout(BASE))
    subject = {"mediaType": documents.OCI_MANIFEST, "digest": digest, "size": 1}
    store = Store(tmp_path / "store")
    pushed = []
    # Plain layers: the manifests that are pushed are not the ones that were loaded.
    for kind in (SBOM, SIGNATURE):
        name = f"{plain.host}/app:{kind[-4:]}"
        store.images.load(io.BytesIO(attached(name, subject, archive({kind[-4:]: b"x"}), kind)))
        pushed.append(store.images.push(name)[0].digest)
        store.images.push(name)  # A second time changes nothing.
    sent = json.loads(fetch(f"{url}/v2/app/manifests/{pushed[0]}", {"Accept": documents.OCI_MANIFEST}))
    assert (sent["subject"], sent["annotations"], sent["artifactType"]) == (subject, {"by": "us"}, SBOM)

    found = json.loads(new_root.cli("manifest", "inspect", "--referrers", f"{plain.host}/app:1").ok().out)
    assert found["mediaType"] == documents.OCI_INDEX
    assert [(one["digest"], one["artifactType"], one["annotations"]) for one in found["manifests"]] == [
        (pushed[0], SBOM, {"by": "us"}),
        (pushed[1], SIGNATURE, {"by": "us"}),
    ]
    only = Registries(Config()).referrers(f"{plain.host}/app@{digest}", SIGNATURE)
    assert [one["digest"] for one in only["manifests"]] == [pushed[1]]
    assert Registries(Config()).referrers(f"{plain.host}/app@{pushed[0]}")["manifests"] == []
    with pytest.raises(NotFound, match="manifest unknown"):
        Registries(Config()).referrers(f"{plain.host}/app:none")
    refused = new_root.cli("manifest", "inspect", "--artifact-type", SBOM, f"{plain.host}/app:1")
    assert (refused.code, refused.err) == (1, "--artifact-type chooses among referrers: it needs --referrers\n")


def entry(number: int, kind: str) -> dict[str, Any]:
    data = b"%d" % number
    return {"mediaType": documents.OCI_MANIFEST, "digest": of_bytes(data), "size": 1, "artifactType": kind}


def listed(*entries: object, **headers: str) -> Any:
    data = json.dumps({"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": entries}).encode()
    return lambda request: request.send(data, Content_Type=documents.OCI_INDEX, **headers)


def test_a_registry_that_keeps_a_list(lying: Hostile) -> None:
    digest = lying.serve("x", layout(BASE))
    path = f"/v2/x/referrers/{digest}"
    asked: list[str] = []

    def pages(request: Request) -> None:
        asked.append(request.path)
        last = "page=2" in request.path
        answer = listed(entry(2, SIGNATURE)) if last else listed(entry(1, SBOM), Link=f'<{path}?page=2>; rel="next"')
        answer(request)

    lying.answers[path] = pages
    found = Registries(Config()).referrers(f"{lying.host}/x:1")["manifests"]
    assert found == [entry(1, SBOM), entry(2, SIGNATURE)]
    # It need not filter; then we do.
    assert Registries(Config()).referrers(f"{lying.host}/x:1", SIGNATURE)["manifests"] == [entry(2, SIGNATURE)]
    assert asked[2] == f"{path}?artifactType=application%2Fvnd.example.signature"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda r: r.send(b"[]"), InvalidParameter, "not a JSON object"),
        (lambda r: r.send(b'{"manifests": 7}'), InvalidParameter, "manifests is not a list"),
        (listed({"digest": "sha256:1"}), InvalidParameter, "media type"),
        (listed({**entry(1, SBOM), "artifactType": 7}), InvalidParameter, "malformed descriptor"),
        (lambda r: r.send(b" " * (5 << 20)), InvalidParameter, "larger than"),
        (listed(Link='<http://127.0.0.2/v2/x>; rel="next"'), Unavailable, "goes on elsewhere"),
        (lambda r: r.send(b"", 403), SampanError, "denied"),
    ],
)
def test_lists_that_are_none(lying: Hostile, answer: Any, kind: type[SampanError], words: str) -> None:
    digest = lying.serve("x", layout(BASE))
    lying.answers[f"/v2/x/referrers/{digest}"] = answer
    with pytest.raises(kind, match=words):
        Registries(Config()).referrers(f"{lying.host}/x:1")


def test_a_list_without_an_end(lying: Hostile) -> None:
    digest = lying.serve("x", layout(BASE))
    path = f"/v2/x/referrers/{digest}"
    lying.answers[path] = listed(Link=f'<{path}>; rel="next"')
    with pytest.raises(Unavailable, match="more than 100 pages"):
        Registries(Config()).referrers(f"{lying.host}/x:1")
