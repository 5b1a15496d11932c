"""The machine's own programs, gathered with everything that they need to run: what the `base` image is made of.

A static busybox needs nothing else. Otherwise a shell and the usual tools are taken, their interpreters and
libraries found as ld.so(8) finds them: DT_RPATH or DT_RUNPATH, then the configured and the usual directories.

A tree is gathered in memory, name by name, and the same machine always gives the same one: places are searched in a
fixed order before PATH, and nothing depends on the time or on the order of a directory.
"""

from __future__ import annotations

import os
import posixpath

from sampan.errors import Unavailable
from sampan.oci import elf
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sampan.oci.elf import Elf

_PLACES = (
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/lib/initramfs-tools/bin",
)
_BUSYBOXES = ("busybox", "busybox.static", "busybox-static")
_SHELLS = ("dash", "bash", "sh", "ash", "ksh")

# GNU coreutils, and a few that a person at a shell misses first. What the machine has not is left out.
_TOOLS = """
[ b2sum base32 base64 basename basenc cat chgrp chmod chown chroot cksum comm cp csplit cut date dd df dir dircolors
dirname du echo env expand expr factor false fmt fold groups head hostid id install join link ln logname ls md5sum
mkdir mkfifo mknod mktemp mv nice nl nohup nproc numfmt od paste pathchk pinky pr printenv printf ptx pwd readlink
realpath rm rmdir seq sha1sum sha224sum sha256sum sha384sum sha512sum shred shuf sleep sort split stat stty sum sync
tac tail tee test timeout touch tr true truncate tsort tty uname unexpand uniq unlink uptime users vdir wc who whoami
yes awk cmp find grep gzip hostname kill mount ps sed tar umount xargs
"""

_LIBRARY_PLACES = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib")
# glibc opens it by name when a program asks who a uid is; before 2.34 it was a file of its own.
_OPENED_BY_LIBC = "libnss_files.so.2"
_MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr/lib32", "/usr/lib64", "/usr/sbin")


class Tree(Struct):
    """Files of the machine and links, by absolute path in the image. `summary` says in a few words what it is.

    files: path -> (path on the machine, permissions). links: path -> target.
    """

    summary: str
    files: dict[str, tuple[str, int]]
    links: dict[str, str]


def gather(places: Sequence[str] | None = None) -> Tree:
    """The machine's busybox, or its shell and tools. `places` are the directories to look in, default the usual ones.

    Raises `Unavailable` if the machine has neither.
    """
    if places is None:
        places = [*_PLACES, *filter(None, os.environ.get("PATH", "").split(":"))]
    busybox = _static_busybox(places)
    if busybox is not None:
        tree = _busybox_tree(busybox)
        if tree is not None:
            return tree
    return _Gatherer(places).gather()


# busybox


def _static_busybox(places: Sequence[str]) -> str | None:
    """The path of the first busybox that runs without anything else."""
    for name in _BUSYBOXES:
        for path in _candidates(name, places):
            data = _program(path)
            if data is not None and elf.parse(data).is_static:
                return os.path.realpath(path)
    return None


def _busybox_tree(path: str) -> Tree | None:
    """The busybox with a link for each of its applets, as Debian and its own `--install -s` lay them out."""
    links = {}
    for applet in _applets(path):
        link = "/" + applet if "/" in applet else "/bin/" + applet
        if link != "/bin/busybox":
            links[link] = "/bin/busybox"
    # Some are built without a shell, for an initramfs that brings another one.
    return Tree("busybox", {"/bin/busybox": (path, 0o755)}, links) if "/bin/sh" in links else None


def _applets(path: str) -> list[str]:
    """What the busybox can do: paths like `usr/bin/wc`, or bare names if it was built without its paths."""
    import subprocess

    for option in ("--list-full", "--list"):
        ran = subprocess.run(
            [path, option], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}
        )
        names = ran.stdout.decode("utf-8", "replace").split()
        if ran.returncode == 0 and names:
            return [posixpath.normpath(name).lstrip("/") for name in names]
    return []


# A shell, the tools, and their libraries


