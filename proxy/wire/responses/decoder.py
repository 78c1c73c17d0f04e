"""Reading responses: the event stream, and the body as a stream of one chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.model import Event, Failure, Fault, Passage, Slot, Turn, Usage
from proxy.model import loads_frame as loads
from proxy.model.value import value
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
    tokens,
)
from proxy.wire.responses import items
from proxy.wire.responses.building import Item, Items
from proxy.wire.responses.events import event
from proxy.wire.responses.items import Json
from proxy.wire.responses.keys import check_keys, may_hold_calls
from proxy.wire.sse import BOM, Frame
from proxy.wire.writing import shortened

BEGINNING = "response.created"
BEGINNINGS = {BEGINNING, "response.queued", "response.in_progress"}
ENDS = {"response.completed", "response.incomplete", "response.cancelled"}
_TEXT = "response.output_text.delta"
_LF = 0x0A
_ERROR = frozenset({"type", "code", "message", "param", "sequence_number", "error"})
# The events that carry fragments of a call's arguments, and the kind of item that they belong to.
_FRAGMENTS = {
    "response.function_call_arguments": "function_call",
    "response.custom_tool_call_input": "custom_tool_call",
}


@dataclass(slots=True)  # not frozen: there is one a frame
class ReadFrame:
    """A frame beside its reading (None for a comment or the end mark), and the item that it is about."""

    frame: Frame
    object: Json | None
    item: Item | None = None
    text: str = ""
    """What it says."""


@value(frozen=True)
class ResponseTurn:
    """The wire side of a turn: what the encoder writes the rest of the answer from."""

    held: tuple[ReadFrame, ...]
    """Stream: the frames from the first one that had to wait on."""
    raw: bytes | None
    """Body: its bytes."""
    response: Json
    """The response as its last event has it, or as the body is."""
    items: tuple[Item, ...]
    canonical: bool

    def output(self) -> list[Json]:
        """All items, calls among them, as they can be sent back."""
        return [item.item for item in self.items]

    def groups(self, arguments: Sequence[Any]) -> list[tuple[Item, Sequence[Any]]]:
        """The items that are calls, each with its share of what is said of the turn's slots."""
        at, out = 0, []
        for item in self.items:
            if item.is_call:
                out.append((item, arguments[at : at + len(item.calls)]))
                at += len(item.calls)
        return out


@dataclass
class _Reading:
    """What streams and bodies have in common."""

    caps: Caps
    id: str = ""
    model: str = ""
    items: Items = field(init=False)
    response: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.items = Items(self.caps.max_calls)

    def take_head(self, response: Json) -> None:
        if not self.id and isinstance(id := response.get("id"), str):
            self.id = id
        if not self.model and isinstance(model := response.get("model"), str):
            self.model = model
        self.response = response

    def _ran_elsewhere(self, item: Item) -> bool:
        if item.type != "shell_call":
            return False
        return items.ran_elsewhere(item.item, [known.item for known in self.items.all if not known.is_call])

    def turn(self, held: Sequence[ReadFrame], raw: bytes | None) -> Turn:
        finish = self.response.get("status")
        finish = finish if isinstance(finish, str) else None
        everything = self.items.all
        slots: list[Slot] = []
        seen: set[str] = set()
        for position, item in enumerate(everything):
            if item.is_call and self._ran_elsewhere(item):
                item.is_call = False
            if item.is_call:
                item.close(position, finish, item is everything[-1], self.id)
                if item.call_id in seen:
                    item.fail("Two calls have the same id.")
                seen.add(item.call_id)
                slots += [Slot(0, len(slots) + n, call) for n, call in enumerate(item.calls)]
        if len(slots) > self.caps.max_calls:
            raise MalformedTurn(f"the answer has more than {self.caps.max_calls} calls")
        calls = [item for item in everything if item.is_call]
        canonical = all(item.regular if raw is None else not _faulted(item) for item in calls)
        canonical = canonical and all(map(_is_plain, held))
        return Turn(
            id=self.id,
            model=self.model,
            slots=tuple(slots),
            text="".join(item.said() for item in everything if item.type == "message"),
            finish=finish,
            usage=_usage(self.response.get("usage")),
            choices=1,
            wire=ResponseTurn(tuple(held), raw, self.response, tuple(everything), canonical),
        )


def _faulted(item: Item) -> bool:
    """Whether a body's item is not as every client reads it: all see the one whole item."""
    key = items.TEXT_KEYS.get(item.type)
    view = item.final
    unread = view is None or not items.call_id(view) or (key is not None and not view.get(key))
    return unread or any(call.fault for call in item.calls)


def _is_plain(read: ReadFrame) -> bool:
    """Whether every client reads the frame: some read line by line, some drop what the stream's end cuts."""
    frame = read.frame
    if frame.data is None or frame.data.strip() == b"[DONE]":
        return True
    return frame.is_ended and _LF not in frame.data and not frame.raw.startswith(BOM)


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    return Usage(tokens(usage.get("input_tokens")), tokens(usage.get("output_tokens")))


