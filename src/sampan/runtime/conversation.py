"""What a launcher says to the shim that it started, and what it makes of the answer: the plan goes in, a container runs.

Apart from `launcher`, because it is needed only when the plan is made: importing it is done while the shim comes up.
"""

from __future__ import annotations

import select
import struct
import time

from sampan.errors import StartFailed
from sampan.kernel.files import lock_holder
from sampan.runtime.handle import Attachment, frames_of
from sampan.shim import protocol
from sampan.steps.trace import NO_ERRNO, Event, Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from typing import Any
else:
    import _socket


_ASK_AGAIN = 1.0
_STOPPED_SECONDS = 3.0
"""After which nobody waits for the answer of a shim that is stopped."""
_SILENT_SECONDS = 90.0
"""After which nobody waits for any. A shim gives up what is stuck on its way after a minute itself (`shim.launch`), and says where."""


def start(control: Any, plan: protocol.LaunchPlan, descriptors: dict[str, int], trace: Trace) -> Attachment | None:
    """Hand over the plan; return when the container's program runs. See `launcher.ExecLaunch.start`."""
    attachment, theirs = None, None
    if "attach" in plan.descriptors:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        attachment = Attachment(ours)
        descriptors = {**descriptors, "attach": theirs.fileno()}
    try:
        answer = _converse(control, plan, [descriptors[name] for name in plan.descriptors], trace)
        trace.add_later(lambda: _events(plan, answer))
        if "message" in answer:
            raise StartFailed(answer["error"], answer["exit_code"], tuple(answer.get("steps", ())))
    except BaseException:
        if attachment is not None:
            attachment.close()
        raise
    finally:
        if theirs is not None:
            theirs.close()
    return attachment


def _converse(control: Any, plan: protocol.LaunchPlan, fds: list[int], trace: Trace) -> dict[str, Any]:
    lists: protocol.Stages | None = None
    try:
        body = plan.to_body(traced=trace.keeps or trace.observer is not None)
        _send(control, protocol.frame(protocol.PLAN, body), fds)
        if not plan.watched:
            _await_answer(control, f"{plan.directory}/monitor.lock")
        for kind, body in frames_of(control):
            answer: dict[str, Any] = protocol.loads(body)
            if kind != protocol.BEGIN:
                return answer
            lists = lists or plan.lists()
            trace.add(Event(answer["stage"], _text(plan, lists, answer), answer["pid"]))
            control.send(protocol.frame(protocol.GO))
    except (BrokenPipeError, ConnectionResetError):
        pass
    raise StartFailed(
        "the container's shim ended before it had started the container (was it killed, or could it not fork?)"
    )


def _await_answer(control: Any, lock: str) -> None:
    """Wait until the shim says something. Raises StartFailed if it will not: it is killed then, with what it has begun."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    begun = time.monotonic()
    while not poll.poll(_ASK_AGAIN * 1000):
        from sampan.kernel import processinfo  # in here: mostly the answer is there at once

        silent = time.monotonic() - begun
        shim = lock_holder(lock) or 0
        info = processinfo.look(shim) if shim > 0 else None
        stopped = info is not None and info.state in "Tt"
        if silent > _SILENT_SECONDS or (stopped and silent > _STOPPED_SECONDS):
            if info is not None:
                processinfo.kill_lock_holder(lock)
            why = "it was stopped" if stopped else "it waits for a disk or a file system, or the machine is overloaded"
            who = f", process {shim}," if info is not None else ""
            raise StartFailed(f"the container's shim{who} did not answer for {silent:.0f} s and was killed: {why}")


def _events(plan: protocol.LaunchPlan, answer: dict[str, Any]) -> list[Event]:
    """What the shim reported as done, and as failed, in words."""
    lists = plan.lists()
    events = [Event(d["stage"], _text(plan, lists, d), d["pid"], d["seconds"]) for d in answer.get("steps", ())]
    if "message" in answer:
        pid, seconds = answer.get("pid", 0), answer.get("seconds", 0.0)
        events.append(
            Event(answer["stage"], answer["step"], pid, seconds, answer["errno"] or NO_ERRNO, answer["error"])
        )
    else:
        events += [Event("stage2", step.describe(), answer["pid"], 0.0) for step in lists.stage2 if step.final]
    return events


def _text(plan: protocol.LaunchPlan, lists: protocol.Stages, at: dict[str, Any]) -> str:
    """The step that a report is about, in words."""
    if at["stage"] == "monitor":
        return str(plan.monitor[at["index"]].describe())
    return lists.text_of(at["stage"], at["index"])


def _send(control: Any, data: bytes, fds: list[int]) -> None:
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    sent = control.sendmsg([data], ancillary)
    if sent < len(data):
        control.sendall(data[sent:])
