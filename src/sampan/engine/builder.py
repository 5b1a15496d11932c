"""`build`: a Dockerfile and a context become an image; `check`: what BuildKit's rules say of the Dockerfile.

request -> source, ignore file -> build.reading -> build.stages (what the target needs) -> a StageBuilder for each -> the image
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from sampan.build import lint, reading, rules, stages
from sampan.build.patterns import Ignore
from sampan.build.source import Source
from sampan.engine.buildfiles import FileTree
from sampan.engine.buildstage import BuildFailed, Settings, StageBuilder
from sampan.engine.images import new_name
from sampan.errors import InvalidParameter, NotFound, SampanError, System
from sampan.oci import image as documents
from sampan.oci import platform as platforms
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.build.instructions import Dockerfile
    from sampan.build.parser import Parsed
    from sampan.build.rules import Finding
    from sampan.engine.buildmounts import Secret, Workplaces
    from sampan.engine.buildstage import Built, Watcher
    from sampan.engine.buildsteps import Steps
    from sampan.engine.images import Image, Images, Lock

    class Told(Watcher, Protocol):
        """Who is told how a build goes, and what the checks found."""

        def warn(self, findings: Sequence[Finding], source: Source) -> None: ...


_DOCKERFILE = "Dockerfile"
_LIMIT = 4 << 20
"""Bytes of a Dockerfile or of a .dockerignore: far more than anybody writes."""


class BuildRequest(Struct):
    """What is to be built.

    context: a directory, "" for none. dockerfile: its path, "" for the context's own. text: the Dockerfile itself, None to read
    the file. tags: names of the image. arguments, labels: as --build-arg and --label say. target: a stage. platform: "" for this
    machine's. host: parts of a `HostConfig` for the containers of RUN. use_cache: False builds every step. pull: bases come from their registries also
    if they are in the store. secrets: for RUN --mount=type=secret. allowed: what RUN may ask for, of `buildstage.ENTITLEMENTS`.
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


class ChecksFailed(InvalidParameter):
    """The Dockerfile says `check=error=true`, and the rules found something."""


class Builder:
    """`POST /build`."""

    def __init__(self, steps: Steps, images: Images, lock: Lock, workplaces: Workplaces) -> None:
        self._workplaces = workplaces
        self._steps = steps
        self._images = images
        self._lock = lock

    def check(self, request: BuildRequest) -> tuple[list[Finding], Source]:
        """What the rules find; nothing is built. Raises `DockerfileError`, `InvalidParameter`."""
        read = _Read(request)
        self._plan(read, request)
        return self._findings(read, request), read.source

    def build(self, request: BuildRequest, watcher: Told) -> str:
        """Build, and return the image's id. What is wrong in the request or the Dockerfile is told before anything is built.

        Raises `DockerfileError`, `BuildFailed` (with the lines of what failed), `InvalidParameter`, `NotFound`, `System`. What failed
        leaves nothing but the steps that were done, in the cache.
        """
        names = [new_name(tag) for tag in request.tags]
        read = _Read(request)
        plan = self._plan(read, request)
        findings = self._findings(read, request)
        if findings:
            watcher.warn(findings, read.source)
            if rules.settings(read.parsed.directives.get("check", "")).error:
                raise ChecksFailed("lint violation found for rules: " + ", ".join(sorted({f.rule for f in findings})))
        self._workplaces.collect_garbage()
        with _opened(request.context) as fd:
            built = self._build(read, plan, request, FileTree(fd, read.ignore), watcher)
        step = watcher.begin("exporting to image")
        image = self._publish(built, request)
        for name in names:
            self._images.tag(image, str(name))
        watcher.output(step, f"writing image {image}\n".encode())
        for name in names:
            watcher.output(step, f"naming to {name}\n".encode())
        watcher.done(step)
        return image

    def _plan(self, read: _Read, request: BuildRequest) -> stages.Plan:
        here = platforms.parse(request.platform) if request.platform else platforms.here()
        if not platforms.here().runs(here):
            raise InvalidParameter(
                f"--platform {here}: this machine is {platforms.here()}, and cannot run programs of another"
            )
        return stages.plan(read.dockerfile, read.source, request.target, dict(request.arguments), here)

    def _findings(self, read: _Read, request: BuildRequest) -> list[Finding]:
        linter = lint.Linter(
            read.dockerfile, read.parsed, dict(request.arguments), platforms.here(), read.ignore, self._config_of
        )
        return linter.run()

    def _config_of(self, name: str) -> Mapping[str, Any] | None:
        """The configuration of a base image that is in the store."""
        try:
            found = self._images.find(name)
            return self._images.read(found).config if found is not None else None
        except SampanError:
            return None

    def _build(self, read: _Read, plan: stages.Plan, request: BuildRequest, context: FileTree, watcher: Told) -> Built:
        settings = Settings(
            read.source,
            read.dockerfile.escape,
            dict(request.arguments),
            plan.variables,
            dict(request.host),
            request.use_cache,
            context,
            {secret.id: secret for secret in request.secrets},
            frozenset(request.allowed),
            self._workplaces,
        )
        all_stages = read.dockerfile.stages
        built: dict[int, Built] = {}

        def find_stage(name: str) -> int | None:
            found = stages.find(all_stages, name)
            return found.index if found is not None and found.index in built else None

        find_image = self._finder(watcher, request.pull)
        for planned in plan.stages:
            builder = StageBuilder(
                planned, settings, self._steps, watcher, built, find_stage, find_image, len(all_stages) > 1
            )
            built[planned.stage.index] = builder.build()
        return built[plan.target.stage.index]

    def _finder(self, watcher: Told, always: bool) -> Callable[[str, str], Image]:
        """What finds a base: in the store, else by a pull; with `always` by a pull, once each."""
        pulled: set[tuple[str, str]] = set()

        def find(name: str, platform: str) -> Image:
            if not always or (name, platform) in pulled:
                try:
                    return self._images.resolve(name, platform)
                except NotFound:
                    pass
            step = watcher.begin(f"[internal] pull {name}")
            try:
                self._images.pull(name, platform)
            except SampanError as e:
                watcher.failed(step, str(e))
                raise
            watcher.done(step)
            pulled.add((name, platform))
            return self._images.resolve(name, platform)

        return find

    def _publish(self, built: Built, request: BuildRequest) -> str:
        """The image of the last stage. The same files and the same configuration are the same image."""
        config = dict(built.config)
        history = list(built.history)
        created = str(history[-1].get("created") if history else built.files.created)
        if request.labels:
            labels = dict(request.labels)
            config["Labels"] = {**(config.get("Labels") or {}), **labels}
            text = " ".join(f"{name}={value}" for name, value in labels.items())
            history.append({"created": created, "created_by": f"LABEL {text}", "empty_layer": True})
        document = documents.make_config(
            built.files.platform, created, config, built.files.diff_ids, history, author=built.author
        )
        with self._lock.shared():
            return self._images.publish(document, built.files.layers, None, built.files.image, unpack=False).id


