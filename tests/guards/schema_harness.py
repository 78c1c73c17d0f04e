"""One call before the schema guard, without a proxy around it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.guards.base import Context, Situation
from proxy.guards.schema import SchemaGuard
from proxy.model import OfferedTool, Principal, Request, ToolCall
from proxy.tools import ToolSpec
from proxy.verdicts import Verdict


@dataclass
class FixedTools:
    """A codec's part in a request, for a guard that asks for the tools alone."""

    tools: Mapping[str, OfferedTool]

    def offered_tools(self, body: Mapping[str, Any]) -> Mapping[str, OfferedTool]:
        return self.tools


def context(name: str, tools: Mapping[str, OfferedTool], spec: ToolSpec | None = None) -> Context:
    request = Request("chat", b"", {}, "m", False, 1, FixedTools(tools))
    situation = Situation(Principal("p"), request, "trace", "conversation", "2026-01-01T00:00:00Z")
    return Context(situation, spec, tools.get(name))


def offering(schema: Any, spec: ToolSpec | None = None) -> Context:
    """A request that offers one tool, ``find``."""
    return context("find", {"find": OfferedTool("find", schema)}, spec)


def calling(arguments: Any) -> ToolCall:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall.parse("call_1", "find", text)


def judge(schema: Any, arguments: Any, guard: SchemaGuard | None = None) -> Verdict:
    return asyncio.run((guard or SchemaGuard()).check(calling(arguments), offering(schema)))
