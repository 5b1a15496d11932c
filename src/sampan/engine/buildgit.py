"""Trees of git repositories, by the host's git: as a context, or a source of ADD.

It is given lists of arguments, with `--` before what is not ours; the protocols that it may speak are named in its environment, for
submodules and redirects too, which are the repository's word. Hooks, filters of the repository and questions are off: it has no
terminal. A subdirectory is opened below the tree without a link on the way.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress

from sampan.build.addresses import PROTOCOLS, redacted
from sampan.errors import InvalidParameter, NotFound, System, Unavailable
from sampan.kernel import paths
from sampan.kernel.libc import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.build.addresses import GitAddress
    from sampan.engine.buildcancel import Cancellation

_OPTIONS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.symlinks=true"),
    *("-c", "advice.detachedHead=false", "-c", "gc.auto=0", "-c", "init.defaultBranch=main"),
)
_TOLD = 4096  # characters of git's own words
_SHORT_HASH = 7


class _GitFailed(System):
    """git said no."""


def check_out(
    address: GitAddress, directory: str, cancellation: Cancellation, keep_git_dir: bool = False, checksum: str = ""
) -> str:
    """Put the repository's tree into an empty directory; the path of the subdirectory in it that was asked for.

    checksum: the commit, or how it begins, that it must be. Raises `System` with git's words, `NotFound`, `InvalidParameter`,
    `Unavailable` without git, `Cancelled`.
    """
    git = _Git(directory, cancellation)
    git("init", "--quiet", "--template=")
    ref = address.ref or "HEAD"
    try:
        git("fetch", "--quiet", "--no-tags", "--depth", "1", "--", address.url, ref)
        git("checkout", "--quiet", "--detach", "FETCH_HEAD")
    except _GitFailed:
        # A server that has no shallow copies, or gives no single commit: then all of it.
        heads = "+refs/heads/*:refs/remotes/origin/*"
        git("fetch", "--quiet", "--tags", "--", address.url, heads, ref if not _is_hash(ref) else "HEAD")
        git("checkout", "--quiet", "--detach", ref if _is_hash(ref) else "FETCH_HEAD")
    if checksum:
        _check(address, git, checksum)
    if os.path.lexists(f"{directory}/.gitmodules"):
        git("submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1")
    if not keep_git_dir:
        _forget_repositories(directory)
    return _subdirectory(address, directory)


def _is_hash(ref: str) -> bool:
    return _SHORT_HASH <= len(ref) <= 64 and all(c in "0123456789abcdef" for c in ref)


def _check(address: GitAddress, git: _Git, checksum: str) -> None:
    commit = git("rev-parse", "--verify", "FETCH_HEAD^{commit}").strip()
    head = git("rev-parse", "--verify", "HEAD").strip()
    if not head.startswith(checksum.lower()):
        raise InvalidParameter(
            f"{redacted(address.url)}: expected checksum {checksum}, but the commit is {head or commit}"
        )


class _Git:
    """git in a directory."""

    def __init__(self, directory: str, cancellation: Cancellation) -> None:
        self._directory = directory
        self._cancellation = cancellation

    def __call__(self, *arguments: str) -> str:
        """Run it; what it says. Raises `_GitFailed`, `Unavailable`, `Cancelled`."""
        command = ["git", *_OPTIONS, "-C", self._directory, *arguments]
        code, out, told = self._run(command)
        self._cancellation.check()
        if code:
            raise _GitFailed(f"git {arguments[0]}: {_words(told, arguments)}")
        return out.decode("utf-8", "replace")

    def _run(self, command: Sequence[str]) -> tuple[int, bytes, bytes]:
        from subprocess import DEVNULL, PIPE, Popen

        try:
            # With a process group of its own, for it has others talk to a server: none of them is to go on without us.
            process = Popen(
                command, env=_environment(), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
        except FileNotFoundError:
            raise Unavailable("git is not there: install it, or give the build a directory or an archive") from None

        def kill() -> None:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

        with process:
            try:
                with self._cancellation.ending(kill):
                    out, told = process.communicate()
            except BaseException:
                kill()
                raise
            return process.returncode, out, told


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_CONFIG")}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PROXY_COMMAND"):
        environment.pop(name, None)
    return environment | {"GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}


def _words(said: bytes, arguments: Sequence[str]) -> str:
    text = said.decode("utf-8", "replace").strip()[:_TOLD]
    for argument in arguments:
        text = text.replace(argument, redacted(argument))
    return text or "it failed without a word"


def _forget_repositories(directory: str) -> None:
    """Take .git away, of the tree and of submodules, where it is a file."""
    from sampan.store.staging import delete_tree

    for path, directories, files in os.walk(directory):
        if ".git" in directories:
            directories.remove(".git")
            delete_tree(f"{path}/.git")
        if ".git" in files:
            os.unlink(f"{path}/.git")


def _subdirectory(address: GitAddress, directory: str) -> str:
    if not address.subdirectory:
        return directory
    what = f"{redacted(address.url)}: subdirectory {address.subdirectory}"
    top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(paths.open_in_root(top, address.subdirectory, os.O_PATH | os.O_DIRECTORY, no_symlinks=True))
    except KernelError as e:
        if e.errno == errno.ELOOP:
            raise InvalidParameter(f"{what}: there is a symbolic link on the way, which is not followed") from None
        raise NotFound(f"{what}: {os.strerror(e.errno or 0).lower()}") from None
    finally:
        os.close(top)
    # Nobody but us writes here: it is what it was a moment ago.
    return f"{directory}/{os.fsdecode(paths.clean(address.subdirectory))}"
