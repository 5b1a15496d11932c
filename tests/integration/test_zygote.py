"""The launcher that has shims forked: a container cannot tell, nothing of it stays, and its death costs no start."""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import StartFailed, System
from sampan.kernel.libc import raw
from sampan.kernel.surroundings import stamp, surroundings
from sampan.runtime import zygotes
from sampan.runtime.launcher import ExecLaunch, ExecLauncher
from sampan.runtime.zygotes import ZygoteLaunch, ZygoteLauncher, Zygotes
from sampan.shim import protocol
from sampan.steps.trace import Trace

from support import host
from support.box import Boxes, collect
from support.boxes import box, directory
from support.child import in_child
from support.patience import eventually, patience
from support.roots import Root

__all__ = ["box", "directory"]

pytestmark = [pytest.mark.root]


@pytest.fixture
def place(directory: Path) -> Iterator[str]:
    # Another one for each test: one of the test before, on its way out, is neither found nor lets another one begin.
    path = str(directory / f"zygote{time.monotonic_ns()}")
    yield path
    Zygotes(path).stop()


def launcher(place: str, attended: bool = False) -> ZygoteLauncher:
    trace = Trace()
    return ZygoteLauncher(place, ExecLauncher(trace), trace, attended)


def opened(asks: ZygoteLauncher) -> type:
    """The kind of a launch that is not wanted."""
    launch = asks.open()
    launch.abandon()
    return type(launch)


def alive(pid: int) -> bool:
    """A zombie is not: who reaps it is not ours to say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children() -> set[int]:
    """The processes that are ours to wait for."""
    return {pid for pid, parent in host.parents().items() if parent == os.getpid()}


def spare_of(zygote: int) -> int:
    """The shim that a zygote has forked for the next request: what it listens to was made by the zygote; 0 if there is none."""
    for name in os.listdir("/proc"):
        try:
            if not name.isdigit() or Path(f"/proc/{name}/comm").read_text() != "sampan-shim\n":
                continue
            pidfd = os.pidfd_open(int(name))
            try:
                line = socket.socket(fileno=raw(438, "pidfd_getfd", "", pidfd, protocol.CONTROL_FD, 0))
            finally:
                os.close(pidfd)
            with line:
                maker, _, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            continue  # it has gone meanwhile, or has no such descriptor any more
        if maker == zygote:
            return int(name)
    return 0


def with_spare(box: Boxes, place: str) -> tuple[int, int]:
    """A zygote that has been asked for a shim, taught, and has another one ready."""
    zygote = Zygotes(place).keep(60)
    box.zygote = place
    assert collect(box("echo", "first").start()).ok() == b"first\n"
    eventually(lambda: spare_of(zygote) > 0)
    return zygote, spare_of(zygote)


def descriptors(pid: int) -> list[str]:
    return os.listdir(f"/proc/{pid}/fd")


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.core
def test_a_shim_of_it_is_as_one_of_its_own_interpreter(box: Boxes, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it could have taken over of the command that started the zygote, or of the zygote: one start shows all."""
    monkeypatch.setenv("OF_THE_CALLER", "1")
    before, session, here = os.umask(0o77), os.getsid(0), os.getcwd()
    os.chdir("/tmp")
    try:
        zygote = Zygotes(place).keep(60)
    finally:
        os.umask(before)
        os.chdir(here)
    box.zygote = ""
    plain = box("sleep", "60")
    plain.start().close()
    box.zygote = place
    forked = box("sh", "-c", "umask; env; ls /proc/self/fd; grep Sig /proc/self/status; exec sleep 60")
    attachment = forked.start()
    said = b""
    while b"SigCgt" not in said:
        said += b"".join(body for _, body in attachment.receive() or [])
    lines = said.decode().split()
    assert lines[0] == "0022"
    assert "OF_THE_CALLER" not in said.decode()
    assert [number for number in lines if number.isdigit() and len(number) < 3] == [
        "0",
        "1",
        "2",
        "3",
    ]  # 3 is that of ls
    blocked, ignored = lines[lines.index("SigBlk:") + 1], lines[lines.index("SigIgn:") + 1]
    assert int(blocked, 16) == int(ignored, 16) == 0
    for name in (
        "Umask",
        "Groups",
        "CapEff",
        "CapBnd",
        "NoNewPrivs",
        "Seccomp",
        "SigIgn",
        "SigBlk",
        "SigCgt",
        "Threads",
    ):
        assert status(forked.monitor)[name] == status(plain.monitor)[name], name
    for name in ("cgroup", "oom_score_adj", "limits", "environ"):
        assert (
            Path(f"/proc/{forked.monitor}/{name}").read_bytes() == Path(f"/proc/{plain.monitor}/{name}").read_bytes()
        ), name
    for name in ("cwd", "root", "ns/mnt", "ns/net", "ns/pid"):
        assert os.readlink(f"/proc/{forked.monitor}/{name}") == os.readlink(f"/proc/{plain.monitor}/{name}"), name
    assert os.getsid(forked.monitor) == forked.monitor != session
    assert int(status(forked.monitor)["PPid"]) != zygote, "the zygote has no children to wait for"
    assert os.statvfs(f"/proc/{zygote}/exe").f_flag & os.ST_RDONLY, (
        "a program that a container reaches is on a read-only mount"
    )
    attachment.close()
    eventually(lambda: len(descriptors(forked.monitor)) == len(descriptors(plain.monitor)))


