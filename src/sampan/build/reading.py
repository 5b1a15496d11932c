"""Parsed instructions become typed ones; what is wrong in them is told with its line before anything is built.

The forms and flags of each instruction are the Dockerfile reference's.
"""

from __future__ import annotations

from sampan.build import parser, runmounts
from sampan.build.instructions import (
    Arg,
    Copy,
    Dockerfile,
    From,
    Instruction,
    Maintainer,
    Run,
    Setting,
    Shell,
    Stage,
)
from sampan.build.source import DockerfileError, suggestion
from sampan.errors import InvalidParameter
from sampan.oci import changes, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sampan.build.parser import Node, Parsed
    from sampan.build.source import Source

_HEALTH_FLAGS = ("interval", "timeout", "start-period", "start-interval", "retries")
# The flags of each instruction that has some: name -> whether it may be given without a value, as "true".
FLAGS: dict[str, dict[str, bool]] = {
    "from": {"platform": False},
    "run": {"mount": False, "network": False, "security": False},
    "copy": {"from": False, "chown": False, "chmod": False, "link": True, "parents": True, "exclude": False},
    "add": {
        "chown": False,
        "chmod": False,
        "link": True,
        "exclude": False,
        "checksum": False,
        "keep-git-dir": True,
        "unpack": True,
    },
    "healthcheck": dict.fromkeys(_HEALTH_FLAGS, False),
}
_REPEATED = ("mount", "exclude")
NETWORKS = ("default", "none", "host")
SECURITIES = ("sandbox", "insecure")


def read(source: Source) -> tuple[Dockerfile, Parsed]:
    """A whole Dockerfile. Raises `DockerfileError`."""
    parsed = parser.parse(source)
    arguments: list[Arg] = []
    stages: list[Stage] = []
    for node in parsed.nodes:
        instruction = instruction_of(node, parsed.escape, source)
        if isinstance(instruction, From):
            stages.append(Stage(len(stages), instruction, ()))
        elif stages:
            last = stages[-1]
            stages[-1] = last.replace(body=(*last.body, instruction))
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            raise _error(node, "no build stage in current context", source)
    if not stages:
        raise DockerfileError("no build stage in current context: the Dockerfile has no FROM", 1, 1, source)
    return Dockerfile(tuple(arguments), tuple(stages), parsed.escape), parsed


def instruction_of(node: Node, escape: str, source: Source) -> Instruction:
    """One instruction. Raises `DockerfileError`."""
    try:
        return _READERS.get(node.key, _setting)(node, escape)
    except InvalidParameter as e:
        raise _error(node, str(e), source) from None


def trigger(text: str, escape: str, node: Node, source: Source) -> Instruction:
    """The instruction that an ONBUILD of a base image left. Raises `DockerfileError` at the FROM's line."""
    from sampan.build.source import Source as Text

    (parsed,) = parser.parse(Text(source.name, text)).nodes
    found = parsed.replace(first=node.first, last=node.last)
    return instruction_of(found, escape, source)


def _error(node: Node, message: str, source: Source) -> DockerfileError:
    return DockerfileError(f"dockerfile parse error on line {node.first}: {message}", node.first, node.last, source)


class _Flags:
    """The flags of one instruction, checked. Raises `InvalidParameter`."""

    def __init__(self, node: Node) -> None:
        known = FLAGS.get(node.key, {})
        self._values: dict[str, list[str]] = {}
        for flag in node.flags:
            name, equals, value = flag.removeprefix("--").partition("=")
            if name not in known:
                raise InvalidParameter(f"unknown flag: --{name}{suggestion(name, known)}")
            if name in self._values and name not in _REPEATED:
                raise InvalidParameter(f"duplicate flag specified: {name}")
            if not equals and not known[name]:
                raise InvalidParameter(f"missing a value on flag: {name}")
            self._values.setdefault(name, []).append(value if equals else "true")

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, [default])[0]

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self._values.get(name, ()))

    def choice(self, name: str, known: Sequence[str]) -> str:
        value = self.text(name, known[0])
        if value not in known and "$" not in value:
            raise InvalidParameter(f'invalid value "{value}" for --{name}{suggestion(value, known)}')
        return value

    def boolean(self, name: str) -> bool | None:
        value = self.text(name).lower()
        if value not in ("", "true", "false"):
            raise InvalidParameter(f"expecting boolean value for flag {name}, not: {value}")
        return None if not value else value == "true"


def _from(node: Node, _escape: str) -> From:
    flags, parts = _Flags(node), node.rest.split()
    if len(parts) == 3 and parts[1].lower() == "as":
        if not _is_stage_name(parts[2].lower()):
            raise InvalidParameter(
                f'invalid name for build stage: "{parts[2]}", name can\'t start with a number or contain symbols'
            )
        return From(node, parts[0], parts[2].lower(), parts[2], flags.text("platform"))
    if len(parts) != 1:
        raise InvalidParameter("FROM requires either one or three arguments")
    return From(node, parts[0], platform=flags.text("platform"))


def _is_stage_name(name: str) -> bool:
    return name.isascii() and name[:1].isalpha() and all(c.isalnum() or c in "-_." for c in name)


