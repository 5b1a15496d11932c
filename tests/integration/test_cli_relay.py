"""The relay between standard streams and a container: a real process, real pipes and terminals, a shim played by the test."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.shim import protocol

from support.patience import eventually, patience

DRIVER = """
import _socket, json, os, sys
from sampan.cli import session
from sampan.cli.output import WriteFailed
from sampan.cli.relay import Streams
from sampan.runtime.handle import STDERR, STDOUT, Attachment

given = json.loads(sys.argv[1])
def report(**what):
    os.write(given["report"], (json.dumps(what) + "\\n").encode())
def kill(number):
    report(kill=int(number))
attachment = Attachment(_socket.socket(fileno=given["socket"]))
outputs = {k: fd for k, fd in ((STDOUT, 1), (STDERR, 2)) if fd in given["outputs"]}
streams = Streams(outputs, given["stdin"], given["terminal"], bytes(given["keys"]))
with session.caught(given["terminal"], given["proxy"]) as held:
    held.hold()
    report(ready=True)
    try:
        ended = session.relay(attachment, streams, held, kill if given["proxy"] else None)
    except WriteFailed as e:
        report(failed=str(e))
    else:
        report(how=ended.how, code=ended.code)
"""


class Relayed:
    """A relay in a process of its own; this side plays the shim."""

    def __init__(self, fds: tuple[int, int, int], **given: Any) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(patience(10))
        reading, writing = os.pipe()
        self._report = open(reading, "rb")
        given = {
            "stdin": True, "terminal": False, "proxy": True, "keys": [16, 17], "outputs": [1, 2],
            **given, "socket": theirs.fileno(), "report": writing,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, json.dumps(given)],
            stdin=fds[0], stdout=fds[1], stderr=fds[2], pass_fds=(theirs.fileno(), writing), start_new_session=True,
        )  # fmt: skip
        theirs.close()
        os.close(writing)
        self.reader = protocol.Reader()
        self.frames: list[tuple[int, bytes]] = []
        assert self.report() == {"ready": True}

    def report(self) -> dict[str, Any]:
        line = self._report.readline()
        value: dict[str, Any] = json.loads(line) if line else {}
        return value

    def send(self, kind: int, body: bytes = b"") -> None:
        self.socket.sendall(protocol.frame(kind, body))

    def exit(self, code: int) -> None:
        self.socket.sendall(protocol.message(protocol.EXIT, exit_code=code, oom_killed=False))

    def expect(self, kind: int) -> bytes:
        """The next frame, which is of that kind."""
        while not self.frames:
            data = self.socket.recv(1 << 16)
            assert data, "the relay closed the connection"
            self.frames += self.reader.feed(data)
        got, body = self.frames.pop(0)
        assert got == kind
        return body

    def expect_input(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.expect(protocol.STDIN)
        return data

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.socket.close()
        self._report.close()


class Ends:
    """Pipes and terminals that the test holds, and the relay on their other ends."""

    def __init__(self) -> None:
        self.fds: list[int] = []
        self.relays: list[Relayed] = []

    def pipe(self) -> tuple[int, int]:
        pair = os.pipe()
        self.fds += pair
        return pair

    def pty(self, rows: int = 24, columns: int = 80) -> tuple[int, int]:
        pair = os.openpty()
        self.fds += pair
        termios.tcsetwinsize(pair[0], (rows, columns))
        return pair

    def relay(self, fd0: int, fd1: int, fd2: int, **given: Any) -> Relayed:
        made = Relayed((fd0, fd1, fd2), **given)
        self.relays.append(made)
        return made

    def piped(self, **given: Any) -> tuple[Relayed, int, int, int]:
        """A relay on three pipes: it, and our ends."""
        in_reading, in_writing = self.pipe()
        out_reading, out_writing = self.pipe()
        err_reading, err_writing = self.pipe()
        made = self.relay(in_reading, out_writing, err_writing, **given)
        for fd in (in_reading, out_writing, err_writing):
            self.close(fd)
        return made, in_writing, out_reading, err_reading

    def close(self, fd: int) -> None:
        self.fds.remove(fd)
        os.close(fd)


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    for relay in made.relays:
        relay.close()
    for fd in made.fds:
        os.close(fd)


def read_all(fd: int) -> bytes:
    data = b""
    while piece := os.read(fd, 1 << 16):
        data += piece
    return data


def test_streams_are_kept_apart_and_the_exit_code_is_told(ends: Ends) -> None:
    relay, _, out, err = ends.piped()
    relay.send(protocol.STDOUT, b"to out\n")
    relay.send(protocol.STDERR, b"to err\n")
    relay.exit(7)
    assert relay.report() == {"how": "exited", "code": 7}
    assert (read_all(out), read_all(err)) == (b"to out\n", b"to err\n")


def test_all_output_comes_before_the_end(ends: Ends) -> None:
    relay, _, out, _ = ends.piped()
    data = os.urandom(300_000)
    relay.socket.setblocking(True)
    import threading

    def feed() -> None:
        relay.send(protocol.STDOUT, data)
        relay.exit(0)

    thread = threading.Thread(target=feed)
    thread.start()
    assert read_all(out) == data
    thread.join()
    assert relay.report() == {"how": "exited", "code": 0}


def test_the_end_of_input_is_told_after_all_of_it(ends: Ends) -> None:
    relay, stdin, _, _ = ends.piped()
    os.write(stdin, b"some input")
    assert relay.expect_input(10) == b"some input"
    ends.close(stdin)
    relay.expect(protocol.CLOSE_STDIN)
    relay.send(protocol.STDOUT, b"still heard")
    relay.exit(0)
    assert relay.report()["how"] == "exited"


def test_a_program_that_echoes_more_than_all_buffers_hold_does_not_hang(ends: Ends) -> None:
    """The shim reads no input as long as the program's output is not taken: whoever blocks in a send hangs here."""
    relay, stdin, out, _ = ends.piped()
    size = 4 << 20
    writer = subprocess.Popen([sys.executable, "-c", f"print('x' * {size}, end='', flush=True)"], stdout=stdin)
    ends.close(stdin)
    # Output that nobody takes yet; only then the input is read.
    sent, pending = fill(relay.socket, protocol.frame(protocol.STDOUT, b"y" * 65536))
    relay.socket.settimeout(patience(20))
    received = 0
    os.set_blocking(out, False)
    got = 0
    while received < size:
        received += len(relay.expect(protocol.STDIN))
        try:
            got += len(os.read(out, 1 << 20))
        except BlockingIOError:
            pass
    assert writer.wait() == 0
    os.set_blocking(out, True)
    relay.socket.sendall(pending)
    relay.exit(0)
    total = got + len(read_all(out))
    assert relay.report() == {"how": "exited", "code": 0}
    assert total == sent * 65536


