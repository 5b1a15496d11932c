"""`system df`: what takes how much of the disk."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.listing import labels_text, show
from sampan.cli.output import out
from sampan.cli.prune import human_size
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

_RUNNING = ("running", "paused", "restarting")
_SUMMARY = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
_SUMMARY_HEADS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}


def df(context: Context, arguments: Arguments) -> int:
    """Print a line for each kind of thing, or with -v a table of each."""
    facts = context.engine.system.df()
    if not arguments["verbose"]:
        show(_summary(facts), _SUMMARY_HEADS, _SUMMARY, arguments["format"], "*formatter.diskUsageImagesContext")
    elif arguments["format"] not in ("", "table"):
        show([_details(facts, long=True)], {}, "{{json .}}", arguments["format"])
    else:
        _print_details(facts)
    return 0


def _summary(facts: dict[str, Any]) -> list[dict[str, str]]:
    images, containers, volumes = facts["Images"], facts["Containers"], facts["Volumes"]
    cache = facts["BuildCache"]
    kept = sum(item["DiskSize"] for item in cache)
    idle = sum(item["DiskSize"] for item in cache if not item["InUse"])
    busy = [c["DiskSize"] for c in containers if c["State"] in _RUNNING]
    used = [v["DiskSize"] for v in volumes if v["UsageData"]["RefCount"]]
    return [
        _line(
            "Images",
            images,
            sum(i["Containers"] > 0 for i in images),
            facts["LayersSize"],
            facts["ImagesReclaimable"],
        ),
        _line(
            "Containers", containers, len(busy), facts["ContainersSize"], max(0, facts["ContainersSize"] - sum(busy))
        ),
        _line("Local Volumes", volumes, len(used), facts["VolumesSize"], max(0, facts["VolumesSize"] - sum(used))),
        _line("Build Cache", cache, sum(item["InUse"] for item in cache), kept, idle),
    ]


def _line(kind: str, items: list[Any], active: int, size: int, reclaimable: int) -> dict[str, str]:
    share = f" ({reclaimable * 100 // size}%)" if size > 0 else ""
    return {
        "Type": kind,
        "TotalCount": str(len(items)),
        "Active": str(active),
        "Size": human_size(size),
        "Reclaimable": human_size(reclaimable) + share,
    }


# With -v

_IMAGE_HEADS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}
_CONTAINER_HEADS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "LocalVolumes": "LOCAL VOLUMES",
    "Size": "SIZE",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Names": "NAMES",
}
_VOLUME_HEADS = {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}
_CACHE_HEADS = {
    "ID": "CACHE ID",
    "CacheType": "CACHE TYPE",
    "Size": "SIZE",
    "CreatedSince": "CREATED",
    "LastUsedSince": "LAST USED",
    "UsageCount": "USAGE",
    "Shared": "SHARED",
}


def _print_details(facts: dict[str, Any]) -> None:
    details = _details(facts, long=False)
    out("Images space usage:\n")
    show(details["Images"], _IMAGE_HEADS, _table(_IMAGE_HEADS))
    out("\nContainers space usage:\n")
    show(details["Containers"], _CONTAINER_HEADS, _table(_CONTAINER_HEADS))
    out("\nLocal Volumes space usage:\n")
    show(details["Volumes"], _VOLUME_HEADS, _table(_VOLUME_HEADS))
    kept = human_size(sum(item["DiskSize"] for item in facts["BuildCache"]))
    out(f"\nBuild cache usage: {kept}\n")
    show(details["BuildCache"], _CACHE_HEADS, _table(_CACHE_HEADS))


def _table(heads: dict[str, str]) -> str:
    return "table " + "\t".join(f"{{{{.{field}}}}}" for field in heads)


def _details(facts: dict[str, Any], long: bool) -> dict[str, Any]:
    """The items of the tables, with all fields that the listings of each kind have; `long`: ids whole, as in Docker's JSON."""
    return {
        "Images": [_image(item, long) for item in facts["Images"]],
        "Containers": [_container(item, long) for item in facts["Containers"]],
        "Volumes": [_volume(item) for item in facts["Volumes"]],
        "BuildCache": [_cached(item, long) for item in facts["BuildCache"]],
    }


def _cached(item: dict[str, Any], long: bool) -> dict[str, object]:
    return {
        "ID": item["ID"] if long else item["ID"][:12],
        "Parent": ", ".join(item["Parents"]),
        "CacheType": item["Type"],
        "Description": item["Description"],
        "Size": human_size(item["Size"]),
        "CreatedAt": item["CreatedAt"],
        "CreatedSince": _ago(item["CreatedAt"]),
        "LastUsedAt": item["LastUsedAt"],
        "LastUsedSince": _ago(item["LastUsedAt"]),
        "UsageCount": str(item["UsageCount"]),
        "InUse": str(item["InUse"]).lower(),
        "Shared": str(item["Shared"]).lower(),
    }


def _ago(moment: str) -> str:
    import time

    from sampan.engine.times import human_duration, parse

    return f"{human_duration(time.time() - parse(moment) / 1_000_000_000)} ago"


def _image(item: dict[str, Any], long: bool) -> dict[str, object]:
    from sampan.cli.images import human_size as short_size
    from sampan.cli.images import lines_of

    # One line for each image, whatever number of names it has.
    return {
        **next(lines_of(item, long)),
        "Digest": "",
        "Size": short_size(item["DiskSize"]),
        "VirtualSize": human_size(item["DiskSize"]),
        "SharedSize": human_size(item["SharedDiskSize"]),
        "UniqueSize": human_size(item["DiskSize"] - item["SharedDiskSize"]),
        "Containers": str(item["Containers"]),
    }


def _container(item: dict[str, Any], long: bool) -> dict[str, object]:
    from sampan.cli.images import human_size as short_size
    from sampan.cli.ps import fields

    found = {**fields(item, long=False), "Size": short_size(item["DiskSize"])}
    if long:
        found["ID"] = item["Id"]
    del found["Label"]  # a method of templates, which these items are nested too deep for
    return {name: value() if callable(value) else value for name, value in found.items()}


def _volume(item: dict[str, Any]) -> dict[str, object]:
    return {
        **dict.fromkeys(("Availability", "Group", "Status"), "N/A"),
        "Driver": item["Driver"],
        "Labels": labels_text(item["Labels"]),
        "Links": str(item["UsageData"]["RefCount"]),
        "Mountpoint": item["Mountpoint"],
        "Name": item["Name"],
        "Scope": item["Scope"],
        "Size": human_size(item["DiskSize"]),
    }


DF = Command(
    "[OPTIONS]",
    df,
    (
        Flag("format", "string", "Print by a Go template, `json`, or `table TEMPLATE`"),
        Flag("verbose", "bool", "Show each image, container and volume", "v"),
    ),
    at_most=0,
)
