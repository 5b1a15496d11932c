"""A host made of a network namespace, with containers that are namespaces with a process, and a network's records on disk.

What a keeper needs is there as a start leaves it: records, endpoints, the file that says who init is. Nothing touches the
machine's own network.
"""

from __future__ import annotations

import _socket
import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sampan.kernel import links, namespaces, netlink, process
from sampan.network import keeperlink
from sampan.network.keeperlink import Keeper, Place
from sampan.oci.network import Endpoint, Network, PublishedPort
from sampan.runtime import launcher

from support.patience import eventually

T = TypeVar("T")
OUTSIDE = "10.99.0.1"
"""An address of the host's that is none of its loopback's: where the test's own resolver listens."""


def within(namespace: int, function: Callable[[], T]) -> T:
    """Run `function` in a network namespace."""

    def body() -> T:
        namespaces.setns(namespace, namespaces.CLONE_NEWNET)
        return function()

    return namespaces.in_thread(body)


def new_namespace() -> int:
    """A network namespace whose loopback link is up."""

    def make() -> int:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        with netlink.Socket() as socket:
            links.set_up(socket, 1)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return namespaces.in_thread(make)


def keeper_of(network: str) -> int:
    """The pid of a network's keeper, 0 if there is none."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                arguments = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if network.encode() in arguments and state != "Z":
                return int(entry)
    return 0


class Box:
    """A container as a keeper sees it: a network namespace, an init, an endpoint."""

    def __init__(self, host: Host, name: str, number: int, init: bool = True) -> None:
        self.host = host
        self.name = name
        self.id = secrets.token_hex(32)
        self.namespace = new_namespace()
        self.address = f"10.77.{number}.2"
        self._connect(number)
        self.init: subprocess.Popen[bytes] | None = None
        self.link = -1
        if init:
            self.begin()

    def _connect(self, number: int) -> None:
        def ours() -> None:
            with netlink.Socket() as socket:
                links.add_veth(socket, f"v{number}", "eth0", self.namespace)
                found = links.find(socket, f"v{number}")
                assert found is not None
                links.add_address(socket, found.index, f"10.77.{number}.1", 24)
                links.set_up(socket, found.index)

        def theirs() -> None:
            with netlink.Socket() as socket:
                found = links.find(socket, "eth0")
                assert found is not None
                links.add_address(socket, found.index, self.address, 24)
                links.set_up(socket, found.index)
                links.add_route(socket, gateway=f"10.77.{number}.1")

        within(self.host.namespace, ours)
        within(self.namespace, theirs)

    def begin(self) -> None:
        """Start its init, and write down who it is, as a shim does."""
        self.init = subprocess.Popen(
            ["nsenter", f"--net=/proc/self/fd/{self.namespace}", "sleep", "1000"], pass_fds=[self.namespace]
        )
        start = self.host.directory / "containers" / self.id / "starts" / "1"
        start.mkdir(parents=True)
        told = {"pid": self.init.pid, "pid_start": process.start_time(self.init.pid)}
        (start / "started").write_text(json.dumps(told))

    def end(self) -> None:
        """As when its shim ends: the process is gone, and the line closed."""
        if self.init is not None:
            self.init.kill()
            self.init.wait()
            self.init = None
        self.hang_up()

    def hang_up(self) -> None:
        if self.link >= 0:
            os.close(self.link)
            self.link = -1

    def socket(self, kind: int = _socket.SOCK_DGRAM) -> Any:
        """A socket in the container."""
        made = within(self.namespace, lambda: _socket.socket(_socket.AF_INET, kind | _socket.SOCK_CLOEXEC))
        made.settimeout(10)
        return made

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A program in the container's network namespace."""
        whole = ["nsenter", f"--net=/proc/self/fd/{self.namespace}", *command]
        return subprocess.run(whole, pass_fds=[self.namespace], capture_output=True, text=True, timeout=30)

    def close(self) -> None:
        self.end()
        if self.namespace >= 0:
            os.close(self.namespace)
            self.namespace = -1


