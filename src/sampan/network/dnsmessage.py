"""DNS messages (RFC 1035, RFC 6891): reading questions and answers that anybody may have sent, and writing our own.

Only what a forwarder has to know is read: the question, the sizes, the times to live. The rest of an answer is passed on as it
is, once its records are known to be whole.
"""

from __future__ import annotations

import _socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

A, NS, SOA, PTR, AAAA, OPT, IXFR, AXFR, ANY = 1, 2, 6, 12, 28, 41, 251, 252, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

QR, TC, RD, RA, AD, CD = 0x8000, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
_OPCODE, _AA, _RCODE = 0x7800, 0x0400, 0x000F
_DO = 0x8000
HEADER = 12
PLAIN_SIZE = 512
"""Bytes of an answer over UDP to who says nothing about that (RFC 1035, 4.2.1)."""
LARGEST = 65535
OUR_SIZE = 1232
"""What we say that we take: it fits whatever way there is (DNS flag day 2020)."""

_HEADER = struct.Struct("!6H")
_FIXED = struct.Struct("!HHIH")
"""Of a record: type, class, time to live, length."""
_LONGEST_NAME, _LONGEST_LABEL = 255, 63
_MOST_RECORDS = 4096


class Malformed(ValueError):
    """Bytes that are no DNS message, or not one that can be what it claims."""


class Question:
    """A question that somebody asked.

    name: in lower case without the last dot, "" for the root; bytes that are not text as latin-1. question: the bytes of the question.
    size: bytes that an answer over UDP may have. edns: whether it had an OPT record; options: whether that had any.
    """

    __slots__ = (
        "data",
        "edns",
        "flags",
        "identifier",
        "kind",
        "klass",
        "name",
        "options",
        "question",
        "secure",
        "size",
        "version",
    )

    def __init__(self, data: bytes) -> None:
        """Read a question. Raises Malformed; its `rcode` is what to answer, where it has one."""
        if len(data) < HEADER:
            raise Malformed("shorter than a header")
        self.data = data
        self.identifier, self.flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
        if self.flags & QR:
            raise Malformed("an answer")  # answering those makes loops
        if self.flags & _OPCODE:
            raise _refused(NOTIMP, "not a query")
        if questions != 1 or answers:
            raise _refused(FORMERR, f"{questions} questions, {answers} answers")
        labels, end = _read_labels(data, HEADER)
        if end + 4 > len(data):
            raise _refused(FORMERR, "the question is cut off")
        self.name = b".".join(labels).lower().decode("latin-1")
        self.kind, self.klass = struct.unpack_from("!HH", data, end)
        self.question = data[HEADER : end + 4]
        self.edns = self.options = self.secure = False
        self.size, self.version = PLAIN_SIZE, 0
        self._read_more(end + 4, authorities, authorities + additional)

    def _read_more(self, at: int, authorities: int, count: int) -> None:
        for number in range(count):
            try:
                owner, at = _skip_name(self.data, at)
                kind, klass, ttl, length = _FIXED.unpack_from(self.data, at)
            except (Malformed, struct.error):
                raise _refused(FORMERR, "a record is cut off") from None
            at += _FIXED.size + length
            if at > len(self.data):
                raise _refused(FORMERR, "a record is cut off")
            if kind == OPT and number >= authorities:
                if self.edns or owner != 1:
                    raise _refused(FORMERR, "two OPT records, or one with a name")
                self.edns, self.options = True, length > 0
                self.size = max(klass, PLAIN_SIZE)
                self.version, self.secure = ttl >> 16 & 0xFF, bool(ttl & _DO)
        if self.version:
            raise _refused(BADVERS, "a version of EDNS that is not known")

    @property
    def is_transfer(self) -> bool:
        """Whether it asks for a whole zone."""
        return self.kind in (AXFR, IXFR)


class Refused(Malformed):
    """A question that is answered with an error. rcode: which."""

    rcode = FORMERR


def _refused(rcode: int, words: str) -> Refused:
    error = Refused(words)
    error.rcode = rcode
    return error


