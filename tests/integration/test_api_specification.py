"""Answers beside Docker's specification of the Engine API, version by version; and requests that follow it and mean nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.apiserver import Server, serving
from support.apispec import specification
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.long]

VERSIONS = ("1.41", "1.42", "1.43", "1.44", "1.47", "1.48", "1.51")
"""Those before do not say themselves what Docker answered then."""

# What Docker answers itself, and its specification does not say: pointers that are not set.
DOCKERS_OWN = (
    "HostConfig.MemorySwappiness: None is no integer",
    "HostConfig.OomKillDisable: None is no boolean",
    "$.ExitCode: None is no integer",  # of an exec that has not ended
)
OUTWARD = ("fromImage", "fromSrc", "remote")
"""Parameters that would have something fetched from somewhere."""


@pytest.fixture(scope="module")
def api(session_root: Root) -> Iterator[Server]:
    with serving(session_root) as server:
        server.warm_up()
        yield server
        assert "Traceback" not in server.log
        assert "unexpected" not in server.log


NAMED = "nosuch"
_RUNNING = {"Image": "base", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}
QUESTIONS = (
    ("GET", "/images/json", "/images/json?all=1", None, 200),
    ("GET", "/images/{name}/json", "/images/base/json", None, 200),
    ("GET", "/images/{name}/json", "/images/nosuch/json", None, 404),
    ("GET", "/images/{name}/history", "/images/base/history", None, 200),
    ("POST", "/images/{name}/tag", "/images/base/tag?repo=speced&tag=1", None, 201),
    ("DELETE", "/images/{name}", "/images/speced:1", None, 200),
    ("DELETE", "/images/{name}", "/images/speced:1", None, 404),
    ("POST", "/images/prune", "/images/prune", None, 200),
    ("POST", "/networks/create", "/networks/create", {"Name": "speced", "Labels": {"a": "b"}}, 201),
    ("GET", "/networks", "/networks", None, 200),
    ("GET", "/networks/{id}", "/networks/speced", None, 200),
    ("GET", "/networks/{id}", "/networks/nosuch", None, 404),
    ("DELETE", "/networks/{id}", "/networks/speced", None, 204),
    ("DELETE", "/networks/{id}", "/networks/speced", None, 404),
    ("POST", "/networks/prune", "/networks/prune", None, 200),
    ("POST", "/volumes/create", "/volumes/create", {"Name": "speced", "Labels": {"a": "b"}}, 201),
    ("GET", "/volumes", "/volumes", None, 200),
    ("GET", "/volumes/{name}", "/volumes/speced", None, 200),
    ("GET", "/volumes/{name}", "/volumes/nosuch", None, 404),
    ("GET", "/system/df", "/system/df", None, 200),
    ("DELETE", "/volumes/{name}", "/volumes/speced", None, 204),
    ("DELETE", "/volumes/{name}", "/volumes/speced", None, 404),
    ("POST", "/volumes/prune", "/volumes/prune", None, 200),
    ("GET", "/version", "/version", None, 200),
    ("GET", "/info", "/info", None, 200),
    ("GET", "/containers/json", "/containers/json?all=1&size=1", None, 200),
    ("GET", "/containers/{id}/json", "/containers/speced/json", None, 200),
    ("GET", "/containers/{id}/json", "/containers/nosuch/json", None, 404),
    ("GET", "/containers/{id}/changes", "/containers/speced/changes", None, 200),
    ("POST", "/containers/create", "/containers/create?name=running", _RUNNING, 201),
    ("POST", "/containers/create", "/containers/create?name=running", _RUNNING, 409),
    ("POST", "/containers/create", "/containers/create", {"Image": "nosuch"}, 404),
    ("POST", "/containers/create", "/containers/create", {"Image": "base", "WorkingDir": "x"}, 400),
    ("GET", "/containers/{id}/top", "/containers/nosuch/top", None, 404),
    ("POST", "/containers/{id}/start", "/containers/running/start", None, 204),
    ("POST", "/containers/{id}/start", "/containers/running/start", None, 304),
    ("POST", "/containers/{id}/start", "/containers/nosuch/start", None, 404),
    ("GET", "/containers/json", "/containers/json", None, 200),
    ("GET", "/containers/json", "/containers/json?limit=x", None, 400),
    ("GET", "/containers/{id}/json", "/containers/running/json?size=1", None, 200),
    ("GET", "/containers/{id}/top", "/containers/running/top", None, 200),
    ("GET", "/containers/{id}/stats", "/containers/running/stats?stream=0&one-shot=1", None, 200),
    ("GET", "/containers/{id}/stats", "/containers/nosuch/stats", None, 404),
    ("GET", "/containers/{id}/logs", "/containers/nosuch/logs?stdout=1", None, 404),
    ("GET", "/containers/{id}/changes", "/containers/nosuch/changes", None, 404),
    ("GET", "/containers/{id}/export", "/containers/nosuch/export", None, 404),
    ("HEAD", "/containers/{id}/archive", "/containers/running/archive?path=/bin", None, 200),
    ("HEAD", "/containers/{id}/archive", "/containers/running/archive?path=/nosuch", None, 404),
    ("GET", "/containers/{id}/archive", "/containers/running/archive?path=/nosuch", None, 404),
    ("PUT", "/containers/{id}/archive", "/containers/running/archive?path=/nosuch", b"", 404),
    ("POST", "/containers/{id}/attach", "/containers/nosuch/attach", None, 404),
    ("GET", "/containers/{id}/attach/ws", "/containers/nosuch/attach/ws", None, 404),
    ("POST", "/containers/{id}/resize", "/containers/running/resize?h=1&w=1", None, 200),
    ("POST", "/containers/{id}/resize", "/containers/nosuch/resize?h=1&w=1", None, 404),
    ("POST", "/containers/{id}/update", "/containers/running/update", {"CpuShares": 500}, 200),
    ("POST", "/containers/{id}/update", "/containers/nosuch/update", {}, 404),
    ("POST", "/containers/{id}/rename", "/containers/running/rename?name=speced", None, 409),
    ("POST", "/containers/{id}/rename", "/containers/running/rename?name=other", None, 204),
    ("POST", "/containers/{id}/pause", "/containers/other/pause", None, 204),
    ("POST", "/containers/{id}/exec", "/containers/other/exec", {"Cmd": ["true"]}, 409),
    ("POST", "/containers/{id}/unpause", "/containers/other/unpause", None, 204),
    ("POST", "/containers/{id}/unpause", "/containers/nosuch/unpause", None, 404),
    ("POST", "/containers/{id}/exec", "/containers/other/exec", {"Cmd": ["true"]}, 201),
    ("POST", "/containers/{id}/exec", "/containers/nosuch/exec", {"Cmd": ["true"]}, 404),
    ("GET", "/exec/{id}/json", "/exec/nosuch/json", None, 404),
    ("POST", "/exec/{id}/start", "/exec/nosuch/start", {}, 404),
    ("POST", "/exec/{id}/resize", "/exec/nosuch/resize?h=1&w=1", None, 404),
    ("DELETE", "/containers/{id}", "/containers/other", None, 409),
    ("POST", "/containers/{id}/restart", "/containers/other/restart?t=0", None, 204),
    ("POST", "/containers/{id}/kill", "/containers/other/kill", None, 204),
    ("POST", "/containers/{id}/wait", "/containers/other/wait", None, 200),
    ("POST", "/containers/{id}/wait", "/containers/nosuch/wait", None, 404),
    ("POST", "/containers/{id}/kill", "/containers/other/kill", None, 409),
    ("POST", "/containers/{id}/stop", "/containers/other/stop", None, 304),
    ("POST", "/containers/{id}/stop", "/containers/nosuch/stop", None, 404),
    ("DELETE", "/containers/{id}", "/containers/other", None, 204),
    ("DELETE", "/containers/{id}", "/containers/other", None, 404),
    ("POST", "/build/prune", "/build/prune", None, 200),
    ("GET", "/plugins", "/plugins", None, 200),
    ("GET", "/swarm", "/swarm", None, 503),
    ("GET", "/nodes", "/nodes", None, 503),
    ("GET", "/services", "/services", None, 503),
    ("GET", "/tasks", "/tasks", None, 503),
    ("GET", "/secrets", "/secrets", None, 503),
    ("GET", "/configs", "/configs", None, 503),
    ("POST", "/commit", "/commit?container=nosuch", {}, 404),
    ("POST", "/commit", "/commit?container=speced", {}, 201),
    ("POST", "/containers/prune", "/containers/prune", None, 200),
)
"""Method, the specification's path, what is asked, the body, the status."""


