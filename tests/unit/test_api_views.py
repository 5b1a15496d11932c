"""Docker's JSON shapes by version, and what clients send in parameters and headers."""

from __future__ import annotations

import base64
import io
import json
from urllib.parse import urlencode

import pytest

from sampan.api import (
    bodies,
    buildrequest,
    containerview,
    diskview,
    imageview,
    networkview,
    queries,
    registryauth,
    system,
    volumeview,
)
from sampan.api.images import repository
from sampan.api.imagestreams import pulled_name
from sampan.api.progress import bar
from sampan.api.query import Query
from sampan.errors import InvalidParameter

ID = "sha256:" + "ab" * 32
ITEM = {
    "Containers": -1,
    "Created": 1,
    "Id": ID,
    "Labels": None,
    "ParentId": "",
    "RepoDigests": [],
    "RepoTags": [],
    "SharedSize": -1,
    "Size": 7,
    "Damaged": "ours",
}


def query(**members: str) -> Query:
    return Query(urlencode(members))


@pytest.mark.parametrize(
    ("version", "tags", "virtual", "count"),
    [
        ((1, 24), ["<none>:<none>"], True, -1),
        ((1, 43), [], True, -1),
        ((1, 44), [], False, -1),
        ((1, 51), [], False, 3),
    ],
)
def test_image_summary(version: tuple[int, int], tags: list[str], virtual: bool, count: int) -> None:
    shown = imageview.summary(ITEM, version, {ID: 3} if version >= (1, 51) else None)
    assert shown["RepoTags"] == tags
    assert shown.get("VirtualSize") == (7 if virtual else None)
    assert shown["Containers"] == count
    assert "Damaged" not in shown


IMAGE = {"Id": ID, "Created": "", "Size": 7, "Config": {"User": "me"}, "Metadata": {"LastTagTime": ""}}


def test_image_inspect() -> None:
    old, new = imageview.inspected(IMAGE, (1, 43)), imageview.inspected(IMAGE, (1, 51))
    assert old["Created"] == "0001-01-01T00:00:00Z"
    assert "Created" not in new
    assert old["VirtualSize"] == 7
    assert "VirtualSize" not in imageview.inspected(IMAGE, (1, 44))
    assert old["ContainerConfig"]["Hostname"] == ""
    assert "ContainerConfig" not in imageview.inspected(IMAGE, (1, 45))
    assert imageview.inspected(IMAGE, (1, 49))["Config"]["Hostname"] == ""
    assert new["Config"] == {"User": "me"}
    # Go's clients read a time here, and an empty text is none.
    assert new["Metadata"]["LastTagTime"] == "0001-01-01T00:00:00Z"


def test_what_older_networks_and_volumes_did_not_have() -> None:
    network = {"Name": "n", "Created": "t", "EnableIPv4": True, "Ingress": False, "ConfigOnly": False}
    assert networkview.network(network, (1, 24)) == {"Name": "n"}
    assert "EnableIPv4" not in networkview.network(network, (1, 47))
    assert networkview.network(network, (1, 48)) == network
    volume = {"Name": "v", "Options": None, "CreatedAt": "t"}
    assert volumeview.volume(volume, (1, 24)) == {"Name": "v"}
    assert volumeview.listing([volume], (1, 51)) == {"Volumes": [volume], "Warnings": None}


def test_disk_usage_of_one_type() -> None:
    found = {
        "LayersSize": 9,
        "Images": [ITEM],
        "Containers": [{"Id": "c", "DiskSize": 1}],
        "Volumes": [{"Name": "v", "DiskSize": 1}],
        "BuildCache": [],
    }
    everything = diskview.usage(found, diskview.wanted([], (1, 41)), (1, 41), dict)
    assert everything["BuilderSize"] == 0
    assert everything["Containers"] == [{"Id": "c"}]
    volumes = diskview.usage(found, diskview.wanted(["volume"], (1, 42)), (1, 42), dict)
    assert volumes == {
        "LayersSize": 0,
        "Images": None,
        "Containers": None,
        "Volumes": [{"Name": "v"}],
        "BuildCache": None,
    }
    with pytest.raises(InvalidParameter, match="unknown object type: pod"):
        diskview.wanted(["pod"], (1, 42))
    assert diskview.wanted(["pod"], (1, 41)) == frozenset(diskview.TYPES)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("encode", [base64.urlsafe_b64encode, base64.b64encode])
def test_registry_auth(padded: bool, encode: object) -> None:
    # These texts need the characters in which the two alphabets differ, and padding.
    text = json.dumps({"username": "ü?>~", "password": "~~~???>>>", "serveraddress": "x"}).encode()
    header = encode(text).decode()  # type: ignore[operator]
    found = registryauth.login(header if padded else header.rstrip("="))
    assert (found.username, found.password) == ("ü?>~", "~~~???>>>")
    assert "~" not in repr(found.replace(username=""))


