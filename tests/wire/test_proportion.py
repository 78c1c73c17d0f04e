"""Bytes of a provider's take time and memory in proportion to their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import ToolCall
from proxy.wire.chat.calls import Building
from proxy.wire.codec import LEAST_BYTES, Caps
from tests.core.protocols import PROTOCOLS
from tests.wire.answers import END, HEAD, Read, call, calls, chunk, event, stream

Json = dict[str, Any]


def named(arguments: str) -> bytes:
    """A piece of a call of which only the name is told, as some servers repeat it in each."""
    return chunk(calls({"function": {"name": "f", "arguments": arguments}}))


def test_arguments_in_pieces_are_not_parsed_anew_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    parse = ToolCall.parse

    def counted(id: str, name: str, text: str, *more: Any) -> ToolCall:
        parsed.append(len(text))
        return parse(id, name, text, *more)

    monkeypatch.setattr(ToolCall, "parse", counted)
    pieces = [named('{"a":[{}'), *[named(",{}")] * 300, named("]}")]
    read = Read(stream(*pieces, END))
    assert [c.arguments_json for c in read.calls] == ['{"a":[{}' + ",{}" * 300 + "]}"]
    assert len(parsed) == 1


def test_arguments_that_end_twice_are_not_parsed_anew_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    parse = ToolCall.parse

    def counted(id: str, name: str, text: str, *more: Any) -> ToolCall:
        parsed.append(len(text))
        return parse(id, name, text, *more)

    monkeypatch.setattr(ToolCall, "parse", counted)
    read = Read(stream(*[named("{x}")] * 300, END))
    assert len(read.calls) == 1
    assert len(parsed) <= 3


PIECES = [
    "{",
    "}",
    "[",
    "]",
    '"',
    "\\",
    '\\"',
    "a",
    ":",
    ",",
    "1",
    " ",
    '{"a":1}',
    '"a":',
    "\\\\",
    "\ud83d",
    "}}",
]


def complete(text: str) -> bool:
    return text.rstrip().endswith("}") and ToolCall.parse("", "", text.rstrip()).fault is None


@given(
    begin=st.sampled_from(["", "{", '{"a":', '{"a":"', '{"a":{"b":"\\']),
    pieces=st.lists(st.sampled_from(PIECES), max_size=8),
    asked=st.lists(st.booleans(), min_size=10, max_size=10),
)
def test_whether_arguments_are_whole_is_what_a_parser_says(
    begin: str, pieces: Sequence[str], asked: list[bool]
) -> None:
    building = Building(None)
    for piece, asks in zip([begin, *pieces], asked, strict=False):
        building.take_arguments(piece)
        if asks:
            whole = complete(building.arguments_json)
            assert building.is_complete() is whole
            if whole:
                break  # what follows is another call


CALLS: dict[str, bytes] = {
    "chat": chunk(calls(call("{"))),
    "responses": b'data: {"type":"response.created","response":{"id":"r","output":[]}}\n\n'
    b'data: {"type":"response.output_item.added","output_index":0,"item":{"type":"function_call",'
    b'"id":"f","call_id":"c","name":"f","arguments":""}}\n\n',
}


@pytest.mark.parametrize("frame", [b"\n\n", b":\n\n", b"\r\r", b"id\n\n"])
@pytest.mark.parametrize("protocol", CALLS)
def test_frames_that_say_nothing_are_not_held_without_end(protocol: str, frame: bytes) -> None:
    """Each takes far more memory than its bytes."""
    caps = Caps(max_held_bytes=100 * LEAST_BYTES)
    decoder = PROTOCOLS[protocol].codec.decoder(True, caps)
    decoder.feed(CALLS[protocol])
    assert decoder.holding
    decoder.feed(frame * 50 + b":\n\n")
    assert not decoder.done
    decoder.feed(frame * 60 + b":\n\n")
    assert decoder.done


def test_frames_that_say_nothing_are_not_read_without_end() -> None:
    caps = Caps(max_response_bytes=1000 * LEAST_BYTES)
    decoder = PROTOCOLS["chat"].codec.decoder(True, caps)
    decoder.feed(b":\n\n" * 990)
    assert not decoder.done
    decoder.feed(b":\n\n" * 20)
    assert decoder.done


def test_longer_frames_count_for_what_they_are() -> None:
    frame = event({**HEAD, "choices": [], "x": "x" * LEAST_BYTES})
    caps = Caps(max_response_bytes=10 * len(frame))
    decoder = PROTOCOLS["chat"].codec.decoder(True, caps)
    decoder.feed(frame * 10)
    assert not decoder.done
    decoder.feed(b":\n\n")
    assert decoder.done
