"""`stats`: each value against what the kernel's own files say of the same container, or against what it was made to use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.errors import NotFound
from sampan.kernel import cgroup

from support.command import Command
from support.patience import eventually
from support.roots import Root

pytestmark = pytest.mark.root

BUSY = ["sh", "-c", "while :; do :; done"]
IDLE = ["sleep", "1000"]


def started(engine: sampan.Engine, command: list[str], **options: Any) -> Container:
    box = engine.containers.create("base", command, **options)
    box.start()
    return box


def knob(box: Container, version1: tuple[str, str], version2: str) -> str:
    """A file of the container's cgroup, by its place on each version."""
    group = cgroup.container_group(box.id, box.inspect()["HostConfig"])
    driver = cgroup.detect()
    for hierarchy in driver.hierarchies(group):
        if driver.version == "v2":
            return (Path(hierarchy.directory) / version2).read_text().strip()
        if version1[0] in hierarchy.name.split(","):
            return (Path(hierarchy.directory) / version1[1]).read_text().strip()
    raise LookupError(version1[0])


def numbers(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in (line.split() for line in text.splitlines())}


def shown(cli: Command, *args: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in cli("stats", "--no-stream", "--format", "json", *args).ok().out.splitlines()]


# --- Values


@pytest.mark.core
def test_processor_time_is_what_the_kernel_counts(engine: sampan.Engine) -> None:
    box = started(engine, BUSY)
    version2 = cgroup.detect().version == "v2"

    def counted() -> int:
        text = knob(box, ("cpuacct", "cpuacct.usage"), "cpu.stat")
        return numbers(text)["usage_usec"] * 1000 if version2 else int(text)

    before = counted()
    document = box.stats()
    after = counted()
    now, earlier = document["cpu_stats"], document["precpu_stats"]
    assert before <= earlier["cpu_usage"]["total_usage"] < now["cpu_usage"]["total_usage"] <= after
    assert now["online_cpus"] == os.cpu_count()
    # The machine's own time, idle or not, has passed for each of its processors.
    passed = (now["system_cpu_usage"] - earlier["system_cpu_usage"]) / 1e9 / now["online_cpus"]
    assert passed > 0.7
    assert document["preread"] < document["read"]
    assert ("percpu_usage" in now["cpu_usage"]) is not version2


def test_a_busy_container_and_an_idle_one(engine: sampan.Engine, cli: Command) -> None:
    started(engine, BUSY, name="busy", cpu_quota=20_000)
    started(engine, IDLE, name="idle")
    by_name = {line["Name"]: line for line in shown(cli)}
    # A fifth of a processor; the machine has others to serve as well.
    assert 5 < float(by_name["busy"]["CPUPerc"].removesuffix("%")) < 25
    assert float(by_name["idle"]["CPUPerc"].removesuffix("%")) < 1
    throttling = engine.containers.get("busy").stats(one_shot=True)["cpu_stats"]["throttling_data"]
    assert 0 < throttling["throttled_periods"] <= throttling["periods"]
    assert throttling["throttled_time"] > 0


@pytest.mark.core
def test_memory_processes_and_their_limits(engine: sampan.Engine, cli: Command) -> None:
    # 20 MiB of tmpfs belong to the container for good; 5 MiB that were read from a file are cache.
    fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; sleep 1000 & sleep 1000 & echo ready; wait"
    box = started(engine, ["sh", "-c", fill], memory="64m", pids_limit=50)
    eventually(lambda: list(box.logs()), what="the memory to be used")
    document = box.stats(one_shot=True)
    memory = document["memory_stats"]
    assert memory["limit"] == 64 << 20
    assert 20 << 20 <= memory["usage"] <= 64 << 20
    usage = int(knob(box, ("memory", "memory.usage_in_bytes"), "memory.current"))
    assert abs(memory["usage"] - usage) <= 1 << 20
    raw = numbers(knob(box, ("memory", "memory.stat"), "memory.stat"))
    assert memory["stats"].keys() == raw.keys()
    cache = "total_inactive_file" if "total_inactive_file" in raw else "inactive_file"
    assert abs(memory["stats"][cache] - raw[cache]) <= 1 << 20
    assert document["pids_stats"] == {"current": 3, "limit": 50}
    (line,) = shown(cli, box.name)
    assert line["PIDs"] == "3"
    used, limit = line["MemUsage"].split(" / ")
    assert limit == "64MiB"
    assert 20 <= float(used.removesuffix("MiB")) < 30
    assert abs(float(line["MemPerc"].removesuffix("%")) - float(used.removesuffix("MiB")) / 64 * 100) < 0.2