@pytest.mark.parametrize(
    "header", ["", "e30=", "e30", "not base64!", "bnVsbA==", "W10=", base64.b64encode(b"\xff\xfe").decode()]
)
def test_registry_auth_of_nobody(header: str) -> None:
    assert not registryauth.login(header).credential
    assert registryauth.logins(header) == {}


def test_registry_config() -> None:
    pair = base64.b64encode(b"me:pass:word").decode()
    entries = {"one:5000": {"auth": pair}, "two": {"identitytoken": "t"}, "none": {}, "wrong": 1}
    found = registryauth.logins(base64.urlsafe_b64encode(json.dumps(entries).encode()).decode())
    assert sorted(found) == ["one:5000", "two"]
    assert (found["one:5000"].username, found["one:5000"].password) == ("me", "pass:word")
    with pytest.raises(InvalidParameter, match="NAME:PASSWORD"):
        registryauth.login_of({"auth": base64.b64encode(b"nocolon").decode()})


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ('{"os":"linux","architecture":"arm","variant":"v7"}', "linux/arm/v7"),
        ('{"os":"linux","architecture":"amd64"}', "linux/amd64"),
        ("", ""),
    ],
)
def test_platform(given: str, meant: str) -> None:
    assert queries.platform(given) == meant


@pytest.mark.parametrize("given", ["linux/amd64", "[]", "{}", '{"os":1,"architecture":"x"}', '{"os":"linux"}'])
def test_no_platform(given: str) -> None:
    with pytest.raises(InvalidParameter):
        queries.platform(given)


@pytest.mark.parametrize(
    ("image", "tag", "meant"),
    [
        ("docker.io/library/busybox", "latest", ("busybox:latest", False)),
        ("busybox:1", "2", ("busybox:2", False)),
        ("busybox:1", "", ("busybox:1", False)),
        ("busybox", "", ("busybox", True)),
        ("localhost:5000/a/b", ID, (f"localhost:5000/a/b@{ID}", False)),
        (f"localhost:5000/a/b@{ID}", "x", (f"localhost:5000/a/b@{ID}", False)),
    ],
)
def test_what_a_pull_means(image: str, tag: str, meant: tuple[str, bool]) -> None:
    assert pulled_name(image, tag) == meant


@pytest.mark.parametrize(
    ("name", "tag", "meant"),
    [
        ("", "x", ""),
        ("a/b", "", "a/b"),
        ("localhost:5000/b", "2", "localhost:5000/b:2"),
        ("localhost:5000/b:1", "2", "localhost:5000/b:2"),
    ],
)
def test_repository_and_tag(name: str, tag: str, meant: str) -> None:
    assert repository(name, tag) == meant


def test_build_request() -> None:
    found = buildrequest.build_request(
        Query(
            urlencode(
                [
                    *(("t", "a:1"), ("t", "b"), ("dockerfile", "sub/Dockerfile"), ("buildargs", '{"A":"1","B":null}')),
                    *(
                        ("labels", '{"l":"v"}'),
                        ("target", "t"),
                        ("nocache", "1"),
                        ("pull", "true"),
                        ("shmsize", "65536"),
                    ),
                    *(("networkmode", "none"), ("extrahosts", "a:1.2.3.4"), ("extrahosts", "b:::1"), ("memswap", "-1")),
                    ("ulimits", '[{"Name":"nofile","Soft":1,"Hard":2}]'),
                ]
            )
        ),
        io.BytesIO(),
    )
    assert found.tags == ("a:1", "b")
    assert found.dockerfile == "sub/Dockerfile"
    assert (found.context, found.stream is not None) == ("", True)
    assert found.arguments == (("A", "1"),)
    assert found.labels == (("l", "v"),)
    assert (found.target, found.use_cache, found.pull) == ("t", False, True)
    assert dict(found.host) == {
        "NetworkMode": "none",
        "ExtraHosts": ["a:1.2.3.4", "b:::1"],
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
        "MemorySwap": -1,
        "ShmSize": 65536,
    }


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("buildargs", "[]", "buildargs"),
        ("buildargs", '{"A":1}', "texts"),
        ("labels", "{", "labels"),
        ("ulimits", '[{"Name":"nofile"}]', "ulimits"),
        ("ulimits", '[{"Name":"nofile","Soft":true,"Hard":1}]', "ulimits"),
        ("memory", "1k", "memory"),
        ("remote", "/etc", "no address"),
        ("remote", ".", "no address"),
    ],
)
def test_build_request_refused(name: str, value: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        buildrequest.build_request(query(**{name: value}), io.BytesIO())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", "2"),
        ("remote", "client-session"),
        ("squash", "1"),
        ("securityopt", '["x"]'),
        ("isolation", "hyperv"),
        ("outputs", '[{"Type":"tar"}]'),
        ("cachefrom", "[1]"),
    ],
)
def test_what_a_build_cannot_have(name: str, value: str) -> None:
    with pytest.raises(InvalidParameter):
        buildrequest.check(query(**{name: value}))
    buildrequest.check(query(version="1", outputs="null", securityopt="null", cachefrom="null", isolation="default"))


