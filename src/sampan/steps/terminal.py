"""The steps of a terminal, which a monitor takes itself: a devpts of the container's own, and ptys from it.

Apart from the other mounts, which only the children of a start need: a monitor keeps what it imports for life.
"""

from __future__ import annotations

from sampan.kernel import mount, tty
from sampan.steps.base import Context, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def options_text(options: Any, attributes: int) -> str:
    words = [f"{k}={v}" if v else str(k) for k, v in options]
    for bit, word in ((1, "ro"), (2, "nosuid"), (4, "nodev"), (8, "noexec"), (0x10, "noatime"), (0x20, "strictatime")):
        if attributes & bit:
            words.append(word)
    return f" ({','.join(words)})" if words else ""


class BuildFilesystem(Step):
    """Make a new file system as a detached mount, kept as `name` (a devpts, whose pty the monitor needs)."""

    name: str
    fstype: str
    options: tuple[tuple[str, str], ...] = ()
    attributes: int = 0

    def describe(self) -> str:
        return f"fsopen and fsmount {self.fstype}{options_text(self.options, self.attributes)}"

    def run(self, ctx: Context) -> None:
        ctx.put(self.name, mount.new_filesystem(self.fstype, [(k, v) for k, v in self.options], self.attributes))


class OpenTerminal(Step):
    """Open a pty pair of the container's own devpts: kept as `terminal` (master) and `console` (peer)."""

    devpts: str
    rows: int = 0
    columns: int = 0

    def describe(self) -> str:
        return "open ptmx of the container's devpts, TIOCGPTPEER"

    def run(self, ctx: Context) -> None:
        master, peer = tty.open_pair(ctx.fds[self.devpts])
        ctx.put("terminal", master)
        ctx.put("console", peer)
        if self.rows or self.columns:
            tty.set_size(master, self.rows, self.columns)
