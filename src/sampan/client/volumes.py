"""`engine.volumes` over the API."""

from __future__ import annotations

from sampan.client.session import filters as encoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sampan.client.session import Session

    Filters = Mapping[str, str | bool | Sequence[str]]


class RemoteVolume:
    """A volume of a server. May be used long after somebody else has removed it (NotFound)."""

    def __init__(self, volumes: RemoteVolumes, attrs: dict[str, Any]) -> None:
        self._volumes = volumes
        self.attrs = attrs
        """What `inspect` gave when the volume was looked up."""

    @property
    def name(self) -> str:
        return str(self.attrs["Name"])

    @property
    def id(self) -> str:
        """Its name: a volume has no other id."""
        return self.name

    @property
    def path(self) -> str:
        """The directory on the server's machine that is mounted into containers."""
        return str(self.attrs["Mountpoint"])

    @property
    def driver(self) -> str:
        return str(self.attrs["Driver"])

    @property
    def options(self) -> dict[str, str]:
        return dict(self.attrs["Options"] or {})

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.attrs["Labels"] or {})

    def __repr__(self) -> str:
        return f"<RemoteVolume {self.name}>"

    def inspect(self) -> dict[str, Any]:
        """`GET /volumes/{name}`. Raises NotFound."""
        self.attrs = self._volumes.get(self.name).attrs
        return self.attrs

    def remove(self, force: bool = False) -> None:
        """Remove it with its content. Raises Conflict if a container uses it, NotFound (not with `force`)."""
        self._volumes.remove(self.name, force)


class RemoteVolumes:
    """The volumes of a server."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(
        self,
        name: str = "",
        driver: str = "local",
        driver_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> RemoteVolume:
        """Make a volume, or give the one that has this name already. Raises InvalidParameter, NotFound (the driver)."""
        body = {"Name": name, "Driver": driver, "DriverOpts": dict(driver_opts or {}), "Labels": dict(labels or {})}
        return RemoteVolume(self, self._session.json("POST", "/volumes/create", body=body))

    def get(self, name: str) -> RemoteVolume:
        """The volume of that name. Raises NotFound."""
        return RemoteVolume(self, self._session.json("GET", f"/volumes/{name}"))

    def list(self, filters: Filters | None = None) -> list[RemoteVolume]:
        """All volumes by name; `filters` as `GET /volumes` takes them."""
        found = self._session.json("GET", "/volumes", {"filters": encoded(filters)})
        return [RemoteVolume(self, one) for one in found["Volumes"] or ()]

    def remove(self, name: str, force: bool = False) -> None:
        """Remove a volume with its content. With `force` none is no error. Raises NotFound, Conflict."""
        self._session.ask("DELETE", f"/volumes/{name}", {"force": force})

    def prune(self, filters: Filters | None = None) -> dict[str, Any]:
        """Remove the anonymous volumes that no container uses: {"VolumesDeleted": [names], "SpaceReclaimed": bytes}."""
        done = self._session.json("POST", "/volumes/prune", {"filters": encoded(filters)})
        return {**done, "VolumesDeleted": done["VolumesDeleted"] or []}
