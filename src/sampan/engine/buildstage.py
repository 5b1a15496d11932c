"""One stage built: its instructions carried out in their order, on files (`buildsteps`) and on a configuration (`oci.changes`).

A step's key in the cache is made of the key of the files that it begins with and of all that it uses itself: the command with its
environment, user and directory, or the digests of what is copied. The configuration of the image is never taken from the
cache: it is computed each time, so that two files that differ only in HEALTHCHECK or ONBUILD cannot give one image.
"""

from __future__ import annotations

import os
import posixpath
from contextlib import contextmanager, nullcontext

from sampan.build import addresses, reading, runmounts, stages
from sampan.build.instructions import Arg, Copy, Maintainer, Run, Shell
from sampan.build.patterns import Ignore
from sampan.build.scope import EPOCH, PROXIES, Scope
from sampan.build.source import DockerfileError
from sampan.engine import buildcopy, buildmounts, times
from sampan.engine.buildahead import ReadAhead
from sampan.engine.buildcaching import EARLIEST, step_key
from sampan.engine.buildcopying import Copying, Sources
from sampan.engine.buildexplain import Ingredients
from sampan.engine.buildfiles import FileTree
from sampan.engine.buildmounts import RunMounts
from sampan.errors import InvalidParameter, SampanError
from sampan.oci import changes, words
from sampan.oci.process import DEFAULT_PATH, SHELL
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import Any, Protocol

    from sampan.build.instructions import Instruction
    from sampan.build.parser import Node
    from sampan.build.source import Source
    from sampan.build.stages import Planned
    from sampan.engine.buildcaching import FileSystem
    from sampan.engine.buildcontexts import Contexts
    from sampan.engine.buildcopying import Ahead
    from sampan.engine.buildmounts import Secret, Workplaces
    from sampan.engine.buildsteps import Steps
    from sampan.engine.container import Container
    from sampan.engine.images import Image

    class Watcher(Protocol):
        """Who is told how a build goes. A step has a number; `output` is what its command writes, `note` what there is to know of it.

        `runs` is told of the container of a RUN before it is started, so that a build which nobody wants any more can be ended.
        """

        def begin(self, title: str) -> int: ...
        def runs(self, container: Container) -> None: ...
        def output(self, step: int, data: bytes) -> None: ...
        def note(self, step: int, text: str) -> None: ...
        def done(self, step: int, cached: bool = False) -> None: ...
        def failed(self, step: int, message: str) -> None: ...

    Stored = tuple[Callable[[bytes], None], Mapping[str, Any]]


ENTITLEMENTS = ("network.host", "security.insecure")
"""What a Dockerfile gets of the machine only if whoever builds it says so (`--allow`)."""


_HOSTNAME = "buildkitsandbox"


class BuildFailed(SampanError):
    """An instruction failed. `excerpt`: its lines in the Dockerfile; `error`: what happened."""

    def __init__(self, error: SampanError, excerpt: str) -> None:
        super().__init__(str(error))
        self.error = error
        self.excerpt = excerpt
        self.http_status = error.http_status


class Built(Struct):
    """What a stage came to. history: of the whole image, oldest first. consumed: which of --build-arg its ARGs have asked for."""

    files: FileSystem
    config: dict[str, Any]
    history: tuple[Mapping[str, Any], ...]
    author: str
    consumed: frozenset[str] = frozenset()


class Settings(Struct):
    """What all stages of a build share.

    given: --build-arg. above: the variables that ARGs find. host: `HostConfig` of RUN's containers. secrets: by their ids.
    allowed: of `ENTITLEMENTS`. no_cache: names of stages whose steps are all done. explains: say why a step was not found in the cache.
    """

    source: Source
    escape: str
    given: Mapping[str, str]
    above: Mapping[str, str]
    host: Mapping[str, Any]
    use_cache: bool
    context: FileTree
    secrets: Mapping[str, Secret]
    allowed: frozenset[str]
    workplaces: Workplaces
    contexts: Contexts
    no_cache: frozenset[str] = frozenset()
    explains: bool = False


