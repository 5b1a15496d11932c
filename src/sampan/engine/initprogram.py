"""Finding the program of `--init`: a small static init of the host, run from a copy. Never Python as process 1."""

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

    Of the usual ones, those that are not static are passed over. Raises InvalidParameter that says what to install.
    """
    if configured:
        if fault := _fault(configured):
            raise InvalidParameter(f"--init: {configured} (init-path of the configuration) {fault}")
        return configured
    for name in _NAMES:
        for directory in _DIRECTORIES:
            path = f"{directory}/{name}"
            if os.access(path, os.X_OK) and not _fault(path):
                return path
    raise InvalidParameter(
        f"--init needs one of {', '.join(_NAMES)} on the host: install the package tini or catatonit, "
        "or name a static init program as init-path in the configuration"
    )


def _fault(path: str) -> str:
    """Why a program cannot be process 1 of a container; "" if it can."""
    from sampan.oci import elf

    if not os.access(path, os.X_OK) or not os.path.isfile(path):
        return "cannot be executed"
    with open(path, "rb") as file:
        data = file.read()
    try:
        program = elf.parse(data)
    except InvalidParameter as e:
        return f"is no program for process 1: {e}"
    if not program.is_static:
        # It is executed inside, where the kernel would look for these in the image: execve says ENOENT, and names nothing.
        needs = program.interpreter or ", ".join(program.needed)
        return f"must be statically linked: it needs {needs}, which is on the host and not in the container"
    return ""
