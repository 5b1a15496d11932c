"""A network's keeper: a process of its own between namespaces, as the commands that start containers use it."""

from __future__ import annotations

import _socket
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import System
from sampan.kernel import namespaces, netlink
from sampan.network import bridge, firewall, keeperlink, ports
from sampan.oci.network import Endpoint, Network, PublishedPort
from sampan.runtime import sealed
from sampan.shim import streams
from sampan.shim.keeperwatch import KeeperWatch

from support.networks import OUTSIDE, Box, Host, ask, exactly, within
from support.patience import eventually, patience

pytestmark = pytest.mark.root


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


def answers(box: Box, name: str) -> list[str]:
    """The addresses of a name, none while nobody answers."""
    try:
        return ask(box, name, timeout=1).addresses
    except (ConnectionRefusedError, TimeoutError):
        return []


def test_names_are_answered_from_the_first_moment_and_the_keeper_leaves_with_the_last_endpoint(host: Host) -> None:
    place = host.network("mynet")
    web, db = host.box("web"), host.box("db")
    host.put(place, db)
    host.join(place, web, "web", "www")
    # Its interpreter may not be there yet: the question waits in the socket.
    assert ask(web, "db").addresses == [db.address]
    host.join(place, db)
    assert ask(db, "WWW").addresses == ask(db, "web.mynet").addresses == [web.address]
    pid = host.keeper_pid(place)
    for box in (web, db):
        box.end()
        host.drop(place, box)
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    assert not os.path.exists(place.socket)


def test_a_container_may_have_a_server_of_its_own_on_port_53(host: Host) -> None:
    place = host.network()
    box = host.box("dns")
    host.join(place, box)
    own = box.socket()
    own.bind(("0.0.0.0", 53))
    assert ask(box, "dns").addresses == [box.address]
    own.close()


def test_a_killed_keeper_is_replaced_by_the_next_command_which_restores_the_others(host: Host) -> None:
    place = host.network()
    web, db = host.box("web"), host.box("db")
    host.join(place, web)
    assert ask(web, "web").addresses == [web.address]
    host.kill_keeper(place)
    host.join(place, db)
    eventually(lambda: answers(web, "db") == [db.address])
    eventually(lambda: answers(db, "web") == [web.address])


def published(protocol: str, host_address: str, port: int) -> tuple[PublishedPort, Any]:
    """A port of the host's, bound as a start binds it, with any number."""
    bound = ports.bind([ports.Wish(port, protocol, (host_address,), 0, 0)])
    return bound.ports[0], bound.sockets[0]


def serve_stream(box: Box, port: int, handle: Callable[[Any], None]) -> Any:
    """A TCP server in the container, a thread for each connection."""
    listener = box.socket(_socket.SOCK_STREAM)
    listener.settimeout(None)
    listener.bind((box.address, port))
    listener.listen(64)

    def run() -> None:
        while True:
            try:
                fd, _ = listener._accept()
            except OSError:
                return
            connection = _socket.socket(fileno=fd)
            threading.Thread(target=lambda c=connection: (handle(c), c.close()), daemon=True).start()  # type: ignore[misc]

    threading.Thread(target=run, daemon=True).start()
    return listener


def connect(host: Host, address: str, port: int) -> Any:
    """A connection from the host."""
    made = within(host.namespace, lambda: _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC))
    made.settimeout(10)
    try:
        made.connect((address, port))
    except BaseException:
        made.close()
        raise
    return made


def stop(listener: Any) -> None:
    """End a server of ours: whoever waits at its socket wakes up."""
    try:
        listener.shutdown(_socket.SHUT_RDWR)
    except OSError:
        pass  # ENOTCONN for one of datagrams, and it wakes all the same
    listener.close()


