"""The root file system of a container that does not run, with its volumes: the steps that mount it where nobody sees it."""

from __future__ import annotations

import os

from sampan.oci import runtime as oci
from sampan.runtime.plan import RootFilesystem, bind_steps, root_steps
from sampan.runtime.spec import bound_mounts
from sampan.steps.base import Context, Step, StepError
from sampan.steps.changeroot import AttachRoot
from sampan.steps.mounts import AttachMount
from sampan.steps.sources import BuildImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sampan.steps.trace import Trace


def mount_steps(
    record: dict[str, Any], root: RootFilesystem, files: dict[str, str], images: Mapping[str, Sequence[str]]
) -> list[Step]:
    """What a start does about the root and about what is mounted on it from outside, in a start's order.

    `files` and `images` as of `runtime.spec.make_spec`. What a start mounts empty (tmpfs, /dev, /proc) is left out. So is
    the id map of `match-user`: making one takes a process, and owners are shown as the host has them.
    """
    sources: list[Step] = root_steps(root)
    # After every source: the root hides the directory that Docker's three files are in.
    attached: list[Step] = [AttachRoot(root.place)]
    for index, entry in enumerate(bound_mounts(record, files, images)):
        name = f"mount.{index}"
        if entry["type"] == "image":
            sources.append(
                BuildImage(name, tuple(entry["directories"]), entry["subpath"], "user" if root.mapped else "")
            )
        else:
            plain = {key: value for key, value in entry.items() if key != "matchUser"}
            sources += bind_steps(plain, name, oci.mount_options(entry["options"]))
        attached.append(AttachMount(name, entry["destination"]))
    return [*sources, *attached]


def run_steps(steps: Sequence[Step], trace: Trace, user_namespace: int = -1) -> int:
    """Run them in this mount namespace, which must be a private one; a descriptor of the root, which is mounted in it.

    user_namespace: with the maps of a container with ids of its own; it stays the caller's.
    Raises OSError, and `StepError` for what is no system call's fault.
    """
    ctx = Context()
    if user_namespace >= 0:
        ctx.put("user", os.dup(user_namespace))
    try:
        for step in steps:
            with trace.step(step.describe()):
                step.run(ctx)
        return ctx.fds.pop("root")
    finally:
        for name in list(ctx.fds):
            ctx.close(name)


__all__ = ["StepError", "mount_steps", "run_steps"]
