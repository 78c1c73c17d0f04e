"""The official client against a real Callgate: it must not notice that Callgate is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, TOOLS, Callgate, ask, scripted

ClientOf = Callable[..., AsyncOpenAI]
WAYS = ("body", "stream", "helper", "raw", "sync")


async def complete(client_of: ClientOf, callgate: Callgate, way: str, **members: Any) -> Any:
    """The completion's choices, asked for in one of the ways that the client offers."""
    client = client_of(callgate)
    request: Any = ask(**members)
    match way:
        case "body":
            return (await client.chat.completions.create(**request)).choices
        case "raw":
            raw = await client.chat.completions.with_raw_response.create(**request)
            assert raw.headers["x-callgate-trace-id"]
            return raw.parse().choices
        case "helper":
            async with client.chat.completions.stream(**request) as stream:
                return (await stream.get_final_completion()).choices
        case "stream":
            return await _joined(await client.chat.completions.create(**request, stream=True))
        case _:
            return await asyncio.to_thread(_sync, callgate.url, request)


def _sync(url: str, request: Any) -> Any:
    with OpenAI(base_url=url, api_key="sk-user", max_retries=0) as client:
        return client.chat.completions.create(**request).choices


async def _joined(stream: Any) -> list[Any]:
    """What the deltas come to: choices of ``message`` and ``finish_reason``, as in a body."""
    collected: dict[int, dict[str, Any]] = {}
    async for chunk in stream:
        for choice in chunk.choices:
            into = collected.setdefault(choice.index, {"content": "", "calls": {}, "finish": None})
            into["content"] += choice.delta.content or ""
            into["finish"] = choice.finish_reason or into["finish"]
            for call in choice.delta.tool_calls or []:
                function = into["calls"].setdefault(call.index, [call.id, call.function.name, ""])
                function[2] += call.function.arguments or ""
    return [collected[index] for index in sorted(collected)]


def seen(choice: Any) -> tuple[str, list[tuple[str, str, str]], str]:
    """A choice as (text, calls as (id, name, arguments), finish reason), whatever way it came."""
    if isinstance(choice, dict):
        return choice["content"], [tuple(call) for call in choice["calls"].values()], choice["finish"]
    message = choice.message
    calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []]
    return message.content or "", calls, choice.finish_reason


