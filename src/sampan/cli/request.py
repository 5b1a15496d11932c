"""The flags of `run` and `create`, and the body of Docker's `POST /containers/create` that they make.

What is checked here is what needs the command line or its files; everything else the engine checks for all its faces.
"""

from __future__ import annotations

from sampan.cli import terminal
from sampan.cli.flags import Arguments, Flag
from sampan.cli.variables import read_environment, read_labels
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENVIRONMENT_FLAGS = (
    Flag("env", "variables", "Set an environment variable (a NAME alone: to its value here)", "e"),
    Flag("env-file", "list", "Read a file of environment variables, one NAME=VALUE a line"),
)

CREATE_FLAGS = (
    *ENVIRONMENT_FLAGS,
    Flag("add-host", "hosts", "Add a name to /etc/hosts (NAME:ADDRESS)"),
    Flag("annotation", "map", "Add an annotation to the container's OCI configuration (NAME=VALUE)"),
    Flag("attach", "streams", "Attach to STDIN, STDOUT or STDERR", "a"),
    Flag("blkio-weight", "uint16", "Share of block I/O, 10 to 1000 (0: the default)"),
    Flag("blkio-weight-device", "weights of disks", "The same for one disk (`DISK:WEIGHT`)"),
    Flag("cap-add", "list", "Add a capability"),
    Flag("cap-drop", "list", "Drop a capability (ALL for all of them)"),
    Flag("cgroup-parent", "string", "Put the container's cgroup below this one"),
    Flag("cgroupns", "string", "Cgroup namespace: host or private (default: private with cgroup v2, else host)"),
    Flag("cidfile", "string", "Write the container's ID to a file that is not there yet"),
    Flag("cpu-count", "int", "CPU count", hidden=True, system="windows"),
    Flag("cpu-percent", "int", "CPU percent", hidden=True, system="windows"),
    Flag("cpu-period", "int", "CPU period in microseconds, that the quota is a part of"),
    Flag("cpu-quota", "int", "CPU time in microseconds that may be used in each period"),
    Flag("cpu-rt-period", "int", "Real-time period in microseconds"),
    Flag("cpu-rt-runtime", "int", "Real-time CPU time in microseconds in each real-time period"),
    Flag("cpu-shares", "int", "CPU time relative to other containers (1024 is one share)", "c"),
    Flag("cpus", "cpus", "CPUs that may be used at once, 0.5 for example"),
    Flag("cpuset-cpus", "string", "CPUs that may be used (0-3, 0,1)"),
    Flag("cpuset-mems", "string", "Memory nodes that may be used (0-3, 0,1)"),
    Flag("device", "list", "Add a device of the host (HOST[:CONTAINER][:rwm])"),
    Flag("device-cgroup-rule", "device rules", "Allow devices by their numbers (c 42:* rwm)"),
    Flag("device-read-bps", "bytes of disks", "Limit reading from a disk (DISK:BYTES a second)"),
    Flag("device-read-iops", "operations of disks", "Limit reading from a disk (DISK:OPERATIONS a second)"),
    Flag("device-write-bps", "bytes of disks", "Limit writing to a disk (DISK:BYTES a second)"),
    Flag("device-write-iops", "operations of disks", "Limit writing to a disk (DISK:OPERATIONS a second)"),
    Flag("disable-content-trust", "bool", "No effect: signatures are not looked at", default=True, hidden=True),
    Flag("dns", "addresses", "Ask this DNS server"),
    Flag("dns-opt", "list", alias_of="dns-option", hidden=True),
    Flag("dns-option", "list", "Set an option of the resolver"),
    Flag("dns-search", "domains", "Search names in this domain (. for none)"),
    Flag("domainname", "string", "NIS domain name of the container"),
    Flag("entrypoint", "string", "Run this instead of the image's ENTRYPOINT"),
    Flag("expose", "list", "Expose a port or a range of ports (PORT[-PORT][/PROTOCOL])"),
    Flag("gpus", "string", "Refused: there are no device drivers here", hidden=True),
    Flag("group-add", "list", "Add a supplementary group, by name or number"),
    Flag("health-cmd", "string", "Command that finds out whether the container is well"),
    Flag("health-interval", "duration", "Time between two checks (ms|s|m|h, default 30s)"),
    Flag("health-retries", "int", "Failures in a row that make the container unhealthy (default 3)"),
    Flag("health-start-interval", "duration", "Time between two checks in the start period (ms|s|m|h, default 5s)"),
    Flag("health-start-period", "duration", "Time that the container may need to start, in which no failure counts"),
    Flag("health-timeout", "duration", "Time that a check may take (ms|s|m|h, default 30s)"),
    Flag("hostname", "string", "Host name of the container", "h"),
    Flag("init", "bool", "Run an init as process 1 that forwards signals and reaps processes"),
    Flag("interactive", "bool", "Keep standard input open", "i"),
    Flag("io-maxbandwidth", "bytes", "Bandwidth of the system drive", hidden=True, system="windows"),
    Flag("io-maxiops", "int", "Operations of the system drive", hidden=True, system="windows"),
    Flag("ip", "string", "IPv4 address in the first network"),
    Flag("ip6", "string", "IPv6 address in the first network"),
    Flag("ipc", "string", "IPC namespace: none, private, shareable, host or container:NAME"),
    Flag("isolation", "string", "Kind of isolation: default"),
    Flag("kernel-memory", "bytes", "No effect", hidden=True),
    Flag("label", "labels", "Set a label (NAME or NAME=VALUE)", "l"),
    Flag("label-file", "list", "Read a file of labels, one NAME=VALUE a line"),
    Flag("link", "list", "Know another container by a name (CONTAINER[:NAME])"),
    Flag("link-local-ip", "list", "Add a link-local address in the first network"),
    Flag("log-driver", "string", "Where output is kept: json-file, local or none"),
    Flag("log-opt", "list", "Set an option of the log driver, max-size=10m for example"),
    Flag("mac-address", "string", "Hardware address in the first network (92:d0:c6:0a:29:33)"),
    Flag("memory", "bytes", "Memory limit", "m"),
    Flag("memory-reservation", "bytes", "Memory that is left to the container when memory is short"),
    Flag("memory-swap", "bytes or -1", "Limit of memory and swap together (-1: as much swap as there is)"),
    Flag("memory-swappiness", "int", "How readily memory is swapped, 0 to 100 (cgroup v1)", default=-1),
    Flag("mount", "mounts", "Mount a directory, a volume, an image or a tmpfs (type=...,source=...,target=...)"),
    Flag("name", "string", "Name of the container"),
    Flag("net", "networks", hidden=True, alias_of="network"),
    Flag("net-alias", "list", hidden=True, alias_of="network-alias"),
    Flag(
        "network",
        "networks",
        "Network: NAME, none, host or container:NAME. name=NAME can be followed by alias=, ip=, ip6=, mac-address=, "
        "link-local-ip=, driver-opt= and gw-priority=, with commas between",
    ),
    Flag("network-alias", "list", "Another name of the container in its first network"),
    Flag("no-healthcheck", "bool", "Do without the image's health check"),
    Flag("no-pivot", "bool", "Change the root by chroot where pivot_root cannot (a ramdisk)", hidden=True),
    Flag("oom-kill-disable", "bool", "Let processes wait instead of killing them for memory (cgroup v1)"),
    Flag("oom-score-adj", "int", "What the OOM killer is to prefer, -1000 to 1000"),
    Flag("pid", "string", "PID namespace: host or container:NAME"),
    Flag("pids-limit", "int", "Limit of processes and threads (-1 for none)"),
    Flag("platform", "string", "The image for this platform: os/architecture[/variant]"),
    Flag("privileged", "bool", "Give the container all capabilities and devices, and mask nothing"),
    Flag("publish", "list", "Publish a port ([IP:][PORT:]PORT[/PROTOCOL]); not without a bridge network", "p"),
    Flag("publish-all", "bool", "Publish all exposed ports; not without a bridge network", "P"),
    Flag("pull", "string", "When to pull the image: always, missing or never", default="missing"),
    Flag("quiet", "bool", "Show nothing of a pull", "q"),
    Flag("read-only", "bool", "Make the root file system read-only"),
    Flag("restart", "string", "Restart policy: no, always, unless-stopped or on-failure[:N]", default="no"),
    Flag("rm", "bool", "Remove the container when it has exited"),
    Flag("runtime", "string", "Runtime of the container: sampan, the only one"),
    Flag(
        "security-opt",
        "list",
        "Security option: no-new-privileges, seccomp=FILE|builtin|unconfined, systempaths=unconfined, writable-cgroups=true|false",
    ),
    Flag("shm-size", "bytes", "Size of /dev/shm (default 64m)"),
    Flag("stop-signal", "string", "Signal that stops the container"),
    Flag("stop-timeout", "int", "Seconds between that signal and SIGKILL"),
    Flag("storage-opt", "list", "Refused: no storage here has options for a container", hidden=True),
    Flag("sysctl", "sysctls", "Set a kernel parameter of the container's own namespaces"),
    Flag("tmpfs", "list", "Mount a tmpfs (PATH or PATH:OPTIONS)"),
    Flag("tty", "bool", "Give the container a terminal", "t"),
    Flag("ulimit", "ulimits", "Set a resource limit of processes (NAME=SOFT[:HARD])"),
    Flag("use-api-socket", "bool", "Refused: there is no API socket yet", hidden=True),
    Flag("user", "string", "Who runs the program: name or number, and a group behind a colon", "u"),
    Flag("userns", "string", "User namespace: host, private (ids of its own) or keep-id (and the caller's own one)"),
    Flag("uts", "string", "UTS namespace (host and domain name): host"),
    Flag("volume", "list", "Mount a directory or a volume (SOURCE:TARGET[:MODES], or TARGET for a new volume)", "v"),
    Flag("volume-driver", "string", "Driver of the volumes that are made"),
    Flag("volumes-from", "list", "Mount what another container has mounted (CONTAINER[:ro])"),
    Flag("workdir", "string", "Directory that the program is started in", "w"),
)


