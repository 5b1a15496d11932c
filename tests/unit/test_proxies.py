"""Which requests go through which proxy, as Go's programs have it (golang.org/x/net/http/httpproxy)."""

from __future__ import annotations

import pytest

from sampan.registry.proxies import proxy_for

BOTH = {"HTTPS_PROXY": "http://secure:1", "HTTP_PROXY": "http://plain:2"}


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("https://r.example/v2/", "", "http://secure:1"),
        ("http://r.example/v2/", "", "http://plain:2"),
        ("https://localhost:5000/v2/", "", None),
        ("https://127.0.0.9/v2/", "", None),
        ("https://[::1]:5000/v2/", "", None),
        ("https://r.example/v2/", "*", None),
        ("https://r.example/v2/", "a, R.Example", None),
        ("https://sub.r.example/v2/", "r.example", None),
        ("https://r.example/v2/", ".r.example", "http://secure:1"),
        ("https://sub.r.example/v2/", ".r.example", None),
        ("https://notr.example/v2/", "r.example", "http://secure:1"),
        ("https://r.example:5000/v2/", "r.example:5000", None),
        ("https://r.example:5000/v2/", "r.example:5001", "http://secure:1"),
        ("https://r.example/v2/", "r.example:443", None),
        ("https://10.1.2.3/v2/", "10.0.0.0/8", None),
        ("https://11.1.2.3/v2/", "10.0.0.0/8,no/net", "http://secure:1"),
        ("https://10.1.2.3:5000/v2/", "10.1.2.3", None),
        ("https://10.1.2.3:5000/v2/", "10.1.2.3:5000", None),
        ("https://[fd00::1]/v2/", "fd00::/8", None),
    ],
)
def test_where_a_request_goes(url: str, no_proxy: str, expected: str | None) -> None:
    assert proxy_for(url, {**BOTH, "NO_PROXY": no_proxy}) == expected
    assert proxy_for(url, {**{k.lower(): v for k, v in BOTH.items()}, "no_proxy": no_proxy}) == expected


def test_one_without_a_scheme_and_none_at_all() -> None:
    assert proxy_for("https://r.example", {"HTTPS_PROXY": "p:3128"}) == "http://p:3128"
    assert proxy_for("https://r.example", {"HTTP_PROXY": "p:3128"}) is None
    assert proxy_for("https://r.example", {}) is None
