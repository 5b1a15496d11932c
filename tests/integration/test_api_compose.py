"""docker-compose 1.29, and Compose as it is today, on `sampan serve`: a web server and Redis of Debian, health checks, depends_on, volumes, networks, scale, logs, down."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.apiserver import Server, serving
from support.debian import debian_tar
from support.goprograms import go_program
from support.patience import eventually, patience
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.long]

COMPOSE = """\
version: "2.4"
services:
  store:
    build: ./store
    volumes: ["data:/data"]
    networks: [back]
    healthcheck: {test: ["CMD", "redis-cli", "ping"], interval: 1s, timeout: 20s, retries: 60}
  web:
    build: {context: ./web, args: {WORDS: hello from the build}}
    depends_on: {store: {condition: service_healthy}}
    networks: [back]
    environment: [GREETING=hello]
    stop_grace_period: 1s
volumes: {data: {}}
networks: {back: {}}
"""
STORE = """\
FROM redis-of-debian
WORKDIR /data
CMD ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--appendonly", "yes"]
"""
WEB = """\
FROM base
ARG WORDS
RUN mkdir /www && echo $WORDS > /www/index.html
CMD ["sh", "-c", "echo web is up; exec httpd -f -h /www"]
"""


@pytest.fixture(scope="module")
def home(test_directory: str) -> Iterator[Root]:
    """A store with a Debian that has Redis, for both kinds of Compose."""
    made = Root(Path(test_directory) / "api-compose")
    with debian_tar("redis-server").open("rb") as tar:
        made.cli("import", "-", "redis-of-debian", stdin=tar.fileno(), timeout=300).ok()
    before = made.state()
    yield made
    before.check()
    made.delete()


@pytest.fixture(scope="module")
def server(home: Root) -> Iterator[Server]:
    with serving(home) as found:
        yield found
        assert "Traceback" not in found.log


class Compose:
    def __init__(self, program: str, directory: Path, server: Server) -> None:
        self.program = program
        self.directory = directory
        self.environment = {
            **{key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ},
            "DOCKER_HOST": server.url,
            "LANG": "C.UTF-8",
            "DOCKER_CONFIG": str(directory),
            "COMPOSE_HTTP_TIMEOUT": "300",
        }
        for name, dockerfile in (("store", STORE), ("web", WEB)):
            (directory / name).mkdir()
            (directory / name / "Dockerfile").write_text(dockerfile)
        (directory / "docker-compose.yml").write_text(COMPOSE)

    def __call__(self, *args: str) -> str:
        command = [self.program, "-p", "composed", "--ansi", "never", *args]
        done = subprocess.run(
            command, cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=patience(300),
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def healthy(self) -> bool:
        """Whether the store says so of itself, in the words of `ps`."""
        return any("Up" in line and "(healthy)" in line for line in self("ps").splitlines())


def up_and_at_work(compose: Compose) -> None:
    """What both kinds of Compose do: from `up` to `start`."""
    compose("up", "-d")
    assert compose.healthy()
    assert compose("exec", "-T", "web", "wget", "-q", "-O", "-", "http://web/") == "hello from the build\n"
    assert compose("exec", "-T", "web", "sh", "-c", "echo $GREETING") == "hello\n"
    assert compose("exec", "-T", "store", "redis-cli", "set", "key", "kept") == "OK\n"
    # Over the network of the project, by the service's name.
    asked = compose("exec", "-T", "web", "sh", "-c", r"printf 'GET key\r\nQUIT\r\n' | nc store 6379")
    assert "kept" in asked
    compose("up", "-d", "--scale", "web=3")
    assert compose("ps", "-q", "web").count("\n") == 3
    eventually(lambda: compose("logs", "web").count("web is up") == 3, 60)
    assert "Ready to accept connections" in compose("logs", "store")
    compose("restart", "store")
    eventually(compose.healthy, 60)
    assert compose("exec", "-T", "store", "redis-cli", "get", "key") == "kept\n"
    compose("stop")
    compose("start")


def nothing_is_left(home: Root) -> None:
    assert home.cli("ps", "-aq").ok().out == ""
    assert "composed" not in home.cli("network", "ls").ok().out + home.cli("volume", "ls").ok().out
    assert "composed" not in home.cli("images").ok().out


def test_a_project_from_up_to_down(server: Server, home: Root, tmp_path: Path) -> None:
    compose = Compose("docker-compose", tmp_path, server)
    up_and_at_work(compose)
    compose("kill", "web")
    compose("down", "-v", "--rmi", "local")
    nothing_is_left(home)


@pytest.mark.patience(1200)  # it may have to be built first
def test_a_project_with_compose_in_go(server: Server, home: Root, tmp_path: Path) -> None:
    compose = Compose(str(go_program("github.com/docker/compose/v5", "v5.0.2", "cmd")), tmp_path, server)
    up_and_at_work(compose)
    assert [line.split()[0] for line in compose("top").splitlines()[1:]].count("web") == 3
    shown = compose("stats", "--no-stream")
    assert all(f"composed-{name}" in shown for name in ("store-1", "web-1", "web-2", "web-3"))
    assert "composed-store" in compose("images")
    compose("pause", "web")
    assert compose("ps", "web").count("(Paused)") == 3
    compose("unpause", "web")
    compose("cp", "web:/www/index.html", str(tmp_path / "index.html"))
    assert (tmp_path / "index.html").read_text() == "hello from the build\n"
    assert compose("run", "--rm", "-T", "web", "cat", "/www/index.html") == "hello from the build\n"
    compose("kill", "web")
    compose("down", "-v")
    # What it builds in the classic way it gives no name of the project, and so does not find with --rmi local.
    home.cli("rmi", "composed-store", "composed-web").ok()
    nothing_is_left(home)
