"""Events of the Messages API that only some clients read alike."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.model import Failure, Passage
from proxy.wire.codec import LEAST_BYTES, Caps, MalformedTurn
from proxy.wire.messages import MessagesCodec

Json = dict[str, Any]


def named(wire: Json, fold: bytes = b"") -> bytes:
    data = json.dumps(wire).encode().replace(fold, b"\ndata: " + fold) if fold else json.dumps(wire).encode()
    return b"event: " + str(wire["type"]).encode() + b"\ndata: " + data + b"\n\n"


START = named({"type": "message_start", "message": {"id": "m", "model": "m", "content": [], "usage": {}}})
CALL = {
    "type": "content_block_start",
    "index": 0,
    "content_block": {"type": "tool_use", "id": "c", "name": "evil", "input": {}},
}
TEXT = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
PIECE = {
    "type": "content_block_delta",
    "index": 0,
    "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'},
}
STOP: Json = {"type": "content_block_stop", "index": 0}
END = named({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}) + named({"type": "message_stop"})


def told(data: bytes) -> bytes:
    decoder, encoder = MessagesCodec().decoder(True, Caps()), MessagesCodec().encoder(True)
    out = b"".join(encoder.passage(one) for one in decoder.feed(data) if isinstance(one, Passage))
    try:
        _, turn = decoder.close()
    except MalformedTurn:
        return out
    return out + encoder.release(turn, [call.arguments_json for call in turn.calls], {})


@pytest.mark.parametrize("around", [{"type": "ping"}, TEXT])
def test_a_line_of_an_event_is_no_event_by_itself(around: Json) -> None:
    first = json.dumps({**around, "x": [0]}).removesuffix("0]}")
    lines = f"event: {around['type']}\ndata: {first}\ndata: {json.dumps(CALL)}\ndata: ]}}\n\n"
    assert told(START + lines.encode() + END) == START


def test_a_call_in_lines_is_written_again_in_one() -> None:
    whole = b"".join((START, named(CALL), named(PIECE), named(STOP), END))
    assert told(whole) == whole
    for folded in (named(CALL, b'"content_block": '), named(PIECE, b'"delta": ')):
        data = whole.replace(named(CALL if b"evil" in folded else PIECE), folded)
        assert data != whole
        assert not any(line.startswith(b'data: "') for line in told(data).splitlines())


def test_the_end_of_a_block_may_hold_anything() -> None:
    data = START + named(TEXT) + named({**STOP, "delta": True}) + END.replace(b"tool_use", b"end_turn")
    assert told(data) == data


def test_frames_that_say_nothing_are_not_held_without_end() -> None:
    decoder = MessagesCodec().decoder(True, Caps(max_held_bytes=100 * LEAST_BYTES))
    decoder.feed(START + named(CALL) + b":\n\n" * 50)
    assert not decoder.done
    decoder.feed(b":\n\n" * 60)
    assert decoder.done


def test_an_error_in_any_words_is_an_error() -> None:
    decoder = MessagesCodec().decoder(True, Caps())
    deep = b"[" * 1010 + b"]" * 1010
    (_, failure) = decoder.feed(START + b'event: error\ndata: {"type":"error","error":' + deep + b"}\n\n")
    assert isinstance(failure, Failure)
    assert failure.message == "the provider reported an error"
