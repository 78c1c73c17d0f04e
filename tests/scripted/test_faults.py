"""What goes wrong, as it is seen on the connection."""

import asyncio
import gzip
import zlib

import aiohttp
import pytest
from openai import APIConnectionError, APIError, AuthenticationError, InternalServerError, RateLimitError

from proxy.model import dumps

TURN = {"text": "abcdefghijkl", "chunk_chars": 4}
EVENTS = 6  # a role, three pieces of text, a finish, [DONE]
END_OF_CHUNKS = b"0\r\n\r\n"


async def exchange(provider, request):
    """What the server sends over one connection until it closes it, head and body apart."""
    host, port = provider.url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = dumps(request)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    writer.write(head.encode() + b"connection: close\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.lower(), body


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_cut_stream_has_no_end(serve, http, ask, after):
    provider = await serve(TURN | {"fault": {"kind": "cut", "after_frames": after}})
    head, body = await exchange(provider, ask(stream=True))
    assert b"transfer-encoding: chunked" in head
    assert body.count(b"data: ") == after
    assert not body.endswith(END_OF_CHUNKS)
    with pytest.raises(aiohttp.ClientPayloadError):
        async with http.post(provider.url + "/chat/completions", json=ask(stream=True)) as response:
            await response.read()


async def test_a_cut_body_is_shorter_than_it_says(serve, ask):
    provider, twin = await serve(TURN | {"fault": "cut"}), await serve(TURN)
    head, body = await exchange(provider, ask())
    _, whole = await exchange(twin, ask())
    assert b"content-length: %d" % len(whole) in head
    assert body == whole[: len(whole) // 2]


async def test_a_client_sees_a_cut_as_a_failed_connection(serve, client_of):
    client = client_of(await serve(TURN | {"fault": "cut"}))
    with pytest.raises(APIConnectionError):
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "go"}])


@pytest.mark.parametrize("kind", ["cut", "eof"])
async def test_a_stop_after_so_many_bytes(serve, ask, kind):
    provider = await serve(TURN | {"fault": {"kind": kind, "after_bytes": 100}})
    for stream in (True, False):
        _, body = await exchange(provider, ask(stream=stream))
        chunked = b"64\r\n" if stream else b""
        tail = b"\r\n" + (END_OF_CHUNKS if kind == "eof" else b"") if stream else b""
        assert len(body) == len(chunked) + 100 + len(tail)
        assert body.startswith(chunked)
        assert body.endswith(tail)


async def test_eof_ends_the_body_but_not_the_answer(serve, http, ask):
    provider = await serve(TURN | {"fault": "eof"})
    async with http.post(provider.url + "/chat/completions", json=ask(stream=True)) as response:
        body = await response.read()
    assert body.count(b"data: ") == 2
    assert b"[DONE]" not in body
    assert b'"finish_reason":"' not in body
    async with http.post(provider.url + "/chat/completions", json=ask()) as response:
        body = await response.read()
    assert body.startswith(b'{"id"')
    assert not body.endswith(b"}")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stall_lasts_until_the_client_goes_away(serve, http, ask, stream):
    provider = await serve(TURN | {"fault": {"kind": "stall", "after_frames": 1}})
    response = await http.post(provider.url + "/chat/completions", json=ask(stream=stream))
    assert await response.content.readany()
    waiting = asyncio.ensure_future(provider.disconnected(1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await response.content.readany()
    assert not waiting.done()
    response.close()
    await waiting


async def test_a_stall_before_anything_shows_the_head(serve, http, ask):
    provider = await serve(TURN | {"fault": {"kind": "stall", "after_frames": 0}})
    async with http.post(provider.url + "/chat/completions", json=ask(stream=True)) as response:
        assert response.status == 200
        response.close()
    await provider.disconnected(1)


async def test_a_malformed_frame_and_a_malformed_body(serve, http, ask):
    provider = await serve(TURN | {"fault": "malformed"})
    async with http.post(provider.url + "/chat/completions", json=ask(stream=True)) as response:
        events = (await response.read()).split(b"\n\n")[:-1]
    assert len(events) == EVENTS
    assert [event.endswith((b"}", b"]")) for event in events] == [True, False, True, True, True, True]
    async with http.post(provider.url + "/chat/completions", json=ask()) as response:
        with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter"):
            await response.json()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 429, "retry_after_s": 1.5}, RateLimitError),
        ({"status": 401}, AuthenticationError),
        (
            {"kind": "status", "status": 503, "message": "Overloaded.", "code": "slow_down"},
            InternalServerError,
        ),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_http_error(serve, client_of, fault, error, stream):
    client = client_of(await serve({"fault": fault}))
    with pytest.raises(error) as raised:
        await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "go"}], stream=stream
        )
    response = raised.value.response
    assert response.status_code == fault["status"]
    assert response.headers.get("retry-after") == ("1.5" if "retry_after_s" in fault else None)
    assert fault.get("message", f"answers {fault['status']}") in raised.value.message
    usual = {429: "rate_limit_exceeded", 401: "invalid_api_key"}
    assert raised.value.code == fault.get("code", usual.get(fault["status"]))


