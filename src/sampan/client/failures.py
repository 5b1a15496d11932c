"""What a server's refusal becomes: the exception that the engine there has raised.

sampan's own servers name its class (`sampan.api.failures`); of others the status says the kind.
"""

from __future__ import annotations

from sampan import errors, jsontext
from sampan.engine.archive import NoSuchPath
from sampan.engine.copying import Unfitting
from sampan.errors import SampanError, StartFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

KIND, EXIT_CODE = "x-sampan-error", "x-sampan-exit-code"

_KINDS: dict[str, type[SampanError]] = {
    kind.__name__: kind
    for kind in (
        *(one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, SampanError)),
        NoSuchPath,
        Unfitting,
    )
}
_STATUSES: dict[int, type[SampanError]] = {
    304: errors.NotModified,
    400: errors.InvalidParameter,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.InvalidParameter,
    501: errors.Unavailable,
    503: errors.Unavailable,
}


def of_answer(status: int, headers: Mapping[str, str], body: bytes) -> SampanError:
    """The exception for an answer that is none of those that were hoped for. Names of headers are in lower case."""
    try:
        document = jsontext.loads(body) if body.strip() else {}
        message = str(document["message"])
    except (ValueError, KeyError, TypeError):
        message = body.decode("utf-8", "replace").strip() or f"the server answered with the status {status}"
    kind = _named(headers.get(KIND, "")) or _STATUSES.get(status, errors.System)
    return _made(kind, message, int(headers.get(EXIT_CODE, "128")))


def of_line(line: Mapping[str, Any]) -> SampanError:
    """The exception for an object with "error" in a stream that had begun well."""
    detail = line.get("errorDetail") or {}
    message = str(detail.get("message") or line.get("error"))
    names = str(detail.get("kind", ""))
    if names.startswith("BuildFailed"):
        from sampan.engine.buildstage import BuildFailed  # in here: only builds are told of it

        return BuildFailed(errors.System(message), "")
    return _made(_named(names) or errors.System, message, 128)


def _named(names: str) -> type[SampanError] | None:
    """The first of a class and its bases that is known here."""
    return next((_KINDS[name] for name in names.replace(" ", "").split(",") if name in _KINDS), None)


def _made(kind: type[SampanError], message: str, exit_code: int) -> SampanError:
    return StartFailed(message, exit_code) if kind is StartFailed else kind(message)
