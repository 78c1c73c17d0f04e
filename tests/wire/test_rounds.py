"""What the client sees of an answer of several rounds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.core.harness import run
from tests.core.view import read
from tests.wire.answers import DONE, body, call, calls, chunk, event, more, stream
from tests.wire.clients import by_events, rebuilt
from tests.wire.rounds import DENIED, DROP, STREAM_OR_BODY, Json, ask, raw

# -- what the client sees -------------------------------------------------------------------------

USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 3,
    "total_tokens": 13,
    "cost": 0.25,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
    "completion_tokens_details": None,
    "kind": "a",
    "is_byok": False,
}
LATER = {
    "prompt_tokens": 20,
    "completion_tokens": 5,
    "total_tokens": 25,
    "cost": 0.5,
    "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 7},
    "kind": "b",
    "is_byok": True,
}
SUM = {
    "prompt_tokens": 30,
    "completion_tokens": 8,
    "total_tokens": 38,
    "cost": 0.75,
    "prompt_tokens_details": {"cached_tokens": 12, "cache_write_tokens": 1, "audio_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 7},
    "kind": "b",
    "is_byok": True,
}


def answer(is_stream: bool, delta: Json, finish: str, usage: Json | None, **head: Any) -> bytes:
    if not is_stream:
        return body(delta, finish, **head, **({"usage": usage} if usage else {}))
    pieces = [{"index": i} | one for i, one in enumerate(delta.get("tool_calls", []))]
    said = {key: value for key, value in delta.items() if key != "tool_calls"}
    frames = [chunk({"role": "assistant", **said}, **head)]
    frames += [chunk(calls(piece), **head) for piece in pieces]
    frames.append(chunk(finish=finish, **head))
    if usage:
        frames.append(event(chunk_head(head) | {"choices": [], "usage": usage}))
    return stream(*frames)


def chunk_head(head: Json) -> Json:
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"} | head


ROUNDS = [(USAGE, LATER, SUM), (None, LATER, LATER), (USAGE, None, None), (None, None, None)]


@STREAM_OR_BODY
@pytest.mark.parametrize(("first", "second", "total"), ROUNDS)
async def test_usage_is_summed_over_the_rounds(
    first: Json | None, second: Json | None, total: Json | None, is_stream: bool
) -> None:
    turns = [
        raw(answer(is_stream, {"content": None, **calls(DROP)}, "tool_calls", first), is_stream),
        raw(answer(is_stream, {"content": "No."}, "stop", second), is_stream),
    ]
    outcome = await ask(turns, is_stream)
    found = read(outcome.client.data, is_stream)
    # A body always tells; a stream only where the provider does, as the client asked it to.
    assert found.usage == (first if total is None and not is_stream else total)
    assert found.first.text == "No."


@STREAM_OR_BODY
@pytest.mark.parametrize("last", ["text", "call", "mixed", "refused"])
async def test_the_answer_is_one_and_the_first_rounds_head_holds(last: str, is_stream: bool) -> None:
    head = {"id": "first", "created": 1, "model": "m-1", "system_fingerprint": "fp_1"}
    other = {"id": "other", "created": 2, "model": "m-2", "system_fingerprint": "fp_2", "service_tier": "x"}
    go = call('{"b": 1}', "go", "call_go")
    final = {
        "text": ({"content": " Two."}, "stop"),
        "call": ({"content": " Two.", **calls(go)}, "tool_calls"),
        "mixed": ({"content": " Two.", **calls(call("{}", "drop", "call_x"), go)}, "tool_calls"),
    }
    turns = [
        raw(answer(is_stream, {"content": "One.", **calls(DROP)}, "tool_calls", USAGE, **head), is_stream)
    ]
    if last == "refused":
        turns.append({"fault": {"status": 429}})
    else:
        turns.append(raw(answer(is_stream, *final[last], USAGE, **other), is_stream))
    case = {
        "request": {"tools": ["drop", "go"]},
        "policy": DENIED,
        "upstream": turns,
        "max_rounds": 0 if last == "refused" else 3,
    }
    outcome = await run(case, is_stream)
    found = read(outcome.client.data, is_stream)
    assert found.first.text == "One." + (" Two." if last != "refused" else "")
    assert [c["id"] for c in found.first.calls] == (["call_go"] if last in ("call", "mixed") else [])
    assert found.usages == 1
    data = outcome.client.data
    for wire in by_events(data) if is_stream else [json.loads(data)]:
        assert {key: wire[key] for key in head} == head
    if is_stream:
        roles = [c["choices"][0]["delta"].get("role") for c in by_events(data) if c["choices"]]
        assert roles == ["assistant"] + [None] * (len(roles) - 1)


@pytest.mark.parametrize("fused", [False, True])
async def test_the_role_is_said_once_though_the_provider_repeats_it(fused: bool) -> None:
    role = {"role": "assistant"}
    first = [chunk(role | calls(DROP))] if fused else [chunk(role), chunk(role | calls(DROP))]
    turns = [
        raw(stream(*first, chunk(role, "tool_calls")), True),
        raw(
            stream(chunk(role | {"content": "N"}), chunk(role | {"content": "o."}), chunk(finish="stop")),
            True,
        ),
    ]
    outcome = await ask(turns, True)
    deltas = [c["choices"][0]["delta"] for c in by_events(outcome.client.data)]
    assert [d["role"] for d in deltas if "role" in d] == ["assistant"]
    assert "".join(d.get("content") or "" for d in deltas) == "No."


@pytest.mark.parametrize("hidden", [False, True])
async def test_a_role_that_was_never_said_is_added_where_frames_are_written_again(hidden: bool) -> None:
    go = raw(stream(chunk(calls(call("{}", "go", "call_go"))), chunk(finish="stop")), True)
    turns = [raw(stream(chunk(calls(DROP)), chunk(finish="tool_calls")), True)] if hidden else []
    outcome = await ask([*turns, go], True)
    deltas = [c["choices"][0]["delta"] for c in by_events(outcome.client.data)]
    assert [d.get("role") for d in deltas] == ["assistant", None]
    assert all(
        found == {0: [("call_go", "go", "{}")]} for found in rebuilt(outcome.client.data, True).values()
    )


async def test_text_after_the_first_call_of_a_hidden_turn_reaches_the_client() -> None:
    turns = [
        raw(
            stream(
                chunk({"role": "assistant", "content": "a"}),
                chunk({"content": "b", **calls(DROP)}),
                chunk({"content": "c", "reasoning_content": "r"}),
                chunk(calls(more("")), logprobs=None),
                chunk({"content": "d"}, "tool_calls", usage=USAGE),
            ),
            True,
        ),
        raw(stream(chunk({"content": "e"}), chunk(finish="stop", usage=LATER)), True),
    ]
    outcome = await ask(turns, True)
    found = read(outcome.client.data, True)
    assert found.first.text == "abcde"
    assert found.usage == SUM
    assert b'"reasoning_content":"r"' in outcome.client.data
    assert b"drop" not in outcome.client.data


async def test_text_around_the_calls_of_a_mixed_turn_reaches_the_client() -> None:
    go = call('{"b": 1}', "go", "call_go", 1)
    data = stream(
        chunk({"role": "assistant", "content": "a"}),
        chunk({"content": "b", **calls(DROP)}),
        chunk(calls(go)),
        chunk({"content": "c"}),
        chunk({"content": "d"}, "tool_calls"),
        event({"id": "c1", "choices": [], "moderation": {}}),
    )
    outcome = await ask([raw(data, True)], True)
    found = read(outcome.client.data, True)
    assert found.first.text == "abcd"
    assert [c["id"] for c in found.first.calls] == ["call_go"]
    assert found.done
    assert b"moderation" in outcome.client.data
    assert b"call_drop" not in outcome.client.data


@STREAM_OR_BODY
async def test_the_tokens_of_a_call_that_does_not_go_on_are_not_told(is_stream: bool) -> None:
    tokens = {"content": [{"token": "s3cret", "logprob": -0.1, "top_logprobs": []}]}
    go = call("{}", "go", "call_go", 1)
    if is_stream:
        choice = {"index": 0, "delta": {"content": "x", **calls(DROP)}, "logprobs": tokens}
        data = stream(event({"id": "c1", "choices": [choice]}), chunk(calls(go)), chunk(finish="tool_calls"))
    else:
        wire = json.loads(body(calls(DROP, go)))
        wire["choices"][0]["logprobs"] = tokens
        data = json.dumps(wire).encode()
    outcome = await ask([raw(data, is_stream)], is_stream)
    assert [c["id"] for c in read(outcome.client.data, is_stream).first.calls] == ["call_go"]
    assert b"s3cret" not in outcome.client.data


async def test_texts_of_bodies_follow_one_another_in_text_and_in_parts() -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "One."}]
    turns = [
        raw(body({"content": parts, "reasoning": "r1", **calls(DROP)}), False),
        raw(body({"content": "Two.", "reasoning": None, **calls(DROP)}), False),
        raw(body({"content": "Three.", "reasoning": "r3"}, "stop"), False),
    ]
    outcome = await ask(turns, False)
    message = json.loads(outcome.client.data)["choices"][0]["message"]
    assert message["content"] == [
        *parts,
        {"type": "text", "text": "Two."},
        {"type": "text", "text": "Three."},
    ]
    assert message["reasoning"] == "r1r3"


async def test_a_notice_stands_after_content_in_parts() -> None:
    parts = [{"type": "text", "text": "One."}]
    wire = json.loads(body({"content": parts, **calls(DROP)}))
    wire["choices"].append(
        {"index": 1, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    )
    outcome = await ask([raw(json.dumps(wire).encode(), False)], False, n=2)
    first, second = json.loads(outcome.client.data)["choices"]
    assert first["message"]["content"] == [*parts, {"type": "text", "text": "Not for you."}]
    assert second["message"] == {"role": "assistant", "content": "x"}
    assert (first["finish_reason"], second["finish_reason"]) == ("stop", "stop")


async def test_with_n_above_1_what_is_dropped_of_one_choice_leaves_the_others_alone() -> None:
    go = call('{"b": 1}', "go", "call_go")
    data = stream(
        chunk({"role": "assistant", "content": ""}, index=0),
        chunk({"role": "assistant", "content": "x"}, index=1),
        chunk(calls(DROP), index=0),
        chunk(calls(go), index=1),
        chunk({"role": "assistant", "content": "late"}, index=2),
        chunk(finish="tool_calls", index=0),
        chunk(finish="stop", index=2),
        chunk(finish="tool_calls", index=1),
    )
    outcome = await ask([raw(data, True)], True, n=3)
    found = read(outcome.client.data, True)
    assert [(v.text, [c["id"] for c in v.calls], v.finish) for _, v in sorted(found.choices.items())] == [
        ("Not for you.", [], "stop"),
        ("x", ["call_go"], "tool_calls"),
        ("late", [], "stop"),
    ]
    roles = [c for w in by_events(outcome.client.data) for c in w["choices"] if c["delta"].get("role")]
    assert sorted(c["index"] for c in roles) == [0, 1, 2]


async def test_a_choice_that_the_provider_never_ended_is_ended_before_the_usage() -> None:
    data = stream(
        chunk({"role": "assistant"}),
        chunk(calls(call("{}", "go", "call_go"))),
        event({"id": "c1", "choices": [], "usage": USAGE}),
    )
    outcome = await ask([raw(data, True)], True)
    *_, end, usage = by_events(outcome.client.data)
    assert end["choices"][0]["finish_reason"] == "tool_calls"
    assert usage["usage"] == USAGE
    assert outcome.client.data.endswith(DONE)


@STREAM_OR_BODY
async def test_a_provider_that_fails_when_it_is_asked_again(is_stream: bool) -> None:
    failing = {"fault": {"kind": "error_frame", "code": "overloaded", "after_frames": 0}}
    outcome = await ask([{"calls": [{"name": "drop"}]}, failing], is_stream)
    found = read(outcome.client.data, is_stream)
    assert found.error is not None
    assert found.error["code"] == "overloaded"
    assert found.choices == {} or found.first.finish is None


async def test_a_stream_that_turns_into_a_body_is_an_error() -> None:
    outcome = await ask([{"calls": [{"name": "drop"}]}, raw(body({"content": "x"}, "stop"), False)], True)
    error = read(outcome.client.data, True).error
    assert error is not None
    assert error["code"] == "upstream_malformed"


async def test_a_body_without_choices_when_it_is_asked_again() -> None:
    outcome = await ask([{"calls": [{"name": "drop"}]}, raw(b'{"x": 1}', False)], False)
    assert json.loads(outcome.client.data)["choices"] == []


async def test_what_is_nested_too_deeply_to_be_written_again_is_an_error() -> None:
    deep = b'{"id": "c1", "choices": [], "x": ' + b"[" * 990 + b"]" * 990 + b"}"
    turns = [
        {"calls": [{"name": "drop"}]},
        raw(stream(event(deep), chunk({"content": "x"}), chunk(finish="stop")), True),
    ]
    outcome = await ask(turns, True)
    found = read(outcome.client.data, True)
    assert found.error is not None or found.first.text == "x"
    assert outcome.exchange.fields()["outcome"] in ("upstream_error", "answered")
