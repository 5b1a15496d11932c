"""nf_tables: tables, chains and rules, in batches that the kernel takes whole or not at all.

A rule is a list of expressions, each a small instruction: load something into a register, compare it, decide. The functions
here make them as bytes, and have the names that nft(8) shows. Source: linux/netfilter/nf_tables.h, Documentation of nftables.
"""

from __future__ import annotations

import errno
import struct

from sampan.kernel import netlink
from sampan.kernel.libc import KernelError
from sampan.kernel.netlink import attribute, big_u32, nested, text
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Meaning = tuple[tuple[str, tuple[tuple[int, bytes], ...]], ...]

INET, IPV4, IPV6, BRIDGE = 1, 2, 10, 7
"""Families of tables (NFPROTO_*); those of addresses are IPV4 and IPV6."""
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
"""Hooks (nf_inet_hooks)."""
RAW, DSTNAT, FILTER, SRCNAT = -300, -100, 0, 100
"""The usual priorities of chains."""

DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5
"""Verdicts."""

TCP, UDP, SCTP = 6, 17, 132
LOCAL = 2
"""RTN_LOCAL: the type of an address of this machine's own (`fib_destination`)."""

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN, _NEWRULE, _GETRULE, _DELRULE = range(9)
_TABLE_NAME = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 3, 4, 7
_ELEMENT, _EXPRESSION_NAME, _EXPRESSION_DATA = 1, 1, 2
_DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE, _VERDICT_CHAIN = 1, 2, 1, 2
_VERDICT, _REGISTER, _SECOND = 0, 1, 2
_NETWORK, _TRANSPORT = 1, 2
_COMMENT = 0  # NFTNL_UDATA_RULE_COMMENT, as nft(8) writes it
_NAME_LENGTH = 16  # IFNAMSIZ
_EQUAL, _UNEQUAL = 0, 1
_ROOM = 4 << 20
"""Bytes of a batch, and of its answers: the kernel gives one for each change before we read the first."""


_NESTS = {"cmp": (3,), "bitwise": (4, 5), "immediate": (2,)}
"""Attributes of expressions that are made of others."""
_RANGES = ((3, 4), (5, 6))
"""Of `nat`: the registers of the first and the last address and port (NFTA_NAT_REG_*)."""
_NAT_FLAGS, _NAT_IMPLIED = 7, 0x3
"""NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED follow from what registers there are."""


class Rule(Struct):
    """A rule. handle: by which one that is there is deleted, 0 for one that is to be made. expressions: see `meaning`."""

    chain: str
    handle: int
    comment: str
    expressions: bytes = b""


class Chain(Struct):
    """A chain. kind: "" for one that others jump to, and then neither hook nor priority nor policy means anything."""

    family: int
    table: str
    name: str
    kind: str
    hook: int
    policy: int
    priority: int = 0


# expressions


def _expression(name: str, *data: bytes) -> bytes:
    return nested(_ELEMENT, text(_EXPRESSION_NAME, name), nested(_EXPRESSION_DATA, *data))


def _value(data: bytes) -> bytes:
    return attribute(_DATA_VALUE, data)


def _compare(data: bytes, unequal: bool = False) -> bytes:
    return _expression(
        "cmp", big_u32(1, _REGISTER), big_u32(2, _UNEQUAL if unequal else _EQUAL), nested(3, _value(data))
    )


def _load_meta(key: int) -> bytes:
    return _expression("meta", big_u32(2, key), big_u32(1, _REGISTER))


def _load_payload(base: int, offset: int, length: int) -> bytes:
    parts = ((1, _REGISTER), (2, base), (3, offset), (4, length))
    return _expression("payload", *(big_u32(kind, value) for kind, value in parts))


def _mask(mask: bytes) -> bytes:
    registers = (big_u32(1, _REGISTER), big_u32(2, _REGISTER), big_u32(3, len(mask)))
    return _expression("bitwise", *registers, nested(4, _value(mask)), nested(5, _value(bytes(len(mask)))))


def _immediate(register: int, data: bytes) -> bytes:
    return _expression("immediate", big_u32(1, register), nested(2, _value(data)))


def incoming(link: str, unequal: bool = False) -> bytes:
    """iifname: it came by the link of this name."""
    return _load_meta(6) + _compare(link.encode().ljust(_NAME_LENGTH, b"\0"), unequal)


def outgoing(link: str, unequal: bool = False) -> bytes:
    """oifname: it leaves by the link of this name."""
    return _load_meta(7) + _compare(link.encode().ljust(_NAME_LENGTH, b"\0"), unequal)


