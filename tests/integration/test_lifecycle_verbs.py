"""A container's life by its verbs: start, stop, kill, wait, remove; and what outlives whose death."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import sampan
from sampan.engine import stop
from sampan.engine.config import Config
from sampan.engine.containers import Container
from sampan.errors import Conflict, InvalidParameter, NotFound, NotModified, StartFailed, System
from sampan.steps.trace import Event

from support.patience import eventually
from support.roots import Root

pytestmark = pytest.mark.root

SLEEP = ["sleep", "1000"]
PATIENT = ["sh", "-c", "trap 'echo bye; exit 3' TERM; trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done"]
DEAF = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"]


def running(engine: sampan.Engine, command: list[str], **options: Any) -> Container:
    """A container whose program has said its first word, if it says one."""
    box = engine.containers.create("base", command, **options)
    box.start()
    if command[-1] != "1000":
        eventually(lambda: list(box.logs()), what="first output")
    return box


def output(box: Container) -> str:
    return b"".join(entry.data for entry in box.logs()).decode()


def state(box: Container) -> dict[str, Any]:
    found: dict[str, Any] = box.inspect()["State"]
    return found


def directory(root: Root, box: Container) -> Path:
    return root.root / "containers" / box.id


def started(root: Root, box: Container) -> dict[str, Any]:
    starts = directory(root, box) / "starts"
    newest = max(starts.iterdir(), key=lambda p: int(p.name))
    found: dict[str, Any] = json.loads((newest / "started").read_text())
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


# stop


def test_stop_sends_term_and_the_program_may_end_well(engine: sampan.Engine) -> None:
    box = running(engine, PATIENT)
    box.stop()
    assert (state(box)["Status"], state(box)["ExitCode"]) == ("exited", 3)
    assert output(box) == "up\nbye\n"


def test_stop_kills_what_does_not_listen(engine: sampan.Engine) -> None:
    box = running(engine, DEAF)
    begun = time.monotonic()
    box.stop(timeout=1)
    assert 0.9 < time.monotonic() - begun < 5
    assert state(box)["ExitCode"] == 137


def test_the_containers_own_signal_and_timeout(engine: sampan.Engine) -> None:
    box = running(engine, ["sh", "-c", "trap 'exit 4' USR1; trap '' TERM; echo up; while :; do sleep 0.05; done"],
                  stop_signal="SIGUSR1", stop_timeout=30)  # fmt: skip
    box.stop()
    assert state(box)["ExitCode"] == 4
    deaf = running(engine, DEAF, stop_timeout=0)
    deaf.stop()
    assert state(deaf)["ExitCode"] == 137


def test_stopping_what_does_not_run(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", SLEEP)
    with pytest.raises(NotModified):
        box.stop()
    box.start()
    box.stop(timeout=0)
    with pytest.raises(NotModified):
        box.stop()


def test_the_intent_is_on_disk_before_the_signal_is_sent(root: Root) -> None:
    seen: list[str] = []

    def observe(event: Event) -> None:
        if event.finished and event.stage == "engine":
            seen.append(event.text.split("/")[0])

    with root.engine(observer=observe) as engine:
        box = running(engine, PATIENT)
        seen.clear()
        box.stop()
        assert seen[:3] == ["write stop intent ", "append event container kill", "send signal 15"]


# kill


def _heard_more(box: Container, before: int) -> bool:
    return output(box).count("hup") > before


def test_any_signal(engine: sampan.Engine) -> None:
    box = running(engine, PATIENT)
    for name in ("HUP", "SIGHUP", "1", "hup"):
        before = output(box).count("hup")
        box.kill(name)
        eventually(partial(_heard_more, box, before))
    assert state(box)["Running"]
    box.kill()
    assert state(box)["ExitCode"] == 137


def test_what_cannot_be_killed(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", SLEEP, name="box")
    with pytest.raises(Conflict, match=f"cannot kill container: box: container {box.id} is not running"):
        box.kill()
    box.start()
    with pytest.raises(InvalidParameter, match="invalid signal: FOO"):
        box.kill("FOO")


# start, wait, remove


def test_a_container_can_be_started_again_and_its_log_goes_on(root: Root, engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sh", "-c", "echo x >> /seen; wc -l < /seen"])
    for _ in range(4):
        box.start()
        assert box.wait() == 0
    assert [int(line) for line in output(box).split()] == [1, 2, 3, 4]
    # Two runs are all that is remembered.
    assert sorted(p.name for p in (directory(root, box) / "starts").iterdir()) == ["3", "4"]


def test_starting_what_runs(engine: sampan.Engine) -> None:
    box = running(engine, SLEEP)
    with pytest.raises(NotModified):
        box.start()


def test_a_start_that_fails_is_told_and_can_be_repeated(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sh", "-c", "rm /program"], entrypoint=["/program"], name="box")
    with pytest.raises(StartFailed) as caught:
        box.start()
    assert caught.value.container_exit_code == 127
    assert state(box)["Status"] == "created"
    assert state(box)["ExitCode"] == 127
    assert "/program" in state(box)["Error"]
    with pytest.raises(StartFailed):
        box.start()
    box.remove()


def test_waiting_for_what_does_not_run(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sh", "-c", "exit 5"])
    assert box.wait() == 0
    box.start()
    assert box.wait() == 5
    assert box.wait() == 5


def test_waiting_for_what_goes_by_itself(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sh", "-c", "sleep 0.3; exit 6"], auto_remove=True)
    box.start()
    assert box.wait() == 6
    with pytest.raises(NotFound):
        engine.containers.get(box.id)


def test_what_runs_is_not_removed_but_by_force(engine: sampan.Engine) -> None:
    box = running(engine, SLEEP, name="box")
    with pytest.raises(Conflict) as caught:
        box.remove()
    assert str(caught.value) == (
        'cannot remove container "/box": container is running: stop the container before removing or force remove'
    )
    box.remove(force=True)
    with pytest.raises(NotFound, match="No such container: box"):
        engine.containers.get("box")


def test_a_broken_record_can_be_removed(root: Root, engine: sampan.Engine) -> None:
    box = engine.containers.create("base", SLEEP, name="box")
    (directory(root, box) / "record.json").write_text("{")
    (found,) = engine.containers.list(all=True)
    assert found.status == "dead"
    with pytest.raises(Conflict, match="its record cannot be read"):
        found.start()
    found.remove()
    engine.containers.create("base", SLEEP, name="box")


# what outlives whose death


def launch_in_another_process(root: Root, command: list[str], **options: Any) -> subprocess.Popen[str]:
    script = (
        "import sampan, sys, json\n"
        "engine = sampan.Engine(*sys.argv[1:4])\n"
        "box = engine.containers.create('base', json.loads(sys.argv[4]), **json.loads(sys.argv[5]))\n"
        "attachment = box.start(attach=True)\n"
        "print(box.id, flush=True)\n"
        "for frame in attachment: pass\n"
    )
    argv = [
        sys.executable, "-c", script, str(root.root), str(root.run_root), str(root.config), json.dumps(command),
        json.dumps(options),
    ]  # fmt: skip
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_the_death_of_the_command_changes_nothing_for_the_container(root: Root, engine: sampan.Engine) -> None:
    script = "for i in $(seq 1 40); do echo $i; sleep 0.02; done; exit 8"
    with launch_in_another_process(root, ["sh", "-c", script]) as command:
        assert command.stdout is not None
        box = engine.containers.get(command.stdout.readline().strip())
        command.kill()
        command.wait()
    assert state(box)["Running"]
    assert box.wait() == 8
    assert output(box) == "".join(f"{i}\n" for i in range(1, 41))
    assert state(box)["ExitCode"] == 8


def test_with_rm_it_goes_when_it_ends_although_nobody_waits(root: Root, engine: sampan.Engine) -> None:
    with launch_in_another_process(root, ["sleep", "0.5"], auto_remove=True) as command:
        assert command.stdout is not None
        box = engine.containers.get(command.stdout.readline().strip())
        command.kill()
        command.wait()
    eventually(lambda: not directory(root, box).exists(), what="the container is removed")
    eventually(lambda: not (root.root / "snapshots" / box.id).exists(), what="its parts are removed")


@pytest.mark.parametrize(
    "options",
    [{}, {"pid_mode": "host"}, {"user": "1000"}],
    ids=["own pid namespace", "host's pid namespace", "another user"],
)
def test_the_death_of_a_shim_ends_its_container(root: Root, engine: sampan.Engine, options: dict[str, str]) -> None:
    box = running(engine, ["sh", "-c", "sleep 1000 & sleep 1000", "1000"], **options)
    facts = started(root, box)
    os.kill(facts["monitor"], signal.SIGKILL)
    eventually(lambda: not alive(facts["monitor"]))
    (found,) = engine.containers.list(all=True)
    assert (found.status, state(found)["ExitCode"]) == ("exited", 255)
    eventually(lambda: not alive(facts["pid"]), what="its end: a listing does not wait for it")
    assert found.summary()["Status"].startswith("Exited (255) ")
    # And it can be started again.
    found.start()
    assert found.status == "running"


def test_the_death_of_a_shim_ends_a_container_whose_entrypoint_changed_its_user(
    root: Root, engine: sampan.Engine
) -> None:
    """A change of credentials clears PDEATHSIG: then the next command kills the cgroup."""
    # A set-uid program does what a change of user in the program does.
    program = "(cp /bin/busybox /tmp/sleep || cp /bin/sleep /tmp/sleep) 2>/dev/null && chown 1000 /tmp/sleep && chmod 4755 /tmp/sleep"
    script = f"{program} && exec /tmp/sleep 1000"
    box = engine.containers.create("base", ["sh", "-c", script])
    box.start()
    facts = started(root, box)
    eventually(lambda: b"sleep" in Path(f"/proc/{facts['pid']}/cmdline").read_bytes().split(b"\0")[0])
    os.kill(facts["monitor"], signal.SIGKILL)
    (found,) = engine.containers.list(all=True)
    eventually(lambda: found.status == "exited")
    # A process leaves its cgroup a moment before it is a zombie.
    eventually(lambda: not alive(facts["pid"]), 60)


def test_after_a_reboot_exit_codes_are_what_they_were(root: Root, engine: sampan.Engine) -> None:
    ended = engine.containers.create("base", ["sh", "-c", "exit 5"])
    ended.start()
    ended.wait()
    ran = running(engine, SLEEP)
    fresh = engine.containers.create("base", SLEEP)
    facts = started(root, ran)
    # A reboot, as far as a store can tell: no process lives, /run is empty, the boot id is another one.
    os.kill(facts["monitor"], signal.SIGKILL)
    eventually(lambda: not alive(facts["pid"]))
    shutil.rmtree(root.run_root)
    (directory(root, ran) / "starts/1/started").write_text(json.dumps({**facts, "boot": "another"}))
    with root.engine() as after:
        found = {c.id: c for c in after.containers.list(all=True)}
        assert {c.id: state(c)["Status"] for c in found.values()} == {
            ended.id: "exited", ran.id: "exited", fresh.id: "created",
        }  # fmt: skip
        assert state(found[ended.id])["ExitCode"] == 5
        assert state(found[ran.id])["ExitCode"] == 255
        found[ran.id].start()
        assert found[ran.id].exec(["echo", "again"]).stdout == "again\n"


def test_an_exited_container_with_rm_goes_at_the_next_listing(root: Root, engine: sampan.Engine) -> None:
    box = running(engine, SLEEP, auto_remove=True)
    facts = started(root, box)
    os.kill(facts["monitor"], signal.SIGKILL)
    eventually(lambda: not alive(facts["pid"]))
    assert engine.containers.list(all=True) == []
    assert not directory(root, box).exists()


def test_a_monitor_that_hangs_keeps_nobody_from_removing(
    root: Root, engine: sampan.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "_CONCLUDE_SECONDS", 0.5)
    box = running(engine, SLEEP)
    monitor = started(root, box)["monitor"]
    os.kill(monitor, signal.SIGSTOP)
    assert box.status == "running"
    box.stop(timeout=0)
    # It was woken, so that it could write down what became of the program.
    assert (state(box)["Status"], state(box)["ExitCode"]) == ("exited", 137)
    assert not alive(monitor)
    box.remove()


def test_what_cannot_be_finished_now_keeps_nobody_from_his_work(root: Root, engine: sampan.Engine) -> None:
    """A leftover of a killed command whose parts do not go: told in the trace, left to the next command."""
    leftover = root.root / "containers" / (".removing-" + "ab" * 32)
    leftover.mkdir()
    (leftover / "held").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", leftover / "held"], check=True)
    try:
        assert engine.containers.run("base", ["echo", "works"]).stdout == "works\n"
        assert any(event.errno and str(leftover) in event.text for event in engine.trace.events)
    finally:
        subprocess.run(["umount", leftover / "held"], check=True)
    engine.containers.list()
    assert not leftover.exists()


# joins


def test_joining_a_network(engine: sampan.Engine) -> None:
    first = running(engine, SLEEP, name="first", hostname="one", domainname="example.test")
    second = engine.containers.create("base", SLEEP, network_mode="container:first")
    assert second.inspect()["HostConfig"]["NetworkMode"] == f"container:{first.id}"
    assert second.inspect()["HostsPath"] == first.inspect()["HostsPath"]
    second.start()
    link = ["readlink", "/proc/self/ns/net"]
    assert second.exec(link).stdout == first.exec(link).stdout
    assert second.exec(["hostname"]).stdout == "one\n"
    assert second.exec(["cat", "/etc/hostname"]).stdout == "one\n"
    # A third joins through the second.
    third = running(engine, SLEEP, network_mode=f"container:{second.short_id}")
    assert third.exec(link).stdout == first.exec(link).stdout
    assert third.exec(["cat", "/etc/hostname"]).stdout == "one\n"


def test_joining_what_does_not_run(engine: sampan.Engine) -> None:
    donor = engine.containers.create("base", SLEEP, name="donor")
    for mode, text in (
        ("network_mode", f"cannot join network of a non running container: {donor.id}"),
        ("pid_mode", f"cannot join PID namespace of container {donor.id}: container {donor.id} is not running"),
    ):
        box = engine.containers.create("base", SLEEP, **{mode: "container:donor"})
        with pytest.raises(Conflict, match=text):
            box.start()
        assert state(box)["Status"] == "created"
        assert text in state(box)["Error"]


def test_joining_what_is_not_there(engine: sampan.Engine) -> None:
    for mode in ("network_mode", "pid_mode", "ipc_mode"):
        with pytest.raises(NotFound, match="No such container: nosuch"):
            engine.containers.create("base", SLEEP, **{mode: "container:nosuch"})


def test_joining_processes_and_memory(engine: sampan.Engine) -> None:
    donor = running(engine, SLEEP, name="donor", ipc_mode="shareable")
    joined = running(engine, SLEEP, pid_mode="container:donor", ipc_mode="container:donor")
    assert "sleep 1000" in joined.exec(["ps", "-o", "args"]).stdout
    joined.exec(["sh", "-c", "echo shared > /dev/shm/note"])
    assert donor.exec(["cat", "/dev/shm/note"]).stdout == "shared\n"
    # Its end ends the one that joined its processes, for there is no init any more.
    donor.stop(timeout=0)
    assert joined.wait() == 137


def test_memory_that_is_not_for_sharing(engine: sampan.Engine) -> None:
    running(engine, SLEEP, name="donor")
    box = engine.containers.create("base", SLEEP, ipc_mode="container:donor")
    with pytest.raises(Conflict, match="non-shareable IPC"):
        box.start()


# limits and files


def test_an_out_of_memory_kill_is_told(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["sh", "-c", "tail /dev/zero"], memory="16m", memory_swap="16m")
    box.start()
    assert box.wait() == 137
    assert state(box)["OOMKilled"]


def test_names_and_addresses_as_docker_writes_them(engine: sampan.Engine) -> None:
    box = running(engine, SLEEP, hostname="box", domainname="example.test", dns=["192.0.2.1"], dns_search=["a.test"],
                  extra_hosts={"db": "192.0.2.7"})  # fmt: skip
    assert box.exec(["cat", "/etc/hostname"]).stdout == "box\n"
    hosts = box.exec(["cat", "/etc/hosts"]).stdout
    assert hosts.startswith("127.0.0.1\tlocalhost\n")
    assert hosts.endswith(f"192.0.2.7\tdb\n{box.inspect()['NetworkSettings']['IPAddress']}\tbox.example.test box\n")
    assert box.exec(["cat", "/etc/resolv.conf"]).stdout == "nameserver 192.0.2.1\nsearch a.test\n"
    shared = running(engine, SLEEP, network_mode="host")
    assert shared.exec(["cat", "/etc/hosts"]).stdout.startswith(Path("/etc/hosts").read_text())
    assert shared.inspect()["Config"]["Hostname"] == os.uname().nodename


def test_init_is_the_hosts_and_its_absence_names_a_package(root: Root, tmp_path: Path) -> None:
    settings = tmp_path / "sampan.toml"
    settings.write_text(root.config.read_text() + f'init-path = "{tmp_path}/absent"\n')
    with (
        sampan.Engine(str(root.root), str(root.run_root), str(settings)) as engine,
        pytest.raises(InvalidParameter, match="init-path"),
    ):
        engine.containers.create("base", SLEEP, init=True)


@pytest.mark.parametrize(
    ("program", "fault"),
    [("/usr/bin/tini", "must be statically linked: it needs /lib64/ld-"), ("/usr/bin/ldd", "no program for process 1")],
)
def test_an_init_that_cannot_run_in_a_container_is_named(root: Root, tmp_path: Path, program: str, fault: str) -> None:
    """execve would say ENOENT, of a file that is there."""
    assert os.path.exists(program), f"the tests need {program} (scripts/packages)"
    settings = tmp_path / "sampan.toml"
    settings.write_text(root.config.read_text() + f'init-path = "{program}"\n')
    with (
        sampan.Engine(str(root.root), str(root.run_root), str(settings)) as engine,
        pytest.raises(InvalidParameter, match=f"{program}.*{fault}"),
    ):
        engine.containers.create("base", SLEEP, init=True)


def test_a_store_without_room_says_so_and_keeps_nothing(root: Root, tmp_path: Path) -> None:
    """A full disk: whatever step it hits, the command fails with the path and the reason, and leaves nothing."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=600", "tmpfs", place], check=True)
    try:
        settings = Config(str(place / "root"), str(place / "run"), cgroup_parent=root.cgroup_parent)
        with sampan.Engine(config=settings) as engine:
            engine.containers.run("base", ["true"])
            fillers = 0
            while True:
                try:
                    (place / f"filler-{fillers}").touch()
                except OSError:
                    break
                fillers += 1
            for spare in range(fillers):
                if (refusal := _refusal(engine)) is None:
                    break
                assert "no space left on device" in refusal.lower()
                for part in ("containers", "names", "snapshots"):
                    assert os.listdir(place / "root" / part) == [], f"with {spare} inodes"
                (place / f"filler-{spare}").unlink()
            assert spare > 10
    finally:
        subprocess.run(["umount", place], check=True)


def _refusal(engine: sampan.Engine) -> str | None:
    try:
        engine.containers.run("base", ["true"])
    except (System, StartFailed) as e:
        return str(e)
    return None


def test_inspect_lists_the_execs_that_run(engine: sampan.Engine) -> None:
    box = running(engine, SLEEP)
    assert box.inspect()["ExecIDs"] is None
    first, second = (box.exec_start(["sh", "-c", "read line"], stdin=True) for _ in range(2))
    (one, other) = box.inspect()["ExecIDs"]
    assert len(one) == len(other) == 64
    assert one != other
    first.close_stdin()
    first.close()
    eventually(lambda: len(box.inspect()["ExecIDs"] or ()) == 1, what="one of them has ended")
    box.kill()
    assert box.inspect()["ExecIDs"] is None
    second.close()
