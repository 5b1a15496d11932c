"""`system check`: each kind of damage is found, told, and mended where nothing can be lost by it; what is well is not touched."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.engine.check import Finding

from support.imagestore import archive
from support.patience import eventually, patience
from support.roots import Root

pytestmark = pytest.mark.root

SLEEP = ["sleep", "1000"]
UNKNOWN = "ab" * 32
LAYER = archive({"bin": None, "bin/sh": b"#!", "etc/name": b"value", "etc/other": b"x" * 5000})


class Damage:
    """A store with an image of its own and a container, to be damaged. Paths are those of its parts."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.place = root.root
        with root.engine() as engine:
            self.image = engine.images.import_(io.BytesIO(LAYER), "mine")
            self.box = engine.containers.create("mine", ["sh"], name="box")
            self.container = self.place / "containers" / self.box.id
            self.layer = next(p for p in (self.place / "layers").iterdir() if not p.name.startswith("."))
            self.blob = max((self.place / "content/sha256").iterdir(), key=lambda p: p.stat().st_size)

    def record_of(self, reference: str) -> Path:
        from sampan.oci.digest import hex_of

        return self.place / "images" / hex_of(reference.encode())

    def check(self, **options: bool) -> list[Finding]:
        with self.root.engine() as engine:
            return engine.system.check(**options)

    def expect(self, kind: str, severity: str, repairable: bool = True, deep: bool = False) -> None:
        """The damage is the only thing that is found; --repair mends it, or leaves it alone."""
        (found,) = self.check(deep=deep)
        assert (found.kind, found.severity, bool(found.repair)) == (kind, severity, repairable), found
        (mended,) = self.check(deep=deep, repair=True)
        assert mended.repaired == repairable, mended
        assert bool(self.check(deep=True)) != repairable


@pytest.fixture
def damage(new_root: Root) -> Damage:
    return Damage(new_root)


def aged(path: Path) -> Path:
    """What is new may be just being made: only what has been there for a while counts."""
    eventually(lambda: time.time() - path.lstat().st_ctime > 2.1, what="the file is old")
    return path


def test_a_store_that_is_well_has_no_findings(damage: Damage) -> None:
    with damage.root.engine() as engine:
        engine.containers.run("base", ["true"])
        engine.containers.create("base", SLEEP).start()
        engine.volumes.create("data")
        assert engine.system.check(deep=True, repair=True) == []
    assert damage.root.cli("system", "check", "--deep").ok().out == "nothing found\n"
    assert damage.root.cli("system", "check", "--format", "json").ok().out == ""


# What killed commands left


def make_leftovers(damage: Damage) -> Path:
    path = damage.place / "containers" / f".removing-{UNKNOWN}"
    path.mkdir()
    (path / "record.lock").touch()
    return path


def make_claim(damage: Damage) -> Path:
    path = damage.place / "names/somebody"
    path.write_text(UNKNOWN)
    return path


def make_staging(damage: Damage) -> Path:
    path = damage.place / "layers/.tmp-0123456789abcdef"
    path.mkdir()
    return path


def make_removing(damage: Damage) -> Path:
    path = damage.place / "snapshots/.removing-0123456789abcdef"
    (path / "upper").mkdir(parents=True)
    return path


def make_orphan(damage: Damage) -> Path:
    path = damage.place / "snapshots" / UNKNOWN
    (path / "upper").mkdir(parents=True)
    return path


def make_run_directory(damage: Damage) -> Path:
    path = damage.root.run_root / UNKNOWN
    path.mkdir()
    (path / "attach.sock").touch()
    return path


def make_remains(damage: Damage) -> Path:
    path = damage.root.run_root / damage.box.id
    path.mkdir()
    (path / "attach.sock").touch()
    return path


def make_blob(damage: Damage) -> Path:
    from sampan.oci.digest import hex_of

    path = damage.place / "content/sha256" / hex_of(b"nobody wants it")
    path.write_bytes(b"nobody wants it")
    return path


def make_layer_of_another_form(damage: Damage) -> Path:
    path = damage.layer.with_name(f"{damage.layer.name}.vfs")
    shutil.copytree(damage.layer, path)
    return path


def make_ingest(damage: Damage) -> Path:
    path = damage.place / "content/ingest/0123456789abcdef"
    path.write_bytes(b"half")
    return aged(path)


