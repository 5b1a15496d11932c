"""`build --output`: where the result goes, as buildx has it: `type=TYPE[,KEY=VALUE ...]`, a directory, or "-"."""

from __future__ import annotations

import os

from sampan.cli.output import Failure
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments
    from sampan.engine.buildstage import Watcher

_TYPES = {
    "local": ("dest",),
    "tar": ("dest",),
    "oci": ("dest", "name", "tar"),
    "docker": ("dest", "name", "tar"),
    "image": ("name", "push"),
    "registry": ("name",),
}
_TRUE, _FALSE = ("1", "true"), ("0", "false")


class Output(Struct):
    """One place. kind: of `_TYPES`. destination: a path, "-" for standard output, "" for the store. names: of the image. push: to its registry."""

    kind: str
    destination: str = ""
    names: tuple[str, ...] = ()
    push: bool = False

    @property
    def is_files(self) -> bool:
        """Whether it takes the files alone, and no image."""
        return self.kind in ("local", "tar")


class Outputs:
    """All of them. Raises `Failure` for what cannot be."""

    def __init__(self, arguments: Arguments) -> None:
        self.all = [_parse(text) for text in arguments["output"]]
        if arguments["push"]:
            self.all.append(Output("registry", push=True))
        if arguments["load"]:
            self.all.append(Output("image"))
        self.tags = tuple(arguments["tag"])
        self.names = tuple(dict.fromkeys([*self.tags, *(name for one in self.all for name in one.names)]))
        if sum(one.destination == "-" for one in self.all) > 1:
            raise Failure("ERROR: multiple outputs to stdout are not possible")
        for one in self.all:
            if one.push and not self.names:
                raise Failure("ERROR: tag is needed when pushing to registry")
            if one.destination == "-" and os.isatty(1):
                raise Failure("ERROR: dest file is required for tar exporter. refusing to write to console")

    @property
    def wants_image(self) -> bool:
        """Whether the store is to have the image: archives of images are made of it."""
        return not self.all or not all(one.is_files for one in self.all)

    @property
    def quiet(self) -> bool:
        """Whether standard output is the result's."""
        return any(one.destination == "-" for one in self.all)

    def exports(self) -> tuple[Callable[[Any], None], ...]:
        """What takes the files of the result (`engine.builder.Tree`), as soon as they are there."""
        return tuple(_exporter(one) for one in self.all if one.is_files)

    def finish(self, context: Context, image: str, watcher: Watcher) -> None:
        """Write the archives of the image, and push it."""
        for one in self.all:
            if one.kind in ("oci", "docker") and one.destination:
                step = watcher.begin(f"exporting to {one.kind} image format")
                _save(context, [*self.names] or [image], one.destination)
                watcher.done(step)
            elif one.push:
                for name in one.names or self.names:
                    step = watcher.begin(f"pushing {name}")
                    context.engine.images.push(name)
                    watcher.done(step)


def _parse(text: str) -> Output:
    import csv

    if text == "-":
        return Output("tar", "-")
    fields: dict[str, str] = {}
    words = next(csv.reader([text]), [])
    if len(words) == 1 and "=" not in words[0]:
        return Output("local", words[0])
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise Failure(f"ERROR: invalid value {word}")
        fields[key.strip().lower()] = value
    kind = fields.pop("type", "")
    if kind not in _TYPES:
        raise Failure(
            f"ERROR: exporter {kind!r} could not be found: {', '.join(_TYPES)} are there"
            if kind
            else "ERROR: type is required for output"
        )
    for key in fields:
        if key not in _TYPES[kind]:
            raise Failure(f"ERROR: output type={kind}: {key!r} is not supported: {', '.join(_TYPES[kind])} are there")
    if kind == "local" and not fields.get("dest"):
        raise Failure("ERROR: dest is required for local exporter")
    if _truth(fields.get("tar", "true"), "tar") is False:
        raise Failure(f"ERROR: output type={kind},tar=false is not supported: unpack the archive")
    destination = fields.get("dest", "-" if kind in ("tar", "oci") else "")
    names = tuple(name for name in fields.get("name", "").split(",") if name)
    return Output(kind, destination, names, kind == "registry" or _truth(fields.get("push", "false"), "push"))


def _truth(text: str, key: str) -> bool:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise Failure(f"ERROR: non-bool value {text!r} for {key}")
    return text.lower() in _TRUE


def _exporter(output: Output) -> Callable[[Any], None]:
    def to_directory(tree: Any) -> None:
        try:
            os.makedirs(output.destination, exist_ok=True)
        except OSError as e:
            raise Failure(f"ERROR: {output.destination}: {(e.strerror or str(e)).lower()}") from None
        tree.copy(output.destination)

    def to_archive(tree: Any) -> None:
        _write(output.destination, tree.archive)

    return to_directory if output.kind == "local" else to_archive


def _save(context: Context, names: Sequence[str], destination: str) -> None:
    _write(destination, lambda sink: context.engine.images.save(names, sink))


def _write(destination: str, action: Callable[[Any], None]) -> None:
    from sampan.cli.output import write
    from sampan.cli.outputfile import NewFile, write_all

    if destination == "-":
        action(_Sink(1, write))
        return
    with NewFile(destination, "failed to export") as fd:
        action(_Sink(fd, write_all))


class _Sink:
    def __init__(self, fd: int, write: Callable[[int, bytes], None]) -> None:
        self._fd = fd
        self._write = write

    def write(self, data: bytes, /) -> None:
        self._write(self._fd, data)


def write_metadata(path: str, context: Context, image: str, names: Sequence[str]) -> None:
    """--metadata-file, with buildx's names. Raises `Failure`."""
    import json

    document: dict[str, Any] = {}
    if image:
        target = context.engine.images.resolve(image).target
        document["containerimage.config.digest"] = image
        document["containerimage.digest"] = target.digest
        document["containerimage.descriptor"] = {
            "mediaType": target.media_type,
            "digest": target.digest,
            "size": target.size,
        }
        if names:
            from sampan.oci import reference

            document["image.name"] = ",".join(str(reference.parse(name).tagged()) for name in names)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=2) + "\n")
    except OSError as e:
        raise Failure(f"failed to write metadata file: open {path}: {(e.strerror or str(e)).lower()}") from None
