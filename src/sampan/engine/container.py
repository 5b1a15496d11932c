"""One container, as the library hands it out: an id with verbs. Nothing is remembered but its record."""

from __future__ import annotations

from sampan.engine.failures import told
from sampan.errors import Conflict, InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.engine.archive import Archives, ArchiveStream, Files, PathStat
    from sampan.engine.audit import AuditFinding, Auditor
    from sampan.engine.boot import Booter
    from sampan.engine.commit import Committer
    from sampan.engine.copying import Copied, Copier, Readable
    from sampan.engine.create import Creator
    from sampan.engine.events import Events
    from sampan.engine.exec import ExecRequest, Executor, Planned
    from sampan.engine.export import Exporter
    from sampan.engine.images import Images
    from sampan.engine.inspect import Inspector
    from sampan.engine.logformats import LogEntry
    from sampan.engine.logs import LogReader
    from sampan.engine.pause import Pauser
    from sampan.engine.progress import Progress
    from sampan.engine.prune import Pruner
    from sampan.engine.reconcile import Janitor
    from sampan.engine.remove import Remover
    from sampan.engine.rename import Renamer
    from sampan.engine.restart import Restarter
    from sampan.engine.results import ExecResult
    from sampan.engine.settle import Settler
    from sampan.engine.start import Starter
    from sampan.engine.stats import StatsReader
    from sampan.engine.stop import Stopper
    from sampan.engine.top import ProcessLister
    from sampan.engine.update import Updater
    from sampan.runtime.handle import Attachment
    from sampan.runtime.launcher import Launcher
    from sampan.store.record import Record
    from sampan.store.records import Records
    from sampan.store.states import Observation

    class Verbs(Protocol):
        """The use cases, each made when it is first asked for: a verb pays for the imports of its own only."""

        @property
        def records(self) -> Records: ...
        @property
        def creator(self) -> Creator: ...
        @property
        def images(self) -> Images: ...
        @property
        def launcher(self) -> Launcher: ...
        @property
        def starter(self) -> Starter: ...
        @property
        def stopper(self) -> Stopper: ...
        @property
        def pauser(self) -> Pauser: ...
        @property
        def pruner(self) -> Pruner: ...
        @property
        def committer(self) -> Committer: ...
        @property
        def archives(self) -> Archives: ...
        @property
        def copier(self) -> Copier: ...
        @property
        def exporter(self) -> Exporter: ...
        @property
        def remover(self) -> Remover: ...
        @property
        def renamer(self) -> Renamer: ...
        @property
        def updater(self) -> Updater: ...
        @property
        def booter(self) -> Booter: ...
        @property
        def events(self) -> Events: ...
        @property
        def restarter(self) -> Restarter: ...
        @property
        def settler(self) -> Settler: ...
        @property
        def janitor(self) -> Janitor: ...
        @property
        def executor(self) -> Executor: ...
        @property
        def logs(self) -> LogReader: ...
        @property
        def stats(self) -> StatsReader: ...
        @property
        def auditor(self) -> Auditor: ...
        @property
        def lister(self) -> ProcessLister: ...
        @property
        def inspector(self) -> Inspector: ...


