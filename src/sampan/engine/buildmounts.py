"""What RUN --mount gives to a command: files of the context, of stages and images, caches, secrets, memory (Dockerfile reference).

    bind     read-only: an image's files as they are, joined by the kernel below its root; of a context a copy, which is what was
             hashed, and has no sockets. rw: a copy that is thrown away
    cache    a directory of `store.cachemounts`
    secret   a file below the run root, which is memory; a variable is in no record of the container
    tmpfs    the container's own

Whatever is mounted: the places that were made for it in the container's files go again (`Stubs`), and only descriptors below an
open root are used for that, no path that a command could have changed meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager

from sampan.engine.buildfiles import FileTree, Manner
from sampan.engine.copying import Source
from sampan.errors import InvalidParameter, NotFound, System
from sampan.kernel import paths
from sampan.kernel.files import get_xattrs, is_opaque
from sampan.kernel.libc import KernelError
from sampan.oci import digest as digests
from sampan.oci import image as documents
from sampan.oci.mountpoint import IMAGE, MountPoint
from sampan.store.staging import Staging
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from sampan.build.instructions import RunMount
    from sampan.build.parser import Heredoc
    from sampan.engine.buildcaching import FileSystem
    from sampan.steps.trace import Trace
    from sampan.store.cachemounts import CacheMount, CacheMounts
    from sampan.store.staging import Staged

    Origin = Callable[[str], FileSystem | FileTree]
    Opened = Callable[[FileSystem], AbstractContextManager[FileTree]]

SCRIPTS = "/dev/pipes"
"""Where a heredoc that begins with "#!" is: /dev is the container's own, so that nothing of it is in a layer."""

_SECRET_LIMIT = 500 << 10
_SECRETS = "/run/secrets"
_READ_ONLY_MODE = 0o400
_STRICTNESS = ("shared", "private", "locked")
_OF_CONTEXT = Manner((0, 0))
"""What comes from the caller's disk is root's in a build, whoever the caller is."""


class Secret(Struct):
    """`--secret`: where it is found when a step asks for it. path: a file, else `variable` of the caller's environment."""

    id: str
    path: str = ""
    variable: str = ""

    def read(self) -> bytes | None:
        """Its value, None for a variable that is not set. Raises `InvalidParameter` without a word of the value."""
        if not self.path:
            value = os.environ.get(self.variable)
            return None if value is None else os.fsencode(value)
        try:
            with open(self.path, "rb") as file:
                data = file.read(_SECRET_LIMIT + 1)
        except OSError as e:
            reason = (e.strerror or str(e)).lower()
            raise InvalidParameter(f"secret {self.id}: open {self.path}: {reason}") from None
        if len(data) > _SECRET_LIMIT:
            raise InvalidParameter(f"secret {self.id}: {self.path} is larger than {_SECRET_LIMIT >> 10} KiB")
        return data


class Workplaces:
    """Directories for one build: `files` on the store's disk, `secrets` in memory. What a killed build left goes with the next."""

    def __init__(self, files: str, secrets: str, caches: CacheMounts, trace: Trace) -> None:
        self._files = files
        self._secrets = secrets
        self._trace = trace
        self.caches = caches

    def files(self) -> Staged:
        """An empty directory; a context manager that deletes it."""
        return self._begin(self._files)

    def secrets(self) -> Staged:
        """The same for what must never be on a disk."""
        return self._begin(self._secrets)

    def _begin(self, directory: str) -> Staged:
        os.makedirs(directory, 0o700, exist_ok=True)
        return Staging(directory, self._trace).begin()

    def collect_garbage(self) -> None:
        """Delete what killed builds left."""
        for directory in (self._files, self._secrets):
            if os.path.isdir(directory):
                Staging(directory, self._trace).collect_garbage()
        self.caches.collect_garbage()


class Prepared(Struct):
    """What a container is to be given. mounts: for `HostConfig.Mounts`. points, environment (NAME=value): for its start alone."""

    mounts: tuple[dict[str, Any], ...] = ()
    points: tuple[MountPoint, ...] = ()
    environment: tuple[str, ...] = ()

    @property
    def targets(self) -> list[str]:
        return [*(mount["Target"] for mount in self.mounts), *(point.destination for point in self.points)]


