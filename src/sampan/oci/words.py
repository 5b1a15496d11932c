"""Words of Dockerfile instructions: splitting, quotes, escapes and variables.

The Dockerfile reference, "Environment replacement": `$name`, `${name}`, `${name:-word}`, `${name-word}`, and the same
with + and ?; `${name#pattern}`, `##`, `%`, `%%` cut off what fits at the beginning or the end, the shortest or the longest of it;
`${name/pattern/word}` and `//` put a word in its place, once or everywhere. A backslash (or what the directive `escape` names)
takes the meaning of the next character away; single quotes take all meanings away.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
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


def split(text: str, escape: str = ESCAPE) -> list[str]:
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
        if character == escape and quote != "'":
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


def unquote(word: str, escape: str = ESCAPE) -> str:
    """The word without its quotes and escapes; variables are left as they are."""
    found, quote, position = "", "", 0
    while position < len(word):
        character = word[position]
        position += 1
        if character == escape and quote != "'" and position < len(word):
            found += word[position]
            position += 1
        elif quote and character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        else:
            found += character
    return found


def expand(word: str, variables: Mapping[str, str], escape: str = ESCAPE) -> str:
    """The word with its quotes removed and its variables replaced; an unset one is empty.

    Raises `InvalidParameter` with Docker's texts.
    """
    return _expanded(word, variables, escape).text


def expand_words(word: str, variables: Mapping[str, str], escape: str = ESCAPE) -> list[str]:
    """As `expand`, then split at white space that came from outside of quotes (a variable may hold two ports)."""
    expander = _expanded(word, variables, escape)
    return [*expander.words, expander.word] if expander.word else expander.words


def expand_text(text: str, variables: Mapping[str, str], escape: str = ESCAPE) -> str:
    """The text of a heredoc: its variables are replaced, its quotes stay. Raises `InvalidParameter`."""
    return _expanded(text, variables, escape, keep_quotes=True).text


def _expanded(word: str, variables: Mapping[str, str], escape: str, keep_quotes: bool = False) -> _Expander:
    expander = _Expander(word, variables, escape, keep_quotes=keep_quotes)
    try:
        expander.run("")
    except InvalidParameter as e:
        raise InvalidParameter(f"failed to process {quoted(word)}: {e}") from None
    return expander


class _Expander:
    """Reads one word from left to right. `text` is the result, `words` the same split at white space."""

    def __init__(
        self,
        source: str,
        variables: Mapping[str, str],
        escape: str,
        position: int = 0,
        keep_quotes: bool = False,
        keep_escapes: bool = False,
    ) -> None:
        """`keep_quotes`: they mean nothing here; `keep_escapes`: escapes stay for whoever reads the result, a pattern."""
        self._source = source
        self._variables = variables
        self._escape = escape
        self._keep_quotes = keep_quotes
        self._keep_escapes = keep_escapes
        self.position = position
        self.text = ""
        self.word = ""
        self.words: list[str] = []

    def run(self, stop: str) -> None:
        """Up to the character `stop`, which is eaten, or to the end if it is empty."""
        while character := self._next():
            if character == stop:
                return
            if character == "'" and not self._keep_quotes:
                self._add(self._single_quoted(), whole=True)
            elif character == '"' and not self._keep_quotes:
                self._add(self._double_quoted(), whole=True)
            elif character == "$":
                self._add(self._variable(), whole=False)
            elif character == self._escape:
                self._add(self._escaped(), whole=True)
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

    def _escaped(self) -> str:
        if self._keep_escapes:
            return self._escape + self._next()
        if self._keep_quotes and self._peek() not in ("$", self._escape, "\n"):
            return self._escape  # In a heredoc it is for dollars and itself, as in a shell's.
        return self._next()

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
            elif character == self._escape and self._peek() in ('"', "$", self._escape, ""):
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
        if modifier in ("#", "%", "/"):
            return self._edited(name, modifier)
        if modifier[-1] not in "-+?":
            raise InvalidParameter(f"unsupported modifier ({modifier}) in substitution")
        word = self._inner_word()
        # Not by `get`: who writes a default knows that it may be unset (`build.scope.Used`).
        value = self._variables[name] if name in self._variables else None  # noqa: SIM401
        is_set = value is not None and not (empty_is_unset and not value)
        if modifier[-1] == "+":
            return word if is_set else ""
        if is_set:
            return value or ""
        if modifier[-1] == "-":
            return word
        missing = "is not allowed to be unset" if value is None else "is not allowed to be empty"
        raise InvalidParameter(f"{name}: {word or missing}")

    def _edited(self, name: str, modifier: str) -> str:
        """The value with what fits a pattern cut off or replaced."""
        if self._peek() == modifier:
            modifier += self._next()
        value = self._variables.get(name)
        if modifier[0] == "/":
            pattern = self._inner_word("/", keep_escapes=True)
            return _replaced(value or "", pattern, self._inner_word(), self._escape, everywhere=modifier == "//")
        pattern = self._inner_word(keep_escapes=True)
        return _cut(value or "", pattern, self._escape, modifier)

    def _inner_word(self, stop: str = "}", keep_escapes: bool = False) -> str:
        """The word before the closing brace or another character, expanded itself."""
        inner = _Expander(self._source, self._variables, self._escape, self.position, keep_escapes=keep_escapes)
        try:
            inner.run(stop)
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


def _cut(value: str, pattern: str, escape: str, modifier: str) -> str:
    """`value` without what fits at its beginning (`#`) or its end (`%`), the shortest or, with two signs, the longest."""
    fits = _pattern(pattern, escape)
    ends = range(len(value) + 1)
    lengths = reversed(ends) if len(modifier) == 2 else ends
    for length in lengths:
        if modifier[0] == "#" and fits.fullmatch(value, 0, length):
            return value[length:]
        if modifier[0] == "%" and fits.fullmatch(value, len(value) - length):
            return value[: len(value) - length]
    return value


def _replaced(value: str, pattern: str, word: str, escape: str, everywhere: bool) -> str:
    return _pattern(pattern, escape).sub(lambda _: word, value, count=0 if everywhere else 1)


def _pattern(pattern: str, escape: str) -> re.Pattern[str]:
    """A shell pattern of `*` and `?` as a regular expression. Several stars are one: they mean the same."""
    import re

    parts: list[str] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            if parts[-1:] != [".*"]:
                parts.append(".*")
        elif character == "?":
            parts.append(".")
        elif character == escape:
            if position == len(pattern):
                raise InvalidParameter(f"invalid escape '{escape}' at the end of a pattern")
            parts.append(re.escape(pattern[position]))
            position += 1
        else:
            parts.append(re.escape(character))
    return re.compile("".join(parts), re.DOTALL)
