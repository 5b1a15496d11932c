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

_ATIMES = NOATIME | STRICTATIME

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
    "relatime": _ATIMES,
    "norelatime": 0,  # to have neither of the three is relatime, for the kernel since 2.6.30
    "nostrictatime": STRICTATIME,
    "diratime": NODIRATIME,
    "symfollow": NOSYMFOLLOW,
}
_SUPERBLOCK = {"async": "sync", "nomand": "mand", "nolazytime": "lazytime", "noiversion": "iversion"}
"""What takes back a flag of the whole file system; the flags themselves are options of it."""
_PROPAGATION = frozenset(("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"))
_WITHOUT_EFFECT = frozenset(("defaults", "newinstance", "silent", "loud"))
"""newinstance: every devpts is one since Linux 4.7. silent, loud: how much the kernel logs of a mount."""

MOUNT_WORDS = tuple(
    sorted(
        {
            *("bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup", "dirsync", "defaults", "silent", "loud"),
            *_SET,
            *_CLEAR,
            *_SUPERBLOCK,
            *_SUPERBLOCK.values(),
            *_PROPAGATION,
            *(f"r{word}" for word in (*_SET, *_CLEAR)),
        }
    )
)
"""Every option that is not a file system's own (config.md, "Linux mount options")."""


class MountOptions(Struct):
    """A mount's options sorted by what they act on.

    attributes: bits of the mount. deep: those that hold for the mounts on it too. clear, deep_clear: bits that were taken away
    by a word of their own. data: options of the file system, a value of "" for a flag. bind, recursive: "bind" and "rbind".
    propagation: "" if none is named. idmap: "idmap", "ridmap" or "". copy_up: fill it with what its place holds. remount: change the mount that is there.
    """

    attributes: int
    data: tuple[tuple[str, str], ...]
    bind: bool = False
    recursive: bool = False
    propagation: str = ""
    deep: int = 0
    clear: int = 0
    deep_clear: int = 0
    idmap: str = ""
    copy_up: bool = False
    remount: bool = False


class _Bits:
    """Bits that words set and clear, each word against those before it."""

    def __init__(self) -> None:
        self.set = self.clear = 0

    def take(self, word: str) -> bool:
        """Whether it is a word of mounts."""
        if word in _SET:
            bit = _SET[word]
            if bit & _ATIMES:
                self.set &= ~_ATIMES
            self.set |= bit
            self.clear &= ~bit
        elif word in _CLEAR:
            self.set &= ~_CLEAR[word]
            self.clear |= _CLEAR[word]
        else:
            return False
        return True


_read: dict[tuple[str, ...], MountOptions] = {}
"""What was read already, up to a bound: every start of a server has the same dozen mounts, whose options it reads twice."""
_MOST_READ = 64


def mount_options(words: Iterable[str]) -> MountOptions:
    """Read option words in order: of two that contradict each other, the later one counts."""
    key = tuple(words)
    found = _read.get(key)
    if found is None:
        found = _options(key)
        if len(_read) < _MOST_READ:
            _read[key] = found
    return found


def _options(words: tuple[str, ...]) -> MountOptions:
    own, deep = _Bits(), _Bits()
    data: dict[str, str] = {}
    propagation = idmap = ""
    bind = recursive = copy_up = remount = False
    for word in words:
        # "rw" before "r" and "w": a word with an r in front of it acts on all mounts below, too.
        if own.take(word) or (word[:1] == "r" and deep.take(word[1:])):
            continue
        if word in ("bind", "rbind"):
            bind, recursive = True, word == "rbind"
        elif word in _PROPAGATION:
            propagation = word
        elif word in ("idmap", "ridmap"):
            idmap = word
        elif word == "tmpcopyup":
            copy_up = True
        elif word == "remount":
            remount = True
        elif word in _SUPERBLOCK:
            data.pop(_SUPERBLOCK[word], None)
        elif word not in _WITHOUT_EFFECT:
            key, _, value = word.partition("=")
            data[key] = value
    return MountOptions(
        own.set,
        tuple(data.items()),
        bind,
        recursive,
        propagation,
        deep.set,
        own.clear,
        deep.clear,
        idmap,
        copy_up,
        remount,
    )


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
    for entry in config["linux"].get("namespaces") or ():
        if entry["type"] == kind:
            return dict(entry)
    return None


def parameter_path(name: str) -> str:
    """A kernel parameter's path below /proc/sys. As sysctl(8): where the first separator is a "/" the name is the path, else a
    "/" among dots stands for a dot in an interface's name. Raises `InvalidParameter` for a path that leads elsewhere.
    """
    slashed = "/" in name and "." not in name.partition("/")[0]
    parts = name.split("/") if slashed else [part.replace("/", ".") for part in name.split(".")]
    if not set(parts).isdisjoint(("", ".", "..")):
        raise InvalidParameter(f"sysctl {name!r} is no name of a kernel parameter")
    return "/".join(parts)