def make_dead_name(damage: Damage) -> Path:
    path = damage.place / "images/.tmp-1-2"
    path.write_bytes(b"half")
    return path


def make_half_copy(damage: Damage) -> Path:
    """As a process leaves it that is killed while it copies what an image has into a volume."""
    damage.root.cli("volume", "create", "half").ok()
    path = damage.place / "volumes/half/.sampan-filling"
    (path / "tree").mkdir(parents=True)
    (path / "tree/file").write_bytes(b"x" * 5000)
    return path


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (make_leftovers, "leftover"),
        (make_claim, "name"),
        (make_staging, "staging"),
        (make_removing, "staging"),
        (make_orphan, "orphan"),
        (make_run_directory, "orphan"),
        (make_remains, "remains"),
        (make_blob, "blob"),
        (make_layer_of_another_form, "layer"),
        (make_ingest, "ingest"),
        (make_dead_name, "ingest"),
        (make_half_copy, "volume"),
    ],
)
def test_garbage_is_found_and_removed(damage: Damage, make: Callable[[Damage], Path], kind: str) -> None:
    path = make(damage)
    (found,) = damage.check()
    assert (found.severity, found.kind, found.path) == ("garbage", kind, str(path))
    assert path.exists(), "without --repair nothing is changed"
    result = damage.root.cli("system", "check")
    assert result.code == 1
    assert result.out.startswith(f"garbage: {kind}: {path}: ")
    assert result.out.endswith("1 found, 0 repaired, 1 left\n")
    told = json.loads(damage.root.cli("system", "check", "--format", "json").out)
    assert told["path"] == str(path)
    assert damage.root.cli("system", "check", "--repair").ok().out.endswith("1 found, 1 repaired, 0 left\n")
    assert not path.exists()
    assert damage.check(deep=True) == []


def test_a_copy_into_a_volume_that_was_whole_is_completed(damage: Damage) -> None:
    damage.root.cli("volume", "create", "full").ok()
    filled = damage.place / "volumes/full/.sampan-filled"
    for name in ("tree", "top"):
        (filled / name).mkdir(parents=True)
    (filled / "top").chmod(0o750)
    (filled / "subpath").write_bytes(b"")
    (filled / "tree/file").write_bytes(b"content")
    damage.expect("volume", "garbage")
    data = damage.place / "volumes/full/_data"
    assert (data / "file").read_bytes() == b"content"
    assert data.stat().st_mode & 0o7777 == 0o750
    assert not filled.exists()


def test_a_container_whose_monitor_was_killed_is_settled(damage: Damage) -> None:
    with damage.root.engine() as engine:
        box = engine.containers.create("base", SLEEP)
        box.start()
        started = json.loads((damage.place / "containers" / box.id / "starts/1/started").read_text())
        os.kill(started["monitor"], signal.SIGKILL)
        eventually(lambda: damage.check(), what="the monitor is gone")
        damage.expect("lost", "garbage")
        assert box.inspect()["State"]["ExitCode"] == 255


def test_processes_of_a_container_that_is_gone_are_ended(damage: Damage) -> None:
    with damage.root.engine() as engine:
        box = engine.containers.create("base", SLEEP)
        box.start()
        pid = box.inspect()["State"]["Pid"]
        shutil.rmtree(damage.place / "containers" / box.id)
        found = {f.kind for f in damage.check()}
        assert "cgroup" in found
        damage.check(repair=True)
        eventually(lambda: not os.path.exists(f"/proc/{pid}"), what="its process is gone")
        eventually(lambda: damage.check(repair=True) == [], what="all of it is gone")


# What was damaged


def test_a_damaged_exit_file_is_taken_for_none(damage: Damage) -> None:
    with damage.root.engine() as engine:
        box = engine.containers.create("base", ["true"])
        box.start()
        box.wait()
        (damage.place / "containers" / box.id / "starts/1/exit.json").write_bytes(b"{torn")
        kinds = sorted(f.kind for f in damage.check())
        assert kinds == ["document", "lost"]
        assert all(f.repaired for f in damage.check(repair=True))
        assert damage.check() == []
        assert box.inspect()["State"]["ExitCode"] == 255


