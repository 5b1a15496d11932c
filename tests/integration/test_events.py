"""`events`: every event by the verb that makes it, in Docker's order and with Docker's attributes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import sampan
from sampan.engine.config import Config
from sampan.errors import Conflict, InvalidParameter, NotFound, StartFailed

from support.command import Command
from support.patience import eventually, patience
from support.roots import Root

pytestmark = pytest.mark.root

Message = dict[str, Any]


class Told:
    """What was told since the test began."""

    def __init__(self, engine: sampan.Engine) -> None:
        self._engine = engine
        self._since = time.time_ns()

    def messages(self, **filters: Any) -> list[Message]:
        since, until = (f"{ns // 10**9}.{ns % 10**9:09}" for ns in (self._since, time.time_ns()))
        with self._engine.events(since, until, filters) as stream:
            return list(stream)

    def actions(self, **filters: Any) -> list[str]:
        return [message["Action"] for message in self.messages(**filters)]

    def one(self, action: str, **filters: Any) -> dict[str, str]:
        """The attributes of the one event of that action."""
        found = [message for message in self.messages(**filters) if message["Action"] == action]
        assert len(found) == 1, f"{len(found)} events {action}"
        return dict(found[0]["Actor"]["Attributes"])


@pytest.fixture
def told(engine: sampan.Engine) -> Told:
    return Told(engine)


def test_a_run_from_its_creation_to_its_removal(cli: Command, told: Told) -> None:
    cli("run", "--rm", "--name", "box", "--label", "tier=1", "base", "sh", "-c", "exit 3")
    messages = told.messages(container="box")
    assert [m["Action"] for m in messages] == ["create", "attach", "start", "die", "destroy"]
    common = {"image": "base", "name": "box", "tier": "1"}
    for message in messages:
        attributes = message["Actor"]["Attributes"]
        if message["Action"] == "die":
            seconds = attributes.pop("execDuration")  # "0", but on a slow machine
            assert 0 <= int(seconds) < patience(10)
            assert attributes == {**common, "exitCode": "3"}
        else:
            assert attributes == common
        assert message["id"] == message["Actor"]["ID"]
        assert (message["from"], message["scope"]) == ("base", "local")
    assert messages == sorted(messages, key=lambda m: int(m["timeNano"]))


def test_stop_kill_and_restart_by_hand(engine: sampan.Engine, told: Told) -> None:
    box = engine.containers.create("base", ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.01; done"], name="box")
    box.start()
    box.kill("WINCH")
    box.stop()
    box.start()
    box.stop(timeout=0, signal="WINCH")
    messages = told.messages(type="container")
    assert [m["Action"] for m in messages] == [
        *("create", "start", "kill", "kill", "die", "stop"),
        *("start", "kill", "kill", "die", "stop"),
    ]
    signals = [m["Actor"]["Attributes"]["signal"] for m in messages if m["Action"] == "kill"]
    assert signals == ["28", "15", "28", "9"]
    codes = [m["Actor"]["Attributes"]["exitCode"] for m in messages if m["Action"] == "die"]
    assert codes == ["7", "137"]


def test_restarts(engine: sampan.Engine, told: Told) -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    box = engine.containers.create("base", ["sh", "-c", "exit 1"], restart_policy=policy)
    box.start()
    eventually(lambda: told.actions(type="container").count("die") == 3)
    assert told.actions(type="container") == ["create", *("start", "die") * 3]
    other = engine.containers.create("base", ["sleep", "600"], name="other")
    other.start()
    other.restart(timeout=0)
    assert told.actions(container="other") == [*("create", "start", "kill", "kill", "die", "stop", "start", "restart")]
    other.kill()


def test_who_hears_of_an_end_can_see_it(engine: sampan.Engine) -> None:
    """And acts on it at once, as older clients do who carry out `--rm` themselves."""
    with engine.events(filters={"event": "die"}) as events:
        for code in range(8):
            container = engine.containers.create("base", ["sh", "-c", f"exit {code}"], network="none")
            container.start()
            assert next(events)["Actor"]["ID"] == container.id
            state = container.inspect()["State"]
            assert (state["Status"], state["ExitCode"]) == ("exited", code)
            container.remove()


def test_a_kill_has_no_stop(engine: sampan.Engine, told: Told) -> None:
    box = engine.containers.create("base", ["sleep", "600"], name="box")
    box.start()
    box.kill()
    assert told.actions(type="container") == ["create", "start", "kill", "die"]
    assert told.one("die")["exitCode"] == "137"


def test_how_long_it_ran(engine: sampan.Engine, told: Told) -> None:
    box = engine.containers.create("base", ["sleep", "1.1"])
    box.start()
    box.wait()
    assert told.one("die")["execDuration"] == "1"


def test_pause_top_export_and_rename(engine: sampan.Engine, told: Told) -> None:
    box = engine.containers.create("base", ["sleep", "600"], name="before")
    box.start()
    box.pause()
    box.unpause()
    box.top()
    assert b"".join(box.export())
    box.rename("after")
    box.kill()
    box.remove()
    assert told.actions(type="container") == [
        *("create", "start", "pause", "unpause", "top", "export", "rename", "kill", "die", "destroy")
    ]
    assert told.one("rename") == {"image": "base", "name": "after", "oldName": "/before"}
    # The shim was started under the old name.
    assert told.one("die")["name"] == "after"
    assert told.one("export")["name"] == "before"


def test_an_exec_from_its_creation_to_its_end(engine: sampan.Engine, told: Told) -> None:
    box = engine.containers.create("base", ["sleep", "600"], name="box")
    box.start()
    assert box.exec(["sh", "-c", "exit 4"]).exit_code == 4
    with pytest.raises(StartFailed):
        box.exec(["/no/such"])
    eventually(lambda: "exec_die" in told.actions())
    messages = [m for m in told.messages() if m["Action"].startswith("exec_")]
    assert [m["Action"] for m in messages] == [
        *("exec_create: sh -c exit 4", "exec_start: sh -c exit 4", "exec_die"),
        *("exec_create: /no/such ", "exec_start: /no/such "),
    ]
    identifiers = [m["Actor"]["Attributes"]["execID"] for m in messages]
    assert len(set(identifiers[:3])) == 1
    assert identifiers[0] != identifiers[3]
    assert len(identifiers[0]) == 64
    assert told.one("exec_die")["exitCode"] == "4"
    box.kill()


def test_out_of_memory(engine: sampan.Engine, told: Told) -> None:
    grow = ["sh", "-c", "x=x; while :; do x=$x$x; done"]
    box = engine.containers.create("base", grow, mem_limit="16m", memswap_limit="16m")
    box.start()
    assert box.wait() == 137
    assert told.actions(type="container") == ["create", "start", "oom", "die"]


def test_a_start_that_fails_neither_starts_nor_dies(engine: sampan.Engine, told: Told) -> None:
    box = engine.containers.create("base", ["/no/such"], volumes=["data:/data"])
    with pytest.raises(StartFailed):
        box.start()
    assert told.actions(type="container") == ["create"]
    assert told.actions(type="volume") == ["create", "mount", "unmount"]
    box.remove()
    engine.volumes.get("data").remove()


def test_a_killed_shim_is_one_death(engine: sampan.Engine, told: Told) -> None:
    box = engine.containers.create("base", ["sleep", "600"], volumes=["data:/data"])
    box.start()
    shim = int(_status(box.inspect()["State"]["Pid"], "PPid"))
    os.kill(shim, signal.SIGKILL)
    eventually(lambda: box.status == "exited")
    assert box.wait() == 255
    assert told.actions(type="container") == ["create", "start", "die"]
    assert told.actions(type="volume") == ["create", "mount", "unmount"]
    assert told.actions(type="network") == ["connect", "disconnect"]
    assert told.one("die") == {"image": "base", "name": box.name, "exitCode": "255", "execDuration": "0"}
    box.remove()
    engine.volumes.get("data").remove()


def _status(pid: int, field: str) -> str:
    with open(f"/proc/{pid}/status") as file:
        return next(line for line in file if line.startswith(f"{field}:")).split()[1]


def test_volumes(engine: sampan.Engine, told: Told) -> None:
    engine.volumes.create("data")
    engine.volumes.create("data")  # it is there already
    box = engine.containers.create("base", ["true"], volumes=["data:/data:ro", "/anonymous"])
    box.start()
    box.wait()
    box.remove(volumes=True)
    engine.volumes.get("data").remove()
    engine.volumes.create("unused")
    pruned = engine.volumes.prune({"all": "1", "label!": "keep"})
    messages = told.messages(type="volume", volume="data")
    assert [m["Action"] for m in messages] == ["create", "mount", "unmount", "destroy"]
    assert [m["Actor"]["Attributes"] for m in messages] == [
        {"driver": "local"},
        {"container": box.id, "destination": "/data", "driver": "local", "propagation": "", "read/write": "false"},
        {"container": box.id, "driver": "local"},
        {"driver": "local"},
    ]
    others = [m for m in told.messages(type="volume") if m not in messages]
    assert [m["Action"] for m in others] == [*("create", "mount", "unmount", "destroy", "create", "destroy", "prune")]
    assert pruned["SpaceReclaimed"] > 0, "its directories have blocks, too"
    assert others[-1]["Actor"] == {"ID": "", "Attributes": {"reclaimed": str(pruned["SpaceReclaimed"])}}


def test_networks_are_joined_and_left_with_every_start(cli: Command, told: Told) -> None:
    """As with Docker also for the modes that are no networks, and not for the network of another container."""
    listed = cli("network", "ls", "--no-trunc", "--format", "{{.Name}} {{.ID}}").ok().out
    ids = dict(line.split() for line in listed.splitlines())
    expected = []
    for name, driver in (("bridge", "bridge"), ("none", "null"), ("host", "host")):
        cli("run", "--name", f"in-{name}", "--network", name, "base", "true").ok()
        found = told.messages(container=f"in-{name}")[0]["Actor"]["ID"]
        about = {"container": found, "name": name, "type": driver}
        expected += [("connect", ids[name], about), ("disconnect", ids[name], about)]
    assert cli("run", "--network", "none", "base", "/no/such").code == 127
    seen = [(m["Action"], m["Actor"]["ID"], m["Actor"]["Attributes"]) for m in told.messages(type="network")]
    assert seen[:6] == expected
    assert [action for action, _, _ in seen[6:]] == ["connect", "disconnect"], "a start that fails leaves it, too"
    actions = [m["Action"] for m in told.messages(type=["container", "network"])]
    assert actions[:6] == ["create", "attach", "connect", "start", "die", "disconnect"]


def test_an_end_leaves_the_networks_that_it_is_in_by_then(engine: sampan.Engine, told: Told) -> None:
    one, two = engine.networks.create("one"), engine.networks.create("two")
    box = engine.containers.create("base", ["sleep", "600"], name="box", network="one")
    two.connect("box")
    assert told.actions(type="network") == ["create", "create"], "it does not run: nothing was connected"
    two.disconnect("box")
    box.start()
    sharing = engine.containers.create("base", ["true"], network="container:box")
    sharing.start()
    sharing.wait()
    two.connect("box")
    one.disconnect("box")
    box.kill()
    box.remove()
    seen = [(m["Action"], m["Actor"]["Attributes"]["name"]) for m in told.messages(type="network")]
    assert seen[2:] == [
        *(("disconnect", "two"), ("connect", "one"), ("connect", "two")),
        *(("disconnect", "one"), ("disconnect", "two")),
    ]
    sharing.remove()
    one.remove()
    two.remove()


def test_images(new_root: Root) -> None:
    archive = new_root.directory / "saved.tar"
    with new_root.engine() as engine:
        told = Told(engine)
        box = engine.containers.create("base", ["true"], labels={"own": "1"})
        base = engine.images.resolve("base").id
        made = box.commit("made:1", message="why", changes=["LABEL a=b"])
        with open(archive, "wb") as file:
            engine.images.save(["made:1"], file)
        engine.images.tag("made:1", "made:2")
        engine.images.remove("made:1")
        engine.images.remove("made:2")
        with open(archive, "rb") as file:
            engine.images.load(file)
        engine.images.remove("made:1")
        box.remove()
        engine.images.prune({"dangling": "false"})
    labels = {"a": "b", "own": "1"}
    by_id = {**labels, "name": made}
    found = [
        (m["Action"], m["Actor"]["ID"], m["Actor"]["Attributes"]) for m in told.messages(type="image") if m["Action"]
    ]
    assert found == [
        ("tag", made, {**labels, "name": "made:1"}),
        ("save", made, by_id),
        ("tag", made, {**labels, "name": "made:2"}),
        ("untag", made, by_id),
        ("untag", made, by_id),
        ("delete", made, {"name": made}),
        ("load", made, by_id),
        ("untag", made, by_id),
        ("delete", made, {"name": made}),
        ("untag", base, {"name": base}),
        ("delete", base, {"name": base}),
        ("prune", "", found[-1][2]),
    ]
    assert int(found[-1][2]["reclaimed"]) > 0
    commit = {"comment": "why", "imageID": made, "imageRef": "made:1", "image": "base", "name": box.name, "own": "1"}
    assert told.one("commit") == commit
    assert told.actions(type="container") == ["create", "commit", "destroy"]


def test_import(engine: sampan.Engine, told: Told) -> None:
    box = engine.containers.create("base", ["true"])
    image = engine.images.import_(io.BytesIO(b"".join(box.export())), "imported:1")
    box.remove()
    engine.images.remove("imported:1")
    assert told.actions(type="image") == ["tag", "import", "untag", "delete"]
    assert told.one("tag")["name"] == "imported:1"
    assert told.one("import") == {"name": image}


def test_the_prune_of_containers(engine: sampan.Engine, told: Told) -> None:
    engine.containers.create("base", ["true"], labels={"mine": ""})
    pruned = engine.containers.prune({"label": "mine"})
    assert told.actions() == ["create", "destroy", "prune"]
    assert pruned["SpaceReclaimed"] > 0, "its record and its directories have blocks"
    assert told.one("prune") == {"reclaimed": str(pruned["SpaceReclaimed"])}
    assert "id" not in told.messages(event="prune")[0]


def test_health(engine: sampan.Engine, told: Told) -> None:
    check = {"test": "test ! -e /bad", "interval": "20ms", "retries": 1}
    box = engine.containers.create("base", ["sleep", "600"], name="box", healthcheck=check)
    box.start()
    eventually(lambda: box.health == "healthy")
    box.exec(["touch", "/bad"])
    eventually(lambda: box.health == "unhealthy")
    eventually(lambda: len(told.actions(event="health_status")) == 2)
    # Each change once, and not each probe.
    assert told.actions(event="health_status") == ["health_status: healthy", "health_status: unhealthy"]
    assert told.messages(event="health_status: healthy")[0]["Actor"]["Attributes"] == {"image": "base", "name": "box"}
    box.kill()


def test_what_is_refused_is_no_event(engine: sampan.Engine, told: Told) -> None:
    box = engine.containers.create("base", ["true"], name="box")
    for refused in (box.pause, box.unpause, box.top, box.kill, lambda: box.attach(running=True)):
        with pytest.raises(Conflict):
            refused()
    with pytest.raises(NotFound):
        engine.containers.get("nobody")
    with pytest.raises(Conflict):
        engine.containers.create("base", name="box")
    with pytest.raises(InvalidParameter):
        box.rename("no/name")
    with pytest.raises(NotFound):
        box.commit("x", changes=[]) if not engine.images.find(box.inspect()["Image"]) else engine.images.tag(
            "none", "x"
        )
    assert told.actions() == ["create"]


def test_a_terminal_is_resized_and_left(root: Root, told: Told) -> None:
    with root.terminal("run", "-it", "--name", "box", "base", "sh", rows=30, columns=90) as terminal:
        terminal.expect("#")
        terminal.send(b"\x10\x11")
        assert terminal.wait() == 0
    assert told.actions(type="container") == ["create", "attach", "start", "resize", "detach"]
    assert told.one("resize") == {"image": "base", "name": "box", "height": "30", "width": "90"}
    with root.terminal("exec", "-it", "box", "sh") as terminal:
        terminal.expect("#")
        terminal.send(b"\x10\x11")
        assert terminal.wait() == 1
    assert told.actions(type="container")[5:] == ["exec_create: sh ", "exec_start: sh ", "exec_detach"]
    assert told.one("exec_detach")["execID"] == told.one("exec_create: sh ")["execID"]


# The command


def test_the_lines_and_the_formats(cli: Command, told: Told) -> None:
    since = str(time.time())
    cli("volume", "create", "data").ok()
    cli("volume", "rm", "data").ok()
    cli("create", "--name", "box", "base").ok()
    until = str(time.time())
    bounds = ("--since", since, "--until", until)
    lines = cli("events", *bounds, env={"TZ": "UTC"}).ok().out.splitlines()
    assert [line.split(" ", 1)[1] for line in lines[:2]] == [
        "volume create data (driver=local)",
        "volume destroy data (driver=local)",
    ]
    assert lines[2].endswith(" (image=base, name=box)")
    assert lines[0].split(" ")[0].endswith("Z")
    documents = [
        json.loads(line) for line in cli("system", "events", *bounds, "--format", "json").ok().out.splitlines()
    ]
    assert documents == told.messages()
    shown = "{{.Type}} {{.Action}} {{.ID}} {{.Actor.ID}} {{.Actor.Attributes.driver}} {{.Scope}} {{.From}}"
    first = cli("events", *bounds, "--format", shown, "--filter", "event=create", "--filter", "type=volume").ok().out
    assert first == "volume create  data local local \n"
    # Nothing of the past that was not asked for.
    assert cli("events", "--until", since, "--since", since).ok().out == ""


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("--format", "{{.Foo}}"), 64, "can't evaluate field Foo in type *events.Message"),
        (("--format", "{{"), 64, "Error parsing format: "),
        (("--since", "yesterday"), 1, 'failed to parse value as time or duration: "yesterday"'),
        (("--since", "5m", "--until", "10m"), 1, "`since` time (5m) cannot be after `until` time (10m)"),
        (("--filter", "colour=red"), 1, "invalid filter 'colour'"),
        (("--filter", "colour"), 1, "bad format of filter (expected name=value)"),
    ],
)
def test_what_is_refused(cli: Command, args: tuple[str, ...], code: int, text: str) -> None:
    result = cli("events", *args)
    assert result.code in (code, 125)
    assert text in result.err
    assert result.out == ""


def test_it_follows_until_it_is_interrupted(root: Root, cli: Command) -> None:
    reader = cli.start("events", "--filter", "container=box", "--format", "{{.Action}}", stdout=subprocess.PIPE)
    assert reader.stdout is not None
    eventually(lambda: _sleeps(reader.pid), what="it waits for events")
    cli("run", "--rm", "--name", "other", "base", "true").ok()
    cli("run", "--rm", "--name", "box", "base", "true").ok()
    assert [reader.stdout.readline() for _ in range(5)] == [
        *(b"create\n", b"attach\n", b"start\n", b"die\n", b"destroy\n")
    ]
    reader.send_signal(signal.SIGINT)
    assert reader.wait(patience(10)) == -signal.SIGINT or reader.returncode == 130
    assert reader.stdout.read() == b""
    reader.stdout.close()


def _sleeps(pid: int) -> bool:
    with open(f"/proc/{pid}/wchan") as file:
        return "poll" in file.read()


def test_the_past_and_the_present_join_without_a_gap(cli: Command) -> None:
    since = str(time.time())
    names = [f"v{i}" for i in range(30)]
    maker = threading.Thread(target=lambda: [cli("volume", "create", name).ok() for name in names])
    maker.start()
    found: list[bytes] = []
    for _ in range(2):
        # One that begins in the middle of it sees what was before as well as what comes.
        reader = cli.start("events", "--since", since, "--format", "{{.Actor.ID}}", stdout=subprocess.PIPE)
        assert reader.stdout is not None
        found = [reader.stdout.readline().strip() for _ in names]
        reader.terminate()
        reader.wait(patience(10))
        reader.stdout.close()
        assert found == [name.encode() for name in names]
    maker.join()
    cli("volume", "prune", "-af").ok()


@pytest.fixture
def small(new_root: Root) -> Iterator[sampan.Engine]:
    """An engine whose journal turns over every 64 KiB."""
    config = Config(str(new_root.root), str(new_root.run_root), events_size=64 << 10)
    with sampan.Engine(config=config) as engine:
        yield engine


def test_the_journal_is_bounded(small: sampan.Engine, new_root: Root) -> None:
    for i in range(400):
        small.volumes.create(f"v{i}", labels={})
        small.volumes.get(f"v{i}").remove()
    told = Told(small)
    small.volumes.create("last")
    assert told.actions() == ["create"]
    sizes = {entry.name: entry.stat().st_size for entry in (new_root.root / "events").iterdir()}
    assert set(sizes) == {"journal", "journal.1"}
    assert max(sizes.values()) <= 64 << 10
    with small.events(since="0", until=time.time()) as stream:
        assert len(list(stream)) > 300
    small.volumes.get("last").remove()
