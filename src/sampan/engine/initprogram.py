"""Finding the program of `--init`: a small static init of the host, run from a sealed copy. Never Python as process 1."""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter

_NAMES = ("docker-init", "tini-static", "catatonit")
_DIRECTORIES = (
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/usr/libexec/docker",
    "/usr/lib/docker",
    "/usr/libexec/podman",
    "/usr/libexec/catatonit",
)


def find(configured: str) -> str:
    """The path of the init program: the configured one, else the first of the usual ones.

    Raises InvalidParameter that says what to install.
    """
    if configured:
        if not os.access(configured, os.X_OK):
            raise InvalidParameter(f"--init: {configured} (init-path of the configuration) cannot be executed")
        return configured
    for name in _NAMES:
        for directory in _DIRECTORIES:
            if os.access(f"{directory}/{name}", os.X_OK):
                return f"{directory}/{name}"
    raise InvalidParameter(
        f"--init needs one of {', '.join(_NAMES)} on the host: install the package tini or catatonit, "
        "or name a static init program as init-path in the configuration"
    )