def test_its_private_memory_is_below_that_of_a_shim_of_its_own(box: Boxes, place: str) -> None:
    Zygotes(place).keep(60)
    box.zygote = place
    one = box("sleep", "60")
    one.start().close()
    lines = Path(f"/proc/{one.monitor}/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    assert private < 3072, f"{private} KiB"


def test_containers_and_clients_outlive_it(box: Boxes, place: str) -> None:
    zygote = Zygotes(place).keep(60)
    box.zygote = place
    one = box("sh", "-c", "read line; echo got $line; exit 7", open_stdin=True)
    attachment = one.start()
    os.kill(zygote, signal.SIGKILL)
    eventually(lambda: not alive(zygote))
    assert one.exec("echo", "exec").ok() == b"exec\n"
    attachment.send(b"it\n")
    output = collect(attachment)
    assert (output.out, output.code) == (b"got it\n", 7)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.core
def test_a_start_is_not_lost_when_it_is(
    box: Boxes, place: str, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for, and not forked yet: the other launcher takes over, with the same plan."""
    monkeypatch.setattr(zygotes, "_READY_SECONDS", 0.5)
    monkeypatch.setattr(zygotes, "_DISTRUST_SECONDS", patience(60))  # longer than the other launcher takes
    zygote = Zygotes(place).keep(60)
    asks = launcher(place)
    os.kill(zygote, signal.SIGSTOP)  # so that the question lies there
    launch = asks.open()
    assert isinstance(launch, ZygoteLaunch)
    os.kill(zygote, how)
    one = box("echo", "hello")
    try:
        attachment = launch.start(one.plan(), {})
        assert attachment is not None
        assert collect(attachment).ok() == b"hello\n"
        assert opened(asks) is ExecLaunch, "and it is not asked again at once"
    finally:
        if how == signal.SIGSTOP:
            os.kill(zygote, signal.SIGCONT)
    assert one.handle.wait_monitor(10)
    assert (one.start_directory / "exit.json").exists()


def test_a_stopped_one_with_a_full_queue_holds_up_nobody(place: str) -> None:
    zygote = Zygotes(place).keep(60)
    asks = launcher(place, attended=True)
    assert opened(asks) is ZygoteLaunch
    os.kill(zygote, signal.SIGSTOP)
    asked = []
    try:
        while isinstance(launch := asks.open(), ZygoteLaunch):
            asked.append(launch)
            assert len(asked) < 10000
        launch.abandon()
    finally:
        for each in asked:
            each.abandon()
        asks.close()
        os.kill(zygote, signal.SIGCONT)


def test_the_plan_is_not_given_to_two(box: Boxes, place: str) -> None:
    """A shim that came up and was killed has seen the plan, perhaps: that start fails, as with the other launcher."""
    Zygotes(place).keep(60)
    launch = launcher(place).open()
    assert isinstance(launch, ZygoteLaunch)
    with socket.socket(fileno=os.dup(launch._control.fileno())) as probe:
        probe.recv(1, socket.MSG_PEEK)
        # The monitor closes its end of a conversation that says what is in no table.
        probe.sendall(b"\xff" * 64)
        while probe.recv(1 << 16, socket.MSG_PEEK) and alive_end(probe):
            time.sleep(0.01)
    one = box("true")
    with pytest.raises(StartFailed):
        launch.start(one.plan(), {})
    assert not one.handle.alive()


def alive_end(probe: socket.socket) -> bool:
    import select

    poll = select.poll()
    poll.register(probe, 0)
    return not poll.poll(0)


@pytest.mark.core
@pytest.mark.parametrize("attended", [True, False])
def test_what_a_plan_has_in_common_with_others_is_taught_once(
    box: Boxes, place: str, attended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a launcher that keeps its line, and by one that has none between two starts. What is one container's own is not in it."""
    said: list[bytes] = []
    send = zygotes.send

    def noted(line: Any, message: bytes, descriptors: list[int] | None = None) -> None:
        said.append(message)
        send(line, message, descriptors)

    monkeypatch.setattr(zygotes, "send", noted)
    Zygotes(place).keep(60)
    asks = launcher(place, attended)
    for number in range(3):
        one = box("echo", str(number), config={"Env": ["SECRET=hidden"]})
        attachment = asks.open().start(one.plan(), {})
        assert attachment is not None
        assert collect(attachment).ok() == b"%d\n" % number
    asks.close()
    (lesson,) = [message for message in said if message.startswith(protocol.ZYGOTE_LEARN)]
    assert b"MaskPath" in lesson
    assert b"hidden" not in lesson
    assert str(box("true").directory.parent).encode() not in lesson


@pytest.mark.parametrize(
    "lesson", [b"", b"\xff", b'["Nonsense"]\n[\n\n["MaskPath"]\n["MaskPath","/x"]', b"7", b'{"MaskPath":1}\n[[]]\n[{}]']
)
def test_a_lesson_that_cannot_be_read_does_no_harm(box: Boxes, place: str, lesson: bytes) -> None:
    Zygotes(place).keep(60)
    line = Zygotes(place).find()
    zygotes.send(line, protocol.ZYGOTE_LEARN + lesson)
    line.close()
    launch = launcher(place).open()
    assert isinstance(launch, ZygoteLaunch)
    attachment = launch.start(box("echo", "here").plan(), {})
    assert attachment is not None
    assert collect(attachment).ok() == b"here\n"


@pytest.mark.core
def test_one_is_forked_for_the_next_start_and_is_as_one_that_was_asked_for(box: Boxes, place: str) -> None:
    zygote, spare = with_spare(box, place)
    zygote_fds = set(descriptors(zygote))
    eventually(lambda: sorted(descriptors(spare)) == ["0", "1", "2", "3"])  # nothing of the zygote's
    one = box("sleep", "60")
    one.start().close()
    assert one.monitor == spare
    assert os.getsid(spare) == spare
    eventually(lambda: spare_of(zygote) not in (0, spare))
    eventually(lambda: set(descriptors(zygote)) == zygote_fds)
    # Two at once: the second cannot have it.
    two, three = box("echo", "2"), box("echo", "3")
    launches = [one.launch() for one in (two, three)]
    for launch, one in zip(launches, (two, three), strict=True):
        attachment = launch.start(one.plan(), {})
        assert attachment is not None
        assert collect(attachment).code == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_start_is_not_lost_when_the_one_for_it_is(
    box: Boxes, place: str, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygotes, "_READY_SECONDS", 0.5)
    _, spare = with_spare(box, place)
    os.kill(spare, how)
    try:
        assert collect(box("echo", "hello").start()).ok() == b"hello\n"
    finally:
        if how == signal.SIGSTOP:
            os.kill(spare, signal.SIGCONT)
    eventually(lambda: not alive(spare))


def test_without_descriptors_for_the_next_one_it_goes_on(box: Boxes, place: str) -> None:
    zygote = Zygotes(place).keep(60)
    asks = launcher(place, attended=True)
    asks.prepare()
    time.sleep(patience(0.3))  # the line of `keep` has gone by then, and this one is let in
    limits = resource.prlimit(zygote, resource.RLIMIT_NOFILE)
    # One is left, for the socket of a shim, and not two, for a line to the next.
    resource.prlimit(zygote, resource.RLIMIT_NOFILE, (max(map(int, descriptors(zygote))) + 2, limits[1]))
    assert opened(asks) is ZygoteLaunch
    time.sleep(patience(0.5))
    assert alive(zygote)
    assert not spare_of(zygote)
    resource.prlimit(zygote, resource.RLIMIT_NOFILE, limits)
    box.zygote = place
    assert collect(box("echo", "hello").start()).ok() == b"hello\n"
    asks.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, 0], ids=["killed", "told to"])
