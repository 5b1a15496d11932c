"""Containers as the Engine API shows them: `GET /containers/{id}/json` and the items of `GET /containers/json` (1.51)."""

from __future__ import annotations

import os

from sampan.engine import networkviews, times
from sampan.oci import lifecycle
from sampan.store import states
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from sampan.engine.networkviews import Connections, Networks
    from sampan.store.layout import ContainerPaths
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def paths(self, container_id: str) -> ContainerPaths: ...

    class RootMount(Protocol):
        @property
        def kind(self) -> str: ...
        @property
        def lower(self) -> tuple[str, ...]: ...
        @property
        def upper(self) -> str: ...
        @property
        def work(self) -> str: ...

    class Snapshots(Protocol):
        def root(self, record: Record) -> RootMount: ...
        def usage(self, record: Record) -> int: ...
        def image_size(self, record: Record) -> int: ...


# Docker's words for our states.
_STATUS = {
    lifecycle.CREATED: "created",
    lifecycle.STARTING: "created",
    lifecycle.RUNNING: "running",
    lifecycle.PAUSED: "paused",
    lifecycle.RESTARTING: "restarting",
    lifecycle.EXITED: "exited",
    lifecycle.LOST: "exited",
    lifecycle.DEAD: "dead",
}


class Life(Struct):
    """A container's life as Docker tells it: one run, the newest that came as far as its own program.

    A start that failed changes the exit code and the error only, and a container that never ran is "created".
    """

    status: str
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started: str = times.ZERO
    finished: str = times.ZERO


class Inspector:
    """Shapes records and observations; changes nothing."""

    def __init__(self, records: Records, snapshots: Snapshots, networks: Callable[[], Networks], root: str) -> None:
        """`networks` gives the networks' records, for containers that are in some; root: the engine's."""
        self._root = root
        self._records = records
        self._networks = networks
        self._snapshots = snapshots

    def connections(self) -> Connections:
        """What a listing, which asks for many containers, gives to `inspect` and `summary`."""
        return networkviews.Connections(self._networks)

    def inspect(
        self, record: Record, seen: Observation, size: bool = False, connections: Connections | None = None
    ) -> dict[str, Any]:
        """`GET /containers/{id}/json`; with `size`, the bytes of its writable layer (SizeRw) too."""
        from sampan.engine import fields  # in here: listings need none of the tables

        found, ids = (connections or self.connections()).of(record, seen.running)
        mode = record.host_config.get("NetworkMode", "")
        if mode in ("none", "host"):
            from sampan.oci.network import predefined_id

            ids = {mode: predefined_id(self._root, mode)}
        paths = self._records.paths(record.id)
        life = self._life(record, seen)
        return {
            "Id": record.id,
            "Created": record.created,
            "Path": record.path,
            "Args": list(record.args),
            "State": _state(life, self._health(record, seen, life)),
            "Image": record.image,
            **self._files(record, paths),
            "LogPath": paths.log if _log_driver(record) == "json-file" else "",
            **self._log_loss(record, paths, seen),
            "Name": f"/{record.name}",
            "RestartCount": self._restarts(record, seen),
            "Driver": record.snapshotter,
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "ExecIDs": (paths.execs() or None) if seen.running else None,
            "HostConfig": _host_config(record),
            "GraphDriver": self._graph_driver(record),
            **(self._sizes(record) if size else {}),
            "Mounts": [point.shown() for point in record.mounts],
            "Config": fields.shown_config(record.config),
            "NetworkSettings": networkviews.settings(record, found, ids, life.pid),
        }

    def summary(
        self, record: Record, seen: Observation, size: bool = False, connections: Connections | None = None
    ) -> dict[str, Any]:
        """An item of `GET /containers/json`."""
        life = self._life(record, seen)
        found, ids = (connections or self.connections()).of(record, seen.running)
        return {
            "Id": record.id,
            "Names": [f"/{record.name}"],
            "Image": record.image_ref,
            "ImageID": record.image,
            "Command": command_line(record),
            "Created": times.parse(record.created) // 1_000_000_000,
            "Ports": networkviews.port_list(record, found) if found else [],
            **(self._sizes(record) if size else {}),
            "Labels": record.config.get("Labels") or {},
            "State": life.status,
            "Status": status_text(life, self._health(record, seen, life)),
            "HostConfig": _summary_of(record.host_config),
            "NetworkSettings": {"Networks": networkviews.networks(record, found, ids)},
            "Mounts": [point.shown() for point in record.mounts],
        }

    def state(self, record: Record, seen: Observation) -> tuple[str, int]:
        """ "Status" and "ExitCode" of the State in `inspect`, without the rest, for who waits for one of them."""
        life = self._life(record, seen)
        return life.status, life.exit_code

    def _life(self, record: Record, seen: Observation) -> Life:
        if seen.status == lifecycle.DEAD:
            return Life(_STATUS[lifecycle.DEAD], error=record.broken)
        if seen.number == 0:
            return Life(_STATUS[seen.status])
        if seen.status in lifecycle.ALIVE:
            running = seen.started or {}
            return Life(_STATUS[seen.status], pid=running["pid"], started=running["started"])
        ended = seen.exit or {}
        error, code = str(ended.get("error", "")), seen.exit_code if seen.exit else _unsettled_code(seen)
        begun, finished = seen.started, ended
        if seen.failed or begun is None:
            # What the times are of is an earlier run, if there was one.
            begun, finished = self._earlier_run(record.id, seen.number)
        if begun is None:
            return Life("created", exit_code=code, error=error)
        restarted = self._is_restart(record.id, seen.number)
        if restarted and seen.failed:
            # Docker's: what could not be followed is still what ended last. Only a start by hand that fails has a code of its own.
            code = int(finished.get("exit_code", code))
        waits = seen.status == lifecycle.RESTARTING or (seen.status == lifecycle.STARTING and restarted)
        return Life(
            "restarting" if waits else "exited",
            exit_code=code,
            oom_killed=bool(ended.get("oom_killed")),
            error=error,
            started=begun.get("started", times.ZERO),
            finished=finished.get("finished", times.ZERO),
        )

    def _health(self, record: Record, seen: Observation, life: Life) -> dict[str, Any] | None:
        if not record.config.get("Healthcheck") or life.status in ("created", "dead"):
            return None
        from sampan.engine.health import observe  # in here: most containers have no check

        return observe(record, self._records.paths(record.id), seen)

    def _log_loss(self, record: Record, paths: ContainerPaths, seen: Observation) -> dict[str, Any]:
        """Ours: what of the newest run is not in the log, for a full disk; left out if all of it is there."""
        lost = states.read_json(paths.log_loss) if seen.running else (seen.exit or {}).get("log_lost")
        if not lost:
            return {}
        return {"LogLost": {"Lines": lost["lines"], "Error": lost["error"], "Since": lost["since"]}}

    def _restarts(self, record: Record, seen: Observation) -> int:
        if record.broken or seen.number == 0:
            return 0
        return states.restarts(self._records.paths(record.id), seen)

    def _is_restart(self, container_id: str, number: int) -> bool:
        """Whether a policy made the start, and no person."""
        return os.path.exists(self._records.paths(container_id).start(number).restarted)

    def _earlier_run(self, container_id: str, number: int) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        paths = self._records.paths(container_id)
        try:
            earlier = states.earlier_success(paths, number)
        except FileNotFoundError:
            return None, {}
        if earlier == 0:
            return None, {}
        start = paths.start(earlier)
        return states.read_json(start.started), states.read_json(start.exit) or {}

    def _files(self, record: Record, paths: ContainerPaths) -> dict[str, str]:
        """The paths of the three files; of the other container's, if its network is joined."""
        mode = str(record.host_config.get("NetworkMode", ""))
        if mode.startswith("container:"):
            paths = self._records.paths(mode.removeprefix("container:"))
        return {"ResolvConfPath": paths.resolv_conf, "HostnamePath": paths.hostname, "HostsPath": paths.hosts}

    def _graph_driver(self, record: Record) -> dict[str, Any]:
        if record.broken:
            return {"Name": record.snapshotter, "Data": None}
        root = self._snapshots.root(record)
        data = None
        if root.kind == "overlay":
            data = {"LowerDir": ":".join(root.lower), "UpperDir": root.upper, "WorkDir": root.work}
        return {"Name": record.snapshotter, "Data": data}

    def _sizes(self, record: Record) -> dict[str, int]:
        written = self._snapshots.usage(record)
        return {"SizeRw": written, "SizeRootFs": written + self._snapshots.image_size(record)}


