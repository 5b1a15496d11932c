"""Who listens to a container: many, late, slow, or not reading at all. Nobody holds up another, and each hears every byte."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sampan.runtime.handle import STDOUT, Attachment
from sampan.shim import spill
from sampan.shim.protocol import LogPlan

from support.box import Box, Boxes, collect
from support.boxes import box, directory, resident
from support.command import Command
from support.imagestore import disk
from support.patience import eventually, patience
from support.roots import Root

__all__ = ["box", "directory"]

pytestmark = [pytest.mark.root]

MIB = 1 << 20


def bounded(one: Box, size: int = 100_000, files: int = 2) -> LogPlan:
    return LogPlan("json-file", str(one.log), size, files)


def heard(attachment: Attachment, kind: int = STDOUT) -> str:
    """The digest of all that comes of one stream."""
    digest = hashlib.sha256()
    for k, body in attachment:
        if k == kind:
            digest.update(body)
    attachment.close()
    return digest.hexdigest()


def random_file(one: Box, mib: int) -> str:
    """A file in the container's root, and its digest."""
    digest = hashlib.sha256()
    with (one.upper / "data").open("wb") as file:
        for _ in range(mib):
            piece = os.urandom(MIB)
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


@pytest.mark.parametrize("terminal", [False, True], ids=["pipes", "terminal"])
def test_a_client_that_reads_late_gets_the_exact_bytes_though_the_log_has_gone_on(box: Boxes, terminal: bool) -> None:
    script = "stty raw 2>/dev/null; cat /data; echo done > /finished; exit 3"
    one = box("sh", "-c", script, config={"Tty": terminal})
    one.facts = one.facts.replace(log=bounded(one))
    expected = random_file(one, 5)
    attachment = one.start()
    exited = eventually(one.handle.exited, patience(60))
    assert exited["exit_code"] == 3
    assert (one.upper / "finished").exists()
    assert one.log.stat().st_size <= 100_000
    assert heard(attachment) == expected
    assert attachment.exit == {"exit_code": 3, "oom_killed": False}


def test_a_slow_client_hears_only_its_streams_in_their_order(box: Boxes) -> None:
    script = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); head -c 200000 /dev/zero; echo $i >&2; done"
    one = box("sh", "-c", f"read go; {script}", open_stdin=True)
    first = one.start()
    only_err, only_out, both = one.attach(stdout=False), one.attach(stderr=False), one.attach()
    first.send(b"go\n")
    assert eventually(one.handle.exited, patience(30))["exit_code"] == 0
    numbers = b"".join(b"%d\n" % n for n in range(1, 21))
    assert collect(only_err).err == numbers
    assert collect(only_out).out == bytes(4_000_000)
    for client in (first, both):
        output = collect(client)
        assert (output.out, output.err) == (bytes(4_000_000), numbers)


def test_a_hundred_clients_of_which_half_do_not_read(box: Boxes) -> None:
    one = box("sh", "-c", "read go; cat /data", open_stdin=True)
    one.facts = one.facts.replace(log=bounded(one))
    expected = random_file(one, 3)
    first = one.start()
    clients = [one.attach() for _ in range(99)]
    before = resident(one.monitor)
    first.send(b"go\n")
    begun = time.monotonic()
    assert eventually(one.handle.exited, patience(60))["exit_code"] == 0
    # Each may have 64 KiB of its own; the rest is theirs together.
    assert resident(one.monitor) - before < 24 * MIB
    for client in clients[:50]:
        client.close()
    for client in (first, *clients[50:]):
        assert heard(client) == expected
    assert time.monotonic() - begun < patience(120)
    assert one.handle.wait_monitor(patience(10))


def test_memory_stays_flat_and_blocks_are_given_back_while_a_client_is_behind(box: Boxes) -> None:
    one = box("sh", "-c", "read go; cat /data /data", open_stdin=True)
    one.facts = one.facts.replace(log=bounded(one))
    random_file(one, 10)
    attachment = one.start()
    before = resident(one.monitor)
    attachment.send(b"go\n")
    (held,) = eventually(lambda: _spilled(one, 12 * MIB), 60, what="the spill grows")
    size = 0
    while size < 15 * MIB:
        for kind, body in attachment.receive() or ():
            size += len(body) if kind == STDOUT else 0
        assert resident(one.monitor) - before < 8 * MIB
    status = os.stat(held)
    assert status.st_blocks * 512 < 12 * MIB, "what was heard needs no room any more"
    for kind, body in attachment:
        size += len(body) if kind == STDOUT else 0
    assert size == 20 * MIB


def _spilled(one: Box, size: int) -> list[str]:
    """The open file of the monitor without a name that has as many bytes."""
    found = []
    for fd in os.listdir(f"/proc/{one.monitor}/fd"):
        path = f"/proc/{one.monitor}/fd/{fd}"
        with contextlib.suppress(FileNotFoundError):  # the log's file is another one now
            if "/spill (deleted)" in os.readlink(path) and os.stat(path).st_size >= size:
                found.append(path)
    return found


def test_nothing_is_left_of_a_spill_when_everybody_has_caught_up(box: Boxes) -> None:
    one = box("sh", "-c", "read go; cat /data; read end", open_stdin=True)
    random_file(one, 4)
    attachment = one.start()
    attachment.send(b"go\n")
    eventually(lambda: _spilled(one, 2 * MIB), what="the spill grows")
    size = 0
    while size < 4 * MIB:
        for kind, body in attachment.receive() or ():
            size += len(body) if kind == STDOUT else 0
    eventually(lambda: not _spilled(one, 0), what="the spill is gone")
    # And again, from the beginning.
    attachment.send(b"end\n")
    assert collect(attachment).code == 0


