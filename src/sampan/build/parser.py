"""The text of a Dockerfile taken apart into instructions: name, flags, the rest of the line, heredocs.

Dockerfile reference, "Format", "Parser directives" and "Here-documents". What an instruction means is not known here.

    text -> lines -> logical lines (continued ones joined, comments dropped) -> Node
"""

from __future__ import annotations

from sampan.build.source import DockerfileError, Source, suggestion
from sampan.oci import words
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

INSTRUCTIONS = (
    *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
    *("MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
)
_DIRECTIVES = ("escape", "syntax", "check")
_ESCAPES = ("\\", "`")
_WITH_HEREDOCS = ("add", "copy", "run")
_BLANKS = " \t\v\f\r"


class Heredoc(Struct):
    """`<<NAME`: its content, each line with its end. expand: variables in it are replaced (COPY and ADD)."""

    name: str
    expand: bool
    content: str


class Node(Struct):
    """One instruction.

    name: as it was typed. flags: `--name=value` before the arguments, without their quotes. rest: the arguments, lines joined.
    heredocs: in the order of their words in `rest`. first, last: lines, from 1. comment: the lines of comment right above it.
    """

    name: str
    flags: tuple[str, ...]
    rest: str
    heredocs: tuple[Heredoc, ...]
    first: int
    last: int
    comment: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.name.lower()


class Parsed(Struct):
    """A whole file. directives: name -> value. empty_continuations: lines inside an instruction that are empty."""

    source: Source
    nodes: tuple[Node, ...]
    directives: dict[str, str]
    escape: str
    empty_continuations: tuple[int, ...]


def parse(source: Source) -> Parsed:
    """Read a Dockerfile. Raises `DockerfileError` with the line, and with what was probably meant."""
    return _Parser(source).run()


class _Parser:
    def __init__(self, source: Source) -> None:
        text = source.text.removeprefix("\ufeff")
        self._source = source
        self._lines = [line.removesuffix("\r") for line in text.split("\n")]
        if self._lines[-1] == "":
            self._lines.pop()
        self._at = 0
        self._escape = words.ESCAPE
        self._empty: list[int] = []

    def run(self) -> Parsed:
        directives = self._directives()
        self._escape = directives.get("escape", self._escape)
        nodes = tuple(self._nodes())
        if not nodes:
            raise DockerfileError("file with no instructions")
        return Parsed(self._source, nodes, directives, self._escape, tuple(self._empty))

    def _error(self, message: str, first: int, last: int = 0) -> DockerfileError:
        return DockerfileError(f"dockerfile parse error on line {first}: {message}", first, last, self._source)

    def _directives(self) -> dict[str, str]:
        """`# name=value` lines at the very top. The first line of any other kind ends them; it may still be a comment."""
        found: dict[str, str] = {}
        for number, line in enumerate(self._lines, 1):
            name, equals, value = line.removeprefix("#").partition("=")
            name, value = name.strip().lower(), value.strip()
            if not line.startswith("#") or not equals or not name.isalnum() or not value:
                break
            if name not in _DIRECTIVES:
                break
            if name in found:
                raise self._error(f"only one {name} parser directive can be used", number)
            if name == "escape" and value not in _ESCAPES:
                raise self._error(f"invalid escape token '{value}' does not match ` or \\", number)
            found[name] = value
        return found

    def _nodes(self) -> Iterator[Node]:
        comment: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at].lstrip(_BLANKS)
            if line.startswith("#"):
                comment.append(line[1:].strip())
                self._at += 1
            elif not line.strip():
                comment.clear()
                self._at += 1
            else:
                yield self._node(tuple(comment))
                comment.clear()

    def _node(self, comment: tuple[str, ...]) -> Node:
        first = self._at + 1
        name, flags, rest = _command(self._logical_line(), self._escape)
        if name.upper() not in INSTRUCTIONS:
            raise self._error(f"unknown instruction: {name}{suggestion(name, INSTRUCTIONS)}", first, self._at)
        heredocs: tuple[Heredoc, ...] = ()
        if takes_heredocs(name, rest) and "<<" in rest:
            heredocs = tuple(self._heredoc(*word, first) for word in heredoc_words(rest, self._escape))
        return Node(name, flags, rest, heredocs, first, self._at, comment)

    def _logical_line(self) -> str:
        """The next line with those that continue it. Comments between them do not count, nor do empty lines."""
        text, continues = self._continued(self._lines[self._at].lstrip(_BLANKS))
        self._at += 1
        while continues and self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            if line.lstrip(_BLANKS).startswith("#"):
                continue
            if not line.strip():
                self._empty.append(self._at)
                continue
            more, continues = self._continued(line)
            text += more
        return text

    def _continued(self, line: str) -> tuple[str, bool]:
        """The line without the escape at its end, and whether it had one. Two of them are none."""
        end = line.rstrip(" \t")
        if end.endswith(self._escape) and not end.endswith(self._escape * 2):
            return end[:-1], True
        return line, False

    def _heredoc(self, name: str, expand: bool, chomp: bool, first: int) -> Heredoc:
        content: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            if chomp:
                line = line.lstrip("\t")
            if line == name:
                return Heredoc(name, expand, "".join(content))
            content.append(line + "\n")
        raise self._error(f"unterminated heredoc: there is no line {words.quoted(name)} that ends it", first, self._at)


def takes_heredocs(name: str, rest: str) -> bool:
    """Whether `<<` in the arguments begins a heredoc: not in an exec form."""
    if name.lower() == "onbuild":
        name, _, rest = rest.partition(" ")
    return name.lower() in _WITH_HEREDOCS and not rest.lstrip().startswith("[")


def heredoc_words(rest: str, escape: str = words.ESCAPE) -> list[tuple[str, bool, bool]]:
    """(name, expand, chomp) of each `<<NAME` or `<<-NAME` among the words of a line. A quoted name stops expansion."""
    found = []
    for word in words.split(rest, escape):
        if heredoc := heredoc_word(word, escape):
            found.append(heredoc)
    return found


def heredoc_word(word: str, escape: str = words.ESCAPE) -> tuple[str, bool, bool] | None:
    """What a single word says if it begins a heredoc, also one for another descriptor (`3<<X`)."""
    head, arrows, name = word.partition("<<")
    if not arrows or (head and not (head.isascii() and head.isdigit())):
        return None
    chomp = name.startswith("-")
    name = name.removeprefix("-")
    if not name or "<" in name:
        return None
    plain = words.unquote(name, escape)
    return (plain, plain == name, chomp) if plain else None


def _command(line: str, escape: str) -> tuple[str, tuple[str, ...], str]:
    """Name, flags and arguments of a logical line."""
    line = line.strip()
    end = next((i for i, c in enumerate(line) if c in _BLANKS), len(line))
    flags, rest = split_flags(line[end:].strip(), escape)
    return line[:end], flags, rest


def split_flags(rest: str, escape: str = words.ESCAPE) -> tuple[tuple[str, ...], str]:
    """The `--flags` that arguments begin with, without quotes and escapes, and what follows. `--` alone ends them."""
    flags: list[str] = []
    while rest.startswith("--"):
        word, rest = _first_word(rest, escape)
        if word == "--":
            break
        flags.append(words.unquote(word, escape))
    return tuple(flags), rest


def _first_word(text: str, escape: str) -> tuple[str, str]:
    quote, position = "", 0
    while position < len(text):
        character = text[position]
        if not quote and character in " \t":
            break
        if character == escape:
            position += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        position += 1
    return text[:position], text[position:].lstrip()
