"""Networks and their endpoints on a real disk, with threads and killed processes. Needs no root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sampan.errors import Conflict, Damaged, Forbidden, InvalidParameter, NotFound
from sampan.oci.network import Attachment, Endpoint, Network, Pool, PublishedPort
from sampan.steps.trace import Trace
from sampan.store.layout import Layout
from sampan.store.networks import Networks, usable
from sampan.store.record import SCHEMA, SCHEMA_WITH_NETWORKS, Record, new_id, parse_record

SRC = Path(__file__).parents[2] / "src"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "root"), str(tmp_path / "run"))
    made.make(Trace())
    return made


@pytest.fixture
def networks(layout: Layout) -> Networks:
    return Networks(layout, Trace())


def add(networks: Networks, name: str, network_id: str = "") -> Network:
    network = Network(
        id=network_id or new_id(),
        name=name,
        driver="bridge",
        created="2026-01-01T00:00:00Z",
        link="br-x",
        pools=(Pool("10.9.0.0/24", "10.9.0.1", "10.9.0.128/25", {"router": "10.9.0.200"}),),
        options={"a": "b"},
        labels={"l": ""},
    )
    with networks.making():
        networks.add(network)
    return network


def endpoint(container: str, address: str = "10.9.0.2") -> Endpoint:
    return Endpoint(
        container=container,
        start=1,
        id=new_id(),
        interface="eth0",
        link="veth1",
        mac="02:42:0a:09:00:02",
        address=address,
        prefix=24,
        names=("web", "alias"),
        ports=(PublishedPort(80, "tcp", "0.0.0.0", 8080),),
    )


def test_a_network_comes_back_as_it_was_made(networks: Networks, layout: Layout) -> None:
    network = add(networks, "front")
    assert networks.get(network.id) == network
    assert networks.all() == [network]
    for path in (layout.networks, networks.paths(network.id).directory, networks.paths(network.id).endpoints):
        assert os.stat(path).st_mode & 0o777 == 0o700


def test_found_by_id_by_name_and_by_the_beginning_of_an_id(networks: Networks) -> None:
    one = add(networks, "one", "ab" + "1" * 62)
    # A name that is the beginning of another one's id counts first, as with Docker.
    named = add(networks, "ab1", "cd" + "2" * 62)
    assert networks.find(one.id) == one
    assert networks.find("one") == one
    assert networks.find("ab11") == one
    assert networks.find("ab1") == named
    other = add(networks, "other", "ab2" + "1" * 61)
    with pytest.raises(InvalidParameter, match=r"network ab is ambiguous \(2 matches found based on ID prefix\)"):
        networks.find("ab")
    assert networks.find("ab2") == other


@pytest.mark.parametrize("reference", ["", "nosuch", "../x", "f" * 64, "a/b", ".", "\0", "ü"])
def test_what_is_not_there(networks: Networks, reference: str) -> None:
    add(networks, "one", "1" * 64)
    with pytest.raises(NotFound, match=r"network .*not found"):
        networks.find(reference)


def test_a_name_is_given_once_to_many_who_want_it(networks: Networks) -> None:
    results: list[str] = []

    def take() -> None:
        try:
            add(networks, "front")
            results.append("made")
        except Conflict as e:
            results.append(str(e))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["made", *["network with name front already exists"] * 7]
    assert [network.name for network in networks.all()] == ["front"]
    assert networks.leftovers() == []


def test_endpoints_are_written_replaced_and_dropped(networks: Networks) -> None:
    network, other = add(networks, "front"), add(networks, "back")
    container = new_id()
    with networks.lock(network.id):
        networks.put(network.id, endpoint(container))
        networks.put(network.id, endpoint(container, "10.9.0.3"))
        networks.put(network.id, endpoint("f" * 64))
    assert len(networks.endpoints(network.id)) == 2
    (found,) = networks.of(container)
    assert found[0] == network.id
    assert found[1].replace(id="") == endpoint(container, "10.9.0.3").replace(id="")
    assert networks.endpoints(other.id) == []
    with networks.lock(network.id):
        networks.drop(network.id, container)
        networks.drop(network.id, container)
    assert [e.container for e in networks.endpoints(network.id)] == ["f" * 64]


def test_which_addresses_are_taken_is_told_by_the_names_of_the_files(networks: Networks) -> None:
    network = add(networks, "front")
    first, second, third = ("a" * 64, "b" * 64, "c" * 64)
    with networks.lock(network.id):
        networks.put(network.id, endpoint(first, "10.9.0.2"))
        networks.put(network.id, endpoint(second, "10.9.0.3").replace(address6="fd00::3"))
        networks.put(network.id, endpoint(third, "10.9.0.4"))
    files = Path(networks.paths(network.id).endpoints)
    # As it is left by a command that was killed before it removed the older one, and by an earlier version.
    (files / f"{first},10.9.0.9,.json").write_text("what nobody reads")
    (files / f"{third},10.9.0.4,.json").rename(files / f"{third}.json")
    assert networks.addresses(network.id, without=first) == ["10.9.0.3", "fd00::3", "10.9.0.4"]
    assert sorted(networks.addresses(network.id))[:2] == ["10.9.0.2", "10.9.0.3"]
    assert [e.container for e in networks.endpoints(network.id)] == [first, second, third]
    newer = endpoint(first, "10.9.0.7").replace(start=5)
    (files / f"{first},10.9.0.1,.json").write_text(json.dumps(newer.to_json()))
    found = networks.endpoint(network.id, first)
    assert found is not None
    assert found.start == 5
    with networks.lock(network.id):
        networks.drop(network.id, first)
    assert networks.endpoint_names(network.id) == [second, third]


def test_a_network_that_somebody_is_in_stays(networks: Networks) -> None:
    network = add(networks, "front")
    with networks.lock(network.id):
        networks.put(network.id, endpoint("f" * 64))
        with pytest.raises(Forbidden, match=f"network front id {network.id} has active endpoints"):
            networks.remove(network)
        networks.drop(network.id, "f" * 64)
        networks.remove(network)
    assert networks.all() == []
    with pytest.raises(NotFound), networks.lock(network.id):
        pass
    assert networks.endpoints(network.id) == []


def test_who_waits_for_the_lock_of_a_network_that_goes_is_told(networks: Networks) -> None:
    network = add(networks, "front")
    told: list[str] = []

    def wait() -> None:
        try:
            with networks.lock(network.id):
                told.append("had it")
        except NotFound as e:
            told.append(str(e))

    lock = networks.lock(network.id)
    waiting = threading.Thread(target=wait)
    waiting.start()
    networks.remove(network)
    lock.release()
    waiting.join()
    assert told == [f"network {network.id} not found"]


def test_a_removal_takes_the_run_directory_along(networks: Networks) -> None:
    network = add(networks, "front")
    paths = networks.paths(network.id)
    os.makedirs(paths.run_directory)
    Path(paths.keeper_lock).touch()
    with networks.lock(network.id):
        networks.remove(network)
    assert not os.path.exists(paths.run_directory)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a network's record"),
        (b"[]", "not a network's record"),
        (b'{"schema": 99}', "written by a newer sampan"),
        (b'{"schema": 1, "id": "x", "name": "n", "driver": "bridge", "created": "", "link": ""}', "that of x"),
        (b'{"schema": 1, "pools": [{}]}', "not a network's record"),
    ],
)
def test_a_damaged_record_is_told_and_can_be_removed(networks: Networks, content: bytes, why: str) -> None:
    good, bad = add(networks, "good"), add(networks, "bad")
    Path(networks.paths(bad.id).record).write_bytes(content)
    broken = networks.find(bad.id[:20])
    assert why in broken.broken
    assert good in networks.all()
    assert len(networks.all()) == 2
    with pytest.raises(Damaged, match=f"network rm {bad.id}"):
        usable(broken)
    with networks.lock(bad.id):
        networks.remove(broken)
    assert networks.all() == [good]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"container": 5}'])
def test_a_damaged_endpoint_is_none(networks: Networks, content: bytes) -> None:
    network = add(networks, "front")
    (Path(networks.paths(network.id).endpoints) / f"{'a' * 64},10.9.0.2,.json").write_bytes(content)
    assert networks.endpoints(network.id) == []
    assert networks.endpoint_names(network.id) == ["a" * 64]


KILLED = """
import os, signal, sys
from sampan.oci.network import Network
from sampan.steps.trace import Trace
from sampan.store.layout import Layout
from sampan.store.networks import Networks
steps = int(sys.argv[3])
def observe(event):
    global steps
    steps -= 1
    if steps == 0:
        os.kill(os.getpid(), signal.SIGKILL)
