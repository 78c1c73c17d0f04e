"""The measure: a bare reverse proxy of aiohttp, as a good engineer would write it in forty lines."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict

_HOP = frozenset({"connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
SESSION = web.AppKey("session", aiohttp.ClientSession)


def _end_to_end(headers: CIMultiDict[str] | aiohttp.typedefs.LooseHeaders) -> CIMultiDict[str]:
    return CIMultiDict(
        (name, value) for name, value in CIMultiDict(headers).items() if name.lower() not in _HOP
    )


def application(upstream: str) -> web.Application:
    """Forwards method, path, headers and body, and streams the answer back as it arrives."""

    async def forward(request: web.Request) -> web.StreamResponse:
        async with request.app[SESSION].request(
            request.method,
            upstream + request.path_qs,
            headers=_end_to_end(request.headers),
            data=await request.read(),
            allow_redirects=False,
        ) as reply:
            response = web.StreamResponse(status=reply.status, headers=_end_to_end(reply.headers))
            await response.prepare(request)
            async for chunk in reply.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    async def session(app: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(
            connector=connector, cookie_jar=jar, auto_decompress=False
        ) as opened:
            app[SESSION] = opened
            yield

    app = web.Application(client_max_size=20 * 2**20)
    app.router.add_route("*", "/{path:.*}", forward)
    app.cleanup_ctx.append(session)
    return app


if __name__ == "__main__":
    port, target = sys.argv[1:]
    web.run_app(
        application(target),
        host="127.0.0.1",
        port=int(port),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )
