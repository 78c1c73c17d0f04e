"""Reading Chat Completions answers: the event stream, and the body as a stream of one chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy.model import Event, Failure, Fault, Passage, Turn, loads_frame
from proxy.wire.chat.keys import check_keys, may_hide_calls
from proxy.wire.chat.reading import AnyFrame, Choice, ReadFrame, Reading, RepeatingFrame, take_calls
from proxy.wire.chat.repeating import Repeated, repeated
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
from proxy.wire.sse import BOM, Frame
from proxy.wire.writing import shortened, write_json

# Where frames differ in more than a text, it does not pay to look for what they have in common.
_MAX_LESSONS = 8
# As JSON has it: what else ``strip`` takes away, clients do not read over.
_BLANK = b" \t\r\n"


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
        self._held: list[AnyFrame] = []
        self._held_bytes = self._bytes = 0
        self._repeated: Repeated | None = None
        self._lessons = 0
        self._broken: str | None = None
        """In words: an exception that is kept would hold the frames that it went through, and they this."""

    def feed(self, chunk: bytes) -> Sequence[Event]:
        """What these bytes complete; a fault in them is raised by ``close``."""
        return () if self.done else self._take(self._sse.feed(chunk))

    def close(self) -> tuple[Sequence[Event], Turn]:
        """The last events and the turn; raises ``MalformedTurn``, or ``IncompleteTurn`` for a cut answer."""
        events = () if self.done else self._take(self._sse.close())
        if self._broken is not None:
            raise MalformedTurn(self._broken)
        choices = self._reading.choices
        finished = choices and all(choice.finished for choice in choices.values())
        if not (self.done or finished):
            raise IncompleteTurn("the answer ended before it was complete")
        return events, self._reading.turn(self._held)

    def _take(self, frames: Sequence[Frame]) -> Sequence[Event]:
        """What the frames come to. What stood before a frame without a reading still goes on."""
        passing: list[AnyFrame] = []
        failure: Sequence[Failure] = ()
        for frame in frames:
            try:
                taken = self._take_frame(frame)
                if isinstance(taken, Failure):
                    failure = (taken,)
                elif self.holding:
                    self._hold(taken)
                else:
                    passing.append(taken)
            except MalformedTurn as exc:
                self._break(exc)
            if self.done:
                break
        if self._sse.too_large and not self.done:
            self._break(MalformedTurn("an event is larger than limits.max_event_bytes"))
        return (_passage(passing), *failure) if passing else failure

    def _break(self, exc: MalformedTurn) -> None:
        self._broken, self.done = str(exc), True

    def _take_frame(self, frame: Frame) -> AnyFrame | Failure:
        size = len(frame.raw)
        self._bytes += size if size > LEAST_BYTES else LEAST_BYTES
        if self._bytes > self._caps.max_response_bytes:
            raise MalformedTurn("the answer is larger than limits.max_response_bytes")
        known = self._repeated
        if known is not None and not self.holding and (more := known.text(frame)) is not None:
            known.choice.take({"content": more})
            return RepeatingFrame(frame, more)
        data = frame.data or b""
        wire = self._read(data)
        if wire is None:
            return ReadFrame(frame, None)
        if wire.get("error") or frame.event == b"error":
            self.done = True
            return _failure(frame.raw, data, wire, b"data: %b\n\n")
        text = self._take_text(data, wire)
        if text is None:
            return ReadFrame(frame, wire, self._take_choices(data, wire))
        if self._lessons < _MAX_LESSONS:
            self._lessons += 1
            index = wire["choices"][0].get("index", 0)
            self._repeated = repeated(frame, wire, self._reading.choices[index])
        return ReadFrame(frame, wire, text)

    def _read(self, data: bytes) -> dict[str, Any] | None:
        data = data.strip(_BLANK)
        if not data:
            return None
        if data == b"[DONE]":
            self.done = True
            return None
        try:
            wire = loads_frame(data)
        except Fault as exc:
            raise MalformedTurn(f"an event is {exc}") from None
        return _object(wire, "an event")

    def _take_text(self, data: bytes, wire: dict[str, Any]) -> str | None:
        """Take in a frame that has more text for one known choice, and cannot hold a call; returns the text.

        That is what nearly every frame of a stream is. It comes to what ``_take_choices`` would make of it;
        None is left to that: more choices than one, the first or the last of one, whatever might hold a call.
        """
        choices = wire.get("choices")
        if type(choices) is not list or len(choices) != 1 or type(choice := choices[0]) is not dict:
            return None
        delta, index = choice.get("delta"), choice.get("index", 0)
        if type(delta) is not dict or type(text := delta.get("content")) is not str:
            return None
        known = self._reading.choices.get(index) if type(index) is int else None
        if known is None or choice.get("finish_reason") is not None or "message" in choice:
            return None
        if may_hide_calls(data):
            return None
        if "usage" in wire or not self._reading.has_head:
            self._reading.take_head(wire)
        known.take(delta)
        return text

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
            check_lines(data, may_hide_calls, "choices")
        self.holding = self.holding or has_calls
        return text

    def _hold(self, passing: AnyFrame) -> None:
        self._held_bytes += max(len(passing.frame.raw), LEAST_BYTES)
        if self._held_bytes > self._caps.max_held_bytes:
            raise MalformedTurn("the held part of the answer is larger than limits.max_held_bytes")
        self._held.append(passing)


def _passage(reads: list[AnyFrame]) -> Passage:
    if len(reads) == 1:
        return Passage(reads[0].frame.raw, reads[0].text, (reads[0],))
    raw, text = b"".join([read.frame.raw for read in reads]), "".join([read.text for read in reads])
    return Passage(raw, text, tuple(reads))


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
    message = shortened(error.get("message") if isinstance(error, dict) else error or wire.get("message"))
    if may_hide_calls(data):
        raw = frame % write_json({"error": error or {"message": message, "type": "server_error"}})
    return Failure(raw, message)


def body_decoder(caps: Caps) -> BodyReader:
    """Reads a whole answer."""
    return BodyReader(caps, lambda body: _read_whole(body, caps))


def _read_whole(raw: bytes, caps: Caps) -> tuple[Sequence[Failure], Turn]:
    wire = _read_body(raw)
    reading = Reading(caps.max_calls)
    if wire.get("error") and not wire.get("choices"):
        return (_failure(raw, raw, wire, b"%b"),), reading.turn()
    reading.take_head(wire)
    has_calls = False
    for item in as_list(wire.get("choices"), "choices"):
        has_calls = _take_whole_choice(reading, _object(item, "a choice")) or has_calls
    if has_calls or may_hide_calls(raw):
        check_keys(raw, wire)
    return (), reading.turn(body=(raw, wire))


def _read_body(raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        raise IncompleteTurn("the answer is empty")
    try:
        wire = loads_frame(raw.removeprefix(BOM))
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
