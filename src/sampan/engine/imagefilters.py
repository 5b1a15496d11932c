"""The filters of `GET /images/json`: `images --filter`."""

from __future__ import annotations

from sampan.engine import times
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Filters = Mapping[str, str | bool | Sequence[str]]

NAMES = ("before", "dangling", "label", "reference", "since", "until")
_TRUE, _FALSE = ("1", "true"), ("0", "false")


class ImageFilter:
    """What is wanted of a listing. Times are nanoseconds since the epoch: two images may be made in one second."""

    def __init__(self, filters: Filters, created: Callable[[str], int]) -> None:
        """`created` gives the time of an image by its name. Raises `InvalidParameter` and `NotFound` in Docker's words."""
        values = {name: _listed(value) for name, value in filters.items()}
        for name in values:
            if name not in NAMES:
                raise InvalidParameter(f"invalid filter '{name}'")
        self.dangling = truth("dangling", values.get("dangling", []))
        self.references = values.get("reference", [])
        self._labels = values.get("label", [])
        befores = [created(name) for name in values.get("before", [])]
        befores += [times.moment(text) for text in values.get("until", [])]
        self._before = min(befores, default=None)
        self._since = max((created(name) for name in values.get("since", [])), default=None)

    def names(self, tags: Sequence[str], digests: Sequence[str]) -> tuple[list[str], list[str]] | None:
        """The names that `reference` leaves of an image; None if it is none of those that are wanted."""
        if not self.references:
            return list(tags), list(digests)
        tags = [tag for tag in tags if any(matches(pattern, tag) for pattern in self.references)]
        digests = [d for d in digests if any(matches(pattern, d.partition("@")[0]) for pattern in self.references)]
        return (tags, digests) if tags else None

    def fits(self, created: int, labels: Mapping[str, str] | None) -> bool:
        """Whether an image is wanted by its time and its labels."""
        return (
            (self._before is None or created < self._before)
            and (self._since is None or created > self._since)
            and all(_has(labels or {}, label) for label in self._labels)
        )


def truth(name: str, values: Sequence[str]) -> bool | None:
    """The one value of a filter that is true or false; None if it is not given. Raises `InvalidParameter`."""
    if not values:
        return None
    if len(values) == 1 and values[0].lower() in (*_TRUE, *_FALSE):
        return values[0].lower() in _TRUE
    raise InvalidParameter(f"invalid filter '{name}=[{' '.join(values)}]'")


def _listed(value: str | bool | Sequence[str]) -> list[str]:
    if isinstance(value, bool):
        return [str(value).lower()]
    return [value] if isinstance(value, str) else list(value)


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def matches(pattern: str, familiar: str) -> bool:
    """Whether a familiar `name:tag`, or its name alone, fits a pattern whose wildcards stop at slashes."""
    name, colon, tag = familiar.rpartition(":")
    return _fits(pattern, familiar) or (bool(colon) and "/" not in tag and _fits(pattern, name))


def _fits(pattern: str, text: str) -> bool:
    from fnmatch import fnmatchcase

    patterns, parts = pattern.split("/"), text.split("/")
    return len(patterns) == len(parts) and all(map(fnmatchcase, parts, patterns))
