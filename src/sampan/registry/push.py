"""What is sent to a repository: blobs in pieces, each of which can be sent again; then documents (distribution-spec, "Push").

A registry that has a blob is not sent it; one that has it in another repository is asked to take it from there.
"""

from __future__ import annotations

from urllib.parse import quote, urljoin

from sampan.errors import Unavailable
from sampan.registry.client import AGAIN, ATTEMPTS
from sampan.registry.failures import Refused, Unreachable, clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.oci.image import Descriptor
    from sampan.registry.client import Repository
    from sampan.registry.transport import Answer

PIECE = 4 << 20
"""Bytes of one request. Five layers at a time hold that much of each in memory."""


def has(repository: Repository, digest: str) -> bool:
    """Whether a blob is there. Raises `Refused`, `Unreachable`."""
    with repository.get(f"blobs/{digest}", method="HEAD") as answer:
        if answer.status == 404:
            return False
        answer.check(200)
        return True


def mount(repository: Repository, digest: str, source: str) -> Upload | None:
    """Take a blob from another repository of the same registry: None if that worked, else an upload that was begun."""
    query = f"?mount={quote(digest)}&from={quote(source)}"
    scopes = (*repository.scopes, f"repository:{source}:pull")
    try:
        with repository.connection.request("POST", f"/v2/{repository.path}/blobs/uploads/{query}", scopes) as answer:
            answer.check(201, 202)
            return None if answer.status == 201 else Upload(repository, answer)
    except Refused:
        return begin(repository)  # We may not read the other one; that is no reason not to send it.


def begin(repository: Repository) -> Upload:
    """Begin to send a blob. Raises `Refused`, `Unreachable`."""
    with repository.connection.request("POST", f"/v2/{repository.path}/blobs/uploads/", repository.scopes) as answer:
        return Upload(repository, answer.check(202))


class Upload:
    """A blob on its way to a registry."""

    def __init__(self, repository: Repository, answer: Answer) -> None:
        self._repository = repository
        self._url = answer.url
        self._offset = 0
        self._moved(answer)

    def append(self, data: bytes) -> None:
        """Send the next piece; what a lost connection has swallowed of it is sent again. Raises `Refused`, `Unreachable`, `Stopped`."""
        connection, begin, rest = self._repository.connection, self._offset, data
        for attempt in range(1, ATTEMPTS + 1):
            connection.patience.check()
            if not rest:
                return
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{self._offset}-{self._offset + len(rest) - 1}",
            }
            try:
                with connection.authorized("PATCH", self._url, self._repository.scopes, headers, rest) as answer:
                    if answer.status not in AGAIN or attempt == ATTEMPTS:
                        self._moved(answer.check(202, 204))
                        self._offset += len(rest)
                        return
            except Unreachable:
                if attempt == ATTEMPTS:
                    raise
            connection.patience.pause(attempt)
            have = self._status()
            if not begin <= have <= begin + len(data):
                raise Unavailable(f"the registry says that it has {have} bytes of an upload that was at {begin}")
            self._offset, rest = have, data[have - begin :]

    def finish(self, digest: str, data: bytes = b"") -> None:
        """Send the last piece and give the blob its name. Raises `Refused`, `Unreachable`."""
        if data and self._offset:
            self.append(data)
            data = b""
        separator = "&" if "?" in self._url else "?"
        url = f"{self._url}{separator}digest={quote(digest)}"
        headers = {"Content-Type": "application/octet-stream"}
        with self._repository.connection.request("PUT", url, self._repository.scopes, headers, data) as answer:
            answer.check(201, 204)

    def _moved(self, answer: Answer) -> None:
        """Where the next piece goes: every answer may name another place."""
        location = answer.header("Location")
        if not location:
            raise Unavailable("the registry does not say where an upload goes on")
        self._url = urljoin(answer.url, location)
        if not self._url.startswith(("http://", "https://")):
            raise Unavailable(f"the registry lets an upload go on at {clean(location)!r}")
        if self._repository.connection.endpoint.url.startswith("https:") and self._url.startswith("http:"):
            # Behind a proxy that ends TLS, some registries do not know that they have it.
            self._url = "https:" + self._url.removeprefix("http:")

    def _status(self) -> int:
        """Bytes that the registry has."""
        with self._repository.connection.request("GET", self._url, self._repository.scopes) as answer:
            answer.check(204, 202)
            last = answer.header("Range").removeprefix("bytes=").partition("-")[2]
        # "0-0" is one byte or none: a piece is never one byte alone but the last, which is then sent again in vain.
        return int(last[:18]) + 1 if last.isascii() and last.isdigit() and last != "0" else 0


def manifest(repository: Repository, name: str, target: Descriptor, data: bytes) -> str:
    """Put a manifest or an index under a tag or its digest.

    Returns the digest of the subject that the registry has taken note of (`OCI-Subject`), "" for none. Raises `Refused`, `Unreachable`, `Unavailable`.
    """
    headers = {"Content-Type": target.media_type}
    path = f"/v2/{repository.path}/manifests/{name}"
    with repository.connection.request("PUT", path, repository.scopes, headers, data) as answer:
        said, subject = answer.check(201, 202).header("Docker-Content-Digest"), answer.header("OCI-Subject")
    if said.startswith("sha256:") and said != target.digest:
        raise Unavailable(f"the registry took {target.digest} for {clean(said)}")
    return subject
