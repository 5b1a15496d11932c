"""/etc/hosts and /etc/resolv.conf of containers in networks, against what Docker writes there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sampan.engine import etcfiles, fields, validate
from sampan.errors import InvalidParameter
from sampan.oci.hosts import parse_host
from sampan.oci.network import Endpoint, Network
from sampan.store.layout import ContainerPaths
from sampan.store.record import SCHEMA, Record

FRONT = Network("f" * 64, "front", "bridge", "", "br-f")
BRIDGE = Network("b" * 64, "bridge", "bridge", "", "sampan0")


def record(hostname: str = "box", domain: str = "", **host: Any) -> Record:
    config = fields.normalise_config({"Hostname": hostname, "Domainname": domain})
    known = fields.normalise_host_config({"NetworkMode": "front", **host})
    return Record(SCHEMA, "c" * 64, "box", "", "", "", (), "vfs", "sh", (), config, known)


def endpoint(address: str = "10.9.0.2", gateway: str = "10.9.0.1", address6: str = "") -> Endpoint:
    return Endpoint(
        "c" * 64,
        1,
        "e" * 64,
        "eth0",
        "veth",
        "02:42:0a:09:00:02",
        address,
        24,
        gateway,
        address6,
        64 if address6 else 0,
    )


@pytest.fixture
def paths(tmp_path: Path) -> ContainerPaths:
    return ContainerPaths("c" * 64, str(tmp_path), str(tmp_path))


@pytest.fixture(autouse=True)
def resolver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's resolv.conf, as this test has it."""
    path = tmp_path / "host-resolv.conf"
    path.write_text("nameserver 127.0.0.1\nnameserver 10.0.0.3\nsearch example.org\noptions edns0\n")
    monkeypatch.setattr(etcfiles, "_HOST_RESOLV_CONF", str(path))


def hosts(paths: ContainerPaths) -> list[str]:
    return Path(paths.hosts).read_text().splitlines()


def test_addresses_come_last_with_all_names(paths: ContainerPaths) -> None:
    made = record(domain="example.org", ExtraHosts=["db:10.1.1.1"])
    etcfiles.connect(made, paths, [(FRONT, endpoint(address6="fd00::2")), (BRIDGE, endpoint("10.8.0.2", ""))])
    lines = hosts(paths)
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[-4:] == [
        "10.1.1.1\tdb",
        "10.9.0.2\tbox.example.org box",
        "fd00::2\tbox.example.org box",
        "10.8.0.2\tbox.example.org box",
    ]


def test_the_first_part_of_a_whole_name_is_a_name_too(paths: ContainerPaths) -> None:
    etcfiles.connect(record("a.example.org"), paths, [(FRONT, endpoint())])
    assert hosts(paths)[-1] == "10.9.0.2\ta.example.org a"


def test_the_same_file_stays_and_nothing_of_longer_ones(paths: ContainerPaths) -> None:
    Path(paths.hosts).write_text("x" * 4000)
    before = os.stat(paths.hosts).st_ino
    etcfiles.connect(record(), paths, [(FRONT, endpoint())])
    assert os.stat(paths.hosts).st_ino == before
    assert hosts(paths)[-1] == "10.9.0.2\tbox"
    etcfiles.connect(record(), paths, [])
    assert hosts(paths)[-1] == "ff02::2\tip6-allrouters"


def test_linked_containers_are_known_by_their_names(paths: ContainerPaths) -> None:
    etcfiles.connect(record(), paths, [(BRIDGE, endpoint())], [("10.8.0.9", "database abc db")])
    assert "10.8.0.9\tdatabase abc db" in hosts(paths)


def test_host_gateway_is_where_the_host_is_reached(paths: ContainerPaths) -> None:
    made = record(ExtraHosts=[parse_host("host.docker.internal:host-gateway")])
    etcfiles.connect(made, paths, [(FRONT, endpoint())])
    assert "10.9.0.1\thost.docker.internal" in hosts(paths)
    # Before it has a network nobody can know.
    files = etcfiles.make(made.config, made.host_config)
    assert b"host.docker.internal" not in files["hosts"]
    alone = record(NetworkMode="host", ExtraHosts=["me:host-gateway"])
    assert b"127.0.0.1\tme\n" in etcfiles.make(alone.config, alone.host_config)["hosts"]
    with pytest.raises(InvalidParameter, match="unable to derive the IP value for host-gateway"):
        validate.check_host_config(record(NetworkMode="none", ExtraHosts=["me:host-gateway"]).host_config, made.config)


def test_names_are_asked_of_the_network_only_where_somebody_answers(paths: ContainerPaths) -> None:
    etcfiles.connect(record(), paths, [(BRIDGE, endpoint())])
    assert Path(paths.resolv_conf).read_text() == "nameserver 10.0.0.3\nsearch example.org\noptions edns0\n"
    etcfiles.connect(record(), paths, [(FRONT, endpoint())])
    assert Path(paths.resolv_conf).read_text() == "nameserver 127.0.0.11\nsearch example.org\noptions edns0 ndots:0\n"
    etcfiles.connect(record(DnsOptions=["ndots:3"], DnsSearch=["."], Dns=["9.9.9.9"]), paths, [(FRONT, endpoint())])
    assert Path(paths.resolv_conf).read_text() == "nameserver 127.0.0.11\noptions ndots:3\n"


def test_a_link_in_their_place_is_not_followed(paths: ContainerPaths, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    os.symlink(tmp_path / "victim", paths.hosts)
    with pytest.raises(OSError, match="symbolic links"):
        etcfiles.connect(record(), paths, [(FRONT, endpoint())])
    assert (tmp_path / "victim").read_text() == "mine"
