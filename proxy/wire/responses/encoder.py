"""Writing the one response that the client sees, over all rounds behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from proxy.model import Passage, Turn, loads
from proxy.wire.chat.rewriting import add_usage, error_body
from proxy.wire.responses import items
from proxy.wire.responses.building import Item
from proxy.wire.responses.decoder import BEGINNING, BEGINNINGS, ENDS, ReadFrame, ResponseTurn
from proxy.wire.responses.events import event, item_events, message
from proxy.wire.responses.items import Json
from proxy.wire.writing import write_json

# What the first round said of itself holds for the whole answer: clients refuse a change.
_HEAD_KEYS = ("id", "created_at")


def _unchanged(turn: Turn, arguments: Sequence[str | None]) -> bool:
    wire: ResponseTurn = turn.wire
    return wire.canonical and all(
        slot.call.arguments_json == forwarded for slot, forwarded in zip(turn.slots, arguments, strict=True)
    )


def forwarded(turn: Turn, arguments: Sequence[str | None]) -> dict[Item, Json]:
    """The items that go on, with the arguments that they go on with."""
    wire: ResponseTurn = turn.wire
    written = {item: items.written(item.item, item.calls, share) for item, share in wire.groups(arguments)}
    return {item: whole for item, whole in written.items() if whole is not None}


class _Output:
    """The items of the one answer, in the client's numbering, and what holds for all of its rounds."""

    def __init__(self) -> None:
        self.head: Json = {}
        self.response: Json = {}
        """The response as it was last told."""
        self.usage: Json | None = None
        self.shown: dict[int, Json] = {}
        self.unfollowed = False
        """The last item is reasoning whose call the client does not see."""
        self._ids: set[str] = set()

    @property
    def next(self) -> int:
        return max(self.shown, default=-1) + 1

    def see(self, response: Json) -> None:
        if not self.head:
            self.head = {key: response[key] for key in _HEAD_KEYS if key in response}
        self.response = response

    def unique(self, item: Json) -> Json:
        """The item with an id that no other item of the answer has."""
        id = item.get("id")
        if not isinstance(id, str) or not id or id in self._ids:
            item = {**item, "id": items.given_id(item, self.head.get("id"), self.next, id)}
        return item

    def show(self, index: int, item: Json) -> None:
        self.shown[index] = item
        if isinstance(id := item.get("id"), str):
            self._ids.add(id)

    def own_message(self, text: str) -> Json:
        """A message in the proxy's own words."""
        return self.unique(message("", text))

    def settle(self, turn: Turn) -> None:
        usage = turn.wire.response.get("usage")
        if isinstance(usage, dict):
            self.usage = add_usage(self.usage, usage) if self.usage is not None else usage
        last = self.shown.get(self.next - 1, {})
        self.unfollowed = bool(turn.slots) and last.get("type") == "reasoning"

    def whole(self, response: Json) -> Json:
        """A response as the end of the one answer."""
        whole = {**response, **self.head, "output": [self.shown[index] for index in sorted(self.shown)]}
        if self.usage is not None:
            whole["usage"] = add_usage(self.usage, response.get("usage"))
        return whole

    def finished(self) -> Json:
        """The last response as if it had come to its end without a call."""
        ended = {**self.response, "status": "completed", "error": None, "incomplete_details": None}
        return self.whole({**ended, "usage": None})


