"""Names of images: the distribution grammar, its completion, and Docker's texts for what is none."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidParameter
from sampan.oci import reference

HEX = "9a5ee3494c0d9b783beaa9bcb8b9a56dcbef12f9b98410a6f0feebbfff7cecee"

# The grammar as the distribution project documents it, written as one expression: the referee of the hand parser.
_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_PART}(?:\.{_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_NAME = rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
GRAMMAR = re.compile(rf"({_NAME})(?::([0-9A-Za-z_][0-9A-Za-z_.-]{{0,127}}))?(?:@({_DIGEST}))?")


@pytest.mark.parametrize(
    ("typed", "complete", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("owner/name", "docker.io/owner/name:latest", "owner/name:latest"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
        ("host:5000/a/b:t", "host:5000/a/b:t", "host:5000/a/b:t"),
        ("HOST/a", "HOST/a:latest", "HOST/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("ghcr.io/o/n__m-x.y:V1.0-rc_1", "ghcr.io/o/n__m-x.y:V1.0-rc_1", "ghcr.io/o/n__m-x.y:V1.0-rc_1"),
        (f"a@sha256:{HEX}", f"docker.io/library/a@sha256:{HEX}", f"a@sha256:{HEX}"),
        (f"a:t@sha256:{HEX}", f"docker.io/library/a@sha256:{HEX}", f"a@sha256:{HEX}"),
        ("a_b.c/x", "a_b.c/x:latest", "a_b.c/x:latest"),
    ],
)
def test_a_name_is_completed_and_shortened(typed: str, complete: str, familiar: str) -> None:
    found = reference.parse(typed).canonical()
    assert (str(found), found.familiar) == (complete, familiar)
    assert reference.parse(str(found)) == found
    assert reference.parse(familiar).canonical() == found


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("x/UP:a", "invalid reference format: repository name (x/UP) must be lowercase"),
        ("localhost/Foo", "invalid reference format: repository name (Foo) must be lowercase"),
        ("", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a/", "invalid reference format"),
        ("/a", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a-_b", "invalid reference format"),
        ("x:-a", "invalid reference format"),
        ("x:" + "a" * 129, "invalid reference format"),
        ("X.:5000/a", "invalid reference format"),
        ("-x", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("x@sha256:12", "invalid reference format"),
        ("x@", "invalid reference format"),
        (f"x@foo:{HEX}", "unsupported digest algorithm"),
        (f"x@sha256:{HEX[:40]}", "invalid checksum digest length"),
        (f"x@sha256:{HEX.upper()}", "invalid checksum digest format"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        ("a" * 256, "repository name must not be more than 255 characters"),
    ],
)
def test_what_is_no_name_is_told_as_docker_tells_it(typed: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        reference.parse(typed)
    assert str(error.value) == message


@given(st.text(st.sampled_from("ab0AZ./:@_-[]sha256 é"), max_size=24))
def test_the_hand_parser_accepts_exactly_the_grammar(text: str) -> None:
    _compare_with_the_grammar(text)


@pytest.mark.thorough
@given(st.from_regex(GRAMMAR, fullmatch=True))
def test_the_hand_parser_accepts_what_the_grammar_makes(text: str) -> None:
    _compare_with_the_grammar(text)


def _compare_with_the_grammar(text: str) -> None:
    domain, remainder = reference._split_domain(text)
    match = GRAMMAR.fullmatch(f"{domain}/{remainder}")
    found, refusal = _parsed(text)
    if found is not None:
        assert match is not None
        assert (found.name, found.tag, found.digest) == (match[1], match[2] or "", match[3] or "")
    elif match is not None:
        # Rules beside the grammar: what is an id, what is a real digest, the length, and upper case said better.
        assert any(word in refusal for word in ("lowercase", "digest", "characters", "hexadecimal"))


def _parsed(text: str) -> tuple[reference.Reference | None, str]:
    try:
        return reference.parse(text), ""
    except InvalidParameter as e:
        return None, str(e)


def test_ids_and_their_prefixes() -> None:
    assert reference.parse_id(HEX) == reference.parse_id(f"sha256:{HEX}") == f"sha256:{HEX}"
    assert reference.parse_id(HEX[:63]) is None
    assert reference.id_prefix("sha256:abc") == reference.id_prefix("abc") == "abc"
    assert reference.id_prefix("xyz") is None
    assert reference.id_prefix("") is None
    assert reference.id_prefix(HEX + "0") is None
