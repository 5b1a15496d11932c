"""`import -c`: Dockerfile instructions on a configuration. The expected values are dockerd's answers to the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidParameter
from sampan.oci import changes, duration, words


def changed(*lines: str, **config: Any) -> dict[str, Any]:
    """What the changes leave in the configuration, empty members left out."""
    return {key: value for key, value in changes.apply(config, lines).items() if value}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['CMD ["a","b"]'], {"Cmd": ["a", "b"]}),
        (['cmd ["x"]'], {"Cmd": ["x"]}),
        (['CMD [ "a" , "b" ] '], {"Cmd": ["a", "b"]}),
        (['CMD ["a"] x'], {"Cmd": ["a"]}),
        (['CMD [""]'], {"Cmd": [""]}),
        (["CMD []"], {}),
        (['CMD ["\\u00e9\\n"]'], {"Cmd": ["é\n"]}),
        (['CMD a "b c"'], {"Cmd": ["/bin/sh", "-c", 'a "b c"']}),
        (["CMD  a   b  "], {"Cmd": ["/bin/sh", "-c", "a   b"]}),
        (["CMD"], {"Cmd": ["/bin/sh", "-c"]}),
        (["CMD ['a']"], {"Cmd": ["/bin/sh", "-c", "['a']"]}),
        (['CMD ["a"'], {"Cmd": ["/bin/sh", "-c", '["a"']}),
        (["CMD a \\\nb"], {"Cmd": ["/bin/sh", "-c", "a b"]}),
        (['ENTRYPOINT ["x"]', 'CMD ["y"]'], {"Cmd": ["y"], "Entrypoint": ["x"]}),
        (['CMD ["y"]', 'ENTRYPOINT ["x"]'], {"Cmd": ["y"], "Entrypoint": ["x"]}),
        (["ENTRYPOINT []"], {}),
        (["ENTRYPOINT"], {}),
        (["ENTRYPOINT echo $HOME"], {"Entrypoint": ["/bin/sh", "-c", "echo $HOME"]}),
        (["ENV A=1 B=\"x y\" C=a\\ b D='q $A'"], {"Env": ["A=1", "B=x y", "C=a b", "D=q $A"]}),
        (["ENV A 1 2  3"], {"Env": ["A=1 2  3"]}),
        (['ENV A  "x  y" '], {"Env": ["A=x  y"]}),
        (
            ["ENV A=1", "ENV B=${A}x C=$A D=${Z:-def} E=${A:+alt} F=\\$A"],
            {"Env": ["A=1", "B=1x", "C=1", "D=def", "E=alt", "F=$A"]},
        ),
        (["ENV abc=hello", "ENV abc=bye def=$abc", "ENV ghi=$abc"], {"Env": ["abc=bye", "def=hello", "ghi=bye"]}),
        (["ENV A=1 A=2", "ENV A=3"], {"Env": ["A=3"]}),
        (["ENV A=1\nENV B=2"], {"Env": ["A=1", "B=2"]}),
        (["ENV A=1\\\n  B=2"], {"Env": ["A=1", "B=2"]}),
        (['ENV A="a\\"b" B=a\\\\b C=\'a"b\''], {"Env": ['A=a"b', "B=a\\b", 'C=a"b']}),
        (['ENV A=a"b c"d'], {"Env": ["A=ab cd"]}),
        (["ENV A=  B=x"], {"Env": ["A=", "B=x"]}),
        (['ENV A=" "'], {"Env": ["A= "]}),
        (["ENV A=$A"], {"Env": ["A="]}),
        (["ENV A=${B}}"], {"Env": ["A=}"]}),
        (["# a comment", "ENV A=é"], {"Env": ["A=é"]}),
        (
            ["EXPOSE 80 443/udp 8000-8002"],
            {"ExposedPorts": {"80/tcp": {}, "443/udp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}},
        ),
        (["ENV P=80", "EXPOSE $P ${P}81"], {"ExposedPorts": {"80/tcp": {}, "8081/tcp": {}}, "Env": ["P=80"]}),
        (['ENV P="80 81"', "EXPOSE $P"], {"ExposedPorts": {"80/tcp": {}, "81/tcp": {}}, "Env": ["P=80 81"]}),
        (["EXPOSE 1.2.3.4:80:90"], {"ExposedPorts": {"90/tcp": {}}}),
        (["EXPOSE 80/TCP 080 0"], {"ExposedPorts": {"80/tcp": {}, "0/tcp": {}}}),
        (['EXPOSE "80"'], {"ExposedPorts": {"80/tcp": {}}}),
        (['LABEL a=b "c d"="e f"'], {"Labels": {"a": "b", "c d": "e f"}}),
        (["LABEL a b"], {"Labels": {"a": "b"}}),
        (["LABEL a=$X b='$PATH'"], {"Labels": {"a": "", "b": "$PATH"}}),
        (["onbuild run x"], {"OnBuild": ["run x"]}),
        (["ONBUILD FOO x"], {"OnBuild": ["FOO x"]}),
        (["USER a:b"], {"User": "a:b"}),
        (["USER ${X:-u}"], {"User": "u"}),
        (["VOLUME /a /b"], {"Volumes": {"/a": {}, "/b": {}}}),
        (['VOLUME ["/a", "/b"]'], {"Volumes": {"/a": {}, "/b": {}}}),
        (["WORKDIR a", "WORKDIR b"], {"WorkingDir": "/a/b"}),
        (["WORKDIR /a/../b/", 'WORKDIR "x y"'], {"WorkingDir": "/b/x y"}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (["healthcheck cmd x y"], {"Healthcheck": {"Test": ["CMD-SHELL", "x y"]}}),
        (
            ['HEALTHCHECK --interval=5s --timeout=3m --retries=3 --start-period=1h30m CMD ["a","b"]'],
            {
                "Healthcheck": {
                    "Test": ["CMD", "a", "b"],
                    "Interval": 5_000_000_000,
                    "Timeout": 180_000_000_000,
                    "StartPeriod": 5_400_000_000_000,
                    "Retries": 3,
                }
            },
        ),
        (["HEALTHCHECK --interval=0s --retries= CMD a"], {"Healthcheck": {"Test": ["CMD-SHELL", "a"]}}),
        (["STOPSIGNAL SIGRTMIN+3"], {"StopSignal": "SIGRTMIN+3"}),
        (["STOPSIGNAL 9"], {"StopSignal": "9"}),
        (["STOPSIGNAL quit"], {"StopSignal": "quit"}),
    ],
)
def test_an_instruction_changes_what_it_changes_in_docker(lines: list[str], expected: dict[str, Any]) -> None:
    assert changed(*lines) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "file with no instructions"),
        ("# comment", "file with no instructions"),
        ("RUN x", "RUN is not a valid change command"),
        ("FROM x", "FROM is not a valid change command"),
        ("Foo", "Foo is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV =x", "ENV names can not be blank"),
        ("ENV A=1 B", 'Syntax error - can\'t find = in "B". Must be of the form: name=value'),
        (
            'ENV A="unclosed',
            'failed to process "\\"unclosed": unexpected end of statement while looking for matching double-quote',
        ),
        ("ENV A='x", 'failed to process "\'x": unexpected end of statement while looking for matching single-quote'),
        ("ENV A=${", "failed to process \"${\": syntax error: missing '}'"),
        ("ENV A=${B", "failed to process \"${B\": syntax error: missing '}'"),
        ("ENV A=${B:-x", "failed to process \"${B:-x\": syntax error: missing '}'"),
        ("ENV A=${}", 'failed to process "${}": syntax error: bad substitution'),
        ("ENV A=${Z:?err}", 'failed to process "${Z:?err}": Z: err'),
        ("ENV A=${Z?}", 'failed to process "${Z?}": Z: is not allowed to be unset'),
        ("ENV A=${A:x}", 'failed to process "${A:x}": unsupported modifier (:x) in substitution'),
        ("ENV --foo A=1", "Unknown flag: foo"),
        ("CMD --foo x", "Unknown flag: foo"),
        ('CMD ["a", 1]', "when using JSON array syntax, arrays must be comprised of strings only"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("EXPOSE 99999", "invalid containerPort: 99999"),
        ("EXPOSE 9-8", "invalid containerPort: 9-8"),
        ("EXPOSE 80/foo", "invalid proto: foo"),
        ("LABEL", "LABEL requires at least one argument"),
        ("LABEL a", "LABEL must have two arguments"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("USER", "USER requires exactly one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ('VOLUME [" "]', "VOLUME specified can not be an empty string"),
        ("VOLUME $X", "VOLUME specified can not be an empty string"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("WORKDIR $X", "cannot normalize nothing"),
        ("STOPSIGNAL SIGFOO", "invalid signal: SIGFOO"),
        ("STOPSIGNAL 0", "invalid signal: 0"),
        ("STOPSIGNAL RTMIN+31", "invalid signal: RTMIN+31"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK FOO", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=5 CMD x", 'time: missing unit in duration "5"'),
        ("HEALTHCHECK --interval=1us CMD x", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --interval=-5s CMD x", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --interval CMD x", "Missing a value on flag: interval"),
        ("HEALTHCHECK --interval=5s --interval=6s CMD x", "Duplicate flag specified: interval"),
        ("HEALTHCHECK --retries=x CMD x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("HEALTHCHECK --retries=99999999999 CMD x", 'strconv.ParseInt: parsing "99999999999": value out of range'),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
    ],
)
def test_what_is_wrong_is_told_in_dockers_words(line: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        changes.apply({}, [line])
    assert str(error.value) == message


def test_an_entrypoint_resets_the_command_of_before() -> None:
    assert changed('ENTRYPOINT ["x"]', Cmd=["old"]) == {"Entrypoint": ["x"]}
    assert changed("ENV A=1", Cmd=["old"]) == {"Cmd": ["old"], "Env": ["A=1"]}


def test_the_configuration_that_was_given_is_not_touched() -> None:
    config = {"Env": ["A=1"], "Labels": {"a": "b"}}
    changes.apply(config, ["ENV A=2", "LABEL a=c"])
    assert config == {"Env": ["A=1"], "Labels": {"a": "b"}}


@given(st.lists(st.text(st.sampled_from("ENVCMDLABEL a=$ {}:-?+\"'\\\n[]#1")), max_size=3))
def test_no_text_breaks_the_parser(lines: list[str]) -> None:
    _refused(lines)


@given(st.sampled_from(["ENV", "LABEL", "EXPOSE", "VOLUME", "USER", "HEALTHCHECK"]), st.text(max_size=20))
def test_no_argument_breaks_an_instruction(verb: str, rest: str) -> None:
    _refused([f"{verb} {rest}"])


def _refused(lines: list[str]) -> bool:
    try:
        changes.apply({}, lines)
    except InvalidParameter:
        return True
    return False


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_single_quotes_take_all_meanings_away(text: str) -> None:
    plain = text.replace("'", "")
    assert words.expand(f"'{plain}'", {}) == plain


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("1h30m", 5400 * 10**9), ("1.5s", 1_500_000_000), ("-5ms", -5_000_000), (".5us", 500), ("+1ns", 1)],
)
def test_durations_are_go_durations(text: str, nanoseconds: int) -> None:
    assert duration.parse(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "-", ".s", "1.2.3s", "s", "5x", "99999999999h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^time: "):
        duration.parse(text)
