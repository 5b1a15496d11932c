"""Mount options and tmpfs options: words to bits, in the words' order."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidParameter
from sampan.kernel import mount
from sampan.oci import runtime
from sampan.oci.runtime import MountOptions, mount_options, namespace, tmpfs_options


def test_the_bits_are_the_kernels() -> None:
    assert (runtime.RDONLY, runtime.NOSUID, runtime.NODEV, runtime.NOEXEC) == (
        mount.MOUNT_ATTR_RDONLY,
        mount.MOUNT_ATTR_NOSUID,
        mount.MOUNT_ATTR_NODEV,
        mount.MOUNT_ATTR_NOEXEC,
    )
    assert (runtime.NOATIME, runtime.STRICTATIME, runtime.NOSYMFOLLOW) == (
        mount.MOUNT_ATTR_NOATIME,
        mount.MOUNT_ATTR_STRICTATIME,
        mount.MOUNT_ATTR_NOSYMFOLLOW,
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", MountOptions(0, ())),
        ("nosuid,noexec,nodev", MountOptions(2 | 4 | 8, ())),
        ("ro,rw", MountOptions(0, (), clear=1)),
        ("rw,ro", MountOptions(1, ())),
        ("noexec,exec,nosuid", MountOptions(2, (), clear=8)),
        ("noatime,relatime", MountOptions(0, (), clear=0x30)),
        ("relatime,strictatime", MountOptions(0x20, (), clear=0x10)),
        ("nodiratime,nosymfollow", MountOptions(0x80 | 0x200000, ())),
        ("bind", MountOptions(0, (), bind=True)),
        ("rbind,rprivate,ro", MountOptions(1, (), bind=True, recursive=True, propagation="rprivate")),
        ("rbind,bind", MountOptions(0, (), bind=True)),
        ("mode=1777,size=64m", MountOptions(0, (("mode", "1777"), ("size", "64m")))),
        ("size=1,size=2", MountOptions(0, (("size", "2"),))),
        ("defaults,newinstance,gid=5", MountOptions(0, (("gid", "5"),))),
        ("inode64", MountOptions(0, (("inode64", ""),))),
        ("context=a=b", MountOptions(0, (("context", "a=b"),))),
        ("slave,shared", MountOptions(0, (), propagation="shared")),
        ("strictatime,noatime", MountOptions(0x10, ())),
        ("rro,rnosuid", MountOptions(0, (), deep=3)),
        ("rro,rrw", MountOptions(0, (), deep_clear=1)),
        ("rrelatime", MountOptions(0, (), deep_clear=0x30)),
        ("sync,dirsync,lazytime", MountOptions(0, (("sync", ""), ("dirsync", ""), ("lazytime", "")))),
        ("sync,async,silent,loud", MountOptions(0, ())),
        ("rbind,ridmap", MountOptions(0, (), bind=True, recursive=True, idmap="ridmap")),
        ("tmpcopyup,remount", MountOptions(0, (), copy_up=True, remount=True)),
    ],
)
def test_words_in_their_order(words: str, expected: MountOptions) -> None:
    assert mount_options(w for w in words.split(",") if w) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["noexec", "nosuid", "nodev"]),
        ("exec", ["noexec", "nosuid", "nodev", "exec"]),
        ("size=64m,mode=1770,uid=1000", ["noexec", "nosuid", "nodev", "size=64m", "mode=1770", "uid=1000"]),
        ("rw,", ["noexec", "nosuid", "nodev", "rw"]),
    ],
)
def test_a_tmpfs_has_dockers_defaults_first(text: str, words: list[str]) -> None:
    assert tmpfs_options(text) == words


@pytest.mark.parametrize("word", ["foo", "foo=1", "bind", "rbind", "upperdir=/x", "size"])
def test_a_tmpfs_option_that_is_none_is_refused_in_dockers_words(word: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        tmpfs_options(f"rw,{word}")
    assert str(caught.value) == f'invalid tmpfs option ["{word}"]'


def test_a_namespace_is_found_by_its_kind() -> None:
    config = {"linux": {"namespaces": [{"type": "mount"}, {"type": "pid", "path": "/x"}]}}
    assert namespace(config, "pid") == {"type": "pid", "path": "/x"}
    assert namespace(config, "uts") is None


@pytest.mark.parametrize(
    "name", ["net.//.kernel.core_pattern", "net/../kernel/core_pattern", "net./.x", "net..x", "net//x"]
)
def test_a_parameter_of_a_namespace_does_not_lead_to_the_hosts(name: str) -> None:
    with pytest.raises(InvalidParameter):
        runtime.parameter_path(name)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/5.forwarding", "net/ipv4/conf/eth0.5/forwarding"),
        ("net/ipv4/conf/eth0.5/forwarding", "net/ipv4/conf/eth0.5/forwarding"),
    ],
)
def test_both_forms_of_a_parameter(name: str, path: str) -> None:
    assert runtime.parameter_path(name) == path