def test_without_a_limit_the_machine_is_the_limit(engine: sampan.Engine) -> None:
    document = started(engine, IDLE).stats(one_shot=True)
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert document["memory_stats"]["limit"] == total
    assert "limit" not in document["pids_stats"]


def test_block_io_is_that_of_the_kernel(engine: sampan.Engine) -> None:
    write = "dd if=/dev/zero of=/file bs=1M count=3 conv=fsync 2>/dev/null; echo done; sleep 1000"
    box = started(engine, ["sh", "-c", write])
    eventually(lambda: list(box.logs()), what="the write")
    document = box.stats(one_shot=True)["blkio_stats"]
    if cgroup.detect().version == "v2":
        text = knob(box, ("", ""), "io.stat")
        expected = {
            (line.split()[0], key[0]): int(value)
            for line in text.splitlines()
            for key, value in (pair.split("=") for pair in line.split()[1:])
            if key in ("rbytes", "wbytes")
        }
    else:
        text = knob(box, ("blkio", "blkio.throttle.io_service_bytes_recursive"), "")
        expected = {
            (disk, op[0].lower()): int(value)
            for disk, op, value in (line.split() for line in text.splitlines()[:-1])
            if op in ("Read", "Write")
        }
    found = {
        (f"{count['major']}:{count['minor']}", count["op"][0].lower()): count["value"]
        for count in document["io_service_bytes_recursive"]
        if count["op"].lower() in ("read", "write")
    }
    assert found == expected
    assert [count["value"] > 0 for count in document["io_serviced_recursive"] if count["op"].lower() == "write"] == [
        value > 0 for (_, op), value in found.items() if op == "w"
    ]


@pytest.mark.core
def test_pressure_is_what_the_kernel_says(engine: sampan.Engine, cli: Command) -> None:
    box = started(engine, ["sh", "-c", "while :; do :; done & while :; do :; done"], cpuset_cpus="0")
    driver = cgroup.detect()
    group = cgroup.container_group(box.id, box.inspect()["HostConfig"])
    unified = driver.clone_directory(group)
    assert unified is not None, "this machine has no cgroup2 hierarchy"
    if not os.path.exists(f"{unified}/cpu.pressure"):
        assert box.stats(one_shot=True)["pressure_stats"] == {}
        assert shown(cli, box.name)[0]["CPUPressure"] == "--"
        return
    # Two that want one processor: one of them waits at any time.
    eventually(
        lambda: box.stats(one_shot=True)["pressure_stats"]["cpu"]["some"]["avg10"] > 5, seconds=20, what="pressure"
    )

    def total() -> int:
        return int((Path(unified) / "cpu.pressure").read_text().splitlines()[0].rpartition("=")[2])

    before = total()
    found = box.stats(one_shot=True)["pressure_stats"]
    assert before <= found["cpu"]["some"]["total"] <= total()
    assert found.keys() == {"cpu", "memory", "io"}
    some, full = shown(cli, box.name)[0]["CPUPressure"].split(" / ")
    assert 0 < float(some.removesuffix("%")) <= 100
    assert 0 <= float(full.removesuffix("%")) <= 100


