"""`commit`, `diff` and `export` on real containers: what is in the image, who stands still, what failures leave behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

import sampan
from sampan.errors import Conflict, InvalidParameter, NotFound, System
from sampan.steps.trace import Event

from support.command import Command
from support.patience import eventually, patience
from support.roots import Root, small_root

pytestmark = pytest.mark.root


@pytest.fixture(params=["overlay", "vfs"])
def kind_root(request: pytest.FixtureRequest, new_root: Root) -> Root:
    """A store that keeps its root file systems in one way or the other."""
    with new_root.config.open("a") as config:
        config.write(f'snapshotter = "{request.param}"\n')
    return new_root


def changed(engine: sampan.Engine, script: str, **options: object) -> sampan.Container:
    """A container that ended after a script."""
    box = engine.containers.create("base", ["sh", "-c", script], **options)
    box.start()
    assert box.wait() == 0
    return box


def image(engine: sampan.Engine, name: str) -> dict[str, object]:
    return dict(engine.images.resolve(name).document)


def test_what_a_user_does(kind_root: Root) -> None:
    cli = kind_root.cli
    cli("run", "--name", "box", "base", "sh", "-c", "echo hello >/x; rm /bin/ls; mkdir /data; chmod 700 /etc").ok()
    assert cli("diff", "box").ok().out == "C /bin\nD /bin/ls\nA /data\nC /etc\nA /x\n"
    made = cli("commit", "-a", "me", "-m", "mine", "-c", "ENV A=b", "-c", 'CMD ["cat", "/x"]', "box", "mine:1").ok().out
    assert made.startswith("sha256:")
    assert len(made) == 72
    assert cli("run", "--rm", "mine:1").ok().out == "hello\n"
    assert cli("run", "--rm", "mine:1", "sh", "-c", "test ! -e /bin/ls && test -d /data && echo $A").ok().out == "b\n"
    assert cli("container", "commit", "box").ok().out.startswith("sha256:")
    archive = cli("export", "box").ok().out_bytes
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert {"x", "data", "bin/sh"} <= set(tar.getnames())
        assert "bin/ls" not in tar.getnames()


@pytest.mark.core
def test_a_running_container_stands_still_while_it_is_read(root: Root) -> None:
    seen: list[str] = []
    box = None

    def observe(event: Event) -> None:
        if box is not None and event.text.startswith("read writable layer") and event.finished:
            seen.append("read")
        if event.stage == "engine" and event.finished and event.text.startswith(("freeze", "thaw")):
            seen.append(f"{event.text.split()[0]} {box.status if box is not None else ''}")

    with root.engine(observer=observe) as engine:
        box = engine.containers.create("base", ["sh", "-c", "echo 1 >/f; echo ready; exec sleep 1000"])
        box.start()
        eventually(lambda: list(box.logs()), what="its file is there")
        # The layer is complete, and is named, after the container goes on: only the reading needs it still.
        made = box.commit("still:1")
        assert seen == ["freeze paused", "thaw running", "read"]
        seen.clear()
        assert box.commit(pause=False)
        assert seen == ["read"]
        box.pause()
        seen.clear()
        box.commit()
        assert "freeze" not in " ".join(seen)
        assert box.status == "paused"
        box.unpause()
        box.remove(force=True)
        assert engine.containers.run("still:1", ["cat", "/f"]).stdout == "1\n"
        assert engine.images.resolve("still:1").id == made
        engine.images.remove("still:1", force=True)


def test_what_the_image_says(engine: sampan.Engine) -> None:
    box = changed(engine, "echo 1 >/f", environment={"E": "1"}, hostname="box", tty=True, labels={"l": "1"})
    made = image(engine, box.commit("said:1", author="me", message="mine", changes=["EXPOSE 80", "VOLUME /v"]))
    parent = image(engine, "base")
    config = made["config"]
    assert isinstance(config, dict)
    assert config["Cmd"] == ["sh", "-c", "echo 1 >/f"]
    assert "E=1" in config["Env"]
    assert config["Labels"] == {"l": "1"}
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert config["Volumes"] == {"/v": {}}
    assert not {"Hostname", "Tty", "Image", "AttachStdout"} & set(config)
    assert (made["author"], made["comment"], made["container"]) == ("me", "mine", box.id)
    history, before = made["history"], parent["history"]
    assert isinstance(history, list)
    assert isinstance(before, list)
    assert history[:-1] == before
    assert {k: v for k, v in history[-1].items() if k != "created"} == {
        "created_by": "sh -c echo 1 >/f",
        "author": "me",
        "comment": "mine",
    }
    engine.images.remove("said:1", force=True)


def test_nothing_changed_is_no_layer(engine: sampan.Engine) -> None:
    box = engine.containers.create("base", ["true"])
    made = image(engine, box.commit("same:1"))
    assert made["rootfs"] == image(engine, "base")["rootfs"]
    assert made["history"][-1]["empty_layer"] is True  # type: ignore[index]
    assert box.diff() == []
    engine.images.remove("same:1", force=True)


def test_what_is_mounted_is_not_in_it(engine: sampan.Engine) -> None:
    box = changed(engine, "echo 1 >/mnt/data/f; echo 2 >/etc/hosts; echo 3 >/dev/shm/f", tmpfs={"/mnt/data": ""})
    assert [change["Path"] for change in box.diff()] == ["/mnt", "/mnt/data"] or [
        change["Path"] for change in box.diff()
    ] == ["/mnt/data"]
    with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as tar:
        names = tar.getnames()
        assert "mnt/data" in names
        assert "mnt/data/f" not in names
        assert "dev/shm/f" not in names
        assert tar.getmember("etc/hosts").size == 0
    made = box.commit("mounted:1")
    assert engine.containers.run(made, ["ls", "/mnt/data"]).stdout == ""
    engine.images.remove("mounted:1", force=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("A:b", "invalid reference format: repository name (library/A) must be lowercase"),
        ("a:b:c", "invalid reference format"),
        (f"a@sha256:{'0' * 64}", "refusing to create a tag with a digest reference"),
    ],
)
def test_names_that_are_refused(engine: sampan.Engine, name: str, words: str) -> None:
    box = engine.containers.create("base", ["true"])
    with pytest.raises(InvalidParameter) as raised:
        box.commit(name)
    assert str(raised.value) == words


def test_the_image_was_removed_by_force(new_root: Root) -> None:
    with new_root.engine() as engine:
        first = changed(engine, "echo 1 >/f")
        first.commit("first:1")
        box = engine.containers.create("first:1", ["true"])
        engine.images.remove("first:1", force=True)
        # Its layers are still there for the container, but nothing says what the image was.
        with pytest.raises(NotFound, match=r"^No such image: sha256:.*it was removed since"):
            box.commit("second:1")
        assert box.diff() == []
        # `export | import` is the way that is left.
        made = engine.images.import_(io.BytesIO(b"".join(box.export())), "second:1")
        assert engine.containers.run(made, ["/bin/cat", "/f"]).stdout == "1\n"


def test_export_and_import_give_the_same_tree(engine: sampan.Engine, debian_image: str) -> None:
    """Owners, modes, links, devices, xattrs and times of a whole Debian, told by a second export."""
    box = engine.containers.create(
        debian_image,
        [
            "sh",
            "-c",
            "mkfifo /p; mknod /n c 1 3; ln /etc/passwd /l; chown 7:9 /l; touch -d @1.123456789 /l; chmod 711 /",
        ],
    )
    box.start()
    assert box.wait() == 0

    def entries(archive: bytes) -> list[tuple[object, ...]]:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            return [
                (
                    e.name,
                    e.type,
                    e.mode,
                    e.uid,
                    e.gid,
                    e.size,
                    e.pax_headers.get("mtime", e.mtime),
                    e.linkname,
                    e.pax_headers,
                )
                for e in tar
                if not e.name.startswith(("dev", "proc", "sys", "etc/host", "etc/resolv", "etc/mtab", ".dockerenv"))
                and e.name not in (".", "etc")
            ]

    first = b"".join(box.export())
    made = engine.images.import_(io.BytesIO(first), "again:1")
    second = b"".join(engine.containers.create("again:1", ["/bin/true"]).export())
    assert entries(second) == entries(first)
    with tarfile.open(fileobj=io.BytesIO(second)) as tar:
        assert tar.getmember(".").mode == 0o711
    assert made
    engine.images.remove("again:1", force=True)


def test_export_on_the_command_line(cli: Command, root: Root, tmp_path: Path) -> None:
    cli("create", "--name", "exported", "base", "true").ok()
    with root.terminal("export", "exported") as terminal:
        terminal.expect("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        assert terminal.wait() == 1
    target = tmp_path / "out.tar"
    assert cli("export", "-o", str(target), "exported").ok().out == ""
    assert target.read_bytes() == cli("export", "exported").ok().out_bytes
    assert os.listdir(tmp_path) == ["out.tar"]
    for path, words in (
        (f"{tmp_path}/no/x", f"invalid output path: stat {tmp_path}/no: no such file or directory"),
        (str(tmp_path), "cannot write to a directory"),
        ("/dev/null", "cannot write to a character device file"),
    ):
        refused = cli("export", "-o", path, "exported")
        assert (refused.code, refused.err) == (1, f"failed to export container: {words}\n")
    missing = cli("export", "-o", str(tmp_path / "none.tar"), "nosuch")
    assert (missing.code, missing.err) == (1, "Error: No such container: nosuch\n")
    assert os.listdir(tmp_path) == ["out.tar"]


def test_a_reader_that_goes_away(cli: Command) -> None:
    cli("create", "--name", "piped", "base", "true").ok()
    process = cli.start("export", "piped", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(patience(20)) != 0


def leftovers(root: Root) -> list[str]:
    """What is in the store beside what has a name."""
    found = [f"{place}/{name}" for place in ("content/ingest", "layers") for name in os.listdir(root.root / place)]
    return [name for name in found if "ingest/" in name or "/." in name]


KILL_AT = """
import os, signal, sys
import sampan
def kill(event):
    if event.text.startswith(sys.argv[4]) and event.finished == (sys.argv[5] == "after"):
        os.kill(0 if sys.argv[6] == "group" else os.getpid(), signal.SIGKILL)
