"""`network connect` and `disconnect`."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.networks import split
from sampan.cli.output import Failure
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments


def connect(context: Context, arguments: Arguments) -> int:
    """Put a container into a network; nothing is printed."""
    network, container = arguments.words
    addresses = {
        "IPv4Address": arguments["ip"],
        "IPv6Address": arguments["ip6"],
        "LinkLocalIPs": split(arguments["link-local-ip"]),
    }
    options = {}
    for word in split(arguments["driver-opt"]):
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Failure("invalid key/value pair format in driver options")
        options[name] = value
    settings = {
        "IPAMConfig": {name: value for name, value in addresses.items() if value} or None,
        "Aliases": split(arguments["alias"]),
        "Links": arguments["link"],
        "DriverOpts": options,
        "GwPriority": arguments["gw-priority"],
    }
    context.engine.networks.connect(network, container, settings)
    return 0


def disconnect(context: Context, arguments: Arguments) -> int:
    """Take a container out of a network; nothing is printed."""
    network, container = arguments.words
    context.engine.networks.disconnect(network, container, arguments["force"])
    return 0


CONNECT = Command(
    "[OPTIONS] NETWORK CONTAINER",
    connect,
    (
        Flag("alias", "strings", "Another name of the container in this network"),
        Flag("driver-opt", "strings", "Set an option of the driver for this container"),
        Flag("gw-priority", "int", "The network with the highest one is the way out"),
        Flag("ip", "string", "IPv4 address in the network"),
        Flag("ip6", "string", "IPv6 address in the network"),
        Flag("link", "list", "Know another container by a name (CONTAINER[:NAME])"),
        Flag("link-local-ip", "strings", "Add a link-local address"),
    ),
    at_least=2,
    at_most=2,
)
DISCONNECT = Command(
    "[OPTIONS] NETWORK CONTAINER",
    disconnect,
    (Flag("force", "bool", "Also of a network, or from a container, that is not there any more", "f"),),
    at_least=2,
    at_most=2,
)
