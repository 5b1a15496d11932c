"""What is asked of the Engine API to compare the answers with its specification: every operation, with every status that it may have.

They build on each other, in their order. In a target `{registry}` is the host of a registry that wants a password, `{index}` that of one
that can be searched, `{exec}` the exec that was made last.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from support.imagestore import archive
from support.registry import PASSWORD, USER


class Question(NamedTuple):
    """One request. path: as the specification has it. form: what a good answer's body is, see `test_api_specification`."""

    method: str
    path: str
    target: str
    body: Any = None
    status: int = 200
    form: str = "json"
    headers: Mapping[str, str] = {}
    since: int = 25
    """Of 1.x: what an operation came to know later is not asked before."""


Q = Question
SAVED = b"what the last archive was"
"""A body that stands for it."""


def _auth(password: str) -> dict[str, str]:
    entry = json.dumps({"username": USER, "password": password}).encode()
    return {"X-Registry-Auth": base64.urlsafe_b64encode(entry).decode()}


_NONE = {"NetworkMode": "none"}
_RUNNING = {"Image": "base", "Cmd": ["sh", "-c", "echo said; exec sleep 1000"], "HostConfig": _NONE}
_SEALED = {"Image": "base", "HostConfig": {**_NONE, "ReadonlyRootfs": True}}
_HOSTS = {"Image": "base", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "host"}}
_LOGIN = {"username": USER, "password": PASSWORD, "serveraddress": "{registry}"}
_TAR = {"Content-Type": "application/x-tar"}
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
_WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
_FILE = archive({"file": b"x"})
_CONTEXT = archive({"Dockerfile": b"FROM base\nRUN --network=none echo built\n"})

_OF_IMAGES = (
    Q("GET", "/images/json", "/images/json?all=1"),
    Q("GET", "/images/json", "/images/json?shared-size=1"),
    Q("GET", "/images/{name}/json", "/images/base/json"),
    Q("GET", "/images/{name}/json", "/images/nosuch/json", None, 404),
    Q("GET", "/images/{name}/history", "/images/base/history"),
    Q("GET", "/images/{name}/history", "/images/nosuch/history", None, 404),
    Q("POST", "/images/{name}/tag", "/images/base/tag?repo=speced&tag=1", None, 201),
    Q("POST", "/images/{name}/tag", "/images/base/tag?repo=UPPER", None, 400),
    Q("POST", "/images/{name}/tag", "/images/nosuch/tag?repo=speced", None, 404),
    Q("GET", "/images/{name}/get", "/images/speced:1/get", None, 200, "archive"),
    Q("GET", "/images/get", "/images/get?names=speced:1&names=base", None, 200, "archive"),
    Q("POST", "/images/load", "/images/load", SAVED, 200, "BuildInfo", _TAR),
    Q("POST", "/images/{name}/tag", "/images/base/tag?repo={registry}/speced&tag=1", None, 201),
    Q("POST", "/images/{name}/push", "/images/{registry}/speced/push?tag=1", None, 200, "PushImageInfo", _auth(PASSWORD)),
    Q("GET", "/distribution/{name}/json", "/distribution/{registry}/speced:1/json", None, 200, "json", _auth(PASSWORD)),
    Q("GET", "/distribution/{name}/json", "/distribution/{registry}/speced:1/json", None, 401, "json", _auth("wrong")),
    Q("DELETE", "/images/{name}", "/images/{registry}/speced:1"),
    Q("POST", "/images/create", "/images/create?fromImage={registry}/speced&tag=1", None, 200, "CreateImageInfo", _auth(PASSWORD)),
    Q("POST", "/images/create", "/images/create?fromImage={registry}/nosuch&tag=1", None, 404, "json", _auth(PASSWORD)),
    Q("DELETE", "/images/{name}", "/images/{registry}/speced:1"),
    Q("POST", "/images/create", "/images/create?fromSrc=-&repo=imported", _FILE, 200, "CreateImageInfo", _TAR),
    Q("DELETE", "/images/{name}", "/images/imported"),
    Q("GET", "/images/search", "/images/search?term={index}/speced"),
    Q("POST", "/auth", "/auth", _LOGIN),
    Q("POST", "/auth", "/auth", {**_LOGIN, "password": "wrong"}, 401),
    Q("DELETE", "/images/{name}", "/images/speced:1"),
    Q("DELETE", "/images/{name}", "/images/speced:1", None, 404),
    Q("POST", "/images/prune", "/images/prune"),
    Q("POST", "/build", "/build?t=built&networkmode=none&nocache=1", _CONTEXT, 200, "BuildInfo", _TAR),
    Q("POST", "/build", "/build", archive({"Dockerfile": b"FRM base\n"}), 400, "json", _TAR),
    Q("DELETE", "/images/{name}", "/images/built"),
    Q("GET", "/system/df", "/system/df"),
    Q("POST", "/build/prune", "/build/prune?all=1"),
)  # fmt: skip