class RunMounts:
    """The mounts of one RUN. `origin` finds what `from` names (the context for ""), `opened` gives the files of a stage."""

    def __init__(
        self,
        mounts: Sequence[RunMount],
        directory: str,
        script: Heredoc | None,
        secrets: Mapping[str, Secret],
        origin: Origin,
        opened: Opened,
        workplaces: Workplaces,
    ) -> None:
        """directory: the working directory, from which relative targets are. script: what is to be executed in `SCRIPTS`.

        Raises `InvalidParameter` for what cannot be.
        """
        self._script = script
        self._mounts = [_settled(mount, directory) for mount in mounts]
        self._secrets = secrets
        self._origin = origin
        self._opened = opened
        self._workplaces = workplaces
        self._caches: dict[str, str] = {}
        targets = [mount.target for mount in self._mounts if mount.target]
        for target in targets:
            if targets.count(target) > 1:
                raise InvalidParameter(f"two mounts of one RUN have the target {target}")

    def depends(self) -> list[Any]:
        """What of them decides what the command does: the content of a bind; of a cache and a secret where it is, and no content."""
        return [[mount.to_json(), self._content(mount)] for mount in self._mounts]

    def _content(self, mount: RunMount) -> object:
        if mount.kind not in ("bind", "cache") or (mount.kind == "cache" and not mount.from_):
            return None
        origin = self._origin(mount.from_)
        if not isinstance(origin, FileTree):
            return list(origin.diff_ids)
        (found,) = origin.find(_plain(mount.source))
        return origin.digests(found, _OF_CONTEXT)

    @contextmanager
    def ready(self) -> Iterator[Prepared]:
        """Everything in its place for as long as the command runs. Raises what reading sources raises, `InvalidParameter`."""
        with ExitStack() as until_done:
            mounts: list[dict[str, Any]] = []
            points: list[MountPoint] = []
            environment: list[str] = []
            self._take_caches(until_done)
            for mount in self._mounts:
                if mount.kind == "secret":
                    value = self._secret(mount)
                    if value is None:
                        continue
                    if mount.env:
                        environment.append(f"{mount.env}={_variable(mount, value)}")
                    if mount.target:
                        mounts.append(_bind(self._secret_file(mount, value, until_done), mount, read_only=True))
                elif (files := self._joined(mount)) is not None:
                    points.append(self._of_layers(mount, files))
                else:
                    mounts.append(self._mounted(mount, until_done))
            if self._script is not None:
                mounts.append(self._executable(self._script, until_done))
            yield Prepared(tuple(mounts), tuple(points), tuple(environment))

    def _executable(self, script: Heredoc, until_done: ExitStack) -> dict[str, Any]:
        name = os.path.basename(script.name)
        place = until_done.enter_context(self._workplaces.files()).path
        with open(f"{place}/script", "wb") as file:
            file.write(script.content.encode("utf-8", "surrogateescape"))
            os.fchmod(file.fileno(), 0o755)
        return {"Type": "bind", "Source": f"{place}/script", "Target": f"{SCRIPTS}/{name}", "ReadOnly": True}

    def _mounted(self, mount: RunMount, until_done: ExitStack) -> dict[str, Any]:
        if mount.kind == "tmpfs":
            # Programs may be executed on it: a compiler's TMPDIR is one.
            options = {"SizeBytes": mount.size, "Options": [["exec"]]}
            return {"Type": "tmpfs", "Target": mount.target, "TmpfsOptions": options}
        if mount.kind == "cache":
            return _bind(
                self._caches[_cache_name(mount, self._content(mount))], mount, read_only=mount.read_only is True
            )
        place = until_done.enter_context(self._workplaces.files()).path
        os.chmod(place, 0o755)
        copied = self._copied(mount, self._origin(mount.from_), f"{place}/")
        return _bind(copied, mount, read_only=mount.read_only is not False)

    def _joined(self, mount: RunMount) -> FileSystem | None:
        """The files that a mount is joined of by the kernel: read-only ones of a stage or an image."""
        if mount.kind != "bind" or mount.read_only is False:
            return None
        origin = self._origin(mount.from_)
        return None if isinstance(origin, FileTree) or not origin.diff_ids else origin

    def _of_layers(self, mount: RunMount, files: FileSystem) -> MountPoint:
        with self._opened(files) as tree:
            (found,) = tree.find(_plain(mount.source))
        layers = tuple(documents.chain_ids(files.diff_ids))
        return MountPoint(IMAGE, mount.target, source="build", rw=False, subpath=os.fsdecode(found.path), layers=layers)

    # Copies

    def _copied(self, mount: RunMount, origin: FileSystem | FileTree, place: str) -> str:
        """Copy a source into a directory; the path of the copy."""
        if isinstance(origin, FileTree):
            return _copy(origin, mount.source, place, _OF_CONTEXT)
        with self._opened(origin) as tree:
            return _copy(tree, mount.source, place, Manner(None))

    def _take_caches(self, until_done: ExitStack) -> None:
        """Each cache once, with the strictest of what is said of it, and all in the order of their names.

        So nobody waits for himself, nor two for each other, whatever order their mounts are in.
        """
        wanted: dict[str, list[RunMount]] = {}
        for mount in self._mounts:
            if mount.kind == "cache":
                wanted.setdefault(_cache_name(mount, self._content(mount)), []).append(mount)
        for name, mounts in sorted(wanted.items()):
            sharing = max((mount.sharing for mount in mounts), key=_STRICTNESS.index)
            self._caches[name] = until_done.enter_context(self._opened_cache(name, mounts[0], sharing)).path

    def _opened_cache(self, name: str, mount: RunMount, sharing: str) -> CacheMount:
        def fill(path: str) -> None:
            if mount.from_:
                copied = self._copied(mount, self._origin(mount.from_), f"{path}/")
                if not os.path.isdir(copied):
                    raise InvalidParameter(f"cache mount: {mount.source} of {mount.from_} is no directory")
            if mount.uid >= 0 or mount.gid >= 0:
                os.chown(path, max(mount.uid, 0), max(mount.gid, 0))
            if mount.mode >= 0 or not mount.from_:
                os.chmod(path, mount.mode if mount.mode >= 0 else 0o755)

        about = {**_about(mount), "target": mount.target}
        return self._workplaces.caches.open(name, sharing, about, fill)

    # Secrets

    def _secret(self, mount: RunMount) -> bytes | None:
        secret = self._secrets.get(mount.id)
        value = secret.read() if secret is not None else None
        if value is None and mount.required:
            raise NotFound(f"secret {mount.id}: not found: give it with --secret id={mount.id},src=FILE")
        return value

    def _secret_file(self, mount: RunMount, value: bytes, until_done: ExitStack) -> str:
        path = f"{until_done.enter_context(self._workplaces.secrets()).path}/secret"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(value)
            os.fchown(fd, max(mount.uid, 0), max(mount.gid, 0))
            os.fchmod(fd, mount.mode if mount.mode >= 0 else _READ_ONLY_MODE)
        return path


