"""A container from its first process to its exit code: how it begins, what it is given, how it ends, what its end takes along."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from sampan.errors import StartFailed
from sampan.kernel import capabilities, cgroup, mount, namespaces
from sampan.kernel.files import lock_is_held
from sampan.runtime.plan import RootFilesystem

from support.box import Box, Boxes, collect
from support.boxes import BOTH_LAUNCHERS, box, directory
from support.child import in_child
from support.patience import eventually, patience
from support.rootfs import variant

__all__ = ["box", "directory"]

pytestmark = pytest.mark.root
LAUNCHERS = BOTH_LAUNCHERS


def lives(pid: int) -> bool:
    """A zombie does not: it waits for a parent that is not ours."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


# exit codes


@pytest.mark.parametrize("code", [0, 1, 2, 125, 126, 127, 128, 137, 254, 255])
def test_an_exit_code_is_kept_and_told(box: Boxes, code: int) -> None:
    one = box("sh", "-c", f"exit {code}")
    assert one.run().exit == {"exit_code": code, "oom_killed": False}
    exited = one.handle.exited()
    assert exited is not None
    assert (exited["exit_code"], exited["oom_killed"], exited["failed"], exited["error"]) == (code, False, False, "")
    assert exited["finished"].endswith("Z")


def test_all_exit_codes_of_execs(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    for code in range(0, 256, 15):
        assert one.exec("sh", "-c", f"exit {code}").code == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGRTMAX])
def test_a_signal_from_outside_counts_as_128_and_its_number(box: Boxes, number: int) -> None:
    """Of a program that has no pid 1: that one does not die of signals that it does not handle."""
    one = box("sleep", "60", host={"PidMode": "host"})
    one.start().close()
    one.handle.signal(number)
    assert one.handle.wait_monitor(10)
    exited = one.handle.exited()
    assert exited is not None
    assert exited["exit_code"] == 128 + number


def test_pid_1_ignores_what_it_does_not_handle_and_nothing_ignores_sigkill(box: Boxes) -> None:
    # No shell, which handles SIGINT itself as soon as its child ends.
    one = box("sh", "-c", "trap '' TERM HUP; echo ready; exec sleep 60")
    attachment = one.start()
    while b"ready" not in b"".join(body for _, body in attachment.receive() or []):
        pass
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
        one.handle.signal(number)
    assert not one.handle.wait_init(0.5)
    assert one.handle.alive()
    one.handle.signal(signal.SIGKILL)
    assert collect(attachment).code == 137


# what is there while it runs, and what is not any more


def test_the_lock_the_files_and_the_socket_of_a_life(box: Boxes) -> None:
    one = box("sleep", "60")
    assert not lock_is_held(one.monitor_lock)
    one.start().close()
    started = one.handle.started()
    assert started is not None
    assert sorted(started) == ["boot", "monitor", "monitor_start", "pid", "pid_start", "started"]
    assert one.handle.alive()
    assert one.handle.init_pid() == started["pid"]
    assert one.handle.exited() is None
    assert os.path.exists(one.attach_socket)
    assert one.groups_left()
    # An exec does not inherit the lock, and its end does not give it up.
    one.exec("true")
    assert one.handle.alive()
    one.kill()
    assert not one.handle.alive()
    assert one.handle.init_pid() == 0
    assert not os.path.exists(one.run_directory)
    assert not one.groups_left()
    with pytest.raises(ProcessLookupError):
        one.handle.signal(signal.SIGTERM)


