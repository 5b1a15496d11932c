"""The keys of the configuration file that are about registries: lists, a table, a number."""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_HUB = "docker.io"
_MOST_AT_ONCE = 64


def fields_of(path: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Config` that these keys say. Raises InvalidParameter naming the file and the key."""
    from sampan.registry.endpoint import check_insecure, check_mirror

    fields: dict[str, Any] = {}
    mirrors: tuple[tuple[str, str], ...] = ()
    for key, value in values.items():
        try:
            if key == "insecure-registries":
                fields["insecure_registries"] = tuple(map(check_insecure, _texts(value)))
            elif key == "registry-mirrors":
                mirrors += tuple((_HUB, check_mirror(url)) for url in _texts(value))
            elif key == "mirrors":
                mirrors += tuple((domain, check_mirror(url)) for domain, urls in _table(value) for url in _texts(urls))
            elif key == "max-concurrent-downloads":
                fields["max_concurrent_downloads"] = _number(value)
            elif key == "max-concurrent-uploads":
                fields["max_concurrent_uploads"] = _number(value)
            elif key == "registry-timeout":
                fields["registry_timeout"] = _seconds(value)
        except InvalidParameter as e:
            raise InvalidParameter(f"{path}: {key}: {e}") from None
    return {**fields, "mirrors": mirrors} if mirrors else fields


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidParameter(f"must be a list of texts, not {value!r}")
    return value


def _table(value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise InvalidParameter(f"must be a table of registries and lists of URLs, not {value!r}")
    return list(value.items())


def _number(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= _MOST_AT_ONCE:
        raise InvalidParameter(f"must be a number from 1 to {_MOST_AT_ONCE}, not {value!r}")
    return value


def _seconds(value: Any) -> float:
    from sampan.oci.duration import parse

    if not isinstance(value, str):
        raise InvalidParameter(f'must be a duration such as "60s", not {value!r}')
    seconds = parse(value) / 1e9
    if seconds <= 0:
        raise InvalidParameter(f"must be longer than nothing, not {value!r}")
    return seconds