@pytest.mark.parametrize("version", VERSIONS)
def test_answers_are_as_the_specification_says(api: Server, root: Root, version: str) -> None:
    root.cli("create", "--name", "speced", "--network", "none", "base", "true").ok()
    found, here = specification(version), api.at(f"v{version}")
    problems = []
    for method, path, target, body, status in QUESTIONS:
        answer = here(method, target, body)
        if answer.status != status:
            problems.append(f"{method} {target}: {answer.status}, not {status}: {answer.data[:300]!r}")
            continue
        if path == "/containers/{id}/exec" and status == 201:
            shown = here("GET", f"/exec/{answer.json['Id']}/json").expect(200).json
            problems += [
                f"exec: {error}"
                for error in found.errors(found.schema("GET", "/exec/{id}/json", 200) or {}, shown)
                if not error.endswith(DOCKERS_OWN)
            ]
        schema = found.schema(method, path, status)
        if schema is not None and answer.data:
            problems += [
                f"{method} {target} {error}"
                for error in found.errors(schema, answer.json)
                if not error.endswith(DOCKERS_OWN)
            ]
    assert not problems, "\n".join(problems)


def test_every_operation_has_an_answer_of_its_own(api: Server) -> None:
    """Nothing of the specification is a page that is not there."""
    missing = []
    for method, path, _ in specification("1.51").operations():
        target = path.replace("{id}", NAMED).replace("{name}", NAMED).replace("{", "").replace("}", "")
        if path in (
            "/events",
            "/images/prune",
            "/build/prune",
            "/containers/prune",
            "/networks/prune",
            "/volumes/prune",
        ):
            continue  # They answer without end, or do what they say.
        answer = api.at("v1.51")(method, target)
        if answer.status == 404 and answer.data and method != "HEAD" and "page not found" in answer.message:
            missing.append(f"{method} {path}")
        assert answer.status < 500 or answer.status in (501, 503), f"{method} {path}: {answer.status} {answer.data!r}"
    assert not missing, missing


TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_request_is_a_fault_of_ours(api: Server, root: Root, data: st.DataObject) -> None:
    """Parameters of the right names with any values, bodies of any JSON: an answer, and never one that says that it is our fault."""
    prefixes = ("/images", "/networks", "/volumes", "/system/df", "/commit", "/build", "/containers", "/exec")
    operations = [
        one for one in specification("1.51").operations() if one[1].startswith(prefixes) and "ws" not in one[1]
    ]
    method, path, operation = data.draw(st.sampled_from(operations))
    target = path
    query = []
    body = None
    for parameter in operation.get("parameters", ()):
        name, place = parameter["name"], parameter["in"]
        if place == "path":
            # Nothing that is there: a prune of somebody's image is no fault.
            target = target.replace("{" + name + "}", quote("x" + data.draw(TEXT), safe=""))
        elif place == "query" and name not in OUTWARD and data.draw(st.booleans()):
            value = data.draw(TEXT | JSON.map(json.dumps) | st.integers().map(str))
            query.append(f"{quote(name)}={quote(value, errors='surrogatepass')}")
        elif place == "body":
            names = list(_members(parameter.get("schema", {})))
            body = data.draw(JSON | st.dictionaries(st.sampled_from(names), JSON, max_size=4) if names else JSON)
    if path in ("/images/prune", "/containers/prune", "/volumes/prune", "/networks/prune"):
        query.append("filters=%7B%22label%22%3A%5B%22nosuch%22%5D%7D")
    answer = api(method, target + ("?" + "&".join(query) if query else ""), body)
    assert answer.status < 500 or answer.status in (501, 503), f"{answer.status} {answer.data!r}"
    assert b"this is a bug" not in answer.data


def _members(schema: dict[str, object]) -> Iterator[str]:
    found = specification("1.51")
    if "$ref" in schema:
        yield from _members(found.definition(str(schema["$ref"])))
    for part in schema.get("allOf", ()):  # type: ignore[attr-defined]
        yield from _members(part)
    yield from schema.get("properties", {})  # type: ignore[misc]
