"""Lines and frames in which some client finds an event that the standard's reading does not have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model import Failure, Passage
from proxy.wire import sse
from proxy.wire.codec import Caps, MalformedTurn
from proxy.wire.responses import ResponsesCodec
from proxy.wire.sse import SseDecoder
from tests.core.protocols import PROTOCOLS
from tests.wire.answers import DONE, END, EVIL, Read, call, calls, chunk, event, more, stream, written
from tests.wire.clients import rebuilt

Json = dict[str, Any]


def named(wire: Json) -> bytes:
    return b"event: " + str(wire["type"]).encode() + b"\ndata: " + json.dumps(wire).encode() + b"\n\n"


ITEM = {"type": "function_call", "id": "fc", "call_id": "c", "name": "evil", "arguments": "{}"}
RESPONSE = {"id": "r", "object": "response", "status": "completed", "output": []}
CREATED = named({"type": "response.created", "response": {**RESPONSE, "status": "in_progress"}})
COMPLETED = named({"type": "response.completed", "response": RESPONSE})
DONE_ITEM = {"type": "response.output_item.done", "output_index": 0, "item": ITEM}
MESSAGE = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m", "usage": {}}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "evil"}}

ANSWERS: dict[str, tuple[bytes, Json, bytes]] = {
    "chat": (
        chunk({"role": "assistant", "content": "Hi"}),
        {"choices": [{"index": 0, "delta": calls(EVIL)}]},
        chunk(finish="stop") + DONE,
    ),
    "responses": (CREATED, DONE_ITEM, COMPLETED),
    "messages": (
        named({"type": "message_start", "message": MESSAGE}),
        BLOCK,
        named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
        + named({"type": "message_stop"}),
    ),
}
"""By protocol: how an answer begins, a call, how it ends."""
BREAKS = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
LINES = [": x", "id: x", "retry: 1", "event: x", ":"]
PAYLOADS = {
    "chat": {"choices": []},
    "responses": {"type": "response.in_progress", "response": {}},
    "messages": {"type": "ping"},
}


def told(protocol: str, data: bytes) -> bytes:
    """What goes on at once and at the end; raises ``MalformedTurn``."""
    codec = PROTOCOLS[protocol].codec
    decoder, encoder = codec.decoder(True, Caps()), codec.encoder(True)
    out = b""
    for one in decoder.feed(data):
        if isinstance(one, Failure):
            return out + one.raw
        out += encoder.passage(one)
    try:
        events, turn = decoder.close()
    except MalformedTurn:
        return out
    out += b"".join(encoder.passage(one) for one in events if isinstance(one, Passage))
    end: bytes = encoder.release(turn, [None] * len(turn.slots), {0: "No."})
    return out + end


def by_iter_lines(data: bytes) -> Iterator[str]:
    """As httpx cuts a stream into lines."""
    for line in httpx.Response(200, content=data).iter_lines():
        if line.startswith("data:"):
            yield line.removeprefix("data:")


@pytest.mark.parametrize("alone", [True, False], ids=["an event of its own", "beside data"])
@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("end", BREAKS, ids=ascii)
@pytest.mark.parametrize("protocol", ANSWERS)
def test_a_line_without_data_hides_no_event(protocol: str, end: str, line: str, alone: bool) -> None:
    begin, wire, close = ANSWERS[protocol]
    hiding = f"{line}{end}data: {json.dumps(wire)}\n".encode()
    beside = b"\n" if alone else b"data: " + json.dumps(PAYLOADS[protocol]).encode() + b"\n\n"
    assert any("evil" in data for data in by_iter_lines(begin + hiding + beside + close))
    out = told(protocol, begin + hiding + beside + close)
    assert out == begin
    assert not any("evil" in data for data in by_iter_lines(out))


@pytest.mark.parametrize("protocol", ANSWERS)
def test_a_comment_hides_no_event_from_those_that_look_for_data_anywhere(protocol: str) -> None:
    begin, wire, close = ANSWERS[protocol]
    hiding = b": data: " + json.dumps(wire).encode() + b"\n\n"
    assert told(protocol, begin + hiding + close) == begin


def test_an_event_in_pieces_is_hidden_no_better() -> None:
    """Clients that join lines of data would put the call together around the one that is there."""
    begin, _, close = ANSWERS["chat"]
    lines = [': \u2028data: {"choices":[{"index":0,"delta":', "data: " + json.dumps(calls(EVIL))]
    hiding = "\n".join([*lines, ": \u2028data: }]}", "", ""]).encode()
    assert told("chat", begin + hiding + close) == begin


@pytest.mark.parametrize("protocol", ANSWERS)
@pytest.mark.parametrize(
    "line", [": OPENROUTER PROCESSING", ": ping {}", "id: 7", "retry: 10", ": data: none", ": é…"]
)
def test_lines_that_hide_nothing_go_on_as_they_are(protocol: str, line: str) -> None:
    begin, _, close = ANSWERS[protocol]
    data = begin + f"{line}\n\n".encode() + close
    assert told(protocol, data) == data


def test_names_of_events_are_remembered_within_bounds() -> None:
    decoder = SseDecoder(1 << 20)
    for at in range(1000):
        (frame,) = decoder.feed(b"event: a.name.of.%d\ndata: x\n\n" % at)
        assert (frame.event, frame.data) == (b"a.name.of.%d" % at, b"x")
    (frame,) = decoder.feed(b"event: " + b"n" * 5000 + b"\ndata: x\n\n")
    assert (frame.event, frame.data) == (b"n" * 5000, b"x")
    assert len(sse._names) <= 256
    assert max(map(len, sse._names)) <= 64


# -- events of the Responses API ----------------------------------------------------------------

DELTA = {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "fc", "delta": "x"}
ARGUMENTS = {"type": "response.function_call_arguments.done", "output_index": 0, "item_id": "fc"}
FAILED = {"type": "response.failed", "response": {**RESPONSE, "error": {"message": "no"}}}
ERRORS: dict[str, bytes] = {
    "an error that is an item": b"event: error\ndata: " + json.dumps(DONE_ITEM).encode(),
    "an error that is named as an item": b"event: response.output_item.done\ndata: "
    + json.dumps({**DONE_ITEM, "type": "error"}).encode(),
    "an error that is named as a fragment": b"event: response.function_call_arguments.delta\ndata: "
    + json.dumps({**DELTA, "type": "error"}).encode(),
    "an error beside an item": b"data: " + json.dumps({**DONE_ITEM, "type": "error"}).encode(),
    "an error without a type": b"data: "
    + json.dumps({**DONE_ITEM, "type": None, "Type": DONE_ITEM["type"], "error": {"message": "no"}}).encode(),
    "a failure that is named as an item": b"event: response.output_item.done\ndata: "
    + json.dumps({**FAILED, "item": ITEM}).encode(),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_providers_error_is_no_other_event(error: bytes) -> None:
    out = told("responses", CREATED + error + b"\n\n")
    (frame,) = SseDecoder(1 << 20).feed(out.removeprefix(CREATED))
    wire = json.loads(frame.data or b"")
    assert frame.event == wire["type"].encode()
    assert wire["type"] in ("error", "response.failed")
    assert wire["type"] == "response.failed" or "evil" not in out.decode()


@pytest.mark.parametrize(
    "error",
    [
        b'event: error\ndata: {"type":"error","code":"a_request","message":"a function_call"}\n\n',
        b'data: {"type":"error","sequence_number":3,"error":{"message":"no","type":"a_request"}}\n\n',
        b'event: response.failed\ndata: {"type":"response.failed","response":{"error":{"message":"x"}}}\n\n',
        b'data: {"error": {"message": "no"}}\n\n',
    ],
)
def test_a_providers_plain_error_goes_on_as_it_is(error: bytes) -> None:
    assert told("responses", CREATED + error) == CREATED + error


@pytest.mark.parametrize(
    "around", [{"type": "response.in_progress", "response": {}}, {"type": "response.audio.delta"}]
)
def test_a_line_of_a_response_event_is_no_event_by_itself(around: Json) -> None:
    first = json.dumps({**around, "x": [0]}).removesuffix("0]}")
    data = f"data: {first}\ndata: {json.dumps(DONE_ITEM)}\ndata: ]}}\n\n".encode()
    out = told("responses", CREATED + data + COMPLETED)
    assert out == CREATED


def test_a_call_in_lines_is_written_again_in_one() -> None:
    """Clients that read line by line would lose a piece of it."""
    pieces = [
        named({"type": "response.output_item.added", "output_index": 0, "item": {**ITEM, "arguments": ""}}),
        named({**DELTA, "delta": "{}"}),
        named({**ARGUMENTS, "arguments": "{}"}),
        named(DONE_ITEM),
        named({"type": "response.completed", "response": {**RESPONSE, "output": [ITEM]}}),
    ]
    codec = ResponsesCodec()
    for folded in (False, True):
        data = b"".join(pieces)
        if folded:
            data = data.replace(b', "delta"', b',\ndata: "delta"', 1)
        decoder, encoder = codec.decoder(True, Caps()), codec.encoder(True)
        began = b"".join(
            encoder.passage(one) for one in decoder.feed(CREATED + data) if isinstance(one, Passage)
        )
        events, turn = decoder.close()
        assert not events
        out = encoder.release(turn, ["{}"], {})
        assert began == CREATED
        assert (out == data) is not folded
        assert b'\ndata: "' not in out
        assert out.count(b'"evil"') == 3


# -- bytes that only some JSON readers take --------------------------------------------------------

BOM = b"\xef\xbb\xbf"
FRAGMENT = chunk(calls(more('{"a":1}')))
FIRST = chunk(calls(call("")))


@pytest.mark.parametrize("before", [BOM, b"\x0b", b"\x0c", b"\x1f", b"\x0c" + BOM])
@pytest.mark.parametrize("frame", [FRAGMENT, chunk({"content": "a tool_call"}), chunk({"content": "Hi"})])
def test_what_only_some_readers_skip_is_no_reading(frame: bytes, before: bytes) -> None:
    """Those that do not would lose the frame, and with it a piece of the call."""
    read = Read(stream(FIRST, frame.replace(b"data: ", b"data: " + before), END))
    assert type(read.fault) is MalformedTurn
    assert "not valid JSON" in str(read.fault)


def test_a_call_that_begins_behind_a_byte_order_mark_is_written_again() -> None:
    """Some clients keep the mark, and so miss the stream's first event."""
    data = stream(FIRST, FRAGMENT, END)
    out = written(Read(BOM + data))
    assert not out.startswith(BOM)
    assert {name: found[0] for name, found in rebuilt(out, True).items()} == {
        name: [("call_1", "f", '{"a":1}')] for name in rebuilt(out, True)
    }
    assert written(Read(data)) == data


