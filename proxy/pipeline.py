"""Runs the guards over one call and makes its record: the only place that fails closed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Literal

from proxy.guards.base import Context, Guard, Situation, canonical
from proxy.guards.told import POLICY_FACT, Told
from proxy.model import Principal, ToolCall, ToolResult, dumps
from proxy.model.value import value
from proxy.ports import Sink, Unavailable
from proxy.record import DecisionRecord, Step, masked
from proxy.verdicts import Allow, Answer, Confirm, Deny, Effect, Reask, Refusal, Repair, Verdict

log = logging.getLogger("callgate.pipeline")

Capture = Literal["full", "digest", "off"]


@value(frozen=True, slots=True)
class Watched:
    """A guard and how its word counts."""

    guard: Guard
    mode: Literal["enforce", "shadow"] = "enforce"
    on_error: Literal["deny", "allow"] = "deny"


@value(frozen=True, slots=True)
class Ruling:
    """What becomes of one call."""

    call: ToolCall
    """The call as it may be forwarded."""
    verdict: Verdict
    decision_id: str
    mask: tuple[str, ...] = ()
    """What records must not show of its arguments."""

    @property
    def effect(self) -> Effect:
        return self.verdict.effect

    def result(self) -> ToolResult:
        """What the model is told where the call does not run."""
        if isinstance(self.verdict, (Refusal, Answer)):
            return ToolResult(self.call.id, self.verdict.content())
        raise TypeError(f"a call with the verdict {self.verdict.name} has no result")


@dataclass(slots=True)  # not frozen: there is one a call
class _Judged:
    """A call that the guards have spoken of, before its record."""

    call: ToolCall
    ruling: Ruling
    ctx: Context
    by: str | None
    trail: Sequence[Step]
    mask: tuple[str, ...]


class Pipeline:
    """Every call goes through here, once, and leaves one record."""

    def __init__(
        self,
        guards: Sequence[Watched],
        sink: Sink,
        *,
        policy_revision: Callable[[], str],
        config_digest: str,
        capture: Capture = "full",
        on_audit_failure: Literal["deny", "allow"] = "deny",
    ) -> None:
        self._guards = tuple(guards)
        self._sink = sink
        self._policy_revision = policy_revision
        self._config_digest = config_digest
        self._capture = capture
        self._on_audit_failure = on_audit_failure

    @property
    def guard_names(self) -> tuple[str, ...]:
        """The guards in the order in which they are asked, those that are only watched marked so."""
        return tuple(
            watched.guard.name if watched.mode == "enforce" else f"{watched.guard.name} (shadow)"
            for watched in self._guards
        )

    async def judge_turn(
        self, calls: Sequence[ToolCall], situation: Situation, alone: bool = True
    ) -> list[Ruling]:
        """Judge every call of a turn, and record of each what becomes of it beside the others.

        ``alone``: the turn is its answer's only choice. Then one call that waits for a person, or ends the
        turn, keeps the others from going on.
        """
        judged = [await self._judged(call, situation) for call in calls]
        if len(judged) == 1 and alone:
            return [self._record(judged[0])]
        fates = _fates([one.ruling.effect for one in judged], alone)
        rulings = [self._record(one, fate) for one, fate in zip(judged, fates, strict=True)]
        if any(fates) and any(r is not one.ruling for r, one in zip(rulings, judged, strict=True)):
            # What was recorded of the others is true only as long as the call that they wait with stands.
            return [_unrecorded(ruling) if ruling.effect is Effect.FORWARD else ruling for ruling in rulings]
        return rulings

    async def judge(self, call: ToolCall, situation: Situation) -> Ruling:
        """Judge a call, and record it as one that stands for itself."""
        return self._record(await self._judged(call, situation))

    async def _judged(self, call: ToolCall, situation: Situation) -> _Judged:
        """Ask the guards in their order; the first verdict that is neither Allow nor Repair decides."""
        ctx = Context(situation, situation.registry(call.name), situation.request.tools.get(call.name))
        current = call
        trail: list[Step] = []
        mask: tuple[str, ...] = ()
        outcome: Verdict = Allow()
        by: str | None = None
        for watched in self._guards:
            verdict, step = await _ask(watched, current, ctx)
            trail.append(step)
            mask += verdict.mask
            if verdict.cache_ttl_s is not None:
                ctx.cache_ttl_s = verdict.cache_ttl_s
            if step.shadow or (isinstance(verdict, Confirm) and _is_approved(current, situation)):
                continue
            if verdict.decisive:
                outcome, by = verdict, step.guard
                break
            if isinstance(verdict, Repair):
                outcome, by = verdict, step.guard
                current = current.with_arguments(verdict.arguments)
        outcome, by = _sound(current, outcome, by)
        ruling = Ruling(current, outcome, situation.new_decision_id(), mask)
        return _Judged(call, ruling, ctx, by, trail, mask)

    def refuse(self, call: ToolCall, situation: Situation, verdict: Refusal, by: str) -> Ruling:
        """Record a call that is dropped without asking the guards."""
        ctx = Context(situation, situation.registry(call.name), situation.request.tools.get(call.name))
        trail = [Step(by, verdict.name, 0, verdict.reasons)]
        ruling = Ruling(call, verdict, situation.new_decision_id())
        return self._record(_Judged(call, ruling, ctx, by, trail, ()))

    def _record(self, judged: _Judged, fate: _Fate | None = None) -> Ruling:
        """Write a call's record, with what its turn makes of it where that is not what was said of it."""
        call, ruling, ctx, mask = judged.call, judged.ruling, judged.ctx, judged.mask
        situation, verdict = ctx.situation, ruling.verdict
        effect, more = fate or (verdict.effect, ())
        forwarded = effect is Effect.FORWARD
        record = DecisionRecord(
            decision_id=ruling.decision_id,
            time=situation.time,
            trace_id=situation.trace_id,
            conversation_id=situation.conversation_id,
            principal=principal_fields(situation.principal),
            protocol=situation.request.protocol,
            model=situation.request.model,
            tool=call.name,
            call_id=call.id,
            arguments_written=self._captured(call, mask),
            arguments_forwarded=self._captured(ruling.call, mask) if forwarded else None,
            verdict=verdict.name,
            effect=effect.value,
            guard=judged.by,
            reasons=(*verdict.reasons, *more),
            trail=tuple(judged.trail),
            policy_revision=ctx.policy_revision or self._policy_revision(),
            config_digest=self._config_digest,
            facts=self._facts(call, ctx, mask),
        )
        try:
            self._sink.write(record)
        except Unavailable as exc:
            log.error("the decision on %s could not be recorded: %s", call.name, exc)
            if self._on_audit_failure == "deny" and not isinstance(verdict, Refusal):
                return _unrecorded(ruling)
        return ruling

    def _facts(self, call: ToolCall, ctx: Context, mask: tuple[str, ...]) -> Mapping[str, Any]:
        document = ctx.facts.get(POLICY_FACT)
        if document is None:
            return ctx.facts
        return {**ctx.facts, POLICY_FACT: Told(document, call, ctx.situation.batch, self._capture, mask)}

    def _captured(self, call: ToolCall, mask: tuple[str, ...]) -> Any:
        if self._capture == "off":
            return None
        # What has no reading cannot be masked by pointers: then all of it is.
        unread = masked(call.arguments_json, ("",)) if mask else call.arguments_json
        value = unread if call.arguments is None else masked(call.arguments, mask)
        if self._capture == "digest":
            return {"sha256": hashlib.sha256(dumps(value)).hexdigest()}
        return value


