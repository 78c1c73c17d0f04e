"""Assembling the calls of one choice out of what providers send for them.

The rule was matched against recorded traffic of many vendors: a non-empty id names the call; without one
the index does; without either it is the latest call. A name is assigned, never appended.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.model import ToolCall, dumps
from proxy.wire.codec import MalformedTurn, as_dict

CallType = Literal["function", "custom", "legacy"]

_PIECE_KEYS = {"index", "id", "type", "function", "custom"}
# With these a call may stand and every client still sees it; any other is written as "tool_calls".
FINISHES_WITH_CALLS = {"tool_calls", "length", "content_filter"}


@dataclass
class Building:
    """A call while its pieces arrive."""

    index: int | None
    id: str = ""
    name: str = ""
    type: CallType = "function"
    arguments: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None

    @property
    def arguments_json(self) -> str:
        """The fragments joined; halves of a surrogate pair that were cut apart are put together."""
        text = "".join(self.arguments)
        if text.isascii():
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeError:
            return text

    def call(self) -> ToolCall:
        """The call, read strictly."""
        kind: Literal["function", "custom"] = "custom" if self.type == "custom" else "function"
        call = ToolCall.parse(self.id, self.name, self.arguments_json, kind)
        fault = self.fault or ("The call has no name." if not self.name else None)
        return call if fault is None else faulted(call, fault)

    def wire(self) -> dict[str, Any]:
        """The call as it stands in an assistant message."""
        if self.type == "custom":
            body = {"name": self.name, "input": self.arguments_json}
            return {"id": self.id, "type": "custom", "custom": body, **self.extra}
        body = {"name": self.name, "arguments": self.arguments_json or "{}"}
        return {"id": self.id, "type": "function", "function": body, **self.extra}


def faulted(call: ToolCall, fault: str) -> ToolCall:
    """The same call, marked as one that has no reading every client shares."""
    return ToolCall(call.id, call.name, call.arguments_json, None, fault, call.kind)


@dataclass
class ChoiceCalls:
    """The calls of one choice, and whether every client would rebuild the same ones from the pieces."""

    max_calls: int
    calls: list[Building] = field(default_factory=list)
    canonical: bool = True
    _by_id: dict[str, Building] = field(default_factory=dict)
    _by_index: dict[int, Building] = field(default_factory=dict)

    def add_legacy(self, piece: dict[str, Any]) -> None:
        """A fragment of the one call of the ``functions`` API."""
        self.canonical = self.canonical and piece.keys() <= {"name", "arguments"}
        if not self.calls:
            self.calls.append(Building(index=None, type="legacy"))
            self.canonical = self.canonical and bool(piece.get("name"))
        elif "name" in piece:
            self.canonical = False
        call = self.calls[-1]
        if call.type != "legacy":
            call.fault = "The call is written in two ways at once."
        self._name(call, piece.get("name"))
        self._append(call, piece.get("arguments", ""))

    def add(self, pieces: list[Any]) -> None:
        """The ``tool_calls`` of one delta."""
        if len(pieces) > 1:
            self.canonical = False
        for piece in pieces:
            self._add(as_dict(piece, "a tool call"))

    def _add(self, piece: dict[str, Any]) -> None:
        index = piece.get("index")
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            index, self.canonical = None, False
        id = piece.get("id") or ""
        if not isinstance(id, str):
            id, self.canonical = str(id), False
        custom = piece.get("type") == "custom" or isinstance(piece.get("custom"), dict)
        body = as_dict(piece.get("custom" if custom else "function"), "the body of a tool call")
        call = self._find(index, id, body.get("name"))
        if call is None:
            call = self._open(piece, index, id, custom, body)
        elif call is not self.calls[-1] or index != call.index or not _is_fragment(piece, body, custom):
            self.canonical = False
        if id and not call.id:
            call.id, self._by_id[id] = id, call
        self._name(call, body.get("name"))
        self._append(call, body.get("input" if custom else "arguments", None if not body else ""))
        for key in piece.keys() - _PIECE_KEYS:
            call.extra.setdefault(key, piece[key])

    def _open(
        self, piece: dict[str, Any], index: int | None, id: str, custom: bool, body: dict[str, Any]
    ) -> Building:
        argument = body.get("input" if custom else "arguments")
        shape = piece.get("type") == ("custom" if custom else "function") and isinstance(argument, str)
        if not (shape and id and body.get("name") and index == len(self.calls)):
            self.canonical = False
        if len(self.calls) >= self.max_calls:
            raise MalformedTurn(f"the turn has more than {self.max_calls} calls")
        call = Building(index, type="custom" if custom else "function")
        if self.calls and self.calls[-1].type == "legacy":
            call.fault = "The call is written in two ways at once."
        self.calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    def _find(self, index: int | None, id: str, name: Any) -> Building | None:
        """The call that a piece belongs to; None begins a new one."""
        if known := self._by_id.get(id):
            return known
        at_index = self._by_index.get(index) if index is not None else None
        if id and at_index:
            # The id came late only if nothing else says that this is another call.
            return at_index if not at_index.id and name in (None, "", at_index.name) else None
        return at_index if id or index is not None else self._latest(name)

    def _latest(self, name: Any) -> Building | None:
        if not self.calls:
            return None
        latest = self.calls[-1]
        if not name or not latest.name:
            return latest
        complete = ToolCall.parse("", "", latest.arguments_json).fault is None and latest.arguments_json != ""
        return None if complete or name != latest.name else latest

    def _name(self, call: Building, name: Any) -> None:
        if name is None or name == "":
            return
        if not isinstance(name, str):
            call.fault = "The name of the call is not text."
        elif name.startswith(call.name):
            call.name = name
        elif not call.name.startswith(name):
            call.fault = f"The call has two names, {call.name[:64]!r} and {name[:64]!r}."

    def _append(self, call: Building, fragment: Any) -> None:
        if isinstance(fragment, str):
            call.arguments.append(fragment)
        elif fragment is None:
            self.canonical = False
        else:
            # Some servers send the arguments as an object instead of its text.
            self.canonical = False
            call.arguments.append(dumps(fragment).decode(errors="surrogatepass"))

    def close(self, turn_id: str, choice: int, finish: str | None) -> list[ToolCall]:
        """The choice's calls at the clean end of the turn; missing ids are given."""
        calls: list[ToolCall] = []
        seen: set[str] = set()
        for position, building in enumerate(self.calls):
            if not building.id and building.type != "legacy":
                building.id, self.canonical = _given_id(turn_id, choice, position, building), False
            call = self._cut_short(building, building.call(), finish)
            if call.id in seen:
                call = faulted(call, "Two calls have the same id.")
            seen.add(call.id)
            # An empty text is read as no arguments, but not by every client.
            if call.fault or (building.type != "custom" and not building.arguments_json):
                self.canonical = False
            calls.append(call)
        expected = {"function_call"} if self.calls and self.calls[0].type == "legacy" else {"tool_calls"}
        if finish not in expected | {"length", "content_filter"}:
            self.canonical = False
        return calls

    def _cut_short(self, building: Building, call: ToolCall, finish: str | None) -> ToolCall:
        last = building is self.calls[-1]
        if last and finish == "length" and (call.fault or not building.arguments_json):
            return faulted(call, "The arguments were cut off by the output limit; write them shorter.")
        return call


def _is_fragment(piece: dict[str, Any], body: dict[str, Any], custom: bool) -> bool:
    return piece.keys() == {"index", "custom" if custom else "function"} and body.keys() == {
        "input" if custom else "arguments"
    }


def _given_id(turn_id: str, choice: int, position: int, call: Building) -> str:
    """An id for a call that came without one: nine alphanumeric characters, as the strictest API wants."""
    text = f"{turn_id}/{choice}/{position}/{call.name}/{call.arguments_json}"
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:9]
