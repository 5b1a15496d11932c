"""Who a container runs as: `--user`, `--group-add` and the image's /etc/passwd and /etc/group, read by hand.

By hand, because the C library's own lookups (NSS) would load shared objects out of the image and run them as
root (class CVE-2019-14271). The rules are those of github.com/moby/sys/user, which Docker uses.
"""

from __future__ import annotations

from sampan.steps.base import StepError

LARGEST_ID = 2147483647
"""Ids are 0 to 2^31 - 1, as Docker has it; a larger one is refused, never wrapped or taken for a name (CVE-2024-40635)."""

FILE_LIMIT = 4 << 20
"""Bytes of passwd or group that are read: 40 000 users. A larger file is refused (CVE-2026-47262)."""


class Identity:
    """What a user specification comes to."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def _records(text: bytes, fields: int) -> list[list[str]]:
    records = []
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        line = line.strip()
        if line and not line.startswith("#"):
            parts = line.split(":")
            records.append(parts + [""] * (fields - len(parts)))
    return records


def _number(text: str) -> int | None:
    """`text` as an id; None if it is no number at all. A number out of range is an error, and never a name."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits.isascii() or not digits.isdigit():
        return None
    digits = digits.lstrip("0")  # int() refuses thousands of digits
    value = int(digits or "0") if len(digits) <= 10 else LARGEST_ID + 1
    if value > LARGEST_ID or (value and text[0] == "-"):
        raise StepError(f"uids and gids must be in range 0-{LARGEST_ID}")
    return value


def _file_id(text: str) -> int:
    """An id in a passwd or group file; -1, which matches nothing, for what is no number (Docker takes it for 0, root)."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1


def resolve(user: str, additional: list[str], passwd: bytes, group: bytes) -> Identity:
    """The identity that `user` ("name", "uid", either with ":group"; more is passed over) names in an image.

    `additional` are `--group-add` names or ids. Raises `StepError` with Docker's text for a name that is not
    there and a number that is out of range.
    """
    user_part, group_part = (*user.split(":"), "")[:2]
    uid, gid, home = 0, 0, "/"
    wanted = _number(user_part) if user_part else 0
    name = ""
    for entry in _records(passwd, 7):
        entry_uid = _file_id(entry[2])
        if entry[0] == user_part if wanted is None else entry_uid == wanted:
            name, uid, gid, home = entry[0], entry_uid, max(_file_id(entry[3]), 0), entry[5] or "/"
            break
    else:
        if wanted is None:
            raise StepError(f"unable to find user {user_part}: no matching entries in passwd file")
        uid = wanted
    if not 0 <= uid <= LARGEST_ID or gid > LARGEST_ID:
        raise StepError(f"uids and gids must be in range 0-{LARGEST_ID}")
    groups_file = _records(group, 4)
    if group_part:
        gid, memberships = _group(group_part, groups_file), []
    else:
        memberships = [_file_id(g[2]) for g in groups_file if name and name in g[3].split(",")]
    groups = [gid]
    for number in [*memberships, *(_group(g, groups_file) for g in additional)]:
        if number not in groups and 0 <= number <= LARGEST_ID:
            groups.append(number)
    return Identity(uid, gid, groups, home)


def home_of(uid: int, passwd: bytes) -> str:
    """The home directory of a user in a passwd file, "/" for one that is not there."""
    for entry in _records(passwd, 7):
        if _file_id(entry[2]) == uid:
            return entry[5] or "/"
    return "/"


def _group(text: str, groups_file: list[list[str]]) -> int:
    number = _number(text)
    if number is not None:
        return number
    for entry in groups_file:
        if entry[0] == text and 0 <= _file_id(entry[2]) <= LARGEST_ID:
            return _file_id(entry[2])
    raise StepError(f"unable to find group {text}: no matching entries in group file")
