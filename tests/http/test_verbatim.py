"""Where everything is allowed, the client's bytes are the provider's bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from proxy.scripted import ScriptedProvider
from tests.http.conftest import Before, Serve
from tests.http.harness import GET, RawProvider, ask, post, scripted

EMOJI = 'Grüße, 世界 👩‍👩‍👧 \\u2028 "quoted" \\n'
TURNS: dict[str, dict[str, Any]] = {
    "text": {"text": EMOJI},
    "call": {"text": EMOJI, "calls": [GET | {"arguments": '{"id" : 7 , "note":"é😀"}'}]},
    "two calls": {"calls": [GET, GET | {"id": "call_2"}]},
    "unknown fields": {"text": "a", "calls": [GET | {"extra": {"extra_content": {"sig": "x=="}}}]},
    "reasoning": {"reasoning": "Hm. ", "text": "So."},
    "several choices": {"choices": [{"text": "a"}, {"calls": [GET]}]},
    "no usage": {"text": "a", "usage": None},
    "bytes one by one": {"text": EMOJI, "calls": [GET], "write_bytes": 1},
    "one write": {"text": EMOJI, "calls": [GET], "burst": True},
    "comments": {"text": "a", "calls": [GET], "deviations": ["comments"]},
    "crlf": {"text": "a", "calls": [GET], "deviations": ["crlf"]},
    "cr": {"text": "a", "calls": [GET], "deviations": ["cr"]},
    "no space": {"text": "a", "calls": [GET], "deviations": ["no_space_after_data"]},
    "no end mark": {"text": "a", "calls": [GET], "deviations": ["no_done"]},
    "azure": {"text": "a", "deviations": ["azure_prompt_filter_first"]},
    "halved emoji": {"text": "😀😀", "chunk_chars": 1, "deviations": ["utf16_cuts"]},
}


async def fetch(session: aiohttp.ClientSession, url: str, **members: Any) -> tuple[int, Any, bytes]:
    async with session.post(url + "/chat/completions", json=ask(**members)) as answer:
        return answer.status, answer.headers, await answer.read()


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
async def test_the_bytes_are_the_providers(
    serve: Serve, session: aiohttp.ClientSession, stream: bool, encoding: str | None
) -> None:
    scripts = [scripted(turn | {"encoding": encoding}, model=name) for name, turn in TURNS.items()]
    plain = ScriptedProvider([scripted(turn, model=name) for name, turn in TURNS.items()])
    callgate = await serve(*scripts)
    async with plain:
        for name in TURNS:
            direct = await fetch(session, plain.url, model=name, stream=stream)
            through = await fetch(session, callgate.url, model=name, stream=stream)
            assert (through[0], through[2]) == (200, direct[2]), name
            assert "content-encoding" not in through[1]
            assert through[1]["x-request-id"] == direct[1]["x-request-id"]
            assert through[1]["content-type"] == direct[1]["content-type"]


async def test_what_the_provider_is_sent_is_what_the_client_sent(serve: Serve) -> None:
    callgate = await serve({"text": "Hello."})
    odd = b'{ "model" : "m",\r\n\t"messages":[{"role":"user","content":"\\u00e9\xc3\xa9"}]'
    odd += b',"x":[1.0e2, -0.0] }\n'
    answer = await post(callgate.port, odd)
    assert answer.status == 200
    assert callgate.provider.requests[0].raw == odd


ODD_BODY = b'\n\n{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"a","zz":[1.50]},\n'
ODD_BODY += b'"finish_reason":"stop","logprobs" : null}],"vendor":{"a":1E5,"b":12345678901234567890123}}  \n'
ODD_STREAM = (
    b"\xef\xbb\xbf: hello\n\nretry: 5\nid: 9\ndata: "
    b'{"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":"a"},"zz":1.50}],"v" : 1E5}\n\n'
    b": between\r\n\r\nevent: message\ndata:"
    b'{"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


@pytest.mark.parametrize(
    ("kind", "body"), [("application/json", ODD_BODY), ("text/event-stream; charset=utf-8", ODD_STREAM)]
)
async def test_white_space_comments_and_odd_headers_are_kept(before: Before, kind: str, body: bytes) -> None:
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nX-Ratelimit-Remaining-Tokens: 149984\r\n"
        'x-ratelimit-reset-requests: 6m0s\r\nOpenAI-Processing-Ms: 17\r\nX-Odd: a;b="c, d"\r\n'
        f"X-Unicode: caf\u00e9\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with RawProvider([head.encode() + body]) as provider:
        callgate = await before(provider)
        answer = await post(callgate.port, ask())
    assert answer.body == body
    raw_head = answer.raw.partition(b"\r\n\r\n")[0]
    for line in head.encode().split(b"\r\n")[1:-3]:
        assert line in raw_head
    assert "content-length" in answer.headers or "transfer-encoding" in answer.headers


@pytest.mark.parametrize("text", [None, "Wait. "])
async def test_text_is_never_held_back(
    serve: Serve, session: aiohttp.ClientSession, text: str | None
) -> None:
    turn = {"calls": [GET], "fault": {"kind": "stall", "after_frames": 4}}
    callgate = await serve(turn | ({"text": text} if text else {}), limits={"keepalive_s": 60})
    async with session.post(callgate.url + "/chat/completions", json=ask(stream=True)) as answer:
        first = await answer.content.readany()
        while text and text.encode() not in first:
            first += await answer.content.readany()
        assert b"tool_calls" not in first
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await answer.content.readany()
