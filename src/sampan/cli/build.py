"""`build`: an image of a Dockerfile; `build --check`: what is wrong with the Dockerfile."""

from __future__ import annotations

import gc
import os
import sys

from sampan.cli.buildcaches import cache_from, cache_to
from sampan.cli.buildoutputs import Outputs, write_metadata
from sampan.cli.flags import Flag
from sampan.cli.output import Failure, err, out
from sampan.cli.verbs import Command
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.cli.buildprogress import Plain, Raw
    from sampan.cli.buildterminal import Terminal
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments
    from sampan.engine.builder import BuildRequest
    from sampan.engine.buildmounts import Secret
    from sampan.engine.builds import Builds
    from sampan.engine.buildverify import NotReproducible

_PROGRESS = ("auto", "plain", "tty", "rawjson", "quiet")
_AT_ONCE = 4
"""Stages that are built at the same time. A command of one keeps as many processors busy as it likes."""
_STDIN_LIMIT = 4 << 20
_EPOCH = "SOURCE_DATE_EPOCH"
_SWITCH_SECONDS = 0.0001
"""How long a thread may compute while others wait: the one that starts commands has little to do each time, and the processors of its containers wait for it."""
_OBJECTS = 100_000
"""After how many the collector looks for garbage: what is imported, and known of thousands of files, is none."""


def build(context: Context, arguments: Arguments) -> int:
    """Build, or check. The id goes to standard output with --quiet, the progress to standard error."""
    gc.set_threshold(_OBJECTS)
    sys.setswitchinterval(_SWITCH_SECONDS)
    progress = _progress(arguments)
    if arguments["check"]:
        return _check(context.engine.builds, _request(arguments))
    outputs = Outputs(arguments)
    request = _request(arguments).replace(
        cache_from=tuple(cache_from(text) for text in arguments["cache-from"]),
        cache_to=tuple(cache_to(text) for text in arguments["cache-to"]),
        verify=arguments["verify"],
        explains=arguments["explain-cache"],
        tags=outputs.names,
        exports=outputs.exports(),
        store=outputs.wants_image,
        at_once=_AT_ONCE,
        no_cache=tuple(name for text in arguments["no-cache-filter"] for name in text.split(",") if name),
    )
    image = _built(context, request, outputs, progress)
    if image is None:
        return 1
    if arguments["iidfile"]:
        _write_id(arguments["iidfile"], image)
    if arguments["metadata-file"]:
        write_metadata(arguments["metadata-file"], context, image, outputs.names)
    if progress == "quiet" and image and not outputs.quiet:
        out(image)
    return 0


def _progress(arguments: Arguments) -> str:
    """How to tell: a mode of `_PROGRESS` but "auto"."""
    progress = arguments["progress"]
    if not arguments.given("progress"):
        progress = os.environ.get("BUILDKIT_PROGRESS") or progress
    if progress not in _PROGRESS:
        raise Failure(f"invalid progress mode {progress!r}: {', '.join(_PROGRESS)} are there")
    terminal = os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb"
    if arguments["quiet"]:
        return "quiet"
    if progress == "tty" and not terminal:
        raise Failure("--progress tty: standard error is no terminal")
    return ("tty" if terminal else "plain") if progress == "auto" else progress


def _watcher(progress: str) -> Plain | Raw | Terminal:
    if progress == "tty":
        from sampan.cli.buildterminal import Terminal

        return Terminal()
    from sampan.cli.buildprogress import Plain, Raw

    return Raw() if progress == "rawjson" else Plain(progress == "plain")


