"""States follow from facts, and the table says what each of them allows."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from sampan.errors import Conflict, NotFound, NotModified
from sampan.oci import lifecycle as life

DOCS = Path(__file__).parents[2] / "docs"
ID = "4" * 64


def test_every_combination_of_facts_has_one_state() -> None:
    for started, exited, monitor, locked, frozen in itertools.product((False, True), repeat=5):
        found = life.derive(starts=3, started=started, exited=exited, monitor=monitor, locked=locked, frozen=frozen)
        assert found in life.STATES
        due = life.derive(
            starts=3, started=started, exited=exited, monitor=monitor, locked=locked, frozen=frozen, restart=True
        )
        assert due == (life.RESTARTING if exited else found)
        if exited:
            # Also while its monitor still flushes the log, and whoever looks at the lock.
            assert found == life.EXITED
        elif monitor:
            runs = life.PAUSED if frozen else life.RUNNING
            assert found == (runs if started else life.STARTING)
        else:
            assert found == (life.STARTING if locked else life.LOST)


def test_a_container_without_a_start_is_created_whoever_holds_its_lock() -> None:
    for locked in (False, True):
        facts = {"started": False, "exited": False, "monitor": False, "locked": locked}
        assert life.derive(starts=0, **facts) == life.CREATED


def test_the_table_is_complete() -> None:
    for verb, row in life.TABLE.items():
        assert set(row) == set(life.STATES), verb
        assert set(row.values()) <= {"yes", "no", "already so", "gone"}
    assert set(life.MEANING) == set(life.STATES)


def test_the_predicates_say_what_the_table_says() -> None:
    assert [s for s in life.STATES if life.can_start(s)] == [life.CREATED, life.EXITED]
    assert [s for s in life.STATES if life.can_stop(s)] == [life.RUNNING, life.PAUSED, life.RESTARTING]
    assert [s for s in life.STATES if life.can_kill(s)] == [life.RUNNING, life.PAUSED, life.RESTARTING]
    assert [s for s in life.STATES if life.can_exec(s)] == [life.RUNNING]
    assert [s for s in life.STATES if life.can_attach(s)] == [life.RUNNING]
    assert [s for s in life.STATES if life.can_remove(s)] == [life.CREATED, life.EXITED, life.DEAD]
    assert [s for s in life.STATES if not life.can_remove(s, force=True)] == [life.STARTING, life.REMOVING]


@pytest.mark.parametrize(
    ("verb", "state", "kind", "text"),
    [
        (life.START, life.RUNNING, NotModified, "already running"),
        (life.STOP, life.EXITED, NotModified, "already stopped"),
        (life.STOP, life.CREATED, NotModified, "already stopped"),
        (life.KILL, life.EXITED, Conflict, f"container {ID} is not running"),
        (life.EXEC, life.CREATED, Conflict, f"container {ID} is not running"),
        (life.ATTACH, life.EXITED, Conflict, "You cannot attach to a stopped container, start it first"),
        (
            life.REMOVE,
            life.RUNNING,
            Conflict,
            'cannot remove container "/box": container is running: stop the container before removing or force remove',
        ),
        (life.START, life.RESTARTING, NotModified, "already running"),
        (life.EXEC, life.RESTARTING, Conflict, f"Container {ID} is restarting, wait until the container is running"),
        (life.PAUSE, life.RESTARTING, Conflict, f"Container {ID} is restarting, wait until the container is running"),
        (life.TOP, life.RESTARTING, Conflict, f"Container {ID} is restarting, wait until the container is running"),
        (life.UNPAUSE, life.RESTARTING, Conflict, f"Container {ID} is not paused"),
        (
            life.ATTACH,
            life.RESTARTING,
            Conflict,
            "You cannot attach to a restarting container, wait until it is running",
        ),
        (
            life.REMOVE,
            life.RESTARTING,
            Conflict,
            'cannot remove container "/box": container is restarting: stop the container before removing or force remove',
        ),
        (life.STOP, life.REMOVING, NotFound, "No such container: box"),
        (life.REMOVE, life.REMOVING, Conflict, "removal of container box is already in progress"),
        (life.RENAME, life.DEAD, Conflict, "its record cannot be read"),
        (life.START, life.STARTING, Conflict, "is being started by another command"),
        (life.START, life.DEAD, Conflict, "its record cannot be read"),
        (life.START, life.PAUSED, Conflict, "cannot start a paused container, try unpause instead"),
        (life.EXEC, life.PAUSED, Conflict, "Container box is paused, unpause the container before exec"),
        (life.ATTACH, life.PAUSED, Conflict, "You cannot attach to a paused container, unpause it first"),
        (life.PAUSE, life.PAUSED, Conflict, f"Container {ID} is already paused"),
        (life.PAUSE, life.EXITED, Conflict, f"container {ID} is not running"),
        (life.UNPAUSE, life.RUNNING, Conflict, f"Container {ID} is not paused"),
        (life.UNPAUSE, life.EXITED, Conflict, f"Container {ID} is not paused"),
        (
            life.REMOVE,
            life.PAUSED,
            Conflict,
            'cannot remove container "/box": container is paused and must be unpaused first',
        ),
    ],
)
def test_refusals_are_in_dockers_words(verb: str, state: str, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        life.check(verb, state, ID, "box")
    assert text in str(caught.value)


def test_what_is_allowed_raises_nothing() -> None:
    for verb, row in life.TABLE.items():
        for state, verdict in row.items():
            if verdict == "yes":
                life.check(verb, state, ID, "box")


def test_the_page_in_the_documentation_is_the_table() -> None:
    expected = life.table_markdown()
    assert (DOCS / "states.md").read_text() == expected, "print it anew: lifecycle.table_markdown()"
