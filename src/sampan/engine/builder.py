"""`build`: a Dockerfile and a context become an image; `check`: what BuildKit's rules say of the Dockerfile.

request -> source, ignore file -> build.reading -> build.stages (what the target needs) -> a StageBuilder for each -> the image
"""

from __future__ import annotations

import os

from sampan.build import lint, reading, rules, stages
from sampan.build.instructions import Arg, Run
from sampan.build.scope import KEEP_GIT_DIR, declared_names, unconsumed
from sampan.build.source import Source
from sampan.engine import buildparallel
from sampan.engine.buildcancel import Cancellation, Cancelled
from sampan.engine.buildcontexts import DOCKERFILE, Contexts, read_ignore, read_text
from sampan.engine.buildstage import BuildFailed, Settings, StageBuilder
from sampan.engine.images import new_name
from sampan.errors import InvalidParameter, NotFound, SampanError
from sampan.oci import image as documents
from sampan.oci import platform as platforms
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.build.instructions import Dockerfile
    from sampan.build.parser import Parsed
    from sampan.build.rules import Finding
    from sampan.engine.buildcacheplaces import CacheSource, CacheTarget
    from sampan.engine.buildcontexts import Fetched, Stream
    from sampan.engine.buildexport import Tree
    from sampan.engine.buildfiles import FileTree
    from sampan.engine.buildmounts import Secret, Workplaces
    from sampan.engine.buildstage import Built, Watcher
    from sampan.engine.buildsteps import Steps
    from sampan.engine.images import Image, Images, Lock
    from sampan.engine.registries import Registries
    from sampan.oci.reference import Reference

    class Janitor(Protocol):
        def end_builds(self) -> None: ...

    class Told(Watcher, Protocol):
        """Who is told how a build goes, and what the checks found; `tell`: what is of no step, a line of text."""

        def warn(self, findings: Sequence[Finding], source: Source) -> None: ...
        def tell(self, text: str) -> None: ...


_MANY = 3
"""Commands from which on a process that forks their monitors costs less than an interpreter for each."""


class BuildRequest(Struct):
    """What is to be built.

    context: a directory, the address of an archive, a Dockerfile or a git repository, "" for none. stream: an archive or a Dockerfile
    instead, to be read. dockerfile: its path, "" for the context's own; in a context that is no directory a path in that. text: the
    Dockerfile itself, None to read the file. tags: names of the image. arguments, labels: as --build-arg and --label say. target: a stage. platform: "" for this
    machine's. host: parts of a `HostConfig` for the containers of RUN. use_cache: False builds every step. pull: bases come from their registries also
    if they are in the store. secrets: for RUN --mount=type=secret. allowed: what RUN may ask for, of `buildstage.ENTITLEMENTS`.
    exports: who is given the files of the result (`buildexport.Tree`). store: whether the store gets the image. no_cache: names of stages whose steps are all done.
    at_once: stages that may be built at the same time; with more than one the watcher is called by several threads. cancellation: by which somebody may end it.
    contexts: what names of --from and FROM stand for: a directory, an address, docker-image://NAME. cache_from, cache_to: caches beside the store's own.
    explains: the watcher is told why a step was not found in the cache. verify: every step is done, all of it twice, and the results have to be the same.
    """

    context: str
    dockerfile: str = ""
    text: str | None = None
    tags: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    target: str = ""
    platform: str = ""
    host: tuple[tuple[str, Any], ...] = ()
    use_cache: bool = True
    pull: bool = False
    secrets: tuple[Secret, ...] = ()
    allowed: tuple[str, ...] = ()
    contexts: tuple[tuple[str, str], ...] = ()
    stream: Stream | None = None
    exports: tuple[Callable[[Tree], None], ...] = ()
    store: bool = True
    no_cache: tuple[str, ...] = ()
    at_once: int = 1
    cancellation: Cancellation | None = None
    cache_from: tuple[CacheSource, ...] = ()
    cache_to: tuple[CacheTarget, ...] = ()
    explains: bool = False
    verify: bool = False


class ChecksFailed(InvalidParameter):
    """The Dockerfile says `check=error=true`, and the rules found something."""


