"""`version` and `info`."""

from __future__ import annotations

from sampan.cli.flags import Flag
from sampan.cli.output import Failure, out
from sampan.cli.verbs import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.context import Context
    from sampan.cli.flags import Arguments


BAD_TEMPLATE = 64
"""The exit code for a --format that cannot be parsed, as `inspect` has it."""


def version(_context: Context, arguments: Arguments) -> int:
    """Print versions. Needs no store and no root, so that it can be asked on a machine where nothing else works."""
    from sampan.engine.system import version

    facts = version()
    if arguments["format"]:
        # There is no client apart from the engine here: scripts ask for .Server or for .Client.
        client = {name: facts[name] for name in ("Version", "ApiVersion", "Os", "Arch", "KernelVersion")}
        out(_formatted(arguments["format"], {"Client": client, "Server": facts}))
    else:
        out(version_text(facts))
    return 0


def _formatted(format: str, facts: dict[str, Any]) -> str:
    """The facts by a template; "json" is all of them on one line."""
    from sampan.gotemplate.template import TemplateError, parse

    try:
        template = parse("{{json .}}" if format == "json" else format)
    except TemplateError as e:
        raise Failure(f"template parsing error: {e}", BAD_TEMPLATE) from None
    try:
        return template.execute(facts, missing_is_error=True)
    except TemplateError as e:
        raise Failure(f"template parsing error: {e}") from None


def version_text(facts: dict[str, Any]) -> str:
    """`GET /version` as text: Docker's Server section without what only Docker has."""
    lines = ["Sampan:"]
    for component in facts["Components"]:
        details = component["Details"]
        values = (
            ("Version", component["Version"]),
            ("API version", f"{details['ApiVersion']} (minimum version {details['MinAPIVersion']})"),
            ("Python version", details["PythonVersion"]),
            ("Kernel version", details["KernelVersion"]),
            ("OS/Arch", f"{details['Os']}/{details['Arch']}"),
        )
        lines.append(f" {component['Name']}:")
        lines += [f"  {name + ':':<18}{value}" for name, value in values]
    return "\n".join(lines)


def info(context: Context, arguments: Arguments) -> int:
    """Print what this installation has and what the machine can do."""
    facts = context.engine.system.info()
    out(_formatted(arguments["format"], facts) if arguments["format"] else info_text(facts))
    return 0


def info_text(facts: dict[str, Any]) -> str:
    """`GET /info` as text, in the order of Docker's Server section."""
    lines = [
        f"Containers: {facts['Containers']}",
        f" Running: {facts['ContainersRunning']}",
        f" Paused: {facts['ContainersPaused']}",
        f" Stopped: {facts['ContainersStopped']}",
        f"Images: {facts['Images']}",
        f"Server Version: {facts['ServerVersion']}",
        f"Storage Driver: {facts['Driver']}",
        *(f" {name}: {value}" for name, value in facts["DriverStatus"] or ()),
        f"Logging Driver: {facts['LoggingDriver']}",
        f"Cgroup Driver: {facts['CgroupDriver']}",
        f"Cgroup Version: {facts['CgroupVersion']}",
        "Plugins:",
        *(f" {kind}: {' '.join(names)}" for kind, names in facts["Plugins"].items() if names),
        "Security Options:",
        *(line for option in facts["SecurityOptions"] for line in _security_option(option)),
        f"Kernel Version: {facts['KernelVersion']}",
        f"Operating System: {facts['OperatingSystem']}",
        f"OSType: {facts['OSType']}",
        f"Architecture: {facts['Architecture']}",
        f"CPUs: {facts['NCPU']}",
        f"Total Memory: {binary_size(facts['MemTotal'])}",
        f"Name: {facts['Name']}",
        f"ID: {facts['ID']}",
        f"Root Dir: {facts['DockerRootDir']}",
        f"Live Restore Enabled: {str(facts['LiveRestoreEnabled']).lower()}",
    ]
    return "\n".join([*lines, *(facts["Warnings"] or ())])


def binary_size(size: float) -> str:
    """Four digits and a unit of 1024: "23.54GiB" (go-units BytesSize)."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    at = 0
    while size >= 1024 and at < len(units) - 1:
        size /= 1024
        at += 1
    return f"{size:.4g}{units[at]}"


_FORMAT = (Flag("format", "string", "Print it by a Go template, or as JSON (json)", "f"),)
VERSION = Command("[OPTIONS]", version, _FORMAT, at_most=0)
INFO = Command("[OPTIONS]", info, _FORMAT, at_most=0)


def _security_option(text: str) -> list[str]:
    """ "name=seccomp,profile=builtin" as lines: the name, and below it what is said of it."""
    parts = dict(part.partition("=")[::2] for part in text.split(","))
    name = parts.pop("name")
    return [f" {name}", *(f"  {key.capitalize()}: {value}" for key, value in parts.items())]
