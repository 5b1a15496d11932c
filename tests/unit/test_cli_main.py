"""The command line as a user meets it before any engine: help, usage errors, exit codes, streams that are closed or full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import NamedTuple

import pytest

from sampan.cli import main, verbs
from sampan.cli.flags import KINDS


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Sampan:
    """The command line within this process: a process for each would take a minute in all."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *args: str) -> Done:
        self._capture.readouterr()
        code = main.run(list(args))
        return Done(code, *self._capture.readouterr())


@pytest.fixture
def sampan(capfd: pytest.CaptureFixture[str]) -> Sampan:
    return Sampan(capfd)


def usage_error(message: str, path: str, usage: str, word: str = "Run") -> str:
    return f"{message}\n\n{f'Usage:  {path} {usage}'.rstrip()}\n\n{word} '{path} --help' for more information\n"


RUN = "[OPTIONS] IMAGE [COMMAND] [ARG...]"


@pytest.mark.parametrize(
    ("args", "message", "path", "usage"),
    [
        (["run", "--foo", "base"], "unknown flag: --foo", "sampan run", RUN),
        (["run", "-z", "base"], "unknown shorthand flag: 'z' in -z", "sampan run", RUN),
        (["run", "--name"], "flag needs an argument: --name", "sampan run", RUN),
        (["run", "-m", "x", "b"], "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'", "sampan run", RUN),
        (["run", "-h"], "flag needs an argument: 'h' in -h", "sampan run", RUN),
        (["container", "run", "-z"], "unknown shorthand flag: 'z' in -z", "sampan container run", RUN),
        (["ps", "--foo"], "unknown flag: --foo", "sampan ps", "[OPTIONS]"),
        (["image", "list", "--foo"], "unknown flag: --foo", "sampan image ls", "[OPTIONS] [REPOSITORY[:TAG]]"),
        (["--foo"], "unknown flag: --foo", "sampan", "[OPTIONS] COMMAND [ARG...]"),
        (["-foo"], "unknown shorthand flag: 'f' in -foo", "sampan", "[OPTIONS] COMMAND [ARG...]"),
        (["stop", "-t", "x", "foo"], 'invalid argument "x" for "-t, --timeout" flag: strconv.ParseInt: parsing "x": invalid syntax', "sampan stop", "[OPTIONS] CONTAINER [CONTAINER...]"),
    ],
)  # fmt: skip
def test_flags_that_cannot_be_read_exit_with_125(
    sampan: Sampan, args: list[str], message: str, path: str, usage: str
) -> None:
    done = sampan(*args)
    assert (done.returncode, done.stdout, done.stderr) == (125, "", usage_error(message, path, usage))


@pytest.mark.parametrize(
    ("args", "message", "path", "usage"),
    [
        (["run"], "'sampan run' requires at least 1 argument", "sampan run", RUN),
        (["run", "--"], "'sampan run' requires at least 1 argument", "sampan run", RUN),
        (["run", "--tmpfs", "base"], "'sampan run' requires at least 1 argument", "sampan run", RUN),
        (["exec", "x"], "'sampan exec' requires at least 2 arguments", "sampan exec", "[OPTIONS] CONTAINER COMMAND [ARG...]"),
        (["ps", "x"], "'sampan ps' accepts no arguments", "sampan ps", "[OPTIONS]"),
        (["version", "x"], "'sampan version' accepts no arguments", "sampan version", "[OPTIONS]"),
        (["port"], "'sampan port' requires at least 1 and at most 2 arguments", "sampan port", "CONTAINER [PRIVATE_PORT[/PROTO]]"),
        (["logs"], "'sampan logs' requires 1 argument", "sampan logs", "[OPTIONS] CONTAINER"),
        (["logs", "a", "b"], "'sampan logs' requires 1 argument", "sampan logs", "[OPTIONS] CONTAINER"),
        (["tag", "a"], "'sampan tag' requires 2 arguments", "sampan tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]"),
        (["commit"], "'sampan commit' requires at least 1 and at most 2 arguments", "sampan commit", "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]"),
        (["images", "a", "b"], "'sampan images' requires at most 1 argument", "sampan images", "[OPTIONS] [REPOSITORY[:TAG]]"),
        (["image", "rm"], "'sampan image rm' requires at least 1 argument", "sampan image rm", "[OPTIONS] IMAGE [IMAGE...]"),
        (["inspect"], "'sampan inspect' requires at least 1 argument", "sampan inspect", "[OPTIONS] NAME|ID [NAME|ID...]"),
    ],
)  # fmt: skip
def test_a_wrong_number_of_words_exits_with_1(
    sampan: Sampan, args: list[str], message: str, path: str, usage: str
) -> None:
    done = sampan(*args)
    word = "See" if "at least" in message and "at most" not in message else "Run"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "sampan: " + usage_error(message, path, usage, word))


