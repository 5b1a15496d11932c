"""docker-py, as people use it, on our server. What dockerd does, this has to do."""

from __future__ import annotations

import gc
import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import docker.errors
import pytest

from support.apiserver import Server, home, server
from support.patience import eventually, patience

__all__ = ["home", "server"]

pytestmark = [
    pytest.mark.root,
    # docker-py leaves sockets of answers that went wrong, or were taken over, to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

NONE: dict[str, Any] = {"network_mode": "none"}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=server.url, timeout=int(patience(60)))
    yield made
    made.close()
    gc.collect()  # here, where it may: the next test that it came upon would fail of it


@pytest.fixture
def box(client: docker.DockerClient) -> Iterator[Any]:
    made = client.containers.run("base", ["sh", "-c", "echo out; echo err >&2; exec sleep 300"], detach=True, **NONE)
    eventually(lambda: made.logs() == b"out\nerr\n" or made.logs() == b"err\nout\n")
    yield made
    made.remove(force=True)


def in_background(action: Callable[[], object]) -> Callable[[], object]:
    """Start it in a thread; the result, when that is called, or its exception."""
    outcome: list[object] = []

    def act() -> None:
        try:
            outcome.append(action())
        except BaseException as e:
            outcome.append(e)

    thread = threading.Thread(target=act)
    thread.start()

    def result() -> object:
        thread.join(patience(60))
        assert not thread.is_alive()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    return result


def test_run_gives_what_the_program_wrote(client: docker.DockerClient) -> None:
    assert client.containers.run("base", ["echo", "hello"], remove=True, **NONE) == b"hello\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("base", ["sh", "-c", "echo why >&2; exit 3"], remove=True, **NONE)
    assert (failed.value.exit_status, failed.value.stderr) == (3, b"why\n")
    with pytest.raises(docker.errors.APIError, match="executable file not found") as refused:
        client.containers.run("base", ["nosuch"], remove=True, **NONE)
    assert refused.value.status_code == 400


def test_a_containers_life(client: docker.DockerClient) -> None:
    box = client.containers.create("base", ["sleep", "300"], name="life", labels={"a": "b"}, **NONE)
    try:
        assert box.status == "created"
        with pytest.raises(docker.errors.APIError) as taken:
            client.containers.create("base", name="life")
        assert taken.value.status_code == 409
        box.start()
        assert client.api.base_url  # a second start is no error: 304
        box.start()
        box.reload()
        assert (box.status, box.attrs["State"]["Running"]) == ("running", True)
        assert [one.name for one in client.containers.list(filters={"label": "a=b"})] == ["life"]
        box.pause()
        box.reload()
        assert box.status == "paused"
        box.unpause()
        box.rename("other")
        assert client.containers.get("other").id == client.containers.get(box.short_id).id == box.id
        assert box.update(mem_limit="64m", memswap_limit="64m")["Warnings"] is None
        box.reload()
        assert box.attrs["HostConfig"]["Memory"] == 64 << 20
        assert box.top(ps_args="-o pid,args")["Titles"] == ["PID", "COMMAND"]
        with pytest.raises(docker.errors.APIError) as running:
            box.remove()
        assert running.value.status_code == 409
        box.restart(timeout=0)
        waited = in_background(box.wait)
        box.stop(timeout=0)
        assert waited() == {"StatusCode": 137}
        assert box.wait() == {"StatusCode": 137}
        box.stop()
        with pytest.raises(docker.errors.APIError) as stopped:
            box.kill()
        assert stopped.value.status_code == 409
        assert client.containers.prune({"label": ["a=b"]})["ContainersDeleted"] == [box.id]
    finally:
        for left in client.containers.list(all=True, filters={"label": "a=b"}):
            left.remove(force=True)
    with pytest.raises(docker.errors.NotFound, match="No such container: other"):
        client.containers.get("other")


@pytest.mark.parametrize("condition", ["next-exit", "removed"])
def test_who_waits_before_the_start_hears_of_the_end(client: docker.DockerClient, condition: str) -> None:
    box = client.containers.create("base", ["sh", "-c", "exit 7"], auto_remove=condition == "removed", **NONE)
    waited = in_background(lambda: box.wait(condition=condition))
    time.sleep(0.1)
    box.start()
    assert waited() == {"StatusCode": 7}
    if condition == "removed":
        with pytest.raises(docker.errors.NotFound):
            box.reload()
    else:
        box.remove()


def test_logs(client: docker.DockerClient, box: Any) -> None:
    assert (box.logs(stderr=False), box.logs(stdout=False)) == (b"out\n", b"err\n")
    assert box.logs(tail=0) == b""
    assert len(box.logs(timestamps=True, tail=1).split(b"Z ")[0]) == len("2026-01-02T03:04:05.123456789")
    assert box.logs(until=1) == b""
    with pytest.raises(docker.errors.APIError) as nothing:
        box.logs(stdout=False, stderr=False)
    assert nothing.value.status_code == 400
    followed = in_background(lambda: b"".join(box.logs(follow=True, stream=True)))
    box.kill()
    assert sorted(followed().split()) == [b"err", b"out"]  # type: ignore[attr-defined]


