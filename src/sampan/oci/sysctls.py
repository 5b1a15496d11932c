"""Kernel parameters that a namespace has for itself (`--sysctl`): which ones, and where they are below /proc/sys.

The list is Docker's (docker/cli, opts.ValidateSysctl), the refusals of shared namespaces are runc's.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.oci.runtime import parameter_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_IPC = frozenset(
    (
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    )
)
_IPC_PREFIX, _NETWORK_PREFIX = "fs.mqueue.", "net."


def parse(text: str) -> str:
    """NAME=VALUE as it is, if that parameter may be set. Raises InvalidParameter."""
    name, equals, _ = text.partition("=")
    if not equals or not allowed(name):
        raise InvalidParameter(f"sysctl '{text}' is not allowed")
    return text


def allowed(name: str) -> bool:
    """Whether a container has this parameter for itself, and its name leads nowhere else."""
    known = name in _IPC or name.startswith((_IPC_PREFIX, _NETWORK_PREFIX))
    try:
        path = parameter_path(name)
    except InvalidParameter:
        return False
    return known and all(part not in ("", ".", "..") for part in path.split("/"))


def check(host: Mapping[str, Any]) -> None:
    """The Sysctls of a HostConfig. Raises InvalidParameter also for those of a namespace that is the host's."""
    for name in host["Sysctls"] or ():
        if not allowed(name):
            raise InvalidParameter(f'sysctl "{name}" is not in a separate kernel namespace')
        if name.startswith(_NETWORK_PREFIX):
            if host["NetworkMode"] == "host":
                raise InvalidParameter(f'sysctl "{name}" not allowed in host network namespace')
        elif host["IpcMode"] == "host":
            raise InvalidParameter(f'sysctl "{name}" is not allowed in the hosts ipc namespace')
