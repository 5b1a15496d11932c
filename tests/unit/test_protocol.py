"""The frames and documents that a container's processes exchange: whole, bounded, whatever is in them."""

from __future__ import annotations

import os
import select

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.kernel.livegroup import LiveGroup
from sampan.shim import protocol, streams
from sampan.shim.protocol import ExecPlan, LaunchPlan, ProtocolError, Reader, Stages, frame, message
from sampan.steps import base, process, sources

ANY_TEXT = st.text(alphabet=st.characters(), max_size=20) | st.sampled_from(
    ["\udcff\udc80", 'a"b\\c', "\n\0<&>", "é€😀"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=20,
)
FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8)


@given(VALUES)
def test_documents_come_back_as_they_were_also_with_names_that_are_not_utf8(value: object) -> None:
    data = protocol.dumps(value)
    assert data.isascii()
    assert protocol.loads(data) == value


@pytest.mark.parametrize("data", [b"", b"{", b'{"a"', b'{"a":}', b"nope", b"\xff", b'"\xff"', b"[" * 100_000])
def test_what_is_no_document_is_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.loads(data)


@given(FRAMES, st.lists(st.integers(1, 400)))
def test_frames_survive_any_cutting(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(frame(kind, body) for kind, body in frames)
    reader, received = Reader(), []
    for size in [*cuts, len(stream)]:
        received += reader.feed(stream[:size])
        stream = stream[size:]
    assert received == frames
    assert reader.pending == 0


def test_byte_by_byte() -> None:
    reader, received = Reader(), []
    for byte in message(protocol.EXIT, exit_code=3) + frame(protocol.STDOUT):
        received += reader.feed(bytes([byte]))
    assert [(kind, body) for kind, body in received] == [(34, b'{"exit_code":3}'), (32, b"")]


def test_half_a_frame_is_kept_and_known() -> None:
    reader = Reader()
    assert reader.feed(frame(protocol.STDIN, b"12345")[:7]) == []
    assert reader.pending == 7
    assert reader.feed(b"345") == [(protocol.STDIN, b"12345")]


def test_a_length_that_cannot_be_is_refused_before_anything_is_kept_for_it() -> None:
    with pytest.raises(ProtocolError, match="a frame of 4294967295 bytes"):
        Reader().feed(b"\x10\xff\xff\xff\xff")
    with pytest.raises(ProtocolError):
        Reader().feed(b"\x10" + (protocol.LARGEST + 1).to_bytes(4, "big"))
    assert Reader().feed(b"\x10" + protocol.LARGEST.to_bytes(4, "big")) == []


def launch_plan(**changes: object) -> LaunchPlan:
    stages = Stages(
        (sources.BuildOverlay("root", ("/l/\udcff", "/l2"), "/u", "/w"),),
        0x20000,
        (process.Execute(("sh",), ("A=\udc80",)),),
    )
    fields = {
        "version": protocol.VERSION,
        "container": "c" * 64,
        "directory": "/d",
        "start": "/d/starts/1",
        "run_directory": "/r",
        "monitor": (),
        "stages": stages.to_text(),
        "descriptors": ("attach",),
        "cgroup": LiveGroup(),
    }
    return LaunchPlan(**{**fields, **changes})


def test_a_plan_comes_back_as_it_was() -> None:
    plan = launch_plan()
    back = LaunchPlan.from_body(plan.to_body(traced=plan.traced))
    assert back.to_json() == plan.to_json()
    assert [(stage, step.describe()) for stage, step in back.steps()] == [
        ("stage1", "fsopen overlay of 2 lower layers, upper /u"),
        ("stage2", "execve sh"),
    ]
    assert back.lists().stage1[0].to_json()["lower"] == ["/l/\udcff", "/l2"]


def test_a_plan_of_another_version_is_refused_with_both_numbers() -> None:
    with pytest.raises(ProtocolError, match="plan version 99, this shim speaks"):
        LaunchPlan.from_json({**launch_plan().to_json(), "version": 99})
    with pytest.raises(ProtocolError, match="exec plan version None"):
        ExecPlan.from_json({})


def test_a_plan_with_an_unknown_step_is_refused() -> None:
    with pytest.raises(KeyError):
        base.decode([["Nonsense"]])
    with pytest.raises(KeyError):
        Stages.from_text('1 0\n["Nonsense"]')
    for values in (["x"], ["x", "", True, 1]):
        with pytest.raises(TypeError):
            base.decode([["WriteFile", *values]])


def test_a_line_that_was_learned_is_the_same_step_each_time() -> None:
    usual = sources.CloneTree("a\n", "/learned in a test")
    (line,) = base.to_lines([usual])
    assert "\n" not in line
    assert base.from_lines([line])[0] is not base.from_lines([line])[0]
    base.learn([line, "nonsense", ""])
    assert base.from_lines([line]) == [usual]
    assert base.from_lines([line])[0] is base.from_lines([line])[0]
    with pytest.raises(ValueError, match="no JSON value"):
        base.from_lines(["nonsense"])


def test_what_is_said_of_a_descriptor_that_was_closed_is_not_told_to_who_has_its_number_now() -> None:
    loop, told = streams.Loop(), []
    first, second = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)

    def close_and_open(events: int) -> None:
        fd = second[0]
        loop.forget(fd)
        os.close(fd)
        again = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        assert again == fd
        loop.watch(again, 0, lambda events: told.append(events))

    loop.watch(first[0], select.POLLIN, close_and_open)
    loop.watch(second[0], select.POLLIN, lambda events: told.append(events))
    os.write(first[1], b"1")
    os.write(second[1], b"1")
    try:
        loop.run_once(0)
        assert told == []
    finally:
        for fd in (*first, *second):
            os.close(fd)
