"""What the kernel counts outside of cgroups: the machine's processor time, and the traffic of a network namespace."""

from __future__ import annotations

import os

from sampan.structs import Struct


class MachineTime(Struct):
    """total: nanoseconds of all processors since boot, idle ones included. online: how many processors there are."""

    total: int
    online: int


_TIMES = 7
"""user, nice, system, idle, iowait, irq, softirq; a guest's time is in user already (proc_stat(5))."""


def machine_time() -> MachineTime:
    """The first lines of /proc/stat."""
    with open("/proc/stat", "rb") as file:
        lines = file.read().splitlines()
    ticks = sum(map(int, lines[0].split()[1 : 1 + _TIMES]))
    online = sum(line.startswith(b"cpu") for line in lines) - 1
    return MachineTime(ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK")), online)


class Traffic(Struct):
    """What went through one interface since it was made."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def traffic(pid: int) -> dict[str, Traffic]:
    """The interfaces of a process' network namespace, without its loopback, by name (proc_pid_net(5)).

    Empty if the process is gone. The file belongs to the namespace: nothing waits for the process itself.
    """
    try:
        with open(f"/proc/{pid}/net/dev", "rb") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    found = {}
    for line in lines[2:]:
        name, _, rest = line.decode("utf-8", "surrogateescape").partition(":")
        numbers = list(map(int, rest.split()))
        if name.strip() != "lo":
            found[name.strip()] = Traffic(*numbers[0:4], *numbers[8:12])
    return found


def shares_network(pid: int) -> bool:
    """Whether a process is in the network namespace of this one. Raises FileNotFoundError if it is gone."""
    return os.path.samestat(os.stat(f"/proc/{pid}/ns/net"), os.stat("/proc/self/ns/net"))
