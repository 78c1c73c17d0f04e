"""What the provider is asked with when it is asked again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from proxy.model import ToolResult
from tests.core.harness import run
from tests.wire.answers import CODEC, Read, body, calls, chunk, stream, whole
from tests.wire.clients import by_events
from tests.wire.rounds import DENIED, DROP, STREAM_OR_BODY, Json, ask, asked, raw

# -- what the provider is asked with --------------------------------------------------------------


def of_stream(message: Mapping[str, Any]) -> bytes:
    """The message as a stream, its text fields in two pieces."""
    pieces: list[Json] = [{}, {}]
    for key, value in message.items():
        if key != "tool_calls":
            half = len(value) // 2
            pieces[0][key], pieces[1][key] = value[:half], value[half:]
    deltas = [{"role": "assistant"} | pieces[0], pieces[1]]
    deltas += [calls({"index": i} | one) for i, one in enumerate(message["tool_calls"])]
    return stream(*map(chunk, deltas), chunk(finish="tool_calls"))


SIGNED = {"id": "call_drop", "type": "function", "function": {"name": "drop", "arguments": "{}"}}
ROUND_TRIPS: dict[str, Json] = {
    "reasoning_content (DeepSeek)": {
        "content": "Hm.",
        "reasoning_content": "I think.",
        "tool_calls": [SIGNED],
    },
    "reasoning and channel (Groq)": {"reasoning": "I think.", "channel": "analysis", "tool_calls": [SIGNED]},
    "reasoning_details (OpenRouter)": {
        "reasoning_details": [
            {"type": "reasoning.text", "text": "a", "signature": None},
            {"type": "reasoning.encrypted", "data": "b==", "index": 1},
        ],
        "tool_calls": [SIGNED],
    },
    "extra_content (Gemini)": {
        "tool_calls": [{**SIGNED, "extra_content": {"google": {"thought_signature": "CsIB=="}}}]
    },
    "fields beside the name (LiteLLM)": {
        "tool_calls": [{**SIGNED, "function": {**SIGNED["function"], "provider_specific_fields": {"s": "x"}}}]
    },
    "content in parts (Mistral)": {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
            {"type": "text", "text": "Ok."},
        ],
        "tool_calls": [SIGNED],
    },
    "an empty signature list": {"annotations": [], "tool_calls": [SIGNED]},
}


@STREAM_OR_BODY
@pytest.mark.parametrize("message", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
async def test_the_turn_is_sent_back_as_it_was(message: Json, is_stream: bool) -> None:
    data = of_stream(message) if is_stream else body(message)
    outcome = await ask([raw(data, is_stream), {"text": "No."}], is_stream)
    *before, assistant, result = asked(outcome, 1)["messages"]
    assert before == asked(outcome, 0)["messages"]
    assert assistant == {"role": "assistant", **({"content": None} if is_stream else {}), **message}
    assert (result["role"], result["tool_call_id"]) == ("tool", "call_drop")
    assert outcome.exchange.outcome == "answered"


async def test_text_and_parts_of_a_stream_are_sent_back_as_parts() -> None:
    thinking = {"type": "thinking", "thinking": "hm"}
    data = stream(
        chunk({"role": "assistant", "content": [thinking]}),
        chunk({"content": "O"}),
        chunk({"content": "k.", "extra": {"a": 1}}),
        chunk({"extra": "text now"}),
        chunk({"extra": {"a": 2}}),
        chunk(calls(DROP)),
        chunk(finish="tool_calls"),
    )
    outcome = await ask([raw(data, True), {"text": "No."}], True)
    sent = asked(outcome, 1)["messages"][-2]
    assert sent["content"] == [thinking, {"type": "text", "text": "O"}, {"type": "text", "text": "k."}]
    assert sent["extra"] == {"a": 2}


async def test_halves_of_emoji_are_put_together_and_lone_ones_replaced() -> None:
    data = stream(
        chunk({"content": "a \ud83d"}),
        chunk({"content": "\ude00 b \ud83d"}),
        chunk({"reasoning_details": [{"text": "\ud83d"}]}),
        chunk(calls(DROP)),
        chunk(finish="tool_calls"),
    )
    later = stream(chunk({"content": "\ud83d"}), chunk({"content": "\ude00"}), chunk(finish="stop"))
    outcome = await ask([raw(data, True), raw(later, True)], True)
    sent = asked(outcome, 1)["messages"][-2]
    assert sent["content"] == "a 😀 b \ufffd"
    assert sent["reasoning_details"] == [{"text": "\ufffd"}]
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in by_events(outcome.client.data))
    assert text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") == "a 😀 b \ufffd😀"


@STREAM_OR_BODY
def test_every_round_keeps_the_prefix_and_what_else_the_request_says(is_stream: bool) -> None:
    given = {
        "model": "scripted",
        "seed": 2**70,
        "zeta": [1, {"b": 1, "a": 2}],
        "messages": [{"content": "Do it ☂.", "role": "user", "name": "x"}],
        "temperature": 0.1,
        "metadata": {"z": None},
        "stream": is_stream,
        "tools": [{"type": "function", "function": {"name": "drop", "strict": True}}],
    }
    request = CODEC.read(json.dumps(given, indent=1).encode())
    turn = Read(whole(DROP) if is_stream else body(calls(DROP)), is_stream).turn
    assert turn is not None
    again = CODEC.extend(request, turn, [ToolResult("call_drop", "{}")], relax=True)
    forced = CODEC.forbid_tools(again, "Enough.")
    for later in (again, forced):
        wire = json.loads(later.raw)
        assert wire == later.body
        assert list(wire)[: len(given)] == list(given)
        assert {**wire, "messages": 0} == {
            **given,
            "messages": 0,
            **({"tool_choice": "none"} if later is forced else {}),
        }
        assert list(wire["messages"][0].items()) == list(given["messages"][0].items())  # type: ignore[index]
    assert request.body == given


CHOICES: list[tuple[Any, Any]] = [
    ({"tool_choice": "required"}, {"tool_choice": "auto"}),
    ({"tool_choice": {"type": "function", "function": {"name": "drop"}}}, {"tool_choice": "auto"}),
    ({"tool_choice": {"type": "custom", "custom": {"name": "drop"}}}, {"tool_choice": "auto"}),
    ({"tool_choice": "auto"}, {"tool_choice": "auto"}),
    ({"tool_choice": None}, {"tool_choice": None}),
    (
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [1]}}},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [1]}}},
    ),
    ({"tool_choice": {"type": "allowed_tools"}}, {"tool_choice": {"type": "allowed_tools"}}),
    ({}, {}),
]


@pytest.mark.parametrize(("given", "relaxed"), CHOICES)
async def test_asking_again_lifts_the_force_to_call(given: Json, relaxed: Json) -> None:
    outcome = await ask([{"calls": [{"name": "drop"}]}, {"text": "No."}], True, **given)
    again = asked(outcome, 1)
    assert {key: again[key] for key in again.keys() & {"tool_choice"}} == relaxed
    assert again["tools"] == asked(outcome, 0)["tools"]


async def test_what_the_model_can_mend_keeps_the_force_to_call() -> None:
    turns = [{"calls": [{"name": "go", "arguments": "{"}]}, {"calls": [{"name": "go"}]}]
    outcome = await ask(turns, True, tool_choice="required")
    assert asked(outcome, 1)["tool_choice"] == "required"


async def test_a_legacy_turn_is_sent_back_in_legacy_words() -> None:
    turns = [{"calls": [{"name": "drop", "arguments": {"a": 1}}]}, {"text": "No."}]
    given = {"functions": [{"name": "drop"}], "function_call": {"name": "drop"}}
    outcome = await run({"request": given, "policy": DENIED, "upstream": turns}, True)
    again = asked(outcome, 1)
    assistant, result = again["messages"][-2:]
    assert assistant["function_call"] == {"name": "drop", "arguments": '{"a":1}'}
    assert "tool_calls" not in assistant
    assert (result["role"], result["name"]) == ("function", "drop")
    assert again["function_call"] == "auto"


@STREAM_OR_BODY
@pytest.mark.parametrize(
    ("request_keys", "off"),
    [
        ({"tools": ["drop"]}, {"tool_choice": "none"}),
        ({"tools": ["drop"], "tool_choice": "required"}, {"tool_choice": "none"}),
        ({"functions": [{"name": "drop"}]}, {"function_call": "none"}),
    ],
)
async def test_the_forced_answer_keeps_the_tools_and_turns_them_off(
    request_keys: Json, off: Json, is_stream: bool
) -> None:
    case = {
        "request": request_keys,
        "policy": DENIED,
        "upstream": [{"calls": [{"name": "drop"}]}, {"text": "No."}],
        "max_rounds": 0,
    }
    outcome = await run(case, is_stream)
    first, last = asked(outcome, 0), asked(outcome, 1)
    assert {key: last[key] for key in last.keys() & {"tool_choice", "function_call"}} == off
    assert [last.get(key) for key in ("tools", "functions")] == [
        first.get(key) for key in ("tools", "functions")
    ]
    notice = last["messages"][-1]
    assert notice["role"] in ("tool", "function")
    assert notice["content"].startswith('{"error"')
    assert notice["content"].endswith("what could not be done.")
