"""The event decoder: the same frames however the bytes arrive, and the stream's own bytes kept."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.sse import Frame, SseDecoder

CAP = 1000
BOM = b"\xef\xbb\xbf"

# What arrives, and the (data, event) of every frame.
CASES: dict[str, tuple[bytes, list[tuple[bytes | None, bytes]]]] = {
    "line feeds": (b"data: a\n\ndata: b\n\n", [(b"a", b""), (b"b", b"")]),
    "carriage returns and line feeds": (b"data: a\r\n\r\ndata: b\r\n\r\n", [(b"a", b""), (b"b", b"")]),
    "carriage returns": (b"data: a\r\rdata: b\r\r", [(b"a", b""), (b"b", b"")]),
    "mixed line ends": (
        b"data: a\n\r\ndata: b\r\n\ndata: c\r\r\ndata: d\n\rdata: e\r\n\r\n",
        [(b"a", b""), (b"b", b""), (b"c", b""), (b"d", b""), (b"e", b"")],
    ),
    "a comment": (b": processing\n\ndata: a\n\n", [(None, b""), (b"a", b"")]),
    "a comment in an event": (b": x\ndata: a\n\n", [(b"a", b"")]),
    "a comment that looks like data": (b": data: b\ndata: a\n\n", [(b"a", b"")]),
    "data over several lines": (b"data: {\ndata: 1\ndata:\ndata: }\n\n", [(b"{\n1\n\n}", b"")]),
    "data over several lines with CRLF": (b"data: {\r\ndata: }\r\n\r\n", [(b"{\n}", b"")]),
    "no space after the colon": (b"data:a\n\n", [(b"a", b"")]),
    "one space is taken off, not two": (b"data:  a \n\n", [(b" a ", b"")]),
    "a colon in the data": (b'data: {"a": "b: c"}\n\n', [(b'{"a": "b: c"}', b"")]),
    "a named event": (b"event: error\ndata: a\n\n", [(b"a", b"error")]),
    "the name after the data": (b"data: a\nevent:ping\n\n", [(b"a", b"ping")]),
    "the last name holds": (b"event: a\nevent: b\ndata: x\n\n", [(b"x", b"b")]),
    "fields that say nothing": (b"id: 7\nretry: 10\ndata: a\n\n", [(b"a", b"")]),
    "lines of no event are data all the same": (
        b"data: a\nfoo: bar\nnothing\n\n",
        [(b"a\nfoo: bar\nnothing", b"")],
    ),
    "a body that is no stream is data": (b'{"a": 1,\n\n"b": 2}\n\n', [(b'{"a": 1,', b""), (b'"b": 2}', b"")]),
    "fields without data": (b"id: 7\n\n", [(None, b"")]),
    "a field name is exact": (b"Data: a\ndata : b\n data: c\n\n", [(b"Data: a\ndata : b\n data: c", b"")]),
    "data without a colon": (b"data\n\n", [(b"", b"")]),
    "empty data": (b"data:\n\n", [(b"", b"")]),
    "blank lines before and between": (
        b"\n\n\ndata: a\n\n\n\ndata: b\n\n",
        [(None, b""), (b"a", b""), (None, b""), (b"b", b"")],
    ),
    "a byte order mark first": (BOM + b"data: a\n\ndata: b\n\n", [(b"a", b""), (b"b", b"")]),
    "a byte order mark later is no mark": (
        b"data: a\n\n" + BOM + b"data: b\n\n",
        [(b"a", b""), (BOM + b"data: b", b"")],
    ),
    "what is left at the end": (b"data: a\n\ndata: b", [(b"a", b""), (b"b", b"")]),
    "a line end is left at the end": (b"data: a\n\ndata: b\r\n", [(b"a", b""), (b"b", b"")]),
    "line separators of Unicode are text": (
        "data: a\u2028data: b\u0085\n\n".encode(),
        [("a\u2028data: b\u0085".encode(), b"")],
    ),
    "nothing": (b"", []),
    "as much as the cap": (b"data: " + b"x" * (CAP - 8) + b"\n\n", [(b"x" * (CAP - 8), b"")]),
}
EACH = pytest.mark.parametrize(("stream", "expected"), CASES.values(), ids=CASES)


def read(stream: bytes, cuts: Sequence[int]) -> tuple[list[Frame], bool]:
    decoder = SseDecoder(CAP)
    points = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    frames = [frame for a, b in itertools.pairwise(points) for frame in decoder.feed(stream[a:b])]
    return frames + decoder.close(), decoder.too_large


@EACH
def test_the_frames(stream: bytes, expected: list[tuple[bytes | None, bytes]]) -> None:
    frames, too_large = read(stream, ())
    assert [(frame.data, frame.event) for frame in frames] == expected
    assert b"".join(frame.raw for frame in frames) == stream
    assert not too_large


@EACH
def test_byte_by_byte(stream: bytes, expected: list[tuple[bytes | None, bytes]]) -> None:
    assert read(stream, range(len(stream))) == read(stream, ())


@given(
    pieces=st.lists(
        st.sampled_from(
            [b"data: a", b"data:b", b"data", b": c", b"event: e", b"\n", b"\r", b"\r\n", b"\n\n", BOM, b"x"]
        )
    ),
    cuts=st.lists(st.integers(0, 2**16), max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_any_stream_cut_anywhere(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pieces)
    whole = read(stream, ())
    assert read(stream, cuts) == whole
    assert b"".join(frame.raw for frame in whole[0]) == stream


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b""])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_an_event_beyond_the_cap_is_never_read(end: bytes, step: int) -> None:
    before = b"data: a\n\n"
    stream = before + b"data: " + b"x" * CAP + end
    frames, too_large = read(stream, range(0, len(stream), step))
    assert too_large
    assert [frame.raw for frame in frames] == [before]


@pytest.mark.parametrize(
    ("raw", "is_ended"),
    [
        (b"data: a\n\n", True),
        (b"data: a\r\n\r\n", True),
        (b"data: a\r\r", True),
        (b"data: a\n\r\n", True),
        (b"data: a\r\r\n", True),
        (b"data: a", False),
        (b"data: a\n", False),
        (b"data: a\r\n", False),
    ],
)
def test_whether_an_event_has_its_blank_line(raw: bytes, is_ended: bool) -> None:
    assert Frame(raw, b"a").is_ended is is_ended


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_cost_is_linear(end: bytes) -> None:
    """Four times the event may not cost much more than four times the work (quadratic: sixteen)."""

    def cost(megabytes: int) -> float:
        size = megabytes * 2**20
        chunk = b"x" * 1024
        begun = process_time()
        decoder = SseDecoder(2 * size)
        decoder.feed(b"data: " + end)
        for _ in range(size // 1024):
            decoder.feed(chunk)
        (frame,) = decoder.feed(end + end + b"data: b")
        assert len(frame.raw) > size
        return process_time() - begun

    cost(1)
    assert min(cost(4) for _ in range(3)) < 9 * min(cost(1) for _ in range(3)) + 0.02
