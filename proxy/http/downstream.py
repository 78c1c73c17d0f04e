"""The server that clients see: aiohttp around the exchange, with nothing of its own to decide."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from proxy.core import Core, Incoming
from proxy.exchange import Exchange
from proxy.http import azure
from proxy.http.answering import Client, answer_head
from proxy.http.bodies import Unreadable, continue_if_expected, decoded, few_enough, read_body
from proxy.http.doors import Disposition, Door, DoorTable
from proxy.http.headers import for_upstream
from proxy.http.identity import Identity, Recognised, Undecided, Unidentified
from proxy.http.stored import Asked, StoredObjects
from proxy.http.upstream import HttpUpstream
from proxy.model import Fault, loads
from proxy.ports import Headers, UpstreamFailed, asking
from proxy.wire.codec import Codec

log = logging.getLogger("callgate.http")

_CURE = "An operator who knows that no call goes this way can name it in doors.passed."


class Proxy:
    """Answers every request that a client sends: through its door, for its principal."""

    def __init__(
        self,
        core: Core,
        upstream: HttpUpstream,
        identity: Identity,
        codecs: Mapping[str, Codec],
        *,
        max_request_bytes: int,
        max_request_values: int,
        keepalive_s: float,
        body_timeout_s: float = 60.0,
        stalled_client_s: float = 300.0,
        idle_connection_s: float = 75.0,
        doors: DoorTable | None = None,
    ) -> None:
        """``body_timeout_s`` is for the whole of a judged request's body to arrive; ``stalled_client_s``
        for a client that reads nothing of what was sent; ``idle_connection_s`` for the head of a request.
        """
        self._core, self._upstream, self._identity = core, upstream, identity
        self._codecs = codecs
        self._max_request_bytes, self._max_request_values = max_request_bytes, max_request_values
        self._keepalive_s, self._body_timeout_s = keepalive_s, body_timeout_s
        self._stalled_client_s, self._idle_connection_s = stalled_client_s, idle_connection_s
        self._doors = doors or DoorTable()

    def server(self) -> web.Server:
        """The aiohttp server; a client that goes away cancels what is done for it."""
        return _Server(
            self.handle,
            request_factory=self._request,
            stalled_client_s=self._stalled_client_s,
            handler_cancellation=True,
            access_log=None,
            # Judged bodies are decoded within bounds of our own; others go on as they are.
            auto_decompress=False,
            keepalive_timeout=self._idle_connection_s,
            lingering_time=1.0,
        )

    def _request(
        self,
        message: RawRequestMessage,
        payload: Any,
        protocol: RequestHandler,
        writer: Any,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        size = self._max_request_bytes
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=size)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request, to the end of its answer."""
        trace_id = _trace_id()
        asking.set(trace_id)
        door, path = self._doors.find(request.path)
        codec = self._codecs.get(door.protocol) or self._codecs["chat"]
        try:
            recognised = await self._who(request)
            if refusal := _refused(door, request, codec, trace_id):
                return refusal
            # As it was sent: decoded, it could say something else to the provider.
            if query := request.rel_url.raw_query_string:
                path = f"{path}?{query}"
            judged = door.disposition is Disposition.JUDGED
            headers = for_upstream(request.headers, recognised.consumed, judged)
            if not judged:
                return await self._pass(request, path, headers, trace_id)
            if door.stored or request.method != "POST":
                return await self._read_back(request, codec, path, headers, recognised, trace_id)
            return await self._judge(request, codec, path, headers, recognised, trace_id)
        except Unidentified as exc:
            response = _error(codec, exc.status, "unidentified", str(exc), trace_id)
            response.headers.update(exc.headers)
            return response
        except (Unreadable, UpstreamFailed) as exc:
            return _error(codec, exc.status, exc.code, exc.message, trace_id)

    async def _who(self, request: web.BaseRequest) -> Recognised:
        try:
            return self._identity.identify(request.headers, _peer(request))
        except Undecided as undecided:
            await undecided.settled()
            return self._identity.identify(request.headers, _peer(request))

    async def _whole(self, request: web.BaseRequest) -> bytes:
        """The body, decoded and within its bounds; raises ``Unreadable``."""
        size = self._max_request_bytes
        raw = await read_body(request, size, self._body_timeout_s)
        raw = decoded(raw, request.headers.getall("content-encoding", ()), size)
        return few_enough(raw, self._max_request_values)

    async def _judge(
        self,
        request: web.BaseRequest,
        codec: Codec,
        path: str,
        headers: Headers,
        recognised: Recognised,
        trace_id: str,
    ) -> web.StreamResponse:
        raw = await self._whole(request)
        if (deployment := azure.deployment(path)) is not None:
            raw = azure.with_model(raw, deployment)
        client = Client(request, trace_id, self._keepalive_s)
        incoming = Incoming(raw, path, headers, recognised.principal, trace_id)
        try:
            await Exchange(self._core, codec, incoming, client).run()
        finally:
            client.close()
        if client.response is None:
            raise ConnectionResetError("the client went away before an answer began")
        return client.response

    async def _read_back(
        self,
        request: web.BaseRequest,
        codec: Codec,
        path: str,
        headers: Headers,
        recognised: Recognised,
        trace_id: str,
    ) -> web.StreamResponse:
        """What the provider stores, without what the client was not given."""
        raw = await self._whole(request)
        whole, _, query = path.partition("?")
        base, route = azure.split(whole)
        client = Client(request, trace_id, self._keepalive_s)
        asked = Asked(
            request.method, base, route, query, raw, headers, recognised.principal, trace_id, client
        )
        try:
            answer = await StoredObjects(self._core, codec, self._upstream).answer(asked)
        finally:
            client.close()
        if answer is None and client.response is not None:
            return client.response
        if answer is None:
            raise ConnectionResetError("the client went away before an answer began")
        return web.Response(
            status=answer.status, body=answer.body, headers=answer_head(answer.headers, trace_id)
        )

    async def _pass(
        self, request: web.BaseRequest, path: str, headers: Headers, trace_id: str
    ) -> web.StreamResponse:
        """Carry a request that holds no calls, and its answer, as they are."""
        body, model = await self._passed_body(request)
        model = azure.deployment(path) or model
        if body is request.content and request.content_length is not None:
            headers = [*headers, ("content-length", str(request.content_length))]
        async with self._upstream.send(request.method, path, headers, body, model) as reply:
            response = web.StreamResponse(status=reply.status, headers=answer_head(reply.headers, trace_id))
            response.content_length = reply.length
            await response.prepare(request)
            try:
                async for chunk in reply.chunks():
                    await response.write(chunk)
            except UpstreamFailed as exc:
                # The answer has begun: the only honest end is none.
                log.warning("a passed answer was cut off: %s", exc.message)
                _cut_off(request)
            return response

    async def _passed_body(self, request: web.BaseRequest) -> tuple[Any, str | None]:
        """The body, and the model that it names where it is JSON; anything else is carried as it comes."""
        if not request.can_read_body:
            return None, None
        if request.content_type != "application/json":
            await continue_if_expected(request)
            return request.content, None
        size = self._max_request_bytes
        raw = await read_body(request, size, self._body_timeout_s)
        try:
            plain = decoded(raw, request.headers.getall("content-encoding", ()), size)
        except Unreadable:
            return raw, None
        try:
            body = loads(few_enough(plain, self._max_request_values))
        except Fault:
            return raw, None
        model = body.get("model") if isinstance(body, dict) else None
        return raw, model if isinstance(model, str) else None


