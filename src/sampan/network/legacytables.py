"""iptables as it was before nf_tables: tables of its own in the kernel, which nf_tables does not tell of, and whose drop is final.

Its programs are asked, only where such a table is there: the interface of these tables takes and gives them as a whole, so that
two who change one undo each other's changes, unless both take the lock of the programs.
"""

from __future__ import annotations

from sampan.errors import System
from sampan.kernel.files import read_small

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLES = (("/proc/net/ip_tables_names", "iptables-legacy"), ("/proc/net/ip6_tables_names", "ip6tables-legacy"))
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
_CHAIN, _DOCKER_USER = "FORWARD", "DOCKER-USER"
_PATIENCE = "10"
"""Seconds that a program waits for the lock of all of them."""


def open_ways(link: str, comment: str) -> None:
    """Let the bridge `link` be forwarded where such a table forwards nothing by default; two rules with a comment. Raises System."""
    for program in _programs():
        rules = _run(program, "-S").splitlines()
        if f"-P {_CHAIN} DROP" not in rules:
            continue
        chain = _DOCKER_USER if f"-N {_DOCKER_USER}" in rules else _CHAIN
        for direction in ("-i", "-o"):
            if not any(f"--comment {comment} " in rule and f" {direction} {link} " in rule for rule in rules):
                _run(program, "-I", chain, direction, link, "-m", "comment", "--comment", comment, "-j", "ACCEPT")


def close_ways(comment: str) -> None:
    """Take these rules out again. Idempotent. Raises System."""
    for program in _programs():
        for rule in _run(program, "-S").splitlines():
            if f"--comment {comment} " in rule and rule.startswith("-A "):
                _run(program, "-D", *rule.split()[1:])


def _programs() -> Iterator[str]:
    """Those whose table for packets that are forwarded is there in this network namespace."""
    for names, program in _TABLES:
        try:
            if b"filter" in read_small(names).split():
                yield program
        except OSError:
            continue  # the kernel has no such tables, or does not tell


def _run(program: str, *arguments: str) -> str:
    import subprocess  # in here: few machines have such a table

    command = [program, "-w", _PATIENCE, *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=_ENVIRONMENT
        )
    except FileNotFoundError:
        raise System(
            f"this machine has a firewall of {program}, and the program is not there: install it, or let it go with a reboot"
        ) from None
    except OSError as e:
        raise System(f"cannot execute {program}: {(e.strerror or str(e)).lower()}") from None
    if done.returncode:
        raise System(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
