"""Options of log drivers: what is refused, in Docker's words (compared with dockerd 20.10), and what is made of the rest."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sampan.engine import logoptions, logtag
from sampan.errors import InvalidParameter
from sampan.runtime import spec
from sampan.store.record import SCHEMA, Record

FAILED = "failed to initialize logging driver: "


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("json-file", {"foo": "bar"}, "unknown log opt 'foo' for json-file log driver"),
        ("json-file", {"max-size": "x"}, f"{FAILED}invalid size: 'x'"),
        ("json-file", {"max-size": ""}, f"{FAILED}invalid size: ''"),
        ("json-file", {"max-size": "0"}, f"{FAILED}max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, f"{FAILED}max-file cannot be less than 1"),
        ("json-file", {"max-file": "x"}, f'{FAILED}strconv.Atoi: parsing "x": invalid syntax'),
        ("json-file", {"compress": "yes"}, f'{FAILED}strconv.ParseBool: parsing "yes": invalid syntax'),
        (
            "json-file",
            {"compress": "true", "max-file": "1"},
            f"{FAILED}compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ("json-file", {"mode": "foo"}, "logger: logging mode not supported: foo"),
        (
            "json-file",
            {"max-buffer-size": "1m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        ("json-file", {"tag": "a{{.Name"}, f"{FAILED}template: log-tag:1: unclosed action"),
        ("json-file", {"tag": "{{nosuch .Name}}"}, f'{FAILED}template: log-tag:1: function "nosuch" not defined'),
        ("json-file", {"tag": "{{if .Name}}x"}, f"{FAILED}template: log-tag:1: unexpected EOF"),
        ("local", {"foo": "bar"}, "unknown log opt 'foo' for log driver local"),
        ("local", {"labels": "a"}, "unknown log opt 'labels' for log driver local"),
        ("local", {"max-size": "x"}, f"{FAILED}invalid value for max-size: x: invalid size: 'x'"),
        ("local", {"max-file": "0"}, f"{FAILED}compression cannot be enabled when max file count is 1"),
        ("local", {"max-file": "1"}, f"{FAILED}compression cannot be enabled when max file count is 1"),
        (
            "local",
            {"max-file": "x"},
            f'{FAILED}invalid value for max-file: x: strconv.Atoi: parsing "x": invalid syntax',
        ),
        (
            "local",
            {"compress": "q"},
            f'{FAILED}error reading compress log option: strconv.ParseBool: parsing "q": invalid syntax',
        ),
    ],
)
def test_refused_in_dockers_words(driver: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as e:
        logoptions.check({"Type": driver, "Config": options})
    assert str(e.value) == message


@pytest.mark.parametrize("options", [{"env-regex": "("}, {"labels-regex": "("}])
def test_bad_patterns(options: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter, match=r"^failed to initialize logging driver: error parsing regexp: .*`\(`$"):
        logoptions.check({"Type": "json-file", "Config": options})


def test_what_would_lose_lines_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="non-blocking"):
        logoptions.check({"Type": "json-file", "Config": {"mode": "non-blocking"}})
    logoptions.check({"Type": "json-file", "Config": {"mode": "blocking"}})


def test_a_driver_that_is_not_there() -> None:
    with pytest.raises(InvalidParameter, match=r'plugin "syslog" not found \(there are json-file, local, none\)'):
        logoptions.check({"Type": "syslog"})


@pytest.mark.parametrize(
    ("driver", "options", "bounds"),
    [
        ("json-file", {}, (10_000_000, 3, False)),
        ("json-file", {"max-size": "10k"}, (10_000, 3, False)),
        ("json-file", {"max-size": "1.5MB", "max-file": "7"}, (1_500_000, 7, False)),
        ("json-file", {"max-size": "-1"}, (0, 3, False)),
        ("json-file", {"compress": "true"}, (10_000_000, 3, True)),
        ("local", {}, (20 << 20, 5, True)),
        ("local", {"compress": "0", "max-file": "1"}, (20 << 20, 1, False)),
    ],
)
def test_bounds(driver: str, options: dict[str, str], bounds: Any) -> None:
    assert logoptions._bounds(driver, options) == bounds


def test_the_options_stay_as_they_were_given() -> None:
    given = {"Type": "json-file", "Config": {"max-size": "10m", "labels": "a,b"}}
    assert logoptions.check(given) == given
    assert logoptions.check({}) == {"Type": "json-file", "Config": {}}


OPTIONS = {"labels": "a", "tag": "{{.Name}}"}
RECORD = Record(
    schema=SCHEMA,
    id="4b606f59e58d" + "0" * 52,
    name="zzt",
    created="2026-11-27T13:44:19.571051844Z",
    image="sha256:cf3a4aacaeff" + "1" * 52,
    image_ref="busybox",
    layers=(),
    snapshotter="overlay",
    path="sh",
    args=("-c", "echo hi"),
    config={"Env": ["A=b", "PATH=/bin"], "Labels": {"a": "lab"}, "Hostname": "h", "Tty": False},
    host_config={"LogConfig": {"Type": "json-file", "Config": OPTIONS}},
)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("x/{{.Name}}/{{ .ID }}!", "x/zzt/4b606f59e58d!"),
        ("{{upper .Name}}", "ZZT"),
        ('{{.Name | upper | printf "%q"}}/{{.Command}}', '"ZZT"/sh -c echo hi'),
        ('{{title .Name}} {{pad .Name 1 1}} {{split .Name "e"}} {{truncate .ID 3}}', "Zzt  zzt  [zzt] 4b6"),
        ('{{index .ContainerLabels "a"}}{{index .ContainerLabels "none"}}', "lab"),
        ("{{json .ContainerArgs}}{{.ContainerArgs}}{{.ContainerEntrypoint}}", '["-c","echo hi"][-c echo hi]sh'),
        ("{{.ContainerCreated}}", "2026-11-27 13:44:19.571051844 +0000 UTC"),
        ("{{if .ContainerLabels}}{{range $k, $v := .ContainerLabels}}{{$k}}={{$v}}{{end}}{{end}}", "a=lab"),
        ("{{.ImageName}} {{.ImageID}} {{.ImageFullID}}", f"busybox cf3a4aacaeff {RECORD.image}"),
        ("{{.DaemonName}} {{.LogPath}} {{.ContainerName}} {{.FullID}}", f"sampan /log /zzt {RECORD.id}"),
        ("{{.Config}}", "map[labels:a tag:{{.Name}}]"),
        ("{{.Hostname}}", os.uname().nodename),
        (
            "{{.}}",
            f"{{map[labels:a tag:{{{{.Name}}}}] {RECORD.id} /zzt sh [-c echo hi] {RECORD.image} busybox "
            "2026-11-27 13:44:19.571051844 +0000 UTC [ENV] map[a:lab] /log sampan}",
        ),
    ],
)
def test_tags(template: str, text: str) -> None:
    """As dockerd makes them, but for the image's short id."""
    environment = " ".join(spec.environment(RECORD.config))
    assert logtag.expand(template, logtag.info(RECORD, "/log")) == text.replace("ENV", environment)


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("{{.Nope}}", 'executing "log-tag" at <.Nope>: can\'t evaluate field Nope in type *logger.Info'),
        ("{{.ID 3}}", 'executing "log-tag" at <.ID>: wrong number of args for ID: want 0 got 1'),
        ("{{slice .Name 0 90}}", 'executing "log-tag" at <slice .Name 0 90>: error calling slice: index out of range: 90'),
    ],
)  # fmt: skip
def test_a_tag_that_cannot_be_made_of_the_container(tag: str, message: str) -> None:
    logoptions.check({"Type": "json-file", "Config": {"tag": tag}})
    record = RECORD.replace(host_config={"LogConfig": {"Type": "json-file", "Config": {"tag": tag}}})
    with pytest.raises(InvalidParameter) as told:
        logoptions.check_tag(record)
    assert str(told.value) == f"{FAILED}template: log-tag:1:2: {message}"


def test_no_tag() -> None:
    logoptions.check_tag(RECORD.replace(host_config={"LogConfig": {"Type": "none", "Config": {"tag": "{{.Nope}}"}}}))
    logoptions.check_tag(RECORD.replace(host_config={"LogConfig": {"Type": "json-file", "Config": {}}}))
