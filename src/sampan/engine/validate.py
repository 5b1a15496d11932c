"""What a container may be asked to be: every check of a create request that needs no disk, in Docker's words.

The order is dockerd's, so that of two mistakes the same one is told first. Limits of memory, CPU and
processes are judged in `oci.limits`; names of containers and images by those who keep them.
"""

from __future__ import annotations

import posixpath

from sampan.errors import InvalidParameter
from sampan.kernel.capabilities import NAMES
from sampan.oci import signals
from sampan.oci.network import BRIDGE, HOST, NONE, is_joined
from sampan.oci.runtime import tmpfs_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOST_NAME_MAX = 64
"""Bytes of a hostname, sethostname(2)."""

JOIN = "container:"
DEFAULT_SHM_SIZE = 64 << 20

_NO_LINKS = "can't be used with links. This would result in undefined behavior"
# What can be had of the security modules: to do without them, which is all that there is.
_WITHOUT_MODULE = {"apparmor": "unconfined", "label": "disable"}
# strconv.ParseBool
_TRUTH = dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), "true") | dict.fromkeys(
    ("0", "f", "F", "false", "FALSE", "False"), "false"
)


def capability_names() -> tuple[str, ...]:
    """All that `--cap-add` takes but ALL."""
    return NAMES


def check_config(config: dict[str, Any]) -> None:
    """The checks of a container's own Config; makes WorkingDir and the commands canonical in place.

    Raises InvalidParameter.
    """
    config["WorkingDir"] = clean_working_directory(config["WorkingDir"])
    if config["StopSignal"]:
        signals.parse(config["StopSignal"])
    check_environment(config["Env"])
    if config["Healthcheck"]:
        from sampan.oci.health import check_request  # in here: most requests have none

        check_request(config["Healthcheck"])
    for field in ("Entrypoint", "Cmd"):
        if isinstance(config[field], str):
            config[field] = [config[field]]
    for field in ("Hostname", "Domainname"):
        _check_host_name(field.lower(), config[field])
    if config["NetworkDisabled"]:
        raise InvalidParameter("NetworkDisabled is not supported, use the network mode none")


def check_environment(entries: list[str] | None) -> None:
    """Raises InvalidParameter for an entry without a name."""
    for entry in entries or ():
        if not entry or entry.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {entry}")


def clean_working_directory(path: str) -> str:
    """The working directory without dots and doubled slashes; "" stays. Raises InvalidParameter for a relative one."""
    if not path:
        return ""
    if not path.startswith("/"):
        raise InvalidParameter(f"the working directory '{path}' is invalid, it needs to be an absolute path")
    # POSIX lets normpath keep two leading slashes.
    return "/" + posixpath.normpath(path).lstrip("/")


def _check_host_name(what: str, name: str) -> None:
    if len(name.encode("utf-8", "surrogateescape")) > HOST_NAME_MAX:
        raise InvalidParameter(f"invalid {what}: {name}: longer than {HOST_NAME_MAX} bytes")
    if any(c <= " " or c == "\x7f" for c in name):
        # It goes into /etc/hosts and /etc/hostname as it is.
        raise InvalidParameter(f"invalid {what} format: {name!r}")


def check_host_config(host: dict[str, Any], config: dict[str, Any]) -> None:
    """The checks of a HostConfig beside its Config; makes modes and capability names canonical in place.

    Raises InvalidParameter.
    """
    _check_restart(host)
    host["CapAdd"] = _capabilities("CapAdd", host["CapAdd"])
    host["CapDrop"] = _capabilities("CapDrop", host["CapDrop"])
    if host["Isolation"] not in ("", "default"):
        raise InvalidParameter(f"invalid isolation '{host['Isolation']}' on linux")
    _check_namespaces(host)
    _check_network(host, config)
    if host["ShmSize"] < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    host["ShmSize"] = host["ShmSize"] or DEFAULT_SHM_SIZE
    if not -1000 <= host["OomScoreAdj"] <= 1000:
        raise InvalidParameter(f"Invalid value {host['OomScoreAdj']}, range for oom score adj is [-1000, 1000]")
    if host["Runtime"] not in ("", "sampan"):
        raise InvalidParameter(f"unknown or invalid runtime name: {host['Runtime']}")
    host["Runtime"] = "sampan"
    if host["SecurityOpt"] is not None:
        host["SecurityOpt"] = [security_option(option) for option in host["SecurityOpt"]]
    for path, options in (host["Tmpfs"] or {}).items():
        _check_mount_point(path)
        tmpfs_options(options)
    _check_log(host)
    _check_resolver(host)
    for key in host["Annotations"] or ():
        if not key:
            raise InvalidParameter("invalid Annotations: the empty string is not permitted as an annotation key")


