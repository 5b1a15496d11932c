"""The filters of `GET /events`, with Docker's meaning (moby, daemon/events/filter.go)."""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sampan.store.journal import Entry

_NAMED = ("container", "volume", "network", "daemon", "plugin", "service", "node", "secret", "config")
"""Filters by the beginning of an id or of a name."""
NAMES = (*_NAMED, "event", "image", "label", "scope", "type")
_BEGINNINGS = frozenset(("health_status", "exec_create", "exec_start"))
"""Actions that go on with ": STATUS" or ": COMMAND"; who asks for one of these means them all."""


class EventFilter:
    """Values of one filter are alternatives, different filters hold together; of labels all must hold."""

    def __init__(self, filters: Mapping[str, str | Sequence[str]]) -> None:
        """Raises InvalidParameter for a filter that there is not."""
        self._values = {name: [value] if isinstance(value, str) else list(value) for name, value in filters.items()}
        for name in self._values:
            if name not in NAMES:
                raise InvalidParameter(f"invalid filter '{name}'")

    def matches(self, entry: Entry) -> bool:
        """Whether an event is wanted."""
        name = entry.attributes.get("name", "")
        return (
            self._matches_action(entry.action)
            and self._is("type", entry.type)
            and self._is("scope", "local")
            and all(self._begins(key, entry.id) or self._begins(key, name) for key in _NAMED)
            and self._matches_image(entry)
            and all(_has(entry.attributes, label) for label in self._values.get("label", ()))
        )

    def _is(self, key: str, *found: str) -> bool:
        wanted = self._values.get(key)
        return not wanted or any(one in wanted for one in found)

    def _begins(self, key: str, found: str) -> bool:
        wanted = self._values.get(key)
        return not wanted or any(found.startswith(one) for one in wanted)

    def _matches_action(self, action: str) -> bool:
        if _BEGINNINGS.isdisjoint(self._values.get("event", ())):
            return self._is("event", action)
        return self._begins("event", action)

    def _matches_image(self, entry: Entry) -> bool:
        if not self._values.get("image"):
            return True
        name = entry.attributes.get("name" if entry.type == "image" else "image", "")
        return self._is("image", *_with_repositories((entry.id, name)))


def _with_repositories(names: Iterable[str]) -> list[str]:
    """Names of images, and what they are without a tag."""
    found = []
    for name in names:
        found.append(name)
        try:
            found.append(reference.parse(name).familiar_name)
        except InvalidParameter:
            pass  # an id
    return found


def _has(attributes: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in attributes and (not equals or attributes[key] == value)
