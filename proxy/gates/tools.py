"""The tools gate: the model is not shown what the caller may not use."""

from __future__ import annotations

import logging
from typing import Any

from proxy.gates.deciding import Decisions, texts
from proxy.guards.base import Refused, Situation
from proxy.model import Request
from proxy.ports import PolicyEngine, Unavailable
from proxy.tools import tool_input

log = logging.getLogger("callgate.gates")

PACKAGE = "callgate.tools"


class ToolsGate:
    """Asks ``data.callgate.tools.decision``. Where it is not defined it has no say; a fault refuses.

    What is left keeps its order and its reading; where nothing is hidden, the request is sent as it came.
    """

    def __init__(self, engine: PolicyEngine) -> None:
        self._decisions = Decisions(engine, PACKAGE, read_decision)

    async def admit(self, request: Request, situation: Situation) -> Request:
        """The request without the tools that policy hides; raises ``Refused``, and ``BadRequest`` where
        the request forces a hidden tool to be called."""
        if not self._decisions.defined or not request.tools:
            return request
        hidden = await self._hidden(request, situation) & request.tools.keys()
        if not hidden:
            return request
        admitted: Request = request.reader.without_tools(request, hidden, ())
        situation.admission["hidden"] = sorted(hidden)
        # Whatever the codec makes of it, a hidden tool is not sent.
        if not hidden.isdisjoint(admitted.tools):
            raise Refused(403, "request_denied", "The request offers tools that may not be used.")
        return admitted

    async def _hidden(self, request: Request, situation: Situation) -> frozenset[str]:
        specs = {name: situation.registry(name) for name in request.tools}
        # A description is itself as long as it lives, and the decision keeps it alive.
        about = tuple((name, id(spec)) for name, spec in specs.items())
        try:
            return await self._decisions.of(
                situation,
                about,
                lambda: {"tools": [tool_input(name, spec) for name, spec in specs.items()]},
                specs,
            )
        except Unavailable as exc:
            log.error("policy could not decide on tools, so the request is refused: %s", exc)
            message = "Policy cannot decide on tools now, so none is offered."
            raise Refused(503, "policy_unavailable", message) from exc


def read_decision(decision: Any) -> frozenset[str]:
    """The names that are hidden; raises ``Unavailable`` for a document that has no meaning, or none."""
    if not isinstance(decision, dict) or "hide" not in decision:
        raise Unavailable(f"{PACKAGE}.decision is not an object with a list hide")
    return frozenset(texts(decision["hide"], "hide"))
