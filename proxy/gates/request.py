"""The request gate: whether a request is sent at all, and with which of the tools that the provider runs.

Hosted tools (web search, code interpreter, remote MCP servers, ...) run where no call of theirs can be
judged, so policy decides on them here: they stay, wait for an approval at each use, or are taken out.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.gates.deciding import Decisions, effect, texts
from proxy.guards.base import Refused, Situation
from proxy.model import HostedTool, Request
from proxy.ports import PolicyEngine, Unavailable

log = logging.getLogger("callgate.gates")

PACKAGE = "callgate.request"


@dataclass(frozen=True, slots=True)
class RequestDecision:
    """What policy says of a request."""

    allowed: bool
    reasons: tuple[str, ...] = ()
    strip: tuple[str, ...] = ()
    """Types, or labels, of hosted tools that are taken out."""
    approve: tuple[str, ...] = ()
    """Those that wait for an approval at each use."""


class RequestGate:
    """Asks ``data.callgate.request.decision``. Where it is not defined it has no say; a fault refuses."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._decisions = Decisions(engine, PACKAGE, read_decision)

    async def admit(self, request: Request, situation: Situation) -> Request:
        """The request with the hosted tools that policy leaves in it; raises ``Refused``."""
        if not self._decisions.defined:
            return request
        decision = await self._decide(request, situation)
        if not decision.allowed:
            reasons = " ".join(decision.reasons) or "Policy does not allow this request."
            raise Refused(403, "request_denied", reasons)
        if unwanted := _named(request.hosted, decision.strip):
            request = _without(request, unwanted)
            situation.admission["stripped"] = _labelled(unwanted)
        if watched := _named(request.hosted, decision.approve):
            request = _with_approval(request, watched)
            situation.admission["approval"] = _labelled(watched)
        if decision.reasons and (unwanted or watched):
            situation.admission["reasons"] = list(decision.reasons)
        return request

    async def _decide(self, request: Request, situation: Situation) -> RequestDecision:
        hosted = tuple((tool.type, tool.label, tool.approvable) for tool in request.hosted)
        tools = tuple(request.tools)
        try:
            return await self._decisions.of(situation, (hosted, tools), lambda: request_input(request))
        except Unavailable as exc:
            log.error("policy could not decide on a request, so it is refused: %s", exc)
            message = "Policy cannot decide on requests now, so none is sent."
            raise Refused(503, "policy_unavailable", message) from exc


def request_input(request: Request) -> dict[str, Any]:
    """What ``callgate.request`` is told beside the situation (schemas/policy-input.schema.json)."""
    hosted = request.hosted
    return {
        "hosted": list(dict.fromkeys(tool.type for tool in hosted)),
        "hosted_tools": [
            {"type": tool.type, "label": tool.label, "approvable": tool.approvable} for tool in hosted
        ],
        "tools": list(request.tools),
    }


def read_decision(decision: Any) -> RequestDecision:
    """A decision document; undefined is a denial. Raises ``Unavailable`` for one that has no meaning."""
    if decision is None:
        return RequestDecision(False, ("No policy allows this request.",))
    allowed = effect(decision, PACKAGE, ("allow", "deny")) == "allow"
    strip, approve = texts(decision.get("strip"), "strip"), texts(decision.get("approve"), "approve")
    return RequestDecision(allowed, texts(decision.get("reasons"), "reasons"), strip, approve)


def _named(hosted: Sequence[HostedTool], names: Collection[str]) -> list[HostedTool]:
    if not names:
        return []
    return [tool for tool in hosted if tool.type in names or (tool.label and tool.label in names)]


def _without(request: Request, unwanted: Sequence[HostedTool]) -> Request:
    stripped: Request = request.reader.without_tools(request, (), unwanted)
    # Whatever the codec makes of it, what policy takes out is not sent.
    if left := set(unwanted) & set(stripped.hosted):
        raise Refused(403, "request_denied", f"{_words(left)} may not be used, and cannot be taken out.")
    return stripped


def _with_approval(request: Request, watched: Sequence[HostedTool]) -> Request:
    if unasked := [tool for tool in watched if not tool.approvable]:
        message = (
            f"{_words(unasked)} may only be used with an approval at each use, which this API cannot ask "
            "for: leave it out of the request."
        )
        raise Refused(403, "approval_not_possible", message)
    approved: Request = request.reader.with_approval(request, watched)
    return approved


def _labelled(tools: Collection[HostedTool]) -> list[str]:
    return sorted({f"{tool.type} {tool.label!r}" if tool.label else tool.type for tool in tools})


def _words(tools: Collection[HostedTool]) -> str:
    names = _labelled(tools)
    return f"The hosted tool {names[0]}" if len(names) == 1 else f"The hosted tools {', '.join(names)}"
