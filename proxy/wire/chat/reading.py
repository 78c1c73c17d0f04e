"""What streams and bodies have in common: the choices, their calls, and the turn that they come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from proxy.model import MAX_SAFE_INTEGER, Slot, Turn, Usage, loads_frame
from proxy.wire.chat.calls import Building, ChoiceCalls
from proxy.wire.codec import MalformedTurn, as_dict, tokens
from proxy.wire.sse import BOM, Frame
from proxy.wire.writing import joined

CALL_KEYS = ("tool_calls", "function_call")
# Never accumulated for the assistant message that is sent back.
_NOT_RESENT = {"role", *CALL_KEYS}
_GROWING = (str, list)


@dataclass(slots=True)
class Choice:
    """What one choice has come to so far."""

    calls: ChoiceCalls
    fields: dict[str, list[Any]] = field(default_factory=dict)
    """Text and reasoning of the assistant message, as it must be sent back, in pieces."""
    finish: str | None = None
    finished: int = 0
    """How many frames said that the choice is finished."""

    def take(self, delta: dict[str, Any]) -> None:
        """Take in all but calls: text and lists go on from delta to delta, other values are replaced."""
        for key, value in delta.items():
            if value is None or key in _NOT_RESENT:
                continue
            pieces = self.fields.get(key)
            if pieces is None:
                self.fields[key] = [value]
            elif isinstance(value, _GROWING) and isinstance(pieces[-1], _GROWING):
                pieces.append(value)
            else:
                pieces[:] = [value]

    def take_finish(self, reason: Any) -> None:
        """Take in a finish reason; none, or an empty one, says nothing."""
        if reason is None or reason == "":
            return
        if not isinstance(reason, str):
            raise MalformedTurn("a finish reason is not text")
        self.finish, self.finished = self.finish or reason, self.finished + 1

    def message_fields(self) -> dict[str, Any]:
        """Every field of the message but its calls, put together."""
        return {key: together(pieces) for key, pieces in self.fields.items()}


def together(pieces: Sequence[Any]) -> Any:
    """Pieces of a field as one value: text, or a list of parts of which text is one kind."""
    if all(isinstance(piece, str) for piece in pieces):
        return joined(pieces)
    if len(pieces) == 1:
        return pieces[0]
    # Content in parts (Mistral's thinking) mixed with plain text.
    parts = ([{"type": "text", "text": piece}] if isinstance(piece, str) else piece for piece in pieces)
    return [item for part in parts for item in part]


@dataclass(slots=True)  # not frozen: there is one a frame
class ReadFrame:
    """A frame beside its reading; None for a comment or the end mark."""

    is_news: ClassVar[bool] = True
    """It may say something of the answer beside its text."""
    frame: Frame
    object: dict[str, Any] | None
    text: str = ""
    """What it says, in all of its choices."""


class RepeatingFrame:
    """A frame that was told by its likeness; parsed only where it has to be written again."""

    __slots__ = ("frame", "text")

    is_news = False
    """It says nothing of the answer that the frame before did not say, but its text."""

    def __init__(self, frame: Frame, text: str) -> None:
        self.frame, self.text = frame, text

    @property
    def object(self) -> dict[str, Any]:
        """Its reading."""
        wire: dict[str, Any] = loads_frame(self.frame.data or b"")
        return wire


AnyFrame = ReadFrame | RepeatingFrame


@dataclass(slots=True)  # not frozen: there is one a turn, and it is never changed
class ChatTurn:
    """The wire side of a turn: what the encoder writes the rest of the answer from."""

    held: tuple[AnyFrame, ...]
    """Stream: the frames from the first one with a call on."""
    body: tuple[bytes, dict[str, Any]] | None
    """Body: its bytes and their reading."""
    canonical: bool
    choices: dict[int, Choice]
    usage: dict[str, Any] | None

    @property
    def first(self) -> Choice | None:
        """The first choice: where there is one alone, this one."""
        return self.choices[min(self.choices)] if self.choices else None

    def wire_calls(self) -> list[Building]:
        """The calls of the first choice as they were put together."""
        return self.first.calls.calls if self.first else []

    def message(self) -> dict[str, Any]:
        """The assistant message of the first choice, to be sent back as it was."""
        if self.body is not None:
            choices = self.body[1].get("choices") or [{}]
            message = min(choices, key=lambda choice: choice.get("index", 0)).get("message") or {}
        else:
            message = {"role": "assistant", "content": None}
            message |= self.first.message_fields() if self.first else {}
        calls = self._calls_of_message()
        message = {**message, **calls}
        return {key: value for key, value in message.items() if key in calls or key not in CALL_KEYS}

    def _calls_of_message(self) -> dict[str, Any]:
        calls = self.wire_calls()
        if not (self.first and calls):
            return {}
        if self.first.calls.is_legacy:
            (call,) = calls
            return {"function_call": {"name": call.name, "arguments": call.arguments_json or "{}"}}
        return {"tool_calls": [call.wire() for call in calls]}


class Reading:
    """One answer while it is read."""

    def __init__(self, max_calls: int) -> None:
        self.id = self.model = ""
        self.usage: dict[str, Any] | None = None
        self.choices: dict[int, Choice] = {}
        self.has_head = False
        """Nothing more is to be learned of id and model."""
        self._max_calls = max_calls

    def choice(self, wire: dict[str, Any]) -> Choice:
        """The choice that this object is of."""
        index = wire.get("index", 0)
        if not isinstance(index, int) or isinstance(index, bool):
            raise MalformedTurn("the index of a choice is not a number")
        known = self.choices.get(index)
        if known is None:
            if len(self.choices) >= self._max_calls:
                raise MalformedTurn(f"the answer has more than {self._max_calls} choices")
            if not 0 <= index <= MAX_SAFE_INTEGER:  # -1 is the last one of a list to some
                raise MalformedTurn("the index of a choice is a number that not every client reads alike")
            known = self.choices[index] = Choice(ChoiceCalls(self._max_calls))
        return known

    def take_head(self, wire: dict[str, Any]) -> None:
        """What an object says of the whole answer."""
        if not self.id and isinstance(id := wire.get("id"), str):
            self.id = id
        if not self.model and isinstance(model := wire.get("model"), str):
            self.model = model
        self.has_head = bool(self.id and self.model)
        if isinstance(usage := wire.get("usage"), dict):
            self.usage = usage

    def turn(self, held: Sequence[AnyFrame] = (), body: tuple[bytes, dict[str, Any]] | None = None) -> Turn:
        """The turn, once the answer has ended cleanly."""
        slots: list[Slot] = []
        canonical = all(map(_is_plain, held))
        for index in sorted(self.choices):
            choice = self.choices[index]
            if choice.calls.calls:
                calls = choice.calls.close(self.id, index, choice.finish)
                canonical = canonical and choice.calls.canonical and choice.finished < 2
                slots += [Slot(index, position, call) for position, call in enumerate(calls)]
        wire = ChatTurn(tuple(held), body, canonical, self.choices, self.usage)
        first = wire.first
        return Turn(
            id=self.id,
            model=self.model,
            slots=tuple(slots),
            text=_text(first) if first else "",
            finish=first.finish if first else None,
            usage=_usage(self.usage),
            choices=len(self.choices),
            wire=wire,
        )


def _is_plain(read: AnyFrame) -> bool:
    """Whether every client reads the frame, and reads it alike."""
    data = read.frame.data
    if read.object is None:
        # Data that is empty is no event to the standard, and broken JSON to some clients.
        return data is None or bool(data.strip())
    # Some clients read line by line, some drop an event that the stream's end cuts short, some need every
    # member, and some read only the first choice of a list.
    choices = read.object.get("choices")
    if not read.frame.is_ended or b"\n" in (data or b"") or not isinstance(choices, list):
        return False
    if read.frame.raw.startswith(BOM):
        return False  # clients that keep it do not know the field's name
    return len({choice.get("index") for choice in choices} - {None}) == len(choices)


def _text(choice: Choice) -> str:
    pieces = choice.fields.get("content")
    content = together(pieces) if pieces else ""
    return content if isinstance(content, str) else ""


def _usage(usage: dict[str, Any] | None) -> Usage | None:
    if usage is None:
        return None
    return Usage(tokens(usage.get("prompt_tokens")), tokens(usage.get("completion_tokens")))


def take_calls(choice: Choice, part: dict[str, Any], pieces: list[Any]) -> bool:
    """Take in the calls of a delta or a message; whether there are any."""
    legacy = as_dict(part.get("function_call"), "function_call")
    if not legacy and part.get("function_call") is not None:
        # An empty object says as little as null does, but some clients make a call of it.
        choice.calls.canonical = False
    if not (pieces or legacy):
        return False
    if legacy:
        choice.calls.add_legacy(legacy)
    if pieces:
        choice.calls.add(pieces)
    return True
