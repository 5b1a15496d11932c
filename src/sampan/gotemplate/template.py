"""Go templates as Docker's users write them in --format: the language of text/template, with Docker's functions.

There is no library that could be used: those which exist for Python read another language. The lexer, the parser, the
functions and Go's printing are modules of their own; this one walks the tree. docs/format.md says what is known.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.gotemplate import nodes, parser, printing
from sampan.gotemplate.functions import FUNCTIONS, Function, FunctionError
from sampan.gotemplate.nodes import (
    Action,
    Branch,
    Call,
    Chain,
    Dot,
    Field,
    Identifier,
    Invocation,
    Jump,
    Literal,
    Node,
    Pipeline,
    Text,
    Tree,
    Variable,
)
from sampan.gotemplate.values import MISSING, Headings, Method, Nil, Object, items_sorted, truth, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import NoReturn

DEEPEST = 100
"""How deep templates may call each other: Go allows more, but nobody's --format needs it."""


class TemplateError(InvalidParameter):
    """A template that is none (`parse`), or that asks a value for what it has not (`execute`)."""


class Template:
    """A parsed template; it may be executed many times. `name` is for messages."""

    def __init__(self, text: str, trees: Mapping[str, Tree], name: str = "") -> None:
        self.text = text
        self.name = name
        self.trees = trees

    def execute(
        self, value: object, functions: Mapping[str, Function] = FUNCTIONS, missing_is_error: bool = False
    ) -> str:
        """What it makes of a value. Raises TemplateError."""
        run = _Run(self, functions, missing_is_error)
        try:
            run.invoke("", value)
        except RecursionError:
            raise TemplateError(f"template: {self.name}: exceeded maximum template depth") from None
        return "".join(run.output)


def parse(text: str, name: str = "") -> Template:
    """Raises TemplateError: "template: NAME:1: function "x" not defined"."""
    try:
        return Template(text, parser.parse(text, FUNCTIONS), name)
    except parser.Mistake as e:
        raise TemplateError(f"template: {name}:{e}") from None
    except RecursionError:
        raise TemplateError(f"template: {name}:1: max expression depth exceeded") from None


def render(template: str, value: object) -> str:
    """What a template makes of plain data: dicts are maps, whose missing keys print as <no value>. Raises TemplateError."""
    return parse(template).execute(value)


class _Nothing:
    """No argument came out of the command before."""


_NOTHING = _Nothing()


