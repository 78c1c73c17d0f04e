"""The providers. A request is sent once: who sends a POST again may act twice.

That holds too where the provider closes a kept connection just as a request is written to it: whether it
was read cannot be known, so the client gets a 502 and decides. Only what is idempotent (RFC 9110 9.2.2) and
has no body is sent again there, once, on a new connection. A connection that was closed earlier is not used
at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from aiohttp import StreamReader

from proxy.http.upstream.answer import Answer
from proxy.http.upstream.connection import Connection
from proxy.http.upstream.endpoint import Endpoint
from proxy.http.upstream.heads import Body, Heads, declared
from proxy.http.upstream.pool import Pool
from proxy.http.upstream.reply import HttpReply
from proxy.ports import Ask, Headers, Reply, UpstreamFailed

_IDEMPOTENT = frozenset({"GET", "HEAD", "DELETE"})
# Models come from clients: what is remembered of them is bounded, in number and in size.
_MAX_KNOWN = 1024
_MAX_KNOWN_CHARS = 256


class HttpUpstream:
    """Sends each request to the first provider that serves its model."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)
        self._heads = {endpoint.name: Heads(endpoint) for endpoint in self._endpoints}
        self._by_model: dict[str, Endpoint] = {}
        self._pools: dict[str, Pool] = {}

    async def start(self) -> None:
        """Open the connection pools; on the loop that serves."""
        self._pools = {endpoint.name: Pool(endpoint) for endpoint in self._endpoints}

    async def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.close()

    @property
    def kept_connections(self) -> int:
        """How many connections wait for a request."""
        return sum(pool.kept for pool in self._pools.values())

    def ask(self, ask: Ask) -> AbstractAsyncContextManager[Reply]:
        """Send a judged route's request; its answer is decoded."""
        return self._sent("POST", ask.path, ask.headers, ask.body, self.endpoint(ask.model), decode=True)

    def send(
        self, method: str, path: str, headers: Headers, body: Body, model: str | None
    ) -> AbstractAsyncContextManager[HttpReply]:
        """Send a passed route's request; its answer's bytes stay as they are.

        A body that comes in pieces is as long as its Content-Length says, or goes on in chunks.
        """
        endpoint = self._endpoints[0] if model is None else self.endpoint(model)
        return self._sent(method, path, headers, body, endpoint, decode=False)

    def endpoint(self, model: str) -> Endpoint:
        """The provider of a model; raises ``UpstreamFailed`` (404) where there is none."""
        known = self._by_model.get(model)
        if known is None:
            known = next((e for e in self._endpoints if e.serves(model)), None)
            if known is None:
                message = f"No upstream serves the model {model[:200]!r}; see upstreams[].models."
                raise UpstreamFailed(404, "model_not_found", message)
            if len(model) <= _MAX_KNOWN_CHARS and len(self._by_model) < _MAX_KNOWN:
                self._by_model[model] = known
        return known

    def _sent(
        self, method: str, path: str, headers: Headers, body: Body, endpoint: Endpoint, decode: bool
    ) -> _Sent:
        head = self._heads[endpoint.name].write(method, path, headers, body, decode)
        if body is not None and not isinstance(body, bytes):
            body = _framed(body, declared(headers))
        return _Sent(self._pools[endpoint.name], method, head, body, decode)


class _Sent:
    """One request on its way: entering sends it and waits for the head of the answer."""

    def __init__(
        self, pool: Pool, method: str, head: bytes, body: bytes | AsyncIterator[bytes] | None, decode: bool
    ) -> None:
        self._pool, self._method, self._head = pool, method, head
        self._body, self._decode = body, decode
        self._connection: Connection | None = None
        self._answer: Answer | None = None

    async def __aenter__(self) -> HttpReply:
        try:
            connection = self._pool.take()
            if connection is None:
                return await self._ask(await self._pool.connect())
            try:
                return await self._ask(connection)
            except UpstreamFailed as exc:
                if not self._may_be_sent_again(exc):
                    raise
            self._release()
            return await self._ask(await self._pool.connect())
        except BaseException:
            self._release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An answer that has not come to its end takes its connection with it: the provider stops.
        self._release()

    async def _ask(self, connection: Connection) -> HttpReply:
        self._connection = connection
        answer = self._answer = connection.send(self._method, self._head, self._body)
        return HttpReply(connection, answer, await connection.head(answer), self._decode)

    def _may_be_sent_again(self, failure: UpstreamFailed) -> bool:
        """Whether the provider closed a kept connection on a request that may act twice."""
        return (
            failure.code == "upstream_broken"
            and self._method in _IDEMPOTENT
            and self._body is None
            and self._answer is not None
            and not self._answer.is_heard_of
        )

    def _release(self) -> None:
        connection, answer = self._connection, self._answer
        self._connection = self._answer = None
        if connection is None:
            return
        if answer is None:
            connection.abort()
        elif not connection.release(answer) or answer.head is None:
            return
        elif self._body is not None and self._method in _IDEMPOTENT:
            # A provider that expects no body there (RFC 9110 9.3.1) takes it for the next request, and says
            # to whoever comes next what was asked by it.
            connection.abort()
        else:
            self._pool.keep(connection, answer.head.idle_s)


async def _framed(body: AsyncIterable[bytes], length: int | None) -> AsyncIterator[bytes]:
    """A body in pieces, as it is written; raises ``ValueError`` where it is not as long as was said."""
    sent = 0
    async for piece in body.iter_any() if isinstance(body, StreamReader) else body:
        sent += len(piece)
        if length is not None:
            if sent > length:
                # What is too much would be read as the next request on this connection.
                raise ValueError("a body is longer than was said")
            yield piece
        elif piece:
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
    if length is None:
        yield b"0\r\n\r\n"
    elif sent < length:
        raise ValueError("a body is shorter than was said")
