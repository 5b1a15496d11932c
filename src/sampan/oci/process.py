"""What a container runs: the request's configuration laid over the image's, then entrypoint and command joined.

The configurations are Docker's `Config` objects. The rules are moby's (daemon, `merge` and `verifyContainerSettings`)
and the Dockerfile reference's table "Understand how CMD and ENTRYPOINT interact": the shell form is stored as
`["/bin/sh", "-c", "..."]`, so that the nine combinations need no case of their own here.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of a container whose image and request set none (moby, oci/defaults)."""

SHELL = ("/bin/sh", "-c")
"""What the shell form of an instruction is run by, unless SHELL said otherwise."""

_OMITTED_WHEN_EMPTY = frozenset({"ExposedPorts", "Healthcheck", "StopSignal"})
_HEALTH_TIMES = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")


def merge(request: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """The request's Config completed by the image's; neither is changed.

    A request that names an entrypoint resets the image's command as well: arguments of another program would be
    wrong ones. `[""]` is how a request clears the entrypoint (`--entrypoint ""`).
    """
    merged = dict(request)
    for key in ("User", "WorkingDir", "StopSignal"):
        merged[key] = request.get(key) or image.get(key) or ""
    for key in ("ExposedPorts", "Volumes"):
        joined = {**(image.get(key) or {}), **(request.get(key) or {})}
        merged[key] = joined or None
    merged["Labels"] = {**(image.get("Labels") or {}), **(request.get("Labels") or {})}
    merged["Env"] = _merge_environment(request.get("Env") or [], image.get("Env") or [])
    merged["Healthcheck"] = _merge_health(request.get("Healthcheck"), image.get("Healthcheck"))
    merged["Entrypoint"], merged["Cmd"] = _merge_command(request, image)
    # Docker's JSON leaves these out when they are empty; Volumes and the others are shown as null.
    return {key: value for key, value in merged.items() if value or key not in _OMITTED_WHEN_EMPTY}


def resolve_argv(config: Mapping[str, Any]) -> list[str]:
    """What is executed: entrypoint and command of a merged Config, one after the other.

    Raises `InvalidParameter` with Docker's text if there is neither.
    """
    argv = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    if not argv:
        raise InvalidParameter("no command specified")
    return argv


def environment_value(environment: Sequence[str], name: str) -> str | None:
    """The value of a variable in a list of NAME=value, None if it is not set."""
    prefix = name + "="
    for entry in environment:
        if entry.startswith(prefix):
            return entry[len(prefix) :]
    return None


def _merge_command(request: Mapping[str, Any], image: Mapping[str, Any]) -> tuple[list[str] | None, list[str] | None]:
    entrypoint, command = request.get("Entrypoint"), request.get("Cmd")
    if not entrypoint:
        command = command or image.get("Cmd")
        # An empty list is not None: it keeps the image's entrypoint away (the API's way to say so).
        entrypoint = image.get("Entrypoint") if entrypoint is None else None
    elif list(entrypoint) == [""]:
        entrypoint = None
    return (list(entrypoint) if entrypoint else None), (list(command) if command else None)


def _merge_environment(own: Sequence[str], image: Sequence[str]) -> list[str]:
    """The request's variables in their order, then the image's that it does not set."""
    names = {entry.partition("=")[0] for entry in own}
    return [*own, *(entry for entry in image if entry.partition("=")[0] not in names)]


def _merge_health(own: Mapping[str, Any] | None, image: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if own is None or image is None:
        found = own if image is None else image
        return dict(found) if found is not None else None
    merged = dict(own)
    merged["Test"] = own.get("Test") or image.get("Test")
    for key in _HEALTH_TIMES:
        if not own.get(key) and image.get(key):
            merged[key] = image[key]
    return merged
