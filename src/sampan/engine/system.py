"""What this installation and this machine are: `GET /version` and `GET /info` of the Engine API, with true values."""

from __future__ import annotations

import os

import sampan
from sampan.errors import System as Failure
from sampan.kernel import clock
from sampan.oci import lifecycle, platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    from sampan.engine.check import Finding
    from sampan.engine.config import Config
    from sampan.kernel.cgroup import CgroupDriver
    from sampan.store.layout import Layout
    from sampan.store.record import Record
    from sampan.store.states import Observation

    class Records(Protocol):
        def ids(self) -> list[str]: ...
        def try_read(self, container_id: str) -> Record | None: ...

    class Janitor(Protocol):
        def observe(self, record: Record) -> Observation | None: ...

    class Usage(Protocol):
        def df(self) -> dict[str, Any]: ...

    class Pruner(Protocol):
        def everything(
            self, all_images: bool, volumes: bool, filters: Mapping[str, str | Sequence[str]] | None, dry_run: bool
        ) -> dict[str, Any]: ...

    class Checker(Protocol):
        def check(self, repair: bool, deep: bool) -> list[Finding]: ...

    class Warmth(Protocol):
        def keep(self, seconds: int) -> int: ...
        def stop(self) -> bool: ...

    class Images(Protocol):
        def list(self) -> list[dict[str, Any]]: ...


API_VERSION = "1.51"
MIN_API_VERSION = "1.24"


