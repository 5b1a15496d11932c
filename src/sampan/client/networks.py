"""`engine.networks` over the API."""

from __future__ import annotations

from sampan.client.session import filters as encoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sampan.client.session import Session

    Filters = Mapping[str, str | bool | Sequence[str]]


class RemoteNetwork:
    """A network of a server. May be used long after somebody else has removed it (NotFound)."""

    def __init__(self, networks: RemoteNetworks, attrs: dict[str, Any]) -> None:
        self._networks = networks
        self.attrs = attrs
        """What the server said of it when it was looked up."""

    @property
    def id(self) -> str:
        return str(self.attrs["Id"])

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def name(self) -> str:
        return str(self.attrs["Name"])

    @property
    def driver(self) -> str:
        return str(self.attrs["Driver"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.attrs["Labels"] or {})

    def __repr__(self) -> str:
        return f"<RemoteNetwork {self.name}>"

    def inspect(self) -> dict[str, Any]:
        """`GET /networks/{id}`. Raises NotFound."""
        return self._networks.inspect(self.id)

    def connect(self, container: str, settings: Mapping[str, Any] | None = None) -> None:
        """Put a container into it; settings: an EndpointSettings. Raises NotFound, Forbidden, InvalidParameter."""
        self._networks.connect(self.id, container, settings)

    def disconnect(self, container: str, force: bool = False) -> None:
        """Take a container out of it. Raises NotFound, Forbidden if it is not in it."""
        self._networks.disconnect(self.id, container, force)

    def remove(self) -> None:
        """Remove it. Raises Forbidden if a container is in it, NotFound."""
        self._networks.remove(self.id)


class RemoteNetworks:
    """The networks of a server."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, name: str, **request: Any) -> RemoteNetwork:
        """Make a network. request: the members of the body of `POST /networks/create`. Raises InvalidParameter, Forbidden, Conflict."""
        made = self._session.json("POST", "/networks/create", body={"Name": name, **request})
        return self.get(made["Id"])

    def get(self, reference: str) -> RemoteNetwork:
        """The network of that id, name or beginning of an id. Raises NotFound, InvalidParameter for an ambiguous one."""
        return RemoteNetwork(self, self.inspect(reference))

    def list(self, filters: Filters | None = None) -> Sequence[RemoteNetwork]:
        """All networks that the filters want. Raises InvalidParameter."""
        return [
            RemoteNetwork(self, one) for one in self._session.json("GET", "/networks", {"filters": encoded(filters)})
        ]

    def inspect(self, reference: str) -> dict[str, Any]:
        """`GET /networks/{id}`: with the containers that are in it now. Raises NotFound, InvalidParameter."""
        found: dict[str, Any] = self._session.json("GET", f"/networks/{reference}")
        return found

    def remove(self, reference: str) -> str:
        """Remove a network; its id. Raises NotFound, Forbidden if it is predefined or a running container is in it."""
        identifier = str(self.inspect(reference)["Id"])
        self._session.ask("DELETE", f"/networks/{identifier}")
        return identifier

    def connect(self, network: str, container: str, settings: Mapping[str, Any] | None = None) -> None:
        """Put a container into a network. settings: an EndpointSettings. Raises NotFound, Forbidden, InvalidParameter."""
        body = {"Container": container, "EndpointConfig": dict(settings or {})}
        self._session.ask("POST", f"/networks/{network}/connect", body=body)

    def disconnect(self, network: str, container: str, force: bool = False) -> None:
        """Take a container out of a network. Raises NotFound, Forbidden (it is not in it)."""
        self._session.ask("POST", f"/networks/{network}/disconnect", body={"Container": container, "Force": force})

    def prune(self, filters: Filters | None = None) -> dict[str, Any]:
        """Remove the networks that no running container is in: {"NetworksDeleted": [names]}."""
        done = self._session.json("POST", "/networks/prune", {"filters": encoded(filters)})
        return {"NetworksDeleted": done["NetworksDeleted"] or []}