_Fate = tuple[Effect, tuple[str, ...]]

_HELD: _Fate = (Effect.HOLD, ("Another call of the turn waits for a person.",))
_STOPPED: _Fate = (Effect.SETTLE, ("Another call ended the turn.",))
_DROPPED: _Fate = (Effect.SETTLE, ("One of several choices cannot wait for a person.",))


def _fates(effects: Sequence[Effect], alone: bool) -> list[_Fate | None]:
    """What becomes of each call where that is not what was said of it."""
    if not alone:
        return [_DROPPED if effect is Effect.HOLD else None for effect in effects]
    if Effect.FINISH in effects:
        return [_STOPPED if effect in (Effect.FORWARD, Effect.HOLD) else None for effect in effects]
    if Effect.HOLD in effects:
        return [_HELD if effect is Effect.FORWARD else None for effect in effects]
    return [None] * len(effects)


def _unrecorded(ruling: Ruling) -> Ruling:
    """What cannot be recorded does not go on."""
    reason = "The audit log is unavailable, so no call can be allowed now."
    return Ruling(ruling.call, Deny(reasons=(reason,), retryable=True), ruling.decision_id)


async def _ask(watched: Watched, call: ToolCall, ctx: Context) -> tuple[Verdict, Step]:
    guard = watched.guard
    begun = perf_counter_ns()
    try:
        verdict = await guard.check(call, ctx)
    except Unavailable as exc:
        log.error("guard %r could not decide on %s: %s", guard.name, call.name, exc)
        verdict = _broken(watched)
    except Exception:
        # The one place: a guard that breaks must not open the door. The operator gets the cause.
        log.exception("guard %r failed on %s", guard.name, call.name)
        verdict = _broken(watched)
    micros = (perf_counter_ns() - begun) // 1000
    return verdict, Step(guard.name, verdict.name, micros, verdict.reasons, watched.mode == "shadow")


def _broken(watched: Watched) -> Verdict:
    if watched.on_error == "allow":
        return Allow(reasons=(f"guard {watched.guard.name} failed; on_error is allow",))
    return Deny(reasons=(f"The {watched.guard.name} guard is not available, so the call is denied.",))


def _sound(call: ToolCall, verdict: Verdict, by: str | None) -> tuple[Verdict, str | None]:
    """Whatever the guards and their modes: what has no single reading is never forwarded."""
    if call.fault is not None and verdict.effect is Effect.FORWARD:
        return Reask(reasons=(call.fault,)), "wire"
    return verdict, by


def _is_approved(call: ToolCall, situation: Situation) -> bool:
    """Whether a person approved exactly this call, with exactly these arguments."""
    approved = situation.approved
    return bool(approved) and (call.id, call.name, canonical(call.arguments)) in approved


def principal_fields(principal: Principal) -> dict[str, Any]:
    """The principal as records show it."""
    return {
        "id": principal.id,
        "roles": list(principal.roles),
        "tenant": principal.tenant,
        "kind": principal.kind,
    }
