"""The flags of run and create as the body of `POST /containers/create`, compared with what docker 28.2.2 sends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sampan.cli import request
from sampan.cli.flags import parse
from sampan.cli.run import RUN
from sampan.errors import InvalidParameter


def build(*args: str) -> dict[str, Any]:
    return request.build(parse(RUN.flags, args, interspersed=False))


def test_nothing_asked_for() -> None:
    body = build("base")
    assert (body["Image"], body["Cmd"], body["Entrypoint"], body["Name"]) == ("base", None, None, "")
    assert (body["AttachStdin"], body["AttachStdout"], body["AttachStderr"]) == (False, True, True)
    assert (body["OpenStdin"], body["StdinOnce"], body["Tty"]) == (False, False, False)
    assert "StopSignal" not in body
    assert "StopTimeout" not in body
    host = body["HostConfig"]
    assert (host["NetworkMode"], host["AutoRemove"], host["Memory"], host["ShmSize"]) == ("default", False, 0, 0)
    for absent in ("Init", "PidsLimit", "MaskedPaths", "ReadonlyPaths", "NoPivot"):
        assert absent not in host


def test_what_the_issue_has_a_user_do() -> None:
    body = build(
        *[
            "-it",
            "--name",
            "box",
            "-m",
            "256m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "64",
            "-h",
            "box",
            "--domainname",
            "example.test",
            "-e",
            "A=1",
            "-w",
            "/srv",
            "base",
            "sh",
        ]
    )
    assert (body["Name"], body["Image"], body["Cmd"]) == ("box", "base", ["sh"])
    assert (body["Tty"], body["OpenStdin"], body["StdinOnce"], body["AttachStdin"]) == (True, True, True, True)
    assert (body["Hostname"], body["Domainname"], body["Env"], body["WorkingDir"]) == (
        "box",
        "example.test",
        ["A=1"],
        "/srv",
    )
    host = body["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (256 << 20, 500_000_000, 64)


def test_flags_end_at_the_image() -> None:
    body = build("-d", "--name", "web", "base", "httpd", "-f", "-p", "8080", "--", "-x")
    assert body["Cmd"] == ["httpd", "-f", "-p", "8080", "--", "-x"]


@pytest.mark.parametrize(
    ("args", "key", "value"),
    [
        (["-m", "1g", "--memory-swap", "-1"], "MemorySwap", -1),
        (["--memory-reservation", "64m"], "MemoryReservation", 64 << 20),
        (["-c", "512"], "CpuShares", 512),
        (["--cgroup-parent", "/x"], "CgroupParent", "/x"),
        (["--cgroupns", "private"], "CgroupnsMode", "private"),
        (["--pid", "host"], "PidMode", "host"),
        (["--pid", "container:a"], "PidMode", "container:a"),
        (["--ipc", "shareable"], "IpcMode", "shareable"),
        (["--uts", "host"], "UTSMode", "host"),
        (["--network", "none"], "NetworkMode", "none"),
        (["--net=container:a"], "NetworkMode", "container:a"),
        (["--shm-size", "1m"], "ShmSize", 1 << 20),
        (["--privileged"], "Privileged", True),
        (["--read-only"], "ReadonlyRootfs", True),
        (["--tmpfs", "/a", "--tmpfs", "/b:size=1m,mode=700"], "Tmpfs", {"/a": "", "/b": "size=1m,mode=700"}),
        (["--cap-add", "NET_ADMIN", "--cap-add=ALL"], "CapAdd", ["NET_ADMIN", "ALL"]),
        (["--cap-drop", "ALL"], "CapDrop", ["ALL"]),
        (["--security-opt", "no-new-privileges"], "SecurityOpt", ["no-new-privileges"]),
        (["--security-opt", "no-new-privileges:true"], "SecurityOpt", ["no-new-privileges:true"]),
        (["--no-pivot"], "NoPivot", True),
        (["--rm"], "AutoRemove", True),
        (["--group-add", "audio", "--group-add", "5"], "GroupAdd", ["audio", "5"]),
        (["--init"], "Init", True),
        (["--init=false"], "Init", False),
        (["--pids-limit", "-1"], "PidsLimit", -1),
        (["--cidfile", "/x"], "ContainerIDFile", "/x"),
    ],
)
def test_a_flag_of_the_host_config(args: list[str], key: str, value: object) -> None:
    assert build(*args, "base")["HostConfig"][key] == value


@pytest.mark.parametrize(
    ("args", "key", "value"),
    [
        (["-u", "1000:5"], "User", "1000:5"),
        (["--entrypoint", "/bin/sh"], "Entrypoint", ["/bin/sh"]),
        (["--entrypoint", ""], "Entrypoint", [""]),
        (["--stop-signal", "INT"], "StopSignal", "INT"),
        (["--stop-timeout", "0"], "StopTimeout", 0),
        (["-l", "a", "-l", "b=c=d"], "Labels", {"a": "", "b": "c=d"}),
        (["-i"], "StdinOnce", True),
        (["-i", "-a", "stdout"], "AttachStderr", False),
        (["-i", "-a", "stdout"], "AttachStdin", True),
        (["-a", "stdin"], "OpenStdin", False),
    ],
)
def test_a_flag_of_the_config(args: list[str], key: str, value: object) -> None:
    assert build(*args, "base")[key] == value


def test_system_paths_unmasked() -> None:
    host = build("--security-opt", "systempaths=unconfined", "base")["HostConfig"]
    assert (host["MaskedPaths"], host["ReadonlyPaths"], host["SecurityOpt"]) == ([], [], [])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--pid", "foo"], "--pid: invalid PID mode"),
        (["--pid", "container:"], "--pid: invalid PID mode"),
        (["--uts", "foo"], "--uts: invalid UTS mode"),
        (["--uts", "container:a"], "--uts: invalid UTS mode"),
        (["--cgroupns", "foo"], "--cgroupns: invalid CGROUP mode"),
        (["--env-file", "/nope"], "open /nope: no such file or directory"),
        (["--label-file", "/nope"], "open /nope: no such file or directory"),
    ],
)
def test_what_cannot_be_is_told_in_dockers_words(args: list[str], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        build(*args, "base")
    assert str(caught.value) == message


def test_files_come_before_flags(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("A=file\nB=file\n")
    assert build("-e", "A=flag", "--env-file", str(path), "base")["Env"] == ["A=file", "B=file", "A=flag"]


@pytest.mark.parametrize("flag", ["--format", "--filter"])
def test_flags_of_later_issues_are_not_there_yet(flag: str) -> None:
    from sampan.cli.flags import UsageError

    with pytest.raises(UsageError, match="unknown"):
        build(flag, "x", "base")


def test_a_path_in_the_environment_may_be_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPAN_BYTES", os.fsdecode(b"\xff"))
    assert build("-e", "SAMPAN_BYTES", "base")["Env"] == ["SAMPAN_BYTES=\udcff"]


@pytest.mark.parametrize(
    ("args", "key", "value"),
    [
        (["--add-host", "a:1.2.3.4", "--add-host", "b=[::1]"], "ExtraHosts", ["a:1.2.3.4", "b:::1"]),
        (["--annotation", "a=b=c", "--annotation", "d"], "Annotations", {"a": "b=c", "d": ""}),
        (["--dns", "1.1.1.1", "--dns", "::1"], "Dns", ["1.1.1.1", "::1"]),
        (["--dns-option", "ndots:1", "--dns-opt", "rotate"], "DnsOptions", ["ndots:1", "rotate"]),
        (["--dns-search", "a.b"], "DnsSearch", ["a.b"]),
        (["--isolation", "default"], "Isolation", "default"),
        (["-P"], "PublishAllPorts", True),
        (["-p", "8080:80"], "PortBindings", {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
        (["--runtime", "sampan"], "Runtime", "sampan"),
        (["--storage-opt", "size=1g"], "StorageOpt", {"size": "1g"}),
        (["--gpus", "all"], "DeviceRequests", ["all"]),
        (["--userns", "host"], "UsernsMode", "host"),
    ],
)
def test_flags_of_the_host_config_that_came_later(args: list[str], key: str, value: Any) -> None:
    assert build(*args, "base")["HostConfig"][key] == value


def test_what_is_published_is_exposed_too() -> None:
    assert build("--expose", "90/udp", "-p", "8080:80", "base")["ExposedPorts"] == {"80/tcp": {}, "90/udp": {}}
    assert "ExposedPorts" not in build("base")
    assert build("--platform", "linux/arm64", "--pull", "never", "base")["Platform"] == "linux/arm64"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--pull", "x"], "invalid pull option: 'x': must be one of \"always\", \"missing\" or \"never\""),
        (["--disable-content-trust=false"], "--disable-content-trust=false cannot be had: sampan does not sign images, nor verify signatures of them"),
        (["--use-api-socket"], "--use-api-socket cannot be had in this version of sampan: it has no API socket yet"),
        (["--userns", "x"], "--userns: invalid USER mode"),
        (["--storage-opt", "size"], "invalid storage option"),
    ],
)  # fmt: skip
def test_flags_that_are_refused(args: list[str], message: str) -> None:
    with pytest.raises(InvalidParameter) as told:
        build(*args, "base")
    assert str(told.value) == message
