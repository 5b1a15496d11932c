"""What goes in and out of a container: complete, in order, in bounded memory, whoever listens and however slowly."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from sampan.runtime.handle import EXIT, FAILED, STDERR, STDOUT, Attachment
from sampan.shim import protocol
from sampan.shim.protocol import LogPlan

from support.box import Boxes, collect
from support.boxes import box, directory, resident
from support.patience import eventually

__all__ = ["box", "directory"]

pytestmark = [pytest.mark.root]

MIB = 1 << 20


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def numbers(count: int) -> bytes:
    return b"".join(b"%d\n" % n for n in range(1, count + 1))


# out


def test_both_streams_arrive_apart_and_with_the_exit_code(box: Boxes) -> None:
    output = box("sh", "-c", "echo out; echo err >&2; exit 3").run()
    assert (output.out, output.err, output.code) == (b"out\n", b"err\n", 3)


@pytest.mark.patience(180)
def test_200_megabytes_arrive_complete_and_in_order(box: Boxes) -> None:
    """A MiB of one letter after the other, without newlines; the log is off, which would take longer than the output."""
    script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); printf '%08d' $i; head -c 1048568 /dev/zero; done"
    attachment = box("sh", "-c", script, log=LogPlan()).start()
    checksum, size = hashlib.sha256(), 0
    for kind, body in attachment:
        if kind == STDOUT:
            checksum.update(body)
            size += len(body)
    expected = hashlib.sha256()
    for number in range(1, 201):
        expected.update(b"%08d" % number + bytes(MIB - 8))
    assert size == 200 * MIB
    assert checksum.digest() == expected.digest()
    assert attachment.exit == {"exit_code": 0, "oom_killed": False}


def test_output_is_in_the_log_as_well_line_by_line(box: Boxes) -> None:
    one = box("seq", "1", "50000")
    assert one.run().out == numbers(50000)
    lines = one.log_lines()
    assert "".join(line["log"] for line in lines).encode() == numbers(50000)
    assert {line["stream"] for line in lines} == {"stdout"}
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)


def test_without_a_log_a_slow_client_stops_the_program_and_not_the_monitors_memory_and_loses_nothing(
    box: Boxes,
) -> None:
    one = box("sh", "-c", "seq 1 600000; echo done > /finished", log=LogPlan())
    attachment = one.start()
    # It reads nothing: the pipe, the socket and the monitor's own MiB are full soon, then the program waits.
    time.sleep(1)
    assert resident(one.monitor) < 24 * MIB
    assert not (one.upper / "finished").exists()
    assert collect(attachment, 60).out == numbers(600000)


def test_with_a_log_a_slow_client_holds_up_nobody_and_hears_everything(box: Boxes) -> None:
    one = box("sh", "-c", "seq 1 600000; echo done > /finished")
    attachment = one.start()
    assert eventually(one.handle.exited)["exit_code"] == 0
    assert (one.upper / "finished").exists()
    assert collect(attachment, 60).out == numbers(600000)
    assert one.handle.wait_monitor(10)
    assert one.logged().encode() == numbers(600000)
    assert not (one.directory / "spill").exists()


def test_without_any_client_output_goes_to_the_log_alone(box: Boxes) -> None:
    one = box("seq", "1", "3000", attached=False)
    assert one.start() is None
    assert one.handle.wait_monitor(10)
    assert one.logged().encode() == numbers(3000)
    assert one.handle.exited() is not None


def test_a_container_without_a_log_writes_none(box: Boxes) -> None:
    one = box("echo", "hello", log=LogPlan())
    assert one.run().out == b"hello\n"
    assert not one.log.exists()


def test_bytes_that_are_not_utf8_arrive_as_they_are(box: Boxes) -> None:
    everything = bytes(range(256)) * 64
    assert box("cat", open_stdin=True, stdin_once=True).run(input=everything).out == everything


# in


def test_half_closed_standard_input_ends_the_program_and_its_last_words_still_come(box: Boxes) -> None:
    one = box("sh", "-c", "cat > /got; echo read; sleep 0.2; echo bye", open_stdin=True, stdin_once=True)
    assert one.run(input=b"some input").ok() == b"read\nbye\n"
    assert (one.upper / "got").read_bytes() == b"some input"


@pytest.mark.patience(180)
def test_50_megabytes_go_through_cat(box: Boxes) -> None:
    piece = os.urandom(MIB)
    attachment = box("cat", log=LogPlan(), open_stdin=True, stdin_once=True).start()
    pid = os.fork()
    if pid == 0:
        for _ in range(50):
            attachment.send(piece)
        attachment.close_stdin()
        os._exit(0)
    received, size = hashlib.sha256(), 0
    for kind, body in attachment:
        if kind == STDOUT:
            received.update(body)
            size += len(body)
    os.waitpid(pid, 0)
    expected = hashlib.sha256()
    for _ in range(50):
        expected.update(piece)
    assert size == 50 * MIB
    assert received.digest() == expected.digest()


def test_a_program_that_reads_no_input_stops_its_client_and_not_the_monitors_memory(box: Boxes) -> None:
    one = box("sleep", "60", open_stdin=True, stdin_once=True)
    attachment = one.start()
    before = resident(one.monitor)
    connection = attachment._socket
    connection.settimeout(1.0)
    with pytest.raises(TimeoutError):
        attachment.send(bytes(20 * MIB))
    assert resident(one.monitor) - before < 3 * MIB
    attachment.close()


def test_a_program_that_closes_its_input_early_is_no_failure(box: Boxes) -> None:
    one = box("sh", "-c", "head -n 1; exec 0<&-; sleep 0.3; echo still here", open_stdin=True, stdin_once=True)
    attachment = one.start()
    attachment.send(b"first\n" + b"more\n" * 100_000)
    output = collect(attachment)
    assert output.ok() == b"first\nstill here\n"


def test_signals_come_through_after_standard_input_was_closed(box: Boxes) -> None:
    script = "trap 'echo caught; exit 4' TERM; cat; echo at the end; while :; do sleep 0.05; done"
    attachment = box("sh", "-c", script, open_stdin=True, stdin_once=True).start()
    attachment.close_stdin()
    _until(attachment, b"at the end\n")
    attachment.signal(signal.SIGTERM)
    output = collect(attachment)
    assert (output.out, output.code) == (b"caught\n", 4)


def test_without_stdin_once_the_input_outlives_its_clients(box: Boxes) -> None:
    one = box("cat", open_stdin=True)
    first = one.start()
    first.send(b"one\n")
    _until(first, b"one\n")
    first.close()
    second = one.attach(stdin=True)
    second.send(b"two\n")
    _until(second, b"two\n")
    second.close()
    assert one.handle.alive()


def test_with_stdin_once_the_program_reads_the_end_when_its_client_goes(box: Boxes) -> None:
    one = box("sh", "-c", "cat; echo end", open_stdin=True, stdin_once=True)
    attachment = one.start()
    attachment.send(b"text\n")
    _until(attachment, b"text\n")
    attachment.close()
    assert one.handle.wait_monitor(10)
    assert one.logged() == "text\nend\n"


def test_a_container_without_open_stdin_reads_the_end_at_once(box: Boxes) -> None:
    one = box("sh", "-c", "cat; ls -l /proc/self/fd/0 | sed 's/.*-> //'")
    attachment = one.start()
    with contextlib.suppress(BrokenPipeError):  # it may have ended already
        attachment.send(b"nobody reads this")
    assert collect(attachment).ok() == b"/dev/null\n"


def test_yes_into_head_ends(box: Boxes) -> None:
    assert box("sh", "-c", "yes | head -n 1").run().ok() == b"y\n"


# several clients


def test_each_of_several_clients_hears_everything_and_the_exit_code(box: Boxes) -> None:
    one = box("sh", "-c", "read go; seq 1 20000; exit 9", open_stdin=True)
    clients = [one.start(), *(one.attach() for _ in range(4))]
    clients[0].send(b"go\n")
    for client in clients:
        output = collect(client)
        assert (output.out, output.code) == (numbers(20000), 9)


def test_a_client_that_goes_in_the_middle_takes_nothing_of_the_others_output_along(box: Boxes) -> None:
    one = box("sh", "-c", "read go; seq 1 300000; exit 2", open_stdin=True)
    leaving = [one.start(), one.attach()]
    staying = [one.attach(), one.attach()]
    between = one.attach()
    staying.append(one.attach())
    leaving[0].send(b"go\n")
    for client in (leaving[0], between, leaving[1]):
        client.receive()
        client.close()
    # Together: each counts as slow while another is read.
    results = _collect_together(staying)
    for out, code in results:
        assert out == numbers(300000)
        assert code == 2


def _collect_together(clients: list[Attachment]) -> list[tuple[bytes, int]]:
    import select

    heard = {client.fileno(): (client, bytearray()) for client in clients}
    waiting = dict(heard)
    while waiting:
        for fd in select.select(list(waiting), [], [], 30)[0]:
            client, out = waiting[fd]
            frames = client.receive()
            if frames is None:
                del waiting[fd]
                continue
            for kind, body in frames:
                if kind == STDOUT:
                    out += body
    results = []
    for client, out in heard.values():
        assert client.exit is not None
        results.append((bytes(out), client.exit["exit_code"]))
        client.close()
    return results


def test_a_client_hears_only_the_streams_that_it_asked_for(box: Boxes) -> None:
    one = box("sh", "-c", "read go; echo out; echo err >&2", open_stdin=True)
    attachment = one.start()
    only_err = one.attach(stdout=False)
    waiting = one.attach(stdout=False, stderr=False)
    attachment.send(b"go\n")
    assert (collect(attachment).out, collect(only_err).err) == (b"out\n", b"err\n")
    assert collect(waiting).out == b""


def test_a_client_that_never_reads_holds_the_output_up_only_for_as_long_as_it_lives(box: Boxes) -> None:
    one = box("seq", "1", "500000")
    attachment = one.start()
    sleeper = one.attach()
    time.sleep(0.3)
    sleeper.close()
    assert collect(attachment).out == numbers(500000)


def test_the_monitor_stays_until_a_slow_client_has_everything_but_the_container_has_ended(box: Boxes) -> None:
    one = box("seq", "1", "100000")
    attachment = one.start()
    exited = eventually(one.handle.exited)
    assert exited["exit_code"] == 0
    eventually(lambda: not one.handle.alive(), what="the lock is free for the next start")
    assert collect(attachment).out == numbers(100000)


# clients that do not keep to the rules


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(100),
        b"\xff" * 5000,
        protocol.frame(protocol.ATTACH, b"not json"),
        protocol.frame(protocol.ATTACH, b"[]"),
        protocol.frame(protocol.EXEC, b"[1]"),
        protocol.frame(protocol.EXEC, b"{}"),
        protocol.message(protocol.EXEC, version=1, identifier="x", stage1=[["Nothing", {}]], clone=0, stage2=[]),
        protocol.message(protocol.EXEC, version=1, identifier="x", stage1=[["SetHostname", {"name": 7}]], clone=0, stage2=[]),
        protocol.message(protocol.EXEC, version=1, identifier="x", stage1=[], clone=1 << 70, stage2=[]),
        protocol.message(protocol.EXEC, version=99, identifier="x"),
        protocol.frame(protocol.EXEC, b"[" * 100_000),
        protocol.message(protocol.PLAN, version=1),
        protocol.frame(protocol.GO),
        protocol.message(protocol.SIGNAL, signal=999),
        protocol.message(protocol.SIGNAL, signal="x"),
        protocol.message(protocol.SIGNAL, signal=1e300),
        protocol.message(protocol.RESIZE, rows=70000, columns=-1),
        protocol.message(protocol.RESIZE),
        protocol.frame(protocol.STDIN, b"for nobody"),
        protocol.frame(protocol.CLOSE_STDIN),
        b"\x10\xff\xff\xff\xff",
        b"\x10\x00\xff",
    ],
)  # fmt: skip
@pytest.mark.parametrize("attached", [False, True], ids=["fresh", "attached"])
def test_a_client_that_sends_garbage_harms_only_itself(box: Boxes, garbage: bytes, attached: bool) -> None:
    one = box("cat", config={"Tty": True}, open_stdin=True)
    attachment = one.start()
    client = one.attach(stdin=True) if attached else one.connect()
    open_before = descriptors(one.monitor)
    client._socket.sendall(garbage)
    client._socket.shutdown(socket.SHUT_WR)
    while client.receive() is not None:
        pass
    client.close()
    attachment.send(b"alive\n")
    _until(attachment, b"alive")
    attachment.close()
    assert one.exec("echo", "alive too").ok() == b"alive too\n"
    eventually(lambda: descriptors(one.monitor) < open_before, what="the monitor has closed what the client had")


def test_a_client_is_told_what_was_wrong(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    client = one.connect()
    client._socket.sendall(protocol.message(protocol.EXEC, version=99))
    kind, body = next(iter(client))
    assert kind == FAILED
    assert "version 99" in json.loads(body)["message"]
    client.close()


def test_the_socket_is_for_root_alone(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    assert os.stat(one.run_directory).st_mode & 0o777 == 0o700
    assert one.handle.exited() is None


def test_directories_above_the_socket_are_not_for_everybody_either(box: Boxes, directory: Path) -> None:
    one = box("sleep", "60", run_directory=str(directory / "fresh/run/id"))
    one.run_directory = one.facts.run_directory
    one.start().close()
    assert [os.stat(directory / d).st_mode & 0o777 for d in ("fresh", "fresh/run")] == [0o700, 0o700]
    one.kill()
    shutil.rmtree(directory / "fresh")


# terminals


def test_a_terminal_has_a_size_from_the_start_and_hears_of_a_new_one(box: Boxes) -> None:
    script = "trap 'stty size' WINCH; stty size; echo ready; while :; do sleep 0.05; done"
    one = box("sh", "-c", script, config={"Tty": True}, host={"ConsoleSize": [33, 111]})
    attachment = one.start()
    _until(attachment, b"33 111\r\nready\r\n")
    attachment.resize(50, 132)
    _until(attachment, b"50 132\r\n")
    attachment.close()


def test_a_terminal_echoes_translates_newlines_and_sends_interrupts(box: Boxes) -> None:
    # In a shell's child: pid 1 itself takes no signal that it has no handler for.
    one = box("sh", "-c", "cat; exit 7", config={"Tty": True}, open_stdin=True)
    attachment = one.start()
    attachment.send(b"hello\n")
    _until(attachment, b"hello\r\nhello\r\n")
    attachment.send(b"\x03")
    output = collect(attachment)
    assert output.out == b"^C"
    assert output.code in (7, 130), "the shell heard the signal as well, or only of its child's end"


def test_a_terminal_is_the_controlling_one_and_belongs_to_the_user(box: Boxes) -> None:
    script = (
        "tty; stat -c %u:%g /dev/pts/0; ls -l /dev/console | cut -c1; echo seen > /dev/tty; echo con > /dev/console"
    )
    one = box("sh", "-c", script, config={"Tty": True, "User": "1000"})
    assert one.run().out == b"/dev/pts/0\r\n1000:5\r\nc\r\nseen\r\ncon\r\n"


def test_detach_and_attach_again(box: Boxes) -> None:
    one = box("sh", "-c", "while read line; do echo got $line; done", config={"Tty": True}, open_stdin=True)
    attachment = one.start()
    attachment.send(b"one\n")
    _until(attachment, b"got one\r\n")
    attachment.close()
    again = one.attach(stdin=True)
    again.send(b"two\n")
    _until(again, b"got two\r\n")
    again.send(b"\x04")
    assert collect(again).code == 0


def test_the_last_words_on_a_terminal_are_not_lost(box: Boxes) -> None:
    one = box("sh", "-c", "seq 1 3000", config={"Tty": True})
    assert one.run().out.replace(b"\r\n", b"\n") == numbers(3000)


def test_a_resize_of_something_without_a_terminal_does_nothing(box: Boxes) -> None:
    one = box("sh", "-c", "read x; echo $x", open_stdin=True)
    attachment = one.start()
    attachment.resize(10, 10)
    attachment.send(b"fine\n")
    assert collect(attachment).ok() == b"fine\n"


# the end


def test_an_exit_on_a_disk_that_is_full_is_kept(box: Boxes, directory: Path) -> None:
    """In the space that the engine sets aside before a start (store.states): here by hand."""
    one = box("sh", "-c", "exit 42")
    one.handle = type(one.handle)(one, str(one.start_directory))
    with open(one.start_directory / "exit.json.tmp", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 4096)
    one.run()
    exited = one.handle.exited()
    assert exited is not None
    assert exited["exit_code"] == 42
    assert exited["failed"] is False
    assert sorted(os.listdir(one.start_directory)) == ["exit.json", "started"]


def test_the_reaper_runs_when_nobody_was_told(box: Boxes, directory: Path) -> None:
    told = directory / "reaped"
    one = box(
        "sleep", "60", attached=False, reaper=("/bin/sh", "-c", f"env > {told}.tmp; mv {told}.tmp {told}"), settles=True
    )
    one.start()
    one.kill()
    eventually(told.exists, what="the reaper has run")
    assert "LD_LIBRARY_PATH" not in told.read_text()
    told.unlink()


def test_the_reaper_does_not_run_when_a_client_was_told(box: Boxes, directory: Path) -> None:
    told = directory / "reaped"
    one = box("true", reaper=("/bin/sh", "-c", f"touch {told}"), settles=True)
    one.run()
    time.sleep(0.3)
    assert not told.exists()


def test_the_reaper_runs_although_somebody_listened(box: Boxes, directory: Path) -> None:
    """`logs -f` and `attach` hear of the end as well, and settle nothing."""
    told = directory / "reaped"
    one = box("sleep", "60", attached=False, reaper=("/bin/sh", "-c", f"touch {told}"), settles=True)
    one.start()
    listening = one.attach(stdout=False, stderr=False)
    one.handle.signal(9)
    assert collect(listening).code == 137
    eventually(told.exists, what="the reaper has run")
    told.unlink()


def test_the_client_of_an_exec_was_not_told_of_the_containers_end(box: Boxes, directory: Path) -> None:
    told = directory / "reaped"
    one = box("sleep", "60", attached=False, reaper=("/bin/sh", "-c", f"touch {told}"), settles=True)
    one.start()
    attachment = one.exec_start("sleep", "60")
    one.handle.signal(9)
    assert collect(attachment).code == 137
    eventually(told.exists, what="the reaper has run")
    told.unlink()


def _until(attachment: Attachment, text: bytes) -> bytes:
    """Read until `text` has come; what was read."""
    heard = b""
    while text not in heard:
        frames = attachment.receive()
        assert frames is not None, f"the end came before {text!r}: {heard!r}"
        heard += b"".join(body for kind, body in frames if kind in (STDOUT, STDERR))
        assert EXIT not in [kind for kind, _ in frames] or text in heard, heard
    return heard
