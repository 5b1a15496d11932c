"""What a request says about mounts, read by dockerd's rules; and what propagation a source can have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sampan.engine import mountspecs, propagation
from sampan.engine.options import request
from sampan.errors import InvalidParameter
from sampan.oci.mountpoint import BIND, FORCED, NOT_RECURSIVE, TMPFS, VOLUME, MountPoint


def test_binds() -> None:
    made = mountspecs.read_bind("//a/./b/:/x/../y/:ro,z,rslave")
    assert (made.type, made.source, made.target) == (BIND, "/a/b", "/y")
    assert (made.mode, made.rw, made.propagation, made.create_source) == ("ro,z,rslave", False, "rslave", True)
    made = mountspecs.read_bind("vol:/x:nocopy", driver="local")
    assert (made.type, made.source, made.copy, made.driver, made.propagation) == (VOLUME, "vol", False, "local", "")
    assert mountspecs.read_bind("/a:/b:match-user").match_user
    assert mountspecs.read_bind("/only").target == "/only"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid volume specification: ''"),
        (":/x", "invalid volume specification: ':/x'"),
        ("/x:rw", "invalid volume specification: '/x:rw'"),
        ("/x:/y:ro:z", "invalid volume specification: '/x:/y:ro:z'"),
        ("/x:/y:z,Z", "invalid mode: z,Z"),
        ("/x:/y:ro,", "invalid mode: ro,"),
        ("/x:/", "invalid volume specification: '/x:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'"),
        ("vol:/y:rshared", "invalid volume specification: 'vol:/y:rshared': invalid mount config for type \"volume\": field BindOptions must not be specified"),
        ("vol:/y:match-user", "invalid volume specification: 'vol:/y:match-user': invalid mount config for type \"volume\": match-user is for a directory of the host"),
    ],
)  # fmt: skip
def test_binds_that_are_none(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        mountspecs.read_bind(text)
    assert str(caught.value) == message


def test_mounts() -> None:
    item: dict[str, Any] = {"Type": "bind", "Source": "/", "Target": "/x", "ReadOnly": True}
    made = mountspecs.read_mount(item)
    assert (made.rw, made.propagation, made.create_source) == (False, "rprivate", False)
    assert mountspecs.read_mount({**item, "BindOptions": {"ReadOnlyNonRecursive": True}}).read_only == NOT_RECURSIVE
    assert mountspecs.read_mount({**item, "BindOptions": {"ReadOnlyForceRecursive": True}}).read_only == FORCED
    assert not mountspecs.read_mount({**item, "BindOptions": {"NonRecursive": True}}).recursive
    tmpfs = {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 5, "Mode": 0o700, "Options": [["exec"]]}}
    made = mountspecs.read_mount(tmpfs)
    assert made.type == TMPFS
    assert made.options == ("noexec", "nosuid", "nodev", "mode=700", "size=5", "exec")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"Type": "bind", "Source": "/"}, 'invalid mount config for type "bind": field Target must not be empty'),
        ({"Type": "bind", "Target": "/x"}, 'invalid mount config for type "bind": field Source must not be empty'),
        (
            {"Type": "bind", "Source": "/", "Target": "/x", "VolumeOptions": {"NoCopy": True}},
            'invalid mount config for type "bind": field VolumeOptions must not be specified',
        ),
        (
            {"Type": "bind", "Source": "/", "Target": "/x", "BindOptions": {"ReadOnlyNonRecursive": True, "ReadOnlyForceRecursive": True}},
            "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive",
        ),
        (
            {"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "a"}},
            'invalid mount config for type "volume": must not set Subpath when using anonymous volumes',
        ),
        (
            {"Type": "image", "Source": "i", "Target": "/x", "ImageOptions": {"Subpath": "/a"}},
            'invalid mount config for type "image": subpath must be a relative path within the volume',
        ),
        ({"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": -1}}, "invalid size or mode"),
        ({"Type": "npipe", "Target": "/x"}, 'invalid mount config for type "npipe": mount type unknown'),
        ("x", "invalid value for HostConfig.Mounts: 'x' is not an object"),
        ({"Type": 5}, "invalid value for Type: 5 is not a text"),
    ],
)  # fmt: skip
def test_mounts_that_are_none(item: Any, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        mountspecs.read_mount(item)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        {"Binds": ["/a:/x", "/b:/x/"]},
        {"Binds": ["/a:/x"], "Mounts": [{"Type": "tmpfs", "Target": "/x"}]},
        {"Binds": ["/a:/x"], "Tmpfs": {"/x": ""}},
    ],
)
def test_two_mounts_on_one_target(host: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match=r"^Duplicate mount point: /x$"):
        mountspecs.read(host)


@pytest.mark.parametrize(("text", "made"), [("a", ("a", True)), ("a:ro", ("a", False)), ("a:z,rw", ("a", True))])
def test_volumes_from(text: str, made: tuple[str, bool]) -> None:
    assert mountspecs.read_volumes_from(text) == made


MOUNTINFO = r"""22 1 8:1 / / rw - ext4 /dev/sda rw
23 22 0:5 / /shared rw shared:7 - tmpfs t rw
24 22 0:6 / /slave\040dir rw master:7 - tmpfs t rw
25 23 0:7 / /shared/private rw - tmpfs t rw
"""


@pytest.mark.parametrize(
    ("source", "word", "message"),
    [
        ("/shared/x", "rshared", ""),
        ("/shared/x", "slave", ""),
        ("/slave dir/x", "rslave", ""),
        ("/slave dir/x", "shared", "path /slave dir/x is mounted on /slave dir but it is not a shared mount"),
        ("/shared/private", "rslave", "path /shared/private is mounted on /shared/private but it is not a shared or slave mount"),
        ("/sharedish", "shared", "path /sharedish is mounted on / but it is not a shared mount"),
        ("/sharedish", "rprivate", ""),
    ],
)  # fmt: skip
def test_propagation(tmp_path: Path, source: str, word: str, message: str) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    point = MountPoint(BIND, "/x", source=source, propagation=word)
    if not message:
        propagation.check(point, str(tmp_path / "mountinfo"))
        return
    with pytest.raises(InvalidParameter) as caught:
        propagation.check(point, str(tmp_path / "mountinfo"))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "binds"),
    [
        ({"/a": {"bind": "/b", "mode": "ro"}, "v": {"bind": "/c"}}, ["/a:/b:ro", "v:/c:rw"]),
        ({"/a": {"bind": "/b", "ro": True, "propagation": "rslave"}}, ["/a:/b:ro,rslave"]),
        ({"/a": "/b:ro"}, ["/a:/b:ro"]),
        (["/a:/b", "/anon"], ["/a:/b", "/anon"]),
        ("/a:/b", ["/a:/b"]),
    ],
)
def test_the_shapes_of_docker_py(given: Any, binds: list[str]) -> None:
    assert request("i", None, None, {"volumes": given})["HostConfig"]["Binds"] == binds


def test_a_shape_that_is_none() -> None:
    with pytest.raises(InvalidParameter, match="invalid volume '/a'"):
        request("i", None, None, {"volumes": {"/a": {"mode": "ro"}}})
