"""Limits on calls: how often a principal, or its tenant, may call tools, or one tool, in a window of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from proxy.guards.base import Context
from proxy.guards.windows import Exceeded, Limit, Use, Windows, in_words
from proxy.model import Principal, ToolCall
from proxy.ports import Store
from proxy.tools import ToolSpec
from proxy.verdicts import Allow, Deny, Verdict

_ALLOW = Allow()


class LimitsGuard:
    """Counts every call that the guards above it allowed. Raises ``Unavailable`` when the store fails.

    A call counts when it is judged, whether or not the application runs it; parallel calls count one by
    one. A call that is refused for a limit counts towards none.
    """

    name: ClassVar[str] = "limits"

    def __init__(
        self,
        store: Store,
        principal: Sequence[Limit] = (),
        tenant: Sequence[Limit] = (),
        tools: Mapping[str, Sequence[Limit]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``tools``: limits by glob, for each principal; the tools that a glob names count as one. What a
        tool's own description says holds beside them. ``clock``: seconds, shared by all replicas."""
        self._windows = Windows(store, clock)
        self._principal, self._tenant, self._tools = principal, tenant, tools or {}

    async def check(self, call: ToolCall, ctx: Context) -> Verdict:
        """Allow and count, or deny with the time to wait."""
        uses = self._uses(call.name, ctx.spec, ctx.situation.principal)
        if not uses:
            return _ALLOW

        async def reserve() -> dict[str, Any]:
            try:
                await self._windows.reserve(uses)
            except Exceeded as exc:
                return {"reason": _reason(exc), "window": exc.limit.window}
            return {"reason": None}

        counted = await ctx.fact("limits", reserve)
        if counted["reason"] is None:
            return _ALLOW
        # In a minute the model may well try again; nobody waits for it until tomorrow.
        soon = counted["window"] == "minute"
        return Deny(type="limit_exceeded", reasons=(counted["reason"],), retryable=soon)

    def _uses(self, tool: str, spec: ToolSpec | None, principal: Principal) -> list[Use]:
        who = principal.key
        uses = [Use(("tool", tool, who), limit, 1) for limit in _described(spec)]
        for glob, limits in self._tools.items():
            if fnmatchcase(tool, glob):
                uses += [Use(("tools", glob, who), limit, 1) for limit in limits]
        uses += [Use(("principal", who), limit, 1) for limit in self._principal]
        uses += [Use(("tenant", principal.tenant), limit, 1) for limit in self._tenant]
        return uses


def _described(spec: ToolSpec | None) -> list[Limit]:
    """What the tool's own description says."""
    if spec is None or spec.limits is None:
        return []
    said = {
        "minute": spec.limits.per_minute,
        "hour": spec.limits.per_hour,
        "day": spec.limits.per_day,
    }
    return [Limit("calls", amount, window) for window, amount in said.items() if amount is not None]


def _reason(exc: Exceeded) -> str:
    limit = exc.limit
    a_window = f"{'an' if limit.window == 'hour' else 'a'} {limit.window}"
    times = f"{limit.amount} time{'' if limit.amount == 1 else 's'} {a_window}"
    wait = f"try again in {in_words(exc.retry_after_s or 0)}"
    match exc.use.scope:
        case ("tool" | "tools", name, _):
            return f"{name} may be called {times}; {wait}"
        case ("tenant", _):
            return f"all users of this tenant together may call tools {times}; {wait}"
    return f"tools may be called {times}; {wait}"
