"""`volume create`, `ls`, `inspect`, `rm` and `prune`."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.listing import Labels, labels_text, natural, show
from sampan.cli.output import Failure, err, out
from sampan.cli.values import by_name
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments
    from sampan.engine.volumes import Volume

HEADS = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Size": "SIZE",
    "Availability": "AVAILABILITY",
    "Group": "GROUP",
    "Status": "STATUS",
}
TABLE = "table {{.Driver}}\t{{.Name}}"
NOT_KNOWN = "N/A"


def create(context: Context, arguments: Arguments) -> int:
    """Make a volume and print its name."""
    name = arguments["name"]
    if arguments.words:
        if name:
            raise Failure(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
            )
        name = arguments.words[0]
    options = dict(_pair(word) for word in arguments["opt"])
    labels = dict(_pair(word) for word in arguments["label"])
    out(context.engine.volumes.create(name, arguments["driver"], options, labels).name)
    return 0


def _pair(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key, value


def ls(context: Context, arguments: Arguments) -> int:
    """Print the volumes, by name."""
    volumes = sorted(context.engine.volumes.list(by_name(arguments["filter"])), key=lambda v: natural(v.name))
    if arguments["quiet"] and arguments["format"] in ("", "table"):
        for volume in volumes:
            out(volume.name)
        return 0
    show([_row(volume) for volume in volumes], HEADS, TABLE, arguments["format"], "*formatter.volumeContext")
    for volume in volumes:
        if volume.broken:
            err(f"WARNING: volume {volume.name} is damaged ({volume.broken})")
    return 0


def _row(volume: Volume) -> dict[str, Any]:
    known = {"Driver": volume.driver, "Name": volume.name, "Scope": "local", "Mountpoint": volume.path}
    labels = {"Labels": labels_text(volume.labels), "Label": Labels(volume.labels)}
    return {**dict.fromkeys(HEADS, NOT_KNOWN), **known, **labels}


def remove(context: Context, arguments: Arguments) -> int:
    """Remove each volume and print its name."""

    def one(name: str) -> None:
        context.engine.volumes.remove(name, force=arguments["force"])
        out(name)

    return context.each(arguments.words, one)


def prune(context: Context, arguments: Arguments) -> int:
    """Remove the volumes that no container uses, after a question."""
    from sampan.cli.prune import agreed, report

    chosen = by_name(arguments["filter"])
    warning = "WARNING! This will remove anonymous local volumes not used by at least one container."
    if arguments["all"]:
        if "all" in chosen:
            raise Failure("conflicting options: cannot specify both --all and --filter all=1")
        chosen["all"] = ["true"]
        warning = "WARNING! This will remove all local volumes not used by at least one container."
    if agreed(arguments, warning):
        report(context.engine.volumes.prune(chosen, arguments["dry-run"]), arguments["dry-run"])
    return 0


FORMAT = "Print by a Go template, `json`, or `table TEMPLATE`"

CREATE = Command(
    "[OPTIONS] [VOLUME]",
    create,
    (
        Flag("driver", "string", 'Volume driver (default "local", the only one)', "d", default="local"),
        Flag("label", "labels", "Set metadata for the volume"),
        Flag("name", "string", hidden=True),
        Flag("opt", "map", "Set an option of the driver: type, device or o, as for mount(8)", "o"),
    ),
    at_most=1,
)
LS = Command(
    "[OPTIONS]",
    ls,
    (
        Flag("filter", "filters", "Show only these: dangling=BOOL, driver=, label=, name=", "f"),
        Flag("format", "string", FORMAT),
        Flag("quiet", "bool", "Show names only", "q"),
    ),
    at_most=0,
)
RM = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    remove,
    (Flag("force", "bool", "Remove it although it is damaged; none is no failure", "f"),),
    at_least=1,
)
PRUNE = Command(
    "[OPTIONS]",
    prune,
    (
        Flag("all", "bool", "Remove all volumes that no container uses, not only the anonymous ones", "a"),
        Flag("dry-run", "bool", "Say what would be removed, and how many bytes that is, and remove nothing"),
        Flag("filter", "filters", "Remove only these: label=, label!="),
        Flag("force", "bool", "Do not ask", "f"),
    ),
    at_most=0,
)
