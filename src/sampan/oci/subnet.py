"""Networks of IP addresses as numbers: what `ipaddress` of the standard library does, without its 8 ms of imports."""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Subnet(Struct):
    """The addresses whose first `prefix` bits are those of `first`. bits: 32 or 128."""

    first: int
    prefix: int
    bits: int

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return 1 << (self.bits - self.prefix)

    @property
    def last(self) -> int:
        return self.first + self.size - 1

    @property
    def is_ipv6(self) -> bool:
        return self.bits == 128

    def contains(self, address: int) -> bool:
        return self.first <= address <= self.last

    def covers(self, other: Subnet) -> bool:
        """Whether all of the other one is in it."""
        return self.bits == other.bits and self.first <= other.first and other.last <= self.last

    def overlaps(self, other: Subnet) -> bool:
        return self.bits == other.bits and self.first <= other.last and other.first <= self.last

    def text(self, address: int) -> str:
        """One of its addresses, as everybody writes it."""
        return address_text(address, self.bits)

    def pack(self) -> bytes:
        """Its first address in the network's byte order."""
        return self.first.to_bytes(self.bits // 8, "big")

    def __str__(self) -> str:
        return f"{self.text(self.first)}/{self.prefix}"

    def parts(self, prefix: int) -> Iterator[Subnet]:
        """The subnets of that length that it is made of."""
        step = 1 << (self.bits - prefix)
        for first in range(self.first, self.last + 1, step):
            yield Subnet(first, prefix, self.bits)

    def hosts(self) -> range:
        """The addresses that a machine can have: of an IPv4 network neither the first nor the last, of IPv6 not the first."""
        end = self.last if self.is_ipv6 or self.prefix >= 31 else self.last - 1
        begin = self.first + (self.prefix < self.bits - 1)
        return range(begin, end + 1)


def parse_address(text: str) -> tuple[int, int]:
    """An address and how many bits it has. Raises `InvalidParameter`."""
    import _socket  # the C half; only for those who have an address to read

    family = _socket.AF_INET6 if ":" in text else _socket.AF_INET
    try:
        data = _socket.inet_pton(family, text)
    except (OSError, ValueError):
        raise InvalidParameter(f"invalid IP address: {text!r}") from None
    return int.from_bytes(data, "big"), len(data) * 8


def address_text(address: int, bits: int) -> str:
    """The shortest usual form of an address."""
    import _socket

    family = _socket.AF_INET6 if bits == 128 else _socket.AF_INET
    return _socket.inet_ntop(family, address.to_bytes(bits // 8, "big"))


def parse_subnet(text: str, strict: bool = False) -> Subnet:
    """A network as "10.1.2.0/24". Raises `InvalidParameter`; `strict`: also for bits behind the prefix, as Docker 28 does."""
    address, separator, length = text.partition("/")
    try:
        number, bits = parse_address(address)
    except InvalidParameter:
        raise InvalidParameter(f"invalid CIDR address: {text}") from None
    if not separator or not (length.isascii() and length.isdigit()) or int(length) > bits:
        raise InvalidParameter(f"invalid CIDR address: {text}")
    prefix = int(length)
    first = number & ~((1 << (bits - prefix)) - 1)
    if strict and first != number:
        raise InvalidParameter(f"invalid subnet {text}: it should be {Subnet(first, prefix, bits)}")
    return Subnet(first, prefix, bits)
