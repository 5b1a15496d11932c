"""From what a create request says about mounts to the container's mount points, with its volumes made and filled.

The order is dockerd's: --volumes-from, over it -v and --mount, and a new volume for each VOLUME of the image that is
left. What an image has at the place of an empty volume is copied when the container is made, not when it starts.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.engine import mountspecs
from sampan.errors import InvalidParameter, NotFound, System
from sampan.kernel import paths
from sampan.kernel.libc import KernelError
from sampan.oci.mountpoint import IMAGE, TMPFS, VOLUME, MountPoint
from sampan.store.copyup import CopyUp, with_root
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from sampan.engine.mountspecs import Wanted
    from sampan.kernel.files import FileLock
    from sampan.steps.trace import Trace
    from sampan.store.record import Record
    from sampan.store.snapshots import RootMount

    class Volume(Protocol):
        @property
        def name(self) -> str: ...
        @property
        def path(self) -> str: ...
        @property
        def driver(self) -> str: ...
        @property
        def options(self) -> Mapping[str, str]: ...

    class Volumes(Protocol):
        def hold(self) -> FileLock: ...
        def ensure(
            self,
            name: str,
            driver: str = ...,
            options: Mapping[str, str] | None = ...,
            labels: Mapping[str, str] | None = ...,
            made_for: str = ...,
            durable: bool = ...,
        ) -> Any: ...
        def visit(self, volume: Any) -> Any: ...
        def remove_made_for(self, container_id: str) -> None: ...

    class Image(Protocol):
        @property
        def id(self) -> str: ...
        @property
        def layers(self) -> Sequence[str]: ...

    class Images(Protocol):
        def resolve(self, reference: str) -> Image: ...
        def ensure_unpacked(self, image: Any) -> tuple[str, ...]: ...

    class Records(Protocol):
        def get(self, reference: str) -> Record: ...


class Resolved(Struct):
    """A new container's mount points, and what is still to be done for them when its root file system is there.

    volumes: (volume, mount point, whether the image's content is copied into it).
    """

    points: tuple[MountPoint, ...]
    volumes: tuple[tuple[Any, MountPoint, bool], ...]


class Mounts:
    """The mounts of containers that are being made."""

    def __init__(self, records: Records, images: Images, volumes: Volumes, trace: Trace) -> None:
        self._records = records
        self._images = images
        self._volumes = volumes
        self._trace = trace

    def hold(self) -> FileLock:
        """A context manager under which no volume is deleted: from `resolve` until the record is written."""
        return self._volumes.hold()

    def check(self, config: Mapping[str, Any], host: Mapping[str, Any]) -> None:
        """Refuse what is wrong in a request by itself. Raises InvalidParameter in Docker's words."""
        mountspecs.check_volumes(config["Volumes"] or ())
        mountspecs.read(host)
        for text in host["VolumesFrom"] or ():
            mountspecs.read_volumes_from(text)

    def resolve(self, container_id: str, config: Mapping[str, Any], host: Mapping[str, Any]) -> Resolved:
        """The mount points of a merged request; volumes that are missing are made, under `hold()`.

        Raises what `check` raises, NotFound (an image of --mount, a driver), Conflict (another driver's volume).
        """
        made = _Making(container_id, durable=not host["AutoRemove"])
        for text in host["VolumesFrom"] or ():
            self._take_over(made, text)
        for wanted in mountspecs.read(host):
            made.put(*self._point(made, wanted))
        taken = set(made.points) | {mountspecs.clean(path) for path in host["Tmpfs"] or ()}
        for target in config.get("Volumes") or ():
            target = mountspecs.clean(target)
            if target == "/":
                # An image's, for a request's own is refused: /../.. leads here too.
                raise InvalidParameter("invalid specification: destination can't be '/'")
            if target not in taken:
                wanted = mountspecs.Wanted(VOLUME, target, driver=host["VolumeDriver"])
                made.put(*self._volume(made, wanted, mode=""), refuses_file=True)
        return made.resolved()

    def fill(self, resolved: Resolved, root: RootMount) -> None:
        """Copy the image's content into the volumes that are new or empty. Raises System, InvalidParameter."""
        if resolved.volumes:
            with_root(root, lambda fd: self._fill_from(fd, resolved))

    def undo(self, container_id: str) -> None:
        """Remove the anonymous volumes of a container that will not be; not under `hold()`."""
        self._volumes.remove_made_for(container_id)

    # Within

    def _take_over(self, made: _Making, text: str) -> None:
        name, writable = mountspecs.read_volumes_from(text)
        try:
            other = self._records.get(name)
        except NotFound as e:
            raise InvalidParameter(str(e)) from None
        for point in other.mounts:
            if point.type != TMPFS:
                made.put(point.replace(rw=point.rw and writable, mode=""))

    def _point(self, made: _Making, wanted: Wanted) -> tuple[MountPoint, Any, bool]:
        if wanted.type == VOLUME:
            return self._volume(made, wanted, mode=wanted.mode or "z")
        if wanted.type == IMAGE:
            return self._image(wanted), None, False
        point = MountPoint(
            wanted.type,
            wanted.target,
            source=wanted.source,
            mode=wanted.mode,
            rw=wanted.rw,
            propagation=wanted.propagation,
            recursive=wanted.recursive,
            read_only=wanted.read_only,
            create_source=wanted.create_source,
            match_user=caller() if wanted.match_user else (),
            options=wanted.options,
        )
        return point, None, False

    def _volume(self, made: _Making, wanted: Wanted, mode: str) -> tuple[MountPoint, Any, bool]:
        volume: Volume = self._volumes.ensure(
            wanted.source, wanted.driver, wanted.driver_options, wanted.labels, made.container_id, made.durable
        )
        point = MountPoint(
            VOLUME,
            wanted.target,
            source=volume.path,
            name=volume.name,
            driver=volume.driver,
            anonymous=not wanted.source,
            mode=mode,
            rw=wanted.rw,
            subpath=wanted.subpath,
        )
        return point, volume, wanted.copy

    def _image(self, wanted: Wanted) -> MountPoint:
        image = self._images.resolve(wanted.source)
        self._images.ensure_unpacked(image)
        return MountPoint(
            IMAGE,
            wanted.target,
            source=image.id,
            name=wanted.source,
            rw=False,
            subpath=wanted.subpath,
            layers=tuple(image.layers),
        )

    def _fill_from(self, root_fd: int, resolved: Resolved) -> None:
        for volume, point, copy in resolved.volumes:
            source = _open_source(root_fd, point.destination)
            if source is None:
                continue
            try:
                if copy:
                    self._copy(volume, point, source)
            finally:
                os.close(source)

    def _copy(self, volume: Volume, point: MountPoint, source: int) -> None:
        try:
            with self._volumes.visit(volume):
                CopyUp(volume.path, bool(volume.options), self._trace).fill(source, point.subpath)
        except OSError as e:
            reason = (e.strerror or str(e)).lower()
            raise System(
                f"failed to populate volume {volume.name} from {point.destination} of the image: {reason}"
            ) from None


class _Making:
    """The mount points so far, by target: a later one on the same target takes the earlier one's place."""

    def __init__(self, container_id: str, durable: bool) -> None:
        self.container_id = container_id
        self.durable = durable
        self.points: dict[str, MountPoint] = {}
        self._volumes: dict[str, tuple[Any, MountPoint, bool]] = {}

    def put(self, point: MountPoint, volume: Any = None, copy: bool = False, refuses_file: bool = False) -> None:
        self.points[point.destination] = point
        self._volumes.pop(point.destination, None)
        if volume is not None and (copy or refuses_file):
            self._volumes[point.destination] = (volume, point, copy)

    def resolved(self) -> Resolved:
        return Resolved(tuple(self.points.values()), tuple(self._volumes.values()))


def _open_source(root_fd: int, path: str) -> int | None:
    """The image's directory at `path`, links followed inside the image's root only; None if there is nothing.

    Raises InvalidParameter if it is no directory (class CVE-2022-23648, CVE-2024-9341: nothing of the host is found).
    """
    try:
        # O_PATH first: what is there may be a FIFO, whose opening would wait, or a device.
        fd = paths.open_in_root(root_fd, path, os.O_PATH)
    except KernelError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise InvalidParameter(f"cannot mount volume over existing file, file exists {path}")
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    finally:
        os.close(fd)


def caller() -> tuple[int, int]:
    """The uid and gid of whoever gives this command: who called sudo, if that is how it is run as root."""
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.getuid() == 0 and uid.isdecimal() and gid.isdecimal():
        return int(uid), int(gid)
    return os.getuid(), os.getgid()
