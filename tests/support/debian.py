"""A real Debian as a tar, made once by mmdebstrap and kept between runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

CACHE = Path(os.environ.get("SAMPAN_TEST_CACHE", "/var/tmp/sampan-tests/cache"))
SUITE = "bookworm"


def debian_tar(include: str = "") -> Path:
    """The path of the tar. Made if it is not there or is not the bytes that were made (its sha256 stands beside it).

    `include`: a package that it has besides the essential ones.
    """
    stem = f"debian-{SUITE}{f'-{include}' if include else ''}"
    tar = CACHE / f"{stem}.tar"
    noted = tar.with_suffix(".tar.sha256")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (tar.exists() and noted.exists() and noted.read_text() == sha256(tar)):
            made = CACHE / f"{stem}.tmp.tar"  # mmdebstrap knows the format by the name's end
            made.unlink(missing_ok=True)
            more = [f"--include={include}"] if include else []
            result = subprocess.run(
                ["mmdebstrap", "--variant=minbase", "--quiet", *more, SUITE, str(made)],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            assert result.returncode == 0, f"mmdebstrap: {result.stderr}"
            noted.write_text(sha256(made))
            made.rename(tar)
    return tar


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
