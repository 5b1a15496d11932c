"""The Engine API: images, builds, networks, volumes, the disk. Every endpoint with its statuses, its shape and its errors."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.apiserver import Answer, Api, serving
from support.imagestore import archive
from support.patience import eventually
from support.registry import PASSWORD, USER, Registry, free_port, htpasswd, registry
from support.roots import Root
from support.web import body, web

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def api(session_root: Root) -> Iterator[Api]:
    with serving(session_root) as server:
        yield server
        assert "Traceback" not in server.log


def context(**files: str) -> bytes:
    """A build's context."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def build(api: Api, dockerfile: str, **query: str) -> Answer:
    return api(
        "POST",
        "/build",
        context(Dockerfile=dockerfile),
        {"Content-Type": "application/x-tar"},
        **{"networkmode": "none"} | query,
    )


def said(answer: Answer) -> str:
    return "".join(line.get("stream", "") for line in answer.lines)


def auth(username: str, password: str) -> dict[str, str]:
    entry = json.dumps({"username": username, "password": password}).encode()
    return {"X-Registry-Auth": base64.urlsafe_b64encode(entry).decode().rstrip("=")}


# Images


def test_images_are_listed_inspected_tagged_and_removed(api: Api) -> None:
    assert api("POST", "/images/base/tag", repo="localhost:5000/a/b", tag="1").expect(201).data == b""
    found = api("GET", "/images/localhost:5000/a/b:1/json").expect(200).json
    assert "localhost:5000/a/b:1" in found["RepoTags"]
    listed = api("GET", "/images/json", filters='{"reference":{"localhost:5000/a/*":true}}').expect(200).json
    assert [(one["Id"], one["RepoTags"]) for one in listed] == [(found["Id"], ["localhost:5000/a/b:1"])]
    assert listed[0]["Containers"] == 0
    assert api.at("v1.50")("GET", "/images/json", filters='{"reference":["base"]}').json[0]["Containers"] == -1
    steps = api("GET", "/images/localhost:5000/a/b:1/history").expect(200).json
    assert steps[0]["Id"] == found["Id"]
    removed = api("DELETE", "/images/localhost:5000/a/b:1").expect(200).json
    assert removed == [{"Untagged": "localhost:5000/a/b:1"}]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/images/nosuch/json", 404, "No such image: nosuch:latest"),
        ("GET", "/images/nosuch/history", 404, "No such image: nosuch:latest"),
        ("GET", "/images/nosuch/get", 404, "No such image: nosuch:latest"),
        ("GET", "/images/get", 400, "no image is named"),
        ("POST", "/images/nosuch/tag?repo=a&tag=b", 404, "No such image: nosuch:latest"),
        (
            "POST",
            "/images/base/tag?repo=A",
            400,
            "invalid reference format: repository name (library/A) must be lowercase",
        ),
        ("DELETE", "/images/nosuch", 404, "No such image: nosuch:latest"),
        ("GET", "/images/json?filters=x", 400, "invalid filter"),
        ("GET", '/images/json?filters={"bad":["x"]}', 400, "invalid filter 'bad'"),
        ("GET", "/images/search?term=", 400, "it is empty"),
        ("GET", "/images/search?term=x&limit=101", 400, "Limit 101 is outside the range of [1, 100]"),
        ("GET", "/images/search?term=x&filters={%22nosuch%22:[%22a%22]}", 400, "invalid filter 'nosuch'"),
        ("GET", "/images/search?term=localhost:1/x", 503, "localhost:1/v1/search"),
        ("POST", "/images/create", 400, "fromImage"),
        ("POST", "/images/create?fromImage=UPPER", 400, "must be lowercase"),
        ("GET", "/images/base/json?platform=linux", 400, "failed to parse platform"),
        ("GET", "/images/base/json?manifests=1&platform=%7B%7D", 400, "conflicting options"),
        (
            "GET",
            '/images/base/json?platform={"os":"linux","architecture":"s390x"}',
            404,
            "does not match the specified platform",
        ),
        ("POST", "/commit?container=nosuch", 404, "No such container: nosuch"),
        ("POST", "/build/prune?min-free-space=10", 400, "min-free-space"),
        ("POST", "/build/prune?keep-storage=x", 400, "keep-storage"),
        ("GET", "/networks/nosuch", 404, "network nosuch not found"),
        ("DELETE", "/networks/nosuch", 404, "network nosuch not found"),
        ("DELETE", "/networks/bridge", 403, "bridge is a pre-defined network and cannot be removed"),
        ("GET", "/networks/bridge?scope=swarm", 404, "network bridge not found"),
        ("GET", '/networks?filters={"type":["x"]}', 400, "invalid filter"),
        ("GET", "/volumes/nosuch", 404, "get nosuch: no such volume"),
        ("DELETE", "/volumes/nosuch", 404, "no such volume"),
        ("PUT", "/volumes/nosuch", 503, "This node is not a swarm manager"),
        ("GET", "/system/df?type=pod", 400, "unknown object type: pod"),
    ],
)
def test_errors(api: Api, method: str, path: str, status: int, message: str) -> None:
    path = path.replace('"', "%22").replace("{", "%7B").replace("}", "%7D").replace("[", "%5B").replace("]", "%5D")
    answer = api(method, path).expect(status)
    assert message in answer.message
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/networks/create", {"Name": 1}, 400, "cannot unmarshal number into field Name of type string"),
        ("/networks/create", {"Name": ""}, 400, "name is empty"),
        ("/networks/create", {"Name": "host"}, 403, "operation is not permitted on predefined host network"),
        ("/networks/create", {"Name": "n", "IPAM": {"Config": [1]}}, 400, "cannot unmarshal number"),
        ("/networks/create", {"Name": "n", "IPAM": {"Config": [{"Subnet": "x"}]}}, 400, "invalid"),
        ("/networks/create", {"Name": "n", "Driver": "nosuch"}, 404, 'plugin "nosuch" not found'),
        ("/networks/bridge/connect", {}, 400, "invalid container"),
        ("/networks/bridge/connect", {"Container": "nosuch"}, 404, "No such container: nosuch"),
        ("/networks/nosuch/disconnect", {"Container": "x"}, 404, "No such container: x"),
        ("/volumes/create", {"Name": "a/b"}, 400, "create a/b"),
        ("/volumes/create", {"Labels": {"a": 1}}, 400, "Labels"),
        ("/volumes/create", {"Driver": "nosuch", "Name": "v"}, 404, "nosuch"),
        ("/volumes/create", {"ClusterVolumeSpec": {"Group": "g"}}, 400, "swarm"),
        ("/auth", {"username": "a", "password": "b", "serveraddress": "no host"}, 400, "no registry"),
        ("/auth", {}, 400, "username and password are needed"),
    ],
)
def test_bodies_refused(api: Api, path: str, body: object, status: int, message: str) -> None:
    assert message in api("POST", path, body).expect(status).message