class StreamEncoder:
    """Writes an event stream; as long as nothing had to change, with the provider's own bytes."""

    def __init__(self) -> None:
        self._output = _Output()
        self._sequence = 0
        self._rewriting = False
        """What follows is no more as the provider numbered it."""
        self._places: dict[Item, int] = {}
        self._renamed: dict[Item, str] = {}

    def passage(self, passage: Passage) -> bytes:
        frames: Sequence[ReadFrame] = passage.frames
        if not self._rewriting and self._output.head:
            # A held turn that is released into an answer that has begun is a second response.
            self._rewriting = any([r.object is not None and r.object["type"] == BEGINNING for r in frames])
        if self._rewriting:
            return b"".join(map(self._rewrite, frames))
        for read in frames:
            if read.object is not None:
                self._see(read.object, read.item)
        return passage.raw

    def _see(self, wire: Json, item: Item | None) -> None:
        """Note what the client is told in the provider's own bytes."""
        number = wire.get("sequence_number")
        self._sequence = number + 1 if isinstance(number, int) else self._sequence + 1
        type = wire["type"]
        if type in BEGINNINGS:
            self._output.see(wire.get("response") or {})
        elif item is not None and isinstance(view := wire.get("item"), dict):
            index = wire.get("output_index")
            place = self._places.setdefault(item, index if isinstance(index, int) else self._output.next)
            self._output.show(place, view)

    def _rewrite(self, read: ReadFrame) -> bytes:
        """An event of a later round as part of the one answer; nothing for those that begin or end it."""
        wire, item = read.object, read.item
        if wire is None:
            return read.frame.raw if read.frame.data is None else b""
        if wire["type"] in BEGINNINGS:
            self._output.see(wire.get("response") or {})
            return b""
        if wire["type"] in ENDS or (item is not None and item.is_call):
            return b""
        if item is None:
            return self._write(wire)
        before = b""
        if item not in self._places:
            before = self._bridge(item.type)
            self._places[item] = self._output.next
            self._renamed[item] = self._output.unique(item.item)["id"]
            self._output.show(self._places[item], item.item)
        return before + self._write(self._placed(wire, item))

    def _placed(self, wire: Json, item: Item) -> Json:
        index = self._places[item]
        wire = {**wire, "output_index": index}
        if "item_id" in wire:
            wire["item_id"] = self._renamed.get(item, wire["item_id"])
        if isinstance(view := wire.get("item"), dict):
            wire["item"] = {**view, "id": self._renamed.get(item, view.get("id"))}
            self._output.show(index, wire["item"])
        return wire

    def _write(self, wire: Json) -> bytes:
        wire = {**wire, "sequence_number": self._sequence}
        self._sequence += 1
        return event(wire)

    def _write_item(self, item: Json) -> bytes:
        """A whole item, in the shape that every client reads alike."""
        before = self._bridge(str(item["type"]))
        item, index = self._output.unique(item), self._output.next
        self._output.show(index, item)
        return before + b"".join(map(self._write, item_events(item, index)))

    def _bridge(self, type: str) -> bytes:
        """Reasoning must be followed by what it led to: a message stands for a call that is not shown."""
        unfollowed, self._output.unfollowed = self._output.unfollowed, False
        return self._write_item(self._output.own_message("")) if unfollowed and type == "reasoning" else b""

    def settle(self, turn: Turn) -> bytes:
        wire: ResponseTurn = turn.wire
        said = b"".join(map(self._rewrite, wire.held)) + self._untold(wire)
        self._output.see(wire.response)
        self._output.settle(turn)
        self._rewriting = True
        return said

    def _untold(self, wire: ResponseTurn) -> bytes:
        """Take in the turn's items as they ended; write those that only its last event held."""
        for item in wire.items:
            if (index := self._places.get(item)) is not None:
                view = item.item
                self._output.show(index, {**view, "id": self._renamed.get(item, view.get("id"))})
        missing = [i for i in wire.items if not i.is_call and i not in self._places]
        return b"".join(self._write_item(item.item) for item in missing)

    def release(self, turn: Turn, arguments: Sequence[str | None], notices: Mapping[int, str]) -> bytes:
        wire: ResponseTurn = turn.wire
        if not self._rewriting and (not turn.slots or _unchanged(turn, arguments)):
            return b"".join(read.frame.raw for read in wire.held)
        self._output.see(wire.response)
        going = forwarded(turn, arguments)
        waiting = dict(going)
        out: list[bytes] = []
        last: list[bytes] = []
        for read in wire.held:
            if read.item is not None and read.item.is_call:
                if read.item in waiting:
                    out.append(self._write_item(waiting.pop(read.item)))
            elif read.object is not None and read.object["type"] in ENDS:
                out.append(self._untold(wire))
                out += map(self._write_item, waiting.values())
                out.append(self._last_words(notices.get(0, "") if turn.slots and not going else ""))
                out.append(self._write({**read.object, "response": self._output.whole(wire.response)}))
            elif read.object is None and read.frame.data is not None:
                last.append(read.frame.raw)
            else:
                out.append(self._rewrite(read))
        return b"".join(out + last)

    def _last_words(self, text: str) -> bytes:
        """The notice; without one, a message where reasoning would be the last that is shown."""
        shown = self._output.shown.get(self._output.next - 1, {})
        if text or shown.get("type") == "reasoning":
            self._output.unfollowed = False
            return self._write_item(self._output.own_message(text))
        return b""

    def finish(self, text: str) -> bytes:
        said = self._last_words(text)
        return said + self._write({"type": "response.completed", "response": self._output.finished()})

    def status(self, text: str) -> bytes:
        # What follows is numbered on from it, and the end has to tell of it.
        self._rewriting = True
        return self._write_item(self._output.own_message(text))

    def error(self, status: int, code: str, message: str) -> bytes:
        return error_event(status, code, message, self._sequence)


def error_event(status: int, code: str, text: str, sequence: int) -> bytes:
    """An error in-band: flat, as OpenAI specifies it, with the object beside it that its clients raise on."""
    error = loads(error_body(status, code, text))["error"]
    flat = {"code": code, "message": text, "param": None, "sequence_number": sequence}
    return event({"type": "error", **flat, "error": error})


class BodyEncoder:
    """Writes a whole answer; as long as nothing had to change, with the provider's own bytes."""

    def __init__(self) -> None:
        self._output = _Output()
        self._rounds = 0

    def passage(self, passage: Passage) -> bytes:
        return passage.raw

    def _show(self, shown: Iterable[Json]) -> None:
        for item in shown:
            output = self._output
            if output.unfollowed and item["type"] == "reasoning":
                output.show(output.next, output.own_message(""))
            output.unfollowed = False
            output.show(output.next, output.unique(item))

    def settle(self, turn: Turn) -> bytes:
        wire: ResponseTurn = turn.wire
        self._output.see(wire.response)
        self._show(item.item for item in wire.items if not item.is_call)
        self._output.settle(turn)
        self._rounds += 1
        return b""

    def release(self, turn: Turn, arguments: Sequence[str | None], notices: Mapping[int, str]) -> bytes:
        wire: ResponseTurn = turn.wire
        if self._rounds == 0 and (not turn.slots or _unchanged(turn, arguments)):
            return wire.raw or b""
        self._output.see(wire.response)
        going = forwarded(turn, arguments)
        visible = [item for item in wire.items if not item.is_call or item in going]
        self._show(going.get(item, item.item) for item in visible)
        self._last_words(notices.get(0, "") if turn.slots and not going else "")
        return write_json(self._output.whole(wire.response))

    def _last_words(self, text: str) -> None:
        shown = self._output.shown.get(self._output.next - 1, {})
        if text or shown.get("type") == "reasoning":
            self._output.show(self._output.next, self._output.own_message(text))

    def finish(self, text: str) -> bytes:
        self._last_words(text)
        return write_json(self._output.finished())

    def status(self, text: str) -> bytes:
        return b""

    def error(self, status: int, code: str, message: str) -> bytes:
        return error_body(status, code, message)