def _about(mount: RunMount) -> dict[str, Any]:
    return {"id": mount.id or mount.target, "mode": mount.mode, "uid": mount.uid, "gid": mount.gid}


def _cache_name(mount: RunMount, base: object) -> str:
    """64 hex digits: caches are the same if their id, owner and permissions are, and what they began with."""
    parts = [sorted(_about(mount).items()), base, mount.source if mount.from_ else ""]
    return digests.sha256_hex(digests.of_bytes(repr(parts).encode("utf-8", "surrogateescape")))


def _settled(mount: RunMount, directory: str) -> RunMount:
    """With what was not said as the reference has it."""
    if mount.kind == "ssh":
        raise InvalidParameter(
            "RUN --mount=type=ssh is not supported: there is no agent here; give a key with --mount=type=secret"
        )
    target = mount.target
    if mount.kind == "secret":
        name = mount.id or mount.source or os.path.basename(target) or mount.env
        if not target and not mount.env:
            target = f"{_SECRETS}/{os.path.basename(name)}"
        mount = mount.replace(id=name)
    if target:
        if not paths.clean(os.path.join(directory, target)):
            raise InvalidParameter(f'invalid mount target "{target}"')
        target = "/" + paths.clean(os.path.join(directory, target)).decode("utf-8", "surrogateescape")
    return mount.replace(target=target)


def _plain(source: str) -> str:
    """A source as a path below its root, whatever it begins with: ".." leads nowhere."""
    return os.fsdecode(paths.clean("/" + source))


