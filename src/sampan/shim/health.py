"""The health of a container, watched by its shim: one probe at a time, started by a timer of the poll loop.

A probe is a process like an exec's, made by one fork and one clone. Nothing waits for it: that it runs, what it writes
and its end are events of the loop, so that a probe that hangs holds up neither the log nor anybody who is attached.
Only the shim of a container that has a health check imports this.
"""

from __future__ import annotations

import os
import select
import time

from sampan import jsontext
from sampan.kernel import clock, process
from sampan.shim import launch, protocol
from sampan.steps.base import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.kernel.livegroup import LiveGroup
    from sampan.shim.streams import Loop

MAKING_SECONDS = 5.0
"""That making the probe's process may take in any case: else its timeout, which is counted anew from then on (moby has half a
minute for it, which a timeout of a second does not mean)."""
KEPT_RESULTS = 5
OUTPUT_LIMIT = 4096
"""Bytes of what a probe says that are kept."""
FAILED = -1
"""The exit code of a probe that took too long or could not be started."""
_KILLED = 128 + 9
_DOUBT_SECONDS = 0.1
"""That a container may take to end after its probe was killed or could not be made."""
_END_SECONDS = 1.0
"""That a killed probe's end is waited for when the container has ended."""
_CHUNK = 65536


def pause(plan: protocol.HealthPlan, status: str, age: float) -> float:
    """How long to wait for the next probe of a container that has run for `age` seconds."""
    return plan.start_interval if status == "starting" and age < plan.start_period else plan.interval


def judge(plan: protocol.HealthPlan, health: dict[str, Any], result: dict[str, Any], age: float) -> dict[str, Any]:
    """The health after `result`, whose probe was started when the container had run for `age` seconds (moby,
    handleProbeResult): in the start period a failure does not count, until the first success.
    """
    status, streak = health["Status"], health["FailingStreak"]
    if result["ExitCode"] == 0:
        status, streak = "healthy", 0
    elif status != "starting" or age >= plan.start_period:
        streak += 1
        status = "unhealthy" if streak >= plan.retries else status
    return {"Status": status, "FailingStreak": streak, "Log": [*health["Log"], result][-KEPT_RESULTS:]}


class Prober:
    """Probes one container for as long as it runs. `text` is a `HealthPlan`."""

    def __init__(
        self, loop: Loop, text: str, group: LiveGroup, publish: Callable[[bytes], None], announce: Callable[[str], None]
    ) -> None:
        """`publish` is called with the health as a JSON document, at the start and whenever there is a result; `announce`
        then with the event, if that has changed the status.
        """
        self._loop = loop
        self._plan = protocol.HealthPlan.from_text(text)
        self._group = group
        self._publish = publish
        self._announce = announce
        self._health = self._plan.health
        self._init = -1
        self._begun = 0.0
        self._due = 0.0
        self._age = 0.0  # of the container, when the last probe was begun
        self._probe: Probe | None = None
        self._held: dict[str, Any] | None = None

    def begin(self, init: int) -> None:
        """The container runs; `init` is a descriptor of its main process."""
        self._init = init
        self._begun = time.monotonic()
        self._publish(self.document())
        self._wait()

    def document(self) -> bytes:
        """The health as it is."""
        return jsontext.dumps(self._health)

    def turn(self) -> float:
        """Do what is due. The seconds until something will be again, if no event comes before."""
        left = self._due - time.monotonic()
        if left > 0:
            return left
        if self._probe is not None:
            self._give_up(self._probe)
        elif self._held is not None:
            self._record(self._held)
        elif self._group.frozen():
            self._wait()  # paused: nothing in it could answer
        else:
            self._start()
        return max(0.0, self._due - time.monotonic())

    def end(self) -> None:
        """The container has ended: so does what probes it."""
        probe = self._probe
        if probe is not None:
            probe.told = True
            probe.kill()
            deadline = time.monotonic() + _END_SECONDS
            while self._probe is not None and time.monotonic() < deadline:
                self._loop.run_once(20)
            probe.close()

    def _wait(self) -> None:
        now = time.monotonic()
        self._due = now + pause(self._plan, self._health["Status"], now - self._begun)

    def _start(self) -> None:
        now = time.monotonic()
        self._due = now + max(self._plan.timeout, MAKING_SECONDS)
        self._age = now - self._begun
        self._probe = probe = Probe(self._loop, self._running, self._ended)
        probe.launch(self._plan.stages, self._init)

    def _running(self, probe: Probe) -> None:
        if not probe.told:
            self._due = time.monotonic() + self._plan.timeout

    def _give_up(self, probe: Probe) -> None:
        """It takes too long: kill it. Where not even that helps it goes on to count as a failure, and no other is begun."""
        probe.kill()
        probe.told = True
        if self._group.frozen():
            self._wait()  # paused in the middle of it, which says nothing about its health
            return
        said = probe.said()
        self._record(probe.result(FAILED, self._plan.too_long + (f": {said}" if said else "")))

    def _ended(self, probe: Probe, code: int, output: str) -> None:
        self._probe = None
        if probe.told:
            return
        result = probe.result(code, output)
        if code in (FAILED, _KILLED):
            # A container that ends takes its probe along, a moment before its own end is known. `end` drops this then.
            self._held = result
            self._due = time.monotonic() + _DOUBT_SECONDS
        else:
            self._record(result)

    def _record(self, result: dict[str, Any]) -> None:
        self._held = None
        before = self._health["Status"]
        self._health = judge(self._plan, self._health, result, self._age)
        self._publish(self.document())
        if self._health["Status"] != before:
            self._announce(f"health_status: {self._health['Status']}")
        self._wait()


