"""Providers on plain sockets that do exactly what a test says, and the client before them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest

from proxy.http.upstream import Endpoint, HttpReply, HttpUpstream
from proxy.ports import UpstreamFailed

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
Serve: TypeAlias = "Callable[[Provider, Reader, Writer], Awaitable[None]]"


class Provider:
    """A server that does on each connection what a test says, and counts."""

    def __init__(self, serve: Serve) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.left = asyncio.Semaphore(0)
        """Released for each client that went away."""
        self._serve = serve

    async def __aenter__(self) -> Provider:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _accept(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        try:
            await self._serve(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.release()
        finally:
            writer.close()

    async def read(self, reader: Reader) -> bytes:
        """One request."""
        head = await reader.readuntil(b"\r\n\r\n")
        body, low = b"", head.lower()
        if b"\r\ncontent-length:" in low:
            length = int(low.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
        elif b"transfer-encoding: chunked" in low:
            while not body.endswith(b"0\r\n\r\n"):
                body += await reader.readuntil(b"\r\n")
        self.requests.append(head + body)
        return head + body

    async def gone(self, reader: Reader) -> None:
        """Wait until the client has gone away."""
        try:
            while await reader.read(2**16):
                pass
        except ConnectionError:
            pass
        self.left.release()


def playing(*answers: bytes, then_close: bool = False) -> Serve:
    """Answer each request in turn, on however many connections; the last answer again and again."""

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        while True:
            await provider.read(reader)
            writer.write(answers[min(len(provider.requests), len(answers)) - 1])
            await writer.drain()
            if then_close:
                return

    return serve


@asynccontextmanager
async def client_of(provider: Provider | str, **options: Any) -> AsyncIterator[HttpUpstream]:
    url = provider if isinstance(provider, str) else provider.url
    upstream = HttpUpstream([Endpoint("one", url, **options)])
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.close()
        assert upstream.kept_connections == 0
        await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if "_send_pieces" in repr(task.get_coro())]
        assert not left, "what sends a body was left"
        gc.collect()


@asynccontextmanager
async def paired(serve: Serve | bytes, **options: Any) -> AsyncIterator[tuple[Provider, HttpUpstream]]:
    """A provider that does what ``serve`` says, or gives this answer to each request; and its client."""
    doing = playing(serve) if isinstance(serve, bytes) else serve
    async with Provider(doing) as provider, client_of(provider, **options) as upstream:
        yield provider, upstream


async def body_of(reply: HttpReply) -> bytes:
    return b"".join([chunk async for chunk in reply.chunks()])


async def get(upstream: HttpUpstream, method: str = "GET", body: Any = None, path: str = "/models") -> bytes:
    async with upstream.send(method, path, (), body, None) as reply:
        return await body_of(reply)


async def fails(upstream: HttpUpstream, *arguments: Any) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as caught:
        await get(upstream, *arguments)
    return caught.value