def test_bodies() -> None:
    table = {
        "Name": str,
        "Internal": bool,
        "IPAM": dict,
        "Cmd": bodies.Words,
        "Labels": bodies.Texts,
        "ConsoleSize": bodies.Size,
    }
    assert bodies.fields({"name": "a", "IPAM": None, "New": 1}, table) == {"Name": "a"}
    assert bodies.fields({"cmd": "one", "ConsoleSize": [1, 2]}, table) == {"Cmd": ["one"], "ConsoleSize": [1, 2]}
    for body, words in (
        ({"Name": 1}, "cannot unmarshal number into field Name of type string"),
        ({"Internal": "yes"}, "cannot unmarshal string into field Internal of type bool"),
        ({"IPAM": []}, "cannot unmarshal array into field IPAM of type object"),
        ([], "cannot unmarshal array"),
        ({"Cmd": ["a", 1]}, r"cannot unmarshal number into field Cmd of type \[\]string"),
        ({"Cmd": {"a": "b"}}, "cannot unmarshal object into field Cmd"),
        ({"Labels": {"a": None}}, "cannot unmarshal null into field Labels"),
        ({"ConsoleSize": [1]}, r"field ConsoleSize of type \[2\]uint16"),
        ({"ConsoleSize": [1, 70000]}, "field ConsoleSize"),
        ({"ConsoleSize": [1, True]}, "field ConsoleSize"),
    ):
        with pytest.raises(InvalidParameter, match=words):
            bodies.fields(body, table)


def test_progress_bar() -> None:
    assert bar(0, 100).startswith("[>" + " " * 49 + "]")
    assert bar(100, 100).startswith("[" + "=" * 50 + "]")
    assert bar(50_000, 1_500_000).endswith("50kB/1.5MB")


INFO = {
    "FirewallBackend": {"Driver": "nftables"},
    "CDISpecDirs": [],
    "RegistryConfig": {"Mirrors": []},
    **{name: {"ID": "x"} for name in ("ContainerdCommit", "RuncCommit", "InitCommit")},
}


def test_what_the_engine_tells_of_itself_by_version() -> None:
    assert system.info_shown(INFO, (1, 51)) == INFO
    older = system.info_shown(INFO, (1, 49))
    assert older.pop("BridgeNfIptables") is older.pop("BridgeNfIp6tables") is False
    assert older == INFO
    oldest = system.info_shown(INFO, (1, 43))
    assert not {"FirewallBackend", "CDISpecDirs"} & oldest.keys()
    assert oldest["RuncCommit"] == {"ID": "x", "Expected": "x"}
    assert "AllowNondistributableArtifactsCIDRs" in oldest["RegistryConfig"]


def test_what_older_clients_know_of_containers() -> None:
    listed = {"HostConfig": {"NetworkMode": "none", "Annotations": {"a": "b"}}, "NetworkSettings": {}}
    assert containerview.summary(listed, (1, 46))["HostConfig"] == listed["HostConfig"]
    assert containerview.summary(listed, (1, 45))["HostConfig"] == {"NetworkMode": "none"}
    networks = {"front": {"Aliases": ["www"], "DNSNames": ["www"]}, "bridge": {"Aliases": None}}
    shown = {
        "Id": "ab" * 32,
        "Config": {},
        "HostConfig": {"Annotations": {}},
        "NetworkSettings": {"Networks": networks},
    }
    for version, aliases in (((1, 45), ["www"]), ((1, 44), ["www", "ab" * 6])):
        found = containerview.inspection(shown, version)["NetworkSettings"]["Networks"]
        assert (found["front"]["Aliases"], found["bridge"]["Aliases"]) == (aliases, None)
    assert "Annotations" not in containerview.inspection(shown, (1, 42))["HostConfig"]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((1, 43), {"Annotations": {"a": "b"}, "ConsoleSize": [1, 2]}),
        ((1, 42), {"ConsoleSize": [1, 2]}),
        ((1, 41), {}),
        ((1, 39), {"IpcMode": "shareable"}),
    ],
)
def test_what_a_version_may_ask_of_a_new_container(version: tuple[int, int], expected: dict[str, object]) -> None:
    body = {"Image": "x", "HostConfig": {"Annotations": {"a": "b"}, "ConsoleSize": [1, 2]}}
    assert containerview.request(body, version) == {"Image": "x", "HostConfig": expected}
    assert containerview.request({"HostConfig": 7}, version) == {"HostConfig": 7}
