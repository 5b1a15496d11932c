"""What a name means in a container: the answers that a network's own records give, before anybody else is asked.

A container's question is looked up in each network that it is in: by its endpoints' names, by NAME.NETWORK, by what it alone calls
others (`--link`), and by address. Source: Docker's documentation, "Networking overview: embedded DNS server".
"""

from __future__ import annotations

import _random
import _socket

from sampan.network import dnsmessage
from sampan.network.dnsmessage import AAAA, ANY, IN, NOERROR, PTR, A, Question

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    from sampan.network.members import Directory, Members
    from sampan.oci.network import Endpoint, Network

    T = TypeVar("T")
    Found = Sequence[tuple[Members, Network, Endpoint]]

SECONDS = 5
"""That an answer may be kept. Docker's 600 make proxies and JVMs talk to the address of a container that is gone."""

_random_number = _random.Random().random


class View:
    """What one container may know: the networks it is in, at this moment."""

    __slots__ = ("_networks",)

    def __init__(self, directory: Directory, container: str) -> None:
        self._networks: Found = directory.of_container(container)

    @property
    def may_ask_others(self) -> bool:
        """Whether a question may leave for other servers: from an internal network nothing does."""
        return any(not network.internal for _, network, _ in self._networks)

    @property
    def servers(self) -> tuple[str, ...]:
        """Those that were chosen for this container."""
        for _, _, endpoint in self._networks:
            if endpoint.servers:
                return endpoint.servers
        return ()

    def records(self, question: Question) -> list[bytes] | None:
        """The records that answer a question, none for a name without any of that type; None if the name is not ours."""
        if question.klass not in (IN, ANY):
            return None
        if question.kind in (PTR, ANY) and question.name.endswith(".arpa"):
            return self._pointers(question.name)
        found = self._endpoints(question.name)
        if found is None:
            return None
        records = []
        for endpoint in _turned(found):
            if endpoint.address and question.kind in (A, ANY):
                address = _socket.inet_pton(_socket.AF_INET, endpoint.address)
                records.append(dnsmessage.address_record(A, SECONDS, address))
            if endpoint.address6 and question.kind in (AAAA, ANY):
                address = _socket.inet_pton(_socket.AF_INET6, endpoint.address6)
                records.append(dnsmessage.address_record(AAAA, SECONDS, address))
        return records

    def _endpoints(self, name: str) -> list[Endpoint] | None:
        """Who has the name in the first network where somebody has."""
        first, _, last = name.rpartition(".")
        for members, network, own in self._networks:
            if network.is_default:
                continue  # the default network has no names
            known = members.by_name
            found = known.get(_link(own, name), None) or known.get(name)
            if found is None and first and last == network.name.lower():
                found = known.get(_link(own, first), None) or known.get(first)
            if found:
                return found
        return None

    def _pointers(self, name: str) -> list[bytes] | None:
        address = dnsmessage.reversed_address(name)
        for members, network, _ in self._networks:
            found = members.by_address.get(address) if address and not network.is_default else None
            if found is not None:
                owner = found.names[0] if found.names else found.container[:12]
                try:
                    return [dnsmessage.pointer_record(SECONDS, f"{owner}.{network.name}")]
                except dnsmessage.Malformed:
                    return None  # a network's name may have what a name here cannot
        return None


def _link(own: Endpoint, name: str) -> str:
    """What a container means by a name that it alone uses; "" if it uses it as everybody."""
    for alias, meant in own.links.items():
        if alias.lower() == name:
            return meant.lower()
    return ""


def _turned(found: list[T]) -> list[T]:
    """In another order each time, so that who takes the first one gets another."""
    if len(found) < 2:
        return found
    at = int(_random_number() * len(found))
    return found[at:] + found[:at]


def local_answer(view: View, question: Question, limit: int) -> bytes | None:
    """The answer of the networks' own records; None if others have to be asked."""
    records = view.records(question)
    return None if records is None else dnsmessage.answer(question, NOERROR, records, limit)
