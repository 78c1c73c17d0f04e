"""The policy guard: Rego decides, with principal, arguments, history and the whole turn as input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from proxy.guards.base import Context, call_input, canonical
from proxy.guards.told import POLICY_FACT
from proxy.model import ToolCall
from proxy.ports import PolicyEngine, Unavailable
from proxy.tools import tool_input
from proxy.verdicts import Allow, Confirm, Deny, Reask, Repair, Verdict

PACKAGE = "callgate.call"


class PolicyGuard:
    """Asks ``data.callgate.call.decision``; what is not allowed there is denied."""

    name: ClassVar[str] = "policy"

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine

    async def check(self, call: ToolCall, ctx: Context) -> Verdict:
        """The policies' decision on this call; no decision is a denial."""
        if not self._engine.defines(PACKAGE):
            return Deny(reasons=("No policy decides on tool calls, so none is allowed.",))
        document = ctx.facts[POLICY_FACT] = policy_input(call, ctx)
        decision = await self._engine.decide(PACKAGE, document)
        # Others may come in force before the record is written.
        ctx.policy_revision = self._engine.revision
        return read_decision(call, decision)


def policy_input(call: ToolCall, ctx: Context) -> dict[str, Any]:
    """The input document of ``callgate.call`` (schemas/policy-input.schema.json)."""
    return {**ctx.situation.policy_input, "call": call_input(call), "tool": tool_input(call.name, ctx.spec)}


def read_decision(call: ToolCall, decision: Any) -> Verdict:
    """A decision document as a verdict; raises ``Unavailable`` for one that has no meaning."""
    if decision is None:
        return Deny(reasons=(f"No policy allows {call.name}.",))
    if not isinstance(decision, dict):
        raise Unavailable("callgate.call.decision is not an object")
    reasons = _reasons(decision.get("reasons", []))
    obligations = decision.get("obligations") or {}
    if not isinstance(obligations, dict):
        raise Unavailable("obligations is not an object")
    mask = _mask(obligations.get("mask", []))
    match decision.get("effect"):
        case "allow":
            return _allowed(call, obligations, reasons, mask)
        case "deny":
            return Deny(reasons=reasons or (f"Policy denies {call.name}.",), mask=mask)
        case "confirm":
            return Confirm(reasons=reasons or (f"{call.name} needs confirmation.",), mask=mask)
        case "reask":
            return Reask(reasons=reasons or (f"Policy wants {call.name} written otherwise.",), mask=mask)
        case effect:
            raise Unavailable(f"effect {effect!r} is none of allow, deny, confirm, reask")


def _allowed(
    call: ToolCall, obligations: Mapping[str, Any], reasons: tuple[str, ...], mask: tuple[str, ...]
) -> Verdict:
    arguments, ttl_s = obligations.get("arguments"), _cache_ttl_s(obligations.get("cache_ttl_s"))
    if arguments is None or (arguments == call.arguments and _spelled_alike(arguments, call.arguments)):
        return Allow(reasons=reasons, mask=mask, cache_ttl_s=ttl_s)
    if not isinstance(arguments, dict):
        raise Unavailable("obligations.arguments is not an object")
    return Repair(arguments=arguments, reasons=reasons, mask=mask, cache_ttl_s=ttl_s)


def _spelled_alike(left: Any, right: Any) -> bool:
    # Python holds 1 and true for the same; what runs does not.
    return canonical(left) == canonical(right)


def _cache_ttl_s(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise Unavailable("obligations.cache_ttl_s is not a number of seconds")
    return float(value)


def _reasons(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(reason, str) for reason in value):
        raise Unavailable("reasons is not a list of strings")
    return tuple(value)


def _mask(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(pointer, str) and (not pointer or pointer.startswith("/")) for pointer in value
    ):
        raise Unavailable("obligations.mask is not a list of JSON pointers")
    return tuple(value)