def test_the_network_is_the_containers_own(engine: sampan.Engine) -> None:
    box = started(engine, IDLE, network="none")
    assert "networks" not in box.stats(one_shot=True)
    pid = box.inspect()["State"]["Pid"]
    # A pair of interfaces inside it, which talk to each other.
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
    for args in (
        ["ip", "link", "add", "aa0", "type", "veth", "peer", "name", "bb0"],
        ["ip", "link", "set", "aa0", "up"],
        ["ip", "link", "set", "bb0", "up"],
    ):
        assert os.spawnvp(os.P_WAIT, inside[0], [*inside, *args]) == 0

    def sent() -> bool:
        networks = box.stats(one_shot=True)["networks"]
        assert networks.keys() == {"aa0", "bb0"}
        return bool(networks["aa0"]["tx_bytes"] > 0 and networks["bb0"]["rx_bytes"] > 0)

    eventually(sent, what="neighbour discovery between the two")
    text = Path(f"/proc/{pid}/net/dev").read_text()
    line = next(line.split(":")[1].split() for line in text.splitlines() if line.strip().startswith("aa0:"))
    found = box.stats(one_shot=True)["networks"]["aa0"]
    assert found["rx_packets"] >= int(line[1])
    assert found["tx_packets"] >= int(line[9])
    # One that joins it has the same; nobody is told the host's.
    joined = started(engine, IDLE, network_mode=f"container:{box.name}")
    assert joined.stats(one_shot=True)["networks"].keys() == {"aa0", "bb0"}
    assert "networks" not in started(engine, IDLE, network_mode="host").stats(one_shot=True)


# --- States


