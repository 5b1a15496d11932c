"""What of linux.resources the cgroup drivers do not know, as the engine has no flag for it: writes by the file's own name.

Source: config-linux.md, "Control groups"; the kernel's documentation of cgroup v1 and v2. What is asked for and cannot be had is an
error, but where the specification says that a field has no effect any more.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.kernel import cgroupfs
from sampan.kernel.cgroupmodel import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroup import CgroupDriver


def writes(resources: dict[str, Any], group: str, driver: CgroupDriver) -> list[Write]:
    """The writes, in the order of the specification. Raises `InvalidParameter` for what this machine has no place for."""
    places = Places(group, driver)
    return [
        *_memory(resources.get("memory") or {}, places),
        *_cpu(resources.get("cpu") or {}, places),
        *_block(resources.get("blockIO") or {}, places),
        *_network(resources.get("network") or {}, places),
        *_rdma(resources.get("rdma") or {}, places),
        *_unified(resources.get("unified") or {}, places),
    ]


class Places:
    """The group's directories by controller."""

    def __init__(self, group: str, driver: CgroupDriver) -> None:
        self.version1: dict[str, str] = {}
        self.version2 = ""
        for hierarchy in driver.hierarchies(group):
            if driver.version == "v2" or hierarchy.name == "unified":
                self.version2 = hierarchy.directory
            else:
                for controller in hierarchy.name.split(","):
                    self.version1[controller] = hierarchy.directory
        self._there = driver.controllers

    def file(self, field: str, controller: str, version1: str, version2: str = "") -> str:
        """The file that a field is, by v1's name or v2's. Raises `InvalidParameter` where there is none."""
        if version1 and controller in self.version1:
            return f"{self.version1[controller]}/{version1}"
        unified = {"blkio": "io"}.get(controller, controller)
        if version2 and self.version2 and unified in self._there and controller not in self.version1:
            return f"{self.version2}/{version2}"
        kind = "" if version2 else " of cgroup v1"
        raise InvalidParameter(f"linux.resources.{field}: the controller {controller}{kind} is not to be had here")


def _memory(memory: dict[str, Any], places: Places) -> list[Write]:
    found = []
    if (memory.get("kernelTCP") or 0) != 0:
        path = places.file("memory.kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes")
        found.append(Write(path, str(memory["kernelTCP"])))
    if memory.get("useHierarchy") and "memory" in places.version1:
        # Always so since Linux 5.11, where the file is left for those who write 1.
        found.append(Write(f"{places.version1['memory']}/memory.use_hierarchy", "1", required=False))
    if "swappiness" in memory and memory["swappiness"] is not None and memory["swappiness"] > 100:
        raise InvalidParameter(f"linux.resources.memory.swappiness: {memory['swappiness']} is not in 0 to 100")
    return found


def ignored(resources: dict[str, Any]) -> list[str]:
    """What was asked for and no kernel does any more: told as a warning, as runc does."""
    if (resources.get("memory") or {}).get("kernel"):
        return ["linux.resources.memory.kernel is ignored: kernel memory has no limit of its own since Linux 5.16"]
    return []


def in_use(memory: dict[str, Any], group: str, driver: CgroupDriver) -> str:
    """Why these limits are below what the group uses (memory.checkBeforeUpdate); "" if they are not."""
    places = Places(group, driver)
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if "memory" in places.version1:
        directory = places.version1["memory"]
        bounds = (("limit", limit, "memory.usage_in_bytes"), ("swap", swap, "memory.memsw.usage_in_bytes"))
    else:
        directory = places.version2
        # Swap is counted by itself here, and given as memory and swap together.
        alone = max(swap - limit, 0) if swap > 0 and limit > 0 else -1
        bounds = (("limit", limit, "memory.current"), ("swap", alone, "memory.swap.current"))
    for field, most, file in bounds:
        used = int(cgroupfs.get(f"{directory}/{file}") or 0)
        if (most > 0 or (field == "swap" and most == 0 and swap > 0)) and used > most:
            return f"memory.{field}: {most} is less than the {used} bytes in use, and checkBeforeUpdate is set"
    return ""


def _cpu(cpu: dict[str, Any], places: Places) -> list[Write]:
    found = []
    if cpu.get("burst") is not None:
        found.append(Write(places.file("cpu.burst", "cpu", "cpu.cfs_burst_us", "cpu.max.burst"), str(cpu["burst"])))
    if cpu.get("idle") is not None:
        found.append(Write(places.file("cpu.idle", "cpu", "cpu.idle", "cpu.idle"), str(cpu["idle"])))
    return found


def _block(block: dict[str, Any], places: Places) -> list[Write]:
    found = []
    if block.get("leafWeight"):
        path = places.file("blockIO.leafWeight", "blkio", "blkio.leaf_weight")
        found.append(Write(path, str(block["leafWeight"])))
    for entry in block.get("weightDevice") or ():
        if entry.get("leafWeight"):
            path = places.file("blockIO.weightDevice.leafWeight", "blkio", "blkio.leaf_weight_device")
            found.append(Write(path, f"{entry['major']}:{entry['minor']} {entry['leafWeight']}"))
    return found


def _network(network: dict[str, Any], places: Places) -> list[Write]:
    found = []
    if network.get("classID"):
        found.append(Write(places.file("network.classID", "net_cls", "net_cls.classid"), str(network["classID"])))
    for entry in network.get("priorities") or ():
        path = places.file("network.priorities", "net_prio", "net_prio.ifpriomap")
        found.append(Write(path, f"{entry['name']} {entry['priority']}"))
    return found


def _rdma(rdma: dict[str, Any], places: Places) -> list[Write]:
    found = []
    for device, limits in rdma.items():
        words = [
            f"{word}={limits[field]}"
            for field, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
            if limits.get(field) is not None
        ]
        if words:
            found.append(Write(places.file("rdma", "rdma", "rdma.max", "rdma.max"), f"{device} {' '.join(words)}"))
    return found


def _unified(unified: dict[str, str], places: Places) -> list[Write]:
    found = []
    for name, value in unified.items():
        if "/" in name or not name or name.startswith("."):
            raise InvalidParameter(f"linux.resources.unified: {name!r} is no file of a cgroup")
        if not places.version2:
            raise InvalidParameter(f"linux.resources.unified: {name}: there is no cgroup v2 here")
        if places.version1 and name.partition(".")[0] in places.version1:
            raise InvalidParameter(f"linux.resources.unified: {name}: this controller is one of cgroup v1 here")
        found += [Write(f"{places.version2}/{name}", line) for line in value.split("\n") if line]
    return found
