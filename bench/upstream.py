"""A provider that costs as little as can be: fixed answers, each frame of a stream in a write of its own.

It runs on asyncio's own loop, which hands every write to the kernel at once; uvloop would gather them.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import cast

from bench import protocols, reads
from bench.workload import answer, frames

GAP_S = 0.002
"""Between two frames of a stream."""


def _chunked(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


_BODY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_1\r\nContent-Length: %d\r\n\r\n"
)
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nx-request-id: req_1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def _whole(body: bytes) -> bytes:
    return _BODY % len(body) + body


def _pieces(events: list[bytes]) -> tuple[bytes, ...]:
    return (_STREAM, *map(_chunked, events), b"0\r\n\r\n")


BURST = b"bench-burst"
PIECES = {b"bench-stream": _pieces(frames()), BURST: _pieces(frames())}
"""By model, the writes of its streams."""
BODIES = {
    b"bench-body": _whole(answer()),
    reads.CACHED.encode(): _whole(reads.CALLING),
    reads.FORWARDED.encode(): _whole(reads.FORWARDING),
}
"""By model, what it answers at once."""
SAYING = _whole(reads.SAYING)
for _dialect in protocols.DIALECTS.values():
    PIECES[protocols.model_of(_dialect, True).encode()] = _pieces(protocols.frames(_dialect))
    BODIES[protocols.model_of(_dialect, False).encode()] = _whole(protocols.answer(_dialect))


class Answering(asyncio.Protocol):
    """One connection: waits for a whole request and answers by the model that it names."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length = -1
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._length < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._length = end + 4 + _content_length(bytes(self._buffer[:end]))
        if len(self._buffer) >= self._length:
            request = bytes(self._buffer[: self._length])
            del self._buffer[: self._length]
            self._length = -1
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        assert self._transport is not None
        model = _model(request)
        if model in BODIES:
            # A model that has its result speaks.
            told = model == reads.CACHED.encode() and b'"role":"tool"' in request
            self._transport.write(SAYING if told else BODIES[model])
        elif model == BURST:
            for piece in PIECES[model]:
                self._transport.write(piece)
        else:
            self._pace(PIECES[model], 0)

    def _pace(self, pieces: tuple[bytes, ...], at: int) -> None:
        assert self._transport is not None
        self._transport.write(pieces[at])
        if at + 1 < len(pieces):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(GAP_S, partial(self._pace, pieces, at + 1))


def _model(request: bytes) -> bytes:
    return request.partition(b'"model":"')[2].partition(b'"')[0]


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
