"""`system check`."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, out
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments
    from sampan.engine.check import Finding


def check(context: Context, arguments: Arguments) -> int:
    """A line for each finding and a summary. 0 if nothing is left that does not fit, else 1."""
    form = arguments["format"]
    if form not in ("", "json"):
        raise Failure(f'invalid format "{form}": it must be json')
    findings = context.engine.system.check(repair=arguments["repair"], deep=arguments["deep"])
    left = sum(not finding.repaired for finding in findings)
    if form == "json":
        from sampan import jsontext

        for finding in findings:
            out(jsontext.dumps(finding.to_json()).decode("utf-8", "surrogateescape"))
        return 1 if left else 0
    for finding in findings:
        out(line(finding))
    if not findings:
        out("nothing found")
    else:
        out(f"{len(findings)} found, {len(findings) - left} repaired, {left} left")
    return 1 if left else 0


def line(finding: Finding) -> str:
    """severity, kind, path, what it is, and what is done about it."""
    wanted = f"--repair: {finding.repair}" if finding.repair else "not for --repair"
    done = "repaired" if finding.repaired else wanted
    return f"{finding.severity}: {finding.kind}: {finding.path}: {finding.what} [{done}]"


CHECK = Command(
    "[OPTIONS]",
    check,
    (
        Flag("deep", "bool", "Read every blob, and compare every unpacked layer with its archive"),
        Flag("format", "string", "json: an object for each finding"),
        Flag("repair", "bool", "Remove what is garbage, rebuild what can be rebuilt"),
    ),
    at_most=0,
)