class _Run:
    """One execution: the output so far, and the variables that are known where it is."""

    def __init__(self, template: Template, functions: Mapping[str, Function], missing_is_error: bool) -> None:
        self.output: list[str] = []
        self._template = template
        self._functions = functions
        self._missing_is_error = missing_is_error
        self._variables: list[tuple[str, object]] = []
        self._name = ""
        self._depth = 0

    def invoke(self, name: str, dot: object) -> None:
        """Execute one of the templates, which sees no variables but its own."""
        outer = self._variables, self._name
        self._variables, self._name = [("$", dot)], name
        self._depth += 1
        self._walk(self._template.trees[name], dot)
        self._depth -= 1
        self._variables, self._name = outer

    # Statements

    def _walk(self, nodes: Iterable[Node], dot: object) -> str:
        """Execute nodes one by one; "break" or "continue" if one of them says so, else ""."""
        for node in nodes:
            if isinstance(node, Text):
                self.output.append(node.text)
            elif isinstance(node, Action):
                value = self._pipeline(node.pipeline, dot)
                if not node.pipeline.variables:
                    self._print(node, value)
            elif isinstance(node, Jump):
                return node.word
            elif isinstance(node, Branch):
                known = len(self._variables)
                jump = self._range(node, dot) if node.word == "range" else self._branch(node, dot)
                del self._variables[known:]
                if jump:
                    return jump
            elif isinstance(node, Invocation):
                self._invocation(node, dot)
        return ""

    def _branch(self, node: Branch, dot: object) -> str:
        value = self._pipeline(node.pipeline, dot)
        if truth(value):
            return self._walk(node.body, value if node.word == "with" else dot)
        return self._walk(node.otherwise, dot)

    def _range(self, node: Branch, dot: object) -> str:
        value = self._pipeline(node.pipeline, dot)
        known, empty = len(self._variables), True
        for key, element in self._elements(node, value):
            empty = False
            self._name_elements(node.pipeline, key, element)
            if self._walk(node.body, element) == "break":
                break
            del self._variables[known:]
        return self._walk(node.otherwise, dot) if empty else ""

    def _name_elements(self, pipeline: Pipeline, key: object, element: object) -> None:
        values = (element,) if len(pipeline.variables) == 1 else (key, element)
        for name, value in zip(pipeline.variables, values, strict=False):
            self._set(name, value)

    def _elements(self, node: Branch, value: object) -> Iterable[tuple[object, object]]:
        if value is MISSING or (isinstance(value, Nil) and not value.is_pointer):
            return ()
        if isinstance(value, int) and not isinstance(value, bool):
            if len(node.pipeline.variables) > 1:
                self._fail(node.pipeline, f"can't use {int(value)} to iterate over more than one variable")
            return ((i, i) for i in range(value))
        if isinstance(value, (list, tuple)):
            return enumerate(value)
        if isinstance(value, dict):
            return items_sorted(value)
        return self._fail(node.pipeline, f"range can't iterate over {printing.text_of(value)}")

    def _invocation(self, node: Invocation, dot: object) -> None:
        if node.name not in self._template.trees:
            self._fail(node, f"template {printing.quote(node.name)} not defined")
        if self._depth >= DEEPEST:
            self._fail(node, f"exceeded maximum template depth ({DEEPEST})")
        self.invoke(node.name, MISSING if node.pipeline is None else self._pipeline(node.pipeline, dot))

    def _print(self, node: Node, value: object) -> None:
        if isinstance(value, Method):
            self._fail(node, f"can't print {node} of type func")
        self.output.append("<no value>" if value is MISSING else printing.text_of(value))

    # Expressions

    def _pipeline(self, node: Pipeline, dot: object) -> object:
        value: object = _NOTHING
        for command in node.commands:
            value = self._command(command, dot, value)
            if value is None:
                value = MISSING  # a nil interface is no value from here on
        for name in node.variables:
            if node.assigns:
                if all(known != name for known, _ in self._variables):
                    self._fail(node.commands[-1].words[0], f"undefined variable: {name}")
                self._set(name, value)
            else:
                self._variables.append((name, value))
        return value

    def _set(self, name: str, value: object) -> None:
        for i in range(len(self._variables) - 1, -1, -1):
            if self._variables[i][0] == name:
                self._variables[i] = (name, value)
                return

    def _command(self, node: Call, dot: object, final: object) -> object:
        first = node.words[0]
        if isinstance(first, Identifier):
            return self._function(node, first, dot, final)
        if isinstance(first, (Field, Chain, Variable)):
            return self._access(first, dot, node.words, final)
        if len(node.words) > 1 or final is not _NOTHING:
            self._fail(first, f"can't give argument to non-function {first}")
        if isinstance(first, Pipeline):
            return self._pipeline(first, dot)
        if isinstance(first, nodes.Nil):
            self._fail(first, "nil is not a command")
        return self._plain(first, dot)

    def _plain(self, node: Node, dot: object) -> object:
        """A constant or the dot."""
        if isinstance(node, Dot):
            return dot
        assert isinstance(node, Literal)
        if isinstance(node.value, int) and not -(1 << 63) <= node.value < 1 << 63:
            self._fail(node, f"{node} overflows int")
        return node.value

    def _access(
        self, node: Field | Chain | Variable, dot: object, words: Sequence[Node] = (), final: object = _NOTHING
    ) -> object:
        """.A.B, $x.A.B or (...).A.B: what is given goes to the last of them, if that is a method."""
        if isinstance(node, Field):
            value, names = dot, node.names
        elif isinstance(node, Variable):
            value, names = self._variable(node.names[0]), node.names[1:]
        else:
            value, names = self._argument(node.of, "any", dot), node.names
        if not names:
            if len(words) > 1 or final is not _NOTHING:
                self._fail(node, f"can't give argument to non-function {node}")
            return value
        for name in names[:-1]:
            value = self._field(node, value, name, dot, (), _NOTHING)
        return self._field(node, value, names[-1], dot, words[1:], final)

    def _variable(self, name: str) -> object:
        return next(value for known, value in reversed(self._variables) if known == name)

    def _field(self, node: Node, value: object, name: str, dot: object, words: Sequence[Node], final: object) -> object:
        if value is MISSING:
            if self._missing_is_error:
                self._fail(node, f"nil data; no entry for key {printing.quote(name)}")
            return MISSING
        if value is None:
            self._fail(node, f"nil pointer evaluating interface {{}}.{name}")
        found = self._member(node, value, name)
        if isinstance(found, Method):
            return self._method(node, found, name, dot, words, final)
        if words or final is not _NOTHING:
            if isinstance(value, Object):
                self._fail(node, f"{name} has arguments but cannot be invoked as function")
            self._fail(node, f"{name} is not a method but has arguments")
        return found

    def _member(self, node: Node, value: object, name: str) -> object:
        if isinstance(value, Headings) and name in value.methods:
            return value.methods[name]
        if isinstance(value, Object) and name in value.fields:
            return value.fields[name]
        if isinstance(value, dict) or (isinstance(value, Nil) and value.type.startswith("map[")):
            if isinstance(value, dict) and name in value:
                return value[name]
            if self._missing_is_error:
                self._fail(node, f"map has no entry for key {printing.quote(name)}")
            return MISSING
        if isinstance(value, Nil) and value.is_pointer:
            self._fail(node, f"nil pointer evaluating {value.type}.{name}")
        return self._fail(node, f"can't evaluate field {name} in type {type_name(value)}")

    def _method(
        self, node: Node, method: Method, name: str, dot: object, words: Sequence[Node], final: object
    ) -> object:
        given = len(words) + (final is not _NOTHING)
        if given != method.parameters:
            self._fail(node, f"wrong number of args for {name}: want {method.parameters} got {given}")
        arguments = [self._argument(word, "string", dot) for word in words]
        if final is not _NOTHING:
            arguments.append(self._checked(node, final, "string"))
        return method.call(*arguments)

    def _function(self, node: Call, name: Identifier, dot: object, final: object) -> object:
        function, words = self._functions[name.name], node.words[1:]
        self._count(name, function, len(words) + (final is not _NOTHING))
        if name.name in ("and", "or"):
            return self._short_circuit(name.name == "or", words, dot, final)
        kinds = function.parameters
        arguments = [self._argument(word, kinds[min(i, len(kinds) - 1)], dot) for i, word in enumerate(words)]
        if final is not _NOTHING:
            arguments.append(self._checked(node, final, kinds[min(len(words), len(kinds) - 1)]))
        try:
            return function.call(*arguments)
        except FunctionError as e:
            self._fail(node, f"error calling {name}: {e}")

    def _count(self, name: Identifier, function: Function, given: int) -> None:
        wanted = len(function.parameters)
        if function.variadic and given < wanted - 1:
            self._fail(name, f"wrong number of args for {name}: want at least {wanted - 1} got {given}")
        if not function.variadic and given != wanted:
            self._fail(name, f"wrong number of args for {name}: want {wanted} got {given}")

    def _short_circuit(self, wanted: bool, words: Sequence[Node], dot: object, final: object) -> object:
        """`and` and `or`: the first argument that decides, else the last; those behind it are not evaluated."""
        value: object = MISSING
        for word in words:
            value = self._argument(word, "any", dot)
            if truth(value) == wanted:
                return value
        return value if final is _NOTHING else final

    def _argument(self, node: Node, kind: str, dot: object) -> object:
        """The value of an operand that is handed on."""
        if isinstance(node, nodes.Nil):
            if kind in ("string", "int"):
                self._fail(node, f"cannot assign nil to {kind}")
            return None
        if isinstance(node, Literal):
            value = self._plain(node, dot)
            if (kind == "string" and node.kind != "string") or (kind == "int" and type(value) is not int):
                self._fail(node, f"expected {'integer' if kind == 'int' else kind}; found {node}")
            return self._checked(node, value, kind)
        if isinstance(node, Dot):
            return self._checked(node, dot, kind)
        if isinstance(node, Pipeline):
            return self._checked(node, self._pipeline(node, dot), kind)
        if isinstance(node, Identifier):
            return self._checked(node, self._function(Call(node.at, (node,)), node, dot, _NOTHING), kind)
        assert isinstance(node, (Field, Variable, Chain))
        return self._checked(node, self._access(node, dot), kind)

    def _checked(self, node: Node, value: object, kind: str) -> object:
        """The value, if it is of the kind that is wanted."""
        if kind == "any":
            return None if value is MISSING else value
        if value is MISSING or value is None:
            if kind == "[]string":
                return []
            self._fail(node, f"invalid value; expected {kind}")
        if kind == "[]string" and type_name(value) == kind:
            return [] if isinstance(value, Nil) else value
        if (kind == "string" and isinstance(value, str)) or (kind == "int" and type_name(value) == "int"):
            return value
        return self._fail(node, f"wrong type for value; expected {kind}; got {type_name(value)}")

    def _fail(self, node: Node, message: str) -> NoReturn:
        before = self._template.text[: node.at]
        line, column = before.count("\n") + 1, len(before[before.rfind("\n") + 1 :].encode("utf-8", "surrogateescape"))
        # Go names every template by the text that it stands in.
        where = f"{self._template.name}:{line}:{column}"
        name = printing.quote(self._name or self._template.name)
        raise TemplateError(f"template: {where}: executing {name} at <{node}>: {message}")
