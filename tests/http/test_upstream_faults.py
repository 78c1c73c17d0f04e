"""Providers that break, stall, lie or cannot be reached: nothing is released, nothing is asked twice."""

from __future__ import annotations

import asyncio
import socket
import time
import zlib
from collections.abc import Callable
from typing import Any

import openai
import orjson
import pytest
from openai import AsyncOpenAI

from tests.http.conftest import Before, Serve
from tests.http.harness import DROP, GET, Callgate, RawAnswer, RawProvider, ask, post, scripted

ClientOf = Callable[..., AsyncOpenAI]

BROKEN: dict[str, Any] = {
    "cut": {"kind": "cut", "after_frames": 4},
    "cut at once": {"kind": "cut", "after_frames": 0},
    "cut in a frame": {"kind": "cut", "after_bytes": 300},
    "ended early": {"kind": "eof", "after_frames": 4},
    "malformed": {"kind": "malformed", "after_frames": 3},
    "stalled": {"kind": "stall", "after_frames": 4},
    "empty": {"raw": ""},
    "not JSON": {"raw": "data: nonsense\n\ndata: [DONE]\n\n"},
    "a web page": {"raw": "<html></html>", "content_type": "text/html"},
}
# A whole body that is an error with a 200 goes on as it is: no client finds a call in it.
BROKEN_STREAM: dict[str, Any] = {
    "error frame": {"kind": "error_frame", "after_frames": 4},
    "named error frame": {"kind": "error_frame", "after_frames": 4, "event": True},
}
CASES = [(BROKEN[name], stream, name) for name in BROKEN for stream in (True, False)]
CASES += [(BROKEN_STREAM[name], True, name) for name in BROKEN_STREAM]
ENVELOPES = {"a call": {"text": "Hm. ", "calls": [GET]}, "text": {"text": "Hello there, how are you?"}}


async def _read(client: AsyncOpenAI, request: Any, deltas: list[Any]) -> None:
    """Take what the client gets of an answer, until it raises."""
    answer = await client.chat.completions.create(**request)
    async for chunk in answer:
        deltas += [choice.delta for choice in chunk.choices]


@pytest.mark.parametrize("says", ENVELOPES)
@pytest.mark.parametrize(
    ("fault", "stream"),
    [pytest.param(*case[:2], id=f"{case[2]}-{'stream' if case[1] else 'body'}") for case in CASES],
)
async def test_a_broken_answer_raises_and_releases_nothing(
    serve: Serve, client_of: ClientOf, fault: Any, says: str, stream: bool
) -> None:
    turn = ENVELOPES[says] | {"fault": fault}
    callgate = await serve(turn, upstream={"idle_timeout_s": 0.2})
    request: Any = ask(stream=stream)
    deltas: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        await _read(client_of(callgate), request, deltas)
    assert caught.value.message
    assert not any(delta.tool_calls for delta in deltas)
    assert len(callgate.provider.requests) == 1, "a request is never sent twice"
    record = await callgate.exchange()
    assert (record["outcome"], record["calls"]) == ("upstream_error", 0)
    assert record["error"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("fault", ["cut", "stalled", "ended early", "malformed"])
async def test_the_next_request_is_served(
    serve: Serve, client_of: ClientOf, fault: str, stream: bool
) -> None:
    broken = scripted({"text": "a", "calls": [GET], "fault": BROKEN[fault]}, model="broken")
    callgate = await serve(broken, scripted({"text": "Fine."}), upstream={"idle_timeout_s": 0.2})
    client = client_of(callgate)
    request: Any = ask(stream=stream)
    for _ in range(3):
        with pytest.raises(openai.APIError):
            await _read(client, request | {"model": "broken"}, [])
        good = await client.chat.completions.create(**(request | {"stream": False}))
        assert good.choices[0].message.content == "Fine."


async def test_a_fault_in_a_later_round_releases_nothing(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve(
        {"text": "One. ", "calls": [DROP]}, {"calls": [GET], "fault": {"kind": "cut", "after_frames": 3}}
    )
    deltas: list[Any] = []
    with pytest.raises(openai.APIError):
        await _read(client_of(callgate), ask(stream=True), deltas)
    assert "".join(delta.content or "" for delta in deltas) == "One. "
    assert not any(delta.tool_calls for delta in deltas)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 422, 429, 500, 503, 529])
async def test_an_error_status_goes_on_untouched(serve: Serve, status: int, stream: bool) -> None:
    callgate = await serve({"fault": {"status": status, "message": "Because.", "retry_after_s": 3}})
    direct = await post(int(callgate.provider.url.rsplit(":", 1)[1].removesuffix("/v1")), ask(stream=stream))
    through = await post(callgate.port, ask(stream=stream))
    assert (through.status, through.body) == (direct.status, direct.body) == (status, direct.body)
    assert through.headers["retry-after"] == "3"
    assert through.headers["x-request-id"] == direct.headers["x-request-id"]


async def test_a_provider_that_cannot_be_reached(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    callgate = await serve({"text": "a"}, upstream={"base_url": f"http://127.0.0.1:{port}/v1"})
    answer = await post(callgate.port, ask(stream=True))
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        502,
        "upstream_unreachable",
        "server_error",
    )
    assert str(port) not in answer.error["message"]


async def test_a_provider_that_does_not_accept(serve: Serve) -> None:
    # A listener whose backlog is full answers no SYN.
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(address)
        callgate = await serve(
            {"text": "a"},
            upstream={"base_url": f"http://127.0.0.1:{address[1]}/v1", "connect_timeout_s": 0.1},
        )
        answer = await post(callgate.port, ask())
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert "No connection" in answer.error["message"]


