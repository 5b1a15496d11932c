"""`inspect`, of containers, images and volumes."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, err, write
from sampan.cli.verbs import Command
from sampan.errors import InvalidParameter, NotFound, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

    Finder = Callable[[Context, str], dict[str, Any]]


def _container(context: Context, name: str) -> dict[str, Any]:
    return context.engine.containers.get(name).inspect()


def _image(context: Context, name: str) -> dict[str, Any]:
    return context.engine.images.inspect(name)


def _volume(context: Context, name: str) -> dict[str, Any]:
    return context.engine.volumes.get(name).inspect()


_FINDERS: dict[str, Finder] = {"container": _container, "image": _image, "volume": _volume}


def inspect(context: Context, arguments: Arguments) -> int:
    """Print everything known of containers, images and volumes."""
    kind = arguments["type"]
    if kind and kind not in _FINDERS:
        raise Failure(f'unknown type: "{kind}": must be one of "container", "image", "volume"')
    return _show(context, arguments.words, [_FINDERS[kind]] if kind else list(_FINDERS.values()))


def _show(context: Context, names: Sequence[str], finders: Sequence[Finder]) -> int:
    """Print what was found as one list, whatever was not; then say what was not."""
    found, missing = [], []
    for name in names:
        try:
            found.append(_find(context, name, finders))
        except SampanError as e:
            missing.append(str(e))
    write(1, document(found))
    for message in missing:
        err(f"Error: {message}")
    return 1 if missing else 0


def _find(context: Context, name: str, finders: Sequence[Finder]) -> dict[str, Any]:
    for finder in finders:
        try:
            return finder(context, name)
        except NotFound:
            if len(finders) == 1:
                raise
        except InvalidParameter:
            if finder is not _image or len(finders) == 1:
                raise  # among all kinds, a name that no image can have is the name of nothing
    raise NotFound(f"No such object: {name}")


def document(items: Sequence[dict[str, Any]]) -> bytes:
    """A JSON list as Docker prints it. Text that is not UTF-8 stays readable for JSON parsers, as an escape."""
    import json

    if not items:
        return b"[]\n"
    return json.dumps(items, indent=4, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


INSPECT = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    inspect,
    (Flag("type", "string", "Only look for this: container, image or volume"),),
    at_least=1,
)
CONTAINER_INSPECT = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    lambda context, arguments: _show(context, arguments.words, [_container]),
    at_least=1,
)
IMAGE_INSPECT = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    lambda context, arguments: _show(context, arguments.words, [_image]),
    at_least=1,
)
VOLUME_INSPECT = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    lambda context, arguments: _show(context, arguments.words, [_volume]),
    at_least=1,
)
