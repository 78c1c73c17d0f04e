"""What changes between two sets of policies, counted while the log goes by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from proxy.gates.comparing import Change, compare
from proxy.record import DecisionRecord, Step
from proxy.replay.judging import Judgement, Side
from proxy.replay.rebuilding import POLICY_GUARD, Asked, Rebuilder

Outcome = Change | Literal["indeterminate"]

MAX_NAMES = 1000
OTHERS = "(others)"
NO_ROLE = "(no role)"
# A step's verdict as the effect that the policies named.
_EFFECTS = {"Allow": "allow", "Repair": "allow", "Confirm": "confirm", "Reask": "reask", "Deny": "deny"}


@dataclass(frozen=True, slots=True)
class Example:
    """One decision that shows a change."""

    change: Outcome
    decision_id: str
    time: str
    principal: str
    roles: Sequence[str]
    tool: str
    arguments: Any
    """As the log has them, masked."""
    before: str
    after: str
    reasons_before: Sequence[str]
    reasons_after: Sequence[str]
    missing: Sequence[str] = ()


@dataclass
class Tally:
    """What was seen so far. It does not grow with the log."""

    max_examples: int = 3
    """Of each change of each tool."""
    decisions: int = 0
    unasked: int = 0
    """Decided before policy was asked: by a guard above it, or with tools turned off."""
    first: str | None = None
    last: str | None = None
    changes: Counter[Outcome] = field(default_factory=Counter)
    effects: Counter[tuple[Outcome, str, str]] = field(default_factory=Counter)
    """By change: the effect before, and after."""
    tools: dict[str, Counter[Outcome]] = field(default_factory=dict)
    roles: dict[str, Counter[Outcome]] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)
    """What kept decisions from being told: pointers into the policy input, with ``*`` for any item."""
    examples: list[Example] = field(default_factory=list)
    checked: int = 0
    """Decisions that were recorded under the very policies that are taken as the ones before."""
    unlike: int = 0
    """Those of them that are judged otherwise than they were recorded, which should be none."""
    unlike_example: str | None = None
    _shown: Counter[tuple[Outcome, str]] = field(default_factory=Counter, repr=False)

    def take(self, record: DecisionRecord, change: Outcome, before: Judgement, after: Judgement) -> None:
        """Count one decision."""
        tool = record.tool if record.tool in self.tools or len(self.tools) < MAX_NAMES else OTHERS
        roles = [str(role) for role in record.principal.get("roles", ())]
        self.changes[change] += 1
        self.effects[change, before.stand.effect, after.stand.effect] += 1
        self.tools.setdefault(tool, Counter())[change] += 1
        for role in roles or [NO_ROLE]:
            name = role if role in self.roles or len(self.roles) < MAX_NAMES else OTHERS
            self.roles.setdefault(name, Counter())[change] += 1
        for pointer in {_any_item(pointer) for pointer in (*before.missing, *after.missing)}:
            self.missing[pointer] += 1
        if change != "same" and self._shown[change, tool] < self.max_examples:
            self._shown[change, tool] += 1
            self.examples.append(_example(record, roles, change, before, after))

    def check(self, record: DecisionRecord, step: Step, again: Judgement) -> None:
        """Compare with what was recorded under the same policies."""
        self.checked += 1
        # Where policy could not decide, the record has the pipeline's words.
        worded = again.failed or step.reasons == again.stand.reasons
        if _EFFECTS.get(step.verdict) != again.stand.effect or not worded:
            self.unlike += 1
            self.unlike_example = self.unlike_example or record.decision_id

    def as_json(self) -> dict[str, Any]:
        """The whole tally, for programs."""
        return {
            "decisions": self.decisions,
            "unasked": self.unasked,
            "first": self.first,
            "last": self.last,
            "changes": dict(self.changes),
            "effects": [
                {"change": change, "before": before, "after": after, "decisions": count}
                for (change, before, after), count in self.effects.most_common()
            ],
            "tools": {name: dict(counts) for name, counts in self.tools.items()},
            "roles": {name: dict(counts) for name, counts in self.roles.items()},
            "missing": dict(self.missing),
            "recorded": {"checked": self.checked, "unlike": self.unlike, "example": self.unlike_example},
            "examples": [asdict(example) for example in self.examples],
        }


class Replay:
    """Takes a log's decisions in its order, and judges each under both sets of policies."""

    def __init__(self, before: Side, after: Side, max_examples: int = 3) -> None:
        self._before, self._after = before, after
        self._rebuilder = Rebuilder()
        self.tally = Tally(max_examples)

    async def take(self, record: DecisionRecord, counted: bool = True) -> None:
        """See a record; one that is not ``counted`` only tells what later ones refer to."""
        if counted:
            self.tally.decisions += 1
            self.tally.first, self.tally.last = self.tally.first or record.time, record.time
            if not any(step.guard == POLICY_GUARD for step in record.trail):
                self.tally.unasked += 1
        for asked in self._rebuilder.feed(record, counted):
            await self._judge(asked)

    async def finish(self) -> Tally:
        """Judge what still waits for the rest of its turn."""
        for asked in self._rebuilder.finish():
            await self._judge(asked)
        return self.tally

    async def _judge(self, asked: Asked) -> None:
        record = asked.record
        before, after = await self._before.judge(asked), await self._after.judge(asked)
        self.tally.take(record, compared(before, after), before, after)
        if record.policy_revision == self._before.engine.revision and not before.missing:
            step = next(step for step in record.trail if step.guard == POLICY_GUARD)
            self.tally.check(record, step, before)


def compared(before: Judgement, after: Judgement) -> Outcome:
    """How the second differs from the first."""
    return "indeterminate" if before.missing or after.missing else compare(before.stand, after.stand)


def _example(
    record: DecisionRecord, roles: Sequence[str], change: Outcome, before: Judgement, after: Judgement
) -> Example:
    who: Mapping[str, Any] = record.principal
    return Example(
        change=change,
        decision_id=record.decision_id,
        time=record.time,
        principal=str(who.get("id", "")),
        roles=roles,
        tool=record.tool,
        arguments=record.arguments_written,
        before=before.stand.effect,
        after=after.stand.effect,
        reasons_before=before.stand.reasons,
        reasons_after=after.stand.reasons,
        missing=tuple(dict.fromkeys((*before.missing, *after.missing)))[:10],
    )


def _any_item(pointer: str) -> str:
    return "/".join("*" if part.isdigit() else part for part in pointer.split("/")) or "(all of it)"
