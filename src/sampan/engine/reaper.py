"""Does what an exit leaves to do when nobody waits for it: what a shim executes in its own place at its end.

    python -I -S .../reaper.py VERSION ROOT RUN_ROOT ID INIT_PATH EVENTS_SIZE                        settle the exit
    python -I -S .../reaper.py VERSION ROOT RUN_ROOT ID INIT_PATH EVENTS_SIZE restart NUMBER FD      make the restart that start NUMBER's end made due

Executed by path, always the one beside the shim's own files; after an upgrade that is a newer one, which is what VERSION is
for. FD is the monitor's lock, which the shim still held and this process holds on: a POSIX record lock survives execve. It is -1
if the shim was killed, and a command has found its restart undone (`revive`). Nothing else of the caller is left: its directory
is /, its umask 022, it has no terminal and no environment but PATH.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = "1"
_RESTART = "restart"


def command(roots: tuple[str, str], container_id: str, init_path: str, events_size: int) -> tuple[str, ...]:
    """The command that settles an exit; a shim appends what `restart` needs."""
    return (*_interpreter(), VERSION, *roots, container_id, init_path, str(events_size))


_known: tuple[str, ...] = ()


def _interpreter() -> tuple[str, ...]:
    """The command up to what differs from one container to the other. Looked up once: links on the way are asked for one by one."""
    global _known
    if not _known:
        _known = (os.path.realpath(sys.executable), "-I", "-S", "-X", "utf8", os.path.abspath(__file__))
    return _known


def revive(settle: Sequence[str], number: int) -> None:
    """Have the restart after start `number` made by a process of its own, whose shim was killed before it came to that."""
    from sampan.runtime.launcher import start_apart

    start_apart([*settle, _RESTART, str(number), "-1"])


def main(
    version: str, root: str, run_root: str, container_id: str, init_path: str, events_size: str, *restart: str
) -> None:
    """Settle the container, or make its restart. Where that fails, the next command finds the same thing to do."""
    import sampan
    from sampan.engine.config import Config
    from sampan.kernel import process

    if version != VERSION:
        sys.exit(f"arguments of version {version}, this reaper reads {VERSION}")
    lock_fd = int(restart[2]) if restart else -1
    if restart and lock_fd < 0:
        if process.fork():
            os._exit(0)
        os.chdir("/")
        os.umask(0o022)
    try:
        # No configuration file: what matters of it is in the container's record, and in our arguments.
        config = Config(root=root, run_root=run_root, init_path=init_path, events_size=int(events_size))
        with sampan.Engine(config=config) as engine:
            container = engine.containers.get(container_id)
            if restart:
                container.carry_on(int(restart[1]), lock_fd)
            else:
                container.settle()
    except sampan.SampanError:
        sys.exit(1)


if __name__ == "__main__":
    # Executed as a file, its own directory is first on the path; the package is two levels up.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    main(*sys.argv[1:])
