"""`sampan-oci` as a command: a container's life, what its processes find, what is left when something goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.imports import imported, unapproved
from support.patience import patience
from support.rootfs import make_rootfs

pytestmark = pytest.mark.root

PROGRAM = str(Path(sys.executable).parent / "sampan-oci")


class Runtime:
    """One state directory, one bundle whose config.json is `config`."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.root = directory / "state"
        self.bundle = directory / "bundle"
        self.bundle.mkdir()
        (self.bundle / "rootfs").symlink_to(rootfs)
        assert self("spec", "-b", str(self.bundle)).returncode == 0
        self.config: dict[str, Any] = json.loads((self.bundle / "config.json").read_text())
        self.config["process"]["terminal"] = False
        self.config["linux"]["cgroupsPath"] = f"/sampan-tests-{os.getpid()}/box"

    def __call__(self, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, "--root", str(self.root), *args],
            **{"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": patience(60), **more},
        )

    def write(self, *words: str) -> None:
        self.config["process"]["args"] = list(words)
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def run(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        self.write(*words)
        return self("run", "-b", str(self.bundle), "box", **more)

    def create(self, *words: str) -> None:
        self.write(*words)
        # Not captured: the container's process has these streams for life.
        made = self("create", "-b", str(self.bundle), "box", capture_output=False, stdout=subprocess.DEVNULL)
        assert made.returncode == 0

    def status(self) -> str:
        return str(json.loads(self("state", "box").stdout)["status"])

    def until(self, status: str) -> None:
        deadline = time.monotonic() + patience(20)
        while self.status() != status:
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("image") / "rootfs")


@pytest.fixture
def runtime(tmp_path: Path, rootfs: Path) -> Iterator[Runtime]:
    made = Runtime(tmp_path, rootfs)
    yield made
    made("delete", "-f", "box")
    assert not made.root.exists() or os.listdir(made.root) == []
    for group in Path("/sys/fs/cgroup").glob(f"*/sampan-tests-{os.getpid()}"):
        group.rmdir()  # nothing is below it


def test_a_life_from_create_to_delete(runtime: Runtime) -> None:
    runtime.create("sleep", "300")
    assert runtime.status() == "created"
    assert runtime("delete", "box").returncode == 1
    assert runtime("exec", "box", "echo", "inside").stdout == "inside\n"
    assert runtime("start", "box").returncode == 0
    assert runtime("start", "box").returncode == 1
    assert set(json.loads(runtime("state", "box").stdout)) == {
        "ociVersion",
        "id",
        "status",
        "pid",
        "bundle",
        "annotations",
    }
    assert runtime("pause", "box").returncode == 0
    assert runtime.status() == "paused"
    assert "paused" in runtime("exec", "box", "true").stderr
    assert runtime("resume", "box").returncode == 0
    assert runtime("exec", "box", "sh", "-c", "exit 7").returncode == 7
    assert runtime("exec", "box", "no-such-program").returncode == 255
    assert runtime("kill", "box", "KILL").returncode == 0
    runtime.until("stopped")
    assert "not running" in runtime("kill", "box").stderr
    assert runtime("delete", "box").returncode == 0
    assert runtime("state", "box").stderr.count("does not exist") == 1


