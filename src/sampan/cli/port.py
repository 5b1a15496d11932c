"""`port`: where a container's ports are published."""

from __future__ import annotations

from sampan.cli.listing import natural
from sampan.cli.output import Failure, out
from sampan.cli.verbs import Command
from sampan.oci import ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

    Published = Mapping[str, Sequence[Mapping[str, str]] | None]
    """NetworkSettings.Ports: "80/tcp" -> [{"HostIp": "0.0.0.0", "HostPort": "8080"}], None for what is only exposed."""


def port(context: Context, arguments: Arguments) -> int:
    """Print where all ports of a container are published, or one; nothing if none is."""
    name, *wanted = arguments.words
    published: Published = context.engine.containers.get(name).inspect()["NetworkSettings"]["Ports"]
    for line in lines_of_one(published, wanted[0], name) if wanted else lines(published):
        out(line)
    return 0


def lines(published: Published) -> list[str]:
    """A line for each place, "80/tcp -> 0.0.0.0:8080", in the order of their numbers."""
    found = [f"{port} -> {_address(place)}" for port, places in published.items() for place in places or ()]
    return sorted(found, key=natural)


def lines_of_one(published: Published, wanted: str, container: str) -> list[str]:
    """The places of one port, "80" or "80/udp". Raises Failure."""
    number, _, protocol = wanted.partition("/")
    try:
        ports.number(number)
    except ValueError as e:
        raise Failure(f"Error: invalid port ({number}): {e}") from None
    places = published.get(f"{number}/{protocol or 'tcp'}")
    if not places:
        raise Failure(f"Error: No public port '{wanted}' published for {container}")
    return sorted((_address(place) for place in places), key=natural)


def _address(place: Mapping[str, str]) -> str:
    ip = place["HostIp"]
    return f"[{ip}]:{place['HostPort']}" if ":" in ip else f"{ip}:{place['HostPort']}"


PORT = Command("CONTAINER [PRIVATE_PORT[/PROTO]]", port, at_least=1, at_most=2)
