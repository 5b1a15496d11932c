"""`build --verify`: what two builds of the same input made differently, step by step.

Compared are the archives of layers, which have all that an image has of a file. A file that was made differently by one step is told at that step,
and at later ones only if they wrote it again.
"""

from __future__ import annotations

import time

from sampan.errors import SampanError
from sampan.oci import digest as digests
from sampan.store.tarstream import CHARACTER, FILE, HARDLINK, TarReader
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from sampan.engine.buildstage import Built
    from sampan.oci.image import Descriptor
    from sampan.store.content import VerifiedReader
    from sampan.store.tarstream import TarEntry

    Open = Callable[[str], VerifiedReader]

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"


class Difference(Struct):
    """A file that two builds made differently. step: the instruction, as the image's history has it. path: of the file, "" for the configuration. what: in words."""

    step: str
    path: str
    what: tuple[str, ...]


class NotReproducible(SampanError):
    """Two builds of the same input came to different images."""

    def __init__(self, differences: list[Difference]) -> None:
        super().__init__(f"the build is not reproducible: {len(differences)} difference{'s' * (len(differences) != 1)}")
        self.differences = differences


def check(first: Built, second: Built, open_layer: Open) -> None:
    """Raises `NotReproducible` if two builds differ, `NotFound` and `InvalidParameter` for layers that are damaged."""
    found = list(_steps(first, second, open_layer))
    for name in sorted({*first.config, *second.config}):
        old, new = first.config.get(name), second.config.get(name)
        if old != new:
            found.append(Difference("the configuration of the image", "", (f"{name} {old!r}, then {new!r}",)))
    if found:
        raise NotReproducible(found)


def _steps(first: Built, second: Built, open_layer: Open) -> Iterator[Difference]:
    """By their own steps: the base is one image."""
    old, new = _layers(first), _layers(second)
    for (step, before), (_, after) in zip(old, new, strict=True):
        if (before and before.digest) != (after and after.digest):
            yield from _files(step, _read(before, open_layer), _read(after, open_layer))


def _layers(built: Built) -> list[tuple[str, Descriptor | None]]:
    """The steps that may change files, each with its layer, None if it changed none."""
    own = built.history[len(built.files.history) :]
    count = sum(not entry.get("empty_layer") for entry in own)
    layers = iter(built.files.layers[len(built.files.layers) - count :])
    return [(str(e.get("created_by") or ""), None if e.get("empty_layer") else next(layers)) for e in own]


def _files(step: str, old: dict[bytes, _File], new: dict[bytes, _File]) -> Iterator[Difference]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if before is None or after is None:
            what = _presence(name, "second" if before is None else "first")
        else:
            what = tuple(_differing(before, after))
        yield Difference(step, _shown(name), what)


def _presence(name: bytes, which: str) -> tuple[str, ...]:
    last = name.rpartition(b"/")[2]
    if last == _OPAQUE:
        return (f"replaced by the {which} build only",)
    return (f"{'removed' if last.startswith(_WHITEOUT) else 'made'} by the {which} build only",)


def _shown(name: bytes) -> str:
    above, _, last = name.rpartition(b"/")
    if last == _OPAQUE:
        last = b""
    path = b"/".join(part for part in (above, last.removeprefix(_WHITEOUT)) if part)
    return "/" + path.decode("utf-8", "surrogateescape")


class _File(Struct):
    kind: bytes
    mode: int
    owner: str
    mtime_ns: int
    size: int
    content: str
    target: bytes
    device: str
    attributes: Any


def _read(layer: Descriptor | None, open_layer: Open) -> dict[bytes, _File]:
    if layer is None:
        return {}
    found = {}
    with open_layer(layer.digest) as stream:
        reader = TarReader(stream)
        for entry in reader:
            found[entry.name.rstrip(b"/")] = _file(entry, reader)
        stream.drain()
    return found


def _file(entry: TarEntry, reader: TarReader) -> _File:
    hashed = digests.new_hash()
    if entry.kind == FILE:
        hashed.update(repr(entry.regions and list(entry.regions)).encode())
        for _, piece in reader.chunks():
            hashed.update(piece)
    device = f"{entry.major}:{entry.minor}" if entry.kind >= CHARACTER else ""
    return _File(
        entry.kind,
        entry.mode,
        f"{entry.uid}:{entry.gid}",
        entry.mtime_ns,
        entry.size,
        hashed.hexdigest() if entry.kind == FILE else "",
        entry.target,
        device,
        sorted(entry.xattrs.items()),
    )


def _differing(old: _File, new: _File) -> Iterator[str]:
    """The names of what differs, with the values of what is small."""
    if old.kind != new.kind:
        yield "kind"
        return
    if (old.content, old.size) != (new.content, new.size):
        yield "content" + (f" ({old.size} bytes, then {new.size})" if old.size != new.size else "")
    if old.target != new.target:
        what = "linked to" if old.kind == HARDLINK else "target"
        yield f"{what} {_text(old.target)}, then {_text(new.target)}"
    if old.device != new.device:
        yield f"device {old.device}, then {new.device}"
    if old.mode != new.mode:
        yield f"mode {old.mode:04o}, then {new.mode:04o}"
    if old.owner != new.owner:
        yield f"owner {old.owner}, then {new.owner}"
    if old.mtime_ns != new.mtime_ns:
        yield f"time {_time(old.mtime_ns)}, then {_time(new.mtime_ns)}"
    if old.attributes != new.attributes:
        yield "extended attributes"


def _text(target: bytes) -> str:
    return target.decode("utf-8", "surrogateescape")


def _time(ns: int) -> str:
    seconds, fraction = divmod(ns, 1_000_000_000)
    day = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{day}.{fraction:09d}Z" if fraction else f"{day}Z"
