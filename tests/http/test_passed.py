"""Routes that carry no calls: their bytes go both ways as they are."""

from __future__ import annotations

import asyncio
import gzip
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from proxy.http.upstream import HttpReply
from tests.http.conftest import Before, Serve
from tests.http.harness import RawAnswer, RawProvider, http, talk

MODELS = b'{"object": "list",  "data":[ {"id":"m"} ]}\n'


def _answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


ANSWERS: dict[str, tuple[bytes, bytes, int]] = {
    "plain": (_answer(MODELS, "Content-Type: application/json", "X-Request-Id: req_1"), MODELS, 200),
    "gzip": (
        _answer(gzip.compress(MODELS, mtime=0), "Content-Encoding: gzip", "X-Request-Id: req_1"),
        gzip.compress(MODELS, mtime=0),
        200,
    ),
    "an encoding that nobody here knows": (
        _answer(b"\x00\x01", "Content-Encoding: rot13", "X-Request-Id: req_1"),
        b"\x00\x01",
        200,
    ),
    "an error": (_answer(b"{}", "X-Request-Id: req_1", status="404 Not Found"), b"{}", 404),
    "nothing": (b"HTTP/1.1 204 No Content\r\nX-Request-Id: req_1\r\n\r\n", b"", 204),
    "unchanged": (b"HTTP/1.1 304 Not Modified\r\nX-Request-Id: req_1\r\nEtag: x\r\n\r\n", b"", 304),
    "until the end": (
        b"HTTP/1.1 200 OK\r\nX-Request-Id: req_1\r\nConnection: close\r\n\r\n" + MODELS,
        MODELS,
        200,
    ),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_an_answer_is_carried_as_it_is(before: Before, case: str) -> None:
    raw, body, status = ANSWERS[case]
    async with RawProvider([raw]) as provider:
        callgate = await before(provider)
        request = http("GET", "/v1/models?limit=5", b"", ("Accept-Encoding: gzip, rot13", "If-None-Match: x"))
        got = RawAnswer(await talk(callgate.port, request))
    assert (got.status, got.body) == (status, body)
    assert got.headers["x-request-id"] == "req_1"
    assert got.headers["x-callgate-trace-id"]
    sent = provider.requests[0]
    assert sent.startswith(b"GET /v1/models?limit=5 HTTP/1.1\r\n")
    assert b"accept-encoding: gzip, rot13\r\n" in sent.lower()
    assert b"if-none-match: x\r\n" in sent.lower()
    if b"Content-Encoding" in raw:
        assert got.headers["content-encoding"] in raw.decode("latin-1")
    if b"Content-Length" in raw:
        assert got.headers["content-length"] == str(len(body))


async def test_no_encoding_is_asked_for_that_the_client_did_not_ask_for(before: Before) -> None:
    async with RawProvider([ANSWERS["plain"][0]]) as provider:
        callgate = await before(provider)
        await talk(callgate.port, http("GET", "/v1/models"))
    assert b"accept-encoding" not in provider.requests[0].lower()


JSON = "Content-Type: application/json"
TEXT = b'{"model":"m", "input":"\xc3\xa9" }'


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/embeddings", TEXT, (JSON,)),
        ("/v1/embeddings", gzip.compress(TEXT, mtime=0), (JSON, "Content-Encoding: gzip")),
        ("/v1/embeddings", b"\x00\x01", (JSON, "Content-Encoding: rot13")),
        ("/v1/embeddings", b"not JSON at all", (JSON,)),
        ("/v1/moderations", TEXT, ("Content-Type: text/plain",)),
        ("/v1/completions", b"", ()),
        (
            "/v1/audio/transcriptions",
            b"--x\r\n\r\n\x00\xff\r\n--x--",
            ("Content-Type: multipart/form-data; boundary=x",),
        ),
    ],
)
async def test_a_request_is_carried_as_it_is(
    before: Before, path: str, body: bytes, headers: tuple[str, ...]
) -> None:
    async with RawProvider([_answer(b"ok")]) as provider:
        callgate = await before(provider)
        got = RawAnswer(await talk(callgate.port, http("POST", path, body, headers)))
    assert (got.status, got.body) == (200, b"ok")
    head, _, sent = provider.requests[0].partition(b"\r\n\r\n")
    assert sent == body
    assert head.startswith(f"POST {path} HTTP/1.1\r\n".encode())
    assert f"content-length: {len(body)}\r\n".encode() in head.lower() + b"\r\n"
    assert b"transfer-encoding" not in head.lower()
    for header in headers:
        assert header.lower().encode() in head.lower()


class Echo:
    """A provider that says each chunk of a body as soon as it has it."""

    async def __aenter__(self) -> Echo:
        app = aiohttp.web.Server(self._serve, request_factory=None)
        self._runner = aiohttp.web.ServerRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await aiohttp.web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        response = aiohttp.web.StreamResponse(headers={"content-type": "audio/mpeg"})
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk)
        return response


