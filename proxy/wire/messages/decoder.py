"""Reading Messages answers: the event stream, and the body as a stream of one chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy.model import Event, Failure, Passage, Turn
from proxy.wire.codec import (
    LEAST_BYTES,
    BodyReader,
    Caps,
    IncompleteTurn,
    MalformedTurn,
    as_dict,
    as_list,
    check_lines,
    sse,
)
from proxy.wire.messages.blocks import Block, ReadFrame, may_hide_calls
from proxy.wire.messages.reading import Reading, read_object
from proxy.wire.sse import BOM, Frame
from proxy.wire.writing import shortened

_LF = 0x0A
_PIECES = ("content_block_delta", "content_block_start", "content_block_stop")
# These find their place among the held items by themselves.
_ORDERED = ("message_start", "message_delta", "message_stop")


class StreamDecoder:
    """Reads an event stream. Everything from the first call on, or from the end, waits for the clean end.

    So the client's bytes keep the provider's order; text and thinking before it are never held.
    """

    def __init__(self, caps: Caps) -> None:
        self.done = False
        self.holding = False
        self._caps = caps
        self._sse = sse(caps)
        self._reading = Reading(caps)
        self._by_index: dict[int, Block] = {}
        self._started = 0
        self._end: dict[str, Any] | None = None
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._items: list[Block | ReadFrame] = []
        self._stopped = False
        self._broken: str | None = None
        """In words: an exception that is kept would hold the frames that it went through, and they this."""

    def feed(self, chunk: bytes) -> Sequence[Event]:
        return () if self.done else self._take(self._sse.feed(chunk))

    def close(self) -> tuple[Sequence[Event], Turn]:
        events = () if self.done else self._take(self._sse.close())
        if self._broken is not None:
            raise MalformedTurn(self._broken)
        if not self._stopped and not any(isinstance(event, Failure) for event in events):
            raise IncompleteTurn("the answer ended before it was complete")
        return events, self._reading.turn(b"".join(self._raw), self._items, self._end or {}, None)

    def _take(self, frames: Sequence[Frame]) -> Sequence[Event]:
        """What the frames come to. What stood before a frame without a reading still goes on."""
        passing: list[ReadFrame] = []
        events: list[Event] = []
        for frame in frames:
            if self.done:
                break
            try:
                taken = self._take_frame(frame)
                if isinstance(taken, Failure):
                    events.append(taken)
                    self.done = True
                elif not self.holding:
                    passing.append(taken)
                else:
                    self._hold(taken)
            except MalformedTurn as exc:
                self._break(exc)
        if self._sse.too_large and not self.done:
            self._break(MalformedTurn("an event is larger than limits.max_event_bytes"))
        return (_passage(passing), *events) if passing else events

    def _break(self, exc: MalformedTurn) -> None:
        self._broken, self.done = str(exc), True

    def _hold(self, read: ReadFrame) -> None:
        frame = read.frame
        self._raw_bytes += max(len(frame.raw), LEAST_BYTES)
        if self._raw_bytes > self._caps.max_held_bytes:
            raise MalformedTurn("the held part of the answer is larger than limits.max_held_bytes")
        self._raw.append(frame.raw)
        named = read.wire is None or frame.event == str(read.wire.get("type")).encode(errors="replace")
        # Clients may drop an event that has no name, or no blank line after it; some read line by line.
        whole = frame.is_ended and _LF not in (frame.data or b"") and not frame.raw.startswith(BOM)
        self._reading.canonical = self._reading.canonical and named and whole
        if (block := read.block) is not None:
            if not block.frames and block not in self._items:
                self._items.append(block)
            # It has the frame now. Both holding one another would wait for the garbage collector.
            read.block = None
            block.frames.append(read)
        elif read.wire is None or read.wire.get("type") not in _ORDERED:
            self._items.append(read)

    # -- one frame ------------------------------------------------------------------------------

    def _take_frame(self, frame: Frame) -> ReadFrame | Failure:
        wire = _read(frame)
        read = ReadFrame(frame, wire)
        if wire is None:
            return read
        kind = wire.get("type")
        if frame.event == b"error" or (kind == "error" and not frame.event):
            if may_hide_calls(frame.data or b""):
                raise MalformedTurn("an error could hold a call")
            return Failure(frame.raw, _error_message(wire))
        if frame.event not in (b"", b"message", str(kind).encode(errors="replace")):
            raise MalformedTurn("an event's name is not its type")
        if kind in _PIECES:
            read.block = self._take_piece(kind, wire)
        elif kind == "message_start":
            self._start(read, as_dict(wire.get("message"), "a message"))
        elif kind == "message_delta":
            self._take_end(wire)
        elif kind == "message_stop":
            self._stop()
        else:
            _check_unknown(kind, wire, frame.data or b"")
        return read

    def _start(self, read: ReadFrame, message: dict[str, Any]) -> None:
        """A message begins. Some streams hold several: they are one answer, its blocks numbered anew."""
        if any(block.is_open for block in self._reading.blocks):
            raise MalformedTurn("a message began before the last one's blocks had ended")
        self._started += 1
        self._by_index.clear()
        self._end, self._reading.finish = None, None
        self._reading.take_head(message)
        whole = as_list(message.get("content"), "content")
        for content in whole:
            block = self._reading.begin(content)
            block.is_open = False
        if whole or self._started > 1:
            self._reading.canonical = False
        self.holding = self.holding or bool(whole)
        if self.holding:
            self._items += [read, *self._reading.blocks[len(self._reading.blocks) - len(whole) :]]

    def _take_piece(self, kind: str, wire: dict[str, Any]) -> Block:
        index = wire.get("index")
        if isinstance(index, bool) or not isinstance(index, int):
            raise MalformedTurn("the index of a content block is not a number")
        if not self._started or self._end is not None:
            raise MalformedTurn("a content block stands outside its message")
        if kind == "content_block_start":
            return self._begin(index, wire.get("content_block"))
        block = self._by_index.get(index)
        if block is None or not block.is_open:
            raise MalformedTurn("a piece came for a content block that is not open")
        if kind == "content_block_stop":
            block.is_open = False
            return block
        block.take(as_dict(wire.get("delta"), "a delta"))
        if block is not self._reading.blocks[-1]:
            self._reading.canonical = False
        return block

    def _begin(self, index: int, content: Any) -> Block:
        reading = self._reading
        # One after the other, from 0: any other numbering is read in several ways.
        if index != len(reading.blocks) or any(block.is_open for block in reading.blocks):
            reading.canonical = False
        if (before := self._by_index.get(index)) is not None:
            before.is_open = False
        block = self._by_index[index] = reading.begin(content)
        if block.is_call and not self.holding:
            self.holding = True
            self._items += [known for known in reading.blocks[:-1] if known.is_open]
        return block

    def _take_end(self, wire: dict[str, Any]) -> None:
        if not self._started:
            raise MalformedTurn("the answer ends before it begins")
        delta = as_dict(wire.get("delta"), "a delta")
        self._reading.take_end(delta, wire.get("usage"))
        if self._end is not None:
            self._reading.canonical = False
            delta = {
                **self._end["delta"],
                **{key: value for key, value in delta.items() if value is not None},
            }
        self._end = {**(self._end or {}), **wire, "delta": delta}
        self.holding = True

    def _stop(self) -> None:
        if not self._started:
            raise MalformedTurn("the answer ends before it begins")
        reading = self._reading
        if self._end is None or any(block.is_open for block in reading.blocks):
            reading.canonical = False
        self.holding = self.done = self._stopped = True


def _passage(reads: list[ReadFrame]) -> Passage:
    if len(reads) == 1:
        return Passage(reads[0].frame.raw, reads[0].text, (reads[0],))
    raw, text = b"".join([read.frame.raw for read in reads]), "".join([read.text for read in reads])
    return Passage(raw, text, tuple(reads))


def _read(frame: Frame) -> dict[str, Any] | None:
    """The frame's object; None for a comment, or the end mark that some servers add."""
    data = frame.data
    if data is None or data.strip() == b"[DONE]":
        return None
    wire = read_object(data, "an event")
    if _LF in data:
        check_lines(data, may_hide_calls, "type")
    return wire


def _check_unknown(kind: Any, wire: dict[str, Any], data: bytes) -> None:
    """Clients skip events that they do not know; one that holds a call might be known to some."""
    if kind != "ping" and (may_hide_calls(data) or "content_block" in wire):
        raise MalformedTurn(f"an event of unknown type, {str(kind)[:64]!r}, could hold a call")


def _error_message(wire: dict[str, Any]) -> str:
    error = wire.get("error")
    return shortened(error.get("message") if isinstance(error, dict) else error or wire.get("message"))


def body_decoder(caps: Caps) -> BodyReader:
    """Reads a whole answer."""
    return BodyReader(caps, lambda body: ((), _read_body(body, caps)))


def _read_body(raw: bytes, caps: Caps) -> Turn:
    if not raw.strip():
        raise IncompleteTurn("the answer is empty")
    wire = read_object(raw.removeprefix(BOM), "the answer")
    reading = Reading(caps)
    reading.take_head(wire)
    for content in as_list(wire.get("content"), "content"):
        block = reading.begin(content)
        block.is_open = False
    return reading.turn(raw, reading.blocks, {}, wire)
