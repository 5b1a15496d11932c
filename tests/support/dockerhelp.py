"""The verbs and flags of the docker command line, as its own help tells them: what tests/golden/docker-flags.txt holds.

    .venv/bin/python -m support.dockerhelp > tests/golden/docker-flags.txt      (with PYTHONPATH=tests)

A line is a verb ("container prune") or a verb's flag ("ps --all -a"), with the kind of its value behind it if it takes one.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

# Groups of which only the name is wanted: nothing in them is there, and the list of differences says why.
WHOLE_GROUPS = (
    *("builder", "checkpoint", "config", "context", "node", "plugin", "secret"),
    *("service", "stack", "swarm", "trust"),
)
_FLAG = re.compile(r"  (?:-(\w), |    )--([\w-]+)(?: (\w[\w-]*))?(?: {2,}|$)")
_COMMAND = re.compile(r"  ([a-z][a-z-]*)\*? {2,}\S")


def lines() -> list[str]:
    """All lines, sorted. Asks no daemon: what an old one could not do would not be in the help."""
    return sorted(_lines())


def _lines() -> Iterator[str]:
    for verb in _commands(_help()):
        yield verb
        text = _help(verb)
        if verb in WHOLE_GROUPS:
            continue
        if "\nCommands:\n" not in text:
            yield from _flags(verb, text)
            continue
        for word in _commands(text):
            path = f"{verb} {word}"
            yield path
            text_of_word = _help(verb, word)
            # `docker container run` is `docker run`, whose flags are there already.
            if not re.search(r"Aliases:\n.* docker [a-z]+\n", text_of_word):
                yield from _flags(path, text_of_word)


def _commands(text: str) -> list[str]:
    body = text.partition("Commands:\n")[2].partition("Global Options:")[0]
    return [found[1] for line in body.splitlines() if (found := _COMMAND.match(line))]


def _flags(path: str, text: str) -> Iterator[str]:
    for line in text.partition("Options:\n")[2].splitlines():
        found = _FLAG.match(line)
        if found is not None and found[2] != "help":
            short, name, kind = found.groups()
            yield f"{path} --{name}" + (f" -{short}" if short else "") + (f" {kind}" if kind else "")


def _help(*words: str) -> str:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "DOCKER_HOST": "unix:///nonexistent"}
    command = ["docker", *words, "--help"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    print("\n".join(lines()))
