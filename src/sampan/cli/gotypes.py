"""The Go types behind what inspect, version and info show, for templates: `{{.HostConfig.NanoCPUs}}` is a field's Go name.

A template sees JSON through these as through Docker's structs: a nil list prints as [], a field that JSON leaves out is
there, maps and structs are told apart. From moby's api/types (28); embedded structs are written flat.
"""

from __future__ import annotations

from sampan.gotemplate.values import Duration, Integer, Map, Nil, Object, Slice, Time, Unsigned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

# A line for each field, in Go's order: its name (=JSON's, if that is another), its type, and "?" if JSON leaves it out
# when it is empty.
_DEFINITIONS = {
    "container.InspectResponse": """
        ID=Id string; Created string; Path string; Args []string; State *container.State; Image string;
        ResolvConfPath string; HostnamePath string; HostsPath string; LogPath string; Name string; RestartCount int;
        Driver string; Platform string; MountLabel string; ProcessLabel string; AppArmorProfile string;
        ExecIDs []string; HostConfig *container.HostConfig; GraphDriver storage.DriverData; SizeRw *int64 ?;
        SizeRootFs *int64 ?; Mounts []container.MountPoint; Config *container.Config;
        NetworkSettings *container.NetworkSettings""",
    "container.State": """
        Status string; Running bool; Paused bool; Restarting bool; OOMKilled bool; Dead bool; Pid int; ExitCode int;
        Error string; StartedAt string; FinishedAt string; Health *container.Health ?""",
    "container.Health": "Status string; FailingStreak int; Log []*container.HealthcheckResult",
    "container.HealthcheckResult": "Start time.Time; End time.Time; ExitCode int; Output string",
    "container.HealthConfig": """
        Test []string ?; Interval time.Duration ?; Timeout time.Duration ?; StartPeriod time.Duration ?;
        StartInterval time.Duration ?; Retries int ?""",
    "container.MountPoint": """
        Type string ?; Name string ?; Source string; Destination string; Driver string ?; Mode string; RW bool;
        Propagation string""",
    "container.Config": """
        Hostname string; Domainname string; User string; AttachStdin bool; AttachStdout bool; AttachStderr bool;
        ExposedPorts map[string]struct {} ?; Tty bool; OpenStdin bool; StdinOnce bool; Env []string; Cmd []string;
        Healthcheck *container.HealthConfig ?; ArgsEscaped bool ?; Image string; Volumes map[string]struct {};
        WorkingDir string; Entrypoint []string; NetworkDisabled bool ?; MacAddress string ?; OnBuild []string;
        Labels map[string]string; StopSignal string ?; StopTimeout *int ?; Shell []string ?""",
    "container.HostConfig": """
        Binds []string; ContainerIDFile string; LogConfig container.LogConfig; NetworkMode string;
        PortBindings map[string][]nat.PortBinding; RestartPolicy container.RestartPolicy; AutoRemove bool;
        VolumeDriver string; VolumesFrom []string; ConsoleSize []uint; Annotations map[string]string ?; CapAdd []string;
        CapDrop []string; CgroupnsMode string; DNS=Dns []string; DNSOptions=DnsOptions []string;
        DNSSearch=DnsSearch []string; ExtraHosts []string; GroupAdd []string; IpcMode string; Cgroup string;
        Links []string; OomScoreAdj int; PidMode string; Privileged bool; PublishAllPorts bool; ReadonlyRootfs bool;
        SecurityOpt []string; StorageOpt map[string]string ?; Tmpfs map[string]string ?; UTSMode string;
        UsernsMode string; ShmSize int64; Sysctls map[string]string ?; Runtime string; Isolation string;
        CPUShares=CpuShares int64; Memory int64; NanoCPUs=NanoCpus int64; CgroupParent string; BlkioWeight uint16;
        BlkioWeightDevice []*blkiodev.WeightDevice; BlkioDeviceReadBps []*blkiodev.ThrottleDevice;
        BlkioDeviceWriteBps []*blkiodev.ThrottleDevice; BlkioDeviceReadIOps []*blkiodev.ThrottleDevice;
        BlkioDeviceWriteIOps []*blkiodev.ThrottleDevice; CPUPeriod=CpuPeriod int64; CPUQuota=CpuQuota int64;
        CPURealtimePeriod=CpuRealtimePeriod int64; CPURealtimeRuntime=CpuRealtimeRuntime int64; CpusetCpus string;
        CpusetMems string; Devices []container.DeviceMapping; DeviceCgroupRules []string; DeviceRequests []any;
        MemoryReservation int64; MemorySwap int64; MemorySwappiness *int64; OomKillDisable *bool; PidsLimit *int64;
        Ulimits []*units.Ulimit; CPUCount=CpuCount int64; CPUPercent=CpuPercent int64; IOMaximumIOps uint64;
        IOMaximumBandwidth uint64; Mounts []any ?; MaskedPaths []string; ReadonlyPaths []string; Init *bool ?""",
    "container.LogConfig": "Type string; Config map[string]string",
    "container.RestartPolicy": "Name string; MaximumRetryCount int",
    "container.DeviceMapping": "PathOnHost string; PathInContainer string; CgroupPermissions string",
    "nat.PortBinding": "HostIP=HostIp string; HostPort string",
    "blkiodev.WeightDevice": "Path string; Weight uint16",
    "blkiodev.ThrottleDevice": "Path string; Rate uint64",
    "units.Ulimit": "Name string; Hard int64; Soft int64",
    "container.NetworkSettings": """
        Bridge string; SandboxID string; SandboxKey string; Ports map[string][]nat.PortBinding; HairpinMode bool;
        LinkLocalIPv6Address string; LinkLocalIPv6PrefixLen int; SecondaryIPAddresses []any;
        SecondaryIPv6Addresses []any; EndpointID string; Gateway string; GlobalIPv6Address string;
        GlobalIPv6PrefixLen int; IPAddress string; IPPrefixLen int; IPv6Gateway string; MacAddress string;
        Networks map[string]*network.EndpointSettings""",
    "network.EndpointSettings": """
        IPAMConfig *network.EndpointIPAMConfig; Links []string; Aliases []string; MacAddress string;
        DriverOpts map[string]string; GwPriority int; NetworkID string; EndpointID string; Gateway string;
        IPAddress string; IPPrefixLen int; IPv6Gateway string; GlobalIPv6Address string; GlobalIPv6PrefixLen int;
        DNSNames []string""",
    "network.EndpointIPAMConfig": "IPv4Address string ?; IPv6Address string ?; LinkLocalIPs []string ?",
    "network.Inspect": """
        Name string; ID=Id string; Created time.Time; Scope string; Driver string; EnableIPv4 bool; EnableIPv6 bool;
        IPAM network.IPAM; Internal bool; Attachable bool; Ingress bool; ConfigFrom network.ConfigReference;
        ConfigOnly bool; Containers map[string]network.EndpointResource; Options map[string]string;
        Labels map[string]string""",
    "network.IPAM": "Driver string; Options map[string]string; Config []network.IPAMConfig",
    "network.IPAMConfig": """
        Subnet string ?; IPRange string ?; Gateway string ?; AuxAddress=AuxiliaryAddresses map[string]string ?""",
    "network.ConfigReference": "Network string",
    "network.EndpointResource": """
        Name string; EndpointID string; MacAddress string; IPv4Address string; IPv6Address string""",
    "storage.DriverData": "Data map[string]string; Name string",
    "image.InspectResponse": """
        ID=Id string; RepoTags []string; RepoDigests []string; Parent string; Comment string; Created string ?;
        DockerVersion string; Author string; Config *image.Config; Architecture string; Variant string ?; Os string;
        OsVersion string ?; Size int64; VirtualSize int64 ?; GraphDriver storage.DriverData; RootFS image.RootFS;
        Metadata image.Metadata""",
    "image.Config": """
        User string ?; ExposedPorts map[string]struct {} ?; Env []string ?; Entrypoint []string ?; Cmd []string ?;
        Volumes map[string]struct {} ?; WorkingDir string ?; Labels map[string]string ?; StopSignal string ?;
        ArgsEscaped bool ?; Healthcheck *container.HealthConfig ?; OnBuild []string ?; Shell []string ?""",
    "image.RootFS": "Type string ?; Layers []string ?",
    "image.Metadata": "LastTagTime time.Time ?",
    "volume.Volume": """
        CreatedAt string ?; Driver string; Labels map[string]string; Mountpoint string; Name string;
        Options map[string]string; Scope string; Status map[string]any ?; UsageData *volume.UsageData ?""",
    "events.Message": """
        Status=status string ?; ID=id string ?; From=from string ?; Type string; Action string; Actor events.Actor;
        Scope=scope string ?; Time=time int64 ?; TimeNano=timeNano int64 ?""",
    "events.Actor": "ID string; Attributes map[string]string",
    "volume.UsageData": "RefCount int64; Size int64",
}