def _bind(path: str, mount: RunMount, read_only: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": path, "Target": mount.target, "ReadOnly": read_only}


def _variable(mount: RunMount, value: bytes) -> str:
    if b"\0" in value:
        raise InvalidParameter(f"secret {mount.id}: it holds a zero byte, and cannot be a variable")
    return os.fsdecode(value)


def _copy(tree: FileTree, source: str, place: str, manner: Manner) -> str:
    """A directory's content, or a file below its own name, into `place`, which ends in a slash."""
    from sampan.store.copyin import CopyIn
    from sampan.store.copyin import Manner as PutManner

    (found,) = tree.find(_plain(source))
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if found.is_directory:
            _take_status(tree, found.path, fd, manner)
        shown = b"" if found.is_directory else found.name
        CopyIn(fd, b"", PutManner()).run(Source(tree.archive(found, shown, manner)))
    finally:
        os.close(fd)
    return place.rstrip("/") if found.is_directory else place + os.fsdecode(found.name)


def _take_status(tree: FileTree, path: bytes, fd: int, manner: Manner) -> None:
    """The owner and the permissions of the directory itself, which its archive does not have."""
    source = paths.open_in_root(tree.fd, path, os.O_PATH | os.O_DIRECTORY)
    try:
        status = os.fstat(source)
    finally:
        os.close(source)
    os.fchown(fd, *(manner.owner or (status.st_uid, status.st_gid)))
    os.fchmod(fd, stat.S_IMODE(status.st_mode))


class _Before(Struct):
    """A directory as it was before the command. times: nanoseconds, of the last access and the last change."""

    owner: tuple[int, int, int]
    times: tuple[int, int]
    attributes: dict[str, bytes]


class Stubs:
    """The places that are made in a container's files because something is mounted there, and were not there before."""

    def __init__(self, root_fd: int, targets: Sequence[str]) -> None:
        """Look at the files as they are before the command, below the descriptor of their root."""
        self._missing: list[tuple[list[bytes], list[_Before]]] = []
        for target in targets:
            parts = paths.split(paths.resolve_in_root(root_fd, target))
            above = list(_directories(root_fd, parts))
            if len(above) <= len(parts):
                self._missing.append((parts, above))

    def remove(self, changed_fd: int, joined: bool) -> None:
        """Take them out of what the container changed if nothing was put there. Raises OSError.

        joined: it is the upper directory of an overlay, else the whole of its files. Nothing is followed: who has put a link in
        the way keeps what is there (class CVE-2024-23652).
        """
        # A place below another one goes first.
        for parts, above in sorted(self._missing, key=lambda one: -len(one[0])):
            for length in range(len(parts), len(above) - 1, -1):
                if not _remove_empty(changed_fd, parts[:length]):
                    break
            else:
                self._restore(changed_fd, parts, above, joined)

    def _restore(self, top: int, parts: list[bytes], above: list[_Before], joined: bool) -> None:
        """The directories in which nothing but a stub was made are as they were, and shall not be in the layer."""
        for length in range(len(above) - 1, 0, -1):
            if not _is_as_before(top, parts[:length], above[length], joined):
                return
            if joined:
                _remove_empty(top, parts[:length])
        _is_as_before(top, [], above[0], joined)


def _directories(root_fd: int, parts: Sequence[bytes]) -> Iterator[_Before]:
    """The root and the directories below it on the way to a path, as far as they are there; one more if all of it is."""
    for length in range(len(parts) + 1):
        flags = os.O_RDONLY | os.O_DIRECTORY if length < len(parts) else os.O_PATH
        try:
            fd = paths.open_in_root(root_fd, b"/".join(parts[:length]), flags)
        except KernelError as e:
            if e.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise System(f"mount target /{os.fsdecode(b'/'.join(parts))}: {os.strerror(e.errno or 0)}") from e
            return
        try:
            yield _described(fd, length < len(parts))
        finally:
            os.close(fd)


def _described(fd: int, with_attributes: bool) -> _Before:
    status = os.fstat(fd)
    attributes = get_xattrs(fd) if with_attributes else {}
    own = {name: value for name, value in attributes.items() if not name.startswith("trusted.overlay.")}
    return _Before((status.st_mode, status.st_uid, status.st_gid), (status.st_atime_ns, status.st_mtime_ns), own)


def _is_as_before(top: int, parts: Sequence[bytes], before: _Before, joined: bool) -> bool:
    """Whether a directory was not changed but for stubs in it; then it has its times again."""
    fd = _open_inside(top, parts)
    if fd < 0:
        return False
    try:
        now = _described(fd, True)
        if (now.owner, now.attributes) != (before.owner, before.attributes):
            return False
        if joined and (os.listdir(fd) or is_opaque(fd)):
            return False
        os.utime(fd, ns=before.times)
        return True
    finally:
        os.close(fd)


def _open_inside(top: int, parts: Sequence[bytes]) -> int:
    """A directory without a link on the way, -1 if it is not there."""
    try:
        return paths.open_in_root(top, b"/".join(parts), os.O_RDONLY | os.O_DIRECTORY, no_symlinks=True)
    except KernelError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return -1
        raise


def _remove_empty(top: int, parts: Sequence[bytes]) -> bool:
    """Remove an empty directory or an empty file; whether it was one and is gone."""
    parent = _open_inside(top, parts[:-1])
    if parent < 0:
        return False
    try:
        status = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.rmdir(parts[-1], dir_fd=parent)
        elif stat.S_ISREG(status.st_mode) and not status.st_size:
            os.unlink(parts[-1], dir_fd=parent)
        else:
            return False
        return True
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    finally:
        os.close(parent)
