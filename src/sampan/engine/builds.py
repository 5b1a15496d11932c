"""`engine.builds`: images out of Dockerfiles.

For programs, and for the API's `POST /build`:

    cancellation = Cancellation()                                  # engine.buildcancel; kept by whoever may end the build
    request = BuildRequest("", stream=body, tags=("app:1",), cancellation=cancellation)
    image = engine.builds.build(request, watcher)                   # cancellation.cancel() in another thread: raises, by `BuildFailed` or as itself, `Cancelled`

`stream` is the context as a tar archive, plain or compressed, read once. `watcher` (`engine.builder.Told`) is called as the build goes: `begin` gives a
step its number, `output` has what its command says, `note` a line about it, `runs` its container, then `done` or `failed`; what it raises ends the build. With `at_once` above 1 it is called by several threads.
"""

from __future__ import annotations

from sampan.engine.failures import told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from sampan.build.rules import Finding
    from sampan.build.source import Source
    from sampan.engine.builder import Builder, BuildRequest, Told
    from sampan.engine.buildprune import BuildPruner
    from sampan.engine.registries import Registries


class Builds:
    """`build` and `check`. What a build needs is imported with the first one."""

    def __init__(self, builder: Callable[[], Builder], pruner: Callable[[], BuildPruner]) -> None:
        self._builder = builder
        self._pruner = pruner

    @told
    def build(self, request: BuildRequest, watcher: Told, registries: Registries | None = None) -> str:
        """Build an image and return its id; `watcher` is told how it goes. `registries`: as whom base images are pulled.

        Raises as `engine.builder.Builder.build`.
        """
        return self._builder().build(request, watcher, registries)

    @told
    def check(self, request: BuildRequest) -> tuple[list[Finding], Source]:
        """What BuildKit's checks find in a Dockerfile. Raises as `engine.builder.Builder.check`."""
        return self._builder().check(request)

    @told
    def prune(
        self,
        filters: Mapping[str, str | Sequence[str]] | None = None,
        *,
        all: bool = False,
        keep_storage: int = 0,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Remove build cache; see `engine.buildprune.BuildPruner.prune`."""
        return self._pruner().prune(filters, all=all, keep_storage=keep_storage, dry_run=dry_run)
