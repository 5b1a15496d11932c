"""Templates over a container's document: what `docker inspect -f` (28.2) printed for each, tests/golden/templates.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sampan.cli import inspect
from sampan.cli.output import Failure
from sampan.gotemplate.template import TemplateError, render

from support.imports import GOLDEN

EXPECTED = json.loads((GOLDEN / "templates.json").read_text())


def printed(template: str, document: dict[str, Any]) -> tuple[int, str, str]:
    try:
        writer = inspect._Formatted(template)
    except Failure as e:
        return e.code, "", f"{e}\n"
    try:
        writer.add(inspect._CONTAINER, document)
    except inspect.TemplateProblem as e:
        return 1, writer.content().decode(), f"{e}\n"
    return 0, writer.content().decode(), ""


@pytest.mark.parametrize("case", EXPECTED["cases"], ids=lambda case: case["template"][:30])
def test_a_template_prints_what_docker_printed(case: dict[str, Any]) -> None:
    assert printed(case["template"], EXPECTED["document"]) == (case["code"], case["out"], case["err"])


@pytest.mark.thorough
@pytest.mark.parametrize(
    "template",
    [
        '{{define "x"}}{{template "x"}}{{end}}{{template "x"}}',
        "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
        "{{if 1}}" * 5000 + "{{end}}" * 5000,
    ],
    ids=["recursion", "parentheses", "nesting"],
)
def test_what_is_nested_without_end_is_refused(template: str) -> None:
    with pytest.raises(TemplateError, match="depth"):
        render(template, {})


def test_text_of_a_label_is_not_changed() -> None:
    assert render("{{.L}}", {"L": "\x1b[31m\udcff"}) == "\x1b[31m\udcff"