layout = Layout(sys.argv[1], sys.argv[2])
networks = Networks(layout, Trace(observe))
with networks.making():
    networks.add(Network(id="a" * 64, name="front", driver="bridge", created="", link=""))
with networks.lock("a" * 64):
    networks.remove(networks.get("a" * 64))
print("done")
"""


def test_killed_at_every_step_leaves_a_whole_network_or_none(networks: Networks, layout: Layout) -> None:
    for step in range(1, 40):
        args = [sys.executable, "-c", KILLED, layout.root, layout.run_root, str(step)]
        ended = subprocess.run(args, env={"PYTHONPATH": str(SRC)}, capture_output=True, check=False)
        for network in networks.all():
            assert usable(network).name == "front"
            with networks.lock(network.id):
                networks.remove(network)
        networks.collect_garbage()
        assert [entry for entry in os.listdir(layout.networks) if not entry.startswith(".lock")] == []
        if ended.returncode != -signal.SIGKILL:
            assert ended.stdout == b"done\n", ended.stderr
            break
    assert step > 5


def test_a_container_with_networks_has_a_schema_that_earlier_code_refuses() -> None:
    record = Record(SCHEMA, "a" * 64, "box", "", "", "", (), "vfs", "sh", (), {}, {})
    assert json.loads(record.to_bytes())["schema"] == SCHEMA
    asked = Attachment("front", address="10.9.0.7", aliases=("web",), links=("db:database",), options={"a": "b"})
    data = record.replace(networks=(asked,)).to_bytes()
    assert json.loads(data)["schema"] == SCHEMA_WITH_NETWORKS
    assert parse_record("a" * 64, data, "x").networks == (asked,)
