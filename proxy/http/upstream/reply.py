"""A provider's answer as those who asked read it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from proxy.http.headers import for_client
from proxy.http.upstream import faults
from proxy.http.upstream.answer import Answer, Head
from proxy.http.upstream.connection import Connection
from proxy.http.upstream.decoding import ENCODINGS, Decoder, NotEncoded

_DRAIN_S = 0.25
# Words about an error, not an answer: more than this is neither.
_MAX_ERROR_BYTES = 4 * 2**20


class HttpReply:
    """A provider's answer as its bytes arrive."""

    def __init__(self, connection: Connection, answer: Answer, head: Head, decode: bool) -> None:
        """``decode`` undoes the body's encoding; raises ``UpstreamFailed`` for what cannot be carried."""
        status = head.status
        if 300 <= status < 400 and status != 304:
            raise faults.redirect(status)
        self._encoding = _encoding(head) if decode else ""
        self._connection, self._answer = connection, answer
        self.status = status
        self.headers = for_client(head.fields, decode)
        self.length = None if decode else head.length
        """How many bytes the body has, where the provider said so and they stay as they are."""
        self.media_type = head.get("content-type").partition(";")[0].strip().lower()
        # A judged answer has its own bounds where it is read; a passed one is never held.
        self._max_bytes = _MAX_ERROR_BYTES if decode and status >= 300 else sys.maxsize

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives; raises ``UpstreamFailed`` when it is cut or stalls."""
        chunks = _Chunks(self._connection, self._answer, self._max_bytes)
        return _decoded(chunks, self._encoding, self._max_bytes) if self._encoding else chunks

    async def drain(self) -> None:
        """Read to the end of the body, if it is about to come, so that the connection can serve again."""
        if not self._answer.ended:
            await self._connection.drain(self._answer, _DRAIN_S)


class _Chunks:
    """What has arrived, whenever something has. No generator: who stops early leaves nothing to be ended."""

    __slots__ = ("_answer", "_connection", "_left")

    def __init__(self, connection: Connection, answer: Answer, max_bytes: int) -> None:
        self._connection, self._answer, self._left = connection, answer, max_bytes

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        answer = self._answer
        body = answer.body
        while not body:
            if answer.ended:
                raise StopAsyncIteration
            if answer.fault is not None:
                raise answer.fault.anew()
            await self._connection.more()
        chunk = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        self._left -= len(chunk)
        if self._left < 0:
            raise faults.too_large()
        return chunk


async def _decoded(chunks: AsyncIterator[bytes], encoding: str, max_bytes: int) -> AsyncIterator[bytes]:
    decoder, left = Decoder(encoding), max_bytes
    try:
        async for chunk in chunks:
            for piece in decoder.feed(chunk):
                left -= len(piece)
                if left < 0:
                    raise faults.too_large()
                yield piece
        decoder.close()
    except NotEncoded:
        raise faults.incomplete() from None


def _encoding(head: Head) -> str:
    encoding = ",".join(head.all("content-encoding")).strip().lower()
    if encoding in ("", "identity"):
        return ""
    if encoding not in ENCODINGS:
        raise faults.encoded()
    return encoding
