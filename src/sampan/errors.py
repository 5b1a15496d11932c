"""The kinds of failure, one class each. Imports nothing.

The class says what a face does with it: the command line's exit code and the Engine API's HTTP status
hang on the kind and are written down here once. The text follows Docker where Docker has one; otherwise
lower case, no full stop, what failed, where, and what to do.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class SampanError(Exception):
    """Base of everything that sampan raises on purpose.

    `http_status` is the Engine API's status for this kind (swagger `ErrorResponse`); `exit_code` is the
    command line's for verbs that run no container (`run` and `create` turn it into 125).
    """

    http_status = 500
    exit_code = 1

    def within(self, what: str) -> Self:
        """The same failure, told as part of what failed by it: "WHAT: text"."""
        self.args = (f"{what}: {self}", *self.args[1:])
        return self


class NotFound(SampanError):
    """The named container, image or path does not exist."""

    http_status = 404


class ImageNotFound(NotFound):
    """There is no such image here, or it is for another platform: one that may be pulled. `name`: as it was asked for."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class Unauthorized(SampanError):
    """A registry does not take these credentials."""

    http_status = 401


class InvalidParameter(SampanError):
    """The caller asked for something that cannot be: a bad value, a bad combination, a bad archive."""

    http_status = 400


class Conflict(SampanError):
    """The thing exists, but its state or another command forbids what was asked."""

    http_status = 409


class NotModified(SampanError):
    """The thing is already as was asked (start of a running container, stop of a stopped one)."""

    http_status = 304


class Forbidden(SampanError):
    """The caller may not do this."""

    http_status = 403


class Prohibited(Forbidden):
    """Nobody may do this, as things are: take another network's subnet, remove one that is in use."""


class Unavailable(SampanError):
    """Something that is needed now cannot be had: another command holds it, a kernel feature is absent."""

    http_status = 503


class System(SampanError):
    """The kernel or the disk refused; the message names the step, the system call, the errno and the path."""


class Damaged(System):
    """What is kept on the disk is not what was written there: somebody, or the disk, has changed it."""


class StartFailed(SampanError):
    """A container's process could not be started.

    `container_exit_code` is what Docker keeps as the container's exit code and what `run` exits with:
    127 the executable was not found, 126 it could not be executed, 128 anything else in the container's
    set-up (which the command line shows as 125).
    """

    def __init__(self, message: str, container_exit_code: int = 128, steps: tuple[dict[str, object], ...] = ()) -> None:
        super().__init__(message)
        self.container_exit_code = container_exit_code
        self.steps = steps

    @property
    def http_status(self) -> int:  # type: ignore[override]
        """400 where the caller named something that cannot be executed, as dockerd answers, else 500."""
        return 400 if self.container_exit_code in (126, 127) else 500
