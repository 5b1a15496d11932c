"""A COPY that is written while the command before it runs: it comes to what it would have come to, and leaves nothing where it is not wanted."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from sampan.cli.buildprogress import Plain
from sampan.engine.builder import BuildRequest
from sampan.engine.buildprepared import PreparedStep
from sampan.store.layers import LayerInfo

from support.builds import Builds, build, context, store
from support.patience import eventually
from support.roots import Root

__all__ = ["build", "context", "store"]

pytestmark = pytest.mark.root

CASES = {
    "new": ("RUN true", "tree /to/deep/", True),
    "the root is another one": ("RUN chmod 711 / && touch /x", "tree /to", True),
    "the root": ("RUN true", "tree /", True),
    "into a directory that is there": ("WORKDIR /work\nRUN chmod 700 /work\nRUN true", "tree .", False),
    "through a directory that stays": ("RUN mkdir -p /a/b\nWORKDIR /a\nRUN touch b/other\nRUN true", "tree new", True),
    "a directory on the way is made": ("RUN mkdir -m 750 /to", "tree /to/deep/", False),
    "a directory on the way gets another owner": ("RUN mkdir /to\nRUN chown 7:8 /to", "tree /to/deep/", False),
    "a link on the way is made": ("RUN ln -s var /to", "tree /to/deep/", False),
    "a file is made where it goes": ("RUN mkdir /to && echo mine > /to/file", "tree /to", False),
    "a file goes from where it goes": ("RUN mkdir /to && echo mine > /to/file\nRUN rm -r /to", "tree /to", True),
    "one file": ("RUN true", "tree/file /made/name", True),
    "a pattern, with a mode": ("RUN true", "--chmod=640 tree/f* tree/sub /to/", True),
    "the working directory is another one": ("WORKDIR /one\nRUN true\nWORKDIR /two", "tree new", False),
}


QUICK = ("the root is another one", "through a directory that stays", "a directory on the way is made")


@pytest.mark.parametrize(
    ("before", "copy", "taken"),
    [pytest.param(*case, id=name, marks=() if name in QUICK else pytest.mark.long) for name, case in CASES.items()],
)
def test_it_is_what_the_step_itself_would_write(
    build: Builds, store: Root, monkeypatch: pytest.MonkeyPatch, before: str, copy: str, taken: bool
) -> None:
    _fill(build)
    over: list[object] = []
    layer = PreparedStep.layer

    def taking(step: PreparedStep, below: Sequence[str]) -> LayerInfo:
        over.append(step)
        return layer(step, below)

    monkeypatch.setattr(PreparedStep, "layer", taking)

    def built(text: str) -> tuple[str, ...]:
        request = BuildRequest(
            str(build.context), text=text, tags=("it",), host=(("NetworkMode", "none"),), use_cache=False
        )
        with store.engine() as engine:  # a build of many commands has a zygote
            engine.builds.build(request, Plain(False))
        return tuple(build.inspect()["RootFS"]["Layers"])

    # Whose is asked for is known when the step comes: that one is not written ahead.
    plain = built(f"FROM base\n{before}\nCOPY --chown=0:0 {copy}\n")
    assert not over
    seen = build.run("sh", "-c", _LOOK)
    # So that its layer has to be written once more.
    store.cli("rmi", "it").ok()
    store.cli("builder", "prune", "-af").ok()
    assert built(f"FROM base\n{before}\nCOPY {copy}\n") == plain
    assert bool(over) is taken
    assert build.run("sh", "-c", _LOOK) == seen
    # Again, when all of it is there.
    assert built(f"FROM base\n{before}\nCOPY {copy}\n") == plain
    assert store.cli("system", "check", "--deep").ok().out == "nothing found\n"
    _nothing_is_staged(store)


_LOOK = "find / -xdev ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' ! -path '/etc*' -exec stat -c '%n %F %a %u:%g %s %Y' {} + | sort"


def _fill(builds: Builds) -> None:
    builds.put("tree/file", "content")
    builds.put("tree/sub/other", "x" * 10_000, 0o755)
    (builds.context / "tree/sub/link").symlink_to("other")
    (builds.context / "tree/empty").mkdir()


def _nothing_is_staged(root: Root) -> None:
    assert [path for path in (root.root / "layers").iterdir() if path.name.startswith(".")] == []
    assert [path for path in (root.root / "content/ingest").iterdir() if not path.name.startswith("pull-")] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_ends_before_the_copy(new_root: Root, tmp_path: Path, number: int) -> None:
    builds = Builds(new_root, tmp_path / "context")
    _fill(builds)
    builds.put("Dockerfile", "FROM base\nRUN sleep 1000\nCOPY tree /to\n")
    with new_root.cli.start("build", "--network", "none", str(builds.context), stderr=-1) as process:
        # The links come last of it.
        eventually(lambda: any((new_root.root / "layers").glob(".tmp-*/diff/to/sub/other")))
        eventually(lambda: new_root.cli("ps", "-q").ok().out, what="its command runs")
        process.send_signal(number)
        process.wait()
    if number == signal.SIGKILL:
        # Nobody sees it; the next build takes it away.
        assert all(
            path.name.startswith(".") or not (path / "diff/to").exists()
            for path in (new_root.root / "layers").iterdir()
        )
        builds("FROM base\nRUN true\nCOPY tree /to\n").ok()
    _nothing_is_staged(new_root)
    assert new_root.cli("ps", "-aq").ok().out == ""
    assert new_root.cli("system", "check", "--deep").ok().out == "nothing found\n"


def test_a_command_that_fails_leaves_no_copy(build: Builds, store: Root) -> None:
    _fill(build)
    before = store.state()
    assert build("FROM base\nRUN sleep 0.2; exit 3\nCOPY tree /to\n").code == 1
    before.check()
    _nothing_is_staged(store)
