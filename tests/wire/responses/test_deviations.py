"""Whatever servers do to the events of a response: the calls that are judged are those that clients find."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model import Turn
from proxy.wire.codec import IncompleteTurn, MalformedTurn
from tests.core import view_responses
from tests.wire.responses.answers import Change, Json, events, played, read, released, said, turn_of, written

TURN: Json = {
    "reasoning": "Let me think of it.",
    "text": "One moment, please.",
    "calls": [
        {"name": "a", "arguments": {"text": "good morning"}, "id": "call_a"},
        {"name": "b", "arguments": {}, "id": "call_b"},
        {"name": "free", "kind": "custom", "input": "SELECT 1", "id": "call_c"},
    ],
}
CALLS = [
    ("call_a", "a", '{"text":"good morning"}', None),
    ("call_b", "b", "{}", None),
    ("call_c", "free", "SELECT 1", None),
]


def each(wires: list[Json], *types: str) -> Iterator[Json]:
    return (wire for wire in wires if wire["type"].endswith(types))


def without_key(key: str, *types: str) -> Change:
    def change(wires: list[Json]) -> Iterable[Json]:
        for wire in each(wires, *types) if types else wires:
            wire.pop(key, None)
        return wires

    return change


def without(*types: str) -> Change:
    return lambda wires: [wire for wire in wires if not wire["type"].endswith(types)]


def rotated(wires: list[Json]) -> list[Json]:
    """Another item id each time."""
    for number, wire in enumerate(wires):
        if "item_id" in wire:
            wire["item_id"] = f"x_{number}"
        if "item" in wire:
            wire["item"]["id"] = f"x_{number}"
    return wires


def from_one(wires: list[Json]) -> list[Json]:
    for wire in wires:
        if "output_index" in wire:
            wire["output_index"] += 1
    return wires


def one_index(wires: list[Json]) -> list[Json]:
    for wire in wires:
        if "output_index" in wire:
            wire["output_index"] = 0
    return wires


def bare_end(wires: list[Json]) -> list[Json]:
    wires[-1]["response"]["output"] = []
    return wires


def arguments_when_added(wires: list[Json]) -> list[Json]:
    whole = {wire["item"]["id"]: wire["item"] for wire in each(wires, "output_item.done")}
    for wire in each(wires, "output_item.added"):
        wire["item"] = copy.deepcopy(whole[wire["item"]["id"]])
    return wires


def llama(wires: list[Json]) -> Iterable[Json]:
    wires = list(without("_call_arguments.done", "_call_input.done")(wires))
    for key in ("output_index", "sequence_number"):
        wires = list(without_key(key)(wires))
    wires[0]["response"].pop("output")
    return wires


def items_in_the_end_only(wires: list[Json]) -> list[Json]:
    return [wires[0], wires[1], wires[-1]]


# What the server does -> whether every client would still read it alike.
DEVIATIONS: dict[str, tuple[Change, bool]] = {
    "none": (lambda wires: wires, True),
    "no sequence numbers": (without_key("sequence_number"), True),
    "no output index": (without_key("output_index"), False),
    "no item ids": (without_key("item_id"), False),
    "ids that change with each event": (rotated, False),
    "indexes from 1": (from_one, False),
    "one index for all": (one_index, False),
    "no deltas": (without("arguments.delta", "input.delta"), False),
    "no arguments.done": (without("arguments.done", "input.done"), False),
    "arguments only when done": (
        without("arguments.delta", "input.delta", "arguments.done", "input.done"),
        False,
    ),
    "items never done": (without("output_item.done"), False),
    "items never added": (without("output_item.added"), False),
    "an end without output": (bare_end, False),
    "arguments when added, and in deltas": (arguments_when_added, False),
    "as llama.cpp": (llama, False),
    "all in the last event": (items_in_the_end_only, False),
}


@pytest.mark.parametrize("name", DEVIATIONS)
def test_the_calls_are_found(name: str) -> None:
    change, regular = DEVIATIONS[name]
    data = written(change(events(played(TURN))))
    turn = turn_of(data)
    assert said(turn.calls) == CALLS
    assert turn.wire.canonical == regular
    if regular:
        assert released(data) == data


# Where the beginning, which goes on at once, is already not as OpenAI's.
UNNUMBERED = ("no sequence numbers", "as llama.cpp")


@pytest.mark.parametrize("name", [name for name in DEVIATIONS if name not in UNNUMBERED])
def test_what_goes_on_is_read_alike_by_every_client(name: str) -> None:
    # The part before the calls is the server's own: here there is none.
    turn = {"calls": TURN["calls"]}
    data = written(DEVIATIONS[name][0](events(played(turn))))
    answer = view_responses.read(released(data), True)
    assert [(c["id"], c["name"], c["arguments"]) for c in answer.first.calls] == [c[:3] for c in CALLS]


@pytest.mark.parametrize("name", DEVIATIONS)
@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 2**20), max_size=12))
def test_any_cut_is_the_same(name: str, cuts: list[int]) -> None:
    data = written(DEVIATIONS[name][0](events(played(TURN))))
    whole, turn = read(data)
    cut, again = read(data, cuts=cuts or range(len(data)))
    assert again.calls == turn.calls
    assert b"".join(p.raw for p in cut) == b"".join(p.raw for p in whole)


def test_events_without_a_name_and_an_end_mark_are_read() -> None:
    data = written(events(played(TURN)), named=False) + b"data: [DONE]\n\n"
    assert said(turn_of(data).calls) == CALLS
    assert released(data) == data


def test_nothing_of_a_call_passes_before_the_end() -> None:
    data = written(events(played(TURN)))
    passed, _ = read(data)
    raw = b"".join(p.raw for p in passed)
    assert b"One moment" in raw
    for word in (b"call_a", b'"a"', b"function_call", b"completed\n"):
        assert word not in raw


def test_every_cut_short_answer_is_incomplete() -> None:
    frames = [written([wire]) for wire in events(played(TURN))]
    for end in range(len(frames) - 1):
        _, error = read(b"".join(frames[:end]))
        assert isinstance(error, IncompleteTurn)


# -- written in two ways --------------------------------------------------------------------------


def _set(type: str, key: str, value: Any, within: str = "item") -> Change:
    def change(wires: list[Json]) -> Iterable[Json]:
        for wire in each(wires, type):
            inner = wire.get(within, wire)
            if inner.get("call_id", "call_a") == "call_a" and wire.get("output_index", 0) == 0:
                inner[key] = value
        return wires

    return change


def _end(key: str, value: Any) -> Change:
    def change(wires: list[Json]) -> Iterable[Json]:
        wires[-1]["response"]["output"][0][key] = value
        return wires

    return change


TWO_WAYS: dict[str, Change] = {
    "other arguments in the end": _end("arguments", '{"text":"evil"}'),
    "another name in the end": _end("name", "drop"),
    "a namespace in the end": _end("namespace", "root"),
    "other arguments when done": _set("output_item.done", "arguments", '{"text":"evil"}'),
    "another name when done": _set("output_item.done", "name", "drop"),
    "another name when added": _set("output_item.added", "name", "drop"),
    "other arguments told": _set("call_arguments.done", "arguments", '{"text":"evil"}'),
    "another name told": _set("call_arguments.done", "name", "drop"),
    "other arguments when added": _set("output_item.added", "arguments", '{"text":"evil"}'),
}


@pytest.mark.parametrize("name", TWO_WAYS)
def test_a_call_that_is_written_in_two_ways_has_no_reading(name: str) -> None:
    turn = {"calls": TURN["calls"][:1]}
    (call,) = turn_of(written(TWO_WAYS[name](events(played(turn))))).calls
    assert call.fault is not None
    assert call.arguments is None


def test_another_call_in_the_end_is_a_call_of_its_own() -> None:
    wires = events(played({"calls": TURN["calls"][:1]}))
    extra = {**wires[-1]["response"]["output"][0], "call_id": "call_x", "id": "fc_x", "name": "drop"}
    wires[-1]["response"]["output"].append(extra)
    assert [call.name for call in turn_of(written(wires)).calls] == ["a", "drop"]
    answer = view_responses.read(released(written(wires), drop=["drop"]), True)
    assert [call["name"] for call in answer.first.calls] == ["a"]


def test_a_message_that_becomes_a_call_is_a_call() -> None:
    wires = events(played({"text": "Hi."}))
    call = {"type": "function_call", "id": "fc", "call_id": "c", "name": "drop", "arguments": "{}"}
    for wire in each(wires, "output_item.done"):
        wire["item"] = call
    wires[-1]["response"]["output"] = [call]
    turn = turn_of(written(wires))
    assert [c.name for c in turn.calls] == ["drop"]
    assert b"drop" not in released(written(wires), drop=["drop"])


def test_two_calls_with_one_id_have_no_reading() -> None:
    wires = events(played({"calls": [{"name": n, "id": "call_x"} for n in ("a", "b")]}))
    assert all(call.fault for call in turn_of(written(wires)).calls[1:])


HOSTILE: dict[str, bytes] = {
    "a key twice": b'{"type":"response.output_text.delta","type":"x","item":{"type":"function_call"}}',
    "a key twice, escaped": b'{"type":"x","t\\u0079pe":"y","i":{"type":"function\\u005fcall"}}',
    "a key in capitals": b'{"type":"x","Item":{"type":"function_call"}}',
    "an unknown call": b'{"type":"response.output_item.added","output_index":0,"item":'
    b'{"type":"robot_call","call_id":"c","arguments":"{}"}}',
    "an unknown request": b'{"type":"response.output_item.added","item":{"type":"x_request"}}',
    "a call in an unknown event": b'{"type":"response.tool.ready","call_id":"c","name":"drop"}',
    "a call in the beginning": b'{"type":"response.created","response":{"output":'
    b'[{"type":"function_call"}]}}',
    "no type": b'{"item":{"type":"message"}}',
    "no object": b"[1]",
    "not JSON": b'{"type":',
    "an item without a type": b'{"type":"response.output_item.added","item":{"id":"x"}}',
    "arguments that are no text": b'{"type":"response.function_call_arguments.delta","delta":{"a":1}}',
    "UTF-16": '{"type":"x","i":"function_call"}'.encode("utf-16-le"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_could_be_a_call_to_someone_is_refused(name: str) -> None:
    head = written(events(played({"text": "Hi."}))[:2])
    passed, error = read(head + b"data: " + HOSTILE[name] + b"\n\n")
    assert isinstance(error, MalformedTurn)
    assert b"".join(p.raw for p in passed) == head


def test_an_event_that_is_named_otherwise_is_refused() -> None:
    head = written(events(played({"text": "Hi."}))[:2])
    lie = b'event: response.output_item.added\ndata: {"type":"response.output_text.delta","delta":"x"}\n\n'
    _, error = read(head + lie)
    assert isinstance(error, MalformedTurn)


def test_a_failed_response_says_nothing_of_its_calls() -> None:
    wires = events(played({"calls": TURN["calls"]}))
    response = {**wires[-1]["response"], "status": "failed", "error": {"code": "x", "message": "Broken."}}
    wires[-1] = {"type": "response.failed", "response": response, "sequence_number": 9}
    _, failure = read(written(wires))
    assert failure.message == "Broken."
    assert b"call_a" not in failure.raw
    assert b'"code":"x"' in failure.raw


def test_an_error_event_ends_the_answer() -> None:
    data = written([*events(played({"text": "Hi."}))[:2], {"type": "error", "message": "Too much."}])
    _, failure = read(data)
    assert failure.message == "Too much."


def test_an_unknown_item_that_asks_for_nothing_passes() -> None:
    wires = events(played({"text": "Hi."}))
    item = {"type": "weather_report", "id": "w", "text": "Sunny."}
    wires[2:2] = [{"type": "response.output_item.added", "output_index": 0, "item": item}]
    _, turn = read(written(wires))
    assert isinstance(turn, Turn)
    assert turn.calls == ()


def test_arguments_cut_off_by_the_limit_are_a_fault() -> None:
    turn = {"calls": [{"name": "a", "arguments": '{"text": "go', "id": "call_a"}], "finish": "length"}
    (call,) = turn_of(written(events(played(turn)))).calls
    assert call.fault is not None
    assert "cut off" in call.fault
