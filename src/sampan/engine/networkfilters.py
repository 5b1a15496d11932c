"""The filters of `GET /networks` and `POST /networks/prune` (moby daemon/network)."""

from __future__ import annotations

from sampan.engine import times
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.oci.network import Network

LISTED = ("dangling", "driver", "id", "label", "name", "scope", "type")
PRUNED = ("label", "label!", "until")
_TRUTH = {"1": True, "true": True, "0": False, "false": False}


class NetworkFilter:
    """Values of one filter are alternatives, different filters hold together; of labels all must hold."""

    def __init__(self, filters: Mapping[str, str | bool | Sequence[str]], pruned: bool = False) -> None:
        """Raises InvalidParameter, in Docker's words, for what is no filter, or no value of one."""
        self._values = {name: _listed(value) for name, value in filters.items()}
        for name in self._values:
            if name not in (PRUNED if pruned else LISTED):
                raise InvalidParameter(f"invalid filter '{name}'")
        self.dangling = self._truth()
        for kind in self._of("type"):
            if kind not in ("builtin", "custom"):
                raise InvalidParameter(f"invalid filter: 'type'='{kind}'")
        if len(self._of("until")) > 1:
            raise InvalidParameter("more than one until filter specified")
        self._until = times.moment(self._of("until")[0]) if self._of("until") else None

    def matches(self, network: Network, used: bool = False) -> bool:
        """Whether a network is wanted; used: whether a container is in it."""
        kind = "builtin" if network.is_predefined else "custom"
        return (
            # Docker's: the ones that everybody has are never left over.
            (self.dangling is None or self.dangling == (not used and not network.is_predefined))
            and self._is_one("driver", network.driver)
            and self._is_one("scope", "local")
            and self._is_one("type", kind)
            and self._fits("name", network.name)
            and self._fits("id", network.id)
            and all(_has(network.labels, label) for label in self._of("label"))
            and not any(_has(network.labels, label) for label in self._of("label!"))
            and (self._until is None or times.parse(network.created) <= self._until)
        )

    def _of(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def _truth(self) -> bool | None:
        values = self._of("dangling")
        if not values:
            return None
        if len(values) == 1 and values[0].lower() in _TRUTH:
            return _TRUTH[values[0].lower()]
        raise InvalidParameter('invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")')

    def _is_one(self, name: str, text: str) -> bool:
        return not self._of(name) or text in self._of(name)

    def _fits(self, name: str, text: str) -> bool:
        """Whether one of the values is found in the text as a regular expression."""
        if not self._of(name):
            return True
        import re

        for pattern in self._of(name):
            try:
                if pattern == text or re.search(pattern, text) is not None:
                    return True
            except re.error:
                continue
        return False


def _listed(value: str | bool | Sequence[str]) -> list[str]:
    if isinstance(value, bool):
        return [str(value).lower()]
    return [value] if isinstance(value, str) else list(value)


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
