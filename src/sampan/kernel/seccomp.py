"""Loading a seccomp filter (seccomp(2)). What makes one is `filtercompiler`; this is all that a container's own processes need."""

from __future__ import annotations

import _struct

from sampan.kernel.libc import address, by_machine, filled, raw

_SYS_SECCOMP = by_machine(317, 277)
_SET_MODE_FILTER = 1
FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_NEW_LISTENER, FLAG_WAIT_KILLABLE_RECV = 2, 4, 8, 32
_INSTRUCTION = 8  # bytes of a struct sock_filter


def load_filter(program: bytes, flags: int) -> int:
    """Put the calling thread, and all that it becomes, under the filter; it cannot be taken off again.

    Returns the listener's descriptor (close-on-exec) with `FLAG_NEW_LISTENER`, else 0. Needs CAP_SYS_ADMIN or no-new-privileges.
    Raises `KernelError`: EACCES without both, EINVAL for a program or a flag that this kernel does not take, EBUSY for a second listener.
    """
    code = filled(program)
    # struct sock_fprog: an unsigned short, padding up to the pointer
    fprog = _struct.pack("=H6xQ", len(program) // _INSTRUCTION, address(code))
    return raw(_SYS_SECCOMP, "seccomp(SECCOMP_SET_MODE_FILTER)", "", _SET_MODE_FILTER, flags, fprog)
