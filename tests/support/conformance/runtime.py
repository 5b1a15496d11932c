"""The runtime under test, by its command line, and one container of it, by the operations of the specification."""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from support import host
from support.conformance import bundle
from support.patience import eventually, patience

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper(wanted: bool) -> None:
    """Whether a container's process becomes our child when the runtime's command has ended, as an engine's monitor has it."""
    assert ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) == 0


@dataclass(frozen=True)
class Result:
    """How a command of the runtime ended."""

    args: tuple[str, ...]
    code: int
    out: str
    err: str

    def ok(self) -> Result:
        """Itself, after an assertion that it succeeded."""
        assert self.code == 0, f"{self}"
        return self

    def fails(self, words: str = "") -> Result:
        """Itself, after an assertion that it failed with an error that is told (and has `words`, a pattern, in it)."""
        assert self.code != 0, f"no error: {self}"
        assert self.err.strip(), f"an error without a word: {self}"
        assert "Traceback" not in self.err, f"{self}"
        assert re.search(words, self.err), f"{self}"
        return self

    def json(self) -> Any:
        return json.loads(self.ok().out)

    def __str__(self) -> str:
        return f"{' '.join(self.args)}\nexit code {self.code}\nstdout: {self.out[-2000:]}\nstderr: {self.err[-3000:]}"