async def test_uploads_and_answers_stream_side_by_side(before: Before) -> None:
    """No part waits for the whole: the answer to a chunk is there before the next one is sent."""
    said: asyncio.Queue[bytes] = asyncio.Queue()

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"piece %d" % number
            assert await said.get() == b"piece %d" % number

    async with Echo() as provider, aiohttp.ClientSession() as session:
        callgate = await before(provider)
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        url = callgate.url + "/audio/transcriptions"
        async with asyncio.timeout(10), session.post(url, data=pieces(), headers=form) as answer:
            async for chunk in answer.content.iter_any():
                said.put_nowait(chunk)
        assert answer.headers["content-type"] == "audio/mpeg"


async def test_a_large_upload_is_not_bound_by_what_is_judged(before: Before) -> None:
    async with Echo() as provider, aiohttp.ClientSession() as session:
        callgate = await before(provider, limits={"max_request_bytes": 1024})
        sound = bytes(range(256)) * 8192
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        async with session.post(
            callgate.url + "/audio/translations", data=io.BytesIO(sound), headers=form
        ) as answer:
            echoed = await answer.read()
        assert (answer.status, len(echoed)) == (200, len(sound))
        assert hash(echoed) == hash(sound)  # a difference of megabytes is not for a report
        too_much = {"Content-Type": "application/json"}
        async with session.post(callgate.url + "/embeddings", data=b" " * 2048, headers=too_much) as answer:
            assert answer.status == 413


async def test_an_upload_that_asks_first_is_told_to_go_on(before: Before) -> None:
    async with Echo() as provider:
        callgate = await before(provider)
        headers = ("Expect: 100-continue", "Content-Type: multipart/form-data; boundary=x")
        raw = await talk(callgate.port, http("POST", "/v1/audio/translations", b"sound", headers))
    interim, _, final = raw.partition(b"\r\n\r\n")
    assert interim == b"HTTP/1.1 100 Continue"
    assert RawAnswer(final).body == b"sound"


CUT = {
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "a length": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello",
}


@pytest.mark.parametrize("case", CUT)
async def test_a_cut_answer_does_not_look_whole(before: Before, case: str) -> None:
    async with RawProvider([CUT[case]]) as provider, aiohttp.ClientSession() as session:
        callgate = await before(provider)
        async with session.get(callgate.url + "/models") as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()


@pytest.mark.parametrize("case", CUT)
async def test_a_client_that_reads_to_the_end_is_not_given_one(before: Before, case: str) -> None:
    async with RawProvider([CUT[case]]) as provider:
        callgate = await before(provider)
        reader, writer = await asyncio.open_connection("127.0.0.1", callgate.port)
        writer.write(b"GET /v1/models HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_nothing_follows_an_answer_that_failed_here(
    before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(self: HttpReply) -> AsyncIterator[bytes]:
        yield b"hello"
        raise RuntimeError("a defect of Callgate's own")

    monkeypatch.setattr(HttpReply, "chunks", failing)
    async with RawProvider([ANSWERS["plain"][0]]) as provider:
        callgate = await before(provider)
        raw = await talk(callgate.port, http("GET", "/v1/models"))
        assert raw.count(b"HTTP/1.1 ") == 1
        assert raw.endswith(b"hello")


async def test_a_client_that_goes_away_stops_the_provider(before: Before) -> None:
    left = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await reader.read()
        left.set()
        writer.close()

    async with await asyncio.start_server(endless, "127.0.0.1", 0) as server:
        provider: Any = RawProvider([])
        provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        callgate = await before(provider)
        reader, writer = await asyncio.open_connection("127.0.0.1", callgate.port)
        writer.write(http("GET", "/v1/models"))
        await reader.readuntil(b"hello")
        writer.close()
        assert await asyncio.wait_for(left.wait(), 10), "the provider sees its client leave"


@pytest.mark.parametrize(
    ("sections", "status", "code"),
    [
        ({"upstream": {"base_url": "http://127.0.0.1:1/v1"}}, 502, "upstream_unreachable"),
        ({"upstream": {"models": ["gpt-*"]}}, 404, "model_not_found"),
    ],
)
async def test_errors_are_in_openais_shape(serve: Serve, sections: Any, status: int, code: str) -> None:
    callgate = await serve({"text": "a"}, **sections)
    got = RawAnswer(await talk(callgate.port, http("POST", "/v1/embeddings", TEXT, (JSON,))))
    assert (got.status, got.error["code"]) == (status, code)


async def test_the_scripted_models_are_listed(serve: Serve) -> None:
    callgate = await serve({"text": "a"})
    got = RawAnswer(await talk(callgate.port, http("GET", "/v1/models")))
    assert [model["id"] for model in orjson.loads(got.body)["data"]] == ["m"]
