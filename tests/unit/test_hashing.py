"""`store.hashing`: the digest is that of all that was handed over, in its order, and the thread ends with its user."""

from __future__ import annotations

import hashlib
import io
import threading
import time

import pytest

from sampan.store.hashing import HashingThread
from sampan.store.layers import DigestStream


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 100])
def test_the_digest_is_that_of_all_pieces(count: int) -> None:
    pieces = [bytes([number]) * 10_007 for number in range(count)]
    with HashingThread() as hasher:
        for piece in pieces:
            hasher.update(piece)
        assert hasher.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()
        assert hasher.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_a_stream_can_be_hashed_by_it() -> None:
    data = b"layer" * 1_000_000
    with HashingThread() as hasher:
        stream = DigestStream(io.BytesIO(data), hasher=hasher)
        while stream.read(1 << 20):
            pass
        assert (stream.digest, stream.size) == (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))


def test_whoever_hands_over_does_not_hash() -> None:
    piece = bytes(1 << 21)
    with HashingThread() as hasher:
        before, all_before = time.thread_time(), time.process_time()
        for _ in range(50):
            hasher.update(piece)
        hasher.hexdigest()
        assert time.thread_time() - before < (time.process_time() - all_before) / 4


def test_the_thread_ends_with_its_user() -> None:
    before = threading.active_count()

    def give_up() -> None:
        with HashingThread() as hasher:
            hasher.update(bytes(1 << 20))
            raise ValueError("given up")

    with pytest.raises(ValueError, match="given up"):
        give_up()
    assert threading.active_count() == before
