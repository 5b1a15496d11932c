"""Listings as Docker prints them: a table, a line of JSON each, or what --format says.

A plain table costs nothing but this module: the template engine is imported for templates only.
"""

from __future__ import annotations

from sampan.cli.output import Failure, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sampan.gotemplate.template import Template

    Item = Mapping[str, object]
    """A line: Docker's field -> value, or what makes it when it is asked for."""

_DIGITS = frozenset("0123456789")
LEAST, GAP = 10, 3
"""The width of a column: ten at the least, and three spaces behind its widest cell."""


class Labels:
    """The value of an item's "Label": the method that `{{.Label "name"}}` calls."""

    def __init__(self, labels: Mapping[str, str] | None) -> None:
        self._labels = labels or {}

    def __call__(self, name: str) -> str:
        return self._labels.get(name, "")


def labels_text(labels: Mapping[str, str] | None) -> str:
    """The value of an item's "Labels": all of them by name, as Docker writes them."""
    return ",".join(f"{name}={value}" for name, value in sorted((labels or {}).items()))


def natural(name: str) -> list[tuple[int, ...]]:
    """A key by which "v9" comes before "v10": numbers by their value, fewer zeros before more, digits before the rest."""
    key: list[tuple[int, ...]] = []
    digits = ""
    for character in f"{name}\0":
        if character in _DIGITS:
            digits += character
            continue
        if digits:
            key.append((0, int(digits), len(digits)))
            digits = ""
        key.append((1, ord(character)))
    # Without the end mark: a name comes before those that it begins.
    return key[:-1]


def show(
    items: Sequence[Item],
    columns: Mapping[str, str],
    table: str,
    template: str = "",
    type: str = "formatter.Context",
    raw: str = "",
) -> None:
    """Print a listing; the parameters are those of `render`. Raises Failure; nothing is printed then."""
    write(1, render(items, columns, table, template, type, raw).encode("utf-8", "surrogateescape"))


def render(
    items: Sequence[Item],
    columns: Mapping[str, str],
    table: str,
    template: str = "",
    type: str = "formatter.Context",
    raw: str = "",
) -> str:
    """The lines of a listing.

    columns: Docker's field -> heading ("ID": "CONTAINER ID"). table: what is printed without --format:
    "table {{.ID}}\\t{{.Image}}". template: what --format gave; "" and "table" are the default, "json" is a line of JSON
    for each, "table X" is X with headings. type: what Docker calls an item in messages. raw: the template behind the name "raw",
    if the listing has one. Raises Failure.
    """
    if template in ("", "table"):
        template = table
    elif template == "raw" and raw:
        template = raw
    fields = _plain_fields(template)
    if fields is not None and all(field in columns for field in fields):
        lines = [[columns[field] for field in fields], *([_cell(item, field) for field in fields] for item in items)]
        return aligned("".join("\t".join(line) + "\n" for line in lines))
    return _formatted(items, columns, template, type)


def _plain_fields(template: str) -> list[str] | None:
    """The fields of a table that has nothing but fields, one in a column."""
    if not template.startswith("table {{."):
        return None
    cells = template[len("table ") :].replace("\\t", "\t").split("\t")
    if not all(c.startswith("{{.") and c.endswith("}}") and c[3:-2].isalnum() and c.isascii() for c in cells):
        return None
    return [cell[3:-2] for cell in cells]


def _cell(item: Item, field: str) -> str:
    value = item[field]
    return str(value() if callable(value) else value)


def _formatted(items: Sequence[Item], columns: Mapping[str, str], format: str, type: str) -> str:
    from sampan.gotemplate.template import TemplateError, parse
    from sampan.gotemplate.values import Method, Row

    is_table = format.startswith("table")
    text = "{{json .}}" if format == "json" else format[len("table") :] if is_table else format
    text = text.strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    try:
        parsed = parse(text)
    except TemplateError as e:
        raise Failure(f"template parsing error: {e}") from None
    try:
        lines = [parsed.execute(Row(type.removeprefix("*"), _fields(item, Method), pointer=True)) for item in items]
        if is_table:
            return aligned("".join(f"{line}\n" for line in (_headings(parsed, columns), *lines)))
    except TemplateError as e:
        raise Failure(f"template parsing error: {e}") from None
    return "".join(f"{line}\n" for line in lines)


def _fields(item: Item, method: Callable[..., object]) -> dict[str, object]:
    return {
        name: method(value, int(isinstance(value, Labels))) if callable(value) else value
        for name, value in item.items()
    }


def _headings(template: Template, columns: Mapping[str, str]) -> str:
    """The template once more, over the headings: a label's is the last part of its name."""
    from sampan.gotemplate.functions import HEADING_FUNCTIONS
    from sampan.gotemplate.values import Headings, Method

    headings = Headings(columns)
    headings.methods = {"Label": Method(lambda name: name.split(".")[-1].replace("-", " ").replace("_", " "), 1)}
    return template.execute(headings, HEADING_FUNCTIONS)


def aligned(text: str, least: int = LEAST) -> str:
    """Go's text/tabwriter as Docker sets it: a cell ends at a tab; a column goes on as long as lines have a cell in it."""
    lines = [line.split("\t") for line in text.split("\n")]
    _align(lines, 0, len(lines), 0, least)
    return "\n".join("".join(line) for line in lines)


def _align(lines: list[list[str]], begin: int, end: int, column: int, least: int) -> None:
    """Pad the cells of a column, and of those to its right, in each run of lines that have it."""
    at = begin
    while at < end:
        if len(lines[at]) - 1 <= column:
            at += 1
            continue
        stop = at
        while stop < end and len(lines[stop]) - 1 > column:
            stop += 1
        width = max(least, GAP + max(len(line[column]) for line in lines[at:stop]))
        for line in lines[at:stop]:
            line[column] = line[column].ljust(width)
        _align(lines, at, stop, column + 1, least)
        at = stop
