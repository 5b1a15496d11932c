"""The options of the volume driver `local` become a call of mount(2), or Docker's refusal."""

from __future__ import annotations

import errno

import pytest

from sampan.engine.volumefilters import VolumeFilter
from sampan.engine.volumeoptions import check, mount_call, needs_mount, parse, shown
from sampan.errors import InvalidParameter, System
from sampan.kernel import mount
from sampan.store.volumes import VolumeRecord, check_name

MS_SYNCHRONOUS, MS_STRICTATIME = 16, 1 << 24


def no_network(host: str) -> str:
    raise AssertionError(f"{host} was looked up")


@pytest.mark.parametrize(
    ("words", "flags", "data"),
    [
        ("", 0, ""),
        ("bind", mount.MS_BIND, ""),
        ("rbind,ro", mount.MS_BIND | mount.MS_REC | mount.MS_RDONLY, ""),
        ("ro,rw", 0, ""),
        ("nosuid,nodev,noexec,suid", mount.MS_NODEV | mount.MS_NOEXEC, ""),
        ("size=10m,mode=1777,uid=5", 0, "size=10m,mode=1777,uid=5"),
        ("noatime,size=1k,sync", mount.MS_NOATIME | MS_SYNCHRONOUS, "size=1k"),
        ("defaults,_netdev,nofail,x-systemd.automount,comment=mine,vers=4", 0, "vers=4"),
        ("strictatime,rslave", MS_STRICTATIME | mount.MS_SLAVE | mount.MS_REC, ""),
        ("ro,,soft", mount.MS_RDONLY, "soft"),
        ("RO", 0, "RO"),
    ],
)
def test_words_become_flags_and_data_as_mount8_takes_them(words: str, flags: int, data: str) -> None:
    assert parse(words) == (flags, data)


def test_a_bind_takes_its_flags_in_a_second_call() -> None:
    call = mount_call({"type": "none", "device": "/srv", "o": "bind,ro,nosuid"}, no_network)
    assert call.flags == mount.MS_BIND | mount.MS_RDONLY | mount.MS_NOSUID
    assert call.remount == mount.MS_REMOUNT | call.flags
    assert call.propagation == 0


def test_a_new_file_system_takes_its_flags_at_once() -> None:
    call = mount_call({"type": "tmpfs", "device": "tmpfs", "o": "ro,size=1m"}, no_network)
    assert (call.flags, call.data, call.remount) == (mount.MS_RDONLY, "size=1m", 0)


def test_propagation_is_a_call_of_its_own() -> None:
    call = mount_call({"type": "none", "device": "/srv", "o": "bind,rshared"}, no_network)
    assert call.flags & mount.MS_SHARED == 0
    assert call.propagation == mount.MS_SHARED | mount.MS_REC


def test_a_relative_device_of_a_bind_is_below_the_root() -> None:
    assert mount_call({"type": "none", "device": "srv/x", "o": "bind"}, no_network).device == "/srv/x"
    assert mount_call({"type": "nfs", "device": ":/srv", "o": "addr=10.0.0.1"}, str).device == ":/srv"


def test_nfs_gets_an_address_in_place_of_a_name() -> None:
    options = {"type": "nfs", "device": ":/srv", "o": "addr=files.example,mountaddr=10.0.0.9,rw"}
    call = mount_call(options, {"files.example": "10.0.0.5"}.__getitem__)
    assert call.data == "addr=10.0.0.5,mountaddr=10.0.0.9"
    assert mount_call({**options, "type": "tmpfs"}, no_network).data.startswith("addr=files.example")


def test_a_name_that_has_no_address() -> None:
    def refuse(_host: str) -> str:
        raise OSError(errno.ENOENT, "No such host")

    with pytest.raises(
        System, match=r"^error resolving passed in network volume address: lookup files.example: no such host$"
    ):
        mount_call({"type": "nfs4", "device": ":/srv", "o": "addr=files.example"}, refuse)


def test_without_a_device_there_is_nothing_to_mount() -> None:
    assert not needs_mount({})
    assert not needs_mount({"o": "", "device": ""})
    assert needs_mount({"type": "tmpfs"})
    with pytest.raises(System, match="missing device in volume options"):
        mount_call({"type": "tmpfs", "device": ""}, no_network)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"foo": "bar"}, 'invalid option: "foo"'),
        ({"": "x"}, 'invalid option: ""'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"device": "/x"}, 'missing required option: "type"'),
        ({"o": "bind"}, 'missing required option: "device"'),
        ({"o": "bind", "device": "/x"}, 'missing required option: "type"'),
        ({"size": "10m"}, "quota size requested but no quota support"),
        ({"size": "much"}, "invalid size: 'much'"),
    ],
)
def test_options_that_make_no_volume(options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check(options)
    assert str(caught.value) == message


def test_options_that_do() -> None:
    check({})
    check({"size": "0"})
    check({"type": "none", "device": "/x", "o": "bind"})


def test_a_failed_mount_is_told_without_its_password() -> None:
    call = mount_call({"type": "cifs", "device": "//h/s", "o": "ro,username=u,password=p,vers=3"}, no_network)
    assert shown(call, "/v") == "mount //h/s:/v, flags: 0x1, data: username=u,password=********,vers=3"


@pytest.mark.parametrize("name", ["ab", "0x", "a.b-c_d", "A" * 255, "a."])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "..", ".a", "_data", "-x", "a/b", "a b", "ä1", "a\n", "a\0b"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InvalidParameter, match=r"includes invalid characters for a local volume name, only"):
        check_name(name)


def test_names_of_the_wrong_length() -> None:
    with pytest.raises(InvalidParameter, match=r"^volume name is too short, names should be at least two"):
        check_name("a")
    with pytest.raises(InvalidParameter, match="file name too long"):
        check_name("a" * 256)


def record(name: str, **labels: str) -> VolumeRecord:
    return VolumeRecord(name=name, path=f"/v/{name}", options={}, labels=labels, created="2026-01-01T00:00:00Z")


ALL = ("dangling", "driver", "label", "label!", "name", "all")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, True),
        ({"name": "da"}, True),
        ({"name": "^da$"}, False),
        ({"name": ["x", "^da"]}, True),
        ({"name": "["}, False),
        ({"driver": "local"}, True),
        ({"driver": ["other"]}, False),
        ({"label": "a"}, True),
        ({"label": "a=1"}, True),
        ({"label": ["a=1", "b"]}, False),
        ({"label!": "a"}, False),
        ({"label!": "b"}, True),
        ({"dangling": "true"}, True),
        ({"dangling": "0"}, False),
        ({"dangling": True}, True),
    ],
)
def test_filters(filters: dict[str, str | list[str]], found: bool) -> None:
    assert VolumeFilter(filters, ALL).matches(record("data", a="1"), used=False) == found


def test_what_is_no_filter() -> None:
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'foo'$"):
        VolumeFilter({"foo": "1"}, ALL)
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'dangling=\[maybe\]'$"):
        VolumeFilter({"dangling": "maybe"}, ALL)
