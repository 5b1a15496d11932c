"""features.md, features-linux.md: what the runtime says that it knows, and that it does."""

from __future__ import annotations

from typing import Any

import pytest

from support.conformance.runtime import Containers, Runtime

pytestmark = [pytest.mark.root]


@pytest.fixture
def features(runtime: Runtime) -> dict[str, Any]:
    made: dict[str, Any] = runtime("features").json()
    return made


def test_f1_the_document(features: dict[str, Any]) -> None:
    """Features document. "`ociVersionMin` (string, REQUIRED)", "`ociVersionMax` (string, REQUIRED)" """
    assert isinstance(features["ociVersionMin"], str)
    assert isinstance(features["ociVersionMax"], str)


@pytest.mark.parametrize("which", ["ociVersionMin", "ociVersionMax"])
def test_f2_the_versions_are_taken(oci: Containers, features: dict[str, Any], which: str) -> None:
    """Specification version. "The runtime MUST accept this value as the `ociVersion` property of `config.json`." """
    one = oci()
    one.config["ociVersion"] = features[which]
    assert one.report()["hostname"] == "conformance"


def test_f3_the_versions_are_in_order(features: dict[str, Any]) -> None:
    """Specification version. "The value MUST NOT be less than the value of the `ociVersionMin` property." """

    def order(version: str) -> list[int]:
        return [int(part) for part in version.partition("-")[0].split(".")]

    assert order(features["ociVersionMax"]) >= order(features["ociVersionMin"])


KNOWN = {
    "": {
        "ociVersionMin",
        "ociVersionMax",
        "hooks",
        "mountOptions",
        "linux",
        "annotations",
        "potentiallyUnsafeConfigAnnotations",
    },
    "linux": {
        *("namespaces", "capabilities", "cgroup", "seccomp", "apparmor", "selinux", "intelRdt", "mountExtensions"),
    },
    "cgroup": {"v1", "v2", "systemd", "systemdUser", "rdma"},
    "seccomp": {"enabled", "actions", "operators", "archs", "knownFlags", "supportedFlags"},
}


def test_f4_nothing_but_what_is_defined(features: dict[str, Any]) -> None:
    """Specification version. "The feature document MUST NOT contain properties that are not defined in this version of the Open
    Container Initiative Runtime Specification." """
    linux = features.get("linux", {})
    assert set(features) <= KNOWN[""]
    assert set(linux) <= KNOWN["linux"]
    assert set(linux.get("cgroup", {})) <= KNOWN["cgroup"]
    assert set(linux.get("seccomp", {})) <= KNOWN["seccomp"]


def test_f5_hooks(oci: Containers, features: dict[str, Any]) -> None:
    """Hooks. "The runtime MUST support the elements in this array as the `hooks` property of `config.json`." """
    assert features["hooks"]
    one = oci()
    one.config["hooks"] = {kind: [{"path": "/bin/true"}] for kind in features["hooks"]}
    assert one.report()["hostname"] == "conformance"


def test_f6_mount_options(oci: Containers, features: dict[str, Any]) -> None:
    """Mount options. "The runtime MUST recognize the elements in this array as the `options` of `mounts` objects in
    `config.json`." """
    unable = []
    for option in features["mountOptions"]:
        one = oci()
        if option in ("bind", "rbind"):
            one.mount("/data", None, str(one.bundle), option)
        elif option in ("idmap", "ridmap"):
            mapping = [{"containerID": 0, "hostID": 5000, "size": 1000}]
            one.mount("/data", None, str(one.bundle), "bind", option, uidMappings=mapping, gidMappings=mapping)
        elif option in ("acl", "noacl", "mand", "nomand"):
            continue  # a tmpfs of this kernel has no use for them
        elif option == "remount":
            one.mount("/data", "tmpfs", "tmpfs")
            one.mount("/data", "tmpfs", "tmpfs", "remount")
        else:
            one.mount("/data", "tmpfs", "tmpfs", option)
        result = one.create()
        if result.code:
            unable.append(f"{option}: {result.err.strip()}")
    assert not unable


