"""What can stand at the end of an unfinished command line: the hidden verb `__complete`, which the shells' scripts ask.

Verbs and flags are those of the tables that also parse and explain them; what a verb takes is read off its usage
("CONTAINER [CONTAINER...]"), and which containers fit it off the table of states. Only what values a flag may have is listed here.
"""

from __future__ import annotations

import os

from sampan.cli import verbs
from sampan.cli.context import Context
from sampan.cli.flags import KINDS, Arguments, Flag, UsageError
from sampan.cli.output import out
from sampan.errors import SampanError
from sampan.oci import lifecycle, restartpolicy, rlimits, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sampan.cli.verbs import Command

FILES = ":files"
"""The line that says: names of files, which a shell knows better."""

_FORMATS = ("json", "table")
_STREAMS = ("stderr", "stdin", "stdout")
_SECURITY = ("apparmor=", "label=", "no-new-privileges", "seccomp=", "systempaths=unconfined", "writable-cgroups=true")

# Flags whose values are names of files.
_PATHS = frozenset(
    ("cidfile", "config", "device", "env-file", "file", "iidfile", "input", "label-file", "output", "root", "run-root")
)
# Flags whose values are always the same ones, of whatever verb.
_CHOICES: dict[str, tuple[str, ...]] = {
    "attach": _STREAMS,
    "compression": ("gzip", "zstd"),
    "cgroupns": ("host", "private"),
    "driver": ("local",),
    "ipam-driver": ("default",),
    "format": _FORMATS,
    "isolation": ("default",),
    "progress": ("auto", "plain", "quiet"),
    "pull": ("always", "missing", "never"),
    "restart": (restartpolicy.ALWAYS, restartpolicy.NO, restartpolicy.ON_FAILURE, restartpolicy.UNLESS_STOPPED),
    "runtime": ("sampan",),
    "security-opt": _SECURITY,
    "type": ("container", "image", "network", "volume"),
    "ulimit": tuple(f"{name}=" for name in rlimits.NUMBERS),
    "userns": ("host", "keep-id", "private"),
    "uts": ("host",),
    "volume-driver": ("local",),
}
# Modes: their words, and `container:NAME`.
_MODES: dict[str, tuple[str, ...]] = {
    "ipc": ("host", "none", "private", "shareable"),
    "network": ("bridge", "host", "none"),
    "pid": ("host",),
}
# What `cp` copies from and to.
_COPIED = ("CONTAINER:SRC_PATH", "DEST_PATH|-")
# Verbs that have something to do with containers that run, and no line in the table of states.
_OF_RUNNING = frozenset(("port", "stats"))


def complete(arguments: Arguments, global_flags: Sequence[Flag]) -> int:
    """Print a line for each word that may be the last one, "WORD<tab>DESCRIPTION", or `FILES`. Never an error.

    arguments.words: "__complete", and the words behind the command's name, the unfinished one last.
    """
    try:
        lines = _Line(global_flags, arguments.words[1:] or [""]).candidates()
    except (SampanError, UsageError, OSError):
        lines = []  # The store is not there, or not ours to read: there is nothing to choose from.
    for line in lines:
        out(line)
    return 0


class _Scan:
    """A command line's words but for the last one, sorted out by a table of flags: never wrong, only unfinished."""

    def __init__(self, flags: Iterable[Flag], words: Sequence[str], interspersed: bool) -> None:
        self.flags = list(flags)
        self._long = {flag.name: flag for flag in self.flags}
        self._short = {flag.short: flag for flag in self.flags if flag.short}
        self.positional: list[str] = []
        self.given: set[str] = set()
        self.values: dict[str, str] = {}
        self.pending: Flag | None = None  # the flag whose value comes next
        self.only_words = False
        for word in words:
            self._word(word, interspersed)

    def _word(self, word: str, interspersed: bool) -> None:
        if self.pending is not None:
            self.values[self.pending.name] = word
            self.pending = None
        elif self.only_words:
            self.positional.append(word)
        elif word == "--":
            self.only_words = True
        elif word.startswith("-") and word != "-":
            self._flag(word)
        else:
            self.positional.append(word)
            self.only_words = not interspersed

    def _flag(self, word: str) -> None:
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("--"):
            flag = self._long.get(name)
        else:
            # Of several letters only the last can still want a value; one before it has taken the others for its own.
            flag = next(
                (f for letter in name[:-1] if (f := self._short.get(letter)) and not KINDS[f.kind].implied), None
            )
            value, equals = ("", "=") if flag is not None else (value, equals)
            flag = flag or self._short.get(name[-1:])
        if flag is None:
            return
        self.given.add(flag.alias_of or flag.name)
        if equals:
            self.values[flag.name] = value
        elif not KINDS[flag.kind].implied:
            self.pending = flag

    def named(self, name: str) -> Flag | None:
        return self._long.get(name)


