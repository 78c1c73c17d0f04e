"""Random turns, deviations and decisions: what holds of every answer, whatever the provider does."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from proxy.record import DecisionRecord
from tests.core.harness import Outcome, run
from tests.wire.answers import Read, written
from tests.wire.clients import Failed, by_events, rebuilt

Json = dict[str, Any]

# Names, ids and arguments that nothing else in an answer spells.
ALLOWED, DENIED, REWRITTEN = "allowed_tool", "denied_tool", "rewritten_tool"
SECRET = "s3cr3t"
NEW_ARGUMENTS = {"rewritten": [1, "é😀"]}
POLICY = {
    DENIED: {"effect": "deny", "reasons": ["That is not for you."]},
    REWRITTEN: {"effect": "allow", "obligations": {"arguments": NEW_ARGUMENTS}},
}

# With these the bytes of an allowed stream are still read alike by every client.
HARMLESS = [
    "azure_prompt_filter_first",
    "comments",
    "cr",
    "crlf",
    "empty_tool_calls_list",
    "finish_with_last_delta",
    "no_done",
    "no_space_after_data",
    "role_with_first_call",
    "tool_calls_null",
    "usage_in_finish_chunk",
    "whole_call_one_delta",
]
ODD = [
    "empty_id",
    "empty_id_later",
    "empty_name_later",
    "finish_null",
    "finish_stop",
    "interleaved",
    "missing_arguments",
    "missing_id",
    "missing_type",
    "multiline_data",
    "name_in_pieces",
    "name_repeated",
    "null_arguments",
    "null_id",
    "two_calls_one_delta",
    "two_finishes",
    "usage_without_choices",
    "utf16_cuts",
]

INDEXES = ["all_index_zero", "index_from_one", "missing_index", "negative_index", "null_index"]

TEXT = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def one_call(draw: st.DrawFn) -> Json:
    name = draw(st.sampled_from([ALLOWED, DENIED, REWRITTEN]))
    arguments = draw(st.dictionaries(TEXT, VALUES, max_size=3))
    if name == DENIED:
        arguments["secret"] = SECRET
    return {"name": name, "arguments": arguments}


@st.composite
def a_choice(draw: st.DrawFn) -> Json:
    choice: Json = {"calls": draw(st.lists(one_call(), max_size=4))}
    if draw(st.booleans()) or not choice["calls"]:
        choice["text"] = draw(TEXT)
    if draw(st.integers(0, 4)) == 0:
        choice["finish"] = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter", "eos"]))
    return choice


@st.composite
def a_case(draw: st.DrawFn, odd: bool = True) -> Json:
    deviations = draw(st.sets(st.sampled_from(HARMLESS + (ODD if odd else [])), max_size=4))
    if odd and draw(st.booleans()):
        deviations.add(draw(st.sampled_from(INDEXES)))
    if {"cr", "crlf"} <= deviations:
        deviations.discard("cr")
    choices = draw(st.lists(a_choice(), min_size=1, max_size=draw(st.sampled_from([1, 1, 2]))))
    turn = {
        **({"choices": choices} if len(choices) > 1 else choices[0]),
        "deviations": sorted(deviations),
        "chunk_chars": draw(st.integers(1, 30)),
    }
    return {
        "request": {"tools": [ALLOWED, DENIED, REWRITTEN], "n": len(choices)},
        "policy": POLICY,
        "upstream": [turn, {"text": "So be it."}],
    }


def forwarded(outcome: Outcome) -> list[DecisionRecord]:
    return [record for record in outcome.decisions if record.effect == "forward"]


def released(outcome: Outcome, stream: bool) -> list[tuple[str | None, str, str]]:
    """The calls that the client runs: every client the same ones."""
    # The SDK fails at a chunk without choices, which stands as it was where there is no call; and where
    # the provider begins with the second choice.
    turn = outcome.upstream.script.turns[0]
    fails = not outcome.decisions and "usage_without_choices" in turn.deviations
    fails = fails or (len(turn.all_choices) > 1 and "role_with_first_call" in turn.deviations)
    found = rebuilt(outcome.client.data, stream, sdk=not fails)
    first = next(iter(found.values()))
    for client, calls in found.items():
        assert calls == first, client
    return [call for _, calls in sorted(first.items()) for call in calls]


def check_promises(case: Json, outcome: Outcome, stream: bool) -> None:
    data = outcome.client.data
    assert outcome.exchange.outcome != "failed"
    going = forwarded(outcome)
    try:
        calls = released(outcome, stream) if outcome.client.status == 200 else []
    except Failed:
        calls, going = [], []
        assert b'finish_reason":"' not in data.rpartition(b'"error"')[2]
    # Forwarded is exactly what was judged to go on, with exactly the arguments of its record.
    assert [(call[0], call[1]) for call in calls] == [(r.call_id, r.tool) for r in going]
    assert [json.loads(call[2]) for call in calls] == [r.arguments_forwarded for r in going]
    # Of a refused call nothing is told: not its id, its name or its arguments.
    for record in outcome.decisions:
        assert record.effect == "forward" or record.call_id.encode() not in data
    # One of several choices ends with the proxy's own words, which may name the tool.
    assert case["request"]["n"] > 1 or DENIED.encode() not in data
    assert SECRET.encode() not in data


@given(case=a_case(), cuts=st.lists(st.integers(0, 2**16), max_size=6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_a_stream_keeps_every_promise(case: Json, cuts: list[int]) -> None:
    outcome = await run(case, stream=True)
    check_promises(case, outcome, stream=True)
    cut = await run(case, stream=True, cuts=cuts or None)
    assert cut.comparable() == outcome.comparable()


@given(case=a_case())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_a_body_keeps_every_promise(case: Json) -> None:
    check_promises(case, await run(case, stream=False), stream=False)


@given(case=a_case(odd=False), stream=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_what_is_canonical_and_allowed_is_verbatim(case: Json, stream: bool) -> None:
    """Every other change is one to what clients would have read anyway."""
    for at, choice in enumerate(case["upstream"][0].get("choices", case["upstream"][:1])):
        choice["calls"] = [
            {"name": ALLOWED, "arguments": {**one["arguments"], "n": 10 * at + n}}
            for n, one in enumerate(choice["calls"])
        ]
        choice.pop("finish", None)
    outcome = await run(case, stream)
    assume(all(record.guard != "loop" for record in outcome.decisions))
    assert all(record.verdict == "Allow" for record in outcome.decisions)
    assert outcome.client.data == outcome.upstream.sent[0]


# -- fuzzing --------------------------------------------------------------------------------------

KEYS = [
    "choices",
    "index",
    "delta",
    "message",
    "tool_calls",
    "function_call",
    "id",
    "type",
    "function",
    "custom",
    "name",
    "arguments",
    "input",
    "content",
    "role",
    "finish_reason",
    "usage",
    "error",
]
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "x", "call_1", "stop", "tool_calls", "length", "{}", '{"a":', "\ud83d", "\ude00"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
PIECE = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 0, 0, 1, 1, 2, None, -1, True, "0"]),
        "id": st.sampled_from(["call_1", "call_1", "call_2", "call_3", "", None, 7]),
        "type": st.sampled_from(["function", "function", "custom", "", None]),
        "function": st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["f", "f", "g", "", None, 1]),
                "arguments": st.sampled_from(["", "{", "}", "{}", '{"a":1}', '{"a":', "1}", None, {}, " "]),
            },
        ),
        "custom": st.fixed_dictionaries(
            {}, optional={"name": st.sampled_from(["f", "s"]), "input": st.sampled_from(["", "ls", " -r"])}
        ),
        "extra_content": st.just({"x": 1}),
    },
)
DELTA = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.sampled_from(["text", "", None, "\ud83d"]),
        "tool_calls": st.lists(PIECE, max_size=2),
        "function_call": PIECE.map(lambda piece: piece.get("function")),
    },
)
CHOICE = st.fixed_dictionaries(
    {"delta": DELTA},
    optional={
        "index": st.sampled_from([0, 0, 0, 1]),
        "finish_reason": st.sampled_from([None, None, None, "", "stop", "tool_calls", "length"]),
        "message": DELTA,
        "logprobs": st.none(),
    },
)
CHUNK = st.fixed_dictionaries(
    {"choices": st.lists(CHOICE, max_size=2)},
    optional={
        "id": st.sampled_from(["c1", ""]),
        "usage": st.sampled_from([None, {"prompt_tokens": 1}]),
        "error": st.sampled_from([None, {}, {"message": "no"}]),
    },
)
FRAME = st.one_of(
    CHUNK.map(lambda wire: b"data: " + json.dumps(wire).encode()),
    CHUNK.map(
        lambda wire: (
            b"data: " + json.dumps(wire, ensure_ascii=True, indent=1).replace("\n", "\ndata: ").encode()
        )
    ),
    JUNK.map(lambda wire: b"data: " + json.dumps(wire).encode()),
    st.sampled_from([b": comment", b"event: error", b"data: [DONE]", b"data:", b"", b"id: 1", b"data: {"]),
)


def check_release(data: bytes, stream: bool, allow: list[bool]) -> None:
    """Decode, let some calls go on, and compare what clients find with what was let go."""
    read = Read(data, stream)
    if read.fault is not None or read.failure is not None:
        passed = b"".join(passage.raw for passage in read.passages)
        passed += read.failure.raw if read.failure else b""
        assert loosely_found(passed, stream)[0] == set(), "a call got out of an answer without a clean end"
        return
    goes = [one.fault is None and go for one, go in zip(read.calls, allow + [True] * 99, strict=False)]
    going = {(one.name, one.arguments_json) for one, go in zip(read.calls, goes, strict=True) if go}
    found, is_read = loosely_found(written(read, stream, goes), stream)
    assert found == going if is_read else found <= going


def loosely_found(data: bytes, stream: bool) -> tuple[set[tuple[str, str]], bool]:
    """What clients find, and whether they can read the answer at all: one that breaks runs nothing."""
    try:
        found = rebuilt(data, stream, sdk=False)
    except (Failed, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return (loosely_put_together(data) if stream else set()), False
    calls = [call for by_choice in found.values() for calls in by_choice.values() for call in calls]
    return {(name, arguments) for _, name, arguments in calls}, True


def loosely_put_together(data: bytes) -> set[tuple[str, str]]:
    """What a client that takes anything would find, event by event."""
    calls: dict[Any, list[str]] = {}
    try:
        for wire in by_events(data):
            for choice in (
                wire.get("choices") or [] if isinstance(wire, dict) and not wire.get("error") else []
            ):
                delta = choice.get("delta") or {}
                pieces = [(choice.get("index", 0), p.get("index"), p) for p in delta.get("tool_calls") or []]
                if delta.get("function_call"):
                    pieces.append((choice.get("index", 0), "legacy", {"function": delta["function_call"]}))
                for *key, piece in pieces:
                    body = piece.get("function") or piece.get("custom") or {}
                    call = calls.setdefault(tuple(key), ["", ""])
                    call[0] += body.get("name") or ""
                    call[1] += body.get("arguments", body.get("input")) or ""
    except ValueError:
        pass  # an event that is no JSON: what was found before it counts
    return {(name, arguments) for name, arguments in calls.values()}


@given(
    frames=st.lists(FRAME, max_size=7),
    done=st.booleans(),
    allow=st.lists(st.booleans(), max_size=4),
)
@settings(max_examples=200, deadline=None)
@example(frames=[], done=True, allow=[])
def test_no_stream_gets_an_unjudged_call_past_the_codec(
    frames: list[bytes], done: bool, allow: list[bool]
) -> None:
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n'
    check_release(b"".join(frame + b"\n\n" for frame in frames) + (end if done else b""), True, allow)


@given(wire=CHUNK | JUNK, allow=st.lists(st.booleans(), max_size=4))
@settings(max_examples=100, deadline=None)
def test_no_body_gets_an_unjudged_call_past_the_codec(wire: Any, allow: list[bool]) -> None:
    if isinstance(wire, dict) and isinstance(wire.get("choices"), list):
        for choice in wire["choices"]:
            if isinstance(choice, dict) and "delta" in choice and "message" not in choice:
                choice["message"] = choice.pop("delta")
    check_release(json.dumps(wire).encode(), False, allow)


@given(
    case=a_case(),
    stream=st.booleans(),
    changes=st.lists(
        st.tuples(st.integers(0, 2**16), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=4
    ),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_no_damage_gets_an_unjudged_call_past_the_codec(
    case: Json, stream: bool, changes: list[tuple[int, int, bytes]]
) -> None:
    """Bytes of a valid answer are lost, replaced or added."""
    outcome = await run(case, stream)
    data = outcome.upstream.sent[0]
    for at, removed, added in changes:
        at %= len(data) + 1
        data = data[:at] + added + data[at + removed :]
    check_release(data, stream, [True, False, True])
