"""Content digests: `sha256:HEX`, the names of everything in the content store.

Grammar and registered algorithms: OCI image specification, descriptor.md, "Digests".
"""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Hash(Protocol):
        """What hashlib's constructors return, as far as it is used here."""

        def update(self, data: bytes | memoryview, /) -> None: ...
        def hexdigest(self) -> str: ...


SHA256 = "sha256"

_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_HEX_CHARACTERS = frozenset("0123456789abcdef")
_SMALL = 1 << 16


def is_hex(text: str) -> bool:
    """Whether all characters are lower-case hexadecimal digits (true for the empty text)."""
    return _HEX_CHARACTERS.issuperset(text)


def is_id(text: str) -> bool:
    """Whether the text is a whole identifier of an image or a container: 64 lower-case hexadecimal digits."""
    return len(text) == 64 and is_hex(text)


def parse(text: str) -> tuple[str, str]:
    """The algorithm and the encoded part of a digest.

    Raises `InvalidParameter` with the texts of Docker's digest package. Algorithms that are not registered are
    refused: what cannot be verified cannot be named.
    """
    algorithm, colon, encoded = text.partition(":")
    if not colon or not algorithm or not encoded:
        raise InvalidParameter("invalid checksum digest format")
    length = _HEX_LENGTHS.get(algorithm)
    if length is None:
        raise InvalidParameter("unsupported digest algorithm")
    if len(encoded) != length:
        raise InvalidParameter("invalid checksum digest length")
    if not is_hex(encoded):
        raise InvalidParameter("invalid checksum digest format")
    return algorithm, encoded


def sha256_hex(text: str) -> str:
    """The encoded part of a sha256 digest. Raises `InvalidParameter` for anything else.

    The only way from a digest to a file name: after this the text holds no slash and no dot.
    """
    algorithm, encoded = parse(text)
    if algorithm != SHA256:
        raise InvalidParameter(f"unsupported digest algorithm: content is stored by sha256, not {algorithm}")
    return encoded


def mismatch(expected: str, found: str) -> InvalidParameter:
    """The error for content that is not what its name says."""
    return InvalidParameter(f"unexpected digest {found}, expected {expected}: the content is damaged")


def of_bytes(data: bytes) -> str:
    """The sha256 digest of some bytes, as `sha256:HEX`."""
    return f"{SHA256}:{hex_of(data)}"


def hex_of(data: bytes) -> str:
    """The sha256 of some bytes as 64 hexadecimal digits."""
    hasher = _small_hash() if len(data) <= _SMALL else new_hash()
    hasher.update(data)
    return hasher.hexdigest()


def new_hash() -> Hash:
    """A running sha256 for much data: OpenSSL's, which uses the processor's SHA instructions."""
    import hashlib

    return hashlib.sha256(usedforsecurity=False)


def _small_hash() -> Hash:
    """A running sha256 for a few kilobytes.

    Every start hashes a name and a config or two. The interpreter's own implementation is seven times slower
    than OpenSSL's, but it is there at once: importing `hashlib` loads libcrypto, which takes 3 ms.
    """
    try:
        from _sha256 import sha256  # type: ignore[import-not-found, unused-ignore]  # Python 3.11
    except ImportError:
        try:
            from _sha2 import sha256  # type: ignore[import-not-found, no-redef, unused-ignore]  # Python 3.12 and later
        except ImportError:
            return new_hash()
    hasher: Hash = sha256()
    return hasher
