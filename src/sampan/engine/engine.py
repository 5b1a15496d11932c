"""The Engine: the library's front door, with no behaviour of its own.

Opening it costs one look at the disk: no scan, no thread, no socket. All truth is on disk: any number of processes
and threads may have an Engine on the same root at the same time.
"""

from __future__ import annotations

import os
import sys

from sampan.engine.config import Config, load
from sampan.engine.containers import Containers
from sampan.engine.wiring import Wiring
from sampan.errors import Forbidden
from sampan.steps.trace import Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from sampan.engine.builds import Builds
    from sampan.engine.eventreader import EventStream
    from sampan.engine.images import Images
    from sampan.engine.networks import Networks
    from sampan.engine.registries import Registries
    from sampan.engine.system import System
    from sampan.engine.volumes import Volumes
    from sampan.steps.trace import Event


class Engine:
    """One root of containers and images.

    >>> with Engine() as engine:
    ...     print(engine.containers.run("base", ["uname", "-a"]).stdout)

    `root`, `run_root`: where state is (before SAMPAN_ROOT and SAMPAN_RUN_ROOT). `config`: a configuration file, or a
    Config. `observer` is called before and after every action on the disk and the kernel; `notify` with one line of text
    when something takes noticeable time (by default it goes to standard error). Raises Forbidden without root.
    """

    def __init__(
        self,
        root: str | None = None,
        run_root: str | None = None,
        config: str | Config | None = None,
        observer: Callable[[Event], None] | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        if os.geteuid() != 0:
            raise Forbidden("sampan needs root: run it with sudo (containers without root come in a later version)")
        settings = config if isinstance(config, Config) else load(config, root, run_root)
        self.trace = Trace(observer)
        self._wiring = Wiring(settings, self.trace, notify or _to_stderr)
        self.containers = Containers(self._wiring)

    @property
    def images(self) -> Images:
        """Images: resolve, list, inspect, tag, remove, import_, pull."""
        images: Images = self._wiring.images
        return images

    @property
    def registries(self) -> Registries:
        """Registries: login, logout, manifest."""
        registries: Registries = self._wiring.registries
        return registries

    @property
    def builds(self) -> Builds:
        """Images out of Dockerfiles: build, check."""
        builds: Builds = self._wiring.builds
        return builds

    @property
    def volumes(self) -> Volumes:
        """Volumes: create, get, list, prune."""
        volumes: Volumes = self._wiring.volumes
        return volumes

    @property
    def networks(self) -> Networks:
        """Networks: create, get, list, inspect, remove, prune."""
        networks: Networks = self._wiring.networks
        return networks

    @property
    def system(self) -> System:
        """version(), info(), df(), prune(), check()."""
        system: System = self._wiring.system
        return system

    def attend(self) -> None:
        """Be what a server is: a process that lives long and starts many containers. The first start brings up a zygote
        (docs/performance.md), which leaves with this process; what is deleted is deleted when the call has returned; `trace` keeps nothing.
        To be called before anything else.
        """
        self._wiring.attend()
        self.trace.keeps = False

    def events(
        self,
        since: str | float | None = None,
        until: str | float | None = None,
        filters: Mapping[str, str | Sequence[str]] | None = None,
    ) -> EventStream:
        """What happens to containers, images and volumes, as `GET /events` tells it: an iterator that goes on until `until`.

        >>> with engine.events(since="1h", until=time.time()) as events:
        ...     print([event["Action"] for event in events])

        since, until: RFC 3339, seconds since the epoch, or a duration before now ("1h30m"). Without either there is nothing of
        the past. filters: Docker's, by name. `close()` ends it, from any thread. Raises InvalidParameter.
        """
        stream: EventStream = self._wiring.event_reader.open(since, until, filters)
        return stream

    def close(self) -> None:
        """Does nothing, and may be called twice: between calls nothing is held open, no process, no thread, no descriptor.

        It is there for `with`, and for code that also runs on engines that do hold something (one of a server does: `attend`): then it waits for what
        is still being deleted, some seconds at most. An engine that was closed can be used again: each call opens what it needs.
        """
        self._wiring.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
