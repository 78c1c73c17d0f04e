"""Conversations as guards see them, without a codec or a proxy around them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from proxy.guards.base import Situation
from proxy.model import History, OfferedTool, PastCall, Principal, Request, Slot, ToolCall, ToolResult, Turn
from proxy.tools import Registry, ToolSpec
from proxy.verdicts import Reask

_KEYS = {"result", "times", "hint", "failed", "partial"}
ANN = Principal("ann", tenant="acme")
HINT = Reask(type="loop", reasons=("You have called it before.",)).content()


@dataclass
class FixedHistory:
    """A codec's part in a request, for a guard that asks for history and tools alone."""

    calls: tuple[PastCall, ...]
    turn: int = 1
    tools: Mapping[str, OfferedTool] = field(default_factory=dict)

    def history(self, body: Mapping[str, Any]) -> History:
        return History(self.calls, "Do it.", self.turn)

    def offered_tools(self, body: Mapping[str, Any]) -> Mapping[str, OfferedTool]:
        return self.tools


def past_call(name: str, arguments: Any, result: str | None, turn: int = 1, number: int = 0) -> PastCall:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return PastCall(f"call_{number}", name, text, result, turn)


def past_calls(spelled: Sequence[Mapping[str, Any]]) -> list[PastCall]:
    calls: list[PastCall] = []
    for given_call in spelled:
        ((name, arguments),) = ((k, v) for k, v in given_call.items() if k not in _KEYS)
        for _ in range(given_call.get("times", 1)):
            result = HINT if given_call.get("hint") else given_call.get("result")
            result = f"result {len(calls)}" if result == "#" else result
            marks = {mark: True for mark in ("failed", "partial") if given_call.get(mark)}
            calls.append(replace(past_call(name, arguments, result, number=len(calls)), **marks))
    return calls


def situation(
    past: Sequence[PastCall] = (),
    registry: Sequence[Mapping[str, Any]] | Registry = (),
    choices: int = 1,
    turn: int = 1,
    who: Principal = ANN,
    conversation: str = "conversation",
    tools: Mapping[str, OfferedTool] | None = None,
) -> Situation:
    if not isinstance(registry, Registry):
        registry = Registry({spec["name"]: ToolSpec.model_validate(spec) for spec in registry})
    reader = FixedHistory(tuple(past), turn, tools or {})
    request = Request("chat", b"", {}, "m", False, choices, reader)
    return Situation(who, request, "trace", conversation, "2026-01-01T00:00:00Z", registry=registry.get)


def hidden(calls: Sequence[PastCall]) -> list[tuple[Turn, list[ToolResult]]]:
    """Calls as rounds of an exchange, one a round."""
    made = [(ToolCall.parse(call.id, call.name, call.arguments_json), call.result or "") for call in calls]
    return [
        (Turn("", "", (Slot(0, 0, call),), "", None, None, 1), [ToolResult(call.id, result)])
        for call, result in made
    ]


def calling(name: str, arguments: Any, number: int = 0) -> ToolCall:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return ToolCall.parse(f"now_{number}", name, text)