class _Read:
    """A request's Dockerfile and ignore file, read and understood."""

    def __init__(self, request: BuildRequest) -> None:
        path = request.dockerfile or _default(request.context)
        if request.text is not None:
            name, text = _DOCKERFILE, request.text
        else:
            name, text = os.path.relpath(path, request.context) if request.context else path, _text(path)
            if name.startswith(".."):
                name = os.path.basename(path)
        self.source = Source(name, text)
        self.dockerfile: Dockerfile
        self.parsed: Parsed
        self.dockerfile, self.parsed = reading.read(self.source)
        self.ignore = _ignore(request.context, path if request.text is None else "")


def _default(context: str) -> str:
    path = f"{context}/{_DOCKERFILE}"
    lower = f"{context}/{_DOCKERFILE.lower()}"
    return lower if not os.path.exists(path) and os.path.exists(lower) else path


def _text(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as e:
        raise InvalidParameter(f"failed to read dockerfile: open {path}: {(e.strerror or str(e)).lower()}") from None
    if len(data) > _LIMIT:
        raise InvalidParameter(f"failed to read dockerfile: {path} is larger than {_LIMIT >> 20} MiB")
    return data.decode("utf-8", "surrogateescape")


def _ignore(context: str, dockerfile: str) -> Ignore:
    """The ignore file: that of the Dockerfile counts alone where there is one, else the context's."""
    candidates = [f"{dockerfile}.dockerignore"] if dockerfile else []
    candidates += [f"{context}/.dockerignore"] if context else []
    for path in candidates:
        if os.path.isfile(path):
            try:
                return Ignore.parse(_text(path))
            except InvalidParameter as e:
                raise InvalidParameter(f"error reading {path}: {e}") from None
    return Ignore()


@contextmanager
def _opened(context: str) -> Iterator[int]:
    """The context's directory; an empty one that is gone already where there is none."""
    import tempfile

    try:
        if context:
            fd = os.open(context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            with tempfile.TemporaryDirectory() as empty:
                fd = os.open(empty, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise System(f"unable to prepare context: open {context}: {(e.strerror or str(e)).lower()}") from None
    try:
        yield fd
    finally:
        os.close(fd)


__all__ = ["BuildFailed", "BuildRequest", "Builder", "ChecksFailed"]