# flag -> what it takes besides the empty word, and what messages call it. The engine says the same of the other modes.
_MODES = (
    ("pid", ("host", "private"), "PID"),
    ("uts", ("host", "private"), "UTS"),
    ("cgroupns", ("host", "private"), "CGROUP"),
    ("userns", ("host", "private", "keep-id"), "USER"),
)


_OF_NETWORKS = ("network-alias", "link-local-ip", "ip", "ip6", "mac-address", "link")


def build(arguments: Arguments) -> dict[str, Any]:
    """The request, as for a container that is attached to. Raises InvalidParameter in Docker's words."""
    _check_pull(arguments)
    image, *command = arguments.words
    interactive = arguments["interactive"]
    attached = attached_streams(arguments)
    request: dict[str, Any] = {
        "Name": arguments["name"],
        "Image": image,
        "Platform": arguments["platform"],
        "Hostname": arguments["hostname"],
        "Domainname": arguments["domainname"],
        "User": arguments["user"],
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "Tty": arguments["tty"],
        "OpenStdin": interactive,
        # The program's input ends when the one client that feeds it goes.
        "StdinOnce": interactive and "stdin" in attached,
        "Env": read_environment(arguments["env-file"], arguments["env"]),
        "Cmd": command or None,
        "Entrypoint": _entrypoint(arguments),
        "WorkingDir": arguments["workdir"],
        "Labels": read_labels(arguments["label-file"], arguments["label"]),
        "HostConfig": _host_config(arguments),
    }
    if arguments["volume"]:
        from sampan.cli import mounts  # in here: most command lines have none

        request["HostConfig"]["Binds"], request["Volumes"] = mounts.volume_flags(arguments["volume"])
    if arguments["expose"] or arguments["publish"]:
        from sampan.oci import ports

        request["HostConfig"]["PortBindings"] = published = ports.bindings(arguments["publish"])
        request["ExposedPorts"] = {**{port: {} for port in published}, **ports.exposed(arguments["expose"])}
    networks = arguments["network"]
    if len(networks) > 1 or (networks and len(networks[0]) > 1) or any(arguments[flag] for flag in _OF_NETWORKS):
        from sampan.cli import networkflags  # in here: most command lines name one, or none

        request["NetworkingConfig"] = {"EndpointsConfig": networkflags.endpoints(arguments)}
    if health := _health(arguments):
        request["Healthcheck"] = health
    if arguments.given("stop-signal"):
        request["StopSignal"] = arguments["stop-signal"]
    if arguments.given("stop-timeout"):
        request["StopTimeout"] = arguments["stop-timeout"]
    return request


