"""Flags of `run` and `create` that have no file of their own: what each does in a real container, and what is refused."""

from __future__ import annotations

import json

import pytest

from support.imagestore import archive
from support.roots import Root

pytestmark = pytest.mark.root

NONE = ("--network", "none")


def test_hosts_and_resolver(root: Root) -> None:
    flags = ("--add-host", "a.test:1.2.3.4", "--add-host", "b.test=[fd00::1]", "--dns", "9.9.9.9", "--dns", "fd00::53")
    more = ("--dns-search", "one.test", "--dns-search", "two.test", "--dns-option", "ndots:3", "--dns-opt", "rotate")
    shown = root.cli("run", "--rm", *NONE, *flags, *more, "base", "cat", "/etc/hosts", "/etc/resolv.conf").ok().out
    assert shown.splitlines()[-6:] == [
        "1.2.3.4\ta.test",
        "fd00::1\tb.test",
        "nameserver 9.9.9.9",
        "nameserver fd00::53",
        "search one.test two.test",
        "options ndots:3 rotate",
    ]


def test_what_is_recorded_is_shown(root: Root) -> None:
    flags = ("--annotation", "org.test=a b", "--isolation", "default", "--userns", "host", "--runtime", "sampan")
    ports = ("--expose", "90-91/udp", "-p", "127.0.0.1:8080:80", "-P")
    made = root.cli("create", "--name", "box", *NONE, *flags, *ports, "base", "true").ok()
    assert made.err == "WARNING: Published ports are discarded when using none network mode\n"
    (shown,) = json.loads(root.cli("inspect", "box").ok().out)
    host = shown["HostConfig"]
    assert host["Annotations"] == {"org.test": "a b"}
    assert (host["Isolation"], host["UsernsMode"], host["Runtime"]) == ("default", "host", "sampan")
    assert (host["PortBindings"], host["PublishAllPorts"]) == (
        {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
        True,
    )
    assert shown["Config"]["ExposedPorts"] == {"80/tcp": {}, "90/udp": {}, "91/udp": {}}
    assert shown["NetworkSettings"]["Ports"] == {}
    assert root.cli("ps", "-aq", "-f", "expose=90/udp").ok().out
    assert root.cli("port", "box").ok().out == ""
    nothing = root.cli("container", "port", "box", "80")
    assert (nothing.code, nothing.err) == (1, "Error: No public port '80' published for box\n")
    gone = root.cli("port", "nobody")
    assert (gone.code, gone.err) == (1, "Error: No such container: nobody\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--network", "container:x", "-p", "80"], "conflicting options: port publishing and the container type network mode"),
        (["--network", "container:x", "-P"], "conflicting options: port publishing and the container type network mode"),
        (["--network", "container:x", "--expose", "80"], "conflicting options: port exposing and the container type network mode"),
        (["--gpus", "all"], "device requests (--gpus) cannot be had in this version of sampan (HostConfig.DeviceRequests)"),
        (["--storage-opt", "size=1g"], "storage options (--storage-opt) cannot be had in this version of sampan (HostConfig.StorageOpt)"),
        (["--isolation", "process"], "invalid isolation 'process' on linux"),
        (["--runtime", "runc"], "unknown or invalid runtime name: runc"),
        (["--annotation", "=x"], "invalid Annotations: the empty string is not permitted as an annotation key"),
    ],
)  # fmt: skip
def test_what_the_engine_refuses(root: Root, flags: list[str], message: str) -> None:
    refused = root.cli("run", *flags, "base", "true")
    assert (refused.code, refused.out, refused.err) == (
        125,
        "",
        f"sampan: {message}\n\nRun 'sampan run --help' for more information\n",
    )
    assert root.cli("ps", "-aq").ok().out == ""


def test_the_platform_of_an_image(new_root: Root) -> None:
    cli = new_root.cli
    cli("import", "--platform", "linux/s390x", "-", "other", input=archive({"f": b"1"})).ok()
    cli("create", "--platform", "linux/s390x", "other", "f").ok()
    wrong = cli("create", "--pull", "never", "--platform", "linux/riscv64", "other", "f")
    message = "its platform (linux/s390x) does not match the specified platform (linux/riscv64)"
    assert (wrong.code, wrong.err) == (1, f"Error: image with reference other was found but {message}\n")
    cli("container", "prune", "-f").ok()
    kept = cli("rmi", "--platform", "linux/riscv64", "other")
    assert (kept.code, kept.err) == (1, f"Error: image with reference other was found but {message}\n")
    assert (
        cli("rmi", "--platform", "linux/riscv64,linux/s390x", "other").ok().out.startswith("Untagged: other:latest\n")
    )


def test_an_image_that_is_not_there_and_not_to_be_pulled(root: Root) -> None:
    refused = root.cli("run", "--pull", "never", "nosuch", "true")
    assert refused.code == 125
    assert refused.err.startswith("sampan: No such image: nosuch:latest\n")


def test_standard_input_alone(root: Root) -> None:
    """Nothing is printed, not the container's id either; it is fed, and its exit code is the command's."""
    done = root.cli("run", "--rm", "-i", "-a", "stdin", *NONE, "base", "sh", "-c", "read line; exit $line", input="7\n")
    assert (done.code, done.out, done.err) == (7, "", "")
