"""`manifest inspect`: what a registry has under a name, without a pull."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, write
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments


def inspect(context: Context, arguments: Arguments) -> int:
    """Print a manifest or an index as it is in the registry, laid out as Docker does."""
    if len(arguments.words) > 1:
        raise Failure("a manifest of a list is named by its digest: NAME@DIGEST")
    import json

    registries, (name,), insecure = context.engine.registries, arguments.words, arguments["insecure"]
    shown: object
    if arguments["artifact-type"] and not arguments["referrers"]:
        raise Failure("--artifact-type chooses among referrers: it needs --referrers")
    if arguments["referrers"]:
        if arguments["verbose"]:
            raise Failure("conflicting options: cannot specify both --referrers and --verbose")
        shown = registries.referrers(name, arguments["artifact-type"], insecure)
    elif arguments["verbose"]:
        shown = registries.described(name, insecure)
    else:
        # Read once already, and so bounded and well-formed.
        shown = json.loads(registries.manifest(name, insecure).data)
    text = json.dumps(shown, indent="\t", ensure_ascii=False)
    write(1, text.encode("utf-8", "surrogateescape") + b"\n")
    return 0


INSPECT = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    inspect,
    (
        Flag("artifact-type", "string", "Only referrers of this type; with --referrers"),
        Flag("insecure", "bool", "Ask the registry also without TLS, and whatever its certificate says"),
        Flag("referrers", "bool", "Show what the registry has about it: signatures, bills of materials"),
        Flag("verbose", "bool", "Show every image of an index, with its platform and its bytes", "v"),
    ),
    at_least=1,
    at_most=2,
)
