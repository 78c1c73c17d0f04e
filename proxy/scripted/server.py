"""The HTTP server that plays scripts."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from proxy.model import Fault, dumps, loads
from proxy.scripted import chat, messages, responses
from proxy.scripted.dialect import BadRequest, Dialect, Shape
from proxy.scripted.received import ReceivedRequest, Tally
from proxy.scripted.reply import Reply, compose, plain_reply
from proxy.scripted.script import Played, Script, ScriptError
from proxy.scripted.stored import StoredObjects

DIALECTS: dict[str, Dialect] = {chat.PATH: chat, messages.PATH: messages, responses.PATH: responses}
"""The APIs that are played, by how the paths of their requests end."""
MAX_REQUEST_BYTES = 64 * 1024 * 1024
_CACHED_REPLIES = 512
_SHUTDOWN_TIMEOUT_S = 0.5


class ScriptedProvider:
    """An OpenAI-compatible server whose model says what scripts say.

    ``keep_requests`` bounds how many of the latest requests ``requests`` shows; with ``stores`` answers are
    kept as their requests ask for, and can be read back.
    """

    def __init__(self, scripts: Sequence[Script], keep_requests: int = 1000, *, stores: bool = False) -> None:
        self.stored = StoredObjects() if stores else None
        self._scripts = {script.model: script for script in scripts}
        if len(self._scripts) < len(scripts):
            raise ScriptError("two scripts have the same model name")
        self._requests: deque[ReceivedRequest] = deque(maxlen=keep_requests)
        self._compose = lru_cache(maxsize=_CACHED_REPLIES)(self._composed)
        self._runner: web.ServerRunner | None = None
        self._stopping = asyncio.Event()
        self._url = ""
        self.reset()

    def reset(self) -> None:
        """Forget every request: counts and ``order: arrival`` begin anew."""
        self._requests.clear()
        self._arrivals: Counter[str] = Counter()
        self._received, self._disconnected = Tally(), Tally()

    @property
    def url(self) -> str:
        """The base URL for clients, ``http://HOST:PORT/v1``; empty before the start."""
        return self._url

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The latest requests, oldest first."""
        return list(self._requests)

    async def received(self, count: int) -> None:
        """Wait until ``count`` requests have arrived since the start or the last reset."""
        await self._received.reach(count)

    async def disconnected(self, count: int) -> None:
        """Wait until ``count`` clients have gone away before their answer was complete."""
        await self._disconnected.reach(count)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one. Raises OSError where the address is taken."""
        self._stopping.clear()
        server = web.Server(
            self._handle, request_factory=_large_request, handler_cancellation=True, access_log=None
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound: int = self._runner.addresses[0][1]
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{bound}/v1"

    async def stop(self) -> None:
        """Stop listening and close every connection, also those that stall."""
        self._stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    async def __aenter__(self) -> ScriptedProvider:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- which reply

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        received = ReceivedRequest(request.method, request.path_qs, request.headers, await request.read())
        self._requests.append(received)
        self._received.add()
        response = web.StreamResponse()
        try:
            return await self._send(request, response, self._reply(request, received))
        except (asyncio.CancelledError, ConnectionError) as exc:
            if not self._stopping.is_set():
                self._disconnected.add()
            if isinstance(exc, asyncio.CancelledError):
                raise
            if request.transport is not None:
                request.transport.close()
            return response

    def _reply(self, request: web.BaseRequest, received: ReceivedRequest) -> Reply:
        path = request.path.rstrip("/")
        if request.method == "GET" and path.endswith("/models"):
            return plain_reply(200, self._models())
        if self.stored is not None:
            found = self.stored.reply(request.method, path, request.query_string, received.raw)
            if found is not None:
                return found
        ending = next((ending for ending in DIALECTS if path.endswith(ending)), None)
        if ending is None:
            return plain_reply(404, chat.error(404, f"the scripted provider has no {path}", "unknown_url"))
        if request.method != "POST":
            message = f"{ending} takes POST"
            return plain_reply(405, DIALECTS[ending].error(405, message, "method_not_allowed"))
        return self._play(DIALECTS[ending], received.raw)

    def _play(self, dialect: Dialect, raw: bytes) -> Reply:
        try:
            body = loads(raw)
            if not isinstance(body, dict):
                raise BadRequest("the request must be a JSON object")
            shape = dialect.shape(body)
            script = self._scripts.get(shape.model) or self._scripts.get("*")
            if script is None:
                names = ", ".join(self._scripts)
                message = f"no script is named {shape.model!r}; there are: {names}"
                return plain_reply(404, dialect.error(404, message, "model_not_found"))
            number = self._number(script, dialect.answered(body))
            self._check(dialect, Played(script, number), body)
            if self.stored is not None:
                kept = self.stored.keep(dialect, body, Played(script, number), shape)
                if kept is not None:
                    return kept
            return self._compose(dialect.PATH, script.model, number, shape)
        except Fault as exc:
            return plain_reply(400, dialect.error(400, f"the request's body cannot be read: {exc}"))
        except (BadRequest, ScriptError) as exc:
            return plain_reply(400, dialect.error(400, str(exc)))

    def _number(self, script: Script, answered: int) -> int:
        if script.order == "history":
            return answered
        self._arrivals[script.model] += 1
        return self._arrivals[script.model] - 1

    def _check(self, dialect: Dialect, played: Played, body: Mapping[str, Any]) -> None:
        expect = played.turn.expect
        if expect is not None and (faults := list(expect.mismatches(dialect.seen(body)))):
            where = f"turn {played.number + 1} of script {played.script.model!r}"
            raise BadRequest(f"{where} {'; and '.join(faults)}")

    def _composed(self, path: str, model: str, number: int, shape: Shape) -> Reply:
        return compose(DIALECTS[path], Played(self._scripts[model], number), shape)

    def _models(self) -> bytes:
        model = {"object": "model", "created": chat.CREATED, "owned_by": "scripted"}
        return dumps({"object": "list", "data": [{"id": name} | model for name in self._scripts]})

    # -- sending it

    async def _send(
        self, request: web.BaseRequest, response: web.StreamResponse, reply: Reply
    ) -> web.StreamResponse:
        if reply.delay_s:
            await self._pause(reply.delay_s)
        response.set_status(reply.status)
        response.headers.update(reply.headers)
        response.content_length = reply.length
        await response.prepare(request)
        for at, piece in enumerate(reply.pieces):
            if at and reply.gap_s:
                await self._pause(reply.gap_s)
            await response.write(piece)
        if reply.ending == "stall":
            await self._stopping.wait()
        if reply.ending != "clean" and request.transport is not None:
            request.transport.close()
        return response

    async def _pause(self, seconds: float) -> None:
        """Wait; a server that stops does not keep its clients waiting."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise ConnectionResetError("the server stops")


def _large_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    # aiohttp's own bound is 1 MiB, less than a long conversation.
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_REQUEST_BYTES)
