"""The image `base`: there without any download, made of the machine's own programs when it is first named.

An ordinary image of one layer. The same machine makes the same bytes each time: names are sorted, owners are root,
and the one time in it is that of the newest program, so that `images` shows how old the programs are.
"""

from __future__ import annotations

import io
import os
import posixpath

from sampan.engine import machine
from sampan.engine.importing import Importer
from sampan.kernel import clock
from sampan.oci import image as documents
from sampan.oci import platform
from sampan.oci.process import DEFAULT_PATH
from sampan.store import tarstream
from sampan.store.tarstream import TarEntry
from sampan.store.tarwriter import TarWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from sampan.engine.images import Content, Image, Lock, Snapshotter
    from sampan.engine.importing import Publisher
    from sampan.engine.machine import Tree
    from sampan.oci.reference import Reference
    from sampan.store.images import NameRecord

    class Images(Publisher, Protocol):
        def find(self, name: str) -> NameRecord | None: ...


_DIRECTORIES = {
    "/dev": 0o755,
    "/etc": 0o755,
    "/home": 0o755,
    "/proc": 0o755,
    "/root": 0o700,
    "/run": 0o755,
    "/sys": 0o755,
    "/tmp": 0o1777,
    "/usr/bin": 0o755,
    "/usr/sbin": 0o755,
    "/var/tmp": 0o1777,
}

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
mail:x:8:8:mail:/var/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""

_GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
wheel:x:10:root
www-data:x:33:
video:x:44:
users:x:100:
nogroup:x:65534:
"""

_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"


class BaseImage:
    """Makes the image. `notify` is told in one line what is done, for it takes a noticeable time."""

    def __init__(
        self,
        content: Content,
        snapshots: Snapshotter,
        lock: Lock,
        images: Images,
        notify: Callable[[str], None],
    ) -> None:
        self._importer = Importer(content, snapshots, lock, images)
        self._lock = lock
        self._images = images
        self._notify = notify

    def make(self, name: Reference, places: Sequence[str] | None = None) -> None:
        """Make the image unless another process did so while this one waited for it.

        `places` are the directories in which programs are looked for, by default the usual ones. Raises `Unavailable`
        if the machine has no programs to make it of, OSError.
        """
        with self._lock.making("base"):
            if self._images.find(str(name)) is None:
                self.make_from(machine.gather(places), name)

    def make_from(self, tree: Tree, name: Reference) -> Image:
        """Make the image out of the programs that were gathered."""
        self._notify(f"making the image {name.familiar_name} of this machine's own {tree.summary}")
        seconds = max(int(os.stat(source).st_mtime) for source, _ in tree.files.values())
        created = clock.rfc3339(seconds * 1_000_000_000)
        config = {"Env": [f"PATH={DEFAULT_PATH}"], "Cmd": ["sh"]}
        history = [{"created": created, "created_by": f"sampan: {tree.summary} of the machine"}]

        def describe(diff_id: str) -> bytes:
            return documents.make_config(platform.here(), created, config, [diff_id], history)

        return self._importer.add(io.BytesIO(layer(tree, seconds * 1_000_000_000)), describe, name)


def layer(tree: Tree, mtime_ns: int) -> bytes:
    """The layer's tar: directories before what is in them, everything in the order of its name."""
    texts = {
        "/etc/group": _GROUP,
        "/etc/nsswitch.conf": _NSSWITCH,
        "/etc/os-release": _os_release(tree.summary),
        "/etc/passwd": _PASSWD,
    }
    links = {**_copies(tree), **tree.links}
    directories = _directories([*tree.files, *links, *texts], links)
    archive = io.BytesIO()
    writer = TarWriter(archive)
    for path in sorted({*directories, *links, *tree.files, *texts}):
        name = os.fsencode(path.lstrip("/"))
        if path in links:
            target = os.fsencode(links[path])
            writer.add(TarEntry(name, tarstream.SYMLINK, 0o777, mtime_ns=mtime_ns, target=target))
        elif path in directories:
            writer.add(TarEntry(name + b"/", tarstream.DIRECTORY, directories[path], mtime_ns=mtime_ns))
        else:
            data, mode = (texts[path].encode(), 0o644) if path in texts else _file(*tree.files[path])
            writer.add(TarEntry(name, tarstream.FILE, mode, size=len(data), mtime_ns=mtime_ns), data)
    writer.close()
    return archive.getvalue()


def _copies(tree: Tree) -> dict[str, str]:
    """Links instead of second copies, where two names are one file of the machine (a library and its loader)."""
    first: dict[str, str] = {}
    return {
        path: first[source]
        for path, (source, _) in sorted(tree.files.items())
        if first.setdefault(source, path) != path
    }


def _directories(paths: list[str], links: dict[str, str]) -> dict[str, int]:
    """All directories with their permissions: those that every root has, and the parents of what is in it."""
    found = dict(_DIRECTORIES)
    for path in [*_DIRECTORIES, *paths]:
        parent = posixpath.dirname(path)
        while parent != "/" and parent not in links:
            found.setdefault(parent, 0o755)
            parent = posixpath.dirname(parent)
    if "/bin" not in links:
        found.setdefault("/bin", 0o755)
        found.setdefault("/sbin", 0o755)
    return {path: mode for path, mode in found.items() if path not in links}


def _file(source: str, mode: int) -> tuple[bytes, int]:
    with open(source, "rb") as file:
        return file.read(), mode


def _os_release(summary: str) -> str:
    return f'ID=sampan-base\nNAME="sampan base"\nPRETTY_NAME="sampan base image ({summary})"\n'
