"""--dns, --dns-search, --add-host: what docker 28.2.2 takes and what it says of the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sampan.errors import InvalidParameter
from sampan.oci import hosts


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (hosts.check_address, "1.2.3.4", "1.2.3.4"),
        (hosts.check_address, " 1.1.1.1 ", "1.1.1.1"),
        (hosts.check_address, "fe80::1", "fe80::1"),
        (hosts.check_domain, "foo.bar", "foo.bar"),
        (hosts.check_domain, "a.b.", "a.b."),
        (hosts.check_domain, " . ", "."),
        (hosts.parse_host, "x:1.2.3.4", "x:1.2.3.4"),
        (hosts.parse_host, "x=1.2.3.4", "x:1.2.3.4"),
        (hosts.parse_host, "y=[::1]", "y:::1"),
        (hosts.parse_host, "a:::1", "a:::1"),
        (hosts.parse_host, "a:[::1]", "a:::1"),
    ],
)
def test_what_is_one(read: Callable[[str], str], text: str, expected: str) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (hosts.check_address, "x", "IP address is not correctly formatted: x"),
        (hosts.check_address, "::1%eth0", "IP address is not correctly formatted: ::1%eth0"),
        (hosts.check_address, "01.2.3.4", "IP address is not correctly formatted: 01.2.3.4"),
        (hosts.check_address, "", "IP address is not correctly formatted: "),
        *(
            (hosts.check_domain, text, f"{text} is not a valid domain")
            for text in ("a b", "-a", "a_b", "1.2.3", "x..y", ".x", "ä.b", "", "a" * 300)
        ),
        (hosts.parse_host, "x", 'bad format for add-host: "x"'),
        (hosts.parse_host, "=1.1.1.1", 'bad format for add-host: "=1.1.1.1"'),
        (hosts.parse_host, "x:1.2.3", 'invalid IP address in add-host: "1.2.3"'),
        (hosts.parse_host, "a:[x]", 'invalid IP address in add-host: "x"'),
        (hosts.parse_host, "a=b=1.1.1.1", 'invalid IP address in add-host: "b=1.1.1.1"'),
        (hosts.parse_host, "a:1.2.3.4\0", 'invalid IP address in add-host: "1.2.3.4\0"'),
    ],
)
def test_what_is_none(read: Callable[[str], str], text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as told:
        read(text)
    assert str(told.value) == message