def fill(connection: socket.socket, frame: bytes) -> tuple[int, bytes]:
    """Send the frame again and again until nothing more is taken: how often it was begun, and what is left of the last."""
    connection.setblocking(False)
    count, left = 0, b""
    while True:
        if not left:
            count, left = count + 1, frame
        try:
            left = left[connection.send(left) :]
        except BlockingIOError:
            return count, left


def test_a_stream_that_is_not_attached_is_thrown_away(ends: Ends) -> None:
    relay, _, out, err = ends.piped(outputs=[1], stdin=False)
    relay.send(protocol.STDERR, b"unwanted")
    relay.send(protocol.STDOUT, b"wanted")
    relay.exit(0)
    assert (read_all(out), read_all(err)) == (b"wanted", b"")


def test_a_connection_that_ends_without_an_exit_code_is_told_apart(ends: Ends) -> None:
    relay, _, out, _ = ends.piped()
    relay.send(protocol.STDOUT, b"last words")
    relay.socket.shutdown(socket.SHUT_RDWR)
    assert relay.report()["how"] == "closed"
    assert read_all(out) == b"last words"


def test_a_reader_that_has_gone_ends_the_relay(ends: Ends) -> None:
    relay, _, out, _ = ends.piped()
    ends.close(out)
    relay.send(protocol.STDOUT, b"y\n")
    assert relay.report()["how"] == "unread"


def test_a_reader_that_had_gone_before_ends_the_relay(ends: Ends) -> None:
    in_reading, _ = ends.pipe()
    out_reading, out_writing = ends.pipe()
    ends.close(out_reading)
    relay = ends.relay(in_reading, out_writing, out_writing)
    relay.send(protocol.STDOUT, b"y\n")
    assert relay.report()["how"] == "unread"


def test_a_full_disk_is_an_error(ends: Ends) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    ends.fds.append(full)
    reading, _ = ends.pipe()
    relay = ends.relay(reading, full, full)
    relay.send(protocol.STDOUT, b"y\n")
    assert relay.report() == {"failed": "write /dev/stdout: no space left on device"}


def test_signals_are_handed_on(ends: Ends) -> None:
    relay, _, _, _ = ends.piped()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGRTMIN):
        relay.process.send_signal(number)
        assert relay.report() == {"kill": number}
    relay.process.send_signal(signal.SIGCHLD)
    relay.process.send_signal(signal.SIGWINCH)
    relay.exit(143)
    assert relay.report() == {"how": "exited", "code": 143}


def test_signals_are_handed_on_while_output_is_stuck(ends: Ends) -> None:
    relay, _, _, _ = ends.piped()
    relay.send(protocol.STDOUT, b"x" * 200_000)  # more than the pipe holds, and nobody reads it
    time.sleep(0.1)
    relay.process.send_signal(signal.SIGINT)
    assert relay.report() == {"kill": signal.SIGINT}


def test_without_sig_proxy_a_signal_ends_the_process(ends: Ends) -> None:
    relay, _, _, _ = ends.piped(proxy=False)
    relay.process.send_signal(signal.SIGTERM)
    assert relay.process.wait(patience(10)) == -signal.SIGTERM


