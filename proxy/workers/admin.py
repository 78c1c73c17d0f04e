"""The admin port of several workers: their readiness and metrics together, the rest from one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from proxy.http.headers import for_client, for_upstream
from proxy.model import loads
from proxy.sinks.summed import Summed

log = logging.getLogger("callgate.workers")

_ASK_TIMEOUT_S = 3.0
_MAX_BODY_BYTES = 1024 * 1024
_BASE = "http://worker"
# Ready or not; with any other status, what comes is neither its readiness nor its metrics.
_ANSWERS = (200, 503)

Live = Callable[[], Mapping[int, Path]]
"""The workers that serve, with where their own admin applications listen."""


class Gathered:
    """The admin application of ``count`` workers; ``extra`` are the supervisor's own metrics."""

    def __init__(self, count: int, live: Live, registry: CollectorRegistry) -> None:
        self._count, self._live, self._registry = count, live, registry
        self._sessions: dict[int, aiohttp.ClientSession] = {}
        self._summed = Summed()
        registry.register(self._summed)
        self.stopping = False

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_route("*", "/{path:.*}", self._forward)
        return app

    async def ended(self, number: int) -> None:
        """A worker's process ended."""
        self._summed.end(str(number))
        if (session := self._sessions.pop(number, None)) is not None:
            await session.close()

    async def close(self) -> None:
        """Close what is connected to the workers."""
        for number in list(self._sessions):
            await self.ended(number)

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        said = await asyncio.gather(*(self._readiness(number) for number in range(1, self._count + 1)))
        wrong, notes = (
            [f"worker {number}: {one}" for number, told in enumerate(said, 1) for one in told.get(kind, ())]
            for kind in ("faults", "notes")
        )
        wrong = [*(["stopping"] if self.stopping else []), *wrong]
        body: dict[str, object] = {"status": "unavailable" if wrong else "ready", "faults": wrong}
        if notes:
            body["notes"] = notes
        return web.json_response(body, status=503 if wrong else 200)

    async def _readiness(self, number: int) -> Mapping[str, list[str]]:
        """What a worker says of itself; of one that says nothing, why."""
        if number not in self._live():
            return {"faults": ["it does not run"]}
        answer = await self._ask(number, "/readyz")
        if answer is None:
            return {"faults": ["it does not answer"]}
        told: dict[str, list[str]] = loads(answer)
        return told

    async def _metrics(self, request: web.Request) -> web.Response:
        numbers = list(self._live())
        for number, text in zip(
            numbers, await asyncio.gather(*(self._ask(number, "/metrics") for number in numbers)), strict=True
        ):
            # Of one that does not answer now, what it said last stands.
            if text is not None and number in self._live():
                self._summed.take(str(number), text.decode())
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return web.Response(body=encode(self._registry), headers={"content-type": content_type})

    async def _ask(self, number: int, path: str) -> bytes | None:
        """What a worker answers to a path of every worker's; None where it says nothing of itself."""
        if number not in self._live():
            return None
        try:
            timeout = aiohttp.ClientTimeout(_ASK_TIMEOUT_S)
            async with self._session(number).get(_BASE + path, timeout=timeout) as answer:
                if answer.status in _ANSWERS:
                    return await answer.read()
                log.warning("worker %d answers %s with status %d", number, path, answer.status)
                return None
        except (aiohttp.ClientError, OSError) as exc:  # OSError: TimeoutError is one
            log.warning("worker %d does not answer %s: %s", number, path, str(exc) or "in time")
            return None

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        """Everything else is asked of one worker: what it needs is in the store that all of them share."""
        body = await request.read() or None
        # Only now: while a client sends what it sends, workers come and go.
        number = next(iter(sorted(self._live())), None)
        if number is None:
            return web.json_response(
                {"error": {"message": "No worker serves.", "code": "unready"}}, status=503
            )
        # The worker sees the Host that the client asked for, as if it had been asked itself.
        headers = [*for_upstream(request.headers, frozenset(), judged=False), ("Host", request.host)]
        try:
            async with self._session(number).request(
                request.method, _BASE + request.path_qs, headers=headers, data=body, allow_redirects=False
            ) as answer:
                return await _passed_on(request, answer)
        except (aiohttp.ClientError, OSError) as exc:
            log.warning("worker %d did not answer %s: %s", number, request.path, exc)
            return web.json_response(
                {"error": {"message": "The worker did not answer.", "code": "unready"}}, status=502
            )

    def _session(self, number: int) -> aiohttp.ClientSession:
        if number not in self._sessions:
            connector = aiohttp.UnixConnector(str(self._live()[number]))
            self._sessions[number] = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._sessions[number]


async def _passed_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = CIMultiDict(for_client([*answer.headers.items()], decoded=False))
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response
