"""A conversation without tools: calls and their results told as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.wire.chat.reading import CALL_KEYS
from proxy.wire.chat.request import text_of

_TOOL_KEYS = frozenset({"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"})
# No set: what stands for a role may be of any type.
_RESULT_ROLES = ("tool", "function")


def without_calls(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The request's body without tools and calls; None where it has neither."""
    messages = body["messages"]
    if not _TOOL_KEYS & body.keys() and not any(map(_speaks_of_tools, messages)):
        return None
    kept = {key: value for key, value in body.items() if key not in _TOOL_KEYS}
    return {**kept, "messages": [_told(message) for message in messages]}


def _speaks_of_tools(message: Mapping[str, Any]) -> bool:
    return message.get("role") in _RESULT_ROLES or any(message.get(key) for key in CALL_KEYS)


def _told(message: dict[str, Any]) -> dict[str, Any]:
    if message.get("role") in _RESULT_ROLES:
        return {"role": "user", "content": f"[The tool's result: {text_of(message.get('content'))}]"}
    if not _speaks_of_tools(message):
        return message
    said = [text_of(message.get("content")), *_calls(message)]
    kept = {key: value for key, value in message.items() if key not in CALL_KEYS}
    return {**kept, "content": "\n".join(part for part in said if part)}


def _calls(message: Mapping[str, Any]) -> Iterator[str]:
    pieces = [piece.get("function") or piece.get("custom") for piece in message.get("tool_calls") or []]
    for body in [*pieces, message.get("function_call")]:
        if isinstance(body, dict):
            arguments = body.get("arguments", body.get("input", ""))
            yield f"[Called the tool {body.get('name')} with {arguments}]"
