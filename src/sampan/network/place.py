"""Where the keeper of one network finds what it needs: the paths of that network, as its command line carries them."""

from __future__ import annotations

from sampan.structs import Struct


class Place(Struct):
    """The paths of a network's keeper. Names below these directories are `store.layout`'s (`NetworkPaths`, `ContainerPaths`).

    network: the id. networks: the directory of all networks' records, for a container may be in several. run_directory: this one's.
    containers: the directory of all containers, by whose starts a new keeper finds their namespaces. resolv_conf: the host's.
    """

    network: str
    networks: str
    run_directory: str
    containers: str
    resolv_conf: str = "/etc/resolv.conf"

    @classmethod
    def from_arguments(cls, arguments: list[str]) -> Place:
        """What `arguments` gave."""
        return cls(*arguments)

    def arguments(self) -> list[str]:
        """The keeper's arguments."""
        return [self.network, self.networks, self.run_directory, self.containers, self.resolv_conf]

    @property
    def record(self) -> str:
        return f"{self.networks}/{self.network}/network.json"

    @property
    def endpoints(self) -> str:
        return f"{self.networks}/{self.network}/endpoints"

    @property
    def lock(self) -> str:
        return f"{self.networks}/{self.network}/lock"

    @property
    def keeper_lock(self) -> str:
        return f"{self.run_directory}/keeper.lock"

    @property
    def socket(self) -> str:
        return f"{self.run_directory}/keeper.socket"

    @property
    def journal(self) -> str:
        """What went wrong in the keeper, a line each."""
        return f"{self.run_directory}/keeper.log"

    def started(self, container: str, start: int) -> str:
        """The file in which a shim wrote who its container's init is."""
        return f"{self.containers}/{container}/starts/{start}/started"
