"""One container without an engine: the runtime driven as `engine.start` drives it, on a root file system of the test's."""

from __future__ import annotations

import os
import select
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sampan.kernel import cgroup
from sampan.runtime.handle import STDERR, STDOUT, Attachment, Handle
from sampan.runtime.launcher import ExecLaunch, ExecLauncher
from sampan.runtime.plan import Launching, RootFilesystem, make_plan
from sampan.runtime.planexec import make_exec_plan
from sampan.runtime.spec import make_spec
from sampan.runtime.zygotes import ZygoteLaunch, ZygoteLauncher, Zygotes
from sampan.shim.protocol import ExecPlan, LaunchPlan, LogPlan
from sampan.steps.trace import Event, Trace

from support import host
from support.patience import eventually, patience
from support.roots import BASE


class Output:
    """What came over a connection until its end."""

    def __init__(self, out: bytes, err: bytes, exit: dict[str, Any] | None) -> None:
        self.out = out
        self.err = err
        self.exit = exit

    @property
    def code(self) -> int:
        assert self.exit is not None, f"no exit code came: {self}"
        return int(self.exit["exit_code"])

    def ok(self) -> bytes:
        """The standard output, after an assertion that the exit code is 0."""
        assert self.code == 0, f"{self}"
        return self.out

    def __str__(self) -> str:
        return f"exit {self.exit}, stdout {self.out[-2000:]!r}, stderr {self.err[-2000:]!r}"


def collect(attachment: Attachment, seconds: float = 30) -> Output:
    """Read to the end of the connection."""
    out, err = bytearray(), bytearray()
    deadline = time.monotonic() + patience(seconds)
    while True:
        left = deadline - time.monotonic()
        ready = left > 0 and select.select([attachment], [], [], left)[0]
        assert ready, f"no end; so far {bytes(out[-500:])!r}"
        frames = attachment.receive()
        if frames is None:
            attachment.close()
            return Output(bytes(out), bytes(err), attachment.exit)
        for kind, body in frames:
            if kind == STDOUT:
                out += body
            elif kind == STDERR:
                err += body


