"""`stats`: what containers use, once or as a table that is drawn again every second."""

from __future__ import annotations

import time

from sampan.cli import terminal
from sampan.cli.flags import Flag
from sampan.cli.images import human_size
from sampan.cli.listing import render
from sampan.cli.output import Failure, write
from sampan.cli.system import binary_size
from sampan.cli.verbs import Command
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments
    from sampan.engine.containers import Container

    Document = dict[str, Any]
    Lines = Callable[[list[tuple[str, Document]]], str]

INTERVAL = 1.0
"""Seconds between two looks."""

SHORT_ID = 12
NOTHING = "--"
"""What the kernel does not count, or not yet."""

HEADINGS = {
    "Container": "CONTAINER",
    "Name": "NAME",
    "ID": "CONTAINER ID",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
    # Ours: the share of the last ten seconds in which some, and in which all, of its tasks were waiting.
    "CPUPressure": "CPU PRESSURE",
    "MemPressure": "MEM PRESSURE",
    "IOPressure": "I/O PRESSURE",
}
TABLE = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
TYPE = "container.statsContext"


def stats(context: Context, arguments: Arguments) -> int:
    """Print what containers use: those that were named, else those that run."""
    source = _Source(context, arguments.words, arguments["all"])

    def lines(seen: list[tuple[str, Document]]) -> str:
        items = [fields(document, word, arguments["no-trunc"]) for word, document in seen]
        return render(items, HEADINGS, TABLE, arguments["format"], TYPE)

    if arguments["no-stream"]:
        _once(source, lines)
    else:
        _on_and_on(source, lines)
    return 0


def _once(source: _Source, lines: Lines) -> None:
    seen = source.look()
    # What a processor did is a difference: if no container runs there is none to wait for.
    if any(_runs(document) for _, document in seen):
        time.sleep(INTERVAL)
        seen = source.look()
    write(1, lines(seen).encode("utf-8", "surrogateescape"))


def _on_and_on(source: _Source, lines: Lines) -> None:
    """Until the user has seen enough, or the last of the containers that were named is removed."""
    seen = source.look()
    if (size := terminal.size(1)) is not None:
        write(1, _frame(lines(seen), *size))
    while seen or not source.named:
        time.sleep(INTERVAL)
        seen = source.look()
        size, text = terminal.size(1), lines(seen)
        write(1, text.encode("utf-8", "surrogateescape") if size is None else _frame(text, *size))


class _Source:
    """Where the documents come from: a look each second, each compared with the one before."""

    def __init__(self, context: Context, words: list[str], all: bool) -> None:
        """Raises Failure if one of the words is no container."""
        self._containers = context.engine.containers
        self._named = self._find(words)
        self._all = all
        self._before: dict[str, Document] = {}

    @property
    def named(self) -> bool:
        """Whether the user said which; else there may be more to come when none is left."""
        return bool(self._named)

    def look(self) -> list[tuple[str, Document]]:
        """What there is now: how the user calls it, and its document."""
        before = list(self._before.values())
        if self._named:
            found = self._containers.stats(list(self._named.values()), before=before)
        else:
            found = self._in_order(self._containers.stats(all=self._all, before=before))
        self._before = {document["id"]: document for document in found}
        if not self._named:
            return [(document["id"][:SHORT_ID], document) for document in found]
        there = ((word, self._before.get(container.id)) for word, container in self._named.items())
        return [(word, document) for word, document in there if document is not None]

    def _find(self, words: list[str]) -> dict[str, Container]:
        named, problems = {}, []
        for word in words:
            try:
                named[word] = self._containers.get(word)
            except SampanError as e:
                problems.append(f"Error: {e}")
        if problems:
            raise Failure("\n".join(problems))
        return named

    def _in_order(self, found: list[Document]) -> list[Document]:
        """Those that were there already keep their places, so that no line jumps when another container starts."""
        now = {document["id"]: document for document in found}
        return [now.pop(known) for known in self._before if known in now] + list(now.values())


