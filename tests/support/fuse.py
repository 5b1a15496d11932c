"""A file system whose server does not answer: whoever looks into it is in uninterruptible sleep, SIGKILL or not, until it is let go.

The protocol is the kernel's (include/uapi/linux/fuse.h): a request is read from /dev/fuse and answered there. Once the
server has read a request the kernel waits for the answer and for nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from sampan.kernel import mount

from support.patience import eventually

_LOOKUP, _FORGET, _GETATTR, _INIT, _BATCH_FORGET = 1, 2, 3, 26, 42
_IN_HEADER = struct.Struct("IIQQIIII")  # len, opcode, unique, node, uid, gid, pid, padding
_OUT_HEADER = struct.Struct("IiQ")  # len, error, unique
_INIT_OUT = struct.Struct("IIIIHHIIHHI28x")  # struct fuse_init_out: version, read-ahead, flags, limits
_ATTRIBUTES = struct.Struct("QI4xQQQQQQIIIIIIIIII")  # struct fuse_attr_out: validity, then struct fuse_attr
_MINOR = 31
_PARALLEL_DIROPS = 1 << 18  # else one lookup waits for the other, in the kernel
_BUFFER = 1 << 17
_ROOT = 1


class SilentDisk:
    """Where it is mounted, and who waits for it."""

    def __init__(self, place: Path, told: int) -> None:
        self.place = place
        self._told = told

    def await_lookup(self) -> None:
        """Until one more name is looked up: whoever does waits from then on. Each by a name of its own, or one waits for the other."""
        eventually(lambda: select.select([self._told], [], [], 0)[0], what="a name is looked up on the silent disk")
        os.read(self._told, 1)


@contextlib.contextmanager
def silent_disk(place: Path) -> Iterator[SilentDisk]:
    """A mounted directory in which every name that is looked up takes for ever: until the end of the `with`."""
    place.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode={stat.S_IFDIR:o},user_id=0,group_id=0,allow_other"
    mount.mount("silent", str(place), "fuse", mount.MS_NOSUID | mount.MS_NODEV, options)
    told, tell = os.pipe()
    server = os.fork()
    if server == 0:
        with contextlib.suppress(BaseException):
            _serve(device, tell)
        os._exit(0)
    os.close(device)
    os.close(tell)
    try:
        yield SilentDisk(place, told)
    finally:
        os.close(told)
        # The last descriptor of the connection goes with the server: all that wait for it get ENOTCONN.
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        mount.umount(str(place), mount.MNT_DETACH)
        place.rmdir()


def is_stuck(pid: int) -> bool:
    """Whether a process is in uninterruptible sleep. One that waits for the disk is when it has got SIGKILL."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "D"


def _serve(device: int, tell: int) -> None:
    while True:
        request = os.read(device, _BUFFER)
        _, opcode, unique, node, *_ = _IN_HEADER.unpack_from(request)
        if opcode == _LOOKUP:
            os.write(tell, b"x")
        elif opcode in (_FORGET, _BATCH_FORGET):
            continue  # they want no answer
        elif opcode == _INIT:
            _answer(device, unique, _INIT_OUT.pack(7, _MINOR, 1 << 16, _PARALLEL_DIROPS, 12, 9, 1 << 16, 1, 0, 0, 0))
        elif opcode == _GETATTR and node == _ROOT:
            mode = stat.S_IFDIR | 0o755
            _answer(device, unique, _ATTRIBUTES.pack(3600, 0, _ROOT, 0, 0, 0, 0, 0, 0, 0, 0, mode, 2, 0, 0, 0, 4096, 0))
        else:
            _answer(device, unique, b"", errno.ENOSYS)


def _answer(device: int, unique: int, body: bytes, error: int = 0) -> None:
    os.write(device, _OUT_HEADER.pack(_OUT_HEADER.size + len(body), -error, unique) + body)
