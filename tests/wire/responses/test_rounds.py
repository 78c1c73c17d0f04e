"""One answer over many rounds: however they fall out, a strict client reads one response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model import Turn, dumps, loads
from proxy.scripted import responses as dialect
from tests.core import view_responses
from tests.core.view import Answer
from tests.wire.responses.answers import (
    BODY,
    CODEC,
    Json,
    events,
    items_events,
    played,
    read,
    turn_of,
    written,
)

ARGUMENTS = '{"x":1}'


def raw(turns: Sequence[Json], number: int, stream: bool) -> bytes:
    turn = played(*turns, number=number)
    return written(events(turn)) if stream else dialect.body(turn, BODY)


def answer_of(turns: Sequence[Json], stream: bool, drop: Sequence[str] = (), notice: str = "") -> Answer:
    """All but the last turn are settled; of the last, what is not dropped goes on."""
    encoder = CODEC.encoder(stream)
    out = b""
    for number in range(len(turns)):
        passed, turn = read(raw(turns, number, stream), stream)
        assert isinstance(turn, Turn), turn
        if stream:
            out += b"".join(encoder.passage(passage) for passage in passed)
        if number < len(turns) - 1:
            out += encoder.settle(turn)
            continue
        arguments = [None if call.name in drop else call.arguments_json for call in turn.calls]
        out += encoder.release(turn, arguments, {0: notice} if notice else {})
    return view_responses.read(out, stream)


CALLS = st.lists(
    st.builds(
        lambda name, kind: (
            {"name": name, "kind": "custom", "input": "hi"} if kind else {"name": name, "arguments": {"x": 1}}
        ),
        st.sampled_from(["keep", "drop"]),
        st.booleans(),
    ),
    max_size=3,
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"calls": CALLS}, optional={"text": st.text(max_size=8), "reasoning": st.sampled_from(["", "Hm."])}
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@settings(max_examples=120, deadline=None)
@given(turns=TURNS, data=st.data())
def test_every_answer_is_one_response(turns: list[Json], data: Any, stream: bool) -> None:
    # A turn that is settled has calls.
    for turn in turns[:-1]:
        turn["calls"] = turn["calls"] or [{"name": "drop", "arguments": {"x": 1}}]
    notice = data.draw(st.sampled_from(["", "Not possible."]))
    answer = answer_of(turns, stream, drop=["drop"], notice=notice)
    names = [call["name"] for call in turns[-1]["calls"]]
    assert [call["name"] for call in answer.first.calls] == [name for name in names if name == "keep"]
    text = "".join(turn.get("text", "") for turn in turns)
    assert answer.first.text == text + (notice if names and "keep" not in names else "")
    assert answer.usage is not None
    assert answer.usage["input_tokens"] == 20 * len(turns)
    assert answer.usage["output_tokens_details"] == {"reasoning_tokens": 0}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
def test_the_proxys_own_words_can_end_it(stream: bool) -> None:
    encoder = CODEC.encoder(stream)
    passed, turn = read(
        raw([{"text": "Well.", "reasoning": "Hm.", "calls": [{"name": "drop"}]}], 0, stream), stream
    )
    out = b"".join(encoder.passage(p) for p in passed) if stream else b""
    out += encoder.settle(turn) + encoder.status("Looking.") + encoder.finish("Sorry.")
    answer = view_responses.read(out, stream)
    assert answer.first.text == ("Well.Looking.Sorry." if stream else "Well.Sorry.")
    assert answer.usages == 1


@pytest.mark.parametrize("text", ["", "Well. "])
def test_a_line_of_the_proxys_own_can_stand_before_calls_that_all_go_on(text: str) -> None:
    turns = [{"calls": [{"name": "keep", "arguments": {"x": 1}}]} | ({"text": text} if text else {})]
    encoder = CODEC.encoder(True)
    passed, turn = read(raw(turns, 0, True))
    assert turn.wire.canonical
    out = b"".join(encoder.passage(p) for p in passed)
    out += encoder.status("Looking.") + encoder.release(turn, [ARGUMENTS], {})
    answer = view_responses.read(out, True)
    assert answer.first.text == f"{text}Looking."
    assert [call["name"] for call in answer.first.calls] == ["keep"]


def test_a_held_turn_can_be_released_into_the_answer_that_held_it() -> None:
    turns = [{"text": "Well. ", "calls": [{"name": "drop", "arguments": {"x": 1}, "id": "call_d"}]}]
    encoder = CODEC.encoder(True)
    passed, turn = read(raw(turns, 0, True))
    out = b"".join(encoder.passage(p) for p in passed)
    passed, again = read(CODEC.replay(CODEC.hold(turn), True))
    assert again.id == f"{turn.id}-held"
    assert again.wire.canonical
    out += b"".join(encoder.passage(p) for p in passed)
    out += encoder.release(again, [ARGUMENTS], {})
    answer = view_responses.read(out, True)
    assert answer.ids == {turn.id}
    assert answer.first.text == "Well. "
    assert [call["id"] for call in answer.first.calls] == ["call_d"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
def test_a_replay_is_an_answer_of_its_own(stream: bool) -> None:
    calls = [{"name": "a", "arguments": {"x": 1}}, {"name": "sql", "kind": "custom", "input": "x"}]
    turn = turn_of(raw([{"reasoning": "Hm.", "text": "Well.", "calls": calls}], 0, True))
    replay = CODEC.replay(CODEC.hold(turn), stream)
    again = turn_of(replay, stream)
    assert [(c.id, c.name, c.arguments_json) for c in again.calls] == [
        (c.id, c.name, c.arguments_json) for c in turn.calls
    ]
    assert view_responses.read(replay, stream).first.text == ""
    # Held again, it still leads back to what the provider knows.
    twice = turn_of(CODEC.replay(CODEC.hold(again), stream), stream)
    assert twice.id == again.id


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
def test_ids_that_come_again_in_another_round_are_told_apart(stream: bool) -> None:
    text = {"type": "output_text", "text": "Hi.", "annotations": []}
    said = {"type": "message", "id": "msg_0", "role": "assistant", "status": "completed", "content": [text]}
    asked = {"type": "function_call", "id": "fc_0", "call_id": "c", "name": "drop", "arguments": "{}"}
    wires = items_events(said, asked)
    for wire in wires:
        if wire.get("item", {}).get("type") == "message" and wire["type"].endswith("added"):
            wire["item"] = {**said, "content": []}
    wires[2:2] = [
        {
            "type": f"response.output_text.{what}",
            "item_id": "msg_0",
            "output_index": 0,
            key: "Hi.",
            "content_index": 0,
        }
        for what, key in (("delta", "delta"), ("done", "text"))
    ]
    wires = [{**wire, "sequence_number": number} for number, wire in enumerate(wires)]
    data = written(wires)
    encoder = CODEC.encoder(stream)
    out = b""
    for number in range(2):
        passed, turn = read(data if stream else dumps(wires[-1]["response"]), stream)
        out += b"".join(encoder.passage(p) for p in passed) if stream else b""
        out += encoder.settle(turn) if number == 0 else encoder.release(turn, [None], {})
    ids = [item["id"] for item in _output(out, stream)]
    assert len(ids) == len(set(ids)) == 2


def _output(out: bytes, stream: bool) -> list[Json]:
    if not stream:
        output: list[Json] = loads(out)["output"]
        return output
    last = loads(out.rstrip().rpartition(b"data: ")[2])
    return list(last["response"]["output"])


def test_an_error_in_band_is_flat_and_nested() -> None:
    encoder = CODEC.encoder(True)
    passed, _ = read(raw([{"text": "Hi."}], 0, True))
    for passage in passed:
        encoder.passage(passage)
    frame = encoder.error(502, "upstream_incomplete", "Cut off.")
    wire = loads(frame.partition(b"data: ")[2])
    assert frame.startswith(b"event: error\n")
    assert (wire["type"], wire["code"], wire["message"]) == ("error", "upstream_incomplete", "Cut off.")
    assert wire["error"]["code"] == "upstream_incomplete"
    assert wire["sequence_number"] > 3
