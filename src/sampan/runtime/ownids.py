"""A container with a user namespace of its own: what of its OCI configuration is another one then.

Its root is nobody on the machine. Everything that sampan itself gives to it (layers, volumes, the three files of /etc) is shown
to it through an id-mapped mount, so that nothing is copied and nothing is given to its ids on disk. What is bound of the
host's stays the host's: it belongs to nobody in there.
"""

from __future__ import annotations

from sampan.oci import subids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

    from sampan.oci.subids import Map

_TERMINALS = 5
"""The group of terminals in every image."""


def apply(
    spec: dict[str, Any], uids: Map, gids: Map, ours: Collection[str], asked: Collection[str], own: str = ""
) -> None:
    """Change the configuration in place.

    ours: the destinations of binds whose files are sampan's. asked: the sysctls that were asked for. own: the path that
    stands for a network namespace of the container's own.
    """
    linux = spec["linux"]
    own_network = any(n["type"] == "network" and n.get("path", own) == own for n in linux["namespaces"])
    linux["namespaces"].insert(0, {"type": "user"})
    linux["uidMappings"], linux["gidMappings"] = _mappings(uids), _mappings(gids)
    # The range of groups that it sets are none in there.
    if "net.ipv4.ping_group_range" not in asked:
        linux["sysctl"].pop("net.ipv4.ping_group_range", None)
    map_binds(spec["mounts"], ours)
    for entry in spec["mounts"]:
        _adapt(entry, uids, gids, own_network)


def map_binds(entries: Iterable[dict[str, Any]], ours: Collection[str]) -> None:
    """Let the binds of our own files be shown through the container's user namespace."""
    for entry in entries:
        if entry["type"] == "bind" and entry["destination"] in ours and not entry.get("matchUser"):
            entry["options"].append("idmap")


def _mappings(entries: Map) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": count} for inside, outside, count in entries]


def _adapt(entry: dict[str, Any], uids: Map, gids: Map, own_network: bool) -> None:
    if entry["type"] == "devpts":
        # Made by the monitor, with the machine's ids.
        kept = [option for option in entry["options"] if not option.startswith(("uid=", "gid="))]
        group = subids.outside(gids, _TERMINALS)
        entry["options"] = [*kept, f"uid={subids.outside(uids, 0)}", *([f"gid={group}"] if group >= 0 else [])]
    elif entry["type"] == "sysfs" and not own_network:
        # It shows the devices of a network namespace, and only that one's owner may mount it.
        words = {"ro": "rro"}
        sealed = [words.get(option, option) for option in entry["options"]]
        entry.update({"type": "bind", "source": "/sys", "options": ["rbind", *sealed]})