class Host:
    """A network namespace as the machine, with networks and containers in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.namespace = new_namespace()
        self.boxes: list[Box] = []
        self.networks = directory / "networks"
        self.networks.mkdir()
        (directory / "containers").mkdir()
        self.resolv_conf = directory / "resolv.conf"
        self.resolv_conf.write_text(f"nameserver {OUTSIDE}\n")

        def outside() -> None:
            with netlink.Socket() as socket:
                links.add_address(socket, 1, OUTSIDE, 32)

        within(self.namespace, outside)

    def network(self, name: str = "net", **fields: Any) -> Place:
        """Write the record of a network."""
        network = Network(secrets.token_hex(32), name, "bridge", "2026-01-02T03:04:05Z", "br0", **fields)
        directory = self.networks / network.id
        (directory / "endpoints").mkdir(parents=True)
        (directory / "lock").touch()
        (directory / "network.json").write_text(json.dumps(network.to_json()))
        return Place(
            network.id, str(self.networks), str(self.directory / "run" / network.id), str(self.directory / "containers"),
            str(self.resolv_conf),
        )  # fmt: skip

    def box(self, name: str, init: bool = True) -> Box:
        """A container that is in no network yet."""
        box = Box(self, name, len(self.boxes) + 1, init)
        self.boxes.append(box)
        return box

    def put(self, place: Place, box: Box, *names: str, address: str = "", **fields: Any) -> Endpoint:
        """Write an endpoint, as the store does: whole, by a rename."""
        endpoint = Endpoint(
            box.id, 1, secrets.token_hex(32), "eth0", "veth0", "02:42:0a:4d:01:02", address or box.address, 24,
            names=names or (box.name,), **fields,
        )  # fmt: skip
        path = Path(place.endpoints) / f"{box.id}.json"
        temporary = path.with_name(f".{box.id}")
        temporary.write_text(json.dumps(endpoint.to_json()))
        temporary.rename(path)
        return endpoint

    def drop(self, place: Place, box: Box) -> None:
        """Remove an endpoint."""
        (Path(place.endpoints) / f"{box.id}.json").unlink()

    def ensure(self, place: Place) -> Keeper:
        """A connection with the keeper, which lives on this host."""
        return within(self.namespace, lambda: keeperlink.ensure(place, launcher.spawn_apart))

    def join(
        self, place: Place, box: Box, *names: str, ports: tuple[tuple[PublishedPort, Any], ...] = (), **fields: Any
    ) -> None:
        """What a start does: the endpoint, the sockets for names, and all of it handed over."""
        self.put(place, box, *names, ports=tuple(port for port, _ in ports), **fields)
        made = keeperlink.open_sockets(box.namespace)
        with self.ensure(place) as keeper:
            box.hang_up()
            box.link = keeper.hand_over(box.id, 1, made, ports)
        made.close()
        for _, bound in ports:
            bound.close()

    def run(self, *command: str) -> str:
        """What a program says that runs on this host."""
        whole = ["nsenter", f"--net=/proc/self/fd/{self.namespace}", *command]
        return subprocess.run(
            whole, pass_fds=[self.namespace], capture_output=True, check=True, text=True, timeout=30
        ).stdout

    def keeper_pid(self, place: Place) -> int:
        """The keeper's pid, 0 if there is none."""
        return keeper_of(place.network)

    def kill_keeper(self, place: Place) -> int:
        """SIGKILL it; its pid."""
        pid = self.keeper_pid(place)
        assert pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not os.path.exists(f"/proc/{pid}"))
        return pid

    def close(self) -> None:
        """End all, and see that the keepers leave by themselves."""
        for box in self.boxes:
            box.close()
        places = []
        for directory in self.networks.iterdir():
            for endpoint in (directory / "endpoints").iterdir():
                endpoint.unlink()
            places.append(Place(directory.name, str(self.networks), "", ""))
        for place in places:
            eventually(lambda place=place: not self.keeper_pid(place))  # type: ignore[misc]
        os.close(self.namespace)


def packed(name: str) -> bytes:
    """A name as DNS writes it."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def query(name: str, kind: int = 1, identifier: int = 7, edns: int = 0) -> bytes:
    """A question; edns: the size that it offers in an OPT record, 0 for none."""
    extra = b"\0" + (41).to_bytes(2, "big") + edns.to_bytes(2, "big") + bytes(6) if edns else b""
    head = identifier.to_bytes(2, "big") + b"\x01\x00\0\x01\0\0\0\0" + (b"\0\x01" if edns else b"\0\0")
    return head + packed(name) + kind.to_bytes(2, "big") + b"\0\x01" + extra


class Reply:
    """An answer, read by the test's own reader. records: (name, type, time to live, data), of all sections but OPT."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.identifier = int.from_bytes(data[:2], "big")
        self.flags = int.from_bytes(data[2:4], "big")
        self.rcode = self.flags & 15
        self.truncated = bool(self.flags & 0x200)
        self.records: list[tuple[str, int, int, bytes]] = []
        self.opt: bytes | None = None
        at = 12
        for _ in range(int.from_bytes(data[4:6], "big")):
            at = self._name(at)[1] + 4
        for _ in range(sum(int.from_bytes(data[i : i + 2], "big") for i in (6, 8, 10))):
            name, at = self._name(at)
            kind, ttl = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 4 : at + 8], "big")
            length = int.from_bytes(data[at + 8 : at + 10], "big")
            rdata = data[at + 10 : at + 10 + length]
            assert len(rdata) == length
            if kind == 12:
                rdata = self._name(at + 10)[0].encode()
            if kind == 41:
                self.opt = data[at - 1 : at + 10 + length]
            else:
                self.records.append((name, kind, ttl, rdata))
            at += 10 + length
        assert at == len(data)

    def _name(self, at: int) -> tuple[str, int]:
        labels, end = [], 0
        while self.data[at]:
            if self.data[at] >= 0xC0:
                end = end or at + 2
                at = int.from_bytes(self.data[at : at + 2], "big") & 0x3FFF
                continue
            labels.append(self.data[at + 1 : at + 1 + self.data[at]].decode())
            at += 1 + self.data[at]
        return ".".join(labels), end or at + 1

    @property
    def addresses(self) -> list[str]:
        families = {1: _socket.AF_INET, 28: _socket.AF_INET6}
        return [_socket.inet_ntop(families[kind], data) for _, kind, _, data in self.records if kind in families]


