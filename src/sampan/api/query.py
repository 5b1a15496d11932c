"""A request's query, read by Docker's rules for booleans, numbers and filters."""

from __future__ import annotations

from urllib.parse import parse_qsl

from sampan import jsontext
from sampan.errors import InvalidParameter

_FALSE = ("", "0", "no", "false", "none")


class Query:
    """The values by their names; a name that was not given is "" (moby reads it as Go does)."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        if not text:
            return  # of most requests
        for name, value in parse_qsl(text, keep_blank_values=True, errors="surrogateescape"):
            self._values.setdefault(name, []).append(value)

    def given(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        """The first value."""
        return self._values.get(name, [default])[0]

    def texts(self, name: str) -> list[str]:
        """All values."""
        return self._values.get(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's BoolValue: everything is true but "", 0, no, false and none. default: for one that was not given."""
        if name not in self._values:
            return default
        return self.text(name).strip().lower() not in _FALSE

    def number(self, name: str, default: int | None = None) -> int | None:
        """An integer; the default for none or an empty one. Raises InvalidParameter."""
        value = self.text(name)
        if not value:
            return default
        try:
            return int(value)
        except ValueError:
            raise InvalidParameter(f"invalid value for {name}: {value!r} is no number") from None

    def window(self) -> tuple[int, int]:
        """The rows and columns of a resize. Raises InvalidParameter."""
        rows, columns = self.number("h"), self.number("w")
        if rows is None or columns is None or not (0 <= rows <= 0xFFFF and 0 <= columns <= 0xFFFF):
            raise InvalidParameter("invalid resize: h and w must be numbers of rows and columns, up to 65535")
        return rows, columns

    def filters(self, name: str = "filters") -> dict[str, list[str]]:
        """Filters in either form: {"label": {"a": true}} or {"label": ["a"]}. Raises InvalidParameter."""
        value = self.text(name)
        if not value:
            return {}
        try:
            document = jsontext.loads(value)
        except ValueError:
            raise InvalidParameter(f"invalid filter: {name} is no JSON") from None
        if document is None:
            return {}
        if not isinstance(document, dict):
            raise InvalidParameter(f"invalid filter: {name} is no JSON object")
        return {key: _filter_values(key, values) for key, values in document.items()}


def _filter_values(key: str, values: object) -> list[str]:
    if isinstance(values, dict) and all(isinstance(on, bool) for on in values.values()):
        return [text for text, on in values.items() if on]
    if isinstance(values, list) and all(isinstance(text, str) for text in values):
        return list(values)
    raise InvalidParameter(f"invalid filter '{key}'")
