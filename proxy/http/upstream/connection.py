"""One connection to a provider: one request, its answer to the end, and then perhaps another."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import cast

from proxy.http.tasks import spawn
from proxy.http.upstream import faults
from proxy.http.upstream.answer import Answer, Head
from proxy.http.upstream.endpoint import Endpoint
from proxy.ports import UpstreamFailed

log = logging.getLogger("callgate.http")

_MAX_UNREAD_BYTES = 256 * 2**10
_MAX_JOINED_BYTES = 16 * 2**10


class Connection(asyncio.Protocol):
    """An HTTP/1.1 connection.

    It serves one answer at a time, and keeps nothing of one for the next: what is read of an answer is read
    from its ``Answer``, which ends or fails before the connection is handed on.
    """

    def __init__(self, endpoint: Endpoint, link: socket.socket, lost: Callable[[Connection], None]) -> None:
        """``link`` is what it runs over; ``lost`` is told of its end."""
        self.is_lost = False
        self.idle_until = 0.0
        self._endpoint, self._lost = endpoint, lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._answer: Answer | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._unread = 0
        self._is_paused = self._has_ended = False
        self._upload: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._is_full = self._is_early = False
        self._readable = None
        if sys.platform != "win32":
            self._readable = select.poll()
            self._readable.register(link.fileno(), select.POLLIN)

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none by inheritance.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            # Nobody asked: what a provider says of its own accord is nobody's answer.
            self._transport.abort()
            return
        has_begun = answer.head is not None
        answer.feed(data)
        if not has_begun and answer.head is not None:
            self._is_early = self._is_sending
        if answer.fault is not None:
            self._transport.abort()
        self._unread += len(data)
        if self._unread > _MAX_UNREAD_BYTES and not self._is_paused and not answer.ended:
            self._is_paused = True
            self._transport.pause_reading()
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def eof_received(self) -> None:
        self._has_ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._answer is not None:
            self._answer.close(self._has_ended and exc is None)
        self._stop_timer()
        self._wake()
        self.resume_writing()
        self._lost(self)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # -- the request

    @property
    def _is_sending(self) -> bool:
        """Whether some of the request was not yet written."""
        upload = self._upload
        return (upload is not None and not upload.done()) or self._transport.get_write_buffer_size() > 0

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent: nothing has arrived since the last one, also no end."""
        if self._transport.is_closing() or self._answer is not None:
            return False
        return self._readable is None or not self._readable.poll(0)

    def send(self, method: str, head: bytes, body: bytes | AsyncIterator[bytes] | None) -> Answer:
        """Send a request and expect its answer; a body that comes in pieces is framed already."""
        answer = self._answer = Answer(method)
        self._unread = 0
        self._is_early = False
        if self._transport.is_closing():
            # Its end may have been told already, and will not be told again.
            answer.close(False)
            return answer
        self._timer = self._loop.call_later(self._endpoint.first_byte_timeout_s, self._is_late)
        if not body:
            self._transport.write(head)
        elif not isinstance(body, bytes):
            self._transport.write(head)
            self._upload = spawn(self._send_pieces(body, answer))
        elif len(body) <= _MAX_JOINED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return answer

    async def head(self, answer: Answer) -> Head:
        """Wait for the head of the answer; raises ``UpstreamFailed``."""
        while answer.head is None:
            if answer.fault is not None:
                raise answer.fault.anew()
            self._waiter = self._loop.create_future()
            await self._waiter
        self._stop_timer()
        return answer.head

    async def _send_pieces(self, body: AsyncIterator[bytes], answer: Answer) -> None:
        try:
            async for piece in body:
                if self._is_full:
                    self._writable = self._loop.create_future()
                    await self._writable
                if self._transport.is_closing():
                    return
                self._transport.write(piece)
        except Exception as exc:  # noqa: BLE001 -- whatever the client's side raises while its body is read
            log.warning("the body of a request broke off: %s", type(exc).__name__)
            # Half a body is no request: the provider must not take it for one.
            self._fail(answer, faults.broken())

    # -- the answer

    def more(self) -> asyncio.Future[None]:
        """Wait for more of the answer, of which nothing is left to be taken."""
        if self._is_paused:
            self._is_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        self._unread = 0
        self._since = self._loop.time()
        if self._timer is None:
            # One for the whole answer: it looks how long the reader has been waiting.
            self._timer = self._loop.call_later(self._endpoint.idle_timeout_s, self._look)
        waiter = self._waiter = self._loop.create_future()
        return waiter

    async def drain(self, answer: Answer, timeout_s: float) -> None:
        """Read to the end of the answer; one that does not come in time, or is cut, is left."""
        timer = self._loop.call_later(timeout_s, self._transport.abort)
        try:
            while not answer.ended and answer.fault is None:
                answer.body.clear()
                await self.more()
        finally:
            timer.cancel()

    def release(self, answer: Answer) -> bool:
        """Be done with an answer; returns whether another request may follow it on this connection."""
        self._stop_timer()
        upload, self._upload = self._upload, None
        if upload is not None and not upload.done():
            upload.cancel()
            answer.is_exact = False
        if answer.fault is None and not answer.ended:
            # Whoever still reads it reads of its end, and not the next answer.
            answer.fault = faults.incomplete()
        self._answer = None
        transport, head = self._transport, answer.head
        if (
            answer.ended
            and answer.is_exact
            and head is not None
            and head.keeps
            and not self._is_paused
            and not transport.is_closing()
            # Answered before it was all sent: what is left of it does not go before another request, and a
            # provider that does not wait for it may read it as one.
            and not self._is_early
            and not transport.get_write_buffer_size()
        ):
            return True
        transport.abort()
        return False

    def abort(self) -> None:
        """Close at once; a provider in the midst of an answer stops."""
        self._stop_timer()
        self._transport.abort()

    # -- waiting

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_late(self) -> None:
        if self._answer is not None:
            self._fail(self._answer, faults.no_answer(self._endpoint.first_byte_timeout_s))

    def _look(self) -> None:
        """Leave a provider, and not its reader, that has been silent for too long."""
        idle_s = self._endpoint.idle_timeout_s
        waited = 0.0 if self._waiter is None else self._loop.time() - self._since
        if waited < idle_s:
            self._timer = self._loop.call_later(idle_s - waited, self._look)
        elif self._answer is not None:
            self._fail(self._answer, faults.stalled(idle_s))

    def _fail(self, answer: Answer, fault: UpstreamFailed) -> None:
        if answer.fault is None and not answer.ended:
            answer.fault = fault
        self._transport.abort()
        self._wake()