class Builder:
    """`POST /build`."""

    def __init__(
        self,
        begin: Callable[[], Steps],
        images: Images,
        lock: Lock,
        janitor: Janitor,
        workplaces: Workplaces,
        attend: Callable[[bool], None],
        registries: Callable[[], Registries],
    ) -> None:
        """`begin` gives the steps of one build, `attend` says that many containers are to be started (`Engine.attend`): True if they surely are;
        `registries` gives whoever is asked for bases unless the build says so."""
        self._begin = begin
        self._attend = attend
        self._registries = registries
        self._janitor = janitor
        self._workplaces = workplaces
        self._images = images
        self._lock = lock

    def check(self, request: BuildRequest) -> tuple[list[Finding], Source]:
        """What the rules find; nothing is built. Raises `DockerfileError`, `InvalidParameter`."""
        with self._contexts(request, Cancellation()) as contexts:
            read = self._read(request, contexts)
            self._plan(read, request)
            return self._findings(read, request), read.source

    def build(self, request: BuildRequest, watcher: Told, registries: Registries | None = None) -> str:
        """Build, and return the image's id, "" if none was asked for. What is wrong in the request or the Dockerfile is told before anything is built.

        Raises `DockerfileError`, `BuildFailed` (with the lines of what failed), `InvalidParameter`, `NotFound`, `System`, `NotReproducible`. What failed
        leaves nothing but the steps that were done, in the cache.
        """
        names = [new_name(tag) for tag in request.tags]
        self._workplaces.collect_garbage()
        with self._contexts(request, request.cancellation or Cancellation()) as contexts:
            read = self._read(request, contexts)
            plan = self._plan(read, request)
            self._foresee(plan, request)
            return self._carried_out(read, plan, request, names, watcher, contexts, registries)

    def _foresee(self, plan: stages.Plan, request: BuildRequest) -> None:
        """Say how much is to be started, before the rest: what forks the monitors comes up meanwhile."""
        if sum(isinstance(one, Run) for planned in plan.stages for one in planned.stage.body) >= _MANY:
            self._attend(request.verify or not request.use_cache)

    def _carried_out(
        self,
        read: _Read,
        plan: stages.Plan,
        request: BuildRequest,
        names: Sequence[Reference],
        watcher: Told,
        contexts: Contexts,
        registries: Registries | None,
    ) -> str:
        # The containers of builds that were killed.
        self._janitor.end_builds()
        cancellation = contexts.cancellation
        with self._begin() as steps:
            steps.cancellation = cancellation
            find_image = self._finder(watcher, request.pull, registries, cancellation)
            built = self._built(read, plan, request, watcher, contexts, steps, find_image)
            # Also of one whose steps were all in the cache.
            cancellation.check()
            if request.exports:
                step = watcher.begin("exporting files")
                for export in request.exports:
                    export(steps.tree(built.files))
                watcher.done(step)
            return self._exported(built, request, names, watcher) if request.store else ""

    def _exported(self, built: Built, request: BuildRequest, names: Sequence[Reference], watcher: Told) -> str:
        step = watcher.begin("exporting to image")
        # With its first name at once: what has none may be pruned at any moment.
        image = self._publish(built, request, names[0] if names else None)
        for name in names[1:]:
            self._images.tag(image.id, str(name))
        if names:
            self._images.announce_tag(image, names[0])
        watcher.output(step, f"writing image {image.id}\n".encode())
        for name in names:
            watcher.output(step, f"naming to {name}\n".encode())
        watcher.done(step)
        return image.id

    def _built(
        self,
        read: _Read,
        plan: stages.Plan,
        request: BuildRequest,
        watcher: Told,
        contexts: Contexts,
        steps: Steps,
        find_image: Callable[[str, str], Image],
    ) -> Built:
        findings = self._findings(read, request)
        if findings:
            watcher.warn(findings, read.source)
            if rules.settings(read.parsed.directives.get("check", "")).error:
                raise ChecksFailed("lint violation found for rules: " + ", ".join(sorted({f.rule for f in findings})))
        context = contexts.local(read.context, read.ignore) if read.context else contexts.empty()
        if request.cache_from:
            from sampan.engine import buildcacheplaces

            steps.cache.take(buildcacheplaces.opened(request.cache_from, watcher))

        def build() -> dict[int, Built]:
            return self._build(read, plan, request, context, watcher, contexts, steps, find_image)

        built = build()
        result = built[plan.target.stage.index]
        steps.flush(result.files)
        if left := self._unconsumed(request, read, plan, built):
            watcher.tell(left)
        if request.verify:
            self._verify(result, lambda: self._again(build, plan, steps), steps, watcher)
        if request.cache_to:
            from sampan.engine import buildcacheplaces

            buildcacheplaces.export(request.cache_to, result, built.values(), steps.cache, steps.open_layer, watcher)
        return result

    def _unconsumed(self, request: BuildRequest, read: _Read, plan: stages.Plan, built: Mapping[int, Built]) -> str:
        """As the classic builder, which does all stages up to the target: that one is not needed makes none of its ARGs a mistake."""
        consumed = set(declared_names(read.dockerfile.arguments))
        for stage in read.dockerfile.stages[: plan.target.stage.index]:
            consumed.update(declared_names([one for one in stage.body if isinstance(one, Arg)]))
        # What was carried out: also names that variables have made, and the ARGs of a base's ONBUILD.
        consumed.update(*(one.consumed for one in built.values()))
        return unconsumed(dict(request.arguments), consumed)

    def _again(self, build: Callable[[], dict[int, Built]], plan: stages.Plan, steps: Steps) -> Built:
        result = build()[plan.target.stage.index]
        steps.flush(result.files)
        return result

    def _verify(self, first: Built, again: Callable[[], Built], steps: Steps, watcher: Told) -> None:
        from sampan.engine import buildverify

        step = watcher.begin("verifying: the same once more")
        try:
            buildverify.check(first, again(), steps.open_layer)
        except buildverify.NotReproducible as e:
            watcher.note(step, str(e))
            watcher.done(step)
            raise
        except SampanError as e:
            watcher.failed(step, str(e))
            raise
        watcher.note(step, "the second build made the same image")
        watcher.done(step)

    def _contexts(self, request: BuildRequest, cancellation: Cancellation) -> Contexts:
        return Contexts(self._workplaces, {name.lower(): value for name, value in request.contexts}, cancellation)

    def _read(self, request: BuildRequest, contexts: Contexts) -> _Read:
        keep_git_dir = dict(request.arguments).get(KEEP_GIT_DIR, "") in ("1", "true")
        return _Read(request, contexts.fetch(request.context, request.stream, keep_git_dir))

    def _plan(self, read: _Read, request: BuildRequest) -> stages.Plan:
        here = platforms.parse(request.platform) if request.platform else platforms.here()
        if not platforms.here().runs(here):
            raise InvalidParameter(
                f"--platform {here}: this machine is {platforms.here()}, and cannot run programs of another"
            )
        named = frozenset(name.lower() for name, _ in request.contexts)
        return stages.plan(read.dockerfile, read.source, request.target, dict(request.arguments), here, named)

    def _findings(self, read: _Read, request: BuildRequest) -> list[Finding]:
        linter = lint.Linter(
            read.dockerfile,
            read.parsed,
            dict(request.arguments),
            platforms.parse(request.platform) if request.platform else platforms.here(),
            read.ignore,
            self._config_of,
            self._platform_of,
        )
        return linter.run()

    def _config_of(self, name: str) -> Mapping[str, Any] | None:
        """The configuration of a base image that is in the store."""
        image = self._base(name)
        return image.config if image is not None else None

    def _platform_of(self, name: str) -> platforms.Platform | None:
        """The platform of a base image that is in the store."""
        image = self._base(name)
        return documents.parse_config(documents.dump(image.document)).platform if image is not None else None

    def _base(self, name: str) -> Image | None:
        try:
            found = self._images.find(name)
            return self._images.read(found) if found is not None else None
        except SampanError:
            return None

    def _build(
        self,
        read: _Read,
        plan: stages.Plan,
        request: BuildRequest,
        context: FileTree,
        watcher: Told,
        contexts: Contexts,
        steps: Steps,
        find_image: Callable[[str, str], Image],
    ) -> dict[int, Built]:
        settings = Settings(
            read.source,
            read.dockerfile.escape,
            dict(request.arguments),
            plan.variables,
            dict(request.host),
            request.use_cache and not request.verify,
            context,
            {secret.id: secret for secret in request.secrets},
            frozenset(request.allowed),
            self._workplaces,
            contexts,
            frozenset(name.lower() for name in request.no_cache),
            request.explains,
        )
        all_stages = read.dockerfile.stages
        built: dict[int, Built] = {}

        def make(planned: stages.Planned) -> Built:
            def find_stage(name: str) -> int | None:
                # Of those that it waits for: which others are there by now is chance.
                found = stages.find(all_stages, name)
                return found.index if found is not None and found.index in planned.needs else None

            several = len(all_stages) > 1
            return StageBuilder(planned, settings, steps, watcher, built, find_stage, find_image, several).build()

        buildparallel.build(plan.stages, make, built, steps.cancellation, request.at_once)
        return built

    def _finder(
        self, watcher: Told, always: bool, registries: Registries | None, cancellation: Cancellation
    ) -> Callable[[str, str], Image]:
        """What finds a base: in the store, else by a pull; with `always` by a pull, once each."""
        pulled: set[tuple[str, str]] = set()
        import threading

        pulling = threading.Lock()

        def find(name: str, platform: str) -> Image:
            with pulling:
                return found(name, platform)

        def found(name: str, platform: str) -> Image:
            if not always or (name, platform) in pulled:
                try:
                    return self._images.resolve(name, platform)
                except NotFound:
                    pass
            step = watcher.begin(f"[internal] pull {name}")
            try:
                self._pull(name, platform, registries or self._registries(), cancellation)
            except SampanError as e:
                watcher.failed(step, str(e))
                raise
            watcher.done(step)
            pulled.add((name, platform))
            return self._images.resolve(name, platform)

        return find

    def _pull(self, name: str, platform: str, registries: Registries, cancellation: Cancellation) -> None:
        """Raises as `Images.pull`, and `Cancelled`."""
        from sampan.engine.registries import Stopped

        # Those of this pull: whoever shares the others is not to be stopped with it.
        own = registries.again()
        try:
            with cancellation.ending(own.stop):
                self._images.pull(name, platform, registries=own)
        except Stopped:
            raise Cancelled from None
        except SampanError:
            cancellation.check()
            raise

    def _publish(self, built: Built, request: BuildRequest, name: Reference | None) -> Image:
        """The image of the last stage. The same files and the same configuration are the same image."""
        config = dict(built.config)
        history = list(built.history)
        created = built.files.created
        if request.labels:
            labels = dict(request.labels)
            config["Labels"] = {**(config.get("Labels") or {}), **labels}
            text = " ".join(f"{name}={value}" for name, value in labels.items())
            history.append({"created": created, "created_by": f"LABEL {text}", "empty_layer": True})
        document = documents.make_config(
            built.files.platform, created, config, built.files.diff_ids, history, author=built.author
        )
        with self._lock.shared():
            return self._images.publish(document, built.files.layers, name, built.files.image, unpack=False)