async def test_a_provider_that_does_not_begin_to_answer(serve: Serve) -> None:
    callgate = await serve({"text": "a", "delay_ms": 5000}, upstream={"first_byte_timeout_s": 0.1})
    answer = await post(callgate.port, ask())
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    await asyncio.wait_for(callgate.provider.disconnected(1), 5)
    assert len(callgate.provider.requests) == 1


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
async def test_a_provider_that_falls_silent(serve: Serve, stream: bool) -> None:
    turn = {"text": "Hello there.", "fault": {"kind": "stall", "after_frames": 2}}
    callgate = await serve(turn, upstream={"idle_timeout_s": 0.15})
    begun = time.monotonic()
    answer = await post(callgate.port, ask(stream=stream))
    assert 0.14 < time.monotonic() - begun < 4
    assert b"upstream_stalled" in answer.body
    assert answer.status == (200 if stream else 504)
    await asyncio.wait_for(callgate.provider.disconnected(1), 5)


# -- what a scripted provider would not say


async def _through(
    before: Before, *answers: bytes, keep: bool = False, requests: int = 1, **members: Any
) -> tuple[list[RawAnswer], RawProvider]:
    async with RawProvider(answers, keep) as provider:
        callgate: Callgate = await before(provider)
        got = [await post(callgate.port, ask(**members)) for _ in range(requests)]
    return got, provider


def answered(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


GOOD = orjson.dumps(
    {
        "id": "x",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
    }
)
JSON = "Content-Type: application/json"
REFUSED: dict[str, tuple[bytes, str]] = {
    "a redirect": (
        answered(b"", "Location: https://elsewhere.example/v1", status="307 Temporary Redirect"),
        "upstream_redirect",
    ),
    "another protocol": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "upstream_malformed",
    ),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "upstream_malformed"),
    "nothing": (b"", "upstream_broken"),
    "a head that is cut off": (b"HTTP/1.1 200 OK\r\nContent-Type: app", "upstream_broken"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "upstream_incomplete"),
    "an unknown encoding": (answered(GOOD, JSON, "Content-Encoding: aws-chunked"), "upstream_malformed"),
    "two encodings": (answered(GOOD, JSON, "Content-Encoding: gzip, gzip"), "upstream_malformed"),
    "an encoding of two headers": (
        answered(GOOD, JSON, "Content-Encoding: aws-chunked", "Content-Encoding: identity"),
        "upstream_malformed",
    ),
    "no gzip at all": (answered(GOOD, JSON, "Content-Encoding: gzip"), "upstream_"),
    "half a gzip": (
        answered(zlib.compress(GOOD * 50, wbits=31)[:60], JSON, "Content-Encoding: gzip"),
        "upstream_",
    ),
    "a flood of headers": (answered(GOOD, JSON, *(f"X-{n}: 1" for n in range(500))), "upstream_malformed"),
    "an endless header": (answered(GOOD, JSON, "X-Big: " + "a" * 100_000), "upstream_malformed"),
    "a line break in a header": (answered(GOOD, JSON, "X-A: a\rX-Injected: 1"), "upstream_malformed"),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 400\r\n\r\n" + GOOD,
        "upstream_malformed",
    ),
    "a broken chunk": (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "upstream_",
    ),
    "an error without end": (
        answered(b"x" * (5 * 2**20), "Content-Type: text/plain", status="500 Oh"),
        "upstream_malformed",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_no_answer_is_refused_in_openais_shape(before: Before, case: str) -> None:
    raw, code = REFUSED[case]
    (answer,), provider = await _through(before, raw)
    assert answer.status == 502
    assert answer.error["code"].startswith(code)
    assert answer.error["type"] == "server_error"
    assert "elsewhere.example" not in answer.raw.decode("latin-1")
    assert len(provider.requests) == 1


async def test_a_kept_connection_that_the_provider_closes_is_not_asked_twice(before: Before) -> None:
    """It closes as it reads the second request: whether it acted on it cannot be known."""
    async with RawProvider([answered(GOOD, JSON), b"", answered(GOOD, JSON)], True, 2) as provider:
        callgate = await before(provider)
        answers = [await post(callgate.port, ask()) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 502, 200]
    assert answers[1].error["code"] == "upstream_broken"
    assert "not sent again" in answers[1].error["message"]
    assert len(provider.requests) == 3


async def test_a_connection_that_was_closed_before_is_not_used(before: Before) -> None:
    answers, provider = await _through(before, answered(GOOD, JSON), requests=3)
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert provider.connections == 3


async def test_bytes_behind_an_answer_are_nobodys_answer(before: Before) -> None:
    smuggled = answered(GOOD.replace(b'"a"', b'"smuggled"'), JSON)
    (first, second), provider = await _through(
        before, answered(GOOD, JSON) + smuggled, answered(GOOD, JSON), keep=True, requests=2
    )
    assert first.body == second.body == GOOD
    assert provider.connections == 2, "the connection was not used again"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
async def test_a_bomb_is_refused_within_bounds(before: Before, stream: bool) -> None:
    kind = "text/event-stream" if stream else "application/json"
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(b'data: {"x":"') + b"".join(packer.compress(b" " * 2**20) for _ in range(64))
    raw = answered(bomb + packer.flush(), f"Content-Type: {kind}", "Content-Encoding: gzip")
    limits = {"max_response_bytes": 2**20, "max_event_bytes": 2**20}
    async with RawProvider([raw]) as provider:
        callgate = await before(provider, limits=limits)
        answer = await post(callgate.port, ask(stream=stream))
    assert b"larger than limits.max_" in answer.body
    assert len(answer.raw) < 4096