_OF_NETWORKS_AND_VOLUMES = (
    Q("POST", "/networks/create", "/networks/create", {"Name": "speced", "Labels": {"a": "b"}}, 201),
    Q("POST", "/networks/create", "/networks/create", {"Name": "x", "IPAM": {"Config": [{"Subnet": "x"}]}}, 400),
    Q("POST", "/networks/create", "/networks/create", {"Name": "host"}, 403),
    Q("POST", "/networks/create", "/networks/create", {"Name": "x", "Driver": "nosuch"}, 404),
    Q("GET", "/networks", "/networks"),
    Q("GET", "/networks/{id}", "/networks/speced?verbose=1"),
    Q("GET", "/networks/{id}", "/networks/nosuch", None, 404),
    Q("POST", "/containers/create", "/containers/create?name=hosts", _HOSTS, 201),
    Q("POST", "/containers/create", "/containers/create?name=member", {"Image": "base", "HostConfig": {"NetworkMode": "bridge"}}, 201),
    Q("POST", "/networks/{id}/connect", "/networks/speced/connect", {"Container": "member", "EndpointConfig": {"Aliases": ["www"]}}),
    Q("POST", "/networks/{id}/connect", "/networks/speced/connect", {"Container": 1}, 400),
    Q("POST", "/networks/{id}/connect", "/networks/speced/connect", {"Container": "nosuch"}, 404),
    Q("POST", "/networks/{id}/connect", "/networks/nosuch/connect", {"Container": "member"}, 404),
    Q("POST", "/networks/{id}/disconnect", "/networks/speced/disconnect", {"Container": "member"}),
    Q("POST", "/networks/{id}/disconnect", "/networks/speced/disconnect", {"Container": "nosuch"}, 404),
    Q("POST", "/containers/{id}/start", "/containers/hosts/start", None, 204),
    Q("POST", "/networks/{id}/connect", "/networks/speced/connect", {"Container": "hosts"}, 403),
    Q("POST", "/networks/{id}/disconnect", "/networks/host/disconnect", {"Container": "hosts"}, 403),
    Q("DELETE", "/containers/{id}", "/containers/hosts?force=1", None, 204),
    Q("DELETE", "/containers/{id}", "/containers/member?force=1", None, 204),
    Q("DELETE", "/networks/{id}", "/networks/speced", None, 204),
    Q("DELETE", "/networks/{id}", "/networks/speced", None, 404),
    Q("DELETE", "/networks/{id}", "/networks/bridge", None, 403),
    Q("POST", "/networks/prune", "/networks/prune"),
    Q("POST", "/volumes/create", "/volumes/create", {"Name": "speced", "Labels": {"a": "b"}}, 201),
    Q("GET", "/volumes", "/volumes"),
    Q("GET", "/volumes/{name}", "/volumes/speced"),
    Q("GET", "/volumes/{name}", "/volumes/nosuch", None, 404),
    Q("PUT", "/volumes/{name}", "/volumes/speced?version=1", {"Spec": {}}, 503),
    Q("GET", "/system/df", "/system/df"),
    Q("POST", "/containers/create", "/containers/create?name=user", {"Image": "base", "HostConfig": {**_NONE, "Binds": ["speced:/v"]}}, 201),
    Q("DELETE", "/volumes/{name}", "/volumes/speced", None, 409),
    Q("DELETE", "/containers/{id}", "/containers/user", None, 204),
    Q("DELETE", "/volumes/{name}", "/volumes/speced", None, 204),
    Q("DELETE", "/volumes/{name}", "/volumes/speced", None, 404),
    Q("POST", "/volumes/prune", "/volumes/prune"),
)  # fmt: skip

