"""The tools of a Chat Completions request: which the provider runs by itself, and how some are taken out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from proxy.model import HostedTool, Request
from proxy.wire.chat.request import changed
from proxy.wire.codec import BadRequest

# Members of the request that turn on what the provider does by itself, and how policies name it.
_HOSTED_KEYS = {"web_search_options": "web_search", "search_parameters": "web_search", "plugins": "plugins"}
_FUNCTIONS = ("function", "custom")


def hosted(body: Mapping[str, Any]) -> list[HostedTool]:
    """The hosted tools: members of the request, and tools of any type that is not the application's own."""
    found = [HostedTool(type, key) for key, type in _HOSTED_KEYS.items() if body.get(key) is not None]
    kinds = (str(tool.get("type", "function")) for tool in body.get("tools") or [])
    return found + [HostedTool(kind) for kind in dict.fromkeys(kinds) if kind not in _FUNCTIONS]


def without(request: Request, functions: Collection[str], hosted: Collection[HostedTool]) -> Request:
    """The request without these tools; what is left keeps its order."""
    body = request.body
    _check_choice(body, functions)
    changes: dict[str, Any] = {}
    kinds = {tool.type for tool in hosted if not tool.label}
    for key in ("tools", "functions"):
        if body.get(key):
            left = [tool for tool in body[key] if not _is_among(tool, functions, kinds)]
            if len(left) < len(body[key]):
                changes[key] = left
    dropped = {tool.label for tool in hosted if tool.label}
    # An empty list of tools, or a choice without tools, is an error to providers.
    dropped |= {key for key, left in changes.items() if not left}
    if not (changes.get("tools") or ("tools" not in changes and body.get("tools"))):
        dropped |= {"tool_choice", "parallel_tool_calls"}
    if not (changes.get("functions") or ("functions" not in changes and body.get("functions"))):
        dropped.add("function_call")
    kept = {key: changes.get(key, value) for key, value in body.items() if key not in dropped}
    return request if kept.keys() == body.keys() and not changes else changed(replace(request, body=kept))


def _is_among(tool: Mapping[str, Any], functions: Collection[str], kinds: Collection[str]) -> bool:
    kind = str(tool.get("type", "function"))
    inner = tool.get(kind) if isinstance(tool.get(kind), dict) else tool
    return kind in kinds or (inner or {}).get("name") in functions


def _check_choice(body: Mapping[str, Any], functions: Collection[str]) -> None:
    choice = body.get("tool_choice") or body.get("function_call")
    if not isinstance(choice, dict):
        return
    inner = choice.get(str(choice.get("type")))
    name = (inner if isinstance(inner, dict) else choice).get("name")
    if name in functions:
        raise BadRequest(f"tool_choice names {name!r}, which you may not call.", "tool_choice")