class Box:
    """A container's directory, its plan, and what runs of it.

    config and host are entries of the record's `config` and `host_config`. files: what is bound over the image's. log: where
    output is kept instead of in one json-file. zygote: the directory of one that makes its shim; "" for a fresh interpreter.
    """

    def __init__(
        self,
        directory: Path,
        rootfs: Path,
        *command: str,
        config: dict[str, Any] | None = None,
        host: dict[str, Any] | None = None,
        files: dict[str, str] | None = None,
        log: LogPlan | None = None,
        zygote: str = "",
        **facts: Any,
    ) -> None:
        self.id = os.urandom(32).hex()
        self.directory = directory / self.id[:12]
        self.run_directory = str(self.directory / "run")
        self.monitor_lock = str(self.directory / "monitor.lock")
        self.attach_socket = f"{self.run_directory}/attach.sock"
        self.log = self.directory / "log"
        self.start_directory = self.directory / "starts/1"
        for name in ("upper", "work", "starts/1"):
            (self.directory / name).mkdir(parents=True)
        self.upper = self.directory / "upper"
        self.driver = cgroup.detect()
        self.group = cgroup.group_name(self.id, f"sampan-test-{os.getpid()}")
        self.trace = Trace()
        self.zygote = zygote
        record = {
            "id": self.id,
            "path": command[0],
            "args": list(command[1:]),
            "config": {"Hostname": "box", "WorkingDir": "/", **(config or {})},
            "host_config": {"NetworkMode": "none", **(host or {})},
        }
        init = facts.get("init", "")
        self.spec = make_spec(record, files or {}, self.group, self.driver.version, init=init)
        layers = facts.pop("layers", (str(rootfs),))
        root = RootFilesystem("overlay", layers, str(self.upper), str(self.directory / "work"), "", str(self.directory))
        self.facts = Launching(
            **{
                "container": self.id,
                "directory": str(self.directory),
                "start": str(self.start_directory),
                "run_directory": self.run_directory,
                "root": root,
                "group": self.group,
                "log": LogPlan("json-file", str(self.log)) if log is None else log,
                "attached": True,
                **facts,
            }
        )
        self.handle = Handle(self, str(self.start_directory))
        self._attachments: list[Attachment] = []

    def plan(self) -> LaunchPlan:
        return make_plan(self.spec, self.facts, self.driver)

    def start(self, descriptors: dict[str, int] | None = None) -> Attachment:
        """Start it. The connection is there if `attached`."""
        return self._kept(self.launch().start(self.plan(), descriptors or {}))

    def launch(self) -> ZygoteLaunch | ExecLaunch:
        """A shim that waits for its plan, of the kind that it is to be."""
        if not self.zygote:
            return ExecLauncher(self.trace).open()
        launch = ZygoteLauncher(self.zygote, ExecLauncher(self.trace), self.trace).open()
        assert isinstance(launch, ZygoteLaunch), "the test's zygote is not there"
        return launch

    def _kept(self, attachment: Attachment | None) -> Attachment:
        """Closed at the end of the test, if the test does not do it."""
        if attachment is not None:
            self._attachments.append(attachment)
        return attachment  # type: ignore[return-value]

    def run(self, input: bytes | None = None, seconds: float = 30) -> Output:
        """Start it, feed it, and hear all of it."""
        attachment = self.start()
        if input is not None:
            attachment.send(input)
            attachment.close_stdin()
        output = collect(attachment, seconds)
        assert self.handle.wait_monitor(patience(10))
        return output

    def exec_plan(
        self,
        *command: str,
        stdin: bool = False,
        detach: bool = False,
        tty: bool = False,
        alone: bool = True,
        powerful: bool = False,
        **process: Any,
    ) -> ExecPlan:
        """`alone`: by one process, as the engine does it in a container without privileges."""
        own = {**self.spec["process"], "args": list(command), "terminal": tty, **process}
        how: dict[str, Any] = {"open_stdin": stdin, "detach": detach, "alone": alone, "powerful": powerful}
        return make_exec_plan(os.urandom(8).hex(), own, self.group, self.driver, **how)

    def exec_start(self, *command: str, **options: Any) -> Attachment:
        return self._kept(self.handle.exec(self.exec_plan(*command, **options)))

    def attach(self, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> Attachment:
        return self._kept(self.handle.attach(stdin, stdout, stderr))

    def connect(self) -> Attachment:
        """A client that has not said anything yet."""
        return self._kept(self.handle.connect())

    def exec(self, *command: str, input: bytes | None = None, seconds: float = 30, **options: Any) -> Output:
        attachment = self.exec_start(*command, stdin=input is not None, **options)
        if input is not None:
            attachment.send(input)
            attachment.close_stdin()
        return collect(attachment, seconds)

    @property
    def init(self) -> int:
        started = self.handle.started()
        assert started is not None
        return int(started["pid"])

    @property
    def monitor(self) -> int:
        started = self.handle.started()
        assert started is not None
        return int(started["monitor"])

    def watch(self, observer: Any) -> None:
        """Let every step be announced to `observer` (a function of an Event) and wait for its return."""
        self.trace = Trace(observer)
        self.facts = self.facts.replace(watched=True)

    def kill(self) -> None:
        """End what runs and wait for the monitor to have written it down."""
        try:
            self.handle.signal(9)
        except ProcessLookupError:
            pass
        assert self.handle.wait_monitor(patience(10)), "the monitor does not end"

    def log_lines(self) -> list[dict[str, str]]:
        import json

        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def logged(self, stream: str = "stdout") -> str:
        return "".join(line["log"] for line in self.log_lines() if line["stream"] == stream)

    def groups_left(self) -> list[str]:
        return [d for d in self.driver.directories(self.group) if d.endswith(self.id) and os.path.exists(d)]

    def close(self) -> None:
        """Take everything away; an AssertionError for what an ended monitor should have taken along."""
        if self.handle.alive():
            self.kill()
        for attachment in self._attachments:
            attachment.close()
        left = [*self.groups_left(), *([self.run_directory] if os.path.exists(self.run_directory) else [])]
        shutil.rmtree(self.directory)
        assert not left, f"left by the monitor: {left}"


class Boxes:
    """Makes boxes, and takes them away with a look at what is left on the host."""

    def __init__(self, directory: Path, rootfs: Path, zygote: str = "") -> None:
        self.directory = directory
        self.rootfs = rootfs
        self.zygote = zygote
        self._made: list[Box] = []

    def __call__(self, *command: str, rootfs: Path | None = None, **options: Any) -> Box:
        box = Box(self.directory, rootfs or self.rootfs, *command, zygote=self.zygote, **options)
        self._made.append(box)
        return box

    def forget(self, box: Box) -> None:
        """It was closed by the test itself."""
        self._made.remove(box)

    def close(self) -> None:
        problems = []
        for box in self._made:
            try:
                box.close()
            except (AssertionError, OSError) as e:
                problems.append(str(e))
        assert not problems, "\n".join(problems)


@contextmanager
def boxes_below(directory: Path, rootfs: Path, launcher: str = "exec") -> Iterator[Boxes]:
    """Boxes for one test; nothing of theirs is left behind it: no mount on the host, no process, no cgroup.

    launcher: "exec", or "zygote" for shims of one that is the test's own.
    """
    place = str(directory / "zygote") if launcher == "zygote" else ""
    boxes = Boxes(directory, rootfs, place)
    try:
        if place:
            Zygotes(place).keep(3600)
        yield boxes
    finally:
        boxes.close()
        if place:
            Zygotes(place).stop()
        parent = f"sampan-test-{os.getpid()}"
        eventually(lambda: not host.processes(str(directory)), 3, "processes of the test have ended")
        assert not host.mounts(directory)
        for group in host.cgroups(parent):
            os.rmdir(group)


def directory_for_tests() -> Path:
    """A new directory on a file system that can hold an overlay's upper directory."""
    path = BASE / f"core-{os.getpid()}-{time.monotonic_ns()}"
    path.mkdir(parents=True)
    return path


def stages_of(events: list[Event]) -> list[str]:
    return [f"{e.stage} {e.text}" for e in events]
