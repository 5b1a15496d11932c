"""config-linux.md: devices, default devices, the allowed device list."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from support.conformance.runtime import Container, Containers
from support.conformance.terminal import ConsoleSocket

pytestmark = [pytest.mark.root]


def device(path: str, kind: str = "c", major: int = 1, minor: int = 3, **more: Any) -> dict[str, Any]:
    return {"path": path, "type": kind, "major": major, "minor": minor, **more}


@pytest.mark.parametrize(
    "given",
    [
        device("/dev/made", "c", 1, 5),
        device("/dev/made", "b", 7, 200),
        {"path": "/dev/made", "type": "p"},
        device("/dev/made", "u", 1, 5),
        device("/dev/made/below/there", "c", 1, 5),
    ],
    ids=["c", "b", "p", "u", "nested"],
)
def test_l40_devices_are_there(oci: Containers, given: dict[str, Any]) -> None:
    """Devices. "`devices` (array of objects, OPTIONAL) lists devices that MUST be available in the container." """
    one = oci()
    one.linux["devices"] = [given]
    found = one.stat(given["path"])[given["path"]]
    assert found["kind"] == {"u": "c"}.get(given["type"], given["type"])
    if given["type"] != "p":
        assert (found["major"], found["minor"]) == (given["major"], given["minor"])


@pytest.mark.parametrize(("mode", "uid", "gid"), [(0o600, 0, 0), (0o666, 5, 6), (0o640, 1000, 2000), (0o002, 0, 0)])
def test_l41_mode_and_owner_of_a_device(oci: Containers, mode: int, uid: int, gid: int) -> None:
    """Devices. "`fileMode` (uint32, OPTIONAL) - file mode for the device." "`uid` (uint32, OPTIONAL) - id of device owner in the
    container namespace. `gid` (uint32, OPTIONAL) - id of device group in the container namespace." """
    one = oci()
    one.linux["devices"] = [device("/dev/made", fileMode=mode, uid=uid, gid=gid)]
    found = one.stat("/dev/made")["/dev/made"]
    assert (found["mode"], found["uid"], found["gid"]) == (mode, uid, gid)


@pytest.mark.parametrize("missing", ["type", "path", "major and minor"])
def test_l42_what_a_device_must_have(oci: Containers, missing: str) -> None:
    """Devices. "`type` (string, REQUIRED)", "`path` (string, REQUIRED)", "`major, minor` (int64, REQUIRED unless `type` is
    `p`)" """
    one = oci()
    given = device("/dev/made")
    for field in missing.split(" and "):
        del given[field]
    one.linux["devices"] = [given]
    one.never_created()


@pytest.mark.parametrize("namespace", ["", "user"])
@pytest.mark.parametrize("what", ["file", "directory", "another device"])
def test_l43_a_file_that_is_in_the_way(oci: Containers, what: str, namespace: str) -> None:
    """Devices. "If a file already exists at `path` that does not match the requested device, the runtime MUST generate an
    error." """
    one = oci()
    path = one.rootfs / "made"
    if what == "file":
        path.write_text("mine")
    elif what == "directory":
        path.mkdir()
    else:
        os.mknod(path, 0o20600, os.makedev(1, 5))
    one.linux["devices"] = [device("/made")]
    if namespace:
        one.in_user_namespace()  # where nodes cannot be made, and are bound
    one.never_created()
    if what == "file":
        assert path.read_text() == "mine"


def test_l44_a_device_that_is_there_already(oci: Containers) -> None:
    """Devices. "If a file already exists at `path` that does not match ...": one that matches is no error."""
    one = oci()
    os.mknod(one.rootfs / "made", 0o20600, os.makedev(1, 3))
    one.linux["devices"] = [device("/made")]
    found = one.stat("/made")["/made"]
    assert (found["kind"], found["major"], found["minor"]) == ("c", 1, 3)


def test_l45_a_device_anywhere(oci: Containers) -> None:
    """Devices. "The path MAY be anywhere in the container filesystem, notably outside of `/dev`." """
    one = oci()
    one.linux["devices"] = [device("/srv/devices/null")]
    found = one.stat("/srv/devices/null")["/srv/devices/null"]
    assert (found["kind"], found["major"], found["minor"]) == ("c", 1, 3)


# Default devices

DEFAULTS = {
    "/dev/null": (1, 3),
    "/dev/zero": (1, 5),
    "/dev/full": (1, 7),
    "/dev/random": (1, 8),
    "/dev/urandom": (1, 9),
    "/dev/tty": (5, 0),
}


@pytest.mark.parametrize("path", DEFAULTS)
def test_l50_default_devices(oci: Containers, path: str) -> None:
    """Default devices. "In addition to any devices configured with this setting, the runtime MUST also supply": null, zero, full,
    random, urandom, tty."""
    found = oci().stat(path)[path]
    assert (found["kind"], found["major"], found["minor"]) == ("c", *DEFAULTS[path])
    assert found["mode"] & 0o666 == 0o666
    if path != "/dev/tty":  # which a process without a terminal has not
        assert (found["read"], found["write"]) == (0, 0)


def test_l51_ptmx(oci: Containers) -> None:
    """Default devices. "`/dev/ptmx`. A bind-mount or symlink of the container's `/dev/pts/ptmx`." """
    one = oci("sh", "-c", "probe stat /dev/ptmx /dev/pts/ptmx; ls /dev/pts; exec 3<> /dev/ptmx; ls /dev/pts")
    outcome = one.run().ok().out
    entries = json.loads(outcome.splitlines()[0])
    assert (entries[0]["kind"], entries[0]["major"], entries[0]["minor"]) == ("c", 5, 2)
    assert entries[0].get("link") in (None, "pts/ptmx", "/dev/pts/ptmx")
    assert outcome.splitlines()[1:] == ["ptmx", "0", "ptmx"], "the terminals are the container's own"