def status_text(life: Life, health: dict[str, Any] | None = None) -> str:
    """The STATUS column of `ps` (moby container/state.go, String)."""
    if life.status == "running":
        # "(health: starting)", for "(starting)" would say too much.
        shown = f" ({'health: ' if health['Status'] == 'starting' else ''}{health['Status']})" if health else ""
        return f"Up {times.since(life.started)}{shown}"
    if life.status == "paused":
        return f"Up {times.since(life.started)} (Paused)"
    if life.status == "restarting":
        return f"Restarting ({life.exit_code}) {times.since(life.finished)} ago"
    if life.status == "dead":
        return "Dead"
    if life.status == "created":
        return "Created"
    since = times.since(life.finished)  # one that was lost has no end yet, as long as it cannot be settled
    return f"Exited ({life.exit_code})" + (f" {since} ago" if since else "")


def _summary_of(host_config: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"NetworkMode": host_config.get("NetworkMode", "")}
    return {**shown, "Annotations": host_config["Annotations"]} if host_config.get("Annotations") else shown


def command_line(record: Record) -> str:
    """The COMMAND column: words with a blank in quotes, as Docker has it."""
    words = [f"'{word}'" if " " in word else word for word in record.args]
    return " ".join((record.path, *words))


def _unsettled_code(seen: Observation) -> int:
    return states.LOST_EXIT_CODE if seen.status == lifecycle.LOST else 0


def _state(life: Life, health: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "Status": life.status,
        # A paused container counts as running, and so does one that is restarting.
        "Running": life.status in lifecycle.UP,
        "Paused": life.status == lifecycle.PAUSED,
        "Restarting": life.status == lifecycle.RESTARTING,
        "OOMKilled": life.oom_killed,
        "Dead": life.status == "dead",
        "Pid": life.pid,
        "ExitCode": life.exit_code,
        "Error": life.error,
        "StartedAt": life.started,
        "FinishedAt": life.finished,
        **({"Health": health} if health is not None else {}),
    }


def _log_driver(record: Record) -> str:
    return str((record.host_config.get("LogConfig") or {}).get("Type", ""))


def _host_config(record: Record) -> dict[str, Any]:
    from sampan.engine import fields
    from sampan.runtime import defaults

    shown = fields.shown_host_config(record.host_config)
    if not shown["Privileged"]:
        # Docker writes the defaults out, so that a reader sees what holds.
        if shown["MaskedPaths"] is None:
            shown["MaskedPaths"] = defaults.masked_paths()
        if shown["ReadonlyPaths"] is None:
            shown["ReadonlyPaths"] = list(defaults.READONLY_PATHS)
    return shown
