"""The monitor: the long-lived process of a container. It owns the streams, the log, the pty and the exit code.

Its life, top to bottom in `Monitor.run`: take the plan; take monitor.lock, which says "running" to everybody for as long
as this process lives; launch init; serve until init ends; write the exit code down; tell those who wait; go.

It has one thread, imports nothing after `seal`, and holds nothing that is not on disk too but the streams: when it is
killed, its container dies with it (PR_SET_PDEATHSIG), and the next command finds that out from the lock.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
import struct
import time

from sampan.kernel import appendlog, clock, placement, process
from sampan.kernel.directories import make_private
from sampan.kernel.libc import give_memory_back
from sampan.oci import restart
from sampan.shim import launch, protocol, seal, stages, streams
from sampan.shim.documents import attempt, read_object, write_whole
from sampan.shim.execs import DRAIN_SECONDS, Execs
from sampan.shim.logs import JsonFile, Log
from sampan.shim.spill import Spill
from sampan.shim.streams import Client, Loop, Session
from sampan.steps.base import Context, Step
from sampan.steps.joining import CloneInit

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

    from sampan.shim.compressor import Compressor
    from sampan.shim.health import Prober
    from sampan.shim.keeperwatch import KeeperWatch
else:
    import _signal  # without the enums of `signal`

MAX_DESCRIPTORS = 253
"""That one plan may bring along: SCM_MAX_FD, unix(7)."""


class Monitor:
    """One container's life, from the plan to the exit code."""

    def __init__(self, control: Any) -> None:
        self.control = control
        self.loop = Loop()
        self.ctx = Context()
        self.clients: list[Client] = []
        self.ended: list[Session] = []
        self.execs = Execs(self.loop, self.ended, self._event)
        self.listener: Any = None
        self.plan: protocol.LaunchPlan
        self.session: Session
        self.lock = -1
        self.reserve = _reserve()
        self.log: Log | None = None
        self.compressor: Compressor | None = None
        self.prober: Prober | None = None
        self.keepers: list[KeeperWatch] = []
        self.identity: dict[str, Any] = {}
        """What the file `started` says of processes."""
        self.began = 0.0
        self.resting = False
        """Its program has ended, and it waits until it is time for the next start."""
        self.cancelled = False

    def run(self) -> list[str]:
        """Live. Returns the command to execute at the very end, [] for none."""
        if not self._take_plan():
            return []
        if not self._take_lock():
            return []
        outcome = self._launch()
        if outcome.failed is not None:
            self._conclude_failure(outcome)
            return []
        self._announce(outcome)
        self._serve()
        return self._conclude()

    # the start

    def _take_plan(self) -> bool:
        """The plan and the descriptors that came with it; False if the launcher changed its mind."""
        reader = protocol.Reader()
        received: list[int] = []
        frames: list[tuple[int, bytes]] = []
        room = _socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
        while not frames:
            data, ancillary, _, _ = self.control.recvmsg(1 << 18, room, _socket.MSG_CMSG_CLOEXEC)
            for level, kind, payload in ancillary:
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                    received += struct.unpack(f"{len(payload) // 4}i", payload[: len(payload) // 4 * 4])
            if not data:
                return False
            frames = reader.feed(data)
        self.plan = protocol.LaunchPlan.from_body(frames[0][1])
        self.ctx.fds.update(zip(self.plan.descriptors, received, strict=True))
        return True

    def _take_lock(self) -> bool:
        """A POSIX record lock, not an flock: children do not inherit it, so that only this process' life holds it.

        False if this start is over: the launcher was killed when the plan was on its way, and somebody found that nobody was at
        work on it (`engine.settle`, which holds the lock while it writes that down).
        """
        if self._is_over():
            return False  # asked before the lock is taken, too: another start may be about to take it
        self.lock = os.open(f"{self.plan.directory}/monitor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return not self._is_over()

    def _is_over(self) -> bool:
        return os.path.exists(f"{self.plan.start}/exit.json") or not os.path.isdir(self.plan.start)

    def _launch(self) -> launch.Outcome:
        plan = self.plan
        self._open_log()
        # Without a log there is no file of the container's output, and the program waits for slow clients.
        spill = Spill(f"{plan.directory}/spill") if self.log is not None else None
        self.session = Session(
            self.loop, plan.container, plan.open_stdin, plan.stdin_once, plan.terminal, self.log, spill
        )
        self.execs.directory = plan.run_directory
        outcome = self._own_steps()
        if outcome.failed is None:
            # Listening before init runs: a container that anybody sees running can be attached to.
            try:
                make_private(plan.run_directory)
                self.listener = streams.listen(plan.run_directory, "attach.sock")
            except OSError as e:
                attempt(lambda: os.rmdir(plan.run_directory))
                report = {"stage": "monitor", "index": 0, "step": "make the socket", "path": plan.run_directory}
                why = {"errno": e.errno, "syscall": "", "message": "", "advice": Step().advice(e.errno or 0)}
                outcome.failed = {**report, **why, "exit_code": 128}
                return outcome
            self.session.prepare(self.ctx)
            self._load_prober()
            self._watch_keepers()
            self.ctx.fds["start"] = _hold(plan.start)
            outcome = self._launch_init(outcome)
            seal.seal()  # the child sealed itself; from here on nothing is imported in this process either
        return outcome

    def _launch_init(self, outcome: launch.Outcome) -> launch.Outcome:
        """By the last of our own steps, if that clones init, for which all must be ready that it inherits; else by a fork."""
        plan, last = self.plan, len(self.plan.monitor) - 1
        launching = self._own_step(last, outcome, self._begin) if _clones(plan) else self._begin(None)
        if launching is None:
            return outcome
        self._identify(launching.stage2())
        launched = launch.finish(launching, self._ask_leave if plan.watched else None, plan.traced)
        launched.done = outcome.done + launched.done
        return launched

    def _identify(self, init: int) -> None:
        """What tells our process, and init's if there is one yet, from others that come to have their numbers: found out while we wait anyway."""
        self.identity.update(boot=clock.boot_id(), monitor=os.getpid(), monitor_start=process.start_time(os.getpid()))
        if init:
            self.identity.update(pid=init, pid_start=process.start_time(init))

    def _begin(self, clone: Step | None) -> launch.Launching:
        return launch.begin(self.plan.stages, self.ctx, True, self.plan.watched, clone)

    def _open_log(self) -> None:
        """The log's driver. Before the seal, and not in `boot`: what few containers have is imported for those."""
        log = self.plan.log
        if log.driver == "none":
            return
        if log.driver == "local":
            from sampan.shim.locallog import LocalFile

            self.log = LocalFile(log)
        else:
            self.log = JsonFile(log)
        self.log.tell_loss = self._publish_loss
        if log.compressor:
            from sampan.shim.compressor import Compressor

            self.compressor = Compressor(self.loop, log)
            self.log.rotated = self.compressor.rotated

    def _close_log(self) -> None:
        if self.log is not None:
            self.log.close()
        if self.compressor is not None:
            self.compressor.close()

    def _publish_loss(self) -> None:
        """For who reads the log or inspects the container; in the end it is in the exit file."""
        if self.log is not None:
            lost = protocol.dumps(self.log.lost)
            attempt(lambda: write_whole(f"{self.plan.run_directory}/{protocol.LOSS_FILE}", lost, sync=False))

    def _load_prober(self) -> None:
        """What a health check needs. Before the seal, and not in `boot`: a container without one does not pay for it."""
        if self.plan.health:
            from sampan.shim.health import Prober

            self.prober = Prober(self.loop, self.plan.health, self.plan.cgroup, self._publish_health, self._event)

    def _watch_keepers(self) -> None:
        """The lines to the keepers of its networks. Before the seal, as the prober."""
        if self.plan.keepers:
            from sampan.shim.keeperwatch import KeeperWatch

            for number, command in enumerate(self.plan.keepers):
                self.keepers.append(KeeperWatch(self.loop, self.ctx.fds.pop(f"keeper.{number}"), tuple(command)))

    def _publish_health(self, document: bytes) -> None:
        """For whoever inspects the container. On a full disk the last document stays until there is room for another."""
        attempt(lambda: write_whole(f"{self.plan.run_directory}/health.json", document, sync=False))

    def _own_steps(self) -> launch.Outcome:
        """The steps whose results this process keeps: the devpts and the pty; where init is to be born."""
        outcome = launch.Outcome()
        for index in range(len(self.plan.monitor) - _clones(self.plan)):
            self._own_step(index, outcome, lambda step: step.run(self.ctx))
            if outcome.failed is not None:
                break
        return outcome

    def _own_step(self, index: int, outcome: launch.Outcome, run: Callable[[Step], T]) -> T | None:
        """One of them, recorded in `outcome`: what `run` gives, None if it failed."""
        step = self.plan.monitor[index]
        if self.plan.watched:
            self._ask_leave({"stage": "monitor", "index": index, "pid": os.getpid()})
        begun = time.perf_counter()
        try:
            result = run(step)
        except Exception as e:
            outcome.failed = stages.failure("monitor", index, step, e)
            return None
        seconds = time.perf_counter() - begun
        outcome.done.append({"stage": "monitor", "index": index, "pid": os.getpid(), "seconds": seconds})
        return result

    def _ask_leave(self, begun: dict[str, Any]) -> None:
        """Announce a step to the launcher and wait until it lets us go on; a launcher that is gone lets us."""
        self._tell(protocol.BEGIN, **begun)
        try:
            self.control.recv(protocol.HEADER_SIZE)
        except OSError:
            pass

    def _tell(self, kind: int, **fields: Any) -> None:
        """Say something to the launcher, which may have been killed: the container does not depend on it."""
        try:
            self.control.sendall(protocol.message(kind, **fields))
        except OSError:
            pass

    def _announce(self, outcome: launch.Outcome) -> None:
        """Init runs. Write down who it is, tell the launcher, and begin to serve."""
        attached = self.ctx.fds.pop("attach", None)
        waiting = [self.ctx.fds.pop(name) for name in self.plan.descriptors if name.startswith(protocol.WAITING)]
        self.session.began(outcome.pid, self.ctx, self.ended.append)
        if self.prober is not None:
            self.prober.begin(self.session.pidfd)
        self.began = time.monotonic()
        if self.identity.get("pid") != outcome.pid:
            self._identify(outcome.pid)
        started = {**self.identity, "started": clock.now()}
        write_whole(f"{self.plan.start}/started", protocol.dumps(started), sync=False)
        self._event("start")  # by this process, so that no end can be told before it
        for name in [n for n in self.ctx.fds if n not in ("devpts",)]:
            self.ctx.close(name)  # descriptors of the plan: namespaces to join, sources of mounts
        self.loop.watch(self.listener.fileno(), select.POLLIN, self._accept)
        if attached is not None:
            client = self._client(_socket.socket(fileno=attached))
            client.join(self.session, {protocol.STDOUT, protocol.STDERR}, True)
            client.settles = True
        for waited in waiting:
            self._client(_socket.socket(fileno=waited)).receive()  # its ATTACH was there before the plan
        self._tell(protocol.STARTED, **started, steps=outcome.done)
        self.control.close()
        # A shim lives as long as its container: what only the start needed is given back.
        self.plan = self.plan.replace(monitor=(), stages="", health="")
        outcome.done.clear()
        give_memory_back()

    def _event(self, action: str, then: tuple[str, ...] = (), **extra: str) -> None:
        """Append an event of the container to the journal, `then` those that come with it; what cannot be written is lost."""
        if not self.plan.events:
            return
        event = protocol.loads(self.plan.events[0].encode("ascii"))
        if action != "start":
            record = read_object(f"{self.plan.directory}/record.json") or {}  # it may have been renamed
            event["attributes"]["name"] = record.get("name", event["attributes"]["name"])
        # What labels say comes before what is special to the event, as with Docker.
        event.update(action=action, time=time.time_ns(), attributes={**extra, **event["attributes"]})
        others = ({**protocol.loads(text.encode("ascii")), "time": time.time_ns()} for text in then)
        told = appendlog.BETWEEN.join(map(protocol.dumps, (event, *others)))
        path, limit = self.plan.journal
        attempt(lambda: appendlog.append(path, told, limit))

    # serving

    def _serve(self) -> None:
        while self.session not in self.ended:
            waits = [s.seconds_left for s in self.ended]
            if self.prober is not None:
                waits.append(self.prober.turn())
            if (making := self.execs.turn()) is not None:
                waits.append(making)
            if self.session.stuck:
                waits.append(1.0)
                self.session.regulate()  # the disk may have room again
            self.loop.run_once(int(min(waits) * 1000) + 1 if waits else None)
            for session in [s for s in self.ended if s is not self.session]:
                self.execs.end(session)
            self.clients = [c for c in self.clients if not c.closed]

    def _accept(self, _events: int) -> None:
        try:
            fd, _ = self.listener._accept()
        except OSError as e:
            if e.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            return
        self._client(_socket.socket(fileno=fd)).look()  # who connects asks something, and mostly has already

    def _turn_away(self) -> None:
        """Out of descriptors: the one in reserve takes the client in to hang up on it. Else poll would report it for ever."""
        os.close(self.reserve)
        try:
            os.close(self.listener._accept()[0])
        except OSError:
            pass  # it has gone by itself
        self.reserve = _reserve()

    def _client(self, connection: Any) -> Client:
        client = Client(self.loop, connection, self._command)
        self.clients.append(client)
        return client

    def _command(self, client: Client, kind: int, body: dict[str, Any]) -> None:
        """ATTACH, WAIT and EXEC: what a client asks before it listens; CANCEL."""
        if kind == protocol.CANCEL:
            self.cancelled = True
        elif self.resting:
            self._put_off(client, kind)
        elif kind in (protocol.ATTACH, protocol.WAIT):
            kinds = {k for k, name in ((protocol.STDOUT, "stdout"), (protocol.STDERR, "stderr")) if body.get(name)}
            if client.session is not None:
                client.kinds, client.feeds_stdin = kinds, bool(body.get("stdin"))
            else:
                client.join(self.session, kinds, bool(body.get("stdin")))
            client.send(protocol.message(protocol.REPLY, pid=self.session.pid))
        elif kind == protocol.EXEC and client.session is None and not client.gone:
            devpts = self.ctx.fds.get("devpts", -1)
            self.execs.start(client, protocol.ExecPlan.from_json(body), self.session.pidfd, devpts)
        else:
            raise protocol.ProtocolError(f"message {kind}")

    def _put_off(self, client: Client, kind: int) -> None:
        """There is no program now. Who waits for what comes next hears of it by our end."""
        if kind == protocol.EXEC:
            words = "the container is restarting"
            client.send(protocol.message(protocol.FAILED, message=words, error=words, exit_code=126))
            client.finish()
        else:
            client.send(protocol.message(protocol.REPLY, pid=0))

    # the end

    def _conclude(self) -> list[str]:
        """Init is dead: its code, the end of its log, exit.json; then whoever waits; then nobody needs us."""
        session = self.session
        self.loop.forget(session.pidfd)
        code = process.reap(session.pid)
        for keeper in self.keepers:
            keeper.close()  # its ports are free, whatever the rest takes
        group = self.plan.cgroup
        if self.plan.shared_pid:
            attempt(lambda: group.kill(5, 1))  # init was no pid 1: the others of the container are still there
        self.execs.end_all()
        self._end_prober()
        session.drain(DRAIN_SECONDS)
        oom = group.oom_kills() > 0
        report = {"exit_code": code, "oom_killed": oom}
        session.close()
        self._close_log()
        again = self._restart_due(code)
        # Before the exit file: killed in between, we are lost, and who settles that looks whether this was told.
        if oom:
            self._event("oom")
        # Networks may have been connected and left since the start (`engine.connections`).
        events = (read_object(f"{self.plan.start}/events") or {}).get("events", self.plan.events)
        self._event("die", events[1:], exitCode=str(code), execDuration=str(int(time.monotonic() - self.began)))
        lost = {"log_lost": self.log.lost} if self.log is not None and self.log.lost else {}
        self._write_exit(
            **report, **lost, finished=clock.now(), error="", failed=False, **({"restart": again} if again else {})
        )
        if self.plan.temporary:
            # Nobody starts it again: who waits for its end is at work meanwhile, up to its removal, which waits for our lock.
            session.tell_exit(**report)
        attempt(group.remove)
        if again is not None:
            # Now, and not after the rest: for who waits, this run is over.
            session.tell_exit(**report)
            if self._rest(again["delay"]):
                return self._hand_over()
        self._stop_listening()
        # From here on a new start may have the container; what is left is between us and our clients.
        os.close(self.lock)
        if again is None and not self.plan.temporary:
            session.tell_exit(**report)
        self._linger()
        told = any(c.was_told and c.settles for c in self.clients)
        return [] if told or again is not None or not self.plan.settles else list(self.plan.reaper)

    def _restart_due(self, code: int) -> dict[str, Any] | None:
        """The restart that this end makes due. By the record as it is now: an update may have changed the policy."""
        record = {} if self.plan.temporary else read_object(f"{self.plan.directory}/record.json") or {}
        policy = record.get("host_config", {}).get("RestartPolicy") or {}
        intent, before = read_object(f"{self.plan.start}/stopping"), read_object(f"{self.plan.start}/restarted")
        due = restart.due(policy, code, intent, before, time.monotonic() - self.began)
        return None if due is None else {**due, "boot": clock.boot_id()}

    def _rest(self, delay: float) -> bool:
        """Wait until it is time for the restart; False if it is not for us to make (a stop, or `restart` itself).

        The intent is read once more, now that the exit can be seen: whoever writes one from here on sees that there is
        somebody to tell.
        """
        intent = read_object(f"{self.plan.start}/stopping")
        if restart.is_cancelled(intent) or (intent is not None and intent.get("again")):
            return False
        self.resting = True
        until = time.monotonic() + delay
        while not self.cancelled and time.monotonic() < until:
            self.loop.run_once(int((until - time.monotonic()) * 1000) + 1)
            self.clients = [c for c in self.clients if not c.closed]
        return not self.cancelled

    def _hand_over(self) -> list[str]:
        """The command that makes the restart, as which this process goes on: monitor.lock stays held until it has the record lock."""
        self._stop_listening()
        if any(not c.is_served for c in self.clients) and process.fork() == 0:
            # Who has not taken all of its bytes yet is served by a copy of us, which the restart does not wait for.
            self._linger()
            os._exit(0)
        os.set_inheritable(self.lock, True)
        return [*self.plan.reaper, "restart", os.path.basename(self.plan.start), str(self.lock)]

    def _end_prober(self) -> None:
        """What was found out stays with the start, for the run directory goes."""
        prober = self.prober
        if prober is not None:
            prober.end()
            attempt(lambda: write_whole(f"{self.plan.start}/health.json", prober.document(), sync=False))

    def _conclude_failure(self, outcome: launch.Outcome) -> None:
        """The start has failed: leave nothing but the reason."""
        failed = outcome.failed or {}
        if hasattr(self, "session"):
            self.session.close_program_ends(self.ctx)
            self.session.close()
        self._close_log()
        attempt(self.plan.cgroup.kill)
        attempt(self.plan.cgroup.remove)
        if self.listener is not None:
            self._stop_listening()
        self._write_exit(
            exit_code=failed["exit_code"],
            oom_killed=False,
            finished=clock.now(),
            error=launch.explain(failed),
            failed=True,
        )
        os.close(self.lock)
        self._tell(protocol.FAILED, **failed, error=launch.explain(failed), steps=outcome.done)

    def crashed(self, error: BaseException) -> None:
        """A fault of ours: leave word of it where somebody can find it, tell the launcher, and let the container be "lost"."""
        places = []
        trace = error.__traceback__
        while trace is not None:  # by hand: the traceback module cannot be imported any more
            places.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
            trace = trace.tb_next
        text = f"{type(error).__name__}: {error} ({' < '.join(reversed(places))})"
        if hasattr(self, "plan"):
            attempt(lambda: write_whole(f"{self.plan.start}/crash", text.encode("utf-8", "replace"), sync=False))
        report = {"stage": "monitor", "index": 0, "step": "monitor", "errno": 0, "exit_code": 128, "message": text}
        self._tell(protocol.FAILED, **report, error=f"the container's shim failed: {text}")

    def _write_exit(self, **report: Any) -> None:
        """The exit code, whole and synced, in the blocks that were reserved at the start: a full disk loses no exit code.

        Not synced for a container with `--rm`, which saves the run a write to the disk. What a power cut can take is the content of this file, and then the container counts as lost (255) instead
        of exited. Both mean the same for it: the next command removes it. Its code is told on the socket, and nobody can
        ask for it later: the file that would have to last is the one that the removal deletes.
        """
        write_whole(f"{self.plan.start}/exit.json", protocol.dumps(report), sync=not self.plan.temporary)

    def _stop_listening(self) -> None:
        """Close the socket, and take away all that this run has in the run directory."""
        self.loop.forget(self.listener.fileno())
        self.listener.close()
        try:
            for name in os.listdir(self.plan.run_directory):
                os.unlink(f"{self.plan.run_directory}/{name}")
            os.rmdir(self.plan.run_directory)
        except OSError:
            pass  # removed with its container by somebody quicker

    def _linger(self) -> None:
        """Stay for as long as a client has not taken all of its bytes; a client that has gone frees us."""
        for client in self.clients:
            if client.session is None:
                client.close()
        while any(not c.closed for c in self.clients):
            self.loop.run_once(None)


def _hold(directory: str) -> int:
    """An flock(2) on a start's directory, which its children inherit and execve closes: by that others know that one of them
    is still at work, though their monitor was killed (`engine.settle`).
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)  # somebody may be asking whether it is held, for a moment
    return fd


def _clones(plan: protocol.LaunchPlan) -> bool:
    """Whether one process runs both lists, cloned by the last of the monitor's steps."""
    return bool(plan.monitor) and isinstance(plan.monitor[-1], CloneInit)


def _reserve() -> int:
    """A descriptor to give up when there are no more."""
    return os.open("/", os.O_PATH | os.O_CLOEXEC)


def main(control_fd: int) -> None:
    """The monitor from its first moment; the process is this and nothing else."""
    os.umask(0)
    os.chdir("/")
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGPIPE):
        _signal.signal(number, _signal.SIG_IGN)
    process.set_dumpable(False)
    placement.be_spared()
    leave()
    live(control_fd)


def leave() -> None:
    """Be a process of its own. All else a zygote's child has from the zygote."""
    os.setsid()
    # The container's signals come as messages; ours end us only by SIGKILL.
    _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)
    process.set_name("sampan-shim")


def live(control_fd: int) -> None:
    """The monitor's life, over the launcher's socket."""
    monitor = Monitor(_socket.socket(fileno=control_fd))
    try:
        reaper = monitor.run()
    except BaseException as e:
        monitor.crashed(e)
        os._exit(1)
    if reaper:
        process.default_signals()
        os.umask(0o022)
        # Without our environment, whose LD_LIBRARY_PATH names a descriptor of the past.
        os.execve(reaper[0], reaper, {"PATH": os.environ.get("PATH", "")})
