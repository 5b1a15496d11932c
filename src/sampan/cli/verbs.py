"""Which verbs there are: a static table, so that finding one costs no import but that of its own module."""

from __future__ import annotations

from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments, Flag


class Command(Struct):
    """A verb as its module defines it.

    usage: what follows the name in the help. action: does it and gives the exit code. at_least, at_most: how many words
    it takes (at_most -1: any number). interspersed: see `flags.parse`. refused: the exit code when the engine says no.
    """

    usage: str
    action: Callable[[Context, Arguments], int]
    flags: tuple[Flag, ...] = ()
    at_least: int = 0
    at_most: int = -1
    interspersed: bool = True
    refused: int = 1


class Entry(Struct):
    """One line of the table: where the `Command` is, and what the list of verbs says of it."""

    module: str
    attribute: str
    summary: str
    common: bool = False


VERBS = {
    "run": Entry("sampan.cli.run", "RUN", "Create a container from an image and run it", common=True),
    "exec": Entry("sampan.cli.exec", "EXEC", "Run a command in a running container", common=True),
    "build": Entry("sampan.cli.build", "BUILD", "Build an image from a Dockerfile", common=True),
    "ps": Entry("sampan.cli.ps", "PS", "List containers", common=True),
    "images": Entry("sampan.cli.images", "IMAGES", "List images", common=True),
    "version": Entry("sampan.cli.system", "VERSION", "Show the version of sampan and of what it runs on", common=True),
    "info": Entry("sampan.cli.system", "INFO", "Show what this installation has and can do", common=True),
    "attach": Entry("sampan.cli.attach", "ATTACH", "Attach this terminal to a running container"),
    "audit": Entry("sampan.cli.audit", "AUDIT", "Try, harmlessly, what the programs of a container are kept from"),
    "boot": Entry(
        "sampan.cli.boot", "BOOT", "Start what should run by its restart policy, after the machine has come up"
    ),
    "commit": Entry("sampan.cli.commit", "COMMIT", "Make an image of what a container has changed"),
    "cp": Entry("sampan.cli.cp", "CP", "Copy files between a container and this machine"),
    "create": Entry("sampan.cli.run", "CREATE", "Create a container without starting it"),
    "diff": Entry("sampan.cli.commit", "DIFF", "Show which files a container has changed"),
    "events": Entry("sampan.cli.events", "EVENTS", "Show what happens to containers, images and volumes"),
    "export": Entry("sampan.cli.commit", "EXPORT", "Write a container's file system into a tar archive"),
    "history": Entry("sampan.cli.images", "HISTORY", "Show how an image came about"),
    "import": Entry("sampan.cli.archives", "IMPORT", "Make an image of a tar archive of a file system"),
    "inspect": Entry("sampan.cli.inspect", "INSPECT", "Show everything known of containers and images as JSON"),
    "kill": Entry("sampan.cli.containers", "KILL", "Send a signal to running containers, SIGKILL by default"),
    "load": Entry("sampan.cli.archives", "LOAD", "Load images from an archive"),
    "login": Entry("sampan.cli.login", "LOGIN", "Log in to a registry"),
    "logout": Entry("sampan.cli.login", "LOGOUT", "Log out of a registry"),
    "logs": Entry("sampan.cli.logs", "LOGS", "Show what a container has written"),
    "pause": Entry("sampan.cli.containers", "PAUSE", "Freeze all processes of containers"),
    "port": Entry("sampan.cli.port", "PORT", "Show where ports of a container are published"),
    "pull": Entry("sampan.cli.pull", "PULL", "Bring an image in from a registry"),
    "push": Entry("sampan.cli.push", "PUSH", "Send an image to a registry"),
    "rename": Entry("sampan.cli.containers", "RENAME", "Give a container another name"),
    "restart": Entry("sampan.cli.containers", "RESTART", "Stop containers and start them again"),
    "rm": Entry("sampan.cli.containers", "RM", "Remove containers"),
    "rmi": Entry("sampan.cli.images", "RMI", "Remove images"),
    "save": Entry("sampan.cli.archives", "SAVE", "Save images as an archive"),
    "serve": Entry("sampan.cli.serve", "SERVE", "Serve Docker's Engine API to its clients"),
    "start": Entry("sampan.cli.start", "START", "Start stopped containers"),
    "stats": Entry("sampan.cli.stats", "STATS", "Show what containers use, again every second"),
    "stop": Entry("sampan.cli.containers", "STOP", "Stop running containers"),
    "tag": Entry("sampan.cli.images", "TAG", "Give an image another name"),
    "top": Entry("sampan.cli.top", "TOP", "Show the processes of a container"),
    "unpause": Entry("sampan.cli.containers", "UNPAUSE", "Let the processes of paused containers go on"),
    "update": Entry("sampan.cli.update", "UPDATE", "Change the limits and the restart policy of containers"),
    "warm": Entry("sampan.cli.warm", "WARM", "Keep a process at hand that makes starts fast, for a while"),
    "wait": Entry("sampan.cli.containers", "WAIT", "Wait until containers stop, then print their exit codes"),
}