def _check_restart(host: dict[str, Any]) -> None:
    given = host["RestartPolicy"]
    if given == {"Name": "no", "MaximumRetryCount": 0}:
        return  # what most requests say
    from sampan.oci import restartpolicy

    host["RestartPolicy"] = restartpolicy.check(given)
    if host["AutoRemove"] and not restartpolicy.is_none(host["RestartPolicy"]):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")


def _capabilities(field: str, names: list[str] | None) -> list[str] | None:
    if names is None:
        return None
    canonical = []
    for given in names:
        name = given.upper()
        if name != "ALL":
            name = name if name.startswith("CAP_") else f"CAP_{name}"
            if name not in NAMES:
                raise InvalidParameter(f'invalid {field}: unknown capability: "{name}"')
        canonical.append(name)
    return canonical


def _check_namespaces(host: dict[str, Any]) -> None:
    pid, ipc = host["PidMode"], host["IpcMode"]
    if pid not in ("", "host") and not _joins(pid):
        raise InvalidParameter(f"invalid PID mode: {pid}")
    if ipc == JOIN:
        raise InvalidParameter('can\'t join IPC of container : invalid name or ID supplied: ""')
    if ipc not in ("", "none", "private", "shareable", "host") and not _joins(ipc):
        raise InvalidParameter(f"invalid IPC mode: {ipc}")
    host["IpcMode"] = ipc or "private"
    if host["UTSMode"] not in ("", "host"):
        raise InvalidParameter(f"invalid UTS mode: {host['UTSMode']}")
    if host["CgroupnsMode"] not in ("", "private", "host"):
        raise InvalidParameter(f"invalid cgroup namespace mode: {host['CgroupnsMode']}")
    if host["UsernsMode"] not in ("", "host", "private", "keep-id"):
        raise InvalidParameter(f"invalid USER mode: {host['UsernsMode']}")


def _joins(mode: str) -> bool:
    return mode.startswith(JOIN) and len(mode) > len(JOIN)


def _check_network(host: dict[str, Any], config: dict[str, Any]) -> None:
    mode = host["NetworkMode"]
    if mode in ("", "default"):
        mode = host["NetworkMode"] = BRIDGE
    if mode.startswith(JOIN) and not _joins(mode):
        raise InvalidParameter("invalid network mode: invalid container format container:<name|id>")
    if host["UTSMode"]:
        for field in ("Hostname", "Domainname"):
            if config[field]:
                raise InvalidParameter(f"conflicting options: {field.lower()} and the UTS mode")
    if _joins(mode):
        if config["Hostname"]:
            raise InvalidParameter("conflicting options: hostname and the network mode")
        if host["Dns"]:
            raise InvalidParameter("conflicting options: dns and the network mode")
        if host["ExtraHosts"]:
            raise InvalidParameter("conflicting options: custom host-to-IP mapping and the network mode")
        if host["PortBindings"] or host["PublishAllPorts"]:
            raise InvalidParameter("conflicting options: port publishing and the container type network mode")
        if config["ExposedPorts"]:
            raise InvalidParameter("conflicting options: port exposing and the container type network mode")
        if host["Links"]:
            raise InvalidParameter(f"conflicting options: container type network {_NO_LINKS}")
    elif mode == HOST and host["Links"]:
        raise InvalidParameter(f"conflicting options: host type networking {_NO_LINKS}")
    elif mode == NONE and host["Links"]:
        raise InvalidParameter("conflicting options: links (--link) and the network mode none")


def port_warnings(host: dict[str, Any]) -> list[str]:
    """What is said of ports that are recorded and lead nowhere; Docker says it of the host's network only."""
    if (host["PortBindings"] or host["PublishAllPorts"]) and host["NetworkMode"] in ("host", "none"):
        return [f"Published ports are discarded when using {host['NetworkMode']} network mode"]
    return []