def ask(box: Box, name: str, kind: int = 1, edns: int = 0, timeout: float = 10) -> Reply:
    """Ask in a container, over UDP."""
    socket = box.socket()
    try:
        socket.settimeout(timeout)
        socket.connect(("127.0.0.11", 53))
        socket.send(query(name, kind, edns=edns))
        return Reply(socket.recv(65535))
    finally:
        socket.close()


def ask_stream(box: Box, *questions: bytes) -> list[Reply]:
    """Ask in a container, over one TCP connection, all at once."""
    socket = box.socket(_socket.SOCK_STREAM)
    try:
        socket.connect(("127.0.0.11", 53))
        socket.sendall(b"".join(len(q).to_bytes(2, "big") + q for q in questions))
        return [Reply(exactly(socket, int.from_bytes(exactly(socket, 2), "big"))) for _ in questions]
    finally:
        socket.close()


def exactly(socket: Any, count: int) -> bytes:
    """So many bytes of a stream; fewer at its end."""
    data = b""
    while len(data) < count:
        more = socket.recv(count - len(data))
        if not more:
            return data
        data += more
    return data


class Resolver:
    """A name server of the test's own. answer: (question as bytes, client) -> the datagrams to send back, over UDP and TCP alike."""

    def __init__(self, namespace: int, address: str, answer: Callable[[bytes], list[bytes]]) -> None:
        self.asked: list[tuple[bytes, Any]] = []
        self._answer = answer

        def make(kind: int) -> Any:
            made = _socket.socket(_socket.AF_INET, kind | _socket.SOCK_CLOEXEC)
            made.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            made.bind((address, 53))
            return made

        self.udp = within(namespace, lambda: make(_socket.SOCK_DGRAM))
        self.tcp = within(namespace, lambda: make(_socket.SOCK_STREAM))
        self.udp.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, 1 << 20)
        self.tcp.listen(64)
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def _serve_udp(self) -> None:
        while True:
            try:
                data, client = self.udp.recvfrom(65535)
            except OSError:
                return
            if not data:
                return  # shut down
            self.asked.append((data, client))
            for answer in self._answer(data):
                try:
                    self.udp.sendto(answer, client)
                except OSError:
                    return

    def _serve_tcp(self) -> None:
        while True:
            try:
                fd, client = self.tcp._accept()
            except OSError:
                return
            connection = _socket.socket(fileno=fd)
            data = exactly(connection, int.from_bytes(exactly(connection, 2), "big"))
            self.asked.append((data, client))
            for answer in self._answer(data):
                connection.sendall(len(answer).to_bytes(2, "big") + answer)
            connection.close()

    def close(self) -> None:
        for each in (self.udp, self.tcp):
            try:
                each.shutdown(_socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        for thread in self._threads:
            thread.join(5)


def name_of(data: bytes) -> str:
    """What a question asks for."""
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode("latin-1"))
        at += 1 + data[at]
    return ".".join(labels)


def reply_to(data: bytes, *records: bytes, rcode: int = 0, flags: int = 0, authorities: int = 0) -> bytes:
    """An answer with these records, of which the last `authorities` are in that section."""
    end = data.index(b"\0", 12) + 5
    counts = b"\0\x01" + (len(records) - authorities).to_bytes(2, "big") + authorities.to_bytes(2, "big") + b"\0\0"
    return data[:2] + (0x8180 | flags | rcode).to_bytes(2, "big") + counts + data[12:end] + b"".join(records)


def record(kind: int, data: bytes, ttl: int = 60) -> bytes:
    """A record of the name that was asked for."""
    return (
        b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\x01" + ttl.to_bytes(4, "big") + len(data).to_bytes(2, "big") + data
    )


@contextmanager
def resolver(host: Host, answer: Callable[[bytes], list[bytes]], address: str = OUTSIDE) -> Iterator[Resolver]:
    """A resolver on the host."""
    made = Resolver(host.namespace, address, answer)
    try:
        yield made
    finally:
        made.close()


def since(begun: float) -> float:
    """Seconds since then."""
    return time.monotonic() - begun
