"""Events: what happens to containers, images, volumes and networks is written down where everybody finds it later.

This half only writes, and is on the way of every start: one open, one write. Reading is in `engine.eventreader`.
"""

from __future__ import annotations

import time

from sampan import jsontext
from sampan.kernel import appendlog
from sampan.oci.network import DRIVERS, HOST, NONE, predefined_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sampan.oci.network import Network
    from sampan.steps.trace import Trace
    from sampan.store.record import Record

CONTAINER, IMAGE, VOLUME, NETWORK = "container", "image", "volume", "network"


class Events:
    """The journal's writing end. An event that cannot be written (a full disk) never fails what it tells of."""

    def __init__(self, root: str, path: str, limit: int, trace: Trace, notify: Callable[[str], None]) -> None:
        """`root`: the engine's. `path` and `limit` (bytes of one of the journal's two files): see `kernel.appendlog`."""
        self._root = root
        self.path = path
        self.limit = limit
        self._trace = trace
        self._notify = notify
        self._told = False

    def emit(
        self,
        kind: str,
        action: str,
        identifier: str,
        attributes: Mapping[str, str] = {},
        when_ns: int | None = None,
    ) -> None:
        """Write down that `action` was done to a container, image, volume or network (`kind`).

        `attributes` as Docker's events have them; `when_ns` is the time of day, now if it is not given.
        """
        self._append([document(kind, identifier, attributes, action)], when_ns)

    def _append(self, events: list[dict[str, object]], when_ns: int | None = None) -> None:
        """All of them by one write: a start and an end tell several."""
        if not events:
            return
        for event in events:
            event["time"] = time.time_ns() if when_ns is None else when_ns
        try:
            with self._trace.step("append event", ", ".join(f"{event['type']} {event['action']}" for event in events)):
                appendlog.append(self.path, appendlog.BETWEEN.join(map(jsontext.dumps, events)), self.limit)
        except OSError as e:
            self._tell(e)

    def container(self, record: Record, action: str, extra: Mapping[str, str] = {}) -> None:
        """The same for a container, with what Docker says of every one: its labels, its image, its name."""
        self.emit(CONTAINER, action, record.id, container_attributes(record, extra))

    def container_once(self, record: Record, action: str, since_ns: int, extra: Mapping[str, str] = {}) -> None:
        """As `container`, unless the journal has such an event since then: for what a killed process may have told."""
        from sampan.store.journal import Journal

        for entry in Journal(self.path).read(about=record.id):
            if entry.action == action and entry.type == CONTAINER and entry.time >= since_ns:
                return
        self.container(record, action, extra)

    def image(self, identifier: str, action: str, name: str, labels: Mapping[str, str] | None = None) -> None:
        """The same for an image: its labels, as far as they can be read, and the name that the event is about or its id."""
        self.emit(IMAGE, action, identifier, {**(labels or {}), "name": name})

    def pruned(self, kind: str, reclaimed: int) -> None:
        """A prune of everything of one kind has ended, and gave so many bytes back."""
        self.emit(kind, "prune", "", {"reclaimed": str(reclaimed)})

    def starting(self, record: Record, networks: Iterable[Network], attached: bool) -> None:
        """What comes before a start: somebody is attached, networks are joined, volumes are mounted. The start is the shim's to tell."""
        attach = [document(CONTAINER, record.id, container_attributes(record), "attach")] if attached else []
        mounts = [document(VOLUME, name, about, "mount") for name, about in volume_attributes(record, "mount")]
        self._append([*attach, *self._networks(record, networks, "connect"), *mounts])

    def ended(self, record: Record, networks: Iterable[Network]) -> None:
        """What comes after an end that no shim told."""
        self._append(self._ending(record, networks))

    def for_shim(self, record: Record, networks: Iterable[Network]) -> tuple[str, ...]:
        """The `events` of a `LaunchPlan`: what the shim completes and appends."""
        about = [document(CONTAINER, record.id, container_attributes(record)), *self._ending(record, networks)]
        return tuple(jsontext.dumps(one).decode("ascii") for one in about)

    def connection(self, record: Record, network: Network, action: str) -> None:
        """ "connect" or "disconnect" of a container and a network, by one of these verbs."""
        self._append(self._networks(record, [network], action))

    def _ending(self, record: Record, networks: Iterable[Network]) -> list[dict[str, object]]:
        unmounts = [document(VOLUME, name, about, "unmount") for name, about in volume_attributes(record, "unmount")]
        return [*self._networks(record, networks, "disconnect"), *unmounts]

    def _networks(self, record: Record, networks: Iterable[Network], action: str) -> list[dict[str, object]]:
        """Of each network that a container is in; as with Docker the modes `host` and `none` are two, and the network of another container is none."""
        found = [(network.id, network.name, network.driver) for network in networks]
        mode = record.host_config.get("NetworkMode")
        if not found and mode in (HOST, NONE):
            found = [(predefined_id(self._root, mode), mode, DRIVERS[mode])]
        return [
            document(NETWORK, identifier, {"container": record.id, "name": name, "type": driver}, action)
            for identifier, name, driver in found
        ]

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._notify(f"WARNING: events are not recorded: {self.path}: {(error.strerror or str(error)).lower()}")


def document(kind: str, identifier: str, attributes: Mapping[str, str], action: str = "") -> dict[str, object]:
    """An event as the journal has it, but for its "time" (nanoseconds since the epoch).

    The shim is sent this and adds what is missing, so that the form is made here only.
    """
    event: dict[str, object] = {"type": kind, "id": identifier, "attributes": dict(attributes)}
    return {**event, "action": action} if action else event


def container_attributes(record: Record, extra: Mapping[str, str] = {}) -> dict[str, str]:
    """What an event of a container says. Labels come before what is special to the event, image and name before labels (moby)."""
    attributes = {**extra, **(record.config.get("Labels") or {}), "name": record.name}
    if record.image_ref:
        attributes["image"] = record.image_ref
    return attributes


def volume_attributes(record: Record, action: str) -> list[tuple[str, dict[str, str]]]:
    """The volumes that a container uses, each with what the event of its mount or unmount says."""
    if not record.mounts:
        return []
    from sampan.oci.mountpoint import VOLUME as OF_VOLUME

    found = []
    for point in record.mounts:
        if point.type == OF_VOLUME:
            attributes = {"driver": point.driver, "container": record.id}
            if action == "mount":
                attributes.update(
                    {
                        "destination": point.destination,
                        "read/write": "true" if point.rw else "false",
                        "propagation": point.propagation,
                    }
                )
            found.append((point.name, attributes))
    return found
