"""`commit`, `diff` and `export`: what a container has made of its image's files."""

from __future__ import annotations

import os

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, out, write
from sampan.cli.progress import Bar
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments

_LETTERS = "CAD"  # By the numbers of the API.


def commit(context: Context, arguments: Arguments) -> int:
    """Make an image of a container and print its id."""
    container, *name = arguments.words
    found = context.engine.containers.get(container)
    with Bar() as bar:
        image = found.commit(
            name[0] if name else "",
            author=arguments["author"],
            message=arguments["message"],
            changes=arguments["change"],
            pause=arguments["pause"],
            progress=bar if bar.shown else None,
        )
    out(image)
    return 0


def diff(context: Context, arguments: Arguments) -> int:
    """Print each changed name with a letter."""
    changes = context.engine.containers.get(arguments.words[0]).diff()
    if changes:
        out("\n".join(f"{_LETTERS[change['Kind']]} {change['Path']}" for change in changes))
    return 0


def export(context: Context, arguments: Arguments) -> int:
    """Write a container's files to standard output, or to a file that appears when it is whole."""
    target = arguments["output"]
    if not target and os.isatty(1):
        raise Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    if target:
        _check_output(target)
    archive = context.engine.containers.get(arguments.words[0]).export()
    with Bar() as bar:
        pieces = _watched(archive, bar)
        if target:
            _write_file(target, pieces)
        else:
            for data in pieces:
                write(1, data)
    return 0


def _watched(archive: Iterable[bytes], bar: Bar) -> Iterator[bytes]:
    done = 0
    for data in archive:
        yield data
        done += len(data)
        bar("Exporting", done, 0)


def _check_output(path: str) -> None:
    """Docker's checks, before anything is read."""
    import stat

    what = ""
    directory = os.path.dirname(path) or "."
    try:
        os.stat(directory)
        mode = os.stat(path).st_mode
        kinds = {stat.S_IFDIR: "directory", stat.S_IFCHR: "character device file", stat.S_IFBLK: "block device file"}
        kinds |= {stat.S_IFIFO: "named pipe file", stat.S_IFSOCK: "socket file"}
        if stat.S_IFMT(mode) in kinds:
            what = f"cannot write to a {kinds[stat.S_IFMT(mode)]}"
    except FileNotFoundError as e:
        if e.filename == directory:
            what = f"invalid output path: stat {directory}: no such file or directory"
    except OSError as e:
        what = f"invalid output path: stat {e.filename}: {(e.strerror or str(e)).lower()}"
    if what:
        raise Failure(f"failed to export container: {what}")


def _write_file(path: str, archive: Iterable[bytes]) -> None:
    temporary = f"{os.path.dirname(path) or '.'}/.tmp-{os.path.basename(path)}{os.urandom(4).hex()}"
    try:
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise Failure(f"failed to export container: open {path}: {(e.strerror or str(e)).lower()}") from None
        try:
            for data in archive:
                write(fd, data)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass  # It was never made.
        raise


COMMIT = Command(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    commit,
    (
        Flag("author", "string", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")', "a"),
        Flag("change", "list", "Apply an instruction of a Dockerfile to the image", "c"),
        Flag("message", "string", "Comment of the image", "m"),
        Flag("pause", "bool", "Let the container stand still while its files are read", "p", default=True),
    ),
    at_least=1,
    at_most=2,
)
DIFF = Command("CONTAINER", diff, at_least=1, at_most=1)
EXPORT = Command(
    "[OPTIONS] CONTAINER",
    export,
    (Flag("output", "string", "Write to a file instead of standard output", "o"),),
    at_least=1,
    at_most=1,
)
