"""A command's side of a network's keeper: it makes sure that there is one, and hands over what is to live on.

How a start uses it, for each network whose endpoint needs a keeper (`needs_keeper`). The endpoint's record is written before: by it the
keeper knows the container's address and names, and stays.

    place = Place(network.id, layout.networks, paths.run_directory, layout.containers)
    names = open_sockets(namespace)             # `namesockets`: in the container's namespace, for ONE of its networks (`names_network`)
    keeper = keeperlink.ensure(place, launcher.spawn_apart)
    link = keeper.hand_over(container, start, names, [(published_port, bound_socket), ...])
    names.close(); (close the ports' sockets)   # the keeper has its own descriptors of them
    ... the plan gets restart_command(place, container, interpreter) and the descriptor `link`; then os.close(link) ...
    keeper.close()                              # when the container runs, or failed: the interpreter had its time by then

The ports' sockets are bound; the keeper listens on those of TCP and relays what the firewall does not lead past them. If the start
fails, closing `link` takes all of it back. `connect` does the same with a container that runs. `disconnect` drops the endpoint's
record, calls `look`, and if names were answered for that network, hands over new sockets to another one's keeper.

A `System` or `Unavailable` from here is about one network; nothing is left behind by it.
"""

from __future__ import annotations

import errno
import os
import time

from sampan.errors import System, Unavailable
from sampan.kernel.directories import make_private
from sampan.kernel.files import lock_opened
from sampan.network import wire
from sampan.network.namesockets import NameSockets, open_sockets
from sampan.network.place import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Self

    from sampan.oci.network import Endpoint, Network, PublishedPort

    Spawn = Callable[[str, list[str], int], int]
else:
    import _socket

__all__ = ["Keeper", "Place", "ensure", "find", "names_network", "needs_keeper", "open_sockets", "restart_command"]

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
_WAITING = 512
"""Commands that wait for a keeper to accept them."""
_PATIENCE = 10.0
"""Seconds that a keeper may take to listen, to take a message, and to answer."""


def needs_keeper(network: Network, endpoint: Endpoint) -> bool:
    """Whether anything of this endpoint has to live on: names are answered in all networks but the default one."""
    return not network.is_default or bool(endpoint.ports)


def names_network(networks: Iterable[Network]) -> str:
    """The id of the network whose keeper answers the names of a container that is in all of `networks`; "" for none."""
    return min((network.id for network in networks if not network.is_default), default="")


def restart_command(place: Place, container: str, interpreter: Sequence[str]) -> tuple[str, ...]:
    """What a shim executes when the keeper has gone. interpreter: the command line of one that runs our scripts."""
    return (*interpreter, SCRIPT, "0", *place.arguments(), container)  # it is born in the shims' cgroup


def ensure(place: Place, spawn: Spawn) -> Keeper:
    """A connection with the network's keeper; one is started if there is none, and not waited for.

    Raises System when none can be started, Unavailable when there is one that does not listen.
    """
    try:
        return _ensure(place, spawn)
    except OSError as e:
        raise _failure(place, e) from None


def _failure(place: Place, error: OSError) -> System:
    where = " ".join(str(part) for part in (getattr(error, "syscall", ""), error.filename) if part)
    reason = (error.strerror or str(error)).lower()
    return System(f"cannot start the keeper of network {place.network[:12]}: {where + ': ' if where else ''}{reason}")


def _ensure(place: Place, spawn: Spawn) -> Keeper:
    make_private(place.run_directory)
    deadline = time.monotonic() + _PATIENCE
    while True:
        lock = take_lock(place)
        if lock >= 0:
            try:
                return _begin(place, lock, spawn)
            finally:
                os.close(lock)
        # Somebody has the lock: it listens, is about to, or is about to end.
        found = find(place, spawn)
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the keeper of network {place.network[:12]} does not listen on {place.socket}: "
                "kill the process sampan-keeper that has this network's id in its command line, and try again"
            )
        time.sleep(0.002)


