"""Which addresses and subnets are given, and which refused, in Docker's words."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import Conflict, Forbidden, InvalidParameter, Unavailable
from sampan.network import ipam, subnets
from sampan.oci.network import Network, Pool
from sampan.oci.subnet import Subnet, parse_subnet


def network(*pools: Pool, ipv6: bool = False) -> Network:
    return Network(id="f" * 64, name="front", driver="bridge", created="", link="br-x", pools=pools, ipv6=ipv6)


def taken(*addresses: str) -> list[str]:
    return list(addresses)


def test_the_lowest_free_address_is_given_with_the_prefix_of_the_whole_subnet() -> None:
    front = network(Pool("10.9.0.0/24", "10.9.0.1", "", {"router": "10.9.0.3"}))
    given = ipam.allocate(front, taken("10.9.0.2", "10.9.0.5"))
    assert (given.address, given.prefix, given.gateway) == ("10.9.0.4", 24, "10.9.0.1")
    assert (given.address6, given.prefix6) == ("", 0)


def test_a_range_gives_all_of_its_addresses_but_not_the_subnets_ends() -> None:
    front = network(Pool("10.9.0.0/24", "10.9.0.1", "10.9.0.252/30"))
    assert ipam.allocate(front, []).address == "10.9.0.252"
    assert ipam.allocate(front, taken("10.9.0.252", "10.9.0.253")).address == "10.9.0.254"
    with pytest.raises(Unavailable, match="no available IPv4 addresses on this network's address pools: front"):
        ipam.allocate(front, taken("10.9.0.252", "10.9.0.253", "10.9.0.254"))


def test_several_pools_are_used_one_after_the_other() -> None:
    front = network(Pool("10.9.0.0/30", "10.9.0.1"), Pool("10.9.1.0/30", "10.9.1.1"))
    assert ipam.allocate(front, taken("10.9.0.2")).address == "10.9.1.2"
    assert ipam.allocate(front, taken("10.9.0.2")).gateway == "10.9.1.1"


def test_both_families() -> None:
    both = network(Pool("10.9.0.0/24", "10.9.0.1"), Pool("fd00:9::/64", "fd00:9::1"), ipv6=True)
    given = ipam.allocate(both, taken("fd00:9::2"))
    assert (given.address, given.address6, given.prefix6, given.gateway6) == ("10.9.0.2", "fd00:9::3", 64, "fd00:9::1")
    only6 = network(Pool("fd00:9::/64", "fd00:9::1"), ipv6=True).replace(ipv4=False)
    assert ipam.allocate(only6, []) == ipam.Addresses(address6="fd00:9::2", prefix6=64, gateway6="fd00:9::1")


def test_fixed_addresses() -> None:
    front = network(Pool("10.9.0.0/24", "10.9.0.1", "10.9.0.128/25", {"router": "10.9.0.200"}))
    assert ipam.allocate(front, [], "10.9.0.7").address == "10.9.0.7"  # outside the range is no matter
    for address in ("10.9.0.7", "10.9.0.1", "10.9.0.200", "10.9.0.0", "10.9.0.255"):
        with pytest.raises(Forbidden, match=r"^Address already in use$"):
            ipam.allocate(front, taken("10.9.0.7"), address)
    with pytest.raises(InvalidParameter, match=r"no configured subnet or ip-range contain the IP address 10\.8\.0\.1"):
        ipam.allocate(front, [], "10.8.0.1")
    with pytest.raises(InvalidParameter, match="invalid endpoint settings:\nno configured subnet"):
        ipam.check_wanted(front, "10.8.0.1", "")
    ipam.check_wanted(front, "10.9.0.99", "")


@given(st.integers(24, 31), st.sets(st.integers(0, 255)), st.integers(0, 255))
def test_what_is_given_is_a_free_host_address_of_the_subnet(prefix: int, used: set[int], gateway: int) -> None:
    net = ipaddress.ip_network(f"10.9.0.0/{prefix}")
    front = network(Pool(str(net), str(net[gateway % net.num_addresses])))
    endpoints = taken(*(str(net[i % net.num_addresses]) for i in used))
    free = {str(a) for a in net.hosts()} - set(endpoints) - {front.pools[0].gateway}
    try:
        found = ipam.allocate(front, endpoints).address
    except Unavailable:
        assert not free
    else:
        assert found == min(free, key=ipaddress.ip_address)


def test_hardware_addresses_follow_from_the_address() -> None:
    assert ipam.mac_of("172.17.0.2") == "02:42:ac:11:00:02"
    assert ipam.mac_of("", "fd00::1:203") == "02:42:00:01:02:03"


@pytest.mark.parametrize(
    ("pool", "gateway"),
    [
        (Pool("10.9.0.0/24"), "10.9.0.1"),
        (Pool("10.9.0.0/24", "", "10.9.0.128/25"), "10.9.0.128"),
        (Pool("10.9.0.0/24", "", "", {"a": "10.9.0.1"}), "10.9.0.2"),
        (Pool("fd00::/64"), "fd00::1"),
        (Pool("10.9.0.0/31"), "10.9.0.0"),
    ],
)
def test_the_gateway_of_a_network_that_names_none(pool: Pool, gateway: str) -> None:
    assert subnets.with_gateway(pool).gateway == gateway
    assert subnets.with_gateway(pool.replace(gateway="10.9.0.9")).gateway == "10.9.0.9"


def test_a_subnet_that_is_full_of_reserved_addresses_has_no_gateway() -> None:
    with pytest.raises(Conflict, match="no available addresses"):
        subnets.with_gateway(Pool("10.9.0.0/30", "", "", {"a": "10.9.0.1", "b": "10.9.0.2"}))


@pytest.mark.thorough
def test_chosen_subnets_overlap_nothing() -> None:
    seen: list[Subnet] = [parse_subnet("10.201.0.0/18"), parse_subnet("0.0.0.0/32")]
    for _ in range(150):
        found = subnets.choose(seen)
        assert ipaddress.ip_network(str(found)).is_private
        assert not any(found.overlaps(other) for other in seen)
        seen.append(found)
    assert str(seen[2]) == "10.201.64.0/20"
    with pytest.raises(Forbidden, match="all predefined address pools have been fully subnetted"):
        subnets.choose([parse_subnet("10.0.0.0/8"), parse_subnet("172.16.0.0/12"), parse_subnet("192.168.0.0/16")])


def test_chosen_ipv6_subnets_are_this_installations() -> None:
    first = subnets.choose6([], b"\x01\x02\x03\x04\x05")
    assert str(first) == "fd01:203:405::/64"
    assert str(subnets.choose6([first], b"\x01\x02\x03\x04\x05")) == "fd01:203:405:1::/64"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"Subnet": "foo"}, "invalid subnet foo: invalid CIDR block notation"),
        ({"Subnet": "10.9.0.0/33"}, "invalid subnet 10.9.0.0/33: invalid CIDR block notation"),
        ({"Gateway": "10.9.0.1"}, "invalid subnet : invalid CIDR block notation"),
        ({"Subnet": "10.9.0.5/24"}, "invalid subnet 10.9.0.5/24: it should be 10.9.0.0/24"),
        ({"Subnet": "10.9.0.0/24", "IPRange": "x"}, "invalid ip-range x: invalid CIDR block notation"),
        (
            {"Subnet": "10.9.0.0/24", "IPRange": "fd00::/64"},
            "invalid ip-range fd00::/64: parent subnet is an IPv4 block",
        ),
        ({"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.7/28"}, "invalid ip-range 10.9.0.7/28: it should be 10.9.0.0/28"),
        (
            {"Subnet": "10.9.0.0/24", "IPRange": "10.8.0.0/28"},
            "invalid ip-range 10.8.0.0/28: parent subnet 10.9.0.0/24 doesn't contain ip-range",
        ),
        (
            {"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.0/16"},
            "invalid ip-range 10.9.0.0/16: CIDR block is bigger than its parent subnet 10.9.0.0/24",
        ),
        ({"Subnet": "10.9.0.0/24", "Gateway": "x"}, "invalid gateway x: invalid address"),
        ({"Subnet": "10.9.0.0/24", "Gateway": "::1"}, "invalid gateway ::1: parent subnet is an IPv4 block"),
        (
            {"Subnet": "10.9.0.0/24", "AuxiliaryAddresses": {"a": "10.8.0.1"}},
            "invalid auxiliary address a: parent subnet 10.9.0.0/24 doesn't contain this address",
        ),
    ],
)
def test_what_is_wrong_with_a_subnet_is_told(entry: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        subnets.check([entry], ipv6=False)
    assert str(caught.value) == f"invalid network config:\n{message}"


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidParameter) as caught:
        subnets.check([{"Subnet": "10.9.0.5/24", "Gateway": "x"}, {"Subnet": "y"}], ipv6=False)
    assert str(caught.value) == (
        "invalid network config:\n* invalid subnet 10.9.0.5/24: it should be 10.9.0.0/24\n"
        "* invalid gateway x: invalid address\n* invalid subnet y: invalid CIDR block notation"
    )


def test_what_is_right_becomes_pools() -> None:
    entry = {"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25", "AuxiliaryAddresses": {"a": "10.9.0.7"}}
    assert subnets.check([entry], ipv6=False) == [Pool("10.9.0.0/24", "", "10.9.0.128/25", {"a": "10.9.0.7"})]
    assert subnets.check([{"Subnet": "FD00:0::/64"}], ipv6=True) == [Pool("fd00::/64")]
    assert subnets.check([{"Subnet": "fd00::/64"}], ipv6=False) == []
    assert subnets.check([{}], ipv6=False) == [Pool("")]


def test_overlaps() -> None:
    seen = [parse_subnet("10.9.0.0/16"), parse_subnet("fd00::/48")]
    for bad in ("10.9.3.0/24", "10.0.0.0/8", "fd00:0:0:1::/64"):
        assert subnets.overlapping([Pool("10.8.0.0/24"), Pool(bad)], seen) == Pool(bad)
    assert subnets.overlapping([Pool("10.8.0.0/24"), Pool("10.8.0.0/25")], []) == Pool("10.8.0.0/25")
    assert subnets.overlapping([Pool("10.8.0.0/24"), Pool("fd01::/64")], seen) is None
