"""The tree of a template: what its text means, as the parser makes it and the evaluator reads it.

`str()` of a part of an expression is the expression as Go writes it in messages.
"""

from __future__ import annotations

from sampan.gotemplate.lexer import quoted
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass


class Node(Struct):
    """A part of a template; `at` is where it begins in the text."""

    at: int


class Text(Node):
    text: str


class Field(Node):
    """.A.B"""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return "." + ".".join(self.names)


class Variable(Node):
    """$x.A: the first name is the variable's, with its dollar."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.names)


class Chain(Node):
    """(...).A.B"""

    of: Node
    names: tuple[str, ...]

    def __str__(self) -> str:
        inner = f"({self.of})" if isinstance(self.of, Pipeline) else str(self.of)
        return inner + "." + ".".join(self.names)


class Identifier(Node):
    """The name of a function."""

    name: str

    def __str__(self) -> str:
        return self.name


class Literal(Node):
    """A constant; `source` is how it was written. kind: "bool", "number" or "string"."""

    kind: str
    value: bool | int | float | str
    source: str

    def __str__(self) -> str:
        return self.source


class Dot(Node):
    def __str__(self) -> str:
        return "."


class Nil(Node):
    def __str__(self) -> str:
        return "nil"


class Call(Node):
    """A command: an operand, and what it is called with."""

    words: tuple[Node, ...]

    def __str__(self) -> str:
        return " ".join(f"({word})" if isinstance(word, Pipeline) else str(word) for word in self.words)


class Pipeline(Node):
    """Commands; the value of each is the last argument of the next. The result goes into `variables`, if there are any."""

    commands: tuple[Call, ...]
    variables: tuple[str, ...] = ()
    assigns: bool = False

    def __str__(self) -> str:
        sign = " = " if self.assigns else " := "
        declared = ", ".join(self.variables) + sign if self.variables else ""
        return declared + " | ".join(str(command) for command in self.commands)


class Action(Node):
    pipeline: Pipeline

    def __str__(self) -> str:
        return f"{{{{{self.pipeline}}}}}"


class Branch(Node):
    """if, with and range. word: which of them."""

    word: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


class Jump(Node):
    """break and continue."""

    word: str


class Invocation(Node):
    """{{template "name" pipeline}}"""

    name: str
    pipeline: Pipeline | None

    def __str__(self) -> str:
        return f"{{{{template {quoted(self.name)}{'' if self.pipeline is None else f' {self.pipeline}'}}}}}"


Tree = tuple[Node, ...]
