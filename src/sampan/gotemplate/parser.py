"""The grammar of a template: tokens become a tree (`nodes`). The messages are those of Go's text/template/parse."""

from __future__ import annotations

from sampan.gotemplate.lexer import Lexer, Token, quoted, unquote
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
    Nil,
    Node,
    Pipeline,
    Text,
    Tree,
    Variable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Any, NoReturn


class Mistake(Exception):
    """A template that is none: the message has no template's name in front yet."""


_OPERANDS = frozenset(("bool", "char", "field", "identifier", "number", "raw", "string", "variable"))


def parse(text: str, functions: Container[str]) -> dict[str, Tree]:
    """The templates of a text by their names: "" is the text itself. `functions`: the names that are known.

    Raises `Mistake`.
    """
    return _Parser(text, functions).parse()


class _Parser:
    def __init__(self, text: str, functions: Container[str]) -> None:
        self._tokens = Lexer(text).tokens()
        self._at = 0
        self._functions = functions
        self._variables = ["$"]
        self._loops = 0
        self._trees: dict[str, Tree] = {}

    # The tokens

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        if token.kind not in ("end", "error"):
            self._at += 1
        return token

    def _skip_space(self) -> None:
        while self._peek().kind == "space":
            self._next()

    def _peek_word(self) -> Token:
        self._skip_space()
        return self._peek()

    def _next_word(self) -> Token:
        self._skip_space()
        return self._next()

    def _fail(self, message: str) -> NoReturn:
        raise Mistake(f"{self._tokens[max(self._at - 1, 0)].line}: {message}")

    def _unexpected(self, token: Token, context: str) -> NoReturn:
        if token.kind == "error":
            raise Mistake(f"{token.line}: {token.text}")
        self._fail(f"unexpected {token.shown()} in {context}")

    def _expect_right(self, context: str) -> None:
        token = self._next_word()
        if token.kind != "right":
            self._unexpected(token, context)

    # What is not in an expression

    def parse(self) -> dict[str, Tree]:
        nodes: list[Node] = []
        while self._peek().kind != "end":
            if self._at_keyword("define"):
                self._definition()
                continue
            node = self._item()
            if isinstance(node, Token):
                self._fail(f"unexpected {_tag(node)}")
            nodes.append(node)
        self._add("", tuple(nodes))
        return self._trees

    def _at_keyword(self, word: str) -> bool:
        """Whether an action follows that begins with this word; if so, go behind the word."""
        before = self._at
        if self._next().kind == "left":
            token = self._next_word()
            if token.kind == "keyword" and token.text == word:
                return True
        self._at = before
        return False

    def _definition(self) -> None:
        name = self._name("define clause")
        self._expect_right("define clause")
        outer, self._variables = self._variables, ["$"]
        body, end = self._items()
        if end.text != "end":
            self._fail(f"unexpected {_tag(end)} in define clause")
        self._add(name, body)
        self._variables = outer

    def _add(self, name: str, tree: Tree) -> None:
        """The last definition of a name counts, but one that is empty does not hide one that is not."""
        empty = all(isinstance(node, Text) and not node.text.strip() for node in tree)
        if name not in self._trees or not empty:
            self._trees[name] = tree

    def _items(self) -> tuple[Tree, Token]:
        """What comes before the next {{end}} or {{else}}, and which it is."""
        nodes: list[Node] = []
        while self._peek_word().kind != "end":
            node = self._item()
            if isinstance(node, Token):
                return tuple(nodes), node
            nodes.append(node)
        return self._fail("unexpected EOF")

    def _item(self) -> Node | Token:
        """Text or an action; the keyword itself for {{end}} and {{else}}."""
        token = self._next_word()
        if token.kind == "text":
            return Text(token.at, token.text)
        if token.kind != "left":
            self._unexpected(token, "input")
        word = self._peek_word()
        if word.kind == "keyword" and word.text in _ACTIONS:
            self._next()
            found: Node | Token = _ACTIONS[word.text](self, word)
            return found
        at = word.at
        return Action(at, self._pipeline("command", "right"))

    def _end(self, word: Token) -> Token:
        self._expect_right("end")
        return word

    def _else(self, word: Token) -> Token:
        following = self._peek_word()
        if following.kind != "keyword" or following.text not in ("if", "with"):
            self._expect_right("else")
        return word

    def _branch(self, word: Token) -> Node:
        known = len(self._variables)
        context = word.text
        pipeline = self._pipeline(context, "right")
        self._loops += context == "range"
        body, last = self._items()
        self._loops -= context == "range"
        otherwise: Tree = ()
        if last.text == "else":
            following = self._peek()
            if following.kind == "keyword" and following.text in ("if", "with"):
                if following.text != context:
                    self._unexpected(following, "input")
                otherwise = (self._branch(self._next()),)  # its {{end}} is ours
            else:
                otherwise, last = self._items()
                if last.text != "end":
                    self._fail(f"expected end; found {_tag(last)}")
        del self._variables[known:]
        return Branch(word.at, context, pipeline, body, otherwise)

    def _jump(self, word: Token) -> Node:
        token = self._next_word()
        if token.kind != "right":
            self._unexpected(token, f"{{{{{word.text}}}}}")
        if not self._loops:
            self._fail(f"{{{{{word.text}}}}} outside {{{{range}}}}")
        return Jump(word.at, word.text)

    def _template(self, _word: Token) -> Node:
        at = self._peek_word().at
        name = self._name("template clause")
        pipeline = None
        if self._peek_word().kind == "right":
            self._next()
        else:
            pipeline = self._pipeline("template clause", "right")
        return Invocation(at, name, pipeline)

    def _block(self, _word: Token) -> Node:
        """{{define}} and {{template}} in one."""
        at = self._peek_word().at
        name = self._name("block clause")
        pipeline = self._pipeline("block clause", "right")
        (outer, self._variables), (loops, self._loops) = (self._variables, ["$"]), (self._loops, 0)
        body, end = self._items()
        if end.text != "end":
            self._fail(f"unexpected {_tag(end)} in block clause")
        self._variables, self._loops = outer, loops
        self._add(name, body)
        return Invocation(at, name, pipeline)

    def _name(self, context: str) -> str:
        token = self._next_word()
        if token.kind not in ("string", "raw"):
            self._unexpected(token, context)
        return str(self._unquoted(token))

    # Expressions

    def _pipeline(self, context: str, end: str) -> Pipeline:
        at = self._peek_word().at
        variables, assigns = self._declared(context)
        commands: list[Call] = []
        while True:
            token = self._peek_word()
            if token.kind == end or (token.kind == "sign" and token.text == end):
                self._next()
                self._check(commands, context)
                return Pipeline(at, tuple(commands), variables, assigns)
            if token.kind not in _OPERANDS and token.text not in (".", "nil", "("):
                self._next()
                self._unexpected(token, context)
            commands.append(self._command())

    def _declared(self, context: str) -> tuple[tuple[str, ...], bool]:
        """The variables before := or =, and whether it was =; nothing is read if there are none."""
        names: list[str] = []
        while True:
            before = self._at
            token = self._peek_word()
            if token.kind != "variable":
                self._at = before
                return tuple(names), False
            self._next()
            sign = self._peek_word()
            if sign.text in (":=", "=") and sign.kind == "sign":
                self._next()
                names.append(token.text)
                if sign.text == ":=":
                    self._variables += names
                return tuple(names), sign.text == "="
            if sign.text != "," or sign.kind != "sign":
                self._at = before
                return tuple(names), False
            self._next()
            names.append(token.text)
            if context != "range":
                self._fail(f"too many declarations in {context}")
            if len(names) > 1 or self._peek_word().kind != "variable":
                self._fail(
                    "range can only initialize variables" if len(names) < 2 else "too many declarations in range"
                )

    def _check(self, commands: list[Call], context: str) -> None:
        if not commands:
            self._fail(f"missing value for {context}")
        for stage, command in enumerate(commands[1:], 2):
            if isinstance(command.words[0], (Literal, Dot, Nil)):
                self._fail(f"non executable command in pipeline stage {stage}")

    def _command(self) -> Call:
        at = self._peek_word().at
        words: list[Node] = []
        while True:
            self._skip_space()
            operand = self._operand()
            if operand is not None:
                words.append(operand)
            token = self._next()
            if token.kind == "space":
                continue
            if token.kind == "right" or (token.kind == "sign" and token.text == ")"):
                self._at -= 1
            elif token.kind != "sign" or token.text != "|":
                self._unexpected(token, "operand")
            break
        if not words:
            self._fail("empty command")
        return Call(at, tuple(words))

    def _operand(self) -> Node | None:
        node = self._term()
        if node is None or self._peek().kind != "field":
            return node
        at, names = self._peek().at, []
        while self._peek().kind == "field":
            names.append(self._next().text[1:])
        if isinstance(node, (Field, Variable)):
            return type(node)(at, (*node.names, *names))
        if isinstance(node, (Literal, Nil, Dot)):
            self._fail(f"unexpected . after term {quoted(str(node))}")
        return Chain(at, node, tuple(names))

    def _term(self) -> Node | None:
        token = self._next_word()
        if token.kind == "identifier":
            if token.text not in self._functions:
                self._fail(f"function {quoted(token.text)} not defined")
            return Identifier(token.at, token.text)
        if token.kind == "field":
            return Field(token.at, (token.text[1:],))
        if token.kind == "variable":
            if token.text not in self._variables:
                self._fail(f"undefined variable {quoted(token.text)}")
            return Variable(token.at, (token.text,))
        if token.kind == "keyword" and token.text in (".", "nil"):
            return Dot(token.at) if token.text == "." else Nil(token.at)
        if token.kind in ("bool", "char", "number", "string", "raw"):
            return self._literal(token)
        if token.kind == "sign" and token.text == "(":
            return self._pipeline("parenthesized pipeline", ")")
        if token.kind not in ("end", "error"):
            self._at -= 1
        return None

    def _literal(self, token: Token) -> Literal:
        if token.kind == "bool":
            return Literal(token.at, "bool", token.text == "true", token.text)
        if token.kind == "number":
            return Literal(token.at, "number", self._number(token.text), token.text)
        if token.kind == "char":
            character = self._unquoted(token)
            if len(character) != 1:
                self._fail(f"malformed character constant: {token.text}")
            return Literal(token.at, "number", ord(character), token.text)
        return Literal(token.at, "string", self._unquoted(token), token.text)

    def _number(self, text: str) -> int | float:
        if text.endswith("i"):
            self._fail(f"complex constants are not supported: {text}")
        # As Go reads them: a leading 0 is octal, also without the o.
        digits = text.lstrip("+-")
        octal = len(digits) > 1 and digits[0] == "0" and digits[1:].strip("01234567_") == ""
        try:
            try:
                return int(text, 8 if octal else 0)
            except ValueError:
                return float.fromhex(text) if "x" in text.lower() else float(text)
        except (ValueError, OverflowError):
            self._fail(f"illegal number syntax: {quoted(text)}")

    def _unquoted(self, token: Token) -> str:
        if token.kind == "raw":
            return token.text[1:-1].replace("\r", "")
        try:
            return unquote(token.text)
        except ValueError:
            self._fail("invalid syntax" if token.kind == "string" else f"malformed character constant: {token.text}")


_ACTIONS: dict[str, Callable[[_Parser, Token], Any]] = {
    "block": _Parser._block,
    "break": _Parser._jump,
    "continue": _Parser._jump,
    "else": _Parser._else,
    "end": _Parser._end,
    "if": _Parser._branch,
    "range": _Parser._branch,
    "template": _Parser._template,
    "with": _Parser._branch,
}


def _tag(token: Token) -> str:
    return f"{{{{{token.text}}}}}"
