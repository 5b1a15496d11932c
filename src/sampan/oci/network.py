"""Networks as data: what `network create` was told, and what of it a container has. Kept as JSON, one file each.

Which address is free, what the firewall's rules are and which names are answered follows from these and from nothing else.
"""

from __future__ import annotations

from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

BRIDGE = "bridge"
"""The default network's name, and the driver's."""

NONE, HOST = "none", "host"
DRIVERS = {BRIDGE: "bridge", HOST: "host", NONE: "null"}
"""Of the predefined networks."""
PREDEFINED = (BRIDGE, HOST, NONE)

OPTION_BRIDGE = "com.docker.network.bridge.name"
OPTION_ICC = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
OPTION_HOST_ADDRESS = "com.docker.network.bridge.host_binding_ipv4"
OPTION_INTERFACE = "com.docker.network.endpoint.ifname"
"""An endpoint's option: the name of its interface."""
OPTION_PREFIX = "com.docker.network.container_iface_prefix"
"""How the names of interfaces in containers begin, instead of eth."""
OPTION_INHIBIT = "com.docker.network.bridge.inhibit_ipv4"
"""Whether the bridge is to have no IPv4 address."""
OPTION_SOURCE, OPTION_SOURCE6 = "com.docker.network.host_ipv4", "com.docker.network.host_ipv6"
"""The host's address from which containers' packets leave, instead of that of the link by which they do."""
OPTION_SYSCTLS = "com.docker.network.endpoint.sysctls"
"""An endpoint's option: NAME=VALUE of its interface, the names with IFNAME for the interface's, separated by commas."""
OPTION_MTU = "com.docker.network.driver.mtu"
OPTION_MODE, OPTION_MODE6 = "com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"
"""How containers and the world outside reach each other, in each family for itself: one of GATEWAY_MODES."""
NAT, UNPROTECTED, ROUTED, ISOLATED = GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")

_FILE_END = ".json"

JOINABLE = ("bridge", "macvlan", "ipvlan")
"""The drivers of networks that have a record."""


def is_user_defined(mode: str) -> bool:
    """Whether a NetworkMode names a network that somebody made: names are answered there, and containers can be given addresses."""
    return mode not in ("", "default", *PREDEFINED) and not mode.startswith("container:")


def is_joined(mode: str) -> bool:
    """Whether a NetworkMode names a network at all: none, host and container:ID do not."""
    return mode == BRIDGE or is_user_defined(mode)


def predefined_id(root: str, name: str) -> str:
    """The id of one of the PREDEFINED networks: it follows from the engine's root, so that nothing has to be read for it."""
    from _blake2 import blake2b  # hashlib's, without hashlib

    return blake2b(f"{root}\0{name}".encode("utf-8", "surrogateescape"), digest_size=32).hexdigest()


class Pool(Struct):
    """One subnet of a network (IPAM.Config): `range` is what addresses are taken from, `reserved` who has some by name."""

    subnet: str
    gateway: str = ""
    range: str = ""
    reserved: dict[str, str] = {}  # noqa: RUF012 (a field, and frozen)


class Network(Struct):
    """A network.

    id: 64 hexadecimal digits. created: RFC 3339. link: the bridge's name on the host, or the parent's of a macvlan.
    options: as with Docker's driver (`com.docker.network...`). configured: whether somebody named its subnet, so that
    containers may name addresses. ipam_options: kept and shown, for the manager of addresses has none. broken: why its record cannot be used ("" for a good one); such a network can only be removed.
    """

    id: str
    name: str
    driver: str
    created: str
    link: str
    pools: tuple[Pool, ...] = ()
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = {}  # noqa: RUF012
    labels: dict[str, str] = {}  # noqa: RUF012
    configured: bool = False
    ipam_options: dict[str, str] = {}  # noqa: RUF012
    broken: str = ""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        known = {name: value for name, value in data.items() if name in cls._fields}
        return cls(**{**known, "pools": tuple(Pool(**pool) for pool in data.get("pools", ()))})

    @property
    def is_predefined(self) -> bool:
        """Whether every installation has it: it is neither made nor removed by anybody."""
        return self.name in PREDEFINED

    @property
    def is_default(self) -> bool:
        """Whether it is the default bridge: no names are answered in it, and it cannot be removed."""
        return self.name == BRIDGE

    def option(self, name: str, default: bool) -> bool:
        """A driver option that is true or false."""
        value = self.options.get(name, "")
        return default if not value else value in ("1", "t", "T", "true", "TRUE", "True")

    def gateway_mode(self, six: bool) -> str:
        """How its containers and the world outside reach each other by IPv4, or IPv6: one of GATEWAY_MODES."""
        return self.options.get(OPTION_MODE6 if six else OPTION_MODE) or NAT


class PublishedPort(Struct):
    """A port of a container that is reached at one of the host's. protocol: tcp, udp or sctp; host_address: 0.0.0.0 or :: for all.

    host_port: 0 for one that is reached at the container's own address, of the family of host_address (gateway mode `routed`).
    """

    port: int
    protocol: str
    host_address: str
    host_port: int


class Attachment(Struct):
    """What a container asked for in one network, as long as it exists (Docker's EndpointSettings, what of it is a wish).

    network: the name, or the id, as it was given. address, address6: fixed ones. links: NAME:ALIAS of other containers.
    """

    network: str
    address: str = ""
    address6: str = ""
    link_local: tuple[str, ...] = ()
    mac: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    gateway_priority: int = 0
    options: dict[str, str] = {}  # noqa: RUF012

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        lists = {name: tuple(data.get(name, ())) for name in ("link_local", "aliases", "links")}
        return cls(**{**{name: value for name, value in data.items() if name in cls._fields}, **lists})


class Endpoint(Struct):
    """What a container has in one network, from its start to its end.

    container: the full id; start: the number of the start that it belongs to. interface: the link's name in the container,
    link: of its other end on the host. names: all that are answered with its addresses, the container's own first. prefix: bits.
    links: names that this container alone calls others by, each with a name that the network knows. servers: who its other
    questions are forwarded to (`--dns`); none for the host's. link_local: further addresses of its interface. sysctls: its parameters,
    `net.ipv4.conf.IFNAME.log_martians=1`.
    """

    container: str
    start: int
    id: str
    interface: str
    link: str
    mac: str
    address: str = ""
    prefix: int = 0
    gateway: str = ""
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    names: tuple[str, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    gateway_priority: int = 0
    links: dict[str, str] = {}  # noqa: RUF012
    servers: tuple[str, ...] = ()
    link_local: tuple[str, ...] = ()
    sysctls: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        known = {name: value for name, value in data.items() if name in cls._fields}
        ports = tuple(PublishedPort(**port) for port in data.get("ports", ()))
        lists = {name: tuple(data.get(name, ())) for name in ("names", "servers", "link_local", "sysctls")}
        return cls(**{**known, **lists, "ports": ports})

    @property
    def file_name(self) -> str:
        """CONTAINER,IPv4,IPv6.json: which addresses are taken is seen without a look into the files."""
        return f"{self.container},{self.address},{self.address6}{_FILE_END}"


def endpoint_of(file_name: str) -> tuple[str, tuple[str, ...]]:
    """Of an endpoint's file: the container, "" for a file that is none's, and its addresses. CONTAINER.json tells none of these."""
    if not file_name.endswith(_FILE_END) or file_name.startswith("."):
        return "", ()
    container, *addresses = file_name.removesuffix(_FILE_END).split(",")
    return container, tuple(filter(None, addresses))