def test_nothing_is_written_again_from_utf16() -> None:
    """In UTF-16 no word of a call is found; written again in UTF-8, it would be one."""
    odd = {"choices": [{"index": 0, "delta": {"TOOL_CALLS": [EVIL], "content": "x"}}]}
    for frame in (FIRST, chunk({"content": "Hi"})):
        data = b"data: " + json.dumps(odd).encode("utf-16-le") + b"\n\n"
        read = Read(stream(frame, data, END))
        assert "not UTF-8" in str(read.fault)


@pytest.mark.parametrize("index", [2**53, -(2**53), 2**60 + 1, -1])
def test_choices_are_told_apart_by_numbers_that_every_client_reads_alike(index: int) -> None:
    read = Read(stream(chunk(calls(call()), index=index), chunk(finish="tool_calls", index=index)))
    assert "not every client reads alike" in str(read.fault)


def test_a_body_is_a_response_whatever_type_it_says_it_has() -> None:
    """Some clients do not tell cases apart."""
    wire = {**RESPONSE, "type": "response.output_item.done", "Output": [ITEM]}
    del wire["output"]
    decoder = ResponsesCodec().decoder(False, Caps())
    decoder.feed(json.dumps(wire).encode())
    with pytest.raises(MalformedTurn, match="spells a key"):
        decoder.close()


