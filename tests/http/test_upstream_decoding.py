"""Encoded bodies of several members: each is read once, and none costs more than its bytes."""

from __future__ import annotations

import time
import zlib

import pytest

from proxy.http.upstream.decoding import MAX_PIECE_BYTES, Decoder, NotEncoded


def gzip(raw: bytes) -> bytes:
    return zlib.compress(raw, wbits=31)


def undone(packed: bytes, max_bytes: int) -> bytes:
    """What is decoded; stops soon behind ``max_bytes``, since what has no end has to be left."""
    decoder, found = Decoder("gzip"), b""
    for piece in decoder.feed(packed):
        found += piece
        if len(found) > max_bytes:
            break
    decoder.close()
    return found


@pytest.mark.parametrize("pieces", [1, 2, 3])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_member_that_ends_with_a_full_piece_is_read_once(pieces: int, more: int) -> None:
    raw = b"a" * (pieces * MAX_PIECE_BYTES + more)
    assert undone(gzip(raw) + gzip(b"b"), len(raw) + 1) == raw + b"b"


def test_what_is_behind_a_full_piece_is_still_refused() -> None:
    with pytest.raises(NotEncoded):
        undone(gzip(bytes(2 * MAX_PIECE_BYTES)) + b"junk", 2 * MAX_PIECE_BYTES)


def test_a_flood_of_members_costs_what_its_bytes_cost() -> None:
    def cost(count: int) -> float:
        packed = gzip(b"") * count
        began = time.process_time()
        assert undone(packed, 0) == b""
        return time.process_time() - began

    cost(1000)
    # Ten times as many take ten times as long; where each copies all behind it, a hundred times.
    assert min(cost(40_000) for _ in range(3)) < 40 * min(cost(4000) for _ in range(3))
