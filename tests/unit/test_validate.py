"""What a container may be asked to be, told in Docker's words and order."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sampan.engine import fields, validate
from sampan.errors import InvalidParameter


def checked(host: dict[str, Any] | None = None, **config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    own, shared = fields.normalise_config(config), fields.normalise_host_config(host or {})
    validate.check_config(own)
    validate.check_host_config(shared, own)
    return own, shared


def refusal(host: dict[str, Any] | None = None, **config: Any) -> str:
    with pytest.raises(InvalidParameter) as caught:
        checked(host, **config)
    return str(caught.value)


def test_an_empty_request_gets_dockers_defaults() -> None:
    config, host = checked()
    assert host["NetworkMode"] == "bridge"
    assert host["IpcMode"] == "private"
    assert host["ShmSize"] == 64 << 20
    assert host["LogConfig"] == {"Type": "json-file", "Config": {}}
    assert host["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert host["Runtime"] == "sampan"
    assert config["Env"] is None
    assert config["WorkingDir"] == ""


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"WorkingDir": "srv"}, "the working directory 'srv' is invalid, it needs to be an absolute path"),
        ({"StopSignal": "FOO"}, "invalid signal: FOO"),
        ({"StopSignal": "0"}, "invalid signal: 0"),
        ({"Env": ["=x"]}, "invalid environment variable: =x"),
        ({"Env": [""]}, "invalid environment variable: "),
        ({"Hostname": "a b"}, "invalid hostname format: 'a b'"),
        ({"Hostname": "x" * 65}, "longer than 64 bytes"),
        ({"Domainname": "x\n1.2.3.4 evil"}, "invalid domainname format"),
        ({"Env": "A=1"}, "invalid value for Env: 'A=1' is not a list of text"),
        ({"Env": ["A=\0"]}, "invalid value for Env: it contains a NUL byte"),
        ({"Cmd": ["a\0"]}, "invalid value for Cmd: it contains a NUL byte"),
        ({"Tty": "yes"}, "invalid value for Tty"),
        ({"Healthcheck": {"Interval": 5}}, "Interval in Healthcheck cannot be less than 1ms"),
    ],
)
def test_config(config: dict[str, Any], text: str) -> None:
    assert text in refusal(**config)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ({"CapAdd": ["X"]}, 'invalid CapAdd: unknown capability: "CAP_X"'),
        ({"CapDrop": ["cap_foo"]}, 'invalid CapDrop: unknown capability: "CAP_FOO"'),
        ({"PidMode": "foo"}, "invalid PID mode: foo"),
        ({"PidMode": "container:"}, "invalid PID mode: container:"),
        ({"IpcMode": "foo"}, "invalid IPC mode: foo"),
        ({"UTSMode": "container:x"}, "invalid UTS mode: container:x"),
        ({"CgroupnsMode": "foo"}, "invalid cgroup namespace mode: foo"),
        ({"UsernsMode": "auto"}, "invalid USER mode: auto"),
        ({"NetworkMode": "container:"}, "invalid network mode: invalid container format container:<name|id>"),
        ({"NetworkMode": "container:x", "Dns": ["1.1.1.1"]}, "conflicting options: dns and the network mode"),
        (
            {"NetworkMode": "container:x", "ExtraHosts": ["a:1.1.1.1"]},
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        ({"AutoRemove": True, "RestartPolicy": {"Name": "always"}}, "can't create 'AutoRemove' container with restart"),
        ({"RestartPolicy": {"Name": "sometimes"}}, "invalid restart policy: unknown policy 'sometimes'"),
        (
            {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 2}},
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            {"RestartPolicy": {"Name": "no", "MaximumRetryCount": -2}},
            "invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative",
        ),
        (
            {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}},
            "invalid restart policy: maximum retry count cannot be negative",
        ),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"OomScoreAdj": 1001}, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        ({"Runtime": "kata"}, "unknown or invalid runtime name: kata"),
        ({"Isolation": "hyperv"}, "invalid isolation 'hyperv' on linux"),
        ({"SecurityOpt": ["nonsense"]}, 'invalid --security-opt 1: "nonsense"'),
        ({"SecurityOpt": ["a=b"]}, 'invalid --security-opt 2: "a=b"'),
        ({"SecurityOpt": ["no-new-privileges=perhaps"]}, 'invalid --security-opt 2: "no-new-privileges=perhaps"'),
        ({"SecurityOpt": ["apparmor=docker-default"]}, "containers get no AppArmor profiles here"),
        ({"SecurityOpt": ["label=type:x"]}, "containers get no SELinux labels here, only label=disable is possible"),
        ({"Tmpfs": {"tmp": ""}}, "invalid mount path: 'tmp' mount path must be absolute"),
        ({"Tmpfs": {"/": ""}}, "invalid specification: destination can't be '/'"),
        ({"Tmpfs": {"//./": ""}}, "invalid specification: destination can't be '/'"),
        ({"Tmpfs": {"/t": "nonsense"}}, 'invalid tmpfs option ["nonsense"]'),
        (
            {"LogConfig": {"Type": "syslog"}},
            'error looking up logging plugin syslog: plugin "syslog" not found (there are json-file, local, none)',
        ),
        ({"LogConfig": {"Type": "json-file", "Config": {"a": "b"}}}, "unknown log opt 'a' for json-file log driver"),
        ({"Dns": ["dns.example"]}, "bad nameserver address: dns.example"),
        ({"ExtraHosts": ["a"]}, 'bad format for add-host: "a"'),
        ({"ExtraHosts": ["a:b"]}, 'invalid IP address in add-host: "b"'),
        ({"Memory": "1g"}, "invalid value for HostConfig.Memory: '1g' is not a number"),
        ({"Memory": True}, "invalid value for HostConfig.Memory"),
        ({"CapAdd": "NET_ADMIN"}, "invalid value for HostConfig.CapAdd"),
        ({"Tmpfs": {"/a": 1}}, "invalid value for HostConfig.Tmpfs"),
        ({"Annotations": {"": "x"}}, "the empty string is not permitted as an annotation key"),
    ],
)
def test_host_config(host: dict[str, Any], text: str) -> None:
    assert text in refusal(host)


def test_a_hostname_of_ones_own_does_not_go_with_anothers() -> None:
    assert refusal({"UTSMode": "host"}, Hostname="a") == "conflicting options: hostname and the UTS mode"
    assert refusal({"UTSMode": "host"}, Domainname="a") == "conflicting options: domainname and the UTS mode"
    joined = {"NetworkMode": "container:x"}
    assert refusal(joined, Hostname="a") == "conflicting options: hostname and the network mode"
    assert "port exposing" in refusal(joined, ExposedPorts={"80/tcp": {}})


@pytest.mark.parametrize(
    ("path", "clean"),
    [("", ""), ("/", "/"), ("//", "/"), ("/a//b/", "/a/b"), ("/a/../b", "/b"), ("/../..", "/"), ("//x", "/x")],
)
def test_working_directories_are_made_clean(path: str, clean: str) -> None:
    assert checked(WorkingDir=path)[0]["WorkingDir"] == clean


def test_capability_names_are_made_canonical() -> None:
    host = checked({"CapAdd": ["net_admin", "CAP_SYS_TIME", "all"]})[1]
    assert host["CapAdd"] == ["CAP_NET_ADMIN", "CAP_SYS_TIME", "ALL"]


def test_truth_values_of_no_new_privileges_are_made_canonical() -> None:
    given = ["no-new-privileges", "no-new-privileges:1", "no-new-privileges=F", "seccomp=unconfined", "label:disable"]
    given += ["writable-cgroups=1", "writable-cgroups:false"]
    assert checked({"SecurityOpt": given})[1]["SecurityOpt"] == [
        "no-new-privileges",
        "no-new-privileges=true",
        "no-new-privileges=false",
        "seccomp=unconfined",
        "label:disable",
        "writable-cgroups=true",
        "writable-cgroups=false",
    ]


def test_the_networks_of_the_request_may_only_be_its_mode() -> None:
    assert validate.endpoints({"NetworkingConfig": {"EndpointsConfig": {"default": {}, "none": None}}}, "none") == {}
    assert validate.endpoints({}, "host") == {}
    with pytest.raises(InvalidParameter, match="Container cannot be connected to network endpoints: mine, none"):
        validate.endpoints({"NetworkingConfig": {"EndpointsConfig": {"mine": {}}}}, "none")
    with pytest.raises(InvalidParameter, match=r"NetworkingConfig\.EndpointsConfig"):
        validate.endpoints({"NetworkingConfig": {"EndpointsConfig": ["mine"]}}, "mine")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"IPAMConfig": {"IPv4Address": "10.9.0.7"}},
            "user specified IP address is supported on user defined networks only",
        ),
        ({"Aliases": ["a"]}, "network-scoped aliases are only supported for user-defined networks"),
        ({"MacAddress": "02:42:00:00:00:01"}, "conflicting options: mac-address and the network mode"),
        ({"GwPriority": 5}, "GwPriority of an endpoint and the network mode host"),
        ({"DriverOpts": {"a": "b"}}, "DriverOpts of an endpoint and the network mode host"),
    ],
)
def test_nothing_is_said_of_an_interface_where_there_is_none(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter, match=re.escape(message)):
        validate.endpoints({"NetworkingConfig": {"EndpointsConfig": {"host": settings}}}, "host")


def test_links_need_a_network() -> None:
    for mode in ("host", "container:x", "none"):
        assert "links" in refusal({"NetworkMode": mode, "Links": ["a:b"]})


def test_the_request_is_copied() -> None:
    env = ["A=1"]
    given = {"Env": env, "Labels": {"a": "b"}}
    made = fields.normalise_config(given)
    env.append("B=2")
    given["Labels"] = {}
    assert made["Env"] == ["A=1"]
    assert made["Labels"] == {"a": "b"}
    assert fields.normalise_host_config({})["Dns"] is not fields.normalise_host_config({})["Dns"]


def test_fields_that_are_empty_are_left_out_where_docker_leaves_them_out() -> None:
    config, host = checked()
    shown = fields.shown_config(config)
    assert "StopSignal" not in shown
    assert "Healthcheck" not in shown
    assert shown["Env"] is None
    assert "Init" not in fields.shown_host_config(host)
    assert fields.shown_host_config({**host, "Init": False})["Init"] is False
    assert fields.shown_config({**config, "StopTimeout": 0})["StopTimeout"] == 0


@pytest.mark.parametrize(("field", "kind"), [("PidMode", "PID"), ("UTSMode", "UTS")])
def test_private_is_no_word_for_pid_and_uts(field: str, kind: str) -> None:
    assert refusal({field: "private"}) == f"invalid {kind} mode: private"
