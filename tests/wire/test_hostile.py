"""Answers that have no safe reading: nothing unjudged gets out of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.wire.codec import IncompleteTurn, MalformedTurn
from tests.wire.answers import END, EVIL, GOOD, HEAD, Read, body, call, calls, chunk, event, spelled, stream


def doubled(key: str, first: Any, second: Any, **extra: Any) -> bytes:
    """A choice whose delta names a key twice."""
    delta = f'{{"{key}": {json.dumps(first)}, "{key}": {json.dumps(second)}}}'
    head = json.dumps({**HEAD, **extra})[:-1]
    return event(f'{head}, "choices": [{{"index": 0, "delta": {delta}, "finish_reason": null}}]}}'.encode())


# Streams that have no safe reading: what is wrong, and the words of the fault.
NO_READING: dict[str, tuple[bytes, str]] = {
    "a call after the end of its choice": (stream(END, chunk(calls(EVIL))), "after its choice had finished"),
    "a legacy call after the end": (
        stream(END, chunk({"function_call": {"name": "evil", "arguments": "{}"}})),
        "after its choice had finished",
    ),
    "a call in the message of a chunk": (
        stream(event({**HEAD, "choices": [{"index": 0, "delta": {}, "message": calls(EVIL)}]}), END),
        "outside the place",
    ),
    "a legacy call in the message of a chunk": (
        stream(
            event({**HEAD, "choices": [{"index": 0, "message": {"function_call": {"name": "evil"}}}]}), END
        ),
        "outside the place",
    ),
    "tool_calls twice": (stream(doubled("tool_calls", [EVIL], [call()]), END), "names a key twice"),
    "tool_calls twice, the second null": (
        stream(doubled("tool_calls", [EVIL], None), END),
        "names a key twice",
    ),
    "tool_calls twice, once with an escape": (
        stream(
            spelled(
                doubled("tool_calls", [EVIL], None), b'"tool_calls": [', rb'"tool_c' + b"\\u0061" + b'lls": ['
            ),
            END,
        ),
        "names a key twice",
    ),
    "tool_calls twice, both with escapes": (
        stream(
            spelled(doubled("tool_calls", [EVIL], None), b"tool_calls", rb"tool_\u0063alls"),
            END,
        ),
        "names a key twice",
    ),
    "choices twice": (
        stream(
            event(
                json.dumps({"choices": [{"delta": calls(EVIL)}]}).encode()[:-1]
                + b', "choices": [{"index": 0, "delta": {"content": "x"}}]}'
            ),
            END,
        ),
        "names a key twice",
    ),
    "the arguments twice": (
        stream(spelled(GOOD, b'"arguments": "{}"', b'"arguments": "{}", "arguments": "{1}"'), END),
        "names a key twice",
    ),
    "tool_calls in another case": (
        stream(spelled(chunk(calls(EVIL)), b"tool_calls", b"Tool_Calls"), END),
        "only some clients read",
    ),
    "tool_calls beside tool_calls in another case": (
        stream(chunk({"Tool_calls": [EVIL], **calls(call())}), END),
        "only some clients read",
    ),
    "choices in another case": (
        stream(spelled(chunk(calls(EVIL)), b'"choices"', b'"Choices"'), END),
        "only some clients read",
    ),
    "a key that folds to tool_calls": (
        stream(spelled(chunk(calls(EVIL)), b"tool_calls", "tool_call\u017f".encode()), END),
        "only some clients read",
    ),
    "the name in another case": (
        stream(spelled(GOOD, b'"name": "f"', b'"name": "f", "Name": "evil"'), END),
        "only some clients read",
    ),
    "the function in another case": (
        stream(chunk(calls({**call(), "Function": {"name": "evil"}})), END),
        "only some clients read",
    ),
    "a legacy name in another case": (
        stream(chunk({"function_call": {"name": "f", "NAME": "evil", "arguments": "{}"}}), END),
        "only some clients read",
    ),
    "choices are an object": (stream(event({**HEAD, "choices": {"0": {}}})), "choices is not a list"),
    "choices are text": (stream(event({**HEAD, "choices": "x"})), "choices is not a list"),
    "a choice is null": (stream(event({**HEAD, "choices": [None]})), "a choice is not an object"),
    "a choice is a number": (stream(event({**HEAD, "choices": [1]})), "a choice is not an object"),
    "a delta is a list": (stream(chunk([EVIL])), "a delta is not an object"),
    "a delta is text": (stream(chunk("x")), "a delta is not an object"),
    "tool_calls is an object": (stream(chunk({"tool_calls": EVIL})), "tool_calls is not a list"),
    "tool_calls is text": (stream(chunk({"tool_calls": "x"})), "tool_calls is not a list"),
    "a call is text": (stream(chunk(calls("x"))), "a tool call is not an object"),
    "a function is a list": (stream(chunk(calls({"index": 0, "function": [1]}))), "body of a tool call"),
    "a legacy call is text": (stream(chunk({"function_call": "x"})), "function_call is not an object"),
    "a message is a list": (stream(event({"choices": [{"message": [1]}]})), "a message is not an object"),
    "the index of a choice is text": (stream(chunk({}, index="0")), "index of a choice"),
    "the index of a choice is true": (stream(chunk({}, index=True)), "index of a choice"),
    "the index of a choice is null": (stream(chunk({}, index=None)), "index of a choice"),
    "a finish reason is a list": (stream(chunk(finish=["stop"])), "finish reason"),
    "a finish reason is true": (stream(chunk(finish=True)), "finish reason"),
    "an event is a list": (stream(event([1])), "an event is not an object"),
    "an event is a number": (stream(event(b"1")), "an event is not an object"),
    "an event is cut-off JSON": (stream(GOOD[:-9] + b"\n\n", END), "not valid JSON"),
    "an event is NaN": (stream(event(b'{"a": NaN}')), "NaN"),
    "an event is nested too deeply": (stream(event(b'{"a":' + b"[" * 99_999)), "nested too deeply"),
    "an event with a call is nested too deeply": (
        stream(
            spelled(GOOD, b'"id": "call_1"', b'"id": "call_1", "x": ' + b"[" * 1010 + b"]" * 1010),
            END,
        ),
        "",
    ),
    "an event is not UTF-8": (stream(event(b'{"a": "\xff"}')), "not valid JSON"),
    "a call in UTF-16": (
        b"data: " + json.dumps({"choices": [{"delta": calls(EVIL)}]}).encode("utf-16-le") + b"\n\n",
        "not UTF-8",
    ),
    "half of a surrogate pair as bytes": (
        stream(spelled(GOOD, b'"f"', b'"f\xed\xa0\xbd"'), END),
        "not UTF-8",
    ),
    "an end mark with something after it": (b"data: [DONE] x\n\n", "not valid JSON"),
    "an event within a line of an event": (
        b'data: {"x":\ndata: '
        + json.dumps({"choices": [{"delta": calls(EVIL)}]}).encode()
        + b"\ndata: }\n\n",
        "an event by itself",
    ),
    "several events in one": (
        b"data: {}\ndata: " + json.dumps({"choices": [{"delta": calls(EVIL)}]}).encode() + b"\n\n",
        "not valid JSON",
    ),
}


@pytest.mark.parametrize(("data", "words"), NO_READING.values(), ids=NO_READING)
def test_what_has_no_safe_reading_releases_nothing(data: bytes, words: str) -> None:
    read = Read(data)
    assert type(read.fault) is MalformedTurn
    assert words in str(read.fault)
    assert read.failure is None
    assert b"evil" not in b"".join(passage.raw for passage in read.passages)
    bytewise = Read(data, cuts=range(len(data))) if len(data) < 5000 else read
    assert str(bytewise.fault) == str(read.fault)
    assert b"".join(p.raw for p in bytewise.passages) == b"".join(p.raw for p in read.passages)


# Bodies that have no safe reading.
BODIES: dict[str, tuple[bytes, str]] = {
    "a call in a delta": (
        json.dumps({"choices": [{"index": 0, "message": {}, "delta": calls(EVIL)}]}).encode(),
        "outside the place",
    ),
    "a delta is a list": (json.dumps({"choices": [{"delta": [EVIL]}]}).encode(), "a delta is not an object"),
    "two choices with one index": (
        json.dumps({"choices": [{"index": 0, "message": calls(EVIL)}, {"index": 0, "message": {}}]}).encode(),
        "two choices have the same index",
    ),
    "two choices without an index": (
        json.dumps({"choices": [{"message": {}}, {"message": calls(EVIL)}]}).encode(),
        "two choices have the same index",
    ),
    "two calls with one id": (body(calls(call(), call(name="evil"))), "two calls have the same id"),
    "tool_calls twice": (
        spelled(body(calls(call())), b'"tool_calls": [', b'"tool_calls": null, "tool_calls": ['),
        "names a key twice",
    ),
    "tool_calls in another case": (
        spelled(body(calls(EVIL)), b"tool_calls", b"TOOL_CALLS"),
        "only some clients read",
    ),
    "a message is text": (json.dumps({"choices": [{"message": "x"}]}).encode(), "a message is not an object"),
    "a call is null": (body({"tool_calls": [None]}), "a tool call is not an object"),
    "a list": (b"[]", "the answer is not an object"),
    "not JSON": (b"<html>", "the answer is not valid JSON"),
    "a finish reason is an object": (body({"content": "x"}, finish={}), "finish reason"),
    "UTF-16": (body(calls(EVIL)).decode().encode("utf-16-le"), "not UTF-8"),
}


@pytest.mark.parametrize(("data", "words"), BODIES.values(), ids=BODIES)
def test_a_body_without_a_safe_reading_releases_nothing(data: bytes, words: str) -> None:
    read = Read(data, stream=False)
    assert type(read.fault) is MalformedTurn
    assert words in str(read.fault)


@pytest.mark.parametrize("data", [b"", b"  \n"])
def test_an_empty_body_is_incomplete(data: bytes) -> None:
    assert isinstance(Read(data, stream=False).fault, IncompleteTurn)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        chunk({"content": "x"}),
        GOOD,
        stream(GOOD, done=False),
        chunk(calls(call()), finish="tool_calls") + chunk({"content": "x"}, index=1),
        event({**HEAD, "choices": [], "usage": {"prompt_tokens": 1}}),
        b": only a comment\n\n",
    ],
)
def test_a_stream_that_was_cut_is_incomplete(data: bytes) -> None:
    assert isinstance(Read(data).fault, IncompleteTurn)
