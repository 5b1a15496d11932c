"""`inspect`, of containers, images, networks and volumes."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, err, write
from sampan.cli.verbs import Command
from sampan.errors import InvalidParameter, NotFound, SampanError
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

    Finder = Callable[[Context, str, bool], dict[str, Any]]


def _container(context: Context, name: str, size: bool) -> dict[str, Any]:
    return context.engine.containers.get(name).inspect(size)


def _image(context: Context, name: str, _size: bool) -> dict[str, Any]:
    return context.engine.images.inspect(name)


def _volume(context: Context, name: str, _size: bool) -> dict[str, Any]:
    return context.engine.volumes.get(name).inspect()


def _network(context: Context, name: str, _size: bool) -> dict[str, Any]:
    return context.engine.networks.inspect(name)


class Kind(Struct):
    """Something that can be inspected. type: what it is in Go. typed_only: its JSON is no second chance for a template."""

    name: str
    find: Finder
    type: str
    typed_only: bool = False


_CONTAINER = Kind("container", _container, "container.InspectResponse")
_IMAGE = Kind("image", _image, "image.InspectResponse")
_VOLUME = Kind("volume", _volume, "volume.Volume", typed_only=True)
_NETWORK = Kind("network", _network, "network.Inspect")
_KINDS = {kind.name: kind for kind in (_CONTAINER, _IMAGE, _NETWORK, _VOLUME)}

BAD_TEMPLATE = 64
"""The exit code for a --format that cannot be parsed."""


def inspect(context: Context, arguments: Arguments) -> int:
    """Print everything known of containers, images, networks and volumes."""
    kind = arguments["type"]
    if kind and kind not in _KINDS:
        raise Failure(f'unknown type: "{kind}": must be one of "container", "image", "network", "volume"')
    return _show(context, arguments, [_KINDS[kind]] if kind else list(_KINDS.values()), arguments["size"])


def _show(context: Context, arguments: Arguments, kinds: Sequence[Kind], size: bool = False) -> int:
    """Print what was found, whatever was not; then say what was not."""
    format = arguments["format"]
    writer = _Formatted(format) if format not in ("", "json") else _Documents(indented=not format)
    problems = []
    for name in arguments.words:
        try:
            kind, found = _find(context, name, kinds, size)
            if size and kind is not _CONTAINER:
                err(f"WARNING: --size ignored for {kind.name}")
            writer.add(kind, found)
        except TemplateProblem as e:
            problems.append(str(e))
        except SampanError as e:
            problems.append(f"Error: {e}")
    write(1, writer.content())
    for problem in problems:
        err(problem)
    return 1 if problems else 0


class _Documents:
    """JSON: one list of all that was found."""

    def __init__(self, indented: bool) -> None:
        self._indented = indented
        self._found: list[dict[str, Any]] = []

    def add(self, _kind: Kind, found: dict[str, Any]) -> None:
        self._found.append(found)

    def content(self) -> bytes:
        return document(self._found, self._indented)


class TemplateProblem(Exception):
    """A template asks something for what it has not."""


class _Formatted:
    """A line of text for each."""

    def __init__(self, format: str) -> None:
        from sampan.gotemplate.template import TemplateError, parse

        try:
            self._template = parse(format)
        except TemplateError as e:
            raise Failure(f"template parsing error: {e}", BAD_TEMPLATE) from None
        self._lines: list[str] = []

    def add(self, kind: Kind, found: dict[str, Any]) -> None:
        """Add a line. Raises TemplateProblem."""
        from sampan.cli.gotypes import typed
        from sampan.gotemplate.template import TemplateError

        # As Docker: Go's names and types first; if they do not fit, the JSON as it is. What that says is told.
        try:
            self._lines.append(self._template.execute(typed(found, kind.type)))
        except TemplateError as first:
            if kind.typed_only:
                raise TemplateProblem(f"template parsing error: {first}") from None
            try:
                self._lines.append(self._template.execute(found, missing_is_error=True))
            except TemplateError as e:
                raise TemplateProblem(f"template parsing error: {e}") from None

    def content(self) -> bytes:
        return "".join(f"{line}\n" for line in self._lines or [""]).encode("utf-8", "surrogateescape")


def _find(context: Context, name: str, kinds: Sequence[Kind], size: bool) -> tuple[Kind, dict[str, Any]]:
    for kind in kinds:
        try:
            return kind, kind.find(context, name, size)
        except NotFound:
            if len(kinds) == 1:
                raise
        except InvalidParameter:
            if kind.name != "image" or len(kinds) == 1:
                raise  # among all kinds, a name that no image can have is the name of nothing
    raise NotFound(f"No such object: {name}")


def document(items: Sequence[dict[str, Any]], indented: bool = True) -> bytes:
    """A JSON list as Docker prints it. Text that is not UTF-8 stays readable for JSON parsers, as an escape."""
    import json

    if not items:
        return b"[]\n"
    layout: dict[str, Any] = {"indent": 4} if indented else {"separators": (",", ":")}
    return json.dumps(items, ensure_ascii=False, **layout).encode("utf-8", "backslashreplace") + b"\n"


def _image_inspect(context: Context, arguments: Arguments) -> int:
    def find(context: Context, name: str, _size: bool) -> dict[str, Any]:
        return context.engine.images.inspect(name, arguments["platform"])

    return _show(context, arguments, [_IMAGE.replace(find=find)])


FORMAT = Flag("format", "string", "Print what a Go template makes of each, or `json`", "f")
SIZE = Flag("size", "bool", "Show how much a container has written, and all of its files", "s")

INSPECT = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    inspect,
    (FORMAT, SIZE, Flag("type", "string", "Only look for this: container, image, network or volume")),
    at_least=1,
)
CONTAINER_INSPECT = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    lambda context, arguments: _show(context, arguments, [_CONTAINER], arguments["size"]),
    (FORMAT, SIZE),
    at_least=1,
)
IMAGE_INSPECT = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    _image_inspect,
    (FORMAT, Flag("platform", "string", "Only if it is for this platform: os/architecture[/variant]")),
    at_least=1,
)
NETWORK_INSPECT = Command(
    "[OPTIONS] NETWORK [NETWORK...]",
    lambda context, arguments: _show(context, arguments, [_NETWORK]),
    (FORMAT, Flag("verbose", "bool", "No effect: it shows services of a swarm", "v", hidden=True)),
    at_least=1,
)
VOLUME_INSPECT = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    lambda context, arguments: _show(context, arguments, [_VOLUME]),
    (FORMAT,),
    at_least=1,
)
