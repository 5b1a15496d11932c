"""What `inspect` and listings show of a container's networks: NetworkSettings, and Ports of `GET /containers/json` (1.51)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.oci.network import Attachment, Endpoint, Network
    from sampan.store.record import Record

    class Networks(Protocol):
        def all(self) -> list[Network]: ...
        def files(self, network_id: str) -> Mapping[str, Sequence[str]]: ...
        def newest(self, container_id: str, paths: Sequence[str]) -> Endpoint | None: ...

    Found = Sequence[tuple[str, Endpoint]]
    """What a container has now: (the network's id, the endpoint)."""

# Not from oci.network: a listing of containers that are in no network needs nothing of that.
BRIDGE = "bridge"
_NOTHING: dict[str, Any] = {
    "EndpointID": "",
    "Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "MacAddress": "",
}


class Connections:
    """What containers have in networks, each network looked up once: one of these is made for a whole listing."""

    __slots__ = ("_files", "_found", "_ids", "_networks")

    def __init__(self, networks: Callable[[], Networks]) -> None:
        self._networks = networks
        self._ids: dict[str, str] | None = None
        self._files: dict[str, Mapping[str, Sequence[str]]] = {}
        self._found: dict[str, Found] = {}

    def of(self, record: Record, running: bool) -> tuple[Found, Mapping[str, str]]:
        """What a container has in networks now, and the networks' ids by their names."""
        if not record.networks:
            return (), {}
        if self._ids is None:
            self._ids = {network.name: network.id for network in self._networks().all()}
        if not running:
            return (), self._ids
        if record.id not in self._found:
            self._found[record.id] = self._look(record, self._ids)
        return self._found[record.id], self._ids

    def _look(self, record: Record, ids: Mapping[str, str]) -> Found:
        networks = self._networks()
        found = []
        for network_id in filter(None, (ids.get(attachment.network) for attachment in record.networks)):
            if network_id not in self._files:
                self._files[network_id] = networks.files(network_id)
            endpoint = networks.newest(record.id, self._files[network_id].get(record.id, ()))
            if endpoint is not None:
                found.append((network_id, endpoint))
        return found


def settings(record: Record, found: Found, ids: Mapping[str, str], pid: int) -> dict[str, Any]:
    """NetworkSettings. ids: of networks by their names; pid: of the container's init, 0 if it does not run."""
    shown = networks(record, found, ids)
    own = shown.get(BRIDGE, _NOTHING)  # what there was before there were other networks is of that one
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": f"/proc/{pid}/ns/net" if pid and record.networks else "",
        "Ports": port_map(record, found),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{name: own[name] for name in _NOTHING},
        "Networks": shown,
    }


def networks(record: Record, found: Found, ids: Mapping[str, str]) -> dict[str, Any]:
    """NetworkSettings.Networks: those that it is connected to, by name; the modes that are no network count with Docker."""
    if not record.networks:
        mode = record.host_config.get("NetworkMode", "")
        return {mode: _entry(None, ids.get(mode, ""), None, ())} if mode in ("none", "host") else {}
    endpoints = dict(found)
    shown = {}
    for attachment in sorted(record.networks, key=lambda one: one.network):
        network_id = ids.get(attachment.network, "")
        names = () if attachment.network == BRIDGE else _names(record, attachment)
        shown[attachment.network] = _entry(attachment, network_id, endpoints.get(network_id), names)
    return shown


def _entry(
    attachment: Attachment | None, network_id: str, endpoint: Endpoint | None, names: Sequence[str]
) -> dict[str, Any]:
    return {
        "IPAMConfig": _addresses(attachment),
        "Links": list(attachment.links) or None if attachment else None,
        "Aliases": list(attachment.aliases) or None if attachment else None,
        "MacAddress": endpoint.mac if endpoint else attachment.mac if attachment else "",
        "DriverOpts": dict(attachment.options) or None if attachment else None,
        "GwPriority": attachment.gateway_priority if attachment else 0,
        "NetworkID": network_id,
        "EndpointID": endpoint.id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.address if endpoint else "",
        "IPPrefixLen": endpoint.prefix if endpoint and endpoint.address else 0,
        "IPv6Gateway": endpoint.gateway6 if endpoint else "",
        "GlobalIPv6Address": endpoint.address6 if endpoint else "",
        "GlobalIPv6PrefixLen": endpoint.prefix6 if endpoint and endpoint.address6 else 0,
        "DNSNames": list(names) or None,
    }


def _addresses(attachment: Attachment | None) -> dict[str, Any] | None:
    if attachment is None:
        return None
    wanted = {
        "IPv4Address": attachment.address,
        "IPv6Address": attachment.address6,
        "LinkLocalIPs": list(attachment.link_local),
    }
    return {name: value for name, value in wanted.items() if value} or None


def _names(record: Record, attachment: Attachment) -> list[str]:
    """What the network's other containers can call it by, in Docker's order."""
    hostname = record.config.get("Hostname") or ""
    names = (record.name, *attachment.aliases, record.id[:12], *([hostname] if hostname else []))
    return list(dict.fromkeys(names))


def port_map(record: Record, found: Found) -> dict[str, list[dict[str, str]] | None]:
    """NetworkSettings.Ports: the ports that are exposed or published, with where; none of a container that does not run."""
    if not found:
        return {}
    shown: dict[str, list[dict[str, str]] | None] = dict.fromkeys(record.config.get("ExposedPorts") or ())
    for _, endpoint in found:
        for port in endpoint.ports:
            key = f"{port.port}/{port.protocol}"
            places = shown.get(key) or []
            shown[key] = [*places, {"HostIp": port.host_address, "HostPort": str(port.host_port or "")}]
    return dict(sorted(shown.items()))


def port_list(record: Record, found: Found) -> list[dict[str, Any]]:
    """The same as listings have it: an item for each place, and one for each port that is exposed only."""
    items: list[dict[str, Any]] = []
    for key, places in port_map(record, found).items():
        number, _, protocol = key.partition("/")
        own = {"PrivatePort": int(number), "Type": protocol}
        # What is reached at the container's own address has no place on this host.
        placed = [place for place in places or () if place["HostPort"]]
        items += [{"IP": p["HostIp"], **own, "PublicPort": int(p["HostPort"])} for p in placed] or [own]
    return items
