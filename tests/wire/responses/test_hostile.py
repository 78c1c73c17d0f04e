"""Whatever is sent, the codec has a reading or says that it has none; and it holds only so much."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model import Failure, ToolResult, Turn, dumps, loads
from proxy.wire.codec import BadRequest, Caps, MalformedTurn
from tests.wire.responses.answers import CODEC, Json, body_of, events, items_events, played, read, written

# fmt: off
WORDS = st.sampled_from([
    "message", "reasoning", "function_call", "custom_tool_call", "shell_call", "mcp_approval_request",
    "computer_call", "tool_search_call", "apply_patch_call", "shell_call_output", "x_call", "parallel",
    "completed", "user", "assistant", "a", "", "{}", "fc_1", "\ud800",
    '{"tool_uses":[{"recipient_name":"a"}]}',
])
KEYS = st.sampled_from([
    "type", "id", "call_id", "name", "namespace", "server_label", "arguments", "input", "action", "operation",
    "role", "content", "text", "output", "status", "execution", "environment", "caller", "summary", "tools",
    "pending_safety_checks", "encrypted_content", "approval_request_id", "approve",
])
# fmt: on
TYPES = st.sampled_from(
    [f"response.{name}" for name in ("created", "in_progress", "completed", "incomplete", "failed", "queued")]
    + [f"response.output_item.{name}" for name in ("added", "done")]
    + [f"response.function_call_arguments.{name}" for name in ("delta", "done", "else")]
    + [f"response.custom_tool_call_input.{name}" for name in ("delta", "done")]
    + [
        "response.output_text.delta",
        "response.shell_call_command.delta",
        "response.content_part.added",
        "error",
    ]
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
ITEM = st.dictionaries(KEYS, ANY, max_size=6).flatmap(
    lambda item: st.builds(lambda type: {**item, "type": type}, WORDS)
)
EVENT = st.fixed_dictionaries(
    {"type": TYPES},
    optional={
        "item": ITEM | ANY,
        "response": st.fixed_dictionaries(
            {}, optional={"id": WORDS, "output": st.lists(ITEM, max_size=3) | ANY}
        )
        | ANY,
        "output_index": ANY,
        "item_id": ANY,
        "delta": ANY,
        "arguments": ANY,
        "input": ANY,
        "name": ANY,
        "error": ANY,
        "message": ANY,
        "sequence_number": ANY,
    },
)


def _write(value: Any) -> bytes:
    return json.dumps(value).encode()


@settings(max_examples=120, deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=8), st.booleans())
def test_any_events_have_a_reading_or_none(wires: list[Json], forward: bool) -> None:
    begun = events(played({"text": "Hi."}))[:2]
    end = {"type": "response.completed", "response": {"id": "r", "output": []}}
    data = b"".join(b"data: " + _write(wire) + b"\n\n" for wire in [*begun, *wires, end])
    _check(*read(data), True, forward)


@settings(max_examples=80, deadline=None)
@given(st.lists(ITEM, max_size=5), st.booleans())
def test_any_output_has_a_reading_or_none(output: list[Json], forward: bool) -> None:
    _check(*read(_write({"id": "r", "output": output}), False), False, forward)


def _check(passed: Any, turn: Any, stream: bool, forward: bool) -> None:
    """Whatever a turn is, every next step can be taken with it."""
    assert isinstance(turn, (Turn, Failure, MalformedTurn))
    if not isinstance(turn, Turn):
        return
    encoder = CODEC.encoder(stream)
    for passage in passed:
        encoder.passage(passage)
    request = CODEC.read(b'{"model":"m","input":"go"}')
    results = [ToolResult(call.id, "No.") for call in turn.calls]
    asked = CODEC.extend(request, turn, results, relax=True)
    assert loads(asked.raw) is not None
    assert asked.history.calls or not turn.calls
    settlement = CODEC.settlement(asked, [(turn, results)], turn, results)
    if settlement is not None:
        CODEC.restore(asked, {"x": settlement.kept})
    replay = CODEC.replay(CODEC.hold(turn), stream)
    assert isinstance(read(replay, stream)[1], (Turn, MalformedTurn))
    if not forward:
        encoder.settle(turn)
    encoder.release(turn, [None if call.fault else call.arguments_json for call in turn.calls], {0: "No."})


@settings(max_examples=80, deadline=None)
@given(st.lists(ITEM | st.dictionaries(KEYS, ANY, max_size=4), max_size=6), st.lists(ITEM, max_size=3), ANY)
def test_any_request_has_a_reading_or_none(given_: list[Json], tools: list[Any], choice: Any) -> None:
    try:
        request = CODEC.read(_write({"model": "m", "input": given_, "tools": tools, "tool_choice": choice}))
    except BadRequest:
        return
    assert request.history.turn >= 0
    assert isinstance(request.handles, list)
    assert [result.key for result in request.results] == list(dict.fromkeys(r.key for r in request.results))
    CODEC.without_tools(request, list(request.tools), request.hosted)
    CODEC.with_approval(request, request.hosted)
    changed = CODEC.with_results(request, {result.key: "gone" for result in request.results})
    assert len(changed.results) == len(request.results)
    CODEC.forbid_tools(request, "Enough.")


def test_an_id_that_is_not_unicode_is_none_to_hold_a_call_under() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "\ud83d", "name": "go", "arguments": "{}"}
    for data, stream in ((written(items_events(call)), True), (body_of(call), False)):
        _, turn = read(data, stream)
        assert isinstance(turn, MalformedTurn)
        assert str(turn) == "the id of a call is not valid Unicode"


# -- how much is held -----------------------------------------------------------------------------

CALLS: Json = {"calls": [{"name": "a", "arguments": {"text": "x" * 500}, "id": f"c{n}"} for n in range(4)]}


@pytest.mark.parametrize(
    "caps",
    [Caps(max_event_bytes=300), Caps(max_held_bytes=2000), Caps(max_calls=3), Caps(max_response_bytes=2000)],
    ids=["event", "held", "calls", "response"],
)
def test_no_more_is_held_than_may_be(caps: Caps) -> None:
    data = written(events(played(CALLS)))
    assert isinstance(read(data)[1], Turn)
    assert isinstance(read(data, caps=caps)[1], MalformedTurn)
    assert isinstance(read(data, cuts=range(len(data)), caps=caps)[1], MalformedTurn)


def test_a_batch_may_not_be_larger_than_a_turn() -> None:
    uses = [{"recipient_name": "f", "parameters": {}}] * 5
    call = {"name": "parallel", "arguments": dumps({"tool_uses": uses}).decode()}
    data = written(events(played({"calls": [call]})))
    assert isinstance(read(data, caps=Caps(max_calls=5))[1], Turn)
    assert isinstance(read(data, caps=Caps(max_calls=4))[1], MalformedTurn)
