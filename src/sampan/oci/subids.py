"""Subordinate ids (subuid(5)), and the maps of a container's user namespace that are made of them.

A map is a tuple of (first id in the container, first id outside, how many), the lines of a uid_map (user_namespaces(7)).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Range = tuple[int, int]
    """First id, how many."""
    Map = tuple[tuple[int, int, int], ...]

WANTED = 65536
"""How many ids a container's user namespace has at most: as many as images use."""


def ranges(text: str, owners: Iterable[str]) -> list[Range]:
    """The ranges that /etc/subuid or /etc/subgid gives to one of `owners` (names, or ids as text); the first that has any.

    Lines that are no entries are passed over, as every reader of these files does.
    """
    found: dict[str, list[Range]] = {}
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and all(f.isascii() and f.isdigit() for f in fields[1:]) and int(fields[2]):
            found.setdefault(fields[0], []).append((int(fields[1]), int(fields[2])))
    return next((found[owner] for owner in owners if owner in found), [])


def free(text: str, count: int = WANTED, first: int = 100000) -> int:
    """Where the next range could begin: behind all that are given away, for advice."""
    ends = [start + length for start, length in _all(text)]
    return max([first, *(-(-end // count) * count for end in ends)])


def _all(text: str) -> list[Range]:
    owners = {line.partition(":")[0] for line in text.splitlines()}
    return [one for owner in owners for one in ranges(text, (owner,))]


def private_map(available: Sequence[Range], count: int = WANTED) -> Map:
    """Ids of the container from 0 on, `count` at most, over what is available."""
    entries, at = [], 0
    for start, length in available:
        taken = min(length, count - at)
        if taken <= 0:
            break
        entries.append((at, start, taken))
        at += taken
    return tuple(entries)


def keep_map(available: Sequence[Range], kept: int, count: int = WANTED) -> Map:
    """The same, but for the id `kept`, which is itself outside: files of a user on the machine are his in the container."""
    entries: list[tuple[int, int, int]] = []
    for inside, outside, length in private_map(available, count):
        if not inside <= kept < inside + length:
            entries.append((inside, outside, length))
            continue
        before = kept - inside
        entries += [(inside, outside, before)] if before else []
        entries.append((kept, kept, 1))
        after = length - before - 1
        entries += [(kept + 1, outside + before + 1, after)] if after else []
    if not any(inside == kept == outside for inside, outside, _ in entries):
        entries.append((kept, kept, 1))
    return tuple(entries)


def lines(entries: Map) -> str:
    """The text of a uid_map."""
    return "".join(f"{inside} {outside} {length}\n" for inside, outside, length in entries)


def reverse(entries: Map) -> Map:
    """The map that takes the other one back."""
    return tuple((outside, inside, length) for inside, outside, length in entries)


def outside(entries: Map, inside: int) -> int:
    """What an id of the container is outside; -1 for one that is not mapped."""
    return next((start + inside - first for first, start, length in entries if first <= inside < first + length), -1)
