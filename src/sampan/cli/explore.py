"""`image layers`, `image tree` and `image diff`: what the layers of an image hold."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.images import human_size
from sampan.cli.output import Failure, shortened
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

_LAYERS = {
    "Layer": "LAYER",
    "Digest": "DIGEST",
    "DiffID": "DIFF ID",
    "Size": "SIZE",
    "PackedSize": "PACKED",
    "Added": "ADDED",
    "Changed": "CHANGED",
    "Removed": "REMOVED",
    "Wasted": "WASTED",
    "CreatedBy": "CREATED BY",
}
_LAYERS_TABLE = (
    "table {{.Layer}}\t{{.Size}}\t{{.PackedSize}}\t{{.Added}}\t{{.Changed}}\t{{.Removed}}\t{{.Wasted}}\t{{.CreatedBy}}"
)
_TREE = {
    "Layer": "LAYER",
    "Hidden": "HIDDEN",
    "Mode": "MODE",
    "Uid": "UID",
    "Gid": "GID",
    "Size": "SIZE",
    "Path": "PATH",
    "Target": "TARGET",
}
_TREE_TABLE = "table {{.Layer}}\t{{.Hidden}}\t{{.Mode}}\t{{.Size}}\t{{.Path}}"
_DIFF = {"Kind": "KIND", "Path": "PATH", "What": "WHAT"}
_DIFF_LINE = "{{.Kind}} {{.Path}}"
_CREATED_BY_WIDTH = 45


def layers(context: Context, arguments: Arguments) -> int:
    """Print a line for each layer, the lowest first."""
    from sampan.cli.listing import show

    long, human = arguments["no-trunc"], arguments["human"]
    found = context.engine.images.explorer().layers(arguments.words[0])
    rows = []
    for layer in found:
        sizes = {
            name: human_size(layer[name]) if human else str(layer[name]) for name in ("Size", "PackedSize", "Wasted")
        }
        by = layer["CreatedBy"].replace("\t", " ")
        rows.append({**layer, **sizes, "CreatedBy": by if long else shortened(by, _CREATED_BY_WIDTH)})
    show(rows, _LAYERS, _LAYERS_TABLE, arguments["format"], type="formatter.layerContext")
    return 0


def tree(context: Context, arguments: Arguments) -> int:
    """Print what is at a path and below it, each with the layer that it comes from."""
    from sampan.cli.listing import show

    path = arguments.words[1] if len(arguments.words) > 1 else "/"
    if arguments["depth"] < 0:
        raise Failure(f"invalid argument {arguments['depth']} for --depth: must not be negative")
    rows = [
        {
            **item,
            "Hidden": ",".join(map(str, item["Hidden"])),
            "Path": item["Path"] + (f" -> {item['Target']}" if item["Target"] else ""),
        }
        for item in context.engine.images.explorer().tree(arguments.words[0], path, arguments["depth"])
    ]
    show(rows, _TREE, _TREE_TABLE, arguments["format"], type="formatter.treeContext")
    return 0


def diff(context: Context, arguments: Arguments) -> int:
    """Print a line for each path that two images do not have alike, as `diff` does for a container."""
    from sampan.cli.listing import show

    found = context.engine.images.explorer().diff(*arguments.words)
    show(found, _DIFF, _DIFF_LINE, arguments["format"], type="formatter.diffContext")
    return 0


_FORMAT = Flag("format", "string", "Print what a Go template makes of each, or table, json, table TEMPLATE")

LAYERS = Command(
    "[OPTIONS] IMAGE",
    layers,
    (
        _FORMAT,
        Flag("human", "bool", "Sizes in words", "H", default=True),
        Flag("no-trunc", "bool", "Do not shorten anything"),
    ),
    at_least=1,
    at_most=1,
)
TREE = Command(
    "[OPTIONS] IMAGE [PATH]",
    tree,
    (Flag("depth", "int", "Levels below the path", "L", default=1), _FORMAT),
    at_least=1,
    at_most=2,
)
DIFF = Command("[OPTIONS] IMAGE IMAGE", diff, (_FORMAT,), at_least=2, at_most=2)