def _built(context: Context, request: BuildRequest, outputs: Outputs, progress: str) -> str | None:
    """The image's id, "" if there is none, when all is where it was to go; None after a failure that was told."""
    from sampan.build.source import DockerfileError
    from sampan.engine.builder import BuildFailed
    from sampan.engine.buildverify import NotReproducible

    with _ended_by_signals():
        try:
            with _watcher(progress) as watcher:
                image: str = context.engine.builds.build(request, watcher)
                outputs.finish(context, image, watcher)
        except DockerfileError as e:
            _fail(e, e.excerpt())
        except BuildFailed as e:
            _fail(e, e.excerpt)
        except NotReproducible as e:
            _fail(e, "\n".join(_differences(e)))
        except SampanError as e:
            _fail(e, "")
        else:
            return image
    return None


def _differences(error: NotReproducible) -> Iterator[str]:
    """The differing files below the step that made them."""
    step = ""
    for one in error.differences:
        if one.step != step:
            step = one.step
            yield f" > {step.partition(chr(10))[0]}:"
        yield f"   {one.path + ': ' if one.path else ''}{', '.join(one.what)}"


def _fail(error: SampanError, excerpt: str) -> None:
    err("\n".join([*filter(None, [excerpt]), f"ERROR: failed to build: failed to solve: {error}"]))


def _check(builds: Builds, request: BuildRequest) -> int:
    """Tell all findings with their lines; 1 if there are some."""
    from sampan.build import rules
    from sampan.build.source import DockerfileError

    try:
        findings, source = builds.check(request)
    except DockerfileError as e:
        _fail(e, e.excerpt())
        return 1
    except SampanError as e:
        _fail(e, "")
        return 1
    for finding in findings:
        out(f"WARNING: {finding.rule} - {rules.url(finding.rule)}\n{finding.text}")
        out(source.excerpt(finding.first, finding.last) + "\n")
    if not findings:
        out("Check complete, no warnings found.")
        return 0
    out(f"Check complete, {len(findings)} warning{'s have' if len(findings) > 1 else ' has'} been found!")
    return 1


def _request(arguments: Arguments) -> BuildRequest:
    from sampan.build import addresses
    from sampan.engine.builder import BuildRequest

    context, dockerfile, text, stream = arguments.words[0], arguments["file"], None, None
    if context == dockerfile == "-":
        raise Failure("invalid argument: can't use stdin for both build context and dockerfile")
    remote = context == "-" or addresses.is_remote(context)
    if context == "-":
        context, stream = "", open(0, "rb", closefd=False)
    elif not remote:
        if not os.path.isdir(context):
            raise Failure(_no_context(context))
        context = os.path.abspath(context)
    if dockerfile == "-":
        dockerfile, text = "", _standard_input()
    elif dockerfile and not remote:
        dockerfile = os.path.abspath(dockerfile)
    return BuildRequest(
        context,
        dockerfile,
        text,
        tuple(arguments["tag"]),
        tuple(_build_arguments(arguments["build-arg"])),
        tuple(label.partition("=")[::2] for label in arguments["label"]),
        arguments["target"],
        arguments["platform"],
        tuple(_host(arguments)),
        not arguments["no-cache"],
        arguments["pull"],
        tuple(_secret(text) for text in arguments["secret"]),
        tuple(_allowed(arguments["allow"])),
        tuple(_named_context(text) for text in arguments["build-context"]),
        stream,
    )


def _no_context(context: str) -> str:
    return f'unable to prepare context: path "{context}" {_reason(context)}'


def _reason(path: str) -> str:
    return "is not a directory" if os.path.exists(path) else "not found"


def _named_context(text: str) -> tuple[str, str]:
    """`--build-context NAME=DIRECTORY|ADDRESS|docker-image://IMAGE`."""
    from sampan.build import addresses

    name, _, value = text.partition("=")
    if not name or not value:
        raise Failure(
            f"invalid build context {text!r}: it is of the form NAME=DIRECTORY, NAME=ADDRESS or NAME=docker-image://IMAGE"
        )
    if value.startswith("docker-image://") or addresses.is_git(value) or addresses.is_http(value):
        return name, value
    if "://" in value:
        raise Failure(f"invalid build context {text!r}: the protocol is not known")
    if not os.path.isdir(value):
        raise Failure(f'invalid build context {text!r}: path "{value}" {_reason(value)}')
    return name, os.path.abspath(value)