class Probe:
    """One process that finds out whether a container is well, from its making to its end."""

    def __init__(self, loop: Loop, running: Callable[[Probe], None], ended: Callable[[Probe, int, str], None]) -> None:
        """`running` and `ended` are called when the process does, and has: with its exit code and what it said."""
        self._loop = loop
        self._tell_running = running
        self._tell_end = ended
        self._launching: launch.Launching | None = None
        self._output = self._pidfd = -1
        self._said = bytearray()
        self._start = clock.now()
        self.pid = 0
        self.told = False
        """Its result has been recorded, or it is to have none."""

    def launch(self, stages: str, init: int) -> None:
        """Begin to make the process, in the container whose main process is `init`."""
        ctx = Context()
        ctx.fds["init"] = init
        ends = []
        try:
            ends.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            self._output, writing = os.pipe2(os.O_CLOEXEC)
            ends.append(writing)
            # One pipe for both: what it says is kept in the order in which it says it.
            ctx.fds.update(stdin=ends[0], stdout=writing, stderr=writing)
            self._launching = launch.begin(stages, ctx)
        except OSError as e:
            self._end(FAILED, f"cannot start a process in the container: {e}")
            return
        finally:
            for fd in ends:
                os.close(fd)
        os.set_blocking(self._output, False)
        self._loop.watch(self._output, select.POLLIN, lambda _: self._read())
        # No event but the hang-up, which is the end of the making: the reports of its steps wait in the socket until then.
        self._loop.watch(self._launching.fileno(), 0, lambda _: self._made())

    def _made(self) -> None:
        assert self._launching is not None
        self._loop.forget(self._launching.fileno())
        outcome = launch.conclude(self._launching)
        self._launching = None
        if outcome.failed is not None:
            self._end(FAILED, launch.explain(outcome.failed))
            return
        self.pid = outcome.pid
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as e:
            self.kill()
            process.reap(self.pid)
            self._end(FAILED, f"cannot watch a process in the container: {e}")
            return
        self._loop.watch(self._pidfd, select.POLLIN, lambda _: self._exited())
        self._tell_running(self)

    def _read(self) -> None:
        try:
            data = os.read(self._output, _CHUNK)
        except BlockingIOError:
            return
        # One byte more than is kept tells that there was more.
        self._said += data[: OUTPUT_LIMIT + 1 - len(self._said)]
        if not data:
            self._close_output()

    def _exited(self) -> None:
        code = process.reap(self.pid)
        if self._output >= 0:
            self._read()  # the rest, if it is no more than a pipe holds; what it left running may hold it for ever
        self._end(code, self.said())

    def result(self, code: int, output: str) -> dict[str, Any]:
        """Docker's HealthcheckResult of a probe that ends now."""
        return {"Start": self._start, "End": clock.now(), "ExitCode": code, "Output": output}

    def said(self) -> str:
        """The beginning of what it wrote so far."""
        text = self._said[:OUTPUT_LIMIT].decode("utf-8", "replace")
        return f"{text}..." if len(self._said) > OUTPUT_LIMIT else text

    def kill(self) -> None:
        """SIGKILL to it and to what it started, as far as that is in its session. Its end comes as an event."""
        if self._launching is not None:
            self._launching.kill()
        elif self.pid:
            os.killpg(self.pid, 9)  # it made a session of its own, and is not reaped yet: the number is its

    def _end(self, code: int, output: str) -> None:
        self.close()
        self._tell_end(self, code, output)

    def close(self) -> None:
        """Let go of all descriptors."""
        if self._launching is not None:
            self._loop.forget(self._launching.fileno())
            self._launching.status.close()
            self._launching = None
        if self._pidfd >= 0:
            self._loop.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._close_output()

    def _close_output(self) -> None:
        if self._output >= 0:
            self._loop.forget(self._output)
            os.close(self._output)
            self._output = -1
