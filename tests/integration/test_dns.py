"""Names in containers: those of their networks, and those that others know; with hostile clients and hostile servers."""

from __future__ import annotations

import _socket
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.networks import (
    OUTSIDE,
    Host,
    Reply,
    ask,
    ask_stream,
    exactly,
    name_of,
    query,
    record,
    reply_to,
    resolver,
    since,
)  # fmt: skip
from support.patience import eventually, patience

pytestmark = pytest.mark.root


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()
    for journal in tmp_path.glob("run/*/keeper.log"):
        pytest.fail(f"the keeper had something to say: {journal.read_text()}")


def test_names_aliases_ids_links_and_addresses(host: Host) -> None:
    place = host.network("mynet", ipv6=True)
    web, db = host.box("web"), host.box("db")
    host.put(place, web, "web", "www", address6="fd00::5")
    host.join(place, db, links={"store": "WEB"})
    for name in ("web", "WWW", "web.mynet", "www.MyNet", web.id[:12], "store", "store.mynet"):
        assert ask(db, name).addresses == [web.address], name
    assert ask(db, "web", 28).addresses == ["fd00::5"]
    assert ask(db, "db", 28).records == []
    assert ask(db, "db", 28).rcode == 0
    assert ask(db, "web", 15).records == []
    assert ask(db, "web", 15).rcode == 0
    assert [data for *_, data in ask(db, "2.1.77.10.in-addr.arpa", 12).records] == [b"web.mynet"]
    assert [data for *_, data in ask(db, "5" + ".0" * 27 + ".0.0.d.f.ip6.arpa", 12).records] == [b"web.mynet"]
    host.join(place, web)
    assert ask(web, "store").rcode == 2  # a link is its owner's alone
    assert db.run("busybox", "nslookup", "web", "127.0.0.11").stdout.count(web.address) >= 1


def test_several_with_one_name_take_turns(host: Host) -> None:
    place = host.network()
    boxes = [host.box(f"b{number}") for number in range(3)]
    for box in boxes:
        host.put(place, box, box.name, "pool")
    host.join(place, boxes[0], boxes[0].name, "pool")
    answers = [ask(boxes[0], "pool").addresses for _ in range(40)]
    assert {tuple(sorted(each)) for each in answers} == {tuple(sorted(box.address for box in boxes))}
    assert {each[0] for each in answers} == {box.address for box in boxes}


def test_a_name_is_there_with_its_endpoint_and_goes_with_it(host: Host) -> None:
    place = host.network(internal=True)
    web, db = host.box("web"), host.box("db")
    host.join(place, web)
    for _ in range(20):  # within one tick of the kernel's clock for files, too
        host.put(place, db)
        assert ask(web, "db").addresses == [db.address]
        host.drop(place, db)
        assert ask(web, "db").rcode == 2


def test_a_container_in_two_networks_sees_both_and_others_see_their_own(host: Host) -> None:
    first, second = host.network("first", internal=True), host.network("second", internal=True)
    if first.network > second.network:
        first, second = second, first
    one, both, two = host.box("one"), host.box("both"), host.box("two")
    host.put(second, both, address="10.88.0.2")
    host.join(first, both)
    host.join(first, one)
    host.join(second, two)
    assert ask(both, "one").addresses == [one.address]
    assert ask(both, "two").addresses == [two.address]
    assert ask(one, "both").addresses == [both.address]
    assert ask(two, "both").addresses == ["10.88.0.2"]
    assert ask(one, "two").rcode == 2
    assert ask(two, "one").rcode == 2


def test_other_names_are_forwarded_and_kept_for_as_long_as_they_say(host: Host) -> None:
    place = host.network()
    box = host.box("box")
    host.join(place, box)
    with resolver(host, lambda data: [reply_to(data, record(1, bytes([1, 2, 3, 4]), 2))]) as server:
        first = ask(box, "Example.ORG")
        assert first.addresses == ["1.2.3.4"]
        assert first.identifier == 7
        assert first.records[0][0] == "Example.ORG"
        assert ask(box, "example.org").records[0][0] == "example.org"
        assert len(server.asked) == 1
        # Asked from the container's own namespace, from another port and under another id each time.
        assert server.asked[0][1][0] == box.address
        time.sleep(2.1)
        assert ask(box, "example.org").addresses == ["1.2.3.4"]
        assert len(server.asked) == 2
        assert ask_stream(box, query("example.org"), query("other.org"))[1].addresses == ["1.2.3.4"]
        for number in range(20):
            ask(box, f"n{number}.org")
        assert len({client[1] for _, client in server.asked}) > 15
        assert len({data[:2] for data, _ in server.asked}) > 15


