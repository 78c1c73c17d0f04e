"""The loop guard: tells a model that goes in circles, and stops one that goes on."""

from __future__ import annotations

from typing import ClassVar

from proxy.guards._naming import quoted
from proxy.guards._runs import HINT, Counts, Runs
from proxy.guards.base import Context, Situation, canonical
from proxy.model import ToolCall
from proxy.verdicts import Allow, Break, Reask, Verdict

POLLING = "polling"
"""The label of tools that are meant to be asked the same thing again and again."""

_ALLOW = Allow()
_SIMILARITY = 0.9
_WINDOW = 64


class LoopGuard:
    """Bounds the calls for one user query, counted from the request itself; the next query begins anew.

    A call beyond a bound is answered with a hint; the next one beyond it, with nothing new in between,
    ends the turn: tools are turned off and the model answers with what it has. Counting is linear in
    the length of the conversation; arguments and results are compared for the last 64 calls (or as
    many as the bounds need).
    """

    name: ClassVar[str] = "loop"

    def __init__(self, max_calls: int = 25, max_identical: int = 3, max_similar: int = 5) -> None:
        self._max_calls, self._max_identical, self._max_similar = max_calls, max_identical, max_similar
        self._window = max(_WINDOW, max_identical + 1, max_similar + 1)

    async def check(self, call: ToolCall, ctx: Context) -> Verdict:
        """Allow, Reask with a hint, or Break."""

        async def count() -> Counts:
            return self._runs(ctx.situation).count(call)

        seen = await ctx.fact("loop", count)
        if _is_approved(call, ctx.situation):
            return _ALLOW
        if seen["calls"] > self._max_calls:
            return self._enough(seen)
        if ctx.spec is not None and POLLING in ctx.spec.labels:
            return _ALLOW
        if seen["identical"] > self._max_identical:
            return _object(seen["hinted"], _identical(call, seen["identical"] - 1))
        if seen["similar"] > self._max_similar:
            return _object(seen["hinted"], _similar(call, seen["similar"] - 1))
        return _ALLOW

    def _runs(self, situation: Situation) -> Runs:
        runs = situation.notes.get(self.name)
        if runs is None:
            runs = situation.notes[self.name] = Runs(situation, self._max_calls, self._window, _SIMILARITY)
        assert isinstance(runs, Runs)
        return runs

    def _enough(self, seen: Counts) -> Verdict:
        reason = (
            f"You have made {seen['calls'] - 1} tool calls for this request, and {self._max_calls} are "
            "allowed. Answer now with what you have."
        )
        return _object(seen["told_to_end"], reason)


def _object(told: bool, reason: str) -> Verdict:
    return Break(type=HINT, reasons=(reason,)) if told else Reask(type=HINT, reasons=(reason,))


def _identical(call: ToolCall, times: int) -> str:
    return (
        f"You have called {quoted(call.name)} {times} times with the same arguments, and nothing new came "
        "of it. Use what you have, or call it differently."
    )


def _similar(call: ToolCall, times: int) -> str:
    return (
        f"You have called {quoted(call.name)} {times} times with nearly the same arguments, and nothing "
        "new came of it. Use what you have, or try another way."
    )


def _is_approved(call: ToolCall, situation: Situation) -> bool:
    """A person wants exactly this call: it is no loop."""
    approved = situation.approved
    return bool(approved) and (call.id, call.name, canonical(call.arguments)) in approved
