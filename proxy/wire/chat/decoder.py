"""Reading Chat Completions answers: the event stream, and the body as a stream of one chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy.model import Event, Failure, Fault, Passage, Turn, loads_frame
from proxy.wire.chat.keys import check_keys, check_lines, may_hide_calls
from proxy.wire.chat.reading import Choice, ReadFrame, Reading, take_calls
from proxy.wire.codec import BodyReader, Caps, IncompleteTurn, MalformedTurn, as_dict, as_list, sse
from proxy.wire.sse import Frame
from proxy.wire.writing import write_json


class _Passing:
    """The frames of one read that go on at once."""

    def __init__(self) -> None:
        self._frames: list[ReadFrame] = []
        self._text: list[str] = []

    def add(self, read: ReadFrame, text: str) -> None:
        self._frames.append(read)
        if text:
            self._text.append(text)

    def event(self) -> Sequence[Passage]:
        frames = self._frames
        if not frames:
            return ()
        raw = frames[0].frame.raw if len(frames) == 1 else b"".join([read.frame.raw for read in frames])
        return (Passage(raw, "".join(self._text), tuple(frames)),)


class StreamDecoder:
    """Reads an event stream. Everything from the first frame with a call on waits for the clean end.

    So the client's bytes keep the provider's order; text before the first call is never held.
    """

    def __init__(self, caps: Caps) -> None:
        self.done = False
        self.holding = False
        self._caps = caps
        self._sse = sse(caps)
        self._reading = Reading(caps.max_calls)
        self._held: list[ReadFrame] = []
        self._held_bytes = self._bytes = 0
        self._broken: MalformedTurn | None = None

    def feed(self, chunk: bytes) -> Sequence[Event]:
        """What these bytes complete; a fault in them is raised by ``close``."""
        return () if self.done else self._take(self._sse.feed(chunk))

    def close(self) -> tuple[Sequence[Event], Turn]:
        """The last events and the turn; raises ``MalformedTurn``, or ``IncompleteTurn`` for a cut answer."""
        events = () if self.done else self._take(self._sse.close())
        if self._broken is not None:
            raise self._broken
        choices = self._reading.choices
        finished = choices and all(choice.finished for choice in choices.values())
        if not (self.done or finished):
            raise IncompleteTurn("the answer ended before it was complete")
        return events, self._reading.turn(self._held)

    def _take(self, frames: Sequence[Frame]) -> Sequence[Event]:
        """What the frames come to. What stood before a frame without a reading still goes on."""
        passing = _Passing()
        failure: Sequence[Failure] = ()
        for frame in frames:
            try:
                failure = self._take_frame(frame, passing)
            except MalformedTurn as exc:
                self._break(exc)
            if self.done:
                break
        if self._sse.too_large and not self.done:
            self._break(MalformedTurn("an event is larger than limits.max_event_bytes"))
        return [*passing.event(), *failure]

    def _break(self, exc: MalformedTurn) -> None:
        self._broken, self.done = exc, True

    def _take_frame(self, frame: Frame, passing: _Passing) -> Sequence[Failure]:
        self._bytes += len(frame.raw)
        if self._bytes > self._caps.max_response_bytes:
            raise MalformedTurn("the answer is larger than limits.max_response_bytes")
        wire = self._read(frame)
        if wire is not None and (wire.get("error") or frame.event == b"error"):
            self.done = True
            return (_failure(frame.raw, frame.data or b"", wire, b"data: %b\n\n"),)
        text = self._take_choices(frame.data or b"", wire) if wire is not None else ""
        read = ReadFrame(frame, wire)
        if self.holding:
            self._hold(read)
        else:
            passing.add(read, text)
        return ()

    def _read(self, frame: Frame) -> dict[str, Any] | None:
        data = frame.data.strip() if frame.data is not None else b""
        if not data:
            return None
        if data == b"[DONE]":
            self.done = True
            return None
        try:
            wire = loads_frame(data)
        except Fault as exc:
            raise MalformedTurn(f"an event is {exc}") from None
        if not isinstance(wire, dict):
            raise MalformedTurn("an event is not an object")
        return wire

    def _take_choices(self, data: bytes, wire: dict[str, Any]) -> str:
        """Take in the frame's choices; returns their text."""
        self._reading.take_head(wire)
        text = ""
        has_calls = False
        for item in as_list(wire.get("choices"), "choices"):
            wire_choice = _object(item, "a choice")
            choice = self._reading.choice(wire_choice)
            if "message" in wire_choice:
                _no_calls(as_dict(wire_choice["message"], "a message"))
            delta = as_dict(wire_choice.get("delta"), "a delta")
            choice.take(delta)
            if "tool_calls" in delta or "function_call" in delta:
                has_calls = _take_delta_calls(choice, delta) or has_calls
            choice.take_finish(wire_choice.get("finish_reason"))
            if isinstance(content := delta.get("content"), str):
                text += content
        if has_calls or may_hide_calls(data):
            check_keys(data, wire)
        if b"\n" in data:
            check_lines(data)
        self.holding = self.holding or has_calls
        return text

    def _hold(self, passing: ReadFrame) -> None:
        self._held_bytes += len(passing.frame.raw)
        if self._held_bytes > self._caps.max_held_bytes:
            raise MalformedTurn("the held part of the answer is larger than limits.max_held_bytes")
        self._held.append(passing)


