"""docker-compose 1.29 on `sampan serve`: a web server and Redis of Debian, health checks, depends_on, volumes, networks, scale, logs, down."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.apiserver import Server, serving
from support.debian import debian_tar
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


@pytest.fixture
def server(new_root: Root) -> Iterator[Server]:
    with debian_tar("redis-server").open("rb") as tar:
        new_root.cli("import", "-", "redis-of-debian", stdin=tar.fileno(), timeout=300).ok()
    with serving(new_root) as found:
        yield found
        assert "Traceback" not in found.log


class Compose:
    def __init__(self, directory: Path, server: Server) -> None:
        self.directory = directory
        self.environment = {
            **{key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ},
            "DOCKER_HOST": server.url,
            "LANG": "C.UTF-8",
            "DOCKER_CONFIG": str(directory),
            "COMPOSE_HTTP_TIMEOUT": "300",
        }

    def __call__(self, *args: str) -> str:
        command = ["docker-compose", "-p", "composed", "--ansi", "never", *args]
        done = subprocess.run(
            command, cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=patience(300),
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def test_a_project_from_up_to_down(server: Server, new_root: Root, tmp_path: Path) -> None:
    for name, dockerfile in (("store", STORE), ("web", WEB)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text(dockerfile)
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    compose = Compose(tmp_path, server)
    compose("up", "-d")
    assert "Up (healthy)" in compose("ps")
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
    eventually(lambda: "Up (healthy)" in compose("ps"), 60)
    assert compose("exec", "-T", "store", "redis-cli", "get", "key") == "kept\n"
    compose("stop")
    compose("start")
    compose("kill", "web")
    compose("down", "-v", "--rmi", "local")
    assert new_root.cli("ps", "-aq").ok().out == ""
    assert "composed" not in new_root.cli("network", "ls").ok().out + new_root.cli("volume", "ls").ok().out
    assert "composed" not in new_root.cli("images").ok().out
