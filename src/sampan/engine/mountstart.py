"""What a container's mounts need on the host right before each of its starts."""

from __future__ import annotations

import os

from sampan.engine import propagation
from sampan.errors import System
from sampan.oci.mountpoint import BIND, VOLUME
from sampan.store.copyup import CopyUp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from sampan.oci.mountpoint import MountPoint
    from sampan.steps.trace import Trace

    class Volumes(Protocol):
        def record(self, name: str) -> Any: ...


def prepare(points: Sequence[MountPoint], volumes: Volumes, trace: Trace) -> None:
    """Make missing sources of -v, judge propagation, complete a copy that was killed. Volumes are mounted already.

    Raises NotFound (a volume), System, InvalidParameter (propagation), in Docker's words.
    """
    for point in points:
        if point.type == BIND:
            if point.create_source:
                _make_source(point.source, trace)
            propagation.check(point)
        elif point.type == VOLUME:
            volume = volumes.record(point.name)
            CopyUp(volume.path, bool(volume.options), trace).finish()


def _make_source(path: str, trace: Trace) -> None:
    if os.path.lexists(path):
        return
    try:
        with trace.step("make directory", path):
            _make_directories(path)
    except OSError as e:
        reason = (e.strerror or str(e)).lower()
        raise System(f"error while creating mount source path '{path}': mkdir {path}: {reason}") from None


def _make_directories(path: str) -> None:
    """mkdir -p with mode 0755 whatever the caller's umask: it belongs to the whole process, and is not ours to change."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make_directories(parent)
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return
    os.chmod(path, 0o755)
