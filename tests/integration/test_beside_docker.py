"""Our command line beside Docker's own, side by side: the same lines typed to both, on the same image and the same containers.

What differs by nature is made equal before it is compared: the program's name, whose daemon speaks, ids, times, and the wording
that Docker itself has changed since the daemon of Debian 12 (20.10).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.command import Result
from support.roots import Root
from support.tools import Dockerd

pytestmark = [pytest.mark.root, pytest.mark.docker28]

NONE = ("--network", "none")

LISTINGS = [
    "ps -a --format {{.Names}}:{{.State}}",
    "ps --format {{.Names}}",
    "ps -n 2 --format {{.Names}}",
    "ps -l --format {{.Names}}",
    "ps -n 0 --format {{.Names}}",
    "ps -l -n 2 --format {{.Names}}",
    "ps -a --no-trunc --format {{.Command}}",
    r"ps -a --format table\ {{.Names}}\t{{.Image}}\t{{.State}}\t{{.Labels}}\t{{.LocalVolumes}}\t{{.Mounts}}\t{{.Networks}}\t{{.Ports}}",
    "ps -a --format {{json\\ .Labels}}",
    "ps --format {{.Nope}}",
    "ps --format table\\ {{.Names",
    "images --format {{.Repository}}:{{.Tag}} img",
    "images --format table\\ {{.Repository}}\\t{{.Tag}}\\t{{.ID}} img",
    "images --format {{.Nope}}",
    "images none",
    "volume ls",
    "volume ls -q",
    "volume ls --format table\\ {{.Name}}\\t{{.Driver}}\\t{{.Scope}}\\t{{.Links}}",
    "volume ls --format {{.Nope}}",
    "history --format {{.Nope}} img",
    "system df --format {{.Type}}:{{.TotalCount}}:{{.Active}}",
    "system df --format {{.Nope}}",
    "stats --no-stream --format {{.Name}} runs",
    "port ended",
    "port ended 80",
    "port ended x",
]  # fmt: skip

FILTERS = [
    *("name=e", "name=^runs$", "name=^/runs$", "name=[", "id=zz", "label=k", "label=k=v", "label=k=w", "label=z", "label="),
    *("status=running", "status=exited", "status=created", "status=x", "exited=3", "exited=0", "exited=x", "exited=3x"),
    *("before=made", "since=runs", "before=nobody", "ancestor=img", "ancestor=nobody", "network=none", "network=nobody"),
    *("volume=data", "volume=/data", "volume=nobody", "health=none", "health=healthy", "health=x", "is-task=true", "is-task=x"),
    *("publish=80", "publish=x", "publish=80-70", "publish=80/foo", "expose=99999", "foo=bar", "foo", "=x", "STATUS=running"),
]  # fmt: skip

REFUSALS = [
    *("help nosuch", "help ps extra", "help container nosuch", "nosuch", "rnu", "container nosuch", "container --nosuch"),
    *("--nosuch ps", "ps --nosuch", "ps -Z", "run --nosuch x", "port", "port a b c", "rm", "tag a", "ps x", "history", "volume rm"),
    *("start nobody nobody2", "stop nobody nobody2", "wait nobody nobody2", "rm nobody nobody2", "rm -f nobody", "rm --link runs"),
    *("restart nobody", "pause nobody ended", "unpause runs", "start -a a b", "update nobody --cpus 1", "rename runs made"),
    *("run --restart always --rm img", "run --restart on-failure:x img", "run --pull never nobody true", "run --pull x img"),
    *("run --userns x img", "run --storage-opt size img", "run --dns x img", "run --dns-search .x img", "run --add-host x img"),
    *("run --add-host x:1.2.3 img", "run --expose x img", "run --expose 80-79 img", "run -p x img", "run -p 80:90:100:110 img"),
    *("run -p 1-3:5-9 img", "run -p 80/xx img", "run --network container:runs -p 80 img", "run --attach foo img"),
    *("system prune -f --volumes --filter until=1h", "container prune -f --filter foo=x"),
    *("system prune -f --filter foo=x", "images -f dangling=x", "volume ls -f foo=x"),
]  # fmt: skip


class Pair(NamedTuple):
    root: Root
    daemon: Dockerd

    def both(self, *args: str) -> tuple[Result, Result]:
        return self._docker(*args), self.root.cli(*args)

    def _docker(self, *args: str) -> Result:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "DOCKER_HOST": self.daemon.host,
            "LANG": "C.UTF-8",
        }
        done = subprocess.run(["docker", *args], env=environment, stdin=subprocess.DEVNULL, capture_output=True)
        return Result(("docker", *args), done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def pair(session_root: Root, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The same image, containers and volumes in both."""
    version = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=True).stdout
    assert "28.2" in version, f"the messages are those of docker 28.2, and this is: {version}"
    short = Path(f"/tmp/sampan-{os.getpid()}")
    short.mkdir()
    try:
        with Dockerd(short / "d") as daemon:
            session_root.cli("tag", "base", "img").ok()
            archive = tmp_path_factory.mktemp("images") / "img.tar"
            session_root.cli("save", "-o", str(archive), "img").ok()
            daemon.docker("load", "-i", str(archive))
            found = Pair(session_root, daemon)
            for args in (
                ("run", "-d", *NONE, "--name", "runs", "--label", "k=v", "--label", "z", "img", "sleep", "1000"),
                ("run", *NONE, "--name", "ended", "img", "sh", "-c", "exit 3"),
                ("create", *NONE, "--name", "made", "-v", "data:/data", "img", "true"),
            ):
                for result in found.both(*args):
                    assert result.code in (0, 3), result
            # They are not busy with anything else from here on.
            yield found
            session_root.cli("rm", "-f", "runs", "ended", "made").ok()
            session_root.cli("volume", "rm", "data").ok()
            session_root.cli("rmi", "img").ok()
            daemon.docker("rm", "-f", "runs", "ended", "made")
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(short)], check=True)


def alike(text: str) -> str:
    """What both say, without what differs by nature."""
    text = text.replace("Error response from daemon: ", "Error: ").replace("docker: Error: ", "docker: ")
    text = text.replace("docker", "sampan").replace("SRun 'sampan", "Run 'sampan")  # a slip of 28.2
    # Wordings of a daemon of 20.10, and what 28 says.
    text = text.replace("no such container nobody", "No such container: nobody").replace("Unrecognised", "unrecognized")
    text = text.replace("Invalid range specified for the Port", "invalid range specified for port")
    text = re.sub("[0-9a-f]{64}", "ID", text)
    return re.sub(r"(Error|sampan): ([A-Z])", lambda found: f"{found[1]}: {found[2].lower()}", text)


def check(pair: Pair, *args: str) -> None:
    docker, ours = pair.both(*args)
    said = [(result.code, alike(result.out), alike(result.err)) for result in (docker, ours)]
    assert said[1] == said[0], args


def words(line: str) -> list[str]:
    """The line's words; a blank within one has a backslash."""
    return [word.replace("\0", " ") for word in line.replace("\\ ", "\0").split()]


@pytest.mark.parametrize("line", LISTINGS)
def test_listings(pair: Pair, line: str) -> None:
    check(pair, *words(line))


@pytest.mark.parametrize("filter", FILTERS)
def test_filters_of_ps(pair: Pair, filter: str) -> None:
    check(pair, "ps", "-a", "--filter", filter, "--format", "{{.Names}}")


@pytest.mark.parametrize("line", REFUSALS)
def test_refusals(pair: Pair, line: str) -> None:
    check(pair, *words(line))
