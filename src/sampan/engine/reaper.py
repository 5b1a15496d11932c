"""Settles one exit: what a shim executes in its own place at its end when nobody else waited for its container.

Executed by path (`python -I -S .../reaper.py ROOT RUN_ROOT ID`), always the one beside the shim's own files.
"""

from __future__ import annotations

import os
import sys


def main(root: str, run_root: str, container_id: str) -> None:
    """Settle the container. Where that fails, the next command finds the same thing to do."""
    import sampan
    from sampan.engine.config import Config

    try:
        # No configuration file: what matters of it is in the container's record.
        with sampan.Engine(config=Config(root=root, run_root=run_root)) as engine:
            engine.containers.get(container_id).settle()
    except sampan.SampanError:
        sys.exit(1)


if __name__ == "__main__":
    # Executed as a file, its own directory is first on the path; the package is two levels up.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    main(*sys.argv[1:])