def _take_delta_calls(choice: Choice, delta: dict[str, Any]) -> bool:
    finished = choice.finished
    has_calls = take_calls(choice, delta, as_list(delta.get("tool_calls"), "tool_calls"))
    if has_calls and finished:
        raise MalformedTurn("a call came after its choice had finished")
    return has_calls


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedTurn(f"{what} is not an object")
    return value


def _no_calls(message: dict[str, Any]) -> None:
    """A call where it has no business would be read by some clients only."""
    if message.get("tool_calls") or message.get("function_call"):
        raise MalformedTurn("a call stands outside the place where calls stand")


def _failure(raw: bytes, data: bytes, wire: dict[str, Any], frame: bytes) -> Failure:
    """The provider's own error; written again where some client could find a call beside it."""
    error = wire.get("error")
    message = error.get("message") if isinstance(error, dict) else error or wire.get("message")
    message = str(message)[:500] if message else "the provider reported an error"
    if may_hide_calls(data):
        raw = frame % write_json({"error": error or {"message": message, "type": "server_error"}})
    return Failure(raw, message)


class BodyDecoder(BodyReader):
    """Reads a whole answer."""

    def __init__(self, caps: Caps) -> None:
        super().__init__(caps, self._turn)
        self._failures: Sequence[Failure] = ()

    def close(self) -> tuple[Sequence[Event], Turn]:
        _, turn = super().close()
        return self._failures, turn

    def _turn(self, raw: bytes) -> Turn:
        wire = _read_body(raw)
        reading = Reading(self._caps.max_calls)
        if wire.get("error") and not wire.get("choices"):
            self._failures = (_failure(raw, raw, wire, b"%b"),)
            return reading.turn()
        reading.take_head(wire)
        has_calls = False
        for item in as_list(wire.get("choices"), "choices"):
            has_calls = _take_whole_choice(reading, _object(item, "a choice")) or has_calls
        if has_calls or may_hide_calls(raw):
            check_keys(raw, wire)
        return reading.turn(body=(raw, wire))


def _read_body(raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        raise IncompleteTurn("the answer is empty")
    try:
        wire = loads_frame(raw)
    except Fault as exc:
        raise MalformedTurn(f"the answer is {exc}") from None
    return _object(wire, "the answer")


def _take_whole_choice(reading: Reading, wire: dict[str, Any]) -> bool:
    known = len(reading.choices)
    choice = reading.choice(wire)
    if len(reading.choices) == known:
        raise MalformedTurn("two choices have the same index")
    _no_calls(as_dict(wire.get("delta"), "a delta"))
    message = as_dict(wire.get("message"), "a message")
    choice.take(message)
    choice.take_finish(wire.get("finish_reason"))
    pieces = as_list(message.get("tool_calls"), "tool_calls")
    has_calls = take_calls(choice, message, [])
    for position, piece in enumerate(pieces):
        _take_whole_call(choice, _object(piece, "a tool call"), position)
    return has_calls or bool(pieces)


def _take_whole_call(choice: Choice, piece: dict[str, Any], position: int) -> None:
    """A body's calls are told apart by their place, whatever ids or indexes they carry."""
    calls = choice.calls
    known = len(calls.calls)
    calls.add([{**piece, "index": position}])
    if len(calls.calls) == known:
        raise MalformedTurn("two calls have the same id")
