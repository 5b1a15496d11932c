"""Command line flags with the grammar of pflag, which is Docker's: tables of flags in, values out.

The standard library's argparse cannot do it (flags that end at the image's name, `-m256m` beside `-it`, Docker's
messages) and costs 15 ms of imports. A flag's kind says how its text becomes a value; see `KINDS`.
"""

from __future__ import annotations

from sampan.cli import values
from sampan.errors import InvalidParameter
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class UsageError(Exception):
    """The command line itself is wrong; the text is pflag's."""


class HelpWanted(Exception):
    """--help was given. `deprecated` says that it was asked for by -h."""

    def __init__(self, deprecated: bool = False) -> None:
        super().__init__()
        self.deprecated = deprecated


class Flag(Struct):
    """One flag of a verb.

    name: without its dashes. kind: a key of `KINDS`. usage: for the help, with the value's name in backquotes if it is not
    the kind's. short: one letter. alias_of: another name for that flag. hidden: not in the help. deprecated: what to use
    instead, told to whoever uses this one. default: the value that a flag has that was not given; None means the kind's.
    system: the only system that has it, "" for all; here nothing but a refusal comes of it.
    """

    name: str
    kind: str
    usage: str = ""
    short: str = ""
    alias_of: str = ""
    hidden: bool = False
    deprecated: str = ""
    default: Any = None
    system: str = ""

    def shown(self) -> str:
        """As messages name it: "-m, --memory"."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Kind(Struct):
    """How the text of a flag becomes a value, what the help calls it, and what a flag is that was not given.

    convert raises ValueError or InvalidParameter with the text that Docker has. listed: each use adds to a list. A kind with an `implied` text
    takes a value only behind "=".
    """

    name: str
    convert: Callable[[str], Any]
    empty: Any = ""
    listed: bool = False
    implied: str = ""


def _mount(text: str) -> dict[str, Any]:
    from sampan.cli import mounts  # in here: most command lines have none

    return mounts.mount(text)


def _network(text: str) -> dict[str, Any]:
    """NAME, or name=NAME,alias=...: what follows a `=` may hold all that a word has."""
    if "=" not in text:
        return {"Target": text}
    from sampan.cli import networkflags  # in here: most command lines say a name or nothing

    return networkflags.parse(text)


KINDS = {
    "bool": Kind("", values.boolean, empty=False, implied="true"),
    "string": Kind("string", str),
    "int": Kind("int", values.integer, empty=0),
    "networks": Kind("network", _network, listed=True),
    "platforms": Kind("strings", str, listed=True),
    "strings": Kind("strings", str, listed=True),
    "duration": Kind("duration", values.duration, empty=0),
    "bytes": Kind("bytes", values.size, empty=0),
    "bytes or -1": Kind("bytes", values.size_or_unlimited, empty=0),
    "cpus": Kind("decimal", values.nano_cpus, empty=0),
    "list": Kind("list", str, listed=True),
    "streams": Kind("list", values.stream, listed=True),
    "variables": Kind("list", values.variable, listed=True),
    "uint16": Kind("uint16", values.weight, empty=0),
    "ulimits": Kind("ulimit", values.ulimit, listed=True),
    "sysctls": Kind("map", values.sysctl, listed=True),
    "device rules": Kind("list", values.device_rule, listed=True),
    "bytes of disks": Kind("list", values.bytes_rate, listed=True),
    "operations of disks": Kind("list", values.operations_rate, listed=True),
    "weights of disks": Kind("list", values.disk_weight, listed=True),
    "labels": Kind("list", values.label, listed=True),
    "addresses": Kind("list", values.address, listed=True),
    "domains": Kind("list", values.domain, listed=True),
    "hosts": Kind("list", values.host, listed=True),
    "map": Kind("map", str, listed=True),
    "filters": Kind("filter", values.filter, listed=True),
    "mounts": Kind("mount", _mount, listed=True),
}


class Arguments:
    """What a command line said: the flags' values by their names, and the words that are no flags."""

    def __init__(self, flags: Sequence[Flag]) -> None:
        self._values: dict[str, Any] = {}
        self._given: set[str] = set()
        self.words: list[str] = []
        self.notices: list[str] = []
        self.refusals: list[str] = []
        for flag in flags:
            kind = KINDS[flag.kind]
            self._values[flag.name] = [] if kind.listed else kind.empty if flag.default is None else flag.default

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def given(self, name: str) -> bool:
        """Whether the flag was there at all: `--entrypoint ""` is not the same as no --entrypoint."""
        return name in self._given

    def take(self, flag: Flag, text: str) -> None:
        """Note one use of a flag. Raises `UsageError` if the text is none of its kind."""
        kind = KINDS[flag.kind]
        try:
            value = kind.convert(text)
        except (ValueError, InvalidParameter) as e:
            raise UsageError(f'invalid argument "{text}" for "{flag.shown()}" flag: {e}') from None
        name = flag.alias_of or flag.name
        if flag.deprecated:
            self.notices.append(f"Flag --{flag.name} has been deprecated, {flag.deprecated}")
        if flag.system:
            self.refusals.append(f'"--{flag.name}" is only supported on {flag.system}, but this is linux')
        self._given.add(name)
        if kind.listed:
            self._values[name].append(value)
        else:
            self._values[name] = value


