"""testcontainers, buildx and podman's remote client on `sampan serve`, unchanged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.apiserver import Server, home, server
from support.debian import debian_tar
from support.goprograms import go_program
from support.patience import eventually, patience
from support.roots import Root

__all__ = ["home", "server"]

pytestmark = [pytest.mark.root, pytest.mark.long]

RYUK = '''\
"""What testcontainers' Ryuk does: once its client has gone, remove what has the labels that it was told of."""
import http.client, json, socket, urllib.parse

class Docker(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/var/run/docker.sock")

def ask(method, path):
    docker = Docker("docker")
    docker.request(method, path)
    return docker.getresponse().read()

server = socket.create_server(("0.0.0.0", 8080))
print("Started!", flush=True)
client, _ = server.accept()
labels = []
try:
    for line in client.makefile("r"):
        labels.append(line.strip().removeprefix("label="))
        client.sendall(b"ACK\\n")
except OSError:
    pass  # a client that was killed has not read our answer: that is a reset
filters = urllib.parse.quote(json.dumps({"label": labels}))
for found in json.loads(ask("GET", f"/containers/json?all=1&filters={filters}")):
    ask("DELETE", f"/containers/{found['Id']}?force=1&v=1")
for found in json.loads(ask("GET", f"/networks?filters={filters}")):
    ask("DELETE", f"/networks/{found['Id']}")
'''
PROGRAM = """\
import os, sys, urllib.request
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

network = Network().create()
web = (
    DockerContainer("base").with_command(["sh", "-c", "mkdir /www; echo $WORDS > /www/x; echo ready; exec httpd -f -h /www"])
    .with_env("WORDS", "from the container").with_exposed_ports(80).with_network(network).with_network_aliases("web")
    .with_volume_mapping(sys.argv[1], "/given", "ro").waiting_for(LogMessageWaitStrategy("ready")).start()
)
url = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(80)}/x"
print(urllib.request.urlopen(url).read().decode().strip())
code, said = web.exec(["cat", "/given/file"])
print(code, said.decode())
print(web.get_logs()[0].decode().strip())
with DockerContainer("base").with_command(["wget", "-q", "-O", "-", "http://web/x"]).with_network(network) as other:
    assert other.get_wrapped_container().wait()["StatusCode"] == 0
    print(other.get_logs()[0].decode().strip())
os._exit(0)  # nothing is cleared away: that is what there is a Ryuk for
"""


def environment(server: Server, directory: Path, **more: str) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    return {
        **kept,
        "HOME": str(directory),
        "DOCKER_CONFIG": str(directory / "docker"),
        "DOCKER_HOST": server.url,
        **more,
    }


def run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience(300)
    )


def test_testcontainers_and_its_reaper(server: Server, home: Root, tmp_path: Path) -> None:
    with debian_tar("python3").open("rb") as tar:
        home.cli("import", "-", "python-of-debian", stdin=tar.fileno(), timeout=300).ok()
    (tmp_path / "ryuk.py").write_text(RYUK)
    (tmp_path / "Dockerfile").write_text('FROM python-of-debian\nCOPY ryuk.py /\nCMD ["python3", "/ryuk.py"]\n')
    home.cli("build", "-q", "-t", "ryuk", str(tmp_path), timeout=300).ok()
    (tmp_path / "file").write_text("a file")
    done = run(
        [sys.executable, "-u", "-c", PROGRAM, str(tmp_path)], environment(server, tmp_path, RYUK_CONTAINER_IMAGE="ryuk")
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["from the container", "0 a file", "ready", "from the container"]
    # Its program has gone without a word: its Ryuk removes what it left, and, being started with --rm, itself.
    eventually(lambda: home.cli("ps", "-aq").ok().out == "", 60)
    names = home.cli("network", "ls", "--format", "{{.Name}}").ok().out.split()
    assert sorted(names) == ["bridge", "host", "none"]


@pytest.mark.patience(1200)  # it may have to be built first
def test_buildx_is_told_what_there_is(server: Server, home: Root, tmp_path: Path) -> None:
    plugins = tmp_path / "docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    shutil.copy(go_program("github.com/docker/buildx", "v0.29.1", "cmd/buildx"), plugins / "docker-buildx")
    (tmp_path / "Dockerfile").write_text("FROM base\nRUN --network=none <<X\necho built > /f\nX\n")
    env = environment(server, tmp_path)
    assert "buildx" in run(["docker", "buildx", "version"], env).stdout
    listed = run(["docker", "buildx", "ls"], env)
    assert listed.returncode == 0, listed.stderr
    assert "default" in listed.stdout
    # It looks for BuildKit in the engine, and is told that there is none: with it as a plugin, `docker build` still has the classic way.
    assert re.search(r"POST (/v[\d.]+)?/grpc 501 ", server.log)
    classic = run(["docker", "build", "-t", "classic", str(tmp_path)], {**env, "DOCKER_BUILDKIT": "0"})
    assert classic.returncode == 0, classic.stderr
    assert home.cli("run", "--rm", "--network", "none", "classic", "cat", "/f").ok().out == "built\n"


def test_podmans_remote_client_is_told_that_its_own_api_is_not_there(server: Server, tmp_path: Path) -> None:
    """It speaks nothing but Podman's own API, below /libpod."""
    done = run(["podman", "--remote", "--url", server.url, "ps"], environment(server, tmp_path))
    assert done.returncode == 125
    assert "ping response was 404" in done.stderr, done.stderr