def _frame(text: str, rows: int, columns: int) -> bytes:
    """The lines over those that are on the terminal, in one write: nothing is cleared before it is drawn again.

    What does not fit is cut off: a line that goes on in the next one, or a screen that scrolls, could not be drawn over.
    """
    lines = text.splitlines()[: rows - 1 if rows > 1 else None]  # 0 is a terminal that does not know its size
    drawn = "".join(f"{line[:columns] if columns else line}\x1b[K\n" for line in lines)
    return f"\x1b[H{drawn}\x1b[J".encode("utf-8", "surrogateescape")


# The fields


def fields(document: Document, word: str, long: bool) -> dict[str, object]:
    """A document of the Engine API as the table shows it."""
    return {
        "Container": word,
        "Name": document["name"].removeprefix("/"),
        "ID": document["id"] if long else document["id"][:SHORT_ID],
        "CPUPerc": _cpu(document),
        **_memory(document),
        "NetIO": _network(document),
        "BlockIO": _block(document),
        "PIDs": _pids(document),
        "CPUPressure": _pressure(document, "cpu"),
        "MemPressure": _pressure(document, "memory"),
        "IOPressure": _pressure(document, "io"),
    }


def _runs(document: Document) -> bool:
    return not document["read"].startswith("0001-")


def _cpu(document: Document) -> str:
    """The container's share of the machine's time since the look before, all of one processor being 100 %."""
    if not _runs(document):
        return _percent(0)
    now, before = document["cpu_stats"], document["precpu_stats"]
    if "system_cpu_usage" not in now or "system_cpu_usage" not in before:
        return NOTHING
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = now["system_cpu_usage"] - before["system_cpu_usage"]
    return _percent(used / passed * now["online_cpus"] * 100 if used > 0 and passed > 0 else 0)


def _memory(document: Document) -> dict[str, str]:
    memory = document["memory_stats"]
    if not memory:
        values = (NOTHING, NOTHING, NOTHING) if _runs(document) else (binary_size(0), binary_size(0), _percent(0))
    else:
        used, limit = _without_cache(memory), memory["limit"]
        values = (binary_size(used), binary_size(limit), _percent(used / limit * 100 if limit else 0))
    return {"MemUsage": f"{values[0]} / {values[1]}", "MemPerc": values[2]}


def _without_cache(memory: Document) -> int:
    """What would not be given back at once if somebody needed it: usage but for files that nobody has used lately."""
    stats, usage = memory["stats"], int(memory["usage"])
    cache = stats.get("total_inactive_file", stats.get("inactive_file", 0))  # v1 with the groups below, v2
    return usage - int(cache) if cache < usage else usage


def _network(document: Document) -> str:
    interfaces = document.get("networks", {}).values()
    received, sent = (sum(i[f"{way}_bytes"] for i in interfaces) for way in ("rx", "tx"))
    return f"{human_size(received)} / {human_size(sent)}"


def _block(document: Document) -> str:
    counts = document["blkio_stats"]["io_service_bytes_recursive"]
    if counts is None:
        if _runs(document):
            return NOTHING
        counts = []
    read, written = (sum(c["value"] for c in counts if c["op"].lower() == op) for op in ("read", "write"))
    return f"{human_size(read)} / {human_size(written)}"


def _pids(document: Document) -> str:
    return str(document["pids_stats"].get("current", NOTHING if _runs(document) else 0))


def _pressure(document: Document, resource: str) -> str:
    found = document["pressure_stats"].get(resource)
    if found is None:
        return NOTHING
    full = _percent(found["full"]["avg10"]) if "full" in found else NOTHING
    return f"{_percent(found['some']['avg10'])} / {full}"


def _percent(value: float) -> str:
    return f"{value:.2f}%"


STATS = Command(
    "[OPTIONS] [CONTAINER...]",
    stats,
    (
        Flag("all", "bool", "Show all containers, not only those that run", "a"),
        Flag("format", "string", "Print what a Go template makes of each container, or table, json, table TEMPLATE"),
        Flag("no-stream", "bool", "Print it once"),
        Flag("no-trunc", "bool", "Do not shorten anything"),
    ),
)
