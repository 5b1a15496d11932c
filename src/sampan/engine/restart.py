"""Restarting a container: a stop and a start in one."""

from __future__ import annotations

from sampan.errors import Conflict, NotModified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Settler(Protocol):
        def observe(self, record: Record) -> Observation: ...

    class Stopper(Protocol):
        def stop(self, record: Record, timeout: int | None = ..., signal: str = ..., again: bool = ...) -> None: ...

    class Starter(Protocol):
        def start(self, record: Record) -> object: ...

    class Announcer(Protocol):
        def container(self, record: Record, action: str, extra: Mapping[str, str] = ...) -> None: ...


class Restarter:
    """`POST /containers/{id}/restart`."""

    def __init__(self, settler: Settler, stopper: Stopper, starter: Starter, events: Announcer) -> None:
        self._settler = settler
        self._stopper = stopper
        self._starter = starter
        self._events = events

    def restart(self, record: Record, timeout: int | None = None, signal: str = "") -> None:
        """Stop the container if it runs, as `stop` does, and start it; one with `--rm` is not removed in between.

        The intent says that a start follows, so that a command which is killed after the stop leaves a container that the
        next command starts. Raises StartFailed, Conflict.
        """
        self._settler.observe(record)  # NotFound as it is; what comes later is told as a failed restart
        try:
            try:
                self._stopper.stop(record, timeout, signal, again=True)
            except NotModified:
                pass
            self._start(record)
            self._events.container(record, "restart")
        except Conflict as e:
            raise Conflict(f"Cannot restart container {record.name}: {e}") from None

    def _start(self, record: Record) -> None:
        try:
            self._starter.start(record)
        except NotModified:
            pass  # Another command was quicker to make the restart that was due.
