"""The request gate: whether a request is sent at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from proxy.gates.deciding import Decisions, effect, members, texts
from proxy.gates.hosted import hosted_input
from proxy.guards.base import Refused, Situation
from proxy.model import Request
from proxy.ports import PolicyEngine, Unavailable

log = logging.getLogger("callgate.gates")

PACKAGE = "callgate.request"


@dataclass(frozen=True, slots=True)
class RequestDecision:
    """What policy says of a request."""

    allowed: bool
    reasons: tuple[str, ...] = ()


class RequestGate:
    """Asks ``data.callgate.request.decision``. Where it is not defined it has no say; a fault refuses."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._decisions = Decisions(engine, PACKAGE, read_decision)

    async def admit(self, request: Request, situation: Situation) -> Request:
        """The request as it is; raises ``Refused``."""
        if not self._decisions.defined:
            return request
        decision = await self._decide(request, situation)
        if not decision.allowed:
            reasons = " ".join(decision.reasons) or "Policy does not allow this request."
            raise Refused(403, "request_denied", reasons)
        return request

    async def _decide(self, request: Request, situation: Situation) -> RequestDecision:
        about = tuple(request.hosted), tuple(request.tools)
        try:
            return await self._decisions.of(situation, about, lambda: request_input(request))
        except Unavailable as exc:
            log.error("policy could not decide on a request, so it is refused: %s", exc)
            message = "Policy cannot decide on requests now, so none is sent."
            raise Refused(503, "policy_unavailable", message) from exc


def request_input(request: Request) -> dict[str, Any]:
    """What ``callgate.request`` is told beside the situation (schemas/policy-input.schema.json)."""
    return {**hosted_input(request), "tools": list(request.tools)}


def read_decision(decision: Any) -> RequestDecision:
    """A decision document; undefined is a denial. Raises ``Unavailable`` for one that has no meaning."""
    if decision is None:
        return RequestDecision(False, ("No policy allows this request.",))
    allowed = effect(decision, PACKAGE, ("allow", "deny")) == "allow"
    # Not passed over: a policy that means to take tools out of the request must not be heard to allow them.
    if decision.keys() & {"strip", "approve"}:
        raise Unavailable(f"{PACKAGE} has no say on hosted tools: callgate.tools has, with its member hosted")
    members(decision, PACKAGE, ("effect", "reasons"))
    return RequestDecision(allowed, texts(decision.get("reasons"), "reasons"))