@pytest.mark.parametrize(
    ("path", "body", "made"),
    [
        ("/containers/create?name=newer", {"Image": "base", "HostConfig": {"NetworkMode": "none", "Newer": {"a": [1]}}, "Newest": 1}, "/containers/newer"),
        ("/networks/create", {"Name": "newer", "Newer": None, "IPAM": {"Newer": 1, "Config": [{"Newer": "x"}]}}, "/networks/newer"),
        ("/volumes/create", {"Name": "newer", "Newer": {"a": 1}}, "/volumes/newer"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", ["v1.24", "v1.51"])
def test_what_a_newer_client_says_besides_is_ignored(
    api: Api, path: str, body: object, made: str, version: str
) -> None:
    api.at(version)("POST", path, body).expect(201)
    api("DELETE", made).expect(204)


def test_an_image_is_saved_and_loaded(api: Api) -> None:
    api("POST", "/images/base/tag", repo="saved", tag="1").expect(201)
    one, both = api("GET", "/images/saved:1/get"), api("GET", "/images/get", names=["saved:1", "base"])
    assert one.expect(200).headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(both.expect(200).data)) as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        assert sorted(tag for image in json.load(member) for tag in image["RepoTags"]) == ["base:latest", "saved:1"]
    api("DELETE", "/images/saved:1").expect(200)
    loaded = api("POST", "/images/load", one.data, {"Content-Type": "application/x-tar"}, quiet="0").expect(200)
    assert said(loaded) == "Loaded image: saved:1\n"
    api("DELETE", "/images/saved:1").expect(200)
    # As Docker: what is wrong is told in the stream.
    wrong = api("POST", "/images/load", b"no archive").expect(200)
    assert set(wrong.lines[-1]) == {"error", "errorDetail"}


def test_an_archive_is_imported(api: Api) -> None:
    data = archive({"file": b"x"})
    done = api(
        "POST", "/images/create", data, fromSrc="-", repo="imp", tag="1", message="m", changes=["CMD x", "ENV A=b"]
    )
    image = done.expect(200).lines[-1]["status"]
    found = api("GET", "/images/imp:1/json").json
    assert (found["Id"], found["Comment"], found["Config"]["Env"]) == (image, "m", ["A=b"])
    assert "error processing tar file" in api("POST", "/images/create", b"no", fromSrc="-").expect(400).message
    api("DELETE", "/images/imp:1").expect(200)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    directory = tmp_path_factory.mktemp("private")
    with registry(directory, auth=htpasswd(directory)) as found:
        yield found


def test_credentials_are_the_clients_and_only_for_one_request(api: Api, private: Registry, root: Root) -> None:
    name = f"{private.host}/team/app"
    api("POST", "/images/base/tag", repo=name, tag="1").expect(201)
    try:
        sent = api("POST", f"/images/{name}/push", tag="1", headers=auth(USER, PASSWORD)).expect(200).lines
        assert sent[0] == {"status": f"The push refers to repository [{name}]"}
        aux = sent[-1]["aux"]
        assert (aux["Tag"], aux["Digest"][:7]) == ("1", "sha256:")
        refused = api("POST", f"/images/{name}/push", tag="1", headers=auth(USER, "wrong")).expect(200).lines
        assert "denied" in refused[-1]["error"] or "authorization" in refused[-1]["error"]
        assert refused[-1]["errorDetail"]["message"] == refused[-1]["error"]
        assert "does not exist locally" in api("POST", f"/images/{name}/push", tag="2").expect(200).lines[-1]["error"]
        api("DELETE", f"/images/{name}:1").expect(200)
        # Nothing was kept of who pushed.
        assert "no basic auth" in api("POST", "/images/create", fromImage=name, tag="1").expect(404).message
        pulled = api("POST", "/images/create", fromImage=name, tag="1", headers=auth(USER, PASSWORD)).expect(200).lines
        assert pulled[0] == {"status": "Pulling from team/app", "id": "1"}
        assert pulled[-1]["status"].startswith("Status: ")
        found = api("GET", f"/distribution/{name}:1/json", headers=auth(USER, PASSWORD)).expect(200).json
        assert found["Descriptor"]["digest"] == aux["Digest"]
        assert found["Platforms"][0]["os"] == "linux"
        again = api("POST", "/images/create", fromImage=f"{name}@{aux['Digest']}", headers=auth(USER, PASSWORD))
        assert again.expect(200).lines[-1]["status"].startswith("Status: ")
        whole = api("POST", "/images/create", fromImage=name, headers=auth(USER, PASSWORD)).expect(200).lines
        assert whole[-1]["status"] == f"Status: Image is up to date for {name}"
    finally:
        for reference in api("GET", f"/images/{name}:1/json").json.get("RepoTags", ()):
            if reference.startswith(private.host):
                api("DELETE", f"/images/{reference}", force="1")


def test_auth(api: Api, private: Registry) -> None:
    body = {"username": USER, "password": PASSWORD, "serveraddress": private.host}
    assert api("POST", "/auth", body).expect(200).json == {"Status": "Login Succeeded", "IdentityToken": ""}
    assert "failed with status: 401" in api("POST", "/auth", {**body, "password": "x"}).expect(401).message


# Builds


def test_a_build(api: Api) -> None:
    dockerfile = "FROM base\nARG X\nRUN echo say $X\nRUN <<E\necho here\nE\nLABEL a=1\n"
    answer = build(api, dockerfile, t="built:1", buildargs='{"X":"it","NOSUCH":"1"}', labels='{"b":"2"}').expect(200)
    text = said(answer)
    assert "Step 2/3 : RUN echo say $X\n" in text
    assert "say it\n" in text
    assert "here\n" in text
    image = next(line["aux"]["ID"] for line in answer.lines if "aux" in line)
    warning = "[Warning] One or more build-args [NOSUCH] were not consumed\n"
    assert text.endswith(f"{warning}Successfully built {image[7:19]}\nSuccessfully tagged built:1\n")
    assert api("GET", "/images/built:1/json").json["Config"]["Labels"] == {"a": "1", "b": "2"}
    again = build(api, dockerfile, buildargs='{"X":"it"}', q="1").expect(200)
    assert [sorted(line) for line in again.lines] == [["stream"]]
    assert " ---> Using cache\n" in said(build(api, dockerfile, buildargs='{"X":"it"}'))
    assert not any("aux" in line for line in build(api.at("v1.29"), "FROM base\n").lines)
    assert "Using cache" not in said(build(api, dockerfile, buildargs='{"X":"it"}', nocache="1"))
    api("DELETE", "/images/built:1").expect(200)
    api("POST", "/images/prune").expect(200)
    cached = api("GET", "/system/df", type=["build-cache"]).expect(200).json["BuildCache"]
    assert any("echo say" in one["Description"] and "Parents" in one and "Key" not in one for one in cached)
    assert all("Parent" in one for one in api.at("v1.41")("GET", "/system/df").json["BuildCache"])
    pruned = api("POST", "/build/prune", all="1").expect(200).json
    assert pruned["CachesDeleted"]
    assert api("POST", "/build/prune", all="1").json == {"CachesDeleted": None, "SpaceReclaimed": 0}


def test_a_build_that_fails(api: Api, root: Root) -> None:
    assert "unknown instruction: RUNN" in build(api, "FROM base\nRUNN x\n").expect(400).message
    answer = build(api, "FROM base\nRUN exit 7\n").expect(200).lines[-1]
    assert answer["errorDetail"]["code"] == 7
    assert "exit code: 7" in answer["error"] == answer["errorDetail"]["message"]
    assert "failed to read dockerfile" in api("POST", "/build", context(x="")).expect(400).message
    assert "unknown instruction: no" in api("POST", "/build", b"no archive").expect(400).message
    assert "is no address" in api("POST", "/build", remote="/etc").expect(400).message
    assert "outside of the context" in api("POST", "/build", context(x=""), dockerfile="../x").expect(400).message
    assert "BuildKit" in build(api, "FROM base\n", version="2").expect(400).message
    assert not list((root.root / "build/work").glob(".tmp-*"))


def test_a_build_of_what_is_elsewhere(api: Api) -> None:
    dockerfile = b"FROM base\nLABEL from=afar\n"
    with web() as site:
        site.answers["/Dockerfile"] = body(dockerfile)
        site.answers["/context.tar"] = body(context(Dockerfile="FROM base\nCOPY f /\nLABEL from=archive\n", f="x"))
        for path, label in (("/Dockerfile", "afar"), ("/context.tar", "archive")):
            # From a client that has nothing to send, and images that it would have the cache taken from.
            built = api("POST", "/build", remote=site.url(path), t="afar:1", cachefrom='["base","nosuch"]', version="1")
            assert "Successfully tagged afar:1" in said(built.expect(200)), built.data
            assert api("GET", "/images/afar:1/json").json["Config"]["Labels"] == {"from": label}
        missing = api("POST", "/build", remote=f"http://127.0.0.1:{free_port()}/x")
        assert "connection refused" in missing.expect(500).message
    api("DELETE", "/images/afar:1").expect(200)


def test_a_build_pulls_with_the_credentials_that_come_with_it(api: Api, private: Registry) -> None:
    """Those of the registry that the image is in, of all that are sent."""
    name = f"{private.host}/team/private"
    api("POST", "/images/base/tag", repo=name, tag="1").expect(201)
    api("POST", f"/images/{name}/push", tag="1", headers=auth(USER, PASSWORD)).expect(200)
    api("DELETE", f"/images/{name}:1").expect(200)

    def built(accounts: dict[str, dict[str, str]]) -> str:
        header = base64.urlsafe_b64encode(json.dumps(accounts).encode()).decode()
        kind = {"Content-Type": "application/x-tar", "X-Registry-Config": header}
        answer = api("POST", "/build", context(Dockerfile=f"FROM {name}:1\nLABEL a=b\n"), kind, t="private:1")
        return answer.message if answer.status != 200 else str(answer.lines[-1])

    account = {"username": USER, "password": PASSWORD}
    assert "no basic auth credentials" in built({})
    assert "no basic auth credentials" in built({"elsewhere.example": account})
    assert "access denied" in built({private.host: {**account, "password": "wrong"}})
    assert "Successfully tagged private:1" in built({"elsewhere.example": {}, private.host: account})
    for image in ("private:1", f"{name}:1"):
        api("DELETE", f"/images/{image}", force="1")


def test_a_link_of_a_context_leads_nowhere_else(api: Api, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("FROM TOPSECRET\n")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("Dockerfile")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
    answer = api("POST", "/build", buffer.getvalue())
    assert "failed to read dockerfile" in answer.expect(400).message
    assert b"TOPSECRET" not in answer.data


def test_a_build_ends_with_its_client(api: Api, root: Root) -> None:
    connection = api.connection()
    try:
        # The step is told before it begins, and must not be taken for what it says.
        connection.request(
            "POST", "/build?networkmode=none", context(Dockerfile="FROM base\nRUN echo be''gun; sleep 1000\n")
        )
        with connection.getresponse() as answer:
            while b"begun" not in answer.readline():
                pass
            assert root.cli("ps", "-q").ok().out
    finally:
        connection.close()
    eventually(lambda: not root.cli("ps", "-aq").ok().out, 60)
    eventually(lambda: not list((root.root / "build/work").glob(".tmp-*")), 60)


def test_commit(api: Api, root: Root) -> None:
    root.cli("create", "--name", "source", "--network", "none", "base", "true").ok()
    query = {"container": "source", "repo": "made", "tag": "1", "comment": "c", "author": "me", "changes": "ENV B=2"}
    image = api("POST", "/commit", {"Env": ["A=1"], "Cmd": ["x"]}, **query).expect(201).json["Id"]
    found = api("GET", "/images/made:1/json").json
    assert (found["Id"], found["Comment"], found["Author"]) == (image, "c", "me")
    assert {"A=1", "B=2"} <= set(found["Config"]["Env"])
    assert found["Config"]["Cmd"] == ["x"]
    assert "is not a" in api("POST", "/commit", {"Env": "A"}, container="source").expect(400).message
    assert api("POST", "/commit", container="source").expect(201).json["Id"].startswith("sha256:")
    api("DELETE", "/images/made:1").expect(200)
    api("POST", "/images/prune").expect(200)


# Networks, volumes, the disk


def test_networks(api: Api, root: Root) -> None:
    made = (
        api("POST", "/networks/create", {"Name": "front", "Labels": {"a": "1"}, "CheckDuplicate": True})
        .expect(201)
        .json
    )
    assert made["Warning"] == ""
    assert "already exists" in api("POST", "/networks/create", {"Name": "front"}).expect(409).message
    root.cli("create", "--name", "member", "--network", "none", "base", "sleep", "60").ok()
    assert api("GET", "/networks/front").expect(200).json["Id"] == made["Id"]
    assert [one["Name"] for one in api("GET", "/networks", filters='{"label":["a=1"]}').json] == ["front"]
    assert [one["Name"] for one in api("GET", "/networks/", filters='{"name":{"front":true}}').json] == ["front"]
    assert "EnableIPv4" not in api.at("v1.47")("GET", "/networks/front").json
    refused = api("POST", "/networks/front/connect", {"Container": "member"})
    assert refused.status in (400, 403), refused.data  # private networks and none exclude each other, as with Docker
    root.cli("rm", "member").ok()
    root.cli("run", "-d", "--name", "member", "--network", "front", "base", "sleep", "60").ok()
    members = api("GET", "/networks/front").json["Containers"]
    assert [one["Name"] for one in members.values()] == ["member"]
    assert "has active endpoints" in api("DELETE", "/networks/front").expect(403).message
    api("POST", "/networks/front/disconnect", {"Container": "member", "Force": True}).expect(200)
    again = {"Container": "member", "EndpointConfig": {"Aliases": ["www"]}}
    assert api("POST", "/networks/front/connect", again).expect(200).data == b""
    root.cli("rm", "-f", "member").ok()
    assert api("DELETE", f"/networks/{made['Id'][:12]}").expect(204).data == b""
    api("POST", "/networks/create", {"Name": "left", "Internal": True}).expect(201)
    assert api("POST", "/networks/prune").expect(200).json == {"NetworksDeleted": ["left"]}


def test_volumes(api: Api, root: Root) -> None:
    made = api("POST", "/volumes/create", {"Name": "data", "Labels": {"a": "1"}}).expect(201).json
    assert (made["Name"], made["Driver"], made["Scope"], made["Labels"]) == ("data", "local", "local", {"a": "1"})
    assert api("GET", "/volumes/data").expect(200).json == made
    assert api("GET", "/volumes", filters='{"label":["a=1"]}').json == {"Volumes": [made], "Warnings": None}
    root.cli("create", "--name", "user", "-v", "data:/d", "--network", "none", "base", "true").ok()
    assert "volume is in use" in api("DELETE", "/volumes/data").expect(409).message
    usage = api("GET", "/system/df", type=["volume"]).expect(200).json
    assert [(one["Name"], one["UsageData"]["RefCount"]) for one in usage["Volumes"]] == [("data", 1)]
    assert usage["Images"] is None
    root.cli("rm", "user").ok()
    assert api("POST", "/volumes/prune").json["VolumesDeleted"] == []
    assert api.at("v1.41")("POST", "/volumes/prune").expect(200).json["VolumesDeleted"] == ["data"]
    anonymous = api("POST", "/volumes/create", {}).expect(201).json["Name"]
    assert len(anonymous) == 64
    assert api("DELETE", f"/volumes/{anonymous}").expect(204).data == b""
    api("DELETE", "/volumes/data", force="1").expect(204)


def test_disk_usage(api: Api, root: Root) -> None:
    root.cli("create", "--name", "one", "--network", "none", "base", "true").ok()
    found = api("GET", "/system/df").expect(200).json
    assert "one" in [container["Names"][0].lstrip("/") for container in found["Containers"]]
    base = next(image for image in found["Images"] if "base:latest" in image["RepoTags"])
    assert base["Containers"] == 1
    assert "DiskSize" not in base
    assert api.at("v1.41")("GET", "/system/df").json["BuilderSize"] == 0