def test_a_damaged_record_is_told_and_kept(damage: Damage) -> None:
    (damage.container / "record.json").write_bytes(b"{torn")
    # It does not say any more that the name is its own.
    assert [(f.kind, f.severity, f.repaired) for f in damage.check(repair=True)] == [
        ("record", "error", False),
        ("name", "garbage", True),
    ]
    damage.expect("record", "error", repairable=False)
    assert (damage.place / "snapshots" / damage.box.id).exists()
    damage.root.cli("rm", "-f", damage.box.id).ok()
    assert damage.check() == []


def test_a_writable_part_that_is_gone_is_told(damage: Damage) -> None:
    shutil.rmtree(damage.place / "snapshots" / damage.box.id)
    found = damage.check(repair=True)
    assert {(f.kind, f.severity, f.repaired) for f in found} == {("writable", "error", False)}


@pytest.mark.parametrize("lost", ["layer.json", "diff"])
def test_a_layer_that_lost_a_part_is_unpacked_again(damage: Damage, lost: str) -> None:
    path = damage.layer / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert {f.kind for f in damage.check()} == {"layer"}
    assert any(f.repaired for f in damage.check(repair=True))
    assert damage.check(deep=True) == []
    assert (damage.layer / "diff/etc/name").read_bytes() == b"value"


def change_content(layer: Path) -> None:
    status = (layer / "diff/etc/name").stat()
    (layer / "diff/etc/name").write_bytes(b"VALUE")
    os.utime(layer / "diff/etc/name", ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (change_content, "/etc/name: other content"),
        (lambda layer: (layer / "diff/etc/name").chmod(0o4755), "/etc/name: mode 4755 instead of"),
        (lambda layer: os.chown(layer / "diff/etc", 7, 8), "/etc: owner 7:8 instead of 0:0"),
        (lambda layer: (layer / "diff/etc/more").touch(), "/etc/more: it does not belong here"),
        (lambda layer: (layer / "diff/etc/name").unlink(), "/etc/name: it is missing"),
        (lambda layer: os.truncate(layer / "diff/etc/other", 7), "/etc/other: 7 bytes instead of 5000"),
        (lambda layer: os.setxattr(layer / "diff/etc/name", "user.x", b"1"), "/etc/name: other extended attributes"),
    ],
    ids=["content", "mode", "owner", "more", "less", "size", "xattr"],
)
def test_deep_finds_what_differs_from_the_archive_and_repairs_it(
    damage: Damage, change: Callable[[Path], object], what: str
) -> None:
    change(damage.layer)
    assert damage.check() == [], "it takes a look at every byte"
    (found,) = damage.check(deep=True)
    assert (found.severity, found.kind, found.path) == ("error", "layer", str(damage.layer))
    assert what in found.what
    damage.expect("layer", "error", deep=True)
    assert (damage.layer / "diff/etc/name").read_bytes() == b"value"


def test_a_layer_that_somebody_runs_on_is_not_exchanged(damage: Damage) -> None:
    with damage.root.engine() as engine:
        box = engine.containers.create("base", SLEEP, name="runner")
        box.start()
        base = next(p for p in (damage.place / "layers").iterdir() if p != damage.layer and len(p.name) == 64)
        (base / "diff/added").touch()
        (found,) = damage.check(deep=True, repair=True)
        assert not found.repaired
        assert "container runner runs on it, or is in use: stop it first" in found.what
        box.remove(force=True)
    damage.expect("layer", "error", deep=True)


def test_content_that_is_not_what_it_was_is_told_and_kept(damage: Damage) -> None:
    data = bytearray(damage.blob.read_bytes())
    data[600] ^= 1
    damage.blob.write_bytes(data)
    assert damage.check() == []
    (found,) = damage.check(deep=True)
    assert found.path == str(damage.blob)
    damage.expect("content", "error", repairable=False, deep=True)
    assert damage.blob.exists()


def test_an_image_without_one_of_its_blobs_is_told_and_kept(damage: Damage) -> None:
    damage.blob.unlink()
    make_blob(damage)
    damage.expect("image", "error", repairable=False)
    assert damage.layer.exists(), "nothing is thought to be unused as long as an image is damaged"


def test_the_record_of_an_image_is_written_anew_from_its_manifest(damage: Damage) -> None:
    damage.record_of(damage.image).write_bytes(b"{torn")
    # The other one is the name that leads to it: one repair mends both.
    assert [f.kind for f in damage.check()] == ["image name", "image name"]
    assert [(f.kind, f.repaired) for f in damage.check(repair=True)] == [("image name", True)]
    assert damage.check(deep=True) == []
    with damage.root.engine() as engine:
        assert engine.images.resolve("mine").id == damage.image


