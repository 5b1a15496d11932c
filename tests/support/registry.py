"""Debian's docker-registry on the loopback interface: plain, with names and passwords, with TLS, with a token server."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.patience import patience
from support.tools import Tool

USER, PASSWORD = "ann", "s3cret:word"
_PORTS = 5
"""How many ports are tried: one that was found free may be taken before it is listened at."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Registry:
    """One that runs. `host` is what image names begin with."""

    def __init__(self, directory: Path, port: int, name: str = "localhost") -> None:
        self.directory = directory
        self.port = port
        self.host = f"{name}:{port}"

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def asked(self, method: str, part: str = "") -> list[str]:
        """The requests of a kind that it has logged, by their paths."""
        found = []
        for line in self.log().splitlines():
            # Apache's form: ADDRESS - - [TIME] "METHOD PATH HTTP/1.1" STATUS ...
            words = line.split('"')
            if len(words) > 2 and words[1].startswith(f"{method} ") and part in words[1]:
                found.append(words[1].split()[1])
        return found

    def blobs(self) -> set[str]:
        """The digests of all blobs that it stores."""
        base = self.directory / "data/docker/registry/v2/blobs/sha256"
        return {f"sha256:{path.name}" for path in base.glob("*/*")} if base.exists() else set()

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        plain = digest.removeprefix("sha256:")
        return self.directory / f"data/docker/registry/v2/blobs/sha256/{plain[:2]}/{plain}/data"


@contextmanager
def registry(
    directory: Path, *, auth: dict[str, Any] | None = None, tls: Certificates | None = None
) -> Iterator[Registry]:
    """Start one that keeps its data below a directory, and end it."""
    directory.mkdir(parents=True, exist_ok=True)
    http: dict[str, Any] = {}
    if tls is not None:
        http["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": http,
    }
    if auth is not None:
        config["auth"] = auth
    path = directory / "config.yml"
    for _ in range(_PORTS):
        port = free_port()
        http["addr"] = f"127.0.0.1:{port}"
        path.write_text(json.dumps(config))  # JSON is YAML
        with (directory / "log").open("ab") as log:
            process = subprocess.Popen(
                ["docker-registry", "serve", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            if not _comes_up(process, port):
                continue  # Another test has taken the port since it was found free.
            yield Registry(directory, port)
            return
        finally:
            process.terminate()
            process.wait(patience(60))
    raise AssertionError(f"docker-registry did not come up: {(directory / 'log').read_text()[-2000:]}")


def _comes_up(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it listens; False if it has ended, and so has not."""
    deadline = time.monotonic() + patience(60)
    while process.poll() is None:
        if _listens(process.pid, port):
            return True
        assert time.monotonic() < deadline, "docker-registry runs and does not listen"
        time.sleep(0.05)
    return False


def _listens(pid: int, port: int) -> bool:
    """Whether this process does, and nobody else at the same port. Not by a connection: to a port of one's own choice it may be one with itself."""
    wanted = f"0100007F:{port:04X}"
    with contextlib.suppress(OSError):  # it ends in this moment
        lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
        inodes = {fields[9] for fields in lines if fields[1] == wanted and fields[3] == "0A"}
        names = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        return any(f"socket:[{inode}]" in names for inode in inodes)
    return False


def htpasswd(directory: Path) -> dict[str, Any]:
    """The `auth` of a registry that knows one user."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "htpasswd"
    done = subprocess.run(["htpasswd", "-Bbn", USER, PASSWORD], capture_output=True, check=True)
    path.write_bytes(done.stdout)
    return {"htpasswd": {"realm": "test", "path": str(path)}}


class Certificates:
    """An authority of a test's own, and the certificate of "localhost" that it has signed."""

    def __init__(self, directory: Path, names: str = "DNS:localhost,IP:127.0.0.1", days: int = 2) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.authority = directory / "ca.crt"
        self.certificate, self.key = directory / "server.crt", directory / "server.key"
        authority_key, request, extensions = directory / "ca.key", directory / "server.csr", directory / "extensions"
        extensions.write_text(f"subjectAltName={names}\n")
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl = Tool("openssl")
        openssl("req", "-x509", *new_key, "-days", "2", "-subj", "/CN=test authority",
                "-keyout", str(authority_key), "-out", str(self.authority))  # fmt: skip
        openssl("req", *new_key, "-subj", "/CN=localhost", "-keyout", str(self.key), "-out", str(request))
        openssl("x509", "-req", "-in", str(request), "-CA", str(self.authority), "-CAkey", str(authority_key),
                "-CAcreateserial", "-days", str(days), "-extfile", str(extensions), "-out", str(self.certificate))  # fmt: skip


def upload(url: str, name: str, tag: str, members: dict[str, bytes], headers: dict[str, str] | None = None) -> str:
    """Put the image of an OCI layout's members (`imagearchives.layout`) into a registry; the digest of its manifest.

    By hand, so that what is pulled was not pushed by the code that is tested.
    """
    manifest_digest = json.loads(members["index.json"])["manifests"][0]["digest"]
    for member, data in members.items():
        if member.startswith("blobs/") and not member.endswith(manifest_digest.removeprefix("sha256:")):
            upload_blob(url, name, data, headers)
    return upload_manifest(url, name, tag, members[f"blobs/sha256/{manifest_digest.removeprefix('sha256:')}"], headers)


def upload_blob(url: str, name: str, data: bytes, headers: dict[str, str] | None = None) -> None:
    with _send("POST", f"{url}/v2/{name}/blobs/uploads/", b"", headers or {}) as answer:
        place = answer.headers["Location"]
    digest = hashlib.sha256(data).hexdigest()
    kind = {"Content-Type": "application/octet-stream"}
    _send("PUT", f"{place}&digest=sha256:{digest}", data, {**(headers or {}), **kind}).close()


def upload_manifest(url: str, name: str, tag: str, data: bytes, headers: dict[str, str] | None = None) -> str:
    kind = {"Content-Type": json.loads(data)["mediaType"]}
    _send("PUT", f"{url}/v2/{name}/manifests/{tag}", data, {**(headers or {}), **kind}).close()
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _send(method: str, url: str, data: bytes, headers: dict[str, str]) -> Any:
    return urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=20)


def basic() -> dict[str, str]:
    """The header that USER sends."""
    return {"Authorization": f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"}


def fetch(url: str, headers: dict[str, str] | None = None) -> bytes:
    """The body of a plain request, for a look past all of our code."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as answer:
        data: bytes = answer.read()
        return data
