"""Reading Chat Completions answers: the event stream, and the body as a stream of one chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.model import Event, Failure, Fault, Passage, Slot, Turn, Usage, has_duplicate_keys
from proxy.model import loads_frame as loads
from proxy.wire.chat.calls import Building, ChoiceCalls
from proxy.wire.codec import BodyReader, Caps, IncompleteTurn, MalformedTurn, as_dict, as_list, sse
from proxy.wire.sse import Frame

# Only frames in which one of these stands can hide a call behind a duplicate key; "\u" can spell any.
_CALL_WORDS = (b"tool_calls", b"function_call", b"\\u")
# Never accumulated for the assistant message that is sent back.
_NOT_RESENT = {"role", "tool_calls", "function_call"}


@dataclass
class Choice:
    """What one choice has come to so far."""

    calls: ChoiceCalls
    fields: dict[str, Any] = field(default_factory=dict)
    """Text and reasoning of the assistant message, as it must be sent back; strings as their pieces."""
    finish: str | None = None
    finished: int = 0
    """How many frames said that the choice is finished."""

    def take(self, delta: dict[str, Any]) -> None:
        for key, value in delta.items():
            if value is None or key in _NOT_RESENT:
                continue
            if isinstance(value, (str, list)):
                self.fields.setdefault(key, []).append(value)
            else:
                self.fields[key] = value

    def message_fields(self) -> dict[str, Any]:
        """Every field of the message but its calls, put together."""
        return {key: _joined(value) for key, value in self.fields.items()}


def _joined(pieces: Any) -> Any:
    if not isinstance(pieces, list):
        return pieces
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(pieces)
    # Content in parts (Mistral's thinking) mixed with plain text: text is one more kind of part.
    parts = ([{"type": "text", "text": piece}] if isinstance(piece, str) else piece for piece in pieces)
    return [item for part in parts for item in part]


@dataclass(frozen=True)
class ReadFrame:
    """A frame beside its reading; None for a comment or the end mark."""

    frame: Frame
    object: dict[str, Any] | None


@dataclass(frozen=True)
class ChatTurn:
    """The wire side of a turn: what the encoder writes the rest of the answer from."""

    held: tuple[ReadFrame, ...]
    """Stream: the frames from the first one with a call on."""
    body: tuple[bytes, dict[str, Any]] | None
    """Body: its bytes and their reading."""
    canonical: bool
    choices: dict[int, Choice]
    usage: dict[str, Any] | None

    def wire_calls(self, choice: int = 0) -> list[Building]:
        """The calls of one choice as they were put together."""
        return self.choices[choice].calls.calls if choice in self.choices else []

    def message(self) -> dict[str, Any]:
        """The assistant message of the first choice, to be sent back as it was."""
        if self.body is not None:
            choices = self.body[1].get("choices") or [{}]
            message = dict(choices[0].get("message") or {})
        else:
            first = self.choices.get(0)
            message = {"role": "assistant", "content": None, **(first.message_fields() if first else {})}
        return message | self._calls_of_message()

    def _calls_of_message(self) -> dict[str, Any]:
        calls = self.wire_calls()
        if not calls:
            return {}
        if calls[0].type == "legacy":
            return {"function_call": {"name": calls[0].name, "arguments": calls[0].arguments_json or "{}"}}
        return {"tool_calls": [call.wire() for call in calls]}


class _Reading:
    """What streams and bodies have in common: choices, ids, usage."""

    def __init__(self, max_calls: int) -> None:
        self.id = self.model = ""
        self.usage: dict[str, Any] | None = None
        self.choices: dict[int, Choice] = {}
        self._max_calls = max_calls

    def choice(self, wire: dict[str, Any]) -> Choice:
        index = wire.get("index", 0)
        if not isinstance(index, int):
            raise MalformedTurn("the index of a choice is not a number")
        known = self.choices.get(index)
        if known is None:
            if len(self.choices) >= self._max_calls:
                raise MalformedTurn(f"the answer has more than {self._max_calls} choices")
            known = self.choices[index] = Choice(ChoiceCalls(self._max_calls))
        return known

    def take_head(self, wire: dict[str, Any]) -> None:
        if not self.id and isinstance(id := wire.get("id"), str):
            self.id = id
        if not self.model and isinstance(model := wire.get("model"), str):
            self.model = model
        if isinstance(usage := wire.get("usage"), dict):
            self.usage = usage

    def turn(self, held: Sequence[ReadFrame], body: tuple[bytes, dict[str, Any]] | None) -> Turn:
        slots: list[Slot] = []
        for index in sorted(self.choices):
            choice = self.choices[index]
            if choice.calls.calls:
                calls = choice.calls.close(self.id, index, choice.finish)
                if choice.finished > 1:
                    choice.calls.canonical = False
                slots += [Slot(index, position, call) for position, call in enumerate(calls)]
        canonical = all(choice.calls.canonical for choice in self.choices.values())
        first = self.choices.get(0)
        return Turn(
            id=self.id,
            model=self.model,
            slots=tuple(slots),
            text=_text(first),
            finish=first.finish if first else None,
            usage=_usage(self.usage),
            choices=len(self.choices),
            wire=ChatTurn(tuple(held), body, canonical, self.choices, self.usage),
        )


def _text(choice: Choice | None) -> str:
    content = choice.message_fields().get("content") if choice else None
    return content if isinstance(content, str) else ""


def _usage(usage: dict[str, Any] | None) -> Usage | None:
    if usage is None:
        return None
    counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
    return Usage(*(count if isinstance(count, int) else 0 for count in counts))


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
        self._reading = _Reading(caps.max_calls)
        self._held: list[ReadFrame] = []
        self._held_bytes = 0
        self._broken: MalformedTurn | None = None

    def feed(self, chunk: bytes) -> Sequence[Event]:
        return () if self.done else self._take(self._sse.feed(chunk))

    def close(self) -> tuple[Sequence[Event], Turn]:
        events = () if self.done else self._take(self._sse.close())
        if self._broken is not None:
            raise self._broken
        choices = self._reading.choices
        finished = choices and all(choice.finished for choice in choices.values())
        if not (self.done or finished):
            raise IncompleteTurn("the answer ended before it was complete")
        return events, self._reading.turn(self._held, None)

    def _take(self, frames: Sequence[Frame]) -> Sequence[Event]:
        """What the frames come to. What stood before a frame without a reading still goes on."""
        passing = _Passing()
        events: list[Event] = []
        for frame in frames:
            if self.done:
                break
            try:
                wire = self._read(frame)
                if isinstance(wire, Failure):
                    events.append(wire)
                    self.done = True
                    break
                self._take_frame(frame, wire, passing)
            except MalformedTurn as exc:
                self._break(exc)
        if self._sse.too_large and not self.done:
            self._break(MalformedTurn("an event is larger than limits.max_event_bytes"))
        return [*passing.event(), *events]

    def _break(self, exc: MalformedTurn) -> None:
        self._broken, self.done = exc, True

    def _take_frame(self, frame: Frame, wire: dict[str, Any] | None, passing: _Passing) -> None:
        text = self._take_choices(frame, wire) if wire is not None else ""
        read = ReadFrame(frame, wire)
        if self.holding:
            self._hold(read)
        else:
            passing.add(read, text)

    def _read(self, frame: Frame) -> dict[str, Any] | Failure | None:
        if frame.data is None:
            return None
        if frame.data.strip() == b"[DONE]":
            self.done = True
            return None
        try:
            wire = loads(frame.data)
        except Fault as exc:
            raise MalformedTurn(f"an event is {exc}") from None
        if not isinstance(wire, dict):
            raise MalformedTurn("an event is not an object")
        if wire.get("error") or frame.event == b"error":
            return Failure(frame.raw, _error_message(wire))
        self._reading.take_head(wire)
        return wire

    def _take_choices(self, frame: Frame, wire: dict[str, Any]) -> str:
        """Take in the frame's choices; returns the text of the first one."""
        text = ""
        has_calls = False
        for item in as_list(wire.get("choices"), "choices"):
            wire_choice = as_dict(item, "a choice")
            choice = self._reading.choice(wire_choice)
            if "message" in wire_choice:
                _no_calls(as_dict(wire_choice["message"], "a message"))
            delta = as_dict(wire_choice.get("delta"), "a delta")
            choice.take(delta)
            has_calls = self._take_calls(choice, delta) or has_calls
            if finish := wire_choice.get("finish_reason"):
                choice.finish, choice.finished = choice.finish or str(finish), choice.finished + 1
            if isinstance(content := delta.get("content"), str):
                text += content
        data = frame.data or b""
        if (has_calls or any(word in data for word in _CALL_WORDS)) and has_duplicate_keys(data):
            raise MalformedTurn("an event names a key twice")
        self.holding = self.holding or has_calls
        return text

    def _take_calls(self, choice: Choice, delta: dict[str, Any]) -> bool:
        pieces = as_list(delta.get("tool_calls"), "tool_calls")
        legacy = delta.get("function_call")
        if not pieces and legacy is None:
            return False
        if choice.finished:
            raise MalformedTurn("a call came after its choice had finished")
        if legacy is not None:
            choice.calls.add_legacy(as_dict(legacy, "function_call"))
        if pieces:
            choice.calls.add(pieces)
        return True

    def _hold(self, passing: ReadFrame) -> None:
        self._held_bytes += len(passing.frame.raw)
        if self._held_bytes > self._caps.max_held_bytes:
            raise MalformedTurn("the held part of the answer is larger than limits.max_held_bytes")
        self._held.append(passing)


