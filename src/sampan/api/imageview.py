"""Images as the Engine API shows them, by the version that a client speaks. Pure: what the engine tells goes in.

Sources: api/swagger.yaml of the versions 1.24 to 1.51, and their changelog.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


NO_TAG, NO_DIGEST = "<none>:<none>", "<none>@<none>"
ZERO_TIME = "0001-01-01T00:00:00Z"
"""What Go writes of a time that is not set: its clients cannot read an empty one."""

# What is a container's and no image's, which was told all the same until 1.50.
_CONTAINERS_OWN: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}
_EMPTY_CONFIG: dict[str, Any] = {
    **_CONTAINERS_OWN,
    "User": "",
    "Env": None,
    "Cmd": None,
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}


def summary(item: Mapping[str, Any], version: tuple[int, int], used: Mapping[str, int] | None = None) -> dict[str, Any]:
    """An item of `GET /images/json`. used: how many containers each image has, by its id, where that is told."""
    shown = {name: value for name, value in item.items() if name in _SUMMARY}
    if version < (1, 43) and not shown["RepoTags"] and not shown["RepoDigests"]:
        shown |= {"RepoTags": [NO_TAG], "RepoDigests": [NO_DIGEST]}
    if version < (1, 44):
        shown["VirtualSize"] = shown["Size"]
    if used is not None:
        shown["Containers"] = used.get(item["Id"], 0)
    return shown


_SUMMARY = frozenset(
    ("Containers", "Created", "Id", "Labels", "ParentId", "RepoDigests", "RepoTags", "SharedSize", "Size")
)


def inspected(image: Mapping[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """`GET /images/{name}/json`."""
    shown = dict(image)
    if not shown["Created"]:
        # Images of other tools need not say when they were made.
        del shown["Created"]
        if version < (1, 44):
            shown["Created"] = ZERO_TIME
    if version < (1, 44):
        shown["VirtualSize"] = shown["Size"]
    if version < (1, 45):
        shown |= {"Container": "", "ContainerConfig": dict(_EMPTY_CONFIG)}
    if version < (1, 50):
        shown["Config"] = {**_CONTAINERS_OWN, **image["Config"]}
    shown["Metadata"] = {"LastTagTime": image["Metadata"]["LastTagTime"] or ZERO_TIME}
    return shown
