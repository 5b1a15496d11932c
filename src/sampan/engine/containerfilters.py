"""The filters of `GET /containers/json`: which containers a listing wants (moby daemon/list.go).

Values of one filter are alternatives, different filters hold together; of labels all must hold.
"""

from __future__ import annotations

from sampan.engine import times
from sampan.errors import InvalidParameter, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.engine.containers import Look
    from sampan.engine.images import Image
    from sampan.store.images import NameRecord

    Filters = Mapping[str, str | bool | Sequence[str]]

    class Images(Protocol):
        def find(self, name: str) -> NameRecord | None: ...
        def read(self, record: NameRecord) -> Image: ...


NAMES = frozenset(
    (
        *("ancestor", "before", "exited", "expose", "health", "id", "isolation", "is-task", "label", "name", "network"),
        *("publish", "since", "status", "volume"),
    )
)
OF_DOCUMENTS = frozenset(("ancestor", "exited", "expose", "health", "network", "volume"))
"""The filters that look at what only `inspect` tells, which costs several times what a line of the listing does."""
STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
HEALTH = ("starting", "healthy", "unhealthy", "none")
_TRUTH = {"1": True, "true": True, "0": False, "false": False}


class ContainerFilter:
    """One set of filters. Raises InvalidParameter, in Docker's words, for what is no filter or no value of one."""

    def __init__(self, filters: Filters) -> None:
        self._values = {name: _listed(value) for name, value in filters.items()}
        for name in self._values:
            if name not in NAMES:
                raise InvalidParameter(f"invalid filter '{name}'")
        for status in self._of("status"):
            if status not in STATES:
                raise InvalidParameter(f"invalid filter 'status={status}'")
        for health in self._of("health"):
            if health not in HEALTH:
                raise InvalidParameter(f"unrecognized filter value for health: {health}")
        self._exited = [_number(code) for code in self._of("exited")]
        self._publish = [port for text in self._of("publish") for port in _ports("publish", text)]
        self._expose = [port for text in self._of("expose") for port in _ports("expose", text)]
        self._tasks = self._truth("is-task")
        self._of_documents = any(self._of(name) for name in OF_DOCUMENTS)

    @property
    def looks_at_stopped(self) -> bool:
        """Whether containers that do not run are wanted without being asked for."""
        return bool(self._of("status"))

    def select(self, looks: Sequence[Look], every: Sequence[Look], images: Images) -> list[Look]:
        """Those that are wanted, in their order. `every`: where before and since look. Raises NotFound."""
        ages = [self._age(name, every) for name in ("before", "since")]
        ancestors = self._ancestors(images)
        found = []
        for look in looks:
            created = times.parse(look.record.created)
            if (ages[0] is not None and created >= ages[0]) or (ages[1] is not None and created <= ages[1]):
                continue
            try:
                if not self._matches_summary(look.summary()):
                    continue
                document = look.inspect() if self._of_documents else {}
            except NotFound:
                continue  # it has gone meanwhile
            if document and not self._matches_document(document):
                continue
            if ancestors is None or _descends(document, images, ancestors):
                found.append(look)
        return found

    def _of(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def _truth(self, name: str) -> bool | None:
        values = self._of(name)
        if not values:
            return None
        if len(values) > 1 or values[0].lower() not in _TRUTH:
            raise InvalidParameter(f"invalid filter '{name}=[{' '.join(values)}]'")
        return _TRUTH[values[0].lower()]

    def _age(self, name: str, every: Iterable[Look]) -> int | None:
        """When the container was made that `before` or `since` names; the last one counts."""
        values = self._of(name)
        if not values:
            return None
        wanted = values[-1].removeprefix("/")
        for look in every:
            if wanted and (look.record.name == wanted or look.record.id.startswith(wanted)):
                return times.parse(look.record.created)
        raise NotFound(f"No such container: {values[-1]}")

    def _ancestors(self, images: Images) -> list[tuple[str, Sequence[str]]] | None:
        """Ids and layers of the images that `ancestor` names; None without that filter."""
        if not self._of("ancestor"):
            return None
        found: list[tuple[str, Sequence[str]]] = []
        for name in self._of("ancestor"):
            image = _image(images, name)
            if image is not None:  # else no container has it
                found.append((image.id, image.layers))
        return found

    def _matches_summary(self, summary: Mapping[str, Any]) -> bool:
        labels = summary["Labels"]
        names = [form for name in summary["Names"] for form in (name, name.removeprefix("/"))]
        return (
            self._tasks is not True
            and self._is_one("status", (summary["State"],))
            and self._fits("id", (summary["Id"],))
            and self._fits("name", names)
            and all(_has(labels, label) for label in self._of("label"))
            and self._has_port(self._publish, _published(summary["Ports"]))
        )

    def _matches_document(self, document: Mapping[str, Any]) -> bool:
        state, networks = document["State"], document["NetworkSettings"]["Networks"]
        mounts = [
            mount[key] for mount in document["Mounts"] for key in ("Name", "Source", "Destination") if key in mount
        ]
        health = (state.get("Health") or {}).get("Status") or "none"
        return (
            (not self._exited or (state["Status"] == "exited" and state["ExitCode"] in self._exited))
            and self._is_one("health", (health,))
            and self._is_one("volume", [*mounts, *(path.rstrip("/") for path in mounts)])
            and self._is_one("network", [*networks, *(endpoint["NetworkID"] for endpoint in networks.values())])
            and self._has_port(self._expose, set(document["Config"].get("ExposedPorts") or ()))
        )

    def _is_one(self, name: str, texts: Iterable[str]) -> bool:
        wanted = self._of(name)
        return not wanted or any(text in wanted for text in texts if text)

    def _fits(self, name: str, texts: Sequence[str]) -> bool:
        """Whether one of the values is one of the texts, or is found in one as a regular expression."""
        wanted = self._of(name)
        if not wanted or any(pattern in texts for pattern in wanted):
            return True
        import re  # in here: it costs more than a listing of ten containers

        for pattern in wanted:
            try:
                if any(re.search(pattern, text) is not None for text in texts):
                    return True
            except re.error:
                continue
        return False

    @staticmethod
    def _has_port(wanted: Sequence[str], ports: set[str]) -> bool:
        return not wanted or any(port in ports for port in wanted)


def _descends(document: Mapping[str, Any], images: Images, ancestors: Iterable[tuple[str, Sequence[str]]]) -> bool:
    """Whether a container's image is one of these, or was made on top of one."""
    for image_id, chain_ids in ancestors:
        if document["Image"] == image_id:
            return True
        image = _image(images, document["Image"])
        own = image.layers if image is not None else ()
        if chain_ids and len(own) > len(chain_ids) and own[len(chain_ids) - 1] == chain_ids[-1]:
            return True
    return False


def _image(images: Images, name: str) -> Image | None:
    try:
        record = images.find(name)
        return None if record is None else images.read(record)
    except (NotFound, InvalidParameter):
        return None


def _listed(value: str | bool | Sequence[str]) -> list[str]:
    if isinstance(value, bool):
        return [str(value).lower()]
    return [value] if isinstance(value, str) else list(value)


def _number(text: str) -> int:
    digits = text.lstrip("+-")
    if not (digits.isascii() and digits.isdigit() and len(text) - len(digits) < 2):
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def _ports(filter: str, text: str) -> list[str]:
    """ "80", "80-90/tcp" as ports with their protocol."""
    from sampan.oci import ports  # in here: few listings ask for ports

    numbers, _, protocol = text.partition("/")
    try:
        first, last = ports.range_of(numbers)
    except ValueError as e:
        raise InvalidParameter(f"error while looking up for {filter} {text}: {e}") from None
    return [f"{port}/{protocol or 'tcp'}" for port in range(first, last + 1)]


def _published(ports: Iterable[Mapping[str, Any]]) -> set[str]:
    return {f"{port[key]}/{port['Type']}" for port in ports for key in ("PublicPort", "PrivatePort") if port.get(key)}


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