class _Read:
    """A request's Dockerfile and ignore file, read and understood."""

    def __init__(self, request: BuildRequest, fetched: Fetched) -> None:
        self.context = fetched.directory
        text = request.text if fetched.text is None else fetched.text.decode("utf-8", "surrogateescape")
        path, name = "", DOCKERFILE
        if text is None:
            path, name = _dockerfile(request.dockerfile, fetched)
            text = _text(path, fetched)
        self.source = Source(name, text)
        self.dockerfile: Dockerfile
        self.parsed: Parsed
        self.dockerfile, self.parsed = reading.read(self.source)
        self.ignore = read_ignore(self.context, path, fetched.ours)


def _dockerfile(given: str, fetched: Fetched) -> tuple[str, str]:
    """The Dockerfile's path, and what messages call it. One that is named for a context that was fetched is in that."""
    if not fetched.directory and not given:
        raise InvalidParameter("failed to read dockerfile: there is no context, and none is named")
    path = os.path.normpath(f"{fetched.directory}/{given}") if fetched.ours and given else given
    if not path:
        path = f"{fetched.directory}/{DOCKERFILE}"
        lower = f"{fetched.directory}/{DOCKERFILE.lower()}"
        path = lower if not os.path.lexists(path) and os.path.lexists(lower) else path
    name = os.path.relpath(path, fetched.directory) if fetched.directory else path
    if name.startswith("..") and fetched.ours:
        raise InvalidParameter(f"failed to read dockerfile: {given} is outside of the context")
    return path, os.path.basename(path) if name.startswith("..") else name


def _text(path: str, fetched: Fetched) -> str:
    try:
        text = read_text(path, fetched.directory if fetched.ours else "")
    except InvalidParameter as e:
        raise InvalidParameter(f"failed to read dockerfile: {e}") from None
    if text is None:
        shown = os.path.relpath(path, fetched.directory) if fetched.ours else path
        raise InvalidParameter(f"failed to read dockerfile: open {shown}: no such file or directory")
    return text


__all__ = ["BuildFailed", "BuildRequest", "Builder", "ChecksFailed"]