# The verbs by what they work on, as Docker groups them: the word behind the group's name -> the verb.
GROUPS = {
    "container": (
        "Manage containers",
        {
            **{v: v for v in ("attach", "audit", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "port", "rename")},
            **{v: v for v in ("restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait")},
            "inspect": "container inspect",
            "ls": "ps",
            "prune": "container prune",
        },
    ),
    "image": (
        "Manage images",
        {
            **{v: v for v in ("build", "history", "import", "load", "pull", "push", "save", "tag")},
            **{v: f"image {v}" for v in ("diff", "inspect", "layers", "prune", "tree")},
            "ls": "images",
            "rm": "rmi",
        },
    ),
    "builder": ("Manage builds", {"build": "build", "prune": "builder prune"}),
    "completion": ("Print what makes a shell complete command lines of sampan", {v: f"completion {v}" for v in ("bash", "fish", "zsh")}),
    "manifest": ("Look at manifests in registries", {"inspect": "manifest inspect"}),
    "network": ("Manage networks", {v: f"network {v}" for v in ("connect", "create", "disconnect", "inspect", "ls", "prune", "rm")}),
    "volume": ("Manage volumes", {v: f"volume {v}" for v in ("create", "inspect", "ls", "prune", "rm")}),
    "system": (
        "Manage sampan",
        {"check": "system check", "df": "system df", "events": "events", "info": "info", "prune": "system prune"},
    ),
}  # fmt: skip

# Other words for the same, not in the lists.
ALIASES = {
    ("container", "list"): "ls",
    ("container", "ps"): "ls",
    ("container", "remove"): "rm",
    ("image", "list"): "ls",
    ("image", "remove"): "rm",
    ("network", "list"): "ls",
    ("network", "remove"): "rm",
    ("volume", "list"): "ls",
    ("volume", "remove"): "rm",
}

# Verbs that exist in a group only.
GROUP_VERBS = {
    "completion bash": Entry("sampan.cli.completion", "BASH", "Print the script for bash"),
    "completion fish": Entry("sampan.cli.completion", "FISH", "Print the script for fish"),
    "completion zsh": Entry("sampan.cli.completion", "ZSH", "Print the script for zsh"),
    "container inspect": Entry(
        "sampan.cli.inspect", "CONTAINER_INSPECT", "Show everything known of containers as JSON"
    ),
    "manifest inspect": Entry("sampan.cli.manifest", "INSPECT", "Show what a registry has under a name"),
    "network connect": Entry("sampan.cli.connections", "CONNECT", "Put a container into a network"),
    "network disconnect": Entry("sampan.cli.connections", "DISCONNECT", "Take a container out of a network"),
    "network create": Entry("sampan.cli.networks", "CREATE", "Create a network"),
    "network inspect": Entry("sampan.cli.inspect", "NETWORK_INSPECT", "Show everything known of networks as JSON"),
    "network ls": Entry("sampan.cli.networks", "LS", "List networks"),
    "network prune": Entry("sampan.cli.networks", "PRUNE", "Remove all networks that no container is in"),
    "network rm": Entry("sampan.cli.networks", "RM", "Remove networks"),
    "volume create": Entry("sampan.cli.volumes", "CREATE", "Create a volume"),
    "volume inspect": Entry("sampan.cli.inspect", "VOLUME_INSPECT", "Show everything known of volumes as JSON"),
    "volume ls": Entry("sampan.cli.volumes", "LS", "List volumes"),
    "volume prune": Entry("sampan.cli.volumes", "PRUNE", "Remove all volumes that no container uses"),
    "volume rm": Entry("sampan.cli.volumes", "RM", "Remove volumes"),
    "image diff": Entry("sampan.cli.explore", "DIFF", "Show what files differ between two images"),
    "image layers": Entry("sampan.cli.explore", "LAYERS", "Show what each layer of an image did, and what it wastes"),
    "image tree": Entry("sampan.cli.explore", "TREE", "Show which layer the files of an image come from"),
    "image prune": Entry("sampan.cli.images", "PRUNE", "Remove images without a name, or all that no container uses"),
    "image inspect": Entry("sampan.cli.inspect", "IMAGE_INSPECT", "Show everything known of images as JSON"),
    "builder prune": Entry("sampan.cli.builder", "PRUNE", "Remove build cache"),
    "container prune": Entry("sampan.cli.prune", "CONTAINERS", "Remove all stopped containers"),
    "system check": Entry("sampan.cli.check", "CHECK", "Find and mend what does not fit together"),
    "system df": Entry("sampan.cli.usage", "DF", "Show what takes how much of the disk"),
    "system prune": Entry("sampan.cli.prune", "SYSTEM", "Remove what nobody uses"),
}


def entry(name: str) -> Entry:
    """The table's line for a verb."""
    return VERBS.get(name) or GROUP_VERBS[name]


def load(name: str) -> Command:
    """Import a verb's module and give its command."""
    found = entry(name)
    # __import__ and not importlib, whose package would be imported for nothing else.
    command: Command = getattr(__import__(found.module, fromlist=[found.attribute]), found.attribute)
    return command
