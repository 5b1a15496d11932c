"""Looks after the firewall's rules of a network: what somebody flushes is made again.

The kernel tells of every change of nf_tables (nfnetlink's group of notifications), whoever makes it. A moment after the last one it is looked
whether our table still says what it should, rule by rule, and whether those in chains of others are there; nothing is written if so. What is to be there
follows from the endpoints, under the network's lock: a command that is at work on both is waited for.
"""

from __future__ import annotations

import _socket
import _struct
import errno

from sampan.errors import SampanError
from sampan.kernel import files, links, netlink, nft
from sampan.network import bridge, firewall, loop
from sampan.oci.network import BRIDGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from sampan.kernel.nft import Meaning
    from sampan.network.loop import Loop
    from sampan.network.members import Members
    from sampan.network.rules import Standing

_GROUP = 1 << 6  # NFNLGRP_NFTABLES is group 7; bind(2) takes them as bits
_HEADER = _struct.Struct("=IHxxxxxxxxxx")  # struct nlmsghdr
_NEWGEN = 15  # NFT_MSG_NEWGEN ends each batch, and says who made it
_DELTABLE = 2
_PREFIX = bridge.TABLES.encode()
_QUIET_SECONDS = 0.2
"""After a change, in which others may follow: whoever flushes and fills in two steps is not met in between."""
_UNTOLD_SECONDS = 5.0
"""How often it is looked where the kernel does not tell."""
_BUSY_SECONDS = 0.5
_KNOWN = 20000
"""Rules whose meanings are kept: most are there at each look."""


class Guard:
    """The rules of one network, as its endpoints want them."""

    def __init__(
        self, loop_: Loop, network: str, members: Members, lock: str, failed: Callable[[BaseException], None]
    ) -> None:
        """network: its id. lock: the path of its lock."""
        self._loop = loop_
        self._members = members
        self._lock = lock
        self._table = bridge.table_name(network).encode()
        self._failed = failed
        self._due = False
        self._refused = ""
        self._made_once: tuple[Standing, Standing] | None = None
        self._made: tuple[Standing, Standing] | None = None
        self._known: dict[bytes, Meaning] = {}
        self._socket: Any = None
        try:
            self._socket = _listen()
            loop_.watch(self._socket.fileno(), loop.READ, self._told)
        except OSError:
            loop_.after(
                _UNTOLD_SECONDS, self._look_again
            )  # no nf_tables, or not for us: then there is nothing to be found
        else:
            self._after(_QUIET_SECONDS)  # the keeper before us may have been killed by who flushed them

    def _told(self, _events: int) -> None:
        concerned = gone = False
        while True:
            try:
                data = self._socket.recv(1 << 16)
                concerned = _concerns(data, self._table) or concerned
                gone = _removes(data, self._table) or gone
            except BlockingIOError:
                break
            except OSError as e:
                if e.errno != errno.ENOBUFS:  # more than the socket held
                    raise
                concerned = True
        if gone:
            # Nobody else fills our table: until it is back, its containers reach what this host has for itself on 127.0.0.1.
            self.look()
        if concerned:
            self._after(_QUIET_SECONDS)

    def _look_again(self) -> None:
        self.look()
        self._loop.after(_UNTOLD_SECONDS, self._look_again)

    def _after(self, seconds: float) -> None:
        if not self._due:
            self._due = True
            self._loop.after(seconds, self.look)

    def look(self) -> None:
        """See to it that all rules are there."""
        self._due = False
        try:
            with files.FileLock.acquire(self._lock, 0, make=False):
                self._restore()
        except BlockingIOError:
            self._after(_BUSY_SECONDS)
        except FileNotFoundError:
            return  # the network is gone
        except (OSError, SampanError) as e:
            # Said once: it is tried again at each change of anybody's.
            if str(e) != self._refused:
                self._failed(e)
            self._refused = str(e)

    def _restore(self) -> None:
        network, endpoints = self._members.network, self._members.all()
        if network is None or network.driver != BRIDGE or not endpoints:
            return
        with nft.connect() as socket, netlink.Socket() as host:
            if links.find(host, network.link) is None:
                return  # somebody took the bridge away: what rules lead to it lead nowhere, and past the relays
            if len(self._known) > _KNOWN:
                self._known.clear()
            there = firewall.standing(socket, network, self._known)
            wanted = firewall.wanted(host, network, endpoints, self._known)
            # What we have made twice is as good as we can make it: it is not made again and again.
            if there == wanted or (there, wanted) == self._made:
                firewall.open_ways(socket, network, nft.list_chains(socket))
            else:
                firewall.restore(network, lambda: endpoints)
                self._remember((firewall.standing(socket, network, self._known), wanted))
        self._refused = ""

    def _remember(self, made: tuple[Standing, Standing]) -> None:
        """What came of a making. Once, it may be somebody's who was at work between the making and the look at it."""
        self._made = made if made == self._made_once else None
        self._made_once = made

    def close(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None


def _listen() -> Any:
    made = _socket.socket(
        _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK, netlink.NETFILTER
    )
    try:
        made.bind((0, _GROUP))
    except BaseException:
        made.close()
        raise
    return made


def _concerns(data: bytes, table: bytes) -> bool:
    """Whether notifications are of our table, or of one that is no network's: a start elsewhere is nothing to all other keepers."""
    return any(kind != _NEWGEN and (_PREFIX not in body or table in body) for kind, body in _messages(data))


def _removes(data: bytes, table: bytes) -> bool:
    """Whether they tell that our table has gone."""
    return any(kind == _DELTABLE and table in body for kind, body in _messages(data))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind = _HEADER.unpack_from(data, at)
        length = max(length, _HEADER.size)
        yield kind & 0xFF, data[at : at + length]
        at += length + (-length % 4)
