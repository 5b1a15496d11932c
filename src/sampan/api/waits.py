"""`POST /containers/{id}/wait`. Its header goes out before there is anything to say: the client starts the container when it has it.

not-running    at once if it does not run; else the end of this run
next-exit      the end of this run, or of the next one
removed        that it is gone, with the code of its last run
"""

from __future__ import annotations

import select

from sampan import jsontext
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.oci.lifecycle import UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.api.exchange import Exchange, Leaving
    from sampan.engine.container import Container
    from sampan.engine.engine import Engine
    from sampan.engine.interface import Attachment

NOT_RUNNING, NEXT_EXIT, REMOVED = CONDITIONS = ("not-running", "next-exit", "removed")
_LOOK_SECONDS = 0.25
"""How often it is looked whether a container is gone. One that is removed by its own end is seen at once."""
_SHORTEST, _LONGEST = 0.001, 0.01
"""Between two looks at one that changes its state in this moment: its monitor writes the exit code down, and listens to nobody meanwhile."""


def wait(engine: Engine, exchange: Exchange, name: str) -> None:
    condition = exchange.query.text("condition") if exchange.at_least(1, 30) else ""
    condition = condition or NOT_RUNNING
    if condition not in CONDITIONS:
        raise InvalidParameter(f'invalid condition: "{condition}"')
    container = engine.containers.get(name)
    if condition == NOT_RUNNING:
        code = _ended(container)
        if code is not None:
            exchange.reply(200, {"StatusCode": code})  # at once: nobody has to be watched for, who might leave
            return
    leaving = exchange.leaving()
    try:
        waiter = _Waiter(container, condition, leaving)
        exchange.start(200, {"Content-Type": "application/json"})
        code = waiter.run()
        if code is not None:
            exchange.end(_document(code))
    finally:
        leaving.close()


def _document(code: int) -> bytes:
    answer = {"StatusCode": code}
    return jsontext.dumps(answer) + b"\n"


def _ended(container: Container, last: int = 0) -> int | None:
    """The exit code of one that does not run, None for one that does; `last` for one that is gone."""
    try:
        status, code = container.outcome()
    except NotFound:
        return last
    return None if status in UP else code


class _Waiter:
    """Listens from its construction on, so that no end is missed between the header and `run`."""

    def __init__(self, container: Container, condition: str, leaving: Leaving) -> None:
        self._container = container
        self._condition = condition
        self._leaving = leaving
        self._code = 0
        if condition != NOT_RUNNING:
            self._look()  # the code of its last run is the answer, if it is removed and not started again
        self._attachment: Attachment | None = self._listen()

    def run(self) -> int | None:
        """The exit code; None if the client has left meanwhile."""
        pause = _SHORTEST
        while True:
            if self._attachment is None and self._condition == NOT_RUNNING and not self._look():
                return self._code
            ended = self._hear() if self._attachment is not None else False
            if ended is None:
                return None
            if ended:
                self._settle()
                if self._condition != REMOVED:
                    return self._code
            elif self._condition == NEXT_EXIT and not self._look():
                return self._code  # its start failed, or its monitor was killed
            if self._condition == REMOVED and not self._there():
                return self._code
            if self._leaving.wait(_LOOK_SECONDS if self._condition == REMOVED and not ended else pause):
                return None
            pause = min(2 * pause, _LONGEST)
            self._attachment = self._listen()

    def _look(self) -> bool:
        """Whether it runs; of one that does not, its exit code is kept. One that is gone does not run."""
        code = _ended(self._container, self._code)
        if code is None:
            return True
        self._code = code
        return False

    def _there(self) -> bool:
        try:
            self._container.outcome()
        except NotFound:
            return False
        return True

    def _listen(self) -> Attachment | None:
        try:
            # What ends in this moment is over, unless the next run is wanted too.
            return self._container.listen(running=self._condition == NOT_RUNNING)
        except (Conflict, NotFound):
            return None  # it changes its state in this moment, or is gone: look again

    def _hear(self) -> bool | None:
        """Whether an exit code came before the end of the connection; None if the client has left."""
        attachment = self._attachment
        assert attachment is not None
        self._attachment = None
        poll = select.poll()
        poll.register(attachment.fileno(), select.POLLIN)
        poll.register(self._leaving.fileno(), select.POLLIN)
        try:
            while attachment.exit is None:
                ready = dict(poll.poll())
                if self._leaving.fileno() in ready:
                    return None
                if attachment.receive() is None:
                    return False
            self._code = int(attachment.exit["exit_code"])
            return True
        finally:
            attachment.close()

    def _settle(self) -> None:
        """With `--rm` its end is its removal, and whoever sees it first does it."""
        try:
            self._container.settle()
        except (NotFound, Conflict):
            pass
