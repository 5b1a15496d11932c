"""What is seen of a build by the API: the lines of Docker's classic builder, for clients that look for them.

Step 2/4 : RUN make          then what the command says, then
 ---> Using cache            if it was not carried out again
Successfully built 0123...   at the end, and Successfully tagged NAME
"""

from __future__ import annotations

import codecs
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.api.progress import ProgressStream
    from sampan.build.rules import Finding
    from sampan.build.source import Source
    from sampan.engine.container import Container

_POSITION = re.compile(r"\[(?:(?P<stage>\S+) )?(?P<number>\d+)/(?P<total>\d+)\] (?P<words>.*)", re.DOTALL)


class BuildOutput:
    """Told by the engine (`engine.builder.Told`). quiet: nothing is said but what goes wrong."""

    def __init__(self, stream: ProgressStream, quiet: bool) -> None:
        self._stream = stream
        self._quiet = quiet
        self._number = 0
        self._own = self._may_be_cached = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def begin(self, title: str) -> int:
        self._number += 1
        self._decoder.reset()
        found = _POSITION.match(title)
        self._own = found is not None
        self._may_be_cached = found is not None and not found["words"].startswith("FROM ")
        if found is not None:
            stage = f" [{found['stage']}]" if found["stage"] else ""
            self._say(f"Step {found['number']}/{found['total']}{stage} : {found['words']}\n")
        elif title.startswith("[internal] pull "):
            self._say(f"Pulling {title.removeprefix('[internal] pull ')}\n")
        return self._number

    def runs(self, container: Container) -> None:
        self._say(f" ---> Running in {container.id[:12]}\n")

    def output(self, step: int, data: bytes) -> None:
        if not self._own:
            return  # how the image gets its names is told at the end
        if text := self._decoder.decode(data):
            self._say(text)

    def note(self, step: int, text: str) -> None:
        self._say(f" ---> {text}\n")

    def done(self, step: int, cached: bool = False) -> None:
        if cached and self._may_be_cached:
            self._say(" ---> Using cache\n")

    def failed(self, step: int, message: str) -> None:
        """The build's error says it."""

    def warn(self, findings: Sequence[Finding], source: Source) -> None:
        for one in findings:
            self._say(f"[Warning] {one.rule}: {one.text} (line {one.first})\n")

    def tell(self, text: str) -> None:
        self._say(f"{text}\n")

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._stream.send(stream=text)
