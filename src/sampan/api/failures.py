"""What a failure becomes for a client: a status and a message. The one place where this is decided.

The kinds carry their status (`sampan.errors`). What is no SampanError is a fault of ours: the client gets a sentence with the
request's id and no more, the log has the traceback.
"""

from __future__ import annotations

from sampan.errors import SampanError, StartFailed
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

KIND, EXIT_CODE = "X-Sampan-Error", "X-Sampan-Exit-Code"
"""For sampan's own client, which raises again what was raised here: the class with its bases, and a failed start's exit code."""


class Failure(Struct):
    """status: of HTTP. message: for the client. ours: whether the log wants the traceback. headers: of the answer."""

    status: int
    message: str
    ours: bool = False
    headers: Mapping[str, str] = {}


class Refused(Exception):
    """A request that is no proper HTTP, or more than is taken. It is answered and the connection ends."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ClientGone(Exception):
    """The client's side of the connection is closed or broken: nobody is there to be answered."""


class NotImplementedHere(SampanError):
    """A part of Docker's API that sampan does not have."""

    http_status = 501


def describe(error: BaseException, request_id: str) -> Failure:
    """The answer to a request that ended with `error`."""
    if isinstance(error, Refused):
        return Failure(error.status, str(error))
    if isinstance(error, SampanError):
        return Failure(error.http_status, str(error), headers=_headers(error))
    if isinstance(error, MemoryError):
        return Failure(503, "the server may have no more memory now: try again")
    return Failure(500, f"unexpected error (this is a bug): the server's log says more of request {request_id}", True)


def kind(error: SampanError) -> str:
    """The names of an error's class and its bases, the nearest first."""
    bases = type(error).__mro__
    return ",".join(base.__name__ for base in bases[: bases.index(SampanError)]) or SampanError.__name__


def _headers(error: SampanError) -> dict[str, str]:
    found = {KIND: kind(error)}
    if isinstance(error, StartFailed):
        found[EXIT_CODE] = str(error.container_exit_code)
    return found