def test_l52_the_console(oci: Containers) -> None:
    """Default devices. "`/dev/console` is set up if `terminal` is enabled in the config by bind mounting the pseudoterminal pty
    to `/dev/console`." """
    one = oci()
    one.process["args"] = ["sh", "-c", "probe stat /dev/console /dev/fd/0"]
    with ConsoleSocket(one) as console:
        one.process["terminal"] = True
        one.create("--console-socket", console.path).ok()
        console.accept()
        one.start().ok()
        first, second = json.loads(console.read())
        one.wait()
    assert first["kind"] == "c"
    assert first["major"] in range(136, 144)
    assert (first["major"], first["minor"]) == (second["major"], second["minor"])


def test_l53_no_console(oci: Containers) -> None:
    """Default devices. "`/dev/console` is set up if `terminal` is enabled": without a terminal it is not."""
    assert oci().stat("/dev/console")["/dev/console"].get("errno") == 2


def test_l54_nothing_else_in_dev(oci: Containers) -> None:
    """Devices. "Containers MAY NOT access any device node that is not either explicitly referenced in the `devices` array or
    listed as being part of the default devices." """
    one = oci("sh", "-c", "ls /dev")
    known = {path.removeprefix("/dev/") for path in DEFAULTS} | {"ptmx", "pts", "shm", "mqueue"}
    assert set(one.run().ok().out.split()) == known | {"fd", "stdin", "stdout", "stderr", "core"} & set(
        one.out.split()
    ) | {*("fd", "stdin", "stdout", "stderr")}


# Allowed device list


def allowed(one: Container, rules: list[dict[str, Any]], major: int = 1, minor: int = 11) -> str:
    """ "m" if the device can be made, "r" and "w" if it can be opened so (kmsg by default, made by the host beforehand)."""
    os.mknod(one.rootfs / "device", 0o20666, os.makedev(major, minor))
    one.linux["resources"]["devices"] = rules
    one.capabilities("CAP_SYSLOG", "CAP_SYS_ADMIN")
    one.script(
        f"mknod /tmp/made c {major} {minor} 2> /dev/null && echo m; "
        "(exec 3< /device) 2> /dev/null && echo r; (exec 3> /device) 2> /dev/null && echo w; true"
    )
    return "".join(one.run().ok().out.split())


DENY = {"allow": False, "access": "rwm"}


def test_l60_all_is_denied(oci: Containers) -> None:
    """Allowed device list. "`allow` (boolean, REQUIRED) - whether the entry is allowed or denied." """
    assert allowed(oci(), [DENY]).replace("m", "") == ""


@pytest.mark.parametrize("access", ["r", "w", "m", "rw", "rwm"])
def test_l61_access(oci: Containers, access: str) -> None:
    """Allowed device list. "`access` (string, OPTIONAL) - cgroup permissions for device. A composition of `r` (read), `w`
    (write), and `m` (mknod)." """
    rule = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": access}
    seen = allowed(oci(), [DENY, rule])
    # A character device can be made by whoever may make any: that is the runtimes' rule for every one.
    assert seen.replace("m", "") == access.replace("m", "")
    assert "m" in seen or "m" not in access


def test_l62_entries_in_their_order(oci: Containers) -> None:
    """Allowed device list. "The runtime MUST apply entries in the listed order." """
    allow = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rw"}
    deny = {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rw"}
    assert allowed(oci(), [DENY, allow]).replace("m", "") == "rw"
    assert allowed(oci(), [DENY, allow, deny]).replace("m", "") == ""
    assert allowed(oci(), [DENY, deny, allow]).replace("m", "") == "rw"


@pytest.mark.parametrize(
    "rule", [{"type": "c", "major": 1}, {"type": "c", "minor": 11}, {"type": "c"}, {"type": "a"}, {}]
)
def test_l63_unset_values_mean_all(oci: Containers, rule: dict[str, Any]) -> None:
    """Allowed device list. "Unset values mean "all", mapping to `a`." "Unset values mean "all", mapping to `*` in the filesystem
    API." """
    assert allowed(oci(), [DENY, {"allow": True, "access": "rwm", **rule}]) == "mrw"


def test_l64_another_number(oci: Containers) -> None:
    """Allowed device list. "`major, minor` (int64, OPTIONAL) - major, minor numbers for the device": only that one."""
    rule = {"allow": True, "type": "c", "major": 1, "minor": 1, "access": "rw"}
    assert allowed(oci(), [DENY, rule]).replace("m", "") == ""


def test_l65_the_default_devices_stay(oci: Containers) -> None:
    """Default devices. "the runtime MUST also supply": a rule that denies all does not deny those."""
    one = oci("sh", "-c", "echo x > /dev/null && head -c 1 /dev/zero > /dev/null && head -c 1 /dev/urandom > /dev/null")
    one.linux["resources"]["devices"] = [DENY]
    one.run().ok()


@pytest.mark.parametrize("given", [{"allow": True, "type": "z"}, {"allow": True, "type": "c", "access": "rwx"}])
def test_l66_entries_that_cannot_be(oci: Containers, given: dict[str, Any]) -> None:
    """Valid values. "Runtimes MUST generate an error when invalid or unsupported values are encountered": in the device list."""
    one = oci()
    one.linux["resources"]["devices"] = [DENY, given]
    one.never_created()
