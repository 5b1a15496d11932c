"""`sampan serve`: lets clients in, parks idle ones, hands the others to threads. It keeps no state: kill -9 at any time loses nothing.

    main thread    signals, and the end
    a thread       waits at one epoll for listeners, parked connections, and clients of those who wait for something else (`watch`);
                   then serves what it got itself: one request after the other of one connection, for as long as it is not idle

Each event comes to one thread: everything in the epoll is disarmed by it (EPOLLONESHOT). A thousand idle connections cost a thousand
descriptors and no thread. It never forks: shims are started by the engine's launcher.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import threading
import time

from sampan.api.connection import Connection
from sampan.api.workers import Workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from sampan.api.listeners import Listener
    from sampan.api.log import Log
    from sampan.engine.engine import Engine

_SWITCH_SECONDS = 0.0005
"""How long a thread may compute while others wait. Python's 5 ms make a ping beside a busy thread take 11 ms instead of 0.2."""
_GRACE_SECONDS = 3.0
_LISTENING = select.EPOLLIN | select.EPOLLONESHOT
_PIECE, _MOST_PIECES = 64 << 10, 16
_FAULT_SECONDS = 0.05
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
_FULL_BODY = b'{"message":"the server has as many requests at work as it takes: try again"}\n'


class Server:
    """One engine, some listeners. `run` returns after `stop` or SIGTERM."""

    def __init__(self, engine: Engine, listeners: Sequence[Listener], log: Log, workers: Workers | None = None) -> None:
        self._engine = engine
        self._log = log
        self._workers = workers or Workers()
        self._epoll = select.epoll()
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._waking = threading.Lock()
        self._stopping = False
        self._listeners = {listener.socket.fileno(): listener for listener in listeners}
        self._lock = threading.Lock()
        self._parked: dict[int, Connection] = {}
        self._watched: dict[int, tuple[socket.socket, Callable[[], None]]] = {}
        self._busy: set[Connection] = set()

    def run(self) -> None:
        """Serve until the end. Signals are taken if this is the main thread."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        if threading.current_thread() is threading.main_thread():
            # The signal itself wakes us: one that comes right before the poll has been noted and not been handled by Python.
            signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._end)
        for fd, listener in self._listeners.items():
            listener.socket.setblocking(False)
            self._epoll.register(fd, _LISTENING)
            self._log.info(f"listening on {listener.shown}")
        self._workers.begin(self._take, self._serve, self._turn_away)
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        while not self._stopping:
            poll.poll()
            os.read(self._woken, 1 << 10)
        self._close()

    def stop(self) -> None:
        """End `run`, from any thread."""
        with self._waking:
            self._stopping = True
            # From here on `run` may end by itself, and the number of what it has closed be somebody else's.
            if self._wake >= 0:
                self._rouse()

    def _rouse(self) -> None:
        try:
            os.write(self._wake, b"\0")
        except BlockingIOError:
            pass  # it is full of what wakes us

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True  # the signal has woken us by itself

    def _take(self, seconds: float | None) -> Connection | None:
        """The next connection that has something for us, if one comes within that time."""
        while not self._stopping:
            try:
                ready = self._epoll.poll(seconds, 1)
                if not ready:
                    return None
                connection = self._event(ready[0][0])
                if connection is not None:
                    return connection
            except Exception as e:
                self._log.error(f"unexpected {type(e).__name__} of what waits for requests: {e}")
                time.sleep(_FAULT_SECONDS)
        return None

    def _event(self, fd: int) -> Connection | None:
        listener = self._listeners.get(fd)
        if listener is not None:
            try:
                return self._accept(listener)
            finally:
                # The next one is another thread's.
                self._epoll.modify(fd, _LISTENING)
        with self._lock:
            connection = self._parked.pop(fd, None)
            watched = self._watched.pop(fd, None) if connection is None else None
            if connection is not None or watched is not None:
                self._epoll.unregister(fd)
        if watched is not None:
            watched[1]()
        return connection

    def _accept(self, listener: Listener) -> Connection | None:
        """The next client's connection, if it has something for us already."""
        try:
            client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None  # another server on the same socket was quicker, or the client has left
        except OSError as e:
            self._log.warn(f"accept: {(e.strerror or str(e)).lower()}")
            if e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                time.sleep(_FAULT_SECONDS)  # it would be readable again at once, and nothing be free yet
            return None
        connection = Connection(client, listener, self._engine, self._log, self.watch)
        if connection.has_begun():
            return connection
        # Not kept by a thread: many clients connect early, and one that never sends anything costs none.
        self._park(connection)
        return None

    def _park(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        with self._lock:
            if not self._stopping:
                self._parked[fd] = connection
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
                return
        connection.close()

    def _serve(self, connection: Connection) -> None:
        self._busy.add(connection)
        try:
            if connection.serve():
                self._park(connection)
        except Exception as e:
            self._log.error(f"connection ended by an unexpected {type(e).__name__}: {e}")
            connection.close()
        finally:
            self._busy.discard(connection)

    def _turn_away(self, connection: Connection) -> None:
        self._log.warn("all threads are at work: a request was turned away")
        try:
            connection.socket.setblocking(False)
            connection.socket.send(_FULL % (len(_FULL_BODY), _FULL_BODY))
            # What it has asked is taken off: closed with that unread, the kernel would throw the answer away.
            for _ in range(_MOST_PIECES):
                if not connection.socket.recv(_PIECE):
                    break
        except OSError:
            pass
        connection.close()

    def watch(self, sock: socket.socket, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` from a thread of ours when the other side of a socket has closed its half; the result takes that back."""
        fd = sock.fileno()

        def forget() -> None:
            with self._lock:
                if self._watched.get(fd, (None, None))[1] is callback:
                    del self._watched[fd]
                    self._epoll.unregister(fd)

        with self._lock:
            self._watched[fd] = (sock, callback)
            self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT)
        return forget

    def _close(self) -> None:
        """Let nobody in, give what is on its way a moment, and end. What is cut off then is the client's to ask for again."""
        deadline = time.monotonic() + _GRACE_SECONDS
        self._rouse()
        self._epoll.register(self._woken, select.EPOLLIN)  # not once only: all who wait there return
        self._workers.end(_GRACE_SECONDS)
        for listener in self._listeners.values():
            listener.close()
        with self._lock:
            for connection in self._parked.values():
                connection.close()
            self._parked.clear()
            waiting = [callback for _, callback in self._watched.values()]
        # Who waits for something that may never come is told what he would be told of a client that leaves.
        for callback in waiting:
            callback()
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.02)
        self._epoll.close()
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)
        with self._waking:
            os.close(self._wake)
            self._wake = -1
        os.close(self._woken)
        self._log.info("ended")
