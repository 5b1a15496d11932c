"""What a zygote does when it has forked its first shim: the work of a start, where it concerns nobody.

Python makes a function's code fast where it was run a few times (PEP 659), remembers which class a method was found in, and makes many an object on
the first occasion. Each shim would do that anew, and by writing to what it shares with the zygote copy its pages. So the zygote takes the
steps of a start into a file system of its own, which is attached nowhere and gone when its descriptor is closed. No step of it sees or
changes anything else: those that do (namespaces, cgroups, credentials) are not rehearsed.
"""

from __future__ import annotations

import os

from sampan.kernel import appendlog, clock, directories, mount, process
from sampan.shim import logs, protocol, stages, streams
from sampan.shim.documents import write_whole
from sampan.shim.spill import Spill
from sampan.steps import cgroups, joining, mounts, namespaces, sources, terminal
from sampan.steps.base import Context, Step

TIMES = 12


def rehearse() -> list[str]:
    """Do it. What fails makes starts slower, and nothing else; the steps that failed, in words: older kernels attach nothing to what is detached."""
    failed: list[str] = []
    place = process.make_place()
    try:
        plan = protocol.frame(protocol.PLAN, _plan().to_body(traced=False))
        for _ in range(TIMES):
            for _, body in protocol.Reader().feed(plan):
                read = protocol.LaunchPlan.from_body(body)
                failed += _take_steps(read.stages, stages.Reporter(-1, False, place))
    except OSError as e:
        failed.append(str(e))
    finally:
        process.drop_place(place)
    return failed


def rehearse_monitor(times: int) -> list[str]:
    """What a monitor does of itself from the plan to the end, with files in a file system that nobody sees. As `rehearse` it may fail."""
    try:
        fd = mount.new_filesystem("tmpfs", (("mode", "700"),), mount.MOUNT_ATTR_NODEV)
    except OSError as e:
        return [str(e)]
    try:
        plan = protocol.frame(protocol.PLAN, _plan().to_body(traced=False))
        for _ in range(times):
            _monitor(plan, f"/proc/self/fd/{fd}")
    except Exception as e:
        return [str(e)]
    finally:
        os.close(fd)
    return []


def _monitor(plan: bytes, directory: str) -> None:
    (_, body), *_ = protocol.Reader().feed(plan)
    read = protocol.LaunchPlan.from_body(body)
    ctx, loop = Context(), streams.Loop()
    log = logs.JsonFile(protocol.LogPlan("json-file", f"{directory}/log"))
    session = streams.Session(loop, "", False, False, False, log, Spill(f"{directory}/spill"))
    read.monitor[0].run(ctx)
    directories.make_private(f"{directory}/run")
    session.prepare(ctx)
    session.close_program_ends(ctx)
    started = {"started": clock.now(), "boot": clock.boot_id(), "monitor_start": process.start_time(os.getpid())}
    write_whole(f"{directory}/started", protocol.dumps(started), sync=False)
    appendlog.append(
        f"{directory}/journal", protocol.dumps({**protocol.loads(b'{"attributes":{}}'), **started}), 1 << 20
    )
    protocol.message(protocol.STARTED, **started, steps=[])
    session.drain(0)
    session.close()
    log.close()
    ctx.close("devpts")


def _plan() -> protocol.LaunchPlan:
    text = protocol.Stages(_sources(), protocol.NO_CLONE, _mounts()).to_text()
    devpts = terminal.BuildFilesystem("devpts", "devpts", (("mode", "0620"),), 0)
    return protocol.LaunchPlan(protocol.VERSION, "", "", "", "", (devpts, joining.CloneInit(0)), text)


def _take_steps(text: str, report: stages.Reporter) -> list[str]:
    ctx = Context()
    lists = protocol.Stages.from_text(text)
    failed: list[str] = []
    try:
        ctx.put("root", mount.new_filesystem("tmpfs", (("mode", "755"),), mount.MOUNT_ATTR_NODEV))
        for name, steps in (("stage1", lists.stage1), ("stage2", lists.stage2)):
            for index, step in enumerate(steps):
                report.begin(name, index)
                try:
                    step.run(ctx)
                except Exception as e:  # also of what a step before it has failed to leave
                    failed.append(f"{step.describe()}: {e}")
                report.done(name, index, 0.001)
    finally:
        for name in list(ctx.fds):
            ctx.close(name)
    return failed


def _sources() -> tuple[Step, ...]:
    return (
        *(cgroups.MakeCgroup("/dev") for _ in range(3)),
        *(sources.CloneTree(f"tree{number}", "/dev/null", False, 15) for number in range(3)),
    )


def _mounts() -> tuple[Step, ...]:
    return (
        mounts.MountFilesystem("tmpfs", "/dev", (("mode", "755"), ("size", "65536k")), 2, "tmpfs", "dev"),
        *(mounts.MakeDevice(f"/dev/{number}", "p", 0, 0, within="dev") for number in range(3)),
        *(mounts.MakeLink(f"/dev/l{number}", "/proc/self/fd", "dev") for number in range(3)),
        mounts.MountFilesystem("tmpfs", "/dev/shm", (("mode", "1777"), ("size", "64k")), 2, "tmpfs", within="dev"),
        *(mounts.AttachMount(f"tree{number}", f"/dir{number}/file") for number in range(3)),
        mounts.MaskPath("/nowhere"),
        mounts.MaskPath("/dir1"),
        namespaces.MakeWorkingDirectory("/a"),
    )
