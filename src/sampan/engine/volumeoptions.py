"""The options of the volume driver `local`: `type`, `device`, `o`, turned into one call of mount(2).

Names, rules and messages are those of Docker's driver (moby, volume/local); the words in `o` are those of mount(8),
which gives some to the kernel as flags, keeps some for itself, and hands on the rest to the file system.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter, System
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# mount(2); MS_NOSYMFOLLOW since Linux 5.10, MS_LAZYTIME since 4.0
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _SYNCHRONOUS, _REMOUNT, _MANDLOCK = 1, 2, 4, 8, 16, 32, 64
_DIRSYNC, _NOSYMFOLLOW, _NOATIME, _NODIRATIME, _BIND, _REC, _SILENT = 128, 256, 1024, 2048, 4096, 16384, 32768
_UNBINDABLE, _PRIVATE, _SLAVE, _SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
_RELATIME, _I_VERSION, _STRICTATIME, _LAZYTIME = 1 << 21, 1 << 23, 1 << 24, 1 << 25

# A word of `o` -> (its bits, whether it sets them).
_FLAGS = {
    "ro": (_RDONLY, True),
    "rw": (_RDONLY, False),
    "nosuid": (_NOSUID, True),
    "suid": (_NOSUID, False),
    "nodev": (_NODEV, True),
    "dev": (_NODEV, False),
    "noexec": (_NOEXEC, True),
    "exec": (_NOEXEC, False),
    "sync": (_SYNCHRONOUS, True),
    "async": (_SYNCHRONOUS, False),
    "dirsync": (_DIRSYNC, True),
    "remount": (_REMOUNT, True),
    "mand": (_MANDLOCK, True),
    "nomand": (_MANDLOCK, False),
    "noatime": (_NOATIME, True),
    "atime": (_NOATIME, False),
    "nodiratime": (_NODIRATIME, True),
    "diratime": (_NODIRATIME, False),
    "relatime": (_RELATIME, True),
    "norelatime": (_RELATIME, False),
    "strictatime": (_STRICTATIME, True),
    "nostrictatime": (_STRICTATIME, False),
    "lazytime": (_LAZYTIME, True),
    "nolazytime": (_LAZYTIME, False),
    "iversion": (_I_VERSION, True),
    "noiversion": (_I_VERSION, False),
    "nosymfollow": (_NOSYMFOLLOW, True),
    "symfollow": (_NOSYMFOLLOW, False),
    "silent": (_SILENT, True),
    "loud": (_SILENT, False),
    "bind": (_BIND, True),
    "rbind": (_BIND | _REC, True),
    "unbindable": (_UNBINDABLE, True),
    "runbindable": (_UNBINDABLE | _REC, True),
    "private": (_PRIVATE, True),
    "rprivate": (_PRIVATE | _REC, True),
    "slave": (_SLAVE, True),
    "rslave": (_SLAVE | _REC, True),
    "shared": (_SHARED, True),
    "rshared": (_SHARED | _REC, True),
}
_PROPAGATION = _UNBINDABLE | _PRIVATE | _SLAVE | _SHARED
_OF_THE_MOUNT = _RDONLY | _NOSUID | _NODEV | _NOEXEC | _NOSYMFOLLOW | _NOATIME | _NODIRATIME | _RELATIME | _STRICTATIME

# Words for mount(8) and /etc/fstab, of which the kernel knows nothing.
_FOR_FSTAB = frozenset(("defaults", "auto", "noauto", "nofail", "_netdev", "nouser"))
_COMMENTS = ("comment=", "x-", "X-")

_KNOWN = ("type", "o", "device", "size")
# In the order in which Docker's messages are the most useful: what names no file system first.
_NEEDED = {"o": ("device", "type"), "type": ("device",), "device": ("type",)}
_NETWORKED = ("nfs", "nfs4", "cifs")


class MountCall(Struct):
    """One volume's mount: the arguments of mount(2), and what has to follow it.

    remount: flags of the mount itself, which a bind mount takes in a second call only; 0 for none. propagation: flags of a
    third call, 0 for none.
    """

    device: str
    type: str
    flags: int
    data: str
    remount: int = 0
    propagation: int = 0


def check(options: Mapping[str, str]) -> None:
    """Raises InvalidParameter, in Docker's words, for options that make no volume."""
    for name in options:
        if name not in _KNOWN:
            raise InvalidParameter(f'invalid option: "{name}"')
    if "size" in options:
        from sampan.engine.options import parse_size

        try:
            size = parse_size(options["size"])
        except ValueError as e:
            raise InvalidParameter(str(e)) from None
        if size > 0:
            raise InvalidParameter("quota size requested but no quota support")
    for name, needed in _NEEDED.items():
        for other in needed:
            if name in options and other not in options:
                raise InvalidParameter(f'missing required option: "{other}"')


def needs_mount(options: Mapping[str, str]) -> bool:
    """Whether a volume with these options is something that has to be mounted."""
    return bool(options.get("device") or options.get("type"))


def mount_call(options: Mapping[str, str], resolve: Callable[[str], str]) -> MountCall:
    """How to mount a volume. `resolve` gives the address of a host's name, or raises OSError.

    Raises System, in Docker's words.
    """
    kind, device = options.get("type", ""), options.get("device", "")
    if not device:
        raise System("missing device in volume options")
    flags, data = parse(options.get("o", ""))
    if kind in _NETWORKED:
        data = _with_address(data, resolve)
    own = flags & _OF_THE_MOUNT
    bound = bool(flags & _BIND)
    propagation = flags & (_PROPAGATION | _REC) if flags & _PROPAGATION else 0
    return MountCall(
        # From where a daemon would look, and not from the directory of whoever starts a container.
        device=f"/{device}" if bound and not device.startswith("/") else device,
        type=kind,
        flags=flags & ~_PROPAGATION,
        data=data,
        remount=_REMOUNT | _BIND | own if bound and own else 0,
        propagation=propagation,
    )


def parse(words: str) -> tuple[int, str]:
    """The words of `o` as flags of mount(2) and the text for the file system."""
    flags, data = 0, []
    for word in words.split(","):
        bits, sets = _FLAGS.get(word, (0, True))
        if bits:
            flags = flags | bits if sets else flags & ~bits
        elif word and word not in _FOR_FSTAB and not word.startswith(_COMMENTS):
            data.append(word)
    return flags, ",".join(data)


def _with_address(data: str, resolve: Callable[[str], str]) -> str:
    """Put an address in place of the name behind `addr=`: the kernel resolves none (mount.nfs(8) does that elsewhere)."""
    words = data.split(",")
    for i, word in enumerate(words):
        if word.startswith("addr=") and len(word) > 5:
            name = word.removeprefix("addr=")
            try:
                words[i] = f"addr={resolve(name)}"
            except OSError as e:
                reason = e.strerror or str(e)
                raise System(
                    f"error resolving passed in network volume address: lookup {name}: {reason.lower()}"
                ) from None
    return ",".join(words)


def address_of(host: str) -> str:
    """The address of a host's name, IPv4 if it has one; an address is its own. Raises OSError."""
    import socket

    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def shown(call: MountCall, target: str) -> str:
    """The mount as Docker's errors name it; a password is not shown."""
    text = f"mount {call.device}:{target}"
    if call.flags:
        text += f", flags: {call.flags:#x}"
    data = ",".join("password=********" if w.startswith("password=") else w for w in call.data.split(","))
    return text + (f", data: {data}" if data else "")