class StreamDecoder:
    """Reads an event stream. Everything from the first event of a call on waits for the clean end.

    The last event waits too: it says the whole output once more, and some clients run that.
    """

    def __init__(self, caps: Caps) -> None:
        self.done = False
        self.holding = False
        self._caps = caps
        self._sse = sse(caps)
        self._reading = _Reading(caps)
        self._held: list[ReadFrame] = []
        self._held_bytes = 0
        self._kept_bytes = 0
        self._ended = False
        self._broken: str | None = None
        """In words: an exception that is kept would hold the frames that it went through, and they this."""

    def feed(self, chunk: bytes) -> Sequence[Event]:
        return () if self.done else self._take(self._sse.feed(chunk))

    def close(self) -> tuple[Sequence[Event], Turn]:
        events = () if self.done else self._take(self._sse.close())
        if self._broken is not None:
            raise MalformedTurn(self._broken)
        if not self._ended:
            raise IncompleteTurn("the answer ended before it was complete")
        return events, self._reading.turn(self._held, None)

    def _take(self, frames: Sequence[Frame]) -> Sequence[Event]:
        """What the frames come to. What stood before a frame without a reading still goes on."""
        passing: list[ReadFrame] = []
        failed: Sequence[Event] = ()
        for frame in frames:
            if self.done:
                break
            try:
                wire = self._read(frame)
                if isinstance(wire, Failure):
                    failed, self.done = (wire,), True
                    break
                read = ReadFrame(frame, wire)
                if wire is not None:
                    read.item, read.text = self._take_event(frame, wire)
                if self.holding:
                    self._hold(read)
                else:
                    passing.append(read)
            except MalformedTurn as exc:
                self._broken, self.done = str(exc), True
        if self._sse.too_large and not self.done:
            self._broken, self.done = "an event is larger than limits.max_event_bytes", True
        return (_passage(passing), *failed) if passing else failed

    def _hold(self, read: ReadFrame) -> None:
        self._held_bytes += max(len(read.frame.raw), LEAST_BYTES)
        if self._held_bytes > self._caps.max_held_bytes:
            raise MalformedTurn("the held part of the answer is larger than limits.max_held_bytes")
        self._held.append(read)

    def _read(self, frame: Frame) -> Json | Failure | None:
        data = frame.data
        if data is None:
            return None
        if data.strip() == b"[DONE]":
            self.done = True
            return None
        try:
            wire = loads(data)
        except Fault as exc:
            raise MalformedTurn(f"an event is {exc}") from None
        if not isinstance(wire, dict):
            raise MalformedTurn("an event is not an object")
        if check_keys(data, wire) and _LF in data:
            check_lines(data, may_hold_calls, "type")
        type = wire.get("type")
        if type == "response.failed":
            return _failed(frame, wire)
        if type == "error" or frame.event == b"error" or (not type and wire.get("error")):
            return _error(frame, wire)
        if not isinstance(type, str):
            raise MalformedTurn("an event has no type")
        if frame.event and frame.event != type.encode(errors="replace"):
            raise MalformedTurn("an event has two types")
        if self._ended:
            raise MalformedTurn("an event came after the answer had ended")
        return wire

    def _take_event(self, frame: Frame, wire: Json) -> tuple[Item | None, str]:
        """Take in an event; the item that it is about, and the text that it says."""
        type = str(wire["type"])
        if type == _TEXT:
            return self._take_other(frame, type, wire)
        if type in BEGINNINGS or type in ENDS:
            self._take_lifecycle(type, as_dict(wire.get("response"), "response"))
            return None, ""
        if type == "response.output_item.added":
            return self._take_added(frame, wire), ""
        if type == "response.output_item.done":
            return self._take_done(frame, wire), ""
        stem, _, what = type.rpartition(".")
        if stem in _FRAGMENTS:
            return self._take_fragment(_FRAGMENTS[stem], what, wire), ""
        return self._take_other(frame, type, wire)

    def _take_lifecycle(self, type: str, response: Json) -> None:
        output = as_list(response.get("output"), "output")
        if type in BEGINNINGS:
            if any(items.is_call(as_dict(item, "an output item")) for item in output):
                raise MalformedTurn("the answer began with a call in its output")
            self._reading.take_head(response)
            return
        self._reading.take_head(response)
        self._reading.items.end(output)
        self._ended = self.holding = True

    def _take_added(self, frame: Frame, wire: Json) -> Item | None:
        view = wire.get("item")
        if view is None:
            return None
        view = as_dict(view, "an output item")
        self._keep(frame)
        # Asked first: an item without a kind has no reading, also where something is held already.
        self.holding = items.is_call(view) or self.holding
        known = self._reading.items.find({**wire, "item_id": view.get("id")})
        if known is not None and known.added is None and known.done is None and known.type == view["type"]:
            known.added, known.regular = view, False  # its fragments came first
            return known
        item = self._reading.items.begin(wire, view, str(view["type"]))
        self.holding = self.holding or item.is_call
        return item

    def _take_done(self, frame: Frame, wire: Json) -> Item:
        view = as_dict(wire.get("item"), "an output item")
        self._keep(frame)
        # Asked first: an item without a kind has no reading, also where something is held already.
        self.holding = items.is_call(view) or self.holding
        found = self._reading.items.of_done(wire, view)
        if found is None:
            found = self._reading.items.begin(wire, None, str(view["type"]))
            found.regular, found.is_call = False, items.is_call(view)
        found.regular = found.regular and view.get("id") == found.id
        found.regular = found.regular and wire.get("output_index") == found.index
        found.done = view
        if found.type == "message":
            found.pieces.clear()
        # An item may turn out to be a call only now: a tool search says late who runs it.
        found.is_call = items.is_call(view)
        self.holding = self.holding or found.is_call
        return found

    def _take_fragment(self, type: str, what: str, wire: Json) -> Item:
        self.holding = True
        item = self._reading.items.find(wire)
        if item is None or item.type != type or item.done is not None:
            item = self._reading.items.begin(wire, None, type)
            item.regular = False
        key = {"delta": "delta", "done": items.TEXT_KEYS[type]}.get(what)
        text = wire.get(key) if key else None
        if not isinstance(text, str):
            raise MalformedTurn("a part of a call's arguments is not text")
        if isinstance(name := wire.get("name"), str) and name:
            item.names.append(name)
        same = wire.get("item_id") == item.id and wire.get("output_index") == item.index
        item.regular = item.regular and same and not (what == "delta" and item.told)
        (item.pieces if what == "delta" else item.told).append(text)
        return item

    def _take_other(self, frame: Frame, type: str, wire: Json) -> tuple[Item | None, str]:
        """Text, and what the provider tells of what it runs by itself."""
        if type.startswith("response.shell_call_command"):
            self.holding = True
        item = self._reading.items.find(wire) if "output_index" in wire or "item_id" in wire else None
        if item is not None and item.is_call:
            item.regular = False  # fragments of a shell's commands and the like
            return item, ""
        if (frame.data or b"").find(b'"call_id"') >= 0:
            raise MalformedTurn(f"an event of the kind {type[:64]!r} speaks of a call")
        text = wire.get("delta") if type == _TEXT else None
        if isinstance(text, str):
            if item is not None and item.type == "message":
                self._keep(frame)
                item.pieces.append(text)
            return item, text
        return item, ""

    def _keep(self, frame: Frame) -> None:
        self._kept_bytes += len(frame.raw)
        if self._kept_bytes > self._caps.max_response_bytes:
            raise MalformedTurn("the answer is larger than limits.max_response_bytes")


