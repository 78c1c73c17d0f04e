"""What was refused or broke off is gone at once too: the collector counts objects, and a body is one."""

from __future__ import annotations

import asyncio
from types import FrameType
from typing import Any

import orjson
import pytest

from tests.garbage import garbage
from tests.http.conftest import Before
from tests.http.harness import RawProvider, ask, http, talk
from tests.http.providing import Provider, Reader, Writer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_user", "arguments": '{"id":7}'}}
ANSWER = orjson.dumps(
    {
        "id": "c",
        "model": "m",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "tool_calls": [CALL]},
                "finish_reason": "tool_calls",
            }
        ],
    }
)
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
LIMITED = {"guards": {"limits": {"tokens_per_minute": 10}}}


def chat(**members: Any) -> bytes:
    raw = orjson.dumps(ask(**members))
    return http("POST", "/v1/chat/completions", raw, ("Content-Type: application/json",))


REQUESTS: dict[str, tuple[bytes, bytes, dict[str, Any]]] = {
    "answered": (chat(), WHOLE, {}),
    "not JSON": (http("POST", "/v1/chat/completions", b"{"), WHOLE, {}),
    "of a wrong type": (chat(messages=7), WHOLE, {}),
    "too large": (chat(user="x" * 1024), WHOLE, {"limits": {"max_request_bytes": 1024}}),
    "an encoding that is none": (
        http("POST", "/v1/chat/completions", b"{}", ("Content-Encoding: gzip",)),
        WHOLE,
        {},
    ),
    "an unknown route": (http("POST", "/v1/nothing", b"{}"), WHOLE, {}),
    "a method that is not served": (http("PUT", "/v1/chat/completions", b"{}"), WHOLE, {}),
    "no provider for the model": (chat(model="x"), WHOLE, {"upstream": {"models": ["m"]}}),
    "a provider that refuses": (chat(), b"HTTP/1.1 429 No\r\nContent-Length: 2\r\n\r\nno", {}),
    "a provider that is not HTTP": (chat(), b"nonsense\r\n\r\n", {}),
    "a provider that closes": (chat(), b"", {}),
    "a redirect": (chat(), b"HTTP/1.1 302 No\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", {}),
    "a body that is cut": (chat(), WHOLE[:-20], {}),
    "a body that is not JSON": (chat(), HEAD + b"Content-Length: 1\r\n\r\n{", {}),
    "a stream that is cut": (
        chat(stream=True),
        STREAM + b'Content-Length: 900\r\n\r\ndata: {"choices":[]}\n\n',
        {},
    ),
    "a stream that is malformed": (chat(stream=True), STREAM + b"Content-Length: 9\r\n\r\ndata: {\n\n", {}),
    "a passed answer that is cut": (http("GET", "/v1/models"), WHOLE[:-20], {}),
    "a limit": (chat(), WHOLE, LIMITED),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_that_fails_leaves_no_garbage(name: str, before: Before) -> None:
    request, answer, sections = REQUESTS[name]
    async with RawProvider([answer]) as provider:
        callgate = await before(provider, **sections)
        for _ in range(2):  # what is kept of the first request serves the others
            await talk(callgate.port, request)
        with garbage(ours) as found:
            await talk(callgate.port, request)
    assert found == {}


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_leaves_no_garbage(streamed: bool, before: Before) -> None:
    arrived = asyncio.Semaphore(0)

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.read(reader)
        if streamed:
            writer.write(STREAM + b'Content-Length: 900\r\n\r\ndata: {"choices":[]}\n\n')
        arrived.release()
        await provider.gone(reader)

    async with Provider(serve) as provider:
        callgate = await before(provider)

        async def leave() -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", callgate.port)
            writer.write(chat(stream=streamed))
            await arrived.acquire()
            writer.close()
            await provider.left.acquire()

        await leave()
        with garbage(ours) as found:
            await leave()
    assert found == {}


def ours(each: object) -> str:
    if isinstance(each, FrameType):
        place, name = each.f_code.co_filename, each.f_code.co_qualname
        return name if "/proxy/" in place and "/scripted/" not in place else ""
    kind = type(each)
    return kind.__qualname__ if kind.__module__.startswith("proxy.") else ""
