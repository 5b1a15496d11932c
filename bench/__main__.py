"""`python -m bench [start|many|import|commit|archives|probe]...`: all of them without a name."""

from __future__ import annotations

import sys

from bench import archives, commit, import_, many, probe, start

ALL = {
    "start": start.main,
    "many": many.main,
    "import": import_.main,
    "commit": commit.main,
    "archives": archives.main,
    "probe": probe.main,
}

for name in sys.argv[1:] or ALL:
    ALL[name]()