def test_what_a_process_finds(runtime: Runtime) -> None:
    script = "ls /proc/self/fd | wc -w; umask; id -u; id -G; pwd; cat /proc/sys/kernel/hostname; env"
    own = runtime.config["process"]
    own.update(
        user={"uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 0o027}, cwd="/tmp", env=["PATH=/bin", "A=1"]
    )
    runtime.config["hostname"] = "box"
    result = runtime.run("sh", "-c", script)
    assert result.stdout.split("\n")[:6] == ["4", "0027", "5", "6 7 8", "/tmp", "box"], result.stderr
    assert {"A=1", "HOME=/", "PATH=/bin"} <= set(result.stdout.split("\n")[6:])


def test_an_exec_runs_on_the_processors_that_are_for_execs(runtime: Runtime) -> None:
    """process.execCPUAffinity: the container's own process is where it would be."""
    last = max(os.sched_getaffinity(0))
    runtime.config["process"]["execCPUAffinity"] = {"initial": str(min(os.sched_getaffinity(0))), "final": str(last)}
    runtime.create("sleep", "1000")
    assert runtime("start", "box").returncode == 0
    allowed = ("grep", "Cpus_allowed_list", "/proc/1/status", "/proc/self/status")
    first, second = (line.split()[1] for line in runtime("exec", "box", *allowed).stdout.splitlines())
    ours = next(line for line in Path("/proc/self/status").read_text().splitlines() if "Cpus_allowed_list" in line)
    assert (first, second) == (ours.split()[1], str(last))
    process = {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "execCPUAffinity": {"final": "1023"}}
    (runtime.bundle / "process.json").write_text(json.dumps(process))
    refused = runtime("exec", "--process", str(runtime.bundle / "process.json"), "box")
    assert refused.returncode != 0
    assert "sched_setaffinity" in refused.stderr


def test_a_cgroup_manager_that_is_not_ours_is_refused_with_what_to_do(runtime: Runtime) -> None:
    runtime.write("true")
    refused = runtime("--systemd-cgroup", "run", "-b", str(runtime.bundle), "box")
    assert refused.returncode == 1
    assert "--systemd-cgroup is not supported: use the cgroupfs manager" in refused.stderr
    assert runtime("state", "box").returncode != 0


def test_a_user_namespace_owns_what_is_made_in_it(runtime: Runtime, tmp_path: Path) -> None:
    linux = runtime.config["linux"]
    linux["namespaces"] += [{"type": "user"}, {"type": "time"}]
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    linux["timeOffsets"] = {"boottime": {"secs": 7}}
    # Nobody but the host's root can come by here: the container's does not have to.
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    script = (
        "cat /proc/self/uid_map; stat -c %u:%g /dev/null /dev/shm; echo x > /dev/null && ip link show lo | grep -c UP"
    )
    result = runtime.run("sh", "-c", f"{script}; cat /proc/self/timens_offsets")
    assert result.stdout.split()[:6] == ["0", "100000", "65536", "0:0", "0:0", "1"], result.stderr
    assert result.stdout.split()[-3:] == ["boottime", "7", "0"]


def test_mounts_that_only_a_configuration_can_ask_for(runtime: Runtime, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").touch()
    os.chown(source / "file", 1000, 1000)
    maps = [{"containerID": 1000, "hostID": 0, "size": 1}]
    runtime.config["root"]["readonly"] = False
    runtime.config["mounts"] += [
        {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]},
        {
            "destination": "/deep",
            "type": "none",
            "source": str(source),
            "options": ["rbind", "rro", "nosuid", "noatime"],
        },
        {"destination": "/again", "type": "tmpfs", "source": "tmpfs", "options": ["noexec", "sync", "size=1m"]},
        {"destination": "/again", "options": ["remount", "ro"]},
    ]
    script = "head -1 /etc/passwd; grep -E ' /(etc|deep|again) ' /proc/self/mountinfo | cut -d' ' -f6; uname -m"
    runtime.config["linux"]["personality"] = {"domain": "LINUX32"}
    result = runtime.run("sh", "-c", script)
    assert result.stdout.startswith("root:x:0:0:"), result.stderr
    modes = sorted(result.stdout.split("\n")[1:4])
    assert modes == ["ro,noexec,relatime", "ro,nosuid,noatime", "ro,relatime"]
    assert result.stdout.split()[-1] != os.uname().machine
    # A tmpfs takes maps since Linux 6.3; where the source cannot be mapped, nothing is started.
    runtime.config["mounts"] += [
        {
            "destination": "/mapped",
            "type": "bind",
            "source": str(source),
            "options": ["bind"],
            "uidMappings": maps,
            "gidMappings": maps,
        }
    ]
    result = runtime.run("stat", "-c", "%u:%g", "/mapped/file")
    assert result.stdout == "0:0\n" or "cannot be id-mapped" in result.stderr


def test_a_create_that_fails_leaves_nothing(runtime: Runtime) -> None:
    for change in (
        {"linux": {**runtime.config["linux"], "sysctl": {"kernel.panic": "1"}}},
        {"ociVersion": "2.0.0"},
        {"mounts": [*runtime.config["mounts"], {"destination": "/x", "type": "bind", "source": "/nowhere"}]},
        {"hooks": {"createRuntime": [{"path": "/bin/false"}]}},
        {"process": {**runtime.config["process"], "apparmorProfile": "x"}},
    ):
        config = runtime.config
        runtime.config = {**config, **change}
        result = runtime.run("true")
        assert result.returncode == 1, change
        assert "Traceback" not in result.stderr
        assert "level=error" in result.stderr
        assert not runtime.root.exists() or os.listdir(runtime.root) == []
        assert not list(Path("/sys/fs/cgroup").glob(f"*/sampan-tests-{os.getpid()}/box"))
        runtime.config = config


def test_errors_go_to_the_log_as_json(runtime: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = runtime("--log", str(log), "--log-format", "json", "state", "nobody")
    assert result.returncode == 1
    line = json.loads(log.read_text())
    assert (line["level"], line["msg"]) == ("error", "container does not exist")
    assert "container does not exist" in result.stderr


def test_a_pid_that_belongs_to_somebody_else_is_not_the_container(runtime: Runtime) -> None:
    runtime.create("sleep", "300")
    state = runtime.root / "box/state.json"
    record = json.loads(state.read_text())
    os.kill(record["pid"], signal.SIGKILL)
    runtime.until("stopped")
    state.write_text(json.dumps({**record, "pid": os.getpid()}))
    assert runtime.status() == "stopped"
    assert runtime("kill", "box", "KILL").returncode == 1


def test_preserved_descriptors_and_no_others(runtime: Runtime) -> None:
    reader, writer = os.pipe()
    try:
        runtime.write("sh", "-c", "echo through >&3; ls /proc/self/fd | wc -w")
        command = f'exec "$@" 3>&{writer}'
        words = [PROGRAM, "--root", str(runtime.root), "run", "-b", str(runtime.bundle), "--preserve-fds", "1", "box"]
        made = subprocess.run(
            ["bash", "-c", command, "bash", *words], pass_fds=(writer,), capture_output=True, text=True
        )
        assert made.stdout.strip() == "5", made.stderr
        assert os.read(reader, 100) == b"through\n"
    finally:
        os.close(reader)
        os.close(writer)


def test_limits_hold_and_change(runtime: Runtime) -> None:
    runtime.config["linux"]["resources"]["pids"] = {"limit": 20}
    runtime.create("sleep", "300")
    assert runtime("update", "--pids-limit", "11", "box").returncode == 0
    # Not by "**": the groups of others come and go meanwhile.
    group = f"sampan-tests-{os.getpid()}/box/pids.max"
    (knob,) = (place for above in (".", "*") for place in Path("/sys/fs/cgroup").glob(f"{above}/{group}"))
    assert knob.read_text().strip() == "11"
    event = json.loads(runtime("events", "--stats", "box").stdout)
    assert event["data"]["pids"]["limit"] == 11


def test_kernel_memory_is_ignored_and_said_to_be(runtime: Runtime) -> None:
    runtime.config["linux"]["resources"]["memory"] = {"kernel": 1 << 26}
    done = runtime.run("true")
    assert done.returncode == 0
    assert "level=warning" in done.stderr
    assert "memory.kernel is ignored" in done.stderr
    runtime.create("sleep", "300")
    assert "memory.kernel is ignored" in runtime("update", "--kernel-memory", "67108864", "box").stderr


@pytest.mark.core
def test_a_limit_below_what_is_used_is_refused_where_that_is_asked_for(runtime: Runtime, tmp_path: Path) -> None:
    """Of what the kernel could give back, so that it would take the limit."""
    runtime.config["linux"]["resources"]["memory"] = {"limit": 1 << 28, "checkBeforeUpdate": True}
    runtime.config["mounts"].append(
        {"destination": "/data", "type": "bind", "source": str(tmp_path), "options": ["rbind", "rw"]}
    )
    runtime.create("sh", "-c", "dd if=/dev/zero of=/data/file bs=1M count=48; sync; echo > /data/done; exec sleep 300")
    runtime("start", "box").check_returncode()
    deadline = time.monotonic() + patience(30)
    while not (tmp_path / "done").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    limit = str(32 << 20)
    refused = runtime("update", "--memory", limit, "box")
    assert refused.returncode == 1
    assert "bytes in use, and checkBeforeUpdate is set" in refused.stderr
    # Without the check the kernel is asked, which kills the container on cgroup v2 where nothing can be given back (a tmpfs): not here.
    assert runtime("update", "--memory", str(1 << 27), "box").returncode == 0
    assert runtime.status() == "running"


def test_a_group_that_is_frozen_by_one_above_it_is_refused(runtime: Runtime) -> None:
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    above = Path("/sys/fs/cgroup", "" if unified else "freezer", f"sampan-tests-{os.getpid()}")
    file, frozen, thawed = ("cgroup.freeze", "1", "0") if unified else ("freezer.state", "FROZEN", "THAWED")
    above.mkdir(exist_ok=True)
    (above / file).write_text(frozen)
    try:
        failed = runtime.run("true")
    finally:
        (above / file).write_text(thawed)
    assert failed.returncode == 1
    assert f"container's cgroup unexpectedly frozen: thaw {above.name}" in failed.stderr
    assert not (above / "box").exists()
    runtime.run("true").check_returncode()


def test_what_a_start_imports_is_approved() -> None:
    # With -O there is no file of modules, out of which they come without an import that the interpreter would tell of.
    found = imported(["-O", PROGRAM, "run", "-b", "/nowhere", "box"])
    assert {"sampan.runtime.ocicli", "sampan.runtime.ocimake", "sampan.steps.mounts"} <= found
    assert unapproved(found - imported(["-c", ""]), "oci") == []


@pytest.mark.parametrize(
    "lines",
    [
        "home = {home}\nversion = 3.0.0\nmore = x",
        "implementation = CPython\nversion_info = 3.0.0.final.0\nhome = {home}",
    ],
    ids=["venv", "another order"],
)
def test_the_script_finds_the_interpreter_of_its_environment(tmp_path: Path, lines: str) -> None:
    subprocess.run(
        [PROGRAM, "--version"], check=True, capture_output=True
    )  # makes the program that executes the others
    home = os.path.dirname(os.path.realpath(sys.executable))
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/sampan-oci"
    shutil.copy(PROGRAM, script)
    (tmp_path / "bin/python").symlink_to(os.path.realpath(sys.executable))
    (tmp_path / "bin/sampan").write_text(f"#!{tmp_path}/bin/python\n")
    (tmp_path / "pyvenv.cfg").write_text(lines.format(home=home) + "\n")
    traced = subprocess.run(["sh", "-x", str(script), "--version"], capture_output=True, text=True)
    # There is no python3.0, so that the interpreter is executed as it is; and no package of ours in that environment.
    assert f"+ exec /run/sampan-oci-exec.1 {home} python3.0 " in traced.stderr, traced.stderr
    assert "No module named 'sampan'" in traced.stderr, traced.stderr


@pytest.mark.parametrize("start", [[PROGRAM], [sys.executable, PROGRAM]], ids=["sealed", "spawned"])
def test_both_ways_to_stage1(runtime: Runtime, start: list[str]) -> None:
    """As installed, the command is executed from a read-only mount and forks stage1. Started otherwise, it starts an interpreter from there.

    In both ways no process that enters the container leads to the interpreter's file.
    """
    runtime("--version")  # the first command of a boot puts the program into its place that executes the others
    seen = runtime.bundle / "seen"
    # The parent of the first is the command, of the second stage2, which is the container's own.
    for kind, root in (("createRuntime", ""), ("createContainer", os.path.realpath(runtime.bundle / "rootfs"))):
        words = ["sh", "-c", f"readlink {root}/proc/$PPID/exe >> {seen}"]
        hook = {"path": "/bin/sh", "args": words, "env": ["PATH=/bin:/usr/bin"]}
        runtime.config.setdefault("hooks", {})[kind] = [hook]
    runtime.config["root"]["readonly"] = False
    runtime.write("sh", "-c", "cat <&3; read word; echo $word; exit 7")
    reader, writer = os.pipe()
    os.write(writer, b"descriptor\n")
    os.close(writer)
    try:
        done = subprocess.run(
            [*start, "--root", str(runtime.root), "run", "-b", str(runtime.bundle), "--preserve-fds", "1", "box"],
            input="input\n",
            capture_output=True,
            text=True,
            preexec_fn=lambda: os.dup2(reader, 3),
            close_fds=False,
            timeout=patience(60),
        )
    finally:
        os.close(reader)
    assert (done.returncode, done.stdout, done.stderr) == (7, "descriptor\ninput\n", "")
    command, container = seen.read_text().splitlines()
    real = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
    mounted = f"/{os.path.basename(real)}"
    assert container == mounted
    assert command == (mounted if start == [PROGRAM] else real)


@pytest.mark.parametrize("start", [[PROGRAM], [sys.executable, PROGRAM]], ids=["sealed", "spawned"])
def test_an_error_of_the_bundle_leaves_no_process(runtime: Runtime, start: list[str]) -> None:
    (runtime.bundle / "config.json").write_text("{")
    done = subprocess.run(
        [*start, "--root", str(runtime.root), "run", "-b", str(runtime.bundle), "box"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patience(60),
    )
    assert done.returncode == 1
    assert "is no JSON document" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_by_every_name(runtime: Runtime, tmp_path: Path) -> None:
    """By a link, by a relative path, from PATH, with its directory called differently; with a library path of the caller's."""
    link = tmp_path / "link"
    link.symlink_to(PROGRAM)
    directory = os.path.dirname(PROGRAM)
    for words, more in (
        ([str(link)], {}),
        (["./sampan-oci"], {"cwd": directory}),
        (["sh", "-c", "sampan-oci --version"], {"env": {"PATH": f"{directory}:/bin:/usr/bin"}}),
        ([PROGRAM], {"env": {"LD_LIBRARY_PATH": "/nowhere", "PATH": "/bin:/usr/bin"}}),
    ):
        done = subprocess.run([*words, "--version"], capture_output=True, text=True, **more)  # type: ignore[call-overload]
        assert done.stdout.startswith("sampan-oci version "), f"{words}: {done.stderr}"


def test_the_filter_of_a_profile_is_made_once(runtime: Runtime) -> None:
    """And another one for another profile, though they begin alike; a broken one in the cache is none."""
    rule = {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0}
    kept = Path("/run/sampan-oci-filters")
    for number in (38, 95, 38):
        rule["errnoRet"] = number
        runtime.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
        before = set(kept.iterdir()) if kept.exists() else set()
        for _ in range(2):
            done = runtime.run("chmod", "0", "/tmp")
            assert os.strerror(number).lower() in done.stderr.lower()
        made = set(kept.iterdir()) - before
        for path in made:
            path.write_bytes(path.read_bytes()[:-1])
        assert len(made) <= 1
        assert os.strerror(number).lower() in runtime.run("chmod", "0", "/tmp").stderr.lower()
    assert kept.stat().st_mode & 0o777 == 0o700
