"""Names of images: `debian:12`, `ghcr.io/owner/name@sha256:...`, and the ids and id prefixes that stand beside them.

The grammar is the distribution project's `reference` package:

    reference   := name [ ":" tag ] [ "@" digest ]
    name        := [ domain "/" ] component { "/" component }
    domain      := host [ ":" port ]            host: dotted parts of letters, digits, inner dashes; or "[" IPv6 "]"
    component   := alphanumeric { separator alphanumeric }      lower case; separator: "." "_" "__" or dashes
    tag         := one of [A-Za-z0-9_], then up to 127 of [A-Za-z0-9_.-]
    digest      := algorithm ":" 32 or more hexadecimal digits

A familiar name is completed before it is used: `debian` is docker.io/library/debian:latest. Parsed by hand: `run`
does this on every start, and importing `re` takes longer than the rest of the lookup.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.oci import digest as digests
from sampan.structs import Struct

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"

_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_NAME_LENGTH = 255
_TAG_LENGTH = 128

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_ALPHANUMERIC = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset("0123456789")
_HEX = frozenset("0123456789abcdefABCDEF")
_TAG_FIRST = _ALPHANUMERIC | {"_"}
_TAG = _TAG_FIRST | {".", "-"}

_FORMAT = "invalid reference format"


class Reference(Struct):
    """A complete name: `domain` and `path` are never familiar; `tag` and `digest` may be empty.

    `domain` is empty in one odd case, which is Docker's: a first component with a dot that is no host name, such
    as `a_b.c/x`.
    """

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return self._with(self.name)

    @property
    def name(self) -> str:
        """The repository: domain and path, without tag and digest."""
        return f"{self.domain}/{self.path}" if self.domain else self.path

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: without docker.io and, for official images, without library/."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL)
        # library/a/b keeps its first part: "a/b" would be completed to another repository.
        return self.path if "/" in short else short

    @property
    def familiar(self) -> str:
        """The whole reference as people write it: `debian:12`."""
        return self._with(self.familiar_name)

    def tagged(self) -> Reference:
        """With the tag `latest` if there is neither a tag nor a digest."""
        return self if self.tag or self.digest else self.replace(tag=DEFAULT_TAG)

    def canonical(self) -> Reference:
        """What is looked up: with a digest the tag says nothing; without one it defaults to `latest`."""
        return self.replace(tag="") if self.digest else self.tagged()

    def _with(self, name: str) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{name}{tag}@{self.digest}" if self.digest else f"{name}{tag}"


def parse(text: str) -> Reference:
    """The complete form of a reference as typed; no tag is added.

    Raises `InvalidParameter` with Docker's texts.
    """
    if digests.is_id(text):
        raise InvalidParameter(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, remainder = _split_domain(text)
    remote = remainder.partition(":")[0]
    if remote.lower() != remote:
        raise InvalidParameter(f"{_FORMAT}: repository name ({remote}) must be lowercase")
    named, at, digest = remainder.partition("@")
    path, colon, tag = named.partition(":")
    if not _is_path(path) or (colon and not is_tag(tag)) or (at and not _looks_like_digest(digest)):
        raise InvalidParameter(_FORMAT)
    if not _is_domain(domain):
        if not _is_path(domain):
            raise InvalidParameter(_FORMAT)
        domain, path = "", f"{domain}/{path}"
    if len(path) > _NAME_LENGTH:
        raise InvalidParameter(f"repository name must not be more than {_NAME_LENGTH} characters")
    if at:
        digests.parse(digest)
    return Reference(domain, path, tag, digest)


def parse_id(text: str) -> str | None:
    """The image id, as `sha256:HEX`, if the text is a whole one, with or without the algorithm; else None."""
    encoded = text.removeprefix("sha256:")
    return f"sha256:{encoded}" if digests.is_id(encoded) else None


def id_prefix(text: str) -> str | None:
    """The hexadecimal digits of what may be the beginning of an image id; None if it cannot be one."""
    encoded = text.removeprefix("sha256:")
    return encoded if encoded and len(encoded) <= 64 and digests.is_hex(encoded) else None


def is_tag(text: str) -> bool:
    """Whether the text alone is a tag."""
    return 0 < len(text) <= _TAG_LENGTH and text[0] in _TAG_FIRST and _TAG.issuperset(text)


def _split_domain(text: str) -> tuple[str, str]:
    """The domain, docker.io where the first component is none, and the rest, with library/ where it belongs."""
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, _OFFICIAL + text
    # An upper-case name space cannot be, so it must be a host.
    is_domain = first == "localhost" or "." in first or ":" in first or first.lower() != first
    domain, remainder = (first, rest) if is_domain else (DEFAULT_DOMAIN, text)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = _OFFICIAL + remainder
    return domain, remainder


def _is_domain(text: str) -> bool:
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        host_ok = bool(bracket) and bool(address) and _HEX.issuperset(address.replace(":", ""))
        return host_ok and (not port or (port[0] == ":" and _is_port(port[1:])))
    host, colon, port = text.partition(":")
    return all(map(_is_host_part, host.split("."))) and (not colon or _is_port(port))


def _is_host_part(text: str) -> bool:
    if not text or text[0] == "-" or text[-1] == "-":
        return False
    return _ALPHANUMERIC.issuperset(text.replace("-", ""))


def _is_port(text: str) -> bool:
    return bool(text) and _DIGITS.issuperset(text)


def _is_path(text: str) -> bool:
    return all(map(_is_component, text.split("/")))


def _is_component(text: str) -> bool:
    if not text or text[0] not in _LOWER or text[-1] not in _LOWER:
        return False
    separator = ""
    for character in text:
        if character in _LOWER:
            if separator not in ("", ".", "_", "__") and separator.strip("-"):
                return False
            separator = ""
        else:
            separator += character
    return True


def _looks_like_digest(text: str) -> bool:
    """The reference grammar's own, looser rule; `digest.parse` then says what is wrong with the rest."""
    algorithm, colon, encoded = text.partition(":")
    if not colon or len(encoded) < 32 or not _HEX.issuperset(encoded):
        return False
    for separator in "_+.":
        algorithm = algorithm.replace(separator, "-")
    return all(part and part[0] not in _DIGITS and _ALPHANUMERIC.issuperset(part) for part in algorithm.split("-"))
