"""Programs that are published as Go modules, built once by the machine's own Go and kept between runs: clients that Debian does not have."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from support.debian import CACHE


def go_program(module: str, version: str, package: str) -> Path:
    """The path of the program. module: "github.com/docker/compose/v5"; package: its directory in that."""
    name = f"{module.removeprefix('github.com/').replace('/', '-')}-{version}"
    built = CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "go.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            _build(f"{module}@{version}", package, built)
    return built


def _build(module: str, package: str, target: Path) -> None:
    source = Path(json.loads(_go("/", "mod", "download", "-json", module))["Dir"])
    with tempfile.TemporaryDirectory() as directory:
        # As the main module: `go install` refuses those that say `replace` or `exclude`. The module cache is read-only.
        here = Path(directory) / "source"
        shutil.copytree(source, here)
        for above, _, _ in os.walk(here):
            os.chmod(above, 0o755)
        made = target.with_suffix(".new")
        _go(str(here), "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", str(made), f"./{package}")
        made.rename(target)


def _go(directory: str, *args: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0"}
    done = subprocess.run(["go", *args], capture_output=True, text=True, cwd=directory, env=environment)
    assert done.returncode == 0, f"go {' '.join(args)} (Go 1.24 or later is needed): {done.stdout}{done.stderr}"
    return done.stdout
