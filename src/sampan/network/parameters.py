"""Parameters of the kernel's network (Documentation/networking/ip-sysctl.rst) that a network needs, set only when they are.

Below /proc/sys/net everybody finds those of the network namespace that the calling thread is in.
"""

from __future__ import annotations

import errno
import os

from sampan.errors import System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.oci.network import Network

_ROOT = "/proc/sys/net"
_UNABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


def write(path: str, value: str) -> bool:
    """Write a parameter, unless it has the value; False where that is not allowed.

    One that is not there (the kernel has no IPv6) needs no value. Raises OSError for what the kernel refuses otherwise.
    """
    try:
        if read(path) in (value, None):
            return True
        fd = os.open(f"{_ROOT}/{path}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as e:
        if e.errno not in _UNABLE:
            raise
        return False
    return True


def read(path: str) -> str | None:
    """A parameter's value, None if there is none of this name."""
    try:
        fd = os.open(f"{_ROOT}/{path}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)


def quiet(link: str, ipv6: bool) -> None:
    """Let a link, before it is brought up, have no IPv6 address but those that are given to it.

    For a bridge, by which no container is to tell the host its addresses and routes (class CVE-2020-13401), and for an
    interface in a container. Without `ipv6` it has none at all (class CVE-2024-32473).
    """
    write(f"ipv6/conf/{link}/accept_ra", "0")
    if ipv6:
        # The address of the link itself is made of a MAC address that nobody else has: it is used at once. Until then
        # nothing would be forwarded to the link's neighbours, for a second or two.
        write(f"ipv6/conf/{link}/accept_dad", "0")
    write(f"ipv6/conf/{link}/disable_ipv6", "0" if ipv6 else "1")


def set_of_link(link: str, sysctl: str) -> None:
    """Set a parameter of a link: `net.ipv4.conf.IFNAME.log_martians=1`, judged by `check_of_link` before. Raises System."""
    name, _, value = sysctl.partition("=")
    _, family, kind, _, last = name.split(".")
    path = f"{_ROOT}/{family}/{kind}/{link}/{last}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as e:
        raise System(f"failed to set sysctl {sysctl}: write {path}: {(e.strerror or str(e)).lower()}") from None


def check_of_link(sysctl: str) -> str:
    """What is wrong with such a parameter, "" for nothing: it must be one of the interface's own."""
    name, equal, value = sysctl.partition("=")
    parts = name.split(".")
    if not equal or not value:
        return f"expected sysctl '{sysctl}' to have format name=value"
    if len(parts) != 5 or parts[0] != "net" or parts[3] != "IFNAME" or not all(parts) or "/" in name:
        return f"expected sysctl '{sysctl}' to have format net.X.Y.IFNAME.Z"
    return ""


def allow_forwarding(network: Network) -> list[str]:
    """Let the host forward packets, without which nothing gets out of a bridge; what there is to tell of it.

    It is the host's own parameter, and others may rely on it as soon as it is set: nobody sets it back.
    """
    told = []
    for wanted, path, name in (
        (network.ipv4, "ipv4/ip_forward", "IPv4"),
        (network.ipv6, "ipv6/conf/all/forwarding", "IPv6"),
    ):
        if not wanted or read(path) != "0":
            continue
        if write(path, "1"):
            told.append(f"{name} forwarding was off on this host and is on now ({path.replace('/', '.')})")
        else:
            told.append(f"{name} forwarding is disabled. Networking will not work.")
    return told


def route_loopback(link: str) -> bool:
    """Let packets from 127.0.0.1 be sent out by a bridge, where the firewall gives them another source; whether that is so.

    What comes in by the bridge for 127.0.0.0/8 is dropped by the same firewall (`network.firewall`).
    """
    return write(f"ipv4/conf/{link}/route_localnet", "1")
