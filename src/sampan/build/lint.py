"""The build checks carried out: a Dockerfile in, findings out. The rules are `build.rules`."""

from __future__ import annotations

from sampan.build import rules
from sampan.build.instructions import Arg, Copy, Instruction, Maintainer, Setting, Shell
from sampan.build.patterns import has_wildcards
from sampan.build.rules import Finding
from sampan.build.scope import PROXIES, GlobalScope, Scope, Used, automatic, declared_names
from sampan.build.source import suggestion
from sampan.build.stages import SCRATCH
from sampan.errors import InvalidParameter
from sampan.oci import changes, reference, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from sampan.build.instructions import Dockerfile, From, Stage
    from sampan.build.parser import Node, Parsed
    from sampan.build.patterns import Ignore
    from sampan.oci.platform import Platform

_SECRET_WORDS = ("apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token")
_NO_SECRETS = ("public", "key_id", "keyring", "_file", "_path")
_RESERVED = ("scratch", "context")


class Linter:
    """Checks one Dockerfile.

    base: the `Config` of an image that a stage is FROM, None if it is not known here (then its variables are not judged).
    platform_of: the platform of such an image.
    """

    def __init__(
        self,
        dockerfile: Dockerfile,
        parsed: Parsed,
        arguments: Mapping[str, str],
        platform: Platform,
        ignore: Ignore,
        base: Callable[[str], Mapping[str, Any] | None],
        platform_of: Callable[[str], Platform | None] = lambda _: None,
    ) -> None:
        self._expected = platform
        self._platform_of = platform_of
        self._dockerfile = dockerfile
        self._parsed = parsed
        self._arguments = arguments
        self._platform = automatic(platform, "")
        self._ignore = ignore
        self._base = base
        self._escape = dockerfile.escape
        # Of each stage that was looked at, what the next one FROM it begins with: None if that is not known.
        self._ends: dict[str, tuple[Mapping[str, str] | None, bool, bool]] = {}

    def run(self) -> list[Finding]:
        """All findings of the rules that the file has not switched off, by line. Raises `InvalidParameter` for a wrong `check`."""
        settings = rules.settings(self._parsed.directives.get("check", ""))
        return rules.ordered(finding for finding in self._findings() if settings.wants(finding.rule))

    def _findings(self) -> Iterator[Finding]:
        yield from self._of_text()
        yield from self._of_names()
        declared = self._globals({})
        for stage in self._dockerfile.stages:
            yield from self._of_from(stage.head, declared)
            yield from self._of_commands(stage)
            yield from self._of_variables(stage)
        for arg in self._dockerfile.arguments:
            yield from _secrets(arg.node, "ARG", [name for name, _ in arg.pairs])
            yield from _description(arg)

    # The text

    def _of_text(self) -> Iterator[Finding]:
        for line in self._parsed.empty_continuations:
            yield Finding("NoEmptyContinuation", rules.RULES["NoEmptyContinuation"], line, line)
        nodes = self._parsed.nodes
        upper = sum(node.name.isupper() for node in nodes)
        lower = sum(node.name.islower() for node in nodes)
        majority = "uppercase" if upper >= lower else "lowercase"
        for node in nodes:
            if not (node.name.isupper() if majority == "uppercase" else node.name.islower()):
                yield _found(node, "ConsistentInstructionCasing", node.name, majority)

    # Stages

    def _of_names(self) -> Iterator[Finding]:
        seen: set[str] = set()
        for stage in self._dockerfile.stages:
            head = stage.head
            if not head.name:
                continue
            if head.name in seen:
                yield _found(head.node, "DuplicateStageName", head.name)
            seen.add(head.name)
            if head.name_typed != head.name:
                yield _found(head.node, "StageNameCasing", head.name_typed)
            if head.name in _RESERVED:
                yield _found(head.node, "ReservedStageName", head.name)
            keyword = head.node.rest.split()[1]
            if keyword.isupper() != head.node.name.isupper() or keyword.islower() != head.node.name.islower():
                yield _found(head.node, "FromAsCasing", keyword, head.node.name)
            yield from _description(head)

    def _globals(self, given: Mapping[str, str]) -> dict[str, str]:
        scope = GlobalScope(given, self._platform, self._escape)
        for arg in self._dockerfile.arguments:
            scope.declare(arg, {})
        return scope.values

    def _of_from(self, head: From, declared: Mapping[str, str]) -> Iterator[Finding]:
        names = {*declared_names(self._dockerfile.arguments), *self._platform}
        for text in (head.base, head.platform):
            used = Used({**declared, **self._arguments})
            _expanded(text, used, self._escape)
            for name, known in used.asked.items():
                if not known and name not in names:
                    yield _found(head.node, "UndefinedArgInFrom", name, _meant(name, names, ""))
        yield from self._of_platform(head)
        yield from self._of_image(head, declared)
        base = _expanded(head.base, declared, self._escape)
        if "$" in head.base and base is not None and not _is_base(base):
            yield _found(head.node, "InvalidDefaultArgInFrom", head.base)

    def _of_platform(self, head: From) -> Iterator[Finding]:
        if head.platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            yield _found(head.node, "RedundantTargetPlatform", head.platform)
        elif head.platform and "$" not in head.platform:
            # A stage that has the platform in its name is meant to be for it alone.
            parts = [part for part in head.platform.lower().split("/") if part]
            if not any(part in head.name for part in parts):
                yield _found(head.node, "FromPlatformFlagConstDisallowed", head.platform)

    def _of_image(self, head: From, declared: Mapping[str, str]) -> Iterator[Finding]:
        """The base that is here is not for the platform that is asked for."""
        base = _expanded(head.base, {**declared, **self._arguments}, self._escape) or ""
        if base.lower() in (SCRATCH, *(stage.name for stage in self._dockerfile.stages)) or head.platform:
            return
        found = self._platform_of(base)
        wanted = self._expected
        if found is not None and (found.os, found.architecture) != (wanted.os, wanted.architecture):
            yield _found(head.node, "InvalidBaseImagePlatform", base, str(found), str(wanted))

    # Instructions

    def _of_commands(self, stage: Stage) -> Iterator[Finding]:
        last: dict[str, Node] = {}
        for instruction in stage.body:
            node = instruction.node
            if isinstance(instruction, Maintainer):
                yield _found(node, "MaintainerDeprecated")
            if node.key in ("cmd", "entrypoint", "healthcheck"):
                if node.key in last:
                    yield _found(last[node.key], "MultipleInstructionsDisallowed", node.key.upper())
                last[node.key] = node
            if node.key in ("env", "label") and "=" not in words.split(node.rest, self._escape)[0]:
                yield _found(node, "LegacyKeyValueFormat", node.key.upper())
            if isinstance(instruction, Arg):
                yield from _secrets(node, "ARG", [name for name, _ in instruction.pairs])
                yield from _description(instruction)
            if node.key == "env":
                names = [name for name, _ in changes.pairs_of("ENV", node.rest, self._escape)]
                yield from _secrets(node, "ENV", names)
            if node.key == "expose":
                yield from _ports(node)
            if isinstance(instruction, Copy):
                yield from self._ignored(instruction)

    def _ignored(self, copy: Copy) -> Iterator[Finding]:
        if copy.from_:
            return
        for source in copy.sources:
            path = source.strip("/").removeprefix("./")
            plain = path and not has_wildcards(path) and "$" not in path and "://" not in path
            if plain and self._ignore.ignores(path):
                yield _found(copy.node, "CopyIgnoredFile", copy.node.key.capitalize(), source)

    def _of_variables(self, stage: Stage) -> Iterator[Finding]:
        """What is undefined, and what depends on a WORKDIR or a SHELL before it."""
        above = self._globals(self._arguments)
        environment, absolute, own_shell = self._begin(stage.head, above)
        scope = Scope(self._arguments, above, self._escape)
        names: set[str] = set()
        for instruction in stage.body:
            used = Used({**dict.fromkeys(names, ""), **scope.values, **(environment or {})})
            values = self._expand(instruction, used)
            if environment is not None:
                known = {*names, *environment, *scope.values, "PATH"}
                for name in (name for name, there in used.asked.items() if not there and name not in PROXIES):
                    yield _found(instruction.node, "UndefinedVar", name, _meant(name, known, "$"))
            if isinstance(instruction, Arg):
                names.update(name for name, _ in instruction.pairs)
                try:
                    scope.declare(instruction, environment or {})
                except InvalidParameter:
                    continue  # The build will say so.
            elif instruction.node.key == "env" and environment is not None:
                pairs = changes.pairs_of("ENV", instruction.node.rest, self._escape)
                environment = {**environment, **dict(zip([name for name, _ in pairs], values, strict=False))}
            elif instruction.node.key == "workdir" and values:
                if not absolute and not values[0].startswith("/"):
                    yield _found(instruction.node, "WorkdirRelativePath", values[0])
                absolute = absolute or values[0].startswith("/")
            elif isinstance(instruction, Shell):
                own_shell = True
            elif _is_shell_form(instruction) and not own_shell:
                yield _found(instruction.node, "JSONArgsRecommended", instruction.node.key.upper())
        self._ends[stage.name or str(stage.index)] = environment, absolute, own_shell

    def _begin(self, head: From, above: Mapping[str, str]) -> tuple[Mapping[str, str] | None, bool, bool]:
        """The environment, whether a WORKDIR was absolute, and whether a SHELL was said, where a stage begins."""
        base = _expanded(head.base, above, self._escape) or ""
        if base.lower() in self._ends:
            return self._ends[base.lower()]
        if base == "scratch":
            return {}, False, False
        config = self._base(base)
        if config is None:
            return None, False, False
        return words.environment(config.get("Env") or []), False, bool(config.get("Shell"))

    def _expand(self, instruction: Instruction, used: Used) -> list[str]:
        """The values of an instruction's words."""
        texts: list[str] = []
        node = instruction.node
        if isinstance(instruction, Arg):
            texts = [default for _, default in instruction.pairs if default is not None]
        elif isinstance(instruction, Copy):
            texts = [*instruction.sources, instruction.destination, instruction.chown, instruction.chmod]
        elif node.key in ("env", "label"):
            texts = [value for _, value in changes.pairs_of(node.key.upper(), node.rest, self._escape)]
        elif node.key in ("workdir", "user", "stopsignal", "expose", "volume"):
            texts = [node.rest]
        return [_expanded(text, used, self._escape) or "" for text in texts]


