"""`commit`, `diff` and `export`: what a container has made of its image's files."""

from __future__ import annotations

import os

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, out, write
from sampan.cli.progress import Bar
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

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
    if not target:
        _write_to(1, write, context, arguments)
        return 0
    from sampan.cli.outputfile import NewFile, write_all

    with NewFile(target, "failed to export container") as fd:
        _write_to(fd, write_all, context, arguments)
    return 0


def _write_to(fd: int, writer: Callable[[int, bytes], None], context: Context, arguments: Arguments) -> None:
    done = 0
    archive = context.engine.containers.get(arguments.words[0]).export()
    with Bar() as bar:
        for data in archive:
            writer(fd, data)
            done += len(data)
            bar("Exporting", done, 0)


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
