"""Where everything is on disk: the only module that joins the names of sampan's own directories.

Below the root (default /var/lib/sampan), which outlives a reboot:

    content/sha256/HEX, content/ingest/      blobs, and blobs on their way in
    images/HEX                               references: the name is the sha256 of the reference
    layers/HEX/, layers/.tmp-*               unpacked layers by chain id
    snapshots/ID/                            the writable layer of a container
    containers/ID/                           see `ContainerPaths`
    containers/.creating-ID, .removing-ID    a create or a remove that is not finished: both are one rename
    names/NAME                               the id of the container that claims the name
    volumes/NAME/{_data/, volume.json}       what containers keep beyond their own life, see `store.volumes`
    networks/ID/                             see `NetworkPaths` and `store.networks`
    build/cache/HEX                          what steps of builds came to, see `store.buildcache`
    build/mounts/HEX/                        what RUN --mount=type=cache keeps, see `store.cachemounts`
    build/work/.tmp-*                        what one build needs while it runs: contexts, copies that are mounted
    events/journal, journal.1                what happened, see `store.journal`
    locks/                                   names.lock and its kind; never held while a container's lock is waited for

Below the run root (default /run/sampan), gone after a reboot:

    .build/.tmp-*                            the secrets of a step of a build, while it runs
    .filters/                                compiled seccomp filters, see `runtime.filters`
    .networks/ID/                            the lock and the socket of a network's keeper
    ID/attach.sock                           the shim's socket
    ID/health.json                           what its health check found, if it has one: Docker's State.Health
    ID/exec-EXECID                           there while that exec runs, then ID/ended-EXECID.CODE (`shim.protocol.EXEC_FILE`)
    ID/log-lost                              what could not be written to its log, if something could not
    ID/pid-shared                            another container was put into its pid namespace (docs/adr/0018)

The root, the run root and everything in them are 0700: set-uid files of an image must not be reachable by the host's users
(class CVE-2021-41091). The users of a user namespace pass nowhere here either: what is mounted for them is opened before it is joined.
"""

from __future__ import annotations

import os

from sampan.errors import System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.steps.trace import Trace

DEFAULT_ROOT = "/var/lib/sampan"
DEFAULT_RUN_ROOT = "/run/sampan"

CREATING = ".creating-"
REMOVING = ".removing-"
_ASKED_FOR = 64
EMPTY = "scratch"
"""Stands for the top layer of an image without layers, in names of directories: all such images share its init layer."""


class StartPaths:
    """The files of one start of a container: starts/N/."""

    __slots__ = (
        "directory",
        "events",
        "exit",
        "health",
        "number",
        "reserved_exit",
        "reserved_stopping",
        "restarted",
        "started",
        "stopping",
    )

    def __init__(self, starts: str, number: int, name: str = "") -> None:
        self.number = number
        self.directory = f"{starts}/{name or number}"
        self.started = f"{self.directory}/started"
        self.exit = f"{self.directory}/exit.json"
        # Its blocks are reserved before the launch, and it is renamed to exit.json when it is written.
        self.reserved_exit = f"{self.directory}/exit.json.tmp"
        self.stopping = f"{self.directory}/stopping"
        # The same for what is written by who wants it to end: a full disk is what many a container is removed for.
        self.reserved_stopping = f"{self.directory}/stopping.tmp"
        self.restarted = f"{self.directory}/restarted"
        # There if networks were connected or left since: what the end tells instead of the plan's `events`.
        self.events = f"{self.directory}/events"
        # Of a run that has ended; while it runs it is in the run directory (`ContainerPaths.health`).
        self.health = f"{self.directory}/health.json"


class FoundExec:
    """The file of an exec, and its exit code if it has ended."""

    __slots__ = ("exit_code", "path")

    def __init__(self, path: str, exit_code: int | None) -> None:
        self.path = path
        self.exit_code = exit_code


