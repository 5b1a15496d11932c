"""The command `sampan-oci`: an OCI runtime with the command line of runc, for engines that bring their own monitor.

The verb's module alone is imported. Errors go to --log and to standard error in the form that engines read.
"""

from __future__ import annotations

import os
import sys

from sampan import bundle
from sampan.errors import InvalidParameter, SampanError
from sampan.runtime import ociflags, ocilog, sealed
from sampan.runtime.ociflags import Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from sampan.runtime.ociflags import Arguments

DEFAULT_ROOT = "/run/sampan-oci"

GLOBAL_FLAGS = (
    Flag("debug", "bool", "tell every step that is taken"),
    Flag("log", "string", "the file that errors are written to, instead of standard error"),
    Flag("log-format", "string", "the form of the log: text or json", default="text"),
    Flag("root", "string", "where the state of containers is kept", default=DEFAULT_ROOT),
    Flag("criu", "string", "accepted for runc's sake: there is no checkpoint"),
    Flag("systemd-cgroup", "bool", "refused: cgroups are made by this command itself"),
    Flag("rootless", "string", "accepted for runc's sake: whether cgroups can be had is found out", default="auto"),
    Flag("version", "bool", "print the version", "v"),
)

# verb: (module, function, words it takes, flags may follow words, what it does)
VERBS = {
    "create": ("ocicli_run", "create", "ID", True, "create a container, which waits for start"),
    "delete": ("ocicli_life", "delete", "ID", True, "delete what a container has left"),
    "events": ("ocicli_show", "events", "ID", True, "show the usage of resources"),
    "exec": ("ocicli_exec", "exec_", "ID [COMMAND...]", False, "run another process in a container"),
    "features": ("ocicli_show", "features", "", True, "show what this runtime can do"),
    "kill": ("ocicli_life", "kill", "ID [SIGNAL]", True, "send a signal to a container"),
    "list": ("ocicli_show", "list_", "", True, "list the containers of this root"),
    "pause": ("ocicli_limits", "pause", "ID", True, "stop all processes of a container"),
    "ps": ("ocicli_show", "ps", "ID [OPTIONS of ps...]", False, "show the processes of a container"),
    "resume": ("ocicli_limits", "resume", "ID", True, "let a paused container go on"),
    "run": ("ocicli_run", "run", "ID", True, "create a container and start it"),
    "spec": ("ocicli_show", "spec", "", True, "write a config.json to begin with"),
    "start": ("ocicli_life", "start", "ID", True, "start a container that was created"),
    "state": ("ocicli_life", "state", "ID", True, "show the state of a container"),
    "update": ("ocicli_limits", "update", "ID", True, "change the limits of a container"),
    "checkpoint": ("ocicli_life", "checkpoint", "ID", True, "refused: there is no checkpoint"),
    "restore": ("ocicli_life", "checkpoint", "ID", True, "refused: there is no checkpoint"),
}

EXEC_FAILED = 255
"""The exit code of `exec` when it could not run the process, which has all others for its own."""


class Global:
    """What stands before the verb."""

    def __init__(self, flags: Arguments) -> None:
        self.root = os.path.abspath(flags["root"])
        self.log = ocilog.Log(flags["log"], flags["log-format"], flags["debug"])


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    sealed.settle()
    code = run(sys.argv[1:])
    bundle.keep(learn=code == 0)
    if not sealed.is_sealed():
        from sampan.runtime import firstexec

        firstexec.put()
    # Not sys.exit: nothing is buffered, and the interpreter's own end takes 3 ms.
    os._exit(code)


def run(args: list[str]) -> int:
    """Run a command line; the exit code. Never a traceback for what can be expected."""
    log = ocilog.Log()
    verb = ""
    try:
        flags = ociflags.parse(GLOBAL_FLAGS, args, interspersed=False)
        if flags["log-format"] not in ("text", "json"):
            raise UsageError(f'invalid value "{flags["log-format"]}" for flag -log-format: text or json')
        log = Global(flags).log
        if flags["version"]:
            return _version()
        words = flags.words
        if flags.help or not words or words[0] in ("help", "h"):
            return _help()
        verb = words[0]
        if flags["systemd-cgroup"]:
            raise InvalidParameter(
                "--systemd-cgroup is not supported: use the cgroupfs manager (dockerd: --exec-opt "
                "native.cgroupdriver=cgroupfs; podman: --cgroup-manager cgroupfs; containerd: SystemdCgroup = false)"
            )
        return _dispatch(Global(flags), verb, words[1:])
    except (UsageError, SampanError) as e:
        log.error(_prefixed(verb, str(e)))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    except OSError as e:
        log.error(_prefixed(verb, str(e)))
    return EXEC_FAILED if verb == "exec" else 1


def _prefixed(verb: str, text: str) -> str:
    """Engines look for the name of the runtime in some of these, and print them all."""
    return {"create": f"sampan-oci create failed: {text}", "run": f"sampan-oci run failed: {text}"}.get(
        verb, f"exec failed: {text}" if verb == "exec" else text
    )


def _dispatch(given: Global, verb: str, args: list[str]) -> int:
    if verb not in VERBS:
        raise UsageError(f"no such command: {verb} (sampan-oci --help lists them)")
    bundle.together(verb)
    name, function, words, interspersed, what = VERBS[verb]
    module = __import__(f"sampan.runtime.{name}", fromlist=[function])
    flags = module.FLAGS[verb]
    arguments = ociflags.parse(flags, args, interspersed)
    if arguments.help:
        ocilog.out(
            f"usage: sampan-oci [GLOBAL OPTIONS] {verb} [OPTIONS] {words}\n\n{what}\n\n{_listed(flags)}".rstrip()
        )
        return 0
    expected = words.split()
    least = sum(1 for word in expected if word.isupper() and "[" not in word)
    if len(arguments.words) < least:
        raise UsageError(f'"{verb}" requires at least {least} argument(s): {words}')
    if "..." not in words and len(arguments.words) > len(expected):
        raise UsageError(f'"{verb}" takes no more than {len(expected)} argument(s): {words}')
    action: Callable[[Global, Arguments], int] = getattr(module, function)
    return action(given, arguments)


def _listed(flags: tuple[Flag, ...]) -> str:
    return "\n".join(
        f"  {', '.join(f'-{n}' if len(n) == 1 else f'--{n}' for n in (f.name, f.short) if n):32} {f.usage}"
        for f in flags
    )


def _help() -> int:
    verbs = "\n".join(f"  {name:32} {VERBS[name][4]}" for name in sorted(VERBS))
    ocilog.out(
        f"sampan-oci: an OCI runtime\n\nusage: sampan-oci [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]\n\n{verbs}\n\n{_listed(GLOBAL_FLAGS)}"
    )
    return 0


def _version() -> int:
    """In the lines that podman, containerd and dockerd look for: name and version, commit, spec."""
    from sampan import __version__
    from sampan.oci.runtime import VERSION

    ocilog.out(f"sampan-oci version {__version__}\ncommit: v{__version__}\nspec: {VERSION}")
    return 0
