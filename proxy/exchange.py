"""One client request: ask the provider, judge its calls, forward / settle / hold / finish, ask again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from time import perf_counter
from typing import Any

from proxy.approvals import Decided
from proxy.confirming import Confirming
from proxy.core import Core, Incoming, conversation_id
from proxy.delivery import Delivery
from proxy.guards.base import Learner, Refused, Situation
from proxy.journal import Journal
from proxy.model import Event, Failure, Request, ToolResult, Turn, Usage
from proxy.pipeline import Ruling
from proxy.ports import Ask, Downstream, Headers, Reply, Unavailable, UpstreamFailed
from proxy.record import Record
from proxy.settlements import Settlements
from proxy.verdicts import Break, Deny, Effect, Refusal
from proxy.wire.codec import BadRequest, Codec, Ending, IncompleteTurn, MalformedTurn

log = logging.getLogger("callgate.exchange")

ANSWER_NOW = (
    "No more tool calls are possible for this request. Answer the user now with what you have, "
    "and say plainly what could not be done."
)
NEVER_ASKED = ("upstream_unreachable", "model_not_found")
"""Failures before the provider could begin to work."""
# What providers answer to a request whose parts they do not know.
_NOT_UNDERSTOOD = frozenset({400, 422})
NOTHING_TO_SAY = "I could not complete this: the tool calls that it needs are not permitted or not possible."


class Exchange:
    """Serves one request; whatever happens, one record is left of it."""

    def __init__(self, core: Core, codec: Codec, incoming: Incoming, downstream: Downstream) -> None:
        self._core, self._codec, self._incoming = core, codec, incoming
        self._delivery = Delivery(codec, downstream)
        now = core.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._journal = Journal(now, incoming.trace_id, codec.protocol, incoming.principal, core.capture)
        self._settlements = Settlements(core.store, codec, incoming.principal, core.settled_ttl_s)
        self._confirming = Confirming(core.approvals, codec, core.caps, core.sink, self._journal)
        self._hidden: list[tuple[Turn, Sequence[ToolResult]]] = []
        self._told: list[str] = []
        """The ids of the turns that the client heard of."""

    async def run(self) -> None:
        """Answer the client. Nothing but a cancellation is raised."""
        journal = self._journal
        try:
            await self._serve()
        except BadRequest as exc:
            await self._fail("refused", 400, "invalid_request", exc.message, exc.param)
        except Refused as exc:
            retry = (("retry-after", f"{exc.retry_after_s:.0f}"),) if exc.retry_after_s is not None else ()
            await self._fail("refused", exc.status, exc.code, exc.message, exc.param, retry)
        except UpstreamFailed as exc:
            await self._fail("upstream_error", exc.status, exc.code, exc.message)
        except MalformedTurn as exc:
            code = "upstream_incomplete" if isinstance(exc, IncompleteTurn) else "upstream_malformed"
            message = f"The provider's answer could not be used: {exc}. No tool call was released."
            await self._fail("upstream_error", 502, code, message)
        except ConnectionError:
            journal.outcome, journal.error = "cancelled", "the client went away"
        except Exception:
            log.exception("exchange %s failed", self._incoming.trace_id)
            await self._fail("failed", 500, "internal_error", "Callgate could not handle this request.")
        except BaseException:
            journal.outcome = "cancelled"
            raise
        finally:
            self._leave_record()

    # -- the rounds -----------------------------------------------------------------------------

    async def _serve(self) -> None:
        came = self._journal.request = self._codec.read(self._incoming.raw)
        request, self._journal.restored = await self._settlements.restore(came)
        situation = self._situation(request)
        if request is not came:
            situation.sent = frozenset(result.call_id for result in came.results)
        decided = await self._confirming.answered(situation)
        # Judged is against what the model is shown: a tool that was taken out is an unknown one.
        request = situation.request = await self._admit(request, situation)
        reservation = await self._core.meter.open(situation) if self._core.meter else None
        try:
            await self._rounds(request, situation, decided)
        finally:
            if self._core.meter is not None:
                journal = self._journal
                await self._core.meter.close(reservation, journal.spent, situation, journal.broken_off)

    async def _rounds(self, asked: Request, situation: Situation, decided: Decided | None) -> None:
        """Ask and judge until there is an answer for the client."""
        finishing = False
        replay: Reply | None = None
        if decided is not None and decided.approved:
            self._confirming.approve(situation, decided)
            replay = self._confirming.replay(decided, asked.stream)
        elif decided is not None:
            held_turn = self._confirming.held_turn(decided)
            results = self._declined(held_turn, situation)
            self._hidden.append((held_turn, results))
            asked = self._codec.extend(asked, held_turn, results, relax=True)
        while True:
            turn = await self._ask(asked, finishing, replay)
            if turn is None:
                return
            replay = None
            self._told.append(turn.id)
            rulings = await self._judge(turn, situation, finishing)
            if (outcome := _outcome(asked, turn, rulings, finishing)) is not None:
                return await self._release(asked, turn, rulings, outcome)
            effects = {ruling.effect for ruling in rulings}
            if Effect.HOLD in effects and Effect.FINISH not in effects:
                held = await self._hold(asked, turn, rulings, situation)
                if held is None:
                    return
                if held.approved:
                    self._confirming.approve(situation, held)
                    replay = self._confirming.replay(held, self._delivery.streaming)
                else:
                    asked = await self._settle(asked, turn, self._declined(turn, situation), relax=True)
                continue
            finishing = Effect.FINISH in effects or len(self._hidden) >= self._core.max_rounds
            results = [_settled(ruling) for ruling in rulings]
            asked = await self._settle(asked, turn, results, relax=_refused_for_good(rulings))
            if finishing:
                asked = self._codec.forbid_tools(asked, ANSWER_NOW)

    async def _settle(
        self, asked: Request, turn: Turn, results: Sequence[ToolResult], relax: bool
    ) -> Request:
        """Hide a turn from the client; the request that asks again, with its results."""
        self._hidden.append((turn, results))
        await self._delivery.settle(turn)
        return self._codec.extend(asked, turn, results, relax=relax)

    async def _ask(self, request: Request, finishing: bool, replay: Reply | None) -> Turn | None:
        """One round; None where the provider's answer was already passed on as it was."""
        journal = self._journal
        journal.rounds += replay is None
        journal.asked_model = request.model
        # Until the answer has been read to its end, or it is known that there is none.
        journal.broken_off = replay is None
        began = perf_counter()
        ask = Ask(self._incoming.path, request.raw, self._incoming.headers, request.model)
        answer: AbstractAsyncContextManager[Reply] = (
            nullcontext(replay) if replay is not None else self._core.upstream.ask(ask)
        )
        try:
            async with answer as reply:
                if 200 <= reply.status < 300:
                    return await self._read(reply, request, replay is None)
                journal.broken_off = False
                may_flatten = finishing and reply.status in _NOT_UNDERSTOOD
                flat = self._codec.flattened(request) if may_flatten else None
                if flat is None:
                    await self._refused(reply, finishing)
                    return None
        except UpstreamFailed as exc:
            if exc.code in NEVER_ASKED:
                journal.broken_off = False
            raise
        finally:
            journal.upstream_s += perf_counter() - began
        return await self._ask(flat, finishing, None)

    async def _read(self, reply: Reply, asked: Request, fresh: bool) -> Turn | None:
        """Pass on what carries no call; the turn at its clean end, None where the provider failed in-band.

        ``fresh``: the provider had to read ``asked`` for it.
        """
        delivery = self._delivery
        unkept = asked.resumable
        await delivery.begin(reply)
        decoder = self._codec.decoder(delivery.streaming, self._core.caps)
        events: Sequence[Event]
        async for chunk in reply.chunks():
            for event in decoder.feed(chunk):
                if isinstance(event, Failure):
                    await self._failed(event)
                    return None
                if unkept:
                    unkept = not await self._settlements.begin(asked, self._hidden, event, self._ending())
                await delivery.passage(event)
            if decoder.holding:
                delivery.hold()
            if decoder.done:
                break
        events, turn = decoder.close()
        for event in events:
            if isinstance(event, Failure):
                await self._failed(event)
                return None
            await delivery.passage(event)
        self._journal.take_usage(turn.usage, _estimate(asked.raw, turn) if fresh else Usage())
        await reply.drain()
        return turn

    async def _failed(self, failure: Failure) -> None:
        """The provider ended its answer in an error of its own."""
        self._journal.outcome, self._journal.error = "upstream_error", failure.message
        await self._delivery.raw(failure.raw)

    async def _refused(self, reply: Reply, finishing: bool) -> None:
        """The provider gave a status and no answer."""
        journal, delivery = self._journal, self._delivery
        if finishing:
            journal.outcome = "finished"
            return await delivery.finish("" if delivery.said_text else NOTHING_TO_SAY)
        if delivery.streaming:
            message = f"The provider answered {reply.status} when it was asked again."
            raise UpstreamFailed(502, "upstream_refused", message)
        journal.outcome, journal.error = "upstream_error", f"status {reply.status}"
        await delivery.refused(reply)

    # -- judging --------------------------------------------------------------------------------

    def _situation(self, request: Request) -> Situation:
        """What the calls of this request have in common. The client's own request counts, as restored."""
        principal = self._incoming.principal
        self._journal.request = request
        self._journal.conversation_id = conversation_id(principal, request.history.opening)
        return Situation(
            principal=principal,
            request=request,
            trace_id=self._incoming.trace_id,
            conversation_id=self._journal.conversation_id,
            time=self._journal.time,
            registry=self._core.registry().get,
            admission=self._journal.admission,
        )

    async def _admit(self, request: Request, situation: Situation) -> Request:
        """Ask the gates, and learn from the results that came with the request as they left them."""
        for gate in self._core.gates:
            request = await gate.admit(request, situation)
        if self._core.learners and (fresh := request.history.fresh):
            # Of a call that only the provider remembers, the request holds no more than the result.
            brought = {result.call_id: result.content for result in request.results}
            results = [
                call if call.result is not None else replace(call, result=brought.get(call.id))
                for call in request.history.calls
                if call.id in fresh
            ]
            for learner in self._core.learners:
                await self._learn(learner, results, situation)
        return request

    async def _learn(self, learner: Learner, results: Sequence[Any], situation: Situation) -> None:
        try:
            await learner.learn(results, situation)
        except Unavailable as exc:
            log.warning("nothing was learned from %d results: %s", len(results), exc)

    async def _judge(self, turn: Turn, situation: Situation, finishing: bool) -> list[Ruling]:
        if not turn.slots:
            return []
        began = perf_counter()
        pipeline = self._core.pipeline
        situation.begin_turn(turn.calls, self._hidden)
        if finishing:
            enough = Break(reasons=("Tools were turned off for the final answer.",))
            rulings = [pipeline.refuse(call, situation, enough, "rounds") for call in turn.calls]
        else:
            alone = max(situation.request.choices, turn.choices) == 1
            rulings = await pipeline.judge_turn(turn.calls, situation, alone)
        self._journal.decisions += [ruling.decision_id for ruling in rulings]
        self._journal.judging_s += perf_counter() - began
        return rulings

    # -- people ---------------------------------------------------------------------------------

    async def _hold(
        self, asked: Request, turn: Turn, rulings: Sequence[Ruling], situation: Situation
    ) -> Decided | None:
        """Ask a person; what was decided while the answer was held open, or None once it has ended."""
        self._delivery.hold()
        ticket, decided = await self._confirming.ask(turn, rulings, situation)
        if decided is None:
            waiting = Refusal(type="waiting", reasons=("It waits for a person's confirmation.",)).content()
            results = [ToolResult(call.id, waiting) for call in turn.calls]
            question = self._spaced(turn, ticket.question)
            # What the client reads as the answer: with it, later requests tell what was asked.
            told = replace(turn, text=turn.text + question)
            none_runs = (None,) * len(rulings)
            ending = self._ending(none_runs, {0: question})
            await self._settlements.keep(asked, self._hidden, told, results, ending)
            self._journal.outcome = "held"
            await self._delivery.release(turn, none_runs, {0: question})
        return decided

    def _spaced(self, turn: Turn, question: str) -> str:
        return f"\n\n{question}" if self._delivery.said_text or turn.text else question

    def _declined(self, turn: Turn, situation: Situation) -> list[ToolResult]:
        """What the model is told of a turn that a person declined."""
        no = Deny(type="declined", reasons=("The user declined this call.",))
        situation.begin_turn(turn.calls, self._hidden)
        rulings = [self._core.pipeline.refuse(call, situation, no, "approvals") for call in turn.calls]
        self._journal.decisions += [ruling.decision_id for ruling in rulings]
        return [ruling.result() for ruling in rulings]

    # -- the end --------------------------------------------------------------------------------

    async def _release(self, asked: Request, turn: Turn, rulings: Sequence[Ruling], outcome: str) -> None:
        """End the answer with the calls that may run; keep what the client does not see."""
        self._journal.outcome = outcome
        arguments = [r.call.arguments_json if r.effect is Effect.FORWARD else None for r in rulings]
        settled: list[ToolResult] = []
        notices: dict[int, str] = {}
        if None in arguments:
            settled = [_settled(ruling) for ruling in rulings if ruling.effect is not Effect.FORWARD]
            notices = self._notices(turn, rulings)
        status = self._status(turn, rulings) if self._core.status else ""
        ending = self._ending(arguments, notices, status)
        await self._settlements.keep(asked, self._hidden, turn, settled, ending)
        await self._delivery.release(turn, arguments, notices, status)

    def _ending(
        self,
        arguments: Sequence[str | None] = (),
        notices: Mapping[int, str] | None = None,
        status: str = "",
    ) -> Ending:
        return Ending(tuple(self._told), arguments, notices or {}, status)

    def _status(self, turn: Turn, rulings: Sequence[Ruling]) -> str:
        """What the user is told of the calls that will run, in one choice's words."""
        registry = self._core.registry()
        forwarded = [ruling.call.name for ruling in rulings if ruling.effect is Effect.FORWARD]
        lines = dict.fromkeys(spec.status for name in forwarded if (spec := registry.get(name)))
        lines.pop("", None)
        return self._spaced(turn, "\n".join(lines)) if lines and turn.choices == 1 else ""

    def _notices(self, turn: Turn, rulings: Sequence[Ruling]) -> dict[int, str]:
        """Words for the choices that are left without a call and cannot be asked again."""
        notices: dict[int, list[str]] = {}
        for slot, ruling in zip(turn.slots, rulings, strict=True):
            if ruling.effect is not Effect.FORWARD:
                notices.setdefault(slot.choice, []).extend(ruling.verdict.reasons)
        if self._journal.outcome == "finished":
            silent = not (self._delivery.said_text or turn.text)
            return dict.fromkeys(notices, NOTHING_TO_SAY) if silent else {}
        return {choice: " ".join(dict.fromkeys(reasons)) for choice, reasons in notices.items()}

    async def _fail(
        self,
        outcome: str,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: Headers = (),
    ) -> None:
        self._journal.outcome, self._journal.error = outcome, message
        try:
            await self._delivery.fail(status, code, message, param, headers)
        except ConnectionError:
            self._journal.outcome = "cancelled"

    def _leave_record(self) -> None:
        journal, delivery = self._journal, self._delivery
        cost_usd = None
        if journal.usage is not None:
            cost_usd = self._core.cost_usd(journal.asked_model, journal.usage)
        try:
            record = journal.record(delivery.status, delivery.first_byte_s, cost_usd)
        except Exception:
            # What could not be read while it was served cannot be read for its record either.
            log.exception("the request of exchange %s could not be read", self._incoming.trace_id)
            journal.request = None
            record = journal.record(delivery.status, delivery.first_byte_s, cost_usd)
        self._write(record)

    def _write(self, record: Record) -> None:
        try:
            self._core.sink.write(record)
        except Unavailable as exc:
            log.error("a record of exchange %s could not be kept: %s", self._incoming.trace_id, exc)