def test_what_it_has_forked_for_the_next_start_ends_with_it(box: Boxes, place: str, how: int) -> None:
    zygote, spare = with_spare(box, place)
    if how:
        os.kill(zygote, how)
    else:
        Zygotes(place).stop()
    eventually(lambda: not alive(spare))


def test_it_leaves_with_the_last_line(place: str) -> None:
    asks = launcher(place, attended=True)
    launch = asks.open()
    assert isinstance(launch, ZygoteLaunch)
    assert launch._is_ready()
    launch.abandon()
    other = Zygotes(place).find()
    asks.close()
    assert opened(launcher(place)) is ZygoteLaunch, "there is another line"
    other.close()
    eventually(lambda: os.listdir(place) == ["lock"])


def test_one_that_is_kept_leaves_when_nothing_is_asked_of_it(place: str) -> None:
    zygote = Zygotes(place).keep(1)
    assert Zygotes(place).keep(1) == zygote, "there is one only"
    eventually(lambda: not alive(zygote), 30)


@pytest.mark.long
def test_it_leaves_when_its_directory_has_gone(place: str) -> None:
    import shutil

    zygote = Zygotes(place).keep(3600)
    shutil.rmtree(place)
    eventually(lambda: not alive(zygote), 30)


@pytest.mark.parametrize("end", ["open", "close"])
def test_who_has_one_come_up_waits_for_it_when_it_is_used(place: str, end: str) -> None:
    """Its first process needs the time of an interpreter's start until it has forked away, in which a build has other things to do."""
    asks = launcher(place, attended=True)
    before = children()
    asks.prepare()
    assert len(children() - before) == 1, "the first process was waited for"
    if end == "open":
        assert opened(asks) is ZygoteLaunch
    else:
        asks.close()
    assert not children() - before, "nothing of it is left to be waited for"
    asks.close()


