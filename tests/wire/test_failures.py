"""Errors of the provider in mid-answer, and the caps on what is read and held."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.wire.codec import Caps
from tests.wire.answers import (
    DONE,
    END,
    EVIL,
    GOOD,
    HEAD,
    Read,
    body,
    call,
    calls,
    chunk,
    event,
    more,
    spelled,
    stream,
    whole,
)
from tests.wire.clients import Failed, rebuilt

# -- errors of the provider -----------------------------------------------------------------------

ERROR = {"error": {"message": "overloaded", "code": "x"}}
CHUNK_WITH_CALL = {**HEAD, "choices": [{"index": 0, "delta": calls(EVIL), "finish_reason": "tool_calls"}]}
FAILURES: dict[str, tuple[bytes, str, bool]] = {
    "as data": (event(ERROR), "overloaded", True),
    "as an event": (b"event: error\n" + event(ERROR), "overloaded", True),
    "as text": (event({"error": "overloaded"}), "overloaded", True),
    "as an event with a message": (b"event: error\n" + event({"message": "overloaded"}), "overloaded", True),
    "as an event without words": (b"event: error\n" + event({}), "reported an error", True),
    "beside a choice without a call (OpenRouter)": (
        event(
            {**HEAD, **ERROR, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}
        ),
        "overloaded",
        True,
    ),
    "beside a call": (event({**ERROR, **CHUNK_WITH_CALL}), "overloaded", False),
    "beside a call, spelled with escapes": (
        spelled(event({**ERROR, **CHUNK_WITH_CALL}), b"tool_calls", b"tool_c\\u0061lls"),
        "overloaded",
        False,
    ),
    "beside a call, in another case": (
        spelled(event({**ERROR, **CHUNK_WITH_CALL}), b"tool_calls", b"Tool_Calls"),
        "overloaded",
        False,
    ),
    "a chunk with a call, named an error": (
        b"event: error\n" + event(CHUNK_WITH_CALL),
        "reported an error",
        False,
    ),
}


@pytest.mark.parametrize(("frame", "message", "verbatim"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("before", [b"", chunk({"content": "x"}), GOOD])
def test_an_error_in_mid_stream_ends_the_answer(
    frame: bytes, message: str, verbatim: bool, before: bytes
) -> None:
    read = Read(before + frame + chunk(calls(EVIL)) + END + DONE)
    assert read.failure is not None
    assert message in read.failure.message
    assert (read.failure.raw == frame) is verbatim
    assert b"evil" not in read.failure.raw
    assert b"".join(p.raw for p in read.passages) == (before if before != GOOD else b"")
    json.loads(read.failure.raw.split(b"data: ")[1])


@pytest.mark.parametrize("wire", [ERROR, {**ERROR, "choices": None}, {**ERROR, "choices": []}])
def test_a_body_may_be_an_error(wire: dict[str, Any]) -> None:
    data = json.dumps(wire).encode()
    read = Read(data, stream=False)
    assert read.failure is not None
    assert (read.failure.raw, read.failure.message) == (data, "overloaded")


def test_a_body_that_is_an_error_carries_no_call() -> None:
    data = json.dumps({**ERROR, "Choices": CHUNK_WITH_CALL["choices"]}).encode()
    read = Read(data, stream=False)
    assert read.failure is not None
    assert json.loads(read.failure.raw) == ERROR


def test_a_body_with_an_error_and_an_answer_is_an_answer() -> None:
    read = Read(body(calls(call()), error={"message": "partly"}), stream=False)
    assert [one.name for one in read.calls] == ["f"]


# -- caps -----------------------------------------------------------------------------------------


def test_calls_are_bounded() -> None:
    caps = Caps(max_calls=2)
    data = whole(*(call(id=f"c{n}", index=n) for n in range(3)))
    assert "more than 2 calls" in str(Read(data, caps=caps).fault)
    assert "more than 2 calls" in str(
        Read(body(calls(*(call(id=f"c{n}") for n in range(3)))), False, caps=caps).fault
    )
    assert Read(whole(call(id="a"), call(id="b", index=1)), caps=caps).calls
    legacy = stream(
        chunk(calls(call(id="a"), call(id="b", index=1))), chunk({"function_call": {"name": "f"}})
    )
    assert "more than 2 calls" in str(Read(legacy, caps=caps).fault)


def test_choices_are_bounded() -> None:
    data = stream(*(chunk({"content": "x"}, index=n) for n in range(3)))
    assert "more than 2 choices" in str(Read(data, caps=Caps(max_calls=2)).fault)


def test_what_is_held_is_bounded() -> None:
    data = whole(call('{"a":"'), *(more("x" * 50) for _ in range(20)), more('"}'))
    assert Read(data).calls
    assert "limits.max_held_bytes" in str(Read(data, caps=Caps(max_held_bytes=1000)).fault)


@pytest.mark.parametrize("step", [1, 64, 10_000])
def test_an_event_is_bounded(step: int) -> None:
    data = stream(chunk({"content": "before"}), chunk({"content": "x" * 2000}))
    read = Read(data, cuts=range(0, len(data), step), caps=Caps(max_event_bytes=1000))
    assert "limits.max_event_bytes" in str(read.fault)
    assert "".join(passage.text for passage in read.passages) == "before"


def test_an_event_beyond_the_cap_after_the_end_is_no_part_of_the_answer() -> None:
    data = stream(chunk({"content": "x"}, "stop")) + b"data: " + b"x" * 2000
    assert Read(data, caps=Caps(max_event_bytes=1000)).fault is None


@pytest.mark.parametrize("step", [1, 64, 10_000])
def test_a_stream_is_bounded(step: int) -> None:
    frame = chunk({"content": "x"})
    data = stream(*[frame] * 20)
    read = Read(data, cuts=range(0, len(data), step), caps=Caps(max_response_bytes=5 * len(frame)))
    assert "limits.max_response_bytes" in str(read.fault)
    assert b"".join(passage.raw for passage in read.passages) == frame * 5


@pytest.mark.parametrize("step", [64, 10_000])
def test_a_body_is_bounded(step: int) -> None:
    data = body({"content": "x" * 2000}, "stop")
    read = Read(data, stream=False, cuts=range(0, len(data), step), caps=Caps(max_response_bytes=1000))
    assert "limits.max_response_bytes" in str(read.fault)


def test_a_failed_client_is_told_apart() -> None:
    with pytest.raises(Failed):
        rebuilt(event(ERROR), stream=True)
    with pytest.raises(Failed):
        rebuilt(json.dumps(ERROR).encode(), stream=False, sdk=False)
