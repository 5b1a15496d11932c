"""-v and --mount: what Docker's command line makes of them, and what it says to what is wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sampan.cli import mounts
from sampan.errors import InvalidParameter


@pytest.mark.parametrize(
    ("texts", "binds", "volumes"),
    [
        (["/data"], [], ["/data"]),
        (["x"], [], ["x"]),
        (["vol:/data:ro", "/src:/dst:z,rshared"], ["vol:/data:ro", "/src:/dst:z,rshared"], []),
        (["./a:/b:ro", "..:/c"], ["/usr/lib/a:/b:ro", "/usr:/c"], []),
        # Docker's own takes this for a drive of Windows, and makes a volume at ./c:/x; ours says that the name is too short.
        (["c:/x"], ["c:/x"], []),
        (["/src:/dst:whatever"], ["/src:/dst:whatever"], []),
    ],
)
def test_volume_flags(texts: list[str], binds: list[str], volumes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr/lib")
    assert mounts.volume_flags(texts) == (binds, {v: {} for v in volumes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid empty volume spec"),
        (":::", "invalid spec: :::: empty section between colons"),
        ("/a::/b", "invalid spec: /a::/b: empty section between colons"),
        ("/a:", "invalid spec: /a:: empty section between colons"),
        ("/aa:/bb:ro:rw", "invalid spec: /aa:/bb:ro:rw: too many colons"),
    ],
)
def test_volume_flags_that_are_none(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        mounts.volume_flags([text])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("target=/x", {"Type": "volume", "Target": "/x"}),
        (
            "type=BIND,src=/a,dst=/b,ro",
            {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True},
        ),
        ("type=bind,source=.,destination=/b,readonly=false", {"Type": "bind", "Source": "/usr/lib", "Target": "/b", "ReadOnly": False}),
        (
            "type=bind,src=/a,dst=/b,bind-propagation=RShared,bind-nonrecursive,bind-create-src=1",
            {"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"Propagation": "rshared", "NonRecursive": True, "CreateMountpoint": True}},
        ),
        (
            "type=bind,src=/a,dst=/b,ro,bind-recursive=readonly,bind-propagation=rprivate,consistency=cached",
            {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True, "Consistency": "cached", "BindOptions": {"ReadOnlyForceRecursive": True, "Propagation": "rprivate"}},
        ),
        ("type=bind,src=/a,dst=/b,bind-recursive=enabled", {"Type": "bind", "Source": "/a", "Target": "/b"}),
        (
            'src=v,dst=/b,volume-nocopy,volume-label=a=b,volume-label=c,volume-driver=local,volume-opt=type=nfs,"volume-opt=o=addr=1.1.1.1,rw",volume-subpath=s',
            {
                "Type": "volume",
                "Source": "v",
                "Target": "/b",
                "VolumeOptions": {
                    "NoCopy": True,
                    "Labels": {"a": "b", "c": ""},
                    "DriverConfig": {"Name": "local", "Options": {"type": "nfs", "o": "addr=1.1.1.1,rw"}},
                    "Subpath": "s",
                },
            },
        ),
        ("type=image,src=i,dst=/b,image-subpath=s", {"Type": "image", "Source": "i", "Target": "/b", "ImageOptions": {"Subpath": "s"}}),
        ("type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=1700", {"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1700}}),
    ],
)  # fmt: skip
def test_mount(text: str, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr/lib")
    assert mounts.mount(text) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "value is empty"),
        ("type=volume,bogus", "invalid field 'bogus' must be a key=value pair"),
        ("type=volume,target", "invalid field 'target' must be a key=value pair"),
        ("type=volume,bogus=foo", "unexpected key 'bogus' in 'bogus=foo'"),
        ("type=,dst=/x", "type is required"),
        ("dst=/x,readonly=no", "invalid value for readonly: no"),
        ("dst=/x,volume-nocopy=x", "invalid value for volume-nocopy: x"),
        ("type=tmpfs,dst=/x,tmpfs-size=foo", "invalid value for tmpfs-size: foo"),
        ("type=tmpfs,dst=/x,tmpfs-mode=888", "invalid value for tmpfs-mode: 888"),
        ("type=bind,dst=/x,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
        ("dst=/x,bind-propagation=x", "cannot mix 'bind-*' options with mount type 'volume'"),
        ("dst=/x,tmpfs-mode=700", "cannot mix 'tmpfs-*' options with mount type 'volume'"),
        ("dst=/x,image-subpath=a", "cannot mix 'image-*' options with mount type 'volume'"),
        (
            "type=bind,dst=/x,bind-recursive=x",
            'invalid value for bind-recursive: x (must be "enabled", "disabled", "writable", or "readonly")',
        ),
        (
            "type=bind,dst=/x,bind-recursive=writable",
            "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction",
        ),
        (
            "type=bind,dst=/x,bind-recursive=readonly",
            "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction",
        ),
        (
            "type=bind,dst=/x,ro,bind-recursive=readonly",
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction",
        ),
    ],
)
def test_mounts_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        mounts.mount(text)


def test_a_quote_that_is_not_closed() -> None:
    with pytest.raises(ValueError, match="parse error"):
        mounts.mount('dst=/x,"a')
