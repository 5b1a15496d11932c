"""`sampan-oci` list, ps, events, spec and features: what only shows, and changes nothing."""

from __future__ import annotations

import os
import time

from sampan import jsontext
from sampan.errors import Conflict, InvalidParameter, System
from sampan.runtime import ocilog, ocistate
from sampan.runtime.ociflags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.runtime.ocicli import Global
    from sampan.runtime.ociflags import Arguments
    from sampan.runtime.ocistate import Container

_FORMAT = Flag("format", "string", "table or json", "f", default="table")

FLAGS = {
    "list": (_FORMAT, Flag("quiet", "bool", "ids only", "q")),
    "ps": (_FORMAT,),
    "events": (
        Flag("interval", "string", "how often (5s)", default="5s"),
        Flag("stats", "bool", "once, and no more"),
    ),
    "spec": (
        Flag("bundle", "string", "the directory that it is written to (default: this one)", "b"),
        Flag("rootless", "bool", "for a user other than root"),
    ),
    "features": (),
}


def _check_format(arguments: Arguments) -> str:
    if arguments["format"] not in ("table", "json"):
        raise InvalidParameter(f"invalid format option: {arguments['format']!r} is neither table nor json")
    return str(arguments["format"])


def list_(given: Global, arguments: Arguments) -> int:
    style = _check_format(arguments)
    rows = [_row(container) for container in ocistate.everyone(given.root)]
    if arguments["quiet"]:
        if rows:
            ocilog.out("\n".join(row["id"] for row in rows))
    elif style == "json":
        ocilog.out(jsontext.dumps(rows or None).decode("ascii"))
    else:
        table = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        table += [(r["id"], str(r["pid"]), r["status"], r["bundle"], r["created"], r["owner"]) for r in rows]
        _print_table(table)
    return 0


def _row(container: Container) -> dict[str, Any]:
    record = container.record
    status = container.status()
    moment = record["created"]
    fraction = f"{moment % 1:.9f}"[2:]
    return {
        **container.state(status),
        "rootfs": record["rootfs"],
        "created": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{fraction}Z",
        "owner": _user_name(record["owner"]),
    }


def _user_name(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (KeyError, ImportError):
        return f"#{uid}"


def _print_table(table: Sequence[tuple[str, ...]]) -> None:
    widths = [max(12, 1 + max(len(line[i]) for line in table)) for i in range(len(table[0]) - 1)]
    ocilog.out("\n".join("".join(c.ljust(w) for c, w in zip(line, widths, strict=False)) + line[-1] for line in table))


def ps(given: Global, arguments: Arguments) -> int:
    style = _check_format(arguments)
    container = ocistate.find(given.root, arguments.words[0])
    if container.status() == ocistate.STOPPED:
        raise Conflict("container not running")
    pids = sorted(container.driver.processes(container.group))
    if style == "json":
        ocilog.out(jsontext.dumps(pids).decode("ascii"))
        return 0
    ocilog.out(_host_ps(arguments.words[1:] or ["-ef"], pids))
    return 0


def _host_ps(options: list[str], pids: list[int]) -> str:
    """The lines of the host's ps(1) that are about these processes."""
    import subprocess

    try:
        result = subprocess.run(["ps", *options], capture_output=True, text=True, errors="surrogateescape")
    except OSError as e:
        raise System(f"ps: {os.strerror(e.errno or 0).lower()}: --format json needs no such program") from None
    if result.returncode:
        raise InvalidParameter(f"ps {' '.join(options)}: {result.stderr.strip()}")
    head, *lines = result.stdout.splitlines()
    columns = head.split()
    if "PID" not in columns:
        raise InvalidParameter(f"ps {' '.join(options)}: the column PID is needed")
    wanted, at = set(map(str, pids)), columns.index("PID")
    return "\n".join([head, *(line for line in lines if line.split(None, at + 1)[at : at + 1][0] in wanted)])


def events(given: Global, arguments: Arguments) -> int:
    from sampan.runtime import ocistats

    container = ocistate.find(given.root, arguments.words[0])
    interval = _seconds(arguments["interval"])
    if container.status() == ocistate.STOPPED:
        raise Conflict("container not running")
    if arguments["stats"]:
        ocilog.out(_event("stats", container.id, ocistats.stats(container)))
        return 0
    kills, due = container.driver.oom_kills(container.group), time.monotonic() + interval
    while container.alive():
        now = container.driver.oom_kills(container.group)
        if now > kills:
            ocilog.out(_event("oom", container.id))
        kills = now
        if time.monotonic() >= due:
            ocilog.out(_event("stats", container.id, ocistats.stats(container)))
            due += interval
        time.sleep(min(0.5, max(0.01, due - time.monotonic())))
    return 0


def _event(kind: str, identifier: str, data: dict[str, Any] | None = None) -> str:
    return jsontext.dumps({"type": kind, "id": identifier, **({"data": data} if data else {})}).decode("ascii")


def _seconds(text: str) -> float:
    from sampan.oci import duration

    try:
        found = duration.parse(text) / 1e9
    except (InvalidParameter, ValueError) as e:
        raise InvalidParameter(f"--interval: {e}") from None
    if found <= 0:
        raise InvalidParameter("--interval: duration interval must be greater than 0")
    return found


def spec(given: Global, arguments: Arguments) -> int:
    from sampan.runtime import ocidocuments

    path = os.path.join(arguments["bundle"] or ".", "config.json")
    text = ocilog.indented(jsontext.dumps(ocidocuments.template(arguments["rootless"])), 4)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise Conflict(f"File {path} exists. Remove it first") from None
    except OSError as e:
        raise System(f"open {path}: {os.strerror(e.errno or 0).lower()}") from None
    with open(fd, "w") as file:
        file.write(text + "\n")
    return 0


def features(given: Global, arguments: Arguments) -> int:
    from sampan.runtime import ocidocuments

    ocilog.out(ocilog.indented(jsontext.dumps(ocidocuments.features())))
    return 0
