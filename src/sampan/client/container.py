"""One container of a server: an id with verbs, as `sampan.engine.container.Container` is of the engine on this machine."""

from __future__ import annotations

import base64
import socket

from sampan import jsontext
from sampan.client.attachment import RemoteAttachment
from sampan.client.hijack import Hijacked
from sampan.client.logs import RemoteLog
from sampan.client.names import split
from sampan.client.session import filters
from sampan.engine.archive import PathStat
from sampan.engine.copying import Copier
from sampan.engine.copying import Source as Pieces
from sampan.engine.exec import ExecRequest
from sampan.errors import Conflict, SampanError, System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Self

    from sampan.client.session import Readable, Session, Stream
    from sampan.engine.copying import Copied
    from sampan.engine.results import ExecResult

_STAT = "x-docker-container-path-stat"
_ANSWERED = {"X-Sampan-Start": "answered"}
"""Asks for a start that fails to be an answer with a status, and not a text in the stream."""


class RemoteContainer:
    """May be used by many threads, and long after somebody else has removed it (NotFound)."""

    __slots__ = ("_name", "_path", "_session", "id")

    def __init__(self, session: Session, container_id: str, name: str) -> None:
        self._session = session
        self._name = name
        self._path = f"/containers/{container_id}"
        self.id = container_id
        """64 hexadecimal digits."""

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def name(self) -> str:
        """Without Docker's slash."""
        return self._name

    @property
    def status(self) -> str:
        """Docker's word for its state now. Raises NotFound."""
        return str(self.inspect()["State"]["Status"])

    @property
    def health(self) -> str:
        """What its health check says, or "none" if it has none. Raises NotFound."""
        return str((self.inspect()["State"].get("Health") or {}).get("Status", "none"))

    def __repr__(self) -> str:
        return f"<RemoteContainer {self.short_id} {self.name}>"

    # its life

    def start(self, attach: bool = False) -> RemoteAttachment | None:
        """Start it; with `attach`, the connection to its streams from the first byte on.

        Raises StartFailed, NotModified if it runs, Conflict.
        """
        if not attach:
            self._session.ask("POST", f"{self._path}/start")
            return None
        shown = self.inspect()
        config = shown["Config"]
        attachment = self._attach(
            bool(config["OpenStdin"]), True, True, "removed" if shown["HostConfig"]["AutoRemove"] else "next-exit"
        )
        try:
            self._session.ask("POST", f"{self._path}/start")
        except BaseException:
            attachment.close()
            raise
        return attachment

    def stop(self, timeout: int | None = None, signal: str = "") -> None:
        """End it. Raises NotModified if it does not run."""
        self._session.ask("POST", f"{self._path}/stop", {"t": timeout, "signal": signal})

    def restart(self, timeout: int | None = None, signal: str = "") -> None:
        """Stop it, if it runs, and start it. Raises StartFailed, Conflict."""
        self._session.ask("POST", f"{self._path}/restart", {"t": timeout, "signal": signal})

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal. Raises Conflict if it does not run, InvalidParameter."""
        self._session.ask("POST", f"{self._path}/kill", {"signal": signal})

    def pause(self) -> None:
        """Freeze all its processes. Raises Conflict if it does not run or is paused."""
        self._session.ask("POST", f"{self._path}/pause")

    def unpause(self) -> None:
        """Let its processes go on. Raises Conflict if it is not paused."""
        self._session.ask("POST", f"{self._path}/unpause")

    def wait(self) -> int:
        """Wait until it does not run; its exit code (0 if it was never started)."""
        return _exit_code(self._session.json("POST", f"{self._path}/wait"))

    def remove(self, force: bool = False, volumes: bool = False) -> None:
        """Remove it. Raises Conflict, NotFound."""
        self._session.ask("DELETE", self._path, {"force": force, "v": volumes})

    def rename(self, name: str) -> None:
        """Give it another name. Raises InvalidParameter, Conflict (the name is taken), NotFound."""
        self._session.ask("POST", f"{self._path}/rename", {"name": name})
        self._name = name.removeprefix("/")

    def update(self, **options: Any) -> list[str]:
        """Change its limits and its restart policy, named as `create` names them; Docker's warnings."""
        from sampan.engine.options import update_request

        return self.update_from(update_request(options))

    def update_from(self, request: dict[str, Any]) -> list[str]:
        """The same by a body of `POST /containers/{id}/update`."""
        return list(self._session.json("POST", f"{self._path}/update", body=request)["Warnings"] or ())

    # what it is

    def inspect(self, size: bool = False) -> dict[str, Any]:
        """`GET /containers/{id}/json`. Raises NotFound."""
        found: dict[str, Any] = self._session.json("GET", f"{self._path}/json", {"size": size})
        self._name = found["Name"].removeprefix("/")
        return found

    def summary(self, size: bool = False) -> dict[str, Any]:
        """An item of `GET /containers/json`. Raises NotFound."""
        found: list[dict[str, Any]] = self._session.json(
            "GET", "/containers/json", {"all": True, "size": size, "filters": filters({"id": self.id})}
        )
        if not found:
            self.inspect()  # says that it is not there
            raise System(f"container {self.id} is not in the list of containers")
        return found[0]

    def top(self, ps_args: str = "") -> dict[str, list[Any]]:
        """Its processes as the server's ps shows them. Raises Conflict if it does not run, InvalidParameter."""
        found: dict[str, list[Any]] = self._session.json("GET", f"{self._path}/top", {"ps_args": ps_args})
        return found

    def stats(self, one_shot: bool = False) -> dict[str, Any]:
        """`GET /containers/{id}/stats`, once. Raises NotFound."""
        query = {"stream": "0", "one-shot": one_shot}
        found: dict[str, Any] = self._session.json("GET", f"{self._path}/stats", query)
        return found

    def logs(self, follow: bool = False, tail: int | None = None, since: str = "", until: str = "") -> RemoteLog:
        """What it wrote: the last `tail` lines (None: all), with `follow` also those to come until it ends.

        Raises Conflict (its log driver keeps nothing), NotFound, InvalidParameter.
        """
        query = {
            "stdout": True,
            "stderr": True,
            "timestamps": True,
            "details": True,
            "follow": follow,
            "tail": "all" if tail is None else str(tail),
            "since": since,
            "until": until,
        }
        return RemoteLog(self._session.stream("GET", f"{self._path}/logs", query))

    # its files

    def diff(self) -> list[dict[str, Any]]:
        """What it has changed: `[{"Path": "/etc/x", "Kind": 0}]`. Raises NotFound."""
        return list(self._session.json("GET", f"{self._path}/changes") or ())

    def export(self) -> Iterator[bytes]:
        """Its root file system as a tar archive, in pieces. Raises NotFound, System, also in the middle."""
        with self._session.stream("GET", f"{self._path}/export") as stream:
            yield from stream

    def commit(
        self,
        name: str = "",
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        config: Mapping[str, Any] | None = None,
    ) -> str:
        """Make an image of it as it is now, and return the image's id ("sha256:...")."""
        repository, tag = split(name)
        query = {
            "container": self.id,
            "repo": repository,
            "tag": tag,
            "author": author,
            "comment": message,
            "changes": list(changes),
            "pause": "1" if pause else "0",
        }
        return str(self._session.json("POST", "/commit", query, config)["Id"])

    def copy_in(
        self,
        source: str,
        path: str,
        *,
        follow: bool = False,
        archive: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Copied:
        """Copy a file or directory of this machine into it, as `docker cp SOURCE CONTAINER:PATH`. See the engine's own."""
        return Copier(self).copy_in(None, self.name, source, path, follow, archive, progress)

    def copy_out(
        self,
        path: str,
        target: str,
        *,
        follow: bool = False,
        archive: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Copied:
        """Copy a file or directory of it to this machine, as `docker cp CONTAINER:PATH TARGET`. See the engine's own."""
        return Copier(self).copy_out(None, self.name, path, target, follow, archive, progress)

    def open(self, _record: object, _reference: str) -> _Files:
        """For `Copier`: its files."""
        return _Files(self)

    def stat_path(self, path: str) -> PathStat:
        """What is at a path of it. Raises NotFound, InvalidParameter."""
        try:
            with self._session.stream("HEAD", f"{self._path}/archive", {"path": path}) as stream:
                return _stat(stream)
        except SampanError:
            found, archive = self.get_archive(path)  # the answer to a HEAD has no words, this has them
            archive.close()
            return found

    def get_archive(self, path: str) -> tuple[PathStat, RemoteArchive]:
        """What is at a path of it, and a tar archive of that in pieces; to be read to its end or closed."""
        stream = self._session.stream("GET", f"{self._path}/archive", {"path": path})
        return _stat(stream), RemoteArchive(stream)

    def put_archive(
        self, path: str, stream: bytes | Readable, *, keep_kinds: bool = False, owned_by_user: bool = False
    ) -> None:
        """Put what is in a tar archive, compressed or not, into a directory of it."""
        body = Pieces([stream]) if isinstance(stream, bytes) else stream
        query = {"path": path, "noOverwriteDirNonDir": keep_kinds, "copyUIDGID": owned_by_user}
        self._session.ask("PUT", f"{self._path}/archive", query, body, {"Content-Type": "application/x-tar"})

    # its programs

    def attach(
        self, stdin: bool = False, stdout: bool = True, stderr: bool = True, running: bool = False
    ) -> RemoteAttachment:
        """Listen to its own process from now on; if it does not run, to its next start, or with `running` raise Conflict."""
        if running and self.status not in ("running", "paused", "restarting"):
            raise Conflict("You cannot attach to a stopped container, start it first")
        return self._attach(stdin, stdout, stderr, "next-exit")

    def _attach(self, stdin: bool, stdout: bool, stderr: bool, condition: str) -> RemoteAttachment:
        query = {"stream": True, "stdin": stdin, "stdout": stdout, "stderr": stderr}
        hijacked = self._session.hijack(f"{self._path}/attach", query)
        try:
            # Its header comes when the server listens: no exit from here on is missed.
            end = self._session.stream("POST", f"{self._path}/wait", {"condition": condition})
        except BaseException:
            hijacked.socket.close()
            raise
        return _ContainerAttachment(hijacked, end, self.resize)

    def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size. Raises Conflict if it does not run."""
        self._session.ask("POST", f"{self._path}/resize", {"h": str(rows), "w": str(columns)})

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
    ) -> RemoteAttachment:
        """Start another process in it; the connection to its streams. Raises Conflict if it does not run, StartFailed."""
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
        return self.exec_begin(self.exec_create(request), detach, size)[1]

    def exec_create(self, request: ExecRequest) -> str:
        """Put an exec down for `exec_begin`; its id. Raises Conflict, InvalidParameter."""
        body = {
            "Cmd": list(request.command),
            "User": request.user,
            "WorkingDir": request.workdir,
            "Env": list(request.environment),
            "Tty": request.tty,
            "AttachStdin": request.stdin,
            "AttachStdout": request.stdout,
            "AttachStderr": request.stderr,
            "Privileged": request.privileged,
            "DetachKeys": request.detach_keys,
            **({"ConsoleSize": list(request.size)} if request.size != (0, 0) else {}),
        }
        return str(self._session.json("POST", f"{self._path}/exec", body=body)["Id"])

    def exec_begin(
        self, exec_id: str, detach: bool = False, size: tuple[int, int] = (0, 0)
    ) -> tuple[ExecRequest, RemoteAttachment]:
        """Start what `exec_create` has put down: the request, and the connection to its streams.

        Raises NotFound, Conflict (it was started before, the container does not run), StartFailed.
        """
        request = _request(self.exec_inspect(exec_id))
        body = {"Detach": detach, "Tty": request.tty, **({"ConsoleSize": list(size)} if size != (0, 0) else {})}
        path = f"/exec/{exec_id}"

        def ended() -> dict[str, Any] | None:
            try:
                code = self.exec_inspect(exec_id)["ExitCode"]
            except SampanError:
                return None
            return None if code is None else {"exit_code": int(code)}

        def resized(rows: int, columns: int) -> None:
            self.exec_resize(exec_id, rows, columns)

        if detach:
            self._session.ask("POST", f"{path}/start", body=body)
            inner, outer = socket.socketpair()
            inner.close()  # nothing comes over it
            return request, RemoteAttachment(Hijacked(outer, ""), ended, resized, exec_id)
        hijacked = self._session.hijack(f"{path}/start", None, body, _ANSWERED)
        return request, RemoteAttachment(hijacked, ended, resized, exec_id)

    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        """`GET /exec/{id}/json`. Raises NotFound, also after the container's end."""
        found: dict[str, Any] = self._session.json("GET", f"/exec/{exec_id}/json")
        return found

    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Give the terminal of an exec another size. Raises NotFound, Conflict if it does not run, InvalidParameter if it has none."""
        self._session.ask("POST", f"/exec/{exec_id}/resize", {"h": str(rows), "w": str(columns)})

    def exec(self, cmd: str | Sequence[str], *, input: bytes | str | None = None, **options: Any) -> ExecResult:
        """Run another process in it to its end, with `input` as its standard input; options as `exec_start`."""
        from sampan.engine.results import collect

        return collect(self.exec_start(cmd, stdin=input is not None, **options), input)


class _ContainerAttachment(RemoteAttachment):
    """Of a container's own process: how it ended comes over a connection of its own."""

    def __init__(self, hijacked: Hijacked, end: Stream, resize: Callable[[int, int], object]) -> None:
        super().__init__(hijacked, self._told, resize)
        self._end = end

    def _told(self) -> dict[str, Any] | None:
        try:
            return {"exit_code": _exit_code(jsontext.loads(self._end.read()))}
        except (SampanError, ValueError):
            return None

    def close(self) -> None:
        super().close()
        self._end.close()


class RemoteArchive:
    """An archive in pieces, as it comes. Ends, closes itself, at the end and after an error; else by `close()` or `with`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self._stream.piece()
        if not piece:
            raise StopIteration
        return piece

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Files:
    """A container's files, for `Copier`: each operation is a request."""

    def __init__(self, container: RemoteContainer) -> None:
        self._container = container

    def stat(self, path: str) -> PathStat:
        return self._container.stat_path(path)

    def get(self, path: str) -> tuple[PathStat, RemoteArchive]:
        return self._container.get_archive(path)

    def put(self, path: str, stream: Readable, keep_kinds: bool = False, owned_by_user: bool = False) -> None:
        self._container.put_archive(path, stream, keep_kinds=keep_kinds, owned_by_user=owned_by_user)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _stat(stream: Stream) -> PathStat:
    try:
        return PathStat.from_shown(jsontext.loads(base64.b64decode(stream.headers[_STAT])))
    except (KeyError, ValueError) as e:
        stream.close()
        raise System(f"the server says nothing of the path (X-Docker-Container-Path-Stat: {e})") from None


def _exit_code(answer: dict[str, Any]) -> int:
    error = (answer.get("Error") or {}).get("Message")
    if error:
        raise System(str(error))
    return int(answer["StatusCode"])


def _request(shown: dict[str, Any]) -> ExecRequest:
    """What `inspect` says of an exec that was put down."""
    process = shown["ProcessConfig"]
    return ExecRequest(
        command=(process["entrypoint"], *(process["arguments"] or ())),
        user=process.get("user") or "",
        tty=process["tty"],
        stdin=shown["OpenStdin"],
        privileged=bool(process.get("privileged")),
        stdout=shown["OpenStdout"],
        stderr=shown["OpenStderr"],
    )
