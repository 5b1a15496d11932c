"""`python -m sampan`: the command line, where its script is not on the path."""

from __future__ import annotations

from sampan.cli.main import main

main()