class ContainerPaths:
    """All paths of one container. `directory` differs from containers/ID only while it is made or removed."""

    __slots__ = (
        "attach_socket",
        "directory",
        "files_lock",
        "health",
        "hostname",
        "hosts",
        "id",
        "local_log",
        "log",
        "log_loss",
        "monitor_lock",
        "record",
        "record_lock",
        "resolv_conf",
        "run_directory",
        "starts",
        "waiting",
        "with_volumes",
    )

    def __init__(self, container_id: str, directory: str, run_directory: str) -> None:
        self.id = container_id
        self.directory = directory
        self.record = f"{directory}/record.json"
        self.record_lock = f"{directory}/record.lock"
        self.monitor_lock = f"{directory}/monitor.lock"
        # Held by who copies files into or out of it: see `engine.containerroots`.
        self.files_lock = f"{directory}/files.lock"
        self.starts = f"{directory}/starts"
        # Of the log drivers json-file and local; older files have a number behind the name (`shim.logs`).
        self.log = f"{directory}/{container_id}-json.log"
        self.local_log = f"{directory}/local-logs/container.log"
        self.hosts = f"{directory}/hosts"
        self.hostname = f"{directory}/hostname"
        self.resolv_conf = f"{directory}/resolv.conf"
        # Its removal takes the anonymous volumes along: written before the rename that is the removal.
        self.with_volumes = f"{directory}/remove-volumes"
        self.run_directory = run_directory
        # May be longer than the 107 bytes of a sun_path: bind and connect through a descriptor of the directory.
        self.attach_socket = f"{run_directory}/attach.sock"
        self.health = f"{run_directory}/health.json"
        self.log_loss = f"{run_directory}/log-lost"
        # Who is attached to its next start: see `runtime.waiting`. Not in the run directory, which is one start's.
        self.waiting = f"{os.path.dirname(run_directory)}/.waiting/{container_id}"

    def start(self, number: int) -> StartPaths:
        return StartPaths(self.starts, number)

    def draft(self) -> StartPaths:
        """Where a start is made ready, under the record lock; the rename to its number makes it one."""
        return StartPaths(self.starts, 0, ".new")

    def execs(self) -> list[str]:
        """The ids of the execs that run."""
        try:
            names = os.listdir(self.run_directory)
        except FileNotFoundError:
            return []
        # One with a dot is about to be written.
        return sorted(name.removeprefix("exec-") for name in names if name.startswith("exec-") and "." not in name)

    def find_exec(self, exec_id: str) -> FoundExec | None:
        """The file of an exec of the present run; None if there is none, or it was long ago."""
        try:
            names = os.listdir(self.run_directory)
        except FileNotFoundError:
            return None
        for name in names:
            if exec_id not in name:
                continue  # as nearly all of what may be a thousand
            kind, _, rest = name.partition("-")
            found, _, code = rest.partition(".")
            if found == exec_id and ((kind == "exec" and not code) or (kind == "ended" and code)):
                return FoundExec(f"{self.run_directory}/{name}", int(code) if code else None)
        return None

    def newest_start(self) -> int:
        """The number of the newest start, 0 if the container was never started.

        Raises FileNotFoundError if the container is not there (any more).
        """
        return max((int(name) for name in os.listdir(self.starts) if name.isdigit()), default=0)


class NetworkPaths:
    """All paths of one network: networks/ID/, and .networks/ID/ below the run root, which whoever needs it makes."""

    __slots__ = ("directory", "endpoints", "id", "keeper_lock", "keeper_socket", "lock", "record", "run_directory")

    def __init__(self, network_id: str, directory: str, run_directory: str) -> None:
        self.id = network_id
        self.directory = directory
        self.record = f"{directory}/network.json"
        # One file for each container that is in it, see `Endpoint.file_name`.
        self.endpoints = f"{directory}/endpoints"
        self.lock = f"{directory}/lock"
        self.run_directory = run_directory
        # An flock(2) that the keeper inherits: held as long as there is one.
        self.keeper_lock = f"{run_directory}/keeper.lock"
        # May be longer than a sun_path, as a container's.
        self.keeper_socket = f"{run_directory}/keeper.socket"