class _Gatherer:
    """Takes programs one after the other, and after them all that they need."""

    def __init__(self, places: Sequence[str]) -> None:
        self._places = places
        self._files: dict[str, tuple[str, int]] = {}
        self._links: dict[str, str] = {}
        self._search = [*_configured_libraries("/etc/ld.so.conf"), *_LIBRARY_PLACES]
        # Library -> whether it was searched for, and not found where a file itself says.
        self._libraries: dict[str, bool] = {}
        self._seen: set[str] = set()

    def gather(self) -> Tree:
        shells = (self._take_program(name) for name in _SHELLS)
        shell = next((place for place in shells if place), None)
        if shell is None:
            raise Unavailable(
                "the base image cannot be made: this machine has neither a static busybox nor a shell; "
                "install busybox-static, or bring an image in with `sampan import`"
            )
        sh = _canonical("/bin/sh")
        if sh not in self._files:
            self._links.setdefault(sh, shell)
        count = sum(1 for tool in _TOOLS.split() if self._take_program(tool))
        self._place_libraries()
        self._link_merged_directories()
        return Tree(f"{posixpath.basename(shell)} and {count} tools", self._files, self._links)

    def _take_program(self, name: str) -> str | None:
        """Take the first program of the name; its path in the image."""
        for path in _candidates(name, self._places):
            real = os.path.realpath(path)
            data = _program(real)
            if data is None:
                continue
            # What is found in a directory of somebody's own PATH goes where everybody's PATH leads.
            place = _canonical(path if posixpath.dirname(path) in _PLACES else f"/bin/{name}")
            target = _canonical(real)
            self._files[target] = (real, 0o755)
            if place != target:
                # awk -> /etc/alternatives/awk -> mawk: one link says as much as the chain.
                self._links[place] = target
            self._take_needs(real, elf.parse(data), ())
            return place
        return None

    def _take_needs(self, path: str, program: Elf, inherited: tuple[str, ...]) -> None:
        """The interpreter and the libraries of a program or a library, and theirs."""
        if path in self._seen:
            return
        self._seen.add(path)
        if program.interpreter:
            self._files[_canonical(program.interpreter)] = (os.path.realpath(program.interpreter), 0o755)
        # DT_RPATH also serves the libraries below the one that has it, DT_RUNPATH does not (ld.so(8)).
        rpath = () if program.runpath else (*(_expand(d, path, program) for d in program.rpath), *inherited)
        for name in program.needed:
            library = self._find_library(name, program, path, rpath)
            if library is None:
                raise Unavailable(f"the base image cannot be made: {path} needs {name}, which is nowhere to be found")
            real = os.path.realpath(library)
            self._take_needs(real, elf.parse(_read(real)), rpath)

    def _find_library(self, name: str, program: Elf, path: str, rpath: tuple[str, ...]) -> str | None:
        own = [*rpath, *(_expand(d, path, program) for d in program.runpath)]
        for directory in [*own, *self._search]:
            library = f"{directory}/{name}"
            data = _program(os.path.realpath(library), executable=False)
            if data is not None and elf.parse(data).same_machine(program):
                self._libraries[library] = self._libraries.get(library, True) and directory not in own
                return library
        return None

    def _place_libraries(self) -> None:
        """Each where it is on the machine, but those beside the C library that only the loader's configuration knows.

        The image has no ld.so.cache. Where the C library is, the loader looks without one.
        """
        libc = [p for p in self._libraries if posixpath.basename(p).startswith(("libc.so.", "libc.musl"))]
        usual = posixpath.dirname(libc[0]) if libc else ""
        if libc and os.path.exists(f"{usual}/{_OPENED_BY_LIBC}"):
            self._libraries[f"{usual}/{_OPENED_BY_LIBC}"] = True
        for library, searched in self._libraries.items():
            directory, name = posixpath.split(library)
            place = f"{usual if usual and searched else directory}/{name}"
            self._files[_canonical(place)] = (os.path.realpath(library), 0o755)

    def _link_merged_directories(self) -> None:
        """/bin -> usr/bin and its kind, where the machine has them and something is behind them."""
        taken = [*self._files, *self._links]
        for top in _MERGED:
            real = os.path.realpath(top)
            if os.path.islink(top) and any(path.startswith(real + "/") for path in taken):
                self._links[top] = os.readlink(top)


def _canonical(path: str) -> str:
    """The path with links of directories followed: /lib64/x is /usr/lib64/x where /lib64 is a link."""
    directory, name = posixpath.split(path)
    return posixpath.join(os.path.realpath(directory), name)


def _candidates(name: str, places: Sequence[str]) -> Iterator[str]:
    for place in places:
        path = f"{place}/{name}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            yield path


def _program(path: str, executable: bool = True) -> bytes | None:
    """The bytes of an ELF file; None if it is none (a script), or may not be read."""
    if not os.path.isfile(path) or (executable and not os.access(path, os.X_OK)):
        return None
    data = _read(path)
    return data if data.startswith(elf.MAGIC) else None


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _expand(directory: str, path: str, program: Elf) -> str:
    """A directory of DT_RPATH or DT_RUNPATH with the tokens of ld.so(8) replaced."""
    values = {
        "ORIGIN": posixpath.dirname(path),
        "LIB": "lib64" if program.bits == 64 else "lib",
        "PLATFORM": os.uname().machine,
    }
    for name, value in values.items():
        directory = directory.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return directory


def _configured_libraries(path: str, depth: int = 0) -> list[str]:
    """The directories of ld.so.conf, its includes followed (ldconfig(8)). Absent is empty."""
    import glob

    found: list[str] = []
    try:
        lines = _read(path).decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return found
    for line in lines:
        words = line.partition("#")[0].replace(",", " ").split()
        if words[:1] == ["include"] and depth < 8:
            for pattern in words[1:]:
                pattern = posixpath.join(posixpath.dirname(path), pattern)
                for included in sorted(glob.glob(pattern)):
                    found += _configured_libraries(included, depth + 1)
        elif words[:1] != ["hwcap"]:
            found += words
    return found
