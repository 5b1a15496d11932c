"""Changes to an image's configuration, written as Dockerfile instructions: `import -c`, later `commit -c`.

The instructions that need no build step: CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME
WORKDIR. Their syntax is the Dockerfile reference's; what is wrong is told in Docker's words.
"""

from __future__ import annotations

from sampan import jsontext
from sampan.errors import InvalidParameter
from sampan.oci import duration, signals, words
from sampan.oci.process import SHELL
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

_PROTOCOLS = ("tcp", "udp", "sctp")
_MAX_PORT = 65535
_SHORTEST_INTERVAL = 1_000_000  # nanoseconds; the daemon's timer is no finer than a millisecond
_BLANKS = " \t\v\f\r"


class Instruction(Struct):
    """One instruction taken apart: `name` as typed, `--flags` before the arguments, the arguments as one text."""

    name: str
    flags: tuple[str, ...]
    rest: str


def apply(config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A copy of a Docker `Config` with the instructions carried out in their order. Raises `InvalidParameter`."""
    result = {key: _copy(value) for key, value in config.items()}
    if not changes:
        return result
    state = State(result)
    for instruction in _parse("\n".join(changes)):
        _INSTRUCTIONS[instruction.name.lower()](state, instruction)
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(value)
    return list(value) if isinstance(value, (list, tuple)) else value


def _parse(text: str) -> list[Instruction]:
    """The instructions of a text: comments and empty lines dropped, lines joined that end in a backslash."""
    found: list[Instruction] = []
    line = ""
    for part in text.split("\n"):
        if not part.strip() or part.lstrip().startswith("#"):
            continue
        line += part if line else part.lstrip()
        if line.rstrip(" \t").endswith(words.ESCAPE):
            line = line.rstrip(" \t")[:-1]
            continue
        found.append(_instruction(line))
        line = ""
    if line.strip():
        found.append(_instruction(line))
    if not found:
        raise InvalidParameter("file with no instructions")
    for instruction in found:
        if instruction.name.lower() not in _INSTRUCTIONS:
            raise InvalidParameter(f"{instruction.name} is not a valid change command")
    return found


def _instruction(line: str) -> Instruction:
    name, _, rest = line.strip().replace("\t", " ", 1).partition(" ")
    rest = rest.strip()
    flags: list[str] = []
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        rest = rest.lstrip()
        if flag == "--":
            break
        flags.append(flag[2:])
    return Instruction(name, tuple(flags), rest)


class State:
    """What the instructions change, and what of it later ones depend on.

    config: a Docker `Config`, which is changed. arguments: variables beside those of ENV, which count more. escape: what takes the
    meaning of a character away.
    """

    def __init__(
        self, config: dict[str, Any], arguments: Mapping[str, str] | None = None, escape: str = words.ESCAPE
    ) -> None:
        self.config = config
        self.arguments: Mapping[str, str] = {} if arguments is None else arguments
        self.escape = escape
        self.command_was_set = False

    def carry_out(self, name: str, flags: Sequence[str], rest: str) -> None:
        """Do one instruction of those that `apply` knows. Raises `InvalidParameter`."""
        _INSTRUCTIONS[name.lower()](self, Instruction(name, tuple(flags), rest))

    def expand(self, word: str) -> str:
        return words.expand(word, self.variables(), self.escape)

    def variables(self) -> Mapping[str, str]:
        environment = words.environment(self.config.get("Env") or [])
        return {**self.arguments, **environment} if self.arguments else environment


# Arguments


def _flags(instruction: Instruction, known: tuple[str, ...] = ()) -> dict[str, str]:
    found: dict[str, str] = {}
    for flag in instruction.flags:
        name, equals, value = flag.partition("=")
        if name not in known:
            raise InvalidParameter(f"Unknown flag: {name}")
        if name in found:
            raise InvalidParameter(f"Duplicate flag specified: {name}")
        if not equals:
            raise InvalidParameter(f"Missing a value on flag: {name}")
        found[name] = value
    return found


def json_list(text: str) -> list[str] | None:
    """The list of a JSON (exec) form; None if the text is not one and so is the shell form."""
    if not text.startswith("["):
        return None
    try:
        # What follows the list is not looked at, as Docker's decoder does not.
        found, _ = jsontext.leading(text)
    except ValueError:
        return None
    if not all(isinstance(item, str) for item in found):
        raise InvalidParameter("when using JSON array syntax, arrays must be comprised of strings only")
    return list(found)


def _one(instruction: Instruction) -> str:
    if not instruction.rest:
        raise InvalidParameter(f"{instruction.name.upper()} requires exactly one argument")
    _flags(instruction)
    return instruction.rest


def _some(instruction: Instruction) -> str:
    if not instruction.rest:
        raise InvalidParameter(f"{instruction.name.upper()} requires at least one argument")
    return instruction.rest


def pairs_of(verb: str, text: str, escape: str = words.ESCAPE) -> list[tuple[str, str]]:
    """The names and values of ENV and LABEL as they stand: `name=value ...`, or the old form `name the rest`.

    Raises `InvalidParameter`.
    """
    found = words.split(text, escape)
    if not found or "=" not in found[0]:
        parts = text.split(None, 1)
        if len(parts) < 2:
            raise InvalidParameter(f"{verb} must have two arguments")
        pairs = [(parts[0], parts[1])]
    else:
        for word in found:
            if "=" not in word:
                raise InvalidParameter(
                    f"Syntax error - can't find = in {words.quoted(word)}. Must be of the form: name=value"
                )
        pairs = [(name, value) for name, _, value in (word.partition("=") for word in found)]
    if not all(name for name, _ in pairs):
        raise InvalidParameter(f"{verb} names can not be blank")
    return pairs


def _pairs(state: State, instruction: Instruction) -> list[tuple[str, str]]:
    _flags(instruction)
    pairs = pairs_of(instruction.name.upper(), _some(instruction), state.escape)
    # All of one instruction see the variables as they were before it.
    variables = state.variables()
    return [(words.expand(k, variables, state.escape), words.expand(v, variables, state.escape)) for k, v in pairs]


# Instructions


def _cmd(state: State, instruction: Instruction) -> None:
    _flags(instruction)
    exec_form = json_list(instruction.rest)
    command = exec_form if exec_form is not None else [*_shell(state), *filter(None, [instruction.rest])]
    state.config["Cmd"] = command
    state.command_was_set = True


def _entrypoint(state: State, instruction: Instruction) -> None:
    _flags(instruction)
    exec_form = json_list(instruction.rest)
    if exec_form is None and instruction.rest:
        exec_form = [*_shell(state), instruction.rest]
    state.config["Entrypoint"] = exec_form or None
    # The command that was there belonged to another entrypoint.
    if not state.command_was_set:
        state.config["Cmd"] = None


def _shell(state: State) -> list[str]:
    return list(state.config.get("Shell") or SHELL)


def _env(state: State, instruction: Instruction) -> None:
    environment: list[str] = list(state.config.get("Env") or [])
    for name, value in _pairs(state, instruction):
        entry = f"{name}={value}"
        for position, old in enumerate(environment):
            if old.partition("=")[0] == name:
                environment[position] = entry
                break
        else:
            environment.append(entry)
    state.config["Env"] = environment


def _label(state: State, instruction: Instruction) -> None:
    state.config["Labels"] = {**(state.config.get("Labels") or {}), **dict(_pairs(state, instruction))}


def _expose(state: State, instruction: Instruction) -> None:
    rest = _some(instruction)
    _flags(instruction)
    ports = dict(state.config.get("ExposedPorts") or {})
    variables = state.variables()
    for word in rest.split():
        for spec in words.expand_words(word, variables, state.escape):
            ports |= {port: {} for port in exposed_ports(spec)}
    state.config["ExposedPorts"] = ports


def _onbuild(state: State, instruction: Instruction) -> None:
    rest = _some(instruction)
    trigger = rest.split(None, 1)[0].upper()
    if trigger == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise InvalidParameter(f"{trigger} isn't allowed as an ONBUILD trigger")
    _flags(instruction)
    state.config["OnBuild"] = [*(state.config.get("OnBuild") or []), rest]


def _user(state: State, instruction: Instruction) -> None:
    state.config["User"] = state.expand(_one(instruction))


def _volume(state: State, instruction: Instruction) -> None:
    rest = _some(instruction)
    _flags(instruction)
    volumes = dict(state.config.get("Volumes") or {})
    listed = json_list(rest)
    for volume in rest.split() if listed is None else listed:
        path = state.expand(volume).strip()
        if not path:
            raise InvalidParameter("VOLUME specified can not be an empty string")
        volumes[path] = {}
    state.config["Volumes"] = volumes


def _workdir(state: State, instruction: Instruction) -> None:
    import posixpath

    path = state.expand(_one(instruction))
    if not path:
        raise InvalidParameter("cannot normalize nothing")
    if not path.startswith("/"):
        path = posixpath.normpath(posixpath.join("/", state.config.get("WorkingDir") or "", path))
    state.config["WorkingDir"] = path


def _stopsignal(state: State, instruction: Instruction) -> None:
    name = state.expand(_one(instruction))
    signals.parse(name)  # Docker keeps the text, and refuses one that names no signal.
    state.config["StopSignal"] = name


def _healthcheck(state: State, instruction: Instruction) -> None:
    kind, _, rest = _some(instruction).partition(" ")
    rest = rest.strip()
    if kind.upper() == "NONE":
        if rest:
            raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
        state.config["Healthcheck"] = {"Test": ["NONE"]}
        return
    flags = _flags(instruction, ("interval", "timeout", "start-period", "start-interval", "retries"))
    if kind.upper() != "CMD":
        raise InvalidParameter(f"Unknown type {words.quoted(kind.upper())} in HEALTHCHECK (try CMD)")
    listed = json_list(rest)
    test = ["CMD", *listed] if listed is not None else ["CMD-SHELL", *filter(None, [rest])]
    if len(test) == 1:
        raise InvalidParameter("Missing command after HEALTHCHECK CMD")
    health: dict[str, Any] = {"Test": test}
    for flag, key in _HEALTH_FLAGS.items():
        if value := _interval(flag, flags.get(flag, "")):
            health[key] = value
    if retries := _retries(flags.get("retries", "")):
        health["Retries"] = retries
    state.config["Healthcheck"] = health


_HEALTH_FLAGS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def _interval(flag: str, text: str) -> int:
    value = duration.parse(text) if text else 0
    if value and value < _SHORTEST_INTERVAL:
        raise InvalidParameter(f'Interval "{flag}" cannot be less than 1ms')
    return value


def _retries(text: str) -> int:
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not text:
        return 0
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidParameter(f"strconv.ParseInt: parsing {words.quoted(text)}: invalid syntax")
    if len(digits) > 10 or abs(int(text)) >= 1 << 31:
        raise InvalidParameter(f"strconv.ParseInt: parsing {words.quoted(text)}: value out of range")
    if int(text) < 0:
        raise InvalidParameter(f"--retries cannot be negative ({int(text)})")
    return int(text)


_INSTRUCTIONS: dict[str, Callable[[State, Instruction], None]] = {
    "cmd": _cmd,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "healthcheck": _healthcheck,
    "label": _label,
    "onbuild": _onbuild,
    "stopsignal": _stopsignal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}

NAMES = frozenset(_INSTRUCTIONS)
"""The instructions that are here, in lower case."""


# Values


def exposed_ports(spec: str) -> list[str]:
    """The container's ports in a port specification, as `80/tcp`: a number, a range, with a protocol.

    A host's part before it (`8080:80`) is no use in an image; Docker takes it and drops it, and so do we. Raises
    `InvalidParameter`.
    """
    numbers, slash, protocol = spec.rpartition(":")[2].partition("/")
    protocol = protocol if slash else "tcp"
    if not numbers:
        raise InvalidParameter(f"no port specified: {spec}<empty>")
    first, dash, last = numbers.partition("-")
    if not _is_port(first) or (dash and not _is_port(last)) or (dash and int(last) < int(first)):
        raise InvalidParameter(f"invalid containerPort: {numbers}")
    if protocol.lower() not in _PROTOCOLS:
        raise InvalidParameter(f"invalid proto: {protocol}")
    return [f"{number}/{protocol.lower()}" for number in range(int(first), int(last if dash else first) + 1)]


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= _MAX_PORT
