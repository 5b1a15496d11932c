"""What templates can call: Go's own functions (https://pkg.go.dev/text/template, "Functions") and Docker's.

Each raises `FunctionError` with Go's text. Texts are indexed, cut and counted by bytes, as in Go. `and` and `or` are the
evaluator's, for they do not evaluate all of their arguments.
"""

from __future__ import annotations

from sampan.gotemplate import printing
from sampan.gotemplate.values import (
    MISSING,
    Map,
    Method,
    Nil,
    Object,
    Row,
    Slice,
    is_nil,
    items_sorted,
    truth,
    type_name,
)
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class FunctionError(Exception):
    """A function cannot do what it is asked."""


class Function(Struct):
    """parameters: the Go types of the arguments, "any" for interface {}; variadic: the last one may be there any number of times."""

    call: Callable[..., object]
    parameters: tuple[str, ...]
    variadic: bool = False


# JSON


def json(value: object) -> str:
    """JSON as Docker's function writes it: on one line, maps by key, structs in the order of their fields."""
    return _json(value, html=False)


def _json(value: object, html: bool) -> str:
    if isinstance(value, Row):
        fields = {name: f.call() if isinstance(f, Method) else f for name, f in value.fields.items() if not _takes(f)}
        return _json(Map(fields), html=True)
    if isinstance(value, Object):
        return _json_object(value, html)
    if is_nil(value):
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _json_float(value)
    if isinstance(value, str):
        return _json_text(value, html)
    if isinstance(value, dict):
        pairs = ((_json_text(str(key), html), _json(v, html)) for key, v in items_sorted(value))
        return "{" + ",".join(f"{key}:{text}" for key, text in pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_json(element, html) for element in value) + "]"
    raise FunctionError(f"json: unsupported type: {type_name(value)}")


def _takes(field: object) -> bool:
    return isinstance(field, Method) and field.parameters > 0


def _json_object(value: Object, html: bool) -> str:
    pairs = []
    for name, field in value.fields.items():
        key = value.keys.get(name, name)
        if not key or isinstance(field, Method) or (name in value.omitted and not truth(field)):
            continue
        pairs.append(f"{_json_text(key, html)}:{_json(field, html)}")
    return "{" + ",".join(pairs) + "}"


