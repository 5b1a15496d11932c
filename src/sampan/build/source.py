"""The text of a Dockerfile with its name, and the errors that point into it."""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_AROUND = 2
"""Lines that are shown before and after those that are wrong."""


class Source(Struct):
    """name: what messages call the file. text: all of it."""

    name: str
    text: str

    def excerpt(self, first: int, last: int) -> str:
        """The lines from `first` to `last` (from 1) marked, with some around them, as BuildKit shows them."""
        lines = self.text.split("\n")
        shown = range(max(1, first - _AROUND), min(len(lines), last + _AROUND) + 1)
        rule = "-" * 20
        body = [f"{n:4} | {'>>>' if first <= n <= last else '   '} {lines[n - 1]}".rstrip() for n in shown]
        return "\n".join([f"{self.name}:{first}", rule, *body, rule])


class DockerfileError(InvalidParameter):
    """Something in a Dockerfile is wrong. `first` and `last` are its lines (from 1), `source` the text, if it is known."""

    def __init__(self, message: str, first: int = 0, last: int = 0, source: Source | None = None) -> None:
        super().__init__(message)
        self.first = first
        self.last = last or first
        self.source = source

    def excerpt(self) -> str:
        """The lines that it is about; "" if there are none."""
        return self.source.excerpt(self.first, self.last) if self.source is not None and self.first else ""


def suggestion(word: str, known: Iterable[str]) -> str:
    """ " (did you mean X?)" for a misspelt word, else ""."""
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean {by_lower[found[0]]}?)" if found else ""