def test_a_published_port_is_relayed_each_way_to_its_own_end(host: Host) -> None:
    place = host.network()
    box = host.box("web")

    def reverse(connection: Any) -> None:
        data = b""
        while more := connection.recv(65536):
            data += more
        connection.sendall(data[::-1])  # after the client has ended its way

    listener = serve_stream(box, 80, reverse)
    port, bound = within(host.namespace, lambda: published("tcp", "127.0.0.1", 80))
    host.join(place, box, ports=((port, bound),))
    content = os.urandom(3 << 20)
    client = connect(host, "127.0.0.1", port.host_port)
    sender = threading.Thread(target=lambda: (client.sendall(content), client.shutdown(_socket.SHUT_WR)))
    sender.start()
    got = exactly(client, len(content))
    sender.join()
    assert got == content[::-1]
    assert client.recv(1) == b""
    client.close()
    box.hang_up()  # its shim has ended: the port is free at once
    eventually(lambda: _is_refused(host, port.host_port))
    stop(listener)


def _is_refused(host: Host, port: int) -> bool:
    try:
        connect(host, "127.0.0.1", port).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_client_that_does_not_read_holds_up_no_other_and_no_memory(host: Host) -> None:
    place = host.network()
    box = host.box("web")

    def pour(connection: Any) -> None:
        try:
            while True:
                connection.sendall(bytes(1 << 16))
        except OSError:
            pass

    listener = serve_stream(box, 80, pour)
    port, bound = within(host.namespace, lambda: published("tcp", "127.0.0.1", 80))
    host.join(place, box, ports=((port, bound),))
    stuck = [connect(host, "127.0.0.1", port.host_port) for _ in range(20)]
    client = connect(host, "127.0.0.1", port.host_port)
    assert len(exactly(client, 8 << 20)) == 8 << 20
    client.close()
    pid = host.keeper_pid(place)
    anonymous = next(
        int(line.split()[1])
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if "Anonymous" in line
    )
    assert anonymous < 12 << 10  # KiB
    assert ask(box, "web").addresses == [box.address]
    for each in stuck:
        each.close()
    stop(listener)


def test_a_container_that_refuses_or_has_no_route_ends_the_client(host: Host) -> None:
    place = host.network()
    box = host.box("web")
    port, bound = within(host.namespace, lambda: published("tcp", "127.0.0.1", 80))
    host.join(place, box, ports=((port, bound),))
    client = connect(host, "127.0.0.1", port.host_port)
    assert client.recv(1) == b""
    client.close()


def test_datagrams_find_back_to_the_client_and_from_the_address_that_was_asked(host: Host) -> None:
    place = host.network()
    box = host.box("echo")
    server = box.socket()
    server.settimeout(None)
    server.bind((box.address, 9))

    def echo() -> None:
        while True:
            try:
                data, client = server.recvfrom(65535)
            except OSError:
                return
            if not data:
                return
            server.sendto(data[::-1], client)

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    port, bound = within(host.namespace, lambda: published("udp", "0.0.0.0", 9))
    host.join(place, box, ports=((port, bound),))

    def client() -> Any:
        return _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)

    clients = [within(host.namespace, client) for _ in range(30)]
    for number, each in enumerate(clients):
        each.settimeout(patience(60))
        each.connect(
            (("127.0.0.1", "127.0.0.5", OUTSIDE)[number % 3], port.host_port)
        )  # connected: takes answers from there only
        each.send(b"%d-" % number)
    for number, each in enumerate(clients):
        assert each.recv(100) == (b"%d-" % number)[::-1]
        each.close()
    stop(server)
    thread.join(patience(60))


def test_published_ports_are_bound_again_after_kill_9(host: Host) -> None:
    place = host.network()
    box, other = host.box("web"), host.box("other")
    listener = serve_stream(box, 80, lambda connection: connection.sendall(b"hello"))
    port, bound = within(host.namespace, lambda: published("tcp", "127.0.0.1", 80))
    host.join(place, box, ports=((port, bound),))
    client = connect(host, "127.0.0.1", port.host_port)
    assert exactly(client, 5) == b"hello"
    client.close()
    host.kill_keeper(place)
    host.join(place, other)

    def served() -> bool:
        try:
            client = connect(host, "127.0.0.1", port.host_port)
        except ConnectionRefusedError:
            return False
        got: bytes = exactly(client, 5)
        client.close()
        return got == b"hello"

    eventually(served)
    stop(listener)


