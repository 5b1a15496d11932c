"""The words of a template: Go's text/template cut into tokens (https://pkg.go.dev/text/template, "Actions", "Text and spaces").

A mistake is a token too, the last one: the parser reads up to it, and what is wrong before it is told first, as in Go.
By hand and not with `re`, which would cost more than the whole of a usual `--format`.
"""

from __future__ import annotations

from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

LEFT, RIGHT = "{{", "}}"
_SPACE = " \t\r\n"
_DIGITS = "0123456789"
KEYWORDS = frozenset(
    ("block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with", ".")
)


class Token(Struct):
    """kind: "text", "left", "right", "space", "field", "variable", "identifier", "keyword", "bool", "number", "char",
    "string", "raw", "sign" (one of = := | ( ) ,), "end" or "error" (`text` says what is wrong). at: where it begins.
    """

    kind: str
    text: str
    at: int
    line: int

    def shown(self) -> str:
        """As messages name it: long words are cut."""
        if self.kind == "end":
            return "EOF"
        if self.kind == "error":
            return self.text
        if self.kind == "keyword" and self.text not in (".", "nil"):
            return f"<{self.text}>"
        return quoted(self.text) if len(self.text) <= 10 else quoted(self.text[:10]) + "..."


def quoted(text: str) -> str:
    """A text as Go's %q writes it."""
    from sampan.gotemplate.printing import quote

    return quote(text)


class _Mistake(Exception):
    """What follows cannot be read."""


