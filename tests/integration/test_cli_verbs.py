"""The verbs that list, tell, end and remove: their output, and what they say about several things of which some are missing."""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from pathlib import Path

import pytest

from support.command import Command
from support.patience import eventually, patience
from support.roots import Root

pytestmark = pytest.mark.root


def sleeping(cli: Command, name: str) -> str:
    return cli("run", "-d", "--name", name, "--network", "none", "base", "sleep", "1000").ok().out.strip()


def archive(**files: str) -> bytes:
    """A tar with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


# Containers


def test_rename(cli: Command) -> None:
    identifier = sleeping(cli, "box")
    cli("create", "--name", "other", "base").ok()
    refused = (
        ("box", "other", 'Error when allocating new name: Conflict. The container name "/other" is already in use by'),
        ("box", "box", "Renaming a container with the same name as its current name"),
        ("box", "/box", "Renaming a container with the same name as its current name"),
        (
            "box",
            "!!",
            "Error when allocating new name: Invalid container name (/!!), only [a-zA-Z0-9][a-zA-Z0-9_.-] are",
        ),
        ("nosuch", "new", "No such container: nosuch"),
    )
    for old, new, text in refused:
        result = cli("rename", old, new)
        assert result.code == 1
        assert text in result.err
        assert result.err.endswith(f"\nError: failed to rename container named {old}\n")
    assert cli("rename", "box", " ").err == "Error: Neither old nor new names may be empty\n"
    for old, new in (("box", "/new"), (identifier[:12], "newer"), ("newer", "box")):
        result = cli("rename", old, new).ok()
        assert (result.out, result.err) == ("", "")
        name = new.removeprefix("/")
        assert cli("ps", "--format", "{{.ID}} {{.Names}}").ok().out == f"{identifier[:12]} {name}\n"
    # What runs goes on, and the verbs find it by its new name.
    cli("container", "rename", "box", "last").ok()
    assert cli("exec", "last", "echo", "works").ok().out == "works\n"
    assert cli("stop", "-t", "0", "last").ok().out == "last\n"
    cli("rename", "last", "stopped").ok()
    cli("rm", "stopped").ok()
    assert "No such container: last" in cli("rm", "last").err


def test_ps(cli: Command) -> None:
    assert cli("ps").ok().out == "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    identifier = sleeping(cli, "box")
    cli("run", "--name", "done", "--network", "none", "base", "false")
    cli("create", "--name", "new", "base").ok()
    heads, line = cli("ps").ok().out.splitlines()
    assert re.fullmatch(
        rf'{identifier[:12]}   base      "sleep 1000"   (Less than a second|\d+ seconds?) ago\s+'
        r"Up (Less than a second|\d+ seconds?)\s+box",
        line,
    )
    assert heads.index("NAMES") == line.index("box")
    everything = cli("ps", "-a").ok().out.splitlines()[1:]
    assert [row.split()[-1] for row in everything] == ["new", "done", "box"]
    assert "Exited (1)" in everything[1]
    assert "Created" in everything[0]
    assert [row.split()[-1] for row in cli("ps", "-n", "2").ok().out.splitlines()[1:]] == ["new", "done"]
    assert cli("ps", "-lq", "--no-trunc").ok().out.split() != [identifier]
    assert cli("ps", "-q").ok().out == identifier[:12] + "\n"
    assert cli("container", "ls", "-q", "--no-trunc").ok().out == identifier + "\n"


def test_inspect(cli: Command) -> None:
    identifier = sleeping(cli, "box")
    done = cli("inspect", "box", "nobody", "base", "nothing")
    assert (done.code, done.err) == (1, "Error: No such object: nobody\nError: No such object: nothing\n")
    container, image = json.loads(done.out)
    assert done.out.startswith('[\n    {\n        "Id": "')
    assert (container["Id"], container["Name"], container["State"]["Status"]) == (identifier, "/box", "running")
    assert (container["Path"], container["Args"]) == ("sleep", ["1000"])
    assert "base:latest" in image["RepoTags"]
    assert container["Image"] == image["Id"]
    done = cli("inspect", "nobody")
    assert (done.code, done.out) == (1, "[]\n")


def test_inspect_by_type(cli: Command) -> None:
    sleeping(cli, "box")
    assert (
        json.loads(cli("inspect", "--type", "container", identifier_prefix(cli, "box")).ok().out)[0]["Name"] == "/box"
    )
    assert json.loads(cli("image", "inspect", "base").ok().out)[0]["Os"] == "linux"
    done = cli("inspect", "--type", "container", "base")
    assert (done.code, done.out, done.err) == (1, "[]\n", "Error: No such container: base\n")
    done = cli("inspect", "--type", "image", "box")
    assert (done.code, done.err) == (1, "Error: No such image: box:latest\n")
    done = cli("inspect", "--type", "foo", "box")
    assert (done.code, done.err) == (
        1,
        'unknown type: "foo": must be one of "container", "image", "network", "volume"\n',
    )
    assert cli("container", "inspect", "box").ok().out == cli("inspect", "--type=container", "box").ok().out


def identifier_prefix(cli: Command, name: str) -> str:
    return str(json.loads(cli("inspect", name).ok().out)[0]["Id"])[:6]


def test_stop_sends_the_containers_own_signal_and_waits(cli: Command) -> None:
    script = "trap 'exit 4' USR1; echo up; while :; do sleep 0.05; done"
    cli("run", "-d", "--name", "box", "--stop-signal", "USR1", "--network", "none", "base", "sh", "-c", script).ok()
    eventually(lambda: cli("logs", "box").out == "up\n")
    assert cli("stop", "box").ok().out == "box\n"
    assert cli("wait", "box").ok().out == "4\n"
    assert cli("stop", "box").ok().out == "box\n"


def test_stop_kills_after_its_timeout(cli: Command) -> None:
    sleeping(cli, "one")
    sleeping(cli, "two")
    begun = time.monotonic()
    assert cli("stop", "-t", "0", "one").ok().out == "one\n"
    assert cli("stop", "--time", "1", "two").err == "Flag --time has been deprecated, use --timeout instead\n"
    assert time.monotonic() - begun < patience(8)
    assert cli("wait", "one", "two").ok().out == "137\n137\n"


def test_stop_with_a_signal(cli: Command) -> None:
    script = "trap 'exit 6' HUP; echo up; while :; do sleep 0.05; done"
    cli("run", "-d", "--name", "box", "--network", "none", "base", "sh", "-c", script).ok()
    eventually(lambda: cli("logs", "box").out == "up\n")
    cli("stop", "-s", "HUP", "box").ok()
    assert cli("wait", "box").ok().out == "6\n"


def test_kill(cli: Command) -> None:
    identifier = sleeping(cli, "box")
    done = cli("kill", "-s", "FOO", "box")
    assert (done.code, done.err) == (1, "Error: invalid signal: FOO\n")
    done = cli("kill", "nobody")
    assert (done.code, done.err) == (1, "Error: cannot kill container: nobody: No such container: nobody\n")
    assert cli("kill", "box").ok().out == "box\n"
    assert cli("wait", "box").ok().out == "137\n"
    done = cli("kill", "box")
    assert (done.code, done.err) == (1, f"Error: cannot kill container: box: container {identifier} is not running\n")


def test_rm(cli: Command) -> None:
    sleeping(cli, "box")
    done = cli("rm", "box")
    assert done.code == 1
    assert 'cannot remove container "/box": container is running' in done.err
    cli("create", "--name", "new", "base").ok()
    done = cli("rm", "nobody", "new", "box")
    assert (done.code, done.out) == (1, "new\n")
    assert done.err.startswith("Error: No such container: nobody\nError: cannot remove")
    done = cli("rm", "-fv", "box", "nobody").ok()
    assert (done.out, done.err) == ("box\n", "Error: No such container: nobody\n")
    assert cli("ps", "-aq").out == ""


def test_start_of_several(cli: Command) -> None:
    sleeping(cli, "running")
    cli("create", "--name", "new", "base", "sleep", "1000").ok()
    done = cli("start", "nobody", "running", "new", "nothing")
    assert (done.code, done.out) == (1, "running\nnew\n")
    assert done.err == (
        "Error: No such container: nobody\nError: No such container: nothing\n"
        "Error: failed to start containers: nobody, nothing\n"
    )
    done = cli("start", "-a", "running", "new")
    assert (done.code, done.err) == (1, "you cannot start and attach multiple containers at once\n")


def test_a_start_that_fails_exits_with_1_attached_or_not(cli: Command) -> None:
    cli("create", "--name", "broken", "base", "no-such-program").ok()
    for flags in ([], ["-a"], ["-ai"]):
        done = cli("start", *flags, "broken")
        assert (done.code, done.out) == (1, "")
        assert "executable file not found in $PATH" in done.err


def test_wait_tells_the_codes_in_turn(cli: Command) -> None:
    cli("run", "-d", "--name", "one", "--network", "none", "base", "sh", "-c", "sleep 0.3; exit 3").ok()
    cli("run", "-d", "--name", "two", "--network", "none", "base", "sh", "-c", "exit 4").ok()
    done = cli("wait", "one", "nobody", "two")
    assert (done.code, done.out, done.err) == (1, "3\n4\n", "Error: No such container: nobody\n")


# Images


def test_images_tag_and_rmi(root: Root) -> None:
    cli = root.cli
    heads, line = cli("images", "base").ok().out.splitlines()
    assert re.fullmatch(r"REPOSITORY   TAG       IMAGE ID {7}CREATED {5,}SIZE", heads)
    assert re.fullmatch(r"base {9}latest {4}[0-9a-f]{12}   .*  [\d.]+[kM]B", line)
    identifier = cli("images", "-q", "--no-trunc", "base").ok().out.strip()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", identifier)
    assert cli("tag", "base", "other/name:1").ok().out == ""
    assert cli("image", "ls", "-q", "other/name").ok().out.strip() == identifier[7:19]
    done = cli("rmi", "nothing", "other/name:1")
    assert (done.code, done.out, done.err) == (1, "Untagged: other/name:1\n", "Error: No such image: nothing:latest\n")
    assert cli("images", "other/name").ok().out.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tag", "nothing", "x"], "No such image: nothing:latest"),
        (
            ["tag", "base", "FOO"],
            'parsing reference: "FOO" is not a valid repository/tag: '
            "invalid reference format: repository name (library/FOO) must be lowercase",
        ),
        (["tag", "a b", "x"], 'parsing reference: "a b" is not a valid repository/tag: invalid reference format'),
        (["import", "-", "FOO"], "invalid reference format: repository name (library/FOO) must be lowercase"),
        (["import", "-c", "FOO bar", "-"], "FOO is not a valid change command"),
    ],
)
def test_what_cannot_be_named(cli: Command, args: list[str], message: str) -> None:
    done = cli(*args, input=archive(a="1"))
    assert done.code == 1
    assert message in done.err


def test_import_and_run(root: Root, tmp_path: Path) -> None:
    cli = root.cli
    path = tmp_path / "a.tar"
    path.write_bytes(archive(file="content\n"))
    nameless = cli("import", str(path)).ok().out.strip()
    assert cli("image", "inspect", "-f", "{{.Comment}}", nameless).ok().out == "Imported from -\n"
    cli("rmi", nameless).ok()
    identifier = cli("import", "-c", "ENV A=1", "-m", "a comment", str(path), "imported:1").ok().out.strip()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", identifier)
    (image,) = json.loads(cli("inspect", "imported:1").ok().out)
    assert (image["Id"], image["Comment"], image["Config"]["Env"][-1:]) == (identifier, "a comment", ["A=1"])
    done = cli("run", "--rm", "imported:1", "/file")
    assert done.code == 126
    assert cli("rmi", "imported:1").ok().out.splitlines()[:2] == ["Untagged: imported:1", f"Deleted: {identifier}"]
    nameless = cli("import", "-", input=path.read_bytes()).ok().out.strip()
    assert re.search(rf"<none> +<none> +{nameless[7:19]} ", cli("images").ok().out)
    assert cli("rmi", nameless).ok().out.startswith(f"Deleted: {nameless}\n")


def test_import_of_a_file_that_is_not_there(cli: Command, tmp_path: Path) -> None:
    done = cli("import", "/no/such/file")
    assert (done.code, done.err) == (1, "open /no/such/file: no such file or directory\n")


def test_rmi_of_an_image_in_use(cli: Command) -> None:
    sleeping(cli, "box")
    done = cli("rmi", "base")
    assert done.code == 1
    assert 'conflict: unable to remove repository reference "base" (must force) - container' in done.err


# The installation


def test_version_and_info(cli: Command) -> None:
    sleeping(cli, "box")
    assert "API version:" in cli("version").ok().out
    lines = cli("info").ok().out.splitlines()
    assert lines[:3] == ["Containers: 1", " Running: 1", " Paused: 0"]
    assert "Storage Driver: overlay" in lines
    assert cli("system", "info").ok().out.splitlines()[:3] == lines[:3]
    assert cli("info", "-f", "{{.Driver}} {{.ContainersRunning}}").ok().out == "overlay 1\n"
    assert json.loads(cli("version", "--format", "json").ok().out)["Server"]["ApiVersion"] == "1.51"
    assert cli("version", "-f", "{{.Client.Os}}").ok().out == "linux\n"
    assert cli("info", "--format", "{{.NoSuchThing}}").code == 1
    assert cli("info", "--format", "{{").code == 64


def test_roots_by_flags_share_nothing(new_root: Root, cli: Command) -> None:
    sleeping(cli, "box")
    flags = ("--root", str(new_root.root), "--run-root", str(new_root.run_root))
    other = Command({}, program=cli.program, before=flags)
    assert other("ps", "-aq").ok().out == ""
    assert other("images", "-q").ok().out == ""
    assert other("inspect", "box").code == 1


def test_a_configuration_with_an_unknown_key_is_told(cli: Command, tmp_path: Path) -> None:
    path = tmp_path / "sampan.toml"
    path.write_text('colour = "blue"\n')
    done = Command(cli.environment, before=("--config", str(path)))("ps")
    assert done.code == 1
    assert "unknown key 'colour'" in done.err
