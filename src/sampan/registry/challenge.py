"""WWW-Authenticate: what a registry asks for (RFC 9110, 11.6.1), read by hand and within bounds."""

from __future__ import annotations

from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LIMIT = 8 << 10


class Challenge(Struct):
    """One of them: `scheme` in lower case, and its parameters."""

    scheme: str
    parameters: dict[str, str]


def parse(headers: Sequence[str]) -> list[Challenge]:
    """The challenges of all headers; what cannot be read is left out."""
    found: list[Challenge] = []
    for header in headers:
        found += _Reader(header[:_LIMIT]).challenges()
    return found


class _Reader:
    """A header is challenges with commas between them, and so are a challenge's parameters: what "=" follows is a parameter."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def challenges(self) -> list[Challenge]:
        found: list[Challenge] = []
        while True:
            self._skip(" \t,")
            word = self._token()
            if not word:
                return found
            self._skip(" \t")
            if self._peek() == "=" and found:
                self._at += 1
                found[-1].parameters.setdefault(word.lower(), self._value())
            elif self._peek() == "=":
                return found
            else:
                found.append(Challenge(word.lower(), {}))

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, characters: str) -> None:
        while self._peek() and self._peek() in characters:
            self._at += 1

    def _token(self) -> str:
        begin = self._at
        while self._peek() in _TOKEN:
            self._at += 1
        return self._text[begin : self._at]

    def _value(self) -> str:
        self._skip(" \t")
        if self._peek() != '"':
            return self._token()
        self._at += 1
        found = ""
        while (character := self._peek()) and character != '"':
            if character == "\\":
                self._at += 1
                character = self._peek()
            found += character
            self._at += 1
        self._at += 1
        return found