def test_a_name_whose_image_has_no_record_gets_it_back(damage: Damage) -> None:
    damage.record_of(damage.image).unlink()
    found = damage.check(repair=True)
    assert [f.kind for f in found] == ["image name"]
    assert damage.check(deep=True) == []


def test_a_damaged_name_is_told_and_kept(damage: Damage) -> None:
    damage.record_of("docker.io/library/mine:latest").write_bytes(b"{torn")
    damage.expect("image name", "error", repairable=False)


def test_directories_that_others_can_enter_are_closed(damage: Damage) -> None:
    (damage.place / "layers").chmod(0o755)
    damage.place.chmod(0o777)
    found = damage.check(repair=True)
    assert [(f.kind, f.severity, f.repaired) for f in found] == [("mode", "error", True)] * 2
    assert (damage.place / "layers").stat().st_mode & 0o777 == 0o700
    assert damage.place.stat().st_mode & 0o777 == 0o700


def test_a_damaged_volume_is_told_and_its_content_left_alone(damage: Damage) -> None:
    with damage.root.engine() as engine:
        volume = engine.volumes.create("data")
        (Path(volume.path) / "precious").write_text("x")
    (Path(volume.path).parent / "volume.json").write_bytes(b"{torn")
    damage.expect("volume", "error", repairable=False)
    assert (Path(volume.path) / "precious").read_text() == "x"


# Beside others


@pytest.mark.parametrize(
    "rounds", [2, pytest.param(40, marks=[pytest.mark.long, pytest.mark.alone])], ids=["some", "many"]
)
def test_nothing_that_is_at_work_is_taken_for_garbage(new_root: Root, rounds: int) -> None:
    """Ten processes make and remove containers and images, while others check, repair and prune."""
    with new_root.engine() as engine:
        engine.containers.run("base", ["true"])
    worker = """
import io, sys, sampan
from support.imagestore import archive
root, run_root, config, number, rounds = sys.argv[1:]
with sampan.Engine(root, run_root, config, notify=lambda _: None) as engine:
    for turn in range(int(rounds)):
        name = f"image{number}"
        engine.images.import_(io.BytesIO(archive({f"f{number}": f"{turn}".encode() * 9000})), name)
        engine.containers.create(name, ["x"]).remove()
        engine.containers.run("base", ["true"])
        engine.images.remove(name)
"""
    import sys

    arguments = [str(new_root.root), str(new_root.run_root), str(new_root.config)]
    tests = Path(__file__).parents[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", worker, *arguments, str(n), str(rounds)],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(tests)},
        )
        for n in range(10)
    ]  # fmt: skip
    findings: list[Finding] = []
    checks = 0
    with new_root.engine() as engine:
        while any(p.poll() is None for p in processes):
            findings += engine.system.check(repair=checks % 2 == 1)
            checks += 1
            if checks % 5 == 0:
                engine.images.collect()
    errors = [p.communicate(timeout=patience(60))[1] for p in processes]
    assert errors == [""] * 10
    assert findings == []
    assert checks > 1
    with new_root.engine() as engine:
        assert engine.system.check(deep=True) == []
    assert not os.listdir(new_root.root / "snapshots")


@pytest.mark.alone
@pytest.mark.long
def test_a_hundred_commands_at_once_beside_checks_and_prunes(new_root: Root) -> None:
    """No command fails, nothing is taken for garbage that is none, and nothing is left."""
    new_root.cli("run", "--rm", "base", "true").ok()
    script = 'id=$("$@" create base true) && "$@" rm "$id"'
    commands = [
        subprocess.Popen(
            ["sh", "-c", script, "sh", new_root.cli.program, *new_root.cli.before],
            env=new_root.cli.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(100)
    ]  # fmt: skip
    findings: list[Finding] = []
    with new_root.engine() as engine:
        while any(command.poll() is None for command in commands):
            findings += engine.system.check(repair=True)
            # None of theirs: a container that is waiting for its `rm` is stopped, and would be pruned.
            engine.system.prune(volumes=True, filters={"label": "nobody"})
    ended = [(command.communicate()[1], command.returncode) for command in commands]
    assert ended == [(b"", 0)] * 100
    assert findings == []
    assert new_root.cli("system", "check").ok().out == "nothing found\n"
