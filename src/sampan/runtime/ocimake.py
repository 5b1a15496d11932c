"""Making and unmaking an OCI container: what `create`, `run` and `delete` have in common."""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import InvalidParameter, StartFailed, System
from sampan.kernel import cgroup, clock, files, namespaces, process
from sampan.kernel.libc import KernelError
from sampan.oci import runtime as oci
from sampan.runtime import ocilaunch, ocispec, ocistate, plan
from sampan.runtime.ocistate import Container
from sampan.runtime.resources import make_limits
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.runtime.ocilog import Log
    from sampan.runtime.ocispawn import Stage


class Wish(Struct):
    """What the command line says of a container to be made. console: a descriptor of a connected socket for the terminal's master, -1 for none."""

    root: str
    identifier: str
    bundle: str
    pid_file: str = ""
    preserved: int = 0
    no_pivot: bool = False
    keyring: bool = True
    hold: bool = True


def listen_environment() -> list[str]:
    """What tells a program of the sockets that it was given (sd_listen_fds(3))."""
    count = os.environ.get("LISTEN_FDS", "")
    return [f"LISTEN_FDS={count}", "LISTEN_PID=1"] if count.isdigit() and int(count) else []


def connect(path: str, what: str) -> Any:
    """A connection to a socket that the caller named (`what` is how). Raises `InvalidParameter`."""
    import _socket

    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            socket.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        finally:
            os.close(directory)
    except OSError as e:
        socket.close()
        raise InvalidParameter(f"{what} {path}: {os.strerror(e.errno or 0).lower()}") from None
    return socket


class Maker:
    """One container on its way. The interpreter of `stage` comes up while the configuration is read."""

    def __init__(self, wish: Wish, stage: Stage, log: Log) -> None:
        self.wish, self.log = wish, log
        self.launch = ocilaunch.Launch(stage, log.steps)
        self._clones = stage.clones
        self.container: Container
        self.spec: dict[str, Any]
        self._driver: CgroupDriver
        self._opened: list[int] = []
        self._known: dict[str, Any] = {}
        """What the record says of the process."""
        self._ready: dict[str, Any] = {}
        """The record of when it is ready, written while it gets ready."""

    def read(self) -> dict[str, Any]:
        """Read and check the bundle. Raises `InvalidParameter`, `NotFound`; nothing is left then."""
        config = ocispec.read(self.wish.bundle)
        ocispec.grant(config["process"], self.log)
        self._driver = cgroup.detect()
        self.spec = ocispec.complete(config, self.wish.bundle, self._driver)
        return config

    def make(self, config: dict[str, Any], console: Any = None) -> Container:
        """Make it. Whatever goes wrong: nothing is left, and the error says what it was. Raises `SampanError`."""
        group = ocispec.group_of(config, self.wish.identifier)
        self._check_group(group)
        record = {
            "bundle": self.wish.bundle,
            "rootfs": self.spec["root"]["path"],
            "oci_version": config["ociVersion"],
            "group": group,
            "owner": os.geteuid(),
            "config": config,
        }
        self.container, lock = ocistate.new(self.wish.root, self.wish.identifier, record, self._driver)
        try:
            self._make(console)
        except BaseException as e:
            self.launch.kill()
            undo(self.container, self.log)
            if isinstance(e, KernelError):
                raise System(f"unable to start container process: {e}") from None
            raise
        finally:
            lock.release()
            while self._opened:
                os.close(self._opened.pop())
        return self.container

    def _make(self, console: Any) -> None:
        own = self.spec["process"]
        self.spec = {**self.spec, "process": {**own, "env": [*(own.get("env") or ()), *listen_environment()]}}
        self._check_limits()
        descriptors = self._descriptors(console)
        state = self.container.state(ocistate.CREATING)
        facts = plan.Launching(
            container=self.wish.identifier,
            directory=self.container.directory,
            start="",
            run_directory="",
            root=plan.RootFilesystem(
                kind="bind",
                lower=(),
                upper="",
                work="",
                source=self.spec["root"]["path"],
                place=self.spec["root"]["path"],
                recursive=True,
                propagation=_from_host(self.spec["linux"]),
            ),
            group=self.container.group,
            joined=tuple(e["type"] for e in self.spec["linux"]["namespaces"] if "path" in e),
            no_pivot=self.wish.no_pivot,
            filter=ocispec.filter_of(self.container.config),
            mode=plan.Mode(
                monitored=False,
                strict=True,
                preserved=self.wish.preserved,
                console=bool(self.spec["process"].get("terminal")),
                hold=self.wish.hold,
                keyring=self.wish.keyring,
                state=jsontext.dumps(state).decode("ascii"),
                listener=ocispec.process_state(self.spec, state) if "listener.socket" in descriptors else "",
            ),
            alone=self._clones,
        )
        for warning in plan.planmore().ignored_limits(self.spec["linux"]["resources"]):
            self.log.warning(warning)
        stages, birth = plan.make_stages(self.spec, facts, self._driver)
        self.launch.start(stages, birth, descriptors, self._met, self._note)

    def _check_group(self, group: str) -> None:
        found = self._driver.processes(group)
        if found:
            raise System(
                f"container's cgroup is not empty: {len(found)} process(es) found in {group}: choose another linux.cgroupsPath"
            )

        parts = group.split("/")
        for above in ("/".join(parts[:count]) for count in range(1, len(parts) + 1)):
            if self._driver.frozen(above):
                # Its processes would wait for whoever thaws it, and so would this command.
                raise System(
                    f"container's cgroup unexpectedly frozen: thaw {above}, or choose another linux.cgroupsPath"
                )

    def _check_limits(self) -> None:
        limits = make_limits(self.spec["linux"]["resources"])
        refused = cgroup.check(limits, self._driver)
        if refused:
            raise System(f"linux.resources: {refused[0]}")

    def _descriptors(self, console: Any) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in self.spec["linux"]["namespaces"]:
            if "path" in entry:
                found[f"ns.{entry['type']}"] = self._open(_open_namespace(entry))
        hold = files.FileLock.acquire(f"{self.container.directory}/hold", 0)
        found["hold"] = self._open(hold.fd)
        if self.wish.hold:
            directory = self.container.open_directory()
            try:
                found["start.socket"] = self._open(ocilaunch.listen(directory, ocistate.START_SOCKET).detach())
            finally:
                os.close(directory)
        if console is not None:
            found["console.socket"] = console.fileno()
        if path := ocispec.listener_of(self.spec):
            found["listener.socket"] = self._open(connect(path, "linux.seccomp.listenerPath").detach())
        return found

    def _open(self, fd: int) -> int:
        self._opened.append(fd)
        return fd

    def _note(self, pid: int) -> None:
        self._known = {"pid": pid, "pid_start": process.start_time(pid), "boot": clock.boot_id()}
        self._ready = self.container.prepare(**self._known, creating=False)

    def _met(self, word: str) -> None:
        pid = self.launch.pid
        if not self._known:
            self._note(pid)
        if word == "environment":
            self.container.write(**self._known)
            for kind in ("prestart", "createRuntime"):
                run_hooks(self.container, kind, ocistate.CREATING)
        else:
            self.container.settle(self._ready)
            if self.wish.pid_file:
                write_pid(self.wish.pid_file, pid)


