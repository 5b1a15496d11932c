"""Listings: tables as Docker aligns them, JSON, and templates with and without headings."""

from __future__ import annotations

import pytest

from sampan.cli.listing import Labels, labels_text, show
from sampan.cli.output import Failure

COLUMNS = {"ID": "CONTAINER ID", "Names": "NAMES", "Labels": "LABELS", "Size": "SIZE"}
TABLE = "table {{.ID}}\t{{.Names}}\t{{.Size}}"
LABELS = {"a.b": "c", "x-y_z": "<1 & 2>"}
ITEMS = (
    {
        "ID": "0123456789ab",
        "Names": "one",
        "Size": lambda: "0B",
        "Labels": labels_text(LABELS),
        "Label": Labels(LABELS),
    },
    {"ID": "abcdef012345", "Names": "a-longer-one", "Size": "1MB", "Labels": "", "Label": Labels(None)},
)

# As docker 28.2 prints them.
EXPECTED = {
    "": "CONTAINER ID   NAMES          SIZE\n0123456789ab   one            0B\nabcdef012345   a-longer-one   1MB\n",
    "table {{.Names}}": "NAMES\none\na-longer-one\n",
    'table {{.Names}}\\t{{.Label "x-y_z"}}\\t{{.Label "a.b"}}\\t{{upper .Size}}\\t{{len .ID}}': (
        "NAMES          x y z     b         SIZE      12\n"
        "one            <1 & 2>   c         0B        12\n"
        "a-longer-one                       1MB       12\n"
    ),
    "table a{{.ID}}b\\t|{{.Names}}|\\tq": (
        "aCONTAINER IDb   |NAMES|          q\na0123456789abb   |one|            q\naabcdef012345b   |a-longer-one|   q\n"
    ),
    "table ": "\n\n\n",
    " ": "\n\n",
    "{{.Names}}\\t{{.Size}}": "one\t0B\na-longer-one\t1MB\n",
    "json": (
        '{"ID":"0123456789ab","Labels":"a.b=c,x-y_z=\\u003c1 \\u0026 2\\u003e","Names":"one","Size":"0B"}\n'
        '{"ID":"abcdef012345","Labels":"","Names":"a-longer-one","Size":"1MB"}\n'
    ),
    "{{json .Labels}}": '"a.b=c,x-y_z=<1 & 2>"\n""\n',
    '{{.Label "a.b"}}': "c\n\n",
}


@pytest.mark.parametrize("template", EXPECTED, ids=range(len(EXPECTED)))
def test_a_listing_is_printed_as_docker_does(template: str, capfd: pytest.CaptureFixture[str]) -> None:
    show(ITEMS, COLUMNS, TABLE, template)
    assert capfd.readouterr().out == EXPECTED[template]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{foo}}", 'template parsing error: template: :1: function "foo" not defined'),
        (
            "{{.Foo}}",
            'template parsing error: template: :1:2: executing "" at <.Foo>: '
            "can't evaluate field Foo in type *formatter.Context",
        ),
        (
            "table {{.ID}}\t{{.Label}}",
            'template parsing error: template: :1:10: executing "" at <.Label>: wrong number of args for Label: want 1 got 0',
        ),
    ],
)
def test_what_is_not_known_is_told_and_nothing_printed(
    template: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Failure) as e:
        show(ITEMS, COLUMNS, TABLE, template)
    assert str(e.value) == message
    assert capfd.readouterr().out == ""


def test_a_column_goes_on_only_as_long_as_lines_have_it(capfd: pytest.CaptureFixture[str]) -> None:
    items = [{"ID": "a", "Names": "x\ty\n" + "wide" * 5}, {"ID": "b", "Names": "z"}]
    show(items, COLUMNS, "table {{.ID}}\t{{.Names}}")
    first, second, third, last = capfd.readouterr().out.splitlines()
    assert (first, second) == ("CONTAINER ID   NAMES", "a              x         y")
    assert (third, last) == ("wide" * 5, "b         z")
