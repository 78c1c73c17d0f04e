"""Stored chat completions (``store: true``), read back: what of them the client was given."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from proxy.model import PastCall, Request, ToolCall, ToolResult, Turn, loads_frame
from proxy.wire.chat.request import calls_of, text_of
from proxy.wire.codec import ALL, Ending, Remembered, Rounds, hidden_name, mark, remembered_names
from proxy.wire.writing import write_json

Json = dict[str, Any]

_MAX_NAMES = 1000


def is_stored(body: Mapping[str, Any]) -> bool:
    """Whether the provider keeps the answer."""
    return body.get("store") is True


def own_words(text: str) -> str:
    """The name of something that the proxy said to the model, out of the client's sight."""
    return "said:" + hashlib.sha256(text.encode(errors="replace")).hexdigest()[:24]


def hiding(request: Request, messages: Sequence[Json]) -> Request:
    """The request, which will hold these messages: the calls in them that it did not bring are hidden."""
    names = frozenset(_names(messages)) - frozenset(_names(request.body["messages"]))
    return replace(request, hidden=request.hidden | names) if names else request


def hiding_words(request: Request, text: str) -> Request:
    """The request, to which the proxy adds these words of its own."""
    if not is_stored(request.body):
        return request
    return replace(request, hidden=request.hidden | {own_words(text)})


def _names(messages: Sequence[Json]) -> Iterator[str]:
    for message in messages:
        for id, name, text in calls_of(message):
            yield hidden_name(PastCall(id, name, text, None, 0))


def noted(asked: Request, hidden: Rounds, turn: Turn, settled: Sequence[ToolResult], ending: Ending) -> bytes:
    """What to keep of a stored completion: how it was told, and what its conversation hides."""
    told = {result.call_id for result in settled}
    unseen = [call for one, _ in hidden for call in one.calls]
    unseen += [call for call in turn.calls if call.id in told]
    names = asked.hidden.union(map(hidden_name, unseen))
    pairs = zip(turn.calls, ending.arguments, strict=bool(ending.arguments))
    given: list[PastCall | ToolCall] = [*asked.history.calls, *turn.calls]
    kept = {
        "model": asked.model,
        "rounds": list(ending.rounds),
        "given": [mark(call) for call in given[-_MAX_NAMES:]],
        "hidden": sorted(names) if len(names) <= _MAX_NAMES else [ALL],
        "changed": {c.id: text for c, text in pairs if text is not None and text != c.arguments_json},
        "notices": {str(choice): text for choice, text in ending.notices.items()},
    }
    return write_json(kept)


def recall(kept: bytes) -> Remembered:
    """What is known of a stored completion."""
    record = loads_frame(kept)
    unseen, hidden = remembered_names(record["hidden"])
    return Remembered(
        model=record["model"],
        rounds=tuple(record["rounds"]),
        given=frozenset(record["given"]) if ALL not in hidden else frozenset(),
        names=frozenset(record["hidden"]),
        unseen=unseen,
        hidden=hidden,
        changed=record["changed"],
        notices={int(choice): text for choice, text in record["notices"].items()},
    )


def stored_id(id: str) -> str:
    """The id by which the provider knows a turn."""
    return id


def is_ended(turn: Turn) -> bool:
    """Whether it has come to its end: what is stored has."""
    return True


def asked_body(turn: Turn, known: Remembered) -> Json:
    """A request's body that stands for the one that the turn answered, with the tools that the completion
    says it offered."""
    offered = turn.wire.body[1].get("tools") if turn.wire.body else None
    tools = [tool for tool in offered if isinstance(tool, dict)] if isinstance(offered, list) else []
    return {"model": known.model, "tools": tools, "messages": [], "store": True}


def shown(message: Json, known: Remembered) -> Json | None:
    """A message of the request as the client sent it; None for one that it did not send."""
    if _is_hidden(message, known):
        return None
    calls, legacy = message.get("tool_calls"), message.get("function_call")
    if not calls and not legacy:
        return message
    left = {key: value for key, value in message.items() if key not in ("tool_calls", "function_call")}
    kept = [call for call in calls if _is_given(call, known)] if isinstance(calls, list) else []
    if kept:
        left["tool_calls"] = kept
    if legacy and _is_given({}, known, {"function_call": legacy}):
        left["function_call"] = legacy
    return left if left.get("content") or "tool_calls" in left or "function_call" in left else None


def _is_hidden(message: Mapping[str, Any], known: Remembered) -> bool:
    """Whether the proxy wrote the message: its words to the model, or the result of a hidden call."""
    role = message.get("role")
    if role in ("system", "developer"):
        return not known.hidden.isdisjoint((ALL, own_words(text_of(message.get("content")))))
    return role == "tool" and not known.hidden.isdisjoint((ALL, str(message.get("tool_call_id"))))


def _is_given(call: Any, known: Remembered, message: Mapping[str, Any] | None = None) -> bool:
    if not isinstance(call, dict):
        return False
    found = list(calls_of(message or {"tool_calls": [call]}))
    marks = {mark(PastCall(id, name, text, None, 0)) for id, name, text in found}
    return bool(marks) and marks <= known.given and marks.isdisjoint(known.unseen)