def test_a_verb_that_is_not_there(sampan: Sampan) -> None:
    done = sampan("foo")
    assert (done.returncode, done.stderr) == (
        1,
        "sampan: unknown command: sampan foo\n\nRun 'sampan --help' for more information\n",
    )
    done = sampan("container", "foo")
    assert (done.returncode, done.stderr) == (
        1,
        "sampan: unknown command: sampan container foo\n\nUsage:  sampan container\n\n"
        "Run 'sampan container --help' for more information\n",
    )


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"], ["-D"], ["help", "--help"]])
def test_the_general_help(sampan: Sampan, args: list[str]) -> None:
    done = sampan(*args)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage:  sampan [OPTIONS] COMMAND\n")
    for verb in verbs.VERBS:
        assert f"\n  {verb} " in done.stdout


def test_the_help_has_no_verb_of_a_later_issue(sampan: Sampan) -> None:
    text = sampan("--help").stdout
    for verb in ("search", "swarm"):
        assert f"\n  {verb} " not in text


@pytest.mark.parametrize("name", [*verbs.VERBS, *verbs.GROUP_VERBS])
def test_every_verb_has_help_within_80_columns(sampan: Sampan, name: str) -> None:
    done = sampan(*name.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage:  sampan {name}")
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_help_of_a_verb_and_of_a_group(sampan: Sampan) -> None:
    assert sampan("help", "ps").stdout == sampan("ps", "--help").stdout
    assert sampan("help", "container").stdout == sampan("container").stdout == sampan("container", "--help").stdout
    assert "Flag shorthand -h has been deprecated, use --help" in sampan("ps", "-h").stderr


@pytest.mark.parametrize("name", [*verbs.VERBS, *verbs.GROUP_VERBS])
def test_the_flags_of_a_verb_are_a_sound_table(name: str) -> None:
    flags = verbs.load(name).flags
    assert all(flag.kind in KINDS for flag in flags)
    assert len({flag.name for flag in flags}) == len(flags)
    letters = [flag.short for flag in flags if flag.short]
    assert len(set(letters)) == len(letters)
    assert all(flag.usage or flag.hidden for flag in flags)
    assert all(flag.alias_of in {f.name for f in flags} for flag in flags if flag.alias_of)


def test_every_word_of_a_group_leads_to_a_verb() -> None:
    for _, words in verbs.GROUPS.values():
        for verb in words.values():
            assert verbs.entry(verb)
    assert all(word in verbs.GROUPS[group][1] for (group, _), word in verbs.ALIASES.items())


def test_version(sampan: Sampan) -> None:
    assert sampan("--version").stdout == sampan("-v").stdout == "sampan version 0.1.0\n"
    assert "API version:" in sampan("version").stdout


def test_a_reader_that_has_gone_ends_us_silently() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "sampan", "--help"], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "sampan", "--help"], stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"write /dev/stdout: no space left on device\n")


def test_standard_streams_may_be_closed() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m sampan version <&- >&-', sys.executable], stderr=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.thorough
def test_an_unexpected_error_is_one_line_and_a_traceback_with_debug() -> None:
    code = "from sampan.cli import main, verbs; verbs.load = lambda name: 1 / 0; raise SystemExit(main.run({}))"
    plain = subprocess.run([sys.executable, "-c", code.format(["ps"])], capture_output=True, text=True)
    assert plain.returncode == 1
    assert plain.stderr == (
        "sampan: unexpected ZeroDivisionError: division by zero (this is a bug: --debug before the verb shows where)\n"
    )
    debug = subprocess.run([sys.executable, "-c", code.format(["-D", "ps"])], capture_output=True, text=True)
    assert "Traceback" in debug.stderr


def test_too_little_memory_is_told() -> None:
    code = "from sampan.cli import main, verbs; verbs.load = lambda name: bytes(1 << 62); raise SystemExit(main.run(['ps']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        done.stderr
        == "sampan: this process may have no more memory (ulimit -v, the memory limit of its control group)\n"
    )


def test_ctrl_c_exits_with_130() -> None:
    code = "from sampan.cli import main, verbs; import os; verbs.load = lambda name: os.kill(os.getpid(), 2); raise SystemExit(main.run(['ps']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_flag_of_another_system_is_refused(sampan: Sampan) -> None:
    done = sampan("run", "--cpu-count", "2", "--io-maxiops", "3", "base")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        '"--cpu-count" is only supported on windows, but this is linux\n'
        '"--io-maxiops" is only supported on windows, but this is linux\n',
    )