_SCALARS: dict[str, tuple[Callable[[Any], object], object]] = {
    "string": (str, ""),
    "bool": (bool, False),
    "int": (int, 0),
    "int64": (Integer, Integer(0)),
    "uint": (Unsigned, Unsigned(0)),
    "uint16": (Unsigned, Unsigned(0)),
    "uint64": (Unsigned, Unsigned(0)),
    "time.Duration": (Duration, Duration(0)),
    "time.Time": (Time, Time("0001-01-01T00:00:00Z")),
}


def typed(value: object, type: str) -> object:
    """JSON as a value of a Go type: "*container.State", "[]string", "map[string]string", "int64", "any"."""
    if type == "any":
        return value
    if type.startswith("*"):
        if value is None:
            return Nil(type)
        found = typed(value, type[1:])
        if isinstance(found, Object):
            found.pointer = True
        return found
    if type.startswith(("[]", "map[string]")):
        return Nil(type) if value is None else _collection(value, type)
    if type in _SCALARS:
        make, zero = _SCALARS[type]
        return zero if value is None else make(value)
    return _object(value if isinstance(value, dict) else {}, type)


def _collection(value: object, type: str) -> object:
    if isinstance(value, dict) and type.startswith("map[string]"):
        values = Map((str(key), typed(item, type.removeprefix("map[string]"))) for key, item in value.items())
        values.go_type = type
        return values
    assert isinstance(value, (list, tuple))
    items = Slice(typed(item, type[2:]) for item in value)
    items.go_type = type
    return items


def _object(document: Mapping[str, Any], type: str) -> Object:
    fields: dict[str, object] = {}
    keys: dict[str, str] = {}
    omitted = set()
    for line in filter(None, (line.strip() for line in _DEFINITIONS.get(type, "").split(";"))):
        names, _, kind = line.partition(" ")
        name, _, key = names.partition("=")
        if kind.endswith(" ?"):
            kind = kind.removesuffix(" ?")
            omitted.add(name)
        if key:
            keys[name] = key
        fields[name] = typed(document.get(key or name), kind)
    return Object(type, fields, keys=keys, omitted=frozenset(omitted))
