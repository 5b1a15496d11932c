"""Words of Dockerfile instructions: splitting, quotes, escapes and variables.

The Dockerfile reference, "Environment replacement": `$name`, `${name}`, `${name:-word}`, `${name-word}`, and the same
with + and ?; a backslash takes the meaning of the next character away; single quotes take all meanings away.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ESCAPE = "\\"
_SPECIAL_PARAMETERS = frozenset("@*#?-$!0")


def environment(entries: Sequence[str]) -> dict[str, str]:
    """A list of NAME=value as a mapping; the last of a name counts."""
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def quoted(text: str) -> str:
    """A text between double quotes, escaped as Go's %q does it for printable text."""
    import json

    return json.dumps(text, ensure_ascii=False)


def split(text: str) -> list[str]:
    """The words of a line, separated by white space outside of quotes. Quotes and escapes are left in the words."""
    found: list[str] = []
    word, quote, position = "", "", 0
    while position < len(text):
        character = text[position]
        position += 1
        if not quote and character.isspace():
            if word:
                found.append(word)
            word = ""
            continue
        if character == ESCAPE and quote != "'":
            if position == len(text):
                break  # An escape at the end of the line escapes nothing.
            character += text[position]
            position += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        word += character
    return [*found, word] if word else found


def expand(word: str, variables: Mapping[str, str]) -> str:
    """The word with its quotes removed and its variables replaced; an unset one is empty.

    Raises `InvalidParameter` with Docker's texts.
    """
    return _expanded(word, variables).text


def expand_words(word: str, variables: Mapping[str, str]) -> list[str]:
    """As `expand`, then split at white space that came from outside of quotes (a variable may hold two ports)."""
    expander = _expanded(word, variables)
    return [*expander.words, expander.word] if expander.word else expander.words


def _expanded(word: str, variables: Mapping[str, str]) -> _Expander:
    expander = _Expander(word, variables)
    try:
        expander.run("")
    except InvalidParameter as e:
        raise InvalidParameter(f"failed to process {quoted(word)}: {e}") from None
    return expander


class _Expander:
    """Reads one word from left to right. `text` is the result, `words` the same split at white space."""

    def __init__(self, source: str, variables: Mapping[str, str], position: int = 0) -> None:
        self._source = source
        self._variables = variables
        self.position = position
        self.text = ""
        self.word = ""
        self.words: list[str] = []

    def run(self, stop: str) -> None:
        """Up to the character `stop`, which is eaten, or to the end if it is empty."""
        while character := self._next():
            if character == stop:
                return
            if character == "'":
                self._add(self._single_quoted(), whole=True)
            elif character == '"':
                self._add(self._double_quoted(), whole=True)
            elif character == "$":
                self._add(self._variable(), whole=False)
            elif character == ESCAPE:
                self._add(self._next(), whole=True)
            else:
                self._add(character, whole=False)
        if stop:
            raise InvalidParameter(f"unexpected end of statement while looking for matching {stop}")

    def _add(self, text: str, whole: bool) -> None:
        self.text += text
        if whole:
            self.word += text
            return
        for character in text:
            if not character.isspace():
                self.word += character
            elif self.word:
                self.words.append(self.word)
                self.word = ""

    def _peek(self) -> str:
        return self._source[self.position : self.position + 1]

    def _next(self) -> str:
        character = self._peek()
        self.position += len(character)
        return character

    def _single_quoted(self) -> str:
        end = self._source.find("'", self.position)
        if end < 0:
            raise InvalidParameter("unexpected end of statement while looking for matching single-quote")
        start, self.position = self.position, end + 1
        return self._source[start:end]

    def _double_quoted(self) -> str:
        found = ""
        while character := self._next():
            if character == '"':
                return found
            if character == "$":
                found += self._variable()
            elif character == ESCAPE and self._peek() in ('"', "$", ESCAPE, ""):
                found += self._next()
            else:
                found += character
        raise InvalidParameter("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        """What stands for the variable; the dollar is eaten already."""
        if self._peek() != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._next()
        if not self._peek():
            raise InvalidParameter("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise InvalidParameter("syntax error: bad substitution")
        name = self._name()
        modifier = self._next()
        if modifier == "}":
            return self._variables.get(name, "")
        empty_is_unset = modifier == ":"
        if empty_is_unset:
            modifier += self._next()
        if not modifier:
            raise InvalidParameter("syntax error: missing '}'")
        return self._modified(name, modifier, empty_is_unset)

    def _modified(self, name: str, modifier: str, empty_is_unset: bool) -> str:
        if modifier[-1] not in "-+?":
            raise InvalidParameter(f"unsupported modifier ({modifier}) in substitution")
        word = self._inner_word()
        value = self._variables.get(name)
        is_set = value is not None and not (empty_is_unset and not value)
        if modifier[-1] == "+":
            return word if is_set else ""
        if is_set:
            return value or ""
        if modifier[-1] == "-":
            return word
        missing = "is not allowed to be unset" if value is None else "is not allowed to be empty"
        raise InvalidParameter(f"{name}: {word or missing}")

    def _inner_word(self) -> str:
        """The word before the closing brace, expanded itself."""
        inner = _Expander(self._source, self._variables, self.position)
        try:
            inner.run("}")
        except InvalidParameter:
            if inner.position >= len(self._source):
                raise InvalidParameter("syntax error: missing '}'") from None
            raise
        self.position = inner.position
        return inner.text

    def _name(self) -> str:
        first = self._peek()
        if first.isdigit():
            return self._take(str.isdigit)
        if first and first in _SPECIAL_PARAMETERS:
            return self._next()
        return self._take(lambda c: c.isalnum() or c == "_")

    def _take(self, fits: Callable[[str], bool]) -> str:
        start = self.position
        while self.position < len(self._source) and fits(self._source[self.position]):
            self.position += 1
        return self._source[start : self.position]
