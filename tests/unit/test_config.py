"""The configuration file: who wins, and that nothing in it is passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.engine import config
from sampan.errors import InvalidParameter


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SAMPAN_ROOT", "SAMPAN_RUN_ROOT", "SAMPAN_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "sampan.toml"
    path.write_text(text)
    return str(path)


def test_no_file_is_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_PATH", str(tmp_path / "absent.toml"))
    assert config.load() == config.Config(root="/var/lib/sampan", run_root="/run/sampan")


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="no such configuration file"):
        config.load(str(tmp_path / "absent.toml"))


def test_all_keys(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'root = "/a"\nrun-root = "/b"\nsnapshotter = "vfs"\ninit-path = "/c"\ncgroup-parent = "d"\nevents-size = "1m"\n',
    )
    assert config.load(path) == config.Config("/a", "/b", "vfs", "/c", "d", 1 << 20)


def test_arguments_come_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, 'root = "/file"\nrun-root = "/file-run"\n')
    assert config.load(path).root == "/file"
    monkeypatch.setenv("SAMPAN_ROOT", "/environment")
    monkeypatch.setenv("SAMPAN_RUN_ROOT", "/environment-run")
    assert config.load(path).root == "/environment"
    assert config.load(path, root="/argument") == config.Config(root="/argument", run_root="/environment-run")


def test_the_environment_may_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPAN_CONFIG", written(tmp_path, 'root = "/named"\n'))
    assert config.load().root == "/named"


def test_relative_roots_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They would be another store in every directory, made there without a word."""
    path = written(tmp_path, "")
    with pytest.raises(InvalidParameter, match=r"^the root must be an absolute path, not 'here'$"):
        config.load(path, root="here")
    assert config.load(path, root="/a/../b", run_root="/c").root == "/b"
    monkeypatch.setenv("SAMPAN_RUN_ROOT", "./run")
    with pytest.raises(InvalidParameter, match=r"^the run root must be an absolute path, not '\./run'$"):
        config.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'rooot = "/a"\n',
            "unknown key 'rooot'; known keys are cgroup-parent, events-size, init-path, insecure-registries, "
            "max-concurrent-downloads, max-concurrent-uploads, mirrors, registry-mirrors, registry-timeout, root, run-root, snapshotter",
        ),
        ("root = 5\n", "root must be text, not 5"),
        ('root = "a"\n', "root must be an absolute path, not 'a'"),
        ('snapshotter = "zfs"\n', "snapshotter must be one of overlay, vfs, not 'zfs'"),
        ('events-size = "1k"\n', "events-size must be at least 64k, not '1k'"),
        ("insecure-registries = 5\n", "insecure-registries: must be a list of texts, not 5"),
        (
            'insecure-registries = ["https://a"]\n',
            "insecure-registries: 'https://a' should be a host, with or without a port",
        ),
        (
            'insecure-registries = ["10.0.0.0/99"]\n',
            "insecure-registries: '10.0.0.0/99' is neither HOST[:PORT] nor a network",
        ),
        ('registry-mirrors = ["mirror.example"]\n', "registry-mirrors: 'mirror.example' is no mirror: a URL such as"),
        ('[mirrors]\n"a.example" = "https://b"\n', "mirrors: must be a list of texts, not 'https://b'"),
        ("max-concurrent-downloads = 0\n", "max-concurrent-downloads: must be a number from 1 to 64, not 0"),
        ('registry-timeout = "1"\n', 'registry-timeout: time: missing unit in duration "1"'),
        ('events-size = "big"\n', "events-size: invalid size: 'big'"),
        ("root = \n", "not a TOML file"),
        ("[root]\na = 1\n", "root must be text"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InvalidParameter) as caught:
        config.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_the_documentation_knows_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for key in config._KEYS:
        assert f"\n{key} = " in page
