"""What two sets of policies say of the same question, and which of them allows less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.gates import request, results, tools
from proxy.guards import policy
from proxy.model import ToolCall
from proxy.verdicts import Repair

Change = Literal["same", "stricter", "looser", "altered", "reworded"]
"""``altered``: the same effect with other obligations; ``reworded``: only the reasons differ."""

STRICTNESS = {
    effect: rank for rank, effect in enumerate(("allow", "redact", "confirm", "replace", "reask", "deny"))
}
"""The effects of all packages, by how little of what was asked for is left."""

PACKAGES = (policy.PACKAGE, request.PACKAGE, tools.PACKAGE, results.PACKAGE)

_CALL_EFFECTS = {"Allow": "allow", "Repair": "allow", "Confirm": "confirm", "Reask": "reask", "Deny": "deny"}


@dataclass(frozen=True, slots=True)
class Stand:
    """What policies say of one question, read as the guards and gates read it."""

    effect: str
    reasons: tuple[str, ...] = ()
    obligations: Mapping[str, Any] = field(default_factory=dict)
    """What the effect is bound to; obligations that are not there are left out."""
    withheld: frozenset[str] = frozenset()
    """What is taken out of what goes on: the more, the stricter."""


def stand(package: str, document: Any, input: Mapping[str, Any]) -> Stand:
    """A decision document as it counts; raises ``Unavailable`` for one without a meaning."""
    if package == policy.PACKAGE:
        return _on_call(document, input["call"])
    if package == request.PACKAGE:
        decision = request.read_decision(document)
        return Stand("allow" if decision.allowed else "deny", decision.reasons)
    if package == tools.PACKAGE:
        return _on_tools(document)
    return _on_result(document)


def _on_call(document: Any, asked: Mapping[str, Any]) -> Stand:
    call = ToolCall(asked["id"], asked["name"], "", asked["arguments"])
    verdict = policy.read_decision(call, document)
    found = {
        "mask": sorted(set(verdict.mask)),
        "cache_ttl_s": verdict.cache_ttl_s,
        "arguments": verdict.arguments if isinstance(verdict, Repair) else None,
    }
    return Stand(_CALL_EFFECTS[verdict.name], verdict.reasons, _present(found))


def _on_tools(document: Any) -> Stand:
    decision = tools.read_decision(document)
    found = {"hide": sorted(decision.hide), "hosted": dict(decision.hosted)}
    withheld = {f"show {name}" for name in decision.hide}
    for name, word in decision.hosted.items():
        # Each word takes away what the one before it does, and more.
        ways = ("use silently", "use", "ask with")
        withheld |= {f"{way} {name}" for way in ways[: ("approve", "strip", "deny").index(word) + 1]}
    return Stand("allow", decision.reasons, _present(found), frozenset(withheld))


def _on_result(document: Any) -> Stand:
    decision = results.read_decision(document)
    found = {
        "labels": sorted(set(decision.labels)),
        "pointers": decision.pointers,
        "patterns": decision.patterns,
        "content": decision.content if decision.effect == "replace" else None,
    }
    parts = {"label": decision.labels, "pointer": decision.pointers, "pattern": decision.patterns}
    withheld = {f"{kind} {part}" for kind, those in parts.items() for part in those}
    return Stand(decision.effect, decision.reasons, _present(found), frozenset(withheld))


def _present(obligations: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in obligations.items() if value not in (None, (), [], {})}


def compare(live: Stand, candidate: Stand) -> Change:
    """How the candidate differs from what is in force."""
    if live.effect != candidate.effect:
        return "stricter" if STRICTNESS[candidate.effect] > STRICTNESS[live.effect] else "looser"
    if live.withheld < candidate.withheld:
        return "stricter"
    if candidate.withheld < live.withheld:
        return "looser"
    if live.withheld != candidate.withheld or live.obligations != candidate.obligations:
        return "altered"
    return "same" if sorted(live.reasons) == sorted(candidate.reasons) else "reworded"