def _expanded(text: str, variables: Mapping[str, str], escape: str) -> str | None:
    try:
        return words.expand(text, variables, escape)
    except InvalidParameter:
        return None  # That is an error of the build, and no finding.


def _found(node: Node, rule: str, *values: str) -> Finding:
    return Finding(rule, rules.RULES[rule].format(*values), node.first, node.last)


def _meant(name: str, known: set[str], sign: str) -> str:
    found = suggestion(name, known)
    return found.replace("(did you mean ", f"(did you mean {sign}")


def _is_base(name: str) -> bool:
    try:
        return bool(name) and bool(reference.parse(name))
    except InvalidParameter:
        return False


def _is_shell_form(instruction: Instruction) -> bool:
    return (
        isinstance(instruction, Setting)
        and instruction.is_shell
        and instruction.node.key != "healthcheck"
        and bool(instruction.node.rest)
    )


def _secrets(node: Node, verb: str, names: list[str]) -> Iterator[Finding]:
    for name in names:
        lower = name.lower()
        parts = lower.replace("-", "_").split("_")
        if any(word in parts for word in _SECRET_WORDS) and not any(word in lower for word in _NO_SECRETS):
            yield _found(node, "SecretsUsedInArgOrEnv", verb, name)


def _ports(node: Node) -> Iterator[Finding]:
    for word in node.rest.split():
        protocol = word.rpartition("/")[2] if "/" in word else ""
        if protocol != protocol.lower() and "$" not in protocol:
            yield _found(node, "ExposeProtoCasing", word)
        if ":" in word and "$" not in word:
            yield _found(node, "ExposeInvalidFormat", word)


def _description(instruction: From | Arg) -> Iterator[Finding]:
    comment = instruction.node.comment
    if not comment:
        return
    if isinstance(instruction, Arg):
        name, what = instruction.pairs[0][0], "argument"
    else:
        name, what = instruction.name, "build stage"
    if name and comment[-1].split(None, 1)[:1] != [name]:
        yield _found(instruction.node, "InvalidDefinitionDescription", what, name)
