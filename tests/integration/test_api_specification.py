"""Answers beside Docker's specification of the Engine API, version by version; and requests that follow it and mean nothing."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import tarfile
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.apiquestions import QUESTIONS, SAVED, Question
from support.apiserver import Answer, Server, serving
from support.apispec import Specification, specification
from support.patience import eventually
from support.registry import htpasswd, registry
from support.roots import Root
from support.web import body, web

pytestmark = [pytest.mark.root, pytest.mark.long]

VERSIONS = tuple(f"1.{number}" for number in range(25, 52))
"""Of 1.24 there is a text and no schema."""
NEWEST = VERSIONS[-1]
TRIED = tuple(
    version for version in VERSIONS if version >= "1.39" or version in ("1.25", "1.28", "1.30", "1.33", "1.36")
)
"""Those in which clients of today may speak, and some of each year before."""

# What Docker answers itself, and its specification does not say, or said later.
DOCKERS_OWN = re.compile(
    # pointers that are not set
    r"HostConfig\.(MemorySwappiness|OomKillDisable|PidsLimit): None is no (integer|boolean)$"
    r"|\$\.ExecIDs: None is no string$"
    r"|\$\.ExitCode: None is no integer$"  # of an exec that has not ended
    r"|RestartPolicy\.Name: 'no' is none of "
    # lists of lists, or lists of objects, where lists or objects were meant
    r"|IPAM\.Options: \{\} is no array$"
    r"|NetworkSettings\.Ports: \{.*\} is no array$"
    r"|/system/df \$\.Containers\[\d+\]: \{.*\} is no array$"
    # members that are not written down
    r"|/events\S* \$\.(status|id|from) is unknown to it$"
    r"|/push\S* \$\.(id|aux) is unknown to it$",
    re.DOTALL,
)
OURS = re.compile(r"\$\.pressure_stats is unknown to it$|\.errorDetail\.kind is unknown to it$")

UNASKED = {
    "POST /images/{name}/push 404": "the answer has begun when it is found out: it is told in the stream, as by Docker",
    "POST /images/{name}/tag 409": "a name that is taken is moved, as by Docker",
    "POST /auth 204": "who is let in gets 200 and a status, as by Docker",
    "GET /containers/{id}/attach/ws 200": "without an upgrade there is no websocket: 400, as by Docker",
    "PUT /containers/{id}/archive 403": "a root that is read only is 400, as by Docker",
}
"""Answers of the specification that nobody gets. A server's own fault, 500, cannot be asked for."""
NO_SWARM = 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
REFUSED = (
    (r"\w+ /(swarm|nodes|services|tasks|secrets|configs)(/.*)?", 503, NO_SWARM),
    (r"PUT /volumes/nosuch", 503, NO_SWARM),
    (r"GET /plugins/privileges|POST /plugins/(pull|create)", 501, "sampan has no managed plugins"),
    (r"\w+ /plugins/nosuch(/.*)?", 404, 'plugin "nosuch" not found'),
    (r"POST /session", 501, "sampan has no BuildKit: build by POST /build (DOCKER_BUILDKIT=0)"),
)
"""What there is none of: which operations, and what each of them is answered."""
UNWRITTEN = (
    ("POST", "/grpc", 501, "sampan has no BuildKit: build by POST /build (DOCKER_BUILDKIT=0)"),
    ("GET", "/containers/nosuch/checkpoints", 501, "sampan has no checkpoints"),
    ("POST", "/containers/nosuch/checkpoints", 501, "sampan has no checkpoints"),
    ("DELETE", "/containers/nosuch/checkpoints/x", 501, "sampan has no checkpoints"),
)
"""The same, of operations that no specification has."""
OUTWARD = ("fromImage", "fromSrc", "remote")
"""Parameters that would have something fetched from somewhere."""


