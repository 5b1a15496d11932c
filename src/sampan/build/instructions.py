"""What a Dockerfile can say, one type for each instruction that does more than change the image's configuration.

The Dockerfile reference, section by section. Texts are as in the file: variables are replaced when a stage is built.
"""

from __future__ import annotations

from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.build.parser import Heredoc, Node


class Instruction(Struct):
    """node: where it is from."""

    node: Node


class From(Instruction):
    """`FROM [--platform=platform] image [AS name]`. name: in lower case, "" without one; name_typed: as it is in the file."""

    base: str
    name: str = ""
    name_typed: str = ""
    platform: str = ""


class Arg(Instruction):
    """`ARG name[=default] ...`: pairs of a name and its default, None without one."""

    pairs: tuple[tuple[str, str | None], ...]


class RunMount(Struct):
    """`RUN --mount=type=...`.

    kind: bind, cache, tmpfs, secret or ssh. target: where it is in the container. source, from_: of bind and cache what is mounted, and of
    which stage, image or context. read_only: None if it was not said. id: of a cache, a secret or an agent. env: the variable that a
    secret is put into. sharing: shared, private or locked. mode, uid, gid: of what is made, -1 if not said. size: bytes of a tmpfs.
    """

    kind: str
    target: str = ""
    source: str = ""
    from_: str = ""
    read_only: bool | None = None
    id: str = ""
    env: str = ""
    sharing: str = "shared"
    required: bool = False
    mode: int = -1
    uid: int = -1
    gid: int = -1
    size: int = 0


class Run(Instruction):
    """`RUN`. command: the list of an exec form, or the one text of the shell form. script: a heredoc that begins with "#!"."""

    command: tuple[str, ...]
    is_shell: bool
    mounts: tuple[str, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    script: Heredoc | None = None


class Copy(Instruction):
    """`COPY` and `ADD`. sources: paths, patterns and (ADD) addresses; files: heredocs by the name that they get.

    unpack: of ADD, None if it was not said. checksum, keep_git_dir: of ADD.
    """

    sources: tuple[str, ...]
    destination: str
    files: tuple[Heredoc, ...] = ()
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None

    @property
    def is_add(self) -> bool:
        return self.node.key == "add"


class Shell(Instruction):
    """`SHELL ["executable", "parameters"]`."""

    command: tuple[str, ...]


class Maintainer(Instruction):
    """`MAINTAINER name`, deprecated."""

    author: str


class Setting(Instruction):
    """One of the instructions that `oci.changes` carries out: they change the configuration and nothing else.

    (WORKDIR also makes its directory.) is_shell: of CMD, ENTRYPOINT and HEALTHCHECK, that they have no exec form.
    """

    is_shell: bool = False


class Stage(Struct):
    """A FROM with what follows it. index: its number, from 0."""

    index: int
    head: From
    body: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        return self.head.name


class Dockerfile(Struct):
    """arguments: the ARG instructions before the first FROM."""

    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    escape: str