def outgoing_kind(kind: str) -> bytes:
    """oifkind: it leaves by a link of this kind ("bridge"). Since Linux 5.1."""
    return _load_meta(27) + _compare(kind.encode().ljust(_NAME_LENGTH, b"\0"))


def of_family(family: int) -> bytes:
    """meta nfproto: in a table of both, packets of one family (IPV4, IPV6)."""
    return _load_meta(15) + _compare(bytes([family]))


def protocol(number: int) -> bytes:
    """meta l4proto."""
    return _load_meta(16) + _compare(bytes([number]))


def _network(offset: dict[int, int], network: bytes, prefix: int, unequal: bool) -> bytes:
    family = IPV4 if len(network) == 4 else IPV6
    bits = len(network) * 8
    mask = ((1 << bits) - (1 << (bits - prefix))).to_bytes(len(network), "big")
    kept = bytes(a & b for a, b in zip(network, mask, strict=True))
    loaded = _load_payload(_NETWORK, offset[family], len(network))
    return of_family(family) + loaded + (_mask(mask) if prefix < bits else b"") + _compare(kept, unequal)


def source(network: bytes, prefix: int, unequal: bool = False) -> bytes:
    """ip saddr, ip6 saddr: 4 or 16 bytes, and how many bits of them count."""
    return _network({IPV4: 12, IPV6: 8}, network, prefix, unequal)


def destination(network: bytes, prefix: int, unequal: bool = False) -> bytes:
    """ip daddr, ip6 daddr."""
    return _network({IPV4: 16, IPV6: 24}, network, prefix, unequal)


def destination_port(port: int) -> bytes:
    """th dport; behind `protocol`."""
    return _load_payload(_TRANSPORT, 2, 2) + _compare(struct.pack(">H", port))


def fib_destination(kind: int, unequal: bool = False) -> bytes:
    """fib daddr type: what the routing table says that the destination is (`LOCAL`)."""
    loaded = _expression("fib", big_u32(1, _REGISTER), big_u32(2, 3), big_u32(3, 2))
    return loaded + _compare(struct.pack("=I", kind), unequal)


ESTABLISHED, RELATED, NEW, INVALID = 2, 4, 8, 1
"""Bits of a connection's state."""


def connection_state(bits: int) -> bytes:
    """ct state: one of these."""
    return _expression("ct", big_u32(2, 0), big_u32(1, _REGISTER)) + _any_bit(bits)


def connection_translated() -> bytes:
    """ct status dnat: its destination was translated: it came to a published port."""
    return _expression("ct", big_u32(2, 2), big_u32(1, _REGISTER)) + _any_bit(1 << 5)


def _any_bit(bits: int) -> bytes:
    return _mask(struct.pack("=I", bits)) + _compare(bytes(4), unequal=True)


def mark(value: int) -> bytes:
    """meta mark."""
    return _load_meta(3) + _compare(struct.pack("=I", value))


def counter() -> bytes:
    """counter packets bytes, from 0."""
    return _expression("counter")


def verdict(code: int, chain: str = "") -> bytes:
    """accept, drop, return; jump and goto to a chain."""
    words = [big_u32(_VERDICT_CODE, code & 0xFFFFFFFF), *([text(_VERDICT_CHAIN, chain)] if chain else [])]
    return _expression("immediate", big_u32(1, _VERDICT), nested(2, nested(_DATA_VERDICT, *words)))


def reject_unreachable() -> bytes:
    """reject with icmpx admin-prohibited: the sender is told at once."""
    return _expression("reject", big_u32(1, 2), netlink.u8(2, 3))


def dnat(address: bytes, port: int = 0) -> bytes:
    """dnat to: another destination, with a port another one of these too."""
    family = IPV4 if len(address) == 4 else IPV6
    loaded = _immediate(_REGISTER, address)
    registers = [big_u32(1, 1), big_u32(2, family), big_u32(3, _REGISTER)]
    if port:
        loaded += _immediate(_SECOND, struct.pack(">H", port))
        registers.append(big_u32(5, _SECOND))
    return loaded + _expression("nat", *registers)


def snat(address: bytes) -> bytes:
    """snat to: another source."""
    family = IPV4 if len(address) == 4 else IPV6
    registers = [big_u32(1, 0), big_u32(2, family), big_u32(3, _REGISTER)]
    return _immediate(_REGISTER, address) + _expression("nat", *registers)


def masquerade() -> bytes:
    """masquerade: the source becomes the address of the link by which it leaves."""
    return _expression("masq")


# objects


