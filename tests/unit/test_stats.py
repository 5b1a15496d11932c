"""What `stats` makes of a document of the Engine API, and what the kernel's pressure files say."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.cli.stats import fields
from sampan.engine.stats import NEVER
from sampan.kernel.cgroupusage import Pressure, Stall, parse_pressure

SECOND = 1_000_000_000
READ = "2026-01-02T03:04:05.000000000Z"


def document(**changes: Any) -> dict[str, Any]:
    return {
        "read": READ,
        "name": "/box",
        "id": "0123456789abcdef",
        "cpu_stats": {"cpu_usage": {"total_usage": 3 * SECOND}, "system_cpu_usage": 104 * SECOND, "online_cpus": 4},
        "precpu_stats": {"cpu_usage": {"total_usage": 1 * SECOND}, "system_cpu_usage": 100 * SECOND, "online_cpus": 4},
        "memory_stats": {"usage": 3 << 20, "limit": 8 << 20, "stats": {"inactive_file": 1 << 20}},
        "blkio_stats": {"io_service_bytes_recursive": [{"major": 8, "minor": 0, "op": "Read", "value": 573440}]},
        "pids_stats": {"current": 7},
        "pressure_stats": {"cpu": {"some": {"avg10": 25.456}, "full": {"avg10": 0.0}}},
        **changes,
    }


def test_the_fields_of_a_running_container() -> None:
    assert fields(document(), "b", long=False) == {
        "Container": "b",
        "Name": "box",
        "ID": "0123456789ab",
        "CPUPerc": "200.00%",
        "MemUsage": "2MiB / 8MiB",
        "MemPerc": "25.00%",
        "NetIO": "0B / 0B",
        "BlockIO": "573kB / 0B",
        "PIDs": "7",
        "CPUPressure": "25.46% / 0.00%",
        "MemPressure": "--",
        "IOPressure": "--",
    }
    assert fields(document(), "b", long=True)["ID"] == "0123456789abcdef"


@pytest.mark.parametrize(
    ("stats", "used"),
    [
        ({"total_inactive_file": 2 << 20, "inactive_file": 0}, "1MiB"),  # v1 counts the groups below by another name
        ({"inactive_file": 2 << 20}, "1MiB"),
        ({"inactive_file": 3 << 20}, "3MiB"),  # the two were not read in the same moment
        ({}, "3MiB"),
    ],
)
def test_memory_is_told_without_the_cache(stats: dict[str, int], used: str) -> None:
    memory = {"usage": 3 << 20, "limit": 8 << 20, "stats": stats}
    assert fields(document(memory_stats=memory), "b", long=False)["MemUsage"] == f"{used} / 8MiB"


def test_both_ways_of_naming_an_operation_and_all_disks_are_added() -> None:
    counts = [
        {"op": op, "value": value}
        for op, value in (("Read", 1000), ("Write", 1), ("Total", 1001), ("read", 500), ("write", 2))
    ]
    shown = fields(document(blkio_stats={"io_service_bytes_recursive": counts}), "b", long=False)
    assert shown["BlockIO"] == "1.5kB / 3B"


def test_the_network_is_the_sum_over_the_interfaces() -> None:
    networks = {"eth0": {"rx_bytes": 1500, "tx_bytes": 3}, "eth1": {"rx_bytes": 1000, "tx_bytes": 4}}
    assert fields(document(networks=networks), "b", long=False)["NetIO"] == "2.5kB / 7B"


def test_what_the_kernel_does_not_count_is_no_zero() -> None:
    bare = document(
        cpu_stats={"cpu_usage": {"total_usage": 0}},
        memory_stats={},
        blkio_stats={"io_service_bytes_recursive": None},
        pids_stats={},
    )
    shown = fields(bare, "b", long=False)
    names = ("CPUPerc", "MemUsage", "MemPerc", "BlockIO", "PIDs")
    assert [shown[name] for name in names] == ["--", "-- / --", "--", "--", "--"]


def test_a_container_that_does_not_run_uses_nothing() -> None:
    stopped = document(
        read=NEVER,
        cpu_stats={"cpu_usage": {"total_usage": 0}},
        memory_stats={},
        blkio_stats={"io_service_bytes_recursive": None},
        pids_stats={},
        pressure_stats={},
    )
    shown = fields(stopped, "b", long=False)
    names = ("CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs", "CPUPressure")
    assert [shown[name] for name in names] == ["0.00%", "0B / 0B", "0.00%", "0B / 0B", "0B / 0B", "0", "--"]


def test_processor_time_that_went_backwards_is_none() -> None:
    # The container was started again between two looks.
    before = {"cpu_usage": {"total_usage": 5 * SECOND}, "system_cpu_usage": 100 * SECOND, "online_cpus": 4}
    assert fields(document(precpu_stats=before), "b", long=False)["CPUPerc"] == "0.00%"


def test_a_pressure_file() -> None:
    some = "some avg10=1.50 avg60=0.20 avg300=0.03 total=12345"
    assert parse_pressure(f"{some}\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=7") == Pressure(
        Stall(1.5, 0.2, 0.03, 12345), Stall(0.1, 0.0, 0.0, 7)
    )
    assert parse_pressure(some) == Pressure(Stall(1.5, 0.2, 0.03, 12345))
    assert parse_pressure("") is None