class _Line:
    """The whole line."""

    def __init__(self, global_flags: Sequence[Flag], words: Sequence[str]) -> None:
        self._global = _Scan(global_flags, words[:-1], interspersed=False)
        self._last = words[-1]
        self._verb = ""

    def candidates(self) -> list[str]:
        found = self._global
        if not found.positional:
            return self._flag_or(found, lambda: self._fitting(_described(_top_level())))
        word, rest = found.positional[0], found.positional[1:]
        if word == "help":
            return self._fitting(_described(_top_level())) if not rest else self._of_group(rest[0])
        if word in verbs.GROUPS:
            if not rest:
                return self._of_group(word)
            name = verbs.ALIASES.get((word, rest[0]), rest[0])
            word, rest = verbs.GROUPS[word][1].get(name, ""), rest[1:]
        if word not in verbs.VERBS and word not in verbs.GROUP_VERBS:
            return []
        self._verb = word
        command = verbs.load(word)
        scan = _Scan(command.flags, rest, command.interspersed)
        return self._flag_or(scan, lambda: self._fitting(self._words(command, scan)))

    def _of_group(self, group: str) -> list[str]:
        if group not in verbs.GROUPS:
            return []
        return self._fitting(_described({w: verbs.entry(v).summary for w, v in verbs.GROUPS[group][1].items()}))

    def _flag_or(self, scan: _Scan, words: Callable[[], list[str]]) -> list[str]:
        """The flags, or the values of one, if that is what the last word is; else the words."""
        last = self._last
        if scan.pending is not None:
            return self._fitting(self._values(scan.pending, last))
        if scan.only_words or not last.startswith("-"):
            return words()
        name, equals, value = last.partition("=")
        if equals:
            flag = scan.named(name.removeprefix("--"))
            if flag is None or KINDS[flag.kind].implied:
                return []
            values = self._values(flag, value)
            return values if values == [FILES] else self._fitting([f"{name}={one}" for one in values])
        return self._fitting(_flags(scan))

    def _fitting(self, candidates: Iterable[str]) -> list[str]:
        """Those that begin with what is there already; each once."""
        found = dict.fromkeys(candidates)
        return [line for line in found if line == FILES or line.startswith(self._last)]

    # Words

    def _words(self, command: Command, scan: _Scan) -> list[str]:
        kind, repeated = _kind_of_word(command.usage, len(scan.positional))
        if kind in ("FILE|URL|-", "PATH|URL|-"):
            return [FILES]
        if kind in _COPIED:
            # One side is a container's; a path of this machine that could be one begins with a slash or a dot.
            other = any(":" in word and not word.startswith(("/", ".")) for word in scan.positional)
            if other or self._last.startswith(("/", ".")):
                return [FILES]
            return [*(f"{one}:" for one in self._containers(frozenset(lifecycle.STATES), self._last)), FILES]
        taken = set(scan.positional) if repeated else set()
        found: list[str] = []
        if kind in ("CONTAINER", "NAME|ID"):
            states = frozenset(lifecycle.STATES) if "all" in scan.given else self._states("force" in scan.given)
            found += self._containers(states, self._last)
        if kind in (
            "IMAGE",
            "REPOSITORY[:TAG]",
            "SOURCE_IMAGE[:TAG]",
            "TARGET_IMAGE[:TAG]",
            "NAME|ID",
            "NAME[:TAG|@DIGEST]",
        ):
            found += self._images()
        if kind in ("NETWORK", "NAME|ID"):
            found += self._networks()
        if kind in ("VOLUME", "NAME|ID"):
            found += self._volumes()
        if kind == "SERVER":
            found += self._servers()
        return [name for name in found if name not in taken]

    def _states(self, force: bool) -> frozenset[str]:
        """The states in which the verb can be done; all of them if the table has no line for it."""
        row = lifecycle.TABLE.get(lifecycle.FORCE_REMOVE if force and self._verb == "rm" else self._verb)
        if row is None:
            return lifecycle.UP if self._verb in _OF_RUNNING else frozenset(lifecycle.STATES)
        return frozenset(state for state, verdict in row.items() if verdict == "yes")

    def _containers(self, states: frozenset[str], begun: str) -> list[str]:
        """The names of those that are in one of the states; their ids if none begins with what is there."""
        context = self._store()
        if context is None:
            return []
        found = [c.summary() for c in context.engine.containers.list(all=True)]
        fitting = [item for item in found if item["State"] in states]
        names = [item["Names"][0].removeprefix("/") for item in fitting]
        if begun and not any(name.startswith(begun) for name in names):
            return [item["Id"][:12] for item in fitting]
        return names

    def _images(self) -> list[str]:
        context = self._store()
        return [] if context is None else [name for item in context.engine.images.list() for name in item["RepoTags"]]

    def _networks(self) -> list[str]:
        if self._verb == "network create":
            return []  # a new one
        context = self._store()
        return [] if context is None else [network.name for network in context.engine.networks.list()]

    def _volumes(self) -> list[str]:
        context = self._store()
        return [] if context is None else [volume.name for volume in context.engine.volumes.list()]

    def _servers(self) -> list[str]:
        """The registries that somebody is logged in to."""
        context = self._store()
        return [] if context is None else context.engine.registries.accounts()

    def _store(self) -> Context | None:
        """The store that the line means; None if there is none, for a completion makes none."""
        from sampan.engine.config import load

        root, run_root, config = (self._global.values.get(name) for name in ("root", "run-root", "config"))
        if not os.path.isdir(load(config, root, run_root).root):
            return None
        return Context("sampan", root, run_root, config, debug=False)

    # Values of flags

    def _values(self, flag: Flag, begun: str) -> list[str]:
        name = flag.alias_of or flag.name
        if name in _PATHS:
            return [FILES]
        if name in ("signal", "stop-signal"):
            return sorted(signals.NUMBERS)
        if name in ("cap-add", "cap-drop"):
            from sampan.engine.validate import capability_names

            return ["ALL", *capability_names()]
        if name == "driver" and self._verb == "network create":
            return ["bridge", "ipvlan", "macvlan"]
        if name in _MODES:
            if begun.startswith("container:"):
                names = self._containers(lifecycle.ALIVE, begun.removeprefix("container:"))
                return [f"container:{one}" for one in names]
            others = self._networks() if name == "network" else []
            return ["container:", *sorted({*_MODES[name], *others})]
        if name == "env":
            return sorted(os.environ)
        if name == "volumes-from":
            return self._containers(frozenset(lifecycle.STATES), begun)
        if name == "filter":
            return self._filters(begun)
        if name == "volume":
            return [f"{one}:" for one in self._volumes()] or [FILES] if not begun.startswith(("/", ".")) else [FILES]
        return list(_CHOICES.get(name, ()))

    def _filters(self, begun: str) -> list[str]:
        """The filters of the verb, then the values of one that has few."""
        from sampan.cli import filterwords

        name, equals, _ = begun.partition("=")
        if not equals:
            return [f"{one}=" for one in filterwords.names(self._verb)]
        return [f"{name}={value}" for value in filterwords.values(name)]