class Batch:
    """Changes that happen together: the kernel takes all of them or, if one is refused, none."""

    def __init__(self, family: int = INET) -> None:
        self._family = family
        self._changes: list[tuple[str, str, int, int, bytes]] = []
        self.chains: list[Chain] = []
        self.rules: list[Rule] = []
        """What it adds."""

    def add_table(self, table: str) -> None:
        """Make a table; one that is there stays."""
        self._change("NEWTABLE", table, _NEWTABLE, netlink.CREATE, text(_TABLE_NAME, table))

    def delete_table(self, table: str) -> None:
        """Remove a table with all that is in it."""
        self._change("DELTABLE", table, _DELTABLE, 0, text(_TABLE_NAME, table))

    def add_chain(self, table: str, chain: str) -> None:
        """Make a chain that others jump to; one that is there stays."""
        body = text(_CHAIN_TABLE, table) + text(_CHAIN_NAME, chain)
        self.chains.append(Chain(self._family, table, chain, "", 0, 0))
        self._change("NEWCHAIN", chain, _NEWCHAIN, netlink.CREATE, body)

    def add_base_chain(self, table: str, chain: str, kind: str, hook: int, priority: int, policy: int = ACCEPT) -> None:
        """Make a chain that packets come to by themselves. kind: "filter", "nat" or "route"."""
        hooked = nested(_CHAIN_HOOK, big_u32(_HOOK_NUMBER, hook), big_u32(_HOOK_PRIORITY, priority & 0xFFFFFFFF))
        body = text(_CHAIN_TABLE, table) + text(_CHAIN_NAME, chain) + hooked
        body += big_u32(_CHAIN_POLICY, policy) + text(_CHAIN_TYPE, kind)
        self.chains.append(Chain(self._family, table, chain, kind, hook, policy, priority))
        self._change("NEWCHAIN", chain, _NEWCHAIN, netlink.CREATE, body)

    def flush_chain(self, table: str, chain: str) -> None:
        """Remove every rule of a chain."""
        self._change("DELRULE", chain, _DELRULE, 0, text(_RULE_TABLE, table) + text(_RULE_CHAIN, chain))

    def delete_chain(self, table: str, chain: str) -> None:
        """Remove a chain that nothing jumps to."""
        self._change("DELCHAIN", chain, _DELCHAIN, 0, text(_CHAIN_TABLE, table) + text(_CHAIN_NAME, chain))

    def add_rule(self, table: str, chain: str, *expressions: bytes, comment: str = "", first: bool = False) -> None:
        """Add a rule at the end of a chain, or at its beginning. comment: at most 126 bytes, shown by nft(8)."""
        body = text(_RULE_TABLE, table) + text(_RULE_CHAIN, chain) + nested(_RULE_EXPRESSIONS, *expressions)
        self.rules.append(Rule(chain, 0, comment, b"".join(expressions)))
        if comment:
            told = comment.encode()[:126] + b"\0"
            body += attribute(_RULE_USERDATA, bytes([_COMMENT, len(told)]) + told)
        flags = netlink.CREATE | (0 if first else netlink.APPEND)
        self._change("NEWRULE", f"{chain} {comment}".rstrip(), _NEWRULE, flags, body)

    def delete_rule(self, table: str, rule: Rule) -> None:
        """Remove one rule."""
        body = text(_RULE_TABLE, table) + text(_RULE_CHAIN, rule.chain)
        body += attribute(_RULE_HANDLE, struct.pack(">Q", rule.handle))
        self._change("DELRULE", f"{rule.chain} {rule.comment}".rstrip(), _DELRULE, 0, body)

    def _change(self, name: str, subject: str, kind: int, flags: int, body: bytes) -> None:
        self._changes.append((name, subject, kind, flags, body))

    def commit(self, socket: netlink.Socket) -> None:
        """Make the changes. Raises `KernelError` for the first that was refused; nothing is changed then."""
        if not self._changes:
            return
        first = last = socket.next()
        data = netlink.message(_BATCH_BEGIN, netlink.REQUEST, _head(0, _SUBSYSTEM), first)
        for number, (_, _, kind, flags, body) in enumerate(self._changes, 1):
            last = socket.next()
            # What is refused is told without being asked for, and before the answer to the last (nfnetlink_rcv_batch).
            flags |= netlink.REQUEST | (netlink.ACK if number == len(self._changes) else 0)
            data += netlink.message(_SUBSYSTEM << 8 | kind, flags, _head(self._family) + body, last)
        socket.send(data + netlink.message(_BATCH_END, netlink.REQUEST, _head(0, _SUBSYSTEM), socket.next()))
        for refused in socket.answers(first, last):
            name, subject, *_ = self._changes[max(refused.sequence - first - 1, 0)]
            raise refused.named(f"netlink(NFT_MSG_{name})", subject)


def _head(family: int, resource: int = 0) -> bytes:
    """struct nfgenmsg."""
    return struct.pack(">BBH", family, 0, resource)


