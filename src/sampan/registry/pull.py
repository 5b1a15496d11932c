"""What is fetched from a repository: documents and blobs, with nothing believed that was not checked.

A document is bounded, has the digest that it is asked for by, and the type that is announced. A blob has exactly the bytes
that its descriptor says; its digest is for the sink to check, which hashes what it takes.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.oci import digest as digests
from sampan.oci import image as documents
from sampan.registry.client import ATTEMPTS
from sampan.registry.failures import Unreachable, clean
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from sampan.oci.image import Descriptor
    from sampan.registry.client import Repository
    from sampan.registry.transport import Answer

    class Sink(Protocol):
        """Where a blob goes: as many bytes as are there already are not asked for again."""

        @property
        def size(self) -> int: ...
        def write(self, data: bytes, /) -> object: ...


_ACCEPTED = (documents.OCI_MANIFEST, documents.OCI_INDEX, documents.DOCKER_MANIFEST, documents.DOCKER_LIST)
ACCEPT = ", ".join(_ACCEPTED)
_UNTYPED = frozenset(("", "application/json", "application/octet-stream", "text/plain"))
_CHUNK = 1 << 20  # at most: what has come is taken
_PROGRESS = 1 << 10
"""Bytes that a connection has to bring for its end not to count as a failure."""
_CONNECTIONS = 100
"""Requests for one blob at most, also if each brings a few bytes more."""


class Document(Struct):
    """A manifest or an index as it came; `target` describes it."""

    target: Descriptor
    data: bytes


def manifest(repository: Repository, wanted: str, expected: Descriptor | None = None) -> Document:
    """The manifest or index that a tag or a digest leads to; `expected` if a descriptor says what it is.

    Raises `Refused`, `Unreachable`, `InvalidParameter` for one that is not what it is said to be.
    """
    with repository.get(f"manifests/{wanted}", {"Accept": ACCEPT}).check(200) as answer:
        data = answer.read_all(documents.MANIFEST_LIMIT)
        said, told = answer.header("Docker-Content-Digest"), _media_type(answer)
    if len(data) > documents.MANIFEST_LIMIT:
        raise InvalidParameter(f"manifest {clean(wanted)} is larger than {documents.MANIFEST_LIMIT} bytes")
    found = digests.of_bytes(data)
    if ":" in wanted and found != wanted:
        raise InvalidParameter(f"manifest verification failed for digest {wanted}: the registry sent {found}")
    if ":" not in wanted and said and said.startswith(f"{digests.SHA256}:") and said != found:
        raise InvalidParameter(f"manifest verification failed for digest {clean(said)}: the registry sent {found}")
    if expected is not None and len(data) != expected.size:
        raise InvalidParameter(f"manifest {wanted} has {len(data)} bytes, its descriptor says {expected.size}")
    media_type = expected.media_type if expected is not None else told
    if expected is not None and told and told != expected.media_type:
        raise InvalidParameter(f"manifest {wanted} is sent as {told!r}, its descriptor says {expected.media_type!r}")
    parsed = documents.parse_manifest(data, media_type)
    return Document(documents.Descriptor(parsed.media_type, found, len(data)), data)


def _media_type(answer: Answer) -> str:
    """Content-Type without its parameters, "" if it says nothing of manifests. Raises `InvalidParameter` for a page of HTML and the like."""
    text = answer.header("Content-Type").partition(";")[0].strip().lower()
    if text in _UNTYPED:
        return ""
    if text not in documents.MANIFESTS and text not in documents.INDEXES:
        if text.startswith("application/vnd.docker.distribution.manifest.v1"):
            raise InvalidParameter(
                "the image has a manifest of schema 1, which no registry should serve any more: push it again"
            )
        raise InvalidParameter(f"unsupported manifest media type {clean(text)!r}: this is no image")
    return text


def document(repository: Repository, wanted: Descriptor, limit: int) -> bytes:
    """A small blob, verified: a config. Raises `Refused`, `Unreachable`, `InvalidParameter`."""
    if wanted.size > limit:
        raise InvalidParameter(f"blob {wanted.digest} is larger than {limit} bytes")
    sink = _Memory()
    download(repository, wanted, sink)
    if digests.of_bytes(bytes(sink.data)) != wanted.digest:
        raise InvalidParameter(f"filesystem layer verification failed for digest {wanted.digest}")
    return bytes(sink.data)


class _Memory:
    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes, /) -> int:
        self.data += data
        return len(data)


def download(repository: Repository, wanted: Descriptor, sink: Sink) -> None:
    """Bring a blob into a sink, from where that has it already, over as many connections as it takes.

    Raises `Refused`, `Unreachable` after several attempts in vain, `InvalidParameter` for a length that is none,
    `Stopped`; what was written until then stays.
    """
    digests.sha256_hex(wanted.digest)
    patience = repository.connection.patience
    failures = 0
    for _ in range(_CONNECTIONS):
        if sink.size >= wanted.size:
            break
        before = sink.size
        try:
            _once(repository, wanted, sink)
        except Unreachable:
            failures = 1 if sink.size >= before + _PROGRESS else failures + 1
            if failures == ATTEMPTS:
                raise
            patience.pause(failures)
    if sink.size != wanted.size:
        raise Unreachable(f"blob {wanted.digest}: unexpected EOF: {sink.size} of {wanted.size} bytes have come")


def _once(repository: Repository, wanted: Descriptor, sink: Sink) -> None:
    begin = sink.size
    headers = {"Range": f"bytes={begin}-"} if begin else {}
    with repository.get(f"blobs/{wanted.digest}", headers).check(200, 206) as answer:
        skipped = begin
        if answer.status == 206:
            _check_range(answer, begin, wanted)
            skipped = 0
        elif answer.length is not None and answer.length != wanted.size:
            raise InvalidParameter(f"blob {wanted.digest} has {answer.length} bytes, its descriptor says {wanted.size}")
        while data := answer.read(_CHUNK):
            repository.connection.patience.check()
            if skipped:
                # It does not know ranges. That the beginning is the same is what the digest will say.
                data, skipped = data[skipped:], max(0, skipped - len(data))
            if sink.size + len(data) > wanted.size:
                raise InvalidParameter(f"blob {wanted.digest} has more bytes than the {wanted.size} of its descriptor")
            if data:
                sink.write(data)
    if sink.size < wanted.size:
        raise Unreachable(f"blob {wanted.digest}: unexpected EOF: {sink.size} of {wanted.size} bytes have come")


def _check_range(answer: Answer, begin: int, wanted: Descriptor) -> None:
    text = answer.header("Content-Range")
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    if unit != "bytes" or span.partition("-")[0] != str(begin) or total not in ("*", str(wanted.size)):
        raise InvalidParameter(
            f"blob {wanted.digest}: asked for what follows byte {begin} of {wanted.size}, got {clean(text)!r}"
        )
