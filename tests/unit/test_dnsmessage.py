"""DNS messages that anybody may have sent: each is read, or refused, and nothing else happens."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.network import dnsmessage
from sampan.network.dnsmessage import Answer, Malformed, Question, Refused

from support.networks import Reply, packed, query, record, reply_to

names = st.lists(st.text("abcxyzABC019-_", min_size=1, max_size=63), min_size=1, max_size=4).map(".".join)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_question_or_malformed(data: bytes) -> None:
    try:
        question = Question(data)
    except Refused as e:
        answer = dnsmessage.failure(data, e.rcode)
        assert answer[:2] == data[:2]
        assert answer[2] & 0x80
        return
    except Malformed:
        assert len(data) < 12 or data[2] & 0x80
        return
    assert data[12:].startswith(question.question)


@given(names, st.integers(0, 65535), st.integers(0, 65535), st.sampled_from([0, 512, 1232, 4096]))
def test_a_question_is_read_as_it_was_asked(name: str, kind: int, identifier: int, edns: int) -> None:
    question = Question(query(name, kind, identifier, edns))
    assert (question.name, question.kind, question.identifier) == (name.lower(), kind, identifier)
    assert (question.edns, question.size) == (bool(edns), max(edns, 512))


@given(names, st.data())
def test_a_question_that_is_cut_off_or_changed_is_refused_or_another_question(name: str, data: st.DataObject) -> None:
    whole = query(name, edns=1232)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(Malformed):
        Question(cut)
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    try:
        Question(changed)
    except Malformed:
        pass


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (query("a")[:4] + b"\0\0" + query("a")[6:], dnsmessage.FORMERR),
        (query("a")[:4] + b"\0\x02" + query("a")[6:] + packed("b") + b"\0\x01\0\x01", dnsmessage.FORMERR),
        (query("a")[:12] + b"\xc0\x0c\0\x01\0\x01", dnsmessage.FORMERR),
        (query("a")[:12] + b"\x40" + bytes(70) + b"\0\x01\0\x01", dnsmessage.FORMERR),
        (query("a")[:12] + b"\x3f" + b"a" * 63 + b"\x3f" + b"a" * 63 + b"\x3f" + b"a" * 63 + b"\x3f" + b"a" * 63 + b"\0\0\x01\0\x01", dnsmessage.FORMERR),
        (query("a")[:2] + b"\x28\0" + query("a")[4:], dnsmessage.NOTIMP),
        (query("a", edns=512)[:-5] + b"\x01" + bytes(4), dnsmessage.BADVERS),
        (query("a")[:10] + b"\0\x02" + query("a", edns=512)[12:] + query("a", edns=512)[-11:], dnsmessage.FORMERR),
        (query("a")[:10] + b"\xff\xff" + query("a")[12:], dnsmessage.FORMERR),
    ],
    ids=["no-question", "two", "compressed", "label-type", "too-long", "update", "version", "two-opts", "counts"],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_with_its_code(data: bytes, rcode: int) -> None:
    with pytest.raises(Refused) as caught:
        Question(data)
    assert caught.value.rcode == rcode
    answer = dnsmessage.failure(data, rcode)
    told = Reply(answer)
    extended = told.opt[5] << 4 if told.opt else 0
    assert (told.rcode | extended, told.identifier) == (rcode, 7)


def test_an_answer_is_no_question() -> None:
    with pytest.raises(Malformed) as caught:
        Question(query("a")[:2] + b"\x81\x80" + query("a")[4:])
    assert not isinstance(caught.value, Refused)


@given(st.binary(max_size=600), st.booleans())
def test_any_bytes_are_an_answer_or_malformed(data: bytes, begun: bool) -> None:
    asked = query("example.org")
    if begun:
        data = reply_to(asked)[: 12 + 17] + data
    try:
        Answer(data, 7, asked[12:])
    except Malformed:
        pass


def hand_made(records: bytes, count: int = 1, flags: int = 0x8180) -> bytes:
    asked = query("example.org")
    return asked[:2] + struct.pack("!5H", flags, 1, count, 0, 0) + asked[12:] + records


@pytest.mark.parametrize(
    "records",
    [
        b"\xc0\x1d" + bytes(10),  # at itself
        b"\xc0\x1f\xc0\x1d" + bytes(10),  # at what comes
        b"\xc0\x00" + bytes(10),  # into the header
        b"\x01a\xc0\x1d" + bytes(10),  # a name that goes on for ever
        b"\xff\xff" + bytes(10),
        b"\xc0",
        b"\x3f" + b"a" * 63 + b"\x3f" + b"a" * 63 + b"\x3f" + b"a" * 63 + b"\x3f" + b"a" * 63 + b"\0" + bytes(10),
        b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 9999) + b"abcd",
        b"\xc0\x0c" + struct.pack("!HHI", 1, 1, 60),
    ],
)
def test_records_that_loop_or_end_too_early_make_no_answer(records: bytes) -> None:
    with pytest.raises(Malformed):
        Answer(hand_made(records), 7, query("example.org")[12:])


def test_a_chain_of_pointers_is_followed_backwards_only() -> None:
    # 60 names, each of one label and a pointer at the one before: the last is longer than a name may be.
    records, at = b"", 29
    target = 12
    for _ in range(60):
        name = b"\x05label" + (0xC000 | target).to_bytes(2, "big")
        target = at
        records += name + struct.pack("!HHIH", 1, 1, 60, 4) + b"abcd"
        at += len(name) + 14
    with pytest.raises(Malformed):
        Answer(hand_made(records, 60), 7, query("example.org")[12:])
    few = 20
    Answer(hand_made(records[: 22 * few], few), 7, query("example.org")[12:])


@pytest.mark.parametrize(
    ("data", "lifetime"),
    [
        (reply_to(query("a"), record(1, b"abcd", 60), record(1, b"abce", 30)), 30),
        (reply_to(query("a"), record(1, b"abcd", 1 << 31)), 0),
        (reply_to(query("a"), record(1, b"abcd", 0)), 0),
        (reply_to(query("a"), record(1, b"abcd", 60), flags=0x200), 0),
        (reply_to(query("a"), rcode=3), 0),
        (reply_to(query("a"), record(6, bytes(20) + bytes([0, 0, 0, 9]), 60), rcode=3, authorities=1), 9),
        (reply_to(query("a"), record(6, bytes(20) + bytes([0, 0, 9, 0]), 60), authorities=1), 60),
        (reply_to(query("a"), record(6, bytes(20) + bytes([0, 0, 0, 9]), 60), rcode=2, authorities=1), 0),
    ],
    ids=["lowest", "negative", "zero", "truncated", "no-soa", "soa", "soa-of-nodata", "servfail"],
)
def test_how_long_an_answer_may_be_kept(data: bytes, lifetime: int) -> None:
    assert Answer(data, 7, query("a")[12:]).lifetime == lifetime


def test_an_answer_grows_old() -> None:
    answer = Answer(reply_to(query("a"), record(1, b"abcd", 60), record(1, b"abce", 5)), 7, query("a")[12:])
    assert [ttl for _, _, ttl, _ in Reply(answer.aged(10)).records] == [50, 0]
    assert [ttl for _, _, ttl, _ in Reply(answer.aged(0)).records] == [60, 5]


@pytest.mark.parametrize("changed", ["identifier", "question", "letters", "not-an-answer"])
def test_an_answer_to_anything_else_is_none(changed: str) -> None:
    asked = query("example.org")
    data = reply_to(asked, record(1, b"abcd"))
    forged = {
        "identifier": b"\0\x08" + data[2:],
        "question": reply_to(query("example.com"), record(1, b"abcd")),
        "letters": reply_to(query("Example.org"), record(1, b"abcd")),
        "not-an-answer": data[:2] + b"\x01" + data[3:],
    }[changed]
    with pytest.raises(Malformed):
        Answer(forged, 7, asked[12:])


def test_a_truncated_answer_with_half_a_record_is_passed_on_without_it() -> None:
    asked = query("example.org")
    answer = Answer(reply_to(asked, record(1, b"abcd"), flags=0x200)[:-2], 7, asked[12:])
    assert Reply(answer.data).truncated
    assert Reply(answer.data).records == []


@given(st.integers(0, 200), st.sampled_from([0, 512, 1232, 65535]))
def test_what_does_not_fit_is_left_out_and_that_is_said(count: int, edns: int) -> None:
    question = Question(query("many", edns=edns))
    data = dnsmessage.answer(question, 0, [dnsmessage.address_record(1, 5, b"abcd")] * count, question.size)
    assert len(data) <= question.size
    told = Reply(data)
    assert told.truncated == (len(told.records) < count)
    assert bool(told.opt) == bool(edns)
    fitted = dnsmessage.fitting(
        dnsmessage.answer(question, 0, [dnsmessage.address_record(1, 5, b"abcd")] * count), question
    )
    assert len(fitted) <= question.size


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("4.3.2.1.in-addr.arpa", "1.2.3.4"),
        ("4.3.2.in-addr.arpa", ""),
        ("256.3.2.1.in-addr.arpa", ""),
        ("²2.3.2.1.in-addr.arpa", ""),
        ("-1.3.2.1.in-addr.arpa", ""),
        (".".join("1000000000000000000000000000000f"[::-1] and "f" + "0" * 30 + "1") + ".ip6.arpa", "1000::f"),
        ("f.0.ip6.arpa", ""),
        ("g" + ".0" * 31 + ".ip6.arpa", ""),
        ("arpa", ""),
    ],
)
def test_addresses_backwards(name: str, address: str) -> None:
    assert dnsmessage.reversed_address(name) == address


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_malformed(name: str) -> None:
    try:
        data = dnsmessage.pack_name(name)
    except Malformed:
        return
    assert len(data) <= 255
    assert data[-1] == 0
