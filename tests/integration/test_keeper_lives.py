"""A network's keeper under real containers, whose shims have a line to it: kill -9, names, published ports, the end."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from support.command import Command
from support.networks import keeper_of
from support.patience import eventually
from support.roots import Root

pytestmark = pytest.mark.root


def lookup(cli: Command, box: str, name: str) -> list[str]:
    """The addresses that a container finds for a name, by its own program."""
    told = cli("exec", box, "nslookup", name).out
    return re.findall(r"Address: ([\d.]+)$", told.partition("Name:")[2], re.MULTILINE)


def test_names_and_ports_live_through_kill_9_and_end_with_the_last_container(new_root: Root) -> None:
    cli = new_root.cli
    network = cli("network", "create", "lives").ok().out.strip()
    cli(
        "run", "-d", "--name", "web", "--network", "lives", "-p", "127.0.0.1::80", "base", "httpd", "-f", "-h", "/etc"
    ).ok()
    cli("run", "-d", "--name", "other", "--network", "lives", "--network-alias", "alias", "base", "sleep", "1000").ok()
    address = cli("inspect", "-f", "{{.NetworkSettings.Networks.lives.IPAddress}}", "web").ok().out.strip()
    assert lookup(cli, "other", "web") == [address]
    for _ in range(2):
        pid = keeper_of(network)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: keeper_of(network) not in (0, pid))  # type: ignore[misc]
        eventually(lambda: lookup(cli, "other", "web") == [address])
        assert lookup(cli, "web", "alias")
    # By its new name at once, and not by the old one; and by its alias as before.
    cli("rename", "other", "third").ok()
    assert lookup(cli, "web", "third")
    assert (lookup(cli, "web", "other"), bool(lookup(cli, "web", "alias"))) == ([], True)
    cli("rename", "third", "other").ok()
    cli("restart", "-t", "0", "web").ok()
    eventually(lambda: lookup(cli, "other", "web"))
    began = time.monotonic()
    cli("rm", "-f", "web", "other").ok()
    eventually(lambda: not keeper_of(network))
    assert time.monotonic() - began < 30
    cli("network", "rm", "lives").ok()


def test_the_line_costs_a_shim_next_to_nothing(new_root: Root) -> None:
    cli = new_root.cli
    cli("network", "create", "cheap").ok()
    cli("run", "-d", "--name", "warm", "--network", "cheap", "base", "sleep", "1000").ok()

    def size(network: str) -> int:
        """KiB that are a shim's alone."""
        container = cli("run", "-d", "--network", network, "base", "sleep", "1000").ok().out.strip()
        started = json.loads((Path(new_root.root) / "containers" / container / "starts/1/started").read_text())
        rollup = Path(f"/proc/{started['monitor']}/smaps_rollup").read_text()
        return int(re.findall(r"Private_Dirty: +(\d+)", rollup)[0])

    # The least of some: how the allocator's pages fall differs by a hundred KiB from one start to the next.
    assert min(size("cheap") for _ in range(4)) - min(size("none") for _ in range(4)) < 64
    cli("rm", "-f", *cli("ps", "-q").ok().out.split()).ok()
    cli("network", "rm", "cheap").ok()