def connect() -> netlink.Socket:
    """A socket to the firewall of this thread's network namespace. Raises OSError where the kernel has no nf_tables."""
    socket = netlink.Socket(netlink.NETFILTER)
    socket.make_room(_ROOM)
    return socket


def list_rules(socket: netlink.Socket, table: str, chain: str = "", family: int = INET) -> list[Rule]:
    """The rules of a table, or of one of its chains, in their order; none where there is no such table."""
    body = _head(family) + text(_RULE_TABLE, table) + (text(_RULE_CHAIN, chain) if chain else b"")
    try:
        found = socket.dump("netlink(NFT_MSG_GETRULE)", _SUBSYSTEM << 8 | _GETRULE, body, table)
    except KernelError as e:
        if e.errno == errno.ENOENT:
            return []
        raise
    return [_rule(netlink.attributes(body, 4)) for body in found]


def list_chains(socket: netlink.Socket) -> list[Chain]:
    """All chains of all tables."""
    found = socket.dump("netlink(NFT_MSG_GETCHAIN)", _SUBSYSTEM << 8 | _GETCHAIN, _head(0))
    return [_chain(body[0], netlink.attributes(body, 4)) for body in found]


def _chain(family: int, found: dict[int, bytes]) -> Chain:
    hook = netlink.attributes(found.get(_CHAIN_HOOK, b""))
    return Chain(
        family=family,
        table=netlink.to_text(found[_CHAIN_TABLE]),
        name=netlink.to_text(found[_CHAIN_NAME]),
        kind=netlink.to_text(found.get(_CHAIN_TYPE, b"")),
        hook=int.from_bytes(hook.get(_HOOK_NUMBER, b""), "big"),
        policy=int.from_bytes(found.get(_CHAIN_POLICY, b""), "big"),
        priority=int.from_bytes(hook.get(_HOOK_PRIORITY, b""), "big", signed=True),
    )


def _rule(found: dict[int, bytes]) -> Rule:
    return Rule(
        netlink.to_text(found[_RULE_CHAIN]),
        int.from_bytes(found[_RULE_HANDLE], "big"),
        _comment(found.get(_RULE_USERDATA, b"")),
        found.get(_RULE_EXPRESSIONS, b""),
    )


def _comment(data: bytes) -> str:
    at = 0
    while at + 2 <= len(data):
        kind, length = data[at], data[at + 1]
        if kind == _COMMENT:
            return netlink.to_text(data[at + 2 : at + 2 + length])
        at += 2 + length
    return ""


def has_table(socket: netlink.Socket, table: str, family: int = INET) -> bool:
    """Whether there is a table of this name."""
    try:
        socket.request(
            "netlink(NFT_MSG_GETTABLE)", _SUBSYSTEM << 8 | _GETTABLE, _head(family) + text(_TABLE_NAME, table)
        )
    except KernelError as e:
        if e.errno == errno.ENOENT:
            return False
        raise
    return True


def meaning(expressions: bytes) -> Meaning:
    """What a rule's expressions say, in a form in which those that we make are equal to those that the kernel shows.

    It leaves out the figures of counters and what only repeats what was said: attributes of zero, the end of a range of one,
    flags that follow.
    """
    found = []
    for _, element in netlink.each_attribute(expressions):
        parts = netlink.attributes(element)
        name = netlink.to_text(parts.get(_EXPRESSION_NAME, b""))
        said = netlink.attributes(parts.get(_EXPRESSION_DATA, b""))
        if name == "counter":
            said = {}
        elif name == "nat":
            for first, last in _RANGES:
                if said.get(last) == said.get(first):
                    said.pop(last, None)
            flags = int.from_bytes(said.get(_NAT_FLAGS, b""), "big")
            said[_NAT_FLAGS] = (flags & ~_NAT_IMPLIED).to_bytes(4, "big")
        nests = _NESTS.get(name, ())
        found.append(
            (name, tuple((k, _flat(data) if k in nests else data) for k, data in sorted(said.items()) if any(data)))
        )
    return tuple(found)


def _flat(data: bytes) -> bytes:
    """Nested attributes without the bit that says so, which the kernel leaves out."""
    parts = netlink.attributes(data)
    if _DATA_VERDICT in parts:
        inner = netlink.attributes(parts[_DATA_VERDICT])
        parts[_DATA_VERDICT] = b"".join(attribute(k, v) for k, v in sorted(inner.items()))
    return b"".join(attribute(k, v) for k, v in sorted(parts.items()))


def matching(rules: Iterable[Rule], comment: str) -> list[Rule]:
    """Those with exactly this comment."""
    return [rule for rule in rules if rule.comment == comment]