def _check_pull(arguments: Arguments) -> None:
    pull = arguments["pull"]
    if pull not in ("always", "missing", "never"):
        raise InvalidParameter(f'invalid pull option: \'{pull}\': must be one of "always", "missing" or "never"')
    if not arguments["disable-content-trust"]:
        raise InvalidParameter(
            "--disable-content-trust=false cannot be had: sampan does not sign images, nor verify signatures of them"
        )
    if arguments["use-api-socket"]:
        raise InvalidParameter("--use-api-socket cannot be had in this version of sampan: it has no API socket yet")


def attached_streams(arguments: Arguments) -> set[str]:
    """The streams that are attached: those of -a, and standard input with -i; without -a output and errors."""
    streams = set(arguments["attach"]) or {"stdout", "stderr"}
    return streams | {"stdin"} if arguments["interactive"] else streams


def _entrypoint(arguments: Arguments) -> list[str] | None:
    """None keeps the image's; one empty word (`--entrypoint ""`) takes it away."""
    return [arguments["entrypoint"]] if arguments.given("entrypoint") else None


# flag -> field of Healthcheck, in the order in which Docker complains
_HEALTH_TIMES = (
    ("health-interval", "Interval"),
    ("health-timeout", "Timeout"),
    ("health-retries", "Retries"),
    ("health-start-period", "StartPeriod"),
    ("health-start-interval", "StartInterval"),
)