class StageBuilder:
    """Builds one stage. `built`: the stages before it, by number. `find_image`: an image by its name."""

    def __init__(
        self,
        planned: Planned,
        settings: Settings,
        steps: Steps,
        watcher: Watcher,
        built: Mapping[int, Built],
        find_stage: Callable[[str], int | None],
        find_image: Callable[[str, str], Image],
        many: bool,
    ) -> None:
        self._stage = planned.stage
        self._planned = planned
        self._settings = settings
        self._steps = steps
        self._watcher = watcher
        self._built = built
        self._find_stage = find_stage
        self._find_image = find_image
        self._label = (self._stage.name or (f"stage-{self._stage.index}" if many else "")) + " "
        self._label = self._label.lstrip()
        named = {self._stage.name, str(self._stage.index)} - {""}
        self._uses_cache = settings.use_cache and not named & settings.no_cache
        self._counted = 1
        self._total = 1
        self._again = ""  # the last step that was not found in the cache
        self._author = ""
        self._history: list[Mapping[str, Any]] = []
        self._scope = Scope(settings.given, settings.above, settings.escape)
        self._epoch = _epoch(settings.given.get(EPOCH, ""))
        self._dates = [built[i].files.date for i in planned.needs if i in built]

    def build(self) -> Built:
        """Carry out the stage. Raises `BuildFailed` with the instruction's lines."""
        head = self._stage.head
        with self._told(head.node):
            config = self._begin()
        self._state = changes.State(config, self._scope.values, self._settings.escape)
        body = [*self._of_context(head.node), *self._triggers(head.node), *self._stage.body]
        self._total = 1 + sum(isinstance(one, (Run, Copy)) or one.node.key == "workdir" for one in body)
        step = self._watcher.begin(self._title(f"FROM {self._planned.base}"))
        self._watcher.done(step, cached=True)
        self._ahead = ReadAhead(self._settings.context, body)
        try:
            for instruction in body:
                with self._told(instruction.node):
                    self._carry_out(instruction)
        finally:
            self._ahead.close()
        consumed = frozenset(self._scope.consumed)
        return Built(self._files, self._state.config, tuple(self._history), self._author, consumed)

    def _told(self, node: Node) -> AbstractContextManager[None]:
        return _told(node, self._settings.source)

    # FROM

    def _begin(self) -> dict[str, Any]:
        base = self._planned.base
        if isinstance(base, int):
            found = self._built[base]
            self._files, self._history, self._author = found.files, list(found.history), found.author
            return dict(found.config)
        if base == stages.SCRATCH:
            self._files = self._steps.scratch(max([EARLIEST, *self._dates]) if self._epoch is None else self._epoch)
            return {"Env": [f"PATH={DEFAULT_PATH}"], "WorkingDir": "/"}
        named = self._settings.contexts.named(base)
        if isinstance(named, FileTree):
            self._files = self._steps.scratch(EARLIEST if self._epoch is None else self._epoch)
            return {"Env": [f"PATH={DEFAULT_PATH}"], "WorkingDir": "/"}
        image = self._find_image(named or base, self._planned.platform)
        self._files = self._steps.of_image(image, self._date_of(image))
        self._history = list(self._files.history)
        self._author = str(image.document.get("author") or "")
        return _with_path(image.config)

    def _date_of(self, image: Image) -> int:
        """The date of what is built on an image: SOURCE_DATE_EPOCH, else that of the image, for nothing in the result is to tell when it was built."""
        if self._epoch is not None:
            return self._epoch
        try:
            return max(EARLIEST, times.parse(str(image.document.get("created"))) // 1_000_000_000)
        except ValueError:
            return EARLIEST

    def _of_context(self, node: Node) -> Iterator[Instruction]:
        """A stage FROM a context that is no image begins with a copy of it."""
        base = self._planned.base
        if isinstance(base, str) and isinstance(self._settings.contexts.named(base), FileTree):
            yield Copy(node.replace(name="COPY", flags=(f"--from={base}",), rest=". /"), (".",), "/", from_=base)

    def _triggers(self, node: Node) -> Iterator[Instruction]:
        """What the ONBUILD instructions of the base say, which are carried out once."""
        if isinstance(self._planned.base, int):
            self._state.config.pop("OnBuild", None)
        for text in self._state.config.pop("OnBuild", None) or ():
            yield reading.trigger(text, self._settings.escape, node, self._settings.source)

    # Instructions

    def _carry_out(self, instruction: Instruction) -> None:
        node = instruction.node
        if isinstance(instruction, Run):
            self._run(instruction)
        elif isinstance(instruction, Copy):
            self._copy(instruction)
        elif isinstance(instruction, Arg):
            self._scope.declare(instruction, words.environment(self._state.config.get("Env") or []))
            self._note(f"ARG {node.rest}")
        elif isinstance(instruction, Shell):
            self._state.config["Shell"] = list(instruction.command)
            self._note(f"SHELL {_listed(instruction.command)}")
        elif isinstance(instruction, Maintainer):
            self._author = instruction.author
            self._note(f"MAINTAINER {instruction.author}")
        else:
            self._state.carry_out(node.name, tuple(flag.removeprefix("--") for flag in node.flags), node.rest)
            self._note_setting(node)

    def _note_setting(self, node: Node) -> None:
        config = self._state.config
        if node.key == "workdir":
            self._workdir(config["WorkingDir"])
        elif node.key in ("cmd", "entrypoint"):
            value = config.get("Cmd" if node.key == "cmd" else "Entrypoint")
            self._note(f"{node.key.upper()} {_listed(value or ())}")
        else:
            flags = "".join(f"{flag} " for flag in node.flags)
            self._note(f"{node.key.upper()} {flags}{node.rest}")

    def _note(self, created_by: str) -> None:
        """A line of the image's history for what changed no file."""
        self._history.append({**self._entry(created_by), "empty_layer": True})

    def _entry(self, created_by: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"created": self._files.created, "created_by": created_by}
        if self._author:
            entry["author"] = self._author
        return entry

    def _title(self, text: str) -> str:
        return f"[{self._label}{self._counted}/{self._total}] {text}"

    def _step(
        self, title: str, created_by: str, depends: Mapping[str, Any], make: Callable[[str, Stored], FileSystem]
    ) -> None:
        """One step that may change files: from the cache, or made."""
        before = self._files
        self._counted += 1
        shown = self._title(title)
        step = self._watcher.begin(shown)
        made_of = Ingredients(title, before.image, before.date, str(before.platform), before.key, dict(depends))
        key = step_key(made_of)
        after = self._found(step, key) if self._uses_cache else None
        cached = after is not None
        if not cached:
            if self._settings.explains:
                for reason in self._why_not(made_of):
                    self._watcher.note(step, f"not cached: {reason}")
            self._again = shown.split("\n", 1)[0]
        entry = self._entry(created_by)
        if after is None:
            try:
                after = make(key, (lambda data: self._watcher.output(step, data), entry))
            except SampanError as e:
                self._watcher.failed(step, str(e))
                raise
            self._steps.cache.note(key, made_of)
        self._watcher.done(step, cached)
        self._files = after
        if len(after.diff_ids) > len(before.diff_ids):
            self._history.append(entry)
        else:
            self._note(created_by)

    def _found(self, step: int, key: str) -> FileSystem | None:
        return self._steps.cache.find(self._files, key, lambda text: self._watcher.note(step, f"WARNING: {text}"))

    def _why_not(self, made_of: Ingredients) -> list[str]:
        if self._uses_cache:
            return self._steps.cache.explain(made_of, self._again)
        return ["the cache is not used: --no-cache" + ("-filter" if self._settings.use_cache else "")]

    # RUN

    def _run(self, run: Run) -> None:
        self._check_allowed(run)
        config = self._state.config
        shell = tuple(config.get("Shell") or SHELL)
        command = (*shell, *run.command) if run.is_shell else run.command
        if run.script is not None:
            command = (f"{buildmounts.SCRIPTS}/{os.path.basename(run.script.name)}",)
        arguments = {k: v for k, v in self._scope.values.items() if k not in PROXIES}
        environment = {**arguments, **words.environment(config.get("Env") or [])}
        proxies = {k: v for k, v in self._settings.given.items() if k in PROXIES and k not in environment}
        host = {**self._settings.host, "LogConfig": {"Type": "none", "Config": {}}}
        if run.network != "default":
            host["NetworkMode"] = run.network
        if run.security == "insecure":
            host["Privileged"] = True
        mounts = self._mounts(run)
        request = {
            "Cmd": list(command),
            "Entrypoint": [],
            "User": config.get("User") or "",
            "WorkingDir": config.get("WorkingDir") or "/",
            "HostConfig": host,
            # BuildKit's: with a name of its own each time no command that writes it down could be reproducible.
            "Hostname": _HOSTNAME,
        }
        depends: dict[str, Any] = {
            "run": dict(request),
            "environment": [f"{k}={v}" for k, v in environment.items()],
        }
        if mounts is not None:
            depends["mounts"] = mounts.depends()
        if run.script is not None:
            depends["script"] = run.script.content
        # What compilers and packers take for the time, so that what they make is the same on another day.
        dated = {EPOCH: str(self._files.date)}
        request["Env"] = [f"{k}={v}" for k, v in {**dated, **proxies, **environment}.items()]
        before = self._files

        def make(key: str, to: Stored) -> FileSystem:
            self._write_ahead(run, self._steps.cache.knows(key))
            return self._steps.run(before, key, request, command, to[0], to[1], self._watcher.runs, mounts)

        counted = f"|{len(arguments)} {' '.join(f'{k}={v}' for k, v in arguments.items())} " if arguments else ""
        self._step(
            f"RUN {''.join(f'{flag} ' for flag in run.node.flags)}{run.node.rest}",
            f"RUN {counted}{run.script.content if run.script is not None else ' '.join(command)}",
            depends,
            make,
        )

    def _write_ahead(self, run: Run, again: bool) -> None:
        """While a command runs, have the COPY after it written. again: the command was done before, and so most probably is what comes after it."""
        copy = self._ahead.next_copy(run)
        if copy is None:
            return
        before, directory = self._files, self._absolute(copy.destination)

        def action(ahead: Ahead) -> Copying:
            sources = Sources(copy, self._settings.context, self._settings.contexts)
            return Copying(copy, sources.taken, False, directory, before.date, ahead)

        self._ahead.write(copy, action, lambda copying, going: self._steps.prepare(before, copying, again, going))

    def _check_allowed(self, run: Run) -> None:
        wanted = {"network.host": run.network == "host", "security.insecure": run.security == "insecure"}
        if self._settings.host.get("NetworkMode") == "host":
            wanted["network.host"] = False  # Whoever builds has said so already.
        for name in ENTITLEMENTS:
            if wanted[name] and name not in self._settings.allowed:
                raise InvalidParameter(
                    f"{name} is not allowed: if you trust this Dockerfile, build with --allow {name}"
                )

    def _mounts(self, run: Run) -> RunMounts | None:
        if not run.mounts and run.script is None:
            return None
        variables, escape = self._state.variables(), self._settings.escape
        return RunMounts(
            [runmounts.parse(text, lambda value: words.expand(value, variables, escape)) for text in run.mounts],
            self._state.config.get("WorkingDir") or "/",
            run.script,
            self._settings.secrets,
            self._origin,
            self._tree_of,
            self._settings.workplaces,
        )

    # WORKDIR

    def _workdir(self, path: str) -> None:
        before = self._files

        def make(key: str, to: Stored) -> FileSystem:
            return self._steps.change(before, key, buildcopy.Directory(path), to[1])

        self._step(f"WORKDIR {path}", f"WORKDIR {path}", {"workdir": path}, make)

    # COPY and ADD

    def _copy(self, copy: Copy) -> None:
        expanded = self._expanded(copy)
        verb = copy.node.key.upper()
        shown = [addresses.redacted(source) for source in expanded.sources]
        shown += [f"<<{heredoc.name}" for heredoc in expanded.files]
        flags = "".join(f"{flag} " for flag in copy.node.flags)
        title = f"{verb} {flags}{' '.join(shown)} {expanded.destination}"
        with self._opened(copy.from_) as tree:
            sources = Sources(expanded, tree, self._settings.contexts)
            action = Copying(
                expanded,
                sources.taken,
                from_image=self._keeps_owners(copy.from_),
                directory=self._absolute(expanded.destination),
                date=self._files.date,
                ahead=self._ahead,
            )
            before = self._files

            def make(key: str, to: Stored) -> FileSystem:
                return self._steps.change(before, key, action, to[1])

            self._step(title, title, {"copy": action.depends()}, make)

    def _keeps_owners(self, name: str) -> bool:
        """Whether what --from means has owners of its own: what is from the caller's disk is root's."""
        return bool(name) and not isinstance(self._settings.contexts.named(name), FileTree)

    def _expanded(self, copy: Copy) -> Copy:
        variables, escape = self._state.variables(), self._settings.escape

        def expand(text: str) -> str:
            return words.expand(text, variables, escape)

        files = tuple(
            one.replace(content=words.expand_text(one.content, variables, escape)) if one.expand else one
            for one in copy.files
        )
        return copy.replace(
            sources=tuple(expand(source) for source in copy.sources),
            destination=expand(copy.destination),
            files=files,
            chown=expand(copy.chown),
            chmod=expand(copy.chmod),
            checksum=expand(copy.checksum),
            exclude=tuple(expand(pattern) for pattern in copy.exclude),
        )

    def _absolute(self, path: str) -> str:
        joined = posixpath.join("/", self._state.config.get("WorkingDir") or "/", path)
        return joined.rstrip("/") + "/" if path.endswith(("/", "/.")) or path == "." else joined

    def _opened(self, name: str) -> AbstractContextManager[FileTree]:
        """The files that --from means; the context without one."""
        origin = self._origin(name)
        return nullcontext(origin) if isinstance(origin, FileTree) else self._tree_of(origin)

    def _origin(self, name: str) -> FileSystem | FileTree:
        """What a `from` names: the context for "", a stage, an image."""
        if not name:
            return self._settings.context
        named = self._settings.contexts.named(name)
        if isinstance(named, FileTree):
            return named
        if named is not None:
            return self._steps.of_image(self._find_image(named, ""), EARLIEST)
        number = self._find_stage(name)
        if number is not None:
            return self._built[number].files
        return self._steps.of_image(self._find_image(name, ""), EARLIEST)

    @contextmanager
    def _tree_of(self, files: FileSystem) -> Iterator[FileTree]:
        with self._steps.reading(files) as root:
            yield FileTree(root, Ignore())


def _with_path(config: Mapping[str, Any]) -> dict[str, Any]:
    """As BuildKit: a base without a PATH gets the usual one, so that `ENV PATH=/x:$PATH` means what everybody thinks it does."""
    environment = list(config.get("Env") or [])
    if "PATH" not in words.environment(environment):
        environment.append(f"PATH={DEFAULT_PATH}")
    return {**config, "Env": environment}


def _listed(command: Any) -> str:
    """As BuildKit shows a list in a history: ["a" "b"]."""
    return "[" + " ".join(words.quoted(word) for word in command) + "]"


def _epoch(text: str) -> int | None:
    """SOURCE_DATE_EPOCH, None if it is not set. Raises `InvalidParameter`."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise InvalidParameter(f"invalid {EPOCH}: {text!r} is no number of seconds")
    return int(text)


@contextmanager
def _told(node: Node, source: Source) -> Iterator[None]:
    """What fails inside is told with the instruction's lines."""
    try:
        yield
    except (BuildFailed, DockerfileError):
        raise
    except SampanError as e:
        raise BuildFailed(e, source.excerpt(node.first, node.last)) from e
