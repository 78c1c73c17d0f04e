"""The wrapper that some models put around calls of one turn: ``multi_tool_use.parallel``.

It is no tool of the application's. Its arguments name the tools that are meant, and those are what is judged:
``{"tool_uses": [{"recipient_name": "functions.get_user", "parameters": {...}}, ...]}``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from proxy.model import ToolCall
from proxy.wire.writing import write_json

NAME = "multi_tool_use.parallel"
SHORT = "parallel"
"""Its name without a dot, by which the Responses API alone knows it."""
NAMES = (NAME, SHORT)

_PREFIX = "functions."
_USE_KEYS = frozenset({"recipient_name", "parameters"})
_MORE = "The batch holds more than its tool_uses."
_NO_TOOL = "A part of the batch names no tool."
_MORE_IN_PART = "A part of the batch holds more than recipient_name and parameters."
_NESTED = "A batch stands inside a batch."


def unwrapped(call: ToolCall, part_id: Callable[[int], str]) -> list[ToolCall]:
    """The calls inside a wrapper, each by its tool's own name; none where the call is not a wrapper.

    ``part_id`` gives each an id, by its place. What stands in the wrapper beside them would reach the client
    unjudged, so it makes the wrapper a call that has no reading; so it is with a part.
    """
    uses = (call.arguments or {}).get("tool_uses")
    if call.kind != "function" or not isinstance(uses, list) or not uses:
        return []
    if call.arguments is None or call.arguments.keys() != {"tool_uses"}:
        return [replace(call, arguments=None, fault=_MORE)]
    return [_part(part_id(position), use) for position, use in enumerate(uses)]


def _part(id: str, use: Any) -> ToolCall:
    name = use.get("recipient_name") if isinstance(use, dict) else None
    name = name.removeprefix(_PREFIX) if isinstance(name, str) else ""
    if not name:
        return ToolCall(id, SHORT, write_json(use).decode(), None, _NO_TOOL)
    call = ToolCall.parse(id, name, write_json(use.get("parameters", {})).decode())
    fault = _MORE_IN_PART if not use.keys() <= _USE_KEYS else _NESTED if name in NAMES else None
    return call if fault is None else replace(call, arguments=None, fault=fault)
