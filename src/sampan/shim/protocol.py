"""What the processes of a container say to each other: the one table, for both sides.

    launcher (command, library, server)            monitor                stage1 / stage2 (= init)
       | posix_spawn ------------------------------> boots, waits (or is forked by a zygote, and says READY or UNTAUGHT)
       | PLAN + descriptors -----------------------> runs its steps
       |                                              | clone3 -------------> stage1: host's privileges; then stage2
       |                                              |  or fork -----------> stage1, clone3(CLONE_PARENT) -> stage2
       |                                              |<- INIT pid ---------- stage1, exits
       |                                              |   (what is done: notes in shared memory, PLACES)
       |                                              |<- FAILED ------------ whichever failed, exits
       |                                              |<- LAST -------------- stage2: what follows is the execve
       |                                              |<- end of file ------- execve worked (close-on-exec)
       |<- STARTED | FAILED -------------------------|

    When the launcher watches (an observer, crash tests), each step is announced and waits for leave:
       |<- BEGIN --- monitor <- BEGIN --- stage ;  GO ---> monitor ---> GO ---> stage

    client (attach.sock, or a socket given with the plan)    monitor
       | ATTACH | EXEC | WAIT   -------------------->
       | STDIN data, CLOSE_STDIN, RESIZE, SIGNAL --->
       | CANCEL (a restart that it waits for)  ----->
       |<- REPLY (to EXEC: it runs; or FAILED)
       |<- STDOUT data, STDERR data
       |<- EXIT, then end of file

    OCI mode: no monitor. The command itself makes stage1, by a clone or from a fresh interpreter, and hears it and stage2:
       command (create, run, exec)                  stage1 / stage2
       | clone3, fork, or posix_spawn -------------> boots, waits
       | PLAN + descriptors -----------------------> runs its steps; INIT, FAILED, LAST, end of file as above; with --debug DONE a step each
       |<- MEET "environment" ---------------------- stage2, its mounts made: the runtime's hooks are due; waits for GO
       |<- MEET "created" -------------------------- stage2, with nothing left but its program; waits for GO, then for `start`
       command (start), over start.sock             stage2
       | one byte --------------------------------->
       |<- FAILED | LAST, end of file -------------- as above

Every message is a frame: one byte of kind, four bytes of length (big endian), the body. Bodies are bytes for
STDIN, STDOUT and STDERR, else a JSON object.
"""

from __future__ import annotations

import _struct

from sampan import jsontext
from sampan.kernel.livegroup import LiveGroup
from sampan.steps import base
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 2
"""Of this table and of LaunchPlan; a launcher and its shim come from the same files, a client may be newer."""

# launcher <-> monitor
PLAN, STARTED, FAILED, BEGIN, GO, READY, UNTAUGHT = 1, 2, 3, 4, 5, 10, 11
# stages -> monitor
DONE, INIT, LAST, MEET = 6, 7, 8, 9
# client -> monitor
ATTACH, EXEC, WAIT, STDIN, CLOSE_STDIN, RESIZE, SIGNAL, CANCEL = 16, 17, 18, 19, 20, 21, 22, 23
# monitor -> client
STDOUT, STDERR, EXIT, REPLY = 32, 33, 34, 35

_HEADER = _struct.Struct("!BI")
HEADER_SIZE = _HEADER.size
LARGEST = 16 << 20
"""Bytes of a body; a longer one is a broken or hostile peer. execve takes at most a quarter of the stack, 2 MiB by default."""

EXEC_FILE, ENDED_EXEC_FILE = "exec-", "ended-"
"""Begin the name of an exec's file in the run directory: exec-ID while it runs, then ended-ID.CODE. In it are its pid and, after
a blank, what its `ExecPlan` says about it."""
WAITING = "waiting."
"""Begins the names of descriptors that are connections of clients who were there before the start (`runtime.waiting`)."""
SHARED_FILE = "pid-shared"
"""A file of the run directory: another container has been put into this one's pid namespace. Written before that is done, and an flock(2) on the
directory had exclusively in between, which a monitor has shared while it makes a process that nobody in there may take over."""
LOSS_FILE = "log-lost"
"""A file of the run directory: what of the output could not be written to the log, as a JSON object (`shim.logs`)."""

ZYGOTE_FORK, ZYGOTE_LEARN, ZYGOTE_KEEP, ZYGOTE_STOP = b"fork", b"learn ", b"keep ", b"stop"
"""What is said to a zygote: see `shim.zygote`."""

CONTROL_FD = 3
"""The launcher's socket in a shim that was just started."""
LIBRARY_FD = 4
"""A detached read-only mount of the directory of libpython, for the loader: see `runtime.sealed`."""


class ProtocolError(Exception):
    """The peer sent what is not in the table, or stopped in the middle of a frame."""


