"""What stands on the wire of an answer: framed as aiohttp frames it, in fewer writes and less time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import product
from typing import NamedTuple

import orjson
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.answering import Client, answer_head
from proxy.ports import Headers
from tests.http.conftest import Serve
from tests.http.harness import GET, RawAnswer, ask, dechunked, http, talk

TRACE = "0" * 32
JSON: Headers = (("content-type", "application/json"), ("X-Twice", "1"), ("X-Twice", "2"))
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def _serving(handler: Handler, cancels: bool = True) -> AsyncIterator[int]:
    """A server with this handler alone; its port."""
    runner = web.ServerRunner(
        web.Server(handler, handler_cancellation=cancels, access_log=None), shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _ours(status: int, headers: Headers, frames: Sequence[bytes], stream: bool) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        client = Client(request, TRACE, 60)
        await client.begin(status, headers, b": alive\n\n" if stream else None)
        for piece in frames if stream else (b"".join(frames),):
            await client.send(piece)
        client.close()
        assert client.response is not None
        return client.response

    return handle


def _aiohttps(status: int, headers: Headers, frames: Sequence[bytes], stream: bool) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        head = answer_head(headers, TRACE)
        if not stream:
            return web.Response(status=status, headers=head, body=b"".join(frames))
        response = web.StreamResponse(status=status, headers=head)
        await response.prepare(request)
        bodiless = request.method == "HEAD" or status in (204, 304)
        for frame in () if bodiless else frames:
            await response.write(frame)
        return response

    return handle


class Answered(NamedTuple):
    """What a client of one request could tell."""

    line: bytes
    headers: list[bytes]
    body: bytes
    closed: bool


async def _answered(handler: Handler, request: bytes) -> Answered:
    """The answer to a request, and whether one behind it was answered too, where the client would send it."""
    stays = b"keep-alive" in request or b"HTTP/1.1\r\nHost: x\r\n\r\n" in request

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=299) if request.path == "/after" else await handler(request)

    async with _serving(handle) as port:
        raw = await talk(port, request, http("GET", "/after") if stays else b"")
    whole, _, after = raw.partition(b"HTTP/1.1 299 ")
    head, _, body = whole.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    kept = sorted(one for one in lines if not one.lower().startswith(b"date: "))
    assert len(kept) == len(lines) - 1, "an answer says once when it was made"
    return Answered(line, kept, body, not after)


REQUESTS = {
    f"{method} {version} {connection}".strip(): (
        f"{method} / HTTP/{version}\r\nHost: x\r\n{connection}\r\n".encode()
    )
    for method, version, connection in product(
        ("POST", "HEAD"), ("1.1", "1.0"), ("", "Connection: close\r\n", "Connection: keep-alive\r\n")
    )
}


@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS.keys())
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("status", [200, 204, 205, 304, 404, 500])
async def test_an_answer_is_framed_as_aiohttp_frames_it(
    status: int, stream: bool, request_bytes: bytes
) -> None:
    frames = [b"data: a\n\n", b"data: b\n\n"]
    for headers, sent in product((JSON, ()), (frames, [])):
        ours = await _answered(_ours(status, headers, sent, stream), request_bytes)
        assert ours == await _answered(_aiohttps(status, headers, sent, stream), request_bytes)
        if b"HEAD" in request_bytes or status in (204, 304):
            assert ours.body == b""


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=300) | st.integers(0, 2**17).map(bytes), max_size=8))
def test_a_stream_is_its_frames(frames: list[bytes]) -> None:
    async def streamed() -> bytes:
        async with _serving(_ours(200, JSON, frames, stream=True)) as port:
            return await talk(port, http("GET", "/"))

    raw = asyncio.run(streamed())
    body = raw.partition(b"\r\n\r\n")[2]
    assert dechunked(body) == b"".join(frames)
    assert body.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b", "a\r\n\r\n<body>"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
async def test_a_header_that_holds_more_than_itself_is_not_sent(
    caplog: pytest.LogCaptureFixture, stream: bool, value: str
) -> None:
    caplog.set_level(logging.CRITICAL, "aiohttp.server")
    async with _serving(_ours(200, (("X-Said", value),), [b"a"], stream)) as port:
        raw = await talk(port, http("GET", "/"))
    assert b"X-Said" not in raw
    assert not raw.startswith(b"HTTP/1.1 200")


# -- clients that read slowly, or went away


class Hose:
    """Sends frames until the client is gone, and tells how far it came."""

    frame = b"x" * 2**16

    def __init__(self, frames: int) -> None:
        self.frames, self.sent = frames, 0
        self.waits, self.ended = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        client = Client(request, TRACE, 60)
        await client.begin(200, (), b"")
        try:
            while self.sent < self.frames:
                assert not request.protocol.writing_paused, "the next frame would be kept in memory"
                sending = asyncio.ensure_future(client.send(self.frame))
                done, _ = await asyncio.wait({sending}, timeout=0.05)
                if not done:
                    self.waits.set()
                await sending
                self.sent += 1
        except BaseException as exc:
            self.ended.set_result(type(exc))
            raise
        finally:
            client.close()
        self.ended.set_result(None)
        assert client.response is not None
        return client.response


async def test_frames_wait_for_a_client_that_does_not_read_and_all_of_them_come() -> None:
    hose = Hose(400)
    async with _serving(hose.handle) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
        writer.write(http("GET", "/"))
        await hose.waits.wait()
        assert hose.sent < 300
        raw = await reader.read()
        writer.close()
    assert dechunked(raw.partition(b"\r\n\r\n")[2]) == hose.frame * 400


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "close"])
@pytest.mark.parametrize("reads", [True, False], ids=["in the middle", "while it waits"])
async def test_a_client_that_is_gone_is_sent_nothing(reads: bool, reset: bool) -> None:
    hose = Hose(10**9)
    async with _serving(hose.handle, cancels=False) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
        writer.write(http("GET", "/"))
        await reader.readuntil(b"xxx")
        if not reads:
            await hose.waits.wait()
        writer.transport.abort() if reset else writer.close()
        assert issubclass(await hose.ended, ConnectionError)


# -- one answer behind the other

CHAT = "/v1/chat/completions"
KEPT: list[tuple[bytes, bytes]] = [
    (http("POST", CHAT, orjson.dumps(ask())), b"200"),
    (http("POST", CHAT, orjson.dumps(ask(stream=True))), b"200"),
    (http("POST", CHAT, b"{"), b"400"),
    (http("GET", "/v1/nothing"), b"404"),
    (http("PUT", CHAT, b"{}"), b"405"),
    (http("HEAD", CHAT), b"405"),
    (http("POST", CHAT, b"{}", ("Content-Encoding: br",)), b"415"),
    (http("GET", "/v1/models"), b"200"),
]


async def test_a_connection_is_kept_after_every_kind_of_answer(serve: Serve) -> None:
    callgate = await serve({"text": "Fine.", "calls": [GET]})
    requests = [request.replace(b"Connection: close\r\n", b"") for request, _ in KEPT]
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", callgate.port)
        for (_, status), request in zip(KEPT * 2, requests * 2, strict=True):
            writer.write(request)
            answer = await _read(reader, request.startswith(b"HEAD"))
            assert answer.raw.split(b" ", 2)[1] == status
            assert "connection" not in answer.headers
            assert len(answer.headers["x-callgate-trace-id"]) == 32
        writer.close()


async def _read(reader: asyncio.StreamReader, bodiless: bool) -> RawAnswer:
    """One answer, to the byte at which its framing says that it ends."""
    head = await reader.readuntil(b"\r\n\r\n")
    headers = RawAnswer(head).headers
    if bodiless:
        return RawAnswer(head)
    if headers.get("transfer-encoding") == "chunked":
        return RawAnswer(head + await reader.readuntil(b"0\r\n\r\n"))
    return RawAnswer(head + await reader.readexactly(int(headers["content-length"])))
