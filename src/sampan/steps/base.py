"""A step is one thing done to the kernel, as an object: data that can be sent, described, run and recorded.

The parent (`runtime.plan`) composes straight lists of steps, the shim's processes run them in order, and both
know the same text for each, so that a plan can be shown before it runs and a failure names its step.
Steps decide nothing that the plan could have decided; what they find out as they run (descriptors, the
user's numbers) they leave in the `Context` for those behind them.
"""

from __future__ import annotations

import errno as errno_names
import os

from sampan import jsontext
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar


class Context:
    """What the steps of one start share. Children that are cloned on the way inherit it as it is then."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}
        """Descriptors by name: detached mounts, namespaces to join, cgroups, the pty."""
        self.uid = 0
        self.gid = 0
        self.groups: list[int] = []
        self.home = ""
        self.working_directory_set = False
        self.child = 0
        """Of `CloneInit`: 0 in init itself, else init's pid."""
        self.host_pid = 0
        """Of the process that these steps make, as the host counts; known after a meeting."""

    def meet(self, word: str) -> None:
        """Report `word` to the parent, and wait for its leave. Given by whoever runs the steps (`shim.stages`)."""
        raise NotImplementedError(word)

    def root(self) -> int:
        """The descriptor of the container's root; every path of an image is resolved below it."""
        return self.fds["root"]

    def put(self, name: str, fd: int) -> None:
        """Keep a descriptor for later steps, closing the one that had the name."""
        old = self.fds.get(name)
        if old is not None:
            os.close(old)
        self.fds[name] = fd

    def close(self, name: str) -> None:
        """Close a kept descriptor if there is one."""
        fd = self.fds.pop(name, None)
        if fd is not None:
            os.close(fd)


class StepError(Exception):
    """A step that failed for a reason of its own, not a system call's: the text is Docker's where Docker has one.

    `exit_code` is what Docker keeps as the container's (127 not found, 126 cannot be executed, else 128).
    """

    def __init__(self, message: str, exit_code: int = 128) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Step(Struct):
    """Base of all steps. Sub-classes are found by their name when a plan arrives as data."""

    kinds: ClassVar[dict[str, type[Step]]] = {}
    forks: ClassVar[bool] = False
    """Whether it makes a process and names it to the host's /proc: not to be run by one that is in a pid namespace of its own."""
    usual: ClassVar[bool] = True
    """Whether many containers have the same one. Not where it says what one of them alone has, such as its environment: see `learn`."""
    final: ClassVar[bool] = False
    """Whether nothing is said of its success: from here on the program's own filter may forbid to write (`shim.stages`)."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Step.kinds[cls.__name__] = cls

    def describe(self) -> str:
        """One line: what is done, to what, in the words of the man pages."""
        raise NotImplementedError(type(self).__name__)

    def run(self, ctx: Context) -> None:
        """Do it. Raises `OSError` (`KernelError` where a call of ours failed) or `StepError`."""
        raise NotImplementedError(type(self).__name__)

    def advice(self, errno: int) -> str:
        """What a user can do about this errno; empty where nothing more than the errno is known."""
        return _GENERAL_ADVICE.get(errno, "")


_GENERAL_ADVICE = {
    errno_names.ENOSPC: "free some disk space, or raise the limit that /proc/sys/user/max_*_namespaces or fs.mount-max sets",
    errno_names.EMFILE: "too many open files: raise the limit (ulimit -n)",
    errno_names.ENFILE: "the system has too many open files: raise fs.file-max",
    errno_names.ENOMEM: "the memory limit of the container is too small for its start, or the machine has none left",
    errno_names.EROFS: "the file system is read-only there",
}


def encode(steps: list[Step] | tuple[Step, ...]) -> list[list[Any]]:
    """Steps as what is JSON: [kind, values...] each. Their fields are plain already, or they could not be read back."""
    return [[type(step).__name__, *step.to_values()] for step in steps]


def decode(data: list[list[Any]]) -> list[Step]:
    """The steps that `encode` described; their modules must have been imported. Raises KeyError for an unknown kind."""
    return [Step.kinds[kind].from_values(values) for kind, *values in data]


def to_lines(steps: list[Step] | tuple[Step, ...]) -> list[str]:
    """The same as text without line feeds, one for each step."""
    return [jsontext.text(one) for one in encode(steps)]


_known: dict[str, Step] = {}
"""Steps by their lines, for `from_lines`."""


def learn(lines: list[str]) -> None:
    """Keep the steps of these lines in memory, where those who are forked from this process find them. What cannot be read is passed over."""
    for line in lines:
        try:
            (_known[line],) = decode(jsontext.loads(f"[{line}]"))
        except (LookupError, TypeError, ValueError):
            continue


def from_lines(lines: list[str]) -> list[Step]:
    """The steps of `to_lines`. Raises KeyError for an unknown kind, ValueError for what is no JSON."""
    # In one document: a call for each line costs more than what it reads.
    made = iter(decode(jsontext.loads(f"[{','.join([line for line in lines if line not in _known])}]")))
    return [_known.get(line) or next(made) for line in lines]