def _passage(reads: list[ReadFrame]) -> Passage:
    if len(reads) == 1:
        return Passage(reads[0].frame.raw, reads[0].text, (reads[0],))
    raw, text = b"".join([read.frame.raw for read in reads]), "".join([read.text for read in reads])
    return Passage(raw, text, tuple(reads))


def _error(frame: Frame, wire: Json) -> Failure:
    """The provider's own error; written again where some client could take it for another event."""
    message = _message(wire)
    is_plain = wire.keys() <= _ERROR and wire.get("type") == "error"
    if frame.event in (b"", b"error") and (is_plain or not may_hold_calls(frame.data or b"")):
        return Failure(frame.raw, message)
    said = {"code": wire.get("code") if isinstance(wire.get("code"), str) else None, "message": message}
    return Failure(event({**said, "type": "error", "param": None, "error": said}), message)


def _failed(frame: Frame, wire: Json) -> Failure:
    """The provider gave up; calls that it had begun are no part of what the client hears."""
    response = as_dict(wire.get("response"), "response")
    output = as_list(response.get("output"), "output")
    kept = [item for item in output if isinstance(item, dict) and _passes(item)]
    raw = frame.raw
    if len(kept) < len(output) or frame.event not in (b"", b"response.failed"):
        raw = event({**wire, "response": {**response, "output": kept}})
    return Failure(raw, _message(response))


def _passes(item: Mapping[str, Any]) -> bool:
    try:
        return not items.is_call(item)
    except MalformedTurn:
        return False


def _message(wire: Mapping[str, Any]) -> str:
    error = wire.get("error")
    return shortened(error.get("message") if isinstance(error, dict) else error or wire.get("message"))


def body_decoder(caps: Caps) -> BodyReader:
    """Reads a whole answer."""
    return BodyReader(caps, lambda body: ((), _read_body(body, caps)))


def _read_body(raw: bytes, caps: Caps) -> Turn:
    if not raw.strip():
        raise IncompleteTurn("the answer is empty")
    try:
        wire = loads(raw.removeprefix(BOM))
    except Fault as exc:
        raise MalformedTurn(f"the answer is {exc}") from None
    wire = as_dict(wire, "the answer")
    check_keys(raw, wire)
    reading = _Reading(caps)
    reading.take_head(wire)
    reading.items.end(as_list(wire.get("output"), "output"))
    return reading.turn((), raw)
