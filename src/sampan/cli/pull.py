"""`pull`, and what `run` and `create` do for an image that is not here."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, err, out
from sampan.cli.verbs import Command
from sampan.errors import ImageNotFound
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

_NO_TRUST = "--disable-content-trust=false cannot be had: sampan does not sign images, nor verify signatures of them"


def pull(context: Context, arguments: Arguments) -> int:
    """Bring an image in, with what becomes of each layer, and print its whole name."""
    from sampan.cli.transfers import Transfers, whole_name

    if not arguments["disable-content-trust"]:
        raise Failure(_NO_TRUST)
    quiet, every = arguments["quiet"], arguments["all-tags"]
    name = whole_name(arguments)
    with Transfers(1, quiet) as shown:
        pulled = context.engine.images.pull(arguments.words[0], arguments["platform"], shown, every)
        for image in pulled:
            shown.line(f"Digest: {image.digest}")
        changed = any(image.changed for image in pulled)
        status = "Downloaded newer image for" if changed else "Image is up to date for"
        shown.line(f"Status: {status} {name.familiar}")
    out(str(name))
    return 0


def with_image(context: Context, arguments: Arguments, action: Callable[[], int], missing: ImageNotFound | None) -> int:
    """Pull the image that a command line names, and do what needs it. `missing`: what was said without a pull.

    Raises that, if --pull says so, or a pull would be of no use.
    """
    name = arguments.words[0]
    if reference.parse_id(name):
        # What is named by its id is here or nowhere.
        if missing is not None:
            raise missing
        return action()
    if missing is not None:
        # The image of a mount may be missing as well, which Docker does not pull either.
        if arguments["pull"] == "never" or missing.name != name:
            raise missing
        if not arguments["quiet"]:
            err(f"Unable to find image '{reference.parse(name).tagged().familiar}' locally")
    _bring(context, arguments, name)
    return action()


def _bring(context: Context, arguments: Arguments, name: str) -> None:
    from sampan.cli.transfers import Transfers

    with Transfers(2, arguments["quiet"]) as shown:
        for image in context.engine.images.pull(name, arguments["platform"], shown):
            shown.line(f"Digest: {image.digest}")
            status = "Downloaded newer image for" if image.changed else "Image is up to date for"
            shown.line(f"Status: {status} {image.reference}")


PULL = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    pull,
    (
        Flag("all-tags", "bool", "Pull every tag of the repository", "a"),
        Flag("disable-content-trust", "bool", "No effect: signatures are not looked at", default=True, hidden=True),
        Flag("platform", "string", "The image for this platform: os/architecture[/variant]"),
        Flag("quiet", "bool", "Print only the whole name of the image", "q"),
    ),
    at_least=1,
    at_most=1,
)