def _top_level() -> dict[str, str]:
    groups = {name: summary for name, (summary, _) in verbs.GROUPS.items()}
    return {**groups, **{name: entry.summary for name, entry in verbs.VERBS.items()}}


def _described(words: dict[str, str]) -> list[str]:
    return [f"{word}\t{summary}" for word, summary in sorted(words.items())]


def _flags(scan: _Scan) -> list[str]:
    """Every flag that may be given (again), with what the help says of it."""
    shown = {}
    for flag in scan.flags:
        if not flag.hidden and (flag.name not in scan.given or KINDS[flag.kind].listed):
            shown[f"--{flag.name}"] = flag.usage
            if flag.short:
                shown[f"-{flag.short}"] = flag.usage
    return _described({**shown, "--help": "Print usage"})


def _kind_of_word(usage: str, position: int) -> tuple[str, bool]:
    """What the usage calls the word at a position, and whether there may be any number of these."""
    # Of a usage of two lines (`cp`) the first one: the other has the same words the other way round.
    words = usage.partition("\n")[0].replace("[OPTIONS]", "").split()
    for at, word in enumerate(words):
        repeated = word.endswith("...]")
        kind = word.removesuffix("...]").lstrip("[") if repeated else word
        if kind.startswith("[") and kind.endswith("]"):
            kind = kind[1:-1]
            if kind == "VOLUME":
                return "", False  # `volume create` makes a new one
        if at == position or (repeated and at <= position):
            return kind, repeated or words[at + 1 : at + 2] == [f"[{kind}...]"]
    return "", False
