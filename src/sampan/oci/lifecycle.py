"""The states of a container, how they follow from what is on disk, and what each of them allows.

Nothing stores a state. It is derived, each time, from five facts (`derive`), so that two places can never
disagree about it. What a verb may do in which state stands in one table (`TABLE`), with Docker's error
texts beside it. `docs/states.md` is printed from here; a test compares the two.
"""

from __future__ import annotations

from sampan.errors import Conflict, NotFound, NotModified, SampanError

CREATED = "created"
STARTING = "starting"
RUNNING = "running"
PAUSED = "paused"
RESTARTING = "restarting"
EXITED = "exited"
LOST = "lost"
REMOVING = "removing"
DEAD = "dead"

STATES = (CREATED, STARTING, RUNNING, PAUSED, RESTARTING, EXITED, LOST, REMOVING, DEAD)

ALIVE = frozenset((RUNNING, PAUSED))
"""Its program was started and has not ended."""

UP = ALIVE | {RESTARTING}
"""What Docker calls running: its program runs, or will soon again."""

BUSY = UP | {STARTING}
"""It has, or is about to get, processes."""

MEANING = {
    CREATED: "it has a record and was never started",
    STARTING: "another command holds its record lock, or its monitor is setting it up",
    RUNNING: "its monitor holds the monitor lock, and has written down that its program runs",
    PAUSED: "it is running, and the kernel was told to freeze its cgroup",
    RESTARTING: "the newest start's exit file says that a restart is due, and nobody has cancelled it; its monitor waits until it is "
    "time and then has the next start made. Of one whose monitor was killed meanwhile the next command has it made at once",
    EXITED: "the newest start has an exit file",
    LOST: "the newest start has no exit file and nobody is at work on it: its monitor was killed, or the "
    "machine went down; the next command kills what is left and writes exit code 255",
    REMOVING: "one rename took it out of everybody's sight, and its parts are being taken away",
    DEAD: "its record cannot be read; all it can still do is be removed",
}


def derive(
    *,
    starts: int,
    started: bool,
    exited: bool,
    monitor: bool,
    locked: bool,
    frozen: bool = False,
    restart: bool = False,
) -> str:
    """The state that follows from the facts.

    `starts` is the number of the newest start (0: none), `started` and `exited` whether that start has
    those files whole, `monitor` whether the monitor lock is held, `locked` whether *another* command holds
    the record lock, `frozen` whether its cgroup is frozen, `restart` whether its end made a restart due. The caller asks for the monitor before it looks
    for the exit file: a monitor writes the file first and lets go of the lock last, so the other order would
    see neither of a container that has just ended, and call it lost.
    """
    if starts == 0:
        return CREATED
    if exited:
        # Before the monitor: between writing the file and its own end it still flushes the log and tells clients.
        return RESTARTING if restart else EXITED
    if monitor:
        # Only a running one is paused: while a container comes up, or goes, its cgroup is nobody's but the monitor's.
        return (PAUSED if frozen else RUNNING) if started else STARTING
    return STARTING if locked else LOST


# What a verb meets in a state: it goes ahead, the thing is so already, it is refused, or there is no such container any more.
_GO, _ALREADY, _NO, _GONE = "yes", "already so", "no", "gone"

START, STOP, RESTART, KILL, EXEC, ATTACH = "start", "stop", "restart", "kill", "exec", "attach"
ATTACH_AHEAD = "attach, waiting"
PAUSE, UNPAUSE, TOP, UPDATE, RENAME, WAIT = "pause", "unpause", "top", "update", "rename", "wait"
REMOVE, FORCE_REMOVE = "rm", "rm --force"

_VERDICTS = {"+": _GO, "=": _ALREADY, "-": _NO, "x": _GONE}
_COLUMNS = (CREATED, STARTING, RUNNING, PAUSED, RESTARTING, EXITED, LOST, REMOVING, DEAD)

# One mark for each of _COLUMNS.
TABLE: dict[str, dict[str, str]] = {
    verb: dict(zip(_COLUMNS, (_VERDICTS[mark] for mark in marks.split()), strict=True))
    for verb, marks in {
        #             created starting running paused restarting exited lost removing dead
        START:        "+      -        =       -      =          +      -    x        -",
        STOP:         "=      -        +       +      +          =      -    x        =",
        RESTART:      "+      -        +       +      +          +      -    x        -",
        KILL:         "-      -        +       +      +          -      -    x        -",
        EXEC:         "-      -        +       -      -          -      -    x        -",
        ATTACH:       "-      -        +       -      -          -      -    x        -",
        ATTACH_AHEAD: "+      +        +       -      -          +      +    x        -",
        PAUSE:        "-      -        +       -      -          -      -    x        -",
        UNPAUSE:      "-      -        -       +      -          -      -    x        -",
        TOP:          "-      -        +       +      -          -      -    x        -",
        UPDATE:       "+      -        +       +      +          +      -    x        -",
        RENAME:       "+      +        +       +      +          +      +    x        -",
        WAIT:         "+      +        +       +      +          +      +    x        +",
        REMOVE:       "+      -        -       -      -          +      -    -        +",
        FORCE_REMOVE: "+      -        +       +      +          +      +    -        +",
    }.items()
}  # fmt: skip


