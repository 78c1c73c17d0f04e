"""Hosted tools in the words of gates: what policies are told of them, and how clients and records are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from proxy.model import HostedTool, Request


def hosted_input(request: Request) -> dict[str, Any]:
    """What policies are told of the tools that the provider runs (schemas/policy-input.schema.json)."""
    hosted = request.hosted
    return {
        "hosted": list(dict.fromkeys(tool.type for tool in hosted)),
        "hosted_tools": [
            {"type": tool.type, "label": tool.label, "approvable": tool.approvable} for tool in hosted
        ],
    }


def named(tools: Collection[HostedTool]) -> list[str]:
    """The tools as records name them: their types, with what tells two of a type apart."""
    return sorted({f"{tool.type} {tool.label!r}" if tool.label else tool.type for tool in tools})


def words(tools: Collection[HostedTool]) -> str:
    """The tools as the beginning of a sentence."""
    names = named(tools)
    return f"The hosted tool {names[0]}" if len(names) == 1 else f"The hosted tools {', '.join(names)}"