def _standard_input() -> str:
    data = b""
    while len(data) <= _STDIN_LIMIT and (part := os.read(0, 1 << 16)):
        data += part
    if len(data) > _STDIN_LIMIT or b"\0" in data:
        raise Failure("failed to read dockerfile: standard input is no text")
    return data.decode("utf-8", "surrogateescape")


def _build_arguments(given: list[str]) -> Iterator[tuple[str, str]]:
    """A name alone takes the caller's variable, if it is set (docker build --build-arg)."""
    if _EPOCH in os.environ:
        yield _EPOCH, os.environ[_EPOCH]
    for text in given:
        name, equals, value = text.partition("=")
        if not name:
            raise Failure(f"invalid build argument {text!r}: it is not of the form NAME=VALUE")
        if equals or name in os.environ:
            yield name, value if equals else os.environ[name]


def _secret(text: str) -> Secret:
    """`--secret id=ID[,src=FILE|,env=NAME]`: a file, else the variable of that name, else of the id's, else the file ID."""
    import csv

    from sampan.engine.buildmounts import Secret

    fields: dict[str, str] = {}
    for field in next(csv.reader([text]), []):
        key, equals, value = field.partition("=")
        key = {"source": "src"}.get(key.lower(), key.lower())
        if not equals or key not in ("type", "id", "src", "env"):
            raise Failure(f"invalid secret {text!r}: {field!r}: it is of the form id=ID,src=FILE or id=ID,env=NAME")
        fields[key] = value
    kind, name = fields.get("type", ""), fields.get("id", "")
    if not name or kind not in ("", "file", "env"):
        raise Failure(f"invalid secret {text!r}: {'its type is file or env' if name else 'it has no id'}")
    path, variable = fields.get("src", ""), fields.get("env", "")
    if kind == "env" and not variable:
        path, variable = "", path or name
    elif not path and not variable:
        # As Docker: the variable of that name if there is one, else the file of that name.
        path, variable = ("", name) if name in os.environ and kind != "file" else (name, "")
    if path and not os.path.isfile(path):
        raise Failure(f"invalid secret {text!r}: {path} is no file")
    return Secret(name, os.path.abspath(path) if path else "", variable)


def _allowed(names: list[str]) -> Iterator[str]:
    from sampan.engine.buildstage import ENTITLEMENTS

    for name in names:
        if name not in ENTITLEMENTS:
            raise Failure(f"unknown entitlement {name!r}: {' and '.join(ENTITLEMENTS)} are there")
        yield name


def _host(arguments: Arguments) -> Iterator[tuple[str, Any]]:
    """What the containers of RUN have."""
    yield "NetworkMode", arguments["network"] or "default"
    if arguments["add-host"]:
        yield "ExtraHosts", arguments["add-host"]
    if arguments["ulimit"]:
        yield "Ulimits", arguments["ulimit"]
    for flag, key in (("memory", "Memory"), ("memory-swap", "MemorySwap"), ("shm-size", "ShmSize")):
        if arguments.given(flag):
            yield key, arguments[flag]
    for flag, key in (("cpu-period", "CpuPeriod"), ("cpu-quota", "CpuQuota"), ("cpu-shares", "CpuShares")):
        if arguments.given(flag):
            yield key, arguments[flag]
    for flag, key in (("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems"), ("cgroup-parent", "CgroupParent")):
        if arguments[flag]:
            yield key, arguments[flag]


def _write_id(path: str, image: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(image)
    except OSError as e:
        raise Failure(f"failed to write image ID file: open {path}: {(e.strerror or str(e)).lower()}") from None


class _ended_by_signals:
    """SIGTERM and SIGHUP end a build as an interrupt does: what was begun is taken back first."""

    def __enter__(self) -> None:
        import signal

        self._before = {}
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, _raise)

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        import signal

        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, _Ended):
            from sampan.cli import signals

            signals.end_by(error.number)