def test_one_that_went_before_it_was_used_is_waited_for_too(place: str) -> None:
    zygotes, before = Zygotes(place), children()
    for _ in range(2):
        # None as long as the first one has not gone.
        eventually(zygotes.start).close()
    assert len(children() - before) == 1
    zygotes.reap()
    assert not children() - before


def test_who_has_other_limits_or_another_package_does_not_use_it(place: str, tmp_path: Path) -> None:
    Zygotes(place).keep(60)
    assert opened(launcher(place)) is ZygoteLaunch

    def limited() -> bytes:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            Zygotes(place).start()
        except OSError:
            return b"refused"
        return opened(launcher(place, attended=True)).__name__.encode()

    assert in_child(limited) == b"ExecLaunch"
    (tmp_path / "a.py").write_text("x = 1\n")
    one = stamp([str(tmp_path)])
    (tmp_path / "a.py").write_text("x = 12\n")
    assert stamp([str(tmp_path)]) != one
    assert surroundings() == surroundings()


def test_one_that_is_not_made_of_what_was_asked_for_goes(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is upgraded between a launcher's look at it and the zygote's start."""
    old = launcher(place, attended=True)
    monkeypatch.setattr(zygotes, "stamp", lambda _directories: "what was there before")
    launch = old.open()
    # One of its own interpreter, if the zygote was quicker to go than we to ask.
    assert not isinstance(launch, ZygoteLaunch) or not launch._is_ready()
    launch.abandon()
    old.close()


def test_two_that_start_one_at_once_get_one(place: str) -> None:
    found: list[object] = []

    def start() -> None:
        try:
            found.append(Zygotes(place).keep(60))
        except BaseException as e:
            found.append(e)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert len(set(found)) == 1, found


def test_a_line_that_says_what_is_not_in_the_table_is_closed(place: str) -> None:
    Zygotes(place).keep(60)
    for message in (b"nonsense", b"keep x", b"fork", b"x" * 60000):
        line = Zygotes(place).find()
        line.settimeout(10)
        zygotes.send(line, message, [line.fileno(), line.fileno()] if message != b"fork" else None)
        assert line.recv(1) == b""
        line.close()
    assert opened(launcher(place)) is ZygoteLaunch


def test_the_command_line(root: Root) -> None:
    cli = root.cli
    pid = int(cli("warm", "--idle", "1m").ok().out)
    assert int(cli("warm").ok().out) == pid
    with root.engine() as engine:
        engine.containers.run("base", "true", network="none")
        assert any("ask the zygote for a shim" in event.line() for event in engine.trace.events)
    assert cli("--debug", "run", "--rm", "--network", "none", "base", "echo", "hi").ok().out == "hi\n"
    assert cli("system", "check").ok()
    assert cli("warm", "--stop").ok().out == ""
    eventually(lambda: not alive(pid))
    assert cli("warm", "--stop").ok().out == "", "there may be none"
    assert "a second at least" in cli("warm", "--idle", "10ms").err
    assert "exclude each other" in cli("warm", "--idle", "1m", "--stop").err
    assert cli("run", "--rm", "--network", "none", "base", "echo", "hi").ok().out == "hi\n"


def test_a_stopped_one_cannot_be_ended_politely(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    zygote = Zygotes(place).keep(60)
    monkeypatch.setattr(zygotes, "_ANSWER_SECONDS", 0.2)
    os.kill(zygote, signal.SIGSTOP)
    with pytest.raises(System, match="kill the process sampan-zygote"):
        Zygotes(place).stop()
    os.kill(zygote, signal.SIGKILL)
