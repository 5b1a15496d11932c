"""The list of what a keeper imports: memory of each network, and time until the first name is answered."""

from __future__ import annotations

from pathlib import Path

from support.imports import imported_by_script, unapproved

KEEPER = Path(__file__).parents[2] / "src/sampan/network/__main__.py"


def test_a_keeper_imports_what_is_approved() -> None:
    # Without arguments it ends at once; by then it has imported all it ever will.
    found = imported_by_script(KEEPER)
    assert "sampan.network.keeper" in found
    assert unapproved(found, "keeper") == []