class Runtime:
    """A runtime's command with a state directory of its own: `runtime("state", "id")`."""

    def __init__(self, program: str, directory: Path) -> None:
        self.program = program
        self.name = os.path.basename(program)
        self.root = directory / "state"

    def __call__(
        self,
        *args: str,
        globals: tuple[str, ...] = (),
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        input: str | None = None,
        seconds: float = 30,
        pass_fds: tuple[int, ...] = (),
        preexec: Any = None,
        err: IO[str] | None = None,
    ) -> Result:
        """Run it to its end. err: a file for what it says, else a pipe: only for commands that leave no process behind."""
        command = (self.program, "--root", str(self.root), *globals, *args)
        done = subprocess.run(
            command,
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err or subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            cwd=cwd,
            env={**ENVIRONMENT, **(env or {})},
            timeout=patience(seconds),
            pass_fds=pass_fds,
            preexec_fn=preexec,
        )
        return Result(command[3:], done.returncode, done.stdout, done.stderr or "")

    def start(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        """A command that goes on beside the test."""
        return subprocess.Popen(
            (self.program, "--root", str(self.root), *args),
            env=ENVIRONMENT,
            text=True,
            errors="surrogateescape",
            **options,
        )


@dataclass(frozen=True)
class Outcome:
    """What a container's process wrote, and how it ended (minus a signal)."""

    code: int
    out: str
    err: str

    def ok(self) -> Outcome:
        assert self.code == 0, f"{self}"
        return self

    def json(self) -> list[Any]:
        """Each line of the output, from a process that succeeded."""
        return [json.loads(line) for line in self.ok().out.splitlines()]


class Container:
    """A bundle and what is made of it. `config` may be changed until `create` writes it down."""

    def __init__(self, runtime: Runtime, directory: Path, tools: Path, cgroup: str, *args: str) -> None:
        self.runtime = runtime
        self.id = directory.name
        self.bundle = directory
        self.rootfs = directory / "rootfs"
        self.cgroup = f"/{cgroup}/{self.id}"
        self.pid_file = directory / "pid"
        bundle.make_root(self.rootfs, tools)
        self.config = bundle.make_config(args or ("probe", "report"), self.cgroup)
        self._out, self._err = directory / "out", directory / "err"
        self._pid = 0
        self._status: int | None = None

    # What tests change most.

    @property
    def process(self) -> dict[str, Any]:
        made: dict[str, Any] = self.config["process"]
        return made

    @property
    def linux(self) -> dict[str, Any]:
        made: dict[str, Any] = self.config["linux"]
        return made

    def script(self, text: str) -> Container:
        """The process is a shell with this text."""
        self.process["args"] = ["sh", "-c", text]
        return self

    def mount(
        self, destination: str, type: str | None = None, source: str | None = None, *options: str, **more: Any
    ) -> None:
        """One more mount."""
        fields = {"destination": destination, "type": type, "source": source, "options": list(options) or None, **more}
        self.config["mounts"].append({k: v for k, v in fields.items() if v is not None})

    def namespace(self, kind: str, path: str | None = None) -> None:
        """A namespace of this kind: new, or by its path; instead of the one that is there."""
        self.without_namespace(kind)
        self.linux["namespaces"].append({"type": kind, **({"path": path} if path is not None else {})})

    def without_namespace(self, kind: str) -> None:
        self.linux["namespaces"] = [entry for entry in self.linux["namespaces"] if entry["type"] != kind]

    def capabilities(self, *names: str) -> None:
        """These besides what there is."""
        for kind in ("bounding", "effective", "permitted"):
            self.process["capabilities"][kind] += names

    def in_user_namespace(self, first: int = 100_000, size: int = 65_536) -> None:
        """Root and the ids above it are `first` and those above it outside."""
        self.namespace("user")
        for kind in ("uidMappings", "gidMappings"):
            self.linux[kind] = [{"containerID": 0, "hostID": first, "size": size}]
        # The runtime's user inside has to come by: its directories are root's alone.
        for path in (self.rootfs, *self.rootfs.rglob("*")):
            os.chown(path, first, first, follow_symlinks=False)
        for parent in self.rootfs.parents[:3]:
            os.chmod(parent, 0o755)

    def hook(self, kind: str, script: str, **more: Any) -> None:
        """A hook that is a script of the host's shell; the last word of its arguments is the bundle."""
        entry = {"path": "/bin/sh", "args": ["sh", "-c", script, "hook", str(self.bundle)], **more}
        self.config.setdefault("hooks", {}).setdefault(kind, []).append(entry)

    # Operations.

    def write_config(self) -> None:
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def create(self, *options: str, **more: Any) -> Result:
        """`create` with the bundle's path; its streams are the container's, and so they are files."""
        self.write_config()
        return self.create_as_written(*options, **more)

    def create_as_written(self, *options: str, id: str | None = None, preexec: Any = None, **more: Any) -> Result:
        """`create` of what is in the bundle."""
        command = (
            "create",
            "--bundle",
            str(self.bundle),
            "--pid-file",
            str(self.pid_file),
            *options,
            self.id if id is None else id,
        )
        result = self._in_front(command, preexec, **more)
        if self.pid_file.exists() and result.code == 0:
            self._pid = int(self.pid_file.read_text())
        return result

    def _in_front(self, command: tuple[str, ...], preexec: Any, **more: Any) -> Result:
        before = self._err.stat().st_size if self._err.exists() else 0
        program = (*more.pop("through", ()), self.runtime.program)
        full = (*program, "--root", str(self.runtime.root), *more.pop("globals", ()), *command)
        with self._out.open("a") as out, self._err.open("a") as err:
            done = subprocess.run(
                full,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**ENVIRONMENT, **more.pop("env", {})},
                timeout=patience(30),
                preexec_fn=preexec,
                **more,
            )
        said = self._err.read_text(errors="surrogateescape")[before:]
        return Result(command, done.returncode, self.out, said)

    def refused(self, words: str = "") -> Result:
        """The error of a `create` and, if that takes it, `start`; nothing of the container is left after it."""
        result = self.create()
        if result.code == 0:
            result = self.start()
        result.fails(words)
        return result

    def never_created(self, words: str = "") -> Result:
        """The error of a `create` that must not take the configuration, and that no container came of it."""
        result = self.create().fails(words)
        self.runtime("state", self.id).fails()
        assert not self.cgroups_left(), "its groups are left behind"
        return result

    def start(self) -> Result:
        return self.runtime("start", self.id)

    def state(self) -> dict[str, Any]:
        got: dict[str, Any] = self.runtime("state", self.id).json()
        return got

    @property
    def status(self) -> str:
        return str(self.state()["status"])

    def kill(self, signal: str = "KILL") -> Result:
        return self.runtime("kill", self.id, signal)

    def delete(self, *options: str) -> Result:
        return self.runtime("delete", *options, self.id)

    def exec(self, *command: str, **more: Any) -> Result:
        """A process in it, to its end, without options."""
        return self.runtime("exec", self.id, *command, **more)

    @property
    def pid(self) -> int:
        """The container process, as the runtime wrote it down."""
        assert self._pid, "it was not created"
        return self._pid

    def wait(self, seconds: float = 30) -> int:
        """The exit status of its process (minus a signal), which is our child once `create` has ended."""
        if self._status is None:
            fd = os.pidfd_open(self.pid)
            try:
                assert select.select([fd], [], [], patience(seconds))[0], f"it does not end: {self.out} {self.err}"
            finally:
                os.close(fd)
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    @property
    def out(self) -> str:
        return self._out.read_text(errors="surrogateescape") if self._out.exists() else ""

    @property
    def err(self) -> str:
        return self._err.read_text(errors="surrogateescape") if self._err.exists() else ""

    def up(self, *options: str, **more: Any) -> Container:
        """Created and started; itself."""
        self.create(*options, **more).ok()
        self.start().ok()
        return self

    def holding(self, *options: str, **more: Any) -> Container:
        """Up with a process that waits and writes the signals that it gets to /tmp/signals."""
        self.process["args"] = ["probe", "hold", "/tmp/signals"]
        self.up(*options, **more)
        eventually(lambda: "holding" in self.out, what="the process to be there")
        return self

    def run(self, *options: str, **more: Any) -> Outcome:
        """Its whole life: created, started, waited for, deleted."""
        self.up(*options, **more)
        code = self.wait()
        self.delete().ok()
        return Outcome(code, self.out, self.err)

    def report(self, *options: str, **more: Any) -> dict[str, Any]:
        """What the probe in it sees of itself; its last line is taken."""
        got: dict[str, Any] = self.run(*options, **more).json()[-1]
        got["status"] = dict(line.split(":\t", 1) for line in got.get("status", "").splitlines() if ":\t" in line)
        return got

    def stat(self, *paths: str) -> dict[str, dict[str, Any]]:
        """What the probe in it says of these paths."""
        self.process["args"] = ["probe", "stat", *paths]
        return {entry["path"]: entry for entry in self.run().json()[-1]}

    # What the host has of it.

    def group(self, controller: str) -> Path:
        """Its directory in the hierarchy of a controller."""
        return group_directory(controller, self.cgroup)

    def setting(self, controller: str, file: str) -> str:
        return (self.group(controller) / file).read_text().strip()

    def cgroups_left(self) -> list[str]:
        return host.cgroups(self.cgroup.lstrip("/"))

    def signals(self) -> list[int]:
        """What the holding process has got."""
        file = self.rootfs / "tmp/signals"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def close(self) -> list[str]:
        """Take it away whatever its state is; what its runtime then still has of it."""
        self.runtime("delete", "--force", self.id)
        left = [f"state {self.id}"] if (self.runtime.root / self.id).exists() else []
        self._end_processes()
        for group in self.cgroups_left():
            left.append(f"cgroup {group}")
            try:
                os.rmdir(group)
            except OSError:
                pass  # a process of it is not quite gone; the caller is told
        left += sorted(f"mount {mount}" for mount in host.mounts(self.bundle))
        for mount in reversed([line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]):
            if mount.startswith(f"{self.bundle}/"):
                subprocess.run(["umount", "-l", mount], check=True)
        shutil.rmtree(self.bundle)
        return left

    def _end_processes(self) -> None:
        for group in self.cgroups_left():
            for pid in (Path(group) / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        if self._pid and self._status is None:
            deadline = time.monotonic() + patience(5)
            while time.monotonic() < deadline:
                try:
                    if os.waitpid(self._pid, os.WNOHANG)[0]:
                        break
                except ChildProcessError:
                    break
                time.sleep(0.01)


class Containers:
    """Makes the containers of one test, and takes them away after it."""

    def __init__(self, runtime: Runtime, directory: Path, tools: Path) -> None:
        self.runtime = runtime
        self.directory = directory
        self.tools = tools
        self.cgroup = f"sampan-conformance-{os.getpid()}"
        self._made: list[Container] = []

    def __call__(self, *args: str) -> Container:
        name = f"c{len(self._made) + 1}"
        one = Container(self.runtime, self.directory / name, self.tools, self.cgroup, *args)
        self._made.append(one)
        return one

    def close(self) -> None:
        left = [thing for one in reversed(self._made) for thing in one.close()]
        for group in host.cgroups(self.cgroup):
            try:
                os.rmdir(group)
            except OSError as e:
                left.append(f"cgroup {group}: {e}")
        assert not left, "left behind:\n  " + "\n  ".join(left)


def group_directory(controller: str, path: str) -> Path:
    """Where a group is: on cgroup v2 in the one hierarchy, else in its controller's."""
    if cgroup2():
        return host.CGROUPS / path.lstrip("/")
    return host.CGROUPS / controller / path.lstrip("/")


def cgroup2() -> bool:
    """The one hierarchy of this machine is cgroup v2."""
    return (host.CGROUPS / "cgroup.controllers").exists()