engine = sampan.Engine(root=sys.argv[1], run_root=sys.argv[2], config=sys.argv[3], observer=kill)
engine.containers.get("frozen").commit("x:1")
"""


@pytest.mark.parametrize("whom", ["one", "group"])
@pytest.mark.parametrize(
    ("step", "when"), [("freeze cgroup", "before"), ("freeze cgroup", "after"), ("thaw cgroup", "before")]
)
def test_a_killed_commit_leaves_no_frozen_container(root: Root, step: str, when: str, whom: str) -> None:
    root.cli("run", "-d", "--name", "frozen", "base", "sleep", "1000").ok()
    places = (str(root.root), str(root.run_root), str(root.config))
    done = subprocess.run(
        [sys.executable, "-c", KILL_AT, *places, step, when, whom], process_group=0, timeout=patience(30)
    )
    assert done.returncode == -signal.SIGKILL
    with root.engine() as engine:
        box = engine.containers.get("frozen")
        eventually(lambda: box.status == "running", what="it goes on")
        made = box.commit("x:1")
        assert engine.images.resolve("x:1").id == made
        box.remove(force=True)
        engine.images.remove("x:1", force=True)
    assert leftovers(root) == []


def test_a_full_disk(tmp_path: Path) -> None:
    with small_root(tmp_path / "disk", "24m") as root, root.engine() as engine:
        box = engine.containers.create(
            "base", ["sh", "-c", "head -c 14000000 /dev/urandom >/big; echo ready; exec sleep 1000"]
        )
        box.start()
        eventually(lambda: list(box.logs()), what="its file is there")
        before = {name: os.listdir(root.root / name) for name in ("content/sha256", "layers", "images")}
        with pytest.raises(System, match="no space left on device"):
            box.commit("full:1")
        assert box.status == "running"
        assert {name: os.listdir(root.root / name) for name in before} == before
        assert leftovers(root) == []


@pytest.mark.parametrize("step", ["read writable layer", "write image name"])
def test_a_container_that_is_removed_while_it_is_committed(new_root: Root, step: str) -> None:
    removed = False

    def remove(event: Event) -> None:
        nonlocal removed
        if event.text.startswith(step) and not event.finished and armed and not removed:
            removed = True
            new_root.cli("rm", "-f", "going").ok()

    armed = False
    with new_root.engine(observer=remove) as engine:
        box = changed(engine, "for i in 1 2 3 4 5; do echo $i >/$i; done", name="going")
        armed = True
        if step == "read writable layer":
            with pytest.raises(NotFound, match="No such container"):
                box.commit("going:1")
            assert [i for i in engine.images.list() if "going:1" in i["RepoTags"]] == []
            engine.images.collect()
        else:
            box.commit("going:1")  # All of it was read by then.
            assert engine.containers.run("going:1", ["cat", "/5"]).stdout == "5\n"
    assert removed
    assert leftovers(new_root) == []


def test_a_container_that_is_removed_while_it_is_exported(new_root: Root) -> None:
    with new_root.engine() as engine:
        box = changed(engine, "head -c 3000000 /dev/zero >/a; head -c 3000000 /dev/zero >/z")
        pieces = box.export()
        next(pieces)
        box.remove()
        with pytest.raises(NotFound):
            list(pieces)


def test_started_while_it_is_committed(engine: sampan.Engine, root: Root) -> None:
    box = changed(engine, "echo 1 >/f", name="again")
    started = []

    def start(event: Event) -> None:
        if event.text.startswith("read writable layer") and not event.finished and not started:
            started.append(root.cli("start", "again").ok())

    with root.engine(observer=start) as other, pytest.raises(Conflict, match="was started while it was committed"):
        other.containers.get("again").commit()
    box.wait()


def test_twenty_commits_at_once(new_root: Root) -> None:
    with new_root.engine() as engine:
        box = engine.containers.create(
            "base", ["sh", "-c", "for i in $(seq 50); do echo $i >/$i; done; echo x; sleep 1000"]
        )
        box.start()
        eventually(lambda: list(box.logs()), what="its files are there")
        failures: list[BaseException] = []
        made: set[str] = set()

        def one(number: int) -> None:
            try:
                made.add(box.commit(f"many:{number}"))
            except BaseException as e:
                failures.append(e)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert box.status == "running"
        layers = {engine.images.resolve(f"many:{number}").layers for number in range(20)}
        assert len(layers) == 1
        box.remove(force=True)
    assert leftovers(new_root) == []


@pytest.mark.long
def test_an_image_of_130_layers(new_root: Root) -> None:
    with new_root.engine() as engine:
        name = "base"
        for number in range(130):
            box = engine.containers.create(name, ["sh", "-c", f"echo {number} >/{number}; rm -f /{number - 2}"])
            box.start()
            assert box.wait() == 0
            name = box.commit("deep:1")
            box.remove()
        assert len(engine.images.resolve("deep:1").layers) == 131
        assert (
            engine.containers.run("deep:1", ["sh", "-c", "cat /129 /128; ls / | grep -c '^[0-9]'"]).stdout
            == "129\n128\n2\n"
        )
        box = engine.containers.create("deep:1", ["true"])
        with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as tar:
            assert {"129", "128"} <= set(tar.getnames())
            assert "127" not in tar.getnames()