class _Ended(BaseException):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _raise(number: int, _frame: object) -> None:
    raise _Ended(number)


BUILD = Command(
    "[OPTIONS] PATH|URL|-",
    build,
    (
        Flag("add-host", "hosts", "Add a custom host-to-IP mapping (format: `host:ip`)"),
        Flag("allow", "list", "Let RUN have what it asks for (network.host, security.insecure)"),
        Flag("build-arg", "list", "Set a variable that the Dockerfile declares with ARG (NAME=VALUE)"),
        Flag(
            "build-context",
            "list",
            "Another context by a name of --from and FROM (NAME=DIRECTORY|ADDRESS|docker-image://IMAGE)",
        ),
        Flag("cache-from", "list", "Another cache to look into (type=local,src=DIRECTORY)"),
        Flag("cache-to", "list", "Where the cache of this build goes, too (type=local,dest=DIRECTORY[,mode=max])"),
        Flag("cgroup-parent", "string", "Cgroup below which the containers of RUN are"),
        Flag("check", "bool", "Say what BuildKit's checks find in the Dockerfile, and build nothing"),
        Flag("cpu-period", "int", "Limit the CPU CFS (Completely Fair Scheduler) period"),
        Flag("cpu-quota", "int", "Limit the CPU CFS (Completely Fair Scheduler) quota"),
        Flag("cpu-shares", "int", "CPU shares (relative weight)", "c"),
        Flag("cpuset-cpus", "string", "CPUs in which to allow execution (0-3, 0,1)"),
        Flag("cpuset-mems", "string", "MEMs in which to allow execution (0-3, 0,1)"),
        Flag("explain-cache", "bool", "Say of each step that is done why it is not in the cache"),
        Flag("file", "string", "Name of the Dockerfile, - for standard input (default: PATH/Dockerfile)", "f"),
        Flag("iidfile", "string", "Write the image's ID to a file"),
        Flag("label", "labels", "Set a label of the image"),
        Flag("memory", "bytes", "Memory limit of the containers of RUN", "m"),
        Flag("memory-swap", "bytes or -1", "Memory plus swap of the containers of RUN (-1: no limit)"),
        Flag("load", "bool", "The same as --output=type=docker"),
        Flag("metadata-file", "string", "Write what was built as JSON to a file"),
        Flag("network", "string", "Network of the containers of RUN"),
        Flag("no-cache", "bool", "Do every step, whatever the cache has"),
        Flag("no-cache-filter", "list", "Do every step of these stages, whatever the cache has"),
        Flag(
            "output",
            "list",
            "Where the result goes (DIRECTORY, - or type=TYPE[,dest=PATH] with a TYPE of local, tar, oci, docker, image, registry)",
            "o",
        ),
        Flag("push", "bool", "The same as --output=type=registry"),
        Flag("platform", "string", "Platform of the image, which must be one that this machine runs"),
        # As with BuildKit there is nothing to say about what is always so.
        *(Flag(name, "bool", hidden=True) for name in ("compress", "force-rm", "rm")),
        Flag("pull", "bool", "Pull the base images also if they are here"),
        Flag("progress", "string", "How to tell the progress (auto, plain, tty, rawjson, quiet)", default="auto"),
        Flag("quiet", "bool", "Print nothing but the image's ID", "q"),
        Flag("secret", "list", "Secret for RUN --mount=type=secret (id=ID[,src=FILE|,env=NAME])"),
        Flag("shm-size", "bytes", "Size of /dev/shm of the containers of RUN"),
        Flag("tag", "list", "Name of the image (NAME[:TAG]); may be given several times", "t"),
        Flag("target", "string", "Stage of the Dockerfile to build"),
        Flag("ulimit", "ulimits", "Ulimit of the containers of RUN"),
        Flag("verify", "bool", "Build twice without the cache, and fail if the results differ, with the files that do"),
    ),
    at_least=1,
    at_most=1,
)
