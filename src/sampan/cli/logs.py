"""`logs`."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, err, write
from sampan.cli.verbs import Command
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments


def logs(context: Context, arguments: Arguments) -> int:
    """Print what a container has written, each stream to ours of the same name."""
    for flag in ("since", "until"):
        _check_time(flag, arguments[flag])
    container = context.engine.containers.get(arguments.words[0])
    stamped, detailed = arguments["timestamps"], arguments["details"]
    entries = container.logs(
        follow=arguments["follow"],
        tail=_number_of_lines(arguments["tail"]),
        since=arguments["since"],
        until=arguments["until"],
    )
    inside: set[str] = (
        set()
    )  # streams in the middle of a line: what belongs before a line is before its first piece only
    for entry in entries:
        data = entry.data
        if entry.stream not in inside:
            if detailed:
                data = f"{_details(entry.attributes)} ".encode() + data
            if stamped:
                data = f"{entry.time} ".encode() + data
        (inside.add if entry.partial else inside.discard)(entry.stream)
        write(2 if entry.stream == "stderr" else 1, data)
    lost = container.logs_lost()
    if lost is not None:
        err(f"WARNING: {lost['lines']} lines of output since {lost['since']} are not in the log: {lost['error']}")
    return 0


def _check_time(flag: str, text: str) -> None:
    from sampan.engine import times

    try:
        if text:
            times.moment(text)
    except InvalidParameter as e:
        raise Failure(f'invalid value for "{flag}": {e}') from None


def _details(attributes: Mapping[str, str]) -> str:
    """As Docker prints them: NAME=VALUE between commas, by name, escaped as in a URL."""
    if not attributes:
        return ""
    from urllib.parse import quote_plus

    return ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(attributes.items()))


def _number_of_lines(text: str) -> int | None:
    """None for all of them, which is also what dockerd makes of a number that is none, or is negative."""
    return int(text) if text.isascii() and text.isdigit() else None


LOGS = Command(
    "[OPTIONS] CONTAINER",
    logs,
    (
        Flag("details", "bool", "Show what --log-opt labels, env and tag have kept with each line"),
        Flag("follow", "bool", "Go on with what it writes until it stops", "f"),
        Flag("since", "string", "Show lines since then: a time, or a duration before now (2026-01-02T13:23:37Z, 42m)"),
        Flag("tail", "string", "Lines to show from the end (default all)", "n", default="all"),
        Flag("timestamps", "bool", "Show when each line was written", "t"),
        Flag("until", "string", "Show lines before then: a time, or a duration before now"),
    ),
    at_least=1,
    at_most=1,
)
