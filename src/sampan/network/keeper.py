"""The keeper of one network: a process that holds what has to live on, and is there as long as the network has endpoints.

Nothing is only in it: it is made of the network's record and endpoints, and of sockets that can be made again. A keeper that was
started by a shim, because the one before was killed, finds the namespaces of running containers by their inits, and binds their sockets anew.
"""

from __future__ import annotations

import _socket
import errno
import os
import sys
import time

from sampan import jsontext
from sampan.errors import SampanError
from sampan.kernel import clock, files, inotify, placement, process
from sampan.network import keeperlink, loop, ports, wire
from sampan.network.budget import Budget, raise_limit
from sampan.network.forward import Forwarder
from sampan.network.guard import Guard
from sampan.network.kept import Kept
from sampan.network.loop import Loop
from sampan.network.members import Directory
from sampan.network.place import Place
from sampan.oci.network import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any
else:
    import _signal

CONTROL_FD = 3
"""What whoever started us gave us: a command's connection, or the end of a shim's line."""
LOOK_SECONDS = 2.0
"""How often it looks at its endpoints without being told to."""
_LEAVE_SECONDS = 0.5
"""Between the first look that finds no endpoint and the end: a start may be about to write one."""
_HOST_SECONDS = 1.0
_JOURNAL_BYTES = 1 << 16


class Services:
    """What all of a keeper's containers share."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.loop = Loop(self.failed)
        self.budget = Budget(raise_limit())
        self.directory = Directory(place.networks, place.network)
        self.forwarder = Forwarder(self.loop, self.budget)
        self._host: tuple[float, Any, tuple[str, ...]] = (0.0, None, ())

    def failed(self, error: BaseException) -> None:
        """Write down what went wrong: nobody waits for an answer of ours who could be told."""
        places = []
        trace = error.__traceback__
        while trace is not None:
            places.append(f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
            trace = trace.tb_next
        self.note(f"{type(error).__name__}: {error} ({' < '.join(reversed(places))})")

    def note(self, text: str) -> None:
        """Append a line to keeper.log; with too many, it begins anew."""
        line = f"{clock.now()} {text}\n".encode("utf-8", "replace")
        try:
            fd = os.open(
                self.place.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            try:
                if os.fstat(fd).st_size > _JOURNAL_BYTES:
                    os.ftruncate(fd, 0)
                os.write(fd, line)
            finally:
                os.close(fd)
        except OSError:
            pass

    def host_servers(self) -> tuple[str, ...]:
        """The name servers of the host's resolv.conf(5), as it is now."""
        looked, stamp, servers = self._host
        now = time.monotonic()
        if now - looked < _HOST_SECONDS and looked:
            return servers
        try:
            status = os.stat(self.place.resolv_conf)
            found = (status.st_ino, status.st_mtime_ns, status.st_size)
            if found != stamp:
                servers = name_servers(files.read_small(self.place.resolv_conf))
                stamp = found
        except OSError:
            servers, stamp = (), None
        self._host = (now, stamp, servers)
        return servers


def name_servers(text: bytes) -> tuple[str, ...]:
    """The addresses of the `nameserver` lines of a resolv.conf(5), at most three."""
    found = []
    for line in text.decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            found.append(words[1])
    return tuple(found[:3])