class System:
    """`engine.system`."""

    def __init__(
        self,
        layout: Layout,
        records: Records,
        janitor: Janitor,
        images: Images,
        cgroups: CgroupDriver,
        settings: Config,
        snapshotter: str,
        usage: Callable[[], Usage],
        pruner: Callable[[], Pruner],
        checker: Callable[[], Checker],
        warmth: Callable[[], Warmth],
    ) -> None:
        self._layout = layout
        self._records = records
        self._janitor = janitor
        self._images = images
        self._cgroups = cgroups
        self._settings = settings
        self._snapshotter = snapshotter
        self._usage = usage
        self._pruner = pruner
        self._checker = checker
        self._warmth = warmth

    def warm(self, seconds: int = 600) -> int:
        """Have a process at hand that makes starts fast, until nothing was started for that long; its pid. See docs/performance.md.

        Raises System.
        """
        try:
            return self._warmth().keep(seconds)
        except OSError as e:
            raise Failure(f"cannot start a zygote: {(e.strerror or str(e)).lower()}") from None

    def cool(self) -> bool:
        """End that process; whether there was one. Containers do not notice it, and a server starts another. Raises System."""
        try:
            return self._warmth().stop()
        except OSError as e:
            raise Failure(f"cannot end the zygote: {(e.strerror or str(e)).lower()}") from None

    def check(self, repair: bool = False, deep: bool = False) -> list[Finding]:
        """What in the store does not fit together; with `repair` mended where nothing can be lost by that.

        `deep` reads every blob, and compares every unpacked layer with its archive. Safe beside other commands.
        """
        return self._checker().check(repair, deep)

    def df(self) -> dict[str, Any]:
        """What takes how much of the disk: `GET /system/df`, and in bytes of the disk what `engine.usage` has beside it."""
        return self._usage().df()

    def prune(
        self,
        all: bool = False,
        volumes: bool = False,
        filters: Mapping[str, str | Sequence[str]] | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Remove stopped containers and images without a name (`all`: that no container uses), with `volumes` the
        anonymous volumes that nobody uses. The ids and names by kinds, and SpaceReclaimed in bytes of the disk. `dry_run`:
        say so and remove nothing.
        """
        return self._pruner().everything(all, volumes, filters, dry_run)

    def version(self) -> dict[str, Any]:
        """`GET /version`."""
        return version()

    def info(self) -> dict[str, Any]:
        """`GET /info`. Counts containers, settling on the way what nobody has settled."""
        host = os.uname()
        supports = self._cgroups.supports
        release = _os_release()
        return {
            "ID": _machine_id(),
            **self._counts(),
            "Images": len(self._images.list()),
            "Driver": self._snapshotter,
            "DriverStatus": [["Backing Filesystem", _file_system(self._layout.root)]],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
                "Authorization": None,
                "Log": ["json-file", "local", "none"],
            },
            "MemoryLimit": supports("memory"),
            "SwapLimit": supports("swap"),
            "CpuCfsPeriod": supports("quota"),
            "CpuCfsQuota": supports("quota"),
            "CPUShares": supports("shares"),
            "CPUSet": supports("cpuset"),
            "PidsLimit": supports("pids"),
            "OomKillDisable": supports("oom kill disable"),
            "IPv4Forwarding": _read("/proc/sys/net/ipv4/ip_forward") == "1",
            "Debug": False,
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": 0,
            "SystemTime": clock.now(),
            "LoggingDriver": "json-file",
            # "none", as Docker says where it runs without root and without systemd.
            "CgroupDriver": "none" if self._cgroups.reason else "cgroupfs",
            "CgroupVersion": "2" if self._cgroups.version == "v2" else "1",
            "NEventsListener": 0,
            "KernelVersion": host.release,
            "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
            "OSVersion": release.get("VERSION_ID", ""),
            "OSType": "linux",
            "Architecture": host.machine,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": _registries(self._settings),
            "NCPU": len(os.sched_getaffinity(0)),
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "GenericResources": None,
            "DockerRootDir": self._layout.root,
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Name": host.nodename,
            "Labels": [],
            "ExperimentalBuild": False,
            "ServerVersion": sampan.__version__,
            "Runtimes": {"sampan": {"path": "sampan"}},
            "DefaultRuntime": "sampan",
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": self._settings.init_path or "docker-init",
            "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": ""},
            "InitCommit": {"ID": ""},
            "SecurityOptions": _security_options(),
            "FirewallBackend": {"Driver": "nftables"},
            "CDISpecDirs": [],
            "Warnings": self._warnings(),
        }

    def _counts(self) -> dict[str, int]:
        total = running = paused = 0
        for container_id in self._records.ids():
            record = self._records.try_read(container_id)
            seen = self._janitor.observe(record) if record is not None else None
            if seen is not None:
                total += 1
                running += seen.status in (lifecycle.RUNNING, lifecycle.RESTARTING)
                paused += seen.status == lifecycle.PAUSED
        return {
            "Containers": total,
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": total - running - paused,
        }

    def _warnings(self) -> list[str] | None:
        """What cannot be had here, each with the reason where there is one for all."""
        if self._cgroups.reason:
            return [f"WARNING: No limits, no pause, no stats: {self._cgroups.reason}"]
        missing = [
            ("memory", "WARNING: No memory limit support"),
            ("swap", "WARNING: No swap limit support"),
            ("quota", "WARNING: No cpu cfs quota support"),
            ("shares", "WARNING: No cpu shares support"),
            ("pids", "WARNING: No pids limit support"),
        ]
        return [text for feature, text in missing if not self._cgroups.supports(feature)] or None


def version() -> dict[str, Any]:
    """`GET /version`: needs no store and no root."""
    host = os.uname()
    here = platform.of_machine(host.machine)
    facts = {
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Os": here.os,
        "Arch": here.architecture,
        "KernelVersion": host.release,
    }
    return {
        "Platform": {"Name": "sampan"},
        "Components": [
            {"Name": "Engine", "Version": sampan.__version__, "Details": {**facts, "PythonVersion": _python()}}
        ],
        "Version": sampan.__version__,
        **facts,
        "BuildTime": "",
    }


def _python() -> str:
    import sys

    return ".".join(str(part) for part in sys.version_info[:3])


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""


def _machine_id() -> str:
    """An id that stays with the machine and does not tell machine-id(5), which is to be kept private, itself."""
    import hashlib

    secret = _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id")
    return hashlib.sha256(f"sampan {secret}".encode()).hexdigest()[:32] if secret else ""


def _os_release() -> dict[str, str]:
    values = {}
    for line in (_read("/etc/os-release") or _read("/usr/lib/os-release")).splitlines():
        key, separator, value = line.partition("=")
        if separator:
            values[key] = value.strip("\"'")
    return values


def _file_system(path: str) -> str:
    """The type of the file system that holds `path`: the longest mount point above it in mountinfo."""
    best, kind = "", ""
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def _security_options() -> list[str]:
    """What containers of this machine are kept in by, as Docker names it."""
    from sampan.runtime.filters import supported

    options = ["name=seccomp,profile=builtin"] if supported() else []
    return options + (["name=cgroupns"] if os.path.exists("/proc/self/ns/cgroup") else [])


def _registries(settings: Config) -> dict[str, Any]:
    """How registries are asked (moby, api/types/registry, ServiceConfig): docker.io, and the hosts that are asked without good certificates."""
    mirrors = [url for domain, url in settings.mirrors if domain == "docker.io"]
    networks = [one for one in settings.insecure_registries if "/" in one]
    hosts = [one for one in settings.insecure_registries if "/" not in one]
    return {
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", *networks],
        "IndexConfigs": {
            "docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True},
            **{host: {"Name": host, "Mirrors": [], "Secure": False, "Official": False} for host in hosts},
        },
        "Mirrors": mirrors,
    }
