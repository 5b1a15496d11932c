"""What long work shows on a terminal, and that it shows nothing anywhere else."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest

from support.imagestore import archive
from support.roots import Root

pytestmark = pytest.mark.root

COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


def shown(root: Root, *args: str, columns: int = 140, env: dict[str, str] | None = None) -> str:
    with root.terminal(*args, columns=columns, env=env) as terminal:
        assert terminal.wait(60) == 0, terminal.output
        assert not COLOUR.search(terminal.output)
        return terminal.output.decode()


def left(text: str) -> list[str]:
    """The lines that stay when all was drawn."""
    # The terminal's own carriage returns: one in front of each line feed.
    lines = text.replace("\r\n", "\n").split("\n")
    return [kept for line in lines if (kept := line.rstrip("\r").rpartition("\x1b[K")[2])]


def test_images_on_a_terminal(new_root: Root, tmp_path: Path) -> None:
    source, saved = str(tmp_path / "source.tar"), str(tmp_path / "saved.tar")
    Path(source).write_bytes(archive({"f": os.urandom(3_000_000)}))
    importing = shown(new_root, "import", source, "mine")
    assert re.search(r"\r\x1b\[KImporting \[=*>? *\] +[\d.]+[kM]?B/[\d.]+MB", importing)
    assert left(importing)[0].startswith("sha256:")
    saving = shown(new_root, "save", "-o", saved, "mine")
    assert "\r\x1b[KSaving " in saving
    assert left(saving) == []
    new_root.cli("rmi", "mine").ok()
    loading = left(shown(new_root, "load", "-i", saved))
    assert re.fullmatch(r"[0-9a-f]{12}: Loading layer \[={50}\] +3[.\d]*MB/3[.\d]*MB", loading[0])
    assert loading[1:] == ["Loaded image: mine:latest"]
    new_root.cli("rmi", "mine").ok()
    narrow = left(shown(new_root, "load", "-i", saved, columns=80))
    assert re.fullmatch(r"[0-9a-f]{12}: Loading layer +3[.\d]*MB/3[.\d]*MB", narrow[0])
    new_root.cli("rmi", "mine").ok()
    assert shown(new_root, "load", "-qi", saved) == "Loaded image: mine:latest\r\n"
    new_root.cli("rmi", "mine").ok()
    assert shown(new_root, "load", "-i", saved, env={"TERM": "dumb"}) == "Loaded image: mine:latest\r\n"


def test_containers_on_a_terminal(root: Root, tmp_path: Path) -> None:
    root.cli("run", "--name", "box", "--network", "none", "base", "sh", "-c", "head -c 3000000 /dev/urandom > /f").ok()
    committing = shown(root, "commit", "box", "committed")
    assert "\r\x1b[KCommitting " in committing
    assert left(committing)[0].startswith("sha256:")
    root.cli("rmi", "committed").ok()
    exporting = shown(root, "export", "-o", str(tmp_path / "box.tar"), "box")
    assert "\r\x1b[KExporting " in exporting
    assert left(exporting) == []


def test_an_error_is_not_drawn_over(new_root: Root, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tar"
    broken.write_bytes(archive({"f": b"1" * 3_000_000})[:2_000_000])
    with new_root.terminal("import", str(broken)) as terminal:
        assert terminal.wait(60) == 1
    assert re.search(rb"\r\x1b\[KError: [^\x1b]*\r\n$", terminal.output)


def test_nothing_is_shown_where_there_is_no_terminal(new_root: Root, tmp_path: Path) -> None:
    cli = new_root.cli
    data = archive({"f": os.urandom(3_000_000)})
    imported = cli("import", "-", "mine", input=data).ok()
    assert (imported.err, len(imported.out.splitlines())) == ("", 1)
    saved = cli("save", "mine").ok()
    assert saved.err == ""
    cli("rmi", "mine").ok()
    loaded = cli("load", input=saved.out_bytes).ok()
    assert (loaded.out, loaded.err) == ("Loaded image: mine:latest\n", "")
    with new_root.engine() as engine:
        engine.images.remove("mine")
        told: list[tuple[str, int, int]] = []
        engine.images.load(io.BytesIO(saved.out_bytes), progress=lambda *how_far: told.append(how_far))
    name, done, total = told[-1]
    assert re.fullmatch(r"[0-9a-f]{12}: Loading layer", name)
    assert 3_000_000 < done == total
    assert [d for _, d, _ in told] == sorted(d for _, d, _ in told)
