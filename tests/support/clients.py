"""The machine's own configuration of package clients, for builds that install real packages: read where the clients read it.

A build that is to reach what this machine reaches is given the machine's network, these files as secrets, and nothing in its image.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

_AUTHORITIES = ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")


def authorities() -> Path:
    """The certificates that this machine believes."""
    for name in _AUTHORITIES:
        if os.path.isfile(os.environ.get(name, "")):
            return Path(os.environ[name])
    return Path("/etc/ssl/certs/ca-certificates.crt")


def pip(directory: Path) -> Path:
    """pip's configuration as pip itself tells it, in one file."""
    said = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    settings = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    lines = ["[global]"]
    for key, value in settings.items():
        section, _, name = key.strip(":").partition(".")
        # Files of this machine are not there in a build.
        if section in ("global", "install", ":env:", "env") and name in (
            "index-url",
            "extra-index-url",
            "trusted-host",
        ):
            lines.append(f"{name} = {json.loads(value.replace(chr(39), chr(34)))}")
    return _written(directory / "pip.conf", "\n".join(lines))


def npm(directory: Path) -> Path:
    """The registry and the credentials of npm."""
    found = ""
    for place in (Path("/etc/npmrc"), Path.home() / ".npmrc"):
        if place.is_file():
            kept = [line for line in place.read_text().splitlines() if "registry" in line or line.startswith("//")]
            found += "\n".join([*kept, ""])
    return _written(directory / "npmrc", found)


def apt(directory: Path) -> tuple[Path, Path]:
    """apt's sources, in the one-line form or deb822, and its settings of downloads."""
    sources = Path("/etc/apt/sources.list")
    place = directory / "debian.sources"
    texts = [path.read_text() for path in sorted(Path("/etc/apt/sources.list.d").glob("debian*.sources"))]
    if texts:
        _written(place, "\n\n".join(texts))
    else:
        place = _written(directory / "debian.list", sources.read_text())
    said = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    kept = [
        line for line in said.splitlines() if line.startswith("Acquire::") and not line.startswith("Acquire::Languages")
    ]
    return place, _written(directory / "apt.conf", "\n".join(kept))


def go() -> dict[str, str]:
    """What go asks, and what it believes."""
    said = subprocess.run(["go", "env", "-json"], capture_output=True, text=True, check=True).stdout
    return {
        name: value for name, value in json.loads(said).items() if name in ("GOPROXY", "GONOSUMDB", "GOSUMDB") and value
    }


def _written(path: Path, content: str) -> Path:
    path.write_text(content + "\n")
    return path
