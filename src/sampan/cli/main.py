"""The command `sampan`: global flags, the verb, and what an error becomes.

Only this module, the tables and the verb's own module are imported; tests/unit/test_import_budget.py has the list.
"""

from __future__ import annotations

import os
import sys

from sampan.cli import verbs
from sampan.cli.context import Context
from sampan.cli.flags import Arguments, Flag, HelpWanted, UsageError, parse
from sampan.cli.output import Failure, WriteFailed, err, out, refusal
from sampan.errors import Forbidden, Prohibited, SampanError, StartFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

GLOBAL_FLAGS = (
    Flag("config", "string", "Configuration file (default /etc/sampan/sampan.toml)"),
    Flag(
        "debug",
        "bool",
        "Print every step that was done, with its result and time; tracebacks of unexpected errors",
        "D",
    ),
    Flag("root", "string", "Where images and containers are kept (default /var/lib/sampan, or SAMPAN_ROOT)"),
    Flag("run-root", "string", "Where the sockets of running containers are (default /run/sampan, or SAMPAN_RUN_ROOT)"),
    Flag("version", "bool", "Print the version and quit", "v"),
)

USAGE_ERROR = 125
"""The exit code for flags that cannot be read, of any verb, as Docker has it."""
INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, AttributeError):
            pass  # nobody reads it, or it was closed before we began
    # Not sys.exit: the interpreter's own end takes 3 ms to free what the kernel frees anyway, and nothing waits for it
    # here: no thread, no buffer, no atexit.
    os._exit(code)


def run(args: list[str]) -> int:
    """Run a command line; the exit code. Never a traceback for what can be expected."""
    _open_standard_descriptors()
    debug = False
    try:
        flags = _read("sampan", "[OPTIONS] COMMAND [ARG...]", GLOBAL_FLAGS, args, interspersed=False)
        if flags is None:
            from sampan.cli import help

            out(help.general(GLOBAL_FLAGS))
            return 0
        debug = flags["debug"]
        return _dispatch(flags)
    except _Told as e:
        return e.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _end_by_sigpipe()
    except (Failure, WriteFailed) as e:
        err(str(e))
        return getattr(e, "code", 1)
    except MemoryError:
        err("sampan: this process may have no more memory (ulimit -v, the memory limit of its control group)")
        return 1
    except Exception as e:
        err(f"sampan: unexpected {type(e).__name__}: {e} (this is a bug: --debug before the verb shows where)")
        if debug:
            import traceback

            err(traceback.format_exc())
        return 1