def _cut_off(request: web.BaseRequest) -> None:
    """End the client's connection in the midst of an answer."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if request.version < HttpVersion11 and connection is not None and connection.family != socket.AF_UNIX:
        # To a client of HTTP/1.0 the end of the connection is that of an answer, but for a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _trace_id() -> str:
    """A name for one request that nobody can guess."""
    return os.urandom(16).hex()


def _refused(door: Door, request: web.BaseRequest, codec: Codec, trace_id: str) -> web.Response | None:
    if door.disposition is Disposition.REFUSED:
        message = f"{request.method} {request.path[:200]} is refused: {door.why}. {_CURE}"
        return _error(codec, 404, "route_refused", message, trace_id)
    if request.method not in door.methods:
        allowed = ", ".join(sorted(door.methods))
        message = f"{request.method} is not allowed on {request.path[:200]}; use {allowed}."
        response = _error(codec, 405, "method_not_allowed", message, trace_id)
        response.headers["Allow"] = allowed
        return response
    return None


def _error(codec: Codec, status: int, code: str, message: str, trace_id: str) -> web.Response:
    headers = answer_head((("content-type", "application/json"),), trace_id)
    return web.Response(status=status, body=codec.error(status, code, message), headers=headers)


def _peer(request: web.BaseRequest) -> str | None:
    transport = request.transport
    peer = transport.get_extra_info("peername") if transport is not None else None
    return str(peer[0]) if isinstance(peer, tuple) else None


class _Handler(RequestHandler):
    """One client's connection."""

    __slots__ = ("_stalled_client_s",)

    def __init__(self, manager: web.Server, *, stalled_client_s: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._stalled_client_s = stalled_client_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have the system end the connection of a client that reads nothing any more (RFC 5482)."""
        super().connection_made(transport)
        option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
        connection = transport.get_extra_info("socket")
        if option is not None and connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, option, int(self._stalled_client_s * 1000))

    def resume_reading(self, *given: Any, **named: Any) -> None:
        """Go on reading what the client sends, where it was paused; aiohttp asks at each read of a body."""
        if self._reading_paused:
            super().resume_reading(*given, **named)

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or what failed here, in the shape that clients of the API read."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client is gone
        if status >= 500:
            log.error("a request could not be handled", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun, and another cannot follow it")
        word = "The request is not valid HTTP." if status < 500 else "Callgate could not handle this request."
        kind = "invalid_request_error" if status < 500 else "server_error"
        error = {
            "message": word,
            "type": kind,
            "param": None,
            "code": "bad_http" if status < 500 else "internal_error",
        }
        response = web.json_response({"error": error}, status=status, headers=answer_head((), _trace_id()))
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)
