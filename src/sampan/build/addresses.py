"""Addresses of git repositories and of files, as a context, a source of ADD or a named context may be one: text, nothing is asked.

docs.docker.com/build/concepts/context, "Git repositories": `URL#ref:subdirectory`. Only the protocols that are named here are known,
and nothing of an address can be taken for an option: git has others that execute programs or read the caller's disk
(CVE-2019-13139, CVE-2022-39253).
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.structs import Struct

HTTP = ("http://", "https://")
_GIT = ("git://", "ssh://")
PROTOCOLS = ("git", "http", "https", "ssh")
_NOT_IN_REFS = " \t\n\r\0:?*[\\^~"


class GitAddress(Struct):
    """url: what git is given. ref: a branch, tag or commit, "" for the repository's own. subdirectory: in the tree, "" for all of it."""

    url: str
    ref: str = ""
    subdirectory: str = ""


def is_http(text: str) -> bool:
    """Whether it is the address of a file, or of a repository, on a web server."""
    return text.lower().startswith(HTTP)


def is_git(text: str) -> bool:
    """Whether it is the address of a git repository: by its protocol, or because its path ends in .git."""
    address = text.partition("#")[0]
    if is_http(address):
        return address.partition("?")[0].endswith(".git")
    return address.startswith(_GIT) or _is_scp(address) or address.startswith("github.com/")


def is_remote(text: str) -> bool:
    """Whether it is an address of any kind, and no path. One of a protocol that is not known is one as well."""
    return "://" in text or is_git(text)


def _is_scp(text: str) -> bool:
    """`git@host:path`: who is before the @ has no slash."""
    user, at, rest = text.partition("@")
    return bool(at and user and "/" not in user and ":" not in user and ":" in rest.partition("/")[0])


def parse_git(text: str) -> GitAddress:
    """Raises `InvalidParameter` for what is no address of a repository, or could be taken for something else."""
    url, _, fragment = text.partition("#")
    ref, _, subdirectory = fragment.partition(":")
    if not is_git(url):
        raise InvalidParameter(f"{redacted(text)}: no address of a git repository: {', '.join(PROTOCOLS)} are known")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    host = url.partition("://")[2] or url
    if host.startswith("-") or host.rpartition("@")[2].startswith("-") or any(c.isspace() or c == "\0" for c in url):
        raise InvalidParameter(f"{redacted(text)}: a host cannot begin with a hyphen, nor an address have blanks")
    if ref.startswith(("-", "+", "/")) or any(c in _NOT_IN_REFS for c in ref) or ".." in ref:
        raise InvalidParameter(f"{redacted(text)}: {ref!r} is no name of a branch, a tag or a commit")
    if ".." in subdirectory.split("/"):
        raise InvalidParameter(f"{redacted(text)}: the subdirectory {subdirectory!r} leads out of the repository")
    return GitAddress(url, ref, subdirectory.strip("/"))


def redacted(text: str) -> str:
    """An address without the password or token in it, for messages and histories."""
    scheme, separator, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    user, at, name = host.rpartition("@")
    if not separator or not at or not user:
        return text
    return f"{scheme}://xxxxx@{name}{slash}{path}"
