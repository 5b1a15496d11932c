"""A command that stays with a container: its streams joined to ours, and what becomes of it afterwards."""

from __future__ import annotations

import os

from sampan.cli import signals
from sampan.cli.output import Failure, err
from sampan.cli.relay import Ended, Relay, Streams
from sampan.errors import Conflict, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.engine.containers import Container
    from sampan.engine.interface import Attachment

DETACHED = "read escape sequence"

_OUTPUTS = {"stdout": (32, 1), "stderr": (33, 2)}
"""Each output's kind of frame (`STDOUT` and `STDERR` of the protocol's table) and descriptor."""


def check_terminal(stdin: bool, tty: bool) -> None:
    """A container's terminal is typed to from a terminal, or from nothing. Raises `Failure`."""
    if stdin and tty and not os.isatty(0):
        raise Failure("the input device is not a TTY")


def caught(tty: bool, proxy: bool) -> signals.Signals:
    """The signals that are not to end this process at once: those for the container, or those before which the terminal has
    to be given back. Hold them before the container runs, so that none hits between its start and the relay; and not
    earlier, for until then Ctrl-C is to end this command."""
    numbers = signals.FORWARDED if proxy else signals.ENDING if tty else ()
    return signals.Signals((*numbers, signals.RESIZED, signals.CONTINUED) if tty else numbers)


def streams(attached: set[str], tty: bool, detach_keys: bytes) -> Streams:
    """Which of the container's streams are joined to ours. A terminal has one output for both."""
    outputs = dict(_OUTPUTS[name] for name in _OUTPUTS if name in attached)
    return Streams(outputs, "stdin" in attached, tty, detach_keys)


def relay(
    attachment: Attachment, joined: Streams, held: signals.Signals, kill: Callable[[str], None] | None = None
) -> Ended:
    """Join the streams until one side ends. `kill` hands signals to the container; None if --sig-proxy is off."""
    try:
        forward = None if kill is None else lambda number: _forward(kill, number)
        ended = Relay(attachment, joined, held, forward).run()
        if ended.how == "detached":
            attachment.detach()
        return ended
    finally:
        attachment.close()


def _forward(kill: Callable[[str], None], number: int) -> None:
    # Not over the attachment: a signal would wait there behind input that the program does not read.
    try:
        kill(str(number))
    except (Conflict, NotFound):
        pass  # it is ending anyway, and its exit code is on its way


def stay(
    container: Container, attachment: Attachment | None, joined: Streams, held: signals.Signals, proxy: bool
) -> int:
    """Stay with a container that this command has started, until it exits or the user leaves it; the exit code."""
    assert attachment is not None, "a start that was asked for an attachment gives one"
    ended = relay(attachment, joined, held, container.kill if proxy else None)
    code = exit_code(ended, container.wait)
    if ended.how == "exited":
        container.settle()
    return code


def exit_code(ended: Ended, wait: Callable[[], int], detached: int = 0) -> int:
    """What this command exits with. `detached` is the code after the detach keys: 0 for who started the container."""
    if ended.how == "exited":
        return ended.code
    if ended.how == "detached":
        err(DETACHED)
        return detached
    if ended.how == "signalled":
        return 128 + ended.code
    if ended.how == "unread":
        raise BrokenPipeError
    return wait()