def test_shims_start_the_keeper_again_one_and_only_one(host: Host) -> None:
    """The watch of real shims' loops, of five containers at once; each finds the one keeper that there is then."""
    place = host.network()
    boxes = [host.box(f"b{number}") for number in range(5)]
    for box in boxes:
        host.join(place, box)
        eventually(lambda box=box: answers(box, "b0"))  # type: ignore[misc]
    interpreter = (sys.executable, *sealed.FLAGS)
    loop, watches, done = streams.Loop(), [], threading.Event()
    for box in boxes:
        command = keeperlink.restart_command(place, box.id, interpreter)
        watches.append(KeeperWatch(loop, box.link, command))
        box.link = -1

    def shim() -> None:
        namespaces.setns(host.namespace, namespaces.CLONE_NEWNET)
        while not done.is_set():
            loop.run_once(50)

    thread = threading.Thread(target=lambda: namespaces.in_thread(shim))
    thread.start()
    try:
        for _ in range(3):
            before = host.kill_keeper(place)
            for box in boxes:
                eventually(lambda box=box: answers(box, "b0") == [boxes[0].address])  # type: ignore[misc]
            assert host.keeper_pid(place) != before
    finally:
        done.set()
        thread.join()
    pid = host.keeper_pid(place)
    # All five have a line to it: when these end, what it keeps for them is let go of.
    for watch in watches:
        watch.close()
    eventually(lambda: not answers(boxes[0], "b0"))
    assert host.keeper_pid(place) == pid  # until the endpoints are dropped


def test_a_hand_over_to_a_keeper_that_was_killed_reaches_the_next_one(host: Host) -> None:
    place = host.network()
    box = host.box("web")
    host.put(place, box)
    made = keeperlink.open_sockets(box.namespace)
    keeper = host.ensure(place)
    keeper.look()
    host.kill_keeper(place)
    box.link = within(host.namespace, lambda: keeper.hand_over(box.id, 1, made))
    keeper.close()
    made.close()
    eventually(lambda: answers(box, "web") == [box.address])


