"""Where clients are let in: unix sockets, TCP with mutual TLS (without only for who says so twice), sockets from systemd."""

from __future__ import annotations

import grp
import os
import socket
import ssl
import stat
from urllib.parse import urlsplit

from sampan.api.failures import ClientGone
from sampan.errors import Conflict, InvalidParameter, System
from sampan.structs import Struct

_BACKLOG = 1024
_HANDSHAKE_SECONDS = 10.0
_FIRST_INHERITED = 3


class Tls(Struct):
    """Files in PEM: who clients have to be signed by, our certificate, its key."""

    authority: str
    certificate: str
    key: str


class Security(Struct):
    """What TCP is let in with. without_tls and without_authentication: both have to be said for it to go without."""

    tls: Tls | None = None
    without_tls: bool = False
    without_authentication: bool = False


class Listener:
    """One socket that clients connect to. host: the name that it was asked to listen as."""

    def __init__(
        self, sock: socket.socket, shown: str, tls: ssl.SSLContext | None = None, host: str = "", path: str = ""
    ) -> None:
        # One that is inherited may be non-blocking (systemd, or who had it before). What it accepts is not: accept(2).
        sock.setblocking(True)
        self.socket = sock
        self.shown = shown
        self.tls = tls
        self.host = host
        self.is_tcp = sock.family != socket.AF_UNIX
        self._path = path
        self._inode = os.stat(path).st_ino if path else 0

    def accept(self) -> socket.socket:
        """The next client's socket. Raises OSError."""
        client, _ = self.socket.accept()
        if self.is_tcp:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return client

    def secure(self, client: socket.socket) -> socket.socket:
        """The client's socket behind its handshake. Raises ClientGone."""
        assert self.tls is not None
        client.settimeout(_HANDSHAKE_SECONDS)
        try:
            secured = self.tls.wrap_socket(client, server_side=True, suppress_ragged_eofs=True)
        except (OSError, ValueError):
            client.close()
            raise ClientGone from None
        secured.settimeout(None)
        return secured

    def close(self) -> None:
        """Let nobody in any more; the name goes if it still is ours."""
        self.socket.close()
        try:
            if self._path and os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        except OSError:
            pass


def open_listener(address: str, group: str | None, security: Security) -> list[Listener]:
    """The listeners of one `-H`: unix://PATH, tcp://HOST:PORT, fd://. Raises InvalidParameter, Conflict, System."""
    kind, separator, rest = address.partition("://")
    if kind == "unix" and separator:
        return [_unix(rest, group)]
    if kind == "tcp" and separator:
        return _tcp(address, security)
    if kind == "fd" and separator:
        return inherited(security)
    raise InvalidParameter(f"cannot listen on {address!r}: unix://PATH, tcp://HOST:PORT and fd:// can be")


def _unix(path: str, group: str | None) -> Listener:
    if not path.startswith("/"):
        raise InvalidParameter(f"the path of a socket has to be absolute: {path!r}")
    gid = _group(group)
    _make_way(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        # Nobody gets in before it has its group: it is made for its owner only.
        before = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        os.chown(path, 0, gid)
        os.chmod(path, 0o660)
        sock.listen(_BACKLOG)
    except OSError as e:
        sock.close()
        raise System(f"bind {path}: {(e.strerror or str(e)).lower()}") from None
    return Listener(sock, f"unix://{path}", path=path)


def _group(name: str | None) -> int:
    """The group that may use the socket: `sampan` where it exists, or the one that was asked for. Raises InvalidParameter."""
    if name is not None and name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam("sampan" if name is None else name).gr_gid
    except KeyError:
        if name is None:
            return 0
        raise InvalidParameter(f"group {name!r} does not exist: make it with groupadd {name}") from None


def _make_way(path: str) -> None:
    """Take a socket away that nobody listens on: one of a server that was killed. Raises Conflict, System."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as e:
        raise System(f"stat {path}: {(e.strerror or str(e)).lower()}") from None
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"{path} is there and is no socket: remove it, or choose another path with -H")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as e:
            raise System(f"connect {path}: {(e.strerror or str(e)).lower()}") from None
    raise Conflict(f"a server listens on {path} already: stop it, or choose another path with -H")


def _tcp(address: str, security: Security) -> list[Listener]:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError:
        raise InvalidParameter(f"cannot listen on {address!r}: no such port") from None
    context = _context(address, security)
    port = port if port is not None else (2375 if context is None else 2376)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
    except OSError as e:
        raise System(f"bind {address}: {(e.strerror or str(e)).lower()}") from None
    return [Listener(sock, f"tcp://{host}:{sock.getsockname()[1]}", context, host)]


def _context(address: str, security: Security) -> ssl.SSLContext | None:
    """TLS in which both sides show who they are; None only for who wants neither and says both. Raises InvalidParameter."""
    if security.tls is None:
        if security.without_tls and security.without_authentication:
            return None
        raise InvalidParameter(
            f"{address}: whoever reaches it is root on this machine. It needs --tlscacert, --tlscert and --tlskey; "
            "without them only with both --no-tls and --no-authentication"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    tls = security.tls
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        context.load_verify_locations(tls.authority)
    except (OSError, ssl.SSLError) as e:
        files = f"{tls.authority}, {tls.certificate}, {tls.key}"
        raise InvalidParameter(f"TLS cannot be had of {files}: {e.strerror or e}") from None
    return context


def inherited(security: Security) -> list[Listener]:
    """The sockets of systemd's socket activation (sd_listen_fds(3)). Raises InvalidParameter if there are none."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal() or count == "0":
        raise InvalidParameter(
            "fd://: no sockets came from systemd (LISTEN_FDS and LISTEN_PID): is there a .socket unit?"
        )
    found = []
    for fd in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count)):
        os.set_inheritable(fd, False)
        try:
            sock = socket.socket(fileno=fd)
            if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise InvalidParameter(f"fd://: descriptor {fd} is no stream socket that listens")
        except OSError as e:
            raise InvalidParameter(f"fd://: descriptor {fd}: {(e.strerror or str(e)).lower()}") from None
        tcp = sock.family != socket.AF_UNIX
        found.append(Listener(sock, f"fd://{fd}", _context(f"fd://{fd}", security) if tcp else None))
    # Programs that we start are not to take them for theirs.
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return found
