"""Azure's paths with the official client: the deployment in the path is the model that is judged."""

from __future__ import annotations

from typing import Any

import openai
import orjson
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from proxy.http import azure
from proxy.http.upstream import Endpoint
from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, TOOLS, Callgate, RawAnswer, http, scripted, talk

VERSION = "2024-10-21"
PATH = "/openai/deployments/m/chat/completions"


def azure_client(callgate: Callgate, **options: Any) -> AsyncAzureOpenAI:
    credentials = options or {"api_key": "az-user"}
    return AsyncAzureOpenAI(azure_endpoint=callgate.root, api_version=VERSION, max_retries=0, **credentials)


async def complete(client: AsyncOpenAI, stream: bool) -> Any:
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "go"}], "tools": TOOLS}
    if not stream:
        return (await client.chat.completions.create(**asked)).choices[0]
    async with client.chat.completions.stream(**asked) as events:
        return (await events.get_final_completion()).choices[0]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
async def test_calls_are_judged_on_a_deployments_path(serve: Serve, stream: bool) -> None:
    callgate = await serve({"calls": [DROP]}, {"calls": [GET]})
    async with azure_client(callgate) as client:
        choice = await complete(client, stream)
    assert [call.id for call in choice.message.tool_calls] == ["call_get"]
    for sent in callgate.provider.requests:
        assert sent.path == f"{PATH}?api-version={VERSION}"
        assert sent.headers["api-key"] == "az-user"
    decisions = await callgate.records("decision")
    assert [record["verdict"] for record in decisions] == ["Deny", "Allow"]


@pytest.mark.parametrize("prefix", ["/openai/v1", "/openai/v1/"])
async def test_the_versioned_path_is_judged_too(serve: Serve, prefix: str) -> None:
    callgate = await serve({"calls": [DROP]}, {"text": "No."})
    async with AsyncOpenAI(base_url=callgate.root + prefix, api_key="az-user", max_retries=0) as client:
        choice = await complete(client, False)
    assert choice.message.content == "No."
    assert {sent.path for sent in callgate.provider.requests} == {"/openai/v1/chat/completions"}


@pytest.mark.parametrize("body_model", [None, "m", "other"])
async def test_the_model_is_the_one_in_the_path(serve: Serve, body_model: str | None) -> None:
    callgate = await serve({"text": "Hi."}, upstream={"models": ["m"]})
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "go"}]}
    if body_model is not None:
        body["model"] = body_model
    answer = RawAnswer(await talk(callgate.port, http("POST", PATH, orjson.dumps(body))))
    assert answer.status == 200
    (sent,) = callgate.provider.requests
    assert orjson.loads(sent.raw)["model"] == "m"
    assert (await callgate.exchange())["gen_ai.request.model"] == "m"


async def test_a_deployment_that_no_upstream_serves_is_not_asked(serve: Serve) -> None:
    callgate = await serve(scripted({"text": "Hi."}, model="m"), upstream={"models": ["other"]})
    async with azure_client(callgate) as client:
        with pytest.raises(openai.NotFoundError):
            await complete(client, False)
    assert not callgate.provider.requests


@pytest.mark.parametrize(
    ("upstream", "options", "expected"),
    [
        ({}, {"api_key": "az-user"}, {"api-key": "az-user"}),
        ({}, {"azure_ad_token": "token"}, {"authorization": "Bearer token"}),
        ({"auth": {"env": "KEY"}}, {"api_key": "az-user"}, {"api-key": "az-own"}),
        ({"auth": {"env": "KEY"}}, {"azure_ad_token": "token"}, {"api-key": "az-own"}),
        ({"headers": {"authorization": {"env": "KEY"}}}, {"api_key": "u"}, {"authorization": "az-own"}),
    ],
)
async def test_the_key_goes_where_azure_takes_it(
    serve: Serve, upstream: dict[str, Any], options: dict[str, Any], expected: dict[str, str]
) -> None:
    callgate = await serve({"text": "Hi."}, upstream=upstream, environ={"KEY": "az-own"})
    async with azure_client(callgate, **options) as client:
        await complete(client, False)
    (sent,) = callgate.provider.requests
    names = ("authorization", "x-api-key", "api-key")
    credentials = {name: value for name in names if (value := sent.headers.get(name)) is not None}
    assert credentials == expected


@pytest.mark.parametrize(
    ("base_url", "path", "address"),
    [
        ("https://x.openai.azure.com/v1", PATH, f"https://x.openai.azure.com{PATH}"),
        ("https://x.openai.azure.com/openai", PATH, f"https://x.openai.azure.com{PATH}"),
        ("https://x.openai.azure.com/openai/v1", PATH, f"https://x.openai.azure.com{PATH}"),
        ("https://x.example/base/openai/v1", PATH, f"https://x.example/base{PATH}"),
        ("https://x.example/v1", "/chat/completions", "https://x.example/v1/chat/completions"),
        ("https://x.example/v1", "/messages?beta=true", "https://x.example/v1/messages?beta=true"),
        ("https://x.example/anthropic", "/messages", "https://x.example/anthropic/v1/messages"),
        ("https://x.example/v1beta/openai", "/models", "https://x.example/v1beta/openai/models"),
    ],
)
def test_addresses_are_those_of_the_sdks(base_url: str, path: str, address: str) -> None:
    assert Endpoint("x", base_url).address(path) == address


@pytest.mark.parametrize(
    ("path", "route", "deployment"),
    [
        (PATH, "/chat/completions", "m"),
        ("/openai/deployments/gpt-4.1_x/embeddings", "/embeddings", "gpt-4.1_x"),
        ("/openai/v1/chat/completions", "/chat/completions", None),
        ("/openai/responses", "/responses", None),
        ("/openai/v1/files/f-1", "/files/f-1", None),
        ("/openai/deployments/m/responses", None, "m"),
        ("/openai/deployments/m/extensions/chat/completions", None, "m"),
        ("/openai/deployments/m", None, None),
        ("/openai/deployments", None, None),
        ("/openai", None, None),
        ("/chat/completions", None, None),
        ("/x/openai/v1/chat/completions", None, None),
    ],
)
def test_paths_are_read_by_their_segments(path: str, route: str | None, deployment: str | None) -> None:
    assert azure.route(path) == route
    assert azure.deployment(path) == deployment


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"model":"a","model":"b"}', b'{"model": "m" }'])
def test_a_body_without_one_reading_or_with_the_same_model_stays_as_it_is(raw: bytes) -> None:
    assert azure.with_model(raw, "m") == raw
