"""`image prune`: removing the images that no container uses, those without a name or all."""

from __future__ import annotations

from sampan.engine import accounting
from sampan.engine.imagefilters import truth
from sampan.engine.prunefilter import PruneFilter
from sampan.errors import Conflict, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.engine.images import Announcer, ImageUsers, Lock

    Filters = Mapping[str, str | bool | Sequence[str]]

    class Images(Protocol):
        def remove(self, name: str) -> list[dict[str, str]]: ...
        def collect(self) -> None: ...
        def list(self) -> list[dict[str, Any]]: ...


class ImagePruner:
    """`POST /images/prune`."""

    def __init__(
        self,
        content: Any,
        names: Any,
        layers: Any,
        lock: Lock,
        users: ImageUsers,
        events: Announcer,
        images: Callable[..., Images],
    ) -> None:
        """The stores of images, and what makes the images' service of views of them."""
        self._stores = (content, names, layers)
        self._lock = lock
        self._users = users
        self._events = events
        self._images = images

    def run(self, filters: Filters, dry_run: bool = False, without: Collection[str] = ()) -> dict[str, Any]:
        """{"ImagesDeleted": what was untagged and deleted, "SpaceReclaimed": bytes of the disk that are free again}.

        `filters`: until, label, label!, and dangling, which is true if it is not said. `dry_run`: what would be, as if the
        containers `without` were gone. Raises InvalidParameter.
        """
        values = {
            name: [str(value)] if isinstance(value, (str, bool)) else list(value) for name, value in filters.items()
        }
        dangling = truth("dangling", values.pop("dangling", []))
        wanted = PruneFilter(values)
        account = accounting.Account(dry_run)
        images, users, events = self._seen_by(account, without)
        images.collect()
        deleted: list[dict[str, str]] = []
        for item in images.list():
            names = item["RepoTags"] or item["RepoDigests"]
            if (names and dangling is not False) or users.containers_using(item["Id"]):
                continue
            if not wanted.fits(item["Created"] * 1_000_000_000, item["Labels"]):
                continue
            for name in names or [item["Id"]]:
                try:
                    deleted += images.remove(name)
                except (Conflict, NotFound):
                    continue  # A container came in between, or somebody else removes it.
        events.pruned("image", account.freed)
        return {"ImagesDeleted": deleted, "SpaceReclaimed": account.freed}

    def collectable(self, without: Collection[str]) -> int:
        """Bytes of what no image leads to, and no container but for those `without` stands on."""
        account = accounting.Account(dry=True)
        self._seen_by(account, without)[0].collect()
        return account.freed

    def _seen_by(self, account: accounting.Account, without: Collection[str]) -> tuple[Images, ImageUsers, Announcer]:
        content, names, layers = self._stores
        views = (
            accounting.Content(content, account),
            accounting.Names(names, account),
            accounting.Layers(layers, account),
        )
        if not account.dry:
            return self._images(*views, self._lock, self._users, self._events), self._users, self._events
        users, events = self._users.without(without), accounting.Silence()
        return self._images(*views, accounting.Looking(self._lock), users, events), users, events
