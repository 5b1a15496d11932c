"""`--userns private` and `keep-id`: a container whose root is nobody on the machine, without one file copied or given away."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from support.command import SAMPAN, Result
from support.roots import Root
from support.subordinate import FIRST, Machine, machine
from support.terminal import Terminal

__all__ = ["machine"]

pytestmark = pytest.mark.root


def box(machine: Machine, *flags: str, command: str = "exec sleep 1000") -> str:
    machine("run", "-d", "--name", "box", "--userns", "private", *flags, "base", "sh", "-c", command).ok()
    return "box"


def owners(archive: Result) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=io.BytesIO(archive.ok().out_bytes)) as read:
        return {member.name.strip("/"): (member.uid, member.gid) for member in read}


def test_its_root_is_nobody_outside_and_owns_the_image_inside(machine: Machine, root: Root) -> None:
    # An image of one layer is mounted as it is, and no overlay.
    box(
        machine,
        *("--mount", "type=image,src=base,dst=/i"),
        *("--mount", "type=image,src=base,dst=/e,image-subpath=etc"),
    )
    assert root.root.stat().st_mode & 0o777 == 0o700, "nobody needs to pass through the store"
    pid = int(root.cli("inspect", "-f", "{{.State.Pid}}", "box").ok().out)
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{FIRST}\t{FIRST}\t{FIRST}\t{FIRST}" in status
    assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
    look = "cat /proc/self/uid_map; stat -c '%u %g' /bin /etc/hosts /dev /tmp; id -u; head -c 1 /dev/zero | wc -c"
    assert root.cli("exec", "box", "sh", "-c", look).ok().out.split() == ["0", str(FIRST), "65536", *["0"] * 9, "1"]
    images = "stat -c '%u %g' /i/bin /e/passwd; touch /i/no /e/no 2>&1"
    assert root.cli("exec", "box", "sh", "-c", images).out == (
        "0 0\n0 0\ntouch: /i/no: Read-only file system\ntouch: /e/no: Read-only file system\n"
    )
    assert root.cli("exec", "-u", "1000:100", "box", "id", "-u").ok().out == "1000\n"
    assert root.cli("inspect", "-f", "{{.HostConfig.UsernsMode}}", "box").ok().out == "private\n"


def test_layers_are_shared_and_what_is_written_has_the_image_s_owners(machine: Machine, root: Root) -> None:
    write = (
        "mkdir /new; echo a > /new/f; chown 1000:1001 /new/f; echo more >> /etc/passwd; rm /bin/cat; exec sleep 1000"
    )
    box(machine, command=write)
    root.cli("exec", "box", "sh", "-c", "until [ ! -e /bin/cat ]; do sleep 0.02; done").ok()
    upper = next((root.root / "snapshots").glob("*/upper"))
    assert os.stat(upper / "new/f").st_uid == FIRST + 1000
    assert root.cli("diff", "box").ok().out.splitlines() == [
        "C /bin",
        "D /bin/cat",
        "C /etc",
        "C /etc/passwd",
        "A /new",
        "A /new/f",
    ]
    assert owners(root.cli("export", "box"))["new/f"] == (1000, 1001)
    root.cli("commit", "box", "mapped").ok()
    assert root.cli("run", "--rm", "mapped", "stat", "-c", "%u %g", "/new/f", "/new").ok().out == "1000 1001\n0 0\n"
    # Again with other ids: the image is the same for all.
    machine.file.write_text("sampan:500000:70000\n")
    again = machine(
        "run", "--rm", "--userns", "private", "mapped", "sh", "-c", "stat -c '%u %g' /new/f; head -1 /proc/self/uid_map"
    )
    assert again.ok().out.split() == ["1000", "1001", "0", "500000", "65536"]
    # A start takes the ids of its creation, whatever the files say now: its own files have them.
    root.cli("stop", "-t", "0", "box").ok()
    machine("start", "box").ok()
    assert root.cli("exec", "box", "stat", "-c", "%u", "/new/f").ok().out == "1000\n"
    root.cli("rm", "-f", "box").ok()
    root.cli("rmi", "mapped").ok()


def test_volumes_are_the_container_s_and_binds_the_host_s(machine: Machine, root: Root, tmp_path: Path) -> None:
    box(
        machine,
        "-v",
        "data:/data",
        "-v",
        f"{tmp_path}:/host",
        command="echo x > /data/f; chown 7:8 /data/f; exec sleep 1000",
    )
    root.cli("exec", "box", "sh", "-c", "until [ $(stat -c %u /data/f) = 7 ]; do sleep 0.02; done").ok()
    kept = os.stat(root.root / "volumes/data/_data/f")
    assert (kept.st_uid, kept.st_gid) == (7, 8)
    assert root.cli("exec", "box", "stat", "-c", "%u", "/host").ok().out == "65534\n"
    refused = root.cli("exec", "box", "touch", "/host/file")
    assert refused.code == 1
    assert "Permission denied" in refused.err
    # The same volume in a container without ids of its own.
    assert root.cli("run", "--rm", "-v", "data:/data", "base", "stat", "-c", "%u %g", "/data/f").ok().out == "7 8\n"
    root.cli("rm", "-f", "box").ok()
    root.cli("volume", "rm", "data").ok()


def test_copies_have_the_owners_that_the_container_sees(machine: Machine, root: Root, tmp_path: Path) -> None:
    (tmp_path / "hi").write_text("hi")
    box(machine, "-v", "data:/data", command="echo a > /f; chown 1000:1001 /f; exec sleep 1000")
    root.cli("exec", "box", "sh", "-c", "until [ $(stat -c %u /f) = 1000 ]; do sleep 0.02; done").ok()
    for state in ("running", "stopped"):
        assert owners(root.cli("cp", "box:/f", "-")) == {"f": (1000, 1001)}
        assert owners(root.cli("cp", "box:/etc/passwd", "-")) == {"passwd": (0, 0)}
        for place in (f"/hi-{state}", f"/data/hi-{state}"):
            root.cli("cp", str(tmp_path / "hi"), f"box:{place}").ok()
            assert owners(root.cli("cp", f"box:{place}", "-")) == {Path(place).name: (0, 0)}
        root.cli("stop", "-t", "0", "box").ok()
    root.cli("start", "box").ok()
    places = [f"{directory}/hi-{state}" for directory in ("", "/data") for state in ("running", "stopped")]
    assert root.cli("exec", "box", "stat", "-c", "%u", *places).ok().out.split() == ["0"] * 4
    root.cli("rm", "-f", "box").ok()
    root.cli("volume", "rm", "data").ok()


def test_the_terminal_is_its_own(machine: Machine, root: Root) -> None:
    words = machine.words(
        "run", "--rm", "-it", "--userns", "private", "base", "sh", "-c", "stat -c '%u-%g' $(tty); echo done > /dev/tty"
    )
    with Terminal(["/usr/bin/unshare", "-m", "sh", "-c", *words], root.cli.environment, 24, 80) as terminal:
        terminal.expect("0-5")
        terminal.expect("done")


def test_a_health_check_and_the_audit_join_it(machine: Machine, root: Root) -> None:
    box(machine, "--health-cmd", "test $(id -u) = 0", "--health-interval", "100ms")
    root.cli("exec", "box", "true").ok()
    wait = 'for i in $(seq 200); do [ "$($0 $@)" = healthy ] && exit; sleep 0.05; done; exit 1'
    import subprocess

    inspect = [SAMPAN, *root.cli.before, "inspect", "-f", "{{.State.Health.Status}}", "box"]
    subprocess.run(["sh", "-c", wait, *inspect], env=root.cli.environment, check=True, timeout=60)
    audited = root.cli("audit", "--format", "{{.Check}}: {{.Result}} {{.Detail}}", "box").ok()
    assert "user namespace: note its own" in audited.out


def test_keep_id_is_the_caller_behind_sudo(machine: Machine, tmp_path: Path) -> None:
    os.chown(tmp_path, 1000, 1000)
    sudo = {"SUDO_UID": "1000", "SUDO_GID": "1000"}
    shell = "cat /proc/self/uid_map; echo x > /host/mine"
    flags = ["--rm", "--userns", "keep-id", "-u", "1000:1000", "-v", f"{tmp_path}:/host"]
    done = machine("run", *flags, "base", "sh", "-c", shell, env=sudo).ok()
    assert [line.split() for line in done.out.splitlines()] == [
        ["0", str(FIRST), "1000"],
        ["1000", "1000", "1"],
        ["1001", str(FIRST + 1001), "64535"],
    ]
    mine = os.stat(tmp_path / "mine")
    assert (mine.st_uid, mine.st_gid) == (1000, 1000)
    refused = machine("run", "--rm", "--userns", "keep-id", "base", "true")
    assert refused.code == 125
    assert "would make the container's root the machine's" in refused.err


def test_what_does_not_go_together_is_refused_in_docker_s_words(machine: Machine) -> None:
    for flags, words in (
        (["--privileged"], "privileged mode is incompatible with user namespaces"),
        (["--network", "host"], "cannot share the host's network namespace when user namespaces are enabled"),
        (["--pid", "host"], "cannot share the host PID namespace when user namespaces are enabled"),
        (["--ipc", "host"], "cannot share the host's IPC namespace when user namespaces are enabled"),
    ):
        done = machine("run", "--name", "never", "--userns", "private", *flags, "base", "true")
        assert done.code == 125
        assert words in done.err
    assert machine("ps", "-aq").ok().out == ""
    assert "invalid USER mode" in machine("run", "--rm", "--userns", "auto", "base", "true").err


def test_without_ids_to_be_had_it_says_how_to_get_some(machine: Machine) -> None:
    machine.file.write_text("alice:100000:65536\n")
    done = machine("run", "--rm", "--userns", "private", "base", "true")
    assert done.code == 125
    assert "echo sampan:196608:65536 >> /etc/subuid" in done.err


def test_on_a_store_of_copies_nothing_is_given_away_either(new_root: Root, tmp_path: Path) -> None:
    new_root.config.write_text(new_root.config.read_text() + 'snapshotter = "vfs"\n')
    machine = Machine(new_root, tmp_path, f"sampan:{FIRST}:65536\n")
    box(machine, command="echo a > /f; chown 5:6 /f; exec sleep 1000")
    new_root.cli("exec", "box", "sh", "-c", "until [ $(stat -c %u /f) = 5 ]; do sleep 0.02; done").ok()
    assert owners(new_root.cli("export", "box"))["f"] == (5, 6)
    assert "A /f" in new_root.cli("diff", "box").ok().out.splitlines()
    assert owners(new_root.cli("cp", "box:/f", "-")) == {"f": (5, 6)}
