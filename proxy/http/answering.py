"""What a client is sent of one answer: a body in one write with its head, or a stream in one write a frame.

Bodies and streams to clients of HTTP/1.1, which nearly all answers are, are framed here. What is left (older
clients, answers without a body) is framed by aiohttp.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict

from proxy.http.headers import TRACE_ID
from proxy.http.tasks import spawn
from proxy.ports import Headers

SERVER = "callgate"

# RFC 9110 6.4.1: answers that end with their head, whatever it says.
_BODILESS = frozenset({204, 304, *range(100, 200)})


class Whole(web.StreamResponse):
    """An answer whose body is there when its head is sent; for HTTP/1.1, and not where none may follow."""

    body = b""
    _kept_alive = False

    @property
    def keep_alive(self) -> bool:
        """Whether the connection takes another request; known once the answer was sent."""
        return self._kept_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Send all of it in one write; aiohttp refuses a head that holds a line break."""
        headers, body = self.headers, self.body
        headers["Content-Length"] = str(len(body))
        headers["Date"] = _date(int(time.time()))
        if body:
            headers.setdefault("Content-Type", "application/octet-stream")
        self._kept_alive = request.keep_alive and super().keep_alive is not False
        if not self._kept_alive:
            headers["Connection"] = "close"
        writer = request.writer
        await writer.write_headers(f"HTTP/1.1 {self.status} {self.reason}", headers)
        await writer.write_eof(body)
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to be sent."""


class Client:
    """The client of one exchange, as the exchange sees it."""

    def __init__(self, request: web.BaseRequest, trace_id: str, keepalive_s: float) -> None:
        self.holding = False
        self.response: web.StreamResponse | None = None
        self._request, self._trace_id, self._keepalive_s = request, trace_id, keepalive_s
        self._whole: Whole | web.Response | None = None
        self._chunks: RequestHandler | None = None
        self._bodiless = False
        self._keepalive = b""
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._alive: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def begin(self, status: int, headers: Headers, keepalive: bytes | None) -> None:
        """Send the head of a stream, or keep that of a body until the body is there."""
        request, head = self._request, answer_head(headers, self._trace_id)
        self._bodiless = request.method == "HEAD" or status in _BODILESS
        framed = request.version == HttpVersion11 and not self._bodiless
        if keepalive is None:
            self.response = self._whole = (Whole if framed else web.Response)(status=status, headers=head)
            return
        self.response = web.StreamResponse(status=status, headers=head)
        if framed:
            self.response.enable_chunked_encoding()
        self._keepalive = keepalive
        await self.response.prepare(request)
        self._chunks = request.protocol if framed else None
        self._sent_at = self._loop.time()
        self._timer = self._loop.call_later(self._keepalive_s, self._look)

    async def send(self, data: bytes) -> None:
        """Send bytes of the stream, waiting while the client reads slowly; or the whole body."""
        if (protocol := self._chunks) is None:
            await self._send_otherwise(data)
        elif data:  # an empty chunk would end the answer
            transport = protocol.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client is gone")
            self._sent_at = self._loop.time()
            transport.write(b"%x\r\n%b\r\n" % (len(data), data))  # RFC 9112 7.1
            if protocol.writing_paused:
                await self._request.writer.drain()

    async def _send_otherwise(self, data: bytes) -> None:
        if self._whole is not None:
            self._whole.body = data
            return
        assert self.response is not None, "begin() comes first"
        self._sent_at = self._loop.time()
        if not self._bodiless:
            await self.response.write(data)

    def _look(self) -> None:
        """Keep the client's stream alive while nothing can be sent; a silent provider is not hidden."""
        due = self._sent_at + self._keepalive_s - self._loop.time()
        if due <= 0:
            # To a client that has not yet read the last one, another says nothing.
            if self.holding and (self._alive is None or self._alive.done()):
                self._alive = spawn(self._say_alive())
            due = self._keepalive_s
        self._timer = self._loop.call_later(due, self._look)

    async def _say_alive(self) -> None:
        # The answer may have gone on, or ended, since the timer rang.
        if not self.holding or self._timer is None:
            return
        # When the client is gone, the handler is being cancelled for the same reason.
        with contextlib.suppress(ConnectionError):
            await self.send(self._keepalive)

    def close(self) -> None:
        """No keep-alive is sent any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def answer_head(headers: Headers, trace_id: str) -> CIMultiDict[str]:
    """The headers of an answer, with what Callgate says of itself."""
    head = CIMultiDict(headers)
    head[TRACE_ID] = trace_id
    head.setdefault("Server", SERVER)
    return head


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    """The time as HTTP says it (RFC 9110 5.6.7), worked out once a second."""
    return formatdate(second, usegmt=True)
