"""Which stages a build needs, and in which order: a graph of FROM, COPY --from and RUN --mount from=."""

from __future__ import annotations

from sampan.build import runmounts
from sampan.build.instructions import Copy, Run
from sampan.build.scope import GlobalScope, automatic
from sampan.build.source import DockerfileError, suggestion
from sampan.errors import InvalidParameter
from sampan.oci import words
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sampan.build.instructions import Dockerfile, Stage
    from sampan.build.parser import Node
    from sampan.build.source import Source
    from sampan.oci.platform import Platform

SCRATCH = "scratch"


class Planned(Struct):
    """A stage that is to be built. base: the number of the stage that it is FROM, or the name of an image (SCRATCH for none).

    platform: what its FROM asks for, "" for nothing. needs: the numbers of the stages that it takes files of, its base among them.
    """

    stage: Stage
    base: int | str
    platform: str = ""
    needs: tuple[int, ...] = ()


class Plan(Struct):
    """stages: those that the target needs, each after what it needs; the last one is the target. variables: what ARGs find above."""

    stages: tuple[Planned, ...]
    variables: dict[str, str]

    @property
    def target(self) -> Planned:
        return self.stages[-1]


def plan(
    dockerfile: Dockerfile,
    source: Source,
    target: str,
    arguments: Mapping[str, str],
    platform: Platform,
    contexts: Collection[str] = (),
) -> Plan:
    """Order what `target` (a name, a number, "" for the last stage) needs. contexts: names that are no stage's, whatever the file says.

    Raises `DockerfileError`, `InvalidParameter`.
    """
    graph = _Graph(dockerfile, source, target, arguments, platform, contexts)
    return Plan(tuple(graph.needed()), graph.variables)


def find(stages: Sequence[Stage], name: str) -> Stage | None:
    """The stage with that name or number. Of two with one name it is the last."""
    for stage in reversed(stages):
        if stage.name and stage.name == name.lower():
            return stage
    if name.isascii() and name.isdigit() and int(name) < len(stages):
        return stages[int(name)]
    return None


class _Graph:
    def __init__(
        self,
        dockerfile: Dockerfile,
        source: Source,
        target: str,
        arguments: Mapping[str, str],
        platform: Platform,
        contexts: Collection[str],
    ) -> None:
        self._contexts = contexts
        self._stages = dockerfile.stages
        self._source = source
        self._escape = dockerfile.escape
        self._target = self._find_target(target)
        scope = GlobalScope(arguments, automatic(platform, target), dockerfile.escape)
        for arg in dockerfile.arguments:
            try:
                scope.declare(arg, {})
            except InvalidParameter as e:
                raise self._error(arg.node, str(e)) from None
        self.variables = scope.values

    def _error(self, node: Node, message: str) -> DockerfileError:
        return DockerfileError(message, node.first, node.last, self._source)

    def _find_target(self, target: str) -> Stage:
        if not target:
            return self._stages[-1]
        found = find(self._stages, target)
        if found is None:
            names = [stage.name for stage in self._stages if stage.name]
            raise InvalidParameter(f'target stage "{target}" could not be found{suggestion(target, names)}')
        return found

    def needed(self) -> list[Planned]:
        """Depth first, without recursion: a file may have thousands of stages."""
        done: dict[int, Planned] = {}
        path: list[tuple[Planned, Iterator[Stage]]] = [self._visit(self._target)]
        on_path = {self._target.index}
        while path:
            planned, needs = path[-1]
            need = next(needs, None)
            if need is None:
                path.pop()
                on_path.discard(planned.stage.index)
                done[planned.stage.index] = planned
            elif need.index in on_path:
                raise self._error(need.head.node, f"circular dependency detected in stage: {need.name or need.index}")
            elif need.index not in done:
                path.append(self._visit(need))
                on_path.add(need.index)
        return list(done.values())

    def _visit(self, stage: Stage) -> tuple[Planned, Iterator[Stage]]:
        planned = self._planned(stage)
        needs = list(self._needs(planned))
        return planned.replace(needs=tuple(need.index for need in needs)), iter(needs)

    def _planned(self, stage: Stage) -> Planned:
        head = stage.head
        try:
            base = words.expand(head.base, self.variables, self._escape)
            platform = words.expand(head.platform, self.variables, self._escape)
        except InvalidParameter as e:
            raise self._error(head.node, str(e)) from None
        if not base:
            raise self._error(head.node, f"base name ({head.base}) should not be blank")
        # Only a stage above can be meant: a name below, or its own, is that of an image.
        above = [other for other in self._stages[: stage.index] if other.name == base.lower()]
        if base.lower() in self._contexts:
            above = []
        return Planned(stage, above[-1].index if above else base, platform)

    def _needs(self, planned: Planned) -> Iterator[Stage]:
        if isinstance(planned.base, int):
            yield self._stages[planned.base]
        for instruction in planned.stage.body:
            for name in _sources(instruction):
                found = find(self._stages, name) if name.lower() not in self._contexts else None
                if found is not None:
                    yield found


def _sources(instruction: object) -> Iterator[str]:
    """The names of stages, images and contexts that an instruction reads."""
    if isinstance(instruction, Copy) and instruction.from_:
        yield instruction.from_
    if isinstance(instruction, Run):
        for text in instruction.mounts:
            name = runmounts.source_of(text)
            if name:
                yield name
