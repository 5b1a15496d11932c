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
    ("GET", "/_ping", None),
    ("HEAD", "/_ping", None),
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

_SLEEP = {
    "Image": "img",
    "Cmd": ["sleep", "1000"],
    "Tty": True,
    "OpenStdin": True,
    "HostConfig": {"NetworkMode": "none"},
}

OF_CONTAINERS: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/containers/create?name=box", {**_SLEEP, "Labels": {"a": "b"}}),
    ("POST", "/containers/create?name=box", _SLEEP),
    ("POST", "/containers/create?name=a/b", _SLEEP),
    ("POST", "/containers/create", {}),
    ("POST", "/containers/create", {"Image": "nosuch"}),
    ("POST", "/containers/create", {"Image": 1}),
    ("POST", "/containers/create", {"Image": "img", "Cmd": ["true"], "WorkingDir": "srv"}),
    ("POST", "/containers/create", {"Image": "img", "HostConfig": {"Memory": 1}}),
    ("POST", "/containers/create", {"Image": "img", "HostConfig": {"NetworkMode": "container:nosuch"}}),
    ("POST", "/containers/create", {"Image": "img", "HostConfig": {"Binds": ["a:b:c:d"]}}),
    ("POST", "/containers/create", {"Image": "img", "HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}}),
    ("GET", "/containers/json", None),
    ("GET", "/containers/json?all=1&size=1", None),
    ("GET", '/containers/json?all=1&filters={"label":["a=b"]}', None),
    ("GET", '/containers/json?filters={"nosuch":["x"]}', None),
    ("GET", '/containers/json?filters={"status":["nosuch"]}', None),
    ("GET", "/containers/json?limit=x", None),
    ("GET", "/containers/box/json", None),
    ("GET", "/containers/box/json?size=1", None),
    ("GET", "/containers/nosuch/json", None),
    ("GET", "/containers/box/top", None),
    ("GET", "/containers/box/logs", None),
    ("GET", "/containers/box/stats?stream=0&one-shot=1", None),
    ("POST", "/containers/box/pause", None),
    ("POST", "/containers/box/kill", None),
    ("POST", "/containers/box/stop", None),
    ("POST", "/containers/box/exec", {"Cmd": ["true"]}),
    ("POST", "/containers/box/resize?h=1&w=1", None),
    ("POST", "/containers/box/wait?condition=nosuch", None),
    ("POST", "/containers/box/start", None),
    ("POST", "/containers/box/start", None),
    ("POST", "/containers/nosuch/start", None),
    ("GET", "/containers/box/json", None),
    ("GET", "/containers/json", None),
    ("GET", "/containers/box/top", None),
    ("GET", "/containers/box/top?ps_args=-o+pid,comm", None),
    ("GET", "/containers/box/changes", None),
    ("GET", "/containers/nosuch/changes", None),
    ("GET", "/containers/box/stats?stream=0&one-shot=1", None),
    ("GET", "/containers/box/archive?path=/nosuch", None),
    ("GET", "/containers/box/archive", None),
    ("HEAD", "/containers/box/archive?path=/bin", None),
    ("HEAD", "/containers/box/archive?path=/nosuch", None),
    ("PUT", "/containers/box/archive?path=/nosuch", b""),
    ("GET", "/containers/nosuch/logs?stdout=1", None),
    ("POST", "/containers/box/resize?h=20&w=90", None),
    ("POST", "/containers/box/resize?h=x&w=90", None),
    ("POST", "/containers/box/rename?name=other", None),
    ("POST", "/containers/other/rename?name=", None),
    ("POST", "/containers/other/rename?name=a/b", None),
    ("POST", "/containers/other/update", {"Memory": 1}),
    ("POST", "/containers/other/update", {"RestartPolicy": {"Name": "nosuch"}}),
    ("POST", "/containers/other/update", {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}),
    ("POST", "/containers/other/exec", {"Cmd": []}),
    ("POST", "/containers/other/exec", {"Cmd": 1}),
    ("POST", "/containers/other/exec", {"Cmd": ["true"], "DetachKeys": "nosuch-keys"}),
    ("POST", "/containers/other/exec", {"Cmd": ["true"], "User": "1"}),
    ("GET", "/exec/nosuch/json", None),
    ("POST", "/exec/nosuch/start", {}),
    ("POST", "/exec/nosuch/resize?h=1&w=1", None),
    ("POST", "/containers/other/unpause", None),
    ("POST", "/containers/other/pause", None),
    ("POST", "/containers/other/pause", None),
    ("GET", "/containers/other/json", None),
    ("POST", "/containers/other/exec", {"Cmd": ["true"]}),
    ("POST", "/containers/other/unpause", None),
    ("POST", "/containers/other/kill?signal=NOSUCH", None),
    ("POST", "/containers/other/kill?signal=CONT", None),
    ("DELETE", "/containers/other", None),
    ("POST", "/containers/other/stop?t=0", None),
    ("POST", "/containers/other/stop", None),
    ("POST", "/containers/other/wait", None),
    ("GET", "/containers/other/json", None),
    ("GET", "/containers/json?all=1", None),
    ("POST", "/containers/other/restart?t=0", None),
    ("DELETE", "/containers/other?force=1", None),
    ("DELETE", "/containers/other", None),
    ("POST", "/containers/create?name=bad", {"Image": "img", "Cmd": ["nosuch"], "HostConfig": {"NetworkMode": "none"}}),
    ("POST", "/containers/bad/start", None),
    ("GET", "/containers/bad/json", None),
    ("POST", "/commit?container=bad&repo=made&tag=1", {}),
    ("DELETE", "/images/made:1", None),
    ("POST", '/containers/prune?filters={"nosuch":["x"]}', None),
    ("POST", "/containers/prune", None),
    ("POST", "/containers/box/checkpoints", {}),
    ("GET", "/info", None),
    ("GET", "/version", None),
    ("GET", "/system/df", None),
)  # fmt: skip

STATUSES = {
    # What a request is wrong in was a fault of the server's to Docker 20.10; later ones say 400 or 409, too.
    "POST /images/img/tag?repo=UPPER None": (500, 400),
    "POST /containers/create {'Image': 1}": (500, 400),
    "POST /containers/create {'Image': 'img', 'HostConfig': {'Binds': ['a:b:c:d']}}": (500, 400),
    "GET /containers/json?limit=x None": (500, 400),
    "POST /containers/other/exec {'Cmd': ['true'], 'DetachKeys': 'nosuch-keys'}": (500, 400),
    "POST /containers/other/unpause None": (500, 409),
    # It was answered as if no condition had been named; later ones refuse it, too.
    "POST /containers/box/wait?condition=nosuch None": (200, 400),
    # Whose namespace it shares is looked for when it is made; Docker looks when it is started.
    "POST /containers/create {'Image': 'img', 'HostConfig': {'NetworkMode': 'container:nosuch'}}": (201, 400),
}
MEMBERS = (
    "RepoDigests[]",  # an image has a digest here before it is pushed, as in Docker's store with containerd
    "Config.MacAddress",  # always there here before 1.44; Docker left it out where nobody gave one
    "KernelMemory",  # limits that kernels of today do not have: they went with 1.42
    "KernelMemoryTCP",
    "SizeRw",  # 0 is left out by Docker
    "Networks.none",  # of a container that does not run: here as it will be
    "ExecIDs[]",  # execs are not listed in their container
    "Components[].Details.BuildTime",  # not of a program in Go
    "Components[].Details.Experimental",
    "Components[].Details.PythonVersion",
    "RegistryConfig.Mirrors[]",
)
OF_THE_CONNECTION = {"transfer-encoding", "content-length", "connection", "date"}
"""Headers that say how an answer is sent, and nothing of it."""
BELOW = (
    "Networks.none.",
    "blkio_stats.",  # empty where nothing was read from the disk since its group was made
    "memory_stats.stats.",  # as the kernel has them: dockerd knows those of its day
    "pressure_stats",  # ours, docs/api.md
    "Runtimes.",  # the names of runtimes
)


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
    compare(both, REQUESTS)


def test_the_same_requests_of_containers(both: tuple[Api, Api]) -> None:
    compare(both, OF_CONTAINERS)


def compare(both: tuple[Api, Api], requests: tuple[tuple[str, str, Any], ...]) -> None:
    docker, ours = both
    problems = []
    for method, target, body in requests:
        theirs, mine = (one(method, escaped(target), body) for one in (docker, ours))
        if (theirs.status, mine.status) == STATUSES.get(f"{method} {target} {body}"):
            continue
        if theirs.status != mine.status:
            problems.append(
                f"{method} {target} {body}: {theirs.status} {theirs.data[:200]!r}, here {mine.status} {mine.data[:200]!r}"
            )
        elif missing := [name for name in theirs.headers.keys() - OF_THE_CONNECTION if name not in mine.headers]:
            problems.append(f"{method} {target}: without the headers {missing}")
        elif (kinds := [one.headers.get("content-type") for one in (theirs, mine)])[0] != kinds[1]:
            problems.append(f"{method} {target}: Content-Type {kinds[0]}, here {kinds[1]}")
        elif theirs.data and theirs.status < 300 and "json" in theirs.headers["content-type"]:
            left, right = shape(theirs.json), shape(mine.json)
            for name in sorted(left.keys() | right.keys()):
                kinds = {left.get(name, "absent"), right.get(name, "absent")}
                known = name.endswith(MEMBERS) or any(part in name for part in BELOW)
                if len(kinds) > 1 and "NoneType" not in kinds and not known:
                    problems.append(f"{method} {target}: {name}: {left.get(name)}, here {right.get(name)}")
    assert not problems, "\n".join(problems)