class Keeper:
    """The process, from its first message to the last endpoint."""

    def __init__(self, place: Place) -> None:
        self.services = Services(place)
        self._place = place
        self._loop = self.services.loop
        self._kept: dict[str, Kept] = {}
        self._connections: dict[int, Any] = {}
        self._listener: Any = None
        self._lock = -1
        self._guard: Guard | None = None
        self._empty_since = 0.0
        self._left = False

    # the beginning

    def begin(self, listener: Any, lock: int) -> None:
        """Serve from now on: `listener` and `lock` are ours. What is there without us is restored."""
        self._listener, self._lock = listener, lock
        listener.setblocking(False)
        self._loop.watch(listener.fileno(), loop.READ, self._accept)
        self._watch_endpoints()
        self._guard = Guard(
            self._loop, self._place.network, self.services.directory.own, self._place.lock, self.services.failed
        )
        self._loop.after(LOOK_SECONDS, self._look_again)

    def catch_up(self) -> None:
        """Take in what commands have said already; not for long, for containers may ask without a pause."""
        until = time.monotonic() + 0.5
        while self._loop.run_once(0) and time.monotonic() < until:
            pass

    def serve(self) -> None:
        """Until the network is empty."""
        while not self._left:
            self._loop.run_once()

    def _watch_endpoints(self) -> None:
        try:
            fd = inotify.open_watch(self._place.endpoints)
        except OSError as e:
            if e.errno not in (errno.EMFILE, errno.ENOSPC, errno.ENFILE, errno.ENOENT, errno.ENOSYS):
                raise
            return  # it is looked at every other second then

        def changed(_events: int) -> None:
            inotify.drain(fd)
            self.look()

        self._loop.watch(fd, loop.READ, changed)

    def restore(self) -> None:
        """Bind anew what a keeper before us held, for every container that runs."""
        for endpoint in self.services.directory.own.all():
            if endpoint.container not in self._kept:
                self._try_to_restore(endpoint)

    def _try_to_restore(self, endpoint: Endpoint) -> None:
        try:
            self._restore(endpoint)
        except (OSError, SampanError) as e:
            self.services.note(f"cannot restore {endpoint.container[:12]}: {e}")

    def _restore(self, endpoint: Endpoint) -> None:
        pid = self._init(endpoint)
        if not pid:
            return
        kept = self._keep(endpoint.container, endpoint.start)
        network = self.services.directory.own.network
        if network is not None and not network.is_default and self._answers(endpoint.container):
            kept.restore_names(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        for port in endpoint.ports:
            if not port.host_port:
                continue  # nothing of this host's
            try:
                for bound in ports.bind_again([port]).sockets:
                    if bound is not None:
                        kept.publish(port, bound)
            except (OSError, SampanError) as e:
                # Somebody was quicker. The firewall goes on sending the packets to the container.
                self.services.note(f"cannot publish again for {endpoint.container[:12]}: {e}")

    def _answers(self, container: str) -> bool:
        """Whether it is us who answers a container's names."""
        networks = [network for _, network, _ in self.services.directory.of_container(container)]
        return keeperlink.names_network(networks) == self._place.network

    def _init(self, endpoint: Endpoint) -> int:
        """The pid of a container's init, 0 if it does not run (any more)."""
        try:
            told = jsontext.loads(files.read_small(self._place.started(endpoint.container, endpoint.start)))
            return int(told["pid"]) if process.lives(told["pid"], told["pid_start"]) else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    # what commands say

    def _accept(self, _events: int) -> None:
        try:
            fd, _ = self._listener._accept()
        except OSError as e:
            if e.errno in (errno.EMFILE, errno.ENFILE):
                self._loop.forget(self._listener.fileno())
                self._loop.after(0.2, self._listen_again)
            return
        self.connect(_socket.socket(fileno=fd))

    def _listen_again(self) -> None:
        if not self._left:
            self._loop.watch(self._listener.fileno(), loop.READ, self._accept)

    def connect(self, connection: Any) -> None:
        """Take in a command's connection."""
        connection.setblocking(False)
        self._connections[connection.fileno()] = connection
        self._loop.watch(connection.fileno(), loop.READ, lambda _: self._hear(connection))

    def _hear(self, connection: Any) -> None:
        try:
            received = wire.receive(connection)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self._loop.forget(connection.fileno())
            del self._connections[connection.fileno()]
            connection.close()
            return
        self._obey(connection, *received)

    def _obey(self, connection: Any, message: dict[str, Any], descriptors: list[int]) -> None:
        kind = message.get("kind")
        if kind in (wire.ADD, wire.MORE):
            self._take(kind, message, descriptors)
            return
        if kind == wire.LINE and len(descriptors) == 1:
            self.add_link(message["container"], descriptors[0])
            return
        for fd in descriptors:
            os.close(fd)
        if kind == wire.LOOK:
            self.look()
            try:
                wire.send(connection, wire.LOOKED)
            except OSError:
                pass  # it did not wait for it

    def _take(self, kind: str, message: dict[str, Any], descriptors: list[int]) -> None:
        container, start = message["container"], message["start"]
        before = self._kept.get(container)
        if before is not None and kind == wire.MORE and before.start == start:
            kept, before = before, None
        else:
            kept = self._keep(container, start)
        try:
            kept.take(message["what"], descriptors)
            # A keeper may have restored it between the making of these and now: its rules lead past them.
            kept.lead_names()
            if before is not None:
                before.answer_waiting()
        except (OSError, ValueError, TypeError) as e:
            self.services.note(f"cannot keep all of {container[:12]}: {e}")
            kept.close()  # with its line: by that its shim sees that something has to be made anew
        finally:
            if before is not None:
                before.close()

    def add_link(self, container: str, link: int) -> None:
        """A shim's line, instead of the one that it had with the keeper before us."""
        endpoint = self.services.directory.own.find(container)
        if container not in self._kept and endpoint is not None:
            self._try_to_restore(endpoint)  # what was handed over when it started was lost with the keeper before us
        kept = self._kept.get(container)
        if kept is not None:
            kept.take_link(link)
        elif endpoint is not None:
            self._keep(container, endpoint.start).take_link(link)  # it is told of our end all the same
        else:
            os.close(link)  # not in the network any more

    def _keep(self, container: str, start: int) -> Kept:
        kept = self._kept[container] = Kept(self.services, container, start, self._forget)
        self._empty_since = 0.0
        return kept

    def _forget(self, kept: Kept) -> None:
        if self._kept.get(kept.container) is kept:
            del self._kept[kept.container]
        self._loop.after(0, self.look)

    # the end

    def _look_again(self) -> None:
        self.look()
        self._loop.after(LOOK_SECONDS, self._look_again)

    def look(self) -> None:
        """Let go of what has no endpoint any more; leave when there is none at all."""
        own = self.services.directory.own
        known = {endpoint.container: endpoint for endpoint in own.all()}
        for kept in list(self._kept.values()):
            endpoint = known.get(kept.container)
            if endpoint is None or endpoint.start != kept.start or not (kept.has_link or self._init(endpoint)):
                kept.close()
        if known or self._kept:
            self._empty_since = 0.0
        elif not self._empty_since:
            self._empty_since = time.monotonic()
            self._loop.after(_LEAVE_SECONDS, self._leave_if_empty)

    def _leave_if_empty(self) -> None:
        if not self._empty_since or self._left:
            return
        try:
            # Endpoints are written under this lock, and before anybody asks for us: with it, nobody is about to.
            lock = files.FileLock.acquire(self._place.lock, 0, make=False)
        except BlockingIOError:
            self._loop.after(_LEAVE_SECONDS, self._leave_if_empty)
            return
        except OSError:
            lock = None  # the network is gone
        try:
            self.services.directory.own.look()
            if not self.services.directory.own.all():
                self._leave()
        finally:
            if lock is not None:
                lock.release()

    def _leave(self) -> None:
        self._left = True
        for path in (self._place.socket, self._place.journal):
            try:
                os.unlink(path)
            except OSError:
                pass
        self._listener.close()
        os.close(self._lock)


def main(arguments: list[str]) -> None:
    """The process and nothing else. Arguments: a number of cgroup paths and these, a `Place`, and if a shim started us its container's id and how many before us failed."""
    count = int(arguments[0])
    groups, rest = arguments[1 : 1 + count], arguments[1 + count :]
    if not placement.fork_away(groups[0] if groups else "", groups[1:]):
        os._exit(0)
    process.close_range(CONTROL_FD + 1)
    os.setsid()
    os.umask(0o077)
    os.chdir("/")
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGQUIT, _signal.SIGPIPE):
        _signal.signal(number, _signal.SIG_IGN)  # it ends with its network, or by SIGKILL
    process.set_name("sampan-keeper")
    process.set_dumpable(False)
    placement.be_spared()
    if len(rest) > 6:
        time.sleep(min(0.1 * 2 ** min(int(rest[6]), 10), 30))  # the one before us ended at once, too
    sys.stdin = sys.stdout = sys.stderr = None
    place = Place(*rest[:5])
    keeper = Keeper(place)
    try:
        if (_begin_for_shim if len(rest) > 5 else _begin_for_command)(keeper, place, *rest[5:6]):
            keeper.serve()
    except BaseException as e:
        keeper.services.failed(e)
        os._exit(1)
    os._exit(0)


def _begin_for_command(keeper: Keeper, place: Place) -> bool:
    """The command has our lock and has made our socket: both come first."""
    connection = _socket.socket(fileno=CONTROL_FD)
    received = wire.receive(connection)
    if received is None or received[0].get("kind") != wire.LISTEN or len(received[1]) != 2:
        return False  # it was killed before it could say anything
    listener, lock = received[1]
    keeper.begin(_socket.socket(fileno=listener), lock)
    keeper.connect(connection)
    keeper.catch_up()  # before others are restored, so that none of these is
    keeper.restore()
    keeper.look()
    return True


def _begin_for_shim(keeper: Keeper, place: Place, container: str) -> bool:
    """The keeper before was killed: its place is ours, or somebody's who was quicker, who then gets the shim's line."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lock = keeperlink.take_lock(place)
        if lock >= 0:
            keeper.begin(keeperlink.listen(place), lock)
            keeper.restore()
            keeper.add_link(container, CONTROL_FD)
            keeper.look()
            return True
        found = keeperlink.find(place)
        if found is not None:
            with found:
                found.pass_link(container, CONTROL_FD)
            return False
        time.sleep(0.01)
    return False
