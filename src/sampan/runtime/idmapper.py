"""User namespaces that nobody lives in, made for their maps: by a process of its own, for a process that may have threads."""

from __future__ import annotations

import os

from sampan.errors import System
from sampan.oci import subids
from sampan.runtime.sealed import SHIM, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.oci.subids import Map

_HOLDER = os.path.join(os.path.dirname(SHIM), "idholder.py")


def user_namespace(uids: Map, gids: Map) -> int:
    """A descriptor of a new user namespace with these maps (user_namespaces(7)). Raises `System`."""
    end, held = os.pipe2(os.O_CLOEXEC)
    told, tell = os.pipe2(os.O_CLOEXEC)
    pid = 0
    try:
        try:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            try:
                pid = spawn(_HOLDER, [], null, (end, tell, null))
            finally:
                os.close(null)
        finally:
            os.close(end)
            os.close(tell)
        if not os.read(told, 1):
            raise System("cannot make a user namespace: see /proc/sys/user/max_user_namespaces")
        for name, entries in (("uid_map", uids), ("gid_map", gids)):
            with open(f"/proc/{pid}/{name}", "wb", buffering=0) as file:
                file.write(subids.lines(entries).encode())
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise System(f"cannot make a user namespace: {e}") from None
    finally:
        os.close(told)
        os.close(held)
        if pid:
            os.waitpid(pid, 0)