class Layout:
    """Every directory of one pair of roots. Computing it touches no disk; `make()` does."""

    def __init__(self, root: str = DEFAULT_ROOT, run_root: str = DEFAULT_RUN_ROOT) -> None:
        self.root = os.path.abspath(root)
        self.run_root = os.path.abspath(run_root)
        self._asked_for: dict[str, ContainerPaths] = {}
        """The paths of containers that somebody is at work on: a start asks a dozen times, and each has twenty names."""
        self.content = f"{self.root}/content"
        self.blobs = f"{self.content}/sha256"
        self.ingest = f"{self.content}/ingest"
        self.images = f"{self.root}/images"
        self.layers = f"{self.root}/layers"
        self.snapshots = f"{self.root}/snapshots"
        self.containers = f"{self.root}/containers"
        self.names = f"{self.root}/names"
        self.locks = f"{self.root}/locks"
        self.volumes = f"{self.root}/volumes"
        self.networks = f"{self.root}/networks"
        self.build_cache = f"{self.root}/build/cache"  # made when the first entry is written
        self.build_mounts = f"{self.root}/build/mounts"  # these three are made when a build needs them
        self.build_work = f"{self.root}/build/work"
        self.build_secrets = f"{self.run_root}/.build"
        self.events = f"{self.root}/events"
        self.journal = f"{self.events}/journal"
        self.mounted_volumes = f"{self.volumes}/.mounted"
        self.filters = f"{self.run_root}/.filters"
        self.running_networks = f"{self.run_root}/.networks"
        self.zygote = f"{self.run_root}/.zygote"  # made by who starts one
        self.whole_names = f"{self.run_root}/.names"  # in which boot none was missing
        self.names_lock = f"{self.locks}/names.lock"
        self.images_lock = f"{self.locks}/images.lock"
        self.volumes_lock = f"{self.locks}/volumes.lock"
        self.networks_lock = f"{self.locks}/networks.lock"

    def container(self, container_id: str) -> ContainerPaths:
        found = self._asked_for.get(container_id)
        if found is None:
            directory = f"{self.containers}/{container_id}"
            found = ContainerPaths(container_id, directory, self.run_directory(container_id))
            if len(self._asked_for) >= _ASKED_FOR:
                self._asked_for.clear()
            self._asked_for[container_id] = found
        return found

    def creating(self, container_id: str) -> ContainerPaths:
        """The paths of a container that is being made: complete after a rename to `container()`'s."""
        directory = f"{self.containers}/{CREATING}{container_id}"
        return ContainerPaths(container_id, directory, self.run_directory(container_id))

    def removing(self, container_id: str) -> ContainerPaths:
        """The paths of a container that is gone for everybody and whose parts are being taken away."""
        directory = f"{self.containers}/{REMOVING}{container_id}"
        return ContainerPaths(container_id, directory, self.run_directory(container_id))

    def run_directory(self, container_id: str) -> str:
        return f"{self.run_root}/{container_id}"

    def network(self, network_id: str) -> NetworkPaths:
        return NetworkPaths(network_id, f"{self.networks}/{network_id}", f"{self.running_networks}/{network_id}")

    def name(self, name: str) -> str:
        return f"{self.names}/{name}"

    def directories(self) -> list[tuple[str, int]]:
        """What `make()` makes: (path, mode), parents first."""
        private = (
            self.content,
            self.blobs,
            self.ingest,
            self.images,
            self.layers,
            self.snapshots,
            self.containers,
            self.names,
            self.locks,
            self.volumes,
            self.events,
            self.networks,
        )
        return [(path, 0o700) for path in (self.root, self.run_root, *private)]

    def make(self, trace: Trace) -> None:
        """Make the directories that are missing. One stat when all is there: `networks` is made last."""
        if os.path.isdir(self.networks) and os.path.isdir(self.run_root):
            return
        for path, mode in self.directories():
            if os.path.isdir(path):
                continue
            with trace.step("make directory", path):
                _make_directory(path, mode)


def drop_run_directory(path: str, trace: Trace) -> None:
    """Remove what a killed process left in its run directory, sockets and files, and the directory, if it is there."""
    try:
        entries = os.listdir(path)
    except FileNotFoundError:
        return
    with trace.step("remove directory", path):
        for entry in entries:
            os.unlink(f"{path}/{entry}")
        os.rmdir(path)


def _make_directory(path: str, mode: int) -> None:
    try:
        # Parents of the root (/var/lib) get the usual mode; only the last component is ours.
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path, mode)
        os.chmod(path, mode)
    except OSError as e:
        if isinstance(e, FileExistsError) and os.path.isdir(path):
            return  # another process was quicker
        reason = (e.strerror or str(e)).lower()
        raise System(f"mkdir {path}: {reason}: choose another place with --root and --run-root") from None