def test_the_shape_of_a_document(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", IDLE, name="shape")
    stopped = box.stats()
    assert stopped["read"] == stopped["preread"] == "0001-01-01T00:00:00Z"
    assert (stopped["name"], stopped["id"]) == ("/shape", box.id)
    assert stopped["memory_stats"] == stopped["pids_stats"] == {}
    assert stopped["cpu_stats"] == stopped["precpu_stats"]
    box.start()
    running = box.stats(one_shot=True)
    assert stopped.keys() | {"networks"} == running.keys()
    assert running["preread"] == "0001-01-01T00:00:00Z"
    assert running["precpu_stats"] == stopped["precpu_stats"]
    assert {"usage", "stats", "limit"} <= running["memory_stats"].keys()


def test_a_paused_container_is_counted_too(engine: sampan.Engine) -> None:
    box = started(engine, BUSY)
    box.pause()
    document = box.stats()
    assert document["pids_stats"]["current"] == 1
    assert document["cpu_stats"]["cpu_usage"] == document["precpu_stats"]["cpu_usage"]


def test_many_at_once_and_one_that_goes(engine: sampan.Engine) -> None:
    boxes = [started(engine, IDLE) for _ in range(3)]
    first = engine.containers.stats(boxes)
    assert [document["id"] for document in first] == [box.id for box in boxes]
    boxes[1].remove(force=True)
    second = engine.containers.stats(boxes, before=first)
    assert [document["id"] for document in second] == [boxes[0].id, boxes[2].id]
    assert second[1]["precpu_stats"] == first[2]["cpu_stats"]
    with pytest.raises(NotFound):
        boxes[1].stats()
    assert [d["id"] for d in engine.containers.stats()] == [boxes[2].id, boxes[0].id]


def test_a_monitor_that_is_stopped_holds_nothing_up(engine: sampan.Engine, root: Root) -> None:
    box = started(engine, IDLE)
    records = root.root / "containers" / box.id / "starts" / "1" / "started"
    monitor = json.loads(records.read_text())["monitor"]
    os.kill(monitor, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert engine.containers.stats()[0]["pids_stats"]["current"] == 1
        assert time.monotonic() - begun < 2
    finally:
        os.kill(monitor, signal.SIGCONT)


# --- The command line


def test_the_table(engine: sampan.Engine, cli: Command) -> None:
    box = started(engine, IDLE, name="first", memory="64m")
    engine.containers.create("base", IDLE, name="second")
    heads, line = cli("stats", "--no-stream").ok().out.splitlines()
    assert heads.split("  ")[0] == "CONTAINER ID"
    words = ("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")
    assert [heads.index(word) for word in words] == sorted(heads.index(word) for word in words)
    assert line.startswith(f"{box.short_id}   first  ")
    everything = cli("stats", "-a", "--no-stream", "--no-trunc").ok().out.splitlines()
    assert len(everything) == 3
    assert everything[2].startswith(f"{box.id}   first  ")
    assert " ".join(everything[1].split()[1:]) == "second 0.00% 0B / 0B 0.00% 0B / 0B 0B / 0B 0"
    template = "{{.Container}} {{.Name}} {{.ID}} {{.PIDs}}"
    named = cli("stats", "--no-stream", "--format", template, "second", box.id).ok().out
    assert named.splitlines() == [
        f"second second {engine.containers.get('second').short_id} 0",
        f"{box.id} first {box.short_id} 1",
    ]
    assert cli("container", "stats", "--no-stream", "--format", "table {{.Name}}").ok().out == "NAME\nfirst\n"


def test_what_cannot_be_shown(engine: sampan.Engine, cli: Command) -> None:
    started(engine, IDLE, name="first")
    done = cli("stats", "--no-stream", "first", "nobody", "none")
    assert (done.code, done.out) == (1, "")
    assert done.err == "Error: No such container: nobody\nError: No such container: none\n"
    bad = cli("stats", "--no-stream", "--format", "{{.Foo}}", "first")
    assert bad.code == 1
    assert bad.err == (
        'template parsing error: template: :1:2: executing "" at <.Foo>: '
        "can't evaluate field Foo in type *container.statsContext\n"
    )


def test_nobody_runs(cli: Command) -> None:
    begun = time.monotonic()
    assert cli("stats", "--no-stream").ok().out.startswith("CONTAINER ID   NAME")
    assert time.monotonic() - begun < 10


@pytest.fixture
def watched(engine: sampan.Engine, root: Root) -> Iterator[tuple[Container, Any]]:
    box = started(engine, IDLE, name="watched")
    with root.terminal("stats", "watched", rows=10, columns=70) as terminal:
        yield box, terminal


def test_the_table_is_drawn_over_the_one_before(watched: tuple[Container, Any]) -> None:
    box, terminal = watched
    for _ in range(3):
        terminal.expect(rf"\x1b\[HCONTAINER ID [^\n]*\x1b\[K\r\n{box.short_id}[^\n]*\x1b\[K\r\n\x1b\[J")
    # Nothing is cleared before it is drawn again, and no line goes on in the next one.
    assert b"\x1b[2J" not in terminal.output
    lines = terminal.output.replace(b"\x1b[H", b"").replace(b"\x1b[J", b"").split(b"\x1b[K\r\n")
    assert max(map(len, lines)) <= 70
    # It ends with the last of those that it was to show.
    box.remove(force=True)
    assert terminal.wait() == 0


def test_a_person_ends_it(watched: tuple[Container, Any]) -> None:
    _, terminal = watched
    terminal.expect("watched")
    terminal.send("\x03")
    assert terminal.wait() == 130


def test_new_containers_appear_at_the_end_and_no_escapes_go_into_a_pipe(engine: sampan.Engine, cli: Command) -> None:
    started(engine, IDLE, name="early")
    process = cli.start("stats", "--format", "{{.Name}}", stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"early\n"
        started(engine, IDLE, name="late")
        seen = [process.stdout.readline()]
        while seen[-1] != b"late\n":
            seen.append(process.stdout.readline())
        assert set(seen[:-1]) == {b"early\n"}
        assert seen[-2] == b"early\n"
        assert process.stdout.readline() == b"early\n"
        assert process.stdout.readline() == b"late\n"
    finally:
        process.kill()
        process.communicate()
