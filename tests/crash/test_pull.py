"""kill -9 at every step of a pull and of a push, and a full disk: what has a name is whole, and what is left can be collected."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import System
from sampan.oci import platform

from support import imagearchives
from support.crashes import at_every_step
from support.imagestore import Store, archive, disk
from support.registry import Registry, registry, upload

pytestmark = [pytest.mark.root, pytest.mark.patience(300)]

LAYERS = tuple(gzip.compress(archive({"file": os.urandom(1000), f"only{i}": b"x"}), mtime=0) for i in range(2))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        members = imagearchives.layout("", *LAYERS, architecture=platform.here().architecture)
        upload(f"http://127.0.0.1:{found.port}", "app", "1", members)
        yield found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In memory: a killed process loses nothing that the kernel has, so no disk need be waited for."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with disk(tmp_path / "disk", "512m") as found:
        yield found


def tags(store: Store) -> list[str]:
    return [tag for item in store.images.list() for tag in item["RepoTags"]]


@pytest.mark.long
def test_a_pull(place: Path, plain: Registry) -> None:
    name = f"{plain.host}/app:1"

    def check(store: Store) -> None:
        assert tags(store) in ([], [name])

    at_every_step(place, lambda store: None, lambda store: store.images.pull(name), check)


def test_a_push(place: Path, plain: Registry) -> None:
    name = f"{plain.host}/pushed:1"

    def check(store: Store) -> None:
        assert tags(store) == [name]

    def prepare(store: Store) -> None:
        store.images.import_(io.BytesIO(archive({"a": b"one"})), name)

    at_every_step(place, prepare, lambda store: store.images.push(name), check)


@pytest.mark.parametrize("size", ["600k", "2m", "3m"])
def test_a_disk_that_is_full_in_the_middle(
    tmp_path: Path, plain: Registry, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    layer = gzip.compress(archive({"big": os.urandom(1_800_000)}))
    members = imagearchives.layout("", layer, architecture=platform.here().architecture)
    upload(f"http://127.0.0.1:{plain.port}", "big", "1", members)
    with disk(tmp_path / "small", size) as small:
        store = Store(small)
        before = store.on_disk()
        with pytest.raises(System, match="no space left on device"):
            store.images.pull(f"{plain.host}/big:1")
        assert (store.files(), store.images.list(), store.on_disk()) == ([], [], before)
