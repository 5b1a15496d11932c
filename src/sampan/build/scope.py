"""Variables: which there are where, and what they are (Dockerfile reference, "ARG" and "Automatic platform ARGs").

before the first FROM   the ARGs there, the automatic ones: for FROM lines, and for stages that say `ARG name`
in a stage              its ARGs from their line on; ENV counts more than ARG; a stage made FROM another one has its ENV only
"""

from __future__ import annotations

from sampan.oci import words
from sampan.oci.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from sampan.build.instructions import Arg

# For RUN without an ARG, and no part of the image: who builds behind a proxy shall get the same image.
PROXIES = frozenset(
    name
    for word in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (word, word.lower())
)
EPOCH = "SOURCE_DATE_EPOCH"
KEEP_GIT_DIR = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"


def automatic(platform: Platform, target_stage: str) -> dict[str, str]:
    """The variables that are set by themselves; in a stage they need an `ARG name`."""
    found = {}
    for prefix in ("BUILD", "TARGET"):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return {**found, "TARGETSTAGE": target_stage or "default"}


class Used(dict[str, str]):
    """Variables that remember the names that were asked for, and whether they were there."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(variables)
        self.asked: dict[str, bool] = {}

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.asked[name] = name in self
        return super().get(name, default)


class Scope:
    """The ARGs of one stage, or those before the first. consumed: the names of what was given that they have asked for."""

    def __init__(self, given: Mapping[str, str], above: Mapping[str, str], escape: str = words.ESCAPE) -> None:
        """given: --build-arg. above: what an `ARG name` without a default finds: the global and automatic ones."""
        self._given = given
        self._above = above
        self._escape = escape
        self.values: dict[str, str] = {}
        self.consumed: set[str] = set()

    def declare(self, arg: Arg, environment: Mapping[str, str]) -> None:
        """Carry out an ARG. Raises `InvalidParameter` for a default that cannot be expanded."""
        for name, default in arg.pairs:
            variables = {**self._above_for_defaults(), **self.values, **environment}
            name = words.expand(name, variables, self._escape)
            if name in self._given:
                self.values[name] = self._given[name]
                self.consumed.add(name)
            elif default is not None:
                self.values[name] = words.expand(default, variables, self._escape)
            elif name in self._above:
                self.values[name] = self._above[name]

    def _above_for_defaults(self) -> Mapping[str, str]:
        """In a stage a default sees what the stage has declared, and nothing from above."""
        return {}


class GlobalScope(Scope):
    """Before the first FROM: the automatic ones are there without being declared."""

    def __init__(self, given: Mapping[str, str], platform_variables: Mapping[str, str], escape: str) -> None:
        super().__init__(given, platform_variables, escape)
        self.values.update(platform_variables)
        self.values.update({name: given[name] for name in platform_variables if name in given})


def unconsumed(given: Iterable[str], consumed: Collection[str]) -> str:
    """The classic builder's warning of what was given and nothing has asked for, "" if there is nothing.

    What this builder goes by itself needs no ARG: what is a proxy's, the platform variables, the date.
    """
    own = {*automatic(Platform("", ""), ""), *PROXIES, EPOCH, KEEP_GIT_DIR}
    left = sorted(set(given) - own - set(consumed))
    return f"[Warning] One or more build-args [{' '.join(left)}] were not consumed" if left else ""


def declared_names(arguments: Sequence[Arg]) -> Iterator[str]:
    """The names in ARG instructions."""
    for arg in arguments:
        for name, _ in arg.pairs:
            yield name