_OF_CONTAINERS = (
    Q("GET", "/_ping", "/_ping", None, 200, "text"),
    Q("HEAD", "/_ping", "/_ping", None, 200, "text"),
    Q("GET", "/version", "/version"),
    Q("GET", "/info", "/info"),
    Q("POST", "/containers/create", "/containers/create?name=speced", {"Image": "base", "HostConfig": _NONE}, 201),
    Q("GET", "/containers/json", "/containers/json?all=1&size=1"),
    Q("GET", "/containers/{id}/json", "/containers/speced/json"),
    Q("GET", "/containers/{id}/json", "/containers/nosuch/json", None, 404),
    Q("GET", "/containers/{id}/changes", "/containers/speced/changes"),
    Q("POST", "/containers/create", "/containers/create?name=running", _RUNNING, 201),
    Q("POST", "/containers/create", "/containers/create?name=running", _RUNNING, 409),
    Q("POST", "/containers/create", "/containers/create", {"Image": "nosuch"}, 404),
    Q("POST", "/containers/create", "/containers/create", {"Image": "base", "WorkingDir": "x"}, 400),
    Q("GET", "/containers/{id}/top", "/containers/nosuch/top", None, 404),
    Q("POST", "/containers/{id}/start", "/containers/running/start", None, 204),
    Q("POST", "/containers/{id}/start", "/containers/running/start", None, 304),
    Q("POST", "/containers/{id}/start", "/containers/nosuch/start", None, 404),
    Q("GET", "/containers/json", "/containers/json"),
    Q("GET", "/containers/json", "/containers/json?limit=x", None, 400),
    Q("GET", "/containers/{id}/json", "/containers/running/json?size=1"),
    Q("GET", "/containers/{id}/top", "/containers/running/top"),
    Q("GET", "/containers/{id}/stats", "/containers/running/stats?stream=0&one-shot=1"),
    Q("GET", "/containers/{id}/stats", "/containers/nosuch/stats", None, 404),
    Q("GET", "/containers/{id}/logs", "/containers/running/logs?stdout=1&stderr=1", None, 200, "frames"),
    Q("GET", "/containers/{id}/logs", "/containers/nosuch/logs?stdout=1", None, 404),
    Q("GET", "/containers/{id}/changes", "/containers/nosuch/changes", None, 404),
    Q("GET", "/containers/{id}/export", "/containers/running/export", None, 200, "tar"),
    Q("GET", "/containers/{id}/export", "/containers/nosuch/export", None, 404),
    Q("HEAD", "/containers/{id}/archive", "/containers/running/archive?path=/bin", None, 200, "stat"),
    Q("HEAD", "/containers/{id}/archive", "/containers/running/archive", None, 400),
    Q("HEAD", "/containers/{id}/archive", "/containers/running/archive?path=/nosuch", None, 404),
    Q("GET", "/containers/{id}/archive", "/containers/running/archive?path=/etc/passwd", None, 200, "stat tar"),
    Q("GET", "/containers/{id}/archive", "/containers/running/archive", None, 400),
    Q("GET", "/containers/{id}/archive", "/containers/running/archive?path=/nosuch", None, 404),
    Q("PUT", "/containers/{id}/archive", "/containers/running/archive?path=/tmp", _FILE, 200, "none", _TAR),
    Q("PUT", "/containers/{id}/archive", "/containers/running/archive?path=/tmp", b"no archive" * 100, 400, "json", _TAR),
    Q("PUT", "/containers/{id}/archive", "/containers/running/archive?path=/nosuch", _FILE, 404, "json", _TAR),
    Q("POST", "/containers/create", "/containers/create?name=sealed", _SEALED, 201),
    Q("PUT", "/containers/{id}/archive", "/containers/sealed/archive?path=/", _FILE, 400, "json", _TAR),
    Q("DELETE", "/containers/{id}", "/containers/sealed", None, 204),
    Q("POST", "/containers/{id}/attach", "/containers/running/attach?stream=1&stdout=1", None, 101, "none", _UPGRADE),
    Q("POST", "/containers/{id}/attach", "/containers/running/attach?logs=1&stdout=1", None, 200, "frames"),
    Q("POST", "/containers/{id}/attach", "/containers/running/attach?stream=1&detachKeys=nosuch-keys", None, 400),
    Q("POST", "/containers/{id}/attach", "/containers/nosuch/attach", None, 404),
    Q("GET", "/containers/{id}/attach/ws", "/containers/running/attach/ws?stream=1", None, 101, "none", _WEBSOCKET),
    Q("GET", "/containers/{id}/attach/ws", "/containers/running/attach/ws?stream=1", None, 400),
    Q("GET", "/containers/{id}/attach/ws", "/containers/nosuch/attach/ws", None, 404),
    Q("POST", "/containers/{id}/resize", "/containers/running/resize?h=1&w=1"),
    Q("POST", "/containers/{id}/resize", "/containers/nosuch/resize?h=1&w=1", None, 404),
    Q("POST", "/containers/{id}/update", "/containers/running/update", {"CpuShares": 500}),
    Q("POST", "/containers/{id}/update", "/containers/nosuch/update", {}, 404),
    Q("POST", "/containers/{id}/rename", "/containers/running/rename?name=speced", None, 409),
    Q("POST", "/containers/{id}/rename", "/containers/nosuch/rename?name=x", None, 404),
    Q("POST", "/containers/{id}/rename", "/containers/running/rename?name=other", None, 204),
    Q("POST", "/containers/{id}/exec", "/containers/other/exec", {"Cmd": ["sleep", "1000"], "Tty": True}, 201),
    Q("GET", "/exec/{id}/json", "/exec/{exec}/json"),
    Q("POST", "/containers/{id}/pause", "/containers/other/pause", None, 204),
    Q("POST", "/containers/{id}/pause", "/containers/nosuch/pause", None, 404),
    Q("POST", "/exec/{id}/start", "/exec/{exec}/start", {"Detach": True, "Tty": True}, 409),
    Q("POST", "/containers/{id}/exec", "/containers/other/exec", {"Cmd": ["true"]}, 409),
    Q("POST", "/containers/{id}/unpause", "/containers/other/unpause", None, 204),
    Q("POST", "/containers/{id}/unpause", "/containers/nosuch/unpause", None, 404),
    Q("POST", "/exec/{id}/start", "/exec/{exec}/start", {"Detach": True, "Tty": True}, 200, "none"),
    Q("POST", "/exec/{id}/resize", "/exec/{exec}/resize?h=20&w=70", None, 200, "none"),
    Q("POST", "/exec/{id}/resize", "/exec/{exec}/resize?h=x&w=70", None, 400),
    Q("GET", "/exec/{id}/json", "/exec/{exec}/json"),
    Q("POST", "/containers/{id}/exec", "/containers/nosuch/exec", {"Cmd": ["true"]}, 404),
    Q("GET", "/exec/{id}/json", "/exec/nosuch/json", None, 404),
    Q("POST", "/exec/{id}/start", "/exec/nosuch/start", {}, 404),
    Q("POST", "/exec/{id}/resize", "/exec/nosuch/resize?h=1&w=1", None, 404),
    Q("DELETE", "/images/{name}", "/images/base", None, 409),
    Q("DELETE", "/containers/{id}", "/containers/other", None, 409),
    Q("POST", "/containers/{id}/restart", "/containers/other/restart?t=0", None, 204),
    Q("POST", "/containers/{id}/restart", "/containers/nosuch/restart", None, 404),
    Q("POST", "/containers/{id}/stop", "/containers/other/stop?t=0", None, 204),
    Q("POST", "/containers/{id}/stop", "/containers/other/stop", None, 304),
    Q("POST", "/containers/{id}/stop", "/containers/nosuch/stop", None, 404),
    Q("POST", "/containers/{id}/start", "/containers/other/start", None, 204),
    Q("POST", "/containers/{id}/kill", "/containers/other/kill", None, 204),
    Q("POST", "/containers/{id}/wait", "/containers/other/wait"),
    Q("POST", "/containers/{id}/wait", "/containers/nosuch/wait", None, 404),
    Q("POST", "/containers/{id}/wait", "/containers/other/wait?condition=nosuch", None, 400, since=30),
    Q("POST", "/containers/{id}/kill", "/containers/other/kill", None, 409),
    Q("POST", "/containers/{id}/kill", "/containers/nosuch/kill", None, 404),
    Q("DELETE", "/containers/{id}", "/containers/other", None, 204),
    Q("DELETE", "/containers/{id}", "/containers/other", None, 404),
    Q("DELETE", "/containers/{id}", "/containers/speced?link=1", None, 400),
    Q("GET", "/events", "/events?since=1&until={now}", None, 200, "lines"),
    Q("GET", "/events", "/events?since=2&until=1", None, 400),
    Q("GET", "/plugins", "/plugins"),
    Q("POST", "/commit", "/commit?container=nosuch", {}, 404),
    Q("POST", "/commit", "/commit?container=speced", {}, 201),
    Q("POST", "/containers/prune", "/containers/prune"),
)  # fmt: skip

QUESTIONS = (*_OF_IMAGES, *_OF_NETWORKS_AND_VOLUMES, *_OF_CONTAINERS)
