"""How things are measured: in turns, so that a drift of the machine meets everybody, and shown as one table."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping


def seconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def processor_seconds() -> float:
    """What the processes that this one has waited for have taken of the processors: what tells two engines apart on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def first_quartile(values: list[float]) -> float:
    """What is undisturbed of a series: others on the machine make a round longer and never shorter."""
    return statistics.quantiles(values, n=4, method="inclusive")[0] if len(values) > 1 else values[0]


def in_turns(actions: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """What each action returns (seconds, say), `rounds` times in turns; the first `warm_up` turns do not count."""
    found: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(warm_up + rounds):
        for name, action in actions.items():
            value = action()
            if number >= warm_up:
                found[name].append(value)
    return found


def table(title: str, found: Mapping[str, list[float]], unit: str = "ms", scale: float = 1e3) -> None:
    """One line for each series: median, least and greatest, and the first series' median by this one's."""
    ours = statistics.median(next(iter(found.values())))
    print(f"\n{title}\n  {'':18}{'median':>10}{'min':>10}{'max':>10}  {unit:6}{'first/this':>10}")
    for name, values in found.items():
        middle = statistics.median(values)
        print(
            f"  {name:18}{middle * scale:10.1f}{min(values) * scale:10.1f}{max(values) * scale:10.1f}  {'':6}{ours / middle:10.2f}",
            flush=True,
        )


def verdict(what: str, value: float, limit: float) -> None:
    """One line that says whether the goal is reached."""
    print(
        f"  {'reached' if value <= limit else 'MISSED'}: {what} is {value:.2f}, the goal is at most {limit:g}",
        flush=True,
    )
