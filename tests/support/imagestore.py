"""The image service over a directory of a test, with archives and images made for it."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.engine.config import Config
from sampan.engine.events import Events
from sampan.engine.imagegraph import blobs_of
from sampan.engine.images import Image, Images
from sampan.engine.registries import Registries
from sampan.kernel import clock
from sampan.oci import image as documents
from sampan.oci import platform, reference
from sampan.oci.image import Descriptor
from sampan.steps.trace import Event, Trace
from sampan.store.content import ContentStore
from sampan.store.images import ImageNames, StoreLock
from sampan.store.layout import Layout
from sampan.store.overlay import OverlaySnapshotter
from sampan.store.vfs import VfsSnapshotter

from support.disk import du

if TYPE_CHECKING:
    from typing import Any


class Users:
    """Containers as images see them: id -> (image, runs, layers)."""

    def __init__(self) -> None:
        self.containers: dict[str, tuple[Image, bool]] = {}

    def containers_using(self, image_id: str) -> list[tuple[str, bool]]:
        return [(c, runs) for c, (image, runs) in self.containers.items() if image.id == image_id]

    def without(self, containers: Collection[str]) -> Users:
        left = Users()
        left.containers = {key: value for key, value in self.containers.items() if key not in containers}
        return left

    def cached(self) -> tuple[set[str], set[str]]:
        return set(), set()

    def layers_in_use(self) -> set[str]:
        return {layer for image, _ in self.containers.values() for layer in image.layers}


class Store:
    """One image store, and what is in it on the disk."""

    def __init__(
        self,
        directory: Path,
        observer: Callable[[Event], None] | None = None,
        kind: type[OverlaySnapshotter | VfsSnapshotter] = OverlaySnapshotter,
        **config: Any,
    ) -> None:
        """`config`: what a configuration file says of registries."""
        self.directory = directory
        self.layout = Layout(str(directory / "root"), str(directory / "run"))
        self.trace = Trace(observer)
        self.layout.make(self.trace)
        self.users = Users()
        self.notes: list[str] = []
        self.content = ContentStore(self.layout.content, self.trace)
        self.names = ImageNames(self.layout.images, self.trace)
        self.snapshots = kind(self.layout.layers, self.layout.snapshots, self.trace)
        self.lock = StoreLock(self.layout.images_lock)
        self.images = Images(
            self.content,
            self.names,
            self.snapshots,
            self.lock,
            self.users,
            Events(self.layout.root, self.layout.journal, 1 << 20, self.trace, self.notes.append),
            self.trace,
            self.notes.append,
            lambda: Registries(Config(**config)),
        )

    def files(self) -> list[str]:
        """Every name in the store that is content, a name, a layer, or on the way to be one."""
        layout = self.layout
        places = {"blob": layout.blobs, "ingest": layout.ingest, "name": layout.images, "layer": layout.layers}
        return sorted(f"{kind} {name}" for kind, place in places.items() for name in os.listdir(place))

    def on_disk(self) -> int:
        """What du(1) says of all that is content, a name or a layer."""
        layout = self.layout
        places = [Path(place) for place in (layout.blobs, layout.ingest, layout.images, layout.layers)]
        return du(path for place in places for path in place.iterdir())

    def reachable(self) -> list[str]:
        """What `files` shows when nothing is left that no image leads to. All of it is verified by reading it."""
        found: set[str] = set()
        for record in self.names.list():
            image = self.images.read(record)
            blobs = {image.id, *blobs_of(self.content, record.target)}
            for digest in blobs:
                with self.content.open_verified(digest) as blob:
                    blob.drain()
            found |= {f"blob {digest.removeprefix('sha256:')}" for digest in blobs}
            found |= {f"layer {chain_id.removeprefix('sha256:')}" for chain_id in image.layers}
            found.add(f"name {os.path.basename(self.names.path(record.reference))}")
        return sorted(found)

    def add(self, name: str, *archives: bytes, config: Mapping[str, Any] | None = None) -> Image:
        """Publish an image whose layers are these blobs, plain or compressed."""
        from sampan.oci import digest
        from sampan.store.decompress import decompress

        layers, diff_ids = [], []
        with self.lock.shared():
            for archive in archives:
                stream = decompress(io.BytesIO(archive))
                plain = b"".join(iter(lambda stream=stream: stream.read(1 << 20), b""))  # type: ignore[misc]
                diff_ids.append(digest.of_bytes(plain))
                kind = documents.OCI_LAYER if plain == archive else documents.OCI_LAYER_GZIP
                layers.append(Descriptor(kind, self.content.add(archive), len(archive)))
            made = documents.make_config(platform.here(), clock.now(), config or {"Cmd": ["sh"]}, diff_ids, [])
            return self.images.publish(made, layers, reference.parse(name).tagged() if name else None)


@contextlib.contextmanager
def disk(place: Path, size: str) -> Iterator[Path]:
    """A file system in memory, of a size as tmpfs takes it. It is never left mounted; AssertionError if it is in use at the end."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "sampan-test", place], check=True)
    try:
        yield place
    finally:
        if subprocess.run(["umount", place], check=False).returncode:
            # A test that failed has left a process in it: out of sight at least, and gone with that process.
            subprocess.run(["umount", "--lazy", place], check=True)
            raise AssertionError(f"{place} was still in use")
        place.rmdir()


def archive(files: Mapping[str, bytes | None]) -> bytes:
    """A tar of these files; None is a directory."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            else:
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content or b""))
    return data.getvalue()
