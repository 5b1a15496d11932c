"""The rules between the rooms of the house as data, and the reader of source text that applies them.

Nothing of the package is imported here: a rule has to hold for a module that cannot even be imported. The rules
themselves are explained in docs/tour.md; each has one sentence here, which a broken one prints with file and line.
"""

from __future__ import annotations

import ast
import gc
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "sampan"

# Room -> the rooms below it that its modules may import. `structs`, `errors`, `jsontext`, `bundle` are below all and not listed.
# A room that a later change adds has to be entered here before it can import anything.
ROOMS: dict[str, frozenset[str]] = {
    "structs": frozenset(),
    "errors": frozenset(),
    "jsontext": frozenset(),
    "bundle": frozenset({"bundling"}),
    "bundling": frozenset(),
    "kernel": frozenset(),
    "steps": frozenset({"kernel"}),
    "oci": frozenset(),
    "gotemplate": frozenset({"oci"}),
    "shim": frozenset({"kernel", "steps", "oci"}),
    "store": frozenset({"kernel", "steps", "oci"}),
    "network": frozenset({"kernel", "steps", "oci"}),
    "registry": frozenset({"kernel", "oci"}),
    "runtime": frozenset({"kernel", "steps", "oci", "store", "shim"}),
    # Dockerfiles as data: what is done with them, the engine does with its own use cases.
    "build": frozenset({"oci"}),
    "engine": frozenset(
        {"gotemplate", "kernel", "steps", "oci", "store", "network", "registry", "shim", "runtime", "build"}
    ),
    "api": frozenset({"oci", "build", "engine"}),
    "client": frozenset({"oci", "build", "engine"}),
    # It starts the server, as it starts everything; it uses nothing of it.
    "cli": frozenset({"gotemplate", "oci", "build", "engine", "api"}),
    "__main__": frozenset({"cli"}),
}
BELOW_ALL = frozenset({"structs", "errors", "jsontext", "bundle"})
FACES = frozenset({"cli", "api", "client"})
# Rooms whose modules are all cold: what is in them runs in a process that starts once.
COLD_ROOMS = frozenset({"api", "client"})
# The one door of the shim: what a parent may know of it.
SHIM_DOOR = f"{PACKAGE}.shim.protocol"
# Module -> what of the shim's room it may import besides, with the reason.
BECOMES_SHIM: dict[str, str] = {
    # A sealed OCI command forks stage1 from itself, instead of starting another interpreter for it (docs/adr/0016).
    f"{PACKAGE}.runtime.ocispawn": f"{PACKAGE}.shim.ocichild",
}
ENGINE = f"{PACKAGE}.engine.engine"

# Modules that a start never imports: others may import them inside the function that needs them, and so they may
# import what is heavy. Each with the reason for which it is not on the hot path.
COLD: dict[str, str] = {
    **{
        f"{PACKAGE}.registry.{name}": "asks registries over a network: imported by pull, push, login and their kind"
        for name in (
            "certificates",
            "client",
            "credentials",
            "endpoint",
            "failures",
            "lines",
            "pools",
            "proxies",
            "pull",
            "push",
            "referrers",
            "tokens",
            "transport",
        )
    },
    f"{PACKAGE}.engine.download": "asks web servers: imported by an import, or a build, of a URL",
    f"{PACKAGE}.engine.interface": "Protocols, for type checkers and annotations",
    f"{PACKAGE}.engine.pulling": "imported by a pull",
    f"{PACKAGE}.engine.pushing": "imported by a push",
    f"{PACKAGE}.engine.search": "asks an index over a network",
    f"{PACKAGE}.engine.registries": "imported by what asks a registry",
    **{
        f"{PACKAGE}.engine.{name}": "building images: what it does takes longer than any import"
        for name in (
            *("builder", "buildahead", "buildcontexts", "buildcopy", "buildcopying", "buildfiles"),
            *("buildgit", "buildmounts", "buildprepared", "buildstage", "buildsteps"),
        )
    },
}

