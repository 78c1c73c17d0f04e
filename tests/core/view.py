"""What a client makes of an answer: a strict reading that refuses every shape clients stumble over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass
class View:
    """One choice of an answer, as any client reads it."""

    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    finish: str | None = None


@dataclass
class Answer:
    choices: dict[int, View] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    usages: int = 0
    ids: set[str] = field(default_factory=set)
    error: dict[str, Any] | None = None
    done: bool = False

    @property
    def first(self) -> View:
        return self.choices.get(0) or View()


def read(data: bytes, stream: bool) -> Answer:
    return _read_stream(data) if stream else _read_body(data)


def _read_body(data: bytes) -> Answer:
    body = orjson.loads(data)
    answer = Answer(usage=body.get("usage"), usages=1, error=body.get("error"), done=True)
    for choice in body.get("choices", []):
        message = choice["message"]
        assert message.get("tool_calls") != [], "an empty tool_calls list poisons the history"
        view = answer.choices.setdefault(choice["index"], View())
        view.text, view.finish = message.get("content") or "", choice["finish_reason"]
        view.calls = [_call(call) for call in message.get("tool_calls") or []]
        if legacy := message.get("function_call"):
            view.calls.append({"id": None, **legacy})
    answer.ids = {body["id"]} if "id" in body else set()
    return answer


def _call(wire: dict[str, Any]) -> dict[str, Any]:
    body = wire[wire["type"]]
    return {"id": wire["id"], "name": body["name"], "arguments": body.get("arguments", body.get("input"))}


def _read_stream(data: bytes) -> Answer:
    answer = Answer()
    for line in data.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line.startswith("data:"):
            continue
        assert not answer.done, "nothing follows the end mark"
        payload = line.removeprefix("data:").removeprefix(" ")
        if payload == "[DONE]":
            answer.done = True
            continue
        _take(answer, orjson.loads(payload))
    return answer


def _take(answer: Answer, wire: dict[str, Any]) -> None:
    if "error" in wire:
        answer.error = wire["error"]
        return
    if wire.get("usage"):
        answer.usage, answer.usages = wire["usage"], answer.usages + 1
    if wire.get("id"):
        answer.ids.add(wire["id"])
    for choice in wire["choices"]:
        view = answer.choices.setdefault(choice.get("index", 0), View())
        delta = choice.get("delta") or {}
        view.text += delta.get("content") or ""
        for piece in delta.get("tool_calls") or []:
            _take_piece(view, piece)
        if legacy := delta.get("function_call"):
            _take_legacy(view, legacy)
        if choice.get("finish_reason"):
            assert view.finish is None, "a choice finishes once"
            view.finish = choice["finish_reason"]


def _take_piece(view: View, piece: dict[str, Any]) -> None:
    assert view.finish is None, "no call after the finish"
    index = piece["index"]
    if index == len(view.calls):
        assert piece["id"], "the first piece of a call names it"
        body = piece[piece["type"]]
        assert body["name"], "the first piece of a call names its tool"
        view.calls.append({"id": piece["id"], "name": body["name"], "arguments": ""})
    else:
        assert index == len(view.calls) - 1, "calls come one after the other, from 0"
        body = piece.get("function") or piece["custom"]
        assert set(piece) <= {"index", "function", "custom"}, "id and name come once"
        assert set(body) <= {"arguments", "input"}, "id and name come once"
    view.calls[index]["arguments"] += body.get("arguments", body.get("input")) or ""


def _take_legacy(view: View, piece: dict[str, Any]) -> None:
    if not view.calls:
        view.calls.append({"id": None, "name": "", "arguments": ""})
    view.calls[0]["name"] += piece.get("name") or ""
    view.calls[0]["arguments"] += piece.get("arguments") or ""