def _json_float(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        raise FunctionError(f"json: unsupported value: {printing.float_text(value)}")
    return printing.float_text(value, plain=range(-6, 21)).replace("e-0", "e-")


_JSON_ESCAPES = {chr(code): f"\\u{code:04x}" for code in (*range(0x20), 0x2028, 0x2029)} | {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_HTML_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def _json_text(text: str, html: bool) -> str:
    escapes = _JSON_ESCAPES | _HTML_ESCAPES if html else _JSON_ESCAPES
    return '"' + "".join(escapes.get(c) or ("\\ufffd" if 0xD800 <= ord(c) < 0xE000 else c) for c in text) + '"'


# Docker's own


def split(text: str, separator: str) -> Slice:
    """The parts of a text; without a separator its characters."""
    return strings(text.split(separator) if separator else list(text))


def strings(texts: Sequence[str]) -> Slice:
    """A []string."""
    result = Slice(texts)
    result.go_type = "[]string"
    return result


def join(texts: Sequence[str], separator: str) -> str:
    return separator.join(texts)


def title(text: str) -> str:
    """Every letter that begins a word in upper case; the others stay as they are."""
    parts, inside = [], False
    for character in text:
        parts.append(character if inside else character.title())
        inside = character.isalnum() or character in "_'’"
    return "".join(parts)


def pad(text: str, before: int, after: int) -> str:
    if not text:
        return ""
    if before < 0 or after < 0:
        raise FunctionError("strings: negative Repeat count")
    return " " * before + text + " " * after


def truncate(text: str, length: int) -> str:
    if length < 0:
        raise FunctionError(f"runtime error: slice bounds out of range [:{length}]")
    data = _bytes(text)
    return text if len(data) < length else _text(data[:length])


# Go's own


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def len_(item: object) -> int:
    if isinstance(item, str):
        return len(_bytes(item))
    if isinstance(item, (list, tuple, dict)):
        return len(item)
    if isinstance(item, Nil):
        if item.is_pointer:
            raise FunctionError("len of nil pointer")
        return 0
    if is_nil(item):
        raise FunctionError("len of nil pointer")
    raise FunctionError(f"len of type {type_name(item).removeprefix('*')}")


def index(item: object, *keys: object) -> object:
    """item[key][key]..."""
    if is_nil(item) and not isinstance(item, Nil):
        raise FunctionError("index of untyped nil")
    for key in keys:
        item = _indexed(item, key)
    return item


def _indexed(item: object, key: object) -> object:
    if isinstance(item, Nil) and item.is_pointer:
        raise FunctionError("index of nil pointer")
    kind = type_name(item)
    if isinstance(item, dict) or (isinstance(item, Nil) and kind.startswith("map[")):
        if key is None or not isinstance(key, str):
            if is_nil(key):
                raise FunctionError("value is nil; should be of type string")
            raise FunctionError(f"value has type {type_name(key)}; should be string")
        element = kind.removeprefix("map[string]")
        return item[key] if isinstance(item, dict) and key in item else _zero(element)
    if isinstance(item, (str, list, tuple, Nil)):
        elements: Sequence[object] = _bytes(item) if isinstance(item, str) else () if isinstance(item, Nil) else item
        return elements[_index_of(key, len(elements) - 1)]
    if is_nil(item):
        raise FunctionError("index of untyped nil")
    raise FunctionError(f"can't index item of type {kind.removeprefix('*')}")


def _zero(type: str) -> object:
    """The zero value of a type, which a map gives for a key that it has not."""
    if type == "interface {}":
        return None
    if type == "string":
        return ""
    if type == "bool":
        return False
    if type.startswith(("*", "[]", "map[")):
        return Nil(type)
    return 0 if type in ("int", "int64", "uint64", "uint16") else Object(type, {})


def _index_of(key: object, largest: int) -> int:
    """A key as a whole number of 0 to `largest`."""
    if is_nil(key):
        raise FunctionError("cannot index slice/array with nil")
    if not isinstance(key, int) or isinstance(key, bool):
        raise FunctionError(f"cannot index slice/array with type {type_name(key)}")
    if not 0 <= key <= largest:
        raise FunctionError(f"index out of range: {int(key)}")
    return int(key)


def slice_(item: object, *keys: object) -> object:
    """item[a:b:c]"""
    if is_nil(item) and not isinstance(item, Nil):
        raise FunctionError("slice of untyped nil")
    if len(keys) > 3:
        raise FunctionError(f"too many slice indexes: {len(keys)}")
    if not isinstance(item, (str, list, tuple)) and not (isinstance(item, Nil) and item.type.startswith("[]")):
        raise FunctionError(f"can't slice item of type {type_name(item)}")
    if isinstance(item, str) and len(keys) == 3:
        raise FunctionError("cannot 3-index slice a string")
    elements: Any = _bytes(item) if isinstance(item, str) else [] if isinstance(item, Nil) else item
    bounds = [0, len(elements), len(elements)]
    for i, key in enumerate(keys):
        bounds[i] = _index_of(key, len(elements))
    for low, high in ((0, 1), (1, 2)):
        if bounds[low] > bounds[high] and (high == 1 or len(keys) == 3):
            raise FunctionError(f"invalid slice index: {bounds[low]} > {bounds[high]}")
    part = elements[bounds[0] : bounds[1]]
    if isinstance(item, str):
        return _text(part)
    result = Slice(part)
    result.go_type = type_name(item)
    return result


def not_(value: object) -> bool:
    return not truth(value)


def call(function: object, *_: object) -> object:
    """Call a function that is a value: no value here is one."""
    if is_nil(function):
        raise FunctionError("call of nil")
    raise FunctionError(f"non-function of type {type_name(function)}")


_KINDS: tuple[tuple[type, str], ...] = ((bool, "bool"), (int, "int"), (float, "float"), (str, "string"))


def _kind(value: object) -> str:
    for kind, name in _KINDS:
        if isinstance(value, kind):
            return name
    return ""


def eq(first: object, *others: object) -> bool:
    """Whether the first is equal to any of the others."""
    if not others:
        raise FunctionError("missing argument for comparison")
    return any(_equal(first, other) for other in others)


def _equal(first: object, other: object) -> bool:
    kinds = _kind(first), _kind(other)
    if kinds[0] != kinds[1]:
        if any(value is None or value is MISSING for value in (first, other)):
            return False
        raise FunctionError("incompatible types for comparison")
    if kinds[0]:
        return first == other
    if is_nil(first) or is_nil(other):
        return is_nil(first) and is_nil(other)
    if isinstance(other, (dict, list, tuple)):
        raise FunctionError(f"non-comparable type {printing.text_of(other)}: {type_name(other)}")
    return first is other


def ne(first: object, other: object) -> bool:
    return not eq(first, other)


def lt(first: Any, other: Any) -> bool:
    kind = _kind(first)
    if kind != _kind(other):
        raise FunctionError("incompatible types for comparison")
    if kind in ("", "bool"):
        raise FunctionError("invalid type for comparison")
    if kind == "string":
        return _bytes(first) < _bytes(other)
    return bool(first < other)


def le(first: object, other: object) -> bool:
    return lt(first, other) or eq(first, other)


def _one_text(values: Sequence[object]) -> str:
    return values[0] if len(values) == 1 and isinstance(values[0], str) else printing.sprint(values)


_HTML = {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}


def html(*values: object) -> str:
    return "".join(_HTML.get(c, c) for c in _one_text(values))


def js(*values: object) -> str:
    return "".join(_js(c) for c in _one_text(values))


def _js(character: str) -> str:
    if character in "\\'\"":
        return "\\" + character
    return f"\\u{ord(character):04X}" if character in "<>&=" or not character.isprintable() else character


_URL_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")


def urlquery(*values: object) -> str:
    data = _bytes(_one_text(values))
    return "".join(chr(b) if b in _URL_SAFE else "+" if b == 0x20 else f"%{b:02X}" for b in data)


FUNCTIONS = {
    "and": Function(truth, ("any", "any"), variadic=True),
    "or": Function(truth, ("any", "any"), variadic=True),
    "not": Function(not_, ("any",)),
    "call": Function(call, ("any", "any"), variadic=True),
    "eq": Function(eq, ("any", "any"), variadic=True),
    "ne": Function(ne, ("any", "any")),
    "lt": Function(lt, ("any", "any")),
    "le": Function(le, ("any", "any")),
    "gt": Function(lambda first, other: not le(first, other), ("any", "any")),
    "ge": Function(lambda first, other: not lt(first, other), ("any", "any")),
    "len": Function(len_, ("any",)),
    "index": Function(index, ("any", "any"), variadic=True),
    "slice": Function(slice_, ("any", "any"), variadic=True),
    "print": Function(lambda *values: printing.sprint(values), ("any",), variadic=True),
    "println": Function(lambda *values: printing.sprintln(values), ("any",), variadic=True),
    "printf": Function(lambda format, *v: printing.sprintf(format, v), ("string", "any"), variadic=True),
    "html": Function(html, ("any",), variadic=True),
    "js": Function(js, ("any",), variadic=True),
    "urlquery": Function(urlquery, ("any",), variadic=True),
    "json": Function(json, ("any",)),
    "split": Function(split, ("string", "string")),
    "join": Function(join, ("[]string", "string")),
    "title": Function(title, ("string",)),
    "lower": Function(str.lower, ("string",)),
    "upper": Function(str.upper, ("string",)),
    "pad": Function(pad, ("string", "int", "int")),
    "truncate": Function(truncate, ("string", "int")),
}

# What Docker calls instead when it makes a table's heading of the same template: columns' headings stay as they are.
HEADING_FUNCTIONS = {
    **FUNCTIONS,
    "json": Function(str, ("string",)),
    "title": Function(str, ("string",)),
    "lower": Function(str, ("string",)),
    "upper": Function(str, ("string",)),
    "truncate": Function(lambda text, _length: text, ("string", "int")),
}
