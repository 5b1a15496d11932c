"""Our door to the C half of `json` says what the whole package says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sampan import jsontext

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_what_is_written_is_what_json_writes(value: object) -> None:
    data = jsontext.dumps(value)
    assert data == json.dumps(value, separators=(",", ":")).encode()
    assert jsontext.loads(data) == value


@given(st.text(alphabet='{}[]",:0123456789.eE+-truefalsn \t\n\\ud8\x00é'))
@example("")
@example(" \n")
@example("1 2")
@example("{} x")
@example("[1,]")
@example('{"a":1,"a":2}')
@example('"\x01"')
@example('"\\ud800"')
@example("\ufeff1")
def test_what_is_read_is_what_json_reads(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):  # whatever its text is
            jsontext.loads(text)
    else:
        assert jsontext.loads(text) == expected
        assert (
            jsontext.loads(f" {text}\n".encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")) == expected
        )


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", '{"a": [NaN]}'])
def test_constants_that_json_does_not_have_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no JSON value"):
        jsontext.loads(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_constants_are_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsontext.dumps(value)


def test_other_objects_are_not_written() -> None:
    with pytest.raises(TypeError, match="a set is no JSON value"):
        jsontext.dumps({"a": {1}})


def test_names_that_are_not_utf8_survive() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert jsontext.loads(jsontext.dumps([name])) == [name]


def test_bytes_that_are_not_utf8_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        jsontext.loads(b'"caf\xe9"')


def test_deep_nesting_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        jsontext.loads("[" * 100_000)


def test_a_sealed_process_gets_a_value_error_too() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from sampan import jsontext\n"
        "from sampan.shim import seal; seal.seal()\n"
        "for text in ('{', '[1,]', 'tru', '1 2', ''):\n"
        "    try: jsontext.loads(text); print('taken', text)\n"
        "    except ValueError: pass\n"
        "print(sorted(m for m in sys.modules if m in ('json', 're')))\n"
    )
    src = str(jsontext.__file__).removesuffix("/sampan/jsontext.py")
    result = subprocess.run([sys.executable, "-I", "-S", "-c", program, src], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("[]\n", "")
