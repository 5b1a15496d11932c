"""`ps`."""

from __future__ import annotations

import time

from sampan.cli.flags import Flag
from sampan.cli.output import Table, out
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

COMMAND_WIDTH = 20
SHORT_ID = 12


def ps(context: Context, arguments: Arguments) -> int:
    """Print the running containers, newest first; all of them with -a, -n or -l."""
    last = 1 if arguments["latest"] else arguments["last"]
    everything = arguments["all"] or last > 0
    items = [c.summary() for c in context.engine.containers.list(all=everything)]
    if last > 0:
        items = items[:last]
    long = arguments["no-trunc"]
    if arguments["quiet"]:
        for item in items:
            out(item["Id"] if long else item["Id"][:SHORT_ID])
        return 0
    heads = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
    out(str(Table(heads, tuple(row(item, long) for item in items))))
    return 0


def row(item: dict[str, Any], long: bool) -> tuple[str, ...]:
    """An item of `GET /containers/json` as the table shows it."""
    from sampan.engine.times import human_duration

    return (
        item["Id"] if long else item["Id"][:SHORT_ID],
        _image(item, long),
        quoted(item["Command"] if long else shortened(item["Command"], COMMAND_WIDTH)),
        f"{human_duration(time.time() - item['Created'])} ago",
        item["Status"],
        "",
        ",".join(name.removeprefix("/") for name in item["Names"]),
    )


def _image(item: dict[str, Any], long: bool) -> str:
    image: str = item["Image"]
    if not image:
        return "<no image>"
    is_id = image.startswith("sha256:") or image == item.get("ImageID")
    return image.removeprefix("sha256:")[:SHORT_ID] if is_id and not long else image


def shortened(text: str, width: int) -> str:
    """At most `width` characters, the last one an ellipsis if something was cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\v": "\\v",
}


def quoted(text: str) -> str:
    """Between double quotes; what cannot be printed is escaped: a container's command must not write to the terminal."""
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escaped(c)) for c in text) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


PS = Command(
    "[OPTIONS]",
    ps,
    (
        Flag("all", "bool", "Show all containers, not only those that run", "a"),
        Flag("last", "int", "Show the last n containers that were created", "n", default=-1),
        Flag("latest", "bool", "Show the container that was created last", "l"),
        Flag("no-trunc", "bool", "Do not shorten anything"),
        Flag("quiet", "bool", "Show IDs only", "q"),
    ),
    at_most=0,
)
