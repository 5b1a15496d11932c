"""`system check`: what in the store does not fit together, and mending it as far as nothing can be lost by that.

Safe beside commands that are at work: what is judged is judged under the lock that would be held if somebody worked on
it, or is old enough that nobody does. Repairing removes only what is garbage by proof (nothing leads to it, its maker is
dead) and rebuilds only what can be rebuilt from content that was verified; everything else is told and left alone.
Content of volumes is never looked at.

    engine.checkcontainers   records, names, writable parts, run directories, cgroups
    engine.checknetworks     networks, endpoints, what is left of them on the host
    engine.checkimages       names of images, blobs, layers; with `deep` every byte of them
    here                     modes of directories, volumes, and the order of it all
"""

from __future__ import annotations

import os
import stat

from sampan.engine.failures import told
from sampan.errors import SampanError
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from sampan.store.layout import Layout
    from sampan.store.volumes import VolumeRecord

    class Part(Protocol):
        def findings(self) -> Iterator[Found]: ...

    class Images(Protocol):
        def findings(self) -> Iterator[Found]: ...
        def deep_findings(self) -> Iterator[Found]: ...

    class Volumes(Protocol):
        def release_unused(self) -> None: ...
        def collect_garbage(self) -> None: ...

    class VolumeStore(Protocol):
        def list(self) -> list[VolumeRecord]: ...
        def leftovers(self) -> tuple[str, ...]: ...

    class Copy(Protocol):
        def leftovers(self) -> list[str]: ...
        def finish(self) -> None: ...

    class VolumeUsers(Protocol):
        def running(self, names: list[str]) -> set[str]: ...


ERROR, GARBAGE = "error", "garbage"
"""Something is wrong that somebody will notice; something takes room (or a name) and serves nobody."""


class Finding(Struct):
    """One thing that does not fit. kind: a short name of its sort. repair: what --repair does, "" for what it leaves alone.

    repaired: it was done.
    """

    severity: str
    kind: str
    path: str
    what: str
    repair: str = ""
    repaired: bool = False


class Found(Struct):
    """A finding with its repair."""

    finding: Finding
    mend: Callable[..., object] | None = None
    args: tuple[Any, ...] = ()


def found(
    severity: str,
    kind: str,
    path: str,
    what: str,
    repair: str = "",
    mend: Callable[..., object] | None = None,
    *args: Any,
) -> Found:
    """A finding, and the call that mends it."""
    return Found(Finding(severity, kind, path, what, repair), mend, args)


class Checker:
    """`engine.system.check`."""

    def __init__(
        self,
        layout: Layout,
        containers: Part,
        networks: Part,
        images: Images,
        volumes: Volumes,
        volume_store: VolumeStore,
        volume_users: VolumeUsers,
        copy_of: Callable[[VolumeRecord], Copy],
    ) -> None:
        """`copy_of`: the copying of an image's content into a volume."""
        self._layout = layout
        self._containers = containers
        self._networks = networks
        self._images = images
        self._volumes = volumes
        self._volume_store = volume_store
        self._volume_users = volume_users
        self._copy_of = copy_of

    @told
    def check(self, repair: bool = False, deep: bool = False) -> list[Finding]:
        """Everything that does not fit together, mended with `repair`. `deep` reads every blob and every layer.

        Containers come before images: what is left of a container keeps layers.
        """
        parts = [
            self._modes,
            self._containers.findings,
            self._networks.findings,
            self._images.findings,
            self._volume_findings,
        ]
        if deep:
            parts.append(self._images.deep_findings)
        return [_concluded(one, repair) for part in parts for one in part()]

    def _modes(self) -> Iterator[Found]:
        """Set-uid files of images are out of reach of the host's users as long as these are closed (CVE-2021-41091)."""
        for path, mode in self._layout.directories():
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                yield found(ERROR, "directory", path, "it is missing", "make it", _make, path, mode)
                continue
            # A root that somebody else made may be readable; what is in it is closed. Nobody else may write to it.
            forbidden = 0o022 if path in (self._layout.root, self._layout.run_root) else 0o077
            if not stat.S_ISDIR(status.st_mode):
                yield found(ERROR, "directory", path, "it is no directory")
            elif status.st_mode & forbidden or status.st_uid != 0:
                what = f"mode {stat.S_IMODE(status.st_mode):o}, owner {status.st_uid}: others than root can get in"
                yield found(
                    ERROR, "mode", path, what, f"mode {mode:o}, owner 0",
                    _close, path, mode,
                )  # fmt: skip

    def _volume_findings(self) -> Iterator[Found]:
        for record in self._volume_store.list():
            if record.broken:
                yield found(ERROR, "volume", os.path.dirname(record.path), record.broken)
                continue
            copy = self._copy_of(record)
            for path in copy.leftovers():
                what = f"the command that was filling volume {record.name} was killed"
                yield found(
                    GARBAGE, "volume", path, what, "complete what was copied whole, else remove it", copy.finish
                )
        for path in self._volume_store.leftovers():
            yield found(GARBAGE, "volume", path, "a killed command left it", "remove it", self._volumes.collect_garbage)
        yield from self._mounts_left()

    def _mounts_left(self) -> Iterator[Found]:
        from sampan.kernel.files import is_young, lock_is_held
        from sampan.kernel.mountinfo import mount_points

        directory = self._layout.mounted_volumes
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            return
        for name in names:
            path = f"{directory}/{name}"
            if is_young(path) or lock_is_held(path) or self._volume_users.running([name]):
                continue
            where = f"{self._layout.volumes}/{name}/_data"
            what = "no running container uses the volume that is mounted here"
            if not mount_points(os.path.realpath(where)):
                where, what = path, "it says that a volume is mounted, which is not"
            yield found(GARBAGE, "mount", where, what, "unmount it", self._volumes.release_unused)


def _concluded(one: Found, repair: bool) -> Finding:
    """The finding, mended if that is wanted and can be; a repair that fails is told in it."""
    if not repair or one.mend is None:
        return one.finding
    try:
        one.mend(*one.args)
    except (SampanError, OSError) as e:
        return one.finding.replace(what=f"{one.finding.what}; it cannot be repaired now: {e}")
    return one.finding.replace(repaired=True)


def _make(path: str, mode: int) -> None:
    os.mkdir(path, mode)
    os.chmod(path, mode)


def _close(path: str, mode: int) -> None:
    os.chown(path, 0, 0)
    os.chmod(path, mode)
