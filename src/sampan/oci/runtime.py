"""The OCI runtime configuration (config.json) as plain data: shapes, and mount options read from their words.

Source: github.com/opencontainers/runtime-spec, config.md and config-linux.md.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

VERSION = "1.2.0"

# Bits of mount_setattr(2); `oci` imports no kernel module, and these are part of the kernel's ABI.
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
NOATIME, STRICTATIME, NODIRATIME, NOSYMFOLLOW = 0x10, 0x20, 0x80, 0x200000

_SET = {
    "ro": RDONLY,
    "nosuid": NOSUID,
    "nodev": NODEV,
    "noexec": NOEXEC,
    "noatime": NOATIME,
    "strictatime": STRICTATIME,
    "nodiratime": NODIRATIME,
    "nosymfollow": NOSYMFOLLOW,
}
_CLEAR = {
    "rw": RDONLY,
    "suid": NOSUID,
    "dev": NODEV,
    "exec": NOEXEC,
    "atime": NOATIME,
    "relatime": NOATIME | STRICTATIME,
    "diratime": NODIRATIME,
    "symfollow": NOSYMFOLLOW,
}
_PROPAGATION = frozenset(("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"))


class MountOptions(Struct):
    """A mount's options sorted by what they act on.

    attributes: bits of the mount. deep: those that hold for the mounts on it too. data: options of the file system, a value of "" for a flag. bind, recursive: "bind" and
    "rbind". propagation: "" if none is named.
    """

    attributes: int
    data: tuple[tuple[str, str], ...]
    bind: bool = False
    recursive: bool = False
    propagation: str = ""
    deep: int = 0


def mount_options(words: Iterable[str]) -> MountOptions:
    """Read option words in order: of two that contradict each other, the later one counts."""
    attributes, deep, propagation, bind, recursive = 0, 0, "", False, False
    data: dict[str, str] = {}
    for word in words:
        if word in _SET:
            attributes |= _SET[word]
        elif word in _CLEAR:
            attributes &= ~_CLEAR[word]
        elif word == "rro":
            deep |= RDONLY
        elif word in ("bind", "rbind"):
            bind, recursive = True, word == "rbind"
        elif word in _PROPAGATION:
            propagation = word
        elif word not in ("defaults", "newinstance", "async", "nomand", "silent", "loud"):
            key, _, value = word.partition("=")
            data[key] = value
    return MountOptions(attributes, tuple(data.items()), bind, recursive, propagation, deep)


_TMPFS_DATA = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol")


def tmpfs_options(text: str) -> list[str]:
    """The words of `--tmpfs PATH:text` with Docker's defaults before them. Raises `InvalidParameter` for an unknown one."""
    words = [w for w in text.split(",") if w]
    for word in words:
        key, separator, _ = word.partition("=")
        if (separator and key not in _TMPFS_DATA) or (
            not separator and word not in _SET and word not in _CLEAR and word not in _PROPAGATION
        ):
            raise InvalidParameter(f"invalid tmpfs option [{word!r}]".replace("'", '"'))
    return ["noexec", "nosuid", "nodev", *words]


def namespace(config: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The entry of namespace `kind` ("network", "pid", ...), None where the container shares the runtime's."""
    for entry in config["linux"]["namespaces"]:
        if entry["type"] == kind:
            return dict(entry)
    return None


def parameter_path(name: str) -> str:
    """A kernel parameter's path below /proc/sys. As sysctl(8): a "/" among dots stands for a dot in an interface's name."""
    return "/".join(part.replace("/", ".") for part in name.split("."))
