"""Another process in a running container, and attaching to the container's own."""

from __future__ import annotations

import os
import time

from sampan import jsontext
from sampan.engine.validate import check_environment, clean_working_directory
from sampan.errors import Conflict, InvalidParameter, NotFound, StartFailed
from sampan.kernel import cgroup, files, namespaces
from sampan.oci import lifecycle
from sampan.runtime.handle import Handle
from sampan.runtime.planexec import make_exec_plan
from sampan.runtime.spec import environment, granted_capabilities, merge_environment, no_new_privileges, resource_limits
from sampan.shim.protocol import ENDED_EXEC_FILE
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.kernel.cgroup import CgroupDriver
    from sampan.runtime.handle import Attachment
    from sampan.steps.process import LoadFilter
    from sampan.store.layout import ContainerPaths
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def paths(self, container_id: str) -> ContainerPaths: ...

    class Filters(Protocol):
        def of_container(self, host: dict[str, Any], capabilities: Sequence[str]) -> LoadFilter | None: ...

    class Announcer(Protocol):
        def container(self, record: Record, action: str, extra: Mapping[str, str] = ...) -> None: ...

    class Connector(Protocol):
        def linked_variables(self, record: Record) -> list[str]: ...

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...


_LOOK_AGAIN = 0.01

KEPT_EXECS = 1000
"""How many execs that have ended are kept, at least half of them, for as long as their container runs; some tens more until the next look."""
_LOOKS = "0"
"""An exec whose id ends so looks whether there are more, one of 16: with a thousand of them a look takes as long as the rest of a create."""


BRIDGE = "bridge"
"""Not from oci.network: most execs are in containers without links, and need nothing of that."""

PLANNED_EXEC = "planned-"
"""Begins the name of the file, in the run directory, of an exec that was created and not started."""
CLAIMED_EXEC = "claimed-"
"""The same of one that is being started in this moment."""
EXEC_ID_PREFIX = 16
"""Digits of an exec's id that are its container's."""


class ExecRequest(Struct):
    """What to run in a container (`POST /containers/{id}/exec`).

    user, workdir: "" for the container's own. environment: NAME=value entries over the container's. size: rows and
    columns of the terminal. detach: nobody listens to it. detach_keys: what its client looks for, for `inspect`. stdout, stderr:
    whether its client wants them.
    """

    command: tuple[str, ...]
    user: str = ""
    workdir: str = ""
    environment: tuple[str, ...] = ()
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    detach: bool = False
    size: tuple[int, int] = (0, 0)
    detach_keys: str = ""
    stdout: bool = True
    stderr: bool = True


class Planned(Struct):
    """An exec that was put down: its request, and its container as it was seen with it."""

    request: ExecRequest
    seen: Observation


