"""Referrers: what else a repository has about a manifest (signatures, bills of materials), found by its digest.

OCI distribution specification v1.1, "Listing Referrers": registries that do not know them have an index under a tag that is made of
the digest instead, which whoever pushes keeps up to date ("Referrers Tag Schema", "Pushing Manifests with Subject").
"""

from __future__ import annotations

from urllib.parse import quote

from sampan import jsontext
from sampan.errors import InvalidParameter, Unavailable
from sampan.oci import digest as digests
from sampan.oci import image as documents
from sampan.oci.image import Descriptor
from sampan.registry import pull as fetching
from sampan.registry import push as sending
from sampan.registry.failures import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.registry.client import Repository

_PAGES = 100
_PARTS = ("mediaType", "digest", "size", "artifactType", "annotations")


def tag_of(digest: str) -> str:
    """The tag of the index of those that refer to a digest, where a registry keeps no list of them."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm[:32]}-{encoded[:64]}"


def referrers(repository: Repository, digest: str, artifact_type: str = "") -> list[dict[str, Any]]:
    """The descriptors of the manifests whose subject has this digest, of one type if that is said.

    Raises `Refused`, `Unreachable`, `InvalidParameter` for a list that is none, `Unavailable` for one without an end.
    """
    digests.parse(digest)
    entries = _listed(repository, digest, artifact_type)
    if entries is None:
        entries = _tagged(repository, digest)
    # Registries need not filter, and of a tag nobody does.
    return [entry for entry in entries if artifact_type in ("", entry.get("artifactType"))]


def _listed(repository: Repository, digest: str, artifact_type: str) -> list[dict[str, Any]] | None:
    """By the registry's own list; None if it has no such thing."""
    found: list[dict[str, Any]] = []
    path = f"/v2/{repository.path}/referrers/{digest}"
    path += f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
    for _ in range(_PAGES):
        headers = {"Accept": documents.OCI_INDEX}
        with repository.connection.request("GET", path, repository.scopes, headers) as answer:
            if answer.status == 404 and not found:
                return None
            answer.check(200)
            data, link = answer.read_all(documents.MANIFEST_LIMIT), answer.header("Link")
        found += _entries(data)
        path = repository.next_page(link)
        if not path:
            return found
    raise Unavailable(f"the list of referrers of {digest} has more than {_PAGES} pages")


def _tagged(repository: Repository, digest: str) -> list[dict[str, Any]]:
    try:
        return _entries(fetching.manifest(repository, tag_of(digest)).data)
    except Refused as e:
        if e.status == 404:
            return []
        raise


def _entries(data: bytes) -> list[dict[str, Any]]:
    parsed = documents.load(data, "list of referrers", documents.MANIFEST_LIMIT)
    entries = parsed.get("manifests")
    if not isinstance(entries, list):
        raise InvalidParameter("list of referrers: manifests is not a list")
    return [_entry(entry) for entry in entries]


def _entry(entry: object) -> dict[str, Any]:
    """What a descriptor says of a referrer, checked."""
    documents.parse_descriptor(entry)
    assert isinstance(entry, dict)
    found = {key: entry[key] for key in _PARTS if key in entry}
    if not isinstance(found.get("artifactType", ""), str) or not isinstance(found.get("annotations") or {}, dict):
        raise InvalidParameter("list of referrers: a malformed descriptor")
    return found


def announce(repository: Repository, subject: str, target: Descriptor, document: Mapping[str, Any]) -> None:
    """Put a manifest that was pushed into the index of those that refer to its subject, for a registry that does not keep one itself.

    Raises as `referrers`.
    """
    entries = _tagged(repository, subject)
    if any(entry["digest"] == target.digest for entry in entries):
        return
    config = document.get("config")
    kind = document.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    more = {"artifactType": kind, "annotations": document.get("annotations")}
    entries.append({**target.document(), **{key: value for key, value in more.items() if value}})
    data = jsontext.dumps({"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": entries})
    index = Descriptor(documents.OCI_INDEX, digests.of_bytes(data), len(data))
    sending.manifest(repository, tag_of(subject), index, data)
