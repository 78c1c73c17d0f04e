"""The scripted provider on the Responses API: the official client reads it, and misuse is an error."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from proxy.scripted import Script, ScriptedProvider

TURNS: list[dict[str, Any]] = [
    {
        "reasoning": "Let me think of it.",
        "text": "One moment, please.",
        "calls": [
            {"name": "look", "arguments": {"id": 7}, "id": "call_1"},
            {"name": "sql", "kind": "custom", "input": "SELECT 1", "id": "call_2"},
        ],
    },
    {"text": "It is Ann."},
]
OUTPUTS: list[Any] = [
    {"type": "function_call_output", "call_id": "call_1", "output": "Ann"},
    {"type": "custom_tool_call_output", "call_id": "call_2", "output": "1"},
]


def client_of(provider: ScriptedProvider) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=provider.url, api_key="sk", max_retries=0)


async def test_stream_and_body_say_the_same() -> None:
    async with ScriptedProvider([Script.of("m", TURNS)]) as provider, client_of(provider) as client:
        whole = await client.responses.create(model="m", input="go")
        async with client.responses.stream(model="m", input="go") as stream:
            streamed = await stream.get_final_response()
    assert [item.type for item in whole.output] == [
        "reasoning",
        "message",
        "function_call",
        "custom_tool_call",
    ]
    said = [item.to_dict() for item in streamed.output]
    for item in said:  # the helper's own additions
        item.pop("parsed_arguments", None)
        for part in item.get("content") or []:
            part.pop("parsed", None)
    assert said == [item.to_dict() for item in whole.output]
    assert whole.id == streamed.id


async def test_the_events_are_those_of_the_api() -> None:
    async with ScriptedProvider([Script.of("m", TURNS[:1])]) as provider, client_of(provider) as client:
        stream = await client.responses.create(model="m", input="go", stream=True)
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = list(dict.fromkeys(event.type.removeprefix("response.") for event in events))
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "completed",
    ]


@pytest.mark.parametrize("named", [True, False], ids=["by name", "by input"])
async def test_the_turn_after_those_that_were_answered_is_played(named: bool) -> None:
    async with ScriptedProvider([Script.of("m", TURNS)]) as provider, client_of(provider) as client:
        first = await client.responses.create(model="m", input="go")
        if named:
            asked: dict[str, Any] = {"input": OUTPUTS, "previous_response_id": first.id}
        else:
            asked = {"input": [{"role": "user", "content": "go"}, *first.output, *OUTPUTS]}
        second = await client.responses.create(model="m", **asked)
    assert second.output_text == "It is Ann."


WRONG = {
    "a call without its output": (OUTPUTS[:1], "No tool output found for function call call_2"),
    "an output without its call": (
        [*OUTPUTS, {**OUTPUTS[0], "call_id": "call_9"}],
        "No tool call found for function call output with call_id call_9",
    ),
    "two outputs of a call": ([*OUTPUTS, OUTPUTS[0]], "No tool output found for function call call_1"),
    "reasoning without what follows it": (
        [*OUTPUTS, {"type": "reasoning", "id": "rs_1", "summary": []}],
        "without its required following item",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_openai_refuses_is_refused(name: str) -> None:
    given, message = WRONG[name]
    async with ScriptedProvider([Script.of("m", TURNS)]) as provider, client_of(provider) as client:
        first = await client.responses.create(model="m", input="go")
        with pytest.raises(openai.BadRequestError, match=message):
            await client.responses.create(model="m", input=given, previous_response_id=first.id)