def _no_calls(message: dict[str, Any]) -> None:
    """A whole message has no business in a stream; a call in it would be read by some clients only."""
    if message.get("tool_calls") or message.get("function_call"):
        raise MalformedTurn("a stream carries a call outside its deltas")


def _error_message(wire: dict[str, Any]) -> str:
    error = wire.get("error")
    message = error.get("message") if isinstance(error, dict) else error or wire.get("message")
    return str(message)[:500] if message else "the provider reported an error"


def body_decoder(caps: Caps) -> BodyReader:
    """Reads a whole answer."""
    return BodyReader(caps, lambda body: _read_body(body, caps))


def _read_body(raw: bytes, caps: Caps) -> Turn:
    if not raw.strip():
        raise IncompleteTurn("the answer is empty")
    try:
        wire = loads(raw)
    except Fault as exc:
        raise MalformedTurn(f"the answer is {exc}") from None
    if not isinstance(wire, dict):
        raise MalformedTurn("the answer is not an object")
    reading = _Reading(caps.max_calls)
    reading.take_head(wire)
    has_calls = False
    for item in as_list(wire.get("choices"), "choices"):
        has_calls = _take_whole_choice(reading, as_dict(item, "a choice")) or has_calls
    if (has_calls or any(word in raw for word in _CALL_WORDS)) and has_duplicate_keys(raw):
        raise MalformedTurn("the answer names a key twice")
    return reading.turn((), (raw, wire))


def _take_whole_choice(reading: _Reading, wire: dict[str, Any]) -> bool:
    choice = reading.choice(wire)
    if choice.finished:
        raise MalformedTurn("two choices have the same index")
    if (wire.get("delta") or {}) != {}:
        _no_calls(as_dict(wire["delta"], "a delta"))
    message = as_dict(wire.get("message"), "a message")
    choice.take(message)
    choice.finish, choice.finished = wire.get("finish_reason"), 1
    for position, piece in enumerate(as_list(message.get("tool_calls"), "tool_calls")):
        _take_whole_call(choice, as_dict(piece, "a tool call"), position)
    if (legacy := message.get("function_call")) is not None:
        choice.calls.add_legacy(as_dict(legacy, "function_call"))
    return bool(choice.calls.calls)


def _take_whole_call(choice: Choice, piece: dict[str, Any], position: int) -> None:
    """A body's calls are told apart by their place, whatever ids or indexes they carry."""
    calls = choice.calls
    known = len(calls.calls)
    calls.add([{**piece, "index": position, "type": piece.get("type") or "function"}])
    if len(calls.calls) == known:
        raise MalformedTurn("two calls have the same id")
