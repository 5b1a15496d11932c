"""Logs of real containers: drivers, bounds, options, and reading them while they grow, are renamed, and are too fast."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import tempfile
import time
from pathlib import Path

import pytest

import sampan

from support.command import Command
from support.patience import eventually, patience
from support.roots import BASE, KEPT, Root, small_root

pytestmark = pytest.mark.root

RUN = ("run", "--network", "none")
COUNT = "i=0; while [ $i -lt {n} ]; do echo line $i of the text; i=$((i+1)); done"


def numbers(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines()]


def log_files(cli: Command, root: Root, name: str) -> list[Path]:
    identifier = cli("inspect", "-f", "{{.Id}}", name).ok().out.strip()
    directory = root.root / "containers" / identifier
    return sorted(p for p in (*directory.glob("*-json.log*"), *directory.glob("local-logs/*")))


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_the_newest_lines_are_kept_in_bounded_files(cli: Command, root: Root, driver: str) -> None:
    flags = ("--log-driver", driver, "--log-opt", "max-size=20k", "--log-opt", "max-file=3")
    cli(*RUN, "-d", "--name", "box", *flags, "base", "sh", "-c", COUNT.format(n=3000)).ok()
    cli("wait", "box").ok()
    files = log_files(cli, root, "box")
    assert len(files) == 3
    assert all(f.stat().st_size <= 20_000 for f in files if f.suffix != ".gz")
    kept = numbers(cli("logs", "box").ok().out)
    assert 600 < len(kept) < 3000
    assert kept == list(range(3000 - len(kept), 3000))
    # The last lines, also where they are in several files.
    for tail in (1, 100, 700):
        assert numbers(cli("logs", "-n", str(tail), "box").ok().out) == kept[-tail:]


def test_full_files_are_compressed(cli: Command, root: Root) -> None:
    flags = ("--log-opt", "max-size=50k", "--log-opt", "max-file=4", "--log-opt", "compress=true")
    script = f"{COUNT.format(n=4000)}; read line"
    cli(*RUN, "-dit", "--name", "box", *flags, "base", "sh", "-c", script).ok()

    def compressed() -> bool:
        files = log_files(cli, root, "box")
        return sum(f.suffix == ".gz" for f in files) == 3 and len(files) == 4

    eventually(compressed, what="three files are compressed")
    kept = numbers(cli("logs", "box").ok().out)
    assert kept == list(range(4000 - len(kept), 4000))
    assert numbers(cli("logs", "-n", "1500", "box").ok().out) == kept[-1500:]
    monitor = _monitor(root, cli, "box")
    assert Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split() == [
        cli("inspect", "-f", "{{.State.Pid}}", "box").ok().out.strip()
    ], "what compressed them was reaped"


def _monitor(root: Root, cli: Command, name: str) -> int:
    pid = cli("inspect", "-f", "{{.State.Pid}}", name).ok().out.strip()
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("compress", ["false", "true"])
def test_following_over_many_rotations_misses_no_line(cli: Command, compress: str) -> None:
    flags = ("--log-opt", "max-size=20k", "--log-opt", "max-file=20", "--log-opt", f"compress={compress}")
    script = f"sleep 1; {COUNT.format(n=3000).replace('i=$((i+1))', 'i=$((i+1)); [ $((i%50)) = 0 ] && sleep 0.03')}"
    cli(*RUN, "-d", "--name", "box", *flags, "base", "sh", "-c", script).ok()
    done = cli("logs", "-f", "box").ok()
    assert numbers(done.out) == list(range(3000))
    assert done.err == ""


def test_a_follower_that_falls_behind_the_bound_is_told(cli: Command) -> None:
    flags = ("--log-opt", "max-size=2k", "--log-opt", "max-file=1")
    script = f"echo begun; read go; {COUNT.format(n=20000)}"
    cli(*RUN, "-d", "-i", "--name", "box", *flags, "base", "sh", "-c", script).ok()
    logs = cli.start("logs", "-f", "box", stdout=-1, stderr=-1)
    assert logs.stdout is not None
    assert logs.stdout.readline() == b"begun\n"
    logs.send_signal(signal.SIGSTOP)
    cli("attach", "--sig-proxy=false", "box", input="go\n")
    logs.send_signal(signal.SIGCONT)
    out, err = logs.communicate(timeout=patience(30))
    assert numbers(out.decode())[-1] == 19999
    assert b"rotated away before they were read" in err


def test_since_and_until(cli: Command) -> None:
    script = "echo one; sleep 1.2; echo two; sleep 1.2; echo three"
    cli(*RUN, "--name", "box", "base", "sh", "-c", script).ok()
    stamps = [line.split(" ")[0] for line in cli("logs", "-t", "box").ok().out.splitlines()]
    seconds = [time.time() - 0.6, time.time() - 1.8]
    assert cli("logs", "--since", stamps[1], "box").ok().out == "two\nthree\n"
    assert cli("logs", "--until", stamps[1], "box").ok().out == "one\ntwo\n"
    assert cli("logs", "--since", stamps[1], "--until", stamps[1], "box").ok().out == "two\n"
    assert cli("logs", "--since", f"{seconds[1]:.3f}", "box").ok().out in ("two\nthree\n", "three\n")
    assert cli("logs", "--since", "10m", "box").ok().out == "one\ntwo\nthree\n"
    assert cli("logs", "--until", "10m", "box").ok().out == ""
    # Docker takes the last lines first, and shows nothing then.
    assert cli("logs", "--tail", "1", "--until", stamps[1], "box").ok().out == "two\n"
    for flag in ("since", "until"):
        done = cli("logs", f"--{flag}", "foo", "box")
        assert (done.code, done.err) == (
            1,
            f'invalid value for "{flag}": failed to parse value as time or duration: "foo"\n',
        )


def test_following_ends_at_a_time_to_come(cli: Command) -> None:
    cli(*RUN, "-d", "--name", "box", "base", "sh", "-c", "echo up; sleep 1000").ok()
    begun = time.monotonic()
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    assert cli("logs", "-f", "--until", until, "box").ok().out == "up\n"
    assert 1 < time.monotonic() - begun < patience(20)


def test_details(cli: Command) -> None:
    options = ("--log-opt", "labels=a,b,none", "--log-opt", "env-regex=^E", "--log-opt", "tag={{upper .Name}}/x")
    flags = ("--label", "a=1", "--label", "b=x y", "--label", "c=3", "-e", "E=v=w", "-e", "F=1")
    cli(*RUN, "--name", "box", *options, *flags, "base", "sh", "-c", "echo one; printf two").ok()
    details = "E=v%3Dw,a=1,b=x+y,tag=BOX%2Fx"
    assert cli("logs", "--details", "box").ok().out == f"{details} one\n{details} two"
    stamped = cli("logs", "--details", "-t", "-n", "1", "box").ok().out
    assert re.fullmatch(rf"\S+Z {re.escape(details)} two", stamped)
    cli("rm", "box").ok()
    cli(*RUN, "--name", "box", "base", "echo", "one").ok()
    assert cli("logs", "--details", "box").ok().out == " one\n", "as Docker has it"


def test_a_tag_that_cannot_be_made_leaves_no_container(cli: Command) -> None:
    refused = cli(*RUN, "--name", "box", "--log-opt", "tag={{slice .Name 0 90}}", "base", "true")
    assert refused.code == 125
    words = 'failed to initialize logging driver: template: log-tag:1:2: executing "log-tag" at <slice .Name 0 90>: error calling slice'
    assert words in refused.err
    assert cli("ps", "-aq").ok().out == "", "Docker leaves it behind"


def test_a_long_line_is_one_line(cli: Command) -> None:
    script = "echo before; head -c 40000 /dev/zero | tr '\\0' x; echo; echo after"
    cli(*RUN, "--name", "box", "base", "sh", "-c", script).ok()
    long = "x" * 40000 + "\n"
    assert cli("logs", "box").ok().out == f"before\n{long}after\n"
    assert cli("logs", "-n", "2", "box").ok().out == f"{long}after\n"
    assert len(re.findall(r"\d{4}-\d\d-\d\dT", cli("logs", "-t", "box").ok().out)) == 3, "no time inside a line"


def test_the_driver_local_keeps_bytes_as_they_are(cli: Command) -> None:
    data = bytes(range(256)) * 300
    cli(*RUN, "-i", "--name", "box", "--log-driver", "local", "base", "cat", input=data).ok()
    assert cli("logs", "box").ok().out_bytes == data
    assert cli("inspect", "-f", "{{.HostConfig.LogConfig.Type}}|{{.LogPath}}", "box").ok().out == "local|\n"


def test_no_log(cli: Command, root: Root) -> None:
    assert cli(*RUN, "--name", "box", "--log-driver", "none", "base", "echo", "x").ok().out == "x\n"
    done = cli("logs", "box")
    assert (done.code, done.err) == (1, "Error: configured logging driver does not support reading\n")
    assert log_files(cli, root, "box") == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--log-driver", "none", "--log-opt", "a=b"), "invalid logging opts for driver none"),
        (("--log-opt", "foo=1"), "unknown log opt 'foo' for json-file log driver"),
        (("--log-opt", "max-size"), "failed to initialize logging driver: invalid size: ''"),
    ],
)
def test_what_is_refused_leaves_no_container(cli: Command, flags: tuple[str, ...], message: str) -> None:
    done = cli(*RUN, "--name", "box", *flags, "base", "true")
    assert done.code == 125
    assert message in done.err
    assert cli("ps", "-aq").out == ""


def test_a_restarted_container_goes_on_in_its_log(cli: Command) -> None:
    cli(*RUN, "--name", "box", "--log-driver", "local", "base", "sh", "-c", "echo one; printf two").ok()
    cli("start", "-a", "box").ok()
    assert cli("logs", "box").ok().out == "one\ntwoone\ntwo"
    assert cli("logs", "-n", "3", "box").ok().out == "twoone\ntwo"


def test_many_readers_during_rotations(cli: Command, engine: sampan.Engine) -> None:
    """Whenever somebody looks, he finds lines in their order, none twice, up to one that was there when he began."""
    flags = ("--log-opt", "max-size=4k", "--log-opt", "max-file=3")
    script = COUNT.format(n=60000).replace("i=$((i+1))", "i=$((i+1)); [ $((i%200)) = 0 ] && sleep 0.01")
    cli(*RUN, "-d", "--name", "box", *flags, "base", "sh", "-c", script).ok()
    box = engine.containers.get("box")
    last = 0
    for _ in range(60):
        seen = [int(entry.data.split()[1]) for entry in box.logs()]
        assert seen == list(range(seen[0], seen[-1] + 1)) if seen else True
        tail = [int(entry.data.split()[1]) for entry in box.logs(tail=5)]
        assert tail == list(range(tail[0], tail[-1] + 1)) if tail else True
        assert not seen or seen[-1] >= last
        last = seen[-1] if seen else last
    box.remove(force=True)


def test_kills_of_the_shim_leave_a_log_that_can_be_read_and_gone_on_with(cli: Command, root: Root) -> None:
    for driver in ("json-file", "local"):
        flags = (
            "--log-driver",
            driver,
            "--log-opt",
            "max-size=3k",
            "--log-opt",
            "max-file=3",
            "--log-opt",
            "compress=false",
        )
        cli("create", "--name", "box", "--network", "none", *flags, "base", "sh", "-c", COUNT.format(n=10**6)).ok()
        for _ in range(4):
            cli("start", "box").ok()
            time.sleep(0.15)
            os.kill(_monitor(root, cli, "box"), signal.SIGKILL)
            cli("wait", "box").ok()
            kept = numbers(cli("logs", "box").ok().out)
            # Two runs at most: each counts from 0.
            jumps = [at for at in range(1, len(kept)) if kept[at] != kept[at - 1] + 1]
            assert all(kept[at] == 0 for at in jumps), kept
            files = log_files(cli, root, "box")
            assert len(files) <= 3
            assert all(f.stat().st_size <= 3000 for f in files)
        cli("rm", "box").ok()


def test_a_full_disk_neither_blocks_nor_kills_the_container_and_is_told() -> None:
    with small_root(BASE / f"full-log-{os.getpid()}", "64M") as root, tempfile.TemporaryDirectory() as run_root:
        # As on a real host: /run is another file system.
        root.cli.environment["SAMPAN_RUN_ROOT"] = run_root
        cli = root.cli
        flags = ("--log-opt", "max-size=-1")
        script = "echo first; read fill; seq 1 300000; read free; echo last; exit 7"
        cli(*RUN, "-d", "-i", "--name", "box", *flags, "base", "sh", "-c", script).ok()
        filler = root.directory / "filler"
        eventually(lambda: cli("logs", "box").out == "first\n")
        writing = cli.start("attach", "--sig-proxy=false", "box", stdin=-1, stdout=-3)
        assert writing.stdin is not None
        try:
            _fill(filler)
            writing.stdin.write(b"fill\n")
            writing.stdin.flush()
            eventually(lambda: '"LogLost"' in cli("inspect", "box").out, 20)
        finally:
            filler.unlink()
        writing.stdin.write(b"free\n")
        writing.stdin.close()
        assert writing.wait(patience(60)) == 7
        done = cli("logs", "box").ok()
        assert done.out.startswith("first\n")
        assert done.out.endswith("last\n")
        assert re.fullmatch(
            r"WARNING: \d+ lines of output since \S+ are not in the log: write /\S+-json.log: no space left on device\n",
            done.err,
        )
        told = int(done.err.split()[1])
        assert told + done.out.count("\n") == 300_002
        shown = cli("inspect", "-f", "{{.LogLost.Lines}}", "box").ok().out
        assert shown == f"{told}\n"
        root.remove_containers()
        assert set(os.listdir(run_root)) <= KEPT


def _fill(path: Path) -> None:
    """Take the last byte of the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, bytes(size))
    finally:
        os.close(fd)


@pytest.mark.long
@pytest.mark.patience(900)
def test_a_gigabyte_as_fast_as_it_goes(cli: Command, root: Root) -> None:
    """The log slows the program down; what is kept is whole, within its bound, and the shim's memory is as it was."""
    text = "x" * 100
    script = f"i=0; yes {text} | head -c 1010000000; echo the end; read line"
    cli(*RUN, "-d", "-i", "--name", "box", "base", "sh", "-c", script).ok()
    monitor = _monitor(root, cli, "box")
    most = 0
    while not cli("logs", "-n", "1", "box").out.startswith("the end"):
        most = max(most, int(Path(f"/proc/{monitor}/statm").read_text().split()[1]) * 4096)
        assert sum(f.stat().st_size for f in log_files(cli, root, "box")) <= 30_000_000
        time.sleep(0.5)
    assert most < 16 << 20
    kept = cli("logs", "box").ok().out.splitlines()
    assert set(kept[:-1]) == {text}
    assert kept[-1] == "the end"