def test_f7_namespaces(oci: Containers, features: dict[str, Any]) -> None:
    """Namespaces. "The runtime MUST recognize the elements in this array as the `type` of `linux.namespaces` objects in
    `config.json`." """
    one = oci()
    one.config["ociVersion"] = features["ociVersionMax"]
    if "user" in features["linux"]["namespaces"]:
        one.in_user_namespace()
    one.linux["namespaces"] = [{"type": kind} for kind in features["linux"]["namespaces"]]
    assert one.report()["hostname"] == "conformance"


def test_f8_capabilities(oci: Containers, features: dict[str, Any]) -> None:
    """Capabilities. "The runtime MUST recognize the elements in this array in the `process.capabilities` object of
    `config.json`." """
    one = oci()
    one.process["capabilities"] = dict.fromkeys(
        ("bounding", "permitted", "effective"), features["linux"]["capabilities"]
    )
    log = one.bundle / "log"
    one.create(globals=("--log", str(log))).ok()
    said = (log.read_text() if log.exists() else "") + one.err
    unknown = [line for line in said.splitlines() if "unknown" in line and "CAP_SYS_RESOURCE" not in line]
    assert not unknown


@pytest.mark.parametrize("field", ["actions", "operators", "archs"])
def test_f9_seccomp(oci: Containers, features: dict[str, Any], field: str) -> None:
    """Seccomp. "The runtime MUST recognize the elements in this array": of the actions, of the operators, of the architectures."""
    unable = []
    for name in features["linux"]["seccomp"][field]:
        one = oci()
        rule: dict[str, Any] = {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO"}
        filter: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
        if field == "actions":
            rule["action"] = name
        elif field == "operators":
            rule["args"] = [{"index": 0, "value": 1, "valueTwo": 1, "op": name}]
        else:
            filter["architectures"] = ["SCMP_ARCH_X86_64", name]
        one.linux["seccomp"] = filter
        result = one.create()
        # It is known, even if this machine has no use for it: no listener, another byte order.
        if result.code and name != "SCMP_ACT_NOTIFY" and field != "archs":
            unable.append(f"{name}: {result.err.strip()}")
        if result.code and "not a valid" in result.err:
            unable.append(f"{name}: {result.err.strip()}")
    assert not unable


@pytest.mark.parametrize("field", ["knownFlags", "supportedFlags"])
def test_f10_flags_of_seccomp(oci: Containers, features: dict[str, Any], field: str) -> None:
    """Seccomp. "The runtime MUST recognize and support the elements in this array in the `flags` property of the `linux.seccomp`
    object in `config.json`." """
    for name in features["linux"]["seccomp"].get(field) or []:
        if name == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV":
            continue  # which needs a listener
        one = oci()
        one.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "flags": [name]}
        one.create().ok()


def test_f11_annotations(features: dict[str, Any]) -> None:
    """Annotations. "Annotations MUST be a key-value map that follows the same convention as the Key and Values of the
    `annotations` property of `config.json`." """
    annotations = features.get("annotations") or {}
    assert all(isinstance(key, str) and key and isinstance(value, str) for key, value in annotations.items())


def test_f12_idmapped_mounts(oci: Containers, features: dict[str, Any]) -> None:
    """Mount extensions. "`idmap` (object, OPTIONAL) represents whether the runtime supports idmap mounts": who says so does."""
    extensions = features["linux"].get("mountExtensions") or {}
    if not (extensions.get("idmap") or {}).get("enabled"):
        pytest.xfail("the runtime does not say that it has them")
    mapping = [{"containerID": 0, "hostID": 5000, "size": 1000}]
    one = oci("stat", "-c", "%u", "/data/config.json")
    one.mount("/data", None, str(one.bundle), "bind", "idmap", uidMappings=mapping, gidMappings=mapping)
    assert one.run().ok().out == "5000\n"
