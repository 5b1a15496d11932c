"""The house keeps its rules, and the reader that says so can be shown to see each rule broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import architecture
from support.architecture import House

SRC = Path(__file__).parents[2] / "src"
HEAD = '"""Doc."""\n\nfrom __future__ import annotations\n\n'


@pytest.fixture(scope="module")
def house() -> House:
    return House.read(SRC)


def rules(files: dict[str, str]) -> list[str]:
    return [p.rule for p in House({path: HEAD + text for path, text in files.items()}).problems()]


def test_the_house_keeps_its_rules(house: House) -> None:
    assert len(house.modules) > 10
    assert not (problems := house.problems()), "\n" + "\n".join(map(str, problems))


def test_the_lists_of_exceptions_name_modules_that_are_there(house: House) -> None:
    listed = {*architecture.COLD, *architecture.SPAWNERS, *architecture.SCRIPTS, *architecture.PROCESS_MODULE_USERS}
    assert sorted(listed - set(house.modules)) == []


@pytest.mark.parametrize(
    ("path", "text", "rule"),
    [
        ("sampan/kernel/a.py", "from sampan.oci import digest\n", "downward"),
        ("sampan/kernel/a.py", "import sampan.store.layout\n", "downward"),
        ("sampan/errors.py", "from sampan.structs import Struct\n", "downward"),
        ("sampan/oci/a.py", "from sampan.steps.trace import Trace\n", "downward"),
        ("sampan/steps/a.py", "from sampan.oci import digest\n", "downward"),
        ("sampan/store/a.py", "from sampan.runtime import plan\n", "downward"),
        ("sampan/store/a.py", "def f():\n    from ..runtime import plan\n", "downward"),
        ("sampan/store/a.py", "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from sampan.engine.start import S\n", "downward"),
        ("sampan/runtime/a.py", "__import__('sampan.engine.start')\n", "downward"),
        ("sampan/__init__.py", "from sampan.engine.engine import Engine\n", "downward"),
        ("sampan/cli/a.py", "from sampan.kernel import tty\n", "faces"),
        ("sampan/cli/a.py", "def f():\n    from sampan.store.records import Records\n", "faces"),
        ("sampan/cli/a.py", "from sampan.shim.protocol import LaunchPlan\n", "faces"),
        ("sampan/runtime/a.py", "from sampan.shim import monitor\n", "shim"),
        ("sampan/runtime/a.py", "from sampan.shim.stage2 import main\n", "shim"),
        ("sampan/engine/start.py", "from sampan.engine.engine import Engine\n", "engine"),
        ("sampan/engine/start.py", "if TYPE_CHECKING:\n    from sampan.engine.engine import Engine\n", "engine"),
        ("sampan/shim/a.py", "import os\nos.fork()\n", "fork"),
        ("sampan/engine/a.py", "from os import fork\n", "fork"),
        ("sampan/engine/a.py", "import os\nos.posix_spawn('/bin/true', [], {})\n", "fork"),
        ("sampan/runtime/launcher.py", "import os\nos.system('true')\n", "fork"),
        ("sampan/store/a.py", "def f():\n    import subprocess\n", "fork"),
        ("sampan/shim/a.py", "libc.clone3()\n", "fork"),
        ("sampan/shim/a.py", "import ctypes\n", "libc"),
        ("sampan/kernel/a.py", "def f():\n    from _ctypes import dlopen\n", "libc"),
        ("sampan/kernel/a.py", "from sampan.kernel import libc\nlibc.fork_by(435)\n", "fork"),
        ("sampan/shim/a.py", "def f():\n    import threading\n", "threads"),
        ("sampan/engine/a.py", "import re\n", "heavy"),
        ("sampan/engine/a.py", "from collections.abc import Iterator\n", "heavy"),
        ("sampan/engine/a.py", "try:\n    import typing\nexcept ImportError:\n    pass\n", "heavy"),
        ("sampan/engine/a.py", "class A:\n    import typing\n", "heavy"),
        ("sampan/shim/a.py", "import json\n", "heavy"),
        ("sampan/store/a.py", "print('x')\n", "print"),
        ("sampan/attic/a.py", "x = 1\n", "room"),
        ("sampan/store/a.py", "x = 1\n" * 600, "length"),
        ("sampan/engine/engine.py", "x = 1\n" * 150, "engine-length"),
        ("sampan/shim/__main__.py", "x = 1\n" * 10, "script"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_seen(path: str, text: str, rule: str) -> None:
    known = {
        f"sampan/{p}.py": ""
        for p in ["oci/digest", "shim/protocol", "shim/monitor", "kernel/tty", "runtime/plan", "engine/engine"]
    }
    assert rules({**known, path: text}) == [rule]


def test_a_module_without_docstring_or_future_import_is_seen() -> None:
    assert [p.rule for p in House({"sampan/store/a.py": "x = 1\n"}).problems()] == ["docstring", "future"]


def test_a_circle_is_seen_also_through_functions() -> None:
    files = {
        "sampan/store/a.py": "from sampan.store import b\n",
        "sampan/store/b.py": "from sampan.store.c import C\n",
        "sampan/store/c.py": "def f():\n    import sampan.store.a\n",
    }
    assert rules(files) == ["cycle"]
    assert rules({**files, "sampan/store/c.py": "if TYPE_CHECKING:\n    import sampan.store.a\n"}) == []


def test_a_cold_module_may_be_heavy_and_is_imported_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(architecture.COLD, "sampan.store.cold", "for this test")
    cold = {"sampan/store/cold.py": "import re\n"}
    assert rules({**cold, "sampan/store/a.py": "from sampan.store import cold\n"}) == ["cold"]
    assert rules({**cold, "sampan/store/a.py": "def f():\n    from sampan.store.cold import x\n"}) == []


def test_what_is_allowed_is_not_reported() -> None:
    files = {
        "sampan/__init__.py": "if TYPE_CHECKING:\n    from sampan.engine.engine import Engine\n",
        "sampan/kernel/process.py": "import os\nos.fork()\nlibc.clone3()\n",
        "sampan/runtime/launcher.py": "import os\nos.posix_spawn('/bin/true', [], {})\nfrom sampan.shim.protocol import P\n",
        "sampan/shim/protocol.py": "from sampan.kernel.process import clone3\nclone3()\n",
        "sampan/store/a.py": "from sampan import jsontext\nfrom sampan.errors import NotFound\nif TYPE_CHECKING:\n    import re\n",
        "sampan/cli/a.py": "from sampan import __version__\nfrom sampan.engine.engine import Engine\nprint(1)\n",
        "sampan/engine/engine.py": "",
    }
    assert rules(files) == []


def test_a_problem_says_where_and_which_rule() -> None:
    (problem,) = House({"sampan/kernel/a.py": HEAD + "from sampan.store import x\n"}).problems()
    assert str(problem) == (
        "sampan/kernel/a.py:5: sampan.kernel.a imports sampan.store "
        "(rule 1: imports point downward, and siblings in one layer do not import each other)"
    )
