"""The three files that every container gets from outside its image: /etc/hostname, /etc/hosts, /etc/resolv.conf.

They are made with the container, kept in its directory, and mounted over the image's. A container that joins
another one's network mounts that one's files instead, as Docker has it. What depends on the networks that a container is in,
its addresses and who is asked for names, is written when it starts, and when it is connected or disconnected.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter
from sampan.kernel.files import read_small, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Protocol

    from sampan.oci.network import Endpoint, Network
    from sampan.store.layout import ContainerPaths
    from sampan.store.record import Record

    class Records(Protocol):
        def read(self, container_id: str) -> Record: ...
        def paths(self, container_id: str) -> ContainerPaths: ...


_NAMES = ("hostname", "hosts", "resolv.conf")
_HOST_RESOLV_CONF = "/etc/resolv.conf"
_RESOLVED_RESOLV_CONF = "/run/systemd/resolve/resolv.conf"
_RESOLVED_STUB = "127.0.0.53"
_HOST_HOSTS = "/etc/hosts"
_LIMIT = 1 << 20

HOST_GATEWAY = "host-gateway"
"""In the place of an address in `--add-host`: where this machine is reached from the container."""

_NAME_SERVER = "127.0.0.11"
"""Who answers names in networks that somebody made (`network.dns`)."""

_LOCAL_HOSTS = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


def make(config: dict[str, Any], host: dict[str, Any]) -> dict[str, bytes]:
    """The files of a new container by name; none for what it takes from another container.

    `config` and `host` are the final Config (with its hostname) and HostConfig.
    """
    mode = host["NetworkMode"]
    if mode.startswith("container:"):
        return {}
    return {
        # Without the domain name, which setdomainname and /etc/hosts (of a network with an address) carry.
        "hostname": _encode(config["Hostname"] + "\n"),
        "hosts": _encode(_hosts(host)),
        "resolv.conf": _encode(_resolv_conf(host)),
    }


def places(record: Record, paths: ContainerPaths, records: Records) -> dict[str, str]:
    """What is mounted over the image's files, by its place in the container: its own, or those of whose network it joins.

    Raises NotFound if that container is gone.
    """
    mode = record.host_config["NetworkMode"]
    if mode.startswith("container:"):
        other = records.read(mode.removeprefix("container:"))
        return places(other, records.paths(other.id), records)
    return {f"/etc/{name}": f"{paths.directory}/{name}" for name in _NAMES}


def connect(
    record: Record,
    paths: ContainerPaths,
    endpoints: Sequence[tuple[Network, Endpoint]],
    linked: Iterable[tuple[str, str]] = (),
) -> None:
    """Write into a container's files what follows from the networks that it is in now.

    endpoints: the network that is the way out first. linked: (address, names) of containers that it knows by `--link`. The
    files may be mounted in it: they stay the same ones. Raises OSError, InvalidParameter for a host-gateway that there is not.
    """
    config, host = record.config, record.host_config
    gateway = next((e.gateway or e.gateway6 for _, e in endpoints if e.gateway or e.gateway6), "")
    text = _hosts(host, gateway) + "".join(f"{address}\t{names}\n" for address, names in linked)
    # The whole name, and its first part: some say all of it as the host name (libnetwork, sandbox_dns_unix.go).
    whole = ".".join(filter(None, (config["Hostname"], config["Domainname"])))
    names = " ".join(dict.fromkeys((whole, whole.partition(".")[0])))
    addresses = [address for _, e in endpoints for address in (e.address, e.address6) if address]
    text += "".join(f"{address}\t{names}\n" for address in addresses)
    _rewrite(paths.hosts, text)
    answered = any(not network.is_default for network, _ in endpoints)
    _rewrite(paths.resolv_conf, _resolv_conf(host, _NAME_SERVER if answered else ""))


def _rewrite(path: str, text: str) -> None:
    """Exchange a file's content; on a full disk the beginning of it at least is what was there."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        data = _encode(text)
        write_all(fd, data)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def _hosts(host: dict[str, Any], gateway: str = "") -> str:
    # With the host's network, its names are the ones that lead somewhere (libnetwork, buildHostsFiles).
    text = _read(_HOST_HOSTS) if host["NetworkMode"] == "host" else _LOCAL_HOSTS
    if text and not text.endswith("\n"):
        text += "\n"
    for entry in host["ExtraHosts"] or ():
        name, _, address = entry.partition(":")
        if address == HOST_GATEWAY:
            address = gateway or _own_gateway(host)
        if address:
            text += f"{address}\t{name}\n"
    return text


def _own_gateway(host: dict[str, Any]) -> str:
    """The host's address where there is no network between; "" if it is not known yet."""
    if host["NetworkMode"] == "host":
        return "127.0.0.1"
    if host["NetworkMode"] == "none":
        raise InvalidParameter("unable to derive the IP value for host-gateway: the container is in no network")
    return ""


def _resolv_conf(host: dict[str, Any], server: str = "") -> str:
    """The host's resolver, or what the request says in its place; `server` if that is asked first, and asks these.

    Servers on the host's loopback are of no use in another network namespace and are left out there.
    """
    given = _host_resolver()
    loopback_works = host["NetworkMode"] == "host"
    servers = [line.split()[1] for line in given if line.startswith("nameserver") and len(line.split()) > 1]
    if not loopback_works:
        servers = [address for address in servers if not address.startswith("127.") and address != "::1"]
    search = [word for line in given if line.startswith(("search", "domain")) for word in line.split()[1:]]
    options = [word for line in given if line.startswith("options") for word in line.split()[1:]]
    servers, search, options = host["Dns"] or servers, host["DnsSearch"] or search, host["DnsOptions"] or options
    if server:
        servers = [server]
        # As with Docker: a name without a dot is one of the network's, whatever is searched.
        options = options if any(word.startswith("ndots:") for word in options) else [*options, "ndots:0"]
    lines = [f"nameserver {address}" for address in servers]
    if search and search != ["."]:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n" if lines else ""


def _host_resolver() -> list[str]:
    lines = [line.strip() for line in _read(_HOST_RESOLV_CONF).splitlines()]
    servers = [line.split()[1:] for line in lines if line.startswith("nameserver")]
    if servers == [[_RESOLVED_STUB]]:
        # systemd-resolved's stub listens on the host's loopback only; the real servers are beside it.
        lines = [line.strip() for line in _read(_RESOLVED_RESOLV_CONF).splitlines()] or lines
    return lines


def _read(path: str) -> str:
    try:
        return read_small(path)[:_LIMIT].decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
