"""`images`, `rmi` and `tag`."""

from __future__ import annotations

import time

from sampan.cli.flags import Flag
from sampan.cli.output import Table, out
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

SHORT_ID = 12
NONE = "<none>"


def images(context: Context, arguments: Arguments) -> int:
    """Print the images, newest first, a line for each of their names."""
    wanted = arguments.words[0] if arguments.words else ""
    items = context.engine.images.list(wanted)
    long = arguments["no-trunc"]
    if arguments["quiet"]:
        for item in items:
            for _ in _names(item):
                out(_id(item, long))
        return 0
    rows = tuple(row for item in items for row in _rows(item, long))
    out(str(Table(("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"), rows)))
    return 0


def _rows(item: dict[str, Any], long: bool) -> Iterator[tuple[str, ...]]:
    from sampan.engine.times import human_duration

    age = f"{human_duration(time.time() - item['Created'])} ago" if item["Created"] else "N/A"
    for repository, tag in _names(item):
        yield repository, tag, _id(item, long), age, human_size(item["Size"])


def _names(item: dict[str, Any]) -> list[tuple[str, str]]:
    """Repository and tag of each name; what has a digest only has no tag, what has no name at all neither."""
    tags = [tuple(name.rsplit(":", 1)) for name in item["RepoTags"] or ()]
    if tags:
        return [(repository, tag) for repository, tag in tags]
    digests = item["RepoDigests"] or ()
    return [(name.partition("@")[0], NONE) for name in digests] or [(NONE, NONE)]


def _id(item: dict[str, Any], long: bool) -> str:
    full: str = item["Id"]
    return full if long else full.removeprefix("sha256:")[:SHORT_ID]


def human_size(size: float) -> str:
    """Three digits and a unit of 1000: "1.98MB" (go-units HumanSizeWithPrecision)."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    at = 0
    while size >= 1000 and at < len(units) - 1:
        size /= 1000
        at += 1
    return f"{size:.3g}{units[at]}" if size < 999.5 else f"{size:.0f}{units[at]}"


def remove(context: Context, arguments: Arguments) -> int:
    """Remove each image, and print what was untagged and deleted."""

    def one(name: str) -> None:
        for done in context.engine.images.remove(name, force=arguments["force"]):
            for what, which in done.items():
                out(f"{what}: {which}")

    return context.each(arguments.words, one)


def tag(context: Context, arguments: Arguments) -> int:
    """Give an image another name."""
    context.engine.images.tag(*arguments.words)
    return 0


IMAGES = Command(
    "[OPTIONS] [REPOSITORY[:TAG]]",
    images,
    (
        Flag("all", "bool", "No effect: there are no intermediate images here", "a"),
        Flag("no-trunc", "bool", "Do not shorten anything"),
        Flag("quiet", "bool", "Show IDs only", "q"),
    ),
    at_most=1,
)
RMI = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    remove,
    (
        Flag("force", "bool", "Remove it although a stopped container uses it, or it has several names", "f"),
        Flag("no-prune", "bool", hidden=True),
    ),
    at_least=1,
)
TAG = Command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", tag, at_least=2, at_most=2)
