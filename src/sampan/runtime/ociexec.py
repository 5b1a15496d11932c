"""`sampan-oci exec`: another process in a container."""

from __future__ import annotations

import os

from sampan.errors import Conflict, InvalidParameter
from sampan.kernel import capabilities
from sampan.oci import runtime as oci
from sampan.runtime import ocilaunch, ocimake, ocispec, ocistate, plan, planexec
from sampan.steps.joining import OpenCgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.ocicli import Global
    from sampan.runtime.ociflags import Arguments
    from sampan.runtime.ocispawn import Stage
    from sampan.runtime.ocistate import Container


def run(given: Global, arguments: Arguments, stage: Stage) -> int:
    """Run the process of the command line; the exit code. Raises `SampanError`."""
    container = ocistate.find(given.root, arguments.words[0])
    _check_status(container, arguments["ignore-paused"])
    own = _process(container, arguments)
    ocispec.grant(own, given.log)
    terminal, detached = bool(own.get("terminal")), arguments["detach"]
    path = arguments["console-socket"]
    if detached and terminal and not path:
        raise InvalidParameter("cannot allocate tty if sampan-oci will detach without setting console socket")
    if path and not terminal:
        raise InvalidParameter("cannot use console socket if sampan-oci will not detach or allocate tty")
    agent = ocispec.listener_of(container.config)
    told = ocispec.process_state(container.config, container.state(ocistate.RUNNING)) if agent else ""
    mode = plan.Mode(monitored=False, strict=True, preserved=stage.preserved, console=terminal, listener=told)
    stages = planexec.make_exec_stages(
        own,
        container.group,
        container.driver,
        mode,
        oci.namespace(container.config, "user") is not None,
        ocispec.filter_of(container.config),
        _groups(arguments["cgroup"], container) if arguments["cgroup"] else None,
    )
    session = None
    if not detached:
        from sampan.runtime import ociforeground

        session = ociforeground.Session(terminal and not path, adopt=False)
    console = ocimake.connect(path, "--console-socket") if path else session.console if session is not None else None
    launch = _launch(container, arguments, stages, console, ocilaunch.Launch(stage, given.log.steps))
    if session is None:
        return 0
    try:
        return session.serve(launch.pid)
    finally:
        session.close()


def _launch(
    container: Container, arguments: Arguments, stages: Any, console: Any, launch: ocilaunch.Launch
) -> ocilaunch.Launch:
    try:
        pidfd = container.open_process()
    except ProcessLookupError:
        raise Conflict("cannot exec in a stopped container") from None
    try:
        descriptors = {"init": pidfd}
        if console is not None:
            descriptors["console.socket"] = console.fileno()
        if path := ocispec.listener_of(container.config):
            descriptors["listener.socket"] = ocimake.connect(path, "linux.seccomp.listenerPath").detach()
        launch.start(stages, (), descriptors, lambda _word: None)
    finally:
        os.close(pidfd)
    try:
        if arguments["pid-file"]:
            ocimake.write_pid(arguments["pid-file"], launch.pid)
    except BaseException:
        launch.kill()
        raise
    return launch


def _check_status(container: Container, ignore_paused: bool) -> None:
    status = container.status()
    if status == ocistate.STOPPED:
        raise Conflict("cannot exec in a stopped container")
    if status == ocistate.PAUSED and not ignore_paused:
        raise Conflict("cannot exec in a paused container (use --ignore-paused to override)")
    if status == ocistate.CREATING:
        raise Conflict("cannot exec in a container that is being created")


