"""`--userns`: which ids a container's user namespace maps to which of the machine."""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter, Unavailable
from sampan.kernel.libc import kernel_version
from sampan.oci import subids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.oci.subids import Map

PRIVATE, KEEP_ID, HOST = "private", "keep-id", "host"
MODES = ("", HOST, PRIVATE, KEEP_ID)

OWNER = "sampan"
"""Whose subordinate ids are taken; without any, those of the user who runs the command."""

_LIMIT = 1 << 20


def maps(host: dict[str, Any]) -> tuple[Map, Map]:
    """The maps of users and groups for a HostConfig; two empty ones for the machine's own namespace.

    Raises InvalidParameter for what does not go together with a user namespace, in Docker's words, and Unavailable where
    there are no ids to be had, or no id-mapped mounts.
    """
    mode = host["UsernsMode"]
    if mode in ("", HOST):
        return (), ()
    _check_together(host)
    if kernel_version() < (5, 19):
        raise Unavailable(f"--userns {mode} needs id-mapped layers, which the kernel has from Linux 5.19 on")
    users, groups = _available("/etc/subuid"), _available("/etc/subgid")
    if mode == PRIVATE:
        return subids.private_map(users), subids.private_map(groups)
    return subids.keep_map(users, _caller("SUDO_UID", os.getuid())), subids.keep_map(
        groups, _caller("SUDO_GID", os.getgid())
    )


def _check_together(host: dict[str, Any]) -> None:
    if host["Privileged"]:
        raise InvalidParameter(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace "
            "when running privileged mode"
        )
    if host["NetworkMode"] == "host":
        raise InvalidParameter("cannot share the host's network namespace when user namespaces are enabled")
    if host["PidMode"] == "host":
        raise InvalidParameter("cannot share the host PID namespace when user namespaces are enabled")
    if host["IpcMode"] == "host":
        raise InvalidParameter("cannot share the host's IPC namespace when user namespaces are enabled")
    for field in ("PidMode", "IpcMode"):
        if host[field].startswith("container:"):
            raise InvalidParameter(
                f"cannot join another container's {field.removesuffix('Mode').lower()} namespace when user namespaces "
                "are enabled: it belongs to other ids"
            )


def _caller(variable: str, own: int) -> int:
    """Who asked: the user behind sudo(8), for root is not somebody whose id a container is to have."""
    text = os.environ.get(variable, "")
    number = int(text) if text.isascii() and text.isdigit() else own
    if number == 0:
        raise InvalidParameter(
            "--userns keep-id would make the container's root the machine's: run it by sudo as another user, or use --userns private"
        )
    return number


def _available(path: str) -> list[subids.Range]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(_LIMIT)
    except FileNotFoundError:
        text = ""
    found = subids.ranges(text, (OWNER, *_names_of(os.getuid()), str(os.getuid())))
    if not found:
        advice = f"echo {OWNER}:{subids.free(text)}:{subids.WANTED} >> {path}"
        raise Unavailable(f"{path} has no subordinate ids for {OWNER}, nor for the user who runs this: {advice}")
    return found


def _names_of(uid: int) -> list[str]:
    import pwd  # in here: on the command's side, and for those only who ask for such a namespace

    try:
        return [pwd.getpwuid(uid).pw_name]
    except KeyError:
        return []
