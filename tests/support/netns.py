"""Network namespaces that a test holds by descriptors: hosts and containers of its own, and wires between them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sampan.kernel import links, namespaces, netlink, nft

from support.patience import patience

T = TypeVar("T")


class Host:
    """A network namespace with its loopback up, sockets to its links and its firewall, and processes that end with it."""

    def __init__(self) -> None:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.unshare(namespaces.CLONE_NEWNET)
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.links, self.firewall = netlink.Socket(), nft.connect()
        finally:
            namespaces.setns(before, namespaces.CLONE_NEWNET)
            os.close(before)
        self._processes: list[subprocess.Popen[bytes]] = []
        links.set_up(self.links, links.LOOPBACK)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in it for the body."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.setns(self.fd, namespaces.CLONE_NEWNET)
            yield
        finally:
            namespaces.setns(before, namespaces.CLONE_NEWNET)
            os.close(before)

    def call(self, function: Callable[[], T]) -> T:
        with self.entered():
            return function()

    def run(self, *command: str, check: bool = True, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        whole = ["nsenter", f"--net=/proc/self/fd/{self.fd}", *command]
        return subprocess.run(
            whole, pass_fds=[self.fd], capture_output=True, check=check, text=True, timeout=patience(timeout)
        )

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        whole = ["nsenter", f"--net=/proc/self/fd/{self.fd}", *command]
        null = subprocess.DEVNULL
        process = subprocess.Popen(whole, pass_fds=[self.fd], stdin=null, stdout=null, stderr=null)
        self._processes.append(process)
        return process

    def serve(self, port: int, words: str, address: str = "") -> None:
        """Answer every TCP connection to a port with `words`; returns when it listens."""
        bound = f",bind={address}" if address else ""
        self.start("socat", f"TCP4-LISTEN:{port},fork,reuseaddr{bound}", f"SYSTEM:echo {words}")
        self.await_listener(port)

    def answer_datagrams(self, port: int, words: str) -> None:
        """Answer every UDP datagram to a port with `words`; returns when it listens."""
        server = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        server += f"s.bind(('', {port}))\nwhile True: s.sendto(b'{words}\\n', s.recvfrom(99)[1])"
        self.start(sys.executable, "-ISc", server)
        self.await_listener(port, "-Huln")

    def await_listener(self, port: int, flags: str = "-Htln") -> None:
        deadline = time.monotonic() + patience(10)
        while f":{port} " not in self.run("ss", flags, f"sport = :{port}").stdout:
            assert time.monotonic() < deadline, f"nobody listens on {port}"
            time.sleep(0.01)

    def ask(self, address: str, port: int, seconds: int = 1) -> str:
        """What is answered there; "" for nothing, or no way there."""
        family = "-6" if ":" in address else "-4"
        there = f"[{address}]" if ":" in address else address
        kind = f"TCP{family[1]}:{there}:{port},connect-timeout={seconds}"
        done = self.run("socat", "-T", str(seconds), "-u", kind, "-", check=False)
        return done.stdout.strip()

    def ruleset(self) -> str:
        return self.run("nft", "-s", "list", "ruleset").stdout

    def index(self, name: str) -> int:
        found = links.find(self.links, name)
        assert found is not None, name
        return found.index

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self.links.close()
        self.firewall.close()
        os.close(self.fd)


def connect(one: Host, other: Host, names: tuple[str, str], addresses: tuple[str, str], prefix: int = 24) -> None:
    """A veth between two hosts, up, with these names and addresses."""
    links.add_veth(one.links, names[0], names[1], other.fd)
    for side, name, address in zip((one, other), names, addresses, strict=True):
        links.add_address(side.links, side.index(name), address, prefix)
        links.set_up(side.links, side.index(name))
