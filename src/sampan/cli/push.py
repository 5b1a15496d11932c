"""`push`."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, out
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments


def push(context: Context, arguments: Arguments) -> int:
    """Send an image to its registry, with what becomes of each layer."""
    from sampan.cli.transfers import Transfers, whole_name

    if not arguments["disable-content-trust"]:
        raise Failure("--disable-content-trust=false cannot be had: sampan does not sign images")
    quiet, every = arguments["quiet"], arguments["all-tags"]
    name = whole_name(arguments)
    with Transfers(1, quiet) as shown:
        shown.line(f"The push refers to repository [{name.name}]")
        context.engine.images.push(
            arguments.words[0],
            arguments["platform"],
            shown,
            all_tags=every,
            compression=arguments["compression"],
            done=lambda sent: shown.line(f"{sent.tag}: digest: {sent.digest} size: {sent.size}"),
        )
    if quiet:
        out(str(name))
    return 0


PUSH = Command(
    "[OPTIONS] NAME[:TAG]",
    push,
    (
        Flag("all-tags", "bool", "Push every tag of the repository", "a"),
        Flag("compression", "string", "Compress layers that are not: gzip or zstd", default="gzip"),
        Flag("disable-content-trust", "bool", "No effect: images are not signed", default=True, hidden=True),
        Flag("platform", "string", "Only if the image is for this platform: os/architecture[/variant]"),
        Flag("quiet", "bool", "Print only the whole name of the image", "q"),
    ),
    at_least=1,
    at_most=1,
)
