"""`image prune`: removing the images that no container uses, those without a name or all."""

from __future__ import annotations

from sampan.engine.imagefilters import truth
from sampan.engine.prunefilter import PruneFilter
from sampan.errors import Conflict, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from sampan.engine.images import ImageUsers, Snapshotter

    Filters = Mapping[str, str | bool | Sequence[str]]

    class Images(Protocol):
        def remove(self, name: str) -> list[dict[str, str]]: ...
        def collect(self) -> None: ...
        def list(self) -> list[dict[str, Any]]: ...


class ImagePruner:
    """`POST /images/prune`."""

    def __init__(self, images: Images, snapshots: Snapshotter, users: ImageUsers) -> None:
        self._images = images
        self._snapshots = snapshots
        self._users = users

    def run(self, filters: Filters) -> dict[str, Any]:
        """{"ImagesDeleted": what was untagged and deleted, "SpaceReclaimed": bytes of the layers that went}.

        `filters`: until, label, label!, and dangling, which is true if it is not said. Raises InvalidParameter.
        """
        values = {
            name: [str(value)] if isinstance(value, (str, bool)) else list(value) for name, value in filters.items()
        }
        dangling = truth("dangling", values.pop("dangling", []))
        wanted = PruneFilter(values)
        self._images.collect()
        sizes = {chain_id: self._snapshots.info(chain_id).size for chain_id in self._snapshots.layers()}
        deleted: list[dict[str, str]] = []
        for item in self._images.list():
            names = item["RepoTags"] or item["RepoDigests"]
            if (names and dangling is not False) or self._users.containers_using(item["Id"]):
                continue
            if not wanted.fits(item["Created"] * 1_000_000_000, item["Labels"]):
                continue
            for name in names or [item["Id"]]:
                try:
                    deleted += self._images.remove(name)
                except (Conflict, NotFound):
                    continue  # A container came in between, or somebody else removes it.
        freed = sum(sizes.get(step.get("Deleted", ""), 0) for step in deleted)
        return {"ImagesDeleted": deleted, "SpaceReclaimed": freed}
