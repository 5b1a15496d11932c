"""The endurance run: containers live and end for as long as one likes, while random processes of the engine are killed.

    python -m support.soak [--starts N] [--seconds N] [--seed N] [--workers N] [--no-kills]

Workers take containers through whole lives by the command line and by the library; beside them a killer sends SIGKILL to commands,
monitors and reapers. What every command answers is checked: an exit code may only be another one than the program's if
a process of that very container was killed. In the end nothing may be there that was not there before, `system check` finds
nothing, and those who lived all along hold no more memory and descriptors than at the beginning. The seed chooses what is
done; which of the things that happen at once comes first is the machine's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.errors import SampanError

from support.patience import patience
from support.residents import RESIDENTS, ids_of_residents, keep_busy, measure, settle_down, start_residents
from support.roots import BASE, Root

CODES = (0, 1, 7, 42, 200)
LOST = 255
KILLED = 128 + 9
MEMORY_SLACK = 256 << 10
"""That a process may have more of in the end, in bytes: what lies around in its heap at that moment."""
_LATE = 120.0


@dataclass
class Done:
    """How a command ended. `killed`: by the killer."""

    args: tuple[str, ...]
    code: int
    out: str
    err: str
    killed: bool
    begun: float

    def __str__(self) -> str:
        return f"{' '.join(self.args)}: exit code {self.code}: {self.out[-300:]!r} {self.err[-300:]!r}"


@dataclass
class Figures:
    """What is told at the end."""

    seed: int
    seconds: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    excused: int = 0
    problems: list[str] = field(default_factory=list)
    before: dict[str, object] = field(default_factory=dict)
    after: dict[str, object] = field(default_factory=dict)

    @property
    def starts(self) -> int:
        return self.done["starts"]

    def text(self) -> str:
        lines = [f"soak: seed {self.seed}, {self.seconds:.0f} s, {self.starts} starts"]
        lines += [f"  {name:24}{number:>8}" for name, number in sorted(self.done.items())]
        lines += [f"  killed: {name:16}{number:>8}" for name, number in sorted(self.kills.items())]
        lines += [f"  {'hurt by a kill':24}{self.excused:>8}", f"  {'failures':24}{len(self.problems):>8}"]
        lines += [f"  {'':36}{'before':>16}{'after':>16}"]
        lines += [f"  {name:36}{self.before[name]!s:>16}{self.after.get(name, '-')!s:>16}" for name in self.before]
        return "\n".join([*lines, *(f"FAILURE {problem}" for problem in self.problems)])


class Hurt(Exception):
    """What is being done met a kill: it goes no further, and is no failure."""


class Soak:
    """One run on a root of its own."""

    def __init__(self, root: Root, figures: Figures) -> None:
        self.root = root
        self.figures = figures
        self.stopping = threading.Event()
        self._guard = threading.Lock()
        self._living: dict[int, subprocess.Popen[bytes]] = {}
        self._slain: set[int] = set()
        self._hurt: set[str] = set()  # names of containers of which a process was killed
        self._strays: list[float] = []  # when shims were killed that had not said whose they are
        self._names = 0

    # Commands and what is expected of them

    def command(self, *args: str, killable: bool = True) -> Done:
        """Run a command to its end; the killer may find it."""
        begun = time.monotonic()
        process = self.root.cli.start(
            *args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        with self._guard:
            if killable:
                self._living[process.pid] = process
        try:
            out, err = process.communicate(timeout=patience(_LATE))
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            self.problem(f"{' '.join(args)}: no end after {_LATE:.0f} s: {os.fsdecode(err)}")
        with self._guard:
            self._living.pop(process.pid, None)
            killed = process.pid in self._slain
            self._slain.discard(process.pid)
        self.count("commands")
        return Done(
            args, process.returncode, os.fsdecode(out), os.fsdecode(err), killed and process.returncode < 0, begun
        )

    def insist(self, *args: str, name: str = "") -> Done:
        """The same command again and again until it was not killed, as a user would."""
        while (done := self.command(*args)).killed:
            pass
        return self.expect(done, done.code == 0, name)

    def expect(self, done: Done, right: bool, name: str = "") -> Done:
        """It is as it should be; or a process of that container was killed, and what is done with it ends here."""
        if right:
            return done
        if done.killed or self.is_hurt(name) or self._met_a_stray(done):
            self.figures.excused += 1
            raise Hurt
        self.problem(str(done))
        raise Hurt

    def is_hurt(self, name: str) -> bool:
        with self._guard:
            return name in self._hurt

    def _met_a_stray(self, done: Done) -> bool:
        """Whether its shim was killed before it said whose it is: then the command says that it was killed."""
        with self._guard:
            return "killed" in done.err and any(at >= done.begun for at in self._strays)

    def problem(self, text: str) -> None:
        with self._guard:
            self.figures.problems.append(text)

    def count(self, what: str, number: int = 1) -> None:
        with self._guard:
            self.figures.done[what] += number

    def new_name(self) -> str:
        with self._guard:
            self._names += 1
            return f"soak-{self._names}"

    def state(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.insist("inspect", name, name=name).out)[0]
        return {**document["State"], "RestartCount": document["RestartCount"]}

    # Lives

    def run_and_remove(self, choice: random.Random) -> None:
        name, code = self.new_name(), choice.choice(CODES)
        script = f"echo out; sleep {choice.choice((0, 0, 0.1))}; echo err >&2; exit {code}"
        done = self.command("run", "--rm", "--name", name, "--network", "none", "base", "sh", "-c", script)
        self.count("starts")
        self.expect(done, (done.code, done.out, done.err) == (code, "out\n", "err\n"), name)

    def run_in_the_library(self, choice: random.Random) -> None:
        name, code = self.new_name(), choice.choice(CODES)
        self.count("starts")
        with self.root.engine() as engine:
            try:
                ended = engine.containers.run(
                    "base", ["sh", "-c", f"cat; exit {code}"], name=name, input="in", network="none"
                )
                right, text = (ended.exit_code, ended.stdout) == (code, "in"), str(ended)
            except SampanError as e:
                right, text = False, f"{type(e).__name__}: {e}"
        # Its own process is never killed: what it meets is another's fault.
        done = Done(("library", name), -1, "", text, False, time.monotonic() - patience(30))
        self.expect(done, right, name)

    def whole_life(self, choice: random.Random) -> None:
        """Started, meddled with, stopped or killed, started again, removed."""
        name, code = self.new_name(), choice.choice(CODES)
        flags = choice.choice(
            ((), ("--memory", "64m"), ("--restart", "unless-stopped"), ("--tmpfs", "/t"), ("-v", "soak:/data"))
        )
        script = f"trap 'exit {code}' TERM; echo ready; while :; do sleep 0.02; done"
        with self.removed_in_the_end(name):
            done = self.command("run", "-d", "--name", name, "--network", "none", *flags, "base", "sh", "-c", script)
            self.expect(done, done.code == 0, name)
            for _ in range(choice.randrange(1, 3)):
                self.count("starts")
                self.await_log(name, "ready")
                for _ in range(choice.randrange(3)):
                    self.meddle(name, choice)
                expected = self.end(name, code, choice)
                state = self.state(name)
                self._check_exit(name, state, expected)
                self.insist("start", name, name=name)
            self.count("starts")

    def end(self, name: str, code: int, choice: random.Random) -> int:
        """Stop or kill it; the exit code that it must have."""
        self.count("stops")
        if choice.random() < 0.6:
            self.insist("stop", "-t", "60", name, name=name)
            return code
        done = self.command("kill", name)
        if done.killed:
            self.insist(
                "stop", "-t", "0", name, name=name
            )  # whichever came first was SIGKILL, or the program's own answer
            return -1
        self.expect(done, done.code == 0, name)
        return KILLED

    def _check_exit(self, name: str, state: dict[str, Any], expected: int) -> None:
        right = state["Status"] == "exited" and (expected < 0 or state["ExitCode"] == expected)
        done = Done(
            ("exit of", name, f"{expected} expected"), state["ExitCode"], str(state), "", False, time.monotonic()
        )
        self.expect(done, right, name)

    def meddle(self, name: str, choice: random.Random) -> None:
        verb = choice.choice(("exec", "pause", "restart", "update", "top", "stats", "logs"))
        if verb == "exec":
            code = choice.choice(CODES)
            done = self.command("exec", name, "sh", "-c", f"echo in; exit {code}")
            self.expect(done, done.killed or (done.code, done.out) == (code, "in\n"), name)
        elif verb == "pause":
            self.command("pause", name)
            self.command("unpause", name)
            if self.state(name)["Paused"]:
                self.insist("unpause", name, name=name)
        elif verb == "restart":
            self.insist("restart", "-t", "60", name, name=name)
            self.count("starts")
            self.await_log(name, "ready")
        elif verb == "update":
            self.insist("update", "--pids-limit", str(choice.randrange(50, 99)), name, name=name)
        elif verb == "stats":
            self.insist("stats", "--no-stream", name, name=name)
        else:
            self.insist(verb, name, name=name)

    def restarted_by_its_policy(self, choice: random.Random) -> None:
        name, code, times = self.new_name(), choice.choice(CODES[1:]), choice.randrange(1, 4)
        with self.removed_in_the_end(name):
            policy = f"on-failure:{times}"
            done = self.command("run", "-d", "--name", name, "--restart", policy, "base", "sh", "-c", f"exit {code}")
            self.expect(done, done.code == 0, name)
            self.count("starts")
            state = self._await(name, lambda state: state["Status"] == "exited")
            self._check_exit(name, state, code)
            done = Done(("restarts of", name, f"{times} expected"), 0, str(state), "", False, time.monotonic())
            self.expect(done, state["RestartCount"] == times, name)
            self.count("restarts", times)
            self.count("starts", times)

    def watched(self, choice: random.Random) -> None:
        """Its health check finds it well, and then ill."""
        name = self.new_name()
        flags = ("--health-cmd", "test -e /well", "--health-interval", "100ms", "--health-retries", "2")
        script = "touch /well; trap 'exit 3' TERM; while :; do sleep 0.02; done"
        with self.removed_in_the_end(name):
            done = self.command("run", "-d", "--name", name, "--network", "none", *flags, "base", "sh", "-c", script)
            self.expect(done, done.code == 0, name)
            self.count("starts")
            self._await(name, lambda state: state["Health"]["Status"] == "healthy")
            self.insist("exec", name, "rm", "-f", "/well", name=name)
            self._await(name, lambda state: state["Health"]["Status"] == "unhealthy")
            self.count("health checks", 2)
            self.insist("stop", name, name=name)
            self._check_exit(name, self.state(name), 3)

    def talkative(self, choice: random.Random) -> None:
        """It writes more than a file of its log may hold, and of what is kept nothing is missing."""
        name, lines = self.new_name(), choice.randrange(2000, 6000)
        with self.removed_in_the_end(name):
            done = self.command("run", "-d", "--name", name, *LOG_FLAGS, "--network", "none", "base", "seq", str(lines))
            self.expect(done, done.code == 0, name)
            self.count("starts")
            done = self.insist("wait", name, name=name)
            self.expect(done, done.out == "0\n", name)
            kept = self.insist("logs", name, name=name).out.split()
            self.expect(Done(("log of", name), 0, str(kept[-3:]), "", False, done.begun), _is_tail(kept, lines), name)

    def look_around(self, choice: random.Random) -> None:
        args = choice.choice(
            (
                ("ps",), ("ps", "-a"), ("ps", "-as"), ("ps", "-q", "--filter", "status=running"), ("system", "df"),
                ("images",), ("events", "--since", "3s", "--until", "0s"), ("stats", "--no-stream"),
                ("volume", "ls"), ("info",),
            )
        )  # fmt: skip
        done = self.command(*args)
        self.expect(done, done.code == 0)

    @contextlib.contextmanager
    def removed_in_the_end(self, name: str) -> Iterator[None]:
        try:
            yield
        finally:
            done = self.insist("rm", "-f", name)
            if "No such container" not in done.err and done.err:
                self.problem(str(done))

    def await_log(self, name: str, text: str) -> None:
        self._await(name, lambda _: text in self.insist("logs", "--tail", "1", name, name=name).out)

    def _await(self, name: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + patience(60)
        while True:
            state = self.state(name)
            if wanted(state):
                return state
            late = time.monotonic() > deadline
            if late or (self.is_hurt(name) and state["Status"] == "exited"):
                self.expect(Done(("waiting for", name), 0, str(state), "", False, deadline), False, name)
            time.sleep(0.05)

    # The killer

    def kill_something(self, choice: random.Random) -> None:
        with self._guard:
            # From here on no command is forgotten, so that whose pid it is cannot have become another's.
            commands = [p for p in self._living.values() if p.poll() is None]
            if commands and choice.random() < 0.5:
                victim = choice.choice(commands)
                self._slain.add(victim.pid)
                victim.kill()
                self.figures.kills["commands"] += 1
                return
        found = list(self._monitors_and_reapers())
        if found:
            pid, kind, name = choice.choice(found)
            self._kill(pid, kind, name)

    def _monitors_and_reapers(self) -> Iterator[tuple[int, str, str]]:
        """(pid, what it is, the container's name) of what belongs to this root, but for the residents'."""
        containers = f"{self.root.root}/containers/"
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
                if any(word.endswith("/reaper.py") for word in words) and str(self.root.root) in words:
                    yield pid, "reapers", self._name_of(words[words.index(str(self.root.root)) + 2])
                elif any(word.endswith("/shim/__main__.py") for word in words):
                    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
                    held = [link for link in links if link.startswith(containers) and link.endswith("/monitor.lock")]
                    if held:
                        yield pid, "monitors", self._name_of(held[0].removeprefix(containers).split("/")[0])
            except (OSError, Hurt):
                continue

    def _name_of(self, container_id: str) -> str:
        try:
            record = json.loads((self.root.root / "containers" / container_id / "record.json").read_text())
        except (OSError, ValueError):
            raise Hurt from None  # on its way out
        if record["name"] in RESIDENTS:
            raise Hurt
        return str(record["name"])

    def _kill(self, pid: int, kind: str, name: str) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # Now that the number cannot become another's: is it still who it was?
            if (pid, kind, name) in self._monitors_and_reapers():
                with self._guard:
                    self._hurt.add(name)  # before the kill: nobody must see its end without knowing why
                    self.figures.kills[kind] += 1
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    # All of it

    LIVES = (
        (run_and_remove, 6), (whole_life, 5), (run_in_the_library, 2), (restarted_by_its_policy, 2), (watched, 2),
        (talkative, 2), (look_around, 4),
    )  # fmt: skip

    def work(self, number: int) -> None:
        choice = random.Random(f"{self.figures.seed} {number}")
        lives, weights = zip(*self.LIVES, strict=True)
        while not self.stopping.is_set():
            (life,) = choice.choices(lives, weights)
            try:
                life(self, choice)
            except Hurt:
                continue
            except Exception as e:
                self.problem(f"{life.__name__}: {type(e).__name__}: {e}")

    def kill(self) -> None:
        choice = random.Random(f"{self.figures.seed} killer")
        while not self.stopping.wait(choice.uniform(0.1, 1.2)):
            self.kill_something(choice)


LOG_FLAGS = ("--log-opt", "max-size=32k", "--log-opt", "max-file=2")
"""A log that is turned over several times in one such life."""


def _is_tail(kept: list[str], lines: int) -> bool:
    return bool(kept) and kept == [str(number) for number in range(lines - len(kept) + 1, lines + 1)]


def soak(
    seed: int, starts: int = 0, seconds: float = 0.0, workers: int = 4, kills: bool = True, told: bool = False
) -> Figures:
    """Run until so many containers were started, or for so long; whichever is given, the first one that is reached."""
    figures = Figures(seed)
    root = Root(BASE / f"soak-{os.getpid()}")
    try:
        # The volume and the default network are made when they are first needed.
        root.cli("run", "--rm", "-v", "soak:/data", "base", "true").ok()
        start_residents(root)
        keep_busy(root)
        run = Soak(root, figures)
        with root.engine() as engine:  # what the library imports and opens once is there
            engine.containers.run("base", ["true"], network="none")
        settle_down(root)
        figures.before = measure(root)
        begun = time.monotonic()
        threads = [threading.Thread(target=run.work, args=(n,)) for n in range(workers)]
        threads += [threading.Thread(target=run.kill)] if kills else []
        for thread in threads:
            thread.start()
        while (not starts or figures.starts < starts) and (not seconds or time.monotonic() - begun < seconds):
            time.sleep(0.2)
            keep_busy(root) if run._names % 50 == 0 else None
            if told and int(time.monotonic() - begun) % 60 == 0:
                print(f"soak: {figures.starts} starts, {len(figures.problems)} failures", file=sys.stderr, flush=True)
                time.sleep(1)
        run.stopping.set()
        for thread in threads:
            thread.join()
        figures.seconds = time.monotonic() - begun
        _finish(root, figures)
    finally:
        root.delete()
    return figures


def _finish(root: Root, figures: Figures) -> None:
    """The look at what is left."""
    try:
        settle_down(root)
    except AssertionError as e:
        figures.problems.append(str(e))  # beside those from before, which may be its reason
        return
    left = [i for i in root.cli("ps", "-aq", "--no-trunc").ok().out.split() if i not in ids_of_residents(root)]
    if left:
        # Of commands that were killed between the creation and the start; `--rm` removes what ends, not what never ran.
        states = [json.loads(root.cli("inspect", i).ok().out)[0]["State"]["Status"] for i in left]
        if set(states) - {"created"}:
            figures.problems.append(f"containers that nobody removed are {states}")
        root.cli("rm", "-f", *left).ok()
    found = root.cli("system", "check")
    if found.code:
        figures.problems.append(f"system check: {found.out}{found.err}")
    keep_busy(root)
    figures.after = measure(root)
    for name, before in figures.before.items():
        after = figures.after[name]
        slack = MEMORY_SLACK >> 10 if name.startswith("private") else 0
        assert isinstance(before, int)
        assert isinstance(after, int)
        if after > before + slack or (after != before and not slack):
            figures.problems.append(f"{name}: {before} before, {after} after")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make soak", description="containers live and end while processes of the engine are killed"
    )
    parser.add_argument("--starts", type=int, default=0, help="end after so many starts (2000 if no length is given)")
    parser.add_argument("--seconds", type=float, default=0, help="end after so long")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--workers", type=int, default=4, help="how many lives at once")
    parser.add_argument("--no-kills", action="store_true", help="kill nothing")
    given = parser.parse_args()
    starts = given.starts or (0 if given.seconds else 2000)
    print(f"soak: seed {given.seed}", flush=True)
    figures = soak(given.seed, starts, given.seconds, given.workers, not given.no_kills, told=True)
    print(figures.text(), flush=True)
    raise SystemExit(1 if figures.problems else 0)


if __name__ == "__main__":
    main()
