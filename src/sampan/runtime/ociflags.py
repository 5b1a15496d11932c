"""The command line of OCI runtimes, which is that of Go's `flag`: `-name value`, `--name value`, `--name=value`, letters not joined."""

from __future__ import annotations

from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class UsageError(Exception):
    """The command line itself is wrong."""


class Flag(Struct):
    """kind: "bool", "string", "int" or "list" (each use adds). short: another name."""

    name: str
    kind: str = "string"
    usage: str = ""
    short: str = ""
    default: Any = None


_EMPTY: dict[str, Any] = {"bool": False, "string": "", "int": 0}
_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class Arguments:
    """The flags' values by their names, and the words that are none."""

    def __init__(self, flags: Sequence[Flag]) -> None:
        self.values: dict[str, Any] = {
            f.name: [] if f.kind == "list" else _EMPTY[f.kind] if f.default is None else f.default for f in flags
        }
        self.given: set[str] = set()
        self.words: list[str] = []
        self.help = False

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def parse(flags: Sequence[Flag], args: Sequence[str], interspersed: bool) -> Arguments:
    """Read a command line. interspersed: flags may follow words; else the first word ends them. Raises `UsageError`."""
    names = {name: flag for flag in flags for name in (flag.name, flag.short) if name}
    result = Arguments(flags)
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if arg == "--":
            result.words += rest
            break
        if not arg.startswith("-") or arg == "-":
            result.words.append(arg)
            if not interspersed:
                result.words += rest
                break
            continue
        name, equals, text = arg.removeprefix("-").removeprefix("-").partition("=")
        if name in ("help", "h") and name not in names:
            result.help = True
            continue
        flag = names.get(name)
        if flag is None:
            raise UsageError(f"flag provided but not defined: -{name}")
        if not equals:
            if flag.kind == "bool":
                text = "true"
            elif not rest:
                raise UsageError(f"flag needs an argument: -{name}")
            else:
                text = rest.pop(0)
        _take(result, flag, text)
    return result


def _take(result: Arguments, flag: Flag, text: str) -> None:
    value: Any = text
    try:
        if flag.kind == "bool":
            value = _BOOLEANS[text.lower()]
        elif flag.kind == "int":
            value = int(text, 0)
    except (KeyError, ValueError):
        raise UsageError(f'invalid value "{text}" for flag -{flag.name}') from None
    result.given.add(flag.name)
    if flag.kind == "list":
        result.values[flag.name].append(value)
    else:
        result.values[flag.name] = value