def test_on_a_full_disk_the_program_waits_for_a_slow_client_and_no_byte_is_lost(box: Boxes, directory: Path) -> None:
    one = box("sh", "-c", "read go; cat /data; echo done > /finished", open_stdin=True)
    expected = random_file(one, 12)
    with disk(directory / "small", "8M") as small:
        (small / "starts/1").mkdir(parents=True)
        one.facts = one.facts.replace(directory=str(small), log=LogPlan("json-file", str(small / "log"), 100_000, 2))
        one.monitor_lock = str(small / "monitor.lock")
        attachment = one.start()
        attachment.send(b"go\n")
        time.sleep(2)
        assert not (one.upper / "finished").exists()
        assert (small / "log").stat().st_size > 0
        fast = one.attach(stdout=False)
        assert heard(attachment) == expected
        assert collect(fast).code == 0
        assert (one.upper / "finished").exists()
        assert one.handle.wait_monitor(patience(10))


def test_a_client_may_be_behind_by_so_much_and_no_more(box: Boxes) -> None:
    """The bound itself, without a gibibyte: what the queue says of itself."""
    queue = spill.Spill(str(box.directory / "queue"))
    queue.end = queue._freed + spill.LIMIT
    assert not queue.full
    queue.end += 1
    assert queue.full


def test_kill_of_the_monitor_leaves_no_spill(box: Boxes) -> None:
    one = box("sh", "-c", "yes")
    one.start()
    eventually(lambda: _spilled(one, 2 * MIB), what="the spill grows")
    os.kill(one.monitor, signal.SIGKILL)
    eventually(lambda: not one.handle.alive())
    assert not (one.directory / "spill").exists()
    one.handle.kill_group(one.group)
    shutil.rmtree(one.run_directory)


def test_exec_has_back_pressure(box: Boxes) -> None:
    one = box("sleep", "1000")
    one.start().close()
    attachment = one.exec_start("sh", "-c", "head -c 20000000 /dev/zero; echo done > /finished")
    time.sleep(1)
    assert not (one.upper / "finished").exists()
    assert len(collect(attachment).out) == 20_000_000
    assert (one.upper / "finished").exists()


# the command


def test_a_stopped_attach_holds_up_neither_the_program_nor_others(cli: Command) -> None:
    cli("run", "-d", "-i", "--name", "box", "--network", "none", "base", "sh", "-c", "read x; seq 1 400000").ok()
    pid = int(cli("inspect", "-f", "{{.State.Pid}}", "box").ok().out)
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    before = len(os.listdir(f"/proc/{monitor}/fd"))
    stopped = cli.start("attach", "--no-stdin", "box", stdin=-3, stdout=-1)
    eventually(lambda: len(os.listdir(f"/proc/{monitor}/fd")) > before, what="it is attached")
    time.sleep(0.2)
    stopped.send_signal(signal.SIGSTOP)
    done = cli("attach", "box", input="go\n").ok()
    numbers = b"".join(b"%d\n" % n for n in range(1, 400001))
    assert done.out_bytes == numbers
    stopped.send_signal(signal.SIGCONT)
    out, _ = stopped.communicate(timeout=patience(60))
    assert (stopped.returncode, out) == (0, numbers)


def test_detach_keys_of_dockers_configuration(root: Root, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"detachKeys": "ctrl-x,y"}')
    root.cli("run", "-dit", "--name", "box", "--network", "none", "base", "cat").ok()
    for command in (("attach", "box"), ("exec", "-it", "box", "cat")):
        with root.terminal(*command, env={"DOCKER_CONFIG": str(tmp_path)}) as terminal:
            terminal.send("typed\n")
            terminal.expect("typed")
            terminal.send(b"\x18y")
            terminal.expect("read escape sequence")
            assert terminal.wait() == 1
    with root.terminal("attach", "--detach-keys", "ctrl-a", "box", env={"DOCKER_CONFIG": str(tmp_path)}) as terminal:
        terminal.send("more\n")
        terminal.expect("more")
        terminal.send(b"\x01")
        terminal.expect("read escape sequence")
        assert terminal.wait() == 1
    (tmp_path / "config.json").write_text("{")
    done = root.cli("attach", "box", env={"DOCKER_CONFIG": str(tmp_path)})
    assert done.code == 1
    assert f"{tmp_path}/config.json: not a configuration file of Docker's" in done.err


@pytest.mark.parametrize("how", ["kill", "hangup"])
def test_an_exec_survives_its_client(root: Root, how: str) -> None:
    cli = root.cli
    cli("run", "-d", "--name", "box", "--network", "none", "base", "sleep", "1000").ok()
    script = "echo up; sleep 1; echo done > /tmp/done; exit 5"
    if how == "kill":
        with cli.start("exec", "box", "sh", "-c", script, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"up\n"
            client.kill()
    else:
        with root.terminal("exec", "-it", "box", "sh", "-c", script) as terminal:
            terminal.expect("up")  # closed at the end of the block
    with root.engine() as engine:
        box = engine.containers.get("box")
        (exec_id,) = box.inspect()["ExecIDs"]
        shown = box.exec_inspect(exec_id)
        assert (shown["Running"], shown["ExitCode"], shown["ID"]) == (True, None, exec_id)
        ended = eventually(lambda: (s := box.exec_inspect(exec_id))["ExitCode"] is not None and s)
        assert (ended["Running"], ended["ExitCode"], ended["CanRemove"]) == (False, 5, True)
        assert box.exec(["cat", "/tmp/done"]).stdout == "done\n"
        assert box.inspect()["ExecIDs"] is None