ONE = ("call_get", "get_user", '{"id":7}')
# What the model does -> what the application sees of it.
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], tuple[str, list[Any], str]]] = {
    "text": ([{"text": "Hello there, world."}], ("Hello there, world.", [], "stop")),
    "allowed": ([{"text": "Looking. ", "calls": [GET]}], ("Looking. ", [ONE], "tool_calls")),
    "denied": ([{"calls": [DROP]}, {"text": "I may not."}], ("I may not.", [], "stop")),
    "text before a denied call": (
        [{"text": "One moment. ", "calls": [DROP]}, {"text": "I may not."}],
        ("One moment. I may not.", [], "stop"),
    ),
    "wrong, then right": (
        [{"calls": [GET | {"arguments": {"id": "seven"}}]}, {"calls": [GET]}],
        ("", [ONE], "tool_calls"),
    ),
    "mixed": ([{"calls": [GET, DROP]}], ("", [ONE], "tool_calls")),
    "denied over and over": (
        [{"calls": [DROP]}] * 4 + [{"text": "Enough.", "expect": {"tool_choice": "none"}}],
        ("Enough.", [], "stop"),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_conversation(serve: Serve, client_of: ClientOf, name: str, way: str) -> None:
    turns, expected = CONVERSATIONS[name]
    callgate = await serve(*turns)
    (choice,) = await complete(client_of, callgate, way)
    assert seen(choice) == expected


@pytest.mark.parametrize("way", WAYS)
async def test_what_was_settled_is_put_back_into_the_next_request(
    serve: Serve, client_of: ClientOf, way: str
) -> None:
    results = {"call_get": "Ada", "call_drop": "not allowed"}
    callgate = await serve(
        {"calls": [GET, DROP]}, {"text": "Ada it is.", "expect": {"tool_results": results}}
    )
    messages: list[Any] = [{"role": "user", "content": "go"}]
    (choice,) = await complete(client_of, callgate, way, messages=messages)
    calls = [
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id, name, arguments in seen(choice)[1]
    ]
    messages += [
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_get", "content": "Ada"},
    ]
    (choice,) = await complete(client_of, callgate, way, messages=messages)
    assert seen(choice)[0] == "Ada it is."
    assert [record["restored"] for record in await callgate.records("exchange")] == [0, 1]


async def test_another_principal_gets_nothing_put_back(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve({"calls": [GET, DROP]}, {"text": "Ada it is."})
    request: Any = ask()
    first = await client_of(callgate, api_key="sk-one").chat.completions.create(**request)
    request["messages"] += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": "call_get", "content": "Ada"},
    ]
    await client_of(callgate, api_key="sk-two").chat.completions.create(**request)
    assert b"call_drop" not in callgate.provider.requests[-1].raw


@pytest.mark.parametrize("way", WAYS)
async def test_each_of_several_choices_is_judged(serve: Serve, client_of: ClientOf, way: str) -> None:
    choices = [{"calls": [GET]}, {"calls": [DROP]}, {"text": "Just words."}]
    callgate = await serve({"choices": choices})
    first, second, third = map(seen, await complete(client_of, callgate, way, n=3))
    assert first == ("", [ONE], "tool_calls")
    assert second == ("drop_table is not allowed.", [], "stop")
    assert third == ("Just words.", [], "stop")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("call", "goes"), [(GET, True), (DROP, False)])
async def test_legacy_functions(
    serve: Serve, client_of: ClientOf, call: dict[str, Any], goes: bool, stream: bool
) -> None:
    callgate = await serve({"calls": [call]}, {"text": "I may not."})
    request: Any = ask(functions=[tool["function"] for tool in TOOLS])
    del request["tools"]
    client = client_of(callgate)
    if stream:
        calls, text = "", ""
        async for chunk in await client.chat.completions.create(**request, stream=True):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                if legacy := choice.delta.function_call:
                    calls += (legacy.name or "") + (legacy.arguments or "")
    else:
        message = (await client.chat.completions.create(**request)).choices[0].message
        text = message.content or ""
        calls = message.function_call.name + message.function_call.arguments if message.function_call else ""
    assert (calls, text) == (('get_user{"id":7}', "") if goes else ("", "I may not."))


@pytest.mark.parametrize("stream", [True, False])
async def test_custom_tools(serve: Serve, client_of: ClientOf, stream: bool) -> None:
    call = {"kind": "custom", "input": "select 1", "id": "call_sql"}
    script = scripted(
        {"calls": [call | {"name": "run_sql"}, call | {"name": "drop_sql", "id": "call_no"}]},
    )
    callgate = await serve(script)
    tools = [{"type": "custom", "custom": {"name": name}} for name in ("run_sql", "drop_sql")]
    client = client_of(callgate)
    request: Any = ask(tools=tools)
    if stream:
        chunks = [chunk async for chunk in await client.chat.completions.create(**request, stream=True)]
        deltas = [
            call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []
        ]
        customs = [(delta.id, delta.model_extra["custom"]) for delta in deltas]  # type: ignore[index]
    else:
        message = (await client.chat.completions.create(**request)).choices[0].message
        customs = [(call.id, call.custom.model_dump()) for call in message.tool_calls or []]  # type: ignore[union-attr]
    assert customs == [("call_sql", {"name": "run_sql", "input": "select 1"})]


async def test_usage_is_summed_over_the_rounds(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve(
        {"calls": [DROP], "usage": {"input": 20, "output": 5}},
        {"text": "I may not.", "usage": {"input": 40, "output": 7}},
    )
    completion = await client_of(callgate).chat.completions.create(**ask())  # type: ignore[call-overload]
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (60, 12)
    record = await callgate.exchange()
    assert (record["rounds"], record["outcome"], record["calls"]) == (2, "answered", 1)


async def test_errors_raise_what_the_client_documents(serve: Serve, client_of: ClientOf) -> None:
    callgate = await serve(
        {"fault": {"status": 429, "retry_after_s": 7}}, {"fault": {"status": 401}}, {"fault": {"status": 500}}
    )
    client = client_of(callgate)
    request: Any = ask()
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(**request)
    assert caught.value.response.headers["retry-after"] == "7"
    request["messages"].append({"role": "assistant", "content": "x"})
    with pytest.raises(openai.AuthenticationError):
        await client.chat.completions.create(**request)
    request["messages"].append({"role": "assistant", "content": "x"})
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(**request, stream=True)
