"""`ps`."""

from __future__ import annotations

import time

from sampan.cli.flags import Flag
from sampan.cli.listing import Labels, labels_text, show
from sampan.cli.output import Failure, err, out, shortened
from sampan.cli.values import by_name
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

COMMAND_WIDTH, MOUNT_WIDTH = 20, 15
SHORT_ID = 12

HEADINGS = {
    "ID": "CONTAINER ID",
    "Names": "NAMES",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Ports": "PORTS",
    "State": "STATE",
    "Status": "STATUS",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
}
TABLE = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
SIZE_COLUMN = "\t{{.Size}}"
RAW = (
    "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{.State}}\n"
    "status: {{.Status}}\nnames: {{.Names}}\nlabels: {{.Labels}}\nports:{{- pad .Ports 1 0}}\n"
)
TYPE = "formatter.ContainerContext"


def ps(context: Context, arguments: Arguments) -> int:
    """Print the running containers, newest first; all of them with -a, -n or -l."""
    format = arguments["format"]
    size = arguments["size"] or (bool(format) and not arguments["quiet"] and _asks_for_size(format))
    # As with Docker, of the two --last counts.
    last = 1 if arguments["latest"] and not arguments.given("last") else arguments["last"]
    items = context.engine.containers.summaries(
        arguments["all"], by_name(arguments["filter"]), last=max(last, 0), size=size
    )
    long = arguments["no-trunc"]
    if arguments["quiet"]:
        if format:
            err("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        for item in items:
            out(item["Id"] if long else item["Id"][:SHORT_ID])
        return 0
    table, raw = (TABLE + SIZE_COLUMN, RAW + "size: {{.Size}}\n") if arguments["size"] else (TABLE, RAW)
    show([fields(item, long) for item in items], HEADINGS, table, format, TYPE, raw)
    return 0


def _asks_for_size(format: str) -> bool:
    """Whether a template names the size, which takes a walk over the container's files.

    Found as Docker does: it is tried on a container that has nothing, before any is looked at.
    """
    if format in ("table", "json", "raw"):
        return False
    from sampan.gotemplate.template import TemplateError, parse
    from sampan.gotemplate.values import Method, Row

    asked = []

    def ask() -> str:
        asked.append(True)
        return ""

    nobody: dict[str, object] = dict.fromkeys(HEADINGS, "")
    nobody |= {"Label": Method(lambda _name: "", 1), "Size": Method(ask), "Platform": None}
    try:
        template = parse(format.replace("\\t", "\t").replace("\\n", "\n"))
    except TemplateError as e:
        raise Failure(f"failed to parse template: {e}") from None
    try:
        template.execute(Row(TYPE, nobody, pointer=True))
    except TemplateError as e:
        raise Failure(f"failed to execute template: {e}") from None
    return bool(asked)


def fields(item: dict[str, Any], long: bool) -> dict[str, object]:
    """An item of `GET /containers/json` as listings show it."""
    from sampan.engine.times import human_duration

    labels: Mapping[str, str] = item["Labels"]
    return {
        "ID": item["Id"] if long else item["Id"][:SHORT_ID],
        "Names": ",".join(name.removeprefix("/") for name in item["Names"]),
        "Image": _image(item, long),
        "Command": quoted(item["Command"] if long else shortened(item["Command"], COMMAND_WIDTH)),
        "CreatedAt": lambda: time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(item["Created"])),
        "RunningFor": f"{human_duration(time.time() - item['Created'])} ago",
        "Ports": ports_text(item.get("Ports") or ()),
        "State": item["State"],
        "Status": item["Status"],
        "Size": lambda: _size(item),
        "Labels": lambda: labels_text(labels),
        "Label": Labels(labels),
        "Mounts": lambda: ",".join(_mount(mount, long) for mount in item["Mounts"]),
        "LocalVolumes": lambda: str(sum(mount.get("Driver") == "local" for mount in item["Mounts"])),
        "Networks": lambda: ",".join(item["NetworkSettings"]["Networks"]),
        "Platform": None,
    }


def ports_text(ports: Iterable[Mapping[str, Any]]) -> str:
    """The column PORTS: "0.0.0.0:8080->80/tcp"; neighbours that have the same number outside are one range, as with Docker."""
    ordered = sorted(ports, key=lambda p: (p["PrivatePort"], p.get("IP", ""), p.get("PublicPort", 0), p["Type"]))
    runs: dict[tuple[str, str], list[int]] = {}
    done, single = [], []
    for port in ordered:
        ip, own, outside = port.get("IP", ""), port["PrivatePort"], port.get("PublicPort", 0)
        if ip and own != outside:
            single.append(f"{_place(ip, str(outside))}->{own}/{port['Type']}")
            continue
        key = (ip, port["Type"])
        run = runs.setdefault(key, [own, own - 1])
        if own != run[1] + 1:
            done.append(_run(key, run))
            runs[key] = run = [own, own]
        run[1] = own
    return ", ".join([*done, *(_run(key, run) for key, run in runs.items()), *single])


def _run(key: tuple[str, str], run: Sequence[int]) -> str:
    ip, protocol = key
    first, last = run
    ports = str(first) if first == last else f"{first}-{last}"
    return f"{_place(ip, ports)}->{ports}/{protocol}" if ip else f"{ports}/{protocol}"


def _place(ip: str, ports: str) -> str:
    return f"[{ip}]:{ports}" if ":" in ip else f"{ip}:{ports}"


def _size(item: Mapping[str, Any]) -> str:
    from sampan.cli.images import human_size

    written, everything = (human_size(item.get(key, 0)) for key in ("SizeRw", "SizeRootFs"))
    return f"{written} (virtual {everything})" if item.get("SizeRootFs", 0) > 0 else written


def _mount(mount: Mapping[str, Any], long: bool) -> str:
    name = str(mount.get("Name") or mount["Source"])
    return name if long else shortened(name, MOUNT_WIDTH)


def _image(item: dict[str, Any], long: bool) -> str:
    image: str = item["Image"]
    if not image:
        return "<no image>"
    is_id = image.startswith("sha256:") or image == item.get("ImageID")
    return image.removeprefix("sha256:")[:SHORT_ID] if is_id and not long else image


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
        Flag("filter", "filters", "Show only containers that fit (name=value)", "f"),
        Flag("format", "string", "Print what a Go template makes of each container, or table, json, table TEMPLATE"),
        Flag("last", "int", "Show the last n containers that were created", "n", default=-1),
        Flag("latest", "bool", "Show the container that was created last", "l"),
        Flag("no-trunc", "bool", "Do not shorten anything"),
        Flag("quiet", "bool", "Show IDs only", "q"),
        Flag("size", "bool", "Show how much each has written, and all of its files", "s"),
    ),
    at_most=0,
)
