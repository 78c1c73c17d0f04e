"""What the client gets: one answer, begun once and ended once, over all rounds behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from time import perf_counter

from proxy.model import Passage, Turn
from proxy.ports import Downstream, Headers, Reply, UpstreamFailed
from proxy.wire.codec import Codec, Encoder

_IN_UTF8 = re.compile(r'(?!.*charset).*|\s*charset=("?)utf-?8\1\s*', re.IGNORECASE | re.DOTALL)
JSON_HEAD: Headers = (("content-type", "application/json"),)


def as_read(headers: Headers, media_type: str) -> Headers:
    """The head of an answer, with the one type that it was read as.

    Its bytes were read as UTF-8: to a client that is told of UTF-7, say, they are another text.
    """
    types = [value for name, value in headers if name.lower() == "content-type"]
    if len(types) == 1 and _IN_UTF8.fullmatch(types[0].partition(";")[2]):
        return headers
    others = [(name, value) for name, value in headers if name.lower() != "content-type"]
    return (*others, ("content-type", media_type or "application/json"))


class Delivery:
    """The answer to one client, as the codec's encoder writes it."""

    def __init__(self, codec: Codec, downstream: Downstream) -> None:
        self.status = 0
        self.first_byte_s: float | None = None
        self.said_text = False
        self.streaming = False
        self._codec, self._down = codec, downstream
        self._began = perf_counter()
        self._encoder: Encoder | None = None
        self._head: Headers = ()

    @property
    def begun(self) -> bool:
        """Whether a provider's answer has been seen: from here on it is one answer of one shape."""
        return self._encoder is not None

    async def begin(self, reply: Reply) -> None:
        """Take the first round's shape; raises ``UpstreamFailed`` when a later round has another."""
        streaming = reply.media_type == "text/event-stream"
        if self._encoder is None:
            self.streaming, self._head = streaming, as_read(reply.headers, reply.media_type)
            self._encoder = self._codec.encoder(streaming)
            if streaming:
                self.status = reply.status
                await self._down.begin(reply.status, self._head, self._codec.keepalive)
        elif streaming != self.streaming:
            raise UpstreamFailed(502, "upstream_malformed", "The provider changed between stream and body.")

    def hold(self) -> None:
        """Nothing can be sent for now."""
        self._down.holding = True

    async def passage(self, passage: Passage) -> None:
        """Bytes without a call go on at once."""
        if passage.text:
            self.said_text = True
        down, encoder = self._down, self._encoder
        assert encoder is not None, "an answer has begun"
        down.holding = False
        if data := encoder.passage(passage):
            # As ``send`` does, without a coroutine of its own for every frame of a stream.
            if self.first_byte_s is None:
                self.first_byte_s = perf_counter() - self._began
            await down.send(data)

    async def raw(self, data: bytes) -> None:
        """The provider's own last words."""
        if not self.streaming:
            await self._begin_body(200, self._head)
        await self.send(data)

    async def settle(self, turn: Turn) -> None:
        """Take in a turn that the client does not see."""
        self.said_text = self.said_text or bool(turn.text)
        await self.send(self._writer.settle(turn))

    async def release(
        self, turn: Turn, arguments: Sequence[str | None], notices: Mapping[int, str], status: str = ""
    ) -> None:
        """End the answer with the calls that may run (``Encoder.release``); a stream says ``status`` before
        it."""
        if status and self.streaming:
            await self.send(self._writer.status(status))
        self.said_text = self.said_text or bool(turn.text)
        await self._end(self._writer.release(turn, arguments, notices))

    async def finish(self, text: str) -> None:
        """End the answer with the proxy's own words."""
        await self._end(self._writer.finish(text))

    async def refused(self, reply: Reply) -> None:
        """A status that is no answer goes on untouched."""
        body = b"".join([chunk async for chunk in reply.chunks()])
        await self._begin_body(reply.status, reply.headers)
        await self.send(body)

    async def fail(
        self, status: int, code: str, message: str, param: str | None = None, headers: Headers = ()
    ) -> None:
        """An error in the protocol's shape: as the answer, or in-band once a stream has begun."""
        self._down.holding = False
        if self.streaming:
            await self.send(self._writer.error(status, code, message))
            return
        await self._begin_body(status, (*JSON_HEAD, *headers))
        await self.send(self._codec.error(status, code, message, param))

    async def send(self, data: bytes) -> None:
        if not data:
            return
        if self.first_byte_s is None:
            self.first_byte_s = perf_counter() - self._began
        await self._down.send(data)

    async def _end(self, data: bytes) -> None:
        self._down.holding = False
        if not self.streaming:
            await self._begin_body(200, self._head)
        await self.send(data)

    async def _begin_body(self, status: int, headers: Headers) -> None:
        self.status = status
        await self._down.begin(status, headers, None)

    @property
    def _writer(self) -> Encoder:
        assert self._encoder is not None, "an answer has begun"
        return self._encoder
