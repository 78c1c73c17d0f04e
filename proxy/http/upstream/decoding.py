"""Undoing the content encoding of an answer, in pieces of bounded size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

ENCODINGS = frozenset({"gzip", "deflate"})
"""What can be undone (RFC 9110 8.4.1)."""
MAX_PIECE_BYTES = 256 * 2**10

_SLICE_BYTES = 4 * 2**10
"""zlib copies all that is behind a member: of this, at most."""

_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's window bits that take exactly this container


class NotEncoded(Exception):
    """The body is not what its encoding says, or not all of it."""


class Decoder:
    """Undoes one encoding, over as many members as a gzip body has (RFC 1952 2.2)."""

    def __init__(self, encoding: str) -> None:
        self._is_gzip = encoding == "gzip"
        self._member: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes say, in pieces; raises ``NotEncoded``."""
        for at in range(0, len(data), _SLICE_BYTES):
            yield from self._slice(data[at : at + _SLICE_BYTES])

    def _slice(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None:
                self._member = zlib.decompressobj(self._window(data[0]))
            elif self._member.eof:
                # Another member, or what should not be there.
                if not self._is_gzip:
                    raise NotEncoded
                self._member = zlib.decompressobj(_GZIP)
            member = self._member
            try:
                piece = member.decompress(data, MAX_PIECE_BYTES)
                while piece:
                    yield piece
                    # Behind its end, a member would take what it has left a second time.
                    if member.eof or len(piece) < MAX_PIECE_BYTES:
                        break
                    # What a full piece left over may be inside zlib, with all of the input taken.
                    piece = member.decompress(member.unconsumed_tail, MAX_PIECE_BYTES)
            except zlib.error:
                raise NotEncoded from None
            data = member.unused_data if member.eof else b""

    def close(self) -> None:
        """There is no more of it; raises ``NotEncoded`` where there should be."""
        if self._member is not None and not self._member.eof:
            raise NotEncoded

    def _window(self, first: int) -> int:
        if self._is_gzip:
            return _GZIP
        # Some send deflate without the container that makes it "deflate"; its first byte tells (RFC 1950).
        return _ZLIB if first & 0xF == 8 else _RAW
