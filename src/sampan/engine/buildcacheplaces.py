"""`--cache-from` and `--cache-to`: caches that are kept in a directory, opened before a build and written after it."""

from __future__ import annotations

from sampan.engine.failures import explain
from sampan.errors import SampanError, System
from sampan.store.cachedirectory import LAYER_TYPES, TAG, CacheDirectory, write
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sampan.engine.buildcaching import StepCache
    from sampan.engine.buildstage import Built, Watcher
    from sampan.store.buildcache import Entry
    from sampan.store.content import VerifiedReader


COMPRESSIONS = tuple(LAYER_TYPES)


class CacheSource(Struct):
    """A cache to look into. digest: of its manifest, "" for the one with the tag."""

    path: str
    digest: str = ""
    tag: str = TAG


class CacheTarget(Struct):
    """Where the cache of a build goes. whole: also the steps of stages of which the result only has files (mode=max).

    compression: of `COMPRESSIONS`. ignores_errors: a cache that cannot be written fails no build.
    """

    path: str
    whole: bool = False
    compression: str = "gzip"
    tag: str = TAG
    ignores_errors: bool = False


def opened(sources: Sequence[CacheSource], watcher: Watcher) -> list[CacheDirectory]:
    """Those that can be used. One that is not there, or is none, is told and changes nothing: the steps are done."""
    found = []
    for one in sources:
        step = watcher.begin(f"importing cache manifest from local:{one.path}")
        try:
            found.append(CacheDirectory(one.path, one.digest, one.tag))
        except SampanError as e:
            watcher.note(step, f"WARNING: the cache is not used: {e}")
        except OSError as e:
            watcher.note(step, f"WARNING: the cache is not used: {explain(e)}")
        watcher.done(step)
    return found


def export(
    targets: Sequence[CacheTarget],
    result: Built,
    stages: Iterable[Built],
    cache: StepCache,
    open_layer: Callable[[str], VerifiedReader],
    watcher: Watcher,
) -> None:
    """Write what the build's steps came to. Raises `System` for what cannot be written; an older cache is there then as it was."""
    for one in targets:
        step = watcher.begin("exporting cache to client directory")
        entries: dict[str, Entry] = {}
        for stage in stages if one.whole else (result,):
            entries.update(cache.chain(stage.files.key))
        try:
            digest = _written(one, entries, open_layer)
        except System as e:
            if not one.ignores_errors:
                watcher.failed(step, str(e))
                raise
            watcher.note(step, f"WARNING: {e}")
        else:
            watcher.output(step, f"writing cache manifest {digest}\n".encode())
        watcher.done(step)


def _written(target: CacheTarget, entries: Mapping[str, Entry], open_layer: Callable[[str], VerifiedReader]) -> str:
    try:
        return write(target.path, entries, open_layer, target.compression, target.tag)
    except OSError as e:
        raise System(f"failed to export cache to {target.path}: {explain(e)}") from e
    except SampanError as e:
        raise System(f"failed to export cache to {target.path}: {e}") from e
