"""Steps whose descriptor goes to somebody else: a terminal's master, a seccomp filter's listener.

Not by the container's name for it: /dev/ptmx of an image may be anything. The devpts is looked for where it was mounted, and is
one by its number in the kernel; the peer is opened through the master.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

from sampan import jsontext
from sampan.kernel import mount, paths, tty
from sampan.kernel.libc import KernelError
from sampan.steps.base import Context, Step, StepError


class OpenConsole(Step):
    """Open a pty pair of the container's own devpts, keep the peer as `console`, send the master over the socket `name`."""

    name: str
    rows: int = 0
    columns: int = 0

    def describe(self) -> str:
        return "open ptmx of the container's devpts, TIOCGPTPEER, send the master to the console socket"

    def run(self, ctx: Context) -> None:
        devpts = _open_devpts(ctx)
        try:
            master, peer = tty.open_pair(devpts)
        finally:
            os.close(devpts)
        ctx.put("console", peer)
        try:
            if self.rows or self.columns:
                tty.set_size(master, self.rows, self.columns)
            # The terminal's name with it, as receivers expect.
            _send(ctx.fds.pop(self.name), master, b"/dev/ptmx")
        finally:
            os.close(master)


class SendListener(Step):
    """Send the listener of the filter that was loaded over the socket `name`, with the container process state.

    text: that state (config-linux.md, "The container process state"), without the pids.
    """

    final = True
    name: str
    text: str

    def describe(self) -> str:
        return "send the seccomp listener to its agent"

    def run(self, ctx: Context) -> None:
        state = jsontext.loads(self.text)
        state["pid"] = ctx.host_pid
        if "state" in state and not state["state"].get("pid"):
            state["state"]["pid"] = ctx.host_pid
        _send(ctx.fds.pop(self.name), ctx.fds["seccomp"], jsontext.dumps(state))
        ctx.close("seccomp")


def _open_devpts(ctx: Context) -> int:
    try:
        fd = paths.open_in_root(ctx.root(), "/dev/pts", os.O_RDONLY | os.O_DIRECTORY)
    except KernelError as e:
        raise StepError(f"a terminal needs a devpts at /dev/pts: {os.strerror(e.errno or 0).lower()}") from None
    if mount.filesystem_magic(fd) != mount.DEVPTS_SUPER_MAGIC:
        os.close(fd)
        raise StepError("a terminal needs a devpts at /dev/pts: add it to the mounts")
    return fd


def _send(number: int, fd: int, text: bytes) -> None:
    """A descriptor and a text over a socket, which is closed then."""
    socket = _socket.socket(fileno=number)
    try:
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))]
        socket.sendmsg([text], ancillary)
    except OSError as e:
        raise KernelError(e.errno or errno.EIO, "sendmsg") from None
    finally:
        socket.close()
