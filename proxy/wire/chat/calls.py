"""Assembling the calls of one choice out of what providers send for them.

The rule was matched against recorded traffic of many vendors: a non-empty id names the call; without one
the index does; without either it is the latest call. A name is assigned, never appended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from proxy.model import ToolCall
from proxy.wire import parallel
from proxy.wire.chat.nesting import Nesting
from proxy.wire.codec import MalformedTurn, as_dict
from proxy.wire.writing import is_exact, is_unicode, is_whole, joined, write_json

CallType = Literal["function", "custom", "legacy"]

_PIECE_KEYS = frozenset({"index", "id", "type", "function", "custom"})
_TEXT_KEY: Mapping[CallType, str] = {"function": "arguments", "custom": "input", "legacy": "arguments"}
_BODY_KEYS = {key: frozenset({"name", key}) for key in ("arguments", "input")}
_TWO_WAYS = "The call is written in two ways at once."
_NOT_UNICODE = "The call is not valid Unicode: it holds half of a surrogate pair."
_INEXACT = "The arguments hold a number that not every client reads alike."
_CUT_OFF = {
    "length": "The arguments were cut off by the output limit; write them shorter.",
    "content_filter": "The arguments were cut off by the provider's content filter.",
}


@dataclass(slots=True)
class Building:
    """A call while its pieces arrive."""

    index: int | None
    id: str = ""
    name: str = ""
    type: CallType = "function"
    arguments: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    """What else stands beside the call, such as signatures."""
    inner: dict[str, Any] = field(default_factory=dict)
    """What else stands beside its name."""
    fault: str | None = None
    _nesting: Nesting | None = None
    _is_complete: bool = False

    @property
    def arguments_json(self) -> str:
        """The fragments, put together."""
        return joined(self.arguments)

    def call(self) -> ToolCall:
        """The call, read strictly."""
        kind: Literal["function", "custom"] = "custom" if self.type == "custom" else "function"
        call = ToolCall.parse(self.id, self.name, self.arguments_json, kind)
        fault = self.fault or ("The call has no name." if not self.name else None)
        if fault is None and not is_whole(self.arguments):
            fault = _NOT_UNICODE
        return call if fault is None else faulted(call, fault)

    def wire(self, arguments: str | None = None) -> dict[str, Any]:
        """The call as it stands in an assistant message, with these ``arguments`` instead of its own."""
        text = self.arguments_json if arguments is None else arguments
        # A wrapper that has no reading: sent back by its own name, it would be refused for the dot in that.
        name = parallel.SHORT if arguments is None and self.name == parallel.NAME else self.name
        type = "custom" if self.type == "custom" else "function"
        if type == "function":
            text = text or "{}"
        body = {"name": name, _TEXT_KEY[self.type]: text, **self.inner}
        return {"id": self.id, "type": type, type: body, **self.extra}

    def is_complete(self) -> bool:
        """Whether the arguments are a whole object. It is asked with each fragment of some calls."""
        if self._nesting is None:
            self._nesting = Nesting()
        if self._nesting.ends_in(self.arguments):
            self._is_complete = ToolCall.parse("", "", self.arguments_json.rstrip()).fault is None
        return self._is_complete

    def parts(self) -> list[Building]:
        """The calls that stand in it where it is a wrapper; else itself."""
        if self.name != parallel.NAME or self.type != "function" or self.fault is not None:
            return [self]
        calls = parallel.unwrapped(self.call(), lambda position: f"{self.id}_{position}")
        parts = [
            Building(None, call.id, call.name, arguments=[call.arguments_json], fault=call.fault)
            for call in calls
        ]
        if parts:
            parts[0].extra, parts[0].inner = self.extra, self.inner
        return parts or [self]

    def take_name(self, name: Any) -> None:
        """Assign the name; one that grows from piece to piece, or is repeated, is one name."""
        if name is None or name == "":
            return
        if not isinstance(name, str):
            self.fault = "The name of the call is not text."
        elif not is_unicode(name):
            self.fault = _NOT_UNICODE
        elif name.startswith(self.name):
            self.name = name
        elif not self.name.startswith(name):
            self.fault = f"The call has two names, {self.name[:64]!r} and {name[:64]!r}."

    def take_arguments(self, fragment: Any) -> bool:
        """Append a fragment; whether every client would have read this one alike."""
        if isinstance(fragment, str):
            self.arguments.append(fragment)
            return is_unicode(fragment)
        if fragment is not None:
            # Some servers send the arguments as an object instead of its text.
            self.arguments.append(write_json(fragment).decode())
            if not is_exact(fragment):
                self.fault = _INEXACT
        return False


def faulted(call: ToolCall, fault: str) -> ToolCall:
    """The same call, marked as one that has no reading every client shares."""
    return replace(call, arguments=None, fault=fault)


@dataclass(slots=True)
class ChoiceCalls:
    """The calls of one choice, and whether every client would rebuild the same ones from the pieces."""

    max_calls: int
    calls: list[Building] = field(default_factory=list)
    canonical: bool = True
    _by_id: dict[str, Building] = field(default_factory=dict)
    _by_index: dict[int, Building] = field(default_factory=dict)
    _touched: Building | None = None
    """The call that the latest piece belonged to."""
    _legacy: Building | None = None

    @property
    def is_legacy(self) -> bool:
        """The choice has the one call of the ``functions`` API, and no other."""
        return len(self.calls) == 1 and self._legacy is not None

    def add_legacy(self, piece: dict[str, Any]) -> None:
        """A fragment of the one call of the ``functions`` API."""
        call = self._legacy
        if call is None:
            call = self._legacy = self._begin(Building(None, type="legacy"))
            shape = piece.keys() == {"name", "arguments"} and bool(piece["name"])
        else:
            shape = piece.keys() == {"arguments"}
        self._touched = call
        call.take_name(piece.get("name"))
        exact = call.take_arguments(piece.get("arguments"))
        self.canonical = self.canonical and shape and exact

    def add(self, pieces: list[Any]) -> None:
        """The ``tool_calls`` of one delta."""
        if len(pieces) > 1:
            self.canonical = False
        for piece in pieces:
            self._add(as_dict(piece, "a tool call"))

    def _add(self, piece: dict[str, Any]) -> None:
        index, id, type = self._index(piece), self._id(piece), _type_of(piece)
        body = as_dict(piece.get(type or "function"), "the body of a tool call")
        call = self._find(index, id, body)
        if call is None:
            call = self._open(piece, index, id, type or "function", body)
        elif call is not self.calls[-1] or index != call.index or not _is_fragment(piece, body, type):
            self.canonical = False
        if type not in (None, call.type) or None not in (piece.get("function"), piece.get("custom")):
            call.fault = _TWO_WAYS
        if id and not call.id:
            call.id, self._by_id[id] = id, call
        self._fill(call, piece, body)

    def _fill(self, call: Building, piece: dict[str, Any], body: dict[str, Any]) -> None:
        self._touched = call
        text_key = _TEXT_KEY[call.type]
        call.take_name(body.get("name"))
        if not call.take_arguments(body.get(text_key)):
            self.canonical = False
        if not piece.keys() <= _PIECE_KEYS:
            for key in piece.keys() - _PIECE_KEYS:
                call.extra.setdefault(key, piece[key])
        if not body.keys() <= (known := _BODY_KEYS[text_key]):
            for key in body.keys() - known:
                call.inner.setdefault(key, body[key])

    def _index(self, piece: dict[str, Any]) -> int | None:
        index = piece.get("index")
        if isinstance(index, int) and not isinstance(index, bool) and index >= 0:
            return index
        self.canonical = False
        return None

    def _id(self, piece: dict[str, Any]) -> str:
        id = piece.get("id") or ""
        if isinstance(id, str) and is_unicode(id):
            return id
        self.canonical = False
        return joined([str(id)])

    def _open(
        self, piece: dict[str, Any], index: int | None, id: str, type: CallType, body: dict[str, Any]
    ) -> Building:
        shape = piece.get("type") == type and isinstance(body.get(_TEXT_KEY[type]), str)
        if not (shape and id and body.get("name") and index == len(self.calls)):
            self.canonical = False
        call = self._begin(Building(index, type=type))
        if index is not None:
            self._by_index[index] = call
        return call

    def _begin(self, call: Building) -> Building:
        if len(self.calls) >= self.max_calls:
            raise MalformedTurn(f"the turn has more than {self.max_calls} calls")
        self.calls.append(call)
        return call

    def _find(self, index: int | None, id: str, body: dict[str, Any]) -> Building | None:
        """The call that a piece belongs to; None begins a new one."""
        if known := self._by_id.get(id):
            return known
        if index is None:
            return None if id else self._latest(body)
        at_index, name = self._by_index.get(index), body.get("name")
        if at_index is None or not id or not name:
            # Without a name it is a fragment, whatever its id: some servers make up an id for each.
            return at_index
        return at_index if not at_index.id and name == at_index.name else None

    def _latest(self, body: dict[str, Any]) -> Building | None:
        if not self.calls:
            return None
        latest, name = self.calls[-1], body.get("name")
        if not name or not latest.name:
            return latest
        begins = body.get(_TEXT_KEY[latest.type]) not in (None, "") and latest.is_complete()
        return None if begins or name != latest.name else latest

    def close(self, turn_id: str, choice: int, finish: str | None) -> list[ToolCall]:
        """The choice's calls at the clean end of the turn; missing ids are given."""
        if self._legacy is not None and not self.is_legacy:
            self._refuse_mixture()
        for position, building in enumerate(self.calls):
            if not building.id and not self.is_legacy:
                building.id, self.canonical = _given_id(turn_id, choice, position, building), False
        self._unwrap()
        calls: list[ToolCall] = []
        seen: set[str] = set()
        for building in self.calls:
            call = self._cut_short(building, building.call(), finish)
            if call.id in seen:
                call = faulted(call, "Two calls have the same id.")
            seen.add(call.id)
            # An empty text is read as no arguments, but not by every client.
            if call.fault or (building.type != "custom" and not building.arguments_json):
                self.canonical = False
            calls.append(call)
        expected = "function_call" if self.is_legacy else "tool_calls"
        if finish != expected and finish not in _CUT_OFF:
            self.canonical = False
        return calls

    def _unwrap(self) -> None:
        """Put the calls of a ``multi_tool_use.parallel`` in its place.

        No client of this API knows the wrapper, and providers refuse its name when it is sent back.
        """
        if any([building.name == parallel.NAME for building in self.calls]):
            self.calls = [part for building in self.calls for part in building.parts()]
            self.canonical = False
            if len(self.calls) > self.max_calls:
                raise MalformedTurn(f"the turn has more than {self.max_calls} calls")

    def _refuse_mixture(self) -> None:
        """A client reads either ``tool_calls`` or ``function_call``: no call of the choice is safe."""
        for call in self.calls:
            call.fault = _TWO_WAYS
            call.type = "custom" if call.type == "custom" else "function"

    def _cut_short(self, building: Building, call: ToolCall, finish: str | None) -> ToolCall:
        """An answer that was cut off was so in its latest call, or before a call's first argument."""
        if finish not in _CUT_OFF:
            return call
        broken = building is self._touched and (call.fault or call.kind == "custom")
        return faulted(call, _CUT_OFF[finish]) if broken or not building.arguments_json else call


def _type_of(piece: dict[str, Any]) -> CallType | None:
    """What the piece says its call is; None where it says nothing."""
    if piece.get("type") == "custom" or piece.get("custom") is not None:
        return "custom"
    return "function" if piece.get("function") is not None else None


def _is_fragment(piece: dict[str, Any], body: dict[str, Any], type: CallType | None) -> bool:
    return type is not None and piece.keys() == {"index", type} and body.keys() == {_TEXT_KEY[type]}


def _given_id(turn_id: str, choice: int, position: int, call: Building) -> str:
    """An id for a call that came without one: nine alphanumeric characters, as the strictest API wants."""
    text = f"{turn_id}/{choice}/{position}/{call.name}/{call.arguments_json}"
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:9]
