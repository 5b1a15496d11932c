"""`load`, `save` and `import`: images from and to files and standard streams."""

from __future__ import annotations

import os

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, out, write
from sampan.cli.progress import Bar
from sampan.cli.verbs import Command
from sampan.engine.progress import WatchedSink, WatchedSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments
    from sampan.engine.download import Download

    Stream = BinaryIO | Download


def load(context: Context, arguments: Arguments) -> int:
    """Load the images of an archive, and print their names, or their ids if they have none."""
    source = arguments["input"]
    if not source and os.isatty(0):
        raise Failure("requested load from stdin, but stdin is empty")
    with Bar() as bar, _opened(source) as stream:
        bar.shown = bar.shown and not arguments["quiet"]
        # A file is read where it is; what comes through a pipe is waited for.
        watched = stream if _is_file(stream) else WatchedSource(stream, bar, "Reading")
        loaded = context.engine.images.load(watched, arguments["platform"], bar if bar.shown else None)
    for image in loaded:
        if image.replaced:
            old = image.replaced
            out(f"The image {image.reference} already exists, renaming the old one with ID {old} to empty string")
        out(f"Loaded image: {image.reference}" if image.reference else f"Loaded image ID: {image.id}")
    return 0


def save(context: Context, arguments: Arguments) -> int:
    """Write images as one archive, to a file that appears when it is whole, or to standard output."""
    target = arguments["output"]
    if not target:
        if os.isatty(1):
            raise Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        _write_to(1, write, context, arguments)
        return 0
    from sampan.cli.outputfile import NewFile, write_all

    with NewFile(target, "failed to save image") as fd:
        _write_to(fd, write_all, context, arguments)
    return 0


def _write_to(fd: int, writer: Callable[[int, bytes], None], context: Context, arguments: Arguments) -> None:
    with Bar() as bar:
        sink = WatchedSink(_Output(fd, writer), bar, "Saving")
        context.engine.images.save(arguments.words, sink, arguments["platform"])


class _Output:
    """A descriptor as a stream that takes all of what it is given."""

    def __init__(self, fd: int, write: Callable[[int, bytes], None]) -> None:
        self._fd = fd
        self._write = write

    def write(self, data: bytes, /) -> None:
        self._write(self._fd, data)


def import_(context: Context, arguments: Arguments) -> int:
    """Make an image of an archive, from a file, a URL or standard input, and print its id."""
    source, *name = arguments.words
    # As for Docker, what is neither of these is the name of a file, which the comment does not name.
    is_url = source.startswith(("http://", "https://"))
    message = arguments["message"] or f"Imported from {source if is_url else '-'}"
    with _fetched(source) if is_url else _opened("" if source == "-" else source) as stream:
        with Bar() as bar:
            watched = WatchedSource(stream, bar, "Importing", _length(stream))
            image = context.engine.images.import_(
                watched, name[0] if name else "", arguments["change"], message, arguments["platform"]
            )
        out(image)
    return 0


def _is_file(stream: BinaryIO) -> bool:
    import stat

    return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)


def _length(stream: Stream) -> int:
    """Bytes that a stream has, as far as it says; 0 if nobody knows."""
    from sampan.engine.download import Download

    if isinstance(stream, Download):
        return stream.length
    return os.fstat(stream.fileno()).st_size if _is_file(stream) else 0


def _opened(source: str) -> BinaryIO:
    """Standard input for "", else a file. Raises `Failure`."""
    if not source:
        return open(0, "rb", closefd=False)
    try:
        stream = open(source, "rb")
    except OSError as e:
        raise Failure(f"open {source}: {(e.strerror or str(e)).lower()}") from None
    return stream


def _fetched(url: str) -> Stream:
    from sampan.engine.download import download

    out(f"Downloading from {url}")
    return download(url)


PLATFORM = "Only for this platform: os/architecture[/variant]"

LOAD = Command(
    "[OPTIONS]",
    load,
    (
        Flag("input", "string", "Read from a file instead of standard input", "i"),
        Flag("platform", "string", PLATFORM),
        Flag("quiet", "bool", "Do not show how far it is", "q"),
    ),
    at_most=0,
)
SAVE = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    save,
    (
        Flag("output", "string", "Write to a file instead of standard output", "o"),
        Flag("platform", "string", PLATFORM),
    ),
    at_least=1,
)
IMPORT = Command(
    "[OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]",
    import_,
    (
        Flag("change", "list", "Apply an instruction of a Dockerfile to the image", "c"),
        Flag("message", "string", "Comment of the image", "m"),
        Flag("platform", "string", "Platform of the image: os/architecture[/variant]"),
    ),
    at_least=1,
    at_most=2,
)
