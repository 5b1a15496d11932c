"""Mounting volumes that have driver options: on their `_data`, on the host, while a container that uses them runs.

There is no counter that could be wrong: a volume stays mounted as long as a record that names it belongs to a
container that runs or is being started, and both sides ask that under the volume's mount lock. The lock is the file
volumes/.mounted/NAME, which is there from before the mount until after the unmount: after a kill -9 it says where to look.
"""

from __future__ import annotations

import os

from sampan.engine.volumeoptions import address_of, mount_call, needs_mount, shown
from sampan.errors import System, Unavailable
from sampan.kernel import mount
from sampan.kernel.files import FileLock
from sampan.kernel.mountinfo import mount_points

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from types import TracebackType
    from typing import Protocol, Self

    from sampan.engine.volumeoptions import MountCall
    from sampan.steps.trace import Trace
    from sampan.store.volumes import VolumeRecord

    class Users(Protocol):
        def running(self, names: Collection[str]) -> set[str]: ...


_PATIENCE = 60.0
"""Seconds that another command may take to mount or unmount a volume: a server on the network may be slow."""


class VolumeMounts:
    """The mounts of volumes below one directory. `mounted` is where their locks are."""

    def __init__(self, directory: str, mounted: str, users: Users, trace: Trace) -> None:
        self._directory = directory
        self._mounted = mounted
        self._users = users
        self._trace = trace

    def mount(self, volume: VolumeRecord) -> bool:
        """Mount a volume, if it is one that is mounted and it is not; whether it is one. Idempotent.

        To be called by who starts a container, when that can be seen to be starting: `release` will not undo it then.
        Raises System in Docker's words.
        """
        if not needs_mount(volume.options):
            return False
        with self._lock(volume.name):
            self._mount_locked(volume)
        return True

    def release(self, names: Iterable[str]) -> None:
        """Unmount those of these volumes that are mounted and that no running container uses any more. Idempotent."""
        for name in sorted(names):
            if os.path.exists(self._marker(name)):
                with self._lock(name):
                    if not self._users.running({name}):
                        self._unmount_locked(name)

    def release_unused(self) -> None:
        """The same for every volume that is mounted: for what killed commands left. One listing if there is none."""
        try:
            names = os.listdir(self._mounted)
        except FileNotFoundError:
            return
        if names:
            self.release(set(names) - self._users.running(names))

    def unmount(self, name: str) -> None:
        """Unmount a volume that no container uses at all, whatever the marks say: it is about to be deleted."""
        if os.path.exists(self._marker(name)) or self._points(name):
            with self._lock(name):
                self._unmount_locked(name)

    def visit(self, volume: VolumeRecord) -> Visit:
        """A context manager under which a volume is mounted, for a look into it (or a copy) without a container."""
        return Visit(self, volume)

    # Within

    def _marker(self, name: str) -> str:
        return f"{self._mounted}/{name}"

    def _lock(self, name: str) -> FileLock:
        path = self._marker(name)
        for _ in range(2):
            try:
                return FileLock.acquire(path, _PATIENCE)
            except FileNotFoundError:
                os.makedirs(self._mounted, 0o700, exist_ok=True)
            except BlockingIOError:
                break
        raise Unavailable(
            f"volume {name} is in use: another command has been mounting or unmounting it for {_PATIENCE:.0f} s"
        )

    def _points(self, name: str) -> list[str]:
        data = os.path.realpath(f"{self._directory}/{name}") + "/_data"
        return [point for point in mount_points(data) if point == data]

    def _mount_locked(self, volume: VolumeRecord) -> None:
        if self._points(volume.name):
            return
        try:
            call = mount_call(volume.options, address_of)
            with self._trace.step("mount volume", volume.name):
                _mount(call, volume)
        except BaseException as e:
            self._unmount_locked(volume.name)
            if isinstance(e, System):
                prefix = f"error while mounting volume '{volume.path}': failed to mount local volume"
                raise System(f"{prefix}: {e}") from None
            raise

    def _unmount_locked(self, name: str) -> None:
        """With the lock held, which ends with its file here."""
        for point in reversed(self._points(name)):
            with self._trace.step("unmount volume", name):
                # Detached: containers have mounts of their own, and a process of the host that has its working
                # directory there must not keep the volume.
                mount.umount(point, mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
        with self._trace.step("forget mount", name):
            os.unlink(self._marker(name))


class Visit:
    """See `VolumeMounts.visit`. Nobody else mounts or unmounts the volume meanwhile."""

    def __init__(self, mounts: VolumeMounts, volume: VolumeRecord) -> None:
        self._mounts = mounts
        self._volume = volume
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        if needs_mount(self._volume.options):
            self._lock = self._mounts._lock(self._volume.name)
            try:
                self._mounts._mount_locked(self._volume)
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        if self._lock is None:
            return
        try:
            if not self._mounts._users.running({self._volume.name}):
                self._mounts._unmount_locked(self._volume.name)
        finally:
            self._lock.release()


def _mount(call: MountCall, volume: VolumeRecord) -> None:
    try:
        # By descriptor: `_data` itself is no link, whoever may have put one there.
        fd = os.open(volume.path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            mount.mount(call.device, f"/proc/self/fd/{fd}", call.type, call.flags, call.data)
        finally:
            os.close(fd)
        # From here on the path leads to what has just been mounted; the descriptor would lead below it.
        if call.remount:
            mount.mount("", volume.path, "", call.remount)
        if call.propagation:
            mount.mount("", volume.path, "", call.propagation)
    except OSError as e:
        raise System(f"{shown(call, volume.path)}: {os.strerror(e.errno or 0).lower()}") from None
