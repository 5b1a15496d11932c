"""The grammar of flags, compared with what pflag does with the same words (seen with docker 28.2.2)."""

from __future__ import annotations

import pytest

from sampan.cli.flags import Flag, HelpWanted, UsageError, parse

FLAGS = (
    Flag("interactive", "bool", short="i"),
    Flag("tty", "bool", short="t"),
    Flag("proxy", "bool", default=True),
    Flag("name", "string"),
    Flag("memory", "bytes", short="m"),
    Flag("memory-swap", "bytes or -1"),
    Flag("cpus", "cpus"),
    Flag("shares", "int", short="c"),
    Flag("env", "variables", short="e"),
    Flag("label", "labels", short="l"),
    Flag("attach", "streams", short="a"),
    Flag("network", "string", default="default"),
    Flag("net", "string", alias_of="network", hidden=True),
    Flag("time", "int", alias_of="shares", deprecated="use --shares instead"),
)


def test_flags_that_were_not_given_have_their_defaults() -> None:
    a = parse(FLAGS, ["word"])
    assert (a["interactive"], a["proxy"], a["name"], a["memory"], a["env"], a["network"]) == (
        False, True, "", 0, [], "default",
    )  # fmt: skip
    assert not a.given("name")


@pytest.mark.parametrize(
    ("args", "name", "value"),
    [
        (["--name=x"], "name", "x"),
        (["--name", "x"], "name", "x"),
        (["--name="], "name", ""),
        (["--name", "-x"], "name", "-x"),
        (["--name", "--"], "name", "--"),
        (["--name", "a", "--name", "b"], "name", "b"),
        (["-it"], "tty", True),
        (["-it"], "interactive", True),
        (["-i=false"], "interactive", False),
        (["-it=0"], "tty", False),
        (["--interactive=F"], "interactive", False),
        (["--proxy=false"], "proxy", False),
        (["-m256m"], "memory", 256 << 20),
        (["-m=256m"], "memory", 256 << 20),
        (["-m", "256m"], "memory", 256 << 20),
        (["-itm256m"], "memory", 256 << 20),
        (["--memory-swap", "-1"], "memory-swap", -1),
        (["--cpus", ".5"], "cpus", 500_000_000),
        (["--cpus", "1/2"], "cpus", 500_000_000),
        (["-c", "0x10"], "shares", 16),
        (["-eA=1", "-e", "B=2", "--env=C=3=3"], "env", ["A=1", "B=2", "C=3=3"]),
        (["-l", "a", "-l", "b=c"], "label", ["a", "b=c"]),
        (["-a", "STDIN", "-astdout"], "attach", ["stdin", "stdout"]),
        (["--net", "host"], "network", "host"),
        (["--time", "3"], "shares", 3),
    ],
)
def test_a_flag_has_the_value_that_was_given(args: list[str], name: str, value: object) -> None:
    parsed = parse(FLAGS, args)
    assert parsed[name] == value
    assert parsed.given(name)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["a", "-i", "b"], ["a", "b"]),
        (["-i", "--", "-t", "--name"], ["-t", "--name"]),
        (["-", "-i"], ["-"]),
        (["", "x"], ["", "x"]),
        (["-i", "true"], ["true"]),
    ],
)
def test_words_are_what_is_no_flag(args: list[str], words: list[str]) -> None:
    assert parse(FLAGS, args).words == words


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-i", "base", "-t", "--name", "x"], ["base", "-t", "--name", "x"]),
        (["base", "--", "-t"], ["base", "--", "-t"]),
        (["--", "base", "--", "-t"], ["base", "--", "-t"]),
        (["-", "-t"], ["-", "-t"]),
    ],
)
def test_the_first_word_ends_the_flags_where_they_are_not_interspersed(args: list[str], words: list[str]) -> None:
    parsed = parse(FLAGS, args, interspersed=False)
    assert parsed.words == words
    assert not parsed["tty"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["--foo=1"], "unknown flag: --foo"),
        (["-z"], "unknown shorthand flag: 'z' in -z"),
        (["-zit"], "unknown shorthand flag: 'z' in -zit"),
        (["-itz"], "unknown shorthand flag: 'z' in -z"),
        (["--name"], "flag needs an argument: --name"),
        (["-m"], "flag needs an argument: 'm' in -m"),
        (["-im"], "flag needs an argument: 'm' in -m"),
        (["--=x"], "bad flag syntax: --=x"),
        (["---foo"], "bad flag syntax: ---foo"),
        (["-m="], "invalid argument \"=\" for \"-m, --memory\" flag: invalid size: '='"),
        (["-m", ""], "invalid argument \"\" for \"-m, --memory\" flag: invalid size: ''"),
        (["-m", "xx"], "invalid argument \"xx\" for \"-m, --memory\" flag: invalid size: 'xx'"),
        (["-m", "-5"], "invalid argument \"-5\" for \"-m, --memory\" flag: invalid size: '-5'"),
        (["-m", "1x"], "invalid argument \"1x\" for \"-m, --memory\" flag: invalid suffix: 'x'"),
        (["-m", "1mbx"], "invalid argument \"1mbx\" for \"-m, --memory\" flag: invalid suffix: 'mbx'"),
        (["--memory-swap", "-2"], "invalid argument \"-2\" for \"--memory-swap\" flag: invalid size: '-2'"),
        (["--cpus", "x"], 'invalid argument "x" for "--cpus" flag: failed to parse x as a rational number'),
        (["--cpus", "0.0000000001"], 'invalid argument "0.0000000001" for "--cpus" flag: value is too precise'),
        (["-c", "x"], 'invalid argument "x" for "-c, --shares" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        (["-c", ""], 'invalid argument "" for "-c, --shares" flag: strconv.ParseInt: parsing "": invalid syntax'),
        (["-c", "9" * 20], f'invalid argument "{"9" * 20}" for "-c, --shares" flag: strconv.ParseInt: parsing "{"9" * 20}": value out of range'),
        (["-it=foo"], 'invalid argument "foo" for "-t, --tty" flag: strconv.ParseBool: parsing "foo": invalid syntax'),
        (["-a", "foo"], 'invalid argument "foo" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR'),
        (["-e", "=x"], 'invalid argument "=x" for "-e, --env" flag: invalid environment variable: =x'),
        (["-l", "=x"], "invalid argument \"=x\" for \"-l, --label\" flag: invalid label '=x': empty name"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_in_pflags_words(args: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(FLAGS, args)
    assert str(caught.value) == message


@pytest.mark.parametrize(("args", "deprecated"), [(["--help"], False), (["-h"], True), (["-ith"], True)])
def test_help_is_asked_for(args: list[str], deprecated: bool) -> None:
    with pytest.raises(HelpWanted) as caught:
        parse(FLAGS, args)
    assert caught.value.deprecated is deprecated


def test_h_is_a_flag_where_a_verb_has_it() -> None:
    assert parse((Flag("hostname", "string", short="h"),), ["-h", "box"])["hostname"] == "box"


def test_a_deprecated_flag_says_what_to_use() -> None:
    assert parse(FLAGS, ["--time", "3"]).notices == ["Flag --time has been deprecated, use --shares instead"]


def test_a_variable_without_a_value_takes_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPAN_TEST_THERE", "value of the caller")
    monkeypatch.delenv("SAMPAN_TEST_NOT_THERE", raising=False)
    parsed = parse(FLAGS, ["-e", "SAMPAN_TEST_THERE", "-e", "SAMPAN_TEST_NOT_THERE", "-e", "SAMPAN_TEST_THERE="])
    assert parsed["env"] == ["SAMPAN_TEST_THERE=value of the caller", "SAMPAN_TEST_NOT_THERE", "SAMPAN_TEST_THERE="]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-7", -7), ("+7", 7), ("010", 8), ("0o10", 8), ("0b11", 3), ("1_000", 1000), ("0x_f", 15)],
)
def test_integers_have_gos_bases(text: str, value: int) -> None:
    assert parse(FLAGS, ["-c", text])["shares"] == value


@pytest.mark.parametrize("text", ["08", "1.5", " 1", "1 ", "--1", "1e3", "٣", "0x"])
def test_what_go_calls_no_integer_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="invalid syntax"):
        parse(FLAGS, [f"-c={text}"])