def endpoints(request: dict[str, Any], mode: str) -> dict[str, Any]:
    """NetworkingConfig.EndpointsConfig of a request. Raises InvalidParameter for networks beside a mode that is none."""
    given = (request.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    if not isinstance(given, dict) or not all(isinstance(one, (dict, type(None))) for one in given.values()):
        raise InvalidParameter("invalid value for NetworkingConfig.EndpointsConfig: it is not an object of objects")
    if is_joined(mode):
        found = dict(given)
        if request.get("MacAddress"):  # Docker's older place for it
            name = "default" if mode == BRIDGE and "default" in found else mode
            found[name] = {"MacAddress": request["MacAddress"], **(found.get(name) or {})}
        return found
    # The mode has the other container's id by now, and a setting the name by which it was called.
    named = {name for name in given if name != "default" and not (_joins(mode) and name.startswith(JOIN))}
    others = sorted(named | {mode})
    if len(others) > 1:
        raise InvalidParameter(f"Container cannot be connected to network endpoints: {', '.join(others)}")
    for settings in given.values():
        _refuse_settings(settings or {}, mode)
    if request.get("MacAddress"):
        raise InvalidParameter("conflicting options: mac-address and the network mode")
    return {}


def _refuse_settings(settings: dict[str, Any], mode: str) -> None:
    """Nothing can be told of an interface where there is none, or the host's."""
    addresses = settings.get("IPAMConfig") or {}
    if any(addresses.values()):
        raise InvalidParameter("user specified IP address is supported on user defined networks only")
    if settings.get("Aliases"):
        raise InvalidParameter("network-scoped aliases are only supported for user-defined networks")
    if settings.get("MacAddress"):
        raise InvalidParameter("conflicting options: mac-address and the network mode")
    for field in ("Links", "DriverOpts", "GwPriority"):
        if settings.get(field):
            raise InvalidParameter(f"conflicting options: {field} of an endpoint and the network mode {mode}")


def security_option(option: str) -> str:
    """One `--security-opt`, a truth value written out. Raises InvalidParameter for what is unknown or cannot be had yet."""
    if option in ("no-new-privileges", "disable"):
        return option  # "disable" is an old word for label=disable
    key, separator, value = option.partition("=") if "=" in option else option.partition(":")
    if not separator:
        raise InvalidParameter(f'invalid --security-opt 1: "{option}"')
    if key in ("no-new-privileges", "writable-cgroups") and value in _TRUTH:
        return f"{key}={_TRUTH[value]}"
    if key == "seccomp":
        return option  # judged with the capabilities, on which its conditions depend
    if key in _WITHOUT_MODULE:
        if value == _WITHOUT_MODULE[key]:
            return option
        module = "AppArmor profiles" if key == "apparmor" else "SELinux labels"
        raise InvalidParameter(
            f"--security-opt {option} cannot be had: containers get no {module} here, only {key}={_WITHOUT_MODULE[key]} is possible"
        )
    raise InvalidParameter(f'invalid --security-opt 2: "{option}"')


def _check_mount_point(path: str) -> None:
    if not path.startswith("/"):
        raise InvalidParameter(f"invalid mount path: '{path}' mount path must be absolute")
    if posixpath.normpath(path).lstrip("/") == "":
        raise InvalidParameter("invalid specification: destination can't be '/'")


def _check_log(host: dict[str, Any]) -> None:
    if host["LogConfig"] == {"Type": "json-file", "Config": {}}:
        return  # what most requests say
    from sampan.engine import logoptions

    host["LogConfig"] = logoptions.check(host["LogConfig"])


def _check_resolver(host: dict[str, Any]) -> None:
    """Addresses and names that go into /etc/resolv.conf and /etc/hosts as they are."""
    if host["Dns"] or host["ExtraHosts"]:
        from sampan.oci.hosts import is_address  # in here: most requests have none

    for address in host["Dns"]:
        if not is_address(address):
            raise InvalidParameter(f"bad nameserver address: {address}")
    for word in (*host["DnsSearch"], *host["DnsOptions"]):
        if not word or any(c.isspace() for c in word):
            raise InvalidParameter(f"invalid dns search domain or option: {word!r}")
    for entry in host["ExtraHosts"] or ():
        name, _, address = entry.partition(":")
        if not name or not address or any(c.isspace() for c in name):
            raise InvalidParameter(f'bad format for add-host: "{entry}"')
        if address == "host-gateway":
            _check_gateway(host["NetworkMode"])
        elif not is_address(address):
            raise InvalidParameter(f'invalid IP address in add-host: "{address}"')


def _check_gateway(mode: str) -> None:
    if mode == NONE:
        raise InvalidParameter("unable to derive the IP value for host-gateway: the container is in no network")