class Container:
    """A container of an engine. May be used by many threads, and long after somebody else has removed it (NotFound)."""

    __slots__ = ("_record", "_reference", "_verbs")

    def __init__(self, verbs: Verbs, record: Record, reference: str = "") -> None:
        self._verbs = verbs
        self._record = record
        self._reference = reference or record.name

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._record.id

    @property
    def short_id(self) -> str:
        return self._record.id[:12]

    @property
    def name(self) -> str:
        """Without Docker's slash."""
        return self._record.name

    @property
    def status(self) -> str:
        """Docker's word for its state now: "created", "running", "paused", "exited", "dead". Raises NotFound."""
        return self.outcome()[0]

    @told
    def outcome(self) -> tuple[str, int]:
        """`status`, and the exit code of the last run, 0 if there is none. Raises NotFound."""
        return self._verbs.inspector.state(self._record, self._observed())

    @property
    def health(self) -> str:
        """What its health check says: "starting", "healthy", "unhealthy", or "none" if it has none. Raises NotFound."""
        return str((self.inspect()["State"].get("Health") or {}).get("Status", "none"))

    def __repr__(self) -> str:
        return f"<Container {self.short_id} {self.name}>"

    @told
    def start(self, attach: bool = False) -> Attachment | None:
        """Start it; with `attach`, the connection to its streams from the first byte on.

        Raises StartFailed, NotModified if it runs, Conflict.
        """
        return self._verbs.starter.start(self._record, attach=attach)

    @told
    def stop(self, timeout: int | None = None, signal: str = "") -> None:
        """End it: its stop signal, and SIGKILL after `timeout` seconds (None: its own, else 10; -1: never).

        Raises NotModified if it does not run.
        """
        self._verbs.stopper.stop(self._record, timeout, signal)

    @told
    def restart(self, timeout: int | None = None, signal: str = "") -> None:
        """Stop it as `stop` does, if it runs, and start it. Raises StartFailed, Conflict."""
        self._verbs.restarter.restart(self._record, timeout, signal)

    @told
    def kill(self, signal: str = "KILL") -> None:
        """Send a signal ("HUP", "SIGHUP", "1", "RTMIN+3"). Raises Conflict if it does not run, InvalidParameter."""
        from sampan.oci import signals  # in here: a listing comes by this module

        if signal.isdecimal() and int(signal) > signals.LAST:
            words = f"the linux daemon does not support signal {int(signal)}"
            raise InvalidParameter(f"cannot kill container: {self._reference}: {words}")
        try:
            self._verbs.stopper.kill(self._record, signal)
        except Conflict as e:
            raise Conflict(f"cannot kill container: {self._reference}: {e}") from None

    @told
    def pause(self) -> None:
        """Freeze all its processes. Raises Conflict if it does not run or is paused."""
        self._verbs.pauser.pause(self._record)

    @told
    def unpause(self) -> None:
        """Let its processes go on. Raises Conflict if it is not paused."""
        self._verbs.pauser.unpause(self._record)

    @told
    def commit(
        self,
        name: str = "",
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        progress: Progress | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> str:
        """Make an image of it as it is now, and return the image's id ("sha256:...").

        `name` is a repository with or without a tag, `changes` are Dockerfile instructions, `config` is a `Config` whose members
        go before the container's. With `pause` its processes
        stand still while its files are read, of which `progress` is told. What is in volumes is not in the image. Raises InvalidParameter, Conflict,
        NotFound (also if the image that it was made from is gone), System; nothing is left behind then.
        """
        return self._verbs.committer.commit(self._record, name, author, message, changes, pause, progress, config)

    @told
    def diff(self) -> list[dict[str, Any]]:
        """What it has changed: `[{"Path": "/etc/x", "Kind": 0}]`, 0 for changed, 1 added, 2 deleted. Raises NotFound."""
        return self._verbs.exporter.changes(self._record)

    def export(self) -> Iterator[bytes]:
        """Its root file system as a tar archive, in pieces, running or not; what is mounted on it is left out.

        What a running container changes meanwhile may be in it or not. Raises NotFound, System, also in the middle.
        """
        return self._verbs.exporter.export(self._record)

    @told
    def copy_in(
        self,
        source: str,
        path: str,
        *,
        follow: bool = False,
        archive: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Copied:
        """Copy a file or directory of this machine into it, as `docker cp SOURCE CONTAINER:PATH`, running or not.

        The result says how many bytes it was, as an archive, and where it went; `progress` is told the size as it grows. `follow`: a link at
        `source` is followed. Owners are kept as numbers; with `archive` all belongs to the container's user, if it has one.
        Raises InvalidParameter (copying.Unfitting if the two do not go together), NotFound, Conflict, System; what was
        copied until then stays.
        """
        return self._verbs.copier.copy_in(self._record, self._reference, source, path, follow, archive, progress)

    @told
    def copy_out(
        self,
        path: str,
        target: str,
        *,
        follow: bool = False,
        archive: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Copied:
        """Copy a file or directory of it to this machine, as `docker cp CONTAINER:PATH TARGET`, running or not.

        What is made belongs to the caller and has no set-id bits; with `archive` it keeps owners and all. Else as `copy_in`.
        """
        return self._verbs.copier.copy_out(self._record, self._reference, path, target, follow, archive, progress)

    @told
    def stat_path(self, path: str) -> PathStat:
        """What is at a path of it: `HEAD /containers/{id}/archive`. Raises NotFound, InvalidParameter."""
        return self._verbs.archives.stat(self._record, path, self._reference)

    @told
    def get_archive(self, path: str) -> tuple[PathStat, ArchiveStream]:
        """What is at a path of it, and a tar archive of that in pieces: `GET /containers/{id}/archive`.

        The archive is made while it is read, and is to be read to its end or closed: a container that does not run cannot
        be started until then. Raises NotFound, InvalidParameter, System; the stream does, too.
        """
        return self._verbs.archives.get(self._record, path, self._reference)

    @told
    def put_archive(
        self, path: str, stream: bytes | Readable, *, keep_kinds: bool = False, owned_by_user: bool = False
    ) -> None:
        """Put what is in a tar archive, compressed or not, into a directory of it: `PUT /containers/{id}/archive`.

        `keep_kinds` (noOverwriteDirNonDir): nothing else takes the place of a directory, and no directory that of something
        else. `owned_by_user` (copyUIDGID): all of it belongs to the container's user, if it has one. Raises NotFound,
        InvalidParameter, System; what was put until then stays.
        """
        from sampan.engine.copying import Source

        source = Source([stream]) if isinstance(stream, bytes) else stream
        self._verbs.archives.put(self._record, path, self._reference, source, keep_kinds, owned_by_user)

    @told
    def open_files(self) -> Files:
        """Its files as they are now, for several of these operations on the same; to be closed, by `with`."""
        return self._verbs.archives.open(self._record, self._reference)

    @told
    def rename(self, name: str) -> None:
        """Give it another name. Raises InvalidParameter, Conflict (the name is taken), NotFound."""
        self._record = self._verbs.renamer.rename(self._record, name)
        self._reference = self._record.name

    @told
    def update(self, **options: Any) -> list[str]:
        """Change its limits and its restart policy, named as `create` names them, whether it runs or not; Docker's warnings.

        blkio_weight, cpu_period, cpu_quota, cpu_rt_period, cpu_rt_runtime, cpu_shares, cpus, cpuset_cpus, cpuset_mems,
        memory, memory_reservation, memory_swap, pids_limit, restart_policy. All of it is changed or nothing.
        Raises InvalidParameter, Conflict, NotFound, System.
        """
        from sampan.engine.options import update_request

        return self.update_from(update_request(options))

    @told
    def update_from(self, request: dict[str, Any]) -> list[str]:
        """The same by a body of Docker's `POST /containers/{id}/update`."""
        return self._verbs.updater.update(self._record, request)

    @told
    def remove(self, force: bool = False, volumes: bool = False) -> None:
        """Remove it; with `force` also if it runs, with `volumes` the volumes that nobody named and nobody else uses.

        Raises Conflict, NotFound.
        """
        self._verbs.remover.remove(self._record, force, volumes, self._reference)

    @told
    def wait(self) -> int:
        """Wait until it does not run; its exit code (0 if it was never started)."""
        return self._verbs.stopper.wait(self._record)

    @told
    def exec_start(
        self,
        cmd: str | Sequence[str],
        *,
        user: str = "",
        workdir: str = "",
        environment: Mapping[str, str] | Sequence[str] = (),
        tty: bool = False,
        stdin: bool = False,
        privileged: bool = False,
        detach: bool = False,
        size: tuple[int, int] = (0, 0),
        detach_keys: str = "",
    ) -> Attachment:
        """Start another process in it; the connection to its streams, which ends with its exit code.

        `size` is rows and columns of the terminal; `detach_keys` is for who inspects it. The id is the connection's `exec_id`.
        Raises Conflict if the container does not run, StartFailed.
        """
        from sampan.engine.exec import ExecRequest
        from sampan.engine.options import command_words, environment_entries

        request = ExecRequest(
            command=tuple(command_words(cmd)),
            user=user,
            workdir=workdir,
            environment=tuple(environment_entries(environment)),
            tty=tty,
            stdin=stdin,
            privileged=privileged,
            detach=detach,
            size=size,
            detach_keys=detach_keys,
        )
        return self._verbs.executor.exec(self._record, request)

    @told
    def exec_create(self, request: ExecRequest) -> str:
        """Put an exec down for `exec_begin`; its id. It is gone with the container's present run. Raises Conflict, InvalidParameter."""
        return self._verbs.executor.create(self._record, request)

    @told
    def exec_planned(self, exec_id: str) -> Planned:
        """What `exec_create` has put down. Raises NotFound, Conflict if it was started before."""
        return self._verbs.executor.planned(self._record, exec_id)

    @told
    def exec_begin(
        self, exec_id: str, detach: bool = False, size: tuple[int, int] = (0, 0), planned: Planned | None = None
    ) -> tuple[ExecRequest, Attachment]:
        """Start what `exec_create` has put down: the request, and the connection to its streams.

        planned: of `exec_planned`, if the caller has looked already.
        Raises NotFound, Conflict (it was started before, the container does not run), StartFailed.
        """
        return self._verbs.executor.start(self._record, exec_id, detach, size, planned)

    @told
    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        """`GET /exec/{id}/json`: the command, whether it runs, its pid and, for as long as the container runs, its exit code.

        Raises NotFound, also after the container's end. The newest thousand are kept.
        """
        return self._verbs.executor.inspect(self._record, exec_id)

    @told
    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Give the terminal of an exec another size. Raises NotFound, Conflict if it does not run, InvalidParameter if it has none."""
        self._verbs.executor.resize_exec(self._record, exec_id, rows, columns)

    def exec(self, cmd: str | Sequence[str], *, input: bytes | str | None = None, **options: Any) -> ExecResult:
        """Run another process in it to its end, with `input` as its standard input; options as `exec_start`."""
        from sampan.engine.results import collect

        attachment = self.exec_start(cmd, stdin=input is not None, **options)
        return collect(attachment, input)

    @told
    def attach(
        self, stdin: bool = False, stdout: bool = True, stderr: bool = True, running: bool = False
    ) -> Attachment:
        """Listen to its own process from now on, as `POST /containers/{id}/attach`; any number of clients may.

        If it does not run, the connection waits for its next start: it carries all of the output from the first byte on, and
        what was sent before is the first that the program reads. A start that fails, or `remove`, is its end, without an
        exit code. With `running` Conflict is raised instead. Raises Conflict if it is paused or restarting.
        """
        return self._verbs.executor.attach(self._record, stdin, stdout, stderr, running)

    @told
    def listen(self, running: bool = False) -> Attachment:
        """A connection that carries nothing but the exit code: of this run, or if it does not run of the next one.

        Raises Conflict if `running` and it does not run, NotFound.
        """
        return self._verbs.executor.listen(self._record, running)

    @told
    def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size. Raises Conflict if it does not run."""
        self._verbs.executor.resize(self._record, rows, columns)

    def logs(
        self,
        follow: bool = False,
        tail: int | None = None,
        since: str = "",
        until: str = "",
        *,
        stop: int = -1,
        before_wait: Callable[[], None] | None = None,
    ) -> Iterator[LogEntry]:
        """What it wrote: the last `tail` lines (None: all), with `follow` also those to come until it ends.

        `since` and `until` are RFC 3339 times, durations before now ("10m"), or seconds since the epoch. `stop`: a descriptor that
        becomes readable when `follow` is to end. `before_wait` is called when all that is there has been given.
        Raises Conflict (its log driver keeps nothing), NotFound, InvalidParameter.
        """
        return self._verbs.logs.read(self._record, follow, tail, since, until, stop, before_wait)

    def logs_lost(self) -> dict[str, Any] | None:
        """What of its newest run could not be written to the log, for a full disk most likely; None if all of it is there.

        {"lines": how many, "error": of the first, "since": when that was}.
        """
        return self._verbs.logs.lost(self._record)

    @told
    def stats(self, one_shot: bool = False) -> dict[str, Any]:
        """`GET /containers/{id}/stats`: what it uses; with zeros and no counters if it does not run. Raises NotFound.

        It takes a second, for `precpu_stats` is what `cpu_stats` was then; with `one_shot` it does not, and is zeros.
        `pressure_stats` is ours: the kernel's PSI of "cpu", "memory" and "io", as far as it has them.
        """
        return self._verbs.stats.one(self.id, one_shot)

    @told
    def top(self, ps_args: str = "") -> dict[str, list[Any]]:
        """Its processes as the host's ps shows them: `{"Titles": ["PID", ...], "Processes": [["1234", ...]]}`.

        `ps_args` are options of ps, "-ef" without any. Raises Conflict if it does not run, InvalidParameter, System.
        """
        return self._verbs.lister.top(self._record, ps_args)

    @told
    def audit(self) -> list[AuditFinding]:
        """What its programs are kept from, found out by trying it harmlessly. Raises Conflict if it does not run, System."""
        return self._verbs.auditor.audit(self._record)

    @told
    def inspect(self, size: bool = False) -> dict[str, Any]:
        """`GET /containers/{id}/json`. Raises NotFound."""
        self._record = self._verbs.records.read(self.id)
        return self._verbs.inspector.inspect(self._record, self._observed(), size)

    @told
    def summary(self, size: bool = False) -> dict[str, Any]:
        """An item of `GET /containers/json`. Raises NotFound."""
        return self._verbs.inspector.summary(self._record, self._observed(), size)

    @told
    def settle(self) -> None:
        """Do what its exit left to do, if nobody has yet: with `--rm` that is its removal. Idempotent."""
        self._verbs.settler.settle(self._record)

    @told
    def carry_on(self, number: int, monitor_lock: int) -> None:
        """Make the restart that the end of its start `number` made due, if it still is: see `engine.reaper`."""
        self._verbs.starter.carry_on(self._record, number, monitor_lock)

    def _observed(self) -> Observation:
        """Its state now; a lost container is settled by this, and an exited one with `--rm` is gone."""
        from sampan.errors import NotFound

        seen = self._verbs.janitor.observe(self._record)
        if seen is None:
            raise NotFound(f"No such container: {self._reference}")
        return seen
