"""Every verb in every state, against the table of `oci.lifecycle`, with the words that Docker 28 has for what it refuses.

The words stand here once more, and are not asked of the table: they were compared with a real Docker (only "removal ... in progress" was not).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import sampan
from sampan.engine.containers import Container
from sampan.errors import Conflict, NotFound, NotModified, SampanError
from sampan.oci import lifecycle
from sampan.oci.lifecycle import CREATED, DEAD, EXITED, PAUSED, REMOVING, RESTARTING, RUNNING, UP
from sampan.store.locks import RecordLock

from support.command import Command
from support.patience import eventually
from support.roots import Root

pytestmark = pytest.mark.root

SLEEP = ["sleep", "1000"]
VERBS: dict[str, Callable[[Container], object]] = {
    lifecycle.START: lambda box: box.start(),
    lifecycle.STOP: lambda box: box.stop(timeout=0),
    lifecycle.RESTART: lambda box: box.restart(timeout=0),
    lifecycle.KILL: lambda box: box.kill(),
    lifecycle.EXEC: lambda box: box.exec(["true"]),
    lifecycle.ATTACH: lambda box: _attach(box, running=True),
    lifecycle.ATTACH_AHEAD: lambda box: _attach(box, running=False),
    lifecycle.PAUSE: lambda box: box.pause(),
    lifecycle.UNPAUSE: lambda box: box.unpause(),
    lifecycle.TOP: lambda box: box.top(),
    lifecycle.UPDATE: lambda box: box.update(pids_limit=99),
    lifecycle.RENAME: lambda box: box.rename(f"{box.name}-too"),
    lifecycle.WAIT: lambda box: _wait(box),
    lifecycle.REMOVE: lambda box: box.remove(),
    lifecycle.FORCE_REMOVE: lambda box: box.remove(force=True),
}
# What a verb leads to, where it leads anywhere; None: the container is gone.
AFTER: dict[str, frozenset[str] | None] = {
    lifecycle.START: frozenset((RUNNING,)),
    lifecycle.STOP: frozenset((EXITED,)),
    lifecycle.RESTART: UP,  # what restarts because it fails will do so again
    lifecycle.KILL: frozenset((EXITED,)),
    lifecycle.PAUSE: frozenset((PAUSED,)),
    lifecycle.UNPAUSE: frozenset((RUNNING,)),
    lifecycle.REMOVE: None,
    lifecycle.FORCE_REMOVE: None,
}

_NOT_RUNNING = {
    lifecycle.KILL: "cannot kill container: NAME: container ID is not running",
    lifecycle.EXEC: "container ID is not running",
    lifecycle.ATTACH: "You cannot attach to a stopped container, start it first",
    lifecycle.PAUSE: "container ID is not running",
    lifecycle.UNPAUSE: "Container ID is not paused",
    lifecycle.TOP: "container ID is not running",
}
WORDS: dict[str, dict[str, str]] = {
    CREATED: _NOT_RUNNING,
    EXITED: _NOT_RUNNING,
    RUNNING: {
        lifecycle.UNPAUSE: "Container ID is not paused",
        lifecycle.REMOVE: 'cannot remove container "/NAME": container is running: stop the container before removing or force remove',
    },
    PAUSED: {
        lifecycle.START: "cannot start a paused container, try unpause instead",
        lifecycle.EXEC: "Container NAME is paused, unpause the container before exec",
        lifecycle.ATTACH: "You cannot attach to a paused container, unpause it first",
        lifecycle.ATTACH_AHEAD: "container ID is paused, unpause the container before attach",
        lifecycle.PAUSE: "Container ID is already paused",
        lifecycle.REMOVE: 'cannot remove container "/NAME": container is paused and must be unpaused first',
    },
    RESTARTING: {
        lifecycle.EXEC: "Container ID is restarting, wait until the container is running",
        lifecycle.ATTACH: "You cannot attach to a restarting container, wait until it is running",
        lifecycle.ATTACH_AHEAD: "container ID is restarting, wait until the container is running",
        lifecycle.PAUSE: "Container ID is restarting, wait until the container is running",
        lifecycle.UNPAUSE: "Container ID is not paused",
        lifecycle.TOP: "Container ID is restarting, wait until the container is running",
        lifecycle.REMOVE: 'cannot remove container "/NAME": container is restarting: stop the container before removing or force remove',
    },
}  # fmt: skip
STATES = (CREATED, RUNNING, PAUSED, RESTARTING, EXITED)


def _attach(box: Container, running: bool) -> None:
    attachment = box.attach(running=running)
    attachment.close()


def _wait(box: Container) -> int:
    """Of what runs the end comes a moment later."""
    ending = threading.Timer(0.2, lambda: box.kill())
    if box.status in lifecycle.ALIVE:
        ending.start()
    try:
        return box.wait()
    finally:
        if ending.ident is not None:
            ending.join()


def begin(engine: sampan.Engine, state: str) -> Container:
    """A container that is in that state, or will be soon by itself."""
    options: dict[str, Any] = {"restart_policy": "always"} if state == RESTARTING else {}
    command = {
        RESTARTING: ["sh", "-c", "exit 3"],
        EXITED: [
            "sh",
            "-c",
            "[ -e ran ] && exec sleep 1000; touch ran; exit 3",
        ],  # once: who starts it again sees that it runs
    }.get(state, SLEEP)
    box = engine.containers.create("base", command, **options, network="none")
    if state != CREATED:
        box.start()
    if state == PAUSED:
        box.pause()
    if state == EXITED:
        box.wait()
    return box


def arrived(box: Container, state: str) -> Container:
    """Once it is there; one that restarts in a pause that is long enough to do something in it."""
    if state == RESTARTING:
        eventually(lambda: box.status == state and box.inspect()["RestartCount"] >= 5, 30, "a long back-off")
    assert box.status == state
    return box


def refusal(box: Container, verb: str) -> SampanError | None:
    try:
        VERBS[verb](box)
    except SampanError as e:
        return e
    return None


def told(box: Container, error: SampanError | None) -> str:
    return str(error).replace(box.id, "ID").replace(box.name, "NAME")


@pytest.mark.parametrize("state", STATES)
def test_what_is_refused_changes_nothing_and_says_why(engine: sampan.Engine, state: str) -> None:
    refused = {verb for verb, row in lifecycle.TABLE.items() if row[state] != "yes"}
    box = arrived(begin(engine, state), state)
    found: dict[str, str] = {}
    for verb in sorted(refused):
        before = box.inspect()["State"]
        error = refusal(box, verb)
        if lifecycle.TABLE[verb][state] == "already so":
            assert isinstance(error, NotModified), (verb, error)
        else:
            assert isinstance(error, Conflict), (verb, error)
            found[verb] = told(box, error)
        assert box.inspect()["State"] == before, verb
    assert found == WORDS[state]


@pytest.mark.parametrize("state", STATES)
def test_what_is_allowed_does_what_it_says(engine: sampan.Engine, state: str) -> None:
    """Each on a container of its own, at the same time: what restarts comes to rest for longer and longer."""
    verbs = [verb for verb, row in lifecycle.TABLE.items() if row[state] == "yes"]

    def check(verb: str) -> None:
        box = arrived(begin(engine, state), state)
        answer = VERBS[verb](box)
        if verb == lifecycle.WAIT:
            assert answer == {CREATED: 0, EXITED: 3, RESTARTING: 3}.get(state, 137)
        elif verb not in AFTER:
            assert box.status == state, verb
        elif (wanted := AFTER[verb]) is None:
            with pytest.raises(NotFound):
                engine.containers.get(box.id)
            return
        else:
            # A program that fails at once may be anywhere in its circle, also between two of its ends.
            eventually(lambda: box.status in wanted, what=verb)
        box.remove(force=True)

    with ThreadPoolExecutor(len(verbs)) as pool:
        list(pool.map(check, verbs))


def test_one_whose_record_cannot_be_read(root: Root, engine: sampan.Engine) -> None:
    for verb, row in lifecycle.TABLE.items():
        box = engine.containers.create("base", SLEEP, network="none")
        (root.root / "containers" / box.id / "record.json").write_text("{")
        (box,) = engine.containers.list(all=True)
        assert box.status == DEAD
        error = refusal(box, verb)
        if row[DEAD] == "yes":
            assert error is None, verb
        elif row[DEAD] == "already so":
            assert isinstance(error, NotModified), (verb, error)
        else:
            assert isinstance(error, Conflict), (verb, error)
        if box.id in [c.id for c in engine.containers.list(all=True)]:
            box.remove(force=True)
        engine.containers.list()  # its name, which nobody could read, is given back by whoever looks at all


def test_one_that_is_being_removed(root: Root, engine: sampan.Engine) -> None:
    """By a command that is at it in this moment: it holds the lock, and nobody else touches what is left."""
    box = engine.containers.create("base", SLEEP, name="box", network="none")
    place = root.root / "containers" / box.id
    leftover = place.with_name(f".removing-{box.id}")
    with RecordLock.acquire(engine_paths(engine, box)):
        place.rename(leftover)
        for verb, row in lifecycle.TABLE.items():
            error = refusal(box, verb)
            wanted = NotFound if row[REMOVING] == "gone" else Conflict
            assert isinstance(error, wanted), (verb, error)
            if wanted is Conflict:
                assert told(box, error) == "removal of container NAME is already in progress"
        assert leftover.is_dir()
    # It is given up there: the next command that makes something finishes it.
    engine.containers.list()
    assert not leftover.exists()


def engine_paths(engine: sampan.Engine, box: Container) -> Any:
    return box._verbs.records.paths(box.id)


def test_on_the_command_line_the_same_words(cli: Command) -> None:
    """What the command line adds: nothing to what is its own, as Docker's; "Error: " to what the engine says."""
    cli("create", "--network", "none", "--name", "box", "base", *SLEEP).ok()
    identifier = cli("ps", "-aq", "--no-trunc").ok().out.strip()
    for verb, text in (
        (("kill",), f"Error: cannot kill container: box: container {identifier} is not running"),
        (("kill", "-s", "FOO"), "Error: invalid signal: FOO"),
        (("pause",), f"Error: container {identifier} is not running"),
        (("unpause",), f"Error: Container {identifier} is not paused"),
        (("top",), f"Error: container {identifier} is not running"),
        (("attach",), "You cannot attach to a stopped container, start it first"),
    ):
        done = cli(*verb, "box")
        assert (done.code, done.out, done.err) == (1, "", text + "\n"), verb
    done = cli("rename", "box", "box")
    assert (done.code, done.err.splitlines()[0]) == (
        1,
        "Error: Renaming a container with the same name as its current name",
    )
    assert cli("stop", "box").ok().out == "box\n"
    assert cli("wait", "box").ok().out == "0\n"
