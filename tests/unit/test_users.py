"""Who a container runs as: what `--user` and `--group-add` come to by an image's passwd and group. No root, no files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.steps import users
from sampan.steps.base import StepError
from sampan.steps.users import LARGEST_ID, resolve

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
# a comment
web:x:1000:33:web:/srv/web:/bin/sh

second:x:1000:44::/second:/bin/sh
homeless:x:1500:1500:::
1234:x:77:77:a name of digits:/digits:/bin/sh
short:x:88
"""

GROUP = b"""root:x:0:
www:x:33:
audio:x:29:web,daemon
video:x:44:daemon, web
mixed:x:50:other,web,last
5678:x:51:
web:x:60:
"""


def who(user: str, additional: tuple[str, ...] = ()) -> tuple[int, int, list[int], str]:
    found = resolve(user, list(additional), PASSWD, GROUP)
    return found.uid, found.gid, found.groups, found.home


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, [0], "/root")),
        ("root", (0, 0, [0], "/root")),
        ("0", (0, 0, [0], "/root")),
        ("web", (1000, 33, [33, 29, 50], "/srv/web")),
        # A number takes the first entry that has it, with its name's groups.
        ("1000", (1000, 33, [33, 29, 50], "/srv/web")),
        ("+1000", (1000, 33, [33, 29, 50], "/srv/web")),
        ("0001000", (1000, 33, [33, 29, 50], "/srv/web")),
        ("second", (1000, 44, [44], "/second")),
        ("homeless", (1500, 1500, [1500], "/")),
        # Nobody in the file: the number itself, root's group, no home.
        ("4242", (4242, 0, [0], "/")),
        (str(LARGEST_ID), (LARGEST_ID, 0, [0], "/")),
        # A name of digits is never a name.
        ("1234", (1234, 0, [0], "/")),
        ("77", (77, 77, [77], "/digits")),
        # A group in words or numbers takes the place of the user's own, and of its memberships.
        ("web:www", (1000, 33, [33], "/srv/web")),
        ("web:audio", (1000, 29, [29], "/srv/web")),
        ("web:0", (1000, 0, [0], "/srv/web")),
        ("web:9999", (1000, 9999, [9999], "/srv/web")),
        ("4242:audio", (4242, 29, [29], "/")),
        (":audio", (0, 29, [29], "/root")),
        ("web:", (1000, 33, [33, 29, 50], "/srv/web")),
        # Whatever comes behind the group is passed over, as in Docker.
        ("1:2:3", (1, 2, [2], "/usr/sbin")),
        ("short", (88, 0, [0], "/")),
    ],
)
def test_a_user_as_docker_reads_it(user: str, expected: tuple[int, int, list[int], str]) -> None:
    assert who(user) == expected


def test_groups_are_added_by_name_and_number_and_once() -> None:
    assert who("web", ("video", "77777", "audio", "33", "0"))[2] == [33, 29, 50, 44, 77777, 0]
    assert who("4242:www", ("audio", "audio"))[2] == [33, 29]


@pytest.mark.parametrize(
    ("user", "additional", "message"),
    [
        ("nosuch", (), "unable to find user nosuch: no matching entries in passwd file"),
        ("0x0", (), "unable to find user 0x0: no matching entries in passwd file"),
        (" 0", (), "unable to find user  0: no matching entries in passwd file"),
        ("٠", (), "unable to find user ٠: no matching entries in passwd file"),
        ("root:nosuch", (), "unable to find group nosuch: no matching entries in group file"),
        ("root", ("nosuch",), "unable to find group nosuch: no matching entries in group file"),
        ("", ("",), "unable to find group : no matching entries in group file"),
        # Out of range is never wrapped to another number, least of all to 0 (CVE-2024-40635).
        ("2147483648", (), "uids and gids must be in range 0-2147483647"),
        ("4294967295", (), "uids and gids must be in range 0-2147483647"),
        ("4294967296", (), "uids and gids must be in range 0-2147483647"),
        ("18446744073709551616", (), "uids and gids must be in range 0-2147483647"),
        ("-1", (), "uids and gids must be in range 0-2147483647"),
        ("9" * 100_000, (), "uids and gids must be in range 0-2147483647"),
        ("0:4294967296", (), "uids and gids must be in range 0-2147483647"),
        ("0:-1", (), "uids and gids must be in range 0-2147483647"),
        ("0", ("2147483648",), "uids and gids must be in range 0-2147483647"),
        ("0", ("-1",), "uids and gids must be in range 0-2147483647"),
    ],
)
def test_what_cannot_be_is_refused_in_dockers_words(user: str, additional: tuple[str, ...], message: str) -> None:
    with pytest.raises(StepError) as caught:
        resolve(user, list(additional), PASSWD, GROUP)
    assert str(caught.value) == message
    assert caught.value.exit_code == 128