@pytest.mark.parametrize("protocol", ["chat", "responses"])
def test_an_error_in_any_words_is_an_error(protocol: str) -> None:
    deep = b"[" * 1010 + b"]" * 1010
    begin, _, _ = ANSWERS[protocol]
    decoder = PROTOCOLS[protocol].codec.decoder(True, Caps())
    events = decoder.feed(begin + b'data: {"type":"error","error":{"message":' + deep + b"}}\n\n")
    assert isinstance(events[-1], Failure)
    assert events[-1].message == "the provider reported an error"


@settings(max_examples=150, deadline=None)
@given(
    protocol=st.sampled_from([*ANSWERS]),
    lead=st.sampled_from([*LINES, "data: x", "x", "", "data"]),
    end=st.sampled_from([*BREAKS, "", " ", "\r", "\n", "\r\n"]),
    tag=st.sampled_from(["data: ", "data:", "", " data: ", "Data: "]),
    beside=st.booleans(),
    cuts=st.lists(st.integers(0, 2**12), max_size=4),
)
def test_no_client_finds_a_call_that_was_not_let_through(
    protocol: str, lead: str, end: str, tag: str, beside: bool, cuts: list[int]
) -> None:
    begin, wire, close = ANSWERS[protocol]
    data = f"{lead}{end}{tag}{json.dumps(wire)}\n".encode()
    data += b"data: " + json.dumps(PAYLOADS[protocol]).encode() + b"\n\n" if beside else b"\n"
    out = told(protocol, begin + data + close).decode()
    for lines in (
        out.splitlines(),
        out.split("\n"),
        out.split("data: "),
        out.replace("\r", "\n").split("\n"),
    ):
        for line in lines:
            text = line.strip().removeprefix("data:").strip()
            try:
                found = json.loads(text)
            except ValueError:
                continue
            assert "evil" not in json.dumps(found)


def test_the_event_of_this_file_is_one() -> None:
    """Without the call's own frame nothing above could fail."""
    for protocol, (begin, wire, close) in ANSWERS.items():
        spoken = event(wire) if protocol == "chat" else named(wire)
        assert told(protocol, begin + spoken + close) != begin + spoken + close
        assert told(protocol, begin + close) == begin + close
