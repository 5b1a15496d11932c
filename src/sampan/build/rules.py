"""BuildKit's build checks as data: names, what they say, and what `# check=` switches on and off.

docs.docker.com/reference/build-checks has a page for each.
"""

from __future__ import annotations

from sampan.build.source import suggestion
from sampan.errors import InvalidParameter
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

URL = "https://docs.docker.com/go/dockerfile/rule/"

RULES = {
    "StageNameCasing": "Stage name '{0}' should be lowercase",
    "FromAsCasing": "'{0}' and '{1}' keywords' casing do not match",
    "NoEmptyContinuation": "Empty continuation line",
    "ConsistentInstructionCasing": "Command '{0}' should match the case of the command majority ({1})",
    "DuplicateStageName": "Duplicate stage name '{0}', stage names should be unique",
    "ReservedStageName": 'Stage name should not use the same name as reserved stage "{0}"',
    "JSONArgsRecommended": "JSON arguments recommended for {0} to prevent unintended behavior related to OS signals",
    "MaintainerDeprecated": "Maintainer instruction is deprecated in favor of using label",
    "UndefinedArgInFrom": "FROM argument '{0}' is not declared{1}",
    "WorkdirRelativePath": 'Relative workdir "{0}" can have unexpected results if the base image changes',
    "UndefinedVar": "Usage of undefined variable '${0}'{1}",
    "MultipleInstructionsDisallowed": "Multiple {0} instructions should not be used in the same stage because only the last one will be used",
    "LegacyKeyValueFormat": '"{0} key=value" should be used instead of legacy "{0} key value" format',
    "RedundantTargetPlatform": "Setting platform to predefined {0} in FROM is redundant as this is the default behavior",
    "SecretsUsedInArgOrEnv": 'Do not use ARG or ENV instructions for sensitive data ({0} "{1}")',
    "InvalidDefaultArgInFrom": "Default value for ARG {0} results in empty or invalid base image name",
    "FromPlatformFlagConstDisallowed": 'FROM --platform flag should not use constant value "{0}"',
    "CopyIgnoredFile": 'Attempting to {0} file "{1}" that is excluded by .dockerignore',
    "InvalidDefinitionDescription": "Comment for {0} should follow the format: `# {1} <description>`",
    "InvalidBaseImagePlatform": 'Base image {0} was pulled with platform "{1}", expected "{2}" for current build',
    "ExposeProtoCasing": "Defined protocol '{0}' in EXPOSE instruction should be lowercase",
    "ExposeInvalidFormat": "EXPOSE instruction should not define an IP address or host-port mapping, found '{0}'",
}
EXPERIMENTAL = frozenset({"InvalidDefinitionDescription"})


def url(rule: str) -> str:
    """Where a rule is explained: its words with hyphens between."""
    words = ""
    for i, character in enumerate(rule):
        starts = character.isupper() and i and (rule[i - 1].islower() or rule[i + 1 : i + 2].islower())
        words += f"-{character.lower()}" if starts else character.lower()
    return f"{URL}{words}/"


class Finding(Struct):
    """What a rule found. first, last: lines from 1."""

    rule: str
    text: str
    first: int
    last: int


class Settings(Struct):
    """`# check=skip=A,B;error=true`: which rules say nothing, and whether what the others find ends a build."""

    skipped: tuple[str, ...] = ()
    skip_all: bool = False
    error: bool = False
    experimental: tuple[str, ...] = ()
    experimental_all: bool = False

    def wants(self, rule: str) -> bool:
        """Whether a finding of the rule is to be told."""
        if rule in EXPERIMENTAL:
            return self.experimental_all or rule in self.experimental
        return not (self.skip_all or rule in self.skipped)


def settings(text: str) -> Settings:
    """Read the value of the `check` directive. Raises `InvalidParameter`."""
    found = Settings()
    for part in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, value = part.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals or key not in ("skip", "error", "experimental"):
            raise InvalidParameter(
                f"invalid check option {part!r}{suggestion(key, ('skip', 'error', 'experimental'))}: skip=RULES, error=true or experimental=RULES"
            )
        if key == "error":
            if value.lower() not in ("true", "false"):
                raise InvalidParameter(f"invalid check option {part!r}: it is neither true nor false")
            found = found.replace(error=value.lower() == "true")
        elif key == "skip":
            found = found.replace(skip_all=value.lower() == "all", skipped=_rules(value))
        else:
            found = found.replace(experimental_all=value.lower() == "all", experimental=_rules(value))
    return found


def _rules(text: str) -> tuple[str, ...]:
    if text.lower() == "all":
        return ()
    names = [name.strip() for name in text.split(",")]
    by_lower = {name.lower(): name for name in RULES}
    # A rule that only a newer BuildKit knows is no reason to refuse a file.
    return tuple(by_lower.get(name.lower(), name) for name in names)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """By line, each once."""
    return sorted(dict.fromkeys(findings), key=lambda finding: (finding.first, finding.rule, finding.text))
