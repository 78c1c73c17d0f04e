"""What clients should not send: each gets an error that they can read, and the next is served."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.http.bodies import Unreadable, decoded
from tests.http.conftest import Serve
from tests.http.harness import Callgate, RawAnswer, ask, http, post, talk

POST = "/v1/chat/completions"
BODY = orjson.dumps(ask())
USER = [{"role": "user", "content": "go"}]


def _members(**members: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": USER} | members)


# The body -> status, code, and a part of the message.
BODIES: dict[str, tuple[bytes, int, str, str]] = {
    "nothing": (b"", 400, "invalid_request", "could not be read"),
    "no JSON": (b"model=m", 400, "invalid_request", "could not be read"),
    "half of JSON": (BODY[:-1], 400, "invalid_request", "could not be read"),
    "an array": (b"[]", 400, "invalid_request", "must be a JSON object"),
    "text behind": (BODY + b"x", 400, "invalid_request", "could not be read"),
    "a key twice": (BODY[:-1] + b',"model":"other"}', 400, "invalid_request", "duplicate key"),
    "a deep key twice": (
        _members(x=0).replace(b'"x":0', b'"x":[{"a":1,"a":2}]'),
        400,
        "invalid_request",
        "dup",
    ),
    "NaN": (_members(x=0).replace(b'"x":0', b'"x":NaN'), 400, "invalid_request", "not JSON"),
    "a lone surrogate": (
        _members(x=0).replace(b'"x":0', b'"x":"\\ud800"'),
        400,
        "invalid_request",
        "Unicode",
    ),
    "no UTF-8": (_members(x=0).replace(b'"x":0', b'"x":"\xff"'), 400, "invalid_request", "could not be read"),
    "UTF-16": (BODY.decode().encode("utf-16"), 400, "invalid_request", "could not be read"),
    "a depth charge": (
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        400,
        "invalid_request",
        "nested too deeply",
    ),
    "no model": (orjson.dumps({"messages": USER}), 400, "invalid_request", "model"),
    "a model of another type": (_members(model=7), 400, "invalid_request", "model"),
    "no messages": (orjson.dumps({"model": "m"}), 400, "invalid_request", "messages"),
    "messages that are none": (_members(messages=["hi"]), 400, "invalid_request", "messages"),
    "tools that are none": (_members(tools={}), 400, "invalid_request", "tools"),
    "n that is none": (_members(n=0), 400, "invalid_request", "n must"),
    "stream that is none": (_members(stream="yes"), 400, "invalid_request", "stream"),
    "calls that are none": (
        _members(messages=[{"role": "assistant", "tool_calls": "x"}]),
        400,
        "invalid_request",
        "tool_calls",
    ),
}


@pytest.mark.parametrize("case", BODIES)
async def test_a_body_without_a_reading(serve: Serve, case: str) -> None:
    body, status, code, part = BODIES[case]
    callgate = await serve({"text": "Fine."})
    answer = await post(callgate.port, body)
    _check_refused(answer, status, code, part)
    assert callgate.provider.requests == []
    await _check_serves(callgate)
    records = await callgate.records("exchange")
    assert [record["outcome"] for record in records] == ["refused", "answered"]
    assert records[0]["trace_id"] == answer.headers["x-callgate-trace-id"]


def _check_refused(answer: RawAnswer, status: int, code: str, part: str = "") -> None:
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error.keys() == {"message", "type", "param", "code"}
    assert part in answer.error["message"]
    assert len(answer.error["message"]) < 600
    assert len(answer.headers["x-callgate-trace-id"]) == 32
    assert answer.headers["content-type"].startswith("application/json")


async def _check_serves(callgate: Callgate) -> None:
    assert (await post(callgate.port, ask())).status == 200


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


# The body and its Content-Encoding -> what comes of it; 200: the provider got the plain body.
ENCODED: dict[str, tuple[bytes, str, int, str]] = {
    "gzip": (_gzip(BODY), "gzip", 200, ""),
    "GZIP": (_gzip(BODY), "GZIP", 200, ""),
    "x-gzip": (_gzip(BODY), "x-gzip", 200, ""),
    "deflate": (zlib.compress(BODY), "deflate", 200, ""),
    "identity": (BODY, "identity", 200, ""),
    "br": (BODY, "br", 415, "unsupported_encoding"),
    "zstd": (BODY, "zstd", 415, "unsupported_encoding"),
    "an unknown one": (BODY, "rot13", 415, "unsupported_encoding"),
    "two": (_gzip(_gzip(BODY)), "gzip, gzip", 415, "unsupported_encoding"),
    "no gzip": (BODY, "gzip", 400, "bad_encoding"),
    "half a gzip": (_gzip(BODY)[:-9], "gzip", 400, "bad_encoding"),
    "something behind it": (_gzip(BODY) + b"x", "gzip", 400, "bad_encoding"),
    "gzip behind gzip": (_gzip(BODY) + _gzip(BODY), "gzip", 400, "bad_encoding"),
    "a bomb": (_gzip(b" " * 2**24 + BODY), "gzip", 413, "request_too_large"),
}


@pytest.mark.parametrize("case", ENCODED)
async def test_an_encoded_body(serve: Serve, case: str) -> None:
    body, encoding, status, code = ENCODED[case]
    callgate = await serve({"text": "Fine."}, limits={"max_request_bytes": 2**20})
    answer = await post(callgate.port, body, f"Content-Encoding: {encoding}")
    if status == 200:
        assert answer.status == 200
        (request,) = callgate.provider.requests
        assert request.raw == BODY
        assert "content-encoding" not in request.headers
    else:
        _check_refused(answer, status, code)
        assert callgate.provider.requests == []
        await _check_serves(callgate)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = _gzip(b" " * 2**26)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable) as caught:
            decoded(bomb, ["gzip"], 2**20)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    assert caught.value.status == 413


# -- sizes


def _chunked(*chunks: bytes) -> bytes:
    head = f"POST {POST} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    return head.encode() + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


LIMIT = {"max_request_bytes": 4096}


@pytest.mark.parametrize(
    "request_bytes",
    [
        http("POST", POST, BODY + b" " * 8192),
        _chunked(BODY, *[b" " * 512] * 16),
        # Nothing of it is sent: the declared length is enough.
        http("POST", POST, b"", ("Content-Length: 999999999999",)).replace(b"\r\nContent-Length: 0", b""),
    ],
    ids=["declared", "chunked", "only declared"],
)
async def test_a_request_that_is_too_large(serve: Serve, request_bytes: bytes) -> None:
    callgate = await serve({"text": "Fine."}, limits=LIMIT)
    _check_refused(
        RawAnswer(await talk(callgate.port, request_bytes)), 413, "request_too_large", "limits.max_request"
    )
    await _check_serves(callgate)


async def test_a_chunked_request_within_the_bound(serve: Serve) -> None:
    callgate = await serve({"text": "Fine."}, limits=LIMIT)
    answer = RawAnswer(await talk(callgate.port, _chunked(BODY[:10], BODY[10:])))
    assert answer.status == 200
    assert callgate.provider.requests[0].raw == BODY


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "in pieces"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "declared"])
@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)])
async def test_the_bound_is_met_to_the_byte(
    serve: Serve, more: int, status: int, chunked: bool, at_once: bool
) -> None:
    callgate = await serve({"text": "Fine."}, limits=LIMIT)
    body = BODY.ljust(LIMIT["max_request_bytes"] + more)
    request = _chunked(body[:99], body[99:]) if chunked else http("POST", POST, body)
    pieces = [request] if at_once else [request[:-500], request[-500:]]
    answer = RawAnswer(await talk(callgate.port, *pieces))
    assert answer.status == status


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "declared"])
async def test_a_body_larger_than_what_is_read_ahead_arrives_whole(serve: Serve, chunked: bool) -> None:
    callgate = await serve({"text": "Fine."}, limits={"max_request_bytes": 2**23})
    body = BODY.ljust(3 * 2**20)
    pieces = [body[at : at + 2**16] for at in range(0, len(body), 2**16)]
    answer = RawAnswer(await talk(callgate.port, _chunked(*pieces) if chunked else http("POST", POST, body)))
    assert answer.status == 200
    assert callgate.provider.requests[0].raw == body


async def test_a_body_that_does_not_come(serve: Serve) -> None:
    callgate = await serve({"text": "Fine."}, limits={"body_timeout_s": 0.1})
    request = http("POST", POST, BODY)
    _check_refused(RawAnswer(await talk(callgate.port, request[:-5])), 408, "request_timeout")
    await _check_serves(callgate)


async def test_a_head_that_does_not_come(serve: Serve) -> None:
    callgate = await serve({"text": "Fine."}, limits={"idle_connection_s": 0.1})
    assert await talk(callgate.port, http("POST", POST, BODY)[:60]) == b""
    await _check_serves(callgate)


async def test_a_client_that_asks_first_is_told_to_go_on(serve: Serve) -> None:
    callgate = await serve({"text": "Fine."})
    raw = await talk(callgate.port, http("POST", POST, BODY, ("Expect: 100-continue",)))
    interim, _, final = raw.partition(b"\r\n\r\n")
    assert interim == b"HTTP/1.1 100 Continue"
    assert RawAnswer(final).status == 200
    assert "expect" not in callgate.provider.requests[0].headers


async def test_a_client_that_asks_first_is_refused_before_it_sends(serve: Serve) -> None:
    callgate = await serve({"text": "Fine."}, limits=LIMIT)
    request = http("POST", POST, b"x" * 9999, ("Expect: 100-continue",))
    raw = await talk(callgate.port, request[:-9999])
    _check_refused(RawAnswer(raw), 413, "request_too_large")


# -- what is no HTTP, or two requests at once

HEAD = f"POST {POST} HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


def _with(*lines: str, body: bytes = b"") -> bytes:
    return (HEAD + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode("latin-1") + body


GARBAGE: dict[str, bytes] = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200 + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "noise": bytes(range(256)) * 4,
    "a method of 10 kB": b"A" * 10_000 + b" / HTTP/1.1\r\n\r\n",
    "a target of 10 kB": b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header of 100 kB": _with("X-Big: " + "a" * 100_000),
    "500 headers": _with(*(f"X-{n}: 1" for n in range(500))),
    "no host": f"POST {POST} HTTP/1.1\r\n\r\n".encode(),
    "two hosts": _with("Host: y"),
    "a folded header": _with("X-A: 1\r\n b: 2"),
    "a space before the colon": _with("Content-Length : 5", body=b"hello"),
    "a NUL in a header": _with("X-A: a\0b"),
    "a line break in a header": _with("X-A: a\rb"),
    "two lengths": _with("Content-Length: 5", "Content-Length: 50", body=b"hello" + SMUGGLED),
    "two equal lengths": _with("Content-Length: 5", "Content-Length: 5", body=b"hello" + SMUGGLED),
    "a list of lengths": _with("Content-Length: 5, 5", body=b"hello" + SMUGGLED),
    "a signed length": _with("Content-Length: +5", body=b"hello" + SMUGGLED),
    "a negative length": _with("Content-Length: -1"),
    "a hexadecimal length": _with("Content-Length: 0x5", body=b"hello"),
    "length and chunks": _with(
        "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED
    ),
    "chunks and length": _with(
        "Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED
    ),
    "chunks that are not last": _with("Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SMUGGLED),
    "chunks of another name": _with("Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED),
    "chunks said twice": _with("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "a chunk without a size": _with("Transfer-Encoding: chunked", body=b"zz\r\nhello\r\n0\r\n\r\n"),
    "a chunk of negative size": _with("Transfer-Encoding: chunked", body=b"-1\r\nhello\r\n0\r\n\r\n"),
    "a chunk larger than it says": _with("Transfer-Encoding: chunked", body=b"2\r\nhello\r\n0\r\n\r\n"),
    "a chunk without its line end": _with("Transfer-Encoding: chunked", body=b"5\nhello\n0\n\n"),
    "line feeds alone": HEAD.replace("\r\n", "\n").encode() + b"Content-Length: 5\n\nhello",
}


@pytest.mark.parametrize("case", GARBAGE)
async def test_what_is_no_http_is_refused_once_and_the_connection_closed(serve: Serve, case: str) -> None:
    callgate = await serve({"text": "Fine."})
    raw = await talk(callgate.port, GARBAGE[case])
    _check_refused(RawAnswer(raw), 400, "bad_http")
    assert raw.count(b"HTTP/1.") == 1, "what follows is not read as a request of its own"
    assert callgate.provider.requests == []
    await _check_serves(callgate)


@pytest.mark.parametrize(
    "lines",
    [
        ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"),
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
    ],
    ids=["websocket", "h2c"],
)
async def test_a_body_behind_an_upgrade_is_a_body(serve: Serve, lines: tuple[str, ...]) -> None:
    """Read as a request of its own, it would be one that nobody in front of Callgate has seen."""
    callgate = await serve({"text": "Fine."})
    request = _with(*lines, f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED)
    async with asyncio.timeout(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", callgate.port)
        writer.write(request)
        assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 400")
        writer.write(http("POST", POST, BODY))
        rest = await reader.read()
        writer.close()
    assert [part[:3] for part in rest.split(b"HTTP/1.1 ")[1:]] == [b"200"]
    (received,) = callgate.provider.requests
    assert received.raw == BODY


async def test_requests_one_behind_the_other_are_answered_in_order(serve: Serve) -> None:
    callgate = await serve({"text": "Fine."})
    keep = http("POST", POST, BODY).replace(b"Connection: close\r\n", b"")
    raw = await talk(callgate.port, keep + keep + http("GET", "/v1/nothing"))
    assert [part[:3] for part in raw.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404"]


async def test_more_requests_than_are_read_ahead_are_all_answered(serve: Serve) -> None:
    callgate = await serve({"text": "Fine."})
    keep = http("POST", POST, BODY).replace(b"Connection: close\r\n", b"")
    raw = await talk(callgate.port, keep * 100 + http("GET", "/v1/nothing"))
    assert [part[:3] for part in raw.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 100 + [b"404"]
    assert len(callgate.provider.requests) == 100


async def test_an_old_client_is_served(serve: Serve) -> None:
    callgate = await serve({"text": "Fine."})
    request = b"POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % (POST.encode(), len(BODY)) + BODY
    assert b'"Fine."' in RawAnswer(await talk(callgate.port, request)).body
    stream = orjson.dumps(ask(stream=True))
    request = b"POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % (POST.encode(), len(stream)) + stream
    answer = RawAnswer(await talk(callgate.port, request))
    assert "transfer-encoding" not in answer.headers
    assert answer.body.endswith(b"data: [DONE]\n\n")


# -- who asks


async def test_nobody_is_served_who_is_not_known(tmp_path: Path, serve: Serve) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"{hashlib.sha256(b'cg-secret').hexdigest()}: {{id: ada, roles: [admin]}}\n")
    callgate = await serve({"text": "Fine."}, identity=[{"kind": "api_keys", "path": str(keys)}])
    for headers in ((), ("Authorization: Bearer cg-wrong",), ("Authorization: Basic YTpi",)):
        _check_refused(await post(callgate.port, BODY, *headers), 401, "unidentified", "API key")
    twice = ("Authorization: Bearer cg-secret", "Authorization: Bearer other")
    _check_refused(await post(callgate.port, BODY, *twice), 400, "unidentified", "twice")
    assert callgate.provider.requests == []
    assert (await post(callgate.port, BODY, "Authorization: Bearer cg-secret")).status == 200
    (record,) = await callgate.records("exchange")
    assert record["principal"]["id"] == "ada"
    assert "authorization" not in callgate.provider.requests[0].headers
