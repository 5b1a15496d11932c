"""`network create`, `ls`, `rm` and `prune`."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.listing import Labels, labels_text, natural, show
from sampan.cli.output import Failure, err, out
from sampan.cli.values import by_name
from sampan.cli.verbs import Command
from sampan.errors import InvalidParameter, NotFound
from sampan.oci.subnet import parse_address, parse_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments
    from sampan.engine.networks import NetworkHandle
    from sampan.oci.subnet import Subnet

HEADS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}
TABLE = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
SHORT_ID = 12


def create(context: Context, arguments: Arguments) -> int:
    """Make a network and print its id."""
    request: dict[str, Any] = {
        "Driver": arguments["driver"],
        "Scope": arguments["scope"],
        "EnableIPv4": arguments["ipv4"],
        "EnableIPv6": arguments["ipv6"],
        "Internal": arguments["internal"],
        "Attachable": arguments["attachable"],
        "Ingress": arguments["ingress"],
        "ConfigOnly": arguments["config-only"],
        "ConfigFrom": {"Network": arguments["config-from"]},
        "Options": dict(word.partition("=")[::2] for word in arguments["opt"]),
        "Labels": dict(word.partition("=")[::2] for word in arguments["label"]),
        "IPAM": {
            "Driver": arguments["ipam-driver"],
            "Options": dict(word.partition("=")[::2] for word in arguments["ipam-opt"]),
            "Config": pools(arguments),
        },
    }
    out(context.engine.networks.create(arguments.words[0], **request).id)
    return 0


def pools(arguments: Arguments) -> list[dict[str, Any]]:
    """IPAM.Config: each range, gateway and reserved address goes to the subnet that it is in (docker/cli network/create.go).

    Raises Failure in Docker's words.
    """
    given, ranges, gateways = (split(arguments[flag]) for flag in ("subnet", "ip-range", "gateway"))
    if len(given) < len(ranges) or len(given) < len(gateways):
        raise Failure("every ip-range or gateway must have a corresponding subnet")
    if len(given) == 1 and not (ranges or gateways or arguments["aux-address"]):
        return [{"Subnet": given[0]}]  # nothing to be told apart: what is wrong with it is the engine's to say
    found: dict[str, dict[str, Any]] = {}
    nets: dict[str, Subnet] = {}
    for text in given:
        net = _subnet(text)
        if any(net.overlaps(other) for other in nets.values()):
            raise Failure("multiple overlapping subnet configuration is not supported")
        found[text], nets[text] = {"Subnet": text}, net
    for text in ranges:
        part = _subnet(text)
        _give(found, [name for name, net in nets.items() if net.covers(part)], "range", "IPRange", text)
    for text in gateways:
        _give(found, _containing(nets, text), "gateway", "Gateway", text)
    for word in arguments["aux-address"]:
        name, _, address = word.partition("=")
        places = [at for at in _containing(nets, address) if name not in found[at].get("AuxiliaryAddresses", {})]
        if not places:
            raise Failure(f"no matching subnet for aux-address {address}")
        found[places[0]].setdefault("AuxiliaryAddresses", {})[name] = address
    return list(found.values())


def split(texts: Iterable[str]) -> list[str]:
    """What the uses of a flag of the kind `strings` said: each may have several words, between commas."""
    return [word for text in texts for word in text.split(",")]


def _subnet(text: str) -> Subnet:
    try:
        return parse_subnet(text)
    except InvalidParameter as e:
        raise Failure(str(e)) from None


def _containing(nets: dict[str, Subnet], text: str) -> list[str]:
    try:
        number, bits = parse_address(text)
    except InvalidParameter:
        return []
    return [name for name, net in nets.items() if net.bits == bits and net.contains(number)]


def _give(found: dict[str, dict[str, Any]], places: Iterable[str], what: str, field: str, text: str) -> None:
    for place in places:
        if found[place].get(field):
            raise Failure(
                f"cannot configure multiple {what}s ({text}, {found[place][field]}) on the same subnet ({place})"
            )
        found[place][field] = text
        return
    raise Failure(f"no matching subnet for {what} {text}")


def ls(context: Context, arguments: Arguments) -> int:
    """Print the networks, by name."""
    found = sorted(context.engine.networks.list(by_name(arguments["filter"])), key=lambda n: natural(n.name))
    long = arguments["no-trunc"]
    if arguments["quiet"] and arguments["format"] in ("", "table"):
        for network in found:
            out(network.id if long else network.id[:SHORT_ID])
        return 0
    rows = [_row(network, long) for network in found]
    show(rows, HEADS, TABLE, arguments["format"], "*network.networkContext")
    for network in found:
        if network.broken:
            err(f"WARNING: network {network.name} is damaged ({network.broken})")
    return 0


def _row(network: NetworkHandle, long: bool) -> dict[str, Any]:
    known = network.attrs
    return {
        "ID": network.id if long else network.id[:SHORT_ID],
        "Name": known["Name"],
        "Driver": known["Driver"],
        "Scope": known["Scope"],
        "IPv4": str(known["EnableIPv4"]).lower(),
        "IPv6": str(known["EnableIPv6"]).lower(),
        "Internal": str(known["Internal"]).lower(),
        "Labels": labels_text(network.labels),
        "Label": Labels(network.labels),
        "CreatedAt": lambda: _go_time(known["Created"]),
    }


def _go_time(text: str) -> str:
    """An RFC 3339 time of ours as Go prints one."""
    return text.replace("T", " ").removesuffix("Z") + " +0000 UTC" if text else ""


def remove(context: Context, arguments: Arguments) -> int:
    """Remove each network and print the name that was given."""

    def one(name: str) -> None:
        try:
            context.engine.networks.remove(name)
        except NotFound:
            if not arguments["force"]:
                raise
            return
        out(name)

    return context.each(arguments.words, one)


def prune(context: Context, arguments: Arguments) -> int:
    """Remove the networks that no container is in, after a question."""
    from sampan.cli.prune import agreed

    if not agreed(arguments, "WARNING! This will remove all custom networks not used by at least one container."):
        return 0
    dry_run = arguments["dry-run"]
    deleted = context.engine.networks.prune(by_name(arguments["filter"]), dry_run)["NetworksDeleted"]
    if deleted:
        heading = "Networks that would be deleted:" if dry_run else "Deleted Networks:"
        out("\n".join([heading, *deleted, ""]))
    return 0


FORMAT = "Print by a Go template, `json`, or `table TEMPLATE`"

CREATE = Command(
    "[OPTIONS] NETWORK",
    create,
    (
        Flag("attachable", "bool", "Kept, and shown: every network can be joined by hand here"),
        Flag("aux-address", "map", "Keep an address for somebody else (NAME=ADDRESS)"),
        Flag("config-from", "string", "Refused: there are no configurations of networks", hidden=True),
        Flag("config-only", "bool", "Refused: there are no configurations of networks", hidden=True),
        Flag("driver", "string", "Driver: bridge, macvlan or ipvlan", "d", default="bridge"),
        Flag("gateway", "strings", "Gateway of a subnet"),
        Flag("ingress", "bool", "Refused: there is no swarm", hidden=True),
        Flag("internal", "bool", "Let containers reach each other and nothing else"),
        Flag("ip-range", "strings", "Give containers addresses of this part of a subnet only"),
        Flag("ipam-driver", "string", "Who gives addresses: default", default="default"),
        Flag("ipam-opt", "map", "Set IPAM driver specific options"),
        Flag("ipv4", "bool", "Give containers IPv4 addresses", default=True),
        Flag("ipv6", "bool", "Give containers IPv6 addresses"),
        Flag("label", "labels", "Set metadata for the network"),
        Flag("opt", "map", "Set an option of the driver", "o"),
        Flag("scope", "string", "Scope: local, the only one"),
        Flag("subnet", "strings", "Subnet of the network (ADDRESS/BITS)"),
    ),
    at_least=1,
    at_most=1,
)
LS = Command(
    "[OPTIONS]",
    ls,
    (
        Flag("filter", "filters", "Show only these: dangling=, driver=, id=, label=, name=, scope=, type=", "f"),
        Flag("format", "string", FORMAT),
        Flag("no-trunc", "bool", "Do not shorten anything"),
        Flag("quiet", "bool", "Show ids only", "q"),
    ),
    at_most=0,
)
RM = Command(
    "NETWORK [NETWORK...]",
    remove,
    (Flag("force", "bool", "A network that is not there is no failure", "f"),),
    at_least=1,
)
PRUNE = Command(
    "[OPTIONS]",
    prune,
    (
        Flag("dry-run", "bool", "Say what would be removed, and remove nothing"),
        Flag("filter", "filters", "Remove only these: until=TIME or DURATION, label=, label!="),
        Flag("force", "bool", "Do not ask", "f"),
    ),
    at_most=0,
)