def _groups(words: list[str], container: Container) -> OpenCgroups:
    """--cgroup: groups below the container's, of all hierarchies or of those with the controllers that are named. Raises `InvalidParameter`."""
    driver, group = container.driver, container.group
    hierarchies = driver.hierarchies(group)
    everywhere, of = "", {}
    for word in words:
        controllers, colon, path = word.rpartition(":")
        if ".." in path.split("/"):
            raise InvalidParameter(f"--cgroup: {path} is no path below the container's cgroup")
        if not colon:
            everywhere = path.strip("/")
        elif driver.version == "v2":
            raise InvalidParameter(f"--cgroup {word}: cgroup v2 has one hierarchy for all controllers: leave them out")
        for controller in controllers.split(",") if colon else ():
            if not any(controller in h.name.split(",") for h in hierarchies):
                raise InvalidParameter(f"--cgroup: there is no controller {controller or word!r} here")
            of[controller] = path.strip("/")
    below: dict[str, str] = {}
    for hierarchy in hierarchies:
        names = hierarchy.name.split(",")
        path = next((of[name] for name in names if name in of), everywhere)
        if path and not os.path.isdir(f"{hierarchy.directory}/{path}"):
            if path == everywhere and driver.version != "v2" and not driver.controllers.intersection(names):
                path = ""  # one without controllers, which nobody may have made groups in
            else:
                raise InvalidParameter(
                    f"--cgroup: no cgroup {path} below the container's: {hierarchy.directory}/{path}"
                )
        below[hierarchy.directory] = f"{hierarchy.directory}/{path}".rstrip("/")
    files = tuple(f"{below[os.path.dirname(file)]}/tasks" for file in driver.join_files(group))
    by_file = driver.version == "v2" and oci.namespace(container.config, "user") is not None
    return OpenCgroups(files, below.get(driver.clone_directory(group) or "", ""), by_file=by_file)


def _process(container: Container, arguments: Arguments) -> dict[str, Any]:
    """The process object: the file's, or the container's own with what the command line says."""
    for flag, what in (
        ("process-label", "SELinux labels"),
        ("apparmor", "AppArmor profiles"),
    ):
        if arguments[flag]:
            raise InvalidParameter(f"--{flag}: {what} are not supported")
    words = arguments.words[1:]
    if arguments["process"]:
        own = ocispec.read_process(arguments["process"])
        if words:
            raise InvalidParameter("--process and a command exclude each other")
    else:
        if not words:
            raise InvalidParameter("process args cannot be empty")
        own = {**container.config["process"], "args": words, "terminal": False}
        own["env"] = [*(own.get("env") or ()), *arguments["env"]]
        _lay_over(own, arguments)
    if arguments["tty"]:
        own["terminal"] = True
    own["user"] = ocispec.user(own)
    return own


def _lay_over(own: dict[str, Any], arguments: Arguments) -> None:
    if arguments["cwd"]:
        own["cwd"] = arguments["cwd"]
    if arguments["user"]:
        uid, _, gid = arguments["user"].partition(":")
        own["user"] = {**(own.get("user") or {}), "uid": _number(uid, "--user")}
        if gid:
            own["user"]["gid"] = _number(gid, "--user")
    if arguments["additional-gids"]:
        user = own["user"] = dict(own.get("user") or {})
        user["additionalGids"] = [
            *(user.get("additionalGids") or ()),
            *(_number(gid, "--additional-gids") for gid in arguments["additional-gids"]),
        ]
    if "no-new-privs" in arguments.given:
        own["noNewPrivileges"] = arguments["no-new-privs"]
    if arguments["cap"]:
        own["capabilities"] = _more_capabilities(own.get("capabilities") or {}, arguments["cap"])
    if not own["cwd"].startswith("/"):
        raise InvalidParameter(f"--cwd: {own['cwd']!r} is no absolute path")


def _more_capabilities(sets: dict[str, Any], names: list[str]) -> dict[str, Any]:
    for name in names:
        if name not in capabilities.NAMES:
            raise InvalidParameter(f"--cap: unknown capability {name!r}")
    more = dict(sets)
    for kind in ("bounding", "effective", "permitted"):
        more[kind] = [*(sets.get(kind) or ()), *(n for n in names if n not in (sets.get(kind) or ()))]
    # As runc has it: what is inheritable already becomes ambient too, so that a user other than root has it.
    if sets.get("inheritable") and sets.get("ambient") is not None:
        more["ambient"] = [*(sets.get("ambient") or ()), *(n for n in names if n in sets["inheritable"])]
    return more


def _number(text: str, flag: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) >= 1 << 32:
        raise InvalidParameter(f"{flag}: {text!r} is no id: names are not looked up")
    return int(text)
