"""The texts that --help prints. Imported only for them."""

from __future__ import annotations

import os

from sampan.cli.flags import KINDS
from sampan.cli.verbs import ALIASES, GROUPS, VERBS, Command, entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sampan.cli.flags import Flag

NARROW = 24
"""Columns: text is not wrapped into less."""


def general(global_flags: Sequence[Flag]) -> str:
    """What `sampan --help` prints."""
    common = [(name, e.summary) for name, e in VERBS.items() if e.common]
    others = [(name, e.summary) for name, e in VERBS.items() if not e.common]
    groups = [(name, summary) for name, (summary, _) in GROUPS.items()]
    return "\n".join(
        [
            "Usage:  sampan [OPTIONS] COMMAND",
            "",
            "Runs containers from images, without a daemon",
            "",
            *_section("Common Commands", common),
            *_section("Management Commands", groups),
            *_section("Commands", others),
            "Global Options:",
            *_flag_lines(global_flags),
            "",
            "Run 'sampan COMMAND --help' for more information on a command.",
        ]
    )


def of_group(name: str) -> str:
    """What `sampan container` prints."""
    summary, verbs = GROUPS[name]
    return "\n".join(
        [
            f"Usage:  sampan {name} COMMAND",
            "",
            summary,
            "",
            *_section("Commands", [(word, entry(verb).summary) for word, verb in sorted(verbs.items())]),
            f"Run 'sampan {name} COMMAND --help' for more information on a command.",
        ]
    )


def of_verb(path: str, verb: str, command: Command) -> str:
    """What `sampan run --help` prints. `path` is what the user called it, "sampan container run" for example."""
    lines = [f"Usage:  {path} {command.usage}".rstrip(), "", entry(verb).summary]
    names = _other_names(verb)
    if len(names) > 1:
        lines += ["", "Aliases:", "  " + ", ".join(names)]
    if command.flags:
        lines += ["", "Options:", *_flag_lines(command.flags)]
    return "\n".join(lines)


def _other_names(verb: str) -> list[str]:
    names = []
    for group, (_, words) in GROUPS.items():
        for word, target in words.items():
            if target == verb:
                names.append(f"sampan {group} {word}")
                names += [f"sampan {g} {alias}" for (g, alias), to in ALIASES.items() if (g, to) == (group, word)]
    return [*names, f"sampan {verb}"] if verb in VERBS else names


def _section(title: str, entries: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{title}:", *(f"  {name:<11} {summary}" for name, summary in entries), ""]


def _flag_lines(flags: Sequence[Flag]) -> list[str]:
    heads = []
    for flag in sorted(flags, key=lambda f: f.name):
        if not flag.hidden:
            head = f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}"
            heads.append((f"{head} {KINDS[flag.kind].name}".rstrip(), flag.usage))
    margin = 3 + max(len(head) for head, _ in heads)
    lines = []
    for head, usage in heads:
        first, *more = wrap(usage, max(NARROW, _columns() - margin))
        lines.append(head.ljust(margin) + first)
        lines += [" " * margin + line for line in more]
    return lines


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters, broken at spaces; a longer word has a line of its own."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _columns() -> int:
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:  # not a terminal
        return 80