def can_start(state: str) -> bool:
    return TABLE[START][state] == _GO


def can_stop(state: str) -> bool:
    return TABLE[STOP][state] == _GO


def can_kill(state: str) -> bool:
    return TABLE[KILL][state] == _GO


def can_exec(state: str) -> bool:
    return TABLE[EXEC][state] == _GO


def can_attach(state: str) -> bool:
    return TABLE[ATTACH][state] == _GO


def can_remove(state: str, force: bool = False) -> bool:
    return TABLE[FORCE_REMOVE if force else REMOVE][state] == _GO


def check(verb: str, state: str, container_id: str, name: str) -> None:
    """Raise NotModified or Conflict, in Docker's words, if `verb` may not be done in `state`."""
    verdict = TABLE[verb][state]
    if verdict != _GO:
        raise refusal(verb, state, container_id, name)


def refusal(verb: str, state: str, container_id: str, name: str) -> SampanError:
    """The error for a verb that `state` does not allow (moby daemon/errors.go, daemon/delete.go)."""
    if state == REMOVING:
        return _refusal_of_removing(verb, name)
    if state == PAUSED:
        return _refusal_of_paused(verb, container_id, name)
    if state == RESTARTING and verb == ATTACH_AHEAD:
        return Conflict(f"container {container_id} is restarting, wait until the container is running")
    if state == RESTARTING and verb in (EXEC, PAUSE, TOP):
        return Conflict(f"Container {container_id} is restarting, wait until the container is running")
    if verb == UNPAUSE:
        return Conflict(f"Container {container_id} is not paused")
    if TABLE[verb][state] == _ALREADY:
        return NotModified("container is already running" if verb == START else "container is already stopped")
    if verb in (REMOVE, FORCE_REMOVE):
        hint = "stop the container before removing or force remove"
        return Conflict(f'cannot remove container "/{name}": container is {state}: {hint}')
    if state == STARTING:
        return Conflict(f"container {container_id} is being started by another command, try again")
    if verb == RENAME:
        return Conflict(f"cannot rename container {container_id}: its record cannot be read")
    if verb in (START, RESTART, UPDATE):
        why = "its record cannot be read" if state == DEAD else "its last run has not been cleaned up"
        return Conflict(f"cannot {verb} container {container_id}: {why}")
    if verb == ATTACH:
        hint = (
            "restarting container, wait until it is running"
            if state == RESTARTING
            else "stopped container, start it first"
        )
        return Conflict(f"You cannot attach to a {hint}")
    return Conflict(f"container {container_id} is not running")


def _refusal_of_removing(verb: str, name: str) -> SampanError:
    if verb in (REMOVE, FORCE_REMOVE):
        return Conflict(f"removal of container {name} is already in progress")
    return NotFound(f"No such container: {name}")


def _refusal_of_paused(verb: str, container_id: str, name: str) -> SampanError:
    if verb == START:
        return Conflict("cannot start a paused container, try unpause instead")
    if verb == PAUSE:
        return Conflict(f"Container {container_id} is already paused")
    if verb == ATTACH:
        return Conflict("You cannot attach to a paused container, unpause it first")
    if verb == ATTACH_AHEAD:
        return Conflict(f"container {container_id} is paused, unpause the container before attach")
    if verb == REMOVE:
        return Conflict(f'cannot remove container "/{name}": container is paused and must be unpaused first')
    return Conflict(f"Container {name} is paused, unpause the container before {verb}")


def table_markdown() -> str:
    """The states and the table as docs/states.md shows them."""
    lines = [
        "# The states of a container",
        "",
        "Printed by `sampan.oci.lifecycle.table_markdown()`; a unit test compares this page with it.",
        "",
        "A state is never stored. It follows from what is on disk: the newest start, its exit file, the monitor lock, the record lock,",
        "and of one that runs, from what the kernel says of its cgroup.",
        "",
        "| state | it means |",
        "|---|---|",
        *(f"| {state} | {MEANING[state]} |" for state in STATES),
        "",
        "What a verb does in a state. *already so* is no error on the command line (HTTP 304); *no* is a conflict (HTTP 409), *gone*",
        "means that there is no such container (HTTP 404). A lost container is settled by the command that meets it, and is then *exited*, or",
        "*restarting* if its policy wants that. *attach, waiting* is what the library does unless it is told otherwise: it is there",
        "before the next start. `start` makes the restart of a *restarting* one whose monitor was killed.",
        "",
        "| verb | " + " | ".join(STATES) + " |",
        "|---|" + "---|" * len(STATES),
        *(f"| {verb} | " + " | ".join(row[state] for state in STATES) + " |" for verb, row in TABLE.items()),
        "",
    ]
    return "\n".join(lines)
