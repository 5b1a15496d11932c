"""`cp`: files between a container and this machine, or as an archive from or to a standard stream."""

from __future__ import annotations

import os
import time

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, err, write
from sampan.cli.progress import Bar
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments
    from sampan.engine.container import Container
    from sampan.engine.copying import Copied

_STREAM = "-"


def cp(context: Context, arguments: Arguments) -> int:
    """Copy, and tell how much on a terminal."""
    source, destination = arguments.words
    if not source:
        raise Failure("source can not be empty")
    if not destination:
        raise Failure("destination can not be empty")
    from_container, source_path = _parse(source)
    to_container, destination_path = _parse(destination)
    if from_container and to_container:
        raise Failure("copying between containers is not supported")
    if not from_container and not to_container:
        raise Failure("must specify at least one container source")
    container = context.engine.containers.get(from_container or to_container)

    from sampan.engine.copying import Unfitting

    try:
        if from_container:
            return _copy_out(container, source_path, destination, arguments)
        return _copy_in(container, source, destination_path, destination, arguments)
    except Unfitting as e:
        raise Failure(str(e)) from None


def _parse(text: str) -> tuple[str, str]:
    """CONTAINER:PATH as its two parts; "" for the container of a path of this machine, which may have a colon, too."""
    container, colon, path = text.partition(":")
    # A path that begins with a slash or a dot is none of a container's: so one with a colon can be named.
    if not colon or text.startswith(("/", ".")):
        return "", text
    return container, path


def _copy_out(container: Container, path: str, destination: str, arguments: Arguments) -> int:
    if destination == _STREAM:
        with container.open_files() as files:
            from sampan.engine.copying import followed

            _, pieces = files.get(followed(files, path, arguments["follow-link"])[0])
            with pieces:
                for piece in pieces:
                    write(1, piece)
        return 0
    with _Report("from", arguments) as report:
        copied = container.copy_out(
            path, destination, follow=arguments["follow-link"], archive=arguments["archive"], progress=report.progress
        )
        report.done(copied, _absolute(destination))
    return 0


def _copy_in(container: Container, source: str, path: str, shown: str, arguments: Arguments) -> int:
    with _Report("to", arguments) as report:
        if source == _STREAM:
            copied = _stream_in(container, path, shown, arguments["archive"], report.progress)
        else:
            copied = container.copy_in(
                source, path, follow=arguments["follow-link"], archive=arguments["archive"], progress=report.progress
            )
        report.done(copied, f"{shown.partition(':')[0]}:{copied.path}")
    return 0


def _stream_in(
    container: Container, path: str, shown: str, archive: bool, progress: Callable[[int], None] | None
) -> Copied:
    from sampan.engine.copying import Copied, Source, destination_in

    with container.open_files() as files:
        destination = destination_in(files, path)
        if not destination.is_directory:
            raise Failure(f'destination "{shown}" must be a directory')
        stream = Source(iter(lambda: os.read(0, 1 << 18), b""), progress)
        files.put(destination.path, stream, keep_kinds=True, owned_by_user=archive)
        return Copied(stream.total, destination.path)


def _absolute(path: str) -> str:
    """A path of this machine as Docker tells it: absolute, the slash at its end kept."""
    return os.path.abspath(path) + ("/" if path.endswith("/") and os.path.abspath(path) != "/" else "")


class _Report:
    """What is told on standard error: how far a long copy has come, and how much it was in the end."""

    _SHORT = 0.5
    """Seconds that a copy may take without a word, as with Docker."""

    def __init__(self, direction: str, arguments: Arguments) -> None:
        self._quiet = arguments["quiet"] if arguments.given("quiet") else not os.isatty(1)
        self._what = f"Copying {direction} container"
        self._bar = Bar()
        self._from = time.monotonic() + self._SHORT
        self.progress = None if self._quiet or not self._bar.shown else self._progress

    def _progress(self, size: int) -> None:
        if time.monotonic() >= self._from:
            self._bar(self._what, size, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__()

    def done(self, copied: Copied, where: str) -> None:
        self._bar.__exit__()
        if not self._quiet:
            err(f"Successfully copied {_size(copied.size)} to {where}")


def _size(size: int) -> str:
    from sampan.cli.images import human_size

    return human_size(size)


CP = Command(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tsampan cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    cp,
    (
        Flag(
            "archive",
            "bool",
            "Keep owners: into a container the files are its user's, out of it they stay whose they are",
            "a",
        ),
        Flag("follow-link", "bool", "Always follow symbol link in SRC_PATH", "L"),
        Flag("quiet", "bool", "Print nothing; so it is anyway if standard output is no terminal", "q"),
    ),
    at_least=2,
    at_most=2,
)
