"""Anthropic's official client against a real Callgate: it must not notice that Callgate is there."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import orjson
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic._constants import ANTHROPIC_API_VERSION

from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, TOOLS, Callgate, scripted

WAYS = ("body", "stream", "helper", "sync", "sync helper")
OFFERED: list[Any] = [
    {"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]} for tool in TOOLS
]
ONE = ("call_get", "get_user", {"id": 7})

# What the model does -> what the application sees of it.
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], tuple[str, list[Any], str]]] = {
    "text": ([{"text": "Hello there, world."}], ("Hello there, world.", [], "end_turn")),
    "allowed": ([{"text": "Looking. ", "calls": [GET]}], ("Looking. ", [ONE], "tool_use")),
    "denied": ([{"calls": [DROP]}, {"text": "I may not."}], ("I may not.", [], "end_turn")),
    "thinking before a denied call": (
        [{"reasoning": "Hm.", "text": "One moment. ", "calls": [DROP]}, {"text": "I may not."}],
        ("One moment. I may not.", [], "end_turn"),
    ),
    "wrong, then right": (
        [{"calls": [GET | {"arguments": {"id": "seven"}}]}, {"calls": [GET]}],
        ("", [ONE], "tool_use"),
    ),
    "repaired": ([{"calls": [GET | {"arguments": {"id": "7"}}]}], ("", [ONE], "tool_use")),
    "mixed": ([{"calls": [DROP, GET]}], ("", [ONE], "tool_use")),
}


def request(**members: Any) -> Any:
    messages = [{"role": "user", "content": "go"}]
    return {"model": "m", "max_tokens": 512, "messages": messages, "tools": OFFERED} | members


def client_of(callgate: Callgate) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=callgate.root, api_key="sk-ant-user", max_retries=0)


async def message_of(callgate: Callgate, way: str, **members: Any) -> Any:
    """The message, asked for in one of the ways that the client offers."""
    if way.startswith("sync"):
        return await asyncio.to_thread(_sync, callgate.root, way, request(**members))
    async with client_of(callgate) as client:
        match way:
            case "body":
                return await client.messages.create(**request(**members))
            case "helper":
                async with client.messages.stream(**request(**members)) as stream:
                    return await stream.get_final_message()
            case _:
                stream = await client.messages.create(**request(**members), stream=True)
                return _built([event async for event in stream])


def _sync(url: str, way: str, asked: Any) -> Any:
    with Anthropic(base_url=url, api_key="sk-ant-user", max_retries=0) as client:
        if way == "sync":
            return client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            return stream.get_final_message()


def _built(events: list[Any]) -> Any:
    """What an application that reads the raw events makes of them."""
    assert [event.type for event in events[:1] + events[-2:]] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    message, pieces = events[0].message, {}
    for event in events:
        if event.type == "content_block_start":
            assert event.index == len(message.content)
            message.content.append(event.content_block)
        elif event.type == "content_block_delta" and event.delta.type == "text_delta":
            message.content[event.index].text += event.delta.text
        elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
            pieces.setdefault(event.index, []).append(event.delta.partial_json)
    for index, fragments in pieces.items():
        message.content[index].input = orjson.loads("".join(fragments) or "{}")
    message.stop_reason, message.usage.output_tokens = events[-2].delta.stop_reason, 0
    return message


def seen(message: Any) -> tuple[str, list[Any], str]:
    """A message as (text, calls, stop reason)."""
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"]
    return text, calls, message.stop_reason


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_the_client_sees_one_ordinary_message(serve: Serve, name: str, way: str) -> None:
    turns, expected = CONVERSATIONS[name]
    callgate = await serve(*turns)
    message = await message_of(callgate, way)
    assert seen(message) == expected
    assert message.content


async def test_the_counts_of_hidden_rounds_are_in_the_message(serve: Serve) -> None:
    callgate = await serve(
        {"calls": [DROP], "usage": {"input": 20, "output": 5}},
        {"text": "No.", "usage": {"input": 30, "output": 7}},
    )
    for way in ("body", "helper"):
        usage = (await message_of(callgate, way)).usage
        assert (usage.input_tokens, usage.output_tokens) == (50, 12)


@pytest.mark.parametrize("way", ["body", "helper"])
async def test_the_model_sees_its_turn_whole_when_results_come_back(serve: Serve, way: str) -> None:
    callgate = await serve(
        {"reasoning": "Both.", "calls": [DROP, GET]},
        {"text": "Done.", "expect": {"tool_results": {"call_drop": "not allowed", "call_get": "Ada"}}},
    )
    first = await message_of(callgate, way)
    assert seen(first)[1] == [ONE]
    answered = {"type": "tool_result", "tool_use_id": "call_get", "content": "Ada"}
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        {"role": "user", "content": [answered, {"type": "text", "text": "Well?"}]},
    ]
    last = await message_of(callgate, way, messages=messages)
    assert seen(last) == ("Done.", [], "end_turn")
    sent = orjson.loads(callgate.provider.requests[-1].raw)["messages"]
    kinds = [block["type"] for block in sent[1]["content"]]
    assert kinds == ["thinking", "tool_use", "tool_use"]
    assert sent[1]["content"][0]["signature"] == first.content[0].signature
    assert [block["type"] for block in sent[2]["content"]] == ["tool_result", "tool_result", "text"]
    assert sent[2]["content"][0]["is_error"] is True


async def test_thinking_reaches_the_client_as_it_was_signed(serve: Serve) -> None:
    callgate = await serve(
        {"reasoning": "Let me see. ☂", "calls": [DROP]}, {"reasoning": "So.", "text": "No."}
    )
    body, stream = [await message_of(callgate, way) for way in ("body", "helper")]
    for message in (body, stream):
        assert [block.type for block in message.content] == ["thinking", "thinking", "text"]
        assert message.content[0].thinking == "Let me see. ☂"
    assert [b.to_dict() for b in body.content] == [b.to_dict() for b in stream.content]
    # In what the model is asked again with, its thinking stands before its calls, untouched.
    sent = orjson.loads(callgate.provider.requests[-1].raw)["messages"][1]["content"]
    assert sent[0] == stream.content[0].to_dict()
    # What the client sends back is put back as it happened: signed thinking keeps its place.
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [block.to_dict() for block in stream.content]},
        {"role": "user", "content": "And now?"},
    ]
    await message_of(callgate, "body", messages=messages)
    roles = [
        (m["role"], [b["type"] for b in m["content"]] if isinstance(m["content"], list) else "text")
        for m in orjson.loads(callgate.provider.requests[-1].raw)["messages"]
    ]
    assert roles == [
        ("user", "text"),
        ("assistant", ["thinking", "tool_use"]),
        ("user", ["tool_result"]),
        ("assistant", ["thinking", "text"]),
        ("user", "text"),
    ]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "cut", "after_frames": 5}, anthropic.APIStatusError),
        ({"kind": "eof", "after_frames": 5}, anthropic.APIStatusError),
        ({"kind": "malformed", "after_frames": 4}, anthropic.APIStatusError),
        ({"kind": "error_frame", "after_frames": 4, "event": True}, anthropic.APIStatusError),
    ],
    ids=["cut", "eof", "malformed", "error"],
)
async def test_a_truncated_stream_is_an_error_and_releases_no_call(
    serve: Serve, fault: dict[str, Any], error: type[Exception]
) -> None:
    callgate = await serve({"calls": [GET], "fault": fault})
    events: list[Any] = []
    async with client_of(callgate) as client:
        stream = await client.messages.create(**request(), stream=True)
        with pytest.raises(error):
            await _collect(stream, events)
    assert {event.type for event in events} <= {"message_start"}


async def _collect(stream: Any, events: list[Any]) -> None:
    async for event in stream:
        events.append(event)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (429, anthropic.RateLimitError),
        (529, anthropic.APIStatusError),
    ],
)
async def test_the_providers_errors_are_its_own(serve: Serve, status: int, error: type[Exception]) -> None:
    callgate = await serve({"fault": {"status": status, "message": "Because."}})
    with pytest.raises(error) as caught:
        await message_of(callgate, "body")
    assert "Because." in str(caught.value)


async def test_callgates_own_errors_have_anthropics_shape(serve: Serve) -> None:
    callgate = await serve({"text": "x"}, upstream={"models": ["other"]})
    with pytest.raises(anthropic.NotFoundError) as missing:
        await message_of(callgate, "body")
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index, call-overload]
    async with client_of(callgate) as client:
        with pytest.raises(anthropic.NotFoundError) as refused:
            await client.messages.batches.create(requests=[])
        assert refused.value.body["type"] == "error"  # type: ignore[index, call-overload]
        with pytest.raises(anthropic.BadRequestError) as bad:
            await client.messages.create(**request(tools=[1]))
    assert bad.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ({}, {"authorization": "Bearer sk-ant-user"}),
        ({"auth": {"env": "KEY"}}, {"x-api-key": "sk-own"}),
        ({"headers": {"authorization": {"env": "KEY"}}}, {"authorization": "sk-own"}),
    ],
    ids=["the client's", "the operator's", "a header's"],
)
async def test_the_key_goes_where_anthropic_takes_it(
    serve: Serve, upstream: dict[str, Any], expected: dict[str, str]
) -> None:
    callgate = await serve({"text": "Hi."}, upstream=upstream, environ={"KEY": "sk-own"})
    async with client_of(callgate) as client:
        await client.beta.messages.create(**request(tools=[]), betas=["context-1m-2025-08-07"])
    (sent,) = callgate.provider.requests
    credentials = {
        name: value
        for name in ("authorization", "x-api-key", "api-key")
        if (value := sent.headers.get(name)) is not None
    }
    assert credentials == expected
    assert sent.headers["anthropic-version"] == ANTHROPIC_API_VERSION
    assert sent.headers["anthropic-beta"] == "context-1m-2025-08-07"
    assert sent.path == "/v1/messages"


async def test_counting_tokens_is_passed(serve: Serve) -> None:
    callgate = await serve(scripted({"text": "x"}, model="m"))
    async with client_of(callgate) as client:
        with pytest.raises(anthropic.NotFoundError):  # the scripted provider cannot count
            await client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "go"}])
    (sent,) = callgate.provider.requests
    assert sent.path == "/v1/messages/count_tokens"