@pytest.mark.parametrize("event", [True, False])
async def test_an_error_in_mid_stream(serve, client_of, http, ask, event):
    fault = {"kind": "error_frame", "message": "tool use failed", "code": "tool_use_failed", "event": event}
    provider = await serve(TURN | {"fault": fault})
    async with http.post(provider.url + "/chat/completions", json=ask(stream=True)) as response:
        last = (await response.read()).split(b"\n\n")[-2]
    assert last.startswith(b'event: error\ndata: {"error":{' if event else b'data: {"error":{')
    stream = await client_of(provider).chat.completions.create(**ask(stream=True))
    assert [(await anext(stream)).choices[0].delta.content for _ in range(2)] == ["", "abcd"]
    with pytest.raises(APIError, match="tool use failed") as raised:
        await anext(stream)
    assert raised.value.code == "tool_use_failed"
    async with http.post(provider.url + "/chat/completions", json=ask()) as response:
        assert response.status == 200
        assert (await response.json())["error"]["code"] == "tool_use_failed"


@pytest.mark.parametrize(
    ("fault", "pieces", "content_type"),
    [
        ({"raw": "data: é\n\n"}, ["data: é\n\n".encode()], "text/event-stream"),
        ({"raw": [b"data: \xc3", b"\xa9\n\n"]}, [b"data: \xc3", b"\xa9\n\n"], "text/event-stream"),
        ({"raw": "<html>", "content_type": "text/html", "status": 502}, [b"<html>"], "text/html"),
    ],
)
async def test_raw_bytes(serve, http, ask, fault, pieces, content_type):
    provider = await serve({"fault": fault, "gap_ms": 20})
    async with http.post(provider.url + "/chat/completions", json=ask(stream=True)) as response:
        assert response.status == fault.get("status", 200)
        assert response.content_type == content_type
        assert [chunk async for chunk in response.content.iter_any()] == pieces


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("stream", [True, False])
async def test_encoded_answers_can_be_read_frame_by_frame(serve, client_of, ask, encoding, stream):
    provider, twin = await serve(TURN | {"encoding": encoding}), await serve(TURN)
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        async with http.post(provider.url + "/chat/completions", json=ask(stream=stream)) as response:
            assert response.headers["content-encoding"] == encoding
            packed = await response.read()
        async with http.post(twin.url + "/chat/completions", json=ask(stream=stream)) as response:
            plain = await response.read()
    assert (gzip if encoding == "gzip" else zlib).decompress(packed) == plain
    answer = await client_of(provider).chat.completions.create(**ask(stream=stream))
    texts = [chunk.choices[0].delta.content async for chunk in answer] if stream else None
    assert texts == ["", "abcd", "efgh", "ijkl", None] if stream else answer.choices[0].message.content


async def test_an_encoded_stream_that_stops_shows_its_first_frames(serve, http, ask):
    provider = await serve(TURN | {"encoding": "gzip", "fault": "stall"})
    response = await http.post(provider.url + "/chat/completions", json=ask(stream=True))
    seen = b""
    while seen.count(b"\n\n") < 2:
        seen += await response.content.readany()
    assert b'"content":"abcd"' in seen
    assert b"[DONE]" not in seen
    response.close()
    await provider.disconnected(1)


@pytest.mark.parametrize(
    ("pacing", "writes"),
    [({"gap_ms": 8}, EVENTS), ({"burst": True}, 1), ({"write_bytes": 200, "gap_ms": 8}, None)],
)
async def test_pieces_come_as_writes_of_their_own(serve, http, ask, pacing, writes):
    provider = await serve(TURN | pacing)
    async with http.post(provider.url + "/chat/completions", json=ask(stream=True)) as response:
        chunks = [chunk async for chunk in response.content.iter_any()]
    total = sum(map(len, chunks))
    assert len(chunks) == (writes or -(-total // 200))


async def test_the_head_waits_for_the_delay(serve, http, ask):
    provider = await serve(TURN | {"delay_ms": 80})
    loop = asyncio.get_running_loop()
    before = loop.time()
    async with http.post(provider.url + "/chat/completions", json=ask()) as response:
        assert loop.time() - before >= 0.08
        assert response.status == 200


async def test_each_frame_is_a_chunk_of_its_own_without_any_gap(serve, ask):
    provider = await serve(TURN)
    _, body = await exchange(provider, ask(stream=True))
    sizes = 0
    while body:
        size, _, rest = body.partition(b"\r\n")
        sizes += int(size, 16) > 0
        body = rest[int(size, 16) + 2 :]
    assert sizes == EVENTS
