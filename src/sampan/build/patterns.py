"""Patterns of file names as Go has them: `filepath.Match` for COPY and ADD, and that of .dockerignore with `**`.

Both become regular expressions. Names and patterns have slashes on every system.
"""

from __future__ import annotations

import posixpath

from sampan.errors import InvalidParameter
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

_WILD = "*?[\\"


def has_wildcards(text: str) -> bool:
    """Whether a name is a pattern: it has one of * ? [ or a backslash."""
    return any(c in _WILD for c in text)


def match(pattern: str) -> re.Pattern[str]:
    """One component as `filepath.Match` reads it: `*` and `?` stop at a slash. For `fullmatch`. Raises `InvalidParameter`."""
    return _compiled(pattern, stars=False)


def _compiled(pattern: str, stars: bool) -> re.Pattern[str]:
    import re

    try:
        return re.compile("".join(_Translation(pattern, stars).parts), re.DOTALL)
    except re.error:
        raise _bad(pattern) from None


def _bad(pattern: str) -> InvalidParameter:
    return InvalidParameter(f"syntax error in pattern: {pattern!r}")


class _Translation:
    """A pattern from left to right. stars: `**` goes over slashes."""

    def __init__(self, pattern: str, stars: bool) -> None:
        self._pattern = pattern
        self._at = 0
        self._stars = stars
        self.parts: list[str] = []
        while self._at < len(pattern):
            self.parts.append(self._next())

    def _take(self) -> str:
        if self._at == len(self._pattern):
            raise _bad(self._pattern)
        self._at += 1
        return self._pattern[self._at - 1]

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        from re import escape

        character = self._take()
        if character == "*":
            return self._star()
        if character == "?":
            return "[^/]"
        if character == "[":
            return self._class()
        if character == "\\":
            return escape(self._take())
        return escape(character)

    def _star(self) -> str:
        double = False
        while self._peek() == "*":
            self._at += 1
            double = True
        if not double or not self._stars:
            return "[^/]*"
        if self._peek() == "/":
            self._at += 1
        return "(?:.*/)?" if self._peek() else ".*"

    def _class(self) -> str:
        """`[a-z]`, `[^a]`: what is in it is taken as Go does, where a ] at its beginning is an error."""
        from re import escape

        found = ""
        negated = self._peek() == "^"
        if negated:
            self._at += 1
        while self._peek() != "]" or not found:
            low = self._member()
            high = low
            if self._peek() == "-":
                self._at += 1
                high = self._member()
            if low <= high:
                found += f"{escape(low)}-{escape(high)}"
        self._at += 1
        return f"[^/{found}]" if negated else f"(?!/)[{found}]"

    def _member(self) -> str:
        character = self._take()
        if character in "-]":
            raise _bad(self._pattern)
        return self._take() if character == "\\" else character


class IgnorePattern(Struct):
    """One line of a .dockerignore. keeps: it began with "!"."""

    text: str
    keeps: bool
    compiled: re.Pattern[str]


class Ignore:
    """Which files of a context are left out (Dockerfile reference, ".dockerignore file"). The last line that fits decides."""

    def __init__(self, patterns: Iterable[IgnorePattern] = ()) -> None:
        self.patterns = tuple(patterns)
        self.keeps_some = any(pattern.keeps for pattern in self.patterns)

    @classmethod
    def parse(cls, text: str) -> Ignore:
        """Read a .dockerignore. Raises `InvalidParameter` with the line for a pattern that is none."""
        return cls.of(text.removeprefix("\ufeff").split("\n"), comments=True)

    @classmethod
    def of(cls, lines: Iterable[str], comments: bool = False) -> Ignore:
        """Of patterns: the lines of a file, or what --exclude says. Raises `InvalidParameter`."""
        found = []
        for number, line in enumerate(lines, 1):
            if comments and line.startswith("#"):
                continue
            text = line.strip()
            keeps = text.startswith("!")
            text = text[1:].strip() if keeps else text
            if keeps and not text:
                raise InvalidParameter(f'illegal exclusion pattern: "!" in line {number}')
            if not text:
                continue
            text = posixpath.normpath(text).lstrip("/") or "."
            if text == ".":
                continue  # It would mean the context itself, and ignores nothing.
            found.append(IgnorePattern(text, keeps, _compiled(text, stars=True)))
        return cls(found)

    def ignores(self, path: str) -> bool:
        """Whether a path below the context is left out: by itself, or because a directory above it is."""
        parts = path.split("/")
        names = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        ignored = False
        for pattern in self.patterns:
            # One that says what is so already need not be looked at.
            if pattern.keeps == ignored and any(pattern.compiled.fullmatch(name) for name in reversed(names)):
                ignored = not pattern.keeps
        return ignored

    def skips(self, directory: str) -> bool:
        """Whether nothing in an ignored directory can be kept, so that nobody has to look into it."""
        return not self.keeps_some and self.ignores(directory)