def _arg(node: Node, escape: str) -> Arg:
    _Flags(node)
    found = words.split(_some(node), escape)
    pairs: list[tuple[str, str | None]] = []
    for word in found:
        name, equals, value = word.partition("=")
        if not name:
            raise InvalidParameter("ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return Arg(node, tuple(pairs))


def _run(node: Node, escape: str) -> Run:
    flags = _Flags(node)
    command, is_shell = _command(_some(node))
    script = None
    if node.heredocs:
        if len(node.heredocs) == 1 and len(words.split(node.rest, escape)) == 1:
            # The heredoc is all that there is: it is the script itself.
            content = node.heredocs[0].content
            script = node.heredocs[0] if content.startswith("#!") else None
            command = (content,)
        else:
            bodies = "".join(f"{heredoc.content}{heredoc.name}\n" for heredoc in node.heredocs)
            command = (f"{node.rest}\n{bodies}",)
    mounts = flags.texts("mount")
    for mount in mounts:
        runmounts.check(mount)
    network, security = flags.choice("network", NETWORKS), flags.choice("security", SECURITIES)
    return Run(node, command, is_shell, mounts, network, security, script)


def _copy(node: Node, escape: str) -> Copy:
    flags, verb = _Flags(node), node.key.upper()
    found = changes.json_list(node.rest)
    # Variables may hold blanks: a word is split here, and replaced later.
    paths = words.split(node.rest, escape) if found is None else found
    if len(paths) < 2:
        raise InvalidParameter(f"{verb} requires at least two arguments, but only {_counted(len(paths))} provided")
    *sources, destination = paths
    if not destination:
        raise InvalidParameter(f"{verb}: the destination is empty")
    heredocs = {heredoc.name: heredoc for heredoc in node.heredocs}
    files = [heredocs[h[0]] for s in sources if node.heredocs and (h := parser.heredoc_word(s, escape))]
    plain = [s for s in sources if not (node.heredocs and parser.heredoc_word(s, escape))]
    if node.heredocs and parser.heredoc_word(destination, escape):
        raise InvalidParameter(f"{verb} cannot accept a heredoc as a destination")
    return Copy(
        node,
        tuple(plain),
        destination,
        tuple(files),
        from_=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.boolean("link")),
        parents=bool(flags.boolean("parents")),
        exclude=flags.texts("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=bool(flags.boolean("keep-git-dir")),
        unpack=flags.boolean("unpack"),
    )


def _counted(number: int) -> str:
    return "one was" if number == 1 else "none were"


def _shell(node: Node, _escape: str) -> Shell:
    _Flags(node)
    found = changes.json_list(_some(node))
    if not found:
        raise InvalidParameter("SHELL requires the arguments to be in JSON form")
    return Shell(node, tuple(found))


def _maintainer(node: Node, _escape: str) -> Maintainer:
    _Flags(node)
    return Maintainer(node, _one(node))


def _command(text: str) -> tuple[tuple[str, ...], bool]:
    found = changes.json_list(text)
    return ((text,), True) if found is None else (tuple(found), False)


def _setting(node: Node, escape: str) -> Setting:
    """What can be said of the instruction before the values of its variables are known."""
    if node.key != "onbuild":
        _Flags(node)
    _CHECKS[node.key](node, escape)
    rest = node.rest
    if node.key == "healthcheck":
        kind, _, rest = rest.partition(" ")
        return Setting(node, kind.upper() == "CMD" and changes.json_list(rest.strip()) is None)
    return Setting(node, node.key in ("cmd", "entrypoint") and changes.json_list(rest) is None)


def _some(node: Node) -> str:
    if not node.rest:
        raise InvalidParameter(f"{node.key.upper()} requires at least one argument")
    return node.rest


def _one(node: Node) -> str:
    if not node.rest:
        raise InvalidParameter(f"{node.key.upper()} requires exactly one argument")
    return node.rest


def _check_pairs(node: Node, escape: str) -> None:
    changes.pairs_of(node.key.upper(), _some(node), escape)


def _check_some(node: Node, _escape: str) -> None:
    _some(node)


def _check_one(node: Node, _escape: str) -> None:
    _one(node)


def _check_command(node: Node, _escape: str) -> None:
    changes.json_list(node.rest)


def _check_without_variables(node: Node, escape: str) -> None:
    """Instructions whose text has no variables, or none in it now: they are tried on an empty configuration."""
    if "$" not in node.rest:
        flags = tuple(flag.removeprefix("--") for flag in node.flags)
        changes.State({}, escape=escape).carry_out(node.name, flags, node.rest)
    _some(node)


def _check_onbuild(node: Node, escape: str) -> None:
    changes.State({}, escape=escape).carry_out(node.name, (), _some(node))
    name = node.rest.split(None, 1)[0]
    if name.upper() not in parser.INSTRUCTIONS:
        raise InvalidParameter(f"unknown instruction: {name}{suggestion(name, parser.INSTRUCTIONS)}")


_CHECKS: dict[str, Callable[[Node, str], None]] = {
    "cmd": _check_command,
    "entrypoint": _check_command,
    "env": _check_pairs,
    "expose": _check_without_variables,
    "healthcheck": _check_without_variables,
    "label": _check_pairs,
    "onbuild": _check_onbuild,
    "stopsignal": _check_without_variables,
    "user": _check_one,
    "volume": _check_without_variables,
    "workdir": _check_one,
}
_READERS: dict[str, Callable[[Node, str], Instruction]] = {
    "from": _from,
    "arg": _arg,
    "run": _run,
    "copy": _copy,
    "add": _copy,
    "shell": _shell,
    "maintainer": _maintainer,
}