def parse(flags: Sequence[Flag], args: Sequence[str], interspersed: bool = True) -> Arguments:
    """Read a command line.

    interspersed: flags may also follow words; without it the first word ends them, so that `run IMAGE -x` hands -x to the
    image's program. Raises `UsageError` and `HelpWanted`.
    """
    return _Parser(flags, args, interspersed).parse()


class _Parser:
    def __init__(self, flags: Sequence[Flag], args: Sequence[str], interspersed: bool) -> None:
        self._long = {f.name: f for f in flags}
        self._short = {f.short: f for f in flags if f.short}
        self._args = list(args)
        self._at = 0
        self._interspersed = interspersed
        self._result = Arguments(flags)

    def parse(self) -> Arguments:
        result, args = self._result, self._args
        while self._at < len(args):
            arg = args[self._at]
            self._at += 1
            if arg == "--":
                result.words += args[self._at :]
                break
            if arg.startswith("--"):
                self._long_flag(arg)
            elif arg.startswith("-") and arg != "-":
                self._short_flags(arg)
            elif self._interspersed:
                result.words.append(arg)
            else:
                result.words += args[self._at - 1 :]
                break
        return result

    def _long_flag(self, arg: str) -> None:
        if arg[2] in "-=":
            raise UsageError(f"bad flag syntax: {arg}")
        name, equals, text = arg[2:].partition("=")
        flag = self._long.get(name)
        if flag is None:
            if name == "help":
                raise HelpWanted
            raise UsageError(f"unknown flag: --{name}")
        if not equals:
            text = KINDS[flag.kind].implied or self._next(f"--{name}")
        self._result.take(flag, text)

    def _short_flags(self, arg: str) -> None:
        letters = arg[1:]
        while letters:
            flag = self._short.get(letters[0])
            if flag is None:
                if letters[0] == "h":
                    raise HelpWanted(deprecated=True)
                raise UsageError(f"unknown shorthand flag: '{letters[0]}' in -{letters}")
            implied = KINDS[flag.kind].implied
            rest = letters[1:]
            # "-m=" alone is the value "=": pflag takes the sign away only when something follows it.
            if len(rest) > 1 and rest[0] == "=":
                self._result.take(flag, rest[1:])
                return
            if implied:
                self._result.take(flag, implied)
                letters = rest
                continue
            self._result.take(flag, rest or self._next(f"'{flag.short}' in -{letters}"))
            return

    def _next(self, shown: str) -> str:
        if self._at == len(self._args):
            raise UsageError(f"flag needs an argument: {shown}")
        self._at += 1
        return self._args[self._at - 1]
