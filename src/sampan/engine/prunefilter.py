"""The filters of the prunes of containers and images."""

from __future__ import annotations

from sampan.engine import times
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.store.record import Record

    Filters = Mapping[str, str | Sequence[str]]


NAMES = ("label", "label!", "until")


class PruneFilter:
    """until, label and label!, as the prunes of containers take them."""

    def __init__(self, filters: Filters) -> None:
        """Raises InvalidParameter, in Docker's words."""
        values = {name: [value] if isinstance(value, str) else list(value) for name, value in filters.items()}
        for name in values:
            if name not in NAMES:
                raise InvalidParameter(f"invalid filter '{name}'")
        until = values.get("until", [])
        if len(until) > 1:
            raise InvalidParameter("more than one until filter specified")
        self._until = times.moment(until[0]) if until else None
        self._labels = values.get("label", [])
        self._not_labels = values.get("label!", [])

    def matches(self, record: Record) -> bool:
        return self.fits(times.parse(record.created), record.config.get("Labels"))

    def fits(self, created: int, labels: Mapping[str, str] | None) -> bool:
        """`created` is in nanoseconds since the epoch."""
        labels = labels or {}
        return (
            (self._until is None or created <= self._until)
            and all(_has(labels, label) for label in self._labels)
            and not any(_has(labels, label) for label in self._not_labels)
        )


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
