"""Limits before real clients: the official SDK's errors, clients that leave, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import openai
import orjson
import pytest

from tests.http.conftest import Serve
from tests.http.harness import GET, ask, http, scripted

ClientOf = Callable[..., openai.AsyncOpenAI]

# Room for one reservation of 4096 tokens, and for many that are settled.
ONE_AT_A_TIME: dict[str, Any] = {"limits": {"tokens_per_day": 6000}}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
async def test_the_sdk_is_told_when_to_try_again(serve: Serve, client_of: ClientOf, stream: bool) -> None:
    callgate = await serve({"text": "a"}, guards={"limits": {"requests_per_day": 1}})
    client = client_of(callgate)
    await client.chat.completions.create(**ask())
    with pytest.raises(openai.RateLimitError) as refused:
        await client.chat.completions.create(**ask(stream=stream))
    assert refused.value.code == "rate_limit_exceeded"
    assert "You may send 1 request a day" in refused.value.message
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 86_400


async def test_who_else_asks_has_limits_of_their_own(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve({"text": "a"}, guards={"limits": {"requests_per_day": 1}})
    for key in ("sk-ann", "sk-bob"):
        await client_of(callgate, api_key=key).chat.completions.create(**ask())
    with pytest.raises(openai.RateLimitError):
        await client_of(callgate, api_key="sk-ann").chat.completions.create(**ask())


async def test_what_is_settled_leaves_room(serve: Serve, session: aiohttp.ClientSession) -> None:
    callgate = await serve({"text": "a"}, guards=ONE_AT_A_TIME)
    for _ in range(5):
        async with session.post(f"{callgate.url}/chat/completions", json=ask()) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
async def test_a_client_that_leaves_has_not_asked_for_nothing(
    serve: Serve, session: aiohttp.ClientSession, stream: bool
) -> None:
    callgate = await serve({"text": "a", "delay_ms": 60_000}, guards=ONE_AT_A_TIME)
    _, writer = await asyncio.open_connection("127.0.0.1", callgate.port)
    writer.write(http("POST", "/v1/chat/completions", orjson.dumps(ask(stream=stream))))
    async with asyncio.timeout(3):
        await callgate.provider.received(1)
        writer.close()
        await callgate.provider.disconnected(1)
    async with session.post(f"{callgate.url}/chat/completions", json=ask()) as answer:
        assert answer.status == 429


async def test_a_provider_that_cannot_be_reached_uses_nothing_up(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    callgate = await serve({"text": "a"}, guards=ONE_AT_A_TIME, upstream={"base_url": "http://127.0.0.1:9"})
    for _ in range(3):
        async with session.post(f"{callgate.url}/chat/completions", json=ask()) as answer:
            assert answer.status == 502


async def test_limits_stand_between_policy_and_cache(serve: Serve) -> None:
    callgate = await serve({"text": "a"}, guards={"limits": {"per_day": 1}})
    assert list(callgate.app.guard_names) == ["loop", "schema", "policy", "limits", "cache"]


async def test_without_limits_there_is_no_guard(serve: Serve) -> None:
    callgate = await serve({"text": "a"}, guards={"limits": {"requests_per_day": 1}})
    assert "limits" not in callgate.app.guard_names


async def test_what_an_exchange_costs_is_in_its_record(serve: Serve, session: aiohttp.ClientSession) -> None:
    prices = {"m": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}}
    callgate = await serve({"calls": [GET]}, guards={"limits": {"prices": prices}})
    async with session.post(f"{callgate.url}/chat/completions", json=ask()) as answer:
        assert answer.status == 200
    assert (await callgate.exchange())["cost_usd"] == 0.00004


async def test_a_routed_request_costs_what_its_model_costs(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    prices = {
        "m": {"input_usd_per_mtok": 100, "output_usd_per_mtok": 100},
        "small": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2},
    }
    callgate = await serve(
        scripted({"calls": [GET]}, model="small"),
        guards={"limits": {"prices": prices, "usd_per_day": 1}},
        routing=[{"models": ["m"], "decide": "small"}],
    )
    async with session.post(f"{callgate.url}/chat/completions", json=ask()) as answer:
        assert answer.status == 200
    record = await callgate.exchange()
    assert (record["gen_ai.request.model"], record["admission"]) == ("m", {"model": ["small"]})
    assert record["cost_usd"] == 0.00004
