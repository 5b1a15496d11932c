"""`sampan-oci exec`: its command line. What it does is in `ociexec`, imported when stage1 is on its way."""

from __future__ import annotations

from sampan.runtime import ocispawn
from sampan.runtime.ociflags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.ocicli import Global
    from sampan.runtime.ociflags import Arguments

FLAGS = {
    "exec": (
        Flag("console-socket", "string", "a socket that gets the master of the process' terminal"),
        Flag("cwd", "string", "its working directory"),
        Flag("env", "list", "variables of its environment", "e"),
        Flag("tty", "bool", "a terminal of its own", "t"),
        Flag("user", "string", "UID[:GID]", "u"),
        Flag("additional-gids", "list", "more groups", "g"),
        Flag("process", "string", "a file with the process object", "p"),
        Flag("detach", "bool", "do not wait for its end", "d"),
        Flag("pid-file", "string", "the file that gets the process' id"),
        Flag("process-label", "string", "refused: SELinux labels are not supported"),
        Flag("apparmor", "string", "refused: AppArmor profiles are not supported"),
        Flag("no-new-privs", "bool", "no execve may grant more"),
        Flag("cap", "list", "more capabilities", "c"),
        Flag("preserve-fds", "int", "how many descriptors from 3 on the process gets"),
        Flag("cgroup", "list", "[CONTROLLER[,CONTROLLER]:]PATH, a cgroup below the container's for the process"),
        Flag("ignore-paused", "bool", "also in a paused container, where it runs when that goes on"),
    )
}


def exec_(given: Global, arguments: Arguments) -> int:
    with ocispawn.open_stage(arguments["preserve-fds"]) as stage:
        from sampan.runtime import ociexec

        return ociexec.run(given, arguments, stage)