class Executor:
    """`POST /containers/{id}/exec` with `/exec/{id}/start`, and `/attach`."""

    def __init__(
        self,
        records: Records,
        settler: Settler,
        cgroups: CgroupDriver,
        filters: Filters,
        connector: Callable[[], Connector],
        events: Announcer,
    ) -> None:
        self._filters = filters
        self._connector = connector
        self._records = records
        self._settler = settler
        self._cgroups = cgroups
        self._events = events
        self._nested: bool | None = None
        """Whether this process is in a user namespace, which it never changes."""

    def exec(self, record: Record, request: ExecRequest) -> Attachment:
        """Start a process; the connection to its streams brings its exit code as well.

        Raises Conflict if the container does not run, StartFailed (126, 127) if the program cannot be executed,
        InvalidParameter.
        """
        handle = self._judged(record, request)
        identifier = new_exec_id(record)
        if identifier.endswith(_LOOKS):
            _forget_oldest(self._records.paths(record.id).run_directory)
        self._tell(record, "exec_create", identifier, request)
        return self._start(record, handle, identifier, request)

    def create(self, record: Record, request: ExecRequest) -> str:
        """Put an exec down that `start` starts later; its id. It is gone with the container's present run.

        Raises Conflict, InvalidParameter as `exec`.
        """
        self._judged(record, request)
        identifier = new_exec_id(record)
        directory = self._records.paths(record.id).run_directory
        if identifier.endswith(_LOOKS):
            _forget_oldest(directory)
        try:
            files.write_atomic(f"{directory}/{PLANNED_EXEC}{identifier}", jsontext.dumps(request.to_json()), sync=False)
        except FileNotFoundError:
            raise Conflict(f"container {record.id} is not running") from None  # it has ended in this moment
        self._tell(record, "exec_create", identifier, request)
        return identifier

    def planned(self, record: Record, exec_id: str) -> Planned:
        """What `create` has put down, for `start`. Raises NotFound, Conflict if it was started before."""
        request = self._planned(record, exec_id)
        if request is None:
            self.inspect(record, exec_id)
            raise Conflict(f"exec session {exec_id} was started before")
        return Planned(request, self._settler.observe(record))

    def start(
        self,
        record: Record,
        exec_id: str,
        detach: bool = False,
        size: tuple[int, int] = (0, 0),
        planned: Planned | None = None,
    ) -> tuple[ExecRequest, Attachment]:
        """Start what `create` has put down, once. A program that cannot be executed leaves its exit code for `inspect`.

        size: of the terminal, before that of the request. planned: if the caller has looked already. Raises NotFound,
        Conflict (it was started before, the container's state forbids it), StartFailed.
        """
        planned = planned or self.planned(record, exec_id)
        request, seen = planned.request, planned.seen
        lifecycle.check(lifecycle.EXEC, seen.status, record.id, record.name)
        paths = self._records.paths(record.id)
        claimed = f"{paths.run_directory}/{CLAIMED_EXEC}{exec_id}"
        try:
            os.rename(f"{paths.run_directory}/{PLANNED_EXEC}{exec_id}", claimed)
        except FileNotFoundError:
            raise Conflict(f"exec session {exec_id} was started before") from None
        request = request.replace(detach=detach, size=size if size != (0, 0) else request.size)
        try:
            return request, self._start(record, self._handle(record, seen), exec_id, request)
        except StartFailed as e:
            path = f"{paths.run_directory}/{ENDED_EXEC_FILE}{exec_id}.{e.container_exit_code}"
            files.write_atomic(path, f"0 {_about(request)}".encode("ascii"), sync=False)
            raise
        finally:
            # Until now: whoever looks meanwhile finds it created, running or ended, and never gone.
            _unlink(claimed)

    def _planned(self, record: Record, exec_id: str, kind: str = PLANNED_EXEC) -> ExecRequest | None:
        if not exec_id.isalnum():
            return None
        path = f"{self._records.paths(record.id).run_directory}/{kind}{exec_id}"
        try:
            fields = jsontext.loads(files.read_small(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        lists: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return ExecRequest(**lists)

    def _judged(self, record: Record, request: ExecRequest) -> Handle:
        """The container's handle, if the request can be and its state allows it."""
        if not request.command or not request.command[0]:
            raise InvalidParameter("no exec command specified")
        check_environment(list(request.environment))
        # The state first: of one whose record cannot be read there is nothing to make a process of.
        return self._running(record, lifecycle.EXEC)

    def _tell(self, record: Record, action: str, identifier: str, request: ExecRequest) -> None:
        program, *arguments = request.command
        self._events.container(record, f"{action}: {program} {' '.join(arguments)}", {"execID": identifier})

    def _start(self, record: Record, handle: Handle, identifier: str, request: ExecRequest) -> Attachment:
        linked = any(attachment.links and attachment.network == BRIDGE for attachment in record.networks)
        process = process_object(record, request, self._connector().linked_variables(record) if linked else ())
        group = cgroup.container_group(record.id, record.host_config)
        host = record.host_config
        granted = granted_capabilities(host["CapAdd"] or [], host["CapDrop"] or [], host["Privileged"])
        plan = make_exec_plan(
            identifier,
            process,
            group,
            self._cgroups,
            open_stdin=request.stdin,
            detach=request.detach,
            load_filter=None if request.privileged else self._filters.of_container(host, granted),
            about=_about(request),
            alone=self._can_be_alone(record, granted),
            powerful=request.privileged,
        )
        self._tell(record, "exec_start", identifier, request)
        attachment = handle.exec(plan)
        attachment.notice = lambda action, _: self._notice_exec(record, action, plan.identifier)
        return attachment

    def _can_be_alone(self, record: Record, granted: Sequence[str]) -> bool:
        """Whether the process may be born in the container's namespaces, with all that its monitor has, as far as one can know beforehand (docs/adr/0018).

        Not where a process of the container may take over one that is of the host's user namespace; not where it may mount something over its root, at
        which the monitor would have to wait; and not where the monitor could not come back.
        """
        if self._nested is None:
            self._nested = namespaces.in_user_namespace()
        shares_pids = bool(record.host_config["PidMode"])
        takes_over = ("CAP_SYS_PTRACE" in granted or "CAP_PERFMON" in granted) and not record.uids
        return not (self._nested or shares_pids or takes_over or "CAP_SYS_ADMIN" in granted)

    def inspect(self, record: Record, exec_id: str) -> dict[str, Any]:
        """`GET /exec/{id}/json` of an exec of this container's present run, also of one that has ended. Raises NotFound."""
        request = self._planned(record, exec_id)
        if request is not None:
            return self._shown(record, exec_id, _about(request), 0, None, False)
        paths = self._records.paths(record.id)
        found = paths.find_exec(exec_id)
        if found is None:
            request = self._planned(record, exec_id, CLAIMED_EXEC)
            if request is not None:
                return self._shown(record, exec_id, _about(request), 0, None, False)
            found = paths.find_exec(exec_id)  # it was claimed a moment ago
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        try:
            pid, _, about = files.read_small(found.path).partition(b" ")
        except FileNotFoundError:
            return self.inspect(record, exec_id)  # it has ended in this moment, and has another name
        return self._shown(record, exec_id, about.decode("ascii"), int(pid), found.exit_code, found.exit_code is None)

    def resize_exec(self, record: Record, exec_id: str, rows: int, columns: int) -> None:
        """Give the terminal of an exec another size, whoever started it and whoever listens to it.

        Raises NotFound, Conflict if it does not run or has let go of its terminal, InvalidParameter if it never had one.
        """
        from sampan.kernel import processtty, tty

        shown = self.inspect(record, exec_id)
        if not shown["ProcessConfig"]["tty"]:
            raise InvalidParameter(f"exec {exec_id} has no terminal")
        fd = -1
        try:
            # Its connection belongs to its client, who may be another process: the terminal is found at the program itself.
            fd = processtty.open_terminal(shown["Pid"]) if shown["Running"] else -1
            # It ran until now: so the number that was looked up is not another process's by this time.
            if fd < 0 or not self.inspect(record, exec_id)["Running"]:
                raise Conflict(f"exec {exec_id} is not running, or has closed its terminal")
            tty.set_size(fd, rows, columns)
        except OSError:
            raise Conflict(f"exec {exec_id} is not running") from None  # it ended in this moment
        finally:
            if fd >= 0:
                os.close(fd)

    @staticmethod
    def _shown(
        record: Record, exec_id: str, about: str, pid: int, exit_code: int | None, running: bool
    ) -> dict[str, Any]:
        return {
            "CanRemove": not running and exit_code is not None,
            "ContainerID": record.id,
            "DetachKeys": "",
            "ExitCode": exit_code,
            "ID": exec_id,
            **jsontext.loads(about),
            "Pid": pid,
            "Running": running,
        }

    def _notice_exec(self, record: Record, action: str, identifier: str) -> None:
        if action == "detach":  # a new size of an exec's terminal is no event
            self._events.container(record, "exec_detach", {"execID": identifier})

    def attach(
        self, record: Record, stdin: bool = False, stdout: bool = True, stderr: bool = True, running: bool = False
    ) -> Attachment:
        """Listen to the container's own process from now on: of one that does not run, from its next start.

        Raises Conflict if its state forbids it, or if `running` and it does not run.
        """
        if running:
            attachment = self._running(record, lifecycle.ATTACH).attach(stdin, stdout, stderr)
        else:
            attachment = self._attach_ahead(record, stdin, stdout, stderr)
        self._events.container(record, "attach")
        attachment.notice = lambda action, extra: self._events.container(record, action, extra)
        return attachment

    def listen(self, record: Record, running: bool = False) -> Attachment:
        """A connection that carries nothing but the exit code of this run, or of the next one if it does not run; no event tells of it.

        Raises Conflict if `running` and it does not run, or while nobody can be attached.
        """
        seen = self._settler.observe(record)
        if seen.status in (lifecycle.PAUSED, lifecycle.RESTARTING):
            return self._handle(record, seen).attach(False, False, False)
        if running:
            return self._running(record, lifecycle.ATTACH).attach(False, False, False)
        return self._attach_ahead(record, False, False, False)

    def resize(self, record: Record, rows: int, columns: int) -> None:
        """Give the container's terminal another size: it has it when this returns. Raises Conflict if it does not run."""
        attachment = self._running(record, lifecycle.TOP).attach(False, False, False)
        try:
            attachment.resize(rows, columns)
        finally:
            # Who types next does so on another connection, and must not be quicker.
            attachment.finish()
        self._events.container(record, "resize", {"height": str(rows), "width": str(columns)})

    def _attach_ahead(self, record: Record, stdin: bool, stdout: bool, stderr: bool) -> Attachment:
        seen = self._settler.observe(record)
        lifecycle.check(lifecycle.ATTACH_AHEAD, seen.status, record.id, record.name)
        if seen.status == lifecycle.RUNNING:
            return self._handle(record, seen).attach(stdin, stdout, stderr)
        from sampan.runtime.waiting import sit_down  # in here: whoever attaches to what runs does not need it

        wanted = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        attachment = sit_down(self._records.paths(record.id).waiting, record.id, wanted)
        try:
            # A start that was on its way may have looked for who waits a moment too early.
            while (seen := self._settler.observe(record)).status == lifecycle.STARTING and attachment.waits:
                time.sleep(_LOOK_AGAIN)
            if seen.running and attachment.leave():
                attachment.close()
                return self._running(record, lifecycle.ATTACH).attach(stdin, stdout, stderr)
        except BaseException:
            attachment.close()
            raise
        return attachment

    def _running(self, record: Record, verb: str) -> Handle:
        seen = self._settler.observe(record)
        lifecycle.check(verb, seen.status, record.id, record.name)
        return self._handle(record, seen)

    def _handle(self, record: Record, seen: Observation) -> Handle:
        paths = self._records.paths(record.id)
        return Handle(paths, paths.start(seen.number).directory)


def _about(request: ExecRequest) -> str:
    """What `inspect` says of it (moby, backend.ExecInspect), as text."""
    listens = not request.detach
    process = {
        "arguments": list(request.command[1:]),
        "entrypoint": request.command[0],
        "privileged": request.privileged,
        "tty": request.tty,
        **({"user": request.user} if request.user else {}),
    }
    about = {
        "DetachKeys": request.detach_keys,
        "OpenStderr": listens and request.stderr,
        "OpenStdin": request.stdin,
        "OpenStdout": listens and request.stdout,
        "ProcessConfig": process,
    }
    return jsontext.dumps(about).decode("ascii")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # the container's end took it along


def new_exec_id(record: Record) -> str:
    """An id that nobody guesses, and that begins as the container's: who knows it finds the container without a search."""
    return record.id[:EXEC_ID_PREFIX] + os.urandom(32).hex()[EXEC_ID_PREFIX:]


def _forget_oldest(run_directory: str) -> None:
    """Keep the newest execs only, of those that ended and of those that were never started: a container may run for years, with an exec every second."""
    kinds: dict[str, list[os.DirEntry[str]]] = {ENDED_EXEC_FILE: [], PLANNED_EXEC: []}
    try:
        with os.scandir(run_directory) as entries:
            for entry in entries:
                for kind, found in kinds.items():
                    if entry.name.startswith(kind):
                        found.append(entry)
        for found in kinds.values():
            if len(found) > KEPT_EXECS:
                found.sort(key=lambda entry: entry.stat().st_mtime_ns)
                for entry in found[: -KEPT_EXECS // 2]:
                    os.unlink(entry.path)
    except FileNotFoundError:
        pass  # the container ends, or another exec does the same


def process_object(record: Record, request: ExecRequest, variables: Sequence[str] = ()) -> dict[str, Any]:
    """The OCI process object: the container's own, with what the request says in its place. variables: those that its own ones replace."""
    config, host = record.config, record.host_config
    own = [*variables, *(config.get("Env") or ())]
    privileged = request.privileged or host["Privileged"]
    capabilities = granted_capabilities(host["CapAdd"] or [], host["CapDrop"] or [], privileged)
    return {
        "terminal": request.tty,
        "consoleSize": {"height": request.size[0], "width": request.size[1]},
        "user": {"username": request.user or config["User"], "additionalGroups": list(host["GroupAdd"] or [])},
        "args": list(request.command),
        "env": merge_environment(environment({**config, "Env": own, "Tty": request.tty}), list(request.environment)),
        "cwd": clean_working_directory(request.workdir) or config["WorkingDir"] or "/",
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "noNewPrivileges": no_new_privileges(host),
        "oomScoreAdj": host["OomScoreAdj"],
        "rlimits": resource_limits(host),
        "ownIds": bool(record.uids),
    }
