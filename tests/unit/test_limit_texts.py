"""What `--ulimit`, `--sysctl`, `--cpuset-cpus`, `--device` and the disks' limits may say, and Docker's words for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from sampan.engine.options import parse_size
from sampan.errors import InvalidParameter
from sampan.oci import cpuset, devices, limits, rlimits, sysctls
from sampan.oci.runtime import parameter_path

LARGEST = (1 << 63) - 1


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InvalidParameter) as caught:
        action()
    return str(caught.value)


# --- ulimits


@pytest.mark.parametrize(
    ("text", "soft", "hard"),
    [
        ("nofile=10", 10, 10),
        ("nofile=10:20", 10, 20),
        ("core=0", 0, 0),
        ("memlock=-1", -1, -1),
        ("memlock=5:-1", 5, -1),
        (f"cpu={LARGEST}", LARGEST, LARGEST),
    ],
)
def test_a_ulimit(text: str, soft: int, hard: int) -> None:
    name = text.partition("=")[0]
    assert rlimits.parse(text) == {"Name": name, "Soft": soft, "Hard": hard}
    assert rlimits.check([rlimits.parse(text)]) == [rlimits.parse(text)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nofile", "invalid ulimit argument: nofile"),
        ("foo=1", "invalid ulimit type: foo"),
        ("nofile=a", 'strconv.ParseInt: parsing "a": invalid syntax'),
        ("nofile=", 'strconv.ParseInt: parsing "": invalid syntax'),
        ("nofile=1:b", 'strconv.ParseInt: parsing "b": invalid syntax'),
        ("nofile=\u0661", 'strconv.ParseInt: parsing "\u0661": invalid syntax'),
        (f"nofile={LARGEST + 1}", f'strconv.ParseInt: parsing "{LARGEST + 1}": value out of range'),
        (
            "nofile=1:2:3",
            "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`",
        ),
        ("nofile=10:5", "ulimit soft limit must be less than or equal to hard limit: 10 > 5"),
        ("nofile=-1:5", "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: 5"),
    ],
)
def test_what_is_no_ulimit(text: str, message: str) -> None:
    assert refusal(lambda: rlimits.parse(text)) == message


def test_of_a_ulimit_that_is_given_twice_the_last_counts() -> None:
    entries = [rlimits.parse("nofile=1"), rlimits.parse("core=0"), rlimits.parse("nofile=2")]
    assert rlimits.check(entries) == [rlimits.parse("core=0"), rlimits.parse("nofile=2")]


@pytest.mark.parametrize(
    "entry", ["nofile=1", {"Name": 1}, {"Name": "nofile", "Soft": "1"}, {"Name": "nofile", "Soft": 2, "Hard": 1}, {}]
)
def test_what_is_no_ulimit_of_a_request(entry: Any) -> None:
    refusal(lambda: rlimits.check([entry]))


def test_no_limit_is_the_largest_number_of_the_oci_configuration() -> None:
    assert rlimits.to_oci([rlimits.parse("core=0:-1")]) == [{"type": "RLIMIT_CORE", "soft": 0, "hard": (1 << 64) - 1}]


# --- sysctls


@pytest.mark.parametrize(
    "name", ["net.ipv4.ip_forward", "kernel.shmmax", "fs.mqueue.msg_max", "net.ipv4.conf.eth0/1.x"]
)
def test_a_sysctl(name: str) -> None:
    assert sysctls.parse(f"{name}=1=2") == f"{name}=1=2"


@pytest.mark.parametrize(
    "text",
    [
        "kernel.pid_max=1",
        "vm.swappiness=1",
        "net.ipv4.ip_forward",
        "net.=1",
        "net...kernel.pid_max=1",
        "net./../kernel/pid_max=1",
        "net..=1",
        "net.//=1",
        "net/ipv4/ip_forward=1",
        "kernel.shmmax/../pid_max=1",
        "=1",
    ],
)
def test_a_sysctl_that_is_not_the_containers_own(text: str) -> None:
    assert refusal(lambda: sysctls.parse(text)) == f"sysctl '{text}' is not allowed"


@hypothesis.given(st.text("./\\ ak\n", max_size=12))
def test_no_sysctl_leads_out_of_its_directory(rest: str) -> None:
    for prefix in ("net.", "fs.mqueue."):
        if sysctls.allowed(prefix + rest):
            parts = parameter_path(prefix + rest).split("/")
            assert parts[0] in ("net", "fs")
            assert not {"", ".", ".."} & set(parts)


@pytest.mark.parametrize(
    ("name", "host", "message"),
    [
        ("net.ipv4.x", {"NetworkMode": "host"}, 'sysctl "net.ipv4.x" not allowed in host network namespace'),
        ("kernel.sem", {"IpcMode": "host"}, 'sysctl "kernel.sem" is not allowed in the hosts ipc namespace'),
        (
            "fs.mqueue.msg_max",
            {"IpcMode": "host"},
            'sysctl "fs.mqueue.msg_max" is not allowed in the hosts ipc namespace',
        ),
        ("kernel.pid_max", {}, 'sysctl "kernel.pid_max" is not in a separate kernel namespace'),
    ],
)
def test_a_sysctl_of_the_hosts_namespace(name: str, host: dict[str, str], message: str) -> None:
    request = {"NetworkMode": "none", "IpcMode": "private", "Sysctls": {name: "1"}, **host}
    assert refusal(lambda: sysctls.check(request)) == message


# --- cpusets


@pytest.mark.parametrize(("text", "members"), [("", ()), ("0", (0,)), ("0-2,5", (0, 1, 2, 5)), ("1,1", (1,))])
def test_a_cpuset(text: str, members: tuple[int, ...]) -> None:
    assert cpuset.members(text) == frozenset(members)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("99", "Requested CPUs are not available - requested 99, available: 0-1"),
        ("0-2", "Requested CPUs are not available - requested 0-2, available: 0-1"),
        ("a", "Invalid value a for cpuset cpus: invalid format: a"),
        ("1-0", "Invalid value 1-0 for cpuset cpus: invalid format: 1-0"),
        ("1-", "Invalid value 1- for cpuset cpus: invalid format: 1-"),
        ("-1", "Invalid value -1 for cpuset cpus: invalid format: -1"),
        ("0,", "Invalid value 0, for cpuset cpus: invalid format: 0,"),
        ("0-4294967295", "Invalid value 0-4294967295 for cpuset cpus: value of out range, maximum is 8192"),
        ("9" * 5000, f"Invalid value {'9' * 5000} for cpuset cpus: value of out range, maximum is 8192"),
    ],
)
def test_what_is_no_cpuset(text: str, message: str) -> None:
    assert refusal(lambda: cpuset.check_available(text, "0-1", "cpus", "CPUs")) == message


# --- devices


@pytest.mark.parametrize(
    ("text", "source", "target", "access"),
    [
        ("/dev/x", "/dev/x", "/dev/x", "rwm"),
        ("/dev/x:r", "/dev/x", "/dev/x", "r"),
        ("/dev/x:/dev/y", "/dev/x", "/dev/y", "rwm"),
        ("/dev/x:/dev/y:mr", "/dev/x", "/dev/y", "mr"),
    ],
)
def test_a_device(text: str, source: str, target: str, access: str) -> None:
    entry = {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": access}
    assert devices.parse_device(text) == entry
    assert devices.check_devices([entry]) == [entry]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad format for path: "),
        (":/dev/x", "bad format for path: :/dev/x"),
        ("/dev/x:/dev/y:r:w", "bad format for path: /dev/x:/dev/y:r:w"),
        ("/dev/x:/dev/y:x", "bad mode specified: x"),
        ("/dev/x:/dev/y:rr", "bad mode specified: rr"),
        ("/dev/x:y", "y is not an absolute path"),
        ("x", "x is not an absolute path"),
    ],
)
def test_what_is_no_device(text: str, message: str) -> None:
    assert refusal(lambda: devices.parse_device(text)) == message


@pytest.mark.parametrize(
    "entry", ["/dev/null", {"PathOnHost": 1}, {"PathOnHost": "/dev/a\0"}, {"PathInContainer": "/"}]
)
def test_what_is_no_device_of_a_request(entry: Any) -> None:
    refusal(lambda: devices.check_devices([entry]))


@pytest.mark.parametrize(
    ("text", "rule"),
    [("c 1:3 r", ("c", 1, 3, "r")), ("a *:* mwr", ("a", -1, -1, "rwm")), ("b 8:* wr", ("b", 8, -1, "rw"))],
)
def test_a_device_rule(text: str, rule: tuple[str, int, int, str]) -> None:
    assert devices.parse_rule(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c 1:3 x",
        "c 1:3",
        "d 1:3 r",
        "c 1 r",
        "c 1:3:4 r",
        "c  1:3 r",
        "c -1:3 r",
        "c 99999999999:1 r",
        "c 1:3 rwmr",
    ],
)
def test_what_is_no_device_rule(text: str) -> None:
    assert refusal(lambda: devices.check_rule(text)) == f"invalid device cgroup format '{text}'"


# --- disks


def test_limits_of_disks() -> None:
    assert devices.parse_bytes_rate("/dev/sda:1mb", parse_size) == {"Path": "/dev/sda", "Rate": 1 << 20}
    assert devices.parse_operations_rate("/dev/sda:100") == {"Path": "/dev/sda", "Rate": 100}
    assert devices.parse_weight("/dev/sda:100") == {"Path": "/dev/sda", "Weight": 100}
    assert devices.parse_weight("/dev/sda:0")["Weight"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/dev/sda", "bad format: /dev/sda"),
        (":1", "bad format: :1"),
        ("sda:1", "bad format for device path: sda:1"),
        ("/dev/sda:x", "invalid rate for device: /dev/sda:x. The correct format is <device-path>:<number>"),
        ("/dev/sda:-1", "invalid rate for device: /dev/sda:-1. The correct format is <device-path>:<number>"),
        (f"/dev/sda:{10**30}", f"invalid rate for device: /dev/sda:{10**30}. The correct format is"),
    ],
)
def test_what_is_no_rate(text: str, message: str) -> None:
    assert refusal(lambda: devices.parse_bytes_rate(text, parse_size)).startswith(message)
    assert refusal(lambda: devices.parse_operations_rate(text)).startswith(message)


@pytest.mark.parametrize("weight", ["9", "1001", "x", "-1", "99999999999"])
def test_what_is_no_weight(weight: str) -> None:
    assert (
        refusal(lambda: devices.parse_weight(f"/dev/sda:{weight}")) == f"invalid weight for device: /dev/sda:{weight}"
    )


@pytest.mark.parametrize(
    ("field", "number", "value"),
    [("BlkioWeightDevice", "Weight", 5), ("BlkioDeviceReadBps", "Rate", -1), ("BlkioDeviceReadBps", "Rate", 1 << 63)],
)
def test_what_is_no_limit_of_a_disk_in_a_request(field: str, number: str, value: int) -> None:
    refusal(lambda: devices.check_disks(field, [{"Path": "/dev/sda", number: value}], number))


# --- numbers


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: limits.check_swappiness(101), "Invalid value: 101, valid memory swappiness range is 0-100"),
        (lambda: limits.check_swappiness(-1), "Invalid value: -1, valid memory swappiness range is 0-100"),
        (lambda: limits.check_block_weight(9), "Range of blkio weight is from 10 to 1000"),
        (lambda: limits.check_block_weight(1001), "Range of blkio weight is from 10 to 1000"),
        (lambda: limits.check_realtime(10, 11), "cpu real-time runtime cannot be higher than cpu real-time period"),
    ],
)
def test_numbers_out_of_range(action: Callable[[], object], message: str) -> None:
    assert refusal(action) == message