def test_execs(client: docker.DockerClient, box: Any) -> None:
    assert box.exec_run(["sh", "-c", "echo a; echo b >&2; exit 4"], demux=True) == (4, (b"a\n", b"b\n"))
    ran = box.exec_run("sh -c 'id -u; pwd; echo $A'", user="1000", workdir="/tmp", environment={"A": "x"})
    assert ran.output == b"1000\n/tmp\nx\n"
    made = client.api.exec_create(box.id, ["sh", "-c", "read a; stty size; read b"], stdin=True, tty=True)
    with client.api.exec_start(made["Id"], tty=True, socket=True) as stream:
        sock = stream._sock
        eventually(lambda: client.api.exec_inspect(made["Id"])["Running"])
        client.api.exec_resize(made["Id"], 33, 101)
        sock.sendall(b"\n")
        seen = b""
        while b"33 101" not in seen:
            part = sock.recv(1000)
            assert part, seen
            seen += part
    box.pause()
    with pytest.raises(docker.errors.APIError, match="paused") as refused:
        box.exec_run("true")
    assert refused.value.status_code == 409
    box.unpause()


def test_a_terminal_is_resized_and_left_by_its_keys(client: docker.DockerClient) -> None:
    box = client.containers.create("base", ["sh", "-c", "read a; stty size; read b"], tty=True, stdin_open=True, **NONE)
    try:
        stream = client.api.attach_socket(box.id, {"stdin": 1, "stdout": 1, "stream": 1, "detachKeys": "ctrl-x,q"})
        box.start()
        box.resize(31, 99)
        stream._sock.sendall(b"\n")
        seen = b""
        while b"31 99" not in seen:
            part = stream._sock.recv(1000)
            assert part, seen
            seen += part
        stream._sock.sendall(b"\x18q")
        while part := stream._sock.recv(1000):
            seen += part
        stream.close()
        box.reload()
        assert box.status == "running"
    finally:
        box.remove(force=True)


def test_files(client: docker.DockerClient, box: Any) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("f")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    assert box.put_archive("/tmp", packed.getvalue())
    pieces, about = box.get_archive("/tmp/f")
    assert (about["name"], about["size"], about["mode"]) == ("f", 3, 0o644)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert tar.extractfile("f").read() == b"abc"  # type: ignore[union-attr]
    assert {"Path": "/tmp/f", "Kind": 1} in box.diff()
    with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as tar:
        assert "tmp/f" in tar.getnames()
    for action in (lambda: box.get_archive("/nosuch"), lambda: box.put_archive("/nosuch", packed.getvalue())):
        with pytest.raises(docker.errors.NotFound):
            action()
    with pytest.raises(docker.errors.APIError) as broken:
        box.put_archive("/tmp", b"no archive at all" * 100)
    assert broken.value.status_code == 400


def test_what_it_uses(client: docker.DockerClient, box: Any) -> None:
    stream = box.stats(decode=True)
    first, second = next(stream), next(stream)
    stream.close()
    assert first["name"] == f"/{box.name}"
    assert second["precpu_stats"]["cpu_usage"] == first["cpu_stats"]["cpu_usage"]
    assert {"system_cpu_usage", "online_cpus"} <= second["cpu_stats"].keys()


def test_events_of_the_past_and_of_the_present(server: Server, client: docker.DockerClient) -> None:
    begun = time.time() - 1
    live = client.events(decode=True, filters={"event": ["die"], "type": "container"})
    for code in (1, 2):
        box = client.containers.create("base", ["sh", "-c", f"exit {code}"], name=f"told{code}", **NONE)
        box.start()
        box.wait()
        box.remove()
    # Other tests' containers end in the same store.
    seen: list[str] = []
    while len(seen) < 2:
        attributes = next(live)["Actor"]["Attributes"]
        if attributes["name"].startswith("told"):
            seen.append(attributes["exitCode"])
    live.close()
    assert seen == ["1", "2"]
    past = list(client.events(decode=True, since=begun, until=time.time(), filters={"container": "told1"}))
    assert [event["Action"] for event in past] == ["create", "start", "die", "destroy"]
    assert past[0]["status"] == "create"
    server("GET", "/events", filters='{"nosuch":["x"]}').expect(400)
    server("GET", "/events", since="2", until="1").expect(400)


def test_what_there_is_none_of(server: Server, client: docker.DockerClient) -> None:
    for path in ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs/x"):
        assert server("GET", path).expect(503).message.startswith("This node is not a swarm manager.")
    assert client.plugins.list() == []
    server("GET", "/plugins/x/json").expect(404)
    server("POST", "/plugins/pull", remote="x").expect(501)
    for path in ("/session", "/grpc", "/containers/x/checkpoints"):
        server("POST", path).expect(501)


def test_versions_change_shapes(server: Server, box: Any) -> None:
    newest = server.at("v1.51")("GET", f"/containers/{box.id}/json").json
    oldest = server.at("v1.24")("GET", f"/containers/{box.id}/json").json
    assert "MacAddress" not in newest["Config"]
    assert oldest["Config"]["MacAddress"] == ""
    assert "GwPriority" not in oldest["NetworkSettings"]["Networks"]["none"]
    assert server.at("v1.23")("GET", "/_ping").expect(400).message.startswith("client version 1.23 is too old.")
    raw = server.at("v1.41")("GET", f"/containers/{box.id}/logs", stdout="1").headers["content-type"]
    assert raw == "application/vnd.docker.raw-stream"


def test_its_memory_does_not_grow_with_what_goes_through(server: Server, client: docker.DockerClient, box: Any) -> None:
    def resident() -> int:
        assert server.process is not None
        with open(f"/proc/{server.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def read_away(megabytes: int) -> int:
        made = client.api.exec_create(box.id, ["head", "-c", str(megabytes << 20), "/dev/zero"])
        return sum(len(piece) for piece in client.api.exec_start(made["Id"], stream=True))

    read_away(8)
    before = resident()
    assert read_away(64) == 64 << 20
    assert resident() < before + (8 << 20)