NO_CLONE = -1
PLACES = {"clone": (16, 1), "stage1": (32, 480), "stage2": (32 + 8 * 481, 480)}
"""Where each list notes what it has done, in memory that the stages share with the monitor: how many steps, as a number, then, from this offset
on, the nanoseconds of so many of them, eight bytes each. Before the first is the place of stage2's pid."""


class Stages(Struct):
    """The lists of stage1 and stage2, and the namespace flags of the clone between them; `NO_CLONE` where one process runs both.

    They travel as a text behind a plan, which is read when the process is made that runs them: what a monitor does not decode it
    does not keep in memory for the life of its container. A line for each step: what is the same for all containers a zygote has read
    before, and whom it forks finds it by its line.
    """

    stage1: tuple[base.Step, ...]
    clone: int
    stage2: tuple[base.Step, ...]

    def usual_lines(self) -> list[str]:
        """The lines of those steps that other containers have as well (`Step.usual`)."""
        return base.to_lines([step for step in (*self.stage1, *self.stage2) if step.usual])

    def text_of(self, stage: str, index: int) -> str:
        """A step in words. stage: as reports name it, "clone" for what is between the lists."""
        if stage == "clone":
            return f"clone3 CLONE_PARENT with namespace flags {self.clone:#x}"
        return (self.stage1 if stage == "stage1" else self.stage2)[index].describe()

    def to_text(self) -> str:
        head = f"{len(self.stage1)} {self.clone}"
        return "\n".join((head, *base.to_lines(self.stage1), *base.to_lines(self.stage2)))

    @staticmethod
    def from_text(text: str) -> Stages:
        """The lists that `to_text` described. Raises `ValueError`, or `KeyError` for a step that is not known."""
        head, *lines = text.split("\n")
        count, _, clone = head.partition(" ")
        steps = tuple(base.from_lines(lines))
        return Stages(steps[: int(count)], int(clone), steps[int(count) :])


class LogPlan(Struct):
    """Where output is kept.

    driver: "json-file", "local", or "none" for nowhere. path: of the newest file; older ones have a number behind it, and ".gz" if
    they are compressed. max_size: bytes of a file, 0 for no bound. max_files: how many there are at most. extra: what is
    said of each line besides ("attrs" of a json-file), as a JSON object; "" for nothing. compressor: argv of a
    command that compresses its standard input; none if rotated files stay as they are.
    """

    driver: str = "none"
    path: str = ""
    max_size: int = 0
    max_files: int = 1
    extra: str = ""
    compressor: tuple[str, ...] = ()


