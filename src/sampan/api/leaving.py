"""What is waited for elsewhere for a client, and ends when the client leaves."""

from __future__ import annotations

from contextlib import contextmanager

from sampan.api.failures import ClientGone
from sampan.engine.registries import Stopped
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sampan.api.exchange import Exchange


@contextmanager
def ended_with(exchange: Exchange, stop: Callable[[], None]) -> Iterator[None]:
    """Have `stop` called when the client goes away while the work inside goes on, also while that waits for a silent host.

    It must not wait itself: it is the server's own thread that calls it. Whatever fails then, what is raised is ClientGone.
    """
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        stop()

    forget = exchange.on_gone(leave)
    try:
        yield
    except Stopped:
        raise ClientGone from None
    except SampanError:
        if left:
            raise ClientGone from None
        raise
    finally:
        forget()
