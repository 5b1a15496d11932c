"""What a program is promised of an engine: by `sampan.Engine` on this machine, and by `sampan.connect` over the API, in the same words."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sampan
from sampan.engine.archive import NoSuchPath
from sampan.engine.copying import Unfitting
from sampan.engine.exec import ExecRequest
from sampan.engine.registries import Login
from sampan.engine.results import STDERR, STDOUT, RunFailed
from sampan.errors import (
    Conflict,
    ImageNotFound,
    InvalidParameter,
    NotFound,
    NotModified,
    Prohibited,
    SampanError,
    StartFailed,
    Unavailable,
)

from support.bothengines import SLEEP, box, engine, made, server
from support.patience import eventually, patience

if TYPE_CHECKING:
    from sampan.engine.interface import ContainerInterface, EngineInterface

__all__ = ["box", "engine", "made", "server"]

pytestmark = pytest.mark.root


def raised(action: Any) -> SampanError:
    try:
        action()
    except SampanError as e:
        return e
    raise AssertionError("nothing was raised")


def streams(frames: Any) -> tuple[bytes, bytes]:
    taken = list(frames)
    return tuple(b"".join(data for kind, data in taken if kind == one) for one in (STDOUT, STDERR))  # type: ignore[return-value]


# running


def test_run(engine: EngineInterface) -> None:
    run = engine.containers.run
    result = run("base", ["sh", "-c", "echo out; echo err >&2; cat; exit 3"], input="zwölf\n", network="none")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\nzwölf\n", "err\n", 3)
    assert run("base", ["cat"], input=b"\0\xff", network="none").stdout_bytes == b"\0\xff"
    assert run("base", ["cat"], input="", network="none").stdout == ""
    with pytest.raises(RunFailed, match="exit code 4: reason") as caught:
        run("base", ["sh", "-c", "echo reason >&2; exit 4"], check=True, network="none")
    assert caught.value.result.exit_code == 4
    with pytest.raises(StartFailed, match="executable file not found") as failed:
        run("base", ["nosuch"], network="none")
    assert failed.value.container_exit_code == 127
    assert engine.containers.list(all=True, filters={"ancestor": "base"}) == []


def test_much_both_ways_at_once_and_input_that_nobody_reads(engine: EngineInterface) -> None:
    size = 3_000_000
    script = f"head -c {size} /dev/zero; cat >&2"
    result = engine.containers.run("base", ["sh", "-c", script], input=b"y" * size, network="none")
    assert (len(result.stdout_bytes), len(result.stderr_bytes)) == (size, size)
    assert engine.containers.run("base", ["true"], input=b"y" * size, network="none").exit_code == 0


def test_a_container_is_made_shown_to_its_maker_and_started(
    engine: EngineInterface, made: list[ContainerInterface]
) -> None:
    told: list[Any] = []

    def created(container: ContainerInterface, warnings: list[str]) -> None:
        told.append((container.id, container.status, warnings))

    body = {
        "Image": "base",
        "Name": "launched",
        "Cmd": ["sh", "-c", "cat; exit 6"],
        "OpenStdin": True,
        "StdinOnce": True,
    }
    container, attachment = engine.containers.launch(
        {**body, "HostConfig": {"NetworkMode": "none"}}, attach=True, created=created
    )
    made.append(container)
    assert attachment is not None
    assert told == [(container.id, "created", [])]
    attachment.send(b"sent")
    attachment.close_stdin()
    assert streams(attachment) == (b"sent", b"")
    assert attachment.exit is not None
    assert attachment.exit["exit_code"] == 6
    attachment.close()
    assert container.wait() == 6
    assert container.name == "launched"


# finding


def test_found_by_every_name_and_listed(
    engine: EngineInterface, box: ContainerInterface, made: list[ContainerInterface]
) -> None:
    for reference in (box.id, box.short_id, "box", "/box"):
        assert engine.containers.get(reference).id == box.id
    made.append(engine.containers.create("base", SLEEP, labels={"which": "other"}, network="none"))
    assert [one.id for one in engine.containers.list()] == [box.id]
    assert [one.id for one in engine.containers.list(all=True)] == [made[0].id, box.id]
    assert [one.name for one in engine.containers.list(filters={"label": "which=other"}, all=True)] == [made[0].name]
    assert [one["Id"] for one in engine.containers.summaries(last=1)] == [made[0].id]
    assert engine.containers.summaries(size=True)[0]["SizeRw"] >= 0
    assert [one["id"] for one in engine.containers.stats()] == [box.id]
    assert (box.status, box.health, box.summary()["Names"]) == ("running", "none", ["/box"])


def test_what_cannot_be(engine: EngineInterface, box: ContainerInterface, tmp_path: Path) -> None:
    """Each refusal with its class and its words."""
    stopped = engine.containers.create("base", ["true"], name="stopped", network="none")
    create = engine.containers.create
    for action, kind, words in (
        (lambda: engine.containers.get("nosuch"), NotFound, "No such container: nosuch"),
        (lambda: create("nosuch"), ImageNotFound, "No such image: nosuch:latest"),
        (lambda: create("base", memory="1m"), InvalidParameter, "Minimum memory limit"),
        (lambda: create("base", working_dir="srv"), InvalidParameter, "srv"),
        (lambda: create("base", name="box"), Conflict, "already in use"),
        (lambda: create("base", color="red"), InvalidParameter, "unknown option 'color'"),
        (lambda: engine.containers.list(filters={"nosuch": "x"}), InvalidParameter, "invalid filter 'nosuch'"),
        (lambda: box.start(), NotModified, ""),
        (lambda: stopped.stop(), NotModified, ""),
        (lambda: box.unpause(), Conflict, "is not paused"),
        (lambda: box.remove(), Conflict, "container is running"),
        (lambda: box.rename("stopped"), Conflict, "already in use"),
        (lambda: box.kill("NOSUCH"), InvalidParameter, "invalid signal: NOSUCH"),
        (lambda: stopped.kill(), Conflict, f"container {stopped.id} is not running"),
        (lambda: stopped.exec(["true"]), Conflict, f"container {stopped.id} is not running"),
        (lambda: stopped.attach(running=True), Conflict, "You cannot attach to a stopped container, start it first"),
        (lambda: box.exec([]), InvalidParameter, "no exec command specified"),
        (lambda: box.exec(["true"], workdir="srv"), InvalidParameter, "needs to be an absolute path"),
        (lambda: box.exec(["nosuch"]), StartFailed, "executable file not found"),
        (lambda: box.exec(["/etc"]), StartFailed, "permission denied"),
        (lambda: box.exec_inspect("0" * 64), NotFound, "No such exec instance"),
        (lambda: box.stat_path("/nosuch"), NoSuchPath, "Could not find the file /nosuch"),
        (lambda: box.copy_in(str(tmp_path), "/etc/passwd"), Unfitting, "cannot copy directory"),
        (lambda: box.copy_out("/etc/passwd", str(tmp_path / "no" / "such")), Unfitting, "invalid output path"),
        (lambda: box.put_archive("/", b"no archive at all"), InvalidParameter, ""),
        (lambda: box.top("--nosuch"), SampanError, "ps"),
        (lambda: box.update(memory="1k"), InvalidParameter, "Minimum memory limit"),
        (lambda: box.logs(since="yesterday"), InvalidParameter, "yesterday"),
        (lambda: engine.images.inspect("nosuch"), ImageNotFound, "No such image: nosuch:latest"),
        (lambda: engine.images.tag("base", "UPPER"), InvalidParameter, "must be lowercase"),
        (lambda: engine.images.remove("nosuch"), ImageNotFound, "No such image"),
        (lambda: engine.images.save(["nosuch"], io.BytesIO()), NotFound, "nosuch"),
        (lambda: engine.images.load(io.BytesIO(b"x")), InvalidParameter, ""),
        (lambda: engine.volumes.get("nosuch"), NotFound, "no such volume"),
        (lambda: engine.volumes.create("a/b"), InvalidParameter, "a/b"),
        (lambda: engine.networks.get("nosuch"), NotFound, "network nosuch not found"),
        (lambda: engine.networks.remove("bridge"), Prohibited, "pre-defined network"),
        (lambda: engine.networks.create("bridge"), SampanError, "bridge"),
        (lambda: engine.networks.connect("host", "box"), SampanError, "host"),
        (lambda: engine.events(since="yesterday"), InvalidParameter, "yesterday"),
        (lambda: engine.registries.check("localhost:1", Login("a", "b")), Unavailable, "localhost:1"),
        (lambda: engine.registries.distribution("localhost:1/x"), Unavailable, "localhost:1"),
        (lambda: engine.images.pull("localhost:1/x"), Unavailable, "localhost:1"),
    ):  # fmt: skip
        error = raised(action)
        assert isinstance(error, kind), f"{type(error).__name__} ({error}), not {kind.__name__}"
        # What is as it was asked for (304) has no words over HTTP.
        assert words in str(error), f"{kind.__name__}: {error}"
    assert raised(lambda: box.exec(["nosuch"])).container_exit_code == 127  # type: ignore[attr-defined]
    assert raised(lambda: box.exec(["/etc"])).container_exit_code == 126  # type: ignore[attr-defined]
    stopped.remove()
    with pytest.raises(NotFound):
        stopped.inspect()


# its programs


def test_exec(box: ContainerInterface) -> None:
    script = "echo $A $B; pwd; id -u; id -g; cat; echo e >&2; exit 7"
    done = box.exec(["sh", "-c", script], input="in")
    assert (done.stdout, done.stderr, done.exit_code) == ("1\n/srv\n1000\n1001\nin", "e\n", 7)
    told = box.exec(["sh", "-c", script], environment={"B": "2"}, workdir="/tmp", user="0")
    assert told.stdout == "1 2\n/tmp\n0\n0\n"
    command = ["sh", "-c", "grep CapEff /proc/self/status"]
    given, more = (int(box.exec(command, user="0", privileged=p).stdout.split()[1], 16) for p in (False, True))
    assert more > given


def test_an_exec_on_a_terminal_is_resized_and_inspected(box: ContainerInterface) -> None:
    attachment = box.exec_start(["sh", "-c", "stty size; read x; stty size"], tty=True, stdin=True, size=(30, 90))
    heard = b""
    for kind, data in attachment:
        heard += data if kind == STDOUT else b""
        if heard.endswith(b"30 90\r\n") and kind == STDOUT:
            attachment.resize(40, 120)
            assert box.exec_inspect(attachment.exec_id)["Running"]
            # The size goes another way than the input: it may come later.
            eventually(lambda: box.exec(["sh", "-c", "stty size < /dev/pts/0"]).stdout == "40 120\n", 60)
            box.exec_resize(attachment.exec_id, 41, 121)
            attachment.send(b"\n")
    assert heard.endswith(b"41 121\r\n")
    assert attachment.exit is not None
    assert attachment.exit["exit_code"] == 0
    attachment.close()


def test_an_exec_in_two_steps_and_one_that_nobody_listens_to(box: ContainerInterface) -> None:
    identifier = box.exec_create(ExecRequest(("sh", "-c", "echo planned; exit 2")))
    assert box.exec_inspect(identifier)["ExitCode"] is None
    request, attachment = box.exec_begin(identifier)
    assert request.command == ("sh", "-c", "echo planned; exit 2")
    assert streams(attachment) == (b"planned\n", b"")
    attachment.close()
    assert box.exec_inspect(identifier)["ExitCode"] == 2
    assert isinstance(raised(lambda: box.exec_begin(identifier)), Conflict)
    away = box.exec_start(["sh", "-c", "touch /tmp/away"], detach=True)
    away.close()
    eventually(lambda: box.exec_inspect(away.exec_id)["ExitCode"] == 0, 60)
    assert box.stat_path("/tmp/away").size == 0


def test_several_attached_see_the_same(engine: EngineInterface, made: list[ContainerInterface]) -> None:
    made.append(
        engine.containers.create("base", ["sh", "-c", "read go; echo heard $go"], stdin_open=True, network="none")
    )
    listeners = [made[0].attach() for _ in range(2)]  # they wait for its start
    made[0].start()
    speaker = made[0].attach(stdin=True)
    speaker.send(b"now\n")
    for one in (*listeners, speaker):
        assert streams(one)[0] == b"heard now\n"
        assert one.exit is not None
        one.close()


# what it wrote


def test_logs(engine: EngineInterface, made: list[ContainerInterface]) -> None:
    script = "echo one; echo two >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; seq 1 5000; printf end"
    log = {"Type": "json-file", "Config": {"labels": "color"}}
    container = engine.containers.create(
        "base", ["sh", "-c", script], labels={"color": "light blue"}, log_config=log, network="none"
    )
    made.append(container)
    container.start()
    assert container.wait() == 0
    entries = list(container.logs())
    assert [e.data for e in entries if e.stream == "stderr"] == [b"two\n"]
    out = [e for e in entries if e.stream == "stdout"]
    assert (out[0].data, out[-1].data, out[-1].partial) == (b"one\n", b"end", False)
    assert [len(e.data) for e in out if e.data.startswith(b"x")] == [16384, 16384, 7233]
    assert [e.partial for e in out if e.data.startswith(b"x")] == [True, True, False]
    assert b"".join(e.data for e in out).endswith(b"".join(b"%d\n" % n for n in range(1, 5001)) + b"end")
    assert all(e.time.endswith("Z") and e.attributes == {"color": "light blue"} for e in entries)
    assert [e.data for e in container.logs(tail=3)] == [b"4999\n", b"5000\n", b"end"]
    assert list(container.logs(tail=0)) == []
    assert [e.data for e in container.logs(since=entries[-1].time)][-1] == b"end"
    assert list(container.logs(until="1h")) == []


def test_logs_that_are_followed_end_with_the_container(engine: EngineInterface, made: list[ContainerInterface]) -> None:
    made.append(
        engine.containers.create("base", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"], network="none")
    )
    made[0].start()
    assert b"".join(e.data for e in made[0].logs(follow=True)) == b"1\n2\n3\n"


# its files


def test_files(engine: EngineInterface, made: list[ContainerInterface], tmp_path: Path) -> None:
    container = engine.containers.create("base", SLEEP, network="none")
    made.append(container)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").write_text("content")
    os.chmod(tmp_path / "in" / "f", 0o4750)
    (tmp_path / "in" / "link").symlink_to("f")
    assert container.copy_in(str(tmp_path / "in"), "/new").path == "/new"
    found = container.stat_path("/new/f")
    assert (found.name, found.size, oct(found.mode)) == ("f", 7, "0o104750")
    assert found.mtime_ns // 10**9 == int((tmp_path / "in" / "f").stat().st_mtime)
    assert container.stat_path("/new/link").link_target == "/new/f"
    assert container.stat_path("/dev").is_directory
    container.copy_out("/new", str(tmp_path / "out"))
    assert (tmp_path / "out" / "f").read_text() == "content"
    assert os.readlink(tmp_path / "out" / "link") == "f"
    shown, pieces = container.get_archive("/new/f")
    with pieces:
        archive = b"".join(pieces)
    assert shown.name == "f"
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.extractfile("f").read() == b"content"  # type: ignore[union-attr]
    container.put_archive("/etc", archive)
    assert {"Path": "/etc/f", "Kind": 1} in container.diff()
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as tar:
        assert "etc/f" in tar.getnames()


# its life


def test_a_life(engine: EngineInterface, made: list[ContainerInterface]) -> None:
    script = "trap 'exit 9' TERM; while :; do sleep 0.05; done"
    container = engine.containers.create("base", ["sh", "-c", script], name="lively", network="none")
    made.append(container)
    container.start()
    container.pause()
    assert container.status == "paused"
    container.unpause()
    assert any("sleep 0.05" in " ".join(row) or "trap" in " ".join(row) for row in container.top()["Processes"])
    container.update(memory="64m", memory_swap="64m")
    assert container.inspect()["HostConfig"]["Memory"] == 64 << 20
    assert container.stats(one_shot=True)["memory_stats"]["limit"] == 64 << 20
    container.rename("renamed")
    assert (container.name, engine.containers.get("renamed").id) == ("renamed", container.id)
    codes: list[int] = []
    waiter = threading.Thread(target=lambda: codes.append(container.wait()))
    waiter.start()
    container.restart(timeout=20)
    waiter.join(patience(60))
    assert codes == [9]
    container.kill("TERM")
    assert container.wait() == 9
    assert container.status == "exited"
    assert container.inspect(size=True)["SizeRw"] >= 0


def test_an_image_of_a_container(engine: EngineInterface, box: ContainerInterface) -> None:
    made = box.commit("committed:1", author="me", message="why", changes=["ENV X=1"], pause=False)
    shown = engine.images.inspect("committed:1")
    assert (shown["Id"], shown["Author"], shown["Comment"]) == (made, "me", "why")
    assert "X=1" in shown["Config"]["Env"]
    engine.images.remove("committed:1")


# volumes, networks, the rest


def test_volumes(engine: EngineInterface) -> None:
    volume = engine.volumes.create("kept", labels={"a": "b"})
    assert (volume.name, volume.id, volume.driver, volume.labels, volume.options) == (
        "kept",
        "kept",
        "local",
        {"a": "b"},
        {},
    )
    assert os.path.isdir(volume.path)
    assert engine.volumes.get("kept").inspect()["Mountpoint"] == volume.path
    assert [one.name for one in engine.volumes.list({"label": ["a=b"]})] == ["kept"]
    engine.containers.run("base", ["sh", "-c", "echo x > /v/f"], volumes={"kept": "/v"}, network="none")
    assert Path(volume.path, "f").read_text() == "x\n"
    assert "kept" not in engine.volumes.prune()["VolumesDeleted"]
    volume.remove()
    with pytest.raises(NotFound):
        volume.inspect()
    engine.volumes.remove("kept", force=True)


def test_networks(engine: EngineInterface, made: list[ContainerInterface]) -> None:
    network = engine.networks.create("front", Labels={"a": "b"}, Internal=True)
    container = engine.containers.create("base", SLEEP, network="front")
    made.append(container)
    assert (network.name, network.driver, network.labels) == ("front", "bridge", {"a": "b"})
    assert [one.id for one in engine.networks.list({"label": "a=b"})] == [network.id]
    container.start()
    assert container.id in network.inspect()["Containers"]
    with pytest.raises(Prohibited, match="active endpoints"):
        network.remove()
    network.disconnect(container.id)
    assert network.inspect()["Containers"] == {}
    network.connect(container.id, {"Aliases": ["www"]})
    assert "www" in container.inspect()["NetworkSettings"]["Networks"]["front"]["Aliases"]
    container.remove(force=True)
    made.clear()
    assert engine.networks.remove("front") == network.id
    assert engine.networks.prune({"label": "nosuch"})["NetworksDeleted"] == []


def test_events(engine: EngineInterface, made: list[ContainerInterface]) -> None:
    begun = f"{time.time():.9f}"
    heard: list[dict[str, Any]] = []
    with engine.events(filters={"type": "volume"}) as events:

        def listen() -> None:
            heard.extend(events)

        listener = threading.Thread(target=listen)
        listener.start()
        engine.volumes.create("told").remove()
        eventually(lambda: len(heard) == 2, 60)
        events.close()
        listener.join(patience(60))
        assert not listener.is_alive()
    assert [(one["Action"], one["Actor"]["ID"]) for one in heard] == [("create", "told"), ("destroy", "told")]
    with engine.events(since=begun, until=time.time(), filters={"volume": "told"}) as past:
        assert [one["Action"] for one in past] == ["create", "destroy"]


def test_system(engine: EngineInterface, box: ContainerInterface) -> None:
    assert engine.system.version()["Version"] == sampan.__version__
    assert engine.system.info()["ContainersRunning"] == 1
    df = engine.system.df()
    assert box.id in [one["Id"] for one in df["Containers"]]
    assert json.loads(json.dumps(df)) == df
    assert engine.containers.prune({"label": "nosuch"})["ContainersDeleted"] == []


def test_many_threads_with_one_engine(engine: EngineInterface, box: ContainerInterface) -> None:
    said: list[str] = []
    failures: list[BaseException] = []

    def ask(n: int) -> None:
        try:
            said.append(box.exec(["echo", str(n)]).stdout.strip())
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(patience(60))
    assert not failures, failures
    assert sorted(said, key=int) == [str(n) for n in range(12)]
