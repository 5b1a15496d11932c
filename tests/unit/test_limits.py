"""Docker's judgement of resource limits, text by text."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidParameter
from sampan.oci import limits

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("memory", "swap", "reservation", "message"),
    [
        (6 * MIB - 1, 0, 0, "Minimum memory limit allowed is 6MB"),
        (-1, 0, 0, "Minimum memory limit allowed is 6MB"),
        (8 * MIB, 8 * MIB - 1, 0, "Minimum memoryswap limit should be larger than memory limit, see usage"),
        (0, 8 * MIB, 0, "You should always set the Memory limit when using Memoryswap limit, see usage"),
        (0, 0, 6 * MIB - 1, "Minimum memory reservation allowed is 6MB"),
        (8 * MIB, 0, 9 * MIB, "Minimum memory limit can not be less than memory reservation limit, see usage"),
    ],
)
def test_memory_that_cannot_be(memory: int, swap: int, reservation: int, message: str) -> None:
    with pytest.raises(InvalidParameter) as failure:
        limits.check_memory(memory, swap, reservation)
    assert str(failure.value) == message


@pytest.mark.parametrize(
    ("memory", "swap", "reservation"),
    [(0, 0, 0), (6 * MIB, 0, 0), (6 * MIB, 6 * MIB, 6 * MIB), (6 * MIB, -1, 0), (0, -1, 0), (0, 0, 6 * MIB)],
)
def test_memory_that_can_be(memory: int, swap: int, reservation: int) -> None:
    limits.check_memory(memory, swap, reservation)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nano_cpus": 2_000_000_001}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"nano_cpus": -1}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"nano_cpus": 9_999_999}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"nano_cpus": 10**9, "period": 1}, "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
        ({"nano_cpus": 10**9, "quota": 1}, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        ({"shares": -1}, "invalid CPU shares (-1): value must be a positive integer"),
        ({"period": 999}, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
        ({"period": 1_000_001}, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
        ({"quota": 999}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
    ],
)
def test_cpu_that_cannot_be(given: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidParameter) as failure:
        limits.check_cpu(2, **given)
    assert str(failure.value) == message


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"nano_cpus": 10_000_000},
        {"nano_cpus": 2 * 10**9},
        {"quota": -1},
        {"quota": 1000, "period": 1000},
        {"shares": 1},
    ],
)
def test_cpu_that_can_be(given: dict[str, int]) -> None:
    limits.check_cpu(2, **given)


def test_what_follows_from_what_was_given() -> None:
    assert limits.swap_limit(8, 0) == 16
    assert limits.swap_limit(8, 9) == 9
    assert limits.swap_limit(8, -1) == -1
    assert limits.swap_limit(0, 0) == 0
    assert limits.bandwidth(500_000_000) == (50_000, 100_000)
    assert limits.bandwidth(0, period=5000, quota=2000) == (2000, 5000)
    assert [limits.pids_limit(n) for n in (None, 5, 0, -1, -7)] == [0, 5, -1, -1, -1]
