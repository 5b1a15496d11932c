"""Docker's default container: mounts, devices, capabilities, masked paths (moby daemon/pkg/oci/defaults.go, 28 and later)."""

from __future__ import annotations

import os
import stat

from sampan.kernel import namespaces
from sampan.kernel.cgroup import ANY, DeviceRule
from sampan.kernel.libc import has_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)


def masked_paths() -> list[str]:
    """What is hidden: the list, and each CPU's thermal throttle counters where the machine has them (GHSA-6fw5-f8r9-fgfm)."""
    paths = list(_MASKED)
    cpus = "/sys/devices/system/cpu"
    # One look instead of one a CPU: a machine has the counters on all of its CPUs or on none.
    if has_file(f"{cpus}/cpu0/thermal_throttle"):
        numbers = sorted(int(n[3:]) for n in os.listdir(cpus) if n.startswith("cpu") and n[3:].isdigit())
        paths += [f"{cpus}/cpu{n}/thermal_throttle" for n in numbers]
    return paths


def _terminal_group() -> list[str]:
    """devpts' option for the group of terminals, 5 on every Linux; none in a user namespace that has no such group."""
    return ["gid=5"] if namespaces.has_group(5) else []


def mounts(shm_size: int) -> list[dict[str, Any]]:
    """Every container's own mounts, in the order in which they are made."""
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *_terminal_group()],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["ro", "nosuid", "noexec", "nodev"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", f"size={shm_size}"],
        },
    ]


DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
"""Character devices of mode 0666 in every container (runtime-spec, config-linux.md, "Default Devices")."""

LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
)

KCORE_LINK = ("/dev/core", "/proc/kcore")
"""Where the host has a /proc/kcore."""

DEVICE_RULES = (
    DeviceRule(False, "a"),
    # Any node may be made, none of them opened: package managers unpack archives that hold some.
    DeviceRule(True, "c", ANY, ANY, "m"),
    DeviceRule(True, "b", ANY, ANY, "m"),
    *(DeviceRule(True, "c", major, minor) for _, major, minor in DEVICES),
    DeviceRule(True, "c", 5, 1),  # console
    DeviceRule(True, "c", 136, ANY),  # pts/N
    DeviceRule(True, "c", 5, 2),  # ptmx
)

ALL_DEVICES = (DeviceRule(True, "a"),)
"""--privileged."""

_ENTRIES = {rules: tuple(rule.to_json() for rule in rules) for rules in (DEVICE_RULES, ALL_DEVICES)}


def device_entries(privileged: bool) -> list[dict[str, Any]]:
    """`ALL_DEVICES` or `DEVICE_RULES` as linux.resources.devices has them."""
    return [dict(entry) for entry in _ENTRIES[ALL_DEVICES if privileged else DEVICE_RULES]]


NETWORK_SYSCTLS = (("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647"))
"""For a network namespace of the container's own, where the kernel has them (moby daemon/oci_linux.go)."""

_NOT_DEVICES = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx"))


def host_devices(directory: str = "/dev") -> list[dict[str, Any]]:
    """Every device node of the host, for --privileged: OCI device entries."""
    found: list[dict[str, Any]] = []
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name in _NOT_DEVICES:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(status.st_mode):
                found += host_devices(entry.path)
            elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                found.append(
                    {
                        "path": entry.path,
                        "type": "c" if stat.S_ISCHR(status.st_mode) else "b",
                        "major": os.major(status.st_rdev),
                        "minor": os.minor(status.st_rdev),
                        "fileMode": stat.S_IMODE(status.st_mode),
                        "uid": status.st_uid,
                        "gid": status.st_gid,
                    }
                )
    return found
