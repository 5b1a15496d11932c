"""What every verb gets: the engine, opened when it is first asked for, and what all verbs do alike."""

from __future__ import annotations

from sampan.cli.output import err, out
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sampan.engine.engine import Engine


class Context:
    """`path` is how the user called the verb, "sampan container run" for example; `debug`: tell every step at the end."""

    def __init__(self, path: str, root: str | None, run_root: str | None, config: str | None, debug: bool) -> None:
        self.path = path
        self.debug = debug
        self._places = (root, run_root, config)
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine. Raises Forbidden for who is not root, InvalidParameter for a bad configuration."""
        if self._engine is None:
            from sampan.engine.engine import Engine

            root, run_root, config = self._places
            self._engine = Engine(root=root, run_root=run_root, config=config)
        return self._engine

    def close(self) -> None:
        """Close the engine; with --debug tell what was done, also when it failed."""
        if self._engine is None:
            return
        engine, self._engine = self._engine, None
        if self.debug:
            for event in engine.trace.events:
                err(event.line())
        engine.close()

    def each(self, words: Iterable[str], action: Callable[[str], object]) -> int:
        """Do `action` for every word: one that fails is told and does not stop the others. The exit code."""
        code = 0
        self.engine  # noqa: B018  (what fails here would fail for each of them)
        for word in words:
            try:
                action(word)
            except SampanError as e:
                err(f"Error: {e}")
                code = e.exit_code
        return code

    def each_at_once(self, words: Sequence[str], action: Callable[[str], str | None]) -> int:
        """Do `action` for all words at the same time, and print the lines that it gives in the words' order (None: no line).

        One that fails does not stop the others, and is told when all are done, as with Docker. The exit code.
        """
        self.engine  # noqa: B018  (what fails here would fail for each of them)
        if len(words) == 1:
            return self.each(words, lambda word: _print(action(word)))
        from sampan.engine.parallel import at_once  # in here: mostly there is one

        failed = []
        for _, outcome in at_once(words, action):
            if isinstance(outcome.error, SampanError):
                failed.append(outcome.error)
            elif outcome.error is not None:
                raise outcome.error
            else:
                _print(outcome.value)
        for error in failed:
            err(f"Error: {error}")
        return failed[-1].exit_code if failed else 0


def _print(line: str | None) -> None:
    if line is not None:
        out(line)
