"""Two documents of an OCI runtime: a configuration to begin with, and what it can do (runtime-spec, features.md)."""

from __future__ import annotations

import os

from sampan.kernel import capabilities
from sampan.oci import runtime as oci
from sampan.runtime import defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def template(rootless: bool) -> dict[str, Any]:
    """A shell in the bundle's "rootfs"; for `rootless`, in a user namespace of the caller's own user."""
    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    mounts = defaults.mounts(64 << 20)
    linux: dict[str, Any] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "maskedPaths": list(defaults.masked_paths()),
        "readonlyPaths": list(defaults.READONLY_PATHS),
    }
    if rootless:
        kinds = [*(k for k in kinds if k != "network"), "user"]
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        del linux["resources"]
        for entry in mounts:
            # Another group than its own is none in there, and the host's sysfs is its network namespace's owner's to mount.
            entry["options"] = [o for o in entry["options"] if not o.startswith("gid=")]
            if entry["destination"] == "/sys":
                entry.update(type="none", source="/sys", options=["rbind", "nosuid", "noexec", "nodev", "ro"])
    linux["namespaces"] = [{"type": kind} for kind in kinds]
    return {
        "ociVersion": oci.VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [f"PATH={defaults.PATH}", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "sampan",
        "mounts": mounts,
        "linux": linux,
    }


def features() -> dict[str, Any]:
    """What this runtime knows, whatever the kernel can do."""
    from sampan import __version__

    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": oci.VERSION,
        "hooks": list(HOOKS),
        "mountOptions": list(oci.MOUNT_WORDS),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": _seccomp(),
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {"sampan.version": __version__},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def _seccomp() -> dict[str, Any]:
    from sampan.kernel import filterrules, syscalls

    flags = sorted(filterrules.FLAGS)
    return {
        "enabled": True,
        "actions": sorted(filterrules.ACTIONS),
        "operators": sorted(f"SCMP_CMP_{name}" for name in filterrules.OPERATORS),
        "archs": sorted(syscalls.ARCHITECTURES),
        "knownFlags": flags,
        "supportedFlags": flags,
    }
