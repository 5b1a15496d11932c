"""The one list of actions: what it keeps, what its observer sees and when, and what it shows."""

from __future__ import annotations

import errno
import os

import pytest

from sampan.steps.trace import Event, Trace, event_from_json


def test_an_action_is_kept_with_time_and_success() -> None:
    trace = Trace()
    with trace.step("write record", "/r/record.json"):
        pass
    (event,) = trace.events
    assert (event.stage, event.text, event.errno, event.pid) == (
        "engine",
        "write record /r/record.json",
        0,
        os.getpid(),
    )
    assert event.seconds is not None
    assert event.seconds >= 0


def test_the_observer_sees_the_action_before_and_after() -> None:
    seen: list[tuple[str, bool]] = []
    done: list[str] = []
    trace = Trace(lambda event: seen.append((event.text, bool(done))))
    with trace.step("rename", "a"):
        done.append("renamed")
    assert seen == [("rename a", False), ("rename a", True)]


def test_an_observer_that_raises_before_the_action_keeps_it_from_happening() -> None:
    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    happened = False
    with pytest.raises(KeyboardInterrupt), Trace(stop).step("rename", "a"):
        happened = True
    assert not happened


def test_a_failed_action_keeps_its_errno_and_lets_the_error_pass() -> None:
    trace = Trace()
    with pytest.raises(OSError, match="No space left"), trace.step("write blob", "x"):
        raise OSError(errno.ENOSPC, "No space left on device", "x")
    assert trace.events[0].errno == errno.ENOSPC
    assert "No space left on device" in trace.events[0].line()
    assert "ENOSPC" in trace.events[0].line()


def test_a_failure_without_errno_counts_as_an_input_output_error() -> None:
    trace = Trace()
    with pytest.raises(ValueError, match="bad"), trace.step("read"):
        raise ValueError("bad")
    assert trace.events[0].errno == errno.EIO


def test_the_list_is_bounded_and_keeps_the_newest() -> None:
    trace = Trace()
    for n in range(Trace.LIMIT + 10):
        with trace.step("step", str(n)):
            pass
    assert len(trace.events) <= Trace.LIMIT
    assert trace.events[-1].text == f"step {Trace.LIMIT + 9}"


def test_names_that_are_not_utf8_are_shown() -> None:
    trace = Trace()
    with trace.step("unlink", b"caf\xe9"):
        pass
    assert os.fsencode(trace.events[0].text) == b"unlink caf\xe9"


def test_events_of_another_process_are_taken_as_they_are() -> None:
    seen: list[Event] = []
    trace = Trace(seen.append)
    begun = Event("stage2", "mount proc", 7)
    ended = begun.replace(seconds=0.00025, errno=0)
    for event in (begun, ended):
        trace.add(event_from_json(event.to_json()))
    assert seen == [begun, ended]
    assert trace.events == [ended]
    assert ended.line() == "stage2   mount proc: ok, 250 us"
    assert begun.line() == "stage2   mount proc ..."


def test_one_that_nobody_reads_keeps_nothing_and_tells_its_observer() -> None:
    seen: list[str] = []
    trace = Trace(lambda event: seen.append(event.text))
    trace.keeps = False
    with trace.step("rename", "a"):
        pass
    trace.add_later(lambda: [Event("stage1", "mount b", 1)])
    assert seen == ["rename a", "rename a", "mount b"]
    trace.observer = None
    trace.add_later(lambda: [Event("stage1", "mount c", 1)])
    assert trace.events == []