def test_neither_pipes_nor_terminals_become_non_blocking(ends: Ends) -> None:
    """O_NONBLOCK is shared with the shell that gave us its terminal, and with whoever has the pipe's other copy."""
    out_reading, out_writing = ends.pipe()
    master, slave = ends.pty()
    relay = ends.relay(slave, out_writing, slave, terminal=True)
    relay.send(protocol.STDOUT, b"1")
    relay.send(protocol.STDERR, b"2")
    assert os.read(out_reading, 1) == b"1"
    assert os.read(master, 1) == b"2"
    for fd in (out_writing, slave):
        assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_terminal_is_raw_meanwhile_and_then_as_before(ends: Ends) -> None:
    master, slave = ends.pty(33, 99)
    before = termios.tcgetattr(slave)
    relay = ends.relay(slave, slave, slave, terminal=True)
    assert json.loads(relay.expect(protocol.RESIZE)) == {"rows": 33, "columns": 99}
    os.write(master, b"\x03\x1a\r")
    assert relay.expect_input(3) == b"\x03\x1a\r"
    assert termios.tcgetattr(slave) != before
    relay.exit(3)
    assert relay.report() == {"how": "exited", "code": 3}
    assert termios.tcgetattr(slave) == before


def test_a_terminal_that_is_resized_tells_it(ends: Ends) -> None:
    master, slave = ends.pty()
    relay = ends.relay(slave, slave, slave, terminal=True)
    relay.expect(protocol.RESIZE)
    termios.tcsetwinsize(master, (50, 120))
    relay.process.send_signal(signal.SIGWINCH)
    assert json.loads(relay.expect(protocol.RESIZE)) == {"rows": 50, "columns": 120}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_terminal_is_given_back_before_a_signal_ends_us(ends: Ends, number: int) -> None:
    _, slave = ends.pty()
    before = termios.tcgetattr(slave)
    relay = ends.relay(slave, slave, slave, terminal=True, proxy=False)
    relay.expect(protocol.RESIZE)
    eventually(lambda: termios.tcgetattr(slave) != before)
    relay.process.send_signal(number)
    assert relay.report() == {"how": "signalled", "code": number}
    assert termios.tcgetattr(slave) == before


def test_the_detach_keys_detach(ends: Ends) -> None:
    master, slave = ends.pty()
    before = termios.tcgetattr(slave)
    relay = ends.relay(slave, slave, slave, terminal=True)
    relay.expect(protocol.RESIZE)
    os.write(master, b"a\x10")
    assert relay.expect_input(1) == b"a"
    os.write(master, b"\x11")
    assert relay.report() == {"how": "detached", "code": 0}
    assert termios.tcgetattr(slave) == before


def test_detach_keys_are_only_looked_for_on_terminals(ends: Ends) -> None:
    relay, stdin, _, _ = ends.piped()
    os.write(stdin, b"\x10\x11")
    assert relay.expect_input(2) == b"\x10\x11"


def test_a_terminal_that_is_hung_up_is_the_end_of_input(ends: Ends) -> None:
    master, slave = ends.pty()
    out_reading, out_writing = ends.pipe()
    relay = ends.relay(slave, out_writing, out_writing, terminal=True)
    relay.expect(protocol.RESIZE)
    ends.close(slave)
    ends.close(master)
    relay.expect(protocol.CLOSE_STDIN)
    relay.exit(0)
    assert relay.report()["how"] == "exited"
    assert out_reading


def test_a_stopped_and_continued_terminal_is_raw_again(ends: Ends) -> None:
    _, slave = ends.pty()
    before = termios.tcgetattr(slave)
    relay = ends.relay(slave, slave, slave, terminal=True, proxy=False)
    relay.expect(protocol.RESIZE)
    eventually(lambda: termios.tcgetattr(slave) != before)
    raw = termios.tcgetattr(slave)
    termios.tcsetattr(slave, termios.TCSANOW, before)  # as a shell does when its job has stopped
    relay.process.send_signal(signal.SIGCONT)
    eventually(lambda: termios.tcgetattr(slave) == raw)


def test_an_ended_peer_and_a_stuck_output_cost_no_processor_time(ends: Ends) -> None:
    """poll tells of a hang-up whatever was asked for: what cannot be taken yet must not be polled."""
    relay, stdin, out, _ = ends.piped()
    relay.send(protocol.STDOUT, b"x" * 200_000)
    relay.exit(0)
    relay.socket.shutdown(socket.SHUT_RDWR)
    os.write(stdin, b"y" * 65536)
    time.sleep(0.3)
    before = _processor_ticks(relay.process.pid)
    time.sleep(0.5)
    assert _processor_ticks(relay.process.pid) - before <= 5
    assert len(read_all(out)) == 200_000
    assert relay.report()["how"] == "exited"


def _processor_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