@pytest.fixture(scope="module")
def api(session_root: Root) -> Iterator[Server]:
    with serving(session_root) as server:
        server.warm_up()
        yield server
        assert "Traceback" not in server.log
        assert "unexpected" not in server.log


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What stands for what in a target: a registry, and an index."""
    directory = tmp_path_factory.mktemp("registry")
    found = [{"name": "speced", "description": "words", "star_count": 1, "is_official": False, "is_automated": False}]
    with registry(directory, auth=htpasswd(directory)) as private, web() as index:
        index.answers["/v1/search?q=speced&n=25"] = body(json.dumps({"results": found}).encode())
        yield {"registry": private.host, "index": f"127.0.0.1:{index.server_address[1]}"}


@pytest.mark.parametrize("version", TRIED)
def test_answers_are_as_the_specification_says(api: Server, root: Root, places: dict[str, str], version: str) -> None:
    found, here = specification(version), api.at(f"v{version}")
    there = {(method, path) for method, path, _ in found.operations()}
    known: dict[str, Any] = {**places, "now": str(int(time.time()) + 1)}
    problems = []
    for question in QUESTIONS:
        if (question.method, question.path) not in there or int(version[2:]) < question.since:
            continue
        answer = ask(here, question, known)
        if question.form == "frames":
            answer = eventually(lambda question=question: (found := ask(here, question, known)).data and found, 30)
        asked = f"{question.method} {question.target}"
        if answer.status != question.status:
            problems.append(f"{asked}: {answer.status}, not {question.status}: {answer.data[:300]!r}")
            continue
        if question.form == "archive":
            known["saved"] = answer.data
        if question.target.endswith("/exec") and answer.status == 201:
            known["exec"] = answer.json["Id"]
        problems += [f"{asked} {error}" for error in differences(found, question, answer)]
        if version == NEWEST:
            problems += [f"{asked} {name} is unknown to it" for name in unknown(found, question, answer)]
    problems = [error for error in problems if not DOCKERS_OWN.search(error) and not OURS.search(error)]
    assert not problems, "\n".join(problems)


def ask(here: Any, question: Question, known: dict[str, Any]) -> Answer:
    def put_in(text: str) -> str:
        for name in re.findall(r"\{(\w+)\}", text):
            text = text.replace("{" + name + "}", known[name])
        return text

    sent = known["saved"] if question.body == SAVED else question.body
    if isinstance(sent, dict):
        sent = json.loads(json.dumps(sent).replace("{registry}", known["registry"]))
    answer: Answer = here(question.method, put_in(question.target), sent, question.headers)
    return answer


def differences(found: Specification, question: Question, answer: Answer) -> Iterator[str]:
    """What of an answer is not as the specification says. Statuses that it had left out are judged by the newest one."""
    method, path, form = question.method, question.path, question.form
    if question.status not in found.operation(method, path)["responses"]:
        found = specification(NEWEST)
    schema = found.schema(method, path, question.status)
    if question.status >= 400 and method != "HEAD":
        assert answer.headers["content-type"] == "application/json"
        assert answer.message
        yield from found.errors(schema or {"$ref": "#/definitions/ErrorResponse"}, answer.json)
    elif form == "json" and answer.data and schema is not None:
        yield from found.errors(schema, answer.json)
    elif form == "lines":
        assert answer.lines
        for line in answer.lines:
            yield from found.errors(schema or {}, line)
    elif form.endswith("Info"):
        assert answer.lines
        for line in answer.lines:
            yield from found.errors({"$ref": f"#/definitions/{form}"}, line)
            if "error" in line:
                yield f"{line}"
    else:
        yield from unlike(form, answer)


def unknown(found: Specification, question: Question, answer: Answer) -> Iterator[str]:
    """Members that the newest specification does not have: a name that is misspelled is nobody's error, and nobody finds it."""
    schema: Any = found.schema(question.method, question.path, question.status)
    if question.form.endswith("Info"):
        schema = {"$ref": f"#/definitions/{question.form}"}
    if schema is None or not answer.data or "json" not in answer.headers["content-type"]:
        return
    for value in answer.lines if question.form != "json" else [answer.json]:
        yield from found.unknown(schema, value)


def unlike(form: str, answer: Answer) -> Iterator[str]:
    """Of an answer that is no JSON."""
    if "stat" in form:
        stat = json.loads(base64.b64decode(answer.headers["x-docker-container-path-stat"]))
        kinds = {name: type(value).__name__ for name, value in stat.items()}
        if kinds != {"name": "str", "size": "int", "mode": "int", "mtime": "str", "linkTarget": "str"}:
            yield f"X-Docker-Container-Path-Stat: {stat}"
    if "tar" in form or form == "archive":
        if answer.headers["content-type"] not in ("application/x-tar", "application/octet-stream"):
            yield f"Content-Type: {answer.headers['content-type']}"
        with tarfile.open(fileobj=io.BytesIO(answer.data)) as tar:
            names = tar.getnames()
        if not names or (form == "archive" and "manifest.json" not in names):
            yield f"in the archive: {names}"
    if form == "frames":
        kind, size = struct.unpack(">BxxxL", answer.data[:8])
        if (kind, answer.data[8:]) != (1, b"said\n") or size != len(b"said\n"):
            yield f"frames: {answer.data!r}"
    if form == "none" and answer.data:
        yield f"a body: {answer.data[:100]!r}"
    if form == "text" and answer.data not in (b"OK", b""):
        yield f"text: {answer.data!r}"


def refusal(method: str, target: str) -> tuple[int, str] | None:
    """What an operation that there is none of is answered."""
    for pattern, status, message in REFUSED:
        if re.fullmatch(pattern, f"{method} {target}"):
            return status, message
    return None


def named(path: str) -> str:
    return re.sub(r"\{\w+\}", "nosuch", path)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_operation_with_each_of_its_answers_is_asked_about(version: str) -> None:
    """So that none of the specification is without a proof, what is refused apart, which has its own."""
    asked = {f"{one.method} {one.path} {one.status}" for one in QUESTIONS}
    for method, path, operation in specification(version).operations():
        if refusal(method, named(path)) is not None:
            continue
        ours = {f"{method} {path} {status}" for status in operation["responses"] if status < 500}
        if version == NEWEST:
            assert not ours - asked - UNASKED.keys(), (method, path)
        assert any(one.startswith(f"{method} {path} ") and int(one[-3:]) < 400 for one in asked), (method, path)
    assert not UNASKED.keys() & asked


@pytest.mark.parametrize("version", ["1.24", *VERSIONS])
def test_what_there_is_none_of_is_refused_in_so_many_words(api: Server, version: str) -> None:
    here = api.at(f"v{version}")
    refused = [
        (method, named(path), *found)
        for method, path, _ in specification(max(version, VERSIONS[0])).operations()
        if (found := refusal(method, named(path))) is not None
    ]
    assert len(refused) > 30
    for method, target, status, message in refused:
        answer = here(method, target, {} if method in ("POST", "PUT") else None)
        assert (answer.status, answer.message) == (status, message), f"{method} {target}"
    if version == NEWEST:
        for method, target, status, message in UNWRITTEN:
            assert (here(method, target).expect(status).message) == message


def test_every_operation_has_an_answer_of_its_own(api: Server) -> None:
    """Nothing of the specification is a page that is not there."""
    missing = []
    for method, path, _ in specification("1.51").operations():
        target = named(path)
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