# What costs more than a millisecond or two of a start (measured in docs/adr/0002), by what it brings in.
HEAVY = frozenset(
    {
        *(
            "argparse",
            "dataclasses",
            "enum",
            "functools",
            "inspect",
            "json",
            "logging",
            "optparse",
            "re",
            "typing",
            "types",
        ),
        *("collections", "contextlib", "copy", "heapq", "pickle", "pprint", "queue", "string", "textwrap", "weakref"),
        *(
            "asyncio",
            "concurrent",
            "multiprocessing",
            "selectors",
            "signal",
            "socket",
            "ssl",
            "subprocess",
            "threading",
        ),
        *(
            "datetime",
            "decimal",
            "fractions",
            "locale",
            "platform",
            "random",
            "secrets",
            "uuid",
            "zoneinfo",
            "warnings",
        ),
        *("gzip", "lzma", "bz2", "tarfile", "zipfile", "zstandard", "pathlib", "shlex", "shutil", "tempfile", "glob"),
        *("email", "http", "urllib", "ipaddress", "importlib", "ast", "linecache", "tokenize", "traceback", "tomllib"),
    }
)

# Scripts, which are compiled anew at every start: a comment instead of a docstring, and not a line more than needed.
SCRIPTS: dict[str, int] = {f"{PACKAGE}.shim.{name}": 10 for name in ("__main__", "idholder")} | {
    f"{PACKAGE}.shim.ocistage": 13,
    f"{PACKAGE}.network.__main__": 10,
}

# Module -> the ways to make a process that it may use, besides kernel/process.py with fork and clone.
SPAWNERS: dict[str, frozenset[str]] = {
    f"{PACKAGE}.runtime.keeper": frozenset({"posix_spawn"}),
    f"{PACKAGE}.runtime.sealed": frozenset({"posix_spawn"}),
    f"{PACKAGE}.runtime.launcher": frozenset({"posix_spawn", "posix_spawnp"}),
}
FORKS = frozenset({"fork", "forkpty", "vfork", "clone", "clone3", "fork_exec", "fork_by"})
SPAWNS = frozenset(
    {"posix_spawn", "posix_spawnp", "system", "popen", "spawnl", "spawnle", "spawnlp", "spawnv", "spawnve", "spawnvp"}
)
_PROCESS_CALL = re.compile(rf"\b(?:os|posix|libc)\s*\.\s*(?:{'|'.join(FORKS | SPAWNS)})\b|\bfrom\s+os\s+import\b")
_PRINT_CALL = re.compile(r"\bprint\s*\(")
_IMPORT_CALL = re.compile(r"\b(?:__import__|import_module)\b")
PROCESS_MODULES = frozenset({"subprocess", "multiprocessing", "_posixsubprocess", "pty"})
# Modules that may import one of those, with the reason.
PROCESS_MODULE_USERS: dict[str, str] = {
    f"{PACKAGE}.network.legacytables": "asks the host's iptables-legacy, whose lock its programs take; no container's process",
    f"{PACKAGE}.engine.buildgit": "asks the host's git for the trees of repositories; no container's process",
    f"{PACKAGE}.engine.machine": "asks the host's busybox for its applets, once, when `base` is made; no container's process",
    f"{PACKAGE}.registry.credentials": "asks credential helpers, programs of the user's; no container's process",
    f"{PACKAGE}.runtime.ocicli_show": "asks the host's ps for what `sampan-oci ps` shows; no container's process",
    f"{PACKAGE}.engine.top": "asks the host's ps for what `top` shows; no container's process",
}
PROCESS = f"{PACKAGE}.kernel.process"
LIBC = f"{PACKAGE}.kernel.libc"

MAX_LINES = 600
MAX_ENGINE_LINES = 149

SENTENCES = {
    "docstring": "every module says in a docstring what it is for",
    "future": "`from __future__ import annotations` is the first statement of every module",
    "length": f"a module past {MAX_LINES} lines has two jobs",
    "engine-length": "engine/engine.py wires and has no behaviour: under 150 lines",
    "script": "what is compiled at every start does nothing but hand over to a module",
    "room": "a new room is entered in tests/support/architecture.py, with the rooms below it",
    "downward": "rule 1: imports point downward, and siblings in one layer do not import each other",
    "faces": "rule 2: faces import engine, build, errors, structs and oci, never kernel, shim or store",
    "shim": "rule 3: nobody imports shim except shim.protocol: it is started, not called",
    "engine": "rule 4: a service gets its neighbours in its constructor; nothing holds the Engine",
    "fork": "rule 5: fork and clone live in kernel/process.py only, posix_spawn in runtime/sealed.py, launcher.py and keeper.py only",
    "libc": "there is one door to the C library, kernel/libc.py",
    "threads": "the child side is single-threaded or not at all",
    "heavy": "heavy modules are imported inside the function that uses them: import cost is a design value",
    "cold": "a cold module is imported inside the function that needs it, never at the top of a hot one",
    "cycle": "modules do not import each other in a circle, not even inside functions",
    "print": "only the command line prints",
}