def test_nothing_leaves_an_internal_network(host: Host) -> None:
    place = host.network(internal=True)
    box = host.box("box")
    host.join(place, box)
    with resolver(host, lambda data: [reply_to(data, record(1, b"abcd"))]) as server:
        assert ask(box, "example.org").rcode == 2
        assert ask_stream(box, query("example.org"))[0].rcode == 2
        assert ask(box, "1.2.3.4.in-addr.arpa", 12).rcode == 2
        assert server.asked == []


def test_chosen_servers_and_those_of_the_host_on_loopback(host: Host) -> None:
    place = host.network()
    plain, chosen = host.box("plain"), host.box("chosen")
    host.resolv_conf.write_text("# none other\nnameserver 127.0.0.53\noptions edns0\n")
    host.join(place, plain)
    host.join(place, chosen, servers=(OUTSIDE,))
    with (
        resolver(host, lambda data: [reply_to(data, record(1, bytes([5, 5, 5, 5])))], "127.0.0.53"),
        resolver(host, lambda data: [reply_to(data, record(1, bytes([6, 6, 6, 6])))]),
    ):
        assert ask(plain, "example.org").addresses == ["5.5.5.5"]
        assert ask(chosen, "example.org").addresses == ["6.6.6.6"]


def test_a_silent_server_is_overtaken_and_a_failing_one_passed_over(host: Host) -> None:
    place = host.network()
    box = host.box("box")
    host.resolv_conf.write_text(f"nameserver 10.99.0.77\nnameserver {OUTSIDE}\n")
    host.join(place, box)
    with resolver(host, lambda data: [reply_to(data, record(1, b"abcd"))]):
        begun = time.monotonic()
        assert ask(box, "a.org").addresses
        assert since(begun) < patience(2)
        took = []
        for turn in range(3):
            begun = time.monotonic()
            for number in range(5):
                assert ask(box, f"b{turn}{number}.org").addresses
            took.append(since(begun))
        # The silent one is asked last now. Of three turns, for this machine does other things as well.
        assert min(took) < patience(0.5), took


def test_every_kind_of_broken_answer_is_an_answer_or_servfail(host: Host) -> None:
    place = host.network()
    box = host.box("box")
    host.join(place, box)

    def hostile(data: bytes) -> list[bytes]:
        good = reply_to(data, record(1, bytes([9, 9, 9, 9])))
        forged = reply_to(data, record(1, bytes([6, 6, 6, 6])))
        return {
            "identifier": [bytes([data[0] ^ 1]) + forged[1:], good],
            "question": [forged.replace(b"question", b"Question"), good],
            "garbage": [os.urandom(300), b"", b"\0", good],
            "loop": [good[:-16] + b"\xc0" + bytes([len(good) - 16]) + good[-14:], good],
            "cut": [good[:-1], good],
            "flood": [os.urandom(50)] * 200 + [good],
            "refused": [reply_to(data, rcode=5)],
            "nxdomain": [reply_to(data, rcode=3)],
            "notimp": [data[:2] + b"\x81\x84" + data[4:]],
            "silence": [],
        }[name_of(data).split(".")[0]]

    with resolver(host, hostile):
        for kind in ("identifier", "question", "garbage", "loop", "cut", "flood"):
            assert ask(box, f"{kind}.org").addresses == ["9.9.9.9"], kind
        assert [ask(box, f"{kind}.org").rcode for kind in ("refused", "nxdomain", "notimp")] == [5, 3, 4]
        begun = time.monotonic()
        assert ask(box, "silence.org").rcode == 2
        assert since(begun) < patience(5)
        assert ask(box, "box").addresses == [box.address]


def test_an_answer_that_does_not_fit_is_truncated_and_whole_over_tcp(host: Host) -> None:
    place = host.network()
    box = host.box("box")
    host.join(place, box)
    many = [record(1, bytes([10, 0, 0, number])) for number in range(100)]
    with resolver(host, lambda data: [reply_to(data, *many)]):
        assert ask(box, "many.org").truncated
        assert not ask(box, "many.org").records
        assert len(ask(box, "many.org", edns=4096).records) == 100
        assert len(ask_stream(box, query("many.org"))[0].records) == 100
    with resolver(host, lambda data: [reply_to(data, flags=0x200)]):
        assert ask(box, "cut.org").truncated


