"""What the documents name is there: files, links, make targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])


def names(document: Path) -> str:
    return str(document.relative_to(PROJECT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", document.read_text())
    assert [t for t in targets if "://" not in t and not (document.parent / t).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_files_of_the_source_are_there(document: Path) -> None:
    named = re.findall(r"`((?:[\w.]+/)*\w+\.py)`", document.read_text())
    places = (PROJECT, PROJECT / "src", PROJECT / "src/sampan")
    known = {path.name for path in PROJECT.glob("src/**/*.py")}  # a page that is in a room already names the file alone
    assert [n for n in named if n not in known and not any((p / n).exists() for p in places)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_make_targets_are_there(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", document.read_text()))
    assert named <= targets


def test_the_principles_fit_on_a_page() -> None:
    assert len((PROJECT / "PRINCIPLES.md").read_text().splitlines()) < 20