def _outcome(asked: Request, turn: Turn, rulings: Sequence[Ruling], finishing: bool) -> str | None:
    """What the answer comes to where this turn ends it; None where a person or the model is asked."""
    effects = {ruling.effect for ruling in rulings}
    if finishing:
        return "finished"
    if effects <= {Effect.FORWARD}:
        return "forwarded" if rulings else "answered"
    # One of several choices cannot be asked again.
    alone = max(asked.choices, turn.choices) == 1
    waits = bool(effects & {Effect.HOLD, Effect.FINISH})
    return None if alone and (waits or Effect.FORWARD not in effects) else "mixed"


def _estimate(asked: bytes, turn: Turn) -> Usage:
    """A turn's tokens where the provider does not say: about one in four characters."""
    said = len(turn.text) * max(turn.choices, 1) + sum(
        len(call.name) + len(call.arguments_json) for call in turn.calls
    )
    return Usage(len(asked) // 4 + 1, said // 4 + 1)


def _settled(ruling: Ruling) -> ToolResult:
    """A result for every call of a turn that is settled as a whole, those that might have run too."""
    if ruling.effect in (Effect.FORWARD, Effect.HOLD):
        skipped = Refusal(type="not_executed", reasons=("Not executed.",))
        return ToolResult(ruling.call.id, skipped.content())
    return ruling.result()


def _refused_for_good(rulings: Sequence[Ruling]) -> bool:
    """Whether forcing the model to call again would only repeat what cannot pass."""
    return any(isinstance(r.verdict, Refusal) and not r.verdict.retryable for r in rulings)