@dataclass(frozen=True)
class Problem:
    path: str
    line: int
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what} ({SENTENCES[self.rule]})"


@dataclass(frozen=True)
class Import:
    """`when`: "load" (runs when the module is loaded), "call" (inside a function), "check" (for type checkers only)."""

    target: str
    line: int
    when: str


@dataclass
class Module:
    name: str
    path: str
    text: str
    documented: bool = True
    first: ast.stmt | None = None
    """Its first statement."""
    imports: list[Import] = field(default_factory=list)

    @property
    def tree(self) -> ast.Module:
        """Read anew each time: few are asked for, and all of them at once take longer to have than to make."""
        return ast.parse(self.text, self.path)

    @property
    def room(self) -> str:
        """The part below the package: "kernel", "errors"; "" for the package itself."""
        return self.name.split(".")[1] if "." in self.name else ""

    def has(self, pattern: re.Pattern[str]) -> bool:
        """Whether its text has such a thing at all: where it has not, no node of its tree need be looked at."""
        return pattern.search(self.text) is not None


class House:
    """All modules of the package: {path below src: text}."""

    def __init__(self, files: dict[str, str]) -> None:
        self.modules: dict[str, Module] = {}
        collecting = gc.isenabled()
        gc.disable()  # nothing of a tree is garbage, and looking for it takes longer than reading
        for path, text in sorted(files.items()):
            name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            self.modules[name] = Module(name, path, text)
        for module in self.modules.values():
            tree = module.tree
            module.documented = bool(ast.get_docstring(tree))
            module.first = next((n for n in tree.body if not _is_constant(n)), None)
            module.imports = list(self._imports(module, tree.body, "load", module.has(_IMPORT_CALL)))
        if collecting:
            gc.enable()

    @classmethod
    def read(cls, src: Path) -> House:
        return cls({str(p.relative_to(src)): p.read_text() for p in src.rglob("*.py")})

    def _imports(self, module: Module, body: list[ast.stmt], when: str, calls: bool) -> Iterator[Import]:
        """calls: whether imports are also to be looked for among the calls."""
        for node in body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, node.lineno, when)
            elif isinstance(node, ast.ImportFrom):
                yield from self._from(module, node, when)
            elif isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING":
                yield from self._imports(module, node.body, "check", calls)
                yield from self._imports(module, node.orelse, when, calls)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from self._imports(module, node.body, when if when == "check" else "call", calls)
            elif isinstance(node, ast.Match):
                for case in node.cases:
                    yield from self._imports(module, case.body, when, calls)
            elif hasattr(node, "body"):
                for name in ("body", "orelse", "finalbody"):
                    yield from self._imports(module, getattr(node, name, None) or [], when, calls)
                for inner in getattr(node, "handlers", ()):
                    yield from self._imports(module, inner.body, when, calls)
            elif calls:
                yield from self._called(node, when)

    def _from(self, module: Module, node: ast.ImportFrom, when: str) -> Iterator[Import]:
        base = node.module or ""
        if node.level:
            package = module.name if module.path.endswith("__init__.py") else module.name.rpartition(".")[0]
            for _ in range(node.level - 1):
                package = package.rpartition(".")[0]
            base = f"{package}.{base}" if base else package
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield Import(full if full in self.modules else base, node.lineno, when)

    @staticmethod
    def _called(node: ast.stmt, when: str) -> Iterator[Import]:
        """`__import__("name")` and `importlib.import_module("name")` in a simple statement."""
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and _last_name(call.func) in (
                "__import__",
                "import_module",
            ):
                first = call.args[0] if call.args else None
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield Import(first.value, call.lineno, when)

    def problems(self) -> list[Problem]:
        found: list[Problem] = []
        for module in self.modules.values():
            for check in (_shape, _rooms, _heavy, _processes, _prints):
                found += check(module)
        return found + list(self._cycles())

    def _cycles(self) -> Iterator[Problem]:
        """One problem for each circle, at its import in the module that comes first by name."""
        edges = {
            name: {
                i.target: i.line
                for i in module.imports
                if i.target in self.modules and i.when != "check" and i.target != name
            }
            for name, module in self.modules.items()
        }
        seen: set[frozenset[str]] = set()
        for start in edges:
            path = _shortest_circle(start, edges)
            if path and frozenset(path) not in seen:
                seen.add(frozenset(path))
                yield Problem(
                    self.modules[start].path, edges[start][path[1 % len(path)]], "cycle", " -> ".join([*path, start])
                )


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _last_name(node: ast.expr) -> str:
    """`c` of the expressions `c` and `a.b.c`; "" of others."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _shortest_circle(start: str, edges: dict[str, dict[str, int]]) -> list[str]:
    before: dict[str, str] = {}
    queue = [start]
    for name in queue:
        for target in edges[name]:
            if target == start:
                path = [name]
                while path[-1] != start:
                    path.append(before[path[-1]])
                return path[::-1]
            if target not in before:
                before[target] = name
                queue.append(target)
    return []


def _shape(module: Module) -> Iterator[Problem]:
    lines = module.text.count("\n")
    if module.name in SCRIPTS:
        if lines > SCRIPTS[module.name]:
            yield Problem(module.path, lines, "script", f"{lines} lines")
        return
    if not module.documented:
        yield Problem(module.path, 1, "docstring", "no docstring")
    first = module.first
    if first and not (isinstance(first, ast.ImportFrom) and first.module == "__future__"):
        yield Problem(module.path, first.lineno, "future", "another statement comes first")
    if lines > MAX_LINES:
        yield Problem(module.path, lines, "length", f"{lines} lines")
    if module.name == ENGINE and lines > MAX_ENGINE_LINES:
        yield Problem(module.path, lines, "engine-length", f"{lines} lines")


def _rooms(module: Module) -> Iterator[Problem]:
    if module.room and module.room not in ROOMS:
        yield Problem(module.path, 1, "room", f"unknown room {module.room}")
        return
    for item in module.imports:
        target = item.target.split(".")
        if target[0] != PACKAGE or len(target) == 1:
            continue
        rule = _broken_rule(module, item)
        if rule:
            yield Problem(module.path, item.line, rule, f"{module.name} imports {item.target}")


def _broken_rule(module: Module, item: Import) -> str:
    room, target = module.room, item.target.split(".")[1]
    if item.target == ENGINE and room not in FACES | {""}:
        return "engine"
    if not room and item.when == "check":
        return ""  # the package's front door names what it offers
    if target == "shim" and room != "shim" and item.target not in (SHIM_DOOR, BECOMES_SHIM.get(module.name)):
        return "shim"
    if target == room or (target in BELOW_ALL and room not in BELOW_ALL) or target in ROOMS.get(room, ()):
        return ""
    return "faces" if room in FACES else "downward"


def _heavy(module: Module) -> Iterator[Problem]:
    if module.name in COLD or module.room in COLD_ROOMS:
        return
    for item in module.imports:
        top = item.target.partition(".")[0]
        if item.when != "load":
            continue
        if top in HEAVY:
            yield Problem(module.path, item.line, "heavy", f"imports {item.target} when it is loaded")
        if item.target in COLD or item.target.split(".")[1:2] in [[room] for room in COLD_ROOMS]:
            yield Problem(module.path, item.line, "cold", f"imports {item.target} when it is loaded")


def _processes(module: Module) -> Iterator[Problem]:
    for item in module.imports:
        top = item.target.partition(".")[0]
        if top in PROCESS_MODULES and item.when != "check" and module.name not in (PROCESS, *PROCESS_MODULE_USERS):
            yield Problem(module.path, item.line, "fork", f"imports {item.target}")
        if top in ("ctypes", "_ctypes") and item.when != "check" and module.name != LIBC:
            yield Problem(module.path, item.line, "libc", f"imports {item.target}")
        if top in ("threading", "_thread") and module.room in ("shim", "steps") and item.when != "check":
            yield Problem(module.path, item.line, "threads", f"imports {item.target}")
    allowed = SPAWNERS.get(module.name, frozenset())
    if not module.has(_PROCESS_CALL):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = [(a.name, node.lineno) for a in node.names]
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("os", "posix", "libc")
        ):
            names = [(node.attr, node.lineno)]
        else:
            names = []
        for name, line in names:
            if name in FORKS and module.name != PROCESS:
                yield Problem(module.path, line, "fork", f"uses {name}")
            if name in SPAWNS and name not in allowed:
                yield Problem(module.path, line, "fork", f"uses {name}")


def _prints(module: Module) -> Iterator[Problem]:
    if module.room == "cli" or not module.has(_PRINT_CALL):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield Problem(module.path, node.lineno, "print", "calls print()")