def _from_host(linux: dict[str, Any]) -> str:
    """The root's propagation as a copy. Nobody's slave can be made one later; shared is what it becomes when it is the root."""
    word = str(linux.get("rootfsPropagation") or "")
    return word if word in ("slave", "rslave") else "rprivate"


def _open_namespace(entry: dict[str, Any]) -> int:
    """A namespace by its path: of that kind, or an error."""
    try:
        fd = os.open(entry["path"], os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise InvalidParameter(
            f"linux.namespaces: {entry['type']} namespace {entry['path']}: {os.strerror(e.errno or 0).lower()}"
        ) from None
    if namespaces.kind_of(fd) != namespaces.FLAGS[entry["type"]]:
        os.close(fd)
        raise InvalidParameter(f"linux.namespaces: {entry['path']} is no {entry['type']} namespace")
    return fd


def write_pid(path: str, pid: int) -> None:
    """--pid-file, written whole. Raises `System`."""
    try:
        files.write_atomic(path, str(pid).encode(), mode=0o644, sync=False)
    except OSError as e:
        raise System(f"--pid-file {path}: {os.strerror(e.errno or 0).lower()}") from None


def run_hooks(container: Container, kind: str, status: str) -> None:
    """Run the hooks of the runtime's own namespaces. Raises `StartFailed` for the first that fails."""
    entries = (container.config.get("hooks") or {}).get(kind) or ()
    if not entries:
        return
    from sampan.runtime import planmore
    from sampan.steps import hooks

    state = jsontext.dumps(container.state(status))
    for index, entry in enumerate(entries):
        try:
            hooks.run_hook(*planmore.hook(entry), state)
        except hooks.HookFailed as e:
            raise StartFailed(f"error running {kind} hook #{index}: {e}") from None


def undo(container: Container, log: Log) -> None:
    """Take away all that making it has made: processes, cgroups, the directory; then its poststop hooks run.

    What cannot be taken away is told, and the rest goes on.
    """
    try:
        if not _removed_at_once(container):
            container.driver.kill(container.group)
            container.driver.remove(container.group)
    except OSError as e:
        log.warning(f"container {container.id}: {e}")
    hooks = (container.config.get("hooks") or {}).get("poststop") or ()
    state = jsontext.dumps(container.state(ocistate.STOPPED)) if hooks else b""
    container.remove()
    try_hooks("poststop", hooks, state, log)


def _removed_at_once(container: Container) -> bool:
    """Whether its cgroups could be removed as they are, because there is nobody in them (any more): who is there need not be asked."""
    live = container.driver.live(container.group)
    # What kills those who are there is the first: where these two can be removed, they would have reached nobody.
    for directory in (live.freezer, live.unified, *live.version1):
        try:
            if directory:
                os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError:
            return False  # somebody is there, or a group of the container's own: EBUSY
    return True


def try_hooks(kind: str, entries: Sequence[dict[str, Any]], state: bytes, log: Log) -> None:
    """Run hooks whose failure is a warning, after which the remaining ones run (runtime.md, "Lifecycle", steps 9 and 13)."""
    if not entries:
        return
    from sampan.runtime import planmore
    from sampan.steps import hooks

    for index, entry in enumerate(entries):
        try:
            hooks.run_hook(*planmore.hook(entry), state)
        except hooks.HookFailed as e:
            log.warning(f"error running {kind} hook #{index}: {e}")


def own_pid_namespace(container: Container) -> bool:
    """Whether the end of its first process ends all others."""
    found = oci.namespace(container.config, "pid")
    return found is not None and not found.get("path")
