"""Several providers: the first whose globs match the model is asked."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest

from proxy.http.upstream import Endpoint, HttpUpstream
from proxy.http.upstream.heads import _names as names
from proxy.ports import UpstreamFailed
from proxy.scripted import ScriptedProvider
from tests.http.conftest import Before
from tests.http.harness import RawAnswer, ask, http, post, scripted, talk

# Model -> which provider is asked, by its place; None: nobody.
MODELS = {
    "gpt-5": 0,
    "gpt-4o-mini": 0,
    "claude-sonnet": 1,
    "GPT-5": None,
    "xgpt-5": None,
    "llama": 2,
    "llama-3": None,
    "ft:gpt-5:org::id": 2,
    "*": None,
}
GLOBS = (("gpt-*", "o[134]*"), ("claude-*", "gpt-*"), ("llama", "ft:*"))


@pytest.mark.parametrize("route", ["/chat/completions", "/embeddings"])
async def test_the_model_names_its_provider(before: Before, route: str) -> None:
    async with AsyncExitStack() as stack:
        providers = [
            await stack.enter_async_context(ScriptedProvider([scripted({"text": f"I am {n}."}, model="*")]))
            for n in range(3)
        ]
        upstreams = [
            {"name": f"p{n}", "base_url": provider.url, "models": globs}
            for n, (provider, globs) in enumerate(zip(providers, GLOBS, strict=True))
        ]
        callgate = await before(providers[0], upstreams=upstreams)
        for model, place in MODELS.items():
            for provider in providers:
                provider.reset()
            request = http(
                "POST", f"/v1{route}", orjson.dumps(ask(model=model)), ("Content-Type: application/json",)
            )
            answer = RawAnswer(await talk(callgate.port, request))
            assert [len(provider.requests) for provider in providers] == [int(n == place) for n in range(3)]
            if place is None:
                assert (answer.status, answer.error["code"]) == (404, "model_not_found"), model
                assert "upstreams[].models" in answer.error["message"]


async def test_each_provider_gets_its_own_key(before: Before) -> None:
    async with ScriptedProvider([scripted({"text": "a"}, model="*")]) as provider:
        upstreams: list[dict[str, Any]] = [
            {"name": "one", "base_url": provider.url, "models": ["one"], "auth": {"env": "ONE"}},
            {"name": "two", "base_url": provider.url, "models": ["two"], "auth": {"env": "TWO"}},
            {"name": "rest", "base_url": provider.url, "models": ["*"]},
        ]
        environ = {"ONE": "sk-one", "TWO": "sk-two"}
        callgate = await before(provider, environ=environ, upstreams=upstreams)
        for model in ("one", "two", "other"):
            await post(callgate.port, ask(model=model), "Authorization: Bearer sk-user")
    sent = [request.headers["authorization"] for request in provider.requests]
    assert sent == ["Bearer sk-one", "Bearer sk-two", "Bearer sk-user"]


async def test_a_base_url_with_a_path_of_its_own(before: Before) -> None:
    async with ScriptedProvider([scripted({"text": "a"})]) as provider:
        base = provider.url.removesuffix("/v1") + "/v1beta/openai/"
        callgate = await before(provider, upstream={"base_url": base})
        await post(callgate.port, ask())
    assert provider.requests[0].path == "/v1beta/openai/chat/completions"


async def test_what_clients_name_is_not_remembered_without_bound() -> None:
    upstream = HttpUpstream([Endpoint("all", "http://127.0.0.1/v1")])
    await upstream.start()
    endpoint = upstream.endpoint("m")
    for number in range(5000):
        assert upstream.endpoint(f"{number}") is endpoint
        upstream.send("GET", f"/models/{number}", ((f"x-{number}", "1"),), None, None)
        upstream.send("GET", f"/models?{number}", (), None, None)
    upstream.endpoint("m" * 10_000)
    upstream.send("GET", "/" + "m" * 10_000, (("x" * 10_000, "1"),), None, None)
    lines = upstream._heads["all"]._lines
    for known in (upstream._by_model, lines, names):
        assert len(known) <= 1024
        assert max(len(str(key)) for key in known) < 400
    assert not any("?" in path for _, path in lines)


def test_nobody_serves_an_unknown_model() -> None:
    with pytest.raises(UpstreamFailed) as caught:
        HttpUpstream([Endpoint("one", "http://127.0.0.1/v1", ("gpt-*",))]).endpoint("m" * 5000)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    assert len(caught.value.message) < 400
