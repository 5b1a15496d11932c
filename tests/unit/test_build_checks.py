"""BuildKit's check rules: for each a file that breaks it and one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.build import rules
from sampan.build.lint import Linter
from sampan.build.patterns import Ignore
from sampan.build.reading import read
from sampan.build.source import Source
from sampan.errors import InvalidParameter
from sampan.oci.platform import Platform

BASES: dict[str, dict[str, Any]] = {
    "a": {"Env": ["PATH=/bin", "HOME=/root"]},
    "shelled": {"Shell": ["/bin/bash", "-c"]},
}
PLATFORMS = {"a": Platform(), "armed": Platform("linux", "arm64", "v8")}


def findings(text: str, ignore: str = "", **arguments: str) -> list[tuple[str, str, int]]:
    dockerfile, parsed = read(Source("Dockerfile", text))
    linter = Linter(dockerfile, parsed, arguments, Platform(), Ignore.parse(ignore), BASES.get, PLATFORMS.get)
    return [(finding.rule, finding.text, finding.first) for finding in linter.run()]


@pytest.mark.parametrize(
    ("text", "rule", "message", "line"),
    [
        ("FROM a AS Builder", "StageNameCasing", "Stage name 'Builder' should be lowercase", 1),
        ("FROM a as b", "FromAsCasing", "'as' and 'FROM' keywords' casing do not match", 1),
        ("FROM a\nRUN x \\\n\n y", "NoEmptyContinuation", "Empty continuation line", 3),
        ("FROM a\nrun x\nRUN y", "ConsistentInstructionCasing", "Command 'run' should match the case of the command majority (uppercase)", 2),
        ("from a\nrun x\nRun y", "ConsistentInstructionCasing", "Command 'Run' should match the case of the command majority (lowercase)", 3),
        ("FROM a AS b\nFROM a AS b", "DuplicateStageName", "Duplicate stage name 'b', stage names should be unique", 2),
        ("FROM a AS context", "ReservedStageName", 'Stage name should not use the same name as reserved stage "context"', 1),
        ("FROM a\nCMD x", "JSONArgsRecommended", "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals", 2),
        ("FROM a\nENTRYPOINT x", "JSONArgsRecommended", "JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals", 2),
        ("FROM a\nMAINTAINER me", "MaintainerDeprecated", "Maintainer instruction is deprecated in favor of using label", 2),
        ("ARG VERSION\nFROM a:${VERSOIN:-1}$VERSOIN", "UndefinedArgInFrom", "FROM argument 'VERSOIN' is not declared (did you mean VERSION?)", 2),
        ("FROM a\nWORKDIR app", "WorkdirRelativePath", 'Relative workdir "app" can have unexpected results if the base image changes', 2),
        ("FROM a\nENV PATH=$PAHT:/app", "UndefinedVar", "Usage of undefined variable '$PAHT' (did you mean $PATH?)", 2),
        ("FROM a\nCOPY $zzz .", "UndefinedVar", "Usage of undefined variable '$zzz'", 2),
        ('FROM a\nCMD ["x"]\nCMD ["y"]', "MultipleInstructionsDisallowed", "Multiple CMD instructions should not be used in the same stage because only the last one will be used", 2),
        ("FROM a\nENV a b", "LegacyKeyValueFormat", '"ENV key=value" should be used instead of legacy "ENV key value" format', 2),
        ("FROM --platform=$TARGETPLATFORM a", "RedundantTargetPlatform", "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior", 1),
        ("FROM a\nARG AWS_SECRET_ACCESS_KEY", "SecretsUsedInArgOrEnv", 'Do not use ARG or ENV instructions for sensitive data (ARG "AWS_SECRET_ACCESS_KEY")', 2),
        ("FROM a\nENV API_TOKEN=x", "SecretsUsedInArgOrEnv", 'Do not use ARG or ENV instructions for sensitive data (ENV "API_TOKEN")', 2),
        ("ARG TAG\nFROM a:$TAG", "InvalidDefaultArgInFrom", "Default value for ARG a:$TAG results in empty or invalid base image name", 2),
        ("FROM --platform=linux/amd64 a", "FromPlatformFlagConstDisallowed", 'FROM --platform flag should not use constant value "linux/amd64"', 1),
        ("FROM a\nCOPY secret/x /", "CopyIgnoredFile", 'Attempting to Copy file "secret/x" that is excluded by .dockerignore', 2),
        ("FROM armed", "InvalidBaseImagePlatform", 'Base image armed was pulled with platform "linux/arm64/v8", expected "linux/amd64" for current build', 1),
        ("FROM a\nEXPOSE 80/TcP", "ExposeProtoCasing", "Defined protocol '80/TcP' in EXPOSE instruction should be lowercase", 2),
        ("FROM a\nEXPOSE 127.0.0.1:80:80", "ExposeInvalidFormat", "EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'", 2),
        ("# check=experimental=all\n# other\nFROM a AS b", "InvalidDefinitionDescription", "Comment for build stage should follow the format: `# b <description>`", 3),
    ],
)  # fmt: skip
def test_a_broken_rule_is_found(text: str, rule: str, message: str, line: int) -> None:
    assert findings(text, "secret") == [(rule, message, line)]


@pytest.mark.parametrize(
    "text",
    [
        "FROM a AS builder",
        "from a as b",
        "FROM a\nRUN x \\\n# comment\n y",
        "FROM shelled\nCMD x",
        'FROM a\nSHELL ["/bin/bash", "-c"]\nENTRYPOINT x',
        'FROM a AS b\nSHELL ["x"]\nFROM b\nCMD x',
        "FROM a\nCMD",
        "ARG V=1\nFROM a:$V",
        "ARG V\nFROM a$V",
        "ARG V\nFROM a:${V:-1}",
        "FROM a\nWORKDIR /x\nWORKDIR y",
        "FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR y",
        "FROM a\nENV PATH=$PATH:/x",
        "FROM a\nARG x\nCOPY $x .",
        "FROM a\nENV x=1\nCOPY $x ${y:-z} .",
        "FROM unknown\nCOPY $x .",
        "FROM a\nRUN echo $anything",
        "FROM a AS x\nENV v=1\nFROM x\nCOPY $v .",
        "FROM --platform=$BUILDPLATFORM a",
        "FROM --platform=linux/amd64 a AS build_amd64",
        "FROM a\nENV PUBLIC_KEY=x KEYBOARD=y PASSWORD_FILE=/z",
        "FROM a\nCOPY other /",
        "FROM a\nCOPY --from=x secret /",
        "FROM a\nEXPOSE 80/tcp 90",
        "FROM a\n# any words\nARG x",
        'FROM a\nHEALTHCHECK CMD x\nCMD ["x"]',
    ],
)
def test_what_is_right_is_not_found(text: str) -> None:
    assert findings(text, "secret") == []


def test_directives_switch_rules_off() -> None:
    text = "FROM a AS B\nCMD x\nMAINTAINER y"
    assert len(findings(text)) == 3
    assert [rule for rule, _, _ in findings(f"# check=skip=StageNameCasing,jsonargsrecommended\n{text}")] == [
        "MaintainerDeprecated"
    ]
    assert findings(f"# check=skip=all\n{text}") == []
    assert rules.settings("error=true;skip=A").error


@pytest.mark.parametrize("text", ["skipp=all", "error=maybe", "skip"])
def test_a_wrong_directive_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid check option"):
        findings(f"# check={text}\nFROM a")


def test_rules_have_the_addresses_of_their_pages() -> None:
    assert rules.url("JSONArgsRecommended").endswith("/json-args-recommended/")
    assert rules.url("FromPlatformFlagConstDisallowed").endswith("/from-platform-flag-const-disallowed/")
    assert rules.url("SecretsUsedInArgOrEnv").endswith("/secrets-used-in-arg-or-env/")
    assert rules.url("CopyIgnoredFile").endswith("/copy-ignored-file/")