def test_many_commands_at_once_find_one_keeper(host: Host) -> None:
    place = host.network()
    boxes = [host.box(f"b{number}") for number in range(12)]
    threads = [threading.Thread(target=host.join, args=(place, box)) for box in boxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for box in boxes:
        assert ask(box, "b7").addresses == [boxes[7].address]
    found = [pid for pid in os.listdir("/proc") if pid.isdigit() and _is_keeper(pid, place.network)]
    assert len(found) == 1


def _is_keeper(pid: str, network: str) -> bool:
    try:
        return network.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_more_ports_than_one_message_takes(host: Host) -> None:
    place = host.network()
    box = host.box("web")
    listener = serve_stream(box, 80, lambda connection: connection.sendall(b"hello"))
    several = tuple(within(host.namespace, lambda: [published("tcp", "127.0.0.1", 80) for _ in range(450)]))
    host.join(place, box, ports=several)
    for port, _ in several[::50]:
        client = connect(host, "127.0.0.1", port.host_port)
        assert exactly(client, 5) == b"hello"
        client.close()
    stop(listener)


def _put_in_place(network: Network, endpoint: Endpoint) -> None:
    with netlink.Socket() as host:
        bridge.ensure(host, network)
    firewall.restore(network, lambda: [endpoint])


def test_rules_that_somebody_flushes_or_exchanges_come_back(host: Host) -> None:
    place = host.network()
    box = host.box("web")
    port, bound = within(host.namespace, lambda: published("tcp", "127.0.0.1", 0))
    host.join(place, box, ports=((port, bound),))
    network = Network.from_json(json.loads(Path(place.record).read_text()))
    endpoint = Endpoint.from_json(json.loads((Path(place.endpoints) / f"{box.id}.json").read_text()))
    host.run("iptables", "-P", "FORWARD", "DROP")
    within(host.namespace, lambda: _put_in_place(network, endpoint))
    before = host.run("nft", "-s", "list", "ruleset")
    assert network.id[:12] in before
    eventually(lambda: answers(box, "web"))
    table = ["inet", bridge.table_name(network.id)]

    def comes_back(*command: str) -> None:
        handles = host.run("nft", "-s", "-a", "list", "ruleset")
        host.run("nft", *command)
        assert host.run("nft", "-s", "-a", "list", "ruleset") != handles, command  # also if it is back by now
        eventually(lambda: host.run("nft", "-s", "list", "ruleset") == before)

    def handle(chain: list[str], what: str) -> str:
        (line,) = [line for line in host.run("nft", "-a", "list", "chain", *chain).splitlines() if what in line]
        return line.rpartition(" ")[2]

    comes_back("delete", "table", *table)
    comes_back("flush", "table", *table)
    # As many rules as before, and other ones: for the port, for everybody, in another order, in a chain with another policy.
    led = [*table, "own"]
    comes_back(
        "replace", "rule", *led, "handle", handle(led, "dnat"), f"tcp dport {port.host_port} dnat ip to 10.6.6.6"
    )
    ways = [*table, "forward"]
    comes_back("replace", "rule", *ways, "handle", handle(ways, f'oifname "{network.link}" drop'), "accept")
    last = handle(ways, "oifkind")
    comes_back(f'delete rule {" ".join(ways)} handle {last}; insert rule {" ".join(ways)} meta oifkind "bridge" drop')
    comes_back(f"chain {' '.join(ways)} {{ policy drop; }}")
    theirs = ["ip", "filter", "FORWARD"]
    opened = handle(theirs, f'oifname "{network.link}"')
    comes_back(f'replace rule {" ".join(theirs)} handle {opened} oifname "other" counter accept comment "{table[1]}"')


def test_rules_that_were_flushed_while_there_was_no_keeper_come_back_with_it(host: Host) -> None:
    place = host.network()
    box = host.box("web")
    host.join(place, box)
    network = Network.from_json(json.loads(Path(place.record).read_text()))
    endpoint = Endpoint.from_json(json.loads((Path(place.endpoints) / f"{box.id}.json").read_text()))
    within(host.namespace, lambda: _put_in_place(network, endpoint))
    before = host.run("nft", "-s", "list", "ruleset")
    host.kill_keeper(place)
    host.run("nft", "flush", "ruleset")
    host.ensure(place).close()
    eventually(lambda: host.run("nft", "-s", "list", "ruleset") == before)


def test_names_that_come_to_a_running_container_take_away_no_port(host: Host) -> None:
    """As when the network is left whose keeper answered: another one's is handed the sockets, and has its line already."""
    place = host.network()
    box = host.box("web")
    listener = serve_stream(box, 80, lambda connection: connection.sendall(b"hello"))
    port, bound = within(host.namespace, lambda: published("tcp", "127.0.0.1", 80))
    host.join(place, box, ports=((port, bound),))
    for _ in range(3):
        made = keeperlink.open_sockets(box.namespace)
        with host.ensure(place) as keeper:
            assert keeper.hand_over(box.id, 1, made, line=False) == -1
            keeper.look()
        made.close()
        assert ask(box, "web").addresses == [box.address]
        client = connect(host, "127.0.0.1", port.host_port)
        assert exactly(client, 5) == b"hello"
        client.close()
    box.hang_up()
    eventually(lambda: _is_refused(host, port.host_port))
    stop(listener)


def test_a_stopped_keeper_holds_up_no_start_and_a_full_disk_is_named(host: Host) -> None:
    place = host.network()
    box, other = host.box("web"), host.box("other")
    host.join(place, box)
    assert ask(box, "web").addresses
    pid = host.keeper_pid(place)
    os.kill(pid, signal.SIGSTOP)
    host.join(place, other)
    os.kill(pid, signal.SIGCONT)
    assert ask(other, "web").addresses == [box.address]
    with pytest.raises(System, match="cannot start the keeper of network 0123456789ab: /proc/no-place: no such file"):
        host.ensure(place.replace(network="0123456789abcdef", run_directory="/proc/no-place"))
