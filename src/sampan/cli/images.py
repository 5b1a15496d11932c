"""`images`, `rmi`, `tag`, `history` and `image prune`."""

from __future__ import annotations

import time

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, err, out, shortened
from sampan.cli.prune import human_size as full_size
from sampan.cli.values import by_name
from sampan.cli.verbs import Command
from sampan.errors import InvalidParameter, NotFound
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

SHORT_ID = 12
NONE = "<none>"

_COLUMNS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}
_TABLE = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
_DIGESTS = "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"

_HISTORY_COLUMNS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_HISTORY_TABLE = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
_CREATED_BY_WIDTH = 45


def images(context: Context, arguments: Arguments) -> int:
    """Print the images, newest first, a line for each of their names."""
    from sampan.cli.listing import show

    filters = by_name(arguments["filter"])
    if arguments.words:
        filters.setdefault("reference", []).append(arguments.words[0])
    items = context.engine.images.list(filters=filters, all=arguments["all"])
    format = arguments["format"]
    digests = arguments["digests"] or ".Digest" in format
    rows = [row for item in items for row in lines_of(item, arguments["no-trunc"], digests)]
    for item in items:
        # Listed as far as it is known; what is wrong with it is said beside the list.
        if "Damaged" in item:
            err(f"WARNING: {item['Damaged']}")
    if arguments["quiet"] and format in ("", "table"):
        for row in rows:
            out(str(row["ID"]))
        return 0
    show(rows, _COLUMNS, _DIGESTS if digests else _TABLE, format, type="formatter.imageContext")
    return 0


def lines_of(item: dict[str, Any], long: bool, digests: bool = False) -> Iterator[dict[str, object]]:
    """A line of the listing for each name of an image."""
    for repository, tag, digest in _names(item):
        yield {
            "Containers": "N/A",
            "CreatedAt": _at(item["Created"]),
            "CreatedSince": _ago(item["Created"]),
            "Digest": digest if digests else NONE,
            "ID": _id(item["Id"], long),
            "Repository": repository,
            "SharedSize": "N/A",
            "Size": human_size(item["Size"]),
            "Tag": tag,
            "UniqueSize": "N/A",
            "VirtualSize": full_size(item["Size"]),
        }


def _names(item: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Repository, tag and digest of each name; what has a digest only has no tag, what has no name at all neither."""
    digests = dict(name.split("@", 1) for name in item["RepoDigests"] or ())
    tags = [name.rsplit(":", 1) for name in item["RepoTags"] or ()]
    if tags:
        return [(repository, tag, digests.get(repository, NONE)) for repository, tag in tags]
    return [(repository, NONE, digest) for repository, digest in digests.items()] or [(NONE, NONE, NONE)]


def _id(full: str, long: bool) -> str:
    return full if long or not full.startswith("sha256:") else full.removeprefix("sha256:")[:SHORT_ID]


def _ago(created: int) -> str:
    from sampan.engine.times import human_duration

    return f"{human_duration(time.time() - created)} ago" if created else "N/A"


def _at(created: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created))


def history(context: Context, arguments: Arguments) -> int:
    """Print how an image came about, newest step first."""
    from sampan.cli.listing import show

    long, human = arguments["no-trunc"], arguments["human"]
    rows = []
    for step in context.engine.images.history(arguments.words[0], arguments["platform"]):
        by = step["CreatedBy"].replace("\t", " ")
        moment = _rfc3339(step["Created"])
        rows.append(
            {
                "Comment": step["Comment"],
                "CreatedAt": moment,
                "CreatedBy": by if long else shortened(by, _CREATED_BY_WIDTH),
                "CreatedSince": _ago(step["Created"]) if human else moment,
                "ID": _id(step["Id"], long),
                "Size": human_size(step["Size"]) if human else str(step["Size"]),
            }
        )
    if arguments["quiet"] and arguments["format"] in ("", "table"):
        for row in rows:
            out(row["ID"])
        return 0
    show(rows, _HISTORY_COLUMNS, _HISTORY_TABLE, arguments["format"], type="image.historyContext")
    return 0


def _rfc3339(created: int) -> str:
    local = time.localtime(created)
    zone = time.strftime("%z", local)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + (f"{zone[:3]}:{zone[3:]}" if int(zone) else "Z")


def prune(context: Context, arguments: Arguments) -> int:
    """Remove the images without a name, or all that no container uses, after a question."""
    from sampan.cli.prune import agreed, report

    filters = by_name(arguments["filter"])
    warning = "WARNING! This will remove all dangling images."
    if arguments["all"]:
        if "dangling" in filters:
            raise Failure("conflicting options: cannot specify both --all and --filter dangling")
        filters["dangling"] = ["false"]
        warning = "WARNING! This will remove all images without at least one container associated to them."
    if agreed(arguments, warning):
        report(context.engine.images.prune(filters, arguments["dry-run"]), arguments["dry-run"])
    return 0


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
    force = arguments["force"]
    platforms = [platform for text in arguments["platform"] for platform in text.split(",")]

    def one(name: str) -> None:
        try:
            done = context.engine.images.remove(name, force, not arguments["no-prune"], platforms)
        except NotFound as e:
            if not force:
                raise
            err(f"Error: {e}")  # With -f no failure, as for Docker.
            return
        for step in done:
            for what, which in step.items():
                out(f"{what}: {which}")

    return context.each(arguments.words, one)


def tag(context: Context, arguments: Arguments) -> int:
    """Give an image another name."""
    for word in arguments.words:
        try:
            if not reference.parse_id(word):
                reference.parse(word)
        except InvalidParameter as e:
            raise Failure(f'Error parsing reference: "{word}" is not a valid repository/tag: {e}') from None
    context.engine.images.tag(*arguments.words)
    return 0


_FORMAT = Flag("format", "string", "Print what a Go template makes of each, or table, json, table TEMPLATE")

IMAGES = Command(
    "[OPTIONS] [REPOSITORY[:TAG]]",
    images,
    (
        Flag("all", "bool", "Show also images without a name that others were made from", "a"),
        Flag("digests", "bool", "Show digests"),
        Flag("filter", "filters", "Show only images that fit (name=value)", "f"),
        _FORMAT,
        Flag("no-trunc", "bool", "Do not shorten anything"),
        Flag("quiet", "bool", "Show IDs only", "q"),
    ),
    at_most=1,
)
HISTORY = Command(
    "[OPTIONS] IMAGE",
    history,
    (
        _FORMAT,
        Flag("human", "bool", "Sizes and times in words", "H", default=True),
        Flag("no-trunc", "bool", "Do not shorten anything"),
        Flag("platform", "string", "Only if it is for this platform: os/architecture[/variant]"),
        Flag("quiet", "bool", "Show IDs only", "q"),
    ),
    at_least=1,
    at_most=1,
)
PRUNE = Command(
    "[OPTIONS]",
    prune,
    (
        Flag("all", "bool", "Remove all images that no container uses, not only those without a name", "a"),
        Flag("dry-run", "bool", "Say what would be removed, and how many bytes that is, and remove nothing"),
        Flag("filter", "filters", "Remove only these: until=TIME or DURATION, label=, label!="),
        Flag("force", "bool", "Do not ask", "f"),
    ),
    at_most=0,
)
RMI = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    remove,
    (
        Flag("force", "bool", "Remove it although a stopped container uses it, or it has several names", "f"),
        Flag("no-prune", "bool", "Leave the images without a name that it was made from"),
        Flag("platform", "platforms", "Only if it is for one of these platforms: os/architecture[/variant]"),
    ),
    at_least=1,
)
TAG = Command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", tag, at_least=2, at_most=2)
