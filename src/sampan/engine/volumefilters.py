"""The filters of `GET /volumes` and `POST /volumes/prune`."""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.store.volumes import VolumeRecord

LISTED = ("dangling", "driver", "label", "name")
PRUNED = ("all", "label", "label!")

_TRUE, _FALSE = ("1", "true"), ("0", "false")


class VolumeFilter:
    """Values of one filter are alternatives, different filters hold together; of labels all must hold (moby)."""

    def __init__(self, filters: Mapping[str, str | bool | Sequence[str]], allowed: Sequence[str]) -> None:
        """Raises InvalidParameter, in Docker's words, for a filter that is not in `allowed`, or a value that is none."""
        values = {name: _listed(value) for name, value in filters.items()}
        for name in values:
            if name not in allowed:
                raise InvalidParameter(f"invalid filter '{name}'")
        self.dangling = _truth("dangling", values.get("dangling", []))
        self.all = bool(_truth("all", values.get("all", [])))
        self._drivers = values.get("driver", [])
        self._names = values.get("name", [])
        self._labels = values.get("label", [])
        self._not_labels = values.get("label!", [])

    def matches(self, record: VolumeRecord, used: bool) -> bool:
        """Whether a volume, which containers use or not, is wanted."""
        return (
            (self.dangling is None or self.dangling != used)
            and (not self._drivers or record.driver in self._drivers)
            and (not self._names or any(_fits(pattern, record.name) for pattern in self._names))
            and all(_has(record.labels, label) for label in self._labels)
            and not (self._not_labels and all(_has(record.labels, label) for label in self._not_labels))
        )


def _listed(value: str | bool | Sequence[str]) -> list[str]:
    if isinstance(value, bool):
        return [str(value).lower()]
    return [value] if isinstance(value, str) else list(value)


def _truth(name: str, values: list[str]) -> bool | None:
    """The one value of a filter that is true or false; None if it is not given."""
    if not values:
        return None
    if len(values) == 1 and values[0].lower() in (*_TRUE, *_FALSE):
        return values[0].lower() in _TRUE
    raise InvalidParameter(f"invalid filter '{name}=[{' '.join(values)}]'")


def _fits(pattern: str, name: str) -> bool:
    """Whether a name is the pattern, or the pattern as a regular expression is found in it."""
    import re

    if pattern == name:
        return True
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
