"""`audit`: what a container's programs are kept from."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.listing import show
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

_TABLE = "table {{.Check}}\\t{{.Result}}\\t{{.Detail}}"


def audit(context: Context, arguments: Arguments) -> int:
    """A line for each check. 0 if nothing is open, else 1."""
    findings = context.engine.containers.get(arguments.words[0]).audit()
    items = [{"Check": f.check, "Result": f.result, "Detail": f.detail} for f in findings]
    columns = {"Check": "CHECK", "Result": "RESULT", "Detail": "DETAIL"}
    show(items, columns, _TABLE, arguments["format"], "formatter.auditContext")
    return 1 if any(f.result == "open" for f in findings) else 0


AUDIT = Command(
    "[OPTIONS] CONTAINER",
    audit,
    (Flag("format", "string", "table, json (an object a line), or a Go template"),),
    at_least=1,
    at_most=1,
)