def _health(arguments: Arguments) -> dict[str, Any] | None:
    """What overrides the image's health check; None leaves that as it is."""
    command = arguments["health-cmd"]
    values = {field: arguments[flag] for flag, field in _HEALTH_TIMES if arguments[flag]}
    if arguments["no-healthcheck"]:
        if command or values:
            raise InvalidParameter("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    for flag, field in _HEALTH_TIMES:
        if values.get(field, 0) < 0:
            raise InvalidParameter(f"--{flag} cannot be negative")
    return {**({"Test": ["CMD-SHELL", command]} if command else {}), **values} or None


def _host_config(arguments: Arguments) -> dict[str, Any]:
    for flag, allowed, kind in _MODES:
        _check_namespace(flag, arguments[flag], allowed, kind)
    options, unmasked = _security_options(arguments["security-opt"])
    host: dict[str, Any] = {
        "Annotations": dict(_pair(text) for text in arguments["annotation"]),
        "AutoRemove": arguments["rm"],
        "CapAdd": arguments["cap-add"],
        "CapDrop": arguments["cap-drop"],
        "CgroupParent": arguments["cgroup-parent"],
        "CgroupnsMode": arguments["cgroupns"],
        "ConsoleSize": list(terminal.size(1) or (0, 0)),
        "ContainerIDFile": arguments["cidfile"],
        "BlkioWeight": arguments["blkio-weight"],
        "BlkioWeightDevice": arguments["blkio-weight-device"],
        "BlkioDeviceReadBps": arguments["device-read-bps"],
        "BlkioDeviceReadIOps": arguments["device-read-iops"],
        "BlkioDeviceWriteBps": arguments["device-write-bps"],
        "BlkioDeviceWriteIOps": arguments["device-write-iops"],
        "CpuPeriod": arguments["cpu-period"],
        "CpuQuota": arguments["cpu-quota"],
        "CpuRealtimePeriod": arguments["cpu-rt-period"],
        "CpuRealtimeRuntime": arguments["cpu-rt-runtime"],
        "CpuShares": arguments["cpu-shares"],
        "CpusetCpus": arguments["cpuset-cpus"],
        "CpusetMems": arguments["cpuset-mems"],
        "DeviceCgroupRules": arguments["device-cgroup-rule"],
        "Devices": _devices(arguments["device"]),
        "Dns": arguments["dns"],
        "DnsOptions": arguments["dns-option"],
        "DnsSearch": arguments["dns-search"],
        "ExtraHosts": arguments["add-host"],
        "GroupAdd": arguments["group-add"],
        "IpcMode": arguments["ipc"],
        "Isolation": arguments["isolation"],
        "KernelMemory": arguments["kernel-memory"],
        "LogConfig": _log_config(arguments),
        "Memory": arguments["memory"],
        "MemoryReservation": arguments["memory-reservation"],
        "MemorySwap": arguments["memory-swap"],
        "Mounts": arguments["mount"],
        "NanoCpus": arguments["cpus"],
        "Links": arguments["link"],
        "NetworkMode": arguments["network"][0]["Target"] if arguments["network"] else "default",
        "MemorySwappiness": _swappiness(arguments["memory-swappiness"]),
        "OomScoreAdj": arguments["oom-score-adj"],
        "PidMode": arguments["pid"],
        "Privileged": arguments["privileged"],
        "PublishAllPorts": arguments["publish-all"],
        "ReadonlyRootfs": arguments["read-only"],
        "RestartPolicy": _restart_policy(arguments),
        "Runtime": arguments["runtime"],
        "SecurityOpt": options,
        "ShmSize": arguments["shm-size"],
        "StorageOpt": _storage_options(arguments["storage-opt"]),
        "Sysctls": dict(text.partition("=")[::2] for text in arguments["sysctl"]),
        "Ulimits": arguments["ulimit"],
        "Tmpfs": dict(_split(text) for text in arguments["tmpfs"]),
        "UsernsMode": arguments["userns"],
        "UTSMode": arguments["uts"],
        "VolumeDriver": arguments["volume-driver"],
        "VolumesFrom": arguments["volumes-from"],
    }
    if arguments["gpus"]:
        host["DeviceRequests"] = [arguments["gpus"]]
    if arguments.given("init"):
        host["Init"] = arguments["init"]
    if arguments.given("oom-kill-disable"):
        host["OomKillDisable"] = arguments["oom-kill-disable"]
    if arguments.given("pids-limit"):
        host["PidsLimit"] = arguments["pids-limit"]
    if unmasked:
        host["MaskedPaths"] = host["ReadonlyPaths"] = []
    if arguments["no-pivot"]:
        host["NoPivot"] = True  # ours: Docker has it only as a setting of the whole daemon (DOCKER_RAMDISK)
    return host


def _log_config(arguments: Arguments) -> dict[str, Any]:
    driver, options = arguments["log-driver"], dict(text.partition("=")[::2] for text in arguments["log-opt"])
    if driver == "none" and options:
        raise InvalidParameter("invalid logging opts for driver none")
    return {"Type": driver or "json-file", "Config": options}


def _restart_policy(arguments: Arguments) -> dict[str, Any]:
    text = arguments["restart"]
    if text == "no":
        return {"Name": "no", "MaximumRetryCount": 0}
    from sampan.oci import restartpolicy

    policy = restartpolicy.parse(text)
    if arguments["rm"] and not restartpolicy.is_none(policy):
        raise InvalidParameter("conflicting options: cannot specify both --restart and --rm")
    return policy


def _devices(texts: list[str]) -> list[dict[str, str]]:
    if not texts:
        return []
    from sampan.oci.devices import parse_device  # few containers have any

    return [parse_device(text) for text in texts]


def _swappiness(value: int) -> int | None:
    if value != -1 and not 0 <= value <= 100:
        raise InvalidParameter(f"invalid value: {value}. Valid memory swappiness range is 0-100")
    return None if value == -1 else value


def _check_namespace(flag: str, value: str, allowed: tuple[str, ...], kind: str) -> None:
    container, colon, name = value.partition(":")
    joined = flag == "pid" and container == "container" and colon and name
    if value and value not in allowed and not joined:
        raise InvalidParameter(f"--{flag}: invalid {kind} mode")


def _security_options(texts: list[str]) -> tuple[list[str], bool]:
    """What goes to the engine, and whether no path is to be masked (which is no option there but two empty lists)."""
    options, unmasked = [], False
    for text in texts:
        if text == "systempaths=unconfined":
            unmasked = True
            continue
        options.append(_security_option(text))
    return options, unmasked


def _security_option(text: str) -> str:
    """As the engine takes it: a seccomp profile's file is read here. Raises InvalidParameter in Docker's words."""
    key, separator, value = text.partition("=")
    if not separator and key != "no-new-privileges":
        key, _, value = text.partition(":")
    if not value and key != "no-new-privileges":
        raise InvalidParameter(f'Invalid --security-opt: "{text}"')
    if key != "seccomp" or value in ("builtin", "unconfined"):
        return text
    from sampan import jsontext  # few containers have a profile of their own

    try:
        with open(value, "rb") as file:
            content = file.read()
    except OSError as e:
        reason = (e.strerror or str(e)).lower()
        raise InvalidParameter(f"opening seccomp profile ({value}) failed: open {value}: {reason}") from None
    try:
        return "seccomp=" + jsontext.dumps(jsontext.loads(content)).decode()
    except (ValueError, TypeError) as e:
        raise InvalidParameter(f"compacting json for seccomp profile ({value}) failed: {e}") from None


def _storage_options(texts: list[str]) -> dict[str, str]:
    if not all("=" in text for text in texts):
        raise InvalidParameter("invalid storage option")
    return dict(_pair(text) for text in texts)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _split(text: str) -> tuple[str, str]:
    path, _, options = text.partition(":")
    return path, options
