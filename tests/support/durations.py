"""How long each test file takes: those that take longest begin first, so that none runs alone at the end while the others idle.

`durations.txt` beside this says in seconds how long a file's tests in `make test` take, and those marked `long`: roughly, for the
order is all that it is asked for. A file that is not in it is taken for a quick one. From reports of new runs (`--junitxml=REPORT`)
it is written anew by

    python -m support.durations make-test.xml make-test-long.xml
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

TABLE = Path(__file__).with_suffix(".txt")
# What takes less is as well begun anywhere.
WORTH_NAMING = 3


def read() -> dict[tuple[str, bool], float]:
    """Seconds by a file's path below `tests` and whether its tests are the long ones."""
    found: dict[tuple[str, bool], float] = {}
    for line in TABLE.read_text().splitlines():
        path, quick, long = line.split()
        found[path, False], found[path, True] = float(quick), float(long)
    return found


def of_report(report: Path) -> dict[str, float]:
    """Seconds by file, from a report in JUnit's form."""
    found: defaultdict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).iter("testcase"):
        # tests.unit.test_x, or tests.unit.test_x.TestClass
        words = case.get("classname", "").split(".")
        name = next((n for n, word in enumerate(words) if word.startswith("test_")), len(words) - 1)
        found["/".join(words[1 : name + 1]) + ".py"] += float(case.get("time", 0))
    return found


def table(quick: dict[str, float], long: dict[str, float]) -> Iterable[str]:
    for path in sorted({*quick, *long}):
        seconds = quick.get(path, 0.0), long.get(path, 0.0)
        if max(seconds) >= WORTH_NAMING:
            yield f"{path} {seconds[0]:.0f} {seconds[1]:.0f}\n"


if __name__ == "__main__":
    TABLE.write_text("".join(table(of_report(Path(sys.argv[1])), of_report(Path(sys.argv[2])))))