class Lexer:
    """One reading of a template."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0  # of parentheses

    def tokens(self) -> list[Token]:
        """All of it, the last one being "end" or "error"."""
        found: list[Token] = []
        line, counted = 1, 0
        try:
            for kind, begin in self._read():
                line, counted = line + self._text.count("\n", counted, begin), begin
                found.append(Token(kind, self._text[begin : self._at], begin, line))
        except _Mistake as e:
            line += self._text.count("\n", counted, self._at)
            found.append(Token("error", str(e), self._at, line))
        return found

    def _read(self) -> Iterator[tuple[str, int]]:
        """The kind and the beginning of each token; `_at` is its end."""
        text = self._text
        trimmed = False  # a "-}}" came before
        while True:
            begin = self._at
            found = text.find(LEFT, begin)
            stop = len(text) if found < 0 else found
            if trimmed:
                while begin < stop and text[begin] in _SPACE:
                    begin += 1
            left_trimmed = found >= 0 and text[found + 2 : found + 3] == "-" and _is_space(text[found + 3 : found + 4])
            self._at = stop
            if left_trimmed:
                while self._at > begin and text[self._at - 1] in _SPACE:
                    self._at -= 1
            if self._at > begin:
                yield "text", begin
            if found < 0:
                self._at = len(text)
                yield "end", len(text)
                return
            inside = found + (3 if left_trimmed else 2)
            if text.startswith("/*", inside + left_trimmed):
                trimmed = self._comment(inside + left_trimmed)
                continue
            self._at = inside
            yield "left", found
            self._depth = 0
            if left_trimmed:
                self._at += 1  # the space that made the "-" a mark
            trimmed = yield from self._action()

    def _comment(self, begin: int) -> bool:
        """Go behind a comment; whether it ends in a trim mark."""
        close = self._text.find("*/", begin + 2)
        if close < 0:
            raise _Mistake("unclosed comment")
        trimmed = self._trim_mark(close + 2)
        close += 4 if trimmed else 2
        if not self._text.startswith(RIGHT, close):
            raise _Mistake("comment ends before closing delimiter")
        self._at = close + 2
        return trimmed

    def _trim_mark(self, at: int) -> bool:
        return _is_space(self._text[at : at + 1]) and self._text.startswith("-" + RIGHT, at + 1)

    def _action(self) -> Generator[tuple[str, int], None, bool]:
        """The tokens between the braces; whether a trim mark closed them."""
        text = self._text
        while True:
            begin = self._at
            trimmed = self._trim_mark(begin)
            if trimmed or text.startswith(RIGHT, begin):
                if self._depth:
                    raise _Mistake("unclosed left paren")
                self._at += 4 if trimmed else 2
                yield "right", begin + (2 if trimmed else 0)
                return trimmed
            if begin == len(text):
                raise _Mistake("unclosed action")
            yield self._word(text[begin]), begin

    def _word(self, first: str) -> str:
        """Go behind one token inside an action; its kind."""
        text, begin = self._text, self._at
        if first in _SPACE:
            while _is_space(text[self._at : self._at + 1]) and not (self._at > begin and self._trim_mark(self._at)):
                self._at += 1
            return "space"
        if first in "\"'":
            return self._quote(first)
        if first == "`":
            close = text.find("`", begin + 1)
            if close < 0:
                raise _Mistake("unterminated raw quoted string")
            self._at = close + 1
            return "raw"
        if first == "$" or (first == "." and text[begin + 1 : begin + 2] not in tuple(_DIGITS)):
            return self._name("variable" if first == "$" else "field")
        if first in "+-." or first in _DIGITS:
            return self._number()
        if first == "_" or first.isalnum():
            return self._name("identifier")
        return self._sign(first)

    def _sign(self, first: str) -> str:
        self._at += 1
        if first == ":":
            if self._text[self._at : self._at + 1] != "=":
                raise _Mistake("expected :=")
            self._at += 1
        elif first == "(":
            self._depth += 1
        elif first == ")":
            self._depth -= 1
            if self._depth < 0:
                raise _Mistake("unexpected right paren")
        elif first not in "=|" and not (first.isascii() and first.isprintable()):
            raise _Mistake(f"unrecognized character in action: {_code_point(first)}")
        return "sign"

    def _quote(self, quote: str) -> str:
        at = self._at + 1
        while self._text[at : at + 1] not in ("", "\n"):
            if self._text[at] == quote:
                self._at = at + 1
                return "string" if quote == '"' else "char"
            at += 1
            if self._text[at - 1] == "\\" and self._text[at : at + 1] not in ("", "\n"):
                at += 1
        raise _Mistake("unterminated quoted string" if quote == '"' else "unterminated character constant")

    def _name(self, kind: str) -> str:
        begin = self._at
        self._at += 1
        while self._at < len(self._text) and _alphanumeric(self._text[self._at]):
            self._at += 1
        word = self._text[begin : self._at]
        following = self._text[self._at : self._at + 1]
        if not (following in ("", *" \t\r\n.,|:)(") or self._text.startswith(RIGHT, self._at)) and word != ".":
            raise _Mistake(f"bad character {_code_point(following)}")
        if word in ("true", "false"):
            return "bool"
        return "keyword" if word in KEYWORDS else kind

    def _number(self) -> str:
        begin, text = self._at, self._text
        at = begin + (text[begin] in "+-")
        digits = _DIGITS + "_"
        based = {"x": "0123456789abcdefABCDEF_", "o": "01234567_", "b": "01_"}.get(text[at + 1 : at + 2].lower())
        if text[at : at + 1] == "0" and based:
            digits, at = based, at + 2
        at = self._run(at, digits)
        if text[at : at + 1] == ".":
            at = self._run(at + 1, digits)
        exponent = "eE" if len(digits) == 11 else "pP"
        if len(digits) != 2 and text[at : at + 1] in tuple(exponent):
            at += 1
            at = self._run(at + (text[at : at + 1] in tuple("+-")), _DIGITS + "_")
        if text[at : at + 1] == "i":
            at += 1
        if at < len(text) and _alphanumeric(text[at]):
            raise _Mistake(f"bad number syntax: {quoted(text[begin : at + 1])}")
        self._at = at
        return "number"

    def _run(self, at: int, accepted: str) -> int:
        while at < len(self._text) and self._text[at] in accepted:
            at += 1
        return at


def _is_space(character: str) -> bool:
    return character != "" and character in _SPACE


def _alphanumeric(character: str) -> bool:
    return character == "_" or character.isalnum()


def _code_point(character: str) -> str:
    code = f"U+{ord(character):04X}" if character else "U+0000"
    return f"{code} '{character}'" if character.isprintable() else code


_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_CODES = {"x": 2, "u": 4, "U": 8}


def unquote(text: str) -> str:
    """The value of a quoted Go string or character. Raises ValueError."""
    quote, inner = text[0], text[1:-1]
    result, at = bytearray(), 0
    while at < len(inner):
        character = inner[at]
        at += 1
        if character != "\\":
            result += character.encode("utf-8", "surrogateescape")
            continue
        escape = inner[at : at + 1]
        at += 1
        if escape in _SIMPLE or escape == quote:
            result += _SIMPLE.get(escape, escape).encode()
            continue
        size, base = (_CODES[escape], 16) if escape in _CODES else (3, 8)
        at -= escape not in _CODES
        digits = inner[at : at + size]
        at += size
        if len(digits) != size or any(
            digit not in "0123456789abcdefABCDEF"[: 22 if base == 16 else 8] for digit in digits
        ):
            raise ValueError(text)
        code = int(digits, base)
        if escape in "uU" and escape:
            result += chr(code).encode() if code < 0x110000 else _no_character(text)
        else:
            result += bytes((code,)) if code < 256 else _no_character(text)
    return result.decode("utf-8", "surrogateescape")


def _no_character(text: str) -> bytes:
    raise ValueError(text)
