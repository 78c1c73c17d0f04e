"""Whatever a provider sends, in whatever order: what a client finds was judged, and was allowed."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.messages.clients import CLIENTS
from tests.wire.messages.playing import START, play

INDEX = st.integers(0, 2)
NAMES = st.sampled_from(["get", "drop"])
FRAGMENTS = st.sampled_from(["", "{}", '{"id":1}', '{"id":', "2}", '{"id":1,"id":2}', '"\\ud800"', "[1]"])
INPUTS = st.sampled_from([{}, {"id": 3}, None, "", '{"id":4}', {"a": {"b": [1.5]}}])
REASONS = st.sampled_from(["tool_use", "end_turn", "max_tokens", "refusal", None])
Json = dict[str, Any]


def _start(content: Json) -> st.SearchStrategy[Json]:
    return INDEX.map(lambda index: {"type": "content_block_start", "index": index, "content_block": content})


def _call(id: str, name: str, input: Any, bare: bool) -> Json:
    return {"type": "tool_use", "id": id, "name": name} | ({} if bare else {"input": input})


CALLS = st.builds(_call, st.sampled_from(["t1", "t2", ""]), NAMES, INPUTS, st.booleans())
BLOCKS = CALLS | st.sampled_from(
    [
        {"type": "text", "text": ""},
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        {"type": "tool_useful", "id": "u1", "name": "drop", "input": {}},
    ]
)
DELTAS = FRAGMENTS.map(lambda text: {"type": "input_json_delta", "partial_json": text}) | st.just(
    {"type": "text_delta", "text": "tool_use"}
)
EVENTS = st.one_of(
    BLOCKS.flatmap(_start),
    st.builds(lambda i, d: {"type": "content_block_delta", "index": i, "delta": d}, INDEX, DELTAS),
    INDEX.map(lambda index: {"type": "content_block_stop", "index": index}),
    REASONS.map(lambda reason: {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {}}),
    st.builds(
        lambda content: {**START, "message": {**START["message"], "content": content}},
        st.lists(BLOCKS, max_size=2),
    ),
    st.sampled_from([{"type": "ping"}, {"type": "message_stop"}, START]),
)
NAMING = st.sampled_from(["right"] * 8 + ["none", "message", "ping", "content_block_start"])


def _block(name: str, pieces: list[str], index: int) -> list[Json]:
    start = {"type": "tool_use", "id": f"c{index}{name}", "name": name, "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


PLAIN = st.builds(_block, NAMES, st.sampled_from([["{}"], ['{"id"', ":1}"], []]), INDEX)
STREAMS = st.lists(PLAIN | EVENTS.map(lambda event: [event]), max_size=8).map(
    lambda parts: [
        START,
        *(event for part in parts for event in part),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
)


def _frame(wire: Json, naming: str) -> bytes:
    name = {"right": wire["type"], "none": ""}.get(naming, naming)
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + orjson.dumps(wire) + b"\n\n"


@settings(max_examples=250, deadline=None)
@given(events=STREAMS, data=st.data())
async def test_what_a_client_finds_in_a_stream_was_judged_and_allowed(
    events: list[Json], data: st.DataObject
) -> None:
    names = data.draw(st.lists(NAMING, min_size=len(events), max_size=len(events)))
    answer = b"".join(map(_frame, events, names))
    last = b"".join(_frame(wire, "right") for wire in (START, *events[-2:]))
    outcome = await play([answer, last], True)
    allowed = _allowed(outcome.decisions)
    for name, client in CLIENTS.items():
        for call in _found(client, outcome.client.data):
            assert call in allowed, name


@settings(max_examples=150, deadline=None)
@given(content=st.lists(BLOCKS, max_size=4), reason=REASONS)
async def test_what_a_client_finds_in_a_body_was_judged_and_allowed(
    content: list[Json], reason: str | None
) -> None:
    message = START["message"] | {"content": content, "stop_reason": reason}
    last = START["message"] | {"content": [], "stop_reason": "end_turn"}
    outcome = await play([orjson.dumps(message), orjson.dumps(last)], False)
    allowed = _allowed(outcome.decisions)
    for block in orjson.loads(outcome.client.data).get("content") or []:
        if "tool_use" in block["type"] and block["type"] != "server_tool_use":
            assert (block["name"], block["input"]) in allowed


def _allowed(decisions: list[Any]) -> list[tuple[str, Any]]:
    fields = [record.fields() for record in decisions]
    forwarded = [found for found in fields if found["effect"] == "forward"]
    return [(found["gen_ai.tool.name"], found["arguments_forwarded"]) for found in forwarded]


def _found(client: Any, data: bytes) -> list[tuple[str, Any]]:
    try:
        return [(name, arguments) for _, name, arguments in client(data)]
    except Exception:  # noqa: BLE001 -- a client that fails, in whatever way, runs nothing
        return []
