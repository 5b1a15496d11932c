"""The filters that `--filter` of each verb knows, for completion: as the engine has them, in one place."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_VALUES: dict[str, tuple[str, ...]] = {
    "dangling": ("false", "true"),
    "is-task": ("false", "true"),
    "type": ("container", "image", "network", "volume"),
}


def names(verb: str) -> list[str]:
    """The filters of a verb, sorted."""
    return sorted(_of(verb))


def _of(verb: str) -> Iterable[str]:
    from sampan.engine import containerfilters, eventfilters, imagefilters, networkfilters, prunefilter, volumefilters

    return {
        "ps": containerfilters.NAMES,
        "images": imagefilters.NAMES,
        "events": eventfilters.NAMES,
        "network ls": networkfilters.LISTED,
        "network prune": networkfilters.PRUNED,
        "volume ls": volumefilters.LISTED,
        "volume prune": volumefilters.PRUNED,
        "container prune": prunefilter.NAMES,
        "image prune": prunefilter.NAMES,
        "system prune": prunefilter.NAMES,
    }.get(verb, ())


def values(name: str) -> tuple[str, ...]:
    """The values of a filter that has few, whatever the verb is."""
    if name in ("status", "health"):
        from sampan.engine.containerfilters import HEALTH, STATES

        return STATES if name == "status" else HEALTH
    return _VALUES.get(name, ())
