"""The list of what a shim imports: each line is time in every start and memory in every container."""

from __future__ import annotations

from pathlib import Path

from support.imports import imported, imported_by_script, unapproved

SHIM = Path(__file__).parents[2] / "src/sampan/shim/__main__.py"


def test_a_shim_imports_what_is_approved() -> None:
    # It ends at once, for nobody gave it a socket; by then it has imported all it ever will.
    found = imported_by_script(SHIM)
    assert "sampan.shim.monitor" in found
    assert unapproved(found, "shim") == []


def test_a_module_that_is_not_approved_is_seen() -> None:
    assert "logging" in unapproved(imported(["-I", "-S", "-c", "import logging"]), "shim")
