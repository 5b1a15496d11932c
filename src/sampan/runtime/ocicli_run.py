"""`sampan-oci` create and run.

Stage1 is started first, and what the rest needs is imported when it is on its way.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidParameter
from sampan.runtime import ocispawn
from sampan.runtime.ociflags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.ocicli import Global
    from sampan.runtime.ociflags import Arguments
    from sampan.runtime.ocimake import Maker
    from sampan.runtime.ocistate import Container

_BOTH = (
    Flag("bundle", "string", "the directory with config.json (default: this one)", "b"),
    Flag("console-socket", "string", "a socket that gets the master of the container's terminal"),
    Flag("pid-file", "string", "the file that gets the process' id"),
    Flag("no-pivot", "bool", "move the root instead of pivot_root, where / is an initramfs"),
    Flag("no-new-keyring", "bool", "keep the caller's session keyring"),
    Flag("preserve-fds", "int", "how many descriptors from 3 on the process gets"),
)

FLAGS = {
    "create": _BOTH,
    "run": (
        *_BOTH,
        Flag("detach", "bool", "do not wait for the container's end", "d"),
        Flag("keep", "bool", "do not delete the container when it has ended"),
        Flag("no-subreaper", "bool", "leave what the container's processes leave behind to init"),
    ),
}


def create(given: Global, arguments: Arguments) -> int:
    with ocispawn.open_stage(arguments["preserve-fds"]) as stage:
        maker = _maker(given, arguments, stage, hold=True)
        config = maker.read()
        maker.make(config, _console(arguments, maker, detached=True))
    return 0


def run(given: Global, arguments: Arguments) -> int:
    detached = arguments["detach"]
    with ocispawn.open_stage(arguments["preserve-fds"]) as stage:
        maker = _maker(given, arguments, stage, hold=False)
        config = maker.read()
        if not detached:
            return _run_to_its_end(given, arguments, maker, config)
        container = maker.make(config, _console(arguments, maker, detached))
        _started(container, maker)
    return 0


def _run_to_its_end(given: Global, arguments: Arguments, maker: Maker, config: dict[str, Any]) -> int:
    from sampan.runtime import ociforeground, ocimake

    session = ociforeground.Session(bool(config["process"].get("terminal")), not arguments["no-subreaper"])
    try:
        _console(arguments, maker, detached=False)
        container = maker.make(config, session.console)
        _started(container, maker)
        code = session.serve(maker.launch.pid)
    finally:
        session.close()
    if not arguments["keep"]:
        ocimake.undo(container, given.log)
    return code


def _started(container: Container, maker: Maker) -> None:
    """The program runs: the last hooks. Whoever has made it is to have it undone when they fail."""
    if not (container.config.get("hooks") or {}).get("poststart"):
        return
    from sampan.runtime import ocicli_life, ocimake

    try:
        ocicli_life.poststart(container, maker.log)
    except BaseException:
        ocimake.undo(container, maker.log)
        raise


def _maker(given: Global, arguments: Arguments, stage: ocispawn.Stage, hold: bool) -> Maker:
    from sampan.runtime import ocimake, ocistate

    identifier = arguments.words[0]
    ocistate.check_id(identifier)
    bundle = os.path.abspath(arguments["bundle"] or ".")
    pid_file = os.path.abspath(arguments["pid-file"]) if arguments["pid-file"] else ""
    keyring = not arguments["no-new-keyring"]
    wish = ocimake.Wish(given.root, identifier, bundle, pid_file, stage.preserved, arguments["no-pivot"], keyring, hold)
    return ocimake.Maker(wish, stage, given.log)


def _console(arguments: Arguments, maker: Maker, detached: bool) -> Any:
    """The connection to --console-socket, None without a terminal. Raises `InvalidParameter` when one is there without the other."""
    path, terminal = arguments["console-socket"], bool(maker.spec["process"].get("terminal"))
    if detached and terminal and not path:
        raise InvalidParameter("cannot allocate tty if sampan-oci will detach without setting console socket")
    if path and not (detached and terminal):
        raise InvalidParameter("cannot use console socket if sampan-oci will not detach or allocate tty")
    if not path:
        return None
    from sampan.runtime import ocimake

    return ocimake.connect(path, "--console-socket")
