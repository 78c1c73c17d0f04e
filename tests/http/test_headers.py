"""Which headers cross, and which must not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.http.headers import for_client, for_upstream, is_sendable
from tests.http.conftest import Before, Serve
from tests.http.harness import RawProvider, ask, http, post, talk

JSON = "Content-Type: application/json"
GOOD = orjson.dumps(
    {
        "id": "x",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
    }
)
SENT = (
    "Connection: keep-alive, X-Hop",
    "Connection: x-second-hop",
    "X-Hop: 1",
    "X-Second-Hop: 1",
    "Keep-Alive: timeout=5",
    "Proxy-Authorization: Basic c2VjcmV0",
    "Proxy-Connection: keep-alive",
    "TE: trailers",
    "Trailer: X-Late",
    "X-Callgate-Trace-Id: forged",
    "x-callgate-key: cg-own",
    "X-User: ada",
    "X-Roles: admin",
    "Accept-Encoding: br, zstd",
    "Authorization: Bearer sk-user",
    "OpenAI-Organization: org-1",
    "OpenAI-Beta: x=1",
    "X-Twice: 1",
    "X-Twice: 2",
    "User-Agent: app/1.0",
    "Cookie: session=ada",
    "X-Unicode: caf\u00c3\u00a9",
)
IDENTITY = [{"kind": "header", "id": "x-user", "roles": "x-roles", "trusted": ["127.0.0.0/8"]}]


async def test_what_the_provider_is_sent(serve: Serve) -> None:
    callgate = await serve({"text": "a"}, identity=IDENTITY)
    body = orjson.dumps(ask())
    request = http("POST", "/v1/chat/completions", body, (JSON, *SENT)).replace(
        b"Connection: close\r\n", b"", 1
    )
    await talk(callgate.port, request + http("GET", "/v1/nothing", b"", ("X-User: ada",)))
    (received,) = callgate.provider.requests
    names = [name.lower() for name in received.headers]
    assert sorted(set(names)) == [
        "accept-encoding",
        "authorization",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "openai-beta",
        "openai-organization",
        "user-agent",
        "x-twice",
        "x-unicode",
    ]
    headers = received.headers
    assert headers["host"] == callgate.provider.url.removeprefix("http://").removesuffix("/v1")
    assert headers["accept-encoding"] == "identity"
    assert headers["authorization"] == "Bearer sk-user"
    assert headers["content-length"] == str(len(body))
    assert headers["user-agent"] == "app/1.0"
    assert headers["x-unicode"] == "café"
    assert headers.getall("x-twice") == ["1", "2"]  # type: ignore[attr-defined]


async def test_nothing_is_added_that_the_client_did_not_send(serve: Serve) -> None:
    callgate = await serve({"text": "a"})
    await talk(callgate.port, http("POST", "/v1/chat/completions", orjson.dumps(ask())))
    (received,) = callgate.provider.requests
    assert {name.lower() for name in received.headers} == {"host", "accept-encoding", "content-length"}


KEYS = (
    "Authorization: Bearer sk-user",
    "X-Api-Key: sk-user",
    "api-key: sk-user",
    "AUTHORIZATION: Bearer sk-2",
)


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ({"auth": {"env": "KEY"}}, {"authorization": "Bearer sk-own"}),
        ({"headers": {"api-key": {"env": "KEY"}}}, {"api-key": "sk-own"}),
        (
            {"auth": {"env": "KEY"}, "headers": {"Authorization": {"env": "OTHER"}}},
            {"authorization": "Token sk-other"},
        ),
        (
            {"auth": {"env": "KEY"}, "headers": {"x-title": "ours", "Accept-Encoding": "gzip"}},
            {"authorization": "Bearer sk-own", "x-title": "ours"},
        ),
    ],
)
async def test_with_a_key_of_its_own_no_key_of_a_client_goes_on(
    serve: Serve, upstream: Any, expected: Mapping[str, str]
) -> None:
    environ = {"KEY": "sk-own", "OTHER": "Token sk-other"}
    callgate = await serve(
        {"text": "a"}, environ=environ, upstream=upstream, identity=[{"kind": "anonymous"}]
    )
    await post(callgate.port, ask(), *KEYS, "x-title: theirs")
    (received,) = callgate.provider.requests
    sent = {name.lower(): received.headers.getall(name) for name in received.headers}  # type: ignore[attr-defined]
    for name in ("authorization", "x-api-key", "api-key"):
        assert sent.get(name, []) == ([expected[name]] if name in expected else [])
    assert sent["x-title"] == [expected.get("x-title", "theirs")]
    assert sent["accept-encoding"] == ["identity"]


async def test_a_providers_cookie_is_no_other_users(before: Before) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: __cf_bm=ada; Path=/\r\n"
    answer = head + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    async with RawProvider([answer], keep=True) as provider:
        # A jar would keep no cookie of an address, only of a name.
        callgate = await before(
            provider, upstream={"base_url": provider.url.replace("127.0.0.1", "localhost")}
        )
        first = await post(callgate.port, ask(), "Authorization: Bearer sk-ada")
        await post(callgate.port, ask(), "Authorization: Bearer sk-bob")
    assert first.headers["set-cookie"] == "__cf_bm=ada; Path=/"
    assert b"cookie" not in provider.requests[1].lower()


ANSWERED = (
    "X-Callgate-Trace-Id: forged",
    "X-Callgate-Anything: forged",
    "Connection: X-Hop",
    "Connection: close, X-Second-Hop",
    "X-Hop: 1",
    "X-Second-Hop: 1",
    "Keep-Alive: timeout=5",
    "Proxy-Authenticate: Basic",
    "Trailer: X-Late",
    "Upgrade: h2c",
    'Alt-Svc: h3="elsewhere.example:443"',
    "Strict-Transport-Security: max-age=31536000; includeSubDomains; preload",
    "X-Control: a\x01b",
    "X-Latin: caf\xe9",
    "X-Request-Id: req_1",
    "X-Ratelimit-Remaining-Requests: 9",
    "Server: cloudflare",
    "Date: Thu, 01 Jan 1970 00:00:00 GMT",
)


@pytest.mark.parametrize("status", ["200 OK", "429 Too Many Requests"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
async def test_what_the_client_is_sent(before: Before, stream: bool, status: str) -> None:
    body = b"data: " + GOOD.replace(b"message", b"delta") + b"\n\ndata: [DONE]\n\n" if stream else GOOD
    kind = "text/event-stream" if stream else "application/json"
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", *ANSWERED, f"Content-Length: {len(body)}")
    answer = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
    async with RawProvider([answer]) as provider:
        callgate = await before(provider)
        got = await post(callgate.port, ask(stream=stream))
    assert got.body == body
    live = stream and status.startswith("200")
    assert sorted(got.headers) == sorted(
        {
            "connection",
            "content-type",
            "date",
            "server",
            "transfer-encoding" if live else "content-length",
            "x-callgate-trace-id",
            "x-ratelimit-remaining-requests",
            "x-request-id",
        }
    )
    assert got.headers["x-callgate-trace-id"] != "forged"
    assert got.headers["server"] == "cloudflare"
    assert got.headers["date"] != "Thu, 01 Jan 1970 00:00:00 GMT"
    assert got.headers.get("content-length", str(len(body))) == str(len(body))


async def test_the_client_goes_by_the_content_type_that_callgate_went_by(before: Before) -> None:
    lines = "Content-Type: application/json\r\nContent-Type: text/event-stream"
    answer = f"HTTP/1.1 200 OK\r\n{lines}\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD
    async with RawProvider([answer]) as provider:
        callgate = await before(provider)
        got = await post(callgate.port, ask())
    assert got.raw.lower().count(b"content-type:") == 1
    assert got.headers["content-type"] == "application/json"


async def test_trace_ids_are_callgates_own_and_new_each_time(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    callgate = await serve({"text": "a"})
    seen = set()
    for _ in range(5):
        forged = {"x-callgate-trace-id": "forged"}
        async with session.post(callgate.url + "/chat/completions", json=ask(), headers=forged) as answer:
            seen.add(answer.headers["x-callgate-trace-id"])
    assert len(seen) == 5
    assert {record["trace_id"] for record in await callgate.records("exchange")} == seen


NAMES = st.sampled_from(["Connection", "X-A", "x-b", "TE", "Upgrade", "X-Callgate-Key", "Accept", "Alt-Svc"])
VALUES = st.one_of(st.text(max_size=8), st.sampled_from(["x-a", "X-B, close", "a\r\nX: 1", "\udce9", "a\tb"]))


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_what_crosses_can_be_written_and_is_bound_to_no_hop(pairs: list[tuple[str, str]]) -> None:
    headers = CIMultiDict(pairs)
    bound = {
        word.strip().lower() for name, value in pairs if name == "Connection" for word in value.split(",")
    }
    for crossed in (for_upstream(headers, frozenset(), True), for_client([*headers.items()], True)):
        for name, value in crossed:
            assert name.lower() not in bound | {"connection", "te", "upgrade", "x-callgate-key"}
            assert is_sendable(value)
            value.encode()
            assert not {"\r", "\n", "\0"} & set(value)
        kept = [pair for pair in pairs if pair in list(crossed)]
        assert kept == list(crossed), "order and repetition are kept"
