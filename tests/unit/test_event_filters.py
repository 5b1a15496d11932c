"""Which events a filter lets through, and how one is printed."""

from __future__ import annotations

import time

import pytest

from sampan.cli import events as verb
from sampan.engine.eventfilters import EventFilter
from sampan.engine.eventreader import message
from sampan.engine.events import container_attributes
from sampan.errors import InvalidParameter
from sampan.store.journal import Entry, parse
from sampan.store.record import Record

ID = "c" * 64
IMAGE = "sha256:" + "d" * 64


def container(action: str = "start", **attributes: str) -> Entry:
    return Entry(
        "container", action, ID, {"name": "web-1", "image": "debian:12", **attributes}, 1_700_000_000_123_456_789
    )


def image(action: str = "tag", name: str = "debian:12") -> Entry:
    return Entry("image", action, IMAGE, {"name": name}, 1)


@pytest.mark.parametrize(
    ("filters", "entry", "wanted"),
    [
        ({}, container(), True),
        ({"type": "container"}, container(), True),
        ({"type": ["image", "volume"]}, container(), False),
        ({"event": "start"}, container(), True),
        ({"event": ["die", "start"]}, container(), True),
        ({"event": "star"}, container(), False),
        ({"event": "health_status"}, container("health_status: healthy"), True),
        ({"event": "health_status: healthy"}, container("health_status: healthy"), True),
        ({"event": "health_status: healthy"}, container("health_status: unhealthy"), False),
        ({"event": "exec_create"}, container("exec_create: ls -l"), True),
        ({"event": "exec_start"}, container("exec_create: ls -l"), False),
        ({"event": "exec"}, container("exec_create: ls -l"), False),
        ({"event": ["exec_create", "die"]}, container("die"), True),
        ({"container": "web-1"}, container(), True),
        ({"container": "web"}, container(), True),
        ({"container": "ccc"}, container(), True),
        ({"container": "db"}, container(), False),
        ({"container": ["db", "web"]}, container(), True),
        ({"container": "web", "event": "die"}, container(), False),
        ({"image": "debian:12"}, container(), True),
        ({"image": "debian"}, container(), True),
        ({"image": "deb"}, container(), False),
        ({"image": "debian"}, image(), True),
        ({"image": IMAGE}, image(), True),
        ({"image": "alpine"}, image(), False),
        ({"image": "debian"}, Entry("container", "die", ID, {"name": "x"}, 1), False),
        ({"volume": "data"}, Entry("volume", "mount", "data", {"driver": "local"}, 1), True),
        ({"volume": "other"}, Entry("volume", "mount", "data", {"driver": "local"}, 1), False),
        ({"network": "front"}, container(), False),
        ({"scope": "local"}, container(), True),
        ({"scope": "swarm"}, container(), False),
        ({"daemon": "any"}, container(), False),
        ({"label": "tier"}, container(tier="1"), True),
        ({"label": "tier=1"}, container(tier="1"), True),
        ({"label": "tier=2"}, container(tier="1"), False),
        ({"label": ["tier", "zone"]}, container(tier="1"), False),
    ],
)
def test_a_filter_lets_through_what_dockers_does(
    filters: dict[str, str | list[str]], entry: Entry, wanted: bool
) -> None:
    assert EventFilter(filters).matches(entry) is wanted


def test_a_filter_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="invalid filter 'colour'"):
        EventFilter({"colour": "red"})


def test_the_message_of_a_container_has_the_old_names_too() -> None:
    found = message(container("die", exitCode="3", b="2"))
    assert list(found) == ["status", "id", "from", "Type", "Action", "Actor", "scope", "time", "timeNano"]
    assert (found["status"], found["id"], found["from"]) == ("die", ID, "debian:12")
    assert list(found["Actor"]["Attributes"]) == ["b", "exitCode", "image", "name"]
    assert (found["time"], found["timeNano"]) == (1_700_000_000, 1_700_000_000_123_456_789)


def test_an_image_has_no_from_and_a_volume_none_of_them() -> None:
    assert "from" not in message(image())
    assert message(image())["id"] == IMAGE
    assert next(iter(message(Entry("volume", "create", "v", {"driver": "local"}, 1)))) == "Type"
    assert "id" not in message(Entry("container", "prune", "", {"reclaimed": "0"}, 1))


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("UTC", "2023-11-14T22:13:20.123456789Z"),
        ("CET-1", "2023-11-14T23:13:20.123456789+01:00"),
        ("NST3:30", "2023-11-14T18:43:20.123456789-03:30"),
    ],
)
def test_the_line_is_dockers(zone: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert verb.line(message(container("die", exitCode="3"))) == (
            f"{shown} container die {ID} (exitCode=3, image=debian:12, name=web-1)"
        )
        nothing = Entry("network", "prune", "", {}, 1_700_000_000_123_456_789)
        assert verb.line(message(nothing)) == f"{shown} network prune "
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"[]", b"null", b'{"type":"container"}', b'{"type":1,"id":"x","attributes":[],"action":"a","time":1}'],
)
def test_what_is_no_event_is_none(record: bytes) -> None:
    assert parse(record) is None


def test_labels_give_way_to_the_name_and_the_image() -> None:
    labels = {"name": "label", "image": "label", "signal": "label", "own": "label"}
    config = {"Labels": labels}
    record = Record(2, ID, "web", "", IMAGE, "debian:12", (), "overlay", "sh", (), config, {})
    assert container_attributes(record, {"signal": "9"}) == {
        "name": "web",
        "image": "debian:12",
        "signal": "label",
        "own": "label",
    }