class LaunchPlan(Struct):
    """Everything that a shim has to know to make one container run: flat, frozen, sent once.

    directory: containers/ID on disk. start: the directory of this start. run_directory: where attach.sock goes.
    monitor: the monitor's own steps. stages: see `Stages`, as text. descriptors: names of what is sent along, in order.
    log: see `LogPlan`. terminal: a pty instead of pipes. open_stdin, stdin_once: as in Docker's Config.
    cgroup: where its processes are, for OOM counts and the last kill. shared_pid: init is no pid 1, so that its end kills
    nobody else. reaper: argv of a command that makes a restart, or settles the exit; settles: whether an exit leaves something to
    do (the client that started the container does it, or else the reaper). temporary: `--rm`, a step of a build. watched: announce every step. traced: tell
    the launcher of all when they are done. health: a `HealthPlan` as text, "" for none. journal: where events go and how long it may become (`kernel.appendlog`). events: the
    container's, as a JSON object without action and time, then those of the networks and volumes that its end lets go of, without time; none
    if there is no journal.
    keepers: for each network whose keeper is to be watched the command that starts another; its line is the descriptor "keeper.N".
    """

    version: int
    container: str
    directory: str
    start: str
    run_directory: str
    monitor: tuple[base.Step, ...]
    stages: str
    descriptors: tuple[str, ...] = ()
    log: LogPlan = LogPlan()
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    cgroup: LiveGroup = LiveGroup()
    shared_pid: bool = False
    reaper: tuple[str, ...] = ()
    settles: bool = False
    temporary: bool = False
    watched: bool = False
    traced: bool = True
    health: str = ""
    journal: tuple[str, int] = ("", 0)
    events: tuple[str, ...] = ()
    keepers: tuple[tuple[str, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "monitor": base.encode(self.monitor)}

    def to_body(self, traced: bool) -> bytes:
        """The body of PLAN: a JSON object on a line, then `stages` as it is, for that is most of it."""
        return b"%s\n%s" % (dumps({**self.to_json(), "stages": "", "traced": traced}), self.stages.encode("ascii"))

    @staticmethod
    def from_body(body: bytes) -> LaunchPlan:
        """The plan that `to_body` described. Raises `ProtocolError`."""
        head, _, stages = body.partition(b"\n")
        return LaunchPlan.from_json({**loads(head), "stages": stages.decode("ascii")})

    @staticmethod
    def from_json(data: dict[str, Any]) -> LaunchPlan:
        """The plan that `to_json` described. Raises `ProtocolError` for another version."""
        if data.get("version") != VERSION:
            raise ProtocolError(f"plan version {data.get('version')}, this shim speaks {VERSION}")
        decoded = {
            "monitor": tuple(base.decode(data["monitor"])),
            "cgroup": LiveGroup.from_fields(data["cgroup"]),
            "log": LogPlan.from_fields(data["log"]),
        }
        return LaunchPlan.from_fields({**data, **decoded})

    def lists(self) -> Stages:
        """The stages' lists, decoded."""
        return Stages.from_text(self.stages)

    def steps(self) -> list[tuple[str, base.Step]]:
        """All steps with the process that runs each, in the order of the start: the dry run."""
        lists = self.lists()
        return [
            *(("monitor", step) for step in self.monitor),
            *(("stage1", step) for step in lists.stage1),
            *(("stage2", step) for step in lists.stage2),
        ]


class HealthPlan(Struct):
    """How a container is probed. It travels as a text, which only a shim that has one decodes.

    interval, timeout, start_period, start_interval: seconds, as in Docker's Healthcheck; retries: failures in a row that
    make it unhealthy. command: what is run. stages: how, see `Stages`, as text. too_long: what is said of a probe that
    takes longer than its timeout. health: Docker's State.Health to begin with.
    """

    interval: float
    timeout: float
    start_period: float
    start_interval: float
    retries: int
    command: tuple[str, ...]
    stages: str
    too_long: str
    health: dict[str, Any]

    def to_text(self) -> str:
        return dumps(self.to_json()).decode("ascii")

    @staticmethod
    def from_text(text: str) -> HealthPlan:
        """The plan that `to_text` described."""
        return HealthPlan(**loads(text.encode("ascii")))


class ExecPlan(Struct):
    """The same for another process in a running container (EXEC).

    monitor: what the monitor does first. score: oom_score_adj, as text. alone: one process may do it (docs/adr/0018), as far as it is the container's
    making that counts; then it runs both lists, else the first of two clones the second. powerful: it may take over what is made after it.
    about: a JSON object for whoever inspects it, kept in its file.
    """

    version: int
    identifier: str
    monitor: tuple[base.Step, ...]
    stages: str
    score: str = ""
    alone: bool = False
    powerful: bool = False
    terminal: bool = False
    size: tuple[int, int] = (0, 0)
    open_stdin: bool = False
    detach: bool = False
    about: str = "{}"

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "monitor": base.encode(self.monitor)}

    def to_body(self) -> bytes:
        """The body of EXEC, in two parts as a `LaunchPlan`'s: see `read_request`."""
        return b"%s\n%s" % (dumps({**self.to_json(), "stages": ""}), self.stages.encode("ascii"))

    @staticmethod
    def from_json(data: dict[str, Any]) -> ExecPlan:
        """The plan that `to_json` described. Raises `ProtocolError` for another version."""
        if data.get("version") != VERSION:
            raise ProtocolError(
                f"exec plan version {data.get('version')}, this shim speaks {VERSION}: it was started by another sampan"
            )
        return ExecPlan(**{**data, "monitor": tuple(base.decode(data["monitor"]))})

    def lists(self) -> Stages:
        """The stages' lists, decoded."""
        return Stages.from_text(self.stages)


dumps = jsontext.dumps


def loads(data: bytes) -> Any:
    """The value of a JSON document. Raises `ProtocolError`."""
    try:
        return jsontext.loads(data)
    except ValueError as e:
        raise ProtocolError("not a JSON document") from e


def read_request(kind: int, body: bytes) -> dict[str, Any]:
    """What a client asks, as the fields of a JSON object. Raises `ProtocolError`, and others for what is none."""
    head, _, stages = body.partition(b"\n") if kind == EXEC else (body, b"", b"")
    fields: dict[str, Any] = loads(head)
    return {**fields, "stages": stages.decode("ascii")} if stages else fields


def frame(kind: int, body: bytes = b"") -> bytes:
    """A frame ready to be sent."""
    return _HEADER.pack(kind, len(body)) + body


def message(kind: int, **fields: Any) -> bytes:
    """A frame whose body is a JSON object."""
    return frame(kind, dumps(fields))


class Reader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes, give the frames that are complete. Raises `ProtocolError` for a length that cannot be."""
        self._buffer += data
        frames = []
        at = 0
        while len(self._buffer) - at >= HEADER_SIZE:
            kind, length = _HEADER.unpack_from(self._buffer, at)
            if length > LARGEST:
                raise ProtocolError(f"a frame of {length} bytes")
            if len(self._buffer) - at - HEADER_SIZE < length:
                break
            frames.append((kind, bytes(self._buffer[at + HEADER_SIZE : at + HEADER_SIZE + length])))
            at += HEADER_SIZE + length
        del self._buffer[:at]
        return frames

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)
