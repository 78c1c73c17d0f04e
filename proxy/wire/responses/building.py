"""Putting an output item together out of its events, and finding out whether every client would get the same.

Some clients run what the item events say, others what the last event's ``output`` says. So every word that an
item is told in (added, deltas, done, the last event) is kept, and has to agree with the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proxy.model import ToolCall
from proxy.wire.codec import MalformedTurn
from proxy.wire.responses import items
from proxy.wire.responses.items import Json
from proxy.wire.writing import is_unicode, is_whole, joined

_TELLING = ("name", "namespace", "server_label", "call_id", "approval_request_id")
_TWO_WAYS = "The call is written in two ways at once."
_NOT_UNICODE = "The call is not valid Unicode: it holds half of a surrogate pair."
_CUT_OFF = "The arguments were cut off by the output limit; write them shorter."


@dataclass(eq=False)
class Item:
    """One output item while its events arrive."""

    type: str
    id: str = ""
    index: int | None = None
    """The provider's ``output_index``."""
    added: Json | None = None
    done: Json | None = None
    final: Json | None = None
    """The item as the last event has it."""
    pieces: list[str] = field(default_factory=list)
    """Fragments of its arguments; of a message, of its text."""
    told: list[str] = field(default_factory=list)
    """Whole arguments, as an event of their own said them."""
    names: list[str] = field(default_factory=list)
    """The tool's name, where an event of its own said it."""
    given: Json = field(default_factory=dict)
    """What it came without and has to have."""
    is_call: bool = False
    regular: bool = True
    """Its events came in the one shape that every client reads alike."""
    calls: list[ToolCall] = field(default_factory=list)
    """What it asks for, once the answer has ended."""

    @property
    def call_id(self) -> str:
        return next((id for view in self.views if (id := items.call_id(view))), "")

    @property
    def views(self) -> list[Json]:
        return [view for view in (self.added, self.done, self.final) if view is not None]

    @property
    def item(self) -> Json:
        """The item as a whole, in the last and fullest words for it."""
        whole: Json = {}
        for view in self.views:
            whole |= {key: value for key, value in view.items() if value is not None or key not in whole}
        if self.is_call and (key := items.TEXT_KEYS.get(self.type)):
            whole[key] = self._text(key)
            if self.names and not whole.get("name"):
                whole["name"] = self.names[0]
        if self.type == "message" and not whole.get("content") and self.pieces:
            whole["content"] = [{"type": "output_text", "text": joined(self.pieces), "annotations": []}]
        return {"type": self.type, **whole, **self.given}

    def _text(self, key: str) -> str:
        texts = self._texts(key)
        return texts[-1] if texts else ""

    def _texts(self, key: str) -> list[str]:
        """Every non-empty wording of the arguments, the fragments first."""
        whole = [view[key] for view in self.views if isinstance(view.get(key), str)]
        return [text for text in (joined(self.pieces), *map(_text, self.told), *map(_text, whole)) if text]

    def said(self) -> str:
        """The text of a message."""
        for view in (self.final, self.done):
            if view is not None and (text := items.text_of(view.get("content"))):
                return text
        return joined(self.pieces)

    def close(self, position: int, finish: str | None, is_last: bool, answer_id: str) -> None:
        """Read the item's calls at the clean end of the answer; ``position`` is its place in that."""
        whole = self.item
        if not items.call_id(whole):
            key = "id" if self.type == "mcp_approval_request" else "call_id"
            given = whole.get("id") or items.given_id(whole, answer_id, position)
            self.given, self.regular = {key: given}, False
            whole = self.item
        if not is_unicode(items.call_id(whole)):
            raise MalformedTurn("the id of a call is not valid Unicode")
        calls = items.read_calls(whole)
        if fault := self._fault():
            calls = [replace(calls[0], id=items.call_id(whole), arguments=None, fault=fault)]
        elif calls[0].fault and is_last and finish == "incomplete":
            calls = [replace(calls[0], fault=_CUT_OFF)]
        self.calls = calls
        self.regular = self.regular and self._is_regular(position, calls)

    def fail(self, fault: str) -> None:
        """The item's call has no reading after all."""
        self.calls = [replace(call, arguments=None, fault=fault) for call in self.calls]
        self.regular = False

    def _fault(self) -> str | None:
        views = self.views
        if len(views) > 1 or self.names:
            if any(self._is_told_twice(word) for word in _TELLING):
                return _TWO_WAYS
            # Said in one place and missing in another, a namespace makes two tools of one name.
            if len({repr(view.get("namespace")) for view in (self.done, self.final) if view is not None}) > 1:
                return _TWO_WAYS
        if key := items.TEXT_KEYS.get(self.type):
            told = [view.get(key) for view in views]
            if len(set(self._texts(key))) > 1 or any(map(_is_odd, told)):
                return _TWO_WAYS
            whole = all([is_unicode(text) for text in (*self.told, *told) if text])
            return None if whole and is_whole(self.pieces) else _NOT_UNICODE
        asked = [_asked(view) for view in (self.done, self.final) if view is not None]
        return _TWO_WAYS if any(view != asked[0] for view in asked) else None

    def _is_told_twice(self, word: str) -> bool:
        """Whether the item has two different values for a word that tells what it calls."""
        named = self.names if word == "name" else ()
        return len({repr(value) for value in (*named, *(view.get(word) for view in self.views)) if value}) > 1

    def _is_regular(self, position: int, calls: list[ToolCall]) -> bool:
        if any(call.fault for call in calls) or self.index != position:
            return False
        if self.added is None or self.done is None or self.final is None or not self.id:
            return False
        if self.final.get("id") != self.id or self.added.get("namespace") != self.done.get("namespace"):
            return False
        key = items.TEXT_KEYS.get(self.type)
        if key is None or self.type == "mcp_approval_request":
            return not self.pieces and all(_asked(view) == _asked(self.item) for view in self.views)
        text = self._text(key)
        spoken = bool(text) and all(view.get(key) == text for view in (self.done, self.final))
        whole = spoken and joined(self.pieces) == text and self.told == [text] and not self.added.get(key)
        return whole and bool(self.added.get("name")) and bool(items.call_id(self.added))