@pytest.mark.parametrize(
    "entry",
    [
        b"99999999999:x:0:0::/:/bin/sh\n",  # a name that looks like a number must not win over the number
        b"4294967296:x:0:0::/:/bin/sh\n",
        b"-1:x:0:0::/:/bin/sh\n",
        b"+99999999999:x:0:0::/:/bin/sh\n",
    ],
)
def test_a_name_that_looks_like_a_number_out_of_range_makes_nobody_root(entry: bytes) -> None:
    name = entry.split(b":")[0].decode()
    with pytest.raises(StepError, match="must be in range"):
        resolve(name, [], entry, b"")


@pytest.mark.parametrize(
    "entry",
    [
        b"evil:x:-1:-1::/:\n",
        b"evil:x:4294967296:0::/:\n",
        b"evil:x::0::/:\n",
        b"evil:x:root:root::/:\n",
        b"evil:x:0x0:0::/:\n",
        b"evil\n",
        b"evil:x:" + b"9" * 1_000_000 + b":0::/:\n",
    ],
)
def test_an_entry_without_a_sound_number_makes_nobody_root(entry: bytes) -> None:
    with pytest.raises(StepError):
        resolve("evil", [], entry, b"")


def test_a_group_without_a_sound_number_is_no_group() -> None:
    group = b"bad:x:-5:web\nworse:x:junk:web\nhuge:x:4294967296:web\ngood:x:7:web\n"
    assert resolve("web", [], b"web:x:5:6::/:\n", group).groups == [6, 7]
    with pytest.raises(StepError, match="unable to find group bad"):
        resolve("web:bad", [], b"web:x:5:6::/:\n", group)


def test_without_the_files_numbers_still_work() -> None:
    assert vars_of(resolve("", [], b"", b"")) == (0, 0, [0], "/")
    assert vars_of(resolve("5:6", ["7"], b"", b"")) == (5, 6, [6, 7], "/")
    with pytest.raises(StepError, match="unable to find user root"):
        resolve("root", [], b"", b"")


def vars_of(found: users.Identity) -> tuple[int, int, list[int], str]:
    return found.uid, found.gid, found.groups, found.home


def test_lines_of_megabytes_and_members_of_thousands() -> None:
    members = b",".join(b"user%d" % n for n in range(100_000)) + b",web"
    group = b"x" * 1_000_000 + b"\nbig:x:900:" + members + b"\n"
    assert resolve("web", [], b"y" * 1_000_000 + b"\n" + PASSWD, group).groups == [33, 900]


def test_carriage_returns_and_bytes_that_are_not_utf8() -> None:
    passwd = b"w\xffb:x:5:6::/h\xff:\r\nother:x:7:8::/o:/bin/sh\r\n"
    found = resolve("w\udcffb", [], passwd, b"g:x:9:w\xffb\r\n")
    assert vars_of(found) == (5, 6, [6, 9], "/h\udcff")
    assert resolve("other", [], passwd, b"").home == "/o"


@given(user=st.text(max_size=20), passwd=st.binary(max_size=200), group=st.binary(max_size=200))
def test_whatever_the_files_say_ids_are_in_range_or_refused(user: str, passwd: bytes, group: bytes) -> None:
    try:
        found = resolve(user, [], passwd, group)
    except StepError:
        return
    assert all(0 <= number <= LARGEST_ID for number in (found.uid, found.gid, *found.groups))
    assert found.groups[0] == found.gid


@given(st.integers(min_value=LARGEST_ID + 1), st.binary(max_size=100))
def test_no_number_out_of_range_is_ever_taken(number: int, passwd: bytes) -> None:
    for user in (str(number), str(-number), f"0:{number}"):
        with pytest.raises(StepError):
            resolve(user, [], passwd, b"")