def _read_labels(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The labels of an uncompressed name (nothing comes before a question that it could point to), and where it ends."""
    labels: list[bytes] = []
    start = at
    while True:
        if at >= len(data):
            raise _refused(FORMERR, "a name is cut off")
        length = data[at]
        if length > _LONGEST_LABEL:
            raise _refused(FORMERR, "a compressed name in a question")
        at += 1
        if not length:
            break
        if at + length > len(data):
            raise _refused(FORMERR, "a name is cut off")
        labels.append(data[at : at + length])
        at += length
        if at - start >= _LONGEST_NAME:
            raise _refused(FORMERR, "a name of more than 255 bytes")
    return labels, at


def _skip_name(data: bytes, at: int) -> tuple[int, int]:
    """The length of a name when it is not compressed, and where it ends. Raises Malformed for one that is too long, or never ends."""
    length, end, limit = 0, -1, at
    while True:
        if at >= len(data):
            raise Malformed("a name is cut off")
        label = data[at]
        if label >= 0xC0:
            if at + 2 > len(data):
                raise Malformed("a name is cut off")
            target = (label & 0x3F) << 8 | data[at + 1]
            if end < 0:
                end = at + 2
            if target >= limit or target < HEADER:
                raise Malformed("a name points forward, or at itself")
            at = limit = target  # always backwards: so it comes to an end
            continue
        if label > _LONGEST_LABEL:
            raise Malformed("a label of a kind that there is not")
        at += 1 + label
        length += 1 + label
        if length > _LONGEST_NAME:
            raise Malformed("a name of more than 255 bytes")
        if not label:
            return length, at if end < 0 else end


class Answer:
    """An answer that somebody sent, whose records are whole.

    lifetime: seconds that it may be kept, 0 for not at all. times: where its times to live are.
    """

    __slots__ = ("data", "lifetime", "rcode", "times", "truncated")

    def __init__(self, data: bytes, identifier: int, question: bytes) -> None:
        """Read the answer to a question that was sent with this id. Raises Malformed."""
        if len(data) < HEADER:
            raise Malformed("shorter than a header")
        found, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
        if found != identifier or not flags & QR or flags & _OPCODE:
            raise Malformed("not an answer to our question")
        if questions != 1 or data[HEADER : HEADER + len(question)] != question:
            raise Malformed("an answer to another question")
        self.data = data
        self.rcode = flags & _RCODE
        self.truncated = bool(flags & TC)
        self.times: list[int] = []
        self.lifetime = 0
        if answers + authorities + additional > _MOST_RECORDS:
            raise Malformed("too many records")
        try:
            self._read_records(HEADER + len(question), answers, authorities, additional)
        except (Malformed, struct.error):
            if not self.truncated:
                raise Malformed("a record is cut off") from None
            self.times, self.lifetime = [], 0  # whoever asked will ask again over TCP
            self.data = _with_counts(data[: HEADER + len(question)])

    def _read_records(self, at: int, answers: int, authorities: int, additional: int) -> None:
        data, lowest, negative = self.data, 1 << 31, 0
        for number in range(answers + authorities + additional):
            _, at = _skip_name(data, at)
            kind, _, ttl, length = _FIXED.unpack_from(data, at)
            end = at + _FIXED.size + length
            if end > len(data):
                raise Malformed("a record is cut off")
            if kind != OPT:
                seconds = 0 if ttl >> 31 else ttl  # RFC 2181, 8
                self.times.append(at + 4)
                if number < answers:
                    lowest = min(lowest, seconds)
                elif kind == SOA and number < answers + authorities and length >= 22:
                    negative = min(seconds, struct.unpack_from("!I", data, end - 4)[0])
            at = end
        if self.truncated:
            return
        if self.rcode == NOERROR and answers:
            self.lifetime = lowest
        elif self.rcode in (NOERROR, NXDOMAIN):
            self.lifetime = min(negative, lowest) if answers else negative  # RFC 2308, 5

    def aged(self, seconds: int) -> bytes:
        """The same, when it has been kept for so long."""
        if not seconds:
            return self.data
        data = bytearray(self.data)
        for at in self.times:
            ttl = struct.unpack_from("!I", data, at)[0]
            struct.pack_into("!I", data, at, 0 if ttl >> 31 else max(ttl - seconds, 0))
        return bytes(data)


def _with_counts(data: bytes) -> bytes:
    """A header and a question, with no records behind them."""
    identifier, flags, *_ = _HEADER.unpack_from(data)
    return _HEADER.pack(identifier, flags, 1, 0, 0, 0) + data[HEADER:]


def with_identifier(data: bytes, identifier: int) -> bytes:
    """The same message under another id."""
    return struct.pack("!H", identifier) + data[2:]


def with_question(data: bytes, question: Question) -> bytes:
    """An answer as the answer to this question: its id, and its name in the letters in which it was asked."""
    asked = question.question
    return struct.pack("!H", question.identifier) + data[2:HEADER] + asked + data[HEADER + len(asked) :]


def failure(data: bytes, rcode: int) -> bytes:
    """The answer to a question that could not be read: its header."""
    identifier, flags = struct.unpack_from("!HH", data)
    kept = flags & (_OPCODE | RD | CD)
    if rcode == BADVERS:  # told in the OPT record (RFC 6891, 6.1.3), as all that is above 15
        return _HEADER.pack(identifier, QR | RA | kept, 0, 0, 0, 1) + _opt(rcode)
    return _HEADER.pack(identifier, QR | RA | kept | rcode, 0, 0, 0, 0)


def answer(question: Question, rcode: int, records: Sequence[bytes] = (), limit: int = LARGEST) -> bytes:
    """Our answer: `records` are `address_record` and `pointer_record`. Those that do not fit are left out, and that is said."""
    flags = QR | RA | question.flags & (RD | CD) | rcode
    extra = _opt() if question.edns else b""
    room = limit - HEADER - len(question.question) - len(extra)
    kept: list[bytes] = []
    for record in records:
        room -= len(record)
        if room < 0:
            flags |= TC
            break
        kept.append(record)
    head = _HEADER.pack(question.identifier, flags, 1, len(kept), 0, 1 if extra else 0)
    return b"".join((head, question.question, *kept, extra))


def fitting(data: bytes, question: Question) -> bytes:
    """An answer as it is if it fits over UDP, else one without records that says so."""
    if len(data) <= question.size:
        return data
    flags = struct.unpack_from("!H", data, 2)[0]
    extra = _opt() if question.edns else b""
    head = _HEADER.pack(question.identifier, flags | TC, 1, 0, 0, 1 if extra else 0)
    return head + question.question + extra


def _opt(rcode: int = NOERROR) -> bytes:
    return b"\0" + _FIXED.pack(OPT, OUR_SIZE, rcode >> 4 << 24, 0)


def address_record(kind: int, seconds: int, address: bytes) -> bytes:
    """An A or AAAA record of the name that was asked for."""
    return b"\xc0\x0c" + _FIXED.pack(kind, IN, seconds, len(address)) + address


def pointer_record(seconds: int, name: str) -> bytes:
    """A PTR record of the name that was asked for. Raises Malformed for a name that cannot be one."""
    data = pack_name(name)
    return b"\xc0\x0c" + _FIXED.pack(PTR, IN, seconds, len(data)) + data


def pack_name(name: str) -> bytes:
    """A name as bytes. Raises Malformed."""
    packed = b""
    for label in name.encode("latin-1", "replace").rstrip(b".").split(b"."):
        if not 0 < len(label) <= _LONGEST_LABEL:
            raise Malformed(f"{name!r} is no name")
        packed += bytes([len(label)]) + label
    if len(packed) >= _LONGEST_NAME:
        raise Malformed(f"{name!r} is no name")
    return packed + b"\0"


def reversed_address(name: str) -> str:
    """The address that a name of in-addr.arpa or ip6.arpa asks about, "" if it is none."""
    if name.endswith(".in-addr.arpa"):
        parts = name[: -len(".in-addr.arpa")].split(".")[::-1]
        if len(parts) != 4 or not all(
            part.isdecimal() and part.isascii() and len(part) < 4 and int(part) < 256 for part in parts
        ):
            return ""
        return ".".join(str(int(part)) for part in parts)
    if name.endswith(".ip6.arpa"):
        nibbles = name[: -len(".ip6.arpa")].split(".")[::-1]
        if len(nibbles) != 32 or not all(len(n) == 1 and n in "0123456789abcdef" for n in nibbles):
            return ""
        return _socket.inet_ntop(_socket.AF_INET6, bytes.fromhex("".join(nibbles)))
    return ""