def test_the_monitor_is_nobodys_child_and_holds_nothing_of_its_launcher(box: Boxes, directory: Path) -> None:
    inherited = os.open(directory / "rootfs/etc/passwd", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    high = os.dup2(inherited, 700, inheritable=True)
    one = box("sleep", "60")
    try:
        one.start().close()
        links = []
        for fd in os.listdir(f"/proc/{one.monitor}/fd"):
            try:
                links.append(os.readlink(f"/proc/{one.monitor}/fd/{fd}"))
            except FileNotFoundError:
                continue  # the socket to the launcher, closed meanwhile
    finally:
        os.close(inherited)
        os.close(high)
    assert not [link for link in links if "passwd" in link]
    status = Path(f"/proc/{one.monitor}/status").read_text()
    assert "PPid:\t1\n" in status
    assert os.getsid(one.monitor) == one.monitor != os.getsid(0)
    assert os.readlink(f"/proc/{one.monitor}/cwd") == "/"
    environment = Path(f"/proc/{one.monitor}/environ").read_bytes()
    assert b"HOME=" not in environment, "the caller's environment is not the shim's"


def test_a_shim_ignores_the_signals_that_end_sessions(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        os.kill(one.monitor, number)
    assert one.exec("echo", "still").ok() == b"still\n"


def test_zombies_of_the_container_are_its_inits(box: Boxes) -> None:
    """An orphan goes to pid 1 of its namespace, never to the monitor."""
    one = box("sh", "-c", "while :; do sleep 0.02; done")
    one.start().close()
    one.exec("sh", "-c", "(sleep 0.1 &) ; exit 0", detach=True)
    time.sleep(0.4)
    assert Path(f"/proc/{one.monitor}/task/{one.monitor}/children").read_text().split() == [str(one.init)]
    eventually(lambda: b"Z" not in one.exec("ps", "-o", "stat").ok(), what="it is reaped")


def test_the_end_of_init_is_the_end_of_every_process_of_its_namespace(box: Boxes) -> None:
    one = box("sh", "-c", "sleep 1000 & setsid sleep 1001 & echo started; sleep 0.3; exit 6")
    attachment = one.start()
    inside = eventually(lambda: len(one.driver.processes(one.group)) >= 4 and one.driver.processes(one.group))
    assert collect(attachment).code == 6
    assert one.handle.wait_monitor(5)
    assert not [pid for pid in inside if lives(pid)]


@pytest.mark.core
def test_with_the_hosts_pids_its_children_are_killed_by_its_cgroup(box: Boxes) -> None:
    one = box(
        "sh",
        "-c",
        f"sleep 1000 & setsid sh -c 'trap \"\" TERM; sleep 1001' & sleep {patience(0.5)}; exit 6",  # after the exec below
        host={"PidMode": "host"},
    )
    attachment = one.start()
    inside = eventually(lambda: len(one.driver.processes(one.group)) >= 4 and one.driver.processes(one.group))
    running = one.exec_start("sleep", "1002")
    assert collect(attachment).code == 6
    assert collect(running).code == 137
    assert one.handle.wait_monitor(5)
    assert not [pid for pid in inside if lives(pid)]


@pytest.mark.core
def test_an_out_of_memory_kill_is_told(box: Boxes) -> None:
    one = box("sh", "-c", "head -c 100000000 /dev/zero | tail", host={"Memory": 24 << 20, "MemorySwap": 24 << 20})
    output = one.run()
    assert output.exit is not None
    assert output.exit["oom_killed"] is True
    exited = one.handle.exited()
    assert exited is not None
    assert exited["oom_killed"] is True


# what a program finds


def test_signals_are_at_their_defaults_and_the_umask_is_022(box: Boxes) -> None:
    lines = box("grep", "-E", "SigBlk|SigIgn|Umask", "/proc/self/status").run().ok().decode().splitlines()
    assert lines == ["Umask:\t0022", "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"]


def test_every_container_is_a_session_and_a_process_group_of_its_own(box: Boxes) -> None:
    assert box("sh", "-c", "cut -d' ' -f1,5,6 /proc/1/stat; tty").run().out == b"1 1 1\nnot a tty\n"
    one = box("sleep", "60")
    one.start().close()
    pid, group, session, terminal = one.exec("sh", "-c", "cut -d' ' -f1,5,6,7 /proc/$$/stat").ok().split()
    assert pid == group == session
    assert terminal == b"0"


def test_the_environment_is_what_was_said_and_a_home(box: Boxes) -> None:
    output = box("env", config={"Env": ["A=1", "B=two words", "C=\udcff", "A=2"]}).run().ok()
    assert sorted(output.splitlines()) == sorted(
        [
            b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            b"HOSTNAME=box",
            b"A=2",
            b"B=two words",
            b"C=\xff",
            b"HOME=/root",
        ]
    )


@pytest.mark.parametrize(
    ("config", "home"),
    [
        ({}, b"/root"),
        ({"User": "1000"}, b"/home/user"),
        ({"User": "4242"}, b"/"),
        ({"Env": ["HOME=/given"]}, b"/given"),
        ({"Env": ["HOME="], "User": "user"}, b"/home/user"),
    ],
)
def test_home_is_the_users_where_none_is_given(box: Boxes, config: dict[str, object], home: bytes) -> None:
    assert box("sh", "-c", "echo $HOME", config=config).run().ok() == home + b"\n"


def test_output_can_be_opened_again_by_another_user(box: Boxes) -> None:
    """`> /dev/stdout` checks the pipe's owner."""
    output = box("sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr", config={"User": "1000"}).run()
    assert (output.out, output.err, output.code) == (b"out\n", b"err\n", 0)


def test_the_null_device_of_the_host_keeps_its_owner(box: Boxes) -> None:
    before = os.stat("/dev/null").st_uid
    box("sh", "-c", "true", config={"User": "1000"}).run()
    assert os.stat("/dev/null").st_uid == before


def test_the_oom_score_is_the_programs_and_not_the_shims(box: Boxes) -> None:
    one = box("sleep", "60", host={"OomScoreAdj": 300})
    one.start().close()
    assert one.exec("cat", "/proc/1/oom_score_adj", "/proc/self/oom_score_adj").ok() == b"300\n300\n"
    if capabilities.have("CAP_SYS_RESOURCE"):
        assert int(Path(f"/proc/{one.monitor}/oom_score_adj").read_text()) == -500


@pytest.mark.core
def test_more_than_a_hundred_layers(box: Boxes, directory: Path) -> None:
    layers = []
    for number in range(119):
        layer = directory / f"layers/{number}"
        layer.mkdir(parents=True, exist_ok=True)  # of the run with the other launcher
        (layer / f"file{number}").write_text("")
        layers.append(str(layer))
    one = box("sh", "-c", "ls / | grep -c file; touch /new", layers=(*layers, str(directory / "rootfs")))
    assert one.run().ok() == b"119\n"
    assert (one.upper / "new").exists()


@pytest.mark.core
def test_a_root_that_is_a_plain_directory(box: Boxes, directory: Path) -> None:
    """As the vfs snapshotter gives it. Below a shared mount the root must not become its peer."""
    own = variant(directory / "rootfs", directory / "plain")
    root = RootFilesystem("bind", (), "", "", str(own), str(directory))
    one = box("sh", "-c", "echo hello > /written; mount | wc -l; cat /written", root=root)
    assert one.run().out.endswith(b"hello\n")
    assert (own / "written").read_text() == "hello\n"
    shutil.rmtree(own)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["overlay", "bind"])
def test_below_a_shared_mount_nothing_of_a_container_shows_up_on_the_host(directory: Path, kind: str) -> None:
    """As systemd makes /: the clone of a directory is a peer of the host's mount, until it is made private."""

    def inside() -> tuple[bytes, list[str]]:
        namespaces.private_mounts()
        store = directory / "shared"
        store.mkdir()
        mount.mount("tmpfs", str(store), "tmpfs")
        mount.mount("", str(store), "", mount.MS_SHARED)
        rootfs = variant(directory / "rootfs", store / "rootfs")
        (store / "hosts").write_text("shared")
        facts = {"root": RootFilesystem("bind", (), "", "", str(rootfs), str(store))} if kind == "bind" else {}
        one = Box(
            store, rootfs, "sleep", "60", files={"/etc/hosts": str(store / "hosts")}, host={"CapAdd": ["ALL"]}, **facts
        )
        one.start().close()
        seen = one.exec("sh", "-c", "mount -t tmpfs none /home && mount -t tmpfs none /root && cat /etc/hosts").ok()
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        one.close()
        return seen, [place for place in mounts if place.startswith(str(store))]

    seen, mounts = in_child(inside)
    assert seen == b"shared"
    assert mounts == [str(directory / "shared")]
    (directory / "shared").rmdir()


@pytest.mark.core
@pytest.mark.parametrize("no_pivot", [False, True])
def test_the_root_is_the_containers_with_pivot_root_and_without(box: Boxes, no_pivot: bool) -> None:
    one = box("sleep", "60", no_pivot=no_pivot)
    one.start().close()
    root = os.stat(f"/proc/{one.init}/root/")
    assert (root.st_dev, root.st_ino) != (os.stat("/").st_dev, os.stat("/").st_ino)
    assert one.exec("ls", "/").ok().split() == [
        b"bin",
        b"dev",
        b"etc",
        b"home",
        b"proc",
        b"root",
        b"sys",
        b"tmp",
        b"var",
    ]
    assert one.exec("sh", "-c", "cd ../../..; pwd").ok() == b"/\n"


@pytest.mark.core
def test_a_read_only_root_has_writable_mounts(box: Boxes) -> None:
    one = box(
        "sh",
        "-c",
        "touch /x; touch /tmp/y && echo tmp; touch /dev/shm/z && echo shm",
        host={"ReadonlyRootfs": True, "Tmpfs": {"/tmp": ""}},
    )
    output = one.run()
    assert output.out == b"tmp\nshm\n"
    assert b"Read-only file system" in output.err


@pytest.mark.parametrize("init", ["tini-static"])
def test_a_given_init_is_pid_1_and_reaps(box: Boxes, init: str) -> None:
    path = shutil.which(init)
    assert path, "the tests need tini (scripts/packages)"
    one = box("sh", "-c", "(sleep 0.1 &) ; sleep 60", init=path)
    one.start().close()
    assert one.exec("cat", "/proc/1/cmdline").ok().startswith(b"/sbin/docker-init\0--\0sh\0")
    time.sleep(0.4)
    eventually(lambda: b"Z" not in one.exec("ps", "-o", "stat").ok(), what="it is reaped")
    assert Path(f"/proc/{one.init}/comm").read_text() == "docker-init\n", "what ps shows, as with Docker"
    executed = os.open(f"/proc/{one.init}/exe", os.O_RDONLY)
    try:
        assert not os.path.samestat(os.fstat(executed), os.stat(path)), "not the host's own file"
        assert os.fstatvfs(executed).f_flag & os.ST_RDONLY
    finally:
        os.close(executed)
    one.handle.signal(signal.SIGTERM)
    assert one.handle.wait_monitor(5), "it forwards the signal"


# starts that fail


def failing(box: Boxes, *command: str, **options: object) -> tuple[Box, StartFailed]:
    one = box(*command, **options)
    with pytest.raises(StartFailed) as caught:
        one.start()
    exited = eventually(one.handle.exited)
    assert exited["failed"] is True
    assert exited["exit_code"] == caught.value.container_exit_code
    assert exited["error"] == str(caught.value)
    eventually(lambda: not one.handle.alive())
    assert one.handle.started() is None
    assert not one.groups_left()
    return one, caught.value


@pytest.mark.parametrize(
    ("command", "message", "code"),
    [
        ("nosuch", 'exec: "nosuch": executable file not found in $PATH', 127),
        ("/nosuch", 'exec: "/nosuch": stat /nosuch: no such file or directory', 127),
        ("", 'exec: "": executable file not found in $PATH', 127),
        ("/etc", 'exec: "/etc": is a directory: permission denied', 126),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied', 126),
        ("/etc/passwd/x", 'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory', 127),
    ],
)
def test_a_program_that_cannot_be_executed(box: Boxes, command: str, message: str, code: int) -> None:
    _, error = failing(box, command)
    assert str(error) == f"unable to start container process: {message}"
    assert error.container_exit_code == code


def test_programs_of_the_wrong_kind(box: Boxes, directory: Path) -> None:
    rootfs = variant(directory / "rootfs", directory / "wrong")
    for name, content in (("text", b"echo no magic\n"), ("loader", b"#!/no/such/interpreter\n"), ("empty", b"")):
        (rootfs / name).write_bytes(content)
        os.chmod(rootfs / name, 0o755)
    assert "exec format error" in str(failing(box, "/text", rootfs=rootfs)[1])
    assert "exec format error" in str(failing(box, "/empty", rootfs=rootfs)[1])
    error = failing(box, "/loader", rootfs=rootfs)[1]
    assert "the interpreter or loader that it names is not" in str(error)
    assert error.container_exit_code == 127
    shutil.rmtree(rootfs)


def test_a_program_found_later_in_path_is_taken_and_a_denied_one_is_told(box: Boxes, directory: Path) -> None:
    rootfs = variant(directory / "rootfs", directory / "path")
    (rootfs / "first").mkdir()
    (rootfs / "first/echo").write_text("not executable")
    (rootfs / "first/only").write_text("not executable")
    (rootfs / "first/ls").mkdir()
    config = {"Env": ["PATH=/first:/nosuch:/etc/passwd::/bin"]}
    assert box("echo", "found", rootfs=rootfs, config=config).run().ok() == b"found\n"
    assert box("ls", "/etc/passwd", rootfs=rootfs, config=config).run().ok() == b"/etc/passwd\n"
    error = failing(box, "only", rootfs=rootfs, config=config)[1]
    assert 'exec: "only": permission denied' in str(error)
    assert error.container_exit_code == 126
    assert failing(box, "echo", config={"Env": ["PATH="]})[1].container_exit_code == 127
    shutil.rmtree(rootfs)


@pytest.mark.core
def test_a_failed_start_names_step_system_call_errno_path_and_advice(box: Boxes) -> None:
    one = box("true")
    one.facts = one.facts.replace(root=one.facts.root.replace(lower=("/nonexistent/layer",)))
    with pytest.raises(StartFailed) as caught:
        one.start()
    text = str(caught.value)
    assert text.startswith("unable to start container process: stage1: fsopen overlay of 1 lower layers, upper ")
    assert "fsconfig" in text
    assert "no such file or directory" in text
    failed = one.trace.events[-1]
    assert (failed.stage, failed.errno) == ("stage1", 2)
    done = [event for event in one.trace.events if event.finished and not event.errno]
    assert [event.stage for event in done][-1] == "stage1", "the steps before it are recorded too"


def test_what_was_done_is_told_to_who_keeps_it_and_to_nobody_else(box: Boxes) -> None:
    """Each step of the plan, in its order, with its time: also those of the list that one process goes on with in other namespaces."""
    for keeps in (True, False):
        one = box("true")
        one.trace.keeps = keeps
        plan = one.plan()  # before the first start, which makes the groups above its own
        one.run()
        lists = plan.lists()
        named = [("monitor", step.describe()) for step in plan.monitor]
        for stage, steps in (("stage1", lists.stage1), ("stage2", lists.stage2)):
            named += [(stage, step.describe()) for step in steps if not step.final]
        final = [("stage2", step.describe()) for step in lists.stage2 if step.final]
        told = [event for event in one.trace.events if event.stage in ("monitor", "stage1", "stage2")]
        assert [(event.stage, event.text) for event in told] == (named + final if keeps else [])
        assert all(event.seconds is not None and 0 < event.seconds < 30 for event in told[: len(named)])
        assert {event.pid for event in told if event.stage == "stage2"} == ({one.init} if keeps else set())
        assert sorted(os.listdir(one.start_directory)) == ["exit.json", "started"]


def test_a_step_that_fails_in_the_container_is_told_as_well(box: Boxes) -> None:
    error = failing(box, "true", config={"Hostname": "h" * 65})[1]
    assert f"stage2: sethostname {'h' * 65}: sethostname {'h' * 65}: invalid argument" in str(error)


@pytest.mark.core
def test_a_limit_that_is_too_small_for_a_start(box: Boxes) -> None:
    """Memory is charged from the moment that init joins its cgroup."""
    one = box("true", host={"Memory": 64 << 10, "MemorySwap": 64 << 10})
    message, code = "", 0
    try:
        code = one.run().code
    except StartFailed as e:
        message = str(e)
    # Which of the two depends on what the kernel charges for a process.
    assert code == 137 or "the memory limit may be too small" in message
    eventually(lambda: not one.groups_left())


def test_a_plan_that_no_shim_understands(box: Boxes) -> None:
    one = box("true")
    plan = one.plan().replace(version=99)
    with pytest.raises(StartFailed, match="plan version 99, this shim speaks"):
        one.launch().start(plan, {})


def test_a_second_start_while_the_first_runs_is_refused_by_the_lock(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    with pytest.raises(StartFailed, match="Resource temporarily unavailable"):
        one.start()
    assert one.exec("echo", "unharmed").ok() == b"unharmed\n"


def test_a_shim_that_is_not_needed_goes(box: Boxes) -> None:
    launch = box("true").launch()
    with socket.socket(fileno=os.dup(launch._control.fileno())) as probe:
        launch.abandon()
        probe.settimeout(10)
        probe.shutdown(socket.SHUT_WR)  # as if the launcher had ended
        while probe.recv(64):
            pass  # one that was forked says that it is there; then its end of the conversation is closed


@pytest.mark.core
def test_shims_live_in_a_cgroup_of_their_own(box: Boxes) -> None:
    one = box("sleep", "60")
    one.start().close()
    joined = Path(f"/proc/{one.monitor}/cgroup").read_text()
    assert "/shims" in joined
    assert one.id not in joined
    assert cgroup.detect().version == one.driver.version


@pytest.mark.core
def test_what_a_monitor_keeps_for_itself(box: Boxes) -> None:
    """The price of a container that runs. Of the interpreter's own data, which differs by how it was built, nothing is counted."""
    one = box("sleep", "1000")
    one.start().close()
    eventually(lambda: one.handle.started())
    # Later Pythons bring more of their own: each has its limit.
    most = {(3, 11): 2640, (3, 12): 3120}.get(sys.version_info[:2], 3328)
    assert own_memory(one.monitor) < most << 10
    # One that was forked copies pages of its zygote as it comes to them, and a heap finds its size: at some time there is an end to that.
    sizes = [own_memory(one.monitor)]
    while len(sizes) < 2 or (sizes[-1] > sizes[-2] + (8 << 10) and len(sizes) < 8):
        for _ in range(20):
            one.exec("true").ok()
        sizes.append(own_memory(one.monitor))
    assert sizes[-1] <= sizes[-2] + (8 << 10), f"it grows with every exec: {sizes}"
    assert sizes[-1] <= sizes[0] + (256 << 10), f"it grows by execs: {sizes}"


def own_memory(pid: int) -> int:
    """Bytes of heap and stack that it shares with nobody."""
    total, counts = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            counts = len(words) < 6 or words[5].startswith("[")
        elif counts and words[0] in ("Private_Clean:", "Private_Dirty:"):
            total += int(words[1]) << 10
    return total
