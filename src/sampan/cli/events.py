"""`events`."""

from __future__ import annotations

import time

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, out
from sampan.cli.values import by_name
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

BAD_TEMPLATE = 64


def events(context: Context, arguments: Arguments) -> int:
    """Print what happens, a line for each event, until --until or until it is interrupted."""
    show = line if not arguments["format"] else _by_template(arguments["format"])
    filters = by_name(arguments["filter"])
    with context.engine.events(arguments["since"], arguments["until"], filters) as stream:
        for message in stream:
            out(show(message))
    return 0


def line(message: dict[str, Any]) -> str:
    """An event as Docker's command prints it: time, type, action, id, and the attributes by name."""
    actor = message["Actor"]
    text = f"{_local(message['timeNano'])} {message['Type']} {message['Action']} {actor['ID']}"
    if actor["Attributes"]:
        text += f" ({', '.join(f'{name}={value}' for name, value in sorted(actor['Attributes'].items()))})"
    return text


def _local(nanoseconds: int) -> str:
    """RFC 3339 in the local zone, always with nine digits of the second."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    shown = time.localtime(seconds)
    minutes = shown.tm_gmtoff // 60
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}" if minutes else "Z"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', shown)}.{fraction:09}{zone}"


def _by_template(format: str) -> Callable[[dict[str, Any]], str]:
    """What a Go template makes of an event. Tried on an empty one first, as a wrong one is to be told at once."""
    from sampan.cli.gotypes import typed
    from sampan.gotemplate.template import TemplateError, parse

    def show(message: dict[str, Any]) -> str:
        return template.execute(typed(message, "*events.Message"))

    try:
        template = parse("{{json .}}" if format == "json" else format)
        show({})
    except TemplateError as e:
        raise Failure(f"Error parsing format: {e}", BAD_TEMPLATE) from None
    return show


EVENTS = Command(
    "[OPTIONS]",
    events,
    (
        Flag("filter", "filters", "Show only these: KEY=VALUE, such as type=container or event=die", "f"),
        Flag("format", "string", "Print what a Go template makes of each, or `json`"),
        Flag("since", "string", "Show what happened since then as well: a time or a duration before now"),
        Flag("until", "string", "End at that time; events of the past are shown up to it"),
    ),
    at_most=0,
)