class _Told(Exception):
    """The user has been told what is wrong; only the exit code is left."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


def _read(path: str, usage: str, flags: tuple[Flag, ...], args: list[str], interspersed: bool) -> Arguments | None:
    """The parsed line, or None if help is wanted. Raises `_Told` after a usage error."""
    try:
        arguments = parse(flags, args, interspersed)
    except HelpWanted as e:
        if e.deprecated:
            err("Flag shorthand -h has been deprecated, use --help")
        return None
    except UsageError as e:
        err(f"{e}\n\n{_usage(path, usage)}\n\nRun '{path} --help' for more information")
        raise _Told(USAGE_ERROR) from None
    for notice in arguments.notices:
        err(notice)
    return arguments


def _usage(path: str, usage: str) -> str:
    return f"Usage:  {path} {usage}".rstrip()


def _dispatch(flags: Arguments) -> int:
    if flags["version"]:
        from sampan import __version__

        out(f"sampan version {__version__}")
        return 0
    words = flags.words
    if words and words[0] == "__complete":
        from sampan.cli import completing

        return completing.complete(flags, GLOBAL_FLAGS)
    if words and words[0] == "help":
        words = [*_topic(words[1:]), "--help"]
    if not words or words[0] == "--help":
        from sampan.cli import help

        out(help.general(GLOBAL_FLAGS))
        return 0
    return _group(flags, words) if words[0] in verbs.GROUPS else _verb(flags, "sampan", words[0], words[1:])


def _topic(words: list[str]) -> list[str]:
    """The verb or the group that help is wanted of, under any of its names. Raises `_Told` for what is none."""
    if words[:1] == ["--help"]:
        return []
    for at, word in enumerate(words):
        if at == 0:
            known = word in verbs.VERBS or word in verbs.GROUPS
        else:
            group = words[0]
            known = at == 1 and group in verbs.GROUPS and _word_of(group, word) in verbs.GROUPS[group][1]
        if not known:
            err(f"unknown help topic: {word}")
            raise _Told(1)
    return words


def _word_of(group: str, word: str) -> str:
    return verbs.ALIASES.get((group, word), word)


def _group(flags: Arguments, words: list[str]) -> int:
    group, rest = words[0], words[1:]
    if not rest or rest[0] in ("--help", "-h"):
        from sampan.cli import help

        out(help.of_group(group))
        return 0
    word = _word_of(group, rest[0])
    verb = verbs.GROUPS[group][1].get(word, "")
    if not verb:
        # A group has no flags of its own: this one is told.
        _read(f"sampan {group}", "", (), rest[:1], interspersed=True)
        _unknown(f"sampan {group}", rest[0], f"\nUsage:  sampan {group}\n")
    return _verb(flags, f"sampan {group}", verb, rest[1:], word)


def _unknown(path: str, word: str, usage: str = "") -> NoReturn:
    err(f"sampan: unknown command: {path} {word}\n{usage}\nRun '{path} --help' for more information")
    raise _Told(1)


def _verb(flags: Arguments, above: str, verb: str, args: list[str], word: str = "") -> int:
    if verb not in verbs.VERBS and verb not in verbs.GROUP_VERBS:
        _unknown(above, verb)
    command = verbs.load(verb)
    path = f"{above} {word or verb}"
    arguments = _read(path, command.usage, command.flags, args, command.interspersed)
    if arguments is None:
        from sampan.cli import help

        out(help.of_verb(path, verb, command))
        return 0
    _check_count(path, command, len(arguments.words))
    if arguments.refusals:
        err("\n".join(arguments.refusals))
        return 1
    context = Context(path, flags["root"] or None, flags["run-root"] or None, flags["config"] or None, flags["debug"])
    try:
        return command.action(context, arguments)
    except SampanError as e:
        return _refused(path, command, e)
    finally:
        context.close()


def _check_count(path: str, command: verbs.Command, count: int) -> None:
    least, most = command.at_least, command.at_most
    if least <= count and (most == -1 or count <= most):
        return
    if least < most and least:
        needs = f"requires at least {least} and at most {most} arguments"
    elif least == most:
        needs = f"requires {least} argument{'s' * (least != 1)}" if least else "accepts no arguments"
    elif 0 < least < most:
        needs = f"requires at least {least} and at most {most} arguments"
    elif count < least:
        needs = f"requires at least {least} argument{'s' * (least != 1)}"
    else:
        needs = f"requires at most {most} argument{'s' * (most != 1)}"
    word = "See" if "at least" in needs and "at most" not in needs else "Run"  # as Docker has it
    err(f"sampan: '{path}' {needs}\n\n{_usage(path, command.usage)}\n\n{word} '{path} --help' for more information")
    raise _Told(1)


def _refused(path: str, command: verbs.Command, error: SampanError) -> int:
    """Tell what the engine refused. Docker has "Error response from daemon: " there; the text behind it is the same."""
    if isinstance(error, Forbidden) and not isinstance(error, Prohibited):
        err(str(error))
        return command.refused
    if command.refused == 1:
        err(f"Error: {error}")
        return error.exit_code
    err(refusal(path, error))
    if isinstance(error, StartFailed) and error.container_exit_code in (126, 127):
        return error.container_exit_code
    return command.refused


def _open_standard_descriptors() -> None:
    """Open /dev/null where 0, 1 or 2 is closed: else the store's next file would get that number, and our output."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # the lowest free number, which is fd


def _end_by_sigpipe() -> int:
    """End as any other program of a pipeline whose reader has gone: silently, by the signal that Python ignores."""
    from sampan.cli import signals

    return signals.end_by(signals.BROKEN_PIPE)
