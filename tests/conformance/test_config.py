"""config.md: version, root, names, annotations, values. Its mounts, process and hooks have files of their own."""

from __future__ import annotations

import os
from typing import Any

import pytest

from support.conformance.runtime import Containers

pytestmark = [pytest.mark.root]


# Specification version


def test_c1_a_version_there_must_be(oci: Containers) -> None:
    """Specification version. "`ociVersion` (string, REQUIRED)" """
    one = oci()
    del one.config["ociVersion"]
    one.never_created()


@pytest.mark.parametrize("version", ["", "one", "1", "1.0", "v1.0.2", "1.0.2 ", "01.0.0"])
def test_c2_a_version_has_a_form(oci: Containers, version: str) -> None:
    """Specification version. "MUST be in SemVer v2.0.0 format and specifies the version of the Open Container Initiative Runtime
    Specification with which the bundle complies." """
    one = oci()
    one.config["ociVersion"] = version
    one.never_created()


@pytest.mark.parametrize("version", ["1.0.0", "1.0.1", "1.0.2", "1.0.2-dev", "1.1.0", "1.2.0"])
def test_c3_versions_of_old(oci: Containers, version: str) -> None:
    """Specification version. "if a configuration is compliant with version 1.1 of this specification, it is compatible with all
    runtimes that support any 1.1 or later release of this specification" """
    one = oci()
    one.config["ociVersion"] = version
    assert one.report()["hostname"] == "conformance"


def test_c4_a_version_of_another_world(oci: Containers) -> None:
    """Valid values. "Runtimes MUST generate an error when invalid or unsupported values are encountered": a version of the
    specification that is not compatible."""
    one = oci()
    one.config["ociVersion"] = "2.0.0"
    one.never_created()


# Root


@pytest.mark.parametrize("what", ["root", "path", "empty"])
def test_c5_a_root_there_must_be(oci: Containers, what: str) -> None:
    """Root. "On all other platforms, this field is REQUIRED." """
    one = oci()
    if what == "root":
        del one.config["root"]
    elif what == "path":
        del one.config["root"]["path"]
    else:
        one.config["root"]["path"] = ""
    one.never_created()


@pytest.mark.parametrize("form", ["absolute", "relative", "nested", "dotted"])
def test_c6_a_root_is_absolute_or_below_the_bundle(oci: Containers, form: str) -> None:
    """Root. "On POSIX platforms, `path` is either an absolute path or a relative path to the bundle." """
    one = oci("cat", "/which")
    target = one.rootfs
    if form == "nested":
        (one.bundle / "a").mkdir()
        target = target.rename(one.bundle / "a/b")
    (target / "which").write_text("this")
    paths = {"absolute": str(target), "relative": "rootfs", "nested": "a/b", "dotted": "./rootfs/../rootfs"}
    one.config["root"]["path"] = paths[form]
    assert one.run().ok().out == "this"


@pytest.mark.parametrize("what", ["none", "file", "dangling link"])
def test_c7_the_root_is_a_directory(oci: Containers, what: str) -> None:
    """Root. "A directory MUST exist at the path declared by the field." """
    one = oci()
    one.config["root"]["path"] = "other"
    if what == "file":
        (one.bundle / "other").touch()
    elif what == "dangling link":
        (one.bundle / "other").symlink_to("nowhere")
    one.never_created()


@pytest.mark.parametrize("readonly", [True, False, None])
def test_c8_a_root_may_be_read_only(oci: Containers, readonly: bool | None) -> None:
    """Root. "`readonly` (bool, OPTIONAL) If true then the root filesystem MUST be read-only inside the container, defaults to
    false." """
    one = oci("sh", "-c", "touch /made")
    del one.config["root"]["readonly"]
    if readonly is not None:
        one.config["root"]["readonly"] = readonly
    outcome = one.run()
    assert (outcome.code != 0) == bool(readonly), outcome
    assert (one.rootfs / "made").exists() != bool(readonly)
    assert ("Read-only" in outcome.err) == bool(readonly)


# Hostname, domainname


def test_c67_the_hostname(oci: Containers) -> None:
    """Hostname. "`hostname` (string, OPTIONAL) specifies the container's hostname as seen by processes running inside the
    container." """
    one = oci()
    one.config["hostname"] = "mrsdalloway"
    before = os.uname().nodename
    assert one.report()["hostname"] == "mrsdalloway"
    assert os.uname().nodename == before


def test_c68_the_domainname(oci: Containers) -> None:
    """Domainname. "`domainname` (string, OPTIONAL) specifies the container's domainname as seen by processes running inside the
    container." """
    one = oci()
    one.config["ociVersion"] = "1.1.0"
    one.config["domainname"] = "foobarbaz.test"
    assert one.report()["domainname"] == "foobarbaz.test"


@pytest.mark.parametrize("field", ["hostname", "domainname"])
def test_c69_no_name_of_the_host_is_changed(oci: Containers, field: str) -> None:
    """Hostname. "Depending on your namespace configuration, the container UTS namespace may be the runtime UTS namespace":
    without one of its own a container that would rename the host is refused."""
    one = oci()
    del one.config["hostname"]
    one.config["ociVersion"] = "1.1.0"
    one.config[field] = "renamed"
    one.without_namespace("uts")
    try:
        one.refused()
    finally:
        assert os.uname().nodename != "renamed"


# Annotations


