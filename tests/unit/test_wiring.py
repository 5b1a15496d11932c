"""What threads get that ask an engine for the same service at the same moment."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sampan.engine.config import Config
from sampan.engine.wiring import Wiring
from sampan.steps.trace import Trace


class Met(Wiring):
    """Makes its launcher when as many ask for one as the barrier waits for."""

    meeting = threading.Barrier(2, timeout=60)

    def _launcher(self) -> Any:
        self.meeting.wait()
        return super()._launcher()


def test_all_threads_get_the_launcher_that_was_made_first(tmp_path: Path) -> None:
    # Each had one of its own, with a line to the zygote of which nothing but the collector let go: parallel stages of a build.
    wiring = Met(Config(root=f"{tmp_path}/root", run_root=f"{tmp_path}/run"), Trace(None), print)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(lambda: wiring.launcher) for _ in range(2)]
        first, second = (one.result(60) for one in asked)
    assert first is second
    assert wiring.launcher is first