def test_edns_is_spoken_to_who_speaks_it(host: Host) -> None:
    place = host.network()
    box = host.box("box")
    host.join(place, box)
    assert ask(box, "box").opt is None
    assert ask(box, "box", edns=1232).opt is not None
    socket = box.socket()
    socket.connect(("127.0.0.11", 53))
    socket.send(query("box", edns=512)[:-5] + b"\x01" + bytes(4))
    told = Reply(socket.recv(512))
    assert told.opt is not None
    assert told.opt[5] == 1
    socket.close()


def test_hostile_clients_hold_nobody_up(host: Host) -> None:
    place = host.network()
    evil, good = host.box("evil"), host.box("good")
    host.join(place, evil)
    host.join(place, good)
    with resolver(host, lambda data: []):
        # Garbage, and questions whose answers nobody reads.
        flood = evil.socket()
        flood.connect(("127.0.0.11", 53))
        for number in range(3000):
            flood.send(os.urandom(number % 90))
            flood.send(query(f"n{number}.org", number % 300))
        # Connections that say nothing, half of something, or ask and do not read.
        held = [evil.socket(_socket.SOCK_STREAM) for _ in range(100)]
        for number, each in enumerate(held):
            each.connect(("127.0.0.11", 53))
            if number % 3 == 1:
                each.send(b"\0\x20\0")
            if number % 3 == 2:
                each.settimeout(0.2)
                try:
                    each.sendall((len(query("evil")).to_bytes(2, "big") + query("evil")) * 20000)
                except OSError:
                    pass
        begun = time.monotonic()
        for _ in range(100):
            assert ask(good, "evil").addresses == [evil.address]
        assert since(begun) < patience(60)
        assert ask_stream(good, query("evil"), query("good"))[1].addresses == [good.address]
        assert ask(evil, "good").addresses == [good.address]
        for each in (*held, flood):
            each.close()


def test_messages_come_in_pieces_and_many_at_once_over_tcp(host: Host) -> None:
    place = host.network()
    box = host.box("box")
    host.join(place, box)
    socket = box.socket(_socket.SOCK_STREAM)
    socket.connect(("127.0.0.11", 53))
    message = query("box")
    for byte in len(message).to_bytes(2, "big") + message:
        socket.send(bytes([byte]))
    assert Reply(exactly(socket, int.from_bytes(exactly(socket, 2), "big"))).addresses == [box.address]
    socket.close()
    assert len(ask_stream(box, *[query("box", identifier=n) for n in range(500)])) == 500
    socket = box.socket(_socket.SOCK_STREAM)
    socket.connect(("127.0.0.11", 53))
    socket.send(len(message).to_bytes(2, "big") + message)
    socket.shutdown(_socket.SHUT_WR)  # it still wants its answer
    assert len(exactly(socket, 1000)) > len(message)
    socket.close()


def test_a_thousand_questions_a_second_are_all_answered(host: Host) -> None:
    place = host.network()
    boxes = [host.box(f"b{number}") for number in range(4)]
    for box in boxes:
        host.join(place, box)
        assert ask(box, "b0").addresses
    got = [0] * len(boxes)

    def client(number: int) -> None:
        socket = boxes[number].socket()
        socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, 1 << 20)
        socket.connect(("127.0.0.11", 53))
        begun = time.monotonic()
        for sent in range(500):
            socket.send(query(f"b{sent % 4}", identifier=sent))
            time.sleep(max(0.0, begun + sent / 250 - time.monotonic()))
        try:
            while got[number] < 500 and Reply(socket.recv(512)).addresses:
                got[number] += 1
        except TimeoutError:
            pass
        socket.close()

    begun = time.monotonic()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(boxes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [500] * 4
    assert since(begun) < patience(30)  # the clients themselves have it from this machine


def test_a_keeper_with_a_full_table_goes_on(host: Host) -> None:
    """As many connections and questions as there are descriptors: names are still answered, and new containers taken in."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    place = host.network()
    boxes = [host.box(f"b{number}") for number in range(3)]
    host.join(place, boxes[0])
    pid = eventually(lambda: host.keeper_pid(place))
    assert ask(boxes[0], "b0").addresses
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, before[1]))
    held = []
    with resolver(host, lambda data: []):
        for number in range(200):
            socket = boxes[0].socket(_socket.SOCK_STREAM if number % 2 else _socket.SOCK_DGRAM)
            socket.connect(("127.0.0.11", 53))
            socket.send(query(f"n{number}.org") if not number % 2 else b"\0")
            held.append(socket)
        for socket in held:
            socket.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        eventually(lambda: ask(boxes[0], "b0").addresses == [boxes[0].address])
        host.join(place, boxes[1])
        assert ask(boxes[1], "b0").addresses == [boxes[0].address]
    journal = Path(place.journal)
    if journal.exists():
        journal.unlink()  # it may have said that it had no descriptor