@pytest.mark.parametrize("given", [["a"], "a", 1])
def test_c80_annotations_are_a_map(oci: Containers, given: Any) -> None:
    """Annotations. "Annotations MUST be a key-value map." """
    one = oci()
    one.config["annotations"] = given
    one.never_created()


@pytest.mark.parametrize("given", [{}, None])
def test_c81_no_annotations(oci: Containers, given: Any) -> None:
    """Annotations. "If there are no annotations then this property MAY either be absent or an empty map." """
    one = oci()
    one.config["annotations"] = given
    one.create().ok()
    assert not one.state().get("annotations")


def test_c82_an_empty_key(oci: Containers) -> None:
    """Annotations. "Keys MUST NOT be an empty string." """
    one = oci()
    one.config["annotations"] = {"": "value"}
    one.never_created()


@pytest.mark.parametrize("value", [1, None, ["a"], {"a": "b"}, True])
def test_c83_values_are_strings(oci: Containers, value: Any) -> None:
    """Annotations. "Values MUST be strings." """
    one = oci()
    one.config["annotations"] = {"com.example.key": value}
    one.never_created()


def test_c84_an_empty_value(oci: Containers) -> None:
    """Annotations. "Values MAY be an empty string." """
    one = oci()
    one.config["annotations"] = {"com.example.key": ""}
    one.create().ok()
    assert one.state()["annotations"] == {"com.example.key": ""}


@pytest.mark.parametrize("key", ["com.example.unknown", "org.opencontainers.unknown", "run.oci.unknown", "x"])
def test_c85_unknown_keys(oci: Containers, key: str) -> None:
    """Annotations. "Runtimes MUST handle unknown annotation keys like any other unknown property." """
    one = oci()
    one.config["annotations"] = {key: "value"}
    assert one.report()["hostname"] == "conformance"


@pytest.mark.parametrize("key", ["org.opencontainers.image.os", "org.opencontainers.image.stopSignal"])
def test_c86_known_keys(oci: Containers, key: str) -> None:
    """Annotations. "annotations using keys in this namespace MUST be as described in this section": those are taken and told."""
    one = oci()
    one.config["annotations"] = {key: "SIGTERM" if key.endswith("Signal") else "linux"}
    one.create().ok()
    assert one.state()["annotations"] == one.config["annotations"]


# Extensibility, valid values


@pytest.mark.parametrize(
    "where", ["top", "process", "user", "root", "mount", "linux", "resources", "memory", "namespace"]
)
def test_c87_unknown_properties(oci: Containers, where: str) -> None:
    """Extensibility. "Runtimes MAY log unknown properties but MUST otherwise ignore them. That includes not generating errors if
    they encounter an unknown property." """
    one = oci()
    config = one.config
    one.linux["resources"]["memory"] = {}
    places = {
        "top": config,
        "process": config["process"],
        "user": config["process"]["user"],
        "root": config["root"],
        "mount": config["mounts"][0],
        "linux": config["linux"],
        "resources": config["linux"]["resources"],
        "memory": config["linux"]["resources"]["memory"],
        "namespace": config["linux"]["namespaces"][0],
    }
    places[where]["propertyOfTheFuture"] = {"a": [1, None]}
    assert one.report()["hostname"] == "conformance"


INVALID: dict[str, Any] = {
    "args of one text": lambda c: c["process"].update(args="probe"),
    "cwd of a number": lambda c: c["process"].update(cwd=1),
    "env of a map": lambda c: c["process"].update(env={"A": "1"}),
    "mounts of a map": lambda c: c.update(mounts={"destination": "/a"}),
    "hostname of a number": lambda c: c.update(hostname=1),
    "terminal of a text": lambda c: c["process"].update(terminal="yes"),
    "namespace of a kind unknown": lambda c: c["linux"]["namespaces"].append({"type": "dream"}),
    "propagation unknown": lambda c: c["linux"].update(rootfsPropagation="sideways"),
    "limit of a text": lambda c: c["linux"]["resources"].update(pids={"limit": "many"}),
    "personality unknown": lambda c: c["linux"].update(personality={"domain": "PLAN9"}),
    "device of a kind unknown": lambda c: c["linux"].update(devices=[{"path": "/dev/x", "type": "z"}]),
    "oom score out of range": lambda c: c["process"].update(oomScoreAdj=1001),
    "hooks of a list": lambda c: c.update(hooks=[]),
    "a nul in an argument": lambda c: c["process"].update(args=["probe", "a\0b"]),
    "swappiness out of range": lambda c: c["linux"]["resources"].update(memory={"swappiness": 500}),
}


@pytest.mark.parametrize("what", INVALID)
def test_c88_values_that_are_not_valid(oci: Containers, what: str) -> None:
    """Valid values. "Runtimes MUST generate an error when invalid or unsupported values are encountered." """
    one = oci()
    INVALID[what](one.config)
    one.refused()


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", "\xff\xfe", '{"ociVersion": "1.0.2"} x'])
def test_c89_a_configuration_that_is_none(oci: Containers, text: str | None) -> None:
    """Configuration. The bundle has a `config.json` and it is JSON: no file, half a file, another kind of value are errors."""
    one = oci()
    if text is not None:
        (one.bundle / "config.json").write_bytes(text.encode("latin-1"))
    one.create_as_written().fails()
    one.runtime("state", one.id).fails()
