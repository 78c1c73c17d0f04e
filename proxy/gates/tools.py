"""The tools gate: which of the application's tools the model is shown, which of the provider's it may use.

Hosted tools (web search, code interpreter, remote MCP servers, ...) run where no call of theirs can be
judged, so policy decides on them here: they stay, wait for an approval at each use, are taken out, or keep
the request from being sent.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from proxy.gates.deciding import Decisions, members, texts
from proxy.gates.hosted import hosted_input, named, words
from proxy.guards.base import Refused, Situation
from proxy.model import HostedTool, Request
from proxy.ports import PolicyEngine, Unavailable
from proxy.tools import ToolSpec, tool_input

log = logging.getLogger("callgate.gates")

PACKAGE = "callgate.tools"

Word = Literal["deny", "strip", "approve"]
"""What is said of a hosted tool, the strictest first."""


@dataclass(frozen=True, slots=True)
class ToolsDecision:
    """What policy says of the tools in a request."""

    hide: frozenset[str] = frozenset()
    """Names of the application's tools that the model is not shown."""
    hosted: Mapping[str, Word] = field(default_factory=dict)
    """By type, or by label, what becomes of the provider's tools; the others stay."""
    reasons: tuple[str, ...] = ()

    def said_of(self, tool: HostedTool) -> Word | None:
        """The word on a hosted tool: the stricter one where its type and its label have one each."""
        found = {self.hosted.get(name) for name in (tool.type, tool.label) if name}
        return next((word for word in get_args(Word) if word in found), None)


class ToolsGate:
    """Asks ``data.callgate.tools.decision``. Where it is not defined it has no say; a fault refuses.

    What is left keeps its order and its reading; where nothing has to change, the request is sent as it came.
    """

    def __init__(self, engine: PolicyEngine) -> None:
        self._decisions = Decisions(engine, PACKAGE, read_decision)

    async def admit(self, request: Request, situation: Situation) -> Request:
        """The request with the tools that policy leaves in it; raises ``Refused``, and ``BadRequest`` where
        its ``tool_choice`` names one that is taken out."""
        if not self._decisions.defined or not (request.tools or request.hosted):
            return request
        decision = await self._decide(request, situation)
        hidden = decision.hide & request.tools.keys()
        said: dict[Word | None, list[HostedTool]] = {}
        for tool in request.hosted:
            said.setdefault(decision.said_of(tool), []).append(tool)
        _check(said.get("deny", ()), said.get("approve", ()), decision.reasons)
        changes = {"hidden": sorted(hidden)}
        if unwanted := said.get("strip", []):
            changes["stripped"] = named(unwanted)
        if hidden or unwanted:
            request = _without(request, hidden, unwanted)
        if watched := said.get("approve"):
            request = request.reader.with_approval(request, watched)
            changes["approval"] = named(watched)
        if unwanted or watched:
            changes["reasons"] = list(decision.reasons)
        situation.admission.update({name: value for name, value in changes.items() if value})
        return request

    async def _decide(self, request: Request, situation: Situation) -> ToolsDecision:
        names = tuple(request.tools)
        specs = tuple(map(situation.registry, names))
        # A description is itself as long as it lives, and the decision keeps it alive.
        about = names, tuple(map(id, specs)), tuple(request.hosted)
        try:
            return await self._decisions.of(
                situation, about, lambda: tools_input(request, dict(zip(names, specs, strict=True))), specs
            )
        except Unavailable as exc:
            log.error("policy could not decide on tools, so the request is refused: %s", exc)
            message = "Policy cannot decide on tools now, so none is offered."
            raise Refused(503, "policy_unavailable", message) from exc


def tools_input(request: Request, specs: Mapping[str, ToolSpec | None]) -> dict[str, Any]:
    """What ``callgate.tools`` is told beside the situation (schemas/policy-input.schema.json)."""
    return {"tools": [tool_input(name, spec) for name, spec in specs.items()], **hosted_input(request)}


def read_decision(decision: Any) -> ToolsDecision:
    """A decision document; raises ``Unavailable`` for one that has no meaning, and for none."""
    members(decision, PACKAGE, ("hide", "hosted", "reasons"))
    hosted = decision.get("hosted", {})
    if not isinstance(hosted, dict) or not all(word in get_args(Word) for word in hosted.values()):
        raise Unavailable(
            f"hosted does not say one of {', '.join(get_args(Word))} of each tool that it names"
        )
    hide, reasons = texts(decision.get("hide"), "hide"), texts(decision.get("reasons"), "reasons")
    return ToolsDecision(frozenset(hide), hosted, reasons)


def _check(denied: Sequence[HostedTool], watched: Sequence[HostedTool], reasons: Sequence[str]) -> None:
    """Raise ``Refused`` for hosted tools with which the request is not sent."""
    if denied:
        message = f"{words(denied)} may not be used: leave it out of the request."
        raise Refused(403, "request_denied", " ".join((message, *reasons)))
    if unasked := [tool for tool in watched if not tool.approvable]:
        message = (
            f"{words(unasked)} may only be used with an approval at each use, which this API cannot ask "
            "for: leave it out of the request."
        )
        raise Refused(403, "approval_not_possible", message)


def _without(request: Request, hidden: Collection[str], unwanted: Sequence[HostedTool]) -> Request:
    left: Request = request.reader.without_tools(request, hidden, unwanted)
    # Whatever the codec makes of it, what policy takes out is not sent.
    if not left.tools.keys().isdisjoint(hidden):
        raise Refused(403, "request_denied", "The request offers tools that may not be used.")
    if unwanted and (still := set(unwanted) & set(left.hosted)):
        raise Refused(403, "request_denied", f"{words(still)} may not be used, and cannot be taken out.")
    return left
