"""A server of bundles on this machine, which answers as a test says."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BundleServer:
    """Serves ``content`` with its digest as the ETag, or what ``answer`` says where a test needs that."""

    def __init__(self, content: bytes = b"", tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.content, self.answer = content, None
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._tls, self._port = tls, port
        self._more = asyncio.Condition()

    content: bytes
    answer: Answer | None

    async def __aenter__(self) -> BundleServer:
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls).start()
        self.port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/bundle.tar.gz"

    async def asked(self, times: int = 2) -> None:
        """Wait for so many more questions; with the second, the answer to the first was dealt with."""
        enough = len(self.requests) + times
        async with self._more:
            await self._more.wait_for(lambda: len(self.requests) >= enough)

    async def _serve(self, request: Any) -> web.StreamResponse:
        async with self._more:
            self.requests.append((request.path, dict(request.headers)))
            self._more.notify_all()
        if self.answer is not None:
            return await self.answer(request)
        etag = f'"{hashlib.sha256(self.content).hexdigest()}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(body=self.content, headers={"ETag": etag})


def answering(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    """Always the same."""

    async def answer(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return answer
