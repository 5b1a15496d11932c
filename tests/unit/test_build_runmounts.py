"""`RUN --mount=...` as it is read, and the addresses of contexts."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from sampan.build import addresses, runmounts
from sampan.build.addresses import GitAddress
from sampan.build.instructions import RunMount
from sampan.errors import InvalidParameter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", RunMount("bind", "/x")),
        ("target=.", RunMount("bind", ".")),
        ("type=bind,dst=/x,src=a,from=b,rw", RunMount("bind", "/x", "a", "b", read_only=False)),
        ("type=bind,destination=/x,source=a,readonly", RunMount("bind", "/x", "a", read_only=True)),
        ("type=bind,target=/x,rw=false", RunMount("bind", "/x", read_only=True)),
        ('type=bind,"target=/a,b"', RunMount("bind", "/a,b")),
        (
            "type=cache,id=i,target=/x,sharing=locked,mode=0700,uid=1,gid=2,ro,from=f,source=s",
            RunMount("cache", "/x", "s", "f", True, "i", sharing="locked", mode=0o700, uid=1, gid=2),
        ),
        ("type=tmpfs,target=/x,size=2m", RunMount("tmpfs", "/x", size=2 << 20)),
        ("type=secret,id=i,env=E,required", RunMount("secret", id="i", env="E", required=True)),
        ("type=secret,target=/t,required=false,mode=440", RunMount("secret", "/t", mode=0o440)),
        ("TYPE=ssh", RunMount("ssh")),
    ],
)
def test_a_mount_is_read(text: str, expected: RunMount) -> None:
    assert runmounts.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target=/", 'invalid mount target "/"'),
        ("target=/x/..", 'invalid mount target "/x/.."'),
        ("type=bind", "target is required for mount type bind"),
        ("type=cache", "target is required for mount type cache"),
        ("type=cache,target=/x,sharing=shraed", 'unsupported sharing value "shraed" (did you mean shared?)'),
        ("type=cache,target=/x,source=/y", "a cache mount with a source needs a from"),
        ("type=cahce,target=/x", 'unsupported mount type "cahce" (did you mean cache?)'),
        ("type=tmpfs,target=/x,sice=1", 'unexpected key "sice" for mount type "tmpfs" (did you mean size?)'),
        ("type=tmpfs,target=/x,size=big", "invalid value big for size: it is no number of bytes"),
        ("type=tmpfs,target=/x,uid=1", 'unexpected key "uid" for mount type "tmpfs"'),
        ("type=cache,target=/x,mode=9", "invalid value 9 for mode: it is no number"),
        ("type=cache,target=/x,uid=-1", "invalid value -1 for uid: it is no number"),
        ("type=bind,target=/x,rw=perhaps", "invalid value for rw: perhaps: it is neither true nor false"),
        ("type=secret", "secret mounts need an id, a target or an env"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("from=$X,target=/x", "'from' doesn't support variable expansion"),
        ('"target=/x', "it is not a list of key=value"),
    ],
)
def test_what_is_no_mount_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        runmounts.check(text)
    assert message in str(caught.value)


def test_variables_are_replaced_in_values_and_make_no_keys() -> None:
    values = {"$T": "/x,rw"}
    assert runmounts.parse("target=$T,source=a", lambda text: values.get(text, text)) == RunMount("bind", "/x,rw", "a")
    assert runmounts.source_of("type=bind,target=$T,from=stage") == "stage"


@hypothesis.given(st.text())
def test_any_text_is_a_mount_or_refused(text: str) -> None:
    try:
        runmounts.check(text)
    except InvalidParameter:
        return


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host/r.git", GitAddress("https://host/r.git")),
        ("https://host/r.git#v1:a/b", GitAddress("https://host/r.git", "v1", "a/b")),
        ("http://host/r.git#:a/", GitAddress("http://host/r.git", "", "a")),
        ("git@host:team/r.git#x", GitAddress("git@host:team/r.git", "x")),
        ("git@host:r", GitAddress("git@host:r")),
        ("ssh://git@host:22/r", GitAddress("ssh://git@host:22/r")),
        ("git://host/r", GitAddress("git://host/r")),
        ("github.com/team/r#main", GitAddress("https://github.com/team/r", "main")),
    ],
)
def test_addresses_of_repositories(text: str, expected: GitAddress) -> None:
    assert addresses.is_git(text)
    assert addresses.is_remote(text)
    assert addresses.parse_git(text) == expected


@pytest.mark.parametrize(
    "text", ["https://host/file.tar", "https://host/r.git.tar", "dir", "a/b:c", "./git@x", "file.git"]
)
def test_what_is_no_repository(text: str) -> None:
    assert not addresses.is_git(text)
    with pytest.raises(InvalidParameter):
        addresses.parse_git(text)


@pytest.mark.parametrize(
    "text",
    [
        *("git@-oX:r", "ssh://-oX/r.git", "-u@host:r", "git://host/r#-x", "git://host/r#+a", "git://host/r#a b"),
        *("git://host/r#a:../b", "git://host/r#a:b/../../c", "git://host/r#a..b", "git://host/r#^a", "git://ho st/r"),
        *("ext::sh -c x#.git", "file:///r.git", "ftp://host/r.git", "https://host/r.git\n--x"),
    ],
)
def test_what_could_be_an_option_or_lead_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        addresses.parse_git(text)


@hypothesis.given(st.text())
def test_any_text_is_an_address_or_refused_and_never_an_option(text: str) -> None:
    try:
        found = addresses.parse_git(text)
    except InvalidParameter:
        return
    assert not found.ref.startswith("-")
    assert ".." not in found.subdirectory.split("/")


def test_passwords_are_not_shown() -> None:
    assert addresses.redacted("https://me:pw@host/x@y") == "https://xxxxx@host/x@y"
    assert addresses.redacted("https://host/x@y") == "https://host/x@y"
    assert addresses.redacted("git@host:x") == "git@host:x"
