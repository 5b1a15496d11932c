"""The same requests to Debian's dockerd and to `sampan serve`: the same statuses, and answers of the same members and types.

What differs is listed here with its reason; docs/api.md has it for users.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.apiserver import Api, serving
from support.roots import Root
from support.tools import Dockerd

pytestmark = [pytest.mark.root, pytest.mark.long]

REQUESTS: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/images/img/json", None),
    ("GET", "/images/nosuch/json", None),
    ("GET", "/images/json", None),
    ("GET", '/images/json?filters={"reference":{"img":true}}', None),
    ("GET", '/images/json?filters={"nosuch":["x"]}', None),
    ("GET", "/images/img/history", None),
    ("POST", "/images/img/tag?repo=other&tag=1", None),
    ("POST", "/images/img/tag?repo=UPPER", None),
    ("POST", "/images/nosuch/tag?repo=a", None),
    ("DELETE", "/images/other:1", None),
    ("DELETE", "/images/other:1", None),
    ("POST", "/images/prune", None),
    ("POST", "/networks/create", {"Name": "front", "Labels": {"a": "b"}}),
    ("POST", "/networks/create", {"Name": "front", "CheckDuplicate": True}),
    ("POST", "/networks/create", {"Name": "bridge"}),
    ("POST", "/networks/create", {"Name": 1}),
    ("POST", "/networks/create", {"Name": "x", "Driver": "nosuch"}),
    ("GET", "/networks/front", None),
    ("GET", "/networks/nosuch", None),
    ("GET", '/networks?filters={"label":["a=b"]}', None),
    ("GET", '/networks?filters={"nosuch":["a=b"]}', None),
    ("POST", "/networks/front/connect", {"Container": "nosuch"}),
    ("POST", "/networks/front/disconnect", {"Container": "nosuch"}),
    ("DELETE", "/networks/bridge", None),
    ("DELETE", "/networks/front", None),
    ("DELETE", "/networks/front", None),
    ("POST", "/networks/prune", None),
    ("POST", "/volumes/create", {"Name": "data", "Labels": {"a": "b"}}),
    ("POST", "/volumes/create", {"Name": "data"}),
    ("POST", "/volumes/create", {"Name": "a/b"}),
    ("GET", "/volumes/data", None),
    ("GET", "/volumes/nosuch", None),
    ("GET", "/volumes", None),
    ("GET", '/volumes?filters={"nosuch":["x"]}', None),
    ("DELETE", "/volumes/data", None),
    ("DELETE", "/volumes/data", None),
    ("DELETE", "/volumes/data?force=1", None),
    ("POST", "/volumes/prune", None),
    ("POST", "/commit?container=nosuch", {}),
    ("GET", "/images/nosuch/get", None),
    ("GET", "/swarm", None),
    ("GET", "/nosuch", None),
)  # fmt: skip

STATUSES = {
    "POST /images/img/tag?repo=UPPER": (500, 400),  # later ones than 20.10 say 400, too
}
MEMBERS = ("RepoDigests[]",)  # an image has a digest here before it is pushed, as in Docker's store with containerd


@pytest.fixture(scope="module")
def both(session_root: Root, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Api]]:
    short = Path(f"/tmp/sampan-api-{os.getpid()}")
    short.mkdir()
    try:
        with Dockerd(short / "d") as daemon, serving(session_root) as ours:
            session_root.cli("tag", "base", "img").ok()
            archive = tmp_path_factory.mktemp("images") / "img.tar"
            session_root.cli("save", "-o", str(archive), "img").ok()
            daemon.docker("load", "-i", str(archive))
            # What other tests left is no difference.
            for verb in (("container",), ("image",), ("volume", "-a")):
                session_root.cli(verb[0], "prune", "-f", *verb[1:]).ok()
            yield Api(daemon.host.removeprefix("unix://"), "v1.41"), ours.at("v1.41")
            session_root.cli("rmi", "img").ok()
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(short)], check=True)


def escaped(target: str) -> str:
    return "".join(f"%{ord(c):02X}" if c in '{}[]"' else c for c in target)


def shape(value: Any, where: str = "") -> dict[str, str]:
    """Each member with its type; what is nothing fits everything."""
    found = {where: type(value).__name__}
    if isinstance(value, dict):
        for name, member in value.items():
            # Keys that are data and no names: labels, options, containers.
            if not where.endswith(("Labels", "Options", "Containers", "Data")):
                found |= shape(member, f"{where}.{name}" if where else name)
    elif isinstance(value, list) and value:
        found |= shape(value[0], f"{where}[]")
    return found


def test_the_same_requests(both: tuple[Api, Api]) -> None:
    docker, ours = both
    problems = []
    for method, target, body in REQUESTS:
        theirs, mine = (one(method, escaped(target), body) for one in (docker, ours))
        if (theirs.status, mine.status) == STATUSES.get(f"{method} {target}"):
            continue
        if theirs.status != mine.status:
            problems.append(
                f"{method} {target} {body}: {theirs.status} {theirs.data[:200]!r}, here {mine.status} {mine.data[:200]!r}"
            )
        elif theirs.data and theirs.status < 300:
            left, right = shape(theirs.json), shape(mine.json)
            for name in sorted(left.keys() | right.keys()):
                kinds = {left.get(name, "absent"), right.get(name, "absent")}
                if len(kinds) > 1 and "NoneType" not in kinds and not name.endswith(MEMBERS):
                    problems.append(f"{method} {target}: {name}: {left.get(name)}, here {right.get(name)}")
    assert not problems, "\n".join(problems)