def _text(text: str) -> str:
    return joined([text])


def _is_odd(value: Any) -> bool:
    return value is not None and not isinstance(value, str)


def _asked(view: Mapping[str, Any]) -> Json:
    """What of an item decides what will run, without its state."""
    return {key: value for key, value in view.items() if key not in ("status", "id") and value is not None}


class Items:
    """The items of one answer, in the order in which they began."""

    def __init__(self, max_calls: int) -> None:
        self.all: list[Item] = []
        self._max_calls = max_calls
        self._by_index: dict[int, Item] = {}
        self._by_id: dict[str, Item] = {}

    def begin(self, wire: Mapping[str, Any], view: Json | None, type: str) -> Item:
        """A new item; ``wire`` is the event that began it."""
        index, id = wire.get("output_index"), (view or {}).get("id") or wire.get("item_id")
        item = Item(type, id if isinstance(id, str) else "", index if _is_index(index) else None, view)
        item.is_call = items.is_call(view if view is not None else {"type": type})
        if len(self.all) >= 4 * self._max_calls or self._is_crowded(item):
            raise MalformedTurn(f"the answer has more than {self._max_calls} calls")
        item.regular = item.index not in self._by_index and item.id not in self._by_id
        self.all.append(item)
        if item.index is not None:
            self._by_index[item.index] = item
        if item.id:
            self._by_id[item.id] = item
        return item

    def _is_crowded(self, item: Item) -> bool:
        return item.is_call and sum(known.is_call for known in self.all) >= self._max_calls

    def find(self, wire: Mapping[str, Any]) -> Item | None:
        """The item that an event is about.

        Servers differ: some give no ``output_index``, some another ``item_id`` each time, some the same
        index to all.
        """
        index, id = wire.get("output_index"), wire.get("item_id")
        by_id = self._by_id.get(id) if isinstance(id, str) else None
        if not _is_index(index):
            return by_id or (self.all[-1] if self.all else None)
        if by_id is not None and (by_id.index == index or by_id.index is None):
            return by_id
        return self._by_index.get(index if isinstance(index, int) else -1) or by_id

    def of_done(self, wire: Mapping[str, Any], view: Json) -> Item | None:
        """The item that an ``output_item.done`` ends."""
        id = view.get("id")
        if called := items.call_id(view):
            for item in self.all:
                if item.done is None and item.type == view["type"] and item.call_id == called:
                    return item
        found = self.find({**wire, "item_id": id})
        return found if found is not None and found.done is None and found.type == view["type"] else None

    def end(self, views: list[Any]) -> None:
        """Take in the ``output`` of the last event; what only stands there is an item too."""
        for position, view in enumerate(views):
            if not isinstance(view, dict):
                raise MalformedTurn("an output item is not an object")
            item = self._of_final(view, position)
            if item is None:
                item = self.begin({}, view, str(view.get("type")))
                item.added, item.regular = None, False
            item.final = view

    def _of_final(self, view: Json, position: int) -> Item | None:
        is_call = items.is_call(view)
        open = [item for item in self.all if item.final is None and item.type == view.get("type")]
        key = items.call_id(view) if is_call else view.get("id")
        for item in open:
            if key and key == (item.call_id if is_call else item.id):
                return item
        at = self.all[position] if position < len(self.all) else None
        # Ids that change with each event, or none at all: its place tells.
        if at in open and not (is_call and key and at is not None and at.call_id):
            return at
        return None


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