def find(place: Place, spawn: Spawn | None = None) -> Keeper | None:
    """A connection with the keeper if there is one that listens. spawn: as with `ensure`, for when it is killed meanwhile."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        # Its backlog is full when it has stopped; this gives up then, and keeps trying above.
        connection.settimeout(_PATIENCE)
        with_directory(place.run_directory, "keeper.socket", connection.connect)
    except (FileNotFoundError, ConnectionRefusedError, TimeoutError, BlockingIOError):
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return Keeper(connection, 0, place, spawn)


def take_lock(place: Place) -> int:
    """A descriptor with the flock(2) that says that there is a keeper, -1 if there is one. Raises OSError."""
    return lock_opened(os.open(place.keeper_lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def listen(place: Place) -> Any:
    """The keeper's listening socket, for whoever has its lock: what a killed one left is replaced. Raises OSError."""
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        try:
            os.unlink(place.socket)
        except FileNotFoundError:
            pass
        with_directory(place.run_directory, "keeper.socket", listener.bind)
        listener.listen(_WAITING)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def with_directory(directory: str, name: str, function: Callable[[str], Any]) -> None:
    """Call `function` with a path of `name` that is short enough for a sun_path, however long the directory's is."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        function(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def _begin(place: Place, lock: int, spawn: Spawn) -> Keeper:
    listener = listen(place)
    ours, theirs = wire.pair()
    try:
        ours.settimeout(_PATIENCE)
        pid = spawn(SCRIPT, place.arguments(), theirs.fileno())
        keeper = Keeper(ours, pid, place, spawn)
        wire.send(ours, wire.LISTEN, [listener.fileno(), lock])
    except BaseException:
        ours.close()
        raise
    finally:
        listener.close()
        theirs.close()
    return keeper


class Keeper:
    """A connection with a keeper."""

    def __init__(self, connection: Any, pid: int, place: Place, spawn: Spawn | None) -> None:
        self._connection = connection
        self._pid = pid
        self._place = place
        self._spawn = spawn

    def hand_over(
        self,
        container: str,
        start: int,
        names: NameSockets | None = None,
        ports: Sequence[tuple[PublishedPort, Any]] = (),
        line: bool = True,
    ) -> int:
        """Give the keeper what it is to keep for a container's start, instead of what it has of that container.

        line: whether the shim can be given one; if not (it runs already), it is kept beside what it has of that start, the keeper looks
        after the container's init, and -1 is returned. Else the descriptor of a line that the container's shim is to keep: at its end the keeper lets all of it go. ports: with what has a
        `fileno`. Raises Unavailable, System.
        """
        what: list[Any] = []
        descriptors: list[int] = []
        if names is not None:
            what += [wire.NAMESPACE, wire.UDP, wire.TCP]
            descriptors += [names.namespace, names.udp.fileno(), names.tcp.fileno()]
        what += [[wire.PORT, port.to_json()] for port, _ in ports]
        descriptors += [bound.fileno() for _, bound in ports]
        for last in (False, False, True):
            try:
                return self._hand_over(container, start, what, descriptors, line)
            except Unavailable:
                if last or self._spawn is None:
                    raise
                self._begin_again(self._spawn)
        raise AssertionError("the last attempt returns or raises")

    def _hand_over(self, container: str, start: int, what: list[Any], descriptors: list[int], line: bool) -> int:
        ours, theirs = wire.pair()
        try:
            if line:
                what, descriptors = [wire.LINK, *what], [theirs.fileno(), *descriptors]
            for at in range(0, max(len(what), 1), wire.DESCRIPTORS):
                upto = at + wire.DESCRIPTORS
                kind = wire.ADD if line and not at else wire.MORE
                self._send(kind, descriptors[at:upto], container=container, start=start, what=what[at:upto])
            return os.dup(ours.fileno()) if line else -1
        finally:
            ours.close()
            theirs.close()

    def _begin_again(self, spawn: Spawn) -> None:
        """It was killed: with the next one."""
        self.close()
        other = ensure(self._place, spawn)
        self._connection, self._pid = other._connection, other._pid

    def pass_link(self, container: str, link: int) -> None:
        """Give it the line of a container's shim, whose own keeper has gone. Raises Unavailable."""
        self._send(wire.LINE, [link], container=container)

    def look(self) -> None:
        """Tell it that endpoints have changed, and wait until it has seen that; one that has left has nothing to see. Raises Unavailable."""
        try:
            self._send(wire.LOOK)
            wire.receive(self._connection)
        except TimeoutError:
            raise self._gone(errno.ETIMEDOUT) from None
        except (OSError, ValueError, Unavailable):
            return

    def close(self) -> None:
        """Let go of it; of an interpreter that this connection started, the first of its two forks is waited for."""
        self._connection.close()
        if self._pid:
            try:
                os.waitpid(self._pid, 0)
            except ChildProcessError:
                pass  # the program that uses the library reaps all its children by itself
            self._pid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, kind: str, descriptors: Sequence[int] = (), **fields: Any) -> None:
        try:
            wire.send(self._connection, kind, descriptors, **fields)
        except OSError as e:
            raise self._gone(e.errno or errno.ETIMEDOUT) from None

    def _gone(self, number: int) -> Unavailable:
        network = self._place.network[:12]
        if number in (errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.ENOTCONN):
            return Unavailable(f"the keeper of network {network} was killed, try again")
        return Unavailable(f"the keeper of network {network} does not answer: {os.strerror(number).lower()}")
